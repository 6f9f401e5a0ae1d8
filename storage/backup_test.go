package storage

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// backupOf is the bytes of a backup.
func backupOf(t testing.TB, state *EngineSnapshot) ([]byte, SnapshotMeta) {
	t.Helper()
	var b bytes.Buffer
	m, err := WriteBackup(t.Context(), &b, state, aboutTest)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), m
}

// withBackup is a disk with one file.
func withBackup(data []byte) vfs.FS {
	fs := vfs.NewMem()
	f, err := fs.Create("backup", vfs.WriteCategoryUnspecified)
	check(err)
	_, err = f.Write(bytes.Clone(data))
	check(errors.Join(err, f.Close()))
	return fs
}

// checked is what BackupCheck says of bytes that come in pieces of any size.
func checked(data []byte, piece func() int) (SnapshotMeta, error) {
	c := &BackupCheck{}
	for len(data) > 0 {
		n := min(len(data), piece())
		if _, err := c.Write(data[:n]); err != nil {
			panic(err)
		}
		data = data[n:]
	}
	return c.End()
}

// A backup holds the state of its moment: restored, it is the same at the same
// position with the same hash. The check on the way finds the same meta,
// whatever the pieces, in bounded memory.
func TestABackupIsRestored(t *testing.T) {
	leavesNothingRunning(t)
	random := rand.New(rand.NewPCG(2, 2))
	for _, size := range []int{0, 10, 300 << 10, 3 << 20} {
		state := testStates(t, size, 7)[0]
		data, m := backupOf(t, state)
		if m.Index != 7 || m.Term != 2 || m.ClusterID != aboutTest.ClusterID || m.Incarnation != aboutTest.Incarnation || m.Created != aboutTest.Created || m.SHA256 == "" {
			t.Errorf("%d bytes: the meta is %+v", size, m)
		}
		fs := withBackup(data)
		pairs := 0
		read, err := ReadBackup(fs, "backup", func(_, _ []byte) error { pairs++; return nil })
		hash, hashErr := state.Hash(t.Context())
		if err != nil || hashErr != nil || read.SnapshotMeta != m || read.StateHash != hash || pairs == 0 {
			t.Errorf("%d bytes: read %+v with %d pairs, %v; want hash %s, %v", size, read, pairs, err, hash, hashErr)
		}
		for name, piece := range map[string]func() int{
			"one piece": func() int { return len(data) }, "some bytes": func() int { return 1 + random.IntN(7) }, "much": func() int { return 1 + random.IntN(1<<20) },
		} {
			if got, err := checked(data, piece); err != nil || got != m {
				t.Errorf("%d bytes in %s: the check says %+v, %v", size, name, got, err)
			}
		}
		restored := openTestEngine(t, vfs.NewMem())
		_, stream, err := OpenBackup(fs, "backup")
		check(err)
		if err := errors.Join(restored.Restore(stream), stream.Close()); err != nil {
			t.Fatal(err)
		}
		again, err := restored.Snapshot()
		check(err)
		if got, err := again.Hash(t.Context()); got != hash || err != nil || restored.AppliedIndex() != m.Position() {
			t.Errorf("%d bytes: restored at %v with hash %s, %v", size, restored.AppliedIndex(), got, err)
		}
		check(errors.Join(again.Close(), restored.Close()))
	}
}

// A backup in which one bit is turned, that is cut short anywhere, goes on
// after its end, or whose parts come from two, is refused, and so it is on its
// way. The file is named.
func TestADamagedBackupIsRefused(t *testing.T) {
	states := testStates(t, 200, 7, 9)
	good, _ := backupOf(t, states[0])
	other, _ := backupOf(t, states[1])
	refused := func(what string, data []byte) {
		t.Helper()
		var wrong *SnapshotError
		if _, err := ReadBackup(withBackup(data), "backup", nil); !errors.As(err, &wrong) || wrong.File != "backup" {
			t.Fatalf("%s: read with %v", what, err)
		}
		if _, err := checked(data, func() int { return 100 }); err == nil {
			t.Fatalf("%s: it passed the check on its way", what)
		}
	}
	for i := range good {
		for bit := range 8 {
			damaged := bytes.Clone(good)
			damaged[i] ^= 1 << bit
			refused("a turned bit", damaged)
		}
		refused("cut short", good[:i])
	}
	refused("written on", append(bytes.Clone(good), 0))
	refused("two in a row", append(bytes.Clone(good), other...))
	if len(good) == len(other) {
		refused("two halves", append(bytes.Clone(good[:len(good)/2]), other[len(other)/2:]...))
	} else {
		t.Errorf("the two backups have %d and %d bytes: their sizes would tell them apart", len(good), len(other))
	}
	if _, err := ReadBackup(vfs.NewMem(), "nothing", nil); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A snapshot out of a data directory is read like a backup.
func TestAKeptSnapshotIsReadAsABackup(t *testing.T) {
	disk := newTestDisk()
	states := testStates(t, 1000, 7)
	m := mustSave(t, openTestSnapshots(t, disk, 2), states...)[0]
	got, err := ReadBackup(disk, "data/snapshot/"+olderSnap, nil)
	hash, hashErr := states[0].Hash(t.Context())
	if err != nil || hashErr != nil || got.SnapshotMeta != m || got.StateHash != hash {
		t.Errorf("%+v, %v; want %+v with %s, %v", got, err, m, hash, hashErr)
	}
}

// What the caller of ReadBackup says ends the reading, and is not the file's fault.
func TestReadBackupEndsWithItsCaller(t *testing.T) {
	data, _ := backupOf(t, testStates(t, 10, 7)[0])
	enough := errors.New("enough")
	var wrong *SnapshotError
	if _, err := ReadBackup(withBackup(data), "backup", func(_, _ []byte) error { return enough }); !errors.Is(err, enough) || errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
}

// failingWriter takes so many bytes.
type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// A writer that fails at any place ends the backup with its error.
func TestABackupNobodyTakesEnds(t *testing.T) {
	leavesNothingRunning(t)
	state := testStates(t, 1<<20, 7)[0]
	data, _ := backupOf(t, state)
	for _, n := range []int{0, 7, 8, 1000, len(data) / 2, len(data) - 1} {
		if _, err := WriteBackup(t.Context(), &failingWriter{n}, state, aboutTest); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}
