package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// TestAServerThatGoesIsFound runs all of it as a member does: goroutines, the
// system's clock, HTTP over a socket.
func TestAServerThatGoesIsFound(t *testing.T) {
	c := newCluster(t)
	var broken atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	e := endpointAt(s.Listener.Addr().String())
	e.Protocol = "http"
	_, err := c.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "prod", Service: "pay", ID: "a", LeaseTTLSeconds: 86_400, Endpoints: []registry.Endpoint{e},
		Checks: []registry.Check{{Kind: registry.CheckHTTP, IntervalSeconds: 1, Rise: 1, Fall: 1, Initial: "critical"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The rota goes by the leader's clock, which the test moves.
	p := c.prober(1, func(c *Config) { c.Clock, c.Threads, c.Try, c.Rules = nil, nil, nil, Rules{Home: true} })
	for range rotaFills / askEvery {
		p.ask(context.Background())
		c.now.Add(askEvery.Milliseconds())
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	c.await("a", registry.StatusPassing)
	broken.Store(true)
	c.await("a", registry.StatusCritical)
	said, _ := c.instance("a").Condition(registry.SourceCheck, "http")
	mustEqual(t, "the reason", said.Reason, "status 500 Internal Server Error")
	mustEqual(t, "who says so", said.By, "member 1")
	broken.Store(false)
	c.await("a", registry.StatusPassing)
}

// rotaFills is how long the leader waits until it says who makes checks.
const rotaFills = 2 * time.Second

func (c *cluster) await(id string, want registry.Status) {
	c.tb.Helper()
	watch := c.machine.Watch(c.machine.Revision())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for c.instance(id).Status != want {
		if _, err := watch.Next(ctx); err != nil {
			c.tb.Fatalf("instance %s is %s and not %s: %v", id, c.instance(id).Status, want, err)
		}
	}
}

// TestTriesAreBoundedInNumber shows that what is due while too many are on their
// way waits, is begun in the order of its time, and is counted.
func TestTriesAreBoundedInNumber(t *testing.T) {
	c := newCluster(t)
	begun, release, over := make(chan string), make(chan struct{}), make(chan struct{})
	p := c.prober(1, func(config *Config) {
		config.Threads, config.InFlight = nil, 2
		config.Try = func(_ context.Context, _ registry.Check, e registry.Endpoint) Outcome {
			select {
			case begun <- e.Host:
				<-release
			case <-over:
			}
			return passes
		}
	})
	for n := range 5 {
		c.register(fmt.Sprint("i", n), fmt.Sprint("10.0.0.", n), registry.Check{Kind: registry.CheckTCP, IntervalSeconds: 1})
	}
	hosts := make(map[string]int)
	take := func(n int) {
		for range n {
			hosts[<-begun]++
		}
	}
	c.pass(5 * time.Second) // they are spread over their interval, once it is known who makes them
	take(2)
	mustEqual(t, "the tries on their way", p.inFlight, 2)
	mustEqual(t, "those that wait", len(p.queue), 3)
	if lag := p.metric(t, "lag_seconds"); lag < 1 || lag > 3 {
		t.Fatalf("the lag is %vs", lag)
	}
	for range 3 {
		release <- struct{}{}
		p.awaitOutcome()
		c.pass(tick)
		take(1)
	}
	mustEqual(t, "the hosts that were tried", len(hosts), 5)
	mustEqual(t, "the tries that were late", p.metric(t, "late_total"), 3)
	mustEqual(t, "the tries on their way", p.metric(t, "in_flight"), 2)
	close(release)
	close(over)
	p.tries.Wait()
}

// metric reads one, as who scrapes it does.
func (p *Prober) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := p.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "stellmap_probe_"+name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// awaitOutcome waits until a try has told what it has found.
func (p *Prober) awaitOutcome() {
	for {
		p.mu.Lock()
		n := len(p.outcomes)
		p.mu.Unlock()
		if n > 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// TestATryOfWhatIsGoneCountsForNothing shows an instance that is registered anew,
// elsewhere, while it is tried.
func TestATryOfWhatIsGoneCountsForNothing(t *testing.T) {
	c := newCluster(t)
	check := registry.Check{Kind: registry.CheckTCP, IntervalSeconds: 1, Fall: 1}
	p := c.prober(1, nil)
	moved := false
	p.Try = func(ctx context.Context, check registry.Check, e registry.Endpoint) Outcome {
		if e.Host == "10.0.0.1" {
			c.register("a", "10.0.0.2", check)
			moved = true
			return critical("refused")
		}
		return passes
	}
	c.register("a", "10.0.0.1", check)
	c.pass(6 * time.Second)
	mustEqual(t, "whether it was tried where it was", moved, true)
	mustEqual(t, "its status", c.instance("a").Status, registry.StatusPassing)
	mustEqual(t, "how often it has changed", c.instance("a").Counter, 2)
	mustEqual(t, "the checks that are made", p.metric(t, "targets"), 1)
}

// TestWhatFellBehindIsReadAnew shows that instances which came and went while the
// events of it were lost are checked, and not.
func TestWhatFellBehindIsReadAnew(t *testing.T) {
	c := newCluster(t)
	p := c.prober(1, nil)
	check := registry.Check{Kind: registry.CheckTCP, IntervalSeconds: 1}
	c.register("a", "10.0.0.1", check)
	c.register("b", "10.0.0.2", check)
	c.pass(4 * time.Second)
	c.register("c", "10.0.0.3", check)
	if _, err := c.registry.Deregister(context.Background(), "", registry.InstanceRef{Namespace: "prod", Service: "pay", ID: "a"}); err != nil {
		t.Fatal(err)
	}
	c.register("d", "10.0.0.4") // without a check
	p.readAll(c.Now())          // as after ErrCompacted
	clear(c.tried)
	c.pass(3 * time.Second)
	var hosts []string
	for host := range c.tried {
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	mustEqual(t, "the hosts that are tried", fmt.Sprint(hosts), "[10.0.0.2 10.0.0.3]")
	mustEqual(t, "the checks that are made", p.metric(t, "targets"), 2)
	mustEqual(t, "those in the queue", len(p.queue), 2)
}

// TestReasonsAreCleaned shows that what a server says may be shown: no control
// characters, no bytes that are no text, not too much.
func TestReasonsAreCleaned(t *testing.T) {
	mustEqual(t, "a text", clean("a\x1b[31m\xffb\r\n\u202e€"), "a.[31m.b...€")
	long := clean(string(make([]byte, 10_000)) + "x")
	mustEqual(t, "its length", len(long), reasonBytesMax+3)
}

// TestTheMetricsAreKnown shows that they can be registered once in each registry of metrics.
func TestTheMetricsAreKnown(t *testing.T) {
	p := newCluster(t).prober(1, nil)
	if err := p.metrics.register(p.Registerer); err == nil {
		t.Fatal("they are registered twice")
	}
}
