// Package client is StellMap for programs in Go: it registers what a process serves
// and keeps it registered, and finds what others serve.
//
//	Register ─▶ Registered   one stream of renewals for all of them ─┐
//	Discover ─▶ Service      one watch each, kept in memory          ├─▶ one connection, to
//	            │   └ Picker weights, zones, states                  │   any of the servers
//	            └ Resolver   stellmap:///service for grpc-go        ─┘
//
// What it promises:
//
//   - What is registered stays so until it is deregistered, whatever happens to the
//     servers: leases are renewed three times in their TTL, at another server where
//     one fails, and an instance that the registry has lost is registered again.
//   - What was discovered is there as long as the process is. While no server is there
//     it is Stale, and no instance vanishes for it; after that the difference is told
//     as one change. With Config.Dir it outlives the process, too.
//   - Nobody who reads slowly is kept anything for: a reader is given the latest, and
//     what was between is not.
//   - Close ends everything that was begun, and waits for it.
//
// What it never does: it does not write to the standard output or keep settings of
// the environment; it calls nobody but the servers that it was given; and it does not
// judge names, which the registry does.
//
// A Client, and all that it gives, may be used by several goroutines at once.
package client
