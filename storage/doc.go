// Package storage keeps the bytes of one member so that they survive a crash.
//
//	Log        what Raft must not forget: entries and hard state     wal/*.wal
//	Engine     what the entries have made: the state, in Pebble      state/{n}/
//	Snapshots  the state of some moments, whole, in files            snapshot/*.snap
//	Space      what is free, and room for a start on a full disk     ballast
//	Identity   who this member is and whom it has met                identity.json
//
// The engine has no log of its own: the state, the applied index and its term
// change in one batch in memory and reach the disk by flushes. After a crash
// the entries above the flushed index are applied again from the Log, so the
// Log is kept back to there.
//
// Everything goes through a vfs.FS, so that the same code runs on a disk and
// on a file system that forgets what was not synced.
//
// An opened Log is a correct prefix of what was appended that holds all that
// was synced, or it is refused with segment and offset: storage repairs a torn
// tail and nothing else. An error of the disk is final; nothing is retried,
// since a failed fsync may have dropped the pages that a second one would
// report as written.
//
// The package knows no Raft and no registry: keys, values and entry payloads
// are bytes to it.
package storage
