package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

var (
	chaosKills = flag.Int("kills", 2, "how often members are killed")
	chaosCuts  = flag.Int("cuts", 3, "how often members are stopped or the network is cut")
	chaosOnly  = flag.String("fault", "", "only those whose names contain this")
	chaosOps   = flag.Int("ops", 0, "how many operations there are at least")
)

const (
	writeMost      = 3 * time.Second        // for a write with its retries, while there is a quorum
	firstWriteP99  = 2 * time.Second        // after the leader is gone, of many
	healedWrite    = 5 * time.Second        // for writes that had no quorum, from its return on
	manyFaults     = 20                     // from so many on a p99 says something
	faultTimeMin   = 300 * time.Millisecond // how long one lasts
	faultTimeMore  = 3 * time.Second        // and up to so much more
	faultTimeShort = 700 * time.Millisecond // or only so much, where there are few
	faultTimeLong  = 20 * time.Second       // or so much for one in a few that leave a quorum: longer than a lease, and than a keepalive
	longOneIn      = 12
	tellEvery      = 10                     // faults
	opsPerSecond   = 200                    // acknowledged, all faults included
	restTimeMin    = 200 * time.Millisecond // between a cluster that is whole and the next fault
	restTimeMore   = 500 * time.Millisecond
)

// Members are killed, stopped and cut off from each other under a load of clients at all of them.
// Nothing acknowledged is lost, no read is stale, no lease that is renewed ends, and while there is a
// quorum each write is acknowledged within three seconds, retries included.
func TestChaos(t *testing.T) {
	inside, err := inOwnNetwork(t, "-kills", fmt.Sprint(*chaosKills), "-cuts", fmt.Sprint(*chaosCuts), "-ops", fmt.Sprint(*chaosOps), "-fault", *chaosOnly)
	var l *lan
	switch {
	case err == nil && !inside:
		return // the test that ran in its own network has passed
	case err == nil:
		l, err = newLAN(t, lanNodes)
	}
	if err != nil {
		l = nil
		notTested(t, "links that are down, black holes and partitions", err)
	}
	random := seed(t)
	if *chaosKills+*chaosCuts < manyFaults {
		newChaos(t, l, 3, random).run(*chaosKills, *chaosCuts, *chaosOps)
		return
	}
	// Two of three with three members, the others with five.
	for size, share := range []func(n int) int{3: func(n int) int { return n - n/3 }, 5: func(n int) int { return n / 3 }} {
		if share == nil {
			continue
		}
		mine := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		t.Run(fmt.Sprintf("members=%d", size), func(t *testing.T) {
			newChaos(t, l, size, mine).run(share(*chaosKills), share(*chaosCuts), share(*chaosOps))
		})
	}
}

// notTested says loudly what this machine does not allow.
func notTested(t *testing.T, what string, err error) {
	why := fmt.Sprintf("NOT TESTED: %s, because %v", what, err)
	fmt.Fprintln(os.Stderr, why)
	t.Log(why)
}

// chaos is a cluster under load that faults are done to.
type chaos struct {
	*cluster
	random  *rand.Rand
	load    *load
	many    bool                       // more than a short look
	firsts  map[string][]time.Duration // by fault, the first write after it
	heals   map[string][]time.Duration // by fault, until all were ready after its end
	windows []window                   // in their order
}

// window is the time of a fault, from its begin to when all members were ready again.
type window struct {
	fault      fault
	begin, end time.Duration // of the fault
	at         time.Time     // its begin, for who reads the members' logs
	readyAgain time.Duration
}

// newChaos starts the members, with snapshots and segments so small that faults come between them.
func newChaos(t *testing.T, l *lan, size int, random *rand.Rand) *chaos {
	t.Helper()
	return newChaosWith(t, l, size, random, func(*member) {})
}

// newChaosWith is newChaos with something done to each member before it starts.
func newChaosWith(t *testing.T, l *lan, size int, random *rand.Rand, prepare func(*member)) *chaos {
	t.Helper()
	c := newClusterIn(t, l, size, func(m *member) {
		prepare(m)
		m.command = append(m.command, "--snapshot-entries", "2000", "--snapshot-tail", "200", "--storage-segment", "256KiB")
	})
	t.Cleanup(c.keepLogs)
	return &chaos{cluster: c, random: random,
		firsts: make(map[string][]time.Duration), heals: make(map[string][]time.Duration)}
}

// keepLogs copies what the members of a test that failed have said to a place that stays.
func (c *cluster) keepLogs() {
	if !c.t.Failed() {
		return
	}
	to, err := os.MkdirTemp("", "stellmap-chaos-")
	if err != nil {
		c.t.Error(err)
		return
	}
	for _, m := range c.members {
		said, err := os.ReadFile(m.proc.Log)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, m.name()+".log"), said, 0o644)
		}
		if err != nil {
			c.t.Error(err)
		}
	}
	c.t.Logf("what the members said is in %s", to)
}

// run does so many faults in random order, and checks everything at the end.
func (c *chaos) run(kills, cuts, ops int) {
	c.t.Helper()
	allowed := func(f fault) bool {
		return (!f.network || c.lan != nil) && f.members <= len(c.members) && strings.Contains(f.name, *chaosOnly)
	}
	killing := newDeck(c.random, func(f fault) bool { return f.kills && allowed(f) })
	cutting := newDeck(c.random, func(f fault) bool { return !f.kills && allowed(f) })
	if len(killing.cards) == 0 {
		kills = 0
	}
	if len(cutting.cards) == 0 {
		cuts = 0
	}
	c.many = kills+cuts >= manyFaults
	c.load = startLoad(c.cluster, "i", c.random)
	begin := time.Now()
	for done, all := 0, kills+cuts; kills+cuts > 0; done++ {
		from := killing
		if n := c.random.IntN(kills + cuts); n < kills {
			kills--
		} else {
			cuts, from = cuts-1, cutting
		}
		if err := c.fault(from.deal()); err != nil {
			c.t.Fatal(err)
		}
		if err := c.pace(ops * (done + 1) / all); err != nil {
			c.t.Fatal(err)
		}
		if (done+1)%tellEvery == 0 {
			c.t.Logf("%v: %d faults, %d operations", time.Since(begin).Round(time.Second), done+1, c.load.history.answered())
		}
	}
	c.load.stop()
	took := time.Since(begin)
	c.load.readEverything()
	c.sameEverywhere()
	c.load.history.mustBeLinearizable(c.t)
	c.load.check(c.t)
	c.report(took)
}

// fault does one to the cluster and waits until all members are ready again.
func (c *chaos) fault(f fault) error {
	leader, err := c.findLeader(c.members...)
	if err != nil {
		return fmt.Errorf("before %q: %w", f.name, err)
	}
	s := &scene{c: c.cluster, leader: leader}
	s.others = slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == s.leader })
	c.random.Shuffle(len(s.others), func(i, j int) { s.others[i], s.others[j] = s.others[j], s.others[i] })
	w := window{fault: f, begin: c.load.history.now(), at: time.Now()}
	end := f.begin(s)
	first := c.load.history.first(c.load.history.now())
	if f.leader {
		took, err := c.await(s, first)
		if err == nil {
			err = c.another(s)
		}
		if err != nil {
			end()
			return fmt.Errorf("%s: %w", f.name, err)
		}
		c.firsts[f.name] = append(c.firsts[f.name], took)
	}
	rest(c.t.Context(), c.lasts(f))
	end()
	w.end = c.load.history.now()
	err = c.wait(readyTime, "all to be ready", c.members, func() error {
		for _, m := range c.members {
			if err := c.isReady(m); err != nil {
				return fmt.Errorf("%s is not: %w", m.name(), err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("after %q: %w", f.name, err)
	}
	w.readyAgain = c.load.history.now()
	c.heals[f.name] = append(c.heals[f.name], w.readyAgain-w.end)
	c.windows = append(c.windows, w)
	rest(c.t.Context(), restTimeMin+time.Duration(c.random.Int64N(int64(restTimeMore))))
	return nil
}

// lasts is how long a fault goes on.
func (c *chaos) lasts(f fault) time.Duration {
	more := faultTimeShort
	switch {
	case c.many && !f.noQuorum && c.random.IntN(longOneIn) == 0:
		more = faultTimeLong
	case c.many:
		more = faultTimeMore
	}
	return faultTimeMin + time.Duration(c.random.Int64N(int64(more)))
}

// await waits for the first write after the begin of a fault. Without the leader, the others must live for it.
func (c *chaos) await(s *scene, first *firstWrite) (took time.Duration, err error) {
	err = c.wait(giveUpTime, "an acknowledged write", s.others, func() error {
		select {
		case took = <-first.acked:
			return nil
		default:
			return errors.New("there is none yet")
		}
	})
	return took, err
}

// another: the fault has taken the leader away, so another member leads.
func (c *chaos) another(s *scene) error {
	return c.wait(readyTime, "another leader", s.others, func() error {
		for _, m := range s.others {
			if id, err := c.leaderOf(m); err == nil && id != s.leader.id {
				return nil
			}
		}
		return fmt.Errorf("it is %s still", s.leader.name())
	})
}

// wait waits for a condition, as long as the given members live.
func (c *chaos) wait(limit time.Duration, what string, living []*member, condition func() error) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	_, err := process.Until(ctx, what, func() error {
		err := condition()
		if err == nil {
			return nil
		}
		if ended := c.alive(living...); ended != nil {
			cancel()
			return ended
		}
		return err
	})
	return err
}

// errEnded is a member that has ended by itself.
var errEnded = errors.New("a member has ended by itself")

// alive: no member has ended by itself.
func (c *chaos) alive(members ...*member) error {
	for _, m := range members {
		if !m.proc.Running() {
			return fmt.Errorf("%w: %s with exit code %d:\n%s", errEnded, m.name(), m.proc.ExitCode(), m.proc.Tail(20))
		}
	}
	return nil
}

// pace waits until so many operations were answered.
func (c *chaos) pace(ops int) error {
	limit := readyTime + time.Duration(ops)*time.Second/opsPerSecond
	return c.wait(limit, fmt.Sprintf("%d operations", ops), c.members, func() error {
		if have := c.load.history.answered(); have < ops {
			return fmt.Errorf("%d so far", have)
		}
		return nil
	})
}

// sameEverywhere: all members have the same instances, byte for byte. Leases may
// end meanwhile, so their service is left out.
func (c *chaos) sameEverywhere() {
	c.t.Helper()
	lists := make(map[string][]string)
	for _, m := range c.members {
		a := c.must(http.MethodGet, m.url()+"/api/v2/namespaces/default/services/"+loadService+"/instances", "", http.StatusOK)
		_, instances, _ := strings.Cut(string(a.body), `"instances"`) // the revision moves on with leases
		lists[instances] = append(lists[instances], m.name())
	}
	if len(lists) != 1 {
		c.t.Errorf("the members' instances differ: %v agree with each other", slices.Collect(maps.Values(lists)))
	}
}

// report prints what was seen, and fails for what took too long.
func (c *chaos) report(took time.Duration) {
	c.t.Helper()
	h := c.load.history
	perSecond := float64(h.acked) / took.Seconds()
	c.t.Logf("%d operations, %d of them writes, were acknowledged in %v: %.0f/s; %d writes have an unknown outcome",
		h.acked, h.writes, took.Round(time.Second), perSecond, h.unknown)
	if c.many && perSecond < opsPerSecond {
		c.t.Errorf("%.0f operations a second were acknowledged, want %d", perSecond, opsPerSecond)
	}
	for _, name := range slices.Sorted(maps.Keys(c.heals)) {
		line := fmt.Sprintf("%4d × %s; all ready after its end: %s", len(c.heals[name]), name, spread(c.heals[name]))
		if first := c.firsts[name]; len(first) > 0 {
			line += "; first write: " + spread(first)
		}
		c.t.Log(line)
	}
	all := slices.Concat(slices.Collect(maps.Values(c.firsts))...)
	c.t.Logf("first write after the leader was killed, stopped or cut off, %d times: %s", len(all), spread(all))
	if len(all) >= manyFaults && quantile(all, 0.99) > firstWriteP99 {
		c.t.Errorf("the first write's p99 is %v, want %v at most", quantile(all, 0.99), firstWriteP99)
	}
	c.slowWrites()
}

// slowWrites looks at each write that took long. One that met a fault without a
// quorum is counted from that fault's end.
func (c *chaos) slowWrites() {
	c.t.Helper()
	var slowest, healed operation
	length := func(o operation) time.Duration { return o.end - o.begin }
	for _, o := range c.load.history.slow {
		met := c.met(o, true)
		if met == nil {
			if length(o) > length(slowest) {
				slowest = o
			}
			continue
		}
		if o.begin = max(o.begin, met.end); length(o) > length(healed) {
			healed = o
		}
	}
	c.t.Logf("slowest write with its retries: %v, during %q; from the return of a quorum: %v, after %q",
		length(slowest).Round(time.Millisecond), c.name(slowest, false), length(healed).Round(time.Millisecond), c.name(healed, true))
	slack := time.Duration(1)
	if !c.many {
		slack = 2 // a short look shares the machine with other tests
	}
	if length(slowest) > slack*writeMost {
		c.t.Errorf("a write took %v, want %v at most: %v", length(slowest), slack*writeMost, slowest)
	}
	if length(healed) > slack*healedWrite {
		c.t.Errorf("a write took %v from the return of a quorum on, want %v at most: %v", length(healed), slack*healedWrite, healed)
	}
}

// met is the last fault with or without a quorum that a write saw something of.
func (c *chaos) met(o operation, noQuorum bool) *window {
	for i := range slices.Backward(c.windows) {
		if w := &c.windows[i]; w.fault.noQuorum == noQuorum && o.begin < w.readyAgain && o.end > w.begin {
			return w
		}
	}
	return nil
}

func (c *chaos) name(o operation, noQuorum bool) string {
	if w := c.met(o, noQuorum); w != nil {
		return fmt.Sprintf("%s at %s", w.fault.name, w.at.UTC().Format(time.TimeOnly))
	}
	return "no fault"
}

// quantile is of a list that it sorts.
func quantile(d []time.Duration, q float64) time.Duration {
	slices.SortFunc(d, cmp.Compare)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "never"
	}
	short := func(q float64) time.Duration { return quantile(d, q).Round(time.Millisecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v", short(0.5), short(0.99), short(1))
}
