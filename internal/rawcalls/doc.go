// Package rawcalls calls the methods of gRPC services with whatever bytes there are, as somebody
// could who keeps to no description of them. It is for fuzz targets; the product does not
// import it.
package rawcalls
