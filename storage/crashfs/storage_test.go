package crashfs_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/storage/crashfs"
)

// The log is there after a crash at any operation: all that was synced, and of
// the rest what is a prefix. With every seed another part is lost.
func TestTheLogRunsOnIt(t *testing.T) {
	recoveries := 0
	for seed := range uint64(20) {
		w := newLogWalk(t, seed)
		w.disk.After(func(op crashfs.Op) {
			losses := []crashfs.Loss{{Mode: crashfs.LoseUnsynced}, {Mode: crashfs.KeepAll}}
			for n := range uint64(4) {
				losses = append(losses, crashfs.Loss{Mode: crashfs.Random, Seed: seed<<32 + uint64(op.Index)<<8 + n})
			}
			for n := range w.disk.Tears() {
				losses = append(losses, crashfs.Loss{Mode: crashfs.TearAt, Sectors: n})
			}
			for _, l := range losses {
				w.recover(w.disk.Crash(l), fmt.Sprintf("after %v, %+v", op, l))
				recoveries++
			}
		})
		w.run(25)
	}
	t.Logf("%d recoveries", recoveries)
}

// A sync that failed and forgot, as on Linux: who goes on without writing the
// tail anew would lose it in the next crash.
func TestTheLogSurvivesAForgottenSync(t *testing.T) {
	for seed := range uint64(100) {
		w := newLogWalk(t, seed)
		at := 10 + w.random.IntN(60)
		var failed string
		w.disk.Before(func(op crashfs.Op) error {
			switch op.Kind {
			case crashfs.Sync, crashfs.SyncData, crashfs.SyncDir:
				if failed == "" && op.Index >= at {
					failed = op.String()
					return crashfs.Forget(syscall.EIO)
				}
			}
			return nil
		})
		if err := w.try(200); !errors.Is(err, syscall.EIO) {
			t.Fatalf("seed %d: %q failed, and the log says: %v", seed, failed, err)
		}
		log, err := w.open(w.disk) // the process starts again, the disk keeps its power
		if err != nil {
			t.Fatalf("seed %d: after a failed %s: %v", seed, failed, err)
		}
		w.synced = log.LastIndex()
		w.recover(w.disk.Crash(crashfs.Loss{Mode: crashfs.LoseUnsynced}), "after a failed "+failed)
	}
}

// logWalk appends entries to a log.
type logWalk struct {
	t                *testing.T
	seed             uint64
	random           *rand.Rand
	disk             *crashfs.FS
	log              *storage.Log
	appended, synced uint64 // the last entry
}

func newLogWalk(t *testing.T, seed uint64) *logWalk {
	return &logWalk{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), disk: newDisk(t)}
}

// newDisk has a durable data directory.
func newDisk(t *testing.T) *crashfs.FS {
	t.Helper()
	disk := crashfs.New()
	if err := errors.Join(disk.MkdirAll("data", 0o700), disk.WriteFile("x", nil), disk.Remove("x")); err != nil {
		t.Fatal(err)
	}
	return disk
}

func (w *logWalk) open(disk *crashfs.FS) (*storage.Log, error) {
	return storage.OpenLog(storage.LogOptions{FS: disk, Dir: "data/wal", Salt: rand.New(rand.NewPCG(w.seed, 2)).Uint64, SegmentBytes: 3000, TailBytes: 500})
}

func (w *logWalk) run(steps int) {
	w.t.Helper()
	err := w.try(steps)
	if err == nil {
		err = w.log.Close()
	}
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
}

func (w *logWalk) try(steps int) (err error) {
	if w.log, err = w.open(w.disk); err != nil {
		return err
	}
	for range steps {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

func (w *logWalk) step() error {
	if w.random.IntN(3) == 0 {
		err := w.log.Sync()
		if err == nil {
			w.synced = w.appended
		}
		return err
	}
	entry := entryAt(w.appended + 1)
	w.appended++ // it may be there from the first byte on
	return w.log.Append([]storage.Entry{entry}, &storage.HardState{Term: 1, Commit: w.appended})
}

func entryAt(index uint64) storage.Entry {
	return storage.Entry{Index: index, Term: 1, Data: []byte(strings.Repeat(fmt.Sprint(index, " "), int(index*37%200)))}
}

// recover opens what a crash left.
func (w *logWalk) recover(left *crashfs.FS, when string) {
	w.t.Helper()
	log, err := w.open(left)
	if err != nil {
		w.t.Fatalf("seed %d: %s: %v\n%s", w.seed, when, err, strings.Join(w.disk.Trace(), "\n"))
	}
	last := log.LastIndex()
	if last < w.synced || last > w.appended {
		w.t.Fatalf("seed %d: %s: the log ends with %d, want %d to %d\n%s", w.seed, when, last, w.synced, w.appended, strings.Join(w.disk.Trace(), "\n"))
	}
	for first := uint64(1); first <= last; {
		entries, err := log.Entries(first, last+1, math.MaxUint64)
		if err != nil {
			w.t.Fatalf("seed %d: %s: %v", w.seed, when, err)
		}
		for _, e := range entries {
			if want := entryAt(first); e.Index != first || string(e.Data) != string(want.Data) {
				w.t.Fatalf("seed %d: %s: entry %d is %d %q", w.seed, when, first, e.Index, e.Data)
			}
			first++
		}
	}
	if err := log.Close(); err != nil {
		w.t.Fatalf("seed %d: %s: %v", w.seed, when, err)
	}
}

// The engine opens after a crash at any of its operations with what was flushed.
func TestTheEngineRunsOnIt(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 3))
		disk := newDisk(t)
		var left []crashLeft
		var flushed, applied atomic.Uint64 // Pebble works in the background, too
		disk.After(func(op crashfs.Op) {
			l := crashfs.Loss{Seed: seed<<32 + uint64(op.Index), Mode: crashfs.Journal}
			atLeast := flushed.Load()
			left = append(left, crashLeft{disk.Crash(l), atLeast, applied.Load(), op.String()})
		})
		engine := openEngine(t, disk, "the first start")
		for i := range uint64(20) {
			batch := engine.NewBatch()
			batch.Set([]byte("key"), []byte(fmt.Sprint(i+1)))
			applied.Store(i + 1)
			if err := engine.Apply(batch, storage.Position{Index: i + 1, Term: 1}); err != nil {
				t.Fatal(err)
			}
			if random.IntN(4) == 0 {
				if err := engine.Flush(); err != nil {
					t.Fatal(err)
				}
				flushed.Store(i + 1)
			}
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
		for _, l := range left {
			l.recover(t)
		}
	}
}

// crashLeft is what a crash left, and what must and may be in it.
type crashLeft struct {
	disk            *crashfs.FS
	atLeast, atMost uint64
	when            string
}

func (l crashLeft) recover(t *testing.T) {
	t.Helper()
	engine := openEngine(t, l.disk, l.when)
	at := engine.AppliedIndex().Index
	if at < l.atLeast || at > l.atMost {
		t.Errorf("after %s the state is that of entry %d, want one of %d to %d", l.when, at, l.atLeast, l.atMost)
	}
	value, ok, err := engine.Get([]byte("key"))
	if err != nil || ok != (at > 0) || ok && string(value) != fmt.Sprint(at) {
		t.Errorf("after %s the value is %q (%v, %v), want %d", l.when, value, ok, err, at)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}

func openEngine(t *testing.T, disk *crashfs.FS, when string) *storage.Engine {
	t.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: disk, Dir: "data/state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatalf("after %s: %v", when, err)
	}
	return engine
}
