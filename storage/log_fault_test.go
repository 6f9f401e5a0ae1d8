package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

var errDisk = errors.New("input/output error")

// Each operation on the disk fails once, in runs of random appends, rotations
// and truncations: the error is the last word of that log, and whether the
// process or the power ends then, all that was synced is there.
func TestAnErrorOfTheDiskIsFinal(t *testing.T) {
	failures := map[string]int{}
	forSeeds(t, 30, func(t *testing.T, random *rand.Rand) {
		seed := random.Uint64()
		for k := 1; ; k++ {
			w := newCrashWalk(t, rand.New(rand.NewPCG(seed, 1)))
			fault := &fault{at: w.disk.ops + k, err: errDisk}
			if random.IntN(2) == 0 {
				fault.err = errShort
			}
			w.disk.before = fault.before
			err := w.run(20)
			if fault.op == "" {
				w.end()
				break // the run has fewer operations
			}
			if !errors.Is(err, fault.err) {
				t.Fatalf("%s failed with %v, and what was asked for ended with: %v", fault.op, fault.err, err)
			}
			failures[fault.op]++
			w.isFinal(fault)
			w.survivesFailure(fault)
		}
	})
	for _, op := range []string{"create", "write", "sync", "rename", "remove", "close"} {
		if failures[op] == 0 && *seedFlag == 0 && slower == 1 {
			t.Errorf("no %s failed", op)
		}
	}
	t.Logf("failures: %v", failures)
}

// fault lets one operation fail.
type fault struct {
	at, seen int
	err      error
	op       string // what failed
}

func (f *fault) before(op, _ string) error {
	if f.seen++; f.seen != f.at {
		return nil
	}
	f.op = op
	return f.err
}

// isFinal shows that nothing is tried again.
func (w *crashWalk) isFinal(f *fault) {
	w.t.Helper()
	if w.log == nil || w.log.closed {
		return
	}
	if w.log.broken == nil {
		return // it failed while it was opened again: there is no log
	}
	ops := w.disk.ops
	for what, err := range map[string]error{
		"append":   w.log.Append(nil, &HardState{Term: 99}),
		"sync":     w.log.Sync(),
		"mark":     w.log.Mark(),
		"truncate": w.log.TruncatePrefix(w.truncated),
	} {
		if !errors.Is(err, f.err) {
			w.t.Errorf("after a failed %s, %s: %v", f.op, what, err)
		}
	}
	if w.disk.ops != ops {
		w.t.Errorf("after a failed %s, %d more operations", f.op, w.disk.ops-ops)
	}
	if err := w.log.Close(); err != nil {
		w.t.Errorf("after a failed %s, close: %v", f.op, err)
	}
	if err := w.log.Append(nil, nil); !errors.Is(err, ErrClosed) {
		w.t.Errorf("after close, append: %v", err)
	}
}

// survivesFailure starts again, after a power cut and without one. In the second
// case what a failed sync has dropped can still be read: it is lost for good
// unless it is written anew, so the power is cut after that.
func (w *crashWalk) survivesFailure(f *fault) {
	w.t.Helper()
	w.disk.before = nil
	if w.disk.handles != 0 {
		w.t.Errorf("after a failed %s, %d files are still open", f.op, w.disk.handles)
	}
	for i, keep := range []func() bool{nothing, everything, someOf(w.random)} {
		w.recover(w.disk.cutPower(keep), fmt.Sprintf("power cut %d after a failed %s", i, f.op))
	}
	log, err := w.open(w.disk)
	if err != nil {
		w.t.Fatalf("after a failed %s: %v", f.op, err)
	}
	found, err := w.found(log)
	if err = errors.Join(err, log.active.file.Close()); err != nil {
		w.t.Fatalf("after a failed %s: %v", f.op, err)
	}
	w.may, w.truncated = []model{found}, max(w.truncated, found.base.Index)
	w.recover(w.disk.cutPower(nothing), fmt.Sprintf("power cut after a restart after a failed %s", f.op))
}

// A sync that fails is told at once, and what it should have written is not
// acknowledged by the next one.
func TestAFailedSyncIsNotTriedAgain(t *testing.T) {
	disk := newFrailDisk()
	syncs := 0
	log, err := OpenLog(LogOptions{FS: disk, Dir: "wal", Salt: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	disk.before = func(op, _ string) error {
		if op != "sync" {
			return nil
		}
		syncs++
		return errDisk
	}
	if err := log.Append([]Entry{{Index: 1, Term: 1, Data: []byte("a")}}, nil); err != nil {
		t.Fatal(err)
	}
	got := []string{fmt.Sprint(log.Sync()), fmt.Sprint(log.Sync()), fmt.Sprint(log.Append(nil, nil)), fmt.Sprint(log.Close())}
	want := []string{"write log: input/output error", "write log: input/output error", "write log: input/output error", "<nil>"}
	if !slices.Equal(got, want) || syncs != 1 {
		t.Errorf("%d syncs, %q, want 1, %q", syncs, got, want)
	}
}
