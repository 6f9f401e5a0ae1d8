package crashfs

import (
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var _ vfs.FS = (*FS)(nil)

// Create makes a new file. One that has the name already loses it.
func (f *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	var at place
	var old *node
	var h *handle
	err := f.perform(func() (Op, error) {
		var err error
		at, old, err = f.placeOfFile(name)
		return Op{Kind: Create, Path: clean(name)}, pathError(Create, name, err)
	}, func(Op) error {
		h = f.open(f.create(at, old), name, true)
		return nil
	})
	return orNil(h, err)
}

// create makes a file in the place of the old one, if there is one.
func (f *FS) create(at place, old *node) *node {
	if old != nil {
		f.change(change{node: old, from: at})
	}
	return f.add(at, false)
}

// placeOfFile is place for what must not be a directory.
func (f *FS) placeOfFile(name string) (place, *node, error) {
	at, n, err := f.place(name)
	if err == nil && n != nil && n.dir {
		err = syscall.EISDIR
	}
	return at, n, err
}

// Open opens a file or directory for reading.
func (f *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f.mu.Lock()
	n, err := f.find(name)
	if err != nil {
		f.mu.Unlock()
		return nil, pathError("open", name, err)
	}
	h := f.open(n, name, false)
	f.mu.Unlock()
	for _, o := range opts {
		o.Apply(h)
	}
	return h, nil
}

// OpenDir opens a directory for syncing.
func (f *FS) OpenDir(name string) (vfs.File, error) { return f.Open(name) }

// OpenReadWrite opens a file as it is, or makes it.
func (f *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	var at place
	var h *handle
	err := f.perform(func() (Op, error) {
		var n *node
		var err error
		at, n, err = f.placeOfFile(name)
		if err == nil && n != nil {
			h = f.open(n, name, true)
			return Op{}, errNothing
		}
		return Op{Kind: Create, Path: clean(name)}, pathError(Create, name, err)
	}, func(Op) error {
		h = f.open(f.add(at, false), name, true)
		return nil
	})
	if err == nil {
		for _, o := range opts {
			o.Apply(h)
		}
	}
	return orNil(h, err)
}

// ReuseForWrite renames a file and opens it for writing from its start, with
// the bytes that it has.
func (f *FS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	var c change
	var h *handle
	err := f.perform(func() (Op, error) {
		var err error
		c, err = f.lookRename(oldname, newname)
		if err == nil && c.node.dir {
			err = syscall.EISDIR
		}
		return Op{Kind: Reuse, Path: clean(oldname), To: clean(newname)}, linkError(Reuse, oldname, newname, err)
	}, func(Op) error {
		if c.to.dir.names[c.to.base] != c.node {
			f.change(c)
		}
		h = f.open(c.node, newname, true)
		return nil
	})
	return orNil(h, err)
}

// Rename gives a file or directory another name.
func (f *FS) Rename(oldname, newname string) error {
	var c change
	return f.perform(func() (Op, error) {
		var err error
		c, err = f.lookRename(oldname, newname)
		if err == nil && c.to.dir.names[c.to.base] == c.node {
			return Op{}, errNothing // two names of one file: POSIX leaves both
		}
		return Op{Kind: Rename, Path: clean(oldname), To: clean(newname)}, linkError(Rename, oldname, newname, err)
	}, func(Op) error {
		f.change(c)
		return nil
	})
}

func (f *FS) lookRename(oldname, newname string) (change, error) {
	from, n, err := f.place(oldname)
	if err != nil {
		return change{}, err
	}
	if n == nil {
		return change{}, syscall.ENOENT
	}
	to, old, err := f.place(newname)
	if err != nil {
		return change{}, err
	}
	c := change{node: n, from: from, to: to}
	switch {
	case old == n || old == nil && !n.dir:
	case old != nil && old.dir && !n.dir:
		err = syscall.EEXIST
	case old != nil && !old.dir && n.dir:
		err = syscall.ENOTDIR
	case n.dir && holds(visible, n, to.dir):
		err = syscall.EINVAL
	case old != nil && len(old.names) > 0:
		err = syscall.ENOTEMPTY
	}
	return c, err
}

// Link gives a file one more name.
func (f *FS) Link(oldname, newname string) error {
	var c change
	return f.perform(func() (Op, error) {
		n, err := f.find(oldname)
		if err == nil && n.dir {
			err = syscall.EPERM
		}
		var to place
		var old *node
		if err == nil {
			to, old, err = f.place(newname)
		}
		if err == nil && old != nil {
			err = syscall.EEXIST
		}
		c = change{node: n, to: to}
		return Op{Kind: Link, Path: clean(oldname), To: clean(newname)}, linkError(Link, oldname, newname, err)
	}, func(Op) error {
		kept := c.node.in
		f.change(c)
		c.node.in = kept
		return nil
	})
}

// Remove removes a name of a file, or an empty directory. An open file stays
// until it is closed.
func (f *FS) Remove(name string) error {
	var c change
	return f.perform(func() (Op, error) {
		at, n, err := f.place(name)
		switch {
		case err != nil:
		case n == nil:
			err = syscall.ENOENT
		case len(n.names) > 0:
			err = syscall.ENOTEMPTY
		}
		c = change{node: n, from: at}
		return Op{Kind: Remove, Path: clean(name)}, pathError(Remove, name, err)
	}, func(Op) error {
		f.change(c)
		return nil
	})
}

// RemoveAll removes what has a name and all below it. It is one operation, but
// a crash may leave any part.
func (f *FS) RemoveAll(name string) error {
	var at place
	var n *node
	return f.perform(func() (Op, error) {
		var err error
		at, n, err = f.place(name)
		if err == syscall.ENOENT || err == nil && n == nil {
			return Op{}, errNothing
		}
		return Op{Kind: RemoveAll, Path: clean(name)}, pathError(RemoveAll, name, err)
	}, func(Op) error {
		f.removeTree(at, n)
		return nil
	})
}

// MkdirAll makes a directory and those above it. It is one operation, but a
// crash may leave only the upper ones.
func (f *FS) MkdirAll(name string, _ os.FileMode) error {
	return f.perform(func() (Op, error) {
		n, err := f.find(name)
		switch {
		case err == nil && n.dir:
			return Op{}, errNothing
		case err == nil:
			err = syscall.ENOTDIR
		case err == syscall.ENOENT && name != "":
			err = nil
		}
		return Op{Kind: MkdirAll, Path: clean(name)}, pathError(MkdirAll, name, err)
	}, func(op Op) error {
		at := f.root
		for _, base := range strings.Split(op.Path, "/") {
			next := at.names[base]
			if next == nil {
				next = f.add(place{at, base}, true)
			}
			at = next
		}
		return nil
	})
}

// Lock locks a file, which is made if it is not there and emptied if it is,
// until the closer is closed or the power is cut.
func (f *FS) Lock(name string) (io.Closer, error) {
	var at place
	var n *node
	err := f.perform(func() (Op, error) {
		var err error
		at, n, err = f.placeOfFile(name)
		if err == nil && n != nil && n.locked {
			err = syscall.EAGAIN
		}
		return Op{Kind: Lock, Path: clean(name)}, pathError(Lock, name, err)
	}, func(Op) error {
		if n == nil || n.now.size > 0 {
			n = f.create(at, n)
		}
		n.locked = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &lock{f, n}, nil
}

// lock is held as long as node is set.
type lock struct {
	fs   *FS
	node *node
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.node != nil {
		l.node.locked = false
		l.node = nil
	}
	return nil
}

// List is the names in a directory, sorted.
func (f *FS) List(name string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("list", name, err)
	}
	return slices.Sorted(maps.Keys(n.names)), nil
}

// Stat describes a file or directory.
func (f *FS) Stat(name string) (vfs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return infoOf(n, name), nil
}

// GetDiskUsage tells how full the disk is.
func (f *FS) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(name); err != nil {
		return vfs.DiskUsage{}, pathError("usage", name, err)
	}
	return vfs.DiskUsage{
		AvailBytes: uint64(max(0, f.space-f.used)),
		TotalBytes: uint64(f.space),
		UsedBytes:  uint64(f.used),
	}, nil
}

// PathBase is the last name of a path.
func (*FS) PathBase(name string) string { return path.Base(name) }

// PathJoin makes one path of several.
func (*FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir is a path without its last name.
func (*FS) PathDir(name string) string { return path.Dir(name) }

// Unwrap is nil: there is no file system inside.
func (*FS) Unwrap() vfs.FS { return nil }

func pathError(kind Kind, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: string(kind), Path: name, Err: err}
}

func linkError(kind Kind, oldname, newname string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: string(kind), Old: oldname, New: newname, Err: err}
}

// orNil keeps a nil *handle from becoming a File that is not nil.
func orNil(h *handle, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return h, nil
}
