package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

var failovers = flag.Int("failovers", 1, "how often a region's instances fail in each way; from 2 on the time until the other one serves is bounded")

const (
	failoverMax = 2 * time.Second // from the fault to the last request that fails
	markedMax   = time.Second     // the same, from the moment that the registry has all of the frozen as critical

	shareSample = 400  // requests in which a share is counted
	shareOfA    = 0.84 // three of five, times 1.4
	shareSigmas = 5    // of the counting
	cutSample   = 400  // requests while the link is cut
	longCut     = 10   // times as many in every fifth round: a connection that carries nothing is given up meanwhile

	sampleTime = 3 * time.Minute // for requests to be counted: not a target, a limit for waiting

	agreeMax = 10 * time.Second // from the end of a cut until what was missed is known
)

// sceneFigures are those of one way to fail, by round.
type sceneFigures struct {
	clean  []time.Duration // from the fault to the last request that failed or was late
	failed []int           // and those that were late
	total  int             // requests
	home   []time.Duration // from the end of the fault to the last request that the other region answered
}

// failover is the test in the middle.
type failover struct {
	*regionPair
	round         int
	scenes        map[string]*sceneFigures
	marked        []time.Duration // from the freeze until the registry had all as critical
	agreed        []time.Duration // from the end of a cut until a had what was told in b meanwhile
	shared, share int             // requests with two of five dead, and those that a answered
}

// The instances of a region are killed, frozen, and cut off, all or two of five, and nobody
// deregisters them: an Envoy in it goes on with the other region's, also while the regions do
// not reach each other, does no POST twice, and comes home without an error. The Envoy of the
// other region notices nothing of it. `make failover` does it twenty times, and bounds the times.
func TestTrafficFallsBackToAnotherRegion(t *testing.T) {
	t.Parallel() // it waits most of its time
	envoyPath(t)
	inside, err := inOwnNetwork(t, "-failovers", fmt.Sprint(*failovers))
	if err == nil && !inside {
		return // the test that ran in its own network has passed
	}
	var l *lan
	if err == nil {
		l, err = newLAN(t, pairNodes)
	}
	if err != nil {
		notTested(t, "regions whose instances fail", err)
		return
	}
	f := &failover{regionPair: newRegionPair(t, l), scenes: make(map[string]*sceneFigures)}
	begin := time.Now()
	other := f.b.envoy.startFlow("other", "plain.default")
	other.settles("b to serve its own", begin, "b")
	for f.round = range *failovers {
		f.twoOfFive()
		f.blackHole()
		f.freeze()
		f.killAndCutLink()
	}
	other.end("b has its own", begin)
	if all := other.since(begin); all.by["a"] > 0 {
		t.Errorf("a has answered %d requests of b, whose instances are well", all.by["a"])
	}
	f.mustDoNothingTwice()
	f.a.envoy.noNACK()
	f.b.envoy.noNACK()
	f.report()
}

// A failing is one service of a while its instances fail, with the callers of it.
type failing struct {
	f          *failover
	name       string
	flow       *flow
	begin, end time.Time // of the fault
	well       time.Time // nothing that began later has failed
}

// open starts a scene: callers whom a's instances serve. What follows is the fault.
func (f *failover) open(name, service string) *failing {
	f.t.Helper()
	s := &failing{f: f, name: name, flow: f.a.envoy.startFlow(fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), f.round), service+".default")}
	s.flow.settles("a to serve its own", time.Time{}, "a")
	s.begin = time.Now()
	return s
}

// failsOver waits until all callers are served, by the given regions.
func (s *failing) failsOver(regions ...string) {
	s.f.t.Helper()
	s.well = s.flow.settles("requests that do not fail", s.begin, regions...)
}

// close ends a scene after the fault has ended: all come home, and none fails on the way.
func (s *failing) close() {
	s.f.t.Helper()
	s.flow.settles("a to serve its own again", s.end, "a")
	s.flow.end(s.name, s.well)
	c, at := s.flow.since(s.begin.Add(-flowHanging)), s.f.scenes[s.name] // with what was under way
	if at == nil {
		at = &sceneFigures{}
		s.f.scenes[s.name] = at
	}
	at.clean = append(at.clean, max(0, c.lastBad.Sub(s.begin)))
	at.failed = append(at.failed, c.failed+c.late)
	at.home = append(at.home, max(0, c.last["b"].Sub(s.end)))
	at.total += c.total
}

// allWell waits until a's Envoy has all instances as healthy.
func (f *failover) allWell() {
	f.t.Helper()
	f.until("all instances in a's Envoy", func() error { return f.a.knows(f.a, f.b) })
}

// until waits for a condition.
func (f *failover) until(what string, condition func() error) {
	f.t.Helper()
	if _, err := process.Within(f.t.Context(), flowTime, what, condition); err != nil {
		f.t.Fatal(err)
	}
}

// twoOfFive kills two: the others serve 1.4 times their part, b the rest.
func (f *failover) twoOfFive() {
	f.t.Helper()
	s := f.open("two of five killed", "plain")
	f.a.signal(syscall.SIGKILL, f.a.instances[:2]...)
	s.failsOver("a", "b")
	c := f.answers(s.flow, s.well, shareSample)
	f.shared, f.share = f.shared+c.total, f.share+c.by["a"]
	s.end = time.Now()
	f.a.revive(f.a.instances[:2]...)
	s.close()
	f.allWell()
}

// answers waits until callers have had so many answers since a moment.
func (f *failover) answers(flow *flow, since time.Time, n int) (c toll) {
	f.t.Helper()
	if _, err := process.Within(f.t.Context(), sampleTime, "requests", func() error {
		if c = flow.since(since); c.total < n {
			return fmt.Errorf("%d of %d", c.total, n)
		}
		return nil
	}); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// blackHole takes all instances of a off the network.
func (f *failover) blackHole() {
	f.t.Helper()
	s := f.open("black-holed", "plain")
	f.a.renews(false, f.a.instances...)
	f.lan.unplug(f.a.instancesNode())
	s.failsOver("b")
	f.lan.plug(f.a.instancesNode())
	s.end = time.Now()
	f.a.renews(true, f.a.instances...)
	s.close()
	f.allWell()
}

// freeze stops all instances of a. Their kernel goes on to take connections.
func (f *failover) freeze() {
	f.t.Helper()
	checked, probed := f.open("frozen, checked by Envoy", "checked"), f.open("frozen, checked by members", "probed")
	begin := time.Now()
	checked.begin, probed.begin = begin, begin
	f.a.signal(syscall.SIGSTOP, f.a.instances...)
	f.until("all that are frozen to be critical", f.areCritical)
	f.marked = append(f.marked, time.Since(begin))
	checked.failsOver("b")
	probed.failsOver("b")
	checked.end, probed.end = time.Now(), time.Now()
	f.a.signal(syscall.SIGCONT, f.a.instances...)
	checked.close()
	probed.close()
	f.allWell()
}

// areCritical is nil when a's members have all that they check as critical.
func (f *failover) areCritical() error {
	a, err := f.a.call(f.t.Context(), http.MethodGet, f.a.members[0].url()+"/api/v2/namespaces/default/services/probed/instances?region=a&status=critical&fields=instanceId&consistency=stale", "")
	if err != nil {
		return err
	}
	if n := strings.Count(string(a.body), `"instanceId"`); n != pairInstances {
		return fmt.Errorf("%d are", n)
	}
	return nil
}

// killAndCutLink kills all instances of a and cuts the regions off from each other while b serves.
func (f *failover) killAndCutLink() {
	f.t.Helper()
	s := f.open("killed", "plain")
	f.a.signal(syscall.SIGKILL, f.a.instances...)
	s.failsOver("b")
	heal, cut, told := f.cutLink(), time.Now(), fmt.Sprintf("told-%d", f.round)
	f.b.register("tale", told, `[{"name":"http","protocol":"http","host":"127.1.0.4","port":9000}]`)
	f.answers(s.flow, cut, f.cutSample())
	if err := f.hasHeard(told); err == nil {
		f.t.Error("a has heard of what was told while it was cut off")
	}
	healed := time.Now()
	heal()
	f.until("a to have heard what it has missed", func() error { return f.hasHeard(told) })
	f.agreed = append(f.agreed, time.Since(healed))
	s.end = time.Now()
	f.a.revive(f.a.instances...)
	s.close()
	f.allWell()
}

// cutSample is how many requests there are while the link is cut.
func (f *failover) cutSample() int {
	if f.round%5 == 4 {
		return longCut * cutSample
	}
	return cutSample
}

// hasHeard is nil when a has an instance of b's.
func (f *failover) hasHeard(id string) error {
	a, err := f.a.call(f.t.Context(), http.MethodGet, f.a.members[1].url()+"/api/v2/namespaces/default/services/tale/instances?region=b&fields=instanceId&consistency=stale", "")
	if err == nil && !strings.Contains(string(a.body), "/"+id+`"`) {
		err = fmt.Errorf("it has not: %s", a.body)
	}
	return err
}

func (f *failover) mustDoNothingTwice() {
	f.t.Helper()
	done := f.done()
	for id, n := range done {
		if n > 1 {
			f.t.Errorf("POST %s was done %d times", id, n)
		}
	}
	if len(done) < shareSample {
		f.t.Errorf("%d POSTs were done: nothing was tried", len(done))
	}
	f.t.Logf("%d different POSTs were done", len(done))
}

// report prints what was measured, and bounds it where there is more than one round.
func (f *failover) report() {
	f.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d rounds\n%-28s %-22s %-22s %9s  %s\n", *failovers, "all five of a", "served after p50, max", "failed or late", "requests", "home after p50, max")
	for _, name := range slices.Sorted(maps.Keys(f.scenes)) {
		s := f.scenes[name]
		fmt.Fprintf(&b, "%-28s %-22s %-22s %9d  %s\n", name, spans(s.clean), fmt.Sprintf("%d, %d", middle(s.failed), slices.Max(s.failed)), s.total, spans(s.home))
	}
	share := float64(f.share) / float64(f.shared)
	fmt.Fprintf(&b, "with two of five killed a served %.1f %% of %d requests\n", 100*share, f.shared)
	fmt.Fprintf(&b, "the frozen were critical after %s; what was missed in a cut was known %s after it", spans(f.marked), spans(f.agreed))
	f.t.Log(b.String())
	if spread := shareSigmas * math.Sqrt(shareOfA*(1-shareOfA)/float64(f.shared)); math.Abs(share-shareOfA) > spread {
		f.t.Errorf("a served a share of %.3f, want %.2f ± %.3f", share, shareOfA, spread)
	}
	if *failovers > 1 {
		f.bound()
	}
}

// bound is that requests succeed soon after a fault; where only the members check, soon
// after they have found it. And that regions agree soon after a cut, however long it was.
func (f *failover) bound() {
	f.t.Helper()
	if longest := slices.Max(f.agreed); longest > agreeMax {
		f.t.Errorf("what was missed in a cut was known %v after it, allowed are %v", longest, agreeMax)
	}
	for name, s := range f.scenes {
		for round, clean := range s.clean {
			most := failoverMax
			if name == "frozen, checked by members" {
				most = f.marked[round] + markedMax
			}
			if clean > most {
				f.t.Errorf("round %d, %s: requests failed for %v, allowed are %v", round, name, clean, most)
			}
		}
	}
}

// spans are the middle and the longest of durations, for people.
func spans(all []time.Duration) string {
	return fmt.Sprintf("%.2f s, %.2f s", middle(all).Seconds(), slices.Max(all).Seconds())
}

func middle[T cmp.Ordered](all []T) T { return slices.Sorted(slices.Values(all))[len(all)/2] }
