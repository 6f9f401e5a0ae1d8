// Package peer carries the messages of consensus between members by gRPC.
//
// Each target has one goroutine, one bounded queue and one connection, so a
// peer that is stuck costs its own queue and nothing else. What waits goes out
// in one message of the stream; what does not fit is dropped and counted, since
// Raft sends again and an old message is worth nothing.
//
// Nothing is said to, or taken from, a member before both sides have accepted
// each other's introduction: cluster, first members, incarnation, and the UUID
// of the data directory, which is bound to the node id for ever.
//
// The package does not look into what it carries, and knows neither Raft nor
// the registry.
package peer
