package storage

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchedFS looks at the heap at each read and write of a snapshot.
type watchedFS struct {
	vfs.FS
	peak uint64
}

type watchedFile struct {
	vfs.File
	fs *watchedFS
}

func (fs *watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, fs}, nil
}

func (fs *watchedFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, o...)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, fs}, nil
}

func (f *watchedFile) Write(p []byte) (int, error) {
	f.fs.look()
	return f.File.Write(p)
}

func (f *watchedFile) Read(p []byte) (int, error) {
	f.fs.look()
	return f.File.Read(p)
}

func (fs *watchedFS) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fs.peak = max(fs.peak, m.HeapAlloc)
}

// growth is how far the heap grows at most while fn runs.
func (fs *watchedFS) growth(fn func()) uint64 {
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	fs.peak = before.HeapAlloc
	fn()
	return fs.peak - before.HeapAlloc
}

// largeState is a state on a real disk, of so many pairs. Half of each value
// cannot be compressed.
func largeState(t testing.TB, pairs, bytes int) (dir string, state *EngineSnapshot) {
	t.Helper()
	dir = t.TempDir()
	e, err := OpenEngine(EngineOptions{FS: vfs.Default, Dir: filepath.Join(dir, "state"), CacheBytes: 8 << 20, MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(2, 2))
	value := make([]byte, bytes)
	for i := 0; i < pairs; {
		b := e.NewBatch()
		for ; i < pairs && b.Len() < 1<<20; i++ {
			for k := range value[:bytes/2] {
				value[k] = byte(random.Uint32())
			}
			b.Set(InstanceKey("default", fmt.Sprint("service-", i/100), fmt.Sprintf("instance-%08d", i)), value)
		}
		if err := e.Apply(b, Position{uint64(i), 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	if state, err = e.Snapshot(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(state.Close(), e.Close()); err != nil {
			t.Error(err)
		}
	})
	return dir, state
}

// The heap may grow by that much while a snapshot is saved, of whatever size.
const saveHeapMax = 64 << 20

// A state of several times the allowed memory is saved and verified within it.
func TestASaveTakesBoundedMemory(t *testing.T) {
	if slower > 1 {
		t.Skip("the race detector takes memory of its own")
	}
	const pairs, bytes = 40_000, 5000 // 190 MiB
	dir, state := largeState(t, pairs, bytes)
	fs := &watchedFS{FS: vfs.Default}
	s, err := OpenSnapshots(SnapshotsOptions{FS: fs, Dir: filepath.Join(dir, "snapshot")})
	if err != nil {
		t.Fatal(err)
	}
	var m SnapshotMeta
	save := fs.growth(func() { m = mustSave(t, s, state)[0] })
	verify := fs.growth(func() { err = s.Verify(m) })
	if err != nil || m.StateBytes < pairs*bytes || save > saveHeapMax || verify > saveHeapMax {
		t.Errorf("%d bytes: the heap grew by %d while it was saved, by %d while it was verified, want %d at most: %v", m.StateBytes, save, verify, saveHeapMax, err)
	}
	t.Logf("%d MiB: the heap grew by %.1f MiB while it was saved, by %.1f MiB while it was verified", m.StateBytes>>20, float64(save)/(1<<20), float64(verify)/(1<<20))
}

// BenchmarkSaveSnapshot saves 100,000 pairs of 300 bytes to a disk.
func BenchmarkSaveSnapshot(b *testing.B) {
	dir, state := largeState(b, 100_000, 300)
	fs := &watchedFS{FS: vfs.Default}
	var m SnapshotMeta
	i, peak := 0, uint64(0)
	for b.Loop() {
		i++
		s, err := OpenSnapshots(SnapshotsOptions{FS: fs, Dir: filepath.Join(dir, fmt.Sprint("snapshot-", i))})
		if err != nil {
			b.Fatal(err)
		}
		peak = max(peak, fs.growth(func() { m = mustSave(b, s, state)[0] }))
	}
	b.SetBytes(m.StateBytes)
	b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
	b.ReportMetric(float64(m.FileBytes)/(1<<20), "file-MiB")
}

// BenchmarkReadSnapshot reads the same to its end, and verifies it by that.
func BenchmarkReadSnapshot(b *testing.B) {
	dir, state := largeState(b, 100_000, 300)
	s, err := OpenSnapshots(SnapshotsOptions{FS: vfs.Default, Dir: filepath.Join(dir, "snapshot")})
	if err != nil {
		b.Fatal(err)
	}
	m := mustSave(b, s, state)[0]
	b.SetBytes(m.StateBytes)
	for b.Loop() {
		r, err := s.Open(m)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err = errors.Join(err, r.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHash hashes the same.
func BenchmarkHash(b *testing.B) {
	_, state := largeState(b, 100_000, 300)
	b.SetBytes(100_000 * 300)
	for b.Loop() {
		if _, err := state.Hash(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
