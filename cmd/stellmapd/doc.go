// Command stellmapd is one member of a StellMap region: registry, Raft member
// and xDS server in one process.
//
// With no flags it is one safe node on loopback that keeps its data in
// ./stellmap-data. `stellmapd dev` is the same in a temporary folder, for
// trying things out. `stellmapd --config stellmapd.toml` is a member of a
// cluster.
//
// This package joins the rooms of the house and knows no rule of its own:
//
//	main.go     the process: arguments in, exit code out
//	command.go  the commands and what they print
//	config.go   one configuration from defaults < file < environment < flags
//	settings.go every key: its name, default and bounds
//	toml.go     where in the file each key stands, for error messages
//	node.go     one member: what is opened, in which order, and how it stops
//	listen.go   its ports
//	members.go  who the members are, for the transport and for callers
//	snapshot.go a backup of the state, for whoever asks on the admin port
//	restore.go  a new cluster from a backup
//	umask_*.go  what it writes is for its user alone
//	token.go    the administrator's token
//	gate.go     when new proxies are served
//	wire.go     registry ⇄ consensus, the only place that knows both
//	trace.go    spans on their way to a collector
//	banner.go   what a person sees first
package main
