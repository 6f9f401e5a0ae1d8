package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func openTestLog(t testing.TB, o LogOptions) *Log {
	t.Helper()
	o.Dir, o.Salt = "wal", rand.Uint64
	log, err := OpenLog(o)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// run is consecutive entries of one term with so many bytes each.
func run(first, term uint64, count, bytes int) []Entry {
	entries := make([]Entry, count)
	for i := range entries {
		entries[i] = Entry{Index: first + uint64(i), Term: term, Data: make([]byte, bytes)}
	}
	return entries
}

// An append that is larger than a frame becomes several. A crash may take the
// later ones: no commit index is on the disk before the entries that it covers,
// so what is left opens. The term and the vote are there with the first.
func TestALargeAppendMayBeTornBetweenItsFrames(t *testing.T) {
	fs := vfs.NewMem()
	log := openTestLog(t, LogOptions{FS: fs})
	if err := log.Append(run(1, 2, 5, 3<<20), &HardState{Term: 2, Vote: 7, Commit: 5}); err != nil {
		t.Fatal(err)
	}
	if got := log.Load().HardState; got != (HardState{2, 7, 5}) {
		t.Errorf("hard state %v", got)
	}
	check(log.Close())
	data, err := fs.UnsafeGetFileDataBuffer("wal/" + segmentName(1))
	check(err)
	for _, c := range []struct {
		bytes, last uint64
		hard        HardState
	}{{6<<20 + 1000, 2, HardState{2, 7, 2}}, {14 << 20, 4, HardState{2, 7, 4}}, {uint64(len(data)), 5, HardState{2, 7, 5}}} {
		torn, err := OpenLog(LogOptions{FS: withFile(data[:c.bytes]), Dir: "wal", Salt: rand.Uint64})
		if err != nil {
			t.Fatalf("cut at %d: %v", c.bytes, err)
		}
		if got := torn.Load(); got.Last != c.last || got.HardState != c.hard {
			t.Errorf("cut at %d: %d, %v, want %d, %v", c.bytes, got.Last, got.HardState, c.last, c.hard)
		}
		check(torn.Close())
	}
}

// withFile is a disk with one segment.
func withFile(data []byte) *vfs.MemFS {
	fs := vfs.NewMem()
	check(fs.MkdirAll("wal", 0o700))
	f, err := fs.Create("wal/"+segmentName(1), vfs.WriteCategoryUnspecified)
	check(err)
	_, err = f.Write(bytes.Clone(data))
	check(errors.Join(err, f.Close()))
	return fs
}

// The largest entry has a frame of its own; a larger one is refused before
// anything is written, with its index and the limit.
func TestAnEntryThatNoFrameHoldsIsRefused(t *testing.T) {
	log := openTestLog(t, LogOptions{FS: vfs.NewMem()})
	most := frameBytesMax - frameRoom
	err := log.Append([]Entry{{Index: 1, Term: 1}, {Index: 2, Term: 1, Data: make([]byte, most+1)}}, nil)
	want := "entry 2 has 8388481 bytes, the most is 8388480: storage: the entry is too large for the log"
	if !errors.Is(err, ErrTooLarge) || err.Error() != want || log.LastIndex() != 0 {
		t.Errorf("last index %d, got %v", log.LastIndex(), err)
	}
	entries := []Entry{{1 << 62, 1 << 63, 3, make([]byte, most)}}
	if payload := (record{entries, &HardState{1 << 63, 1 << 63, 1 << 63}}).appendTo(nil); len(payload) > frameBytesMax {
		t.Errorf("the largest entry makes a payload of %d bytes, more than %d", len(payload), frameBytesMax)
	}
	if err := log.Append(run(1, 1, 1, most), nil); err != nil {
		t.Error(err)
	}
	check(log.Close())
}

// What Raft never asks for stops the process, with the numbers.
func TestAGapStopsTheProcess(t *testing.T) {
	log := openTestLog(t, LogOptions{FS: vfs.NewMem(), Base: Position{4, 1}})
	check(log.Append(run(5, 1, 3, 1), nil))
	for want, entries := range map[string][]Entry{
		"storage: entry 9 appended to a log from 5 to 7":   run(9, 1, 1, 1),
		"storage: entry 4 appended to a log from 5 to 7":   run(4, 1, 1, 1),
		"storage: entry 10 appended as the 1. after 8":     {{Index: 8}, {Index: 10}},
		"storage: entry 8 appended as the 2. after 8":      {{Index: 8}, {Index: 9}, {Index: 8}},
		"storage: entry 8 appended as the 1. after 999999": {{Index: 999999}, {Index: 8}},
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got %v, want %s", got, want)
				}
			}()
			t.Errorf("%s: %v", want, log.Append(entries, nil))
		}()
	}
	check(log.Close())
}

// After Close nothing is written, and closing again is no error.
func TestAClosedLogSaysSo(t *testing.T) {
	log := openTestLog(t, LogOptions{FS: vfs.NewMem()})
	check(log.Close())
	for what, err := range map[string]error{
		"append": log.Append(run(1, 1, 1, 1), nil), "sync": log.Sync(), "mark": log.Mark(), "truncate": log.TruncatePrefix(1),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}

// Memory holds what TailBytes say, however small the entries are: an entry
// counts with what it takes beside its data.
func TestTheTailIsBounded(t *testing.T) {
	log := openTestLog(t, LogOptions{FS: vfs.NewMem(), TailBytes: 4800})
	for i := range 100 {
		check(log.Append(run(uint64(1+50*i), 1, 50, 0), nil))
	}
	if n := len(log.tail); n != 100 || cap(log.tail) > 500 {
		t.Errorf("%d entries without data in memory, room for %d, want 100", n, cap(log.tail))
	}
	check(log.Append(run(5001, 1, 100, 3000), nil))
	check(log.Append(run(5101, 1, 1, 0), nil))
	if n := len(log.spans); n != 2 {
		t.Errorf("%d places are known in %d bytes, want one in %d", n, log.active.size, spanBytes)
	}
	check(log.Close())
}

// One who reads while the log grows and its beginning is removed gets entries
// as they were written, or is told that they are gone.
func TestReadersBesideTheWriter(t *testing.T) {
	log := openTestLog(t, LogOptions{FS: vfs.NewMem(), SegmentBytes: 2000, TailBytes: 3000})
	check(log.Append(run(1, 1, 1, 1), nil))
	var readers sync.WaitGroup
	done := make(chan struct{})
	wrong := make(chan error, 4)
	for i := range uint64(4) {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(i, 0))
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true
				default:
				}
				if err := readSome(log, random); err != nil {
					wrong <- err
					return
				}
			}
		})
	}
	for i := uint64(2); i < 3000/slower; i++ {
		check(log.Append([]Entry{{i, i / 100, 0, fmt.Append(nil, "entry ", i)}}, &HardState{Term: i / 100, Commit: i}))
		if i%50 == 0 {
			check(errors.Join(log.Sync(), log.TruncatePrefix(i-40)))
		}
	}
	close(done)
	readers.Wait()
	check(log.Close())
	select {
	case err := <-wrong:
		t.Fatal(err)
	default:
	}
}

// readSome reads from anywhere, mostly from what is about to go.
func readSome(log *Log, random *rand.Rand) error {
	first, last := log.FirstIndex(), log.LastIndex()
	lo := first + random.Uint64N(min(50, last-first+1))
	entries, err := log.Entries(lo, last+1, 300)
	if errors.Is(err, ErrCompacted) && lo < log.FirstIndex() {
		return nil
	}
	if err != nil || len(entries) == 0 {
		return fmt.Errorf("%d entries from %d to %d: %v", len(entries), lo, last, err)
	}
	for i, e := range entries {
		if e.Index != lo+uint64(i) || e.Index > 1 && string(e.Data) != fmt.Sprint("entry ", e.Index) {
			return fmt.Errorf("entry %d is %d %q", lo+uint64(i), e.Index, e.Data)
		}
		if term, err := log.Term(e.Index); err == nil && term != e.Term || err != nil && !errors.Is(err, ErrCompacted) {
			return fmt.Errorf("entry %d of term %d has term %d: %v", e.Index, e.Term, term, err)
		}
	}
	return nil
}

// removingDisk does something when a certain segment is opened for reading.
type removingDisk struct {
	vfs.FS
	name string
	then func()
}

func (d *removingDisk) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if then := d.then; strings.HasSuffix(name, d.name) && then != nil {
		d.then = nil
		then()
	}
	return d.FS.Open(name, o...)
}

// A segment may go between the look at the index and the opening of the file.
// What is read then is what the log holds now: nothing, or what replaced it.
func TestASegmentGoesWhileItIsRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		follow []Entry // what is appended before the segments go
		index  uint64
		want   error
	}{
		{"truncated", nil, 5, ErrCompacted},
		{"replaced", run(3, 2, 9, 1), 2, nil},
		{"replaced by less", run(3, 2, 1, 1), 2, ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := &removingDisk{FS: vfs.NewMem(), name: segmentName(3)}
			log := openTestLog(t, LogOptions{FS: disk, SegmentBytes: 1, TailBytes: 1})
			for i := range uint64(6) {
				check(log.Append(run(1+i, 1, 1, 1), nil))
			}
			disk.name = segmentName(6)
			disk.then = func() {
				if c.follow != nil {
					check(log.Append(c.follow, nil))
				}
				check(log.TruncatePrefix(c.index))
			}
			got, err := log.Entries(5, 6, 100)
			if !errors.Is(err, c.want) || c.want == nil && (len(got) != 1 || got[0].Term != 2) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
			check(log.Close())
		})
	}
}

// An opening that fails leaves no file open, whatever it was that failed, reads
// included; and what it leaves opens the next time.
func TestAFailedOpeningLeavesNoFileOpen(t *testing.T) {
	disk := newFrailDisk()
	log := openTestLog(t, LogOptions{FS: disk, SegmentBytes: 1})
	check(errors.Join(log.Append(run(1, 1, 1, 1), nil), log.Append(run(2, 1, 1, 1), nil), log.Close()))
	for k := 1; ; k++ {
		n, failed := 0, ""
		faulty := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if n++; n != k {
				return nil
			}
			failed = fmt.Sprintf("operation %d of kind %d on %s", n, op.Kind, op.Path)
			return errDisk
		}))
		log, err := OpenLog(LogOptions{FS: faulty, Dir: "wal", Salt: rand.Uint64})
		if err == nil {
			check(log.active.file.Close())
		}
		if failed == "" {
			return
		}
		if err != nil && !errors.Is(err, errDisk) || disk.handles != 0 {
			t.Errorf("%s failed: %d files are open, %v", failed, disk.handles, err)
		}
	}
}

// The names of other files in the folder are nobody's business; those of
// unfinished segments are removed.
func TestWhatElseLiesInTheFolder(t *testing.T) {
	fs := withFile(nil)
	check(fs.Rename("wal/"+segmentName(1), "wal/notes.wal"))
	for _, name := range []string{"1.wal", "0000000000000001.wal.bak", "x.tmp", "0000000000000007.wal.tmp"} {
		f, err := fs.Create("wal/"+name, vfs.WriteCategoryUnspecified)
		check(errors.Join(err, f.Close()))
	}
	check(openTestLog(t, LogOptions{FS: fs}).Close())
	names, err := fs.List("wal")
	check(err)
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "0000000000000001.wal 0000000000000001.wal.bak 1.wal notes.wal x.tmp" {
		t.Errorf("left are %s", got)
	}
}
