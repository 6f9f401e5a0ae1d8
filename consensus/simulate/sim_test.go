package simulate

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "play the schedule of this seed alone, with its story; 0 = play many")
	schedulesFlag = flag.Int("schedules", 60, "how many schedules to play")
	twiceFlag     = flag.Int("twice", 5, "how many schedules to play twice, to see that they are the same")
	firstFlag     = flag.Uint64("first", 1, "the seed of the first schedule; the others follow")
)

// schedule is a played world.
type schedule struct {
	*world
	hash uint64
}

// play plays the schedule of a seed to its end.
func play(seed uint64, told bool) *schedule {
	before := rand.Reader
	defer func() { rand.Reader = before }()
	w := newWorld(seed)
	w.story.told = told
	w.tell("options: %+v", w.options)
	w.begin()
	w.run(w.Faulty, never)
	if w.failed == nil {
		w.recover()
	}
	if w.failed == nil {
		w.compare()
	}
	w.finish()
	w.note("end", w.made)
	return &schedule{w, w.trace.Sum64()}
}

// begin starts everybody.
func (w *world) begin() {
	for _, m := range w.members {
		w.after(w.between(0, 50*time.Millisecond), m.start)
	}
	for n := range w.Clients {
		w.newClient(fmt.Sprintf("client-%d", n), (*client).work)
	}
	for n := range w.Holders {
		diesAt := w.between(w.Faulty/4, w.Faulty)
		if w.chance(0.4) {
			diesAt = time.Hour // not at all
		}
		w.newClient(fmt.Sprintf("holder-%d", n), func(c *client) { c.keep(n, diesAt) })
	}
	for n := range w.Watchers {
		w.newClient(fmt.Sprintf("watcher-%d", n), (*client).follow)
	}
	w.faults.begin(w.Faulty)
}

// recoveries are how long a healed cluster may take to accept a write.
const electionsMax = 10

// settleTime is enough for leases to run out that nobody renews.
const settleTime = 9 * time.Second

// recover heals the cluster and sees that it lives.
func (w *world) recover() {
	w.faults.heal()
	healed := w.now
	down := func() bool {
		return slices.ContainsFunc(w.members, func(m *member) bool { return !m.up() || m.life.stopping || m.broken })
	}
	w.run(healed+4*time.Second, func() bool { return !down() })
	if w.failed == nil && down() {
		w.fail("not all members are up %v after the faults", w.now-healed)
	}
	patience := electionsMax * time.Duration(w.ElectionTicks) * w.Tick
	written := make(map[uint64]bool)
	for _, m := range w.members {
		w.newClient(fmt.Sprintf("last-%d", m.id), func(c *client) { c.last(m, written) })
	}
	from := w.now
	w.run(from+patience+callTime, func() bool { return len(written) == len(w.members) })
	if w.failed == nil && len(written) < len(w.members) {
		w.fail("a write goes through at members %v only, %v after all faults have ended", slices.Sorted(maps.Keys(written)), w.now-from)
	}
	for _, one := range w.clients {
		if one.holder == nil {
			one.quit = true
		}
	}
	w.run(w.now+settleTime, never)
	w.run(w.now+patience, w.level)
}

// level tells whether all members have applied the same entries.
func (w *world) level() bool {
	for _, m := range w.members {
		if m.life.group.Status().Applied != w.members[0].life.group.Status().Applied {
			return false
		}
	}
	return true
}

// last writes at one member until it succeeds.
func (c *client) last(m *member, written map[uint64]bool) {
	w := c.world
	k := registry.InstanceKey{Namespace: "default", Service: "last", ID: fmt.Sprintf("m%d", m.id)}
	for !written[m.id] {
		value := c.value()
		c.call(m, func(ctx context.Context, l *life) func() {
			result, err := l.registry.Register(ctx, "", registration(k, value, longTTL))
			return func() {
				if err == nil {
					w.checks.answered(value, result.Revision, value)
					written[m.id] = true
				}
			}
		})
		w.sleep(w.Tick)
	}
}

// compare looks at what all this has come to.
func (w *world) compare() {
	newest := uint64(0)
	for _, m := range w.members {
		newest = max(newest, m.life.group.Status().Applied)
	}
	hashes := make(map[string][]uint64)
	for _, m := range w.members {
		if at := m.life.group.Status().Applied; at != newest {
			w.fail("%v has applied %d, and another has %d", m, at, newest)
			return
		}
		sum, err := m.life.stateHash()
		if err != nil {
			w.fail("%v: hash the state: %v", m, err)
			return
		}
		hashes[sum] = append(hashes[sum], m.id)
		instances, at, err := m.life.registry.List(context.Background(), registry.Query{Namespace: "default", Statuses: []string{"any"}, Consistency: registry.Stale(0)})
		if err != nil {
			w.fail("%v: list: %v", m, err)
			return
		}
		w.checks.list("at the end "+m.String(), instances, uint64(at), w.checks.acked)
	}
	if len(hashes) != 1 {
		w.fail("at %d the members have different states: %v", newest, hashes)
	}
	for _, c := range w.clients {
		if c.watcher != nil && c.watcher.after < w.checks.acked {
			w.fail("%s has not caught up: it is at revision %d, and %d was acknowledged", c.name, c.watcher.after, w.checks.acked)
		}
	}
	w.checks.abandoned()
	w.checks.inOrder()
	w.checks.linearizable()
}

func (l *life) stateHash() (string, error) {
	s, err := l.engine.Snapshot()
	if err != nil {
		return "", err
	}
	sum, err := s.Hash(context.Background())
	if err != nil {
		return "", err
	}
	return sum, s.Close()
}

// finish ends all threads and closes what is open.
func (w *world) finish() {
	for _, m := range w.members {
		if m.life != nil {
			m.life.dead = true
		}
	}
	for _, t := range w.threads {
		w.kill(t)
	}
	for _, m := range w.members {
		if m.life != nil {
			m.life.close()
		}
	}
}

// failure is what is printed of a schedule that found something: the story of
// the same seed, and how to play it again.
func (s *schedule) failure() string {
	again := s
	if !s.story.told {
		again = play(s.Seed, true)
	}
	text := fmt.Sprintf("%v\noptions: %+v\n\n%s\nplay it again: go test ./consensus/simulate -run TestSchedules -seed=%d", s.failed, s.options, again.story.text(), s.Seed)
	if again.hash != s.hash {
		text += fmt.Sprintf("\nThe second run was another one: trace %x, the first had %x. This is a bug of the simulator.", again.hash, s.hash)
	}
	return text
}

// Whatever goes wrong: nothing acknowledged is lost, every history has an order,
// all members hold the same, no lease ends early, no watcher misses anything, and
// when the faults end the cluster goes on.
func TestSchedules(t *testing.T) {
	if *seedFlag != 0 {
		s := play(*seedFlag, true)
		if _, err := os.Stdout.WriteString(strings.Join(s.story.lines, "\n") + "\n"); err != nil {
			t.Fatal(err)
		}
		if s.failed != nil {
			t.Fatal(s.failed)
		}
		return
	}
	sum := newTotals()
	for n := range *schedulesFlag {
		s := play(*firstFlag+uint64(n), false)
		sum.add(s)
		if s.failed != nil {
			t.Fatalf("schedule %d, seed %d: %s", n, s.Seed, s.failure())
		}
	}
	sum.report(t)
}

// totals are what all schedules have shown.
type totals struct {
	schedules int
	simulated time.Duration
	began     time.Time
	counts    map[string]int
	fired     map[string]int
	in        map[string]int // schedules in which a fault happened
}

func newTotals() *totals {
	return &totals{began: time.Now(), counts: make(map[string]int), fired: make(map[string]int), in: make(map[string]int)}
}

func (a *totals) add(s *schedule) {
	a.schedules++
	a.simulated += s.now
	a.counts["events"] += int(s.steps)
	for kind, n := range s.checks.counts {
		a.counts[kind] += n
	}
	for kind, n := range s.faults.fired {
		a.fired[kind] += n
		a.in[kind]++
	}
}

// report fails when a kind of fault has never happened: then nothing was shown.
func (a *totals) report(t *testing.T) {
	took := time.Since(a.began)
	t.Logf("%d schedules, %v simulated in %v (%.1f a second)", a.schedules, a.simulated.Round(time.Second), took.Round(time.Millisecond), float64(a.schedules)/took.Seconds())
	for _, kind := range slices.Sorted(maps.Keys(a.counts)) {
		t.Logf("  %-40s %d", kind, a.counts[kind])
	}
	names := slices.Clone(others)
	for _, k := range kinds {
		names = append(names, k.name)
	}
	for _, name := range names {
		t.Logf("  fault: %-33s %d, in %d schedules", name, a.fired[name], a.in[name])
		if a.in[name]*100 < a.schedules {
			t.Errorf("%q happened in %d of %d schedules: less than one in a hundred shows nothing", name, a.in[name], a.schedules)
		}
	}
}

// One seed is one schedule: the second time everything happens as it did the first.
func TestASeedIsOneSchedule(t *testing.T) {
	for n := range *twiceFlag {
		seed := *firstFlag + uint64(n)
		first, second := play(seed, false), play(seed, n%2 == 1) // telling its story changes nothing
		if first.hash != second.hash || first.made != second.made {
			t.Errorf("seed %d: trace %x with %d events, then %x with %d", seed, first.hash, first.made, second.hash, second.made)
		}
	}
}
