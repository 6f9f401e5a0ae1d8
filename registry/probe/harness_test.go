package probe

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// A cluster is one registry over a log that commits at once, with the probers of
// several members. It plays the replicator, and whatever is checked.
type cluster struct {
	tb       testing.TB
	engine   *storage.Engine
	machine  *registry.Machine
	registry *registry.Registry
	probers  map[uint64]*Prober
	now      atomic.Int64 // Unix ms

	mu      sync.Mutex // guards what follows, and is the goroutine that applies
	index   registry.Revision
	fault   error              // what every command ends with
	answers map[string]Outcome // by host
	tried   map[string]int     // by host
}

func newCluster(tb testing.TB) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, probers: make(map[uint64]*Prober), answers: make(map[string]Outcome), tried: make(map[string]int)}
	c.now.Store(1_800_000_000_000)
	var err error
	if c.engine, err = storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"}); err != nil {
		tb.Fatalf("open the engine: %v", err)
	}
	if c.machine, err = registry.OpenMachine(registry.MachineConfig{Engine: c.engine, Region: "here", Now: c.Now}); err != nil {
		tb.Fatalf("open the machine: %v", err)
	}
	c.registry = registry.New(registry.Config{Machine: c.machine, Replicator: c, Clock: c})
	c.commit(nil)
	c.machine.Lead(1)
	tb.Cleanup(func() {
		if err := c.engine.Close(); err != nil {
			tb.Errorf("close the engine: %v", err)
		}
	})
	return c
}

// prober is that of a member, in this thread.
func (c *cluster) prober(member uint64, change func(*Config)) *Prober {
	config := Config{
		Registry: c.registry, Machine: c.machine, Member: member, Clock: c, Threads: inTurn{}, Random: rand.New(rand.NewPCG(member, 1)),
		Try: c.try, Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&config)
	}
	p, err := New(config)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.probers[member] = p
	return p
}

// try answers for the host that is tried.
func (c *cluster) try(_ context.Context, _ registry.Check, e registry.Endpoint) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried[e.Host]++
	if o, ok := c.answers[e.Host]; ok {
		return o
	}
	return passes
}

// pass lets time go by. Members ask and look as often as they do.
func (c *cluster) pass(d time.Duration) {
	ctx := context.Background()
	for passed := tick; passed <= d; passed += tick {
		c.now.Add(tick.Milliseconds())
		for member := range uint64(10) {
			p := c.probers[member]
			if p == nil {
				continue
			}
			if c.now.Load()%askEvery.Milliseconds() == 0 {
				p.ask(ctx)
			}
			p.tick(ctx)
			for batch := p.nextChanges(); len(batch) > 0; batch = p.nextChanges() {
				p.commit(ctx, batch)
			}
		}
	}
}

func (c *cluster) Now() time.Time { return time.UnixMilli(c.now.Load()) }

func (c *cluster) Ticker(time.Duration) (<-chan time.Time, func()) {
	return make(chan time.Time), func() {}
}

// inTurn runs what is begun at once and to its end.
type inTurn struct{}

func (inTurn) Go(_ string, f func()) { f() }
func (inTurn) Park(ready func() bool) {
	if !ready() {
		panic("probe: a test would wait for ever")
	}
}
func (inTurn) WithTimeout(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// commit applies a command as the log does.
func (c *cluster) commit(command []byte) []byte {
	c.index++
	b := c.engine.NewBatch()
	reply := c.machine.Apply(b, registry.Entry{Index: c.index, Term: 1, Time: c.now.Load(), Data: command})
	if err := c.engine.Apply(b, storage.Position{Index: uint64(c.index), Term: 1}); err != nil {
		c.tb.Fatalf("apply: %v", err)
	}
	c.machine.Publish(c.index)
	return reply
}

func (c *cluster) Propose(_ context.Context, _ string, command []byte) (registry.Applied, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		return registry.Applied{}, c.fault
	}
	reply := c.commit(command)
	return registry.Applied{Revision: c.index, Reply: reply}, nil
}

func (c *cluster) Barrier(context.Context) (registry.Revision, error) { return c.index, nil }
func (c *cluster) Fresh() time.Time                                   { return time.Time{} }
func (c *cluster) AskLeader(ctx context.Context, request []byte) ([]byte, error) {
	return c.machine.Answer(ctx, request)
}

// register registers an instance whose only endpoint is its own host.
func (c *cluster) register(id, host string, checks ...registry.Check) {
	c.tb.Helper()
	_, err := c.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "prod", Service: "pay", ID: id, LeaseTTLSeconds: 86_400, Checks: checks,
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: host, Port: 80}},
	})
	if err != nil {
		c.tb.Fatalf("register %s: %v", id, err)
	}
}

func (c *cluster) instance(id string) *registry.Instance {
	return c.machine.Instance(registry.InstanceKey{Namespace: "prod", Service: "pay", ID: id})
}

func mustEqual[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Fatalf("%s is %v, want %v", what, got, want)
	}
}

func critical(reason string) Outcome { return Outcome{Status: registry.StatusCritical, Reason: reason} }
