package simulate

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var playsFlag = flag.Int("plays", max(1, 2/slower), "how often each scene is played, each time with another seed")

// A scene is a schedule with a plot in place of faults by chance: what must come
// about in it can be said, and until when. Members are killed where the plot says;
// when exactly, which of them, and all the rest is up to the dice.
var scenes = []struct {
	name string
	play func(w *world)
}{
	{"expiry within its bound, and revived", sceneBound},
	{"half of a zone cut off", sceneZone},
	{"an outage of all", sceneOutage},
	{"an override outlives registrations", sceneOverride},
	{"checks handed over", sceneHandOver},
}

// TestScenes shows in whole clusters what is promised of leases and of health, one
// promise in each scene.
func TestScenes(t *testing.T) {
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			for n := range *playsFlag {
				seed := *firstFlag + uint64(n)
				if w := playScene(seed, false, s.play); w.failed != nil {
					t.Fatalf("seed %d: %v\n%s", seed, w.failed, playScene(seed, true, s.play).story.text())
				}
			}
		})
	}
}

func playScene(seed uint64, told bool, play func(*world)) *world {
	before := rand.Reader
	defer func() { rand.Reader = before }()
	o := newOptions(seed)
	o.Size, o.Loss, o.Repeat, o.Faulty = max(o.Size, 3), 0, 0, 0
	o.Changes, o.Clients, o.Holders, o.Watchers = false, 0, 0, 0
	o.Protection = 20 * time.Second
	w := newWorldWith(o)
	w.story.told = told
	w.begin()
	play(w)
	for _, c := range w.clients {
		c.quit = true
	}
	w.until("all members to be level", 10*time.Second, func() bool { return !slices.ContainsFunc(w.members, w.isDown) && w.level() })
	if w.failed == nil {
		w.compare()
	}
	w.finish()
	return w
}

func (w *world) isDown(m *member) bool { return !m.up() }

// until lets everything happen until a condition holds, which has to be soon.
func (w *world) until(what string, within time.Duration, done func() bool) {
	began := w.now
	w.run(began+within, done)
	switch {
	case w.failed != nil:
	case !done():
		w.fail("it took longer than %v for %s", within, what)
	default:
		w.tell("it took %v for %s", w.now-began, what)
	}
}

// killLeader kills who leads at a time within a span, and has it stay away.
func (w *world) killLeader(within, away time.Duration) {
	w.run(w.now+w.between(0, within), never)
	w.until("somebody to lead", 10*time.Second, func() bool { return w.leader() != nil })
	if m := w.leader(); m != nil {
		m.away = away
		killed(w, m)
	}
}

// shows says whether all members that are up have an instance in a status.
func (w *world) shows(k registry.InstanceKey, want registry.Status) bool {
	for _, m := range w.members {
		if !m.up() {
			continue
		}
		if i := m.life.machine.Instance(k); i == nil || i.Status != want {
			return false
		}
	}
	return true
}

// soon is enough for a commit and for all members to apply it, where nobody is in the way.
const soon = 700 * time.Millisecond

// hold has a client that renews its lease four times in a TTL at least, and tries
// again soon what was not answered, unless it is cut off.
func (w *world) hold(h *holder) *holder {
	w.newClient("holder-"+h.key.ID, func(c *client) {
		for c.holder = h; !c.quit; {
			began := w.now
			switch {
			case h.cut:
			case !h.known:
				c.enrol()
			default:
				c.renew()
			}
			if h.cut || h.renewed >= began {
				w.sleep(w.between(h.ttl/8, h.ttl/4))
			} else {
				w.sleep(w.between(0, 100*time.Millisecond))
			}
		}
	})
	return h
}

// holders are so many, of whom all are known at all members.
func (w *world) holders(n int, ttl time.Duration, zone func(n int) string) []*holder {
	var all []*holder
	for n := range n {
		all = append(all, w.hold(&holder{key: registry.InstanceKey{Namespace: "default", Service: "leased", ID: fmt.Sprint("h", n)}, ttl: ttl, zone: zone(n)}))
	}
	w.until("all to be registered", 10*time.Second, func() bool { return w.allShow(all, registry.StatusPassing) })
	return all
}

func noZone(int) string { return "" }

func (w *world) allShow(holders []*holder, want registry.Status) bool {
	return !slices.ContainsFunc(holders, func(h *holder) bool { return !h.known || !w.shows(h.key, want) })
}

// A lease that nobody renews has run out when its bound is over, which is longer
// where the leader was killed, and not before its TTL, which all schedules see to.
// A renewal brings it back.
func sceneBound(w *world) {
	h := w.holders(1, time.Duration(2+w.dice.IntN(5))*time.Second, noZone)[0]
	for range 3 {
		h.cut = true
		at, bound := w.now, h.ttl
		if w.chance(0.6) {
			w.killLeader(h.ttl*3/4, w.between(0, 10*time.Second))
			killed := w.now
			w.until("another to lead", 10*time.Second, func() bool { return w.leader() != nil && w.leader().up() })
			bound = 2*h.ttl + w.now - killed
		}
		w.until("the lease to run out", at+bound+leaseTolerance(bound)+250*time.Millisecond+soon-w.now, func() bool { return w.shows(h.key, registry.StatusExpired) })
		h.cut = false
		w.until("the lease to be renewed", 10*time.Second, func() bool { return w.shows(h.key, registry.StatusPassing) })
	}
}

// Half of a zone's holders are cut off: they are kept as suspects, and nobody else
// is touched, though the leader is killed. They come back and all is as it was, or
// they do not, and expire when the limit is reached.
func sceneZone(w *world) {
	const all, from = 20, 15
	ttl := 6 * time.Second
	holders := w.holders(all, ttl, func(n int) string { return string("ba"[n/(all/2)]) })
	cut := func(is bool) {
		for _, h := range holders[from:] {
			h.cut = is
		}
	}
	cut(true)
	w.killLeader(ttl/2, w.between(0, 10*time.Second)) // before any has run out: each leader counts anew
	w.until("half of a zone to be suspect", 2*ttl+10*time.Second, func() bool { return w.allShow(holders[from:], registry.StatusSuspect) })
	began := w.now
	w.killLeader(ttl, 0)
	if w.chance(0.5) {
		cut(false)
		w.until("half of a zone to be back", 10*time.Second, func() bool {
			return w.allShow(holders, registry.StatusPassing) && len(w.checks.model.protected) == 0
		})
	} else {
		rest := began + w.Protection + 2*wallOffset + 5*time.Second - w.now
		w.until("half of a zone to expire", rest, func() bool { return w.allShow(holders[from:], registry.StatusExpired) })
		w.run(w.now+ttl, never)
	}
	for _, h := range holders[:from] {
		if f := w.checks.model.now(h.key); f.since != 0 {
			w.fail("%s, which was not cut off, was expired or suspect at %v", describeKey(h.key), f.since)
		}
	}
}

// All members are down for five times the TTL: nobody is lost who renews when they are back.
func sceneOutage(w *world) {
	ttl := 6 * time.Second
	holders := w.holders(10, ttl, noZone)
	for _, m := range w.members {
		m.away = 5 * ttl
		killed(w, m)
	}
	w.run(w.now+5*ttl, never)
	for _, m := range w.members {
		m.away = 0
	}
	w.until("all to be back", 10*time.Second, func() bool { return !slices.ContainsFunc(w.members, w.isDown) })
	w.run(w.now+3*ttl, never)
	if lost := w.checks.counts["expiries"] + w.checks.counts["suspects"]; lost > 0 || !w.allShow(holders, registry.StatusPassing) {
		w.fail("%d leases have run out by an outage of all members", lost)
	}
}

// What an operator says of an instance holds at all members from when he was
// answered until he takes it back, whatever its owner does and who is killed.
func sceneOverride(w *world) {
	k := registry.InstanceKey{Namespace: "default", Service: "overridden", ID: "o"}
	registered, overridden, cleared := false, registry.Revision(0), false
	w.newClient("owner", func(c *client) {
		for ; !c.quit; w.sleep(w.between(0, 300*time.Millisecond)) {
			switch n := w.dice.IntN(10); {
			case n < 3 || cleared:
				c.ask(func(ctx context.Context, l *life) error {
					_, err := l.registry.Register(ctx, "", registration(k, c.value(), 1))
					registered = registered || err == nil
					return err
				})
			case n < 6 && overridden > 0:
				c.ask(func(ctx context.Context, l *life) error {
					_, err := l.registry.Deregister(ctx, "", refOf(k))
					return err
				})
			case n < 8:
				c.ask(func(ctx context.Context, l *life) error {
					_, err := l.registry.Heartbeat(ctx, refOf(k), 0)
					return err
				})
			case n == 9: // its lease, of a second, runs out
				w.sleep(1500 * time.Millisecond)
			}
		}
	})
	w.until("the instance to be registered", 10*time.Second, func() bool { return registered })
	w.newClient("operator", func(c *client) {
		for overridden == 0 {
			c.ask(func(ctx context.Context, l *life) error {
				result, err := l.registry.Override(ctx, "", refOf(k), registry.Override{Status: "disabled", Reason: "its disk is being replaced"})
				if err == nil {
					overridden = result.Revision
				}
				return err
			})
		}
	})
	w.until("the override to be there", 10*time.Second, func() bool { return overridden > 0 })
	seen := make(map[registry.Status]int)
	w.newClient("looker", func(c *client) {
		for ; !c.quit && !cleared; w.sleep(10 * time.Millisecond) {
			w.mustBeOverridden(k, overridden, seen)
		}
	})
	for range 3 {
		w.killLeader(3*time.Second, w.between(0, 4*time.Second))
	}
	w.run(w.now+10*time.Second, never)
	if seen[0] == 0 || seen[registry.StatusDisabled] == 0 {
		w.fail("an instance that comes and goes was seen %d times, and %d times not", seen[registry.StatusDisabled], seen[0])
	}
	cleared = true
	w.newClient("operator", func(c *client) {
		c.ask(func(ctx context.Context, l *life) error {
			_, err := l.registry.ClearOverride(ctx, "", refOf(k))
			return err
		})
	})
	w.until("the instance to be as the others say", 10*time.Second, func() bool { return w.shows(k, registry.StatusPassing) })
}

// mustBeOverridden looks at all members that have applied the override; 0 counts
// those that have no such instance.
func (w *world) mustBeOverridden(k registry.InstanceKey, since registry.Revision, seen map[registry.Status]int) {
	for _, m := range w.members {
		if !m.up() || m.life.machine.Revision() < since {
			continue
		}
		i := m.life.machine.Instance(k)
		if i == nil {
			seen[0]++
			continue
		}
		if seen[i.Status]++; i.Status != registry.StatusDisabled {
			w.fail("%v: an instance that an operator has disabled at %d is %s at %d", m, since, i.Status, m.life.machine.Revision())
		}
	}
}

// ask has any member do something, until it is done or is not to be done.
func (c *client) ask(do func(ctx context.Context, l *life) error) {
	for done := false; !done && !c.quit; c.world.sleep(20 * time.Millisecond) {
		c.call(c.world.anyMember(), func(ctx context.Context, l *life) func() {
			err := do(ctx, l)
			return func() { done = err == nil || errors.Is(err, registry.ErrNotFound) }
		})
	}
}

// handOver is how long it takes for the checks of a member that is killed to be
// made by another: its silence on the rota of whoever leads, or of a new leader
// since it leads, the next question to it, and the next try.
const handOver = 2*time.Second + time.Second + time.Second + 2*soon

// The checks of a member that is killed are made by the others, and what fails
// from then on is found; the others' are made by whom they were.
func sceneHandOver(w *world) {
	w.site = newSite(w)
	w.newClient("site", (*client).enrolSite)
	w.until("all to be checked", 20*time.Second, w.site.isTried)
	w.run(w.now+10*time.Second, never) // until all know who makes checks
	before := w.site.checkers()
	victim := w.members[before[hostFlaps]-1]
	victim.away = 30 * time.Second
	leads := w.leader() == victim
	killed(w, victim)
	died := w.now
	if leads {
		w.until("another to lead", 10*time.Second, func() bool { return w.leader() != nil })
	}
	failing := w.site.hosts[hostFlaps]
	failing.failing = true
	w.until("a failure to be found by another member", handOver, func() bool { return w.shows(failing.key, registry.StatusCritical) })
	w.run(died+15*time.Second, never)
	for n, now := range w.site.checkers() {
		if before[n] != now && before[n] != victim.id || now == victim.id {
			w.fail("instance %s, which member %d has checked, is checked by member %d: %v was killed", w.site.hosts[n].key.ID, before[n], now, victim)
		}
	}
	w.until("the killed member to be back", 20*time.Second, func() bool { return !slices.ContainsFunc(w.members, w.isDown) })
	w.run(w.now+10*time.Second, never)
	if now := w.site.checkers(); w.failed == nil && !slices.Equal(now, before) {
		w.fail("once the killed member is back the instances are checked by members %v, and before it was %v", now, before)
	}
}

// checkers are the members that check the hosts, as three tries show.
func (s *site) checkers() []uint64 {
	w := s.world
	for _, h := range s.hosts {
		clear(h.tried)
	}
	w.run(w.now+3*time.Second, never)
	by := make([]uint64, len(s.hosts))
	for n, h := range s.hosts {
		if len(h.tried) != 1 {
			w.fail("instance %s is checked by %d members: %v", h.key.ID, len(h.tried), h.tried)
		}
		for member := range h.tried {
			by[n] = member
		}
	}
	return by
}

// isTried says that all hosts have been tried.
func (s *site) isTried() bool {
	return !slices.ContainsFunc(s.hosts, func(h *host) bool { return len(h.tried) == 0 })
}
