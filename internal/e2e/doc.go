// Package e2e tests the built binaries with real processes, disks and sockets:
// the demo's path through a real Envoy, three members with a leader that is
// killed, crashes under load, emptied data folders, bad configuration, and the
// order of system calls behind an acknowledgement. It has no code but tests.
//
//	make e2e
//
//	harness_test.go  starting members, calling them, waiting
//	writers_test.go  a load whose acknowledgements are remembered and checked
//	chaos_test.go    members that are killed, stopped and cut off under a load
//	faults_test.go   in which ways, lan_test.go a network of namespaces for it
//	lease_test.go    leases that run out, are revived, and outlast an outage of all;
//	                 protection_test.go when too many would run out
//	v1_test.go       the contract of the existing SDKs, on the wire; v1sdk_test.go what they do
//	failover_test.go regions whose instances fail, regionpair_test.go two of them, flow_test.go callers;
//	                 grpcregions_test.go gRPC clients in one of two regions
//	copycost_test.go what it costs to follow a region: -copied n of n instances
//	gateway_test.go  regions that reach each other by gateways
//	client_test.go   the SDK for Go: -down 60s has it without servers for that long
//	watchproperties_test.go  who watches, while members come and go; observer_test.go how,
//	                 seen_test.go what has to be told
//	attack_test.go   attacks on a member's sockets, attackhttp_test.go and attackhttp2_test.go which:
//	                 -attackers n and -idle n connections, -attack-for 5s each, which bounds the time of answers
//	load_test.go     what clients do, history_test.go whether they saw what may be
//
// A full disk is a tmpfs, for which a test must be root; -fills n fills it n times.
// So it must for namespaces; -kills n, -cuts n and -ops n make more of the chaos.
// With CI set, a test that lacks Envoy or strace fails; else it is skipped with
// the reason. SEED=n repeats the random choices of a run.
package e2e
