package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// contentsOf are all files below a folder of the disk, with their times.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		all[path] = info.ModTime().Format(time.RFC3339Nano) + " " + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sameContents fails when a folder is not what it was.
func sameContents(t *testing.T, before, after map[string]string) {
	t.Helper()
	for path, data := range before {
		if after[path] != data {
			t.Errorf("%s has changed", path)
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s is new", path)
		}
	}
}

// A state is read without a byte being changed: closed in order, left by a
// crash, and while its owner has it open, which then goes on. What was flushed is
// seen.
func TestAViewChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	o := EngineOptions{FS: vfs.Default, Dir: dir}
	e, err := OpenEngine(o)
	check(err)
	put := func(index uint64) {
		b := e.NewBatch()
		b.Set(fmt.Appendf(nil, "key-%d", index), []byte("value"))
		check(e.Apply(b, Position{index, 3}))
	}
	put(5)
	check(e.Flush())
	put(6)

	look := func(want uint64) {
		t.Helper()
		before := contentsOf(t, dir)
		v, err := OpenEngineReadOnly(o)
		if err != nil {
			t.Fatal(err)
		}
		keys := 0
		err = v.Scan([]byte("key-"), nil, func(_, _ []byte) error { keys++; return nil })
		if err != nil || v.Applied() != (Position{want, 3}) || keys != int(want-4) {
			t.Errorf("the state at %v has %d keys, %v", v.Applied(), keys, err)
		}
		check(v.Close())
		sameContents(t, before, contentsOf(t, dir))
	}
	look(5)
	put(7)
	check(e.Close())
	look(7)
}

// A folder without a state is not made one.
func TestAViewOfNothing(t *testing.T) {
	dir := t.TempDir()
	for _, state := range []string{dir, filepath.Join(dir, "missing")} {
		if v, err := OpenEngineReadOnly(EngineOptions{FS: vfs.Default, Dir: state}); err == nil {
			check(v.Close())
			t.Errorf("%s was opened", state)
		}
	}
	if after := contentsOf(t, dir); len(after) != 0 {
		t.Errorf("it left %v", after)
	}
}

// The file system of a view refuses all that would change the disk.
func TestAViewsFileSystemRefusesChanges(t *testing.T) {
	inner := vfs.NewMem()
	disk := readOnlyFS{inner}
	_, create := disk.Create("a", vfs.WriteCategoryUnspecified)
	_, open := disk.OpenReadWrite("a", vfs.WriteCategoryUnspecified)
	_, reuse := disk.ReuseForWrite("a", "b", vfs.WriteCategoryUnspecified)
	for name, err := range map[string]error{
		"create": create, "open": open, "reuse": reuse, "link": disk.Link("a", "b"), "remove": disk.Remove("a"), "removeAll": disk.RemoveAll("a"),
		"rename": disk.Rename("a", "b"), "mkdir": disk.MkdirAll("a", 0o700),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A directory is not read while a process has it, nor taken while it is read; one
// without a lock gets none.
func TestLockDirForReading(t *testing.T) {
	for name, disk := range map[string]struct {
		fs  vfs.FS
		dir string
	}{"memory": {vfs.NewMem(), "data"}, "disk": {vfs.Default, filepath.Join(t.TempDir(), "data")}} {
		take := func(lock func(vfs.FS, string) (io.Closer, error), want bool) io.Closer {
			t.Helper()
			c, err := lock(disk.fs, disk.dir)
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), disk.dir+" is in use by another process") {
				t.Fatalf("%s: %v", name, err)
			}
			return c
		}
		check(disk.fs.MkdirAll(disk.dir, 0o700))
		check(take(LockDirForReading, true).Close())
		if found, err := exists(disk.fs, disk.fs.PathJoin(disk.dir, lockFile)); found || err != nil {
			t.Errorf("%s: reading made a lock: %v", name, err)
		}
		owner := take(LockDir, true)
		take(LockDirForReading, false)
		check(owner.Close())
		reader := take(LockDirForReading, true)
		take(LockDir, false)
		check(reader.Close())
	}
}
