package storage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"
)

// A snapshot is the state of its moment, whatever is applied after, and travels
// as a stream into an engine that had another state.
func TestASnapshotIsOneMoment(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, Position{5, 2}, "a", "1", "b", "2")
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	put(t, e, Position{6, 2}, "a", "3", "b", "", "c", "4")
	var stream bytes.Buffer
	n, err := s.WriteTo(&stream)
	if err != nil || n != int64(stream.Len()) || s.Applied() != (Position{5, 2}) {
		t.Fatalf("%d bytes of %d, at %v: %v", n, stream.Len(), s.Applied(), err)
	}
	fs := vfs.NewCrashableMem()
	other := openTestEngine(t, fs)
	put(t, other, Position{9, 1}, "b", "old", "z", "old")
	if err := other.Restore(&stream); err != nil {
		t.Fatal(err)
	}
	if durable, err := other.DurableIndex(); err != nil || durable != 5 {
		t.Errorf("durable is %d, want 5: %v", durable, err)
	}
	after := openTestEngine(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if err := errors.Join(is(t, other, Position{5, 2}, "a=1 b=2"), is(t, after, Position{5, 2}, "a=1 b=2"), is(t, e, Position{6, 2}, "a=3 c=4")); err != nil {
		t.Error(err)
	}
	put(t, other, Position{6, 2}, "c", "4")
	if names, err := fs.List("state"); err != nil || len(names) != 2 {
		t.Errorf("left in the folder: %v, %v", names, err)
	}
	if err := errors.Join(s.Close(), e.Close(), other.Close(), after.Close()); err != nil {
		t.Error(err)
	}
}

// Whoever reads a moment of a state that is replaced reads it to its end. Its folder goes when the last has closed it.
func TestASnapshotOutlivesARestore(t *testing.T) {
	leavesNothingRunning(t)
	fs := vfs.NewMem()
	e := openTestEngine(t, fs)
	put(t, e, Position{5, 2}, "a", "1")
	one, err := e.Snapshot()
	check(err)
	two, err := e.Snapshot()
	check(err)
	if err := e.Restore(bytes.NewReader(stateStream(t, Position{9, 3}, "a", "2"))); err != nil {
		t.Fatal(err)
	}
	put(t, e, Position{10, 3}, "b", "3")
	for _, s := range []*EngineSnapshot{one, two} {
		value, ok, err := s.Get([]byte("a"))
		if err != nil || !ok || string(value) != "1" || s.Applied() != (Position{5, 2}) {
			t.Errorf("at %v it says %q, %v: %v", s.Applied(), value, ok, err)
		}
		if names, err := fs.List("state"); err != nil || len(names) != 3 {
			t.Errorf("while it is read there are %v: %v", names, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if names, err := fs.List("state"); err != nil || len(names) != 2 {
		t.Errorf("left in the folder: %v: %v", names, err)
	}
	if err := errors.Join(is(t, e, Position{10, 3}, "a=2 b=3"), e.Close()); err != nil {
		t.Error(err)
	}
}

// stateStream is a small state as a stream.
func stateStream(t testing.TB, at Position, pairs ...string) []byte {
	t.Helper()
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, at, pairs...)
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	_, err = s.WriteTo(&stream)
	if err := errors.Join(err, s.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

// A stream that is not what was written, in one byte, too short or too long, is
// refused; the old state stays and works, and a good stream comes after it. What
// was begun is ended: no goroutine of Pebble's is left.
func TestADamagedStreamLeavesTheOldState(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	good := stateStream(t, Position{7, 3}, "a", "1", "b", "2")
	fs := vfs.NewMem()
	e := openTestEngine(t, fs)
	put(t, e, Position{2, 1}, "old", "state")
	refuse := func(what string, stream []byte) {
		if err := e.Restore(bytes.NewReader(stream)); err == nil {
			t.Errorf("%s: it was restored", what)
		}
		if err := is(t, e, Position{2, 1}, "old=state"); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range good {
		damaged := bytes.Clone(good)
		damaged[i] ^= 1 << (i % 8)
		refuse(fmt.Sprintf("byte %d turned", i), damaged)
		if i%slower == 0 {
			refuse(fmt.Sprintf("cut at %d", i), good[:i])
		}
	}
	refuse("one byte more", append(bytes.Clone(good), 0))
	huge := append([]byte(stateMagic), 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff)
	refuse("a value of 4 GiB", huge)
	if names, err := fs.List("state"); err != nil || len(names) != 2 {
		t.Errorf("left in the folder: %v, %v", names, err)
	}
	if err := errors.Join(e.Restore(bytes.NewReader(good)), is(t, e, Position{7, 3}, "a=1 b=2"), e.Close()); err != nil {
		t.Error(err)
	}
}

// The stream's form is fixed: members of two versions exchange it.
func TestTheStreamIsWhatItSays(t *testing.T) {
	got := stateStream(t, Position{2, 1}, "k", "vv")
	body := "SMSTATE1" +
		"\x00\x00\x00\x10\x00\x00\x00\x10" + "__meta__/applied" + "\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x00\x00\x00\x01\x00\x00\x00\x02" + "kvv" +
		"\x00\x00\x00\x00"
	sum := sha256.Sum256([]byte(body))
	if want := body + string(sum[:]); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A crash before each operation of Restore leaves the old state or the new one,
// and no folder beside it after the next opening.
func TestACrashInRestoreLeavesTheOldStateOrTheNew(t *testing.T) {
	stream := stateStream(t, Position{7, 3}, "a", "1")
	fs := vfs.NewCrashableMem()
	var left []*vfs.MemFS
	var mu sync.Mutex
	e := openTestEngine(t, fs)
	put(t, e, Position{2, 1}, "old", "state")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openTestEngine(t, crashBefore(fs, &mu, &left))
	if err := e.Restore(bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	crashes := slices.Clone(left)
	mu.Unlock()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	found := map[Position]int{}
	for i := 0; i < len(crashes); i += slower {
		e := openTestEngine(t, crashes[i])
		at := e.AppliedIndex()
		found[at]++
		if is(t, e, Position{2, 1}, "old=state") != nil && is(t, e, Position{7, 3}, "a=1") != nil {
			t.Errorf("crash %d left %v, %q", i, at, content(t, e))
		}
		if names, err := crashes[i].List("state"); err != nil || len(names) != 2 {
			t.Errorf("crash %d: left in the folder: %v, %v", i, names, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if slower == 1 && (found[Position{2, 1}] == 0 || found[Position{7, 3}] == 0) {
		t.Errorf("%d crashes left %v, want some of each", len(crashes), found)
	}
}

// A folder that a failed Restore could not remove is not in the next one's state.
func TestWhatAFailedRestoreLeftIsNotRestored(t *testing.T) {
	removals := 0
	e := openTestEngine(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpRemoveAll || op.Path != "state/2" {
			return nil
		}
		if removals++; removals == 2 { // the first is before the folder is made
			return errDisk
		}
		return nil
	})))
	damaged := stateStream(t, Position{9, 9}, "left", "over")
	damaged[len(damaged)-1] ^= 1
	err := e.Restore(bytes.NewReader(damaged))
	if !errors.Is(err, errDisk) {
		t.Errorf("the folder was removed: %v", err)
	}
	if err := e.Restore(bytes.NewReader(stateStream(t, Position{7, 3}, "a", "1"))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(is(t, e, Position{7, 3}, "a=1"), e.Close()); err != nil {
		t.Error(err)
	}
}

// Each operation of Restore on the engine's folder fails once. The old state
// stays and works, unless it is unknown which of the two a crash would leave:
// then the process stops.
func TestAFailedRestoreLeavesTheOldState(t *testing.T) {
	stream := stateStream(t, Position{7, 3}, "a", "1")
	stopped, failed, done := 0, 0, false
	for k := int64(1); !done; k++ {
		fs := vfs.NewCrashableMem()
		var toggle failOnce
		e, err := OpenEngine(EngineOptions{FS: errorfs.Wrap(fs, &toggle), Dir: "state", OnFatal: func(error) {}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, e, Position{2, 1}, "old", "state")
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		toggle.arm(k)
		panicked, err := restore(e, stream)
		done = !toggle.disarm()
		switch {
		case panicked != nil:
			stopped++
			continue // as the process would: what is open stays
		case err != nil:
			failed++
			if wrong := is(t, e, Position{2, 1}, "old=state"); wrong != nil {
				t.Fatalf("operation %d failed with %v: %v", k, err, wrong)
			}
			err = e.Restore(bytes.NewReader(stream)) // what failed is not in the way
		}
		if err = errors.Join(err, is(t, e, Position{7, 3}, "a=1"), e.Close()); err != nil {
			t.Fatalf("operation %d: %v", k, err)
		}
		again := openTestEngine(t, fs.CrashClone(vfs.CrashCloneCfg{}))
		if err := errors.Join(is(t, again, Position{7, 3}, "a=1"), again.Close()); err != nil {
			t.Fatalf("operation %d, opened again: %v", k, err)
		}
	}
	if failed == 0 || stopped == 0 {
		t.Errorf("%d failed, %d stopped the process: want some of each", failed, stopped)
	}
}

func restore(e *Engine, stream []byte) (panicked any, err error) {
	defer func() { panicked = recover() }()
	return nil, e.Restore(bytes.NewReader(stream))
}

// failOnce fails one operation that changes something in the engine's folder, but
// not in Pebble's below it: Pebble stops the process at some of them.
type failOnce struct {
	mu    sync.Mutex // guards what follows
	armed bool
	left  int64
}

func (f *failOnce) String() string { return "fail once" }

func (f *failOnce) arm(k int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.left = true, k
}

// disarm tells whether it failed.
func (f *failOnce) disarm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	return f.left <= 0
}

func (f *failOnce) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	kinds := []errorfs.OpKind{errorfs.OpCreate, errorfs.OpRename, errorfs.OpFileSync, errorfs.OpFileWrite, errorfs.OpOpenDir}
	ours := op.Path == "state" || strings.HasPrefix(op.Path, "state/"+currentFile)
	if !f.armed || !ours || !slices.Contains(kinds, op.Kind) {
		return nil
	}
	if f.left--; f.left == 0 {
		return errDisk
	}
	return nil
}
