package e2e

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/client"
	"github.com/stellmap/stellmap/internal/process"
)

var downTime = flag.Duration("down", 5*time.Second, "for how long all servers of a client, or of Envoys, are down")

// sdk makes a client of all members, which the test's end closes. By then they may be
// gone, so that nothing is deregistered.
func (c *cluster) sdk(dir string) *client.Client {
	c.t.Helper()
	config := client.Config{Zone: "z1", Dir: dir, KeepOnClose: true}
	for _, m := range c.members {
		config.Servers, config.TLS = append(config.Servers, m.address(1)), m.trust
	}
	made, err := client.New(config)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := made.Close(); err != nil {
			c.t.Logf("close a client: %v", err)
		}
	})
	return made
}

// keep registers an instance of orders and has the client keep it.
func keep(t *testing.T, at *client.Client, id string, ttl time.Duration) *client.Registered {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTime)
	defer cancel()
	kept, err := at.Register(ctx, client.Registration{
		Service: "orders", ID: id, Zone: "z1", TTL: ttl,
		Endpoints: []client.Endpoint{{Protocol: "http", Host: "127.0.0.1", Port: 9000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// A caller picks all the time, and follows what it is told.
type caller struct {
	orders *client.Service
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	picked  int
	failed  []error
	gone    []string // instances that were told to have vanished
	worse   []string // and those that were told not to be passing any more
	stalest time.Duration
}

// callOrders begins to call.
func callOrders(t *testing.T, at *client.Client) *caller {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTime)
	defer cancel()
	orders, err := at.Discover(ctx, client.Query{Service: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{orders: orders}
	ctx, c.cancel = context.WithCancel(t.Context())
	c.group.Go(func() { c.pick(ctx) })
	c.group.Go(func() { c.follow(ctx) })
	t.Cleanup(c.stop)
	return c
}

func (c *caller) stop() {
	c.cancel()
	c.group.Wait()
}

func (c *caller) pick(ctx context.Context) {
	picker := c.orders.Picker(client.PickFrom{Endpoint: "http"})
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		_, err := picker.Pick()
		c.mu.Lock()
		c.picked++
		if err != nil && len(c.failed) < 10 {
			c.failed = append(c.failed, err)
		}
		c.stalest = max(c.stalest, c.orders.Age())
		c.mu.Unlock()
	}
}

func (c *caller) follow(ctx context.Context) {
	var before client.Snapshot
	for latest := range c.orders.Updates(ctx) {
		c.mu.Lock()
		for _, change := range client.Changes(before, latest) {
			switch {
			case change.After == nil:
				c.gone = append(c.gone, change.Before.ID)
			case change.After.Status != client.Passing:
				c.worse = append(c.worse, fmt.Sprint(change.After.ID, " ", change.After.Status))
			}
		}
		c.mu.Unlock()
		before = latest
	}
}

// mustHaveServed ends the calls: none has failed, and of the instances that were there all
// the time none has ever been told to be gone or worse.
func (c *caller) mustHaveServed(t *testing.T, but ...string) {
	t.Helper()
	c.stop()
	unexpected := func(all []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(but, s) })
	}
	t.Logf("%d picks; stale for %v at most; gone: %v, worse: %v", c.picked, c.stalest.Round(time.Millisecond), c.gone, c.worse)
	if len(c.failed) > 0 || c.picked == 0 {
		t.Errorf("of %d picks some failed: %v", c.picked, c.failed)
	}
	if gone, worse := unexpected(c.gone), unexpected(c.worse); len(gone)+len(worse) > 0 {
		t.Errorf("told to be gone: %v, or worse: %v, which were there all the time", gone, worse)
	}
}

// mustKnow waits until the caller is current and knows so many instances, with that one.
func (c *caller) mustKnow(t *testing.T, count int, id string) {
	t.Helper()
	if _, err := process.Within(t.Context(), readyTime, "the caller to be current", func() error {
		now := c.orders.Snapshot()
		if now.Stale || len(now.Instances) != count || !slices.ContainsFunc(now.Instances, func(i *client.Instance) bool { return i.ID == id }) {
			return fmt.Errorf("it knows %d instances, stale: %v (%v)", len(now.Instances), now.Stale, c.orders.Err())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// All servers are killed and stay away: who calls orders goes on with what is known, and
// once they are back, what is kept registered is there as before, without a moment in
// which it was told to be gone, and what has really changed is told.
func TestAClientServesWhileAllServersAreDown(t *testing.T) {
	c := newCluster(t, 3)
	const size = 50
	provider, leaver := c.sdk(""), c.sdk("")
	for n := range size {
		keep(t, provider, fmt.Sprint("o-", n), 10*time.Second)
	}
	gone := keep(t, leaver, "leaver", 10*time.Second)
	first := callOrders(t, c.sdk(""))
	first.mustKnow(t, size+1, "leaver")
	dir := t.TempDir()
	before := c.sdk(dir) // a process that stops, and leaves what it knew
	callOrders(t, before).mustKnow(t, size+1, "leaver")
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}

	c.kill(c.members...)
	down := time.After(*downTime)
	if _, err := process.Within(t.Context(), readyTime, "the caller to know that it is stale", func() error {
		if !first.orders.Snapshot().Stale {
			return fmt.Errorf("it is not")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	second := callOrders(t, c.sdk(dir)) // it starts again meanwhile, and serves from what was saved
	if known := second.orders.Snapshot(); !known.Stale || len(known.Instances) != size+1 {
		t.Fatalf("a client that starts while all are down knows %d instances, stale: %v", len(known.Instances), known.Stale)
	}
	<-down
	for _, m := range c.members {
		c.start(m)
	}
	c.mustBeReady()
	ctx, cancel := context.WithTimeout(t.Context(), readyTime)
	defer cancel()
	if err := gone.Deregister(ctx); err != nil {
		t.Fatal(err)
	}
	keep(t, provider, "new", 10*time.Second)
	for _, who := range []*caller{first, second} {
		who.mustKnow(t, size+1, "new")
		who.mustHaveServed(t, "leaver")
	}
}

// One member after the other is killed, the leader and the one that a client is at among
// them: leases of three seconds are kept, and every change is told.
func TestAClientGoesOnWhenMembersAreKilled(t *testing.T) {
	c := newCluster(t, 3)
	provider := c.sdk("")
	const size = 20
	for n := range size {
		keep(t, provider, fmt.Sprint("o-", n), 3*time.Second)
	}
	first := callOrders(t, c.sdk(""))
	known := size
	for round := range 3 {
		victim := c.members[round]
		if round == 1 { // whoever it is
			victim = c.leader(c.members...)
		}
		c.kill(victim)
		id := fmt.Sprint("after-", round)
		keep(t, provider, id, 3*time.Second)
		known++
		first.mustKnow(t, known, id)
		c.start(victim)
		c.mustBeReady()
	}
	first.mustHaveServed(t)
}
