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
		if !c.watcher.fresh {
			c.begin(m)
		} else {
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
		batch, err := watch.Next(ctx)
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
