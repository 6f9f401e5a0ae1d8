package federation

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// A simCluster is the members of a region from its founding until it is rebuilt. Their
// log stands in for consensus: it has one order, which a member may be behind.
type simCluster struct {
	region      *simRegion
	incarnation string
	truth       *truth
	members     []*simMember

	mu      sync.Mutex // guards what follows
	entries []registry.Entry
	replies [][]byte // of the entries
	leader  int      // of the members: by its clock entries are stamped
	stuck   bool     // there is no quorum
	loose   bool     // answers to proposals get lost, and some commit late
}

// A simMember is a member as a process runs it: the registry, the exporter and the
// importer.
type simMember struct {
	cluster *simCluster
	number  int
	engine  *storage.Engine
	leads   atomic.Bool // as it believes
	skew    atomic.Int64
	fresh   atomic.Int64 // Unix ns by its clock: when the last round that was answered had begun; 0 = none was

	machine  *registry.Machine
	registry *registry.Registry
	service  *service
	exports  int // of simSelections, as the next; as they are in this process
	wants    map[string]int
	importer *Importer
	end      context.CancelFunc
	running  sync.WaitGroup

	dice dice

	up, behind bool // the cluster's mu guards these, and the next two
	applied    int
	moved      chan struct{} // closed when that changes
}

// Dice fall by what they are thrown for, and when: so it does not matter which of two
// goroutines throws them first.
type dice struct{ seed, of uint64 }

func (d dice) throw(what string) uint64 {
	b := binary.LittleEndian.AppendUint64([]byte(what), d.seed)
	b = binary.LittleEndian.AppendUint64(b, d.of)
	return xxhash.Sum64(binary.LittleEndian.AppendUint64(b, uint64(time.Now().UnixNano())))
}

func (d dice) between(lo, hi time.Duration, what string) time.Duration {
	return lo + time.Duration(d.throw(what)%uint64(hi-lo+1))
}

func (d dice) chance(p float64, what string) bool {
	return float64(d.throw(what)>>11)/(1<<53) < p
}

// found makes a region's next cluster, whose revisions begin after some empty entries.
func (r *simRegion) found(members, empty int) *simCluster {
	w := r.world
	r.founded++
	c := &simCluster{region: r, incarnation: fmt.Sprintf("%s%d", r.name, r.founded)}
	c.truth = &truth{incarnation: c.incarnation, order: r.founded}
	r.mu.Lock()
	r.truths[c.incarnation] = c.truth
	r.mu.Unlock()
	for n := range members {
		engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
		if err != nil {
			w.t.Fatal(err)
		}
		m := &simMember{cluster: c, number: n, engine: engine, moved: make(chan struct{}), dice: dice{w.Seed, 1<<32 | uint64(r.number)<<24 | uint64(r.founded)<<8 | uint64(n)}}
		m.skew.Store(int64(w.newSkew()))
		c.members = append(c.members, m)
	}
	c.members[0].leads.Store(true)
	for _, m := range c.members {
		m.start()
	}
	for range 1 + empty {
		c.commit(nil)
	}
	return c
}

// Now is the member's clock.
func (m *simMember) Now() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }

// Ticker never ticks: no lease runs out.
func (m *simMember) Ticker(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }

// start opens what the member has, as a process does.
func (m *simMember) start() {
	r := m.cluster.region
	w := r.world
	var err error
	m.machine, err = registry.OpenMachine(registry.MachineConfig{
		Engine: m.engine, Region: r.name, Now: m.Now, EventsMax: w.RingEvents, History: registry.HistoryBounds{Events: w.HistoryEvents},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	m.registry = registry.New(registry.Config{Machine: m.machine, Replicator: m, Clock: m})
	identity := func() Identity {
		return Identity{Region: r.name, ClusterID: r.id, Incarnation: m.cluster.incarnation, FeatureLevel: 1, Member: uint64(m.number + 1)}
	}
	exporter, err := NewExporter(Config{Registry: m.registry, Identity: identity, Token: token, Exports: w.exported(r.exports)})
	if err != nil {
		w.t.Fatal(err)
	}
	exporter.limits.pageInstances, exporter.limits.windowRevisions = w.PageInstances, w.WindowRevisions
	m.service, m.exports = &service{exporter: exporter}, r.exports
	if m.importer, err = NewImporter(ImporterConfig{Registry: m.registry, Identity: identity, Leads: m.leads.Load, Sources: r.sources()}); err != nil {
		w.t.Fatal(err)
	}
	m.importer.reach = m.reach
	m.wants = make(map[string]int)
	for name, l := range r.links {
		m.wants[name] = l.wants
	}
	m.importer.jitter = func(most time.Duration) time.Duration { return m.dice.between(0, most, "jitter") }
	ctx, cancel := context.WithCancel(context.Background())
	m.end = cancel
	m.running.Go(func() { w.must(exporter.Run(ctx)) })
	m.running.Go(func() { w.must(m.importer.Run(ctx)) })
	m.cluster.set(func() { m.up = true; m.catchUp() })
}

// stop ends the process; its disk stays.
func (m *simMember) stop() {
	m.cluster.set(func() { m.up = false })
	m.end()
	m.running.Wait()
}

func (c *simCluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// end ends all of its processes for good.
func (c *simCluster) end() {
	for _, m := range c.members {
		m.stop()
		c.region.world.must(m.engine.Close())
	}
}

// commit puts an entry into the log. The leader has it at once, the others in a moment.
func (c *simCluster) commit(data []byte, ops ...simOp) (index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, stamp := c.region.world, int64(0)
	if n := len(c.entries); n > 0 {
		stamp = c.entries[n-1].Time
	}
	index = len(c.entries) + 1
	c.entries = append(c.entries, registry.Entry{Index: registry.Revision(index), Term: 1, Time: max(stamp, c.members[c.leader].Now().UnixMilli()), Data: data})
	c.replies = append(c.replies, nil)
	for _, op := range ops {
		c.truth.add(registry.Revision(index), op, w.now())
	}
	first := c.first()
	for _, m := range c.members {
		if m == first {
			m.catchUp()
			continue
		}
		time.AfterFunc(m.dice.between(time.Millisecond, 20*time.Millisecond, fmt.Sprint(index)), func() { c.set(m.catchUp) })
	}
	if first != nil && len(data) > 0 {
		w.checkEntry(first, c.entries[index-1])
	}
	return index
}

// first is the member that has all entries.
func (c *simCluster) first() *simMember {
	if m := c.members[c.leader]; m.up && !m.behind {
		return m
	}
	for _, m := range c.members {
		if m.up && !m.behind {
			return m
		}
	}
	return nil
}

// anybody says whether an entry can be applied at all.
func (c *simCluster) anybody() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first() != nil
}

// catchUp applies what there is; the caller holds the cluster's mu.
func (m *simMember) catchUp() {
	if !m.up || m.behind || m.applied == len(m.cluster.entries) {
		return
	}
	for ; m.applied < len(m.cluster.entries); m.applied++ {
		e := m.cluster.entries[m.applied]
		b := m.engine.NewBatch()
		m.cluster.replies[m.applied] = m.machine.Apply(b, e)
		m.cluster.region.world.must(m.engine.Apply(b, storage.Position{Index: uint64(e.Index), Term: 1}))
	}
	m.machine.Publish(registry.Revision(m.applied)) // once, so that nobody is told of it in the midst
	close(m.moved)
	m.moved = make(chan struct{})
}

// reached waits until the member has an entry.
func (m *simMember) reached(ctx context.Context, index int) ([]byte, error) {
	for {
		m.cluster.mu.Lock()
		applied, moved, reply := m.applied, m.moved, []byte(nil)
		if index > 0 {
			reply = m.cluster.replies[index-1]
		}
		m.cluster.mu.Unlock()
		if applied >= index {
			return reply, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, registry.ErrUnknownOutcome
		}
	}
}

// The times of the log.
const (
	forwardMin, forwardMax = 200 * time.Microsecond, 5 * time.Millisecond
	leaderTimeout          = time.Second // for a leader to be found
	lateMax                = 4 * time.Second
)

// opsKey is under which a context has what its proposal does, for the model.
type opsKey struct{}

// Propose has a command committed, unless the answer is lost, or comes late.
func (m *simMember) Propose(ctx context.Context, _ string, command []byte) (registry.Applied, error) {
	c := m.cluster
	ops, _ := ctx.Value(opsKey{}).([]simOp)
	what := string(command)
	if ctx.Err() != nil {
		return registry.Applied{}, ctx.Err()
	}
	if !rest(ctx, m.dice.between(forwardMin, forwardMax, what)) { // it is on its way, and nobody waits for it
		if m.dice.chance(0.5, "on its way"+what) {
			c.commitLate(m.dice.between(0, forwardMax, "commits"+what), command, ops)
		}
		return registry.Applied{}, registry.ErrUnknownOutcome
	}
	c.mu.Lock()
	alone, loose := c.stuck || m.behind || !m.up || c.first() == nil, c.loose
	c.mu.Unlock()
	switch {
	case alone:
		rest(ctx, leaderTimeout)
		return registry.Applied{}, registry.ErrNoLeader
	case loose && m.dice.chance(0.1, "late"+what): // and its sender has gone on meanwhile
		c.commitLate(m.dice.between(0, lateMax, "commits"+what), command, ops)
		rest(ctx, m.dice.between(0, lateMax, "answers"+what))
		return registry.Applied{}, registry.ErrUnknownOutcome
	case loose && m.dice.chance(0.1, "lost"+what):
		c.commit(command, ops...)
		c.region.world.count("an answer is lost")
		return registry.Applied{}, registry.ErrUnknownOutcome
	}
	index := c.commit(command, ops...)
	reply, err := m.reached(ctx, index)
	return registry.Applied{Revision: registry.Revision(index), Reply: reply}, err
}

// commitLate commits what nobody waits for any more, if there is still anybody who can.
func (c *simCluster) commitLate(after time.Duration, command []byte, ops []simOp) {
	time.AfterFunc(after, func() {
		if c.region.cluster() == c && c.anybody() {
			c.region.world.count("a command commits late")
			c.commit(command, ops...)
		}
	})
}

// Barrier is a round of the leader's.
func (m *simMember) Barrier(ctx context.Context) (registry.Revision, error) {
	c, began := m.cluster, m.Now().UnixNano()
	rest(ctx, m.dice.between(forwardMin, forwardMax, "round"))
	c.mu.Lock()
	alone, index := c.stuck || m.behind || c.first() == nil, len(c.entries)
	c.mu.Unlock()
	if alone {
		rest(ctx, leaderTimeout)
		return 0, registry.ErrNoLeader
	}
	_, err := m.reached(ctx, index)
	if err == nil {
		m.fresh.Store(began)
	}
	return registry.Revision(index), err
}

// Fresh is not known without a round.
func (m *simMember) Fresh() time.Time {
	if at := m.fresh.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// AskLeader has nobody to ask: there are no leases.
func (m *simMember) AskLeader(context.Context, []byte) ([]byte, error) {
	return nil, registry.ErrNoLeader
}

// lead has a member lead. The one before may believe for a while that it still does.
func (c *simCluster) lead(n int, doubt time.Duration) {
	c.set(func() { c.leader = n })
	for other, m := range c.members {
		if other == n {
			m.leads.Store(true)
			continue
		}
		time.AfterFunc(doubt, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.leader != other {
				m.leads.Store(false)
			}
		})
	}
}
