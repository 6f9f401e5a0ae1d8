package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// SpaceOptions say what is watched, and what is kept free.
type SpaceOptions struct {
	FS  vfs.FS
	Dir string // the data directory
	// ReserveBytes is what should stay free: below it space is Low. 0 switches
	// everything here off.
	ReserveBytes int64
	// BallastBytes is the size of the file that keeps room for a start on a full
	// disk, which writes the log's last segment anew. 0 is no ballast; BallastFor is a
	// good size.
	BallastBytes int64
	// Ticker is where ticks come from; nil = the system's clock.
	Ticker     func(d time.Duration) (ticks <-chan time.Time, stop func())
	Logger     *slog.Logger          // nil = none
	Registerer prometheus.Registerer // nil = none
}

// BallastFor is the ballast that suits a reserve.
func BallastFor(reserveBytes int64) int64 { return min(ballastBytesMost, reserveBytes/2) }

const (
	ballastFile = "ballast"
	// ballastBytesMost is room for a whole segment and what startBytesMost is for.
	ballastBytesMost = 2 * segmentBytesDefault
	// startBytesMost is what a start writes besides the log's last segment: the
	// state that it has read back, flushed once, and a little.
	startBytesMost = 32 << 20
	ballastChunk   = 1 << 20 // of a ballast that has to be written
	spaceEvery     = time.Second
	// ballastRetryChecks is after how many checks a ballast that could not be
	// made is tried again.
	ballastRetryChecks = 60
)

// Space watches how much is free on the disk of a data directory, so that a
// member can stop growing before a write fails, which would be its end: what
// is left then, the reserve, is for all that does not grow.
//
// It also keeps a ballast: a file of no use but its size, which is removed when
// a start finds the disk full. Reading the log and the state back writes a
// little, and without room for it a member could not even shrink.
//
// Low is anybody's to ask; Check is one goroutine's, that of Run.
type Space struct {
	o       SpaceOptions
	low     atomic.Bool
	free    atomic.Int64 // when it was last looked at
	ballast atomic.Int64 // bytes that the ballast holds

	pause int    // checks until a ballast may be made
	said  string // the trouble that the log has
}

// OpenSpace looks once and makes room for a start if there is none. It comes
// before the log and the engine are opened, by whoever holds the directory.
func OpenSpace(o SpaceOptions) (*Space, error) {
	s := &Space{o: o.withDefaults()}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("look at the free space of %s: %w", o.Dir, err)
	}
	return s, s.register(o.Registerer)
}

func (o SpaceOptions) withDefaults() SpaceOptions {
	if o.ReserveBytes <= 0 {
		o.ReserveBytes, o.BallastBytes = 0, 0
	}
	if o.Ticker == nil {
		o.Ticker = func(d time.Duration) (<-chan time.Time, func()) {
			t := time.NewTicker(d)
			return t.C, t.Stop
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (s *Space) open() error {
	if err := s.findBallast(); err != nil || s.o.ReserveBytes == 0 {
		return err
	}
	free, err := s.look()
	if errors.Is(err, vfs.ErrUnsupported) {
		s.o.Logger.Warn("free space cannot be seen here: a full disk will end this member without a warning", "dir", s.o.Dir)
		s.o.ReserveBytes, s.o.BallastBytes = 0, 0
		return nil
	}
	if err == nil && s.ballast.Load() > 0 {
		free, err = s.makeRoom(free)
	}
	if err == nil {
		s.judge(free)
	}
	return err
}

// findBallast removes what is not a whole ballast of today's size.
func (s *Space) findBallast() error {
	if err := removeIfThere(s.o.FS, s.path()+tempSuffix); err != nil {
		return err
	}
	there, err := exists(s.o.FS, s.path())
	if err != nil || !there {
		return err
	}
	info, err := s.o.FS.Stat(s.path())
	if err != nil {
		return err
	}
	if info.Size() != s.o.BallastBytes {
		return removeIfThere(s.o.FS, s.path())
	}
	s.ballast.Store(info.Size())
	return nil
}

// makeRoom drops the ballast if a start needs it, and returns what is free then.
func (s *Space) makeRoom(free int64) (int64, error) {
	segment, err := lastSegmentBytes(s.o.FS, s.o.FS.PathJoin(s.o.Dir, "wal"))
	if err != nil || free >= segment+min(startBytesMost, s.o.ReserveBytes/8) {
		return free, err
	}
	return s.dropBallast(free)
}

// lastSegmentBytes is the size of the log's last segment, which a start writes
// anew beside the old one.
func lastSegmentBytes(fs vfs.FS, dir string) (int64, error) {
	there, err := exists(fs, dir)
	if err != nil || !there {
		return 0, err
	}
	names, err := fs.List(dir)
	if err != nil {
		return 0, err
	}
	last, found := uint64(0), false
	for _, name := range names {
		if n, ok := segmentSequence(name); ok {
			last, found = max(last, n), true
		}
	}
	if !found {
		return 0, nil
	}
	info, err := fs.Stat(fs.PathJoin(dir, segmentName(last)))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// dropBallast returns what is free without it.
func (s *Space) dropBallast(before int64) (int64, error) {
	if err := removeIfThere(s.o.FS, s.path()); err != nil {
		return 0, err
	}
	dropped := s.ballast.Swap(0)
	free, err := s.look()
	s.o.Logger.Warn("the disk is full: the ballast was removed to have room for the start; make room, there is no second one",
		"dir", s.o.Dir, "free", before, "ballast", dropped, "free_now", free)
	return free, err
}

func (s *Space) path() string { return s.o.FS.PathJoin(s.o.Dir, ballastFile) }

// Run checks once a second until ctx ends. What it cannot do is in the log: it
// is no reason for a member to end.
func (s *Space) Run(ctx context.Context) error {
	if s.o.ReserveBytes == 0 {
		return nil
	}
	ticks, stop := s.o.Ticker(spaceEvery)
	defer stop()
	for {
		s.Check()
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
	}
}

// Low tells whether less than the reserve is free, and nothing should grow. It
// is over when there is a tenth more than the reserve.
func (s *Space) Low() bool { return s.low.Load() }

// Check looks at the free space, and makes the ballast if there is none and
// room for it.
func (s *Space) Check() {
	if s.o.ReserveBytes == 0 {
		return
	}
	free, err := s.look()
	s.complain("the free space could not be seen; what was known stays", err)
	if err != nil {
		return
	}
	s.judge(free)
	if s.pause > 0 {
		s.pause--
		return
	}
	if s.o.BallastBytes == 0 || s.ballast.Load() > 0 || free < s.enough()+s.o.BallastBytes {
		return
	}
	if err := s.makeBallast(free); err != nil {
		s.pause = ballastRetryChecks
		s.complain("the ballast could not be made; it is tried again in a minute", err)
	}
}

// look asks the file system.
func (s *Space) look() (int64, error) {
	usage, err := s.o.FS.GetDiskUsage(s.o.Dir)
	if err != nil {
		return 0, err
	}
	free := int64(min(usage.AvailBytes, 1<<62))
	s.free.Store(free)
	return free, nil
}

// enough is when a low space is low no longer: a tenth above the reserve, so
// that the answer does not change with every file that comes and goes.
func (s *Space) enough() int64 { return s.o.ReserveBytes + s.o.ReserveBytes/10 }

func (s *Space) judge(free int64) {
	switch low := s.low.Load(); {
	case !low && free < s.o.ReserveBytes:
		s.low.Store(true)
		s.o.Logger.Warn("the disk is nearly full: what grows is refused until there is room", "dir", s.o.Dir,
			"free", free, "reserve", s.o.ReserveBytes, "enough", s.enough())
	case low && free >= s.enough():
		s.low.Store(false)
		s.o.Logger.Info("there is room on the disk again", "dir", s.o.Dir, "free", free, "reserve", s.o.ReserveBytes)
	}
}

// complain says a trouble once, until it is another or over.
func (s *Space) complain(what string, err error) {
	if err == nil {
		s.said = ""
		return
	}
	if text := what + err.Error(); text != s.said {
		s.said = text
		s.o.Logger.Warn(what, "dir", s.o.Dir, "error", err)
	}
}

// makeBallast makes it under another name first: what a crash leaves of it is
// not taken for a whole one.
func (s *Space) makeBallast(free int64) error {
	temp := s.path() + tempSuffix
	err := s.fillBallast(temp, free)
	if err == nil {
		err = s.o.FS.Rename(temp, s.path())
	}
	if err != nil {
		return errors.Join(err, removeIfThere(s.o.FS, temp))
	}
	s.ballast.Store(s.o.BallastBytes)
	s.o.Logger.Info("the ballast for a start on a full disk is there", "dir", s.o.Dir, "bytes", s.o.BallastBytes)
	return syncDir(s.o.FS, s.o.Dir)
}

func (s *Space) fillBallast(path string, free int64) error {
	f, err := s.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// A file system may say that it has set blocks aside and have done nothing.
	taken := false
	if f.Preallocate(0, s.o.BallastBytes) == nil {
		after, err := s.look()
		taken = err == nil && free-after >= s.o.BallastBytes/2
	}
	if taken {
		_, err = f.WriteAt([]byte{0}, s.o.BallastBytes-1) // so that its size can be seen
	} else {
		err = writeBallast(f, s.o.BallastBytes)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeBallast writes what no file system can make smaller, in pieces, so that
// the log's syncs in between do not wait for all of it.
func writeBallast(f vfs.File, size int64) error {
	random := rand.NewChaCha8([32]byte{})
	chunk := make([]byte, min(size, ballastChunk))
	for left := size; left > 0; left -= int64(len(chunk)) {
		chunk = chunk[:min(int64(len(chunk)), left)]
		random.Read(chunk) // never fails
		if _, err := f.Write(chunk); err != nil {
			return err
		}
		if err := f.SyncData(); err != nil {
			return err
		}
	}
	return nil
}

// removeIfThere removes a file, durably.
func removeIfThere(fs vfs.FS, path string) error {
	if there, err := exists(fs, path); err != nil || !there {
		return err
	}
	if err := fs.Remove(path); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(path))
}

func (s *Space) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	var err error
	gauge := func(name, help string, read func() float64) {
		err = errors.Join(err, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)))
	}
	gauge("stellmap_storage_free_bytes", "What was free on the disk of the data directory when it was last looked at; 0 when storage.reserve is 0.",
		func() float64 { return float64(s.free.Load()) })
	gauge("stellmap_storage_ballast_bytes", "The size of the file that keeps room for a start on a full disk; 0 when there is none.",
		func() float64 { return float64(s.ballast.Load()) })
	gauge("stellmap_storage_low", "1 while less than storage.reserve is free and what grows is refused.", func() float64 {
		if s.Low() {
			return 1
		}
		return 0
	})
	return err
}
