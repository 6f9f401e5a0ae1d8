package crashfs

import (
	"errors"
	"fmt"
)

// Kind is what an operation does.
type Kind string

// The operations that change something, and so have an index.
const (
	Create      Kind = "create" // also OpenReadWrite of what is not there
	Write       Kind = "write"  // also WriteAt
	Preallocate Kind = "preallocate"
	Sync        Kind = "sync"
	SyncData    Kind = "syncdata"
	SyncTo      Kind = "syncto"
	SyncDir     Kind = "syncdir" // Sync or SyncData of a directory
	Rename      Kind = "rename"
	Reuse       Kind = "reuse" // ReuseForWrite
	Link        Kind = "link"
	Remove      Kind = "remove"
	RemoveAll   Kind = "removeall"
	MkdirAll    Kind = "mkdirall" // that makes something
	Lock        Kind = "lock"
)

// Op is one operation.
type Op struct {
	Index  int // 1 is the first; 0 for Delay, since it has no place yet
	Kind   Kind
	Path   string // without a leading slash, "." is the root; of an open file: its name by the last creation or rename
	To     string // the new name, for Rename, Reuse and Link
	Offset int64  // for Write and Preallocate
	Bytes  int64  // for Write, Preallocate and SyncTo; for Sync and SyncData: what was written since the last

	node *node // for syncs
}

func (o Op) String() string {
	line := fmt.Sprintf("%d %s %s", o.Index, o.Kind, o.Path)
	switch o.Kind {
	case Rename, Reuse, Link:
		return line + " to " + o.To
	case Write, Preallocate:
		return fmt.Sprintf("%s at %d, %d bytes", line, o.Offset, o.Bytes)
	case Sync, SyncData, SyncTo:
		return fmt.Sprintf("%s, %d bytes", line, o.Bytes)
	}
	return line
}

// forgets tells whether a failure of the operation may make pages clean.
func (k Kind) forgets() bool { return k == Sync || k == SyncData || k == SyncDir }

// Forget is for Before to return: the sync fails with err, and what it should
// have made durable counts as clean. It can be read until a crash and is gone
// after that, whatever is synced later. Another operation is just refused.
func Forget(err error) error { return &forgotten{err} }

type forgotten struct{ error }

func (f *forgotten) Unwrap() error { return f.error }

func isForgotten(err error) bool {
	var f *forgotten
	return errors.As(err, &f)
}

// done is an operation and how it ended.
type done struct {
	op  Op
	end string // "" for well
}

func (d done) String() string { return d.op.String() + d.end }
