package crashtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/storage/crashfs"
)

// A sync fails, as on Linux: what it should have written counts as clean and is
// gone after a crash. It is told, it is final, nothing is acknowledged after it,
// and whether the process or the power ends then, what was acknowledged is there.
func TestAFailedSyncIsTheEnd(t *testing.T) {
	seed, count := seed(), max(1, 60/slower)
	if *fullFlag {
		count = 1000
	}
	t.Logf("seed %d", seed)
	failed := map[string]int{}
	for n := range count {
		if *scheduleFlag >= 0 && n != *scheduleFlag {
			continue
		}
		s := &failingSync{seed: seed, number: n}
		if f := s.play(); f != nil {
			t.Fatalf("schedule %d of seed %d: %v\nplay it again: go test ./storage/crashtest -run %s -full -seed=%d -schedule=%d", n, seed, f, t.Name(), seed, n)
		}
		failed[s.place.name]++
	}
	t.Logf("%d schedules, failed syncs: %v", count, failed)
}

// failingSync is one life that ends with a failed sync.
type failingSync struct {
	seed   uint64
	number int
	place  failingPlace

	random  *rand.Rand
	kept    bool // the disk keeps its power when the process ends
	forever bool // all later syncs of the place fail as well
	after   int  // so many syncs of the place

	p          *player
	process    *process
	hit        atomic.Bool
	recoveries int
}

// process is what one process has open. When it has ended whatever it still
// asks of the disk waits for ever, and its locks are gone.
type process struct {
	vfs.FS
	die   func(error)
	ended chan struct{} // closed at the end
	once  sync.Once

	mu    sync.Mutex // guards what follows
	locks []io.Closer
}

func newProcess(disk vfs.FS) *process {
	p := &process{ended: make(chan struct{})}
	p.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(errorfs.Op) error {
		select {
		case <-p.ended:
			select {}
		default:
			return nil
		}
	}))
	return p
}

func (p *process) Lock(name string) (io.Closer, error) {
	lock, err := p.FS.Lock(name)
	if err == nil {
		p.mu.Lock()
		p.locks = append(p.locks, lock)
		p.mu.Unlock()
	}
	return lock, err
}

// OpenDir opens a directory whose failed sync is a panic, if it is Pebble's: on
// a goroutine of its own, which no test can catch. It ends the process.
func (p *process) OpenDir(name string) (vfs.File, error) {
	f, err := p.FS.OpenDir(name)
	if err != nil || !strings.HasPrefix(name, stateDir+"/") {
		return f, err
	}
	return pebbleDir{f, p}, nil
}

type pebbleDir struct {
	vfs.File
	process *process
}

func (d pebbleDir) Sync() error {
	err := d.File.Sync()
	if err != nil {
		d.process.die(fmt.Errorf("panic: %w", err))
		select {}
	}
	return err
}

func (p *process) end() {
	p.once.Do(func() { close(p.ended) })
}

// unlock is what the kernel does.
func (p *process) unlock() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, lock := range p.locks {
		err = errors.Join(err, lock.Close())
	}
	return err
}

// do lets the process do something. A panic is its end, and so is what the
// engine tells in the background.
func (p *process) do(what func() error, died func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if found := recover(); found != nil {
				done <- fmt.Errorf("panic: %v", found)
			}
		}()
		done <- what()
	}()
	select {
	case err := <-done:
		return err
	case <-p.ended:
		return died()
	}
}

type failingPlace struct {
	name string
	is   func(op crashfs.Op) bool
}

// failingPlaces are what is synced.
var failingPlaces = []failingPlace{
	{"log", inDir("data/wal/", crashfs.SyncData)},
	{"log's directory", inDir("data/wal", crashfs.SyncDir)},
	{"state", func(op crashfs.Op) bool {
		// In Pebble's own log is nothing: it is switched off.
		return inDir("data/state/", crashfs.Sync, crashfs.SyncData)(op) && !strings.HasSuffix(op.Path, ".log")
	}},
	{"state's directory", inDir("data/state", crashfs.SyncDir)},
	{"snapshots", inDir("data/snapshot/", crashfs.Sync)},
	{"snapshots' directory", inDir("data/snapshot", crashfs.SyncDir)},
	{"identity", inDir("data/identity", crashfs.Sync)},
}

func inDir(dir string, kinds ...crashfs.Kind) func(crashfs.Op) bool {
	return func(op crashfs.Op) bool {
		for _, k := range kinds {
			if op.Kind == k {
				return strings.HasPrefix(op.Path, dir)
			}
		}
		return false
	}
}

// eioSteps are how many steps a life may have before its sync has failed.
const eioSteps = 3000

func (s *failingSync) play() *failure {
	s.random = rand.New(rand.NewPCG(s.seed, uint64(s.number)+1<<40))
	s.place = failingPlaces[s.random.IntN(len(failingPlaces))]
	s.kept, s.forever, s.after = s.random.IntN(2) == 0, s.random.IntN(2) == 0, 1+s.random.IntN(20)
	nth := s.after + 1
	p := newPlayer(crashfs.New(), s.random, newTuning(s.random, s.number))
	s.process = newProcess(p.disk)
	p.via, s.p = s.process, p
	tell := p.die
	p.die = func(err error) { // the owner ends the process
		tell(err)
		s.process.end()
		select {} // Pebble would try again and again
	}
	s.process.die = p.die
	p.disk.Before(s.before)
	p.disk.Delay(p.meanwhile)
	err := s.live()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return &failure{err, fmt.Sprintf("sync %d of the %s failed, for ever: %v, power kept: %v", nth, s.place.name, s.forever, s.kept), p.disk.Trace()}
	}
	return nil
}

// before lets the sync fail. Where the process starts again and the disk keeps
// its power, a failed sync of a directory forgets nothing: a file system that
// loses changes of names is not written to any more.
func (s *failingSync) before(op crashfs.Op) error {
	if !s.place.is(op) || s.hit.Load() && !s.forever {
		return nil
	}
	if s.after--; s.after >= 0 {
		return nil
	}
	s.hit.Store(true)
	if op.Kind == crashfs.SyncDir && s.kept {
		return syscall.EIO
	}
	return crashfs.Forget(syscall.EIO)
}

// live is the member's life up to the failed sync, which must be told.
func (s *failingSync) live() error {
	p := s.p
	err := s.process.do(p.start, p.died)
	for range eioSteps {
		if err != nil || s.hit.Load() {
			break
		}
		err = s.process.do(p.step, p.died)
	}
	switch {
	case !s.hit.Load() && err != nil:
		return err
	case !s.hit.Load():
		return fmt.Errorf("in %d steps there were not so many syncs", eioSteps)
	case err != nil && !strings.Contains(err.Error(), syscall.EIO.Error()): // Pebble keeps the text alone
		return fmt.Errorf("the sync failed and what was told is: %w", err)
	case err != nil || p.member == nil:
		return nil
	}
	return s.isTold()
}

// isTold waits for what the engine tells in the background. All else is told by
// the step itself.
func (s *failingSync) isTold() error {
	if !strings.HasPrefix(s.place.name, "state") {
		return errors.New("the sync failed and nobody was told")
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if s.p.died() != nil {
			return nil
		}
		<-time.After(time.Millisecond)
	}
	return errors.New("the sync failed and nobody was told")
}

// end ends the process, and starts the member again.
func (s *failingSync) end() error {
	p := s.p
	if p.member != nil && strings.HasPrefix(s.place.name, "log") {
		if err := s.isFinal(); err != nil {
			return err
		}
	}
	s.process.end()
	p.disk.Before(nil)
	p.disk.Delay(nil)
	if err := s.process.unlock(); err != nil {
		return err
	}
	k := p.known()
	s.random = rand.New(rand.NewPCG(s.seed, uint64(s.number)+2<<40)) // the process may hold the other for ever
	for range 4 {
		s.recoveries++
		im := image{left: p.disk.Crash(anyLoss(s.random)), k: k, tuning: p.tuning, seed: s.random.Uint64()}
		if err := im.recover(); err != nil {
			return fmt.Errorf("and then the power failed: %w", err)
		}
	}
	if !s.kept {
		return nil
	}
	return s.startsAgain(k)
}

// isFinal: nothing is acknowledged any more, and nothing is tried again.
func (s *failingSync) isFinal() error {
	log, ops := s.p.log, s.logOps()
	for what, do := range map[string]func() error{
		"append": func() error { return log.Append(nil, &storage.HardState{Term: 1 << 40}) }, "sync": log.Sync, "mark": log.Mark,
	} {
		if err := do(); !errors.Is(err, syscall.EIO) && !errors.Is(err, storage.ErrClosed) {
			return fmt.Errorf("after a failed sync the log was asked for: %s, and it said: %w", what, orNone(err))
		}
	}
	if n := s.logOps(); n != ops {
		return fmt.Errorf("after a failed sync the log wrote %d times", n-ops)
	}
	return nil
}

// logOps is how many operations there were of the log.
func (s *failingSync) logOps() (n int) {
	for _, line := range s.p.disk.Trace() {
		if strings.Contains(line, " data/wal") {
			n++
		}
	}
	return n
}

var errNone = errors.New("no error")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// startsAgain is a process that follows on the same disk, which has its power
// still. What it finds it can promise, since it has written it anew.
func (s *failingSync) startsAgain(k knowledge) error {
	next := newPlayer(s.p.disk, s.random, s.p.tuning)
	next.k = k
	if err := next.start(); err != nil {
		return fmt.Errorf("the process started again: %w", err)
	}
	for range 30 {
		if err := next.step(); err != nil {
			return errors.Join(fmt.Errorf("the process started again, and then: %w", err), next.close())
		}
	}
	for range 4 {
		s.recoveries++
		im := image{left: next.disk.Crash(anyLoss(s.random)), k: next.known(), tuning: next.tuning, seed: s.random.Uint64()}
		if err := im.recover(); err != nil {
			return errors.Join(fmt.Errorf("the process started again, and then the power failed: %w", err), next.close())
		}
	}
	return next.close()
}
