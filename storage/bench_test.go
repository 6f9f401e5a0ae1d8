package storage

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkAppendSync is what a member does for a Ready: so many entries of
// 500 bytes in one frame, and one sync.
func BenchmarkAppendSync(b *testing.B) {
	for _, count := range []int{1, 64} {
		b.Run(fmt.Sprintf("entries=%d", count), func(b *testing.B) {
			syncs := 0
			log, err := OpenLog(LogOptions{
				FS: vfs.Default, Dir: filepath.Join(b.TempDir(), "wal"), Salt: func() uint64 { return 1 },
				OnSync: func(time.Duration) { syncs++ },
			})
			if err != nil {
				b.Fatal(err)
			}
			entries := run(1, 1, count, 500)
			b.SetBytes(int64(500 * count))
			for b.Loop() {
				err = errors.Join(err, log.Append(entries, nil), log.Sync())
				for i := range entries {
					entries[i].Index += uint64(count)
				}
			}
			b.ReportMetric(float64(b.N*count)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(float64(syncs)/float64(b.N), "syncs/op")
			if err = errors.Join(err, log.Close()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// benchLog is a closed log on a disk with so many bytes in entries of 500.
func benchLog(b *testing.B, bytes int) LogOptions {
	b.Helper()
	o := LogOptions{FS: vfs.Default, Dir: filepath.Join(b.TempDir(), "wal"), Salt: func() uint64 { return 1 }, TailBytes: 1 << 20}
	log, err := OpenLog(o)
	for first := 1; err == nil && first*500 < bytes; first += 64 {
		err = log.Append(run(uint64(first), 1, 64, 500), nil)
	}
	if err == nil {
		err = log.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return o
}

// BenchmarkOpenLog opens a log of 64 MiB: it is read to its end, and its last
// segment is written anew.
func BenchmarkOpenLog(b *testing.B) {
	o := benchLog(b, 64<<20)
	for b.Loop() {
		log, err := OpenLog(o)
		if err == nil {
			err = log.active.file.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEntriesFromDisk reads entries that are not in memory any more, one
// or a message's worth, from all over the log.
func BenchmarkEntriesFromDisk(b *testing.B) {
	log, err := OpenLog(benchLog(b, 64<<20))
	if err != nil {
		b.Fatal(err)
	}
	for _, bytes := range []uint64{0, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", max(bytes, 500)), func(b *testing.B) {
			last, at, n := log.LastIndex()-10_000, uint64(1), 0
			for b.Loop() {
				entries, err := log.Entries(at, last, bytes)
				if err != nil {
					b.Fatal(err)
				}
				n += len(entries)
				at = 1 + (at+7919)%(last-5000)
			}
			b.ReportMetric(float64(n)/float64(b.N), "entries/op")
		})
	}
	if err := log.Close(); err != nil {
		b.Fatal(err)
	}
}
