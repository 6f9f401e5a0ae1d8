package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The power is cut before each operation on the disk in a run of saves and
// openings: what a crash leaves opens with nothing damaged and nothing left
// over; the newest is the one that was durable, or the one that was being saved;
// and the older ones are there until the newer one is.
func TestAPowerCutAtAnyMomentKeepsTheNewestSnapshot(t *testing.T) {
	states := testStates(t, 3000, 3, 7, 9, 12, 15, 16)
	recoveries, found := 0, map[string]int{}
	forSeeds(t, 4, func(t *testing.T, random *rand.Rand) {
		w := &snapshotWalk{t: t, random: random, disk: newTestDisk(), keep: 1 + random.IntN(3), states: states, found: found}
		w.disk.before = func(op, path string) error {
			cuts := []func() bool{nothing, everything}
			for range 16 {
				cuts = append(cuts, someOf(random))
			}
			for i, keep := range cuts {
				w.recover(w.disk.cutPower(keep), fmt.Sprintf("cut %d before op %d, %s %s", i, w.disk.ops, op, path))
				recoveries++
			}
			return nil
		}
		w.run()
	})
	if *seedFlag == 0 && slower == 1 && (found["the one before"] == 0 || found["the new one"] == 0 || recoveries < 4000) {
		t.Errorf("%d recoveries found %v, want some of each", recoveries, found)
	}
	t.Logf("%d recoveries: %v", recoveries, found)
}

// snapshotWalk saves states and knows what may be there after a crash.
type snapshotWalk struct {
	t      *testing.T
	random *rand.Rand
	disk   *frailDisk
	keep   int
	states []*EngineSnapshot
	saved  []SnapshotMeta  // durable, the newest last
	at     *EngineSnapshot // being saved; nil = none
	found  map[string]int
}

func (w *snapshotWalk) run() {
	w.t.Helper()
	s := openTestSnapshots(w.t, w.disk, w.keep)
	for _, state := range w.states {
		if w.random.IntN(3) == 0 { // the process ends, and the disk keeps its power
			s = openTestSnapshots(w.t, w.disk, w.keep)
		}
		w.at = state
		m := mustSave(w.t, s, state)[0]
		w.saved, w.at = append(w.saved, m), nil
	}
	w.disk.before = nil
	w.recover(w.disk.cutPower(nothing), "at the end")
}

// kept are the indexes that should be there, the newest first.
func (w *snapshotWalk) kept() []uint64 {
	all := indexesOf(w.saved)
	slices.Reverse(all)
	return all[:min(w.keep, len(all))]
}

// recover opens what is left, and now and then is cut off again in that.
func (w *snapshotWalk) recover(left *frailDisk, when string) {
	w.t.Helper()
	if w.random.IntN(16) == 0 {
		var again []*frailDisk
		left.before = func(string, string) error {
			again = append(again, left.cutPower(nothing), left.cutPower(someOf(w.random)))
			return nil
		}
		openTestSnapshots(w.t, left, w.keep)
		left.before = nil
		for i, disk := range again {
			w.look(disk, fmt.Sprintf("%s, and in the opening, %d", when, i))
		}
	}
	w.look(left, when)
}

func (w *snapshotWalk) look(left *frailDisk, when string) {
	w.t.Helper()
	s := openTestSnapshots(w.t, left, w.keep)
	list := s.List()
	for _, m := range list {
		if err := s.Verify(m); err != nil {
			w.t.Fatalf("%s: %v", when, err)
		}
	}
	got, want, which := indexesOf(list), w.kept(), "the one before"
	if w.at != nil && len(got) > 0 && got[0] == w.at.Applied().Index {
		which = "the new one" // of the older ones the oldest may have gone
		want = append([]uint64{got[0]}, want...)
		want = want[:max(min(w.keep, len(want)), min(len(got), len(want)))]
	}
	w.found[which]++
	if !slices.Equal(got, want) || s.Damaged() != nil {
		w.t.Fatalf("%s: listed %v, want %v, damaged %v", when, got, want, s.Damaged())
	}
	if names := namesIn(w.t, left.cutPower(nothing)); !slices.Equal(names, filesOf(list)) {
		w.t.Fatalf("%s: there are %v, want %v", when, names, filesOf(list))
	}
	if w.random.IntN(8) == 0 && w.at != nil { // it works
		mustSave(w.t, s, w.at)
		after := indexesOf(openTestSnapshots(w.t, left.cutPower(nothing), w.keep).List())
		// What a crash kept from being removed goes with the next new one.
		if after[0] != w.at.Applied().Index || which != "the new one" && len(after) > w.keep {
			w.t.Fatalf("%s: after going on, listed are %v", when, after)
		}
	}
}

// Each operation on the disk fails once: the save ends with that error and the
// names of the file, nothing is half made, and later saves write nothing. When
// the process starts again, with a power cut between or without, what was
// listed is there, and saves work.
func TestAnErrorOfTheDiskEndsSaving(t *testing.T) {
	states := testStates(t, 3000, 3, 7, 9, 12)
	failures := map[string]int{}
	for _, err := range []error{errDisk, errShort} {
		for k, done := 1, false; !done; k++ {
			disk := newTestDisk()
			s := openTestSnapshots(t, disk, 2)
			mustSave(t, s, states[:2]...)
			fault := &fault{at: k, err: err}
			disk.before = fault.before
			saved, got := s.Save(t.Context(), states[2], aboutTest)
			disk.before = nil
			if done = fault.op == ""; done {
				break
			}
			failures[fault.op]++
			what := fmt.Sprintf("operation %d, %s, failed with %v", k, fault.op, err)
			if !errors.Is(got, err) || saved != (SnapshotMeta{}) || !strings.Contains(got.Error(), newerSnap) {
				t.Errorf("%s: %v", what, got)
			}
			if strings.Contains(got.Error(), "it is durable") != slices.Contains(indexesOf(s.List()), 9) || disk.handles != 0 {
				t.Errorf("%s: listed %v, %d files open, %v", what, s.List(), disk.handles, got)
			}
			isFinalForSaves(t, s, disk, states[3], err, what)
			for _, m := range s.List() {
				if err := s.Verify(m); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			for _, keep := range []func() bool{nothing, everything, nil} {
				left := disk
				if keep != nil {
					left = disk.cutPower(keep)
				}
				startsAgain(t, left, states, indexesOf(s.List())[0], what)
			}
		}
	}
	for _, op := range []string{"create", "write", "sync", "rename", "remove", "close"} {
		if failures[op] == 0 {
			t.Errorf("no %s failed", op)
		}
	}
	t.Logf("failures: %v", failures)
}

func isFinalForSaves(t *testing.T, s *Snapshots, disk *frailDisk, state *EngineSnapshot, err error, what string) {
	t.Helper()
	ops := disk.ops
	_, again := s.Save(t.Context(), state, aboutTest)
	if !errors.Is(again, err) || !strings.HasPrefix(again.Error(), "an error of the disk ended the saving of snapshots: ") || disk.ops != ops {
		t.Errorf("%s: then a save wrote %d times and ended with %v", what, disk.ops-ops, again)
	}
}

func startsAgain(t *testing.T, left *frailDisk, states []*EngineSnapshot, listed uint64, what string) {
	t.Helper()
	s := openTestSnapshots(t, left, 2)
	newest, damaged, err := s.Newest(t.Context())
	if err != nil || damaged != nil || newest.Index < listed || !slices.Equal(namesIn(t, left), filesOf(s.List())) {
		t.Errorf("%s: then the newest is %d, %v, %v, there are %v", what, newest.Index, damaged, err, namesIn(t, left))
	}
	// What is listed may let the log go: it must be on the disk.
	if got := openTestSnapshots(t, left.cutPower(nothing), 2).List(); !slices.Equal(got, s.List()) {
		t.Errorf("%s: then listed are %v, and after a power cut %v", what, s.List(), got)
	}
	mustSave(t, s, states[2:]...)
	if got := indexesOf(openTestSnapshots(t, left.cutPower(nothing), 2).List()); !slices.Equal(got, []uint64{12, 9}) {
		t.Errorf("%s: then saved are %v", what, got)
	}
}

// Each operation of the opening fails once: that is told, and the next opening
// finds what there is.
func TestAFailedOpeningOfSnapshotsIsTold(t *testing.T) {
	states := testStates(t, 30, 7, 9)
	for k := 1; ; k++ {
		disk := newTestDisk()
		mustSave(t, openTestSnapshots(t, disk, 2), states...)
		disk.put("data/snapshot/"+olderMeta+tempSuffix, &frailFile{dirty: map[int]bool{}})
		fault := &fault{at: k, err: errDisk}
		disk.before = fault.before
		_, err := OpenSnapshots(SnapshotsOptions{FS: disk, Dir: "data/snapshot"})
		disk.before = nil
		if told := errors.Is(err, errDisk) && strings.HasPrefix(err.Error(), "open the snapshots in data/snapshot: "); told != (fault.op != "") || disk.handles != 0 {
			t.Errorf("operation %d, %s, failed: %d files are open, %v", k, fault.op, disk.handles, err)
		}
		if got := indexesOf(openTestSnapshots(t, disk, 2).List()); !slices.Equal(got, []uint64{9, 7}) {
			t.Errorf("operation %d, %s, failed: then listed are %v", k, fault.op, got)
		}
		if fault.op == "" {
			if k < 4 {
				t.Errorf("the opening has %d operations", k-1)
			}
			return
		}
	}
}

// A damaged snapshot is being replaced when the power is cut: no old meta comes
// to stand beside the new state.
func TestAPowerCutWhileADamagedSnapshotIsReplaced(t *testing.T) {
	states := testStates(t, 3000, 7, 9)
	found := map[string]int{}
	forSeeds(t, 10, func(t *testing.T, random *rand.Rand) {
		disk := newTestDisk()
		s := openTestSnapshots(t, disk, 2)
		old := mustSave(t, s, states...)[1]
		turn(disk, newerSnap, 1000)
		disk.before = func(op, path string) error {
			for _, keep := range []func() bool{nothing, everything, someOf(random), someOf(random), someOf(random)} {
				after := openTestSnapshots(t, disk.cutPower(keep), 2)
				m, damaged, err := after.Newest(t.Context())
				if err != nil || len(damaged) > 1 || m.Index == 9 && m.Created == old.Created || m.Index == 9 && damaged != nil {
					t.Fatalf("before %s %s: newest is %v, damaged %v: %v", op, path, m, damaged, err)
				}
				found[fmt.Sprint(m.Index, len(damaged))]++
			}
			return nil
		}
		about := aboutTest
		about.Created++
		if m, err := s.Save(t.Context(), states[1], about); err != nil || m.Created == old.Created {
			t.Fatal(m, err)
		}
	})
	if *seedFlag == 0 && (found["7 1"] == 0 || found["7 0"] == 0 || found["9 0"] == 0) {
		t.Errorf("found %v, want some of each", found)
	}
}

// A disk that cannot be read is no reason to take what is on it for removed.
func TestASnapshotThatCannotBeReadIsSetAside(t *testing.T) {
	disk := newTestDisk()
	s := openTestSnapshots(t, disk, 2)
	mustSave(t, s, testStates(t, 30, 7, 9)...)
	check(disk.FS.Remove("data/snapshot/" + newerSnap))
	m, damaged, err := s.Newest(t.Context())
	if err != nil || m.Index != 7 || len(damaged) != 1 || !errors.Is(damaged[0], fs.ErrNotExist) {
		t.Errorf("newest is %d, damaged %v: %v", m.Index, damaged, err)
	}
}
