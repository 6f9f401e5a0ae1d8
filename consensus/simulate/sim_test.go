package simulate

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "play the schedule of this seed alone, with its story; 0 = play many")
	schedulesFlag = flag.Int("schedules", 60/slower, "how many schedules to play")
	firstFlag     = flag.Uint64("first", 1, "the seed of the first schedule; the others follow")
	randomFlag    = flag.Int("random", 0, "how many more to play, from a seed that is new each time")
	workersFlag   = flag.Int("workers", 1, "how many processes share the work")
	twiceFlag     = flag.Int("twice", max(1, 5/slower), "how many schedules to play twice, to see that they are the same")
)

// TestMain has the collector of garbage come less often: a schedule is short, and
// what it leaves behind is nobody's.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	m.Run()
}

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
	if w.Changes {
		w.newClient("operator", (*client).operate)
	}
	w.faults.begin(w.Faulty)
}

// recoveries are how long a healed cluster may take to accept a write.
const electionsMax = 10

// settleTime is enough for leases to run out that nobody renews.
const settleTime = 14 * time.Second

// recover heals the cluster and sees that it lives.
func (w *world) recover() {
	w.faults.heal()
	healed := w.now
	down := func() bool {
		return slices.ContainsFunc(w.current(), func(m *member) bool { return !m.up() || m.life.stopping || m.broken })
	}
	patience := electionsMax * time.Duration(w.ElectionTicks) * w.Tick
	w.run(healed+4*time.Second, func() bool { return !down() })
	if w.failed == nil && down() {
		w.fail("not all members are up %v after the faults", w.now-healed)
	}
	if w.failed != nil { // a member that does not start has nothing that could be asked
		return
	}
	written := make(map[uint64]bool)
	those := w.current() // whoever is taken in later has not had the time
	for _, m := range those {
		w.newClient(fmt.Sprintf("last-%d", m.id), func(c *client) { c.last(m, written) })
	}
	from := w.now
	waits := func(m *member) bool { return !written[m.id] && !m.retired }
	w.run(from+patience+callTime, func() bool { return !slices.ContainsFunc(those, waits) })
	if w.failed == nil && slices.ContainsFunc(those, waits) {
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
	newest := w.membership().Applied
	for _, m := range w.current() {
		if !m.up() || !m.life.isAt(newest) {
			return false
		}
	}
	return true
}

// isAt tells whether the member, and its state, which is ahead of what the member
// says while it applies, are at an entry.
func (l *life) isAt(index uint64) bool {
	return l.group.Status().Applied == index && l.engine.AppliedIndex().Index == index
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
	newest := w.membership().Applied
	if s := w.newest; len(s.VotersOutgoing) > 0 || s.Replacement != nil && slices.Contains(s.Voters, s.Replacement.Old) && slices.Contains(s.Learners, s.Replacement.New) {
		w.fail("a change of the members did not come to its end: voters %v, before %v, replacement %v", s.Voters, s.VotersOutgoing, s.Replacement)
	}
	hashes := make(map[string][]uint64)
	for _, m := range w.current() {
		if !m.up() {
			w.fail("%v is not up at the end", m)
			return
		}
		if !m.life.isAt(newest) {
			w.fail("%v has applied %d, its state is at %d, and another has applied %d", m, m.life.group.Status().Applied, m.life.engine.AppliedIndex().Index, newest)
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
		playOne(t, *seedFlag)
		return
	}
	sum := newTotals()
	if *workersFlag > 1 {
		sum.addWorkers(t)
	} else {
		sum.playAll(t, *firstFlag, *schedulesFlag)
		if *randomFlag > 0 {
			first := uint64(time.Now().UnixNano())
			t.Logf("random seeds from %d on", first)
			sum.playAll(t, first, *randomFlag)
		}
		sum.print()
	}
	sum.report(t)
}

func playOne(t *testing.T, seed uint64) {
	s := play(seed, true)
	if _, err := os.Stdout.WriteString(strings.Join(s.story.lines, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
	if s.failed != nil {
		t.Fatal(s.failed)
	}
}

// totals are what all schedules have shown.
type totals struct {
	Schedules int
	Simulated time.Duration
	Counts    map[string]int
	Fired     map[string]int // faults
	In        map[string]int // schedules in which a fault happened
	began     time.Time
}

func newTotals() *totals {
	return &totals{began: time.Now(), Counts: make(map[string]int), Fired: make(map[string]int), In: make(map[string]int)}
}

func (a *totals) playAll(t *testing.T, first uint64, count int) {
	for n := range uint64(count) {
		s := play(first+n, false)
		a.add(s)
		if s.failed != nil {
			t.Fatalf("seed %d: %s", s.Seed, s.failure())
		}
	}
}

func (a *totals) add(s *schedule) {
	a.Schedules++
	a.Simulated += s.now
	a.Counts["events"] += int(s.steps)
	for kind, n := range s.checks.counts {
		a.Counts[kind] += n
	}
	for kind, n := range s.faults.fired {
		a.Fired[kind] += n
		a.In[kind]++
	}
}

// totalsMark begins the line in which a process tells another its totals.
const totalsMark = "totals "

func (a *totals) print() {
	line, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("simulate: %v", err)) // maps of numbers
	}
	fmt.Printf("%s%s\n", totalsMark, line)
}

// addWorkers shares the schedules among processes: the dice of Raft are the
// process's, so each plays one at a time.
func (a *totals) addWorkers(t *testing.T) {
	var workers sync.WaitGroup
	var mu sync.Mutex // guards a
	each, random := *schedulesFlag / *workersFlag, *randomFlag / *workersFlag
	for n := range *workersFlag {
		workers.Go(func() {
			out, err := exec.Command(os.Args[0], "-test.run=^TestSchedules$", "-test.v", "-test.timeout=24h",
				fmt.Sprint("-first=", *firstFlag+uint64(n*each)), fmt.Sprint("-schedules=", each), fmt.Sprint("-random=", random)).CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
				return
			}
			if err := a.addLine(string(out)); err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
}

func (a *totals) addLine(out string) error {
	_, after, found := strings.Cut(out, totalsMark)
	line, _, _ := strings.Cut(after, "\n")
	b := newTotals()
	if !found {
		return fmt.Errorf("a process has told nothing:\n%s", out)
	}
	if err := json.Unmarshal([]byte(line), b); err != nil {
		return fmt.Errorf("read what a process has shown: %w", err)
	}
	a.Schedules += b.Schedules
	a.Simulated += b.Simulated
	for _, pair := range [][2]map[string]int{{a.Counts, b.Counts}, {a.Fired, b.Fired}, {a.In, b.In}} {
		for kind, n := range pair[1] {
			pair[0][kind] += n
		}
	}
	return nil
}

// enough is how many schedules must show every kind of fault.
const enough = 500

// report fails when a kind of fault has hardly ever happened: then nothing was shown.
func (a *totals) report(t *testing.T) {
	took := time.Since(a.began)
	t.Logf("%d schedules, %v simulated in %v (%.1f a second)", a.Schedules, a.Simulated.Round(time.Second), took.Round(time.Millisecond), float64(a.Schedules)/took.Seconds())
	for _, kind := range slices.Sorted(maps.Keys(a.Counts)) {
		t.Logf("  %-40s %d", kind, a.Counts[kind])
	}
	names := slices.Clone(others)
	for _, k := range kinds {
		names = append(names, k.name)
	}
	for _, name := range names {
		t.Logf("  fault: %-33s %d, in %d schedules", name, a.Fired[name], a.In[name])
		if a.Schedules >= enough && a.In[name]*100 < a.Schedules {
			t.Errorf("%q happened in %d of %d schedules: less than one in a hundred shows nothing", name, a.In[name], a.Schedules)
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
