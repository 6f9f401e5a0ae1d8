package crashfs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var seedFlag = flag.Uint64("seed", 0, "of the random tests; 0 = new ones")

// forSeeds runs a test with so many seeds, or with the one asked for.
func forSeeds(t *testing.T, n int, test func(t *testing.T, random *rand.Rand)) {
	for range n {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64()
		}
		test(t, rand.New(rand.NewPCG(seed, 0)))
		if t.Failed() {
			t.Fatalf("this was -seed=%d", seed)
		}
		if *seedFlag != 0 {
			return
		}
	}
}

// As long as nothing crashes, the file system is one as Pebble's own in memory:
// random operations on both have the same results, and leave the same files.
// And when all was synced, in the right order, a crash changes nothing.
func TestItIsAFileSystem(t *testing.T) {
	forSeeds(t, 300, func(t *testing.T, random *rand.Rand) {
		p := &pair{t: t, random: random, ours: New(), theirs: vfs.NewMem()}
		for i := 0; i < 150 && !t.Failed(); i++ {
			p.step()
		}
		p.same("all", dump(p.ours, "/"), dump(p.theirs, "/"))
		p.sameAfterCrash(KeepAll)
		syncAll(p.ours, ".")
		p.sameAfterCrash(LoseUnsynced)
		p.sameAfterCrash(Random)
		p.sameAfterCrash(Journal)
		if t.Failed() {
			t.Logf("%q", p.ours.(*FS).Trace())
		}
	})
}

// pair is the same file system twice.
type pair struct {
	t            *testing.T
	random       *rand.Rand
	ours, theirs vfs.FS
	handles      []twin
	locks        []io.Closer // ours and theirs, or none
}

// twin is the same open file in both.
type twin struct {
	ours, theirs vfs.File
	reads        bool
}

var (
	modelFiles = []string{"a", "b", "d/a", "/d/b", "d/e/a", "d/e/b"}
	modelDirs  = []string{"d", "d/e", "g", "g/h"}
)

func pick(random *rand.Rand, from []string) string { return from[random.IntN(len(from))] }

// kindOf is what may be compared of an error.
func kindOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, fs.ErrNotExist):
		return "not there"
	case errors.Is(err, fs.ErrExist):
		return "there"
	}
	return "no"
}

func (p *pair) same(what string, ours, theirs any) {
	p.t.Helper()
	if fmt.Sprint(ours) != fmt.Sprint(theirs) {
		p.t.Errorf("%s: %v, want %v", what, ours, theirs)
	}
}

// both does the same to both.
func (p *pair) both(what string, do func(disk vfs.FS) string) {
	p.t.Helper()
	p.same(what, do(p.ours), do(p.theirs))
}

func (p *pair) step() {
	file, other, dir := pick(p.random, modelFiles), pick(p.random, modelFiles), pick(p.random, modelDirs)
	switch p.random.IntN(16) {
	case 0, 1:
		p.open("create "+file, true, func(disk vfs.FS) (vfs.File, error) { return disk.Create(file, vfs.WriteCategoryUnspecified) })
	case 2:
		p.open("open "+file, true, func(disk vfs.FS) (vfs.File, error) { return disk.Open(file, vfs.SequentialReadsOption) })
	case 3:
		p.open("change "+file, true, func(disk vfs.FS) (vfs.File, error) {
			return disk.OpenReadWrite(file, vfs.WriteCategoryUnspecified)
		})
	case 4:
		if p.mayRename(file, other) {
			p.open("reuse "+file+" "+other, false, func(disk vfs.FS) (vfs.File, error) {
				return disk.ReuseForWrite(file, other, vfs.WriteCategoryUnspecified)
			})
		}
	case 5:
		if p.mayRename(file, other) {
			p.both("rename "+file+" "+other, func(disk vfs.FS) string { return kindOf(disk.Rename(file, other)) })
		}
	case 6:
		p.both("remove "+file, func(disk vfs.FS) string { return kindOf(disk.Remove(file)) })
	case 7:
		p.both("link "+file, func(disk vfs.FS) string { return kindOf(disk.Link(file, "link")) })
	case 8:
		p.both("mkdir "+dir, func(disk vfs.FS) string { return kindOf(disk.MkdirAll(dir, 0o700)) })
	case 9:
		p.directories(dir)
	case 10:
		p.both("stat "+file, func(disk vfs.FS) string { return describe(disk.Stat(file)) })
		p.both("list "+dir, func(disk vfs.FS) string {
			names, err := disk.List(dir)
			slices.Sort(names)
			return fmt.Sprint(names, kindOf(err))
		})
	case 11:
		p.lock()
	default:
		p.use()
	}
}

// mayRename leaves out what the other does not as POSIX: it removes the old
// name before it looks for the new one's directory.
func (p *pair) mayRename(oldname, newname string) bool {
	_, err := p.ours.Stat(p.ours.PathDir(newname))
	return err == nil || kindOf(p.exists(oldname)) != "ok"
}

func (p *pair) exists(name string) error {
	_, err := p.ours.Stat(name)
	return err
}

func (p *pair) directories(dir string) {
	switch p.random.IntN(3) {
	case 0:
		p.both("remove "+dir, func(disk vfs.FS) string { return kindOf(disk.Remove(dir)) })
	case 1:
		p.both("removeall "+dir, func(disk vfs.FS) string { return kindOf(disk.RemoveAll(dir)) })
	default:
		if p.exists("moved") != nil {
			p.both("move "+dir, func(disk vfs.FS) string { return kindOf(disk.Rename(dir, "moved")) })
		} else if p.exists(dir) != nil && p.exists(p.ours.PathDir(dir)) == nil && p.ours.PathDir(dir) != "moved" {
			p.both("move back "+dir, func(disk vfs.FS) string { return kindOf(disk.Rename("moved", dir)) })
		}
	}
}

func (p *pair) open(what string, reads bool, open func(vfs.FS) (vfs.File, error)) {
	p.t.Helper()
	ours, wrong := open(p.ours)
	theirs, err := open(p.theirs)
	p.same(what, kindOf(wrong), kindOf(err))
	if wrong == nil && err == nil {
		p.handles = append(p.handles, twin{ours, theirs, reads})
	}
}

func (p *pair) lock() {
	if p.locks == nil {
		for _, disk := range []vfs.FS{p.ours, p.theirs} {
			l, err := disk.Lock("LOCK")
			if err != nil {
				p.t.Fatalf("lock: %v", err)
			}
			p.locks = append(p.locks, l)
		}
		return
	}
	p.both("lock what is locked", func(disk vfs.FS) string {
		_, err := disk.Lock("LOCK")
		return kindOf(err)
	})
	check(errors.Join(p.locks[0].Close(), p.locks[1].Close()))
	p.locks = nil
}

// use does something with an open file.
func (p *pair) use() {
	if len(p.handles) == 0 {
		return
	}
	i := p.random.IntN(len(p.handles))
	h := p.handles[i]
	data := bytes.Repeat([]byte{byte('a' + p.random.IntN(26))}, 1+p.random.IntN(700))
	if p.random.IntN(40) == 0 {
		data = bytes.Repeat(data, chunkBytes/len(data)+1)
	}
	offset := p.random.Int64N(2000)
	do := map[string]func(vfs.File) string{
		"write":    func(f vfs.File) string { n, err := f.Write(bytes.Clone(data)); return fmt.Sprint(n, kindOf(err)) },
		"write at": func(f vfs.File) string { n, err := f.WriteAt(data, offset); return fmt.Sprint(n, kindOf(err)) },
		"read": func(f vfs.File) string {
			b := make([]byte, len(data))
			n, err := f.Read(b)
			return fmt.Sprint(string(b[:n]), kindOf(err))
		},
		"read at": func(f vfs.File) string {
			b := make([]byte, len(data))
			n, err := f.ReadAt(b, offset)
			return fmt.Sprint(string(b[:n]), kindOf(err))
		},
		"stat":        func(f vfs.File) string { return describe(f.Stat()) },
		"sync":        func(f vfs.File) string { return kindOf(errors.Join(f.Sync(), f.SyncData())) },
		"sync to":     func(f vfs.File) string { full, err := f.SyncTo(offset); return fmt.Sprint(full, kindOf(err)) },
		"preallocate": func(f vfs.File) string { return kindOf(f.Prefetch(0, 1)) + fmt.Sprint(f.Fd()) },
		"close":       func(f vfs.File) string { return kindOf(f.Close()) },
	}
	names := []string{"write", "write", "write at", "write at", "read", "read at", "stat", "sync", "sync to", "preallocate", "close"}
	what := pick(p.random, names)
	if !h.reads && (what == "read" || what == "read at") {
		return // POSIX lets it, theirs does not
	}
	p.same(what, do[what](h.ours), do[what](h.theirs))
	if what == "close" {
		p.handles = slices.Delete(p.handles, i, i+1)
	}
}

func describe(info vfs.FileInfo, err error) string {
	if err != nil {
		return kindOf(err)
	}
	return fmt.Sprint(info.Name(), info.Size(), info.IsDir(), info.Mode().IsDir(), info.DeviceID())
}

func (p *pair) sameAfterCrash(mode Mode) {
	p.t.Helper()
	left := p.ours.(*FS).Crash(Loss{Seed: p.random.Uint64(), Mode: mode})
	p.same(fmt.Sprintf("after a crash of mode %d", mode), dump(left, "/"), dump(p.ours, "/"))
}

// dump has a line for each file and directory, through the interface alone.
func dump(disk vfs.FS, dir string) string {
	names, err := disk.List(dir)
	check(err)
	slices.Sort(names)
	var all string
	for _, name := range names {
		path := disk.PathJoin(dir, name)
		f, err := disk.Open(path)
		check(err)
		info, err := f.Stat()
		check(err)
		if info.IsDir() {
			all += path + "/\n" + dump(disk, path)
		} else {
			data, err := io.ReadAll(f)
			check(err)
			all += fmt.Sprintf("%s %q\n", path, data)
		}
		check(f.Close())
	}
	return all
}

// syncAll syncs every file and directory.
func syncAll(disk vfs.FS, path string) {
	f, err := disk.OpenDir(path)
	check(err)
	check(errors.Join(f.Sync(), f.Close()))
	names, err := disk.List(path)
	if err != nil {
		return // a file
	}
	for _, name := range names {
		syncAll(disk, disk.PathJoin(path, name))
	}
}
