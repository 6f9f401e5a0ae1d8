package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// smallDisk is a disk of a size: what others keep on it is said, and files in
// "data" count by their size, or by what was set aside for them.
type smallDisk struct {
	vfs.FS
	size, others int64
	setAside     map[string]int64 // by path; nil = Preallocate does nothing, as on some disks
	before       func(op string) error
	blind        error // of GetDiskUsage
	writes       int
}

const (
	mib         = int64(1 << 20)
	testReserve = 40 * mib
	testBallast = 20 * mib // as BallastFor has it
	testStart   = 5 * mib  // what a start needs, but for the log's last segment
)

// newSmallDisk has so much free.
func newSmallDisk(free int64) *smallDisk {
	d := &smallDisk{FS: vfs.NewMem(), size: 1 << 40}
	check(d.MkdirAll("data", 0o700))
	d.others = d.size - free
	return d
}

func (d *smallDisk) free() int64 {
	left := d.size - d.others
	names, err := d.List("data")
	check(err)
	for _, name := range names {
		path := d.PathJoin("data", name)
		info, err := d.Stat(path)
		check(err)
		left -= max(info.Size(), d.setAside[path])
	}
	return left
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(max(d.free(), 0)), TotalBytes: uint64(d.size)}, d.blind
}

func (d *smallDisk) ask(op string) error {
	if d.before == nil {
		return nil
	}
	return d.before(op)
}

func (d *smallDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.ask("create"); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, c)
	return &smallFile{File: f, disk: d, path: name}, err
}

func (d *smallDisk) Rename(from, to string) error {
	if err := d.ask("rename"); err != nil {
		return err
	}
	if d.setAside != nil {
		d.setAside[to] = d.setAside[from]
		delete(d.setAside, from)
	}
	return d.FS.Rename(from, to)
}

func (d *smallDisk) Remove(name string) error {
	if err := d.ask("remove"); err != nil {
		return err
	}
	delete(d.setAside, name)
	return d.FS.Remove(name)
}

type smallFile struct {
	vfs.File
	disk *smallDisk
	path string
}

func (f *smallFile) Write(p []byte) (int, error) {
	if err := f.disk.ask("write"); err != nil {
		return 0, err
	}
	f.disk.writes++
	return f.File.Write(p)
}

func (f *smallFile) Preallocate(_, n int64) error {
	if f.disk.setAside != nil {
		f.disk.setAside[f.path] = n
	}
	return nil
}

func (f *smallFile) Sync() error {
	if err := f.disk.ask("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

// openSpace opens it, as a process that holds the directory does.
func openSpace(t *testing.T, d *smallDisk, log *bytes.Buffer) *Space {
	t.Helper()
	s, err := OpenSpace(SpaceOptions{
		FS: d, Dir: "data", ReserveBytes: testReserve, BallastBytes: BallastFor(testReserve), Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes a file.
func (d *smallDisk) put(name string, size int64) {
	f, err := d.FS.Create("data/"+name, vfs.WriteCategoryUnspecified)
	check(err)
	_, err = f.Write(make([]byte, size))
	check(errors.Join(err, f.Close()))
}

// files are the names in the data directory, but for the log.
func (d *smallDisk) files() string {
	names, err := d.List("data")
	check(err)
	names = slices.DeleteFunc(names, func(name string) bool { return name == "wal" })
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Low begins below the reserve, and ends a tenth above it: not with every file
// that comes and goes. Each change is told once.
func TestSpaceIsLowUntilThereIsEnough(t *testing.T) {
	d, log := newSmallDisk(100*mib), &bytes.Buffer{}
	s := openSpace(t, d, log)
	s.o.BallastBytes = 0
	for _, step := range []struct {
		free int64
		low  bool
	}{
		{100 * mib, false}, {testReserve, false}, {testReserve - 1, true}, {testReserve, true}, {testReserve + testReserve/10 - 1, true},
		{0, true}, {testReserve + testReserve/10, false}, {testReserve, false}, {testReserve - 1, true}, {100 * mib, false},
	} {
		d.others = d.size - step.free
		s.Check()
		s.Check()
		if s.Low() != step.low {
			t.Fatalf("with %d free: low %v, want %v", step.free, s.Low(), step.low)
		}
	}
	if nearly, again := strings.Count(log.String(), "nearly full"), strings.Count(log.String(), "room on the disk again"); nearly != 2 || again != 2 {
		t.Errorf("told %d and %d times, want 2 and 2:\n%s", nearly, again, log)
	}
}

// A full disk is known from the first moment.
func TestSpaceIsLowFromTheStart(t *testing.T) {
	if s := openSpace(t, newSmallDisk(testReserve-1), &bytes.Buffer{}); !s.Low() {
		t.Error("it is not low")
	}
}

// The ballast is made when there is room for it and the reserve, whether the
// disk sets room aside or has to be written to. A start on a full disk removes
// it, and it is made anew when there is room again.
func TestBallast(t *testing.T) {
	for name, setAside := range map[string]bool{"set aside": true, "written": false} {
		t.Run(name, func(t *testing.T) {
			d, log := newSmallDisk(testReserve+testReserve/10+testBallast-1), &bytes.Buffer{}
			if setAside {
				d.setAside = make(map[string]int64)
			}
			s := openSpace(t, d, log)
			s.Check()
			if d.files() != "" {
				t.Fatalf("without room for it there is %q", d.files())
			}
			d.others--
			s.Check()
			s.Check()
			info, err := d.Stat("data/ballast")
			if err != nil || info.Size() != testBallast || d.files() != "ballast" {
				t.Fatalf("%v, %v in %q, want %d bytes", info, err, d.files(), testBallast)
			}
			if s.Low() || (d.writes == 0) != setAside {
				t.Errorf("low %v after %d writes", s.Low(), d.writes)
			}

			segment := int64(3 * mib)
			check(d.MkdirAll("data/wal", 0o700))
			d.put("wal/0000000000000001.wal", 9*mib)
			d.put("wal/0000000000000002.wal", segment) // the last
			d.others += d.free() - testStart - segment // just enough to start
			if s = openSpace(t, d, log); d.files() != "ballast" || !s.Low() {
				t.Fatalf("a start with room: files %q, low %v", d.files(), s.Low())
			}
			d.others++
			if s = openSpace(t, d, log); d.files() != "" || !s.Low() {
				t.Fatalf("a start without room: files %q, low %v", d.files(), s.Low())
			}
			if want := testStart + segment - 1 + testBallast; d.free() != want || !strings.Contains(log.String(), "the ballast was removed") {
				t.Errorf("%d free, want %d; the log says:\n%s", d.free(), want, log)
			}
			s.Check()
			if d.files() != "" {
				t.Fatalf("without room there is %q", d.files())
			}
			d.others = d.size - 100*mib
			s.Check()
			if d.files() != "ballast" || s.Low() {
				t.Errorf("with room again: files %q, low %v", d.files(), s.Low())
			}
		})
	}
}

// What a crash leaves of a ballast is removed, and so is one of another size,
// or that is not wanted any more.
func TestLeftoversOfABallast(t *testing.T) {
	for name, prepare := range map[string]func(d *smallDisk){
		"half written": func(d *smallDisk) { d.put("ballast.tmp", testBallast/2) },
		"both":         func(d *smallDisk) { d.put("ballast.tmp", testBallast); d.put("ballast", testBallast) },
		"other size":   func(d *smallDisk) { d.put("ballast", testBallast+1) },
		"empty":        func(d *smallDisk) { d.put("ballast", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newSmallDisk(100 * mib)
			prepare(d)
			s := openSpace(t, d, &bytes.Buffer{})
			s.Check()
			if info, err := d.Stat("data/ballast"); err != nil || info.Size() != testBallast || d.files() != "ballast" {
				t.Errorf("%v, %v in %q", info, err, d.files())
			}
		})
	}
	d := newSmallDisk(100 * mib)
	d.put("ballast", testBallast)
	for _, reserve := range []int64{0, -1} {
		s, err := OpenSpace(SpaceOptions{FS: d, Dir: "data", ReserveBytes: reserve, BallastBytes: testBallast})
		if err != nil || d.files() != "" {
			t.Fatalf("switched off: %v, files %q", err, d.files())
		}
		d.others = d.size
		s.Check()
		if s.Low() || s.Run(t.Context()) != nil {
			t.Error("switched off, it is low")
		}
	}
}

// A ballast that cannot be made leaves nothing behind, is told once and tried
// again a minute later. It is no reason to end.
func TestABallastThatCannotBeMade(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "rename"} {
		t.Run(op, func(t *testing.T) {
			d, log := newSmallDisk(100*mib), &bytes.Buffer{}
			s := openSpace(t, d, log)
			tries := 0
			d.before = func(o string) error {
				if o != op {
					return nil
				}
				tries++
				return errors.New("the disk is on fire")
			}
			for range ballastRetryChecks + 1 {
				s.Check()
			}
			if tries != 1 || d.files() != "" || s.Low() || !strings.Contains(log.String(), "on fire") {
				t.Errorf("%d tries, files %q, low %v; the log says:\n%s", tries, d.files(), s.Low(), log)
			}
			d.before = nil
			s.Check()
			if d.files() != "ballast" {
				t.Errorf("tried again: %q", d.files())
			}
		})
	}
}

// While the free space cannot be seen, what was known stays. Where it never can
// be, nothing is refused, and a start says so.
func TestSpaceThatCannotBeSeen(t *testing.T) {
	d, log := newSmallDisk(testReserve-1), &bytes.Buffer{}
	s := openSpace(t, d, log)
	d.blind, d.others = errors.New("stale handle"), 0
	s.Check()
	s.Check()
	if !s.Low() || strings.Count(log.String(), "stale handle") != 1 {
		t.Errorf("low %v; the log says:\n%s", s.Low(), log)
	}
	if _, err := OpenSpace(SpaceOptions{FS: d, Dir: "data", ReserveBytes: testReserve}); err == nil || !strings.Contains(err.Error(), "data") {
		t.Errorf("opened blindly: %v", err)
	}
	d.blind = nil
	s.Check()
	if s.Low() {
		t.Error("seen again, it is low")
	}
	d.blind = vfs.ErrUnsupported
	s = openSpace(t, d, log)
	s.Check()
	if s.Low() || d.files() != "ballast" || !strings.Contains(log.String(), "cannot be seen here") {
		t.Errorf("low %v, files %q; the log says:\n%s", s.Low(), d.files(), log)
	}
}

// Run looks at once, and at each tick, until it is told to end.
func TestSpaceRuns(t *testing.T) {
	d := newSmallDisk(100 * mib)
	ticks := make(chan time.Time)
	stopped := 0
	registry := prometheus.NewRegistry()
	s, err := OpenSpace(SpaceOptions{
		FS: d, Dir: "data", ReserveBytes: testReserve, BallastBytes: BallastFor(testReserve), Registerer: registry,
		Ticker: func(every time.Duration) (<-chan time.Time, func()) {
			if every != time.Second {
				t.Errorf("a look every %v", every)
			}
			return ticks, func() { stopped++ }
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	ticks <- time.Time{}
	ticks <- time.Time{} // so the first two looks are done
	want := fmt.Sprintf("stellmap_storage_ballast_bytes %d, stellmap_storage_free_bytes %d, stellmap_storage_low 0", testBallast, 100*mib-testBallast)
	if have := gauges(t, registry); have != want {
		t.Errorf("metrics %s\nwant %s", have, want)
	}
	cancel()
	running.Wait()
	if stopped != 1 {
		t.Errorf("the ticker was stopped %d times", stopped)
	}
}

func gauges(t *testing.T, r *prometheus.Registry) string {
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		all = append(all, fmt.Sprintf("%s %d", f.GetName(), int64(f.GetMetric()[0].GetGauge().GetValue())))
	}
	return strings.Join(all, ", ")
}

func TestBallastFor(t *testing.T) {
	for reserve, want := range map[int64]int64{0: 0, 40 * mib: 20 * mib, 256 * mib: 128 * mib, math.MaxInt64: 128 * mib} {
		if have := BallastFor(reserve); have != want {
			t.Errorf("for %d: %d, want %d", reserve, have, want)
		}
	}
}

// On a real disk the ballast takes what it says, and gives it back.
func TestBallastOnARealDisk(t *testing.T) {
	dir := t.TempDir()
	before, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		t.Skipf("not tested: %v", err)
	}
	const size = 32 * mib
	s, err := OpenSpace(SpaceOptions{FS: vfs.Default, Dir: dir, ReserveBytes: 1, BallastBytes: size})
	if err != nil {
		t.Fatal(err)
	}
	if int64(before.AvailBytes) < 4*size {
		t.Skipf("not tested: %d bytes are free", before.AvailBytes)
	}
	s.Check()
	info, err := vfs.Default.Stat(vfs.Default.PathJoin(dir, "ballast"))
	if err != nil || info.Size() != size {
		t.Fatalf("%v, %v", info, err)
	}
	if taken := allocated(t, info); taken < size {
		t.Errorf("it takes %d bytes of the disk, want %d", taken, size)
	}
}

// allocated is what a file takes of its disk.
func allocated(t *testing.T, info vfs.FileInfo) int64 {
	t.Helper()
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Skipf("not tested: the system does not say what a file takes (%T)", info.Sys())
	}
	const block = 512
	return stat.Blocks * block
}
