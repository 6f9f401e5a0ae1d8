package storage

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// fileOf is what another member sends of a snapshot.
func fileOf(t *testing.T, s *Snapshots, m SnapshotMeta) []byte {
	t.Helper()
	in, err := s.OpenFile(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(in, 0, m.FileBytes))
	if err := errors.Join(err, in.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// A snapshot that came piece by piece is one like any other, with the configuration that it was saved with, also for
// whoever opens next. The older ones stay until the next is saved.
func TestAReceivedSnapshotIsKept(t *testing.T) {
	leavesNothingRunning(t)
	there := openTestSnapshots(t, newTestDisk(), 2)
	about := aboutTest
	about.Configuration = "voters 1 2 3"
	m, err := there.Save(t.Context(), testStates(t, 300<<10, 9)[0], about)
	if err != nil || m.Configuration != about.Configuration || m.Format != snapshotFormat {
		t.Fatalf("saved %+v: %v", m, err)
	}
	line, err := m.Line()
	if err != nil {
		t.Fatal(err)
	}
	if told, err := ParseSnapshotMeta(line); err != nil || told != m {
		t.Fatalf("the meta arrives as %+v: %v", told, err)
	}
	file := fileOf(t, there, m)

	disk := newTestDisk()
	here := openTestSnapshots(t, disk, 1)
	old := mustSave(t, here, testStates(t, 10, 3)[0])
	r, err := here.Receive(m)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(file); at += 1000 {
		if r.Bytes() != int64(at) {
			t.Fatalf("%d bytes are there, want %d", r.Bytes(), at)
		}
		if _, err := r.Write(bytes.Clone(file[at:min(at+1000, len(file))])); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := r.Finish(t.Context())
	if err != nil || kept != m {
		t.Fatalf("kept %+v: %v", kept, err)
	}
	if err := r.Drop(); err != nil {
		t.Error(err)
	}
	both := append([]SnapshotMeta{m}, old...)
	for _, s := range []*Snapshots{here, openTestSnapshots(t, disk.cutPower(nothing), 1)} {
		if !slices.Equal(s.List(), both) || s.Verify(m) != nil {
			t.Errorf("listed %v, want %v: %v", s.List(), both, s.Verify(m))
		}
		if found, ok := s.Find(m.Position()); !ok || found != m {
			t.Errorf("found %+v, %v", found, ok)
		}
	}
	next := mustSave(t, here, testStates(t, 10, 20)[0])
	if names := namesIn(t, disk); !slices.Equal(here.List(), next) || !slices.Equal(names, filesOf(next)) {
		t.Errorf("after the next is saved %v are listed, and there are %v", here.List(), names)
	}
}

// What is not what was announced is not taken, and leaves nothing; the next try is free to succeed.
func TestADamagedSnapshotIsNotReceived(t *testing.T) {
	there := openTestSnapshots(t, newTestDisk(), 2)
	m := mustSave(t, there, testStates(t, 10<<10, 9)[0])[0]
	file := fileOf(t, there, m)
	disk := newTestDisk()
	here := openTestSnapshots(t, disk, 2)
	receive := func(m SnapshotMeta, file []byte) error {
		r, err := here.Receive(m)
		if err != nil {
			return err
		}
		if _, err := r.Write(bytes.Clone(file)); err != nil {
			return err
		}
		_, err = r.Finish(t.Context())
		return err
	}
	flipped := bytes.Clone(file)
	flipped[len(file)/2] ^= 1
	other := m
	other.Index, other.Term = 10, 3
	for _, c := range []struct {
		what string
		m    SnapshotMeta
		file []byte
		want string
	}{
		{"cut short", m, file[:len(file)-1], "bytes have come, and its meta says"},
		{"too long", m, append(bytes.Clone(file), 0), "and its meta says"},
		{"a flipped bit", m, flipped, "its SHA-256 is"},
		{"of another position", other, file, "its state is of index 9 and term 2, and its meta says 10 and 3"},
	} {
		err := receive(c.m, c.file)
		var wrong *SnapshotError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
		if names := namesIn(t, disk); len(names)+len(here.List()) != 0 {
			t.Errorf("%s: left are %v", c.what, names)
		}
	}
	if err := receive(m, file); err != nil {
		t.Error(err)
	}
}

// What a process that ended had not received to its end is removed by the next.
func TestAHalfReceivedSnapshotIsALeftover(t *testing.T) {
	there := openTestSnapshots(t, newTestDisk(), 2)
	m := mustSave(t, there, testStates(t, 10<<10, 9)[0])[0]
	disk := newTestDisk()
	here := openTestSnapshots(t, disk, 2)
	r, err := here.Receive(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write(fileOf(t, there, m)[:100]); err != nil {
		t.Fatal(err)
	}
	if names := namesIn(t, disk); len(names) != 1 {
		t.Fatalf("there are %v", names)
	}
	if again := openTestSnapshots(t, disk, 2); len(again.List()) != 0 || len(namesIn(t, disk)) != 0 {
		t.Errorf("left are %v", namesIn(t, disk))
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// A disk without room says so before anything is written.
func TestASnapshotWithoutRoomIsNotReceived(t *testing.T) {
	there := openTestSnapshots(t, newTestDisk(), 2)
	m := mustSave(t, there, testStates(t, 10, 9)[0])[0]
	m.FileBytes = 1 << 62
	s, err := OpenSnapshots(SnapshotsOptions{FS: newSmallDisk(1 << 30), Dir: "data/snapshot"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Receive(m); !errors.Is(err, ErrNoRoom) {
		t.Errorf("%v, want ErrNoRoom", err)
	}
	if _, err := s.Save(t.Context(), testStates(t, 10, 9)[0], aboutTest); err != nil {
		t.Errorf("and that is no error of the disk: %v", err)
	}
}
