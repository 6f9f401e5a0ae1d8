package storage

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of the random tests; 0 = new ones")
	fullFlag = flag.Bool("full", false, "damage to large logs and snapshots as well")
)

// seeds are as many as asked for, or the one that was given by -seed.
func seeds(n int) []uint64 {
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	first := uint64(time.Now().UnixNano())
	all := make([]uint64, cmp.Or(n/slower, 1))
	for i := range all {
		all[i] = first + uint64(i)
	}
	return all
}

// forSeeds runs a test with each seed until one fails, and says how to run
// that one again.
func forSeeds(t *testing.T, n int, run func(t *testing.T, random *rand.Rand)) {
	t.Helper()
	var seed uint64
	defer func() {
		if t.Failed() {
			t.Logf("seed %d: run it again with -seed=%d", seed, seed)
		}
	}()
	for _, seed = range seeds(n) {
		run(t, rand.New(rand.NewPCG(seed, 0)))
	}
}

// frailDisk is a file system whose power can be cut. It knows apart what a
// process sees and what is on the disk, and a sync that failed has dropped
// what it should have written: a later one does not write it.
//
// (Pebble's own crashable file system does not replay by a seed, as it walks
// maps, and has no sectors and no failing sync.)
type frailDisk struct {
	vfs.FS // what processes see
	now    map[string]*frailFile
	disk   map[string]*frailFile

	ops     int
	handles int                                // open ones
	before  func(op string, path string) error // asked before each change; nil = yes
}

// frailFile is a file or a directory.
type frailFile struct {
	dir   bool
	now   []byte
	disk  []byte
	dirty map[int]bool // sectors of now that the next sync writes
}

const sectorBytes = 512

// errShort makes a write end half way.
var errShort = errors.New("no space left")

func newFrailDisk() *frailDisk {
	return &frailDisk{FS: vfs.NewMem(), now: map[string]*frailFile{}, disk: map[string]*frailFile{}}
}

// ask counts an operation and asks whether it may be done.
func (d *frailDisk) ask(op, path string) error {
	d.ops++
	if d.before == nil {
		return nil
	}
	return d.before(op, path)
}

func (d *frailDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.ask("create", name); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	d.now[name] = &frailFile{dirty: map[int]bool{}}
	d.handles++
	return &frailHandle{File: f, disk: d, path: name, file: d.now[name]}, nil
}

func (d *frailDisk) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.Open(name, o...)
	if err != nil {
		return nil, err
	}
	d.handles++
	return &frailHandle{File: f, disk: d, path: name}, nil
}

func (d *frailDisk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	d.handles++
	return &frailHandle{File: f, disk: d, path: name, file: &frailFile{dir: true}}, nil
}

func (d *frailDisk) MkdirAll(name string, mode fs.FileMode) error {
	if err := d.ask("mkdir", name); err != nil {
		return err
	}
	for at := name; at != "." && at != "/"; at = path.Dir(at) {
		if d.now[at] == nil {
			d.now[at] = &frailFile{dir: true}
		}
	}
	return d.FS.MkdirAll(name, mode)
}

func (d *frailDisk) Rename(from, to string) error {
	if err := d.ask("rename", from); err != nil {
		return err
	}
	d.now[to] = d.now[from]
	delete(d.now, from)
	return d.FS.Rename(from, to)
}

func (d *frailDisk) Remove(name string) error {
	if err := d.ask("remove", name); err != nil {
		return err
	}
	delete(d.now, name)
	return d.FS.Remove(name)
}

// frailHandle is an open file or directory.
type frailHandle struct {
	vfs.File
	disk *frailDisk
	path string
	file *frailFile // nil when it was opened for reading
}

func (h *frailHandle) Write(p []byte) (int, error) {
	err := h.disk.ask("write", h.path)
	if errors.Is(err, errShort) {
		p = p[:len(p)/2]
	} else if err != nil {
		return 0, err
	}
	f := h.file
	if len(p) > 0 {
		for s := len(f.now) / sectorBytes; s <= (len(f.now)+len(p)-1)/sectorBytes; s++ {
			f.dirty[s] = true
		}
	}
	f.now = append(f.now, p...)
	n, wrong := h.File.Write(p)
	return n, errors.Join(err, wrong)
}

func (h *frailHandle) Sync() error {
	err := h.disk.ask("sync", h.path)
	if h.file.dir {
		if err == nil {
			h.disk.syncDir(h.path)
		}
		return err
	}
	if err == nil {
		h.file.store(h.file.dirty)
		h.file.disk = h.file.disk[:min(len(h.file.disk), len(h.file.now))]
	}
	clear(h.file.dirty)
	return err
}

func (h *frailHandle) SyncData() error { return h.Sync() }

func (h *frailHandle) Close() error {
	h.disk.handles--
	wrong := h.File.Close()
	if h.file != nil && !h.file.dir {
		return errors.Join(h.disk.ask("close", h.path), wrong)
	}
	return wrong
}

// store writes sectors to the disk; what lies between is zeros.
func (f *frailFile) store(sectors map[int]bool) {
	for _, s := range slices.Sorted(maps.Keys(sectors)) {
		from, to := s*sectorBytes, min((s+1)*sectorBytes, len(f.now))
		if to > len(f.disk) {
			f.disk = append(f.disk, make([]byte, to-len(f.disk))...)
		}
		copy(f.disk[from:to], f.now[from:to])
	}
}

func (d *frailDisk) syncDir(dir string) {
	maps.DeleteFunc(d.disk, func(name string, _ *frailFile) bool { return path.Dir(name) == dir && d.now[name] == nil })
	for name, f := range d.now {
		if path.Dir(name) == dir {
			d.disk[name] = f
		}
	}
}

// cutPower returns a disk as it may be found after a crash at this moment: of
// what was not synced each name and each sector is there or not, as keep says.
func (d *frailDisk) cutPower(keep func() bool) *frailDisk {
	names := map[string]bool{}
	for _, all := range []map[string]*frailFile{d.now, d.disk} {
		for name := range all {
			names[name] = true
		}
	}
	left := newFrailDisk()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := d.disk[name]
		if now := d.now[name]; now != f && keep() {
			f = now
		}
		dir := path.Dir(name)
		if f == nil || dir != "." && left.disk[dir] == nil {
			continue
		}
		left.put(name, f.afterCrash(keep))
	}
	return left
}

func (f *frailFile) afterCrash(keep func() bool) *frailFile {
	after := &frailFile{dir: f.dir, now: f.now, disk: slices.Clone(f.disk)}
	kept := map[int]bool{}
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
		if keep() {
			kept[s] = true
		}
	}
	after.store(kept)
	return &frailFile{dir: f.dir, now: slices.Clone(after.disk), disk: after.disk, dirty: map[int]bool{}}
}

// put makes a file that is on the disk.
func (d *frailDisk) put(name string, f *frailFile) {
	d.now[name], d.disk[name] = f, f
	if f.dir {
		check(d.FS.MkdirAll(name, 0o700))
		return
	}
	h, err := d.FS.Create(name, vfs.WriteCategoryUnspecified)
	check(err)
	_, err = h.Write(slices.Clone(f.now))
	check(errors.Join(err, h.Close()))
}

// check is for what cannot fail in memory.
func check(err error) {
	if err != nil {
		panic(fmt.Sprintf("storage: test: %v", err))
	}
}

func nothing() bool    { return false }
func everything() bool { return true }

func someOf(random *rand.Rand) func() bool {
	return func() bool { return random.IntN(2) == 0 }
}
