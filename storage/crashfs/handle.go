package crashfs

import (
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// handle is an open file or directory. It stays with its node when names change.
type handle struct {
	fs    *FS
	node  *node
	name  string // it was opened by
	write bool

	// fs.mu guards what follows.
	pos    int64
	closed bool
}

var _ vfs.File = (*handle)(nil)

// open makes a handle. f.mu is held.
func (f *FS) open(n *node, name string, write bool) *handle {
	n.handles++
	return &handle{fs: f, node: n, name: name, write: write}
}

func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return h.wrong("close", fs.ErrClosed)
	}
	h.closed = true
	h.node.handles--
	h.fs.free(h.node)
	return nil
}

func (h *handle) Read(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.read(p, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *handle) ReadAt(p []byte, offset int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.read(p, offset)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (h *handle) read(p []byte, offset int64) (int, error) {
	switch {
	case h.closed:
		return 0, h.wrong("read", fs.ErrClosed)
	case h.node.dir:
		return 0, h.wrong("read", syscall.EISDIR)
	case offset < 0:
		return 0, h.wrong("read", syscall.EINVAL)
	case len(p) == 0:
		return 0, nil
	}
	n := h.node.now.readAt(p, offset)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	return h.writeFrom(p, &h.pos)
}

func (h *handle) WriteAt(p []byte, offset int64) (int, error) {
	return h.writeFrom(p, &offset)
}

// writeFrom writes at an offset and moves it on.
func (h *handle) writeFrom(p []byte, offset *int64) (n int, err error) {
	err = h.fs.perform(func() (Op, error) {
		if err := h.mayWrite(Write, *offset); err != nil {
			return Op{}, err
		}
		if len(p) == 0 {
			return Op{}, errNothing
		}
		return Op{Kind: Write, Path: h.node.path(), Offset: *offset, Bytes: int64(len(p))}, nil
	}, func(op Op) error {
		// The handle may have moved on since the look, if two write with it.
		fit, err := h.fs.take(h.node, op.Offset+op.Bytes, op.Bytes)
		if n = int(fit); n > 0 {
			h.node.write(p[:n], op.Offset)
			h.node.changed = len(h.fs.story)
			*offset = op.Offset + fit
		}
		return err
	})
	return n, err
}

func (h *handle) mayWrite(kind Kind, offset int64) error {
	switch {
	case h.closed:
		return h.wrong(kind, fs.ErrClosed)
	case !h.write || h.node.dir:
		return h.wrong(kind, syscall.EBADF)
	case offset < 0:
		return h.wrong(kind, syscall.EINVAL)
	}
	return nil
}

// Preallocate takes room without making the file longer.
func (h *handle) Preallocate(offset, length int64) error {
	return h.fs.perform(func() (Op, error) {
		if h.node.dir && !h.closed {
			return Op{}, errNothing
		}
		return Op{Kind: Preallocate, Path: h.node.path(), Offset: offset, Bytes: length}, h.mayWrite(Preallocate, offset)
	}, func(Op) error {
		if _, err := h.fs.take(h.node, offset+length, 0); err != nil {
			return err
		}
		h.node.reserved = max(h.node.reserved, offset+length)
		return nil
	})
}

func (h *handle) Sync() error     { return h.sync(Sync) }
func (h *handle) SyncData() error { return h.sync(SyncData) }

func (h *handle) sync(kind Kind) error {
	if h.node.dir {
		kind = SyncDir
	}
	return h.fs.perform(func() (Op, error) {
		if h.closed {
			return Op{}, h.wrong(kind, fs.ErrClosed)
		}
		return Op{Kind: kind, Path: h.node.path(), Bytes: h.node.unsyncedBytes, node: h.node}, nil
	}, func(Op) error {
		if h.node.dir {
			h.fs.syncNames(h.node)
		} else {
			h.node.sync()
		}
		return nil
	})
}

// SyncTo promises nothing, so it does nothing.
func (h *handle) SyncTo(length int64) (fullSync bool, err error) {
	return false, h.fs.perform(func() (Op, error) {
		switch {
		case h.closed:
			return Op{}, h.wrong(SyncTo, fs.ErrClosed)
		case h.node.dir:
			return Op{}, errNothing
		}
		return Op{Kind: SyncTo, Path: h.node.path(), Bytes: length}, nil
	}, func(Op) error { return nil })
}

func (h *handle) Stat() (vfs.FileInfo, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return nil, h.wrong("stat", fs.ErrClosed)
	}
	return infoOf(h.node, h.name), nil
}

func (h *handle) Prefetch(_, _ int64) error { return nil }
func (h *handle) Fd() uintptr               { return vfs.InvalidFd }

func (h *handle) wrong(kind Kind, err error) error { return pathError(kind, h.name, err) }

// info describes a node as it was.
type info struct {
	name    string
	size    int64
	dir     bool
	changed time.Time
}

func infoOf(n *node, name string) info {
	return info{path.Base(name), n.now.size, n.dir, n.modTime()}
}

func (i info) Name() string           { return i.name }
func (i info) Size() int64            { return i.size }
func (i info) IsDir() bool            { return i.dir }
func (i info) ModTime() time.Time     { return i.changed }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
