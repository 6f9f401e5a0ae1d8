// Package grpcclients runs gRPC clients that find their servers by xds:///, in
// four languages, and servers that say who they are, for the tests that need them:
// those of internal/e2e against real members, and those of xds with regions.
//
// A client is a program of a few lines in golang, java, node or python. It calls its
// target so many times a second and prints who answered. scripts/grpc-java,
// grpc-node and grpc-python get what they stand on; Go's is built here.
//
// It knows nothing of registries. The product does not import it.
package grpcclients
