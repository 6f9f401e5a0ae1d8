// Package simulate runs a whole cluster in one process and one thread, from one
// seed: real members, each with the real consensus.Group, log, snapshots and
// engine on disks that crash (storage/crashfs), and the registry on top.
//
//	seed ─▶ world: a heap of events, a clock, dice
//	          ├─▶ members   every thread of theirs takes turns: Threads.Park
//	          ├─▶ network   delays, loses, repeats, reorders, is cut
//	          ├─▶ faults    power cuts, kills, pauses, failing disks, clocks that jump
//	          ├─▶ clients   register, read, renew, watch; some of them die
//	          └─▶ checks    what every member applies and sends, and what clients were told
//
// A schedule has three parts. In the first there are faults and only safety is
// asked for. Then everything is healed, and the cluster has to be alive: a write
// goes through, watchers catch up, abandoned leases run out. At the end all
// members must hold the same, and all histories are looked at.
//
// A scene (scene_test.go) is a schedule with a plot in place of faults by chance, so
// that it can be said what must come about, and until when.
//
// The same seed makes the same schedule: TestASeedIsOneSchedule. Pebble has
// goroutines of its own; its files lie on a disk of their own, and nothing of
// what it does there is counted or timed.
//
// What is not simulated: the gRPC transport, HTTP and xDS, and the exact files
// of Pebble after a crash. All of it is for tests.
package simulate
