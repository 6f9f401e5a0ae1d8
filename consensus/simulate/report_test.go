package simulate

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
)

var reportedFlag = flag.Int("reported", max(1, 3/slower), "how many schedules with reports to play")

// What the policy of the street says. A verdict may be on its way for as long as its
// leader does not know that it is none any more.
const (
	streetQuorum  = 2
	streetWindow  = 3 * time.Second
	streetLasts   = 4 * time.Second
	streetPercent = 50
	verdictDelay  = 10 * time.Second
)

// A street is instances that are called, those who call them, and what these have said.
type street struct {
	world   *world
	keys    []registry.InstanceKey
	opened  bool
	quiet   bool                                           // nobody reports any more
	sure    bool                                           // all callers report one of them
	begun   int                                            // verdicts that were applied
	said    map[registry.InstanceKey]map[int]time.Duration // by sane callers, when last
	reports int
}

// The first is reported by one sane caller alone, and by a host that has gone mad and
// has many names.
const (
	streetSlandered = 0
	streetHouses    = 4
	callers         = 3
)

// TestReportsUnderFaults shows in whole clusters, whose members are killed, paused and
// cut off, that an instance is critical by reports only when a quorum of hosts has
// reported it, never more than their share of a service is, and that it ends in its
// time, whoever leads.
func TestReportsUnderFaults(t *testing.T) {
	for n := range *reportedFlag {
		seed := *firstFlag + uint64(n)
		w := playReported(seed, false)
		if w.failed != nil {
			again := playReported(seed, true)
			t.Fatalf("seed %d: %v\n%s", seed, w.failed, again.story.text("reported"))
		}
		t.Logf("seed %d: %d reports, %d verdicts", seed, w.street.reports, w.street.begun)
	}
}

// playReported plays the schedule of a seed with a street, and nothing else to do.
func playReported(seed uint64, told bool) *world {
	before := rand.Reader
	defer func() { rand.Reader = before }()
	w := newWorld(seed)
	w.story.told = told
	w.Changes, w.Clients, w.Holders, w.Watchers, w.Faulty = false, 1, 0, 0, 15*time.Second // as with checks
	w.street = newStreet(w)
	w.begin()
	w.newClient("street", (*client).openStreet)
	for n := range callers {
		w.newClient(fmt.Sprint("caller-", n), func(c *client) { c.callStreet(n) })
	}
	w.newClient("mad", (*client).slander)
	w.run(w.Faulty, never)
	if w.failed == nil {
		w.street.quiet = true
		w.recover()
	}
	if w.failed == nil {
		w.street.settle()
	}
	if w.failed == nil {
		w.compare()
	}
	w.finish()
	return w
}

func newStreet(w *world) *street {
	s := &street{world: w, said: make(map[registry.InstanceKey]map[int]time.Duration)}
	for n := range streetHouses {
		k := registry.InstanceKey{Namespace: "default", Service: "street", ID: fmt.Sprint("h", n)}
		s.keys, s.said[k] = append(s.keys, k), make(map[int]time.Duration)
	}
	return s
}

// openStreet registers all instances and writes the policy, and looks at what is said of them.
func (c *client) openStreet() {
	w := c.world
	for _, k := range w.street.keys {
		for done := false; !done; w.sleep(50 * time.Millisecond) {
			r := registration(k, c.value(), longTTL)
			c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
				_, err := l.registry.Register(ctx, "", r)
				return func() { done = err == nil }
			})
		}
	}
	policy := registry.Policy{Reports: &registry.Reports{Effect: "critical", Quorum: new(int64(streetQuorum)), WindowSeconds: new(int64(streetWindow / time.Second)),
		LastsSeconds: new(int64(streetLasts / time.Second)), MaxPercent: new(int64(streetPercent))}}
	for !w.street.opened {
		c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
			_, err := l.registry.PutPolicy(ctx, "", w.street.keys[0].ServiceKey(), policy, registry.Writing{})
			return func() { w.street.opened = err == nil }
		})
		w.sleep(50 * time.Millisecond)
	}
	for !c.quit {
		w.street.look()
		w.sleep(50 * time.Millisecond)
	}
}

// callStreet is a sane caller, who now and then cannot reach somebody.
func (c *client) callStreet(n int) {
	w := c.world
	from := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + n)})
	for !w.street.quiet || w.street.sure {
		w.sleep(w.between(50*time.Millisecond, 400*time.Millisecond))
		house := 1 + int(w.now/(2*time.Second))%(streetHouses-1) // all of them the same one, for a while
		if n == 0 && w.chance(0.3) {
			house = streetSlandered
		}
		if w.street.sure {
			house = streetHouses - 1
		}
		outcome := registry.ReportFailure
		if !w.street.sure && w.chance(0.1) {
			outcome = registry.ReportSuccess
		}
		c.reportOne(w.street.keys[house], n, registry.Report{Reporter: fmt.Sprint("caller-", n), Outcome: outcome, From: from})
	}
}

// slander is a host that has gone mad: it reports everybody, by ever new names.
func (c *client) slander() {
	w := c.world
	for n := 0; !w.street.quiet; n++ {
		w.sleep(w.between(10*time.Millisecond, 100*time.Millisecond))
		c.reportOne(w.street.keys[n%streetHouses], callers, registry.Report{Reporter: fmt.Sprint("mad-", n), Outcome: registry.ReportFailure, From: netip.AddrFrom4([4]byte{10, 0, 0, 66})})
	}
}

// reportOne reports an instance at any member; by is whose host it is.
func (c *client) reportOne(k registry.InstanceKey, by int, r registry.Report) {
	s := c.world.street
	if r.Outcome == registry.ReportFailure {
		s.said[k][by] = c.world.now + callTime // it may come so late
	}
	c.call(c.world.anyMember(), func(ctx context.Context, l *life) func() {
		_, err := l.registry.Report(ctx, registry.InstanceRef{Namespace: k.Namespace, Service: k.Service, ID: k.ID}, r)
		return func() {
			if err == nil {
				s.reports++
			}
		}
	})
}

// judged: of the hosts that have reported an instance a quorum has done so lately.
func (s *street) judged(item *recordv1.ReportVerdict, e consensus.Entry) {
	if item.GetOver() {
		return
	}
	s.begun++
	k, hosts := keyOf(item.GetKey()), 0
	for _, last := range s.said[k] {
		if last+streetWindow+verdictDelay >= s.world.now {
			hosts++
		}
	}
	if hosts < streetQuorum || int(item.GetReporters()) < streetQuorum {
		s.world.fail("%v is judged by entry %d of term %d, as reported by %d, and %d hosts have", k, e.Index, e.Term, item.GetReporters(), hosts)
	}
	s.world.tell("%s is judged by %d reporters, at revision %d: %s", describeKey(k), item.GetReporters(), e.Index, item.GetReason())
}

// look sees what all members have of the instances.
func (s *street) look() {
	for _, m := range s.world.members {
		if !m.up() {
			continue
		}
		critical := 0
		for _, k := range s.keys {
			i := m.life.machine.Instance(k)
			if i == nil {
				continue
			}
			said, found := i.Condition(registry.SourceReports, "")
			if i.Status == registry.StatusCritical {
				critical++
			}
			if found && time.Duration(said.Until-said.Since)*time.Millisecond < streetLasts {
				s.world.fail("%v: %v is said to be %s from %d to %d", m, k, said.Status, said.Since, said.Until)
			}
		}
		if critical*100 > streetPercent*streetHouses {
			s.world.fail("%v: %d of %d instances are critical by reports", m, critical, streetHouses)
		}
	}
}

// settle sees that everything has ended, and that in a cluster that is well what all
// report comes about, and ends.
func (s *street) settle() {
	w, last := s.world, s.keys[streetHouses-1]
	s.await("all to have ended", func(m *member) bool { return s.passing(m) == streetHouses })
	s.sure = true
	for n := range callers {
		w.newClient(fmt.Sprint("sure-", n), func(c *client) { c.callStreet(n) })
	}
	s.await("what all report to come about", func(m *member) bool { return m.life.machine.Instance(last).Status == registry.StatusCritical })
	s.sure = false
	s.await("it to have ended, too", func(m *member) bool { return s.passing(m) == streetHouses })
	w.run(w.now+callTime, never)
	w.run(w.now+5*time.Second, w.level)
}

func (s *street) passing(m *member) (n int) {
	for _, k := range s.keys {
		if i := m.life.machine.Instance(k); i != nil && i.Status == registry.StatusPassing {
			n++
		}
	}
	return n
}

// await waits until something is so at all members. What ends by the leader's clock on
// the wall may wait until that has come to where another's was.
func (s *street) await(what string, is func(*member) bool) {
	w := s.world
	all := func() bool {
		for _, m := range w.current() {
			if !m.up() || !is(m) {
				return false
			}
		}
		return true
	}
	w.run(w.now+2*wallMax+20*time.Second, all)
	if w.failed == nil && !all() {
		w.fail("it was waited in vain for %s", what)
	}
}
