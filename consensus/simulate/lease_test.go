package simulate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// holder is what a client knows of a lease that it keeps.
type holder struct {
	key     registry.InstanceKey
	ttl     time.Duration
	zone    string
	known   bool // registered, as far as the client knows
	dead    bool // it has stopped renewing
	cut     bool // it cannot
	renewed time.Duration
}

// keep is the life of a client that registers itself and renews its lease, until
// it dies, if it does.
func (c *client) keep(n int, diesAt time.Duration) {
	w := c.world
	lazy := 0.5 * w.dice.Float64() // of its renewals come about when the lease ends
	h := &holder{
		key: registry.InstanceKey{Namespace: "default", Service: "leased", ID: fmt.Sprintf("h%d", n)},
		ttl: time.Duration(1+w.dice.IntN(6)) * time.Second, // the longest ones are told to be overdue before they end
	}
	c.holder = h
	for w.now < diesAt {
		if !h.known {
			c.enrol()
		} else {
			c.renew()
		}
		if w.chance(lazy) {
			w.sleep(w.between(h.ttl*3/4, h.ttl*3/2))
		} else {
			w.sleep(w.between(h.ttl/8, h.ttl/3))
		}
	}
	h.dead = true
	w.tell("%s stops renewing", c.name)
	w.park(func() bool { return false })
}

func (c *client) enrol() {
	w, h := c.world, c.holder
	value := c.value()
	c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
		began := w.now
		r := registration(h.key, value, int64(h.ttl/time.Second))
		r.Zone = h.zone
		result, err := l.registry.Register(ctx, "", r)
		if err != nil || l.dead {
			return func() {}
		}
		w.checks.renewed(h.key, began, h.ttl)
		return func() {
			w.checks.answered(value+" of "+describeKey(h.key), result.Revision, value)
			h.known, h.renewed = true, began
		}
	})
}

func (c *client) renew() {
	w, h := c.world, c.holder
	c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
		began := w.now
		result, err := l.registry.Heartbeat(ctx, refOf(h.key), 0)
		if l.dead {
			return func() {}
		}
		switch {
		case errors.Is(err, registry.ErrNotFound):
			w.fail("%v does not know %s any more, which nobody has removed", l.member, describeKey(h.key))
		case err == nil:
			w.checks.renewed(h.key, began, h.ttl)
			w.checks.counts["renewals"]++
			w.note("renewed", uint64(c.id), uint64(result.Revision))
			return func() { h.renewed = began }
		}
		return func() {}
	})
}

// abandoned: a lease that nobody renews runs out, and one that was renewed all
// the time is held.
func (c *checks) abandoned() {
	for _, one := range c.world.clients {
		h := one.holder
		if h == nil || len(c.model.facts[h.key]) == 0 {
			continue
		}
		f := c.model.now(h.key)
		if h.dead && f.present && !f.expired {
			c.world.fail("the lease of %s (TTL %v) has not run out; it was last renewed at %v", describeKey(h.key), h.ttl, h.renewed)
		}
		if !f.present {
			c.world.fail("%s is gone, and nobody has removed it", describeKey(h.key))
		}
	}
}
