package simulate

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/probe"
)

var checkedFlag = flag.Int("checked", max(1, 3/slower), "how many schedules with checks to play")

// flapHalfLife is short, so that a hold fits into a schedule: eighteen seconds at most.
const flapHalfLife = 6 * time.Second

// A site is instances that are checked, and how they are.
type site struct {
	world *world
	hosts []*host
	calm  bool // nothing changes any more but what flaps
	over  bool // nor does that
	held  bool // what flaps was seen to be
}

// A host is one instance. The first never fails, the second flaps until the site
// is over, the others fail now and then.
type host struct {
	key        registry.InstanceKey
	failing    bool
	flips      int
	registered bool
	tried      map[uint64]int // by the members
}

const (
	hostSteady = 0
	hostFlaps  = 1
	hosts      = 6
)

// TestChecksUnderFaults shows in whole clusters, whose members are killed, paused
// and cut off, that an instance that works is never said not to, that one that
// flaps is held and let go, that the changes of it in the log are few, and that in
// the end all is as it is and each check is made by one member.
func TestChecksUnderFaults(t *testing.T) {
	for n := range *checkedFlag {
		seed := *firstFlag + uint64(n)
		w := playChecked(seed, false)
		if w.failed != nil {
			again := playChecked(seed, true)
			t.Fatalf("seed %d: %v\n%s", seed, w.failed, again.story.text("checked"))
		}
	}
}

// playChecked plays the schedule of a seed with a site, and nothing else to do.
func playChecked(seed uint64, told bool) *world {
	before := rand.Reader
	defer func() { rand.Reader = before }()
	w := newWorld(seed)
	w.story.told = told
	w.Changes, w.Clients, w.Holders, w.Watchers, w.Faulty = false, 1, 0, 0, 15*time.Second // what watchers are held against knows no conditions
	w.site = newSite(w)
	w.begin()
	w.newClient("site", (*client).enrolSite)
	w.newClient("weather", (*client).weather)
	w.run(w.Faulty, never)
	w.site.calm = true
	if w.failed == nil {
		w.recover() // and some nine seconds
	}
	if w.failed == nil {
		w.site.settle()
	}
	if w.failed == nil {
		w.compare()
	}
	w.finish()
	return w
}

func newSite(w *world) *site {
	s := &site{world: w}
	for n := range hosts {
		s.hosts = append(s.hosts, &host{key: registry.InstanceKey{Namespace: "default", Service: "checked", ID: fmt.Sprint("c", n)}, tried: make(map[uint64]int)})
	}
	return s
}

// check is a member's prober, from the start of its process to its end.
func (s *site) check(ctx context.Context, l *life) {
	p, err := probe.New(probe.Config{
		Registry: l.registry, Machine: l.machine, Member: l.member.id, HalfLife: flapHalfLife, Clock: monotonic{l}, Threads: l,
		Random: mathrand.New(mathrand.NewPCG(s.world.dice.Uint64(), 0)), Logger: l.logger(),
		Try: func(_ context.Context, _ registry.Check, e registry.Endpoint) probe.Outcome {
			return s.try(l, s.hosts[e.Port-1])
		},
	})
	if err == nil {
		err = p.Run(ctx)
	}
	if err != nil {
		s.world.fail("%v: the prober ends: %v", l.member, err)
	}
}

// monotonic is a member's clock that nothing sets.
type monotonic struct{ *life }

func (m monotonic) Now() time.Time { return m.member.time(0) }

// try answers as the host is, some time later.
func (s *site) try(l *life, h *host) probe.Outcome {
	s.world.sleep(s.world.between(time.Millisecond, 200*time.Millisecond))
	h.tried[l.member.id]++
	if h.failing {
		return probe.Outcome{Status: registry.StatusCritical, Reason: "it fails"}
	}
	return probe.Outcome{Status: registry.StatusPassing}
}

// enrolSite registers all hosts, at any member, and looks at what is said of them.
func (c *client) enrolSite() {
	w := c.world
	for n, h := range w.site.hosts {
		for !h.registered {
			r := registration(h.key, c.value(), longTTL)
			r.Endpoints[0].Port = int32(n + 1)
			r.Checks = []registry.Check{{Name: "web", Kind: registry.CheckTCP, IntervalSeconds: 1, Rise: 1, Fall: 1}}
			c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
				_, err := l.registry.Register(ctx, "", r)
				return func() { h.registered = err == nil }
			})
			w.sleep(50 * time.Millisecond)
		}
	}
	for !c.quit {
		w.site.look()
		w.sleep(50 * time.Millisecond)
	}
}

// look sees what all members have of the hosts.
func (s *site) look() {
	for _, m := range s.world.members {
		if !m.up() {
			continue
		}
		if i := m.life.machine.Instance(s.hosts[hostSteady].key); i != nil && i.Status != registry.StatusPassing {
			s.world.fail("%v: an instance that never failed is %s: %+v", m, i.Status, i.Conditions())
		}
		if i := m.life.machine.Instance(s.hosts[hostFlaps].key); i != nil {
			if said, found := i.Condition(registry.SourceCheck, "web"); found && said.Held != 0 {
				s.held = true
			}
		}
	}
}

// weather has hosts fail and work again.
func (c *client) weather() {
	w := c.world
	for n, h := range w.site.hosts {
		if n == hostSteady {
			continue
		}
		w.spawn(nil, fmt.Sprint("weather-", n), func() {
			for !w.site.over && (n == hostFlaps || !w.site.calm) {
				h.failing = !h.failing
				h.flips++
				if n == hostFlaps {
					w.sleep(w.between(1300*time.Millisecond, 1500*time.Millisecond)) // each state is seen
				} else {
					w.sleep(w.between(3*time.Second, 8*time.Second))
				}
			}
		})
	}
	w.park(func() bool { return c.quit })
}

// settle sees that all is found as it is, by one member each.
func (s *site) settle() {
	w := s.world
	w.run(w.now+30*time.Second, func() bool { s.look(); return s.held })
	if w.failed == nil && !s.held {
		w.fail("instance %s flaps and is not held", s.hosts[hostFlaps].key.ID)
	}
	s.over, s.hosts[hostFlaps].failing = true, false
	w.run(w.now+30*time.Second, s.isFound)
	if w.failed == nil && !s.isFound() {
		w.fail("what the members have of the checked instances is not how they are")
	}
	for _, h := range s.hosts {
		clear(h.tried)
	}
	w.run(w.now+4*time.Second, never)
	for _, h := range s.hosts {
		if len(h.tried) != 1 {
			w.fail("instance %s is checked by %d members: %v", h.key.ID, len(h.tried), h.tried)
		}
	}
	flaps := s.hosts[hostFlaps]
	if changes := int(w.current()[0].life.machine.Instance(flaps.key).Counter); changes > flaps.flips*3/4 {
		w.fail("instance %s, which flapped %d times, has changed %d times in the log", flaps.key.ID, flaps.flips, changes)
	}
}

func (s *site) isFound() bool {
	for _, h := range s.hosts {
		want := registry.StatusPassing
		if h.failing {
			want = registry.StatusCritical
		}
		for _, m := range s.world.current() {
			if i := m.life.machine.Instance(h.key); i == nil || i.Status != want {
				return false
			}
		}
	}
	return true
}
