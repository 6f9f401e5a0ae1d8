package crashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Each byte that a crash leaves was there: it is the durable one, or one that was
// written since, or zero where nothing durable is. What was synced is as it was.
func TestACrashMakesNothingUp(t *testing.T) {
	forSeeds(t, 100, func(t *testing.T, random *rand.Rand) {
		disk := New()
		file := create(disk, "a")
		syncAll(disk, ".")
		w := newWitness()
		for range 30 {
			if random.IntN(5) == 0 {
				check(file.Sync())
				data, err := disk.ReadFile("a")
				check(err)
				w.synced(data)
				continue
			}
			data := fill(make([]byte, 1+random.IntN(1500)), byte(1+random.IntN(255)))
			offset := random.IntN(3000)
			_, err := file.WriteAt(data, int64(offset))
			check(err)
			w.wrote(data, offset)
			for range 10 {
				data, err := disk.Crash(Loss{Seed: random.Uint64(), Mode: Random}).ReadFile("a")
				check(err)
				w.allows(t, data)
			}
		}
	})
}

// witness knows what a file may be after a crash.
type witness struct {
	bytes [4500][256]bool // by offset: what may be there
	sizes [4501]bool
}

func newWitness() *witness {
	w := new(witness)
	w.synced(nil)
	return w
}

func (w *witness) synced(data []byte) {
	*w = witness{}
	w.sizes[len(data)] = true
	for i := range w.bytes {
		if i < len(data) {
			w.bytes[i][data[i]] = true
		} else {
			w.bytes[i][0] = true
		}
	}
}

func (w *witness) wrote(data []byte, offset int) {
	for i, b := range data {
		end := offset + i + 1
		w.bytes[end-1][b] = true
		w.sizes[end] = w.sizes[end] || i == len(data)-1 || end%sectorBytes == 0
	}
}

func (w *witness) allows(t *testing.T, data []byte) {
	t.Helper()
	if !w.sizes[len(data)] {
		t.Errorf("a crash left %d bytes, which no write ends at", len(data))
	}
	for i, b := range data {
		if !w.bytes[i][b] {
			t.Fatalf("byte %d is %d, which it never was", i, b)
		}
	}
}

// The same program and the same seed leave the same bytes and the same trace.
func TestTheSameSeedIsTheSameCrash(t *testing.T) {
	forSeeds(t, 50, func(t *testing.T, random *rand.Rand) {
		seed, crash := random.Uint64(), Loss{Seed: random.Uint64(), Mode: Mode(random.IntN(int(TearAt) + 1))}
		var dumps, traces []string
		for range 2 {
			p := &pair{t: t, random: rand.New(rand.NewPCG(seed, 0)), ours: New(), theirs: vfs.NewMem()}
			for range 100 {
				p.step()
			}
			disk := p.ours.(*FS)
			dumps = append(dumps, dump(disk.Crash(crash), "/"), dump(disk.Crash(crash), "/"))
			traces = append(traces, strings.Join(disk.Trace(), "\n"))
		}
		if len(slices.Compact(dumps)) != 1 || traces[0] != traces[1] {
			t.Errorf("%q\n%q", dumps, traces)
		}
	})
}

// A program that replaces a file as it should is not caught by any seed at any
// moment. One that leaves out any of the syncs is caught.
func TestAForgottenSyncIsCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		forget Kind // the sync that is left out
		late   bool // the file is synced after the rename
		caught bool
	}{
		{name: "all is synced"},
		{name: "no sync of the file", forget: Sync, caught: true},
		{name: "no sync of the directory", forget: SyncDir, caught: true},
		{name: "sync after the rename", late: true, caught: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			moments := 0
			wrong := replaceAndCrash(c.forget, c.late, &moments)
			if (wrong != "") != c.caught {
				t.Errorf("caught: %q", wrong)
			}
			if moments == 0 {
				t.Error("there was no crash")
			}
			t.Logf("after %d crashes: %q", moments, wrong)
		})
	}
}

// replaceAndCrash replaces a file and crashes after each operation: the old
// bytes or the new are there, and in the end the new.
func replaceAndCrash(forget Kind, late bool, moments *int) (wrong string) {
	disk := New()
	check(disk.WriteFile("a", []byte("old")))
	look := func(when string, allowed ...string) {
		for seed := range uint64(100) {
			*moments++
			data, err := disk.Crash(Loss{Seed: seed, Mode: Random}).ReadFile("a")
			check(err)
			if wrong == "" && !slices.Contains(allowed, string(data)) {
				wrong = fmt.Sprintf("%s, seed %d: %q", when, seed, data)
			}
		}
	}
	disk.After(func(op Op) { look("after "+op.String(), "old", "new") })
	file := create(disk, "tmp")
	_, err := file.Write([]byte("new"))
	check(err)
	sync := func(f vfs.File, kind Kind) {
		if kind != forget {
			check(f.Sync())
		}
	}
	if !late {
		sync(file, Sync)
	}
	check(disk.Rename("tmp", "a"))
	if late {
		sync(file, Sync)
	}
	dir, err := disk.OpenDir(".")
	check(err)
	sync(dir, SyncDir)
	look("in the end", "new")
	return wrong
}

// Both hooks may crash the file system that they are called from, at once with
// others that do so; the index counts what was done.
func TestHooksMayCrash(t *testing.T) {
	disk := New()
	var sizes []string
	size := func(op Op) {
		data, err := disk.Crash(Loss{Mode: KeepAll}).ReadFile("a")
		if errors.Is(err, fs.ErrNotExist) {
			data = []byte("none")
		}
		sizes = append(sizes, fmt.Sprintf("%d of %d: %s", op.Index, disk.Ops(), data))
	}
	disk.Before(func(op Op) error { size(op); return nil })
	disk.After(size)
	file := create(disk, "a")
	_, err := file.Write([]byte("x"))
	check(err)
	want := []string{"1 of 0: none", "1 of 1: ", "2 of 1: ", "2 of 2: x"}
	if !slices.Equal(sizes, want) {
		t.Errorf("%q, want %q", sizes, want)
	}
}

// What is held up holds up nobody else, and gets its index when it is done.
func TestADelayHoldsUpOneOperation(t *testing.T) {
	disk := New()
	file := create(disk, "a")
	waits, goOn, ended := make(chan Op), make(chan bool), make(chan error)
	disk.Delay(func(op Op) {
		if op.Kind == Sync {
			waits <- op
			<-goOn
		}
	})
	go func() { ended <- file.Sync() }()
	if op := <-waits; op.Path != "a" || op.Index != 0 {
		t.Errorf("%v waits", op)
	}
	create(disk, "b")
	close(goOn)
	check(<-ended)
	want := []string{"1 create a", "2 create b", "3 sync a, 0 bytes"}
	if got := disk.Trace(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The old file system and what is open in it go on as if nothing was, and know
// nothing of the new one; so does the new one of the old one.
func TestACrashIsAnotherFileSystem(t *testing.T) {
	disk := New()
	file := create(disk, "a")
	_, err := file.Write([]byte("one"))
	check(err)
	_, err = disk.Lock("LOCK")
	check(err)
	left := disk.Crash(Loss{Mode: KeepAll})
	again := left.Crash(Loss{Mode: LoseUnsynced})
	if _, err := disk.Lock("LOCK"); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("lock what is locked: %v", err)
	}
	if _, err := left.Lock("LOCK"); err != nil {
		t.Errorf("lock after the crash: %v", err)
	}
	_, err = file.Write([]byte("two"))
	check(err)
	other, err := left.OpenReadWrite("a", vfs.WriteCategoryUnspecified)
	check(err)
	_, err = other.Write([]byte("three"))
	check(err)
	for want, disk := range map[string]*FS{"onetwo": disk, "three": left, "one": again} {
		if data, err := disk.ReadFile("a"); err != nil || string(data) != want {
			t.Errorf("%q, %v, want %q", data, err, want)
		}
	}
}

// Many may use it and crash it at the same time; the race detector looks on.
func TestConcurrentUse(t *testing.T) {
	disk := New()
	disk.Before(func(Op) error { disk.Crash(Loss{Mode: Random}); return nil })
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("%d/%d", g, i%5)
				check(disk.MkdirAll(fmt.Sprint(g), 0o700))
				file := create(disk, name)
				_, err := file.Write(make([]byte, 3000))
				check(errors.Join(err, file.Sync()))
				left := disk.Crash(Loss{Seed: uint64(i), Mode: Random})
				if other, err := left.OpenReadWrite(name, vfs.WriteCategoryUnspecified); err == nil {
					_, err := other.WriteAt([]byte("x"), 1500)
					check(err)
				}
				check(errors.Join(disk.Rename(name, name+"r"), disk.Remove(name+"r"), file.Close()))
			}
		})
	}
	all.Wait()
	u, err := disk.GetDiskUsage(".")
	if check(err); u.UsedBytes != 0 {
		t.Errorf("%d bytes are used by nothing", u.UsedBytes)
	}
}

// Errors say what Pebble asks of them, and which name.
func TestErrors(t *testing.T) {
	disk := New()
	file := create(disk, "a")
	check(disk.MkdirAll("d/e", 0o700))
	check(file.Close())
	reader, err := disk.Open("a")
	check(err)
	dir, err := disk.OpenDir("d")
	check(err)
	_, missing := disk.Open("x/y")
	_, below := disk.Open("a/y")
	_, closed := file.Write([]byte("x"))
	_, readOnly := reader.Write([]byte("x"))
	_, ofDir := dir.Read(make([]byte, 1))
	_, createDir := disk.Create("d", vfs.WriteCategoryUnspecified)
	for _, c := range []struct {
		err, want error
		text      string
	}{
		{missing, fs.ErrNotExist, "open x/y: no such file or directory"},
		{below, syscall.ENOTDIR, "open a/y: not a directory"},
		{closed, fs.ErrClosed, "write a: file already closed"},
		{file.Close(), fs.ErrClosed, "close a: file already closed"},
		{readOnly, syscall.EBADF, "write a: bad file descriptor"},
		{ofDir, syscall.EISDIR, "read d: is a directory"},
		{createDir, syscall.EISDIR, "create d: is a directory"},
		{disk.Link("a", "d"), fs.ErrExist, "link a d: file exists"},
		{disk.Link("d", "l"), syscall.EPERM, "link d l: operation not permitted"},
		{disk.Rename("x", "y"), fs.ErrNotExist, "rename x y: no such file or directory"},
		{disk.Rename("a", "d"), fs.ErrExist, "rename a d: file exists"},
		{disk.Rename("d", "a"), syscall.ENOTDIR, "rename d a: not a directory"},
		{disk.Rename("d", "d/e/d"), syscall.EINVAL, "rename d d/e/d: invalid argument"},
		{disk.Remove("d"), syscall.ENOTEMPTY, "remove d: directory not empty"},
		{disk.Remove("/"), syscall.EBUSY, "remove /: device or resource busy"},
		{disk.Remove(""), fs.ErrNotExist, "remove : no such file or directory"},
		{disk.MkdirAll("a/b", 0o700), syscall.ENOTDIR, "mkdirall a/b: not a directory"},
	} {
		if !errors.Is(c.err, c.want) || c.err.Error() != c.text {
			t.Errorf("%v, want %s", c.err, c.text)
		}
	}
	if disk.Ops() != 2 {
		t.Errorf("what cannot be done counts as done: %q", disk.Trace())
	}
}

// An open file that was removed can be read and written to its end.
func TestAnOpenFileOutlivesItsName(t *testing.T) {
	disk := New()
	file := create(disk, "a")
	_, err := file.Write([]byte("bytes"))
	check(errors.Join(err, disk.Remove("a")))
	create(disk, "a")
	_, err = file.Write([]byte(" more"))
	check(err)
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 100))
	if err != nil || string(data) != "bytes more" {
		t.Errorf("%q, %v", data, err)
	}
	check(file.Close())
}

// BenchmarkCrash is the crash of a file system of 64 MiB, with 4 KiB of them not
// synced, and of one write to what is left.
func BenchmarkCrash(b *testing.B) {
	for _, mode := range []struct {
		name string
		Mode
	}{{"lose", LoseUnsynced}, {"keep", KeepAll}, {"random", Random}, {"torn", TearLast}} {
		b.Run(mode.name, func(b *testing.B) {
			disk := diskOf(16, 4<<20)
			b.ReportAllocs()
			for i := range b.N {
				disk.Crash(Loss{Seed: uint64(i), Mode: mode.Mode})
			}
		})
	}
	b.Run("random and a write to both", func(b *testing.B) {
		disk := diskOf(1, 64<<20)
		file, err := disk.OpenReadWrite("0", vfs.WriteCategoryUnspecified)
		check(err)
		for i := range b.N {
			left := disk.Crash(Loss{Seed: uint64(i), Mode: Random})
			other, err := left.OpenReadWrite("0", vfs.WriteCategoryUnspecified)
			check(err)
			_, err = other.WriteAt([]byte("x"), 1<<20)
			check(err)
			_, err = file.WriteAt([]byte("x"), 2<<20)
			check(errors.Join(err, file.Sync()))
		}
	})
}

func diskOf(files, bytes int) *FS {
	disk := New()
	for i := range files {
		file := create(disk, fmt.Sprint(i))
		_, err := file.Write(fill(make([]byte, bytes), byte(i)))
		check(err)
	}
	syncAll(disk, ".")
	file, err := disk.OpenReadWrite("0", vfs.WriteCategoryUnspecified)
	check(err)
	for i := range int64(4) {
		_, err = file.WriteAt(make([]byte, 1<<10), int64(bytes)+i<<10)
		check(err)
	}
	return disk
}

func fill(p []byte, b byte) []byte {
	for i := range p {
		p[i] = b
	}
	return p
}

func create(disk *FS, name string) vfs.File {
	file, err := disk.Create(name, vfs.WriteCategoryUnspecified)
	check(err)
	return file
}
