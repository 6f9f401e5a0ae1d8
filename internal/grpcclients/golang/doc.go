// Command golang is the Go client of the tests. It calls a target so many times a
// second and prints a line of JSON for each answer:
//
//	golang TARGET CALLS_A_SECOND
//
// GRPC_XDS_BOOTSTRAP names its bootstrap.
package main
