// Package registry holds what the mesh knows: services, their instances, and
// the revision at which each fact became true.
//
//	Registration ─ validate ─ Replicator.Propose ─▶ log ─▶ Machine.Apply ─▶ engine
//	                                                             │ Publish
//	                     Service, List, Get ◀── published state ─┴─▶ ring ─▶ Watch.Next
//
// It knows no network, no Raft and no Envoy. Commands come in through Registry,
// are replicated by a Replicator, and change state only in Machine.Apply, which
// has no clock of its own: the same log gives the same state on every member.
//
// What it promises:
//
//   - A write that was refused has changed nothing, and the error names every
//     field that was wrong.
//   - Readers and watchers see whole revisions only, in order, and a watcher
//     that has fallen too far behind is told so instead of missing a change.
//   - A lease never ends early: a renewal that was acknowledged counts from the
//     moment it arrived, across pauses of the leader and changes of leader.
//   - A plain renewal never enters the log.
//   - An instance that was registered with a lease token is changed only by who
//     presents it, or by who is not asked: see Holder.
//
// What it never does: it does not probe instances, resolve host names, or decide
// what a proxy is sent.
package registry
