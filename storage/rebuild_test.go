package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage/crashfs"
)

var rebuildOptions = EngineOptions{Dir: "data/state", CacheBytes: 256 << 10, MemTableBytes: 256 << 10}

// damagedMember is a disk with snapshots at 7 and 9 and a state at 11. What each
// entry did to it is known from its index.
func damagedMember(t *testing.T) *crashfs.FS {
	t.Helper()
	disk := crashfs.New()
	check(disk.MkdirAll("data", 0o700))
	check(syncDir(disk, "."))
	o := rebuildOptions
	o.FS = disk
	e, err := OpenEngine(o)
	check(err)
	s := openTestSnapshots(t, disk, 2)
	for i := uint64(1); i <= 11; i++ {
		put(t, e, Position{i, 1}, fmt.Sprintf("key-%02d", i), strings.Repeat("v", 3000))
		if i == 7 || i == 9 {
			state, err := e.Snapshot()
			check(err)
			mustSave(t, s, state)
			check(state.Close())
		}
	}
	check(e.Close())
	return disk
}

// isAt tells whether an engine has the state that entries up to an index made.
func isAt(t *testing.T, e *Engine, index uint64) error {
	t.Helper()
	if got := e.AppliedIndex(); got != (Position{index, 1}) {
		return fmt.Errorf("at %v, want index %d", got, index)
	}
	var want []string
	for i := range index {
		want = append(want, fmt.Sprintf("key-%02d=%s", i+1, strings.Repeat("v", 3000)))
	}
	if content(t, e) != strings.Join(want, " ") {
		return fmt.Errorf("it says that it is at %d, and its content is another", index)
	}
	return nil
}

// damage changes the bytes in the middle of all files in a folder with this in their names.
func damage(t *testing.T, disk *crashfs.FS, dir, part string) {
	t.Helper()
	damageAt(t, disk, dir, part, func(size int) (from, to int) { return size / 4, max(1, size*3/4) })
}

// damageAt changes the bytes of those files from one offset to another.
func damageAt(t *testing.T, disk *crashfs.FS, dir, part string, where func(size int) (from, to int)) {
	t.Helper()
	names, err := disk.List(dir)
	check(err)
	found := 0
	for _, name := range names {
		if !strings.Contains(name, part) {
			continue
		}
		found++
		data, err := disk.ReadFile(dir + "/" + name)
		check(err)
		data = slices.Clone(data)
		from, to := where(len(data))
		for i := from; i < min(len(data), to); i++ {
			data[i] ^= 0x5a
		}
		check(disk.WriteFile(dir+"/"+name, data))
	}
	if found == 0 {
		t.Fatalf("no %s in %s: %v", part, dir, names)
	}
}

// openState opens the state of a disk. Errors in the background end up in the slice.
func openState(t *testing.T, disk vfs.FS, fatal *[]error) (*Engine, *Rebuilt, error) {
	t.Helper()
	o := rebuildOptions
	o.FS, o.OnFatal = disk, func(err error) { *fatal = append(*fatal, err) }
	return openOrRebuild(t.Context(), o, openTestSnapshots(t, disk, 2), everySnapshot)
}

// A state that cannot be opened is built anew from the newest snapshot, and one whose newest snapshot is damaged,
// too, from the one before. The damaged state is kept aside.
func TestTheNewestIntactSnapshotIsTheState(t *testing.T) {
	for _, c := range []struct {
		name    string
		spoil   func(t *testing.T, disk *crashfs.FS)
		from    uint64 // 0 = it is not built anew
		damaged int
	}{
		{"nothing is damaged", func(*testing.T, *crashfs.FS) {}, 0, 0},
		{"CURRENT", func(t *testing.T, d *crashfs.FS) { damage(t, d, "data/state", "CURRENT") }, 9, 0},
		{"the manifest", func(t *testing.T, d *crashfs.FS) { damage(t, d, "data/state/1", "MANIFEST") }, 9, 0},
		{"CURRENT and the newer snapshot", func(t *testing.T, d *crashfs.FS) {
			damage(t, d, "data/state", "CURRENT")
			damage(t, d, "data/snapshot", "9.snap")
		}, 7, 1},
		{"CURRENT and the newer meta", func(t *testing.T, d *crashfs.FS) {
			damage(t, d, "data/state", "CURRENT")
			damage(t, d, "data/snapshot", "9.meta")
		}, 7, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := damagedMember(t)
			c.spoil(t, disk)
			var fatal []error
			e, r, err := openState(t, disk, &fatal)
			if err != nil {
				t.Fatal(err)
			}
			e.Trust()
			want := uint64(11)
			if (r != nil) != (c.from != 0) {
				t.Errorf("built anew: %+v", r)
			} else if r != nil {
				want = c.from
				if kept, err := exists(disk, r.Aside); err != nil || !kept || r.From.Index != c.from || len(r.Damaged) != c.damaged || !IsDamagedState(r.Because) {
					t.Errorf("built anew: %+v, the old one is kept: %v (%v)", r, kept, err)
				}
			}
			if err := errors.Join(isAt(t, e, want), e.Close()); err != nil || len(fatal) > 0 {
				t.Errorf("%v, told %v", err, fatal)
			}
		})
	}
}

// Where no snapshot is intact the damaged state stays where it is, and all that is wrong is told.
func TestADamagedStateStaysWithoutAnIntactSnapshot(t *testing.T) {
	disk := damagedMember(t)
	damage(t, disk, "data/state", "CURRENT")
	damage(t, disk, "data/snapshot", ".snap")
	for range 2 {
		var fatal []error
		_, _, err := openState(t, disk, &fatal)
		if !errors.Is(err, ErrNoSnapshot) || !errors.Is(err, ErrDamagedState) || strings.Count(err.Error(), ".snap") < 2 {
			t.Fatalf("opened: %v", err)
		}
		there, err := exists(disk, "data/state/1")
		aside, wrong := exists(disk, "data/state.damaged")
		if err != nil || wrong != nil || !there || aside {
			t.Fatalf("the state is there: %v (%v), and aside: %v (%v)", there, err, aside, wrong)
		}
	}
}

// The power is cut at every moment of moving a damaged state aside, over an older one, and of building it anew. The
// next start ends whole: with the state of the newest snapshot, which is still there, and a damaged state set aside.
func TestAPowerCutWhileAStateIsBuiltAnew(t *testing.T) {
	disk := damagedMember(t)
	damage(t, disk, "data/state", "CURRENT")
	check(disk.MkdirAll("data/state.damaged/1", 0o700))
	check(writeFileAtomic(disk, "data/state.damaged", "CURRENT", []byte("an older damage")))
	check(syncDir(disk, "data"))
	var left []*crashfs.FS
	disk.Before(func(crashfs.Op) error {
		for _, mode := range []crashfs.Mode{crashfs.Journal, crashfs.Journal, crashfs.LoseUnsynced, crashfs.KeepAll} {
			left = append(left, disk.Crash(crashfs.Loss{Seed: uint64(len(left)), Mode: mode}))
		}
		return nil
	})
	var fatal []error
	e, _, err := openState(t, disk, &fatal)
	check(err)
	disk.Before(nil)
	check(errors.Join(isAt(t, e, 9), e.Close()))
	left = append(left, disk.Crash(crashfs.Loss{}))
	anew := 0
	for i, after := range left {
		e, r, err := openState(t, after, &fatal)
		if err != nil {
			t.Fatalf("crash %d of %d: %v", i, len(left), err)
		}
		if r != nil {
			anew++
		}
		e.Trust()
		aside, err := exists(after, "data/state.damaged")
		if err := errors.Join(err, isAt(t, e, 9), e.Close()); err != nil || !aside || len(fatal) > 0 {
			t.Fatalf("crash %d of %d, built anew %v: %v, a state is aside: %v, told %v", i, len(left), r != nil, err, aside, fatal)
		}
	}
	if anew < 10 || anew == len(left) {
		t.Errorf("of %d starts %d built the state anew, want some and not all", len(left), anew)
	}
}

// Damage that is met before Trust is kept back, since the state may be built anew; an error of the disk is told at
// once; and Trust tells what was kept back.
func TestTrustTellsWhatWasKeptBack(t *testing.T) {
	disk := damagedMember(t)
	broken := errors.New("the disk is broken")
	var fatal []error
	e, _, err := openState(t, disk, &fatal)
	check(err)
	e.held.tell(damagedState("a block"))
	if len(fatal) != 0 {
		t.Errorf("told before Trust: %v", fatal)
	}
	e.held.tell(broken)
	if len(fatal) != 1 || fatal[0] != broken {
		t.Errorf("told of a disk: %v", fatal)
	}
	e.Trust()
	if len(fatal) != 2 || !errors.Is(fatal[1], ErrDamagedState) {
		t.Errorf("told by Trust: %v", fatal)
	}
	e.held.tell(damagedState("another"))
	if len(fatal) != 3 {
		t.Errorf("told after Trust: %v", fatal)
	}
	check(e.Close())
}

// Damage that is met when the state is in use ends the process, and the next start knows of it, though opening does
// not meet it: it builds the state anew, once.
func TestDamageFoundInUseIsCuredByTheNextStart(t *testing.T) {
	disk := damagedMember(t)
	damageAt(t, disk, "data/state/1", ".sst", func(int) (from, to int) { return 1000, 1016 }) // of a block that opening does not read
	var fatal []error
	e, r, err := openState(t, disk, &fatal)
	if err != nil || r != nil {
		t.Fatalf("opening met the damage: %+v, %v", r, err)
	}
	e.Trust()
	var met error
	for i := 1; i <= 11 && met == nil; i++ {
		_, _, met = e.Get(fmt.Appendf(nil, "key-%02d", i))
	}
	if !IsDamagedState(met) || len(fatal) == 0 {
		t.Fatalf("reading met %v, told %v", met, fatal)
	}
	if err := e.Close(); err == nil {
		t.Error("it closes as if nothing were wrong")
	}

	fatal = nil
	e, r, err = openState(t, disk.Crash(crashfs.Loss{}), &fatal)
	if err != nil || r == nil || r.From.Index != 9 || !IsDamagedState(r.Because) || !strings.Contains(r.Because.Error(), "in use") || strings.Contains(r.Because.Error(), "\n") {
		t.Fatalf("the next start: %+v, %v", r, err)
	}
	e.Trust()
	check(errors.Join(isAt(t, e, 9), e.Close()))
	again := e.o.FS
	if e, r, err = openState(t, again, &fatal); err != nil || r != nil {
		t.Fatalf("the start after that builds anew again: %+v, %v", r, err)
	}
	check(errors.Join(isAt(t, e, 9), e.Close()))
	if len(fatal) > 0 {
		t.Errorf("told %v", fatal)
	}
}

// A disk that has little room gets no snapshot: the one that did not fit is gone, nothing is broken, and when there
// is room it is saved.
func TestASnapshotWithoutRoomLeavesNothing(t *testing.T) {
	state := testStates(t, 6<<20, 3)[0]
	disk := crashfs.New()
	check(disk.MkdirAll("data", 0o700))
	s := openTestSnapshots(t, disk, 2)
	for _, room := range []int64{1 << 20, snapshotRoomBytes - 1, snapshotRoomBytes + 3<<20} {
		disk.SetSpace(room)
		_, err := s.Save(t.Context(), state, aboutTest)
		names, wrong := disk.List("data/snapshot")
		if !errors.Is(err, ErrNoRoom) || wrong != nil || len(names) > 0 {
			t.Errorf("with %d bytes free: %v, there are %v (%v)", room, err, names, wrong)
		}
	}
	disk.SetSpace(snapshotRoomBytes + 16<<20)
	if m, err := s.Save(t.Context(), state, aboutTest); err != nil || m.Index != 3 {
		t.Errorf("when there is room: %+v, %v", m, err)
	}
}
