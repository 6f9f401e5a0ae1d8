// Package crashfs is a file system in memory for tests. It is asked for a crash
// at any moment and then leaves as little as POSIX allows, the same for the
// same seed.
//
//	file       durable bytes + the writes since its last successful sync
//	directory  durable names + the changes of names since its last successful sync
//
// A sync of a file makes its bytes durable and not its name; a name, a new
// directory's too, is made durable by a sync of the directory that it is in. A
// rename is one change of two names, which the sync of either directory makes
// durable; with a change go those that it needs: a sync that keeps a rename
// keeps the creation of what was renamed.
//
// FS.Crash returns what a power cut at this moment leaves, as a new FS, and
// the old one goes on. FS.Before, FS.After and FS.Delay see each operation
// that changes something: they may refuse it, crash around it, or hold it up.
// Before may return Forget(EIO), and a sync fails as on Linux. FS.SetSpace
// makes the disk small. FS.Trace tells what was done.
//
// What a Random crash may do:
//
//   - Each unsynced write is kept, lost, or kept in any of its 512-byte sectors.
//     What is lost reads as before, or as zeros where nothing was; the length
//     may survive without the bytes. A later write may survive an earlier one,
//     even in the same sector.
//   - Each unsynced change of a name is kept or lost, whole, in order. A change
//     whose needs were lost is nothing: to remove or rename a name that is not
//     there or is another file's, to move it into a directory that is not
//     there, to remove a directory that is not empty, to put a file in a
//     directory's place or a directory inside itself.
//
// POSIX says nothing of the order in which names change on the disk. File
// systems with a journal keep it, and Pebble needs that: it makes a new marker
// and removes the old one before it syncs the directory, and opens an empty
// database if only the removal is left. For such programs a Journal crash keeps
// the first so many of the changes, all directories together; writes are as in a
// Random one. A Random crash may spare one directory in that way.
//
// What is not modelled: anything lost that a successful sync has covered, bit
// rot (tests change the bytes with ReadFile and WriteFile), permissions,
// symbolic links, the room that names and directories take, and the clock: a
// file was changed so many seconds after 1970 as operations were done before.
// SyncTo promises nothing and does nothing. All paths begin at the root, "a/b"
// and "/a/b" are the same.
//
// It is for the tests of storage and of those that stand on it. It knows
// nothing of them.
package crashfs
