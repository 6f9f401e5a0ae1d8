package simulate

import (
	"context"
	"errors"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// watcher is a client's place in the changes, which it keeps when it goes to
// another member.
type watcher struct {
	after uint64
	fresh bool // it knows where it is
}

// pollTime is how long a member waits for something new.
const pollTime = 500 * time.Millisecond

// follow is the life of a client that watches: everything that changed, once, in
// order, whichever members tell it, or that it has fallen behind.
func (c *client) follow() {
	w := c.world
	c.watcher = &watcher{}
	m := w.anyMember()
	for {
		if w.dice.IntN(12) == 0 {
			m = w.anyMember()
		}
		switch {
		case !c.watcher.fresh:
			c.begin(m)
		case w.chance(0.5):
			c.connect(m)
		default:
			c.poll(m)
		}
		w.sleep(w.between(0, 60*time.Millisecond))
	}
}

// begin reads all there is, to watch from there.
func (c *client) begin(m *member) {
	w := c.world
	c.call(m, func(ctx context.Context, l *life) func() {
		instances, at, err := l.registry.List(ctx, registry.Query{Namespace: "default", Statuses: []string{"any"}, Consistency: registry.Stale(0)})
		if err != nil || l.dead {
			return func() {}
		}
		w.checks.list(c.name+" at "+l.member.String(), instances, uint64(at), 0)
		return func() {
			if uint64(at) >= c.watcher.after { // it never goes back
				c.watcher.after, c.watcher.fresh = uint64(at), true
			}
		}
	})
}

// connect has a member tell what changes for as long as the connection lasts,
// through whatever becomes of the member's state meanwhile.
func (c *client) connect(m *member) {
	w := c.world
	s := &stream{client: c, after: c.watcher.after, arrived: w.now}
	until := w.now + w.between(100*time.Millisecond, connectedMax)
	w.after(w.network.delay(), func() {
		l := m.life
		if l == nil || l.gone() {
			s.over = true
			return
		}
		l.hold(func() { w.spawn(l, "stream of "+c.name, func() { s.serve(l) }) })
	})
	w.after(until-w.now, func() {})
	w.park(func() bool { return s.over || w.now >= until })
	s.over = true
}

// connectedMax is how long a connection lasts.
const connectedMax = 4 * time.Second

// stream is a connection of a watcher.
type stream struct {
	client  *client
	after   uint64        // what the member has told
	arrived time.Duration // when the last of it does: nothing overtakes on a connection
	over    bool          // either side has ended it
}

// serve is the member's side.
func (s *stream) serve(l *life) {
	w, installs := l.world, l.installs
	if installs > 0 {
		w.faults.count("watcher at a member that has installed")
	}
	watch := l.machine.Watch(registry.Revision(s.after))
	for !s.over {
		w.park(func() bool { return s.over || uint64(l.machine.Revision()) > s.after })
		if s.over || l.dead {
			return
		}
		from := s.after
		batch, _, err := watch.Poll() // which has something: what has not is told revision 0
		if s.after = uint64(batch.Revision); err != nil {
			s.after = from
		}
		if l.installs > installs {
			w.faults.count("watcher connected over an install")
			installs = l.installs
		}
		s.tell(l, from, batch, err)
		if err != nil {
			return
		}
	}
}

// tell sends a batch, unless the connection breaks.
func (s *stream) tell(l *life, from uint64, batch registry.Batch, err error) {
	w := l.world
	if w.chance(w.network.loss / 2) {
		s.over = true
		return
	}
	s.arrived = max(s.arrived, w.now+w.network.delay())
	w.after(s.arrived-w.now, func() {
		if s.over {
			return
		}
		if at := s.client.watcher.after; at != from {
			w.fail("%s is at revision %d, and a connection to %v goes on from %d", s.client.name, at, l.member, from)
		}
		s.client.told(l, from, batch, err)
		s.over = s.over || err != nil
	})
}

// poll asks for what came after.
func (c *client) poll(m *member) {
	w := c.world
	after := c.watcher.after
	c.call(m, func(ctx context.Context, l *life) func() {
		watch := l.machine.Watch(registry.Revision(after))
		waiting, cancel := w.withTimeout(ctx, pollTime)
		defer cancel()
		w.park(func() bool { return uint64(l.machine.Revision()) > after || waiting.Err() != nil })
		if uint64(l.machine.Revision()) <= after {
			return func() {}
		}
		batch, _, err := watch.Poll()
		if l.dead {
			return func() {}
		}
		return func() { c.told(l, after, batch, err) }
	})
}

// told takes a batch in. What the members have told is true at once: nothing of
// a revision comes later.
func (c *client) told(l *life, after uint64, batch registry.Batch, err error) {
	w := c.world
	if errors.Is(err, registry.ErrCompacted) {
		c.watcher.fresh = false
		w.checks.counts["watchers told that they fell behind"]++
		w.tell("%s fell behind at %v, after revision %d", c.name, l.member, after)
		return
	}
	to := uint64(batch.Revision)
	if err != nil || to <= after {
		w.fail("%s is told by %v after revision %d: revision %d, error %v", c.name, l.member, after, to, err)
		return
	}
	if err := eventsAre(batch.Events, w.checks.model.between(after, to)); err != nil {
		w.fail("%s is told by %v what came after revision %d up to %d: %v", c.name, l.member, after, to, err)
		return
	}
	w.checks.counts["batches watched"]++
	w.checks.counts["events watched"] += len(batch.Events)
	w.note("watched", uint64(c.id), after, to)
	c.watcher.after = to
}
