package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage/crashfs"
)

func storeOptions(disk vfs.FS) StoreOptions {
	e := rebuildOptions
	e.FS = disk
	return StoreOptions{
		Snapshots: SnapshotsOptions{FS: disk, Dir: "data/snapshot"}, Engine: e,
		Log: LogOptions{FS: disk, Dir: "data/wal", Salt: func() uint64 { return 1 }},
	}
}

// storedMember is a member with entries and a state up to 11, of which the snapshots at 7 and 9 are kept.
func storedMember(t *testing.T) *crashfs.FS {
	t.Helper()
	disk := damagedMember(t)
	log, err := OpenLog(storeOptions(disk).Log)
	check(err)
	var entries []Entry
	for i := range uint64(11) {
		entries = append(entries, Entry{Index: i + 1, Term: 1})
	}
	check(log.Append(entries, &HardState{Term: 1, Commit: 11}))
	check(log.Close())
	return disk
}

// receiveAt has the member receive a snapshot of another that is ahead.
func receiveAt(t *testing.T, s *Snapshots, at Position) SnapshotMeta {
	t.Helper()
	e := openTestEngine(t, vfs.NewMem())
	for i := uint64(1); i <= at.Index; i++ {
		put(t, e, Position{i, at.Term}, fmt.Sprintf("key-%02d", i), strings.Repeat("v", 3000))
	}
	state, err := e.Snapshot()
	check(err)
	there := openTestSnapshots(t, newTestDisk(), 1)
	m := mustSave(t, there, state)[0]
	check(errors.Join(state.Close(), e.Close()))
	r, err := s.Receive(m)
	check(err)
	_, err = r.Write(fileOf(t, there, m))
	check(err)
	_, err = r.Finish(t.Context())
	check(err)
	return m
}

// A crash between the two steps of an install is made good by the next start, and only that.
func TestACrashBetweenResetAndRestore(t *testing.T) {
	disk := storedMember(t)
	s, err := OpenStore(t.Context(), storeOptions(disk))
	if err != nil || s.Rebuilt != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	m := receiveAt(t, s.Snapshots, Position{20, 3})
	check(s.Close())

	s, err = OpenStore(t.Context(), storeOptions(disk)) // received, and not installed
	if err != nil || s.Rebuilt != nil || s.Engine.AppliedIndex().Index != 11 || s.Log.LastIndex() != 11 {
		t.Fatalf("%+v: %v", s, err)
	}
	check(s.Log.Reset(m.Position(), HardState{Term: 3}))
	check(s.Close())

	read := 0
	o := storeOptions(disk)
	o.Read = func(e *Engine) error {
		read++
		if e.AppliedIndex() != m.Position() {
			t.Errorf("a state at %v is read", e.AppliedIndex())
		}
		return nil
	}
	s, err = OpenStore(t.Context(), o)
	if err != nil || s.Rebuilt == nil || !s.Rebuilt.Install || s.Rebuilt.From != m || read != 1 {
		t.Fatalf("%+v: %v", s, err)
	}
	if c := s.Log.Load(); s.Engine.AppliedIndex() != m.Position() || c.First != 21 || c.Last != 20 || c.HardState != (HardState{Term: 3, Commit: 20}) {
		t.Errorf("at %v, with the log %+v", s.Engine.AppliedIndex(), c)
	}
	check(s.Close())
	s, err = OpenStore(t.Context(), storeOptions(disk))
	if err != nil || s.Rebuilt != nil {
		t.Fatalf("and then: %+v: %v", s, err)
	}
	check(s.Close())
}

// Without the snapshot that it was to be the member is refused, and is left as it is.
func TestAnInstallThatCannotBeFinished(t *testing.T) {
	disk := storedMember(t)
	s, err := OpenStore(t.Context(), storeOptions(disk))
	check(err)
	m := receiveAt(t, s.Snapshots, Position{20, 3})
	check(s.Log.Reset(m.Position(), HardState{Term: 3}))
	check(s.Close())
	damage(t, disk, "data/snapshot", "00020.snap")
	if _, err := OpenStore(t.Context(), storeOptions(disk)); err == nil || !strings.Contains(err.Error(), "the log begins after entry 20, and the state ends with 11") ||
		!strings.Contains(err.Error(), "replace this member") || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("%v", err)
	}
}

// A state that is gone is not built from a snapshot that was received and never installed: what the log goes on with
// is another history, or nothing.
func TestNothingIsBuiltFromWhatWasNeverInstalled(t *testing.T) {
	for _, at := range []Position{{20, 3}, {10, 3}} {
		disk := storedMember(t)
		s, err := OpenStore(t.Context(), storeOptions(disk))
		check(err)
		m := receiveAt(t, s.Snapshots, at)
		check(s.Close())
		check(disk.RemoveAll("data/state"))
		s, err = OpenStore(t.Context(), storeOptions(disk))
		if err != nil || s.Rebuilt == nil || s.Rebuilt.From.Index != 9 || s.Rebuilt.Install {
			t.Fatalf("with one at %v: %+v: %v", at, s, err)
		}
		if _, ok := s.Snapshots.Find(m.Position()); !ok {
			t.Errorf("the one at %v is gone", at)
		}
		check(s.Close())
	}
}
