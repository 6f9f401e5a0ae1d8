package crashtest

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage/crashfs"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "of all that is random; 0 = a new one")
	scheduleFlag = flag.Int("schedule", -1, "play this schedule alone; -1 = all")
	opFlag       = flag.Int("op", 0, "crash after this operation alone; 0 = after all")
	lossFlag     = flag.Int("loss", -1, "crash in this way alone; -1 = in all")
	fullFlag     = flag.Bool("full", false, "all there is, not a sample")
)

// secondCrashes counts the crashes inside of recoveries.
var secondCrashes atomic.Int64

// seed is the one that was given, or a new one.
func seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return uint64(time.Now().UnixNano())
}

const (
	schedules   = 2
	scheduleOps = 2000 // operations on the disk of each, at least
	longestLife = 5    // times as many, for a member that has not done each of the steps yet
	randomSeeds = 16   // crashes after each operation that keep some of what was not synced
)

// schedule is one member's life, and a crash after each of its operations.
type schedule struct {
	seed       uint64
	number     int
	ops        int // at least
	oneIn      int // of the crashes; 1 = all of them
	recoveries atomic.Int64
	played     int // operations
	kinds      map[crashfs.Kind]int
	done       map[string]int

	images  chan job
	workers sync.WaitGroup

	mu     sync.Mutex // guards what follows
	failed *failure
}

type job struct {
	image
	op   crashfs.Op
	n    int // of the loss
	loss crashfs.Loss
}

// failure is what a schedule found.
type failure struct {
	err   error
	when  string
	trace []string // up to the crash
}

const traceTail = 25

func (f *failure) Error() string {
	tail := f.trace[max(0, len(f.trace)-traceTail):]
	return fmt.Sprintf("%s: %v\nthe last operations before it:\n  %s", f.when, f.err, strings.Join(tail, "\n  "))
}

// play plays the schedule in a bubble, where the engine's goroutines come to
// rest after each step: so one seed always makes the same operations.
func (s *schedule) play(t *testing.T) *failure {
	s.kinds = map[crashfs.Kind]int{}
	s.images = make(chan job, 64)
	for range runtime.GOMAXPROCS(0) {
		s.workers.Go(s.recoverAll)
	}
	synctest.Test(t, s.work)
	close(s.images)
	s.workers.Wait()
	return s.failed
}

func (s *schedule) fail(f *failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = f
	}
}

func (s *schedule) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed != nil
}

// recoverAll is a worker.
func (s *schedule) recoverAll() {
	for j := range s.images {
		if s.over() {
			continue
		}
		s.recoveries.Add(1)
		trace := j.trace
		if err := j.recover(); err != nil {
			s.fail(&failure{err, fmt.Sprintf("a crash after operation %v, loss %d %+v (-op=%d -loss=%d)", j.op, j.n, j.loss, j.op.Index, j.n), trace()})
		}
	}
}

// work is the member's life.
func (s *schedule) work(*testing.T) {
	random := rand.New(rand.NewPCG(s.seed, uint64(s.number)))
	p := newPlayer(crashfs.New(), random, newTuning(random, s.number))
	p.inBubble()
	chance := rand.New(rand.NewPCG(s.seed, uint64(s.number)+1<<32)) // of which crashes are looked at
	p.disk.After(func(op crashfs.Op) { s.crash(p, op, chance) })
	err := p.live(func() bool {
		ops := p.disk.Ops()
		return (ops < s.ops || !p.didAll() && ops < longestLife*s.ops) && !s.over()
	})
	s.played, s.done = p.disk.Ops(), p.done
	if err != nil {
		s.fail(&failure{err, "without a crash", p.disk.Trace()})
	}
}

// crash takes what crashes after an operation would leave.
func (s *schedule) crash(p *player, op crashfs.Op, chance *rand.Rand) {
	s.kinds[op.Kind]++
	if *opFlag != 0 && op.Index != *opFlag || s.over() {
		return
	}
	k := p.known()
	for n, l := range s.losses(p.disk, op) {
		if one := *opFlag != 0 && (*lossFlag < 0 || n == *lossFlag); !one && (*opFlag != 0 || chance.IntN(s.oneIn) != 0) {
			continue
		}
		trace := func() []string { return p.disk.Trace()[:op.Index] }
		s.images <- job{image{p.disk.Crash(l), k, p.tuning, l.Seed + uint64(n), trace}, op, n, l}
	}
}

// losses are all the ways in which a crash may end.
func (s *schedule) losses(disk *crashfs.FS, op crashfs.Op) []crashfs.Loss {
	all := []crashfs.Loss{{Mode: crashfs.LoseUnsynced}, {Mode: crashfs.KeepAll}, {Mode: crashfs.TearLast}}
	for n := range randomSeeds {
		l := crashfs.Loss{Mode: crashfs.Journal}
		if n%2 == 1 {
			l.Mode, l.Journaled = crashfs.Random, stateDir
		}
		all = append(all, l)
	}
	if op.Kind == crashfs.Write {
		for n := range disk.Tears() {
			all = append(all, crashfs.Loss{Mode: crashfs.TearAt, Sectors: n})
		}
	}
	for n := range all {
		all[n].Seed = s.seed ^ uint64(s.number)<<48 ^ uint64(op.Index)<<16 ^ uint64(n)
	}
	return all
}

// live starts, works as long as it may, and stops.
func (p *player) live(on func() bool) error {
	err := p.start()
	for err == nil && on() {
		err = p.step()
	}
	if p.member != nil {
		err = errors.Join(err, p.close())
	}
	return err
}

// inBubble has the player's engine come to rest after each step, and do all it
// does in one order.
func (p *player) inBubble() {
	late := &lateRemovals{FS: p.disk}
	p.via, p.settle = late, func() {
		rest()
		late.remove()
	}
	p.disk.Delay(func(op crashfs.Op) {
		if op.Kind == crashfs.Remove && strings.HasPrefix(op.Path, stateDir) {
			<-time.After(time.Nanosecond) // after all else
		}
		p.meanwhile(op)
	})
}

// rest waits until nothing in the bubble has anything to do.
func rest() { <-time.After(time.Millisecond) }

// lateRemovals removes Pebble's old tables when it is told to, sorted: Pebble
// itself walks a map.
type lateRemovals struct {
	vfs.FS
	mu    sync.Mutex // guards what follows
	names map[string]bool
}

func (l *lateRemovals) Remove(name string) error {
	if !strings.HasSuffix(name, ".sst") {
		return l.FS.Remove(name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = map[string]bool{}
	}
	l.names[name] = true
	return nil
}

func (l *lateRemovals) remove() {
	l.mu.Lock()
	names := slices.Sorted(maps.Keys(l.names))
	l.names = nil
	l.mu.Unlock()
	for _, name := range names {
		if err := l.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // its folder may have gone
			panic(fmt.Sprintf("crashtest: %v", err))
		}
	}
}

// The power is cut after every operation of a member's life, in every way: all
// that was acknowledged is there, what is there was written, everything opens,
// and a crash in the recovery changes nothing.
func TestACrashAfterEveryOperation(t *testing.T) {
	seed, oneIn := seed(), 80*slower
	if *fullFlag {
		oneIn = 1
	}
	t.Logf("seed %d", seed)
	all, done := int64(0), map[string]int{}
	for n := range schedules {
		if *scheduleFlag >= 0 && n != *scheduleFlag {
			continue
		}
		began := time.Now()
		s := &schedule{seed: seed, number: n, ops: scheduleOps, oneIn: oneIn}
		if f := s.play(t); f != nil {
			t.Fatalf("schedule %d of seed %d: %v\nplay it again: go test ./storage/crashtest -run %s -full -seed=%d -schedule=%d and the flags above", n, seed, f, t.Name(), seed, n)
		}
		all += s.recoveries.Load()
		for name, times := range s.done {
			done[name] += times
		}
		t.Logf("schedule %d: %d operations %v, steps %v, %d recoveries in %v", n, s.played, s.kinds, s.done, s.recoveries.Load(), time.Since(began).Round(time.Second))
	}
	for _, step := range steps {
		if done[step.name] == 0 && *scheduleFlag < 0 {
			t.Errorf("there was no %s: the schedules are too short to show anything", step.name)
		}
	}
	t.Logf("%d recoveries, 0 failed; %d more after a crash inside of a recovery", all, secondCrashes.Load())
	if *fullFlag && *scheduleFlag < 0 && *opFlag == 0 && all < 40_000 {
		t.Errorf("%d recoveries, 40,000 are the least", all)
	}
}

// One seed makes the same operations each time, so what a failure prints plays
// it again; see newTuning for the exception.
func TestASeedIsOneLife(t *testing.T) {
	seed := seed()
	var lives [2][]string
	for i := range lives {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			p := newPlayer(crashfs.New(), random, newTuning(random, 0))
			p.inBubble()
			if err := p.live(func() bool { return p.disk.Ops() < scheduleOps }); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			lives[i] = p.disk.Trace()
		})
	}
	if !slices.Equal(lives[0], lives[1]) {
		for i, line := range lives[0] {
			if i >= len(lives[1]) || line != lives[1][i] {
				t.Fatalf("seed %d: operation %q the first time, %q the second", seed, line, lives[1][min(i, len(lives[1])-1)])
			}
		}
	}
}
