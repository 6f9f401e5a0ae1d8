package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// EngineView reads a state without changing a byte of its folder.
type EngineView struct {
	db *pebble.DB
	at Position
}

// OpenEngineReadOnly opens the state in a folder as it is on disk. Whoever
// writes to it meanwhile is not waited for: what is not flushed is not seen, and
// a file that is removed while it is read is an error.
func OpenEngineReadOnly(o EngineOptions) (*EngineView, error) {
	o = o.withDefaults()
	o.FS = readOnlyFS{o.FS}
	name, err := readCurrent(o.FS, o.Dir)
	if err == nil && name == "" {
		err = fmt.Errorf("%s: there is no state: %w", o.FS.PathJoin(o.Dir, currentFile), fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	db, err := pebble.Open(o.FS.PathJoin(o.Dir, name), &pebble.Options{
		FS: o.FS, Cache: cache, ReadOnly: true, ErrorIfNotExists: true, FormatMajorVersion: engineFormat,
		Logger: pebbleLogger{slog.New(slog.DiscardHandler), o.OnFatal},
	})
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	at, err := readApplied(db, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open engine: %w", err), db.Close())
	}
	return &EngineView{db, at}, nil
}

// Applied is the last entry in the state.
func (v *EngineView) Applied() Position { return v.at }

// Scan is Engine's.
func (v *EngineView) Scan(lo, hi []byte, fn func(key, value []byte) error) error {
	return scan(v.db, lo, hi, fn)
}

// Close ends the reading.
func (v *EngineView) Close() error { return v.db.Close() }

// LockDirForReading keeps other processes away from a data directory until the
// closer is closed, and makes no file: a directory that nobody has locked yet
// has no lock to take.
func LockDirForReading(disk vfs.FS, dir string) (io.Closer, error) {
	path := disk.PathJoin(dir, lockFile)
	found, err := exists(disk, path)
	if err != nil {
		return nil, fmt.Errorf("look for the lock of the data directory: %w", err)
	}
	if !found {
		return io.NopCloser(nil), nil
	}
	lock, err := disk.Lock(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s is in use by another process: %w", dir, err)
	}
	return lock, nil
}

// readOnlyFS refuses whatever would change the disk. A lock is granted: those
// that it would keep away do not change anything either.
type readOnlyFS struct{ vfs.FS }

var errReadOnly = fmt.Errorf("storage: opened for reading only: %w", fs.ErrPermission)

func (readOnlyFS) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, errReadOnly }
func (readOnlyFS) Link(string, string) error                              { return errReadOnly }
func (readOnlyFS) Remove(string) error                                    { return errReadOnly }
func (readOnlyFS) RemoveAll(string) error                                 { return errReadOnly }
func (readOnlyFS) Rename(string, string) error                            { return errReadOnly }
func (readOnlyFS) MkdirAll(string, os.FileMode) error                     { return errReadOnly }
func (readOnlyFS) Lock(string) (io.Closer, error)                         { return io.NopCloser(nil), nil }

func (readOnlyFS) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errReadOnly
}

func (readOnlyFS) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errReadOnly
}
