package simulate

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/stellmap/stellmap/consensus"
)

// world is everything that happens, in one thread: a heap of events, the time,
// and the dice. Whatever is called a thread here is a coroutine that runs until
// it waits.
type world struct {
	options
	dice   *mathrand.Rand
	now    time.Duration // since the beginning
	made   uint64        // events so far
	events eventHeap

	threads []*thread // in order of their making
	running *thread

	members []*member
	network network
	faults  faults
	site    *site   // what is checked; nil = nothing
	street  *street // nil but where instances are reported
	checks  checks
	clients []*client
	story   story
	trace   *xxhash.Digest
	steps   uint64
	emptied bool             // a member has lost its disks
	newest  consensus.Status // what is known of the members

	failed error // the first violation
}

// options are what a seed expands to first, and what a failure prints.
type options struct {
	Seed          uint64
	Size          int           // members
	Tick          time.Duration // of Raft
	ElectionTicks int
	SegmentBytes  int64
	TailBytes     int // of the log in memory
	SnapshotEvery uint64
	LogTail       uint64
	FlushEvery    time.Duration
	CompactEvery  time.Duration
	CheckEvery    time.Duration // of the members' states
	CallTimeout   time.Duration
	CommitTimeout time.Duration
	Changes       bool // members come and go
	Clients       int
	Thinking      time.Duration // between two calls of a client, at most
	Holders       int           // of leases
	Protection    time.Duration // how long expiry is held back at most
	Watchers      int
	EventsMax     int // that a member keeps for them in memory; in its history twice as many
	Keys          int
	Latency       time.Duration // of a message, about
	Loss, Repeat  float64       // of messages
	FaultEvery    time.Duration
	Faulty        time.Duration // how long there are faults
}

func newOptions(seed uint64) options {
	dice := mathrand.New(mathrand.NewPCG(seed, 0))
	o := options{
		Seed: seed, Size: 3,
		Tick: time.Duration(20+dice.IntN(60)) * time.Millisecond, ElectionTicks: 5 + dice.IntN(6),
		SegmentBytes: 1024 << dice.IntN(6), TailBytes: 256 << dice.IntN(8),
		SnapshotEvery: 5 + dice.Uint64N(80), LogTail: dice.Uint64N(20),
		CompactEvery: time.Duration(100+dice.IntN(900)) * time.Millisecond,
		CheckEvery:   time.Duration(300+dice.IntN(3000)) * time.Millisecond,
		FlushEvery:   time.Duration(200+dice.IntN(3000)) * time.Millisecond,
		Clients:      2 + dice.IntN(4), Thinking: time.Duration(20+dice.IntN(180)) * time.Millisecond, Holders: 1 + dice.IntN(12), Watchers: 1 + dice.IntN(3), Keys: 1 + dice.IntN(4),
		Latency:    time.Duration(200+dice.IntN(4000)) * time.Microsecond,
		FaultEvery: time.Duration(200+dice.IntN(1300)) * time.Millisecond,
		Faulty:     time.Duration(5+dice.IntN(6)) * time.Second,
	}
	switch n := dice.IntN(10); {
	case n == 0:
		o.Size = 1
	case n < 3:
		o.Size = 5
	}
	o.CallTimeout = time.Duration(300+dice.IntN(900)) * time.Millisecond
	o.CommitTimeout = o.CallTimeout + time.Duration(dice.IntN(2500))*time.Millisecond
	o.Changes = dice.IntN(3) == 0
	o.Protection = time.Duration(1+dice.IntN(4)) * time.Second
	if dice.IntN(2) == 0 {
		o.Loss = dice.Float64() * 0.2
	}
	if dice.IntN(2) == 0 {
		o.Repeat = dice.Float64() * 0.3
	}
	if o.EventsMax = 1 << 16; dice.IntN(2) == 0 {
		o.EventsMax = 1 + dice.IntN(64)
	}
	return o
}

// epoch is what the clocks of members show at the beginning.
var epoch = time.UnixMilli(1_800_000_000_000)

// newWorld makes one. Raft takes its jitter from crypto/rand and nowhere else,
// so there is one world at a time.
func newWorld(seed uint64) *world { return newWorldWith(newOptions(seed)) }

func newWorldWith(o options) *world {
	w := &world{options: o, trace: xxhash.New()}
	w.dice = mathrand.New(mathrand.NewPCG(o.Seed, 1))
	rand.Reader = &reader{mathrand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), o.Seed)))}
	w.network = newNetwork(w)
	w.faults = newFaults(w)
	w.checks = newChecks(w)
	for id := range uint64(w.Size) {
		w.members = append(w.members, newMember(w, id+1))
	}
	return w
}

type reader struct{ dice *mathrand.ChaCha8 }

func (r *reader) Read(p []byte) (int, error) { return r.dice.Read(p) }

// event is something that happens at a time.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(e any)   { *h = append(*h, e.(event)) }
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = event{}
	*h = (*h)[:last]
	return e
}

// after has something happen later.
func (w *world) after(d time.Duration, do func()) {
	w.made++
	heap.Push(&w.events, event{w.now + d, w.made, do})
}

// run lets everything happen until a time, or a violation, or until done.
func (w *world) run(until time.Duration, done func() bool) {
	for w.failed == nil && !done() && len(w.events) > 0 && w.events[0].at <= until {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		w.steps++
		e.do()
		w.settle()
	}
	if w.failed == nil && !done() {
		w.now = until
	}
}

func never() bool { return false }

// settle buries who died in the last event and finds who can go on.
func (w *world) settle() {
	for _, m := range w.members {
		m.look()
		if l := m.life; l != nil && l.dead {
			m.bury()
		}
	}
	alive := w.threads[:0]
	for _, t := range w.threads {
		if t.over {
			continue
		}
		alive = append(alive, t)
		if t.called || t.life != nil && t.life.paused || !t.ready() {
			continue
		}
		t.called = true
		w.after(t.latency(), func() { w.resume(t) })
	}
	clear(w.threads[len(alive):])
	w.threads = alive
}

// fail notes a violation; the first one ends the schedule.
func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
		w.tell("VIOLATION: %v", w.failed)
	}
}

// note puts something into the trace, by which two runs are compared.
func (w *world) note(what string, numbers ...uint64) {
	var b [8]byte
	w.trace.WriteString(what)
	for _, n := range append(numbers, uint64(w.now)) {
		binary.LittleEndian.PutUint64(b[:], n)
		w.trace.Write(b[:])
	}
}

// thread is a coroutine of a member, or of a client.
type thread struct {
	world  *world
	life   *life // nil for a client's
	name   string
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	ready  func() bool
	called bool // it will be resumed
	over   bool
	ending bool
}

// abandoned unwinds the thread of a member that is dead.
type abandoned struct{}

func (w *world) spawn(l *life, name string, f func()) {
	t := &thread{world: w, life: l, name: name, ready: func() bool { return true }}
	t.resume, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer t.end()
		f()
	})
	w.threads = append(w.threads, t)
}

// end is how a thread's panic becomes a violation, and what is abandoned ends in silence.
func (t *thread) end() {
	switch p := recover().(type) {
	case nil:
	case abandoned:
	default:
		if t.ending || t.life != nil && t.life.dead {
			return
		}
		who := "a client"
		if t.life != nil {
			who = t.life.member.String()
		}
		t.world.fail("%s, thread %s, panics: %v\n%s", who, t.name, p, stack())
	}
}

// latency is how long a thread takes to get going.
func (t *thread) latency() time.Duration {
	w := t.world
	d := time.Duration(w.dice.Int64N(int64(50 * time.Microsecond)))
	if t.life == nil {
		return d
	}
	switch t.name {
	case "append", "apply", "send":
		if w.dice.IntN(20) == 0 {
			d += time.Duration(w.dice.Int64N(int64(w.Latency) * 10))
		}
	}
	return d
}

func (w *world) resume(t *thread) {
	t.called = false
	if t.over || t.life != nil && t.life.paused {
		return
	}
	before := w.running
	w.running = t
	_, more := t.resume()
	w.running = before
	t.over = !more
}

// kill ends a thread where it waits.
func (w *world) kill(t *thread) {
	if t.over {
		return
	}
	t.ending = true
	before := w.running
	w.running = t
	t.stop()
	w.running = before
	t.over = true
}

// park is how a thread waits.
func (w *world) park(ready func() bool) {
	t := w.running
	t.ready = ready
	if t.ending || !t.yield(struct{}{}) {
		panic(abandoned{})
	}
}

// sleep has a thread wait for a time.
func (w *world) sleep(d time.Duration) {
	until := w.now + d
	w.after(d, func() {})
	w.park(func() bool { return w.now >= until })
}

// timed is a context that ends at a time of the world.
type timed struct {
	context.Context
	late bool
}

func (t *timed) Err() error {
	if t.late {
		return context.DeadlineExceeded
	}
	return t.Context.Err()
}

func (w *world) withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancel(ctx)
	t := &timed{Context: inner}
	w.after(d, func() {
		if inner.Err() == nil {
			t.late = true
			cancel()
		}
	})
	return t, cancel
}

// between is a time from lo to hi.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.dice.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.dice.Float64() < p }
