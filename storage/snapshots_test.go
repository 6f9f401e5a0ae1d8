package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

// aboutTest is what the tests say of each state.
var aboutTest = SnapshotMeta{ClusterID: 1 << 63, Incarnation: "<first & only>", Created: 1_700_000_000_000}

// testStates are states of one member at these indexes, each with so many bytes
// that are not the ones of another and cannot be compressed.
func testStates(t testing.TB, bytes int, indexes ...uint64) []*EngineSnapshot {
	t.Helper()
	e := openTestEngine(t, vfs.NewMem())
	random := rand.New(rand.NewPCG(1, 1))
	var states []*EngineSnapshot
	for _, i := range indexes {
		b := e.NewBatch()
		b.Set([]byte("last"), fmt.Append(nil, i))
		for at := 0; at < bytes; at += 1 << 16 {
			value := make([]byte, min(bytes-at, 1<<16))
			for k := range value {
				value[k] = byte(random.Uint32())
			}
			b.Set(fmt.Appendf(nil, "value-%d", at), value)
		}
		if err := e.Apply(b, Position{i, i/5 + 1}); err != nil {
			t.Fatal(err)
		}
		s, err := e.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, s)
	}
	t.Cleanup(func() {
		var err error
		for _, s := range states {
			err = errors.Join(err, s.Close())
		}
		if err := errors.Join(err, e.Close()); err != nil {
			t.Error(err)
		}
	})
	return states
}

// leavesNothingRunning is checked after all that the test cleans up later.
func leavesNothingRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func openTestSnapshots(t testing.TB, fs vfs.FS, keep int) *Snapshots {
	t.Helper()
	s, err := OpenSnapshots(SnapshotsOptions{FS: fs, Dir: "data/snapshot", Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newTestDisk() *frailDisk {
	disk := newFrailDisk()
	check(disk.MkdirAll("data", 0o700))
	disk.syncDir(".")
	return disk
}

func mustSave(t testing.TB, s *Snapshots, states ...*EngineSnapshot) []SnapshotMeta {
	t.Helper()
	var metas []SnapshotMeta
	for _, state := range states {
		m, err := s.Save(t.Context(), state, aboutTest)
		if err != nil {
			t.Fatal(err)
		}
		metas = append(metas, m)
	}
	return metas
}

// indexesOf are those of a list.
func indexesOf(list []SnapshotMeta) []uint64 {
	indexes := []uint64{}
	for _, m := range list {
		indexes = append(indexes, m.Index)
	}
	return indexes
}

// filesOf are the names that a list should have in the folder.
func filesOf(list []SnapshotMeta) []string {
	names := []string{}
	for _, m := range list {
		names = append(names, snapshotName(m.Position())+metaSuffix, snapshotName(m.Position())+snapSuffix)
	}
	slices.Sort(names)
	return names
}

func namesIn(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("data/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// What is saved is restored: the same content at the same position, and its
// meta says what the file is. Opened again, the same is listed.
func TestASavedSnapshotIsRestored(t *testing.T) {
	leavesNothingRunning(t)
	for _, bytes := range []int{0, 10, 300 << 10, 3 << 20} {
		disk := newTestDisk()
		s := openTestSnapshots(t, disk, 2)
		states := testStates(t, bytes, 7, 9)
		metas := mustSave(t, s, states...)
		for i, m := range metas {
			info, err := disk.Stat("data/snapshot/" + snapshotName(m.Position()) + ".snap")
			check(err)
			hash, err := states[i].Hash(t.Context())
			check(err)
			want := SnapshotMeta{
				Format: 1, Index: states[i].at.Index, Term: states[i].at.Term, ClusterID: 1 << 63, Incarnation: "<first & only>",
				Created: 1_700_000_000_000, FileBytes: info.Size(), StateBytes: m.StateBytes, SHA256: m.SHA256,
			}
			if m != want || m.StateBytes < int64(bytes) || len(m.SHA256) != 64 {
				t.Errorf("%d bytes: saved %+v, want %+v", bytes, m, want)
			}
			if err := s.Verify(m); err != nil {
				t.Errorf("%d bytes: %v", bytes, err)
			}
			if got, err := restoredHash(t, s, m); err != nil || got != hash {
				t.Errorf("%d bytes: restored a state of hash %s, want %s: %v", bytes, got, hash, err)
			}
		}
		slices.Reverse(metas)
		again := openTestSnapshots(t, disk.cutPower(nothing), 2)
		if got := again.List(); !slices.Equal(got, metas) || !slices.Equal(s.List(), metas) {
			t.Errorf("%d bytes: listed %v and again %v, want %v", bytes, s.List(), got, metas)
		}
		newest, damaged, err := again.Newest(t.Context())
		oldest, ok := again.Oldest()
		if newest != metas[0] || damaged != nil || err != nil || oldest != 7 || !ok {
			t.Errorf("%d bytes: newest %v, %v, %v; oldest %d, %v", bytes, newest, damaged, err, oldest, ok)
		}
		if disk.handles != 0 {
			t.Errorf("%d bytes: %d files are open", bytes, disk.handles)
		}
	}
}

// restoredHash restores into a new engine, and is the hash of what is there then.
func restoredHash(t testing.TB, s *Snapshots, m SnapshotMeta) (string, error) {
	t.Helper()
	e := openTestEngine(t, vfs.NewMem())
	r, err := s.Open(m)
	if err != nil {
		return "", errors.Join(err, e.Close())
	}
	err = errors.Join(e.Restore(r), r.Close())
	if at := e.AppliedIndex(); err == nil && at != m.Position() {
		err = fmt.Errorf("restored %v", at)
	}
	state, wrong := e.Snapshot()
	if err = errors.Join(err, wrong); err != nil {
		return "", errors.Join(err, e.Close())
	}
	hash, err := state.Hash(t.Context())
	return hash, errors.Join(err, state.Close(), e.Close())
}

// Nothing is listed where nothing was saved.
func TestNoSnapshot(t *testing.T) {
	s := openTestSnapshots(t, newTestDisk(), 0)
	_, damaged, err := s.Newest(t.Context())
	index, ok := s.Oldest()
	if len(s.List()) != 0 || ok || index != 0 || damaged != nil || s.Damaged() != nil || !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("listed %v, oldest %d, damaged %v, %v", s.List(), index, damaged, err)
	}
	if want := "storage: no intact snapshot is kept in data/snapshot"; err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The newest are kept, so many as was asked for, and nothing of the others; a
// lower number counts from the next save on.
func TestTheNewestSnapshotsAreKept(t *testing.T) {
	states := testStates(t, 10, 3, 4, 5, 6, 7)
	for keep, want := range map[int][]uint64{0: {6, 5}, 1: {6}, 2: {6, 5}, 3: {6, 5, 4}, 9: {6, 5, 4, 3}} {
		disk := newTestDisk()
		s := openTestSnapshots(t, disk, keep)
		mustSave(t, s, states[:4]...)
		again := openTestSnapshots(t, disk, 1)
		for _, list := range [][]SnapshotMeta{s.List(), again.List()} {
			if got := indexesOf(list); !slices.Equal(got, want) || !slices.Equal(namesIn(t, disk), filesOf(list)) {
				t.Errorf("keep %d: listed %v, want %v; there are %v", keep, got, want, namesIn(t, disk))
			}
		}
		mustSave(t, again, states[4])
		if got := indexesOf(again.List()); !slices.Equal(got, []uint64{7}) || !slices.Equal(namesIn(t, disk), filesOf(again.List())) {
			t.Errorf("keep 1 after %d: listed %v; there are %v", keep, got, namesIn(t, disk))
		}
	}
	if _, err := OpenSnapshots(SnapshotsOptions{FS: newTestDisk(), Dir: "data/snapshot", Keep: -1}); err == nil || !strings.Contains(err.Error(), "keep -1") {
		t.Errorf("keep -1: %v", err)
	}
}

// A state that is saved is not saved again: not at its index, nor when a later
// one is there. Nothing is written then.
func TestASavedStateIsNotSavedAgain(t *testing.T) {
	states := testStates(t, 10, 3, 7, 8, 9)
	disk := newTestDisk()
	s := openTestSnapshots(t, disk, 2)
	saved := mustSave(t, s, states[1], states[3])
	ops := disk.ops
	for i, want := range []SnapshotMeta{saved[0], saved[0], saved[1], saved[1]} {
		if got, err := s.Save(t.Context(), states[i], SnapshotMeta{ClusterID: 1 << 63, Incarnation: aboutTest.Incarnation, Created: 5}); got != want || err != nil {
			t.Errorf("state %d: %v, want %v: %v", i, got, want, err)
		}
	}
	if disk.ops != ops {
		t.Errorf("%d operations on the disk", disk.ops-ops)
	}
}

// A saved snapshot that proves damaged is replaced by the same state.
func TestADamagedSnapshotIsReplaced(t *testing.T) {
	states := testStates(t, 10, 7, 9)
	for _, name := range []string{"00000000000000000002-00000000000000000009.snap", "00000000000000000002-00000000000000000009.meta"} {
		disk := newTestDisk()
		s := openTestSnapshots(t, disk, 2)
		saved := mustSave(t, s, states...)
		turn(disk, name, 100)
		if got := mustSave(t, s, states[1])[0]; got != saved[1] || s.Damaged() != nil || !slices.Equal(indexesOf(s.List()), []uint64{9, 7}) {
			t.Errorf("%s: saved %v, listed %v, damaged %v", name, got, s.List(), s.Damaged())
		}
		if err := s.Verify(saved[1]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		turn(disk, name, 100)
		again := openTestSnapshots(t, disk, 2)
		_ = mustSave(t, again, states[1])
		if damaged := again.Damaged(); damaged != nil || !slices.Equal(indexesOf(again.List()), []uint64{9, 7}) {
			t.Errorf("%s, opened again: listed %v, damaged %v", name, again.List(), damaged)
		}
	}
}

// turn changes one bit of a file on both sides of a disk.
func turn(disk *frailDisk, name string, at int) {
	path := "data/snapshot/" + name
	data, _, err := readFile(disk, path)
	check(err)
	data[at] ^= 1
	disk.put(path, &frailFile{now: data, disk: data, dirty: map[int]bool{}})
}

// What cannot belong to what is kept is refused, and nothing is lost by that.
func TestASnapshotOfAnotherHistoryIsRefused(t *testing.T) {
	states := testStates(t, 10, 7, 9)
	s := openTestSnapshots(t, newTestDisk(), 2)
	mustSave(t, s, states[1])
	stranger := openTestEngine(t, vfs.NewMem())
	put(t, stranger, Position{9, 1}, "a", "1")
	early, err := stranger.Snapshot()
	check(err)
	put(t, stranger, Position{9, 5}, "a", "2")
	late, err := stranger.Snapshot()
	check(err)
	for what, err := range map[string]error{
		"cluster":        refusal(t, s, states[0], SnapshotMeta{ClusterID: 5}),
		"incarnation":    refusal(t, s, states[1], SnapshotMeta{ClusterID: 1 << 63, Incarnation: "second"}),
		"an older term":  refusal(t, s, early, aboutTest),
		"a later term":   refusal(t, s, late, aboutTest),
		"no text at all": refusal(t, s, states[1], SnapshotMeta{ClusterID: 1 << 63, Incarnation: "\xff"}),
	} {
		if err == nil || !strings.Contains(err.Error(), "save the state at index ") || !strings.Contains(err.Error(), ".snap: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Save(t.Context(), states[1], aboutTest); err != nil || !slices.Equal(indexesOf(s.List()), []uint64{9}) {
		t.Errorf("after that: %v, %v", s.List(), err)
	}
	if err := errors.Join(early.Close(), late.Close(), stranger.Close()); err != nil {
		t.Error(err)
	}
}

func refusal(t *testing.T, s *Snapshots, state *EngineSnapshot, about SnapshotMeta) error {
	t.Helper()
	_, err := s.Save(t.Context(), state, about)
	return err
}

// The context ends a save at any operation of the disk, and between them: then
// nothing is left of it, and the next one works. One that has begun to give the
// files their names goes on to its end.
func TestAStoppedSaveLeavesNothing(t *testing.T) {
	leavesNothingRunning(t)
	states := testStates(t, 2<<20, 7, 9)
	stopped, done := 0, 0
	for k := 0; ; k++ {
		disk := newTestDisk()
		s := openTestSnapshots(t, disk, 2)
		mustSave(t, s, states[0])
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		if k == 0 {
			cancel(enough)
		}
		left := k
		disk.before = func(string, string) error {
			if left--; left == 0 {
				cancel(enough)
			}
			return nil
		}
		_, err := s.Save(ctx, states[1], aboutTest)
		disk.before = nil
		want := []uint64{9, 7}
		if err != nil {
			want = []uint64{7}
			stopped++
		} else {
			done++
		}
		if err != nil && !errors.Is(err, enough) || disk.handles != 0 || !slices.Equal(indexesOf(s.List()), want) || !slices.Equal(namesIn(t, disk), filesOf(s.List())) {
			t.Fatalf("stopped at operation %d: %d files open, listed %v, there are %v: %v", k, disk.handles, s.List(), namesIn(t, disk), err)
		}
		mustSave(t, s, states[1])
		if s.Damaged() != nil || !slices.Equal(indexesOf(s.List()), []uint64{9, 7}) {
			t.Fatalf("the save after the one stopped at operation %d: listed %v, damaged %v", k, s.List(), s.Damaged())
		}
		cancel(nil)
		if left > 0 {
			break
		}
	}
	if stopped < 5 || done < 5 {
		t.Errorf("%d were stopped, and %d came to their end: want more of each", stopped, done)
	}
}

// Newest and Save look into what is there under a context, too.
func TestAStoppedLookSetsNothingAside(t *testing.T) {
	states := testStates(t, 10, 7)
	s := openTestSnapshots(t, newTestDisk(), 2)
	mustSave(t, s, states...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, newest := s.Newest(ctx)
	_, save := s.Save(ctx, states[0], aboutTest)
	if !errors.Is(newest, context.Canceled) || !errors.Is(save, context.Canceled) || len(s.List()) != 1 || s.Damaged() != nil {
		t.Errorf("newest: %v, save: %v, listed %v, damaged %v", newest, save, s.List(), s.Damaged())
	}
}

// Two saves at once stop the process.
func TestTwoSavesAtOnce(t *testing.T) {
	states := testStates(t, 10, 7)
	disk := newTestDisk()
	s := openTestSnapshots(t, disk, 2)
	var got any
	disk.before = func(string, string) error {
		disk.before = nil
		defer func() { got = recover() }()
		_, err := s.Save(t.Context(), states[0], aboutTest)
		return err
	}
	mustSave(t, s, states[0])
	if want := "storage: two snapshots are saved at once"; got != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// Whoever reads while snapshots come and go sees them whole, or none.
func TestReadersBesideSave(t *testing.T) {
	states := testStates(t, 100<<10, 3, 4, 5, 6, 7, 8, 9)
	fs := vfs.NewMem()
	check(fs.MkdirAll("data", 0o700))
	s := openTestSnapshots(t, fs, 1)
	mustSave(t, s, states[0])
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for last := uint64(0); ; {
				m, damaged, err := s.Newest(t.Context())
				if err != nil || damaged != nil || m.Index < last {
					t.Errorf("newest is %d after %d, damaged %v: %v", m.Index, last, damaged, err)
					return
				}
				last = m.Index
				if oldest, ok := s.Oldest(); !ok || oldest < last {
					t.Errorf("oldest is %d, %v after %d", oldest, ok, last)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	mustSave(t, s, states[1:]...)
	close(done)
	readers.Wait()
}

// A reader that has opened a snapshot reads it to its end, though it is removed.
func TestARemovedSnapshotIsReadToItsEnd(t *testing.T) {
	states := testStates(t, 1<<20, 7, 9)
	s := openTestSnapshots(t, newTestDisk(), 1)
	old := mustSave(t, s, states[0])[0]
	r, err := s.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	mustSave(t, s, states[1])
	n, err := io.Copy(io.Discard, r)
	if err = errors.Join(err, r.Close()); err != nil || n != old.StateBytes {
		t.Errorf("read %d of %d bytes: %v", n, old.StateBytes, err)
	}
	_, open := s.Open(old)
	verify := s.Verify(old)
	if open == nil || verify == nil || s.Damaged() != nil {
		t.Errorf("the removed one is opened with %v, verified with %v, damaged: %v", open, verify, s.Damaged())
	}
}

// Other files of the folder are nobody's business, and a crash's leftovers go;
// a state without meta is told of.
func TestLeftoversAreRemovedAndOthersLeft(t *testing.T) {
	states := testStates(t, 10, 7)
	disk := newTestDisk()
	saved := mustSave(t, openTestSnapshots(t, disk, 2), states...)
	others := []string{"notes.tmp", "7-7.snap", "backup.snap", "00000000000000000001-00000000000000000007.snap.old"}
	leftovers := []string{
		"00000000000000000001-00000000000000000007.meta.tmp", "00000000000000000001-00000000000000000007.snap.tmp",
		"00000000000000000001-00000000000000000008.snap",
	}
	for _, name := range slices.Concat(others, leftovers) {
		disk.put("data/snapshot/"+name, &frailFile{dirty: map[int]bool{}})
	}
	var told bytes.Buffer
	s, err := OpenSnapshots(SnapshotsOptions{FS: disk, Dir: "data/snapshot", Logger: slog.New(slog.NewTextHandler(&told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(slices.Concat(others, filesOf(saved))))
	if got := namesIn(t, disk.cutPower(nothing)); !slices.Equal(got, want) || len(s.List()) != 1 || s.Damaged() != nil {
		t.Errorf("there are %v, want %v; listed %v, damaged %v", got, want, s.List(), s.Damaged())
	}
	for _, name := range leftovers {
		if !strings.Contains(told.String(), "file=data/snapshot/"+name+"\n") {
			t.Errorf("nothing was told of %s: %s", name, &told)
		}
	}
}

// A pair under any other name is read the same way, without a folder.
func TestSnapshotFilesUnderAnyName(t *testing.T) {
	states := testStates(t, 10, 7)
	disk := newTestDisk()
	s := openTestSnapshots(t, disk, 2)
	want := mustSave(t, s, states...)[0]
	check(disk.Rename("data/snapshot/"+snapshotName(want.Position())+".snap", "state"))
	check(disk.Rename("data/snapshot/"+snapshotName(want.Position())+".meta", "what"))
	meta, err := ReadSnapshotMeta(disk, "what")
	if meta != want || err != nil {
		t.Errorf("read %v, want %v: %v", meta, want, err)
	}
	if meta, err = VerifySnapshotFile(disk, "state", "what"); meta != want || err != nil {
		t.Errorf("verified %v, want %v: %v", meta, want, err)
	}
	meta, r, err := OpenSnapshotFile(disk, "state", "what")
	if err != nil {
		t.Fatal(err)
	}
	at, err := positionInState(r)
	if err = errors.Join(err, r.Close()); at != want.Position() || meta != want || err != nil {
		t.Errorf("read a state of %v: %v", at, err)
	}
	for what, err := range map[string]error{
		"data/none": errOf(ReadSnapshotMeta(disk, "data/none")),
		"no-state":  errOf(VerifySnapshotFile(disk, "no-state", "what")),
		"no-meta":   errOf(VerifySnapshotFile(disk, "state", "no-meta")),
	} {
		var named *SnapshotError
		if !errors.As(err, &named) || named.File != what {
			t.Errorf("%s: %v", what, err)
		}
	}
	if disk.handles != 0 {
		t.Errorf("%d files are open", disk.handles)
	}
}

func errOf(_ SnapshotMeta, err error) error { return err }
