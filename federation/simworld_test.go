package federation

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/stellmap/stellmap/registry"
)

// A world is regions that follow each other, with the product's exporters, importers and
// registries, in a time of its own (testing/synctest). What the network and the logs do,
// and when, is the seed's to say. Each thing happens at an instant of its own, so that
// one seed is one schedule, though goroutines have no order.
type world struct {
	options
	t       *testing.T
	dice    *rand.Rand // of the goroutine that makes the faults
	began   time.Time
	regions []*simRegion
	copies  []*simCopy
	tasks   sync.WaitGroup // writes and operators under way

	mu       sync.Mutex // guards what follows
	failed   error
	fired    map[string]int
	told     bool
	story    []string
	policies map[string]simPolicy // by what sources call them
	trace    uint64               // of all instants up to the last
	instant  time.Duration
	together uint64 // of what has happened in the last: it has no order
}

// options are what a seed expands to first.
type options struct {
	Seed            uint64
	Shape           string // who follows whom
	Members         []int  // of each region
	Keys            int    // instances that a region may have
	Big             bool   // 10,000 of them, and few faults
	HistoryEvents   int    // that each region keeps; 0 = as many as ever
	RingEvents      int
	PageInstances   int
	WindowRevisions int
	WriteEvery      time.Duration
	FaultEvery      time.Duration
	Faulty          time.Duration
	Quiet           time.Duration // after that, before there are some more faults
	Skewed          bool          // clocks are up to an hour wrong
}

var shapes = map[string][][2]int{ // who follows whom
	"one":    {{1, 0}},
	"mutual": {{0, 1}, {1, 0}},
	"ring":   {{1, 0}, {2, 1}, {0, 2}},
	"mesh":   {{0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}},
}

// bigEvery is how many schedules there are for one with 10,000 instances.
const bigEvery = 250

func newOptions(seed uint64) options {
	dice := rand.New(rand.NewPCG(seed, 0))
	o := options{
		Seed: seed, Shape: []string{"one", "one", "mutual", "mutual", "ring", "mesh"}[dice.IntN(6)],
		Keys: 1 + dice.IntN(30), PageInstances: pageInstancesMax, WindowRevisions: windowRevisionsMax,
		WriteEvery: time.Duration(50+dice.IntN(1000)) * time.Millisecond,
		FaultEvery: time.Duration(500+dice.IntN(4000)) * time.Millisecond,
		Faulty:     time.Duration(10+dice.IntN(50)) * time.Second,
		Skewed:     dice.IntN(2) == 0,
	}
	for range 3 {
		o.Members = append(o.Members, 1+dice.IntN(2))
	}
	if dice.IntN(2) == 0 {
		o.HistoryEvents, o.RingEvents = 1+dice.IntN(30), 1+dice.IntN(30)
	}
	if dice.IntN(2) == 0 {
		o.PageInstances = 1 + dice.IntN(4)
	}
	if dice.IntN(3) == 0 {
		o.WindowRevisions = 1 + dice.IntN(8)
	}
	if dice.IntN(10) == 0 {
		o.Quiet = heldLong
	}
	if seed%bigEvery == 0 {
		o.Big, o.Shape, o.Keys, o.HistoryEvents, o.PageInstances, o.WindowRevisions = true, "one", 10_000, 100, pageInstancesMax, windowRevisionsMax
		o.Faulty, o.Quiet = 20*time.Second, 0
	}
	return o
}

// heldLong is enough for what is held to go by itself.
const heldLong = registry.HeldSweepMax + 2*time.Minute

// A simRegion is a region, whatever its cluster is at the time.
type simRegion struct {
	world   *world
	number  int
	name    string
	id      uint64
	founded int
	now     atomic.Pointer[simCluster]
	links   map[string]*simLink // to those that it follows
	copies  map[string]*simCopy
	value   int // the last that was written
	exports int // of simSelections

	mu     sync.Mutex // guards what follows
	truths map[string]*truth
}

func newWorld(t *testing.T, seed uint64, told bool) *world {
	w := &world{options: newOptions(seed), t: t, told: told, began: time.Now(), fired: make(map[string]int), policies: make(map[string]simPolicy)}
	w.dice = rand.New(rand.NewPCG(seed, 1))
	pairs, count := shapes[w.Shape], 0
	for _, p := range pairs {
		count = max(count, p[0]+1, p[1]+1)
	}
	for n := range count {
		w.regions = append(w.regions, &simRegion{
			world: w, number: n, name: string(rune('a' + n)), id: uint64(100 * (n + 1)),
			links: make(map[string]*simLink), copies: make(map[string]*simCopy), truths: make(map[string]*truth),
		})
	}
	for _, p := range pairs {
		in, of := w.regions[p[0]], w.regions[p[1]]
		in.links[of.name] = newSimLink(w, in, of)
		c := &simCopy{in: in, of: of}
		in.copies[of.name] = c
		w.copies = append(w.copies, c)
	}
	for _, r := range w.regions {
		r.now.Store(r.found(w.Members[r.number], w.dice.IntN(5)))
		r.fill(w.dice.IntN(w.Keys + 1))
	}
	return w
}

func (r *simRegion) cluster() *simCluster { return r.now.Load() }
func (r *simRegion) members() []*simMember {
	if c := r.cluster(); c != nil {
		return c.members
	}
	return nil
}

// sources are those that the region follows, in the order of their names.
func (r *simRegion) sources() (out []Source) {
	for _, of := range r.world.regions {
		if r.links[of.name] == nil {
			continue
		}
		one := Source{Region: of.name, ClusterID: of.id, Token: token, Wanted: r.world.selected(r.links[of.name].wants)}
		for n := range r.world.Members[of.number] {
			one.Addresses = append(one.Addresses, fmt.Sprint(n))
		}
		out = append(out, one)
	}
	return out
}

// truthOf is what was committed in a cluster of the region; nil = there is none.
func (r *simRegion) truthOf(incarnation string) *truth {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.truths[incarnation]
}

// newest is the last revision of a cluster at which something was written.
func (r *simRegion) newest(t *truth) registry.Revision {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.events) == 0 {
		return 0
	}
	return t.events[len(t.events)-1].revision
}

func (m *simMember) isUp() bool {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	return m.up
}

// simNamespaces are two, with three services each.
func (r *simRegion) keyAt(n int) simKey {
	return simKey{fmt.Sprint("n", n%2), fmt.Sprint("s", n%3), fmt.Sprint("i", n)}
}

func (r *simRegion) newValue() string {
	r.value++
	return fmt.Sprintf("%s-%d", r.name, r.value)
}

// fill puts the first instances of a region, at once. Where its log refuses that, it has none.
func (r *simRegion) fill(count int) {
	if r.world.Big {
		count = r.world.Keys
	}
	var ops []simOp
	for n := range count {
		ops = append(ops, simOp{r.keyAt(n), r.newValue()})
	}
	r.write(r.members()[0], ops)
}

// batchOps is what one command has.
const batchOps = 100

// write puts or removes instances, as many as a command may have at once.
func (r *simRegion) write(m *simMember, ops []simOp) {
	for len(ops) > 0 {
		some := ops[:min(len(ops), batchOps)]
		ops = ops[len(some):]
		var items []registry.BatchItem
		for _, op := range some {
			items = append(items, op.item())
		}
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), opsKey{}, some), commitTimeout)
		_, err := m.registry.Batch(ctx, "", items)
		cancel()
		r.world.must(err)
	}
}

func (op simOp) item() registry.BatchItem {
	if op.value == "" {
		return registry.BatchItem{Deregister: &registry.InstanceRef{Namespace: op.key.namespace, Service: op.key.service, ID: op.key.id}}
	}
	return registry.BatchItem{Register: &registry.Registration{
		Namespace: op.key.namespace, Service: op.key.service, ID: op.key.id, Version: op.value, Labels: map[string]string{"tier": tierOf(op.value)},
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}},
	}}
}

func (w *world) now() time.Duration { return time.Since(w.began) }

// pass lets so much of the world's time pass.
func (w *world) pass(d time.Duration) { rest(context.Background(), d) }

// newSkew is how wrong a clock is.
func (w *world) newSkew() time.Duration {
	if !w.Skewed {
		return 0
	}
	return w.between(-time.Hour, time.Hour)
}

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.dice.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.dice.Float64() < p }

func (w *world) must(err error) {
	if err != nil {
		w.fail("it does not work: %w", err)
	}
}

// fail notes a violation; the first one counts.
func (w *world) fail(format string, args ...any) {
	w.tell("VIOLATION: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
	}
}

func (w *world) hasFailed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed != nil
}

func (w *world) count(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fired[kind]++
}

// note puts something into the trace, by which two runs are compared.
func (w *world) note(what string, numbers ...uint64) {
	b := []byte(what)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if now != w.instant {
		w.close()
		w.instant = now
	}
	w.together += xxhash.Sum64(b)
}

// close ends an instant; the caller holds mu.
func (w *world) close() {
	b := binary.LittleEndian.AppendUint64(nil, w.trace)
	b = binary.LittleEndian.AppendUint64(b, w.together)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.instant))
	w.trace, w.together = xxhash.Sum64(b), 0
}

// tell is for people.
func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told {
		line := strings.ReplaceAll(format, "%w", "%v")
		w.story = append(w.story, fmt.Sprintf("%9.4fs  ", w.now().Seconds())+fmt.Sprintf(line, args...))
	}
}
