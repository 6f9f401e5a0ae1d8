// Package consensus keeps one log identical on several members and feeds it to
// a Machine. What the commands mean is the Machine's business; to this package
// they are bytes.
//
//	Propose ─▶ owner ─▶ append (log, one sync for all that waits) ─▶ answers to peers
//	           │  ▲ └─▶ send   (never waits for a peer)
//	  Receive ─┘  └──── apply  (Machine.Apply → engine → Machine.Publish) ─▶ Propose returns
//
// One goroutine owns the Raft node. It never touches the disk and never waits:
// three executors do what takes time, in order, and tell it when it is done.
// When an executor's queue is at its limit the owner takes in less (proposals
// are refused, appends of the leader are dropped and sent again), so that
// heartbeats go on while a disk is slow.
//
// What it promises:
//
//   - A proposal that returned without an error is committed, synced by a
//     quorum and applied here.
//   - An error that does not say ErrUnknownOutcome means that nothing was done.
//   - A command with a request id is applied once, however often it is sent
//     while the id is remembered, and gets its first reply.
//   - Barrier returns after everything that was committed before the call.
//     The leader was confirmed by a quorum in a round begun after the call.
//   - A log entry that this version does not understand stops the member.
//   - A data directory that was emptied cannot vote again under its old id, and
//     an id that was removed is never taken in again.
//   - Members come and go while it runs, one change at a time, and never fewer
//     voters have to agree than before or after the change.
//
// It has no leases and reads no clock in Apply: time comes with the entry, from
// the leader's clock, and never falls. It never retries a failed write of the
// disk: Run returns the error and the process must end.
package consensus
