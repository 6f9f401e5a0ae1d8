package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The power is cut before each single operation on the disk, in runs of random
// appends, rotations, truncations and restarts: whatever subset of what was not
// synced is left, the log opens with all that was synced, and what comes after
// that is a prefix of what was appended.
func TestAPowerCutAtAnyMomentLosesNothingSynced(t *testing.T) {
	recoveries := 0
	forSeeds(t, 400, func(t *testing.T, random *rand.Rand) {
		w := newCrashWalk(t, random)
		w.disk.before = func(op, path string) error {
			for _, keep := range []func() bool{nothing, everything, someOf(random), someOf(random)} {
				w.recover(w.disk.cutPower(keep), fmt.Sprintf("before op %d, %s %s", w.disk.ops, op, path))
				recoveries++
			}
			return nil
		}
		if err := w.run(12); err != nil {
			t.Fatal(err)
		}
		w.end()
	})
	if *seedFlag == 0 && recoveries < 40_000/slower {
		t.Errorf("%d recoveries, want %d: a run is too short to show anything", recoveries, 40_000/slower)
	}
	t.Logf("%d recoveries", recoveries)
}

// crashWalk drives a log on a disk that may lose what was not synced, and
// knows what it may look like after a crash.
type crashWalk struct {
	t       *testing.T
	random  *rand.Rand
	author  *author
	disk    *frailDisk
	options LogOptions
	log     *Log

	may       []model // what a crash may leave; the first is synced, the last is all
	truncated uint64  // the highest index that was asked to be truncated
	floor     uint64  // the first index is this at least
}

func newCrashWalk(t *testing.T, random *rand.Rand) *crashWalk {
	w := &crashWalk{t: t, random: random, author: newAuthor(random), disk: newFrailDisk()}
	check(w.disk.MkdirAll("data", 0o700))
	w.disk.syncDir(".")
	w.may = []model{w.author.model}
	w.options = LogOptions{
		Dir: "data/wal", Base: w.author.model.base, Salt: random.Uint64,
		SegmentBytes: 1 + random.Int64N(3000), TailBytes: 1 + random.IntN(2000),
	}
	w.truncated, w.floor = w.options.Base.Index, w.options.Base.Index+1
	return w
}

// open opens the log on a disk.
func (w *crashWalk) open(disk vfs.FS) (*Log, error) {
	o := w.options
	o.FS, o.Applied = disk, max(w.truncated, w.options.Base.Index)
	return OpenLog(o)
}

// run does so many steps, or ends with the first error.
func (w *crashWalk) run(steps int) error {
	var err error
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

func (w *crashWalk) end() {
	w.disk.before = nil
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	if w.disk.handles != 0 {
		w.t.Fatalf("%d files are still open", w.disk.handles)
	}
}

func (w *crashWalk) step() error {
	switch w.random.IntN(12) {
	case 0:
		return w.restart()
	case 1:
		return w.truncate()
	case 2:
		return w.log.Mark()
	case 3, 4, 5:
		return w.sync()
	}
	return w.append()
}

// append may leave what it replaces, the log without that, or the log with what
// replaces it.
func (w *crashWalk) append() error {
	before := w.author.model
	entries, hard := w.author.next()
	if len(entries) > 0 && entries[0].Index <= before.last() {
		w.may = append(w.may, before.cut(entries[0].Index))
	}
	w.may = append(w.may, w.author.model)
	return w.log.Append(entries, hard)
}

func (w *crashWalk) sync() error {
	err := w.log.Sync()
	if err == nil {
		w.may = []model{w.author.model}
	}
	return err
}

func (w *crashWalk) truncate() error {
	index := w.author.applied()
	if err := w.sync(); err != nil { // what the engine has was committed, so it was synced
		return err
	}
	w.truncated = max(w.truncated, index)
	err := w.log.TruncatePrefix(index)
	if err == nil {
		w.floor = w.log.FirstIndex()
	}
	return err
}

// restart ends the process, cleanly or not; the disk keeps its power.
func (w *crashWalk) restart() error {
	if w.random.IntN(2) == 0 {
		if err := w.log.Close(); err != nil {
			return err
		}
		w.may = []model{w.author.model}
	} else if err := w.log.active.file.Close(); err != nil {
		return err
	}
	log, err := w.open(w.disk)
	if err != nil {
		return err
	}
	w.log, w.may = log, []model{w.author.model}
	return nil
}

// recover opens what a power cut left and returns what is there.
func (w *crashWalk) recover(left *frailDisk, when string) model {
	w.t.Helper()
	if w.random.IntN(16) == 0 {
		left = w.crashAgain(left, when)
	}
	log, err := w.open(left)
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	found, err := w.found(log)
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	if w.random.IntN(16) == 0 {
		w.goOn(log, left, found, when)
	} else if err := log.Close(); err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	return found
}

// found is which of the models the log is.
func (w *crashWalk) found(log *Log) (model, error) {
	if first := log.FirstIndex(); first < w.floor || first > w.truncated+1 {
		return model{}, fmt.Errorf("it begins with %d, not with one of %d to %d", first, w.floor, w.truncated+1)
	}
	var wrong error
	for _, m := range slices.Backward(w.may) {
		err := m.differs(log)
		if err == nil {
			return m, nil
		}
		wrong = errors.Join(wrong, err)
	}
	return model{}, fmt.Errorf("what is there is none of %d that may be: %w", len(w.may), wrong)
}

// goOn shows that a recovered log works.
func (w *crashWalk) goOn(log *Log, disk *frailDisk, m model, when string) {
	w.t.Helper()
	hard := &HardState{Term: m.hard.Term + 1, Vote: 9, Commit: m.hard.Commit}
	entries := []Entry{{Index: m.last() + 1, Term: m.term(m.last()) + 1, Data: []byte("after the crash")}}
	if err := errors.Join(log.Append(entries, hard), log.Sync(), log.active.file.Close()); err != nil {
		w.t.Fatalf("%s: go on: %v", when, err)
	}
	again, err := w.open(disk.cutPower(nothing))
	if err == nil {
		err = errors.Join(m.append(entries, hard).differs(again), again.Close())
	}
	if err != nil {
		w.t.Fatalf("%s: after going on: %v", when, err)
	}
}

// crashAgain cuts the power while the log is being opened: opening it once more
// finds what opening it at once would have found.
func (w *crashWalk) crashAgain(left *frailDisk, when string) *frailDisk {
	w.t.Helper()
	undisturbed, err := w.open(left.cutPower(nothing))
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	want, err := w.found(undisturbed)
	if err = errors.Join(err, undisturbed.Close()); err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	var after []*frailDisk
	left.before = func(string, string) error {
		after = append(after, left.cutPower(nothing), left.cutPower(someOf(w.random)))
		return nil
	}
	log, err := w.open(left)
	if err == nil {
		err = log.active.file.Close()
	}
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	for k, disk := range after {
		log, err := w.open(disk.cutPower(nothing))
		if err == nil {
			err = errors.Join(want.differs(log), log.Close())
		}
		if err != nil {
			w.t.Fatalf("%s, and in the opening, %d: %v", when, k, err)
		}
	}
	return after[w.random.IntN(len(after))]
}
