// Command stellmapctl is the operator's hand on a StellMap region: it looks at
// members, services and instances, registers and deregisters, prints the bootstrap
// of an Envoy, and saves backups.
//
// It speaks /api/v2 over HTTP, and the administration's /admin/v1 for backups.
// It opens no file but those of snapshot and debug, which look at backups and
// data directories offline, keeps no state between two calls, and never tries a
// write a second time by itself: what may or may not have happened is told, not
// hidden. Only register --keep goes on until a signal, since renewing a lease is
// its purpose.
//
// What a person reads goes to stdout, what went wrong to stderr, and the exit
// code says which kind of wrong it was. With -o json both are JSON.
//
//	main.go       the process: arguments in, exit code out
//	command.go    the commands' common ground: global flags, from error to exit code
//	failure.go    what went wrong: what, which object, why, what next
//	client.go     one call to the server, and what its answer means
//	api.go        the server's JSON
//	output.go     one answer as a table, JSON, YAML, lines or names
//	status.go get.go register.go keep.go deregister.go bootstrap.go version.go  a command each
//	snapshot.go   backups: save one from a member, look at one, verify one
//	debug.go      every record of a log and every key of a state, offline
//	endpoint.go   what --addr, --label and the like may hold
package main
