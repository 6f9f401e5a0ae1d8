package storage

import (
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// haltFS is the disk as Pebble sees it: after the first error of it in the
// background nothing is changed any more. Pebble itself would go on, since it
// relies on its process to end at once: it would write behind a hole in its
// manifest, which a failed sync has left, and remove the tables that only the
// hole replaced.
type haltFS struct {
	vfs.FS
	broken *breakage
}

func (h haltFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file(func() (vfs.File, error) { return h.FS.Create(name, c) })
}

func (h haltFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return h.file(func() (vfs.File, error) { return h.FS.OpenReadWrite(name, c, o...) })
}

func (h haltFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file(func() (vfs.File, error) { return h.FS.ReuseForWrite(from, to, c) })
}

func (h haltFS) file(open func() (vfs.File, error)) (vfs.File, error) {
	if err := h.broken.ofDisk(); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return haltFile{f, h.broken}, nil
}

func (h haltFS) Link(from, to string) error {
	return h.broken.orElse(func() error { return h.FS.Link(from, to) })
}

func (h haltFS) Rename(from, to string) error {
	return h.broken.orElse(func() error { return h.FS.Rename(from, to) })
}

func (h haltFS) Remove(name string) error {
	return h.broken.orElse(func() error { return h.FS.Remove(name) })
}

func (h haltFS) RemoveAll(name string) error {
	return h.broken.orElse(func() error { return h.FS.RemoveAll(name) })
}

func (h haltFS) MkdirAll(dir string, mode fs.FileMode) error {
	return h.broken.orElse(func() error { return h.FS.MkdirAll(dir, mode) })
}

func (h haltFS) Unwrap() vfs.FS { return h.FS }

// haltFile is a file that is written.
type haltFile struct {
	vfs.File
	broken *breakage
}

func (f haltFile) Write(p []byte) (int, error) {
	if err := f.broken.ofDisk(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f haltFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.broken.ofDisk(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

func (f haltFile) Sync() error     { return f.broken.orElse(f.File.Sync) }
func (f haltFile) SyncData() error { return f.broken.orElse(f.File.SyncData) }

func (f haltFile) SyncTo(length int64) (bool, error) {
	if err := f.broken.ofDisk(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}
