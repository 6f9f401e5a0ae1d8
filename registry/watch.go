package registry

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// A Watch is one watcher's place in the stream of changes. It belongs to one
// goroutine, costs nothing but its cursor, and needs no closing.
type Watch struct {
	ring  *ring
	older func(after, upTo Revision) (Batch, error) // reads what the ring no longer has, up to where it begins; nil = nobody does
	after Revision                                  // everything up to here has been told
}

// Next waits for something new and tells it: whole revisions, in order, without
// a gap. A batch without events says that the revision moved without a change.
// The error is ErrCompacted when the watcher has fallen behind the history, for
// good: read the state anew and watch from its revision.
func (w *Watch) Next(ctx context.Context) (Batch, error) {
	batch, _, err := w.NextOrTick(ctx, nil)
	return batch, err
}

// NextOrTick is Next whose waiting a tick ends, too.
func (w *Watch) NextOrTick(ctx context.Context, idle <-chan time.Time) (batch Batch, ticked bool, err error) {
	for {
		batch, wake, err := w.read()
		if err != nil {
			return Batch{}, false, err
		}
		if wake == nil {
			w.after = batch.Revision
			return batch, false, nil
		}
		if ticked, err := w.wait(ctx, wake, idle); ticked || err != nil {
			return Batch{}, ticked, err
		}
	}
}

func (w *Watch) wait(ctx context.Context, wake <-chan struct{}, idle <-chan time.Time) (ticked bool, err error) {
	w.ring.waiting.Add(1)
	defer w.ring.waiting.Add(-1)
	select {
	case <-wake:
		return false, nil
	case <-idle:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Poll is Next without waiting: false says that there is nothing new.
func (w *Watch) Poll() (Batch, bool, error) {
	batch, wake, err := w.read()
	if err != nil || wake != nil {
		return Batch{}, false, err
	}
	w.after = batch.Revision
	return batch, true, nil
}

// read gives what comes next, or the channel that will be closed when there is more.
func (w *Watch) read() (Batch, <-chan struct{}, error) {
	batch, wake, err := w.ring.read(w.after)
	if errors.Is(err, ErrCompacted) && w.older != nil {
		batch, err = w.older(w.after, w.ring.begins())
	}
	if errors.Is(err, ErrCompacted) {
		w.ring.compacted.Add(1)
	}
	return batch, wake, err
}

// The bounds of the ring and of one batch.
const (
	ringEventsMax  = 65_536
	ringBytesMax   = 64 << 20
	batchEventsMax = 1_024 // a larger revision is told whole
)

// A ring holds the newest events for all watchers together. Publishing costs
// the same for one watcher as for ten thousand: the events are stored once, and
// one closed channel wakes whoever waits. When the ring is full the oldest
// events go, and a watcher that still needed them has them read from the history.
type ring struct {
	eventsMax, bytesMax int // set by newRing, never changed
	waiting             atomic.Int64
	compacted           atomic.Uint64

	mu     sync.RWMutex // guards what follows
	events []Event      // a circle: the oldest is at first, revisions do not fall
	first  int
	count  int
	bytes  int
	floor  Revision      // events up to here may be gone
	head   Revision      // the newest revision published
	wake   chan struct{} // closed by the next publish
}

func newRing(eventsMax, bytesMax int, at Revision) *ring {
	return &ring{eventsMax: eventsMax, bytesMax: bytesMax, floor: at, head: at, wake: make(chan struct{})}
}

// read gives what comes after a revision, or the channel that will be closed when there is more.
func (r *ring) read(after Revision) (Batch, <-chan struct{}, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if mutant("watch_resumes_off_by_one") {
		after++
	}
	if after < r.floor && !mutant("watch_gap_in_silence") {
		return Batch{}, nil, ErrCompacted
	}
	if after >= r.head {
		return Batch{}, r.wake, nil
	}
	from := r.search(after)
	to := r.count
	if mutant("revision_split_in_two") && to-from > 1 {
		return Batch{Revision: r.at(from).Revision, Events: r.copy(from, from+1)}, nil, nil
	}
	if to-from <= batchEventsMax {
		return Batch{Revision: r.head, Events: r.copy(from, to)}, nil, nil
	}
	last := r.at(from + batchEventsMax - 1).Revision
	if r.at(from+batchEventsMax).Revision == last { // the bound falls inside a revision
		if first := r.at(from).Revision; last > first {
			last = r.at(r.search(last-1) - 1).Revision
		}
	}
	return Batch{Revision: last, Events: r.copy(from, r.search(last))}, nil, nil
}

// publish makes events visible, and everything up to the revision known to be complete.
func (r *ring) publish(revision Revision, events []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mutant("progress_before_its_events") {
		events = r.swapLate(events)
	}
	for i := range events {
		r.push(&events[i])
	}
	r.head = revision
	close(r.wake)
	r.wake = make(chan struct{})
}

// begins is the revision after which the ring has everything.
func (r *ring) begins() Revision {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.floor
}

// restart forgets all events for those that led to the revision from a floor on.
func (r *ring) restart(revision, floor Revision, events []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events, r.first, r.count, r.bytes = nil, 0, 0, 0
	r.floor, r.head = floor, revision
	for i := range events {
		r.push(&events[i])
	}
	close(r.wake)
	r.wake = make(chan struct{})
}

func (r *ring) push(e *Event) {
	size := e.bytes()
	for r.count > 0 && (r.count == r.eventsMax || r.bytes+size > r.bytesMax) {
		r.drop()
	}
	if r.count == len(r.events) {
		r.grow()
	}
	*r.at(r.count) = *e
	r.count++
	r.bytes += size
}

func (r *ring) drop() {
	oldest := &r.events[r.first]
	if !mutant("compaction_drops_a_delete") || oldest.Kind != EventInstanceDelete {
		r.floor = oldest.Revision
	}
	r.bytes -= oldest.bytes()
	*oldest = Event{} // lets go of the instances
	r.first = (r.first + 1) % len(r.events)
	r.count--
}

func (r *ring) grow() {
	events := make([]Event, min(max(64, 2*len(r.events)), r.eventsMax))
	copy(events, r.copy(0, r.count))
	r.events, r.first = events, 0
}

// search gives the place of the first event after a revision.
func (r *ring) search(after Revision) int {
	lo, hi := 0, r.count
	for lo < hi {
		if mid := (lo + hi) / 2; r.at(mid).Revision <= after && !(mutant("watch_repeats_a_revision") && r.at(mid).Revision == after) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (r *ring) at(i int) *Event { return &r.events[(r.first+i)%len(r.events)] }

func (r *ring) copy(from, to int) []Event {
	if from == to {
		return nil
	}
	out := make([]Event, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, *r.at(i))
	}
	return out
}

func (r *ring) size() (events, bytes int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count, r.bytes
}

// bytes is roughly what the event keeps alive, so that large instances cannot
// make the ring outgrow its bound.
func (e *Event) bytes() int {
	const event = 64
	return event + e.Instance.bytes() + e.Previous.bytes()
}

func (i *Instance) bytes() int {
	if i == nil {
		return 0
	}
	const instance, endpoint, pair = 400, 96, 32
	const word = 128 // a condition; checks are shared
	size := instance + len(i.ID) + endpoint*len(i.Endpoints) + word*len(i.Conditions()) + pair*(len(i.Labels)+len(i.Metadata))
	for _, p := range i.Labels {
		size += len(p.Key) + len(p.Value)
	}
	for _, p := range i.Metadata {
		size += len(p.Key) + len(p.Value)
	}
	return size
}
