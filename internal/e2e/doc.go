// Package e2e tests the built binaries with real processes, disks and sockets:
// the demo's path through a real Envoy, three members with a leader that is
// killed, crashes under load, emptied data folders, bad configuration, and the
// order of system calls behind an acknowledgement. It has no code but tests.
//
//	make e2e
//
//	harness_test.go  starting members, calling them, waiting
//	writers_test.go  a load whose acknowledgements are remembered and checked
//
// A full disk is a tmpfs, for which a test must be root; -fills n fills it n times.
// With CI set, a test that lacks Envoy or strace fails; else it is skipped with
// the reason. SEED=n repeats the random choices of a run.
package e2e
