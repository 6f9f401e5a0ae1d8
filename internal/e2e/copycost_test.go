package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

var copiedFlag = flag.Int("copied", 2_000, "how many instances the region of TestWhatACopyCosts has; from 20,000 on each part is watched for a minute")

const (
	manyCopied    = 20_000
	copiedService = 100 // instances of each service
	copiedTTL     = 30 * time.Second
	enrolling     = 16  // services at a time
	restTries     = 3   // windows, until there is one in which no lease is late
	copiedSample  = 20  // services that are compared
	changesRate   = 100 // a second
	changers      = 4   // that share them
	syncTime      = 4 * time.Minute
	lookEvery     = 500 * time.Millisecond // at how old a copy is
)

// copyCost is a region whose instances renew their leases, and two that follow it.
type copyCost struct {
	t         *testing.T
	load      *leaseLoad
	services  int
	source    *cluster
	followers []*cluster

	mu    sync.Mutex // guards what follows
	acked uint64     // the newest revision that a change was acknowledged with
	at    time.Time  // when
}

// TestWhatACopyCosts shows with real members that renewals in a region cause no traffic to those
// that follow it, that changes do and reach them, and that a copy told anew is the same again. It
// prints what all that costs.
func TestWhatACopyCosts(t *testing.T) {
	n, times, window := *copiedFlag, 3, time.Minute
	if n < manyCopied {
		t.Parallel()                      // it waits most of its time
		times, window = 30, 2*time.Second // so that each is renewed within it
	}
	c := newCopyCost(t, n, times)
	if n >= manyCopied {
		c.watch("renewals, nobody follows", window/2)
	}
	c.beFollowed()
	c.mustRest(window)
	lags := c.startLags()
	stop := c.change()
	told := c.watch(fmt.Sprintf("and %d changes a second", changesRate), window)
	stop()
	lags()
	for i, f := range c.followers {
		if taken := told[i+1].taken; taken == 0 {
			t.Errorf("%s has taken in none of the changes", c.regionOf(f))
		}
	}
	c.mustBeCopied()
	c.resync()
	c.mustBeCopied()
	c.forget()
	c.load.mustBeAlive(0, c.source.members...)
}

// mustRest shows that followers are told of no instance while there are renewals only. On a machine
// that is too busy leases run late, which is a change that they are told of: then it looks again.
func (c *copyCost) mustRest(window time.Duration) {
	c.t.Helper()
	for range restTries {
		late, renewed := c.late(), c.load.renewals.Load()
		told := c.watch("renewals", window)
		if late = c.late() - late; late != 0 {
			c.t.Logf("leases have run late, or out, %.0f times", late)
			continue
		}
		if c.load.renewals.Load() == renewed {
			c.t.Error("nothing was renewed")
		}
		for i, f := range c.followers {
			if taken := told[i+1].taken; taken != 0 {
				c.t.Errorf("%s has taken in %.0f instances while there were renewals only", c.regionOf(f), taken)
			}
		}
		return
	}
	c.t.Error("this machine is too busy to keep the leases: nothing is shown of renewals")
}

// late is how often leases of the source have run out, or were renewed so late that it had to be logged.
func (c *copyCost) late() float64 {
	m := c.source.members[0]
	return c.source.metricOf(m, "stellmap_registry_expirations_total") + c.source.sumOf(m, `stellmap_registry_renewals_total{outcome="log"`)
}

func newCopyCost(t *testing.T, n, times int) *copyCost {
	t.Helper()
	c := &copyCost{t: t, services: n / copiedService, source: newClusterWith(t, 1, inRegion(t, "a", 100, ""))}
	c.load = newLeaseLoad(t, c.source, copiedTTL)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() { stop(); c.load.holding.Wait() })
	began := time.Now()
	for i := range c.services {
		c.load.hold(ctx, copiedName(i), 0, copiedService, times, c.load.renewInBatches)
		if i%enrolling == enrolling-1 { // all at once would only wait for each other
			c.load.enrolled.Wait()
		}
	}
	c.load.enrolled.Wait()
	t.Logf("load average %s; %d instances of %d services, leases of %v, were registered in %v", loadAverage(), n, c.services, copiedTTL, time.Since(began).Round(time.Millisecond))
	return c
}

func copiedName(service int) string { return fmt.Sprintf("copied-%d", service) }

// copiedTo are the regions that follow.
var copiedTo = []string{"b", "c"}

// regionOf is the name of one of them.
func (c *copyCost) regionOf(f *cluster) string { return copiedTo[slices.Index(c.followers, f)] }

func (c *copyCost) total() int { return c.services * copiedService }

// beFollowed starts the two others, and waits until each has all there is.
func (c *copyCost) beFollowed() {
	c.t.Helper()
	began, used := time.Now(), c.cost()
	for i, name := range copiedTo {
		more := fmt.Sprintf("[[federation.regions]]\nregion = \"a\"\ncluster_id = 100\ngrpc = [%q]\n", c.source.members[0].address(2))
		c.followers = append(c.followers, newClusterWith(c.t, 1, inRegion(c.t, name, 200+100*i, more)))
	}
	for _, f := range c.followers {
		f.client.Timeout = syncTime // forgetting is many commands, and the machine is busy
		c.untilSynced(f, 1)
	}
	took := time.Since(began)
	c.t.Logf("load average %s; two regions have all %d instances %v after their start; what it took:", loadAverage(), c.total(), took.Round(time.Millisecond))
	none := slices.Repeat([]spent{{}}, len(c.followers))
	c.print(append(used, none...), c.cost(), took)
}

// untilSynced waits until a region has all there is, by its full sync of that number.
func (c *copyCost) untilSynced(f *cluster, sync int) {
	c.t.Helper()
	m := f.members[0]
	if _, err := process.Within(c.t.Context(), syncTime, "a copy of all there is", func() error {
		of := f.copyIn(m)
		if syncs := f.sumOf(m, "stellmap_federation_full_syncs_total"); int(syncs) != sync || of.FullSync || of.Revision == 0 || of.Instances != c.total() {
			return fmt.Errorf("%s has begun %v full syncs, and is at %+v", c.regionOf(f), syncs, of)
		}
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
}

// spent is what a member has used and done so far.
type spent struct {
	cpu             time.Duration
	received, taken float64 // bytes; instances
	entries         float64
	logged          int64
	rss             int64
}

func (a spent) since(b spent) spent {
	return spent{a.cpu - b.cpu, a.received - b.received, a.taken - b.taken, a.entries - b.entries, a.logged - b.logged, a.rss}
}

// cost is what each has spent, the source first.
func (c *copyCost) cost() (out []spent) {
	c.t.Helper()
	for _, of := range append([]*cluster{c.source}, c.followers...) {
		m := of.members[0]
		out = append(out, spent{
			cpu: cpuOf(fmt.Sprint(m.proc.PID())), received: of.sumOf(m, "stellmap_federation_received_bytes_total"),
			taken: of.sumOf(m, "stellmap_federation_instances_taken_in_total"), entries: of.metricOf(m, "stellmap_raft_commit_index"),
			logged: logSize(c.t, m), rss: memoryOf(c.t, m),
		})
	}
	return out
}

// watch says what a while costs.
func (c *copyCost) watch(what string, d time.Duration) []spent {
	c.t.Helper()
	c.load.longest.Store(0)
	renewed, before, began := c.load.renewals.Load(), c.cost(), time.Now()
	rest(c.t.Context(), d)
	after, took := c.cost(), time.Since(began)
	c.t.Logf("load average %s; %s, for %.0f s: %.0f renewals/s, at most %v apart", loadAverage(), what, took.Seconds(),
		float64(c.load.renewals.Load()-renewed)/took.Seconds(), time.Duration(c.load.longest.Load()).Round(time.Millisecond))
	return c.print(before, after, took)
}

func (c *copyCost) print(before, after []spent, took time.Duration) (all []spent) {
	for i := range after {
		one, s := after[i].since(before[i]), took.Seconds()
		all = append(all, one)
		c.t.Logf("%s: CPU %.2f %% of one; received %.0f bytes/s; took in %.1f instances/s; log %.2f entries/s, %.0f bytes/s; RSS %d MiB",
			string(rune('a'+i)), 100*one.cpu.Seconds()/s, one.received/s, one.taken/s, one.entries/s, float64(one.logged)/s, one.rss>>20)
	}
	return all
}

// sumOf adds up what a metric with labels says, those that its name ends in or all; 0 where there are none yet.
func (c *cluster) sumOf(m *member, name string) (sum float64) {
	c.t.Helper()
	a := c.must(http.MethodGet, m.url()+"/metrics", "", http.StatusOK)
	for line := range strings.Lines(string(a.body)) {
		labels, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		var one float64
		if !strings.HasPrefix(labels, name) {
			continue
		}
		if _, err := fmt.Sscan(value, &one); err != nil {
			c.t.Fatalf("%s: %v", line, err)
		}
		sum += one
	}
	return sum
}

// memoryOf is what a member's process has in memory.
func memoryOf(t *testing.T, m *member) (bytes int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.proc.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &bytes); n == 1 {
			return bytes << 10
		}
	}
	t.Fatal("the kernel does not tell VmRSS")
	return 0
}

// change changes instances of the source until it is stopped, at a rate.
func (c *copyCost) change() (stop func()) {
	ctx, end := context.WithCancel(c.t.Context())
	var all sync.WaitGroup
	for i := range changers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			ticks := time.NewTicker(time.Second * changers / changesRate)
			defer ticks.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				c.changeOne(ctx, copiedName(random.IntN(c.services)), random.IntN(copiedService), fmt.Sprintf("%d-%d", i, n))
				select {
				case <-ticks.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() { end(); all.Wait() }
}

func (c *copyCost) changeOne(ctx context.Context, service string, n int, value string) {
	body := fmt.Sprintf(`{"endpoints":[{"protocol":"http","host":%q,"port":8080}],"leaseTtlSeconds":%d,"metadata":{"value":%q}}`, hostOf(n), int(c.load.ttl.Seconds()), value)
	a, err := c.source.call(ctx, http.MethodPut, instanceURL(c.source.members[0], service, fmt.Sprint(n)), body)
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil && ctx.Err() == nil {
		c.load.problem("change of %s: %v", service, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && a.revision > c.acked {
		c.acked, c.at = a.revision, time.Now()
	}
}

func (c *copyCost) newest() (revision uint64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked, c.at
}

// startLags looks now and then at how old the followers' copies say they are, and how long after
// its acknowledgement the newest change is in them.
func (c *copyCost) startLags() (stop func()) {
	ctx, end := context.WithCancel(c.t.Context())
	var all sync.WaitGroup
	for _, f := range c.followers {
		all.Go(func() {
			var ages, lags []time.Duration
			for rest(ctx, lookEvery); ctx.Err() == nil; rest(ctx, lookEvery) {
				revision, at := c.newest()
				for revision != 0 && ctx.Err() == nil {
					of := f.copyIn(f.members[0])
					if of.Revision >= revision {
						ages, lags = append(ages, time.Duration(of.AgeMs)*time.Millisecond), append(lags, time.Since(at))
						break
					}
					rest(ctx, time.Millisecond)
				}
			}
			c.t.Logf("%s: a change is in the copy after it was acknowledged: %s; how old the copy says that it is: %s", c.regionOf(f), spread(lags), spread(ages))
		})
	}
	return func() { end(); all.Wait() }
}

// mustBeCopied holds the followers' copies against the source: how many there are, and all of a
// sample of services.
func (c *copyCost) mustBeCopied() {
	c.t.Helper()
	random := seed(c.t)
	for _, f := range c.followers {
		if of := f.copyIn(f.members[0]); of.Instances != c.total() {
			c.t.Errorf("%s has %d instances of %d", c.regionOf(f), of.Instances, c.total())
		}
		for range copiedSample {
			service := copiedName(random.IntN(c.services))
			if _, err := process.Within(c.t.Context(), lookTime, "the same in a copy", func() error {
				if want, got := c.source.copied(service, ""), f.copied(service, "a/100/"); len(want) != copiedService || !reflect.DeepEqual(got, want) {
					return fmt.Errorf("%s has of %s\n%v\nand the source\n%v", c.regionOf(f), service, got, want)
				}
				return nil
			}); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// copied is what a region says of the instances of a service, by what the source calls them.
func (c *cluster) copied(service, prefix string) map[string]string {
	c.t.Helper()
	a := c.must(http.MethodGet, c.members[0].url()+"/api/v2/namespaces/default/services/"+service+"/instances?limit=1000", "", http.StatusOK)
	var said struct {
		Instances []struct {
			InstanceID, Status  string
			Endpoints, Metadata json.RawMessage
		}
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		c.t.Fatal(err)
	}
	out := make(map[string]string)
	for _, i := range said.Instances {
		id, of := strings.CutPrefix(i.InstanceID, prefix)
		if !of {
			c.t.Fatalf("%s has %s of %s, which begins with no %q", c.members[0].name(), i.InstanceID, service, prefix)
		}
		out[id] = fmt.Sprintf("%s %s %s", i.Status, i.Endpoints, i.Metadata)
	}
	return out
}

// act has an operator do something with the copy, and again where only a part of it was done in time.
func (c *copyCost) act(f *cluster, action string) {
	c.t.Helper()
	m, tries := f.members[0], 0
	if _, err := process.Within(c.t.Context(), syncTime, action, func() error {
		tries++
		a, err := f.call(c.t.Context(), http.MethodPost, m.urlOf(3)+"/admin/v1/federation/"+action, `{"region":"a"}`, "Authorization", "Bearer "+m.token(c.t))
		if err != nil {
			return err
		}
		return a.want(http.StatusOK)
	}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("%s was done at try %d", action, tries)
}

// resync has one of the followers told all there is anew.
func (c *copyCost) resync() {
	c.t.Helper()
	f, before, began := c.followers[0], c.cost(), time.Now()
	c.act(f, "resync")
	c.untilSynced(f, 2)
	took := time.Since(began)
	c.t.Logf("load average %s; told anew in %v; what it took:", loadAverage(), took.Round(time.Millisecond))
	c.print(before, c.cost(), took)
}

// forget has it forget the source.
func (c *copyCost) forget() {
	c.t.Helper()
	f, before, began := c.followers[0], c.cost(), time.Now()
	c.act(f, "forget")
	answered := time.Since(began)
	_, err := process.Within(c.t.Context(), readyTime, "what is forgotten to be gone", func() error {
		if of := f.copyIn(f.members[0]); of.Instances != 0 {
			return fmt.Errorf("there still are %d instances", of.Instances)
		}
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
	took := time.Since(began)
	c.t.Logf("load average %s; forget was answered after %v, and all was gone after %v; what it took:", loadAverage(), answered.Round(time.Millisecond), took.Round(time.Millisecond))
	c.print(before, c.cost(), took)
}
