package crashfs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stellmap/stellmap/storage/crashfs"
)

// Pebble without a log writes, flushes, compacts, closes and opens on it, and
// the power is cut at some operation of a random run: what is left opens, is
// the state after one of the batches, and holds all that was flushed. It needs
// names that change in order; see TestPebbleNeedsAJournal.
func TestPebbleSurvivesACrash(t *testing.T) {
	crashes, beforeEnd := 0, 0
	for seed := range uint64(200) {
		r := &pebbleRun{t: t, random: rand.New(rand.NewPCG(seed, 0)), disk: crashfs.New()}
		r.crashAt(1+r.random.IntN(400), crashfs.Loss{Seed: seed, Mode: crashfs.Journal})
		r.run()
		r.recover()
		if t.Failed() {
			t.Fatalf("this was seed %d:\n%s", seed, strings.Join(r.disk.Trace(), "\n"))
		}
		crashes++
		if r.crashed < r.disk.Ops() {
			beforeEnd++
		}
	}
	t.Logf("%d crashes, %d of them in the middle", crashes, beforeEnd)
	if beforeEnd < crashes/3 {
		t.Error("too few crashes are in the middle of a run: it is too short")
	}
}

// Pebble moves the marker of its manifest by making a manifest and a marker,
// removing the old marker and syncing the directory. A disk that keeps only the
// last of these leaves no marker, and Pebble opens an empty database; one that
// keeps the marker and not the manifest leaves what Pebble refuses. If this test
// fails, Pebble has learnt it, and TestPebbleSurvivesACrash may use Random.
func TestPebbleNeedsAJournal(t *testing.T) {
	for _, mode := range []crashfs.Mode{crashfs.Random, crashfs.Journal} {
		ends := map[string]int{}
		for _, left := range movedMarkers(t, mode) {
			ends[howItOpens(left)]++
		}
		t.Logf("mode %d: %v", mode, ends)
		if mode == crashfs.Random && (ends["empty"] == 0 || ends["refused"] == 0) || mode == crashfs.Journal && ends["whole"] != 200 {
			t.Errorf("mode %d: with 200 seeds: %v", mode, ends)
		}
	}
}

// movedMarkers is what crashes leave when Pebble is opened for the second time
// and the marker is being moved.
func movedMarkers(t *testing.T, mode crashfs.Mode) (left []*crashfs.FS) {
	t.Helper()
	r := &pebbleRun{t: t, random: rand.New(rand.NewPCG(1, 0)), disk: crashfs.New()}
	r.batches = []map[string]string{{}}
	r.db = r.open(r.disk)
	r.write()
	r.flush()
	r.must(r.db.Close())
	r.disk.After(func(op crashfs.Op) {
		if op.Kind == crashfs.Remove && strings.HasPrefix(op.Path, "state/marker.manifest.") {
			for seed := range uint64(200) {
				left = append(left, r.disk.Crash(crashfs.Loss{Seed: seed, Mode: mode}))
			}
		}
	})
	r.db = r.open(r.disk)
	r.must(r.db.Close())
	return left
}

func howItOpens(disk *crashfs.FS) string {
	db, err := openPebble(disk)
	if err != nil {
		return "refused"
	}
	_, closer, err := db.Get([]byte("batch"))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return "empty" + failed(db.Close())
	case err != nil:
		return err.Error()
	}
	return "whole" + failed(errors.Join(closer.Close(), db.Close()))
}

func failed(err error) string {
	if err != nil {
		return ", then " + err.Error()
	}
	return ""
}

// pebbleRun writes batches, each of which puts its number beside its keys.
type pebbleRun struct {
	t      *testing.T
	random *rand.Rand
	disk   *crashfs.FS
	db     *pebble.DB

	batches []map[string]string // the state after each; 0 is the empty one
	begun   atomic.Int64        // the newest batch that may be there
	flushed atomic.Int64        // the newest that must be

	// The crash.
	left     *crashfs.FS
	crashed  int // after which operation
	atLeast  int64
	atMost   int64
	wasThere bool // an opened database
	opened   atomic.Bool
}

// crashAt takes what a crash would leave after one operation.
func (r *pebbleRun) crashAt(index int, l crashfs.Loss) {
	take := func(op crashfs.Op) {
		r.atLeast, r.wasThere = r.flushed.Load(), r.opened.Load()
		r.left, r.crashed = r.disk.Crash(l), op.Index
		r.atMost = r.begun.Load()
	}
	r.disk.After(func(op crashfs.Op) {
		if op.Index == index {
			take(op)
		}
	})
}

func (r *pebbleRun) run() {
	r.batches = []map[string]string{{}}
	r.db = r.open(r.disk)
	r.opened.Store(true)
	for range 60 {
		switch r.random.IntN(12) {
		case 0, 1:
			r.flush()
		case 2:
			r.must(r.db.Compact(r.t.Context(), []byte("a"), []byte("z"), false))
		case 3:
			r.reopen()
		default:
			r.write()
		}
	}
	r.reopen()
	r.must(r.db.Close())
	if r.left == nil { // the run has fewer operations
		r.atLeast, r.atMost, r.wasThere = r.flushed.Load(), r.begun.Load(), true
		r.left, r.crashed = r.disk.Crash(crashfs.Loss{Mode: crashfs.LoseUnsynced}), r.disk.Ops()
	}
}

func (r *pebbleRun) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, strings.Join(r.disk.Trace(), "\n"))
	}
}

func (r *pebbleRun) open(disk *crashfs.FS) *pebble.DB {
	r.t.Helper()
	db, err := openPebble(disk)
	if err != nil {
		r.t.Fatalf("open: %v\n%s", err, dumped(disk))
	}
	return db
}

func openPebble(disk *crashfs.FS) (*pebble.DB, error) {
	return pebble.Open("state", &pebble.Options{
		FS: disk, DisableWAL: true, FormatMajorVersion: pebble.FormatNewest,
		MemTableSize: 64 << 10, L0CompactionThreshold: 2, Logger: quiet{},
	})
}

func (r *pebbleRun) write() {
	state := map[string]string{}
	for k, v := range r.batches[len(r.batches)-1] {
		state[k] = v
	}
	batch := r.db.NewBatch()
	for range 1 + r.random.IntN(20) {
		key := fmt.Sprintf("k%02d", r.random.IntN(50))
		if r.random.IntN(4) == 0 {
			delete(state, key)
			r.must(batch.Delete([]byte(key), nil))
			continue
		}
		state[key] = strings.Repeat(fmt.Sprint(r.random.IntN(10)), r.random.IntN(1000))
		r.must(batch.Set([]byte(key), []byte(state[key]), nil))
	}
	number := len(r.batches)
	state["batch"] = fmt.Sprint(number)
	r.must(batch.Set([]byte("batch"), []byte(state["batch"]), nil))
	r.batches = append(r.batches, state)
	r.begun.Store(int64(number))
	r.must(r.db.Apply(batch, pebble.NoSync))
	r.must(batch.Close())
}

func (r *pebbleRun) flush() {
	r.must(r.db.Flush())
	r.flushed.Store(r.begun.Load())
}

func (r *pebbleRun) reopen() {
	r.flush()
	r.must(r.db.Close())
	r.db = r.open(r.disk)
}

// recover opens what was left.
func (r *pebbleRun) recover() {
	r.t.Helper()
	db := r.open(r.left)
	defer func() { r.must(db.Close()) }()
	got := map[string]string{}
	it, err := db.NewIter(nil)
	r.must(err)
	for ok := it.First(); ok; ok = it.Next() {
		got[string(it.Key())] = string(it.Value())
	}
	r.must(errors.Join(it.Error(), it.Close()))
	number := int64(0)
	if text := got["batch"]; text != "" {
		_, err := fmt.Sscan(text, &number)
		r.must(err)
	}
	if number < r.atLeast || number > r.atMost {
		r.t.Errorf("after a crash at operation %d the state is that of batch %d, want one of %d to %d", r.crashed, number, r.atLeast, r.atMost)
		return
	}
	if want := r.batches[number]; fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("after a crash at operation %d the state is not that of batch %d", r.crashed, number)
	}
}

// quiet is Pebble's logger: only what is fatal is told.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("pebble: "+format, args...))
}

// dumped is the names and sizes of all files.
func dumped(disk *crashfs.FS) string {
	var all strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		names, err := disk.List(dir)
		if err != nil {
			return // a file
		}
		for _, name := range names {
			path := disk.PathJoin(dir, name)
			info, err := disk.Stat(path)
			if err != nil {
				panic(err)
			}
			fmt.Fprintln(&all, path, info.Size())
			walk(path)
		}
	}
	walk(".")
	return all.String()
}
