// Package crashtest plays a member's storage on a disk that crashes, and looks
// at what is left. It is tests and nothing else.
//
//	model_test    what was asked of storage, and so what a crash may leave
//	member_test   a member: it opens, appends, syncs, applies, flushes, takes
//	              snapshots and cuts its log in the order in which a real one does
//	recover_test  opens what a crash left and holds it against the model
//	crash_test    a crash after every operation on the disk
//	eio_test      a sync that fails
//	damage_test   bits that turn and ends that are missing
//	mutant_test   the same with planted bugs, each of which has to be found
//
// What is checked is the same everywhere and knows nothing of any one bug: what
// was acknowledged is there, what is there was written, everything opens.
//
// The short form runs with `go test`; `make crash` runs all there is. A failure
// prints the command that plays the same crash again.
package crashtest
