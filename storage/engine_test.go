package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"
)

func openTestEngine(t testing.TB, fs vfs.FS) *Engine {
	t.Helper()
	e, err := OpenEngine(EngineOptions{FS: fs, Dir: "state", MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// put applies one batch with these keys and values, "" for none.
func put(t testing.TB, e *Engine, at Position, pairs ...string) {
	t.Helper()
	b := e.NewBatch()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			b.Delete([]byte(pairs[i]))
		} else {
			b.Set([]byte(pairs[i]), []byte(pairs[i+1]))
		}
	}
	if err := e.Apply(b, at); err != nil {
		t.Fatal(err)
	}
}

// content is all keys and values but the position.
func content(t testing.TB, e *Engine) string {
	t.Helper()
	var b strings.Builder
	if err := e.Scan(nil, nil, func(key, value []byte) error {
		if string(key) != appliedKey {
			fmt.Fprintf(&b, "%s=%s ", key, value)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

// is tells where an engine differs from a content and a position.
func is(t testing.TB, e *Engine, at Position, want string) error {
	t.Helper()
	if got := e.AppliedIndex(); got != at {
		return fmt.Errorf("at %v, want %v", got, at)
	}
	if got := content(t, e); got != want {
		return fmt.Errorf("content %q, want %q", got, want)
	}
	return nil
}

// State and position are one: after a crash at any moment the state is what the
// log made of it up to the position that it names, no more and no less, and not
// older than the last flush.
func TestAfterACrashTheStateIsThatOfItsPosition(t *testing.T) {
	forSeeds(t, 40, func(t *testing.T, random *rand.Rand) {
		fs := vfs.NewCrashableMem()
		e := openTestEngine(t, fs)
		states, flushed := []string{""}, uint64(0)
		for i := uint64(1); i <= 30; i++ {
			key := fmt.Sprint("key-", random.IntN(5))
			put(t, e, Position{i, i / 7}, key, []string{"", fmt.Sprint(i)}[random.IntN(2)], "last", fmt.Sprint(i))
			states = append(states, content(t, e))
			if random.IntN(8) == 0 {
				if err := e.Flush(); err != nil {
					t.Fatal(err)
				}
				flushed = i
			}
			if durable, err := e.DurableIndex(); err != nil || durable != flushed {
				t.Fatalf("durable is %d, want %d: %v", durable, flushed, err)
			}
			if random.IntN(5) == 0 {
				left := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
				isPrefix(t, left, states, flushed)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		isPrefix(t, fs.CrashClone(vfs.CrashCloneCfg{}), states, 30)
	})
}

// The same with batches so large that Pebble flushes in the middle of them, and
// a crash before each of its syncs.
func TestAFlushNeverPartsABatchFromItsPosition(t *testing.T) {
	fs := vfs.NewCrashableMem()
	var mu sync.Mutex
	var left []*vfs.MemFS
	disk := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpRemove {
			mu.Lock()
			defer mu.Unlock()
			left = append(left, fs.CrashClone(vfs.CrashCloneCfg{}))
		}
		return nil
	}))
	e, err := OpenEngine(EngineOptions{FS: disk, Dir: "state", MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 40; i++ {
		put(t, e, Position{i, 1}, "fill", strings.Repeat("x", 40<<10), "last", fmt.Sprint(i))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	found := map[uint64]bool{}
	for _, fs := range left {
		e := openTestEngine(t, fs)
		at := e.AppliedIndex().Index
		found[at] = true
		if last, ok, err := e.Get([]byte("last")); err != nil || ok != (at > 0) || ok && string(last) != fmt.Sprint(at) {
			t.Errorf("a crash left position %d and the state of %q: %v", at, last, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(found) < 5 {
		t.Errorf("crashes left %v: too few flushes to show anything", found)
	}
}

func isPrefix(t *testing.T, left vfs.FS, states []string, flushed uint64) {
	t.Helper()
	e := openTestEngine(t, left)
	at := e.AppliedIndex()
	if at.Index < flushed || at.Term != at.Index/7 || content(t, e) != states[at.Index] {
		t.Errorf("flushed up to %d, a crash left %v with %q", flushed, at, content(t, e))
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// A crash at each operation of the first opening leaves an empty state or none,
// and the next opening makes it.
func TestACrashInTheFirstOpening(t *testing.T) {
	fs := vfs.NewCrashableMem()
	var left []*vfs.MemFS
	var mu sync.Mutex
	e := openTestEngine(t, crashBefore(fs, &mu, &left))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if len(left) < 10 {
		t.Fatalf("%d crashes", len(left))
	}
	for i, fs := range left {
		e, err := OpenEngine(EngineOptions{FS: fs, Dir: "state"})
		if err != nil {
			t.Fatalf("crash %d: %v", i, err)
		}
		put(t, e, Position{1, 1}, "a", "b")
		if err := errors.Join(is(t, e, Position{1, 1}, "a=b"), e.Close()); err != nil {
			t.Errorf("crash %d: %v", i, err)
		}
	}
}

// crashBefore collects what a crash before each operation would leave: of what
// is not synced nothing, or all. (Pebble takes it for granted that the names in
// a folder reach the disk in the order in which they were made. It would not open
// with the marker of a manifest and without the manifest, so no subsets here.)
func crashBefore(fs *vfs.MemFS, mu *sync.Mutex, left *[]*vfs.MemFS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))}
		*left = append(*left, fs.CrashClone(vfs.CrashCloneCfg{}), fs.CrashClone(all))
		return nil
	}))
}

// A state whose name is lost is not taken for leftovers of a crash. Only the
// first folder can be without one, before it ever held anything.
func TestAStateWithoutItsNameIsNotRemoved(t *testing.T) {
	fs := vfs.NewMem()
	e := openTestEngine(t, fs)
	put(t, e, Position{2, 1}, "a", "1")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	check(fs.Remove("state/CURRENT"))
	e = openTestEngine(t, fs)
	if err := errors.Join(is(t, e, Position{2, 1}, "a=1"), e.Restore(bytes.NewReader(stateStream(t, Position{7, 3}, "a", "2"))), e.Close()); err != nil {
		t.Fatal(err)
	}
	check(fs.Remove("state/CURRENT"))
	_, err := OpenEngine(EngineOptions{FS: fs, Dir: "state"})
	want := "open engine: state/CURRENT is missing, though folder 2 is there; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	check(writeFileAtomic(fs, "state", currentFile, []byte("2")))
	e = openTestEngine(t, fs)
	if err := errors.Join(is(t, e, Position{7, 3}, "a=2"), e.Close()); err != nil {
		t.Error(err)
	}
}

// An opening that fails, whatever it was that failed, leaves nothing running.
func TestAFailedOpeningLeavesNothingRunning(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for k := int64(1); ; k++ {
		var once failOnce
		once.arm(k)
		e, err := OpenEngine(EngineOptions{FS: errorfs.Wrap(vfs.NewMem(), &once), Dir: "state", OnFatal: func(error) {}})
		if err == nil {
			err = e.Close()
		}
		if !once.disarm() {
			if err != nil || k < 5 {
				t.Errorf("after %d operations: %v", k-1, err)
			}
			return
		}
		if err != nil && !errors.Is(err, errDisk) {
			t.Errorf("operation %d failed: %v", k, err)
		}
	}
}

// The file that names the state is refused when it names none.
func TestACurrentFileThatNamesNoState(t *testing.T) {
	for content, want := range map[string]string{
		"":   `state/CURRENT names "", want the number of a folder`,
		"0":  `state/CURRENT names "0", want the number of a folder`,
		"1x": `state/CURRENT names "1x", want the number of a folder`,
		"5":  "state/CURRENT names folder 5: ",
	} {
		fs := vfs.NewMem()
		if err := openTestEngine(t, fs).Close(); err != nil {
			t.Fatal(err)
		}
		check(writeFileAtomic(fs, "state", currentFile, []byte(content)))
		if _, err := OpenEngine(EngineOptions{FS: fs, Dir: "state"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CURRENT with %q: %v", content, err)
		}
	}
}

// A flipped bit in any file of a flushed state is noticed when it is opened or
// read, or it changes nothing, or Pebble takes it for a crash before a flush:
// then the state is that of an earlier position, which the log goes on from, or
// it is refused as it begins later.
func TestAFlippedBitInTheStateNeverChangesIt(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e := openTestEngine(t, fs)
	put(t, e, Position{1, 1}, "a", "0")
	check(e.Flush())
	put(t, e, Position{2, 1}, "a", "1", "b", "2")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	states := []string{"{0 0}", "{1 1} a=0", "{2 1} a=1 b=2"}
	names, err := fs.List("state/1")
	check(err)
	slices.Sort(names)
	for _, name := range names {
		data, err := fs.UnsafeGetFileDataBuffer("state/1/" + name)
		check(err)
		for i := 0; i < len(data); i += 3 * slower {
			if got, noticed := flipped(t, fs, "state/1/"+name, i); !noticed && !slices.Contains(states, got) {
				t.Errorf("byte %d of %s turned: %s", i, name, got)
			}
		}
	}
}

// flipped reads the state with one bit turned, or says that this was noticed.
func flipped(t *testing.T, fs *vfs.MemFS, name string, at int) (got string, noticed bool) {
	t.Helper()
	var told atomic.Bool
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	data, err := clone.UnsafeGetFileDataBuffer(name)
	check(err)
	data[at] ^= 1 << (at % 8)
	defer func() {
		if recover() != nil {
			noticed = true // Pebble stops the process
		}
	}()
	e, err := OpenEngine(EngineOptions{FS: clone, Dir: "state", OnFatal: func(error) { told.Store(true) }})
	if err != nil {
		return "", true
	}
	var b strings.Builder
	fmt.Fprint(&b, e.AppliedIndex())
	err = e.Scan([]byte("a"), nil, func(key, value []byte) error {
		fmt.Fprintf(&b, " %s=%s", key, value)
		return nil
	})
	return b.String(), errors.Join(err, e.Close()) != nil || told.Load()
}

// Scan keeps to its bounds, in order, and ends with the error of its reader.
func TestScanKeepsToItsBounds(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, Position{1, 1}, "a", "1", "b", "2", "b/x", "3", "c", "4")
	for _, c := range []struct{ lo, hi, want string }{
		{"a", "c", "a b b/x"}, {"b", "b", ""}, {"b", "", "b b/x c"}, {"b/", "b0", "b/x"}, {"d", "", ""}, {"", "a", "__meta__/applied"},
	} {
		var keys []string
		err := e.Scan(bound(c.lo), bound(c.hi), func(key, _ []byte) error { keys = append(keys, string(key)); return nil })
		if got := strings.Join(keys, " "); err != nil || got != c.want {
			t.Errorf("from %q to %q: %q, want %q: %v", c.lo, c.hi, got, c.want, err)
		}
	}
	enough, n := errors.New("enough"), 0
	if err := e.Scan(nil, nil, func(_, _ []byte) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Errorf("%d keys, %v", n, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// bound is nil for "".
func bound(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// Get returns a copy, and tells an empty value from none.
func TestGet(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	b := e.NewBatch()
	b.Set([]byte("empty"), nil)
	b.Set([]byte("full"), []byte("value"))
	if b.Len() == 0 {
		t.Error("a batch with two keys takes no bytes")
	}
	if err := e.Apply(b, Position{1, 1}); err != nil {
		t.Fatal(err)
	}
	dropped := e.NewBatch()
	dropped.Set([]byte("dropped"), []byte("x"))
	if err := dropped.Close(); err != nil {
		t.Error(err)
	}
	for key, want := range map[string]string{"empty": `"" true`, "full": `"value" true`, "none": `"" false`, "dropped": `"" false`} {
		value, ok, err := e.Get([]byte(key))
		if got := fmt.Sprintf("%q %v", value, ok); err != nil || got != want {
			t.Errorf("%s: %s, want %s: %v", key, got, want, err)
		}
		if ok && len(value) > 0 {
			value[0] = 'X'
		}
	}
	if value, _, err := e.Get([]byte("full")); err != nil || string(value) != "value" {
		t.Errorf("full: %q after a reader wrote into its copy: %v", value, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// Positions only grow: a batch of an older entry stops the process.
func TestTheStateNeverGoesBack(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, Position{5, 1})
	b := e.NewBatch()
	func() {
		defer func() {
			if got, want := recover(), "storage: apply of a batch at index 4 to a state at 5"; got != want {
				t.Errorf("got %v, want %s", got, want)
			}
		}()
		t.Error(e.Apply(b, Position{4, 1}))
	}()
	if err := errors.Join(b.Close(), e.Close()); err != nil {
		t.Error(err)
	}
}

// After Close every call says so.
func TestAClosedEngineSaysSo(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	batch := e.NewBatch()
	if err := errors.Join(e.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	_, _, get := e.Get([]byte("a"))
	_, durable := e.DurableIndex()
	_, snapshot := e.Snapshot()
	for what, err := range map[string]error{
		"apply": e.Apply(batch, Position{1, 1}), "apply of a new batch": e.Apply(e.NewBatch(), Position{1, 1}),
		"get": get, "durable index": durable, "snapshot": snapshot, "flush": e.Flush(),
		"scan":    e.Scan(nil, nil, func(_, _ []byte) error { return nil }),
		"restore": e.Restore(bytes.NewReader(stateStream(t, Position{1, 1}))),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := batch.Close(); err != nil {
		t.Error(err)
	}
}

// An error of the disk that Pebble meets in the background reaches the owner.
func TestABackgroundErrorReachesTheOwner(t *testing.T) {
	var toggle errorfs.Toggle
	toggle.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileWrite {
			return errDisk
		}
		return nil
	})
	told := make(chan error, 1)
	e, err := OpenEngine(EngineOptions{FS: errorfs.Wrap(vfs.NewMem(), &toggle), Dir: "state", OnFatal: func(err error) {
		toggle.Off()
		select {
		case told <- err:
		default: // Pebble tries again and again, and whoever made it wait would have it hang
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, e, Position{1, 1}, "a", "1")
	toggle.On()
	flushed := make(chan error, 1)
	go func() { flushed <- e.Flush() }()
	if err := <-told; !errors.Is(err, errDisk) {
		t.Errorf("told of %v", err)
	}
	for what, err := range map[string]error{"flush": <-flushed, "close": e.Close()} {
		if !errors.Is(err, errDisk) {
			t.Errorf("%s: %v, though the disk works again: what was lost meanwhile nobody knows", what, err)
		}
	}
}

// A writer that fails ends the stream with its error, said once.
func TestAStreamEndsWithItsWritersError(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, Position{3, 1}, "large", strings.Repeat("x", 1<<20))
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.WriteTo(brokenPipe{})
	if want := "write the state at index 3: io: read/write on closed pipe"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := errors.Join(s.Close(), e.Close()); err != nil {
		t.Error(err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Readers see the old state or the new one while Restore switches, never a mix.
func TestReadersBesideRestore(t *testing.T) {
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, Position{1, 1}, "a", "old", "b", "old")
	stream := stateStream(t, Position{2, 1}, "a", "new", "b", "new")
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				var values []string
				err := e.Scan([]byte("a"), nil, func(_, value []byte) error { values = append(values, string(value)); return nil })
				if err != nil || len(values) != 2 || values[0] != values[1] {
					t.Errorf("%v, %v", values, err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 5 {
		if err := e.Restore(bytes.NewReader(stream)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
	if err := errors.Join(is(t, e, Position{2, 1}, "a=new b=new"), e.Close()); err != nil {
		t.Error(err)
	}
}
