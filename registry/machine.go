package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/storage"
)

// A Machine is the replicated state of the registry. One goroutine, the one
// that applies the log, calls Apply, Publish, Install, Lead and Follow; everything
// else may be called from anywhere.
//
// Apply changes the working state only. Publish, called when the entries are in
// the engine, makes the same changes to the published state in one step and
// then tells the watchers. So a reader sees either nothing of a revision or all
// of it, nothing that a crash could take back from under it, and a watcher that
// has been told of a revision finds it when it looks.
type Machine struct {
	engine   *storage.Engine
	log      *slog.Logger
	reader   *reader // used by the goroutine that applies
	ring     *ring
	waker    *waker
	catchUps *catchUps
	history  HistoryBounds
	kept     keptHistory
	leases   *leases
	rota     *rota
	reports  *reports
	views    *views
	metrics  machineMetrics
	barrier  atomic.Pointer[func(context.Context) (Revision, error)] // set by New: what Answer confirms leadership with
	ancient  atomic.Uint64                                           // the revision of the state that was read, if it is from before there was a history
	edition  atomic.Pointer[Edition]                                 // of what is written down of access
	term     atomic.Uint64                                           // of the newest entry published, whoever it was for

	regionInstances int // how many a copy may have; tests make it smaller, like the next
	sweepMost       int // instances of one that one command removes

	working *state   // used by the goroutine that applies, like the next two
	applied Revision // the last entry applied
	pending []change // applied and not yet published

	mu        sync.RWMutex // guards what follows; Publish and Install alone write
	published *state
	revision  Revision
	replaced  uint64 // roughly the bytes of all instances that were published and have been replaced or removed since the start
}

// MachineConfig is what a machine needs.
type MachineConfig struct {
	Engine     *storage.Engine       // required
	Region     string                // where this registry's own instances run
	Logger     *slog.Logger          // nil = none
	Registerer prometheus.Registerer // nil = none
	Now        func() time.Time      // nil = time.Now; the leader's lease clock, never used by Apply
	EventsMax  int                   // how many events are kept in memory for those that watch; who needs older ones has them read from the history. 0 = 65,536
	History    HistoryBounds         // of what is kept of all changes; equal on all members
	ViewID     func() string         // names the views of lists in pages, and never twice alike; nil = at random
}

// An Entry is one committed log entry.
type Entry struct {
	Index Revision
	Term  uint64
	Time  int64 // the leader's clock when it was proposed, Unix ms, never falling
	Data  []byte
}

// OpenMachine reads the state back from the engine.
func OpenMachine(c MachineConfig) (*Machine, error) {
	applied := c.Engine.AppliedIndex()
	at := Revision(applied.Index)
	now := c.Now
	if now == nil {
		now = time.Now
	}
	m := &Machine{
		history: c.History, engine: c.Engine, log: loggerOr(c.Logger), reader: newReader(c.Region),
		ring: newRing(cmp.Or(c.EventsMax, ringEventsMax), ringBytesMax, at), waker: newWaker(at), catchUps: newCatchUps(), leases: newLeases(now), rota: newRota(now), views: &views{now: now, newID: c.ViewID}, metrics: newMachineMetrics(),
		applied: at, revision: at, regionInstances: regionInstancesMax, sweepMost: sweepMax,
	}
	m.reports = newReports(now, func(full string) { m.metrics.reportsForgotten.WithLabelValues(full).Inc() })
	if m.views.newID == nil {
		m.views.newID = rand.Text // nobody can guess the place of another's list
	}
	m.term.Store(applied.Term)
	m.reissue()
	var err error
	if m.working, m.published, err = m.load(); err != nil {
		return nil, fmt.Errorf("read the registry from the engine: %w", err)
	}
	m.noteAncient(m.working, at)
	floor, events, err := m.newest(m.working.history, at)
	if err != nil {
		return nil, fmt.Errorf("read the newest changes from the engine: %w", err)
	}
	m.ring.restart(at, floor, events)
	m.kept.note(m.working.history)
	if err := m.registerMetrics(c.Registerer); err != nil {
		return nil, fmt.Errorf("register the registry's metrics: %w", err)
	}
	m.log.Info("registry loaded", "revision", at, "services", len(m.published.order), "instances", m.published.tally.instances)
	return m, nil
}

func loggerOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// load reads both states.
func (m *Machine) load() (working, published *state, err error) {
	working, published = newState(), newPublishedState()
	working.history = newHistory(m.history)
	loaded := func(c change) {
		working.apply(&c)
		published.apply(&c)
	}
	if err := m.loadDocuments(loaded); err != nil {
		return nil, nil, err
	}
	err = m.scan(storage.ServicePrefix, 2, func(name [][]byte, value []byte) error {
		k := ServiceKey{Namespace: m.reader.share(string(name[0])), Service: m.reader.share(string(name[1]))}
		record, err := m.reader.decodeService(k, value)
		if err != nil {
			return err
		}
		loaded(change{service: k, op: opServicePut, record: record})
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = m.scan(storage.LeasePrefix, 1, func(name [][]byte, value []byte) error {
		lease, err := decodeLease(string(name[0]), value)
		if err != nil {
			return err
		}
		loaded(change{op: opLeasePut, lease: lease})
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = m.scan(storage.InstancePrefix, 3, func(name [][]byte, value []byte) error {
		k := InstanceKey{Namespace: m.reader.share(string(name[0])), Service: m.reader.share(string(name[1])), ID: string(name[2])}
		i, err := m.reader.decodeInstance(k, value)
		if err != nil {
			return err
		}
		if working.services[k.ServiceKey()] == nil {
			return fmt.Errorf("instance %q belongs to service %q in namespace %q, which is not there", k.ID, k.Service, k.Namespace)
		}
		if i.underShared() && working.leases[i.LeaseID] == nil {
			return fmt.Errorf("instance %q of service %q in namespace %q lives under the shared lease %q, which is not there", k.ID, k.Service, k.Namespace, i.LeaseID)
		}
		loaded(change{service: k.ServiceKey(), op: opPut, instance: i})
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := m.loadRegions(working, loaded); err != nil {
		return nil, nil, err
	}
	if err := m.loadHistory(working.history); err != nil {
		return nil, nil, err
	}
	p, err := m.loadProtection()
	if p != nil {
		loaded(change{op: opProtection, protection: p})
	}
	if err != nil {
		return nil, nil, err
	}
	return working, published, m.loadTold(working.told, published.told)
}

func (m *Machine) loadDocuments(loaded func(change)) error {
	err := m.scan(storage.PolicyPrefix, 2, func(name [][]byte, value []byte) error {
		k := ServiceKey{Namespace: m.reader.share(string(name[0])), Service: m.reader.share(string(name[1]))}
		document, err := decodePolicies(k, value)
		loaded(change{service: k, op: opPolicyPut, policy: document})
		return err
	})
	if err != nil {
		return err
	}
	err = m.scan(storage.UpstreamsPrefix, 2, func(name [][]byte, value []byte) error {
		k := ServiceKey{Namespace: m.reader.share(string(name[0])), Service: m.reader.share(string(name[1]))}
		document, err := decodeUpstreams(k, value)
		loaded(change{service: k, op: opUpstreamsPut, upstreams: document})
		return err
	})
	if err != nil {
		return err
	}
	err = m.scan(storage.NamespacePrefix, 1, func(name [][]byte, value []byte) error {
		k := ServiceKey{Namespace: m.reader.share(string(name[0]))}
		document, err := m.reader.decodeNamespaces(k.Namespace, value)
		loaded(change{service: k, op: opNamespacePut, namespace: document})
		return err
	})
	if err != nil {
		return err
	}
	return m.loadAccess(loaded)
}

// loadRegions reads the copies of other regions.
func (m *Machine) loadRegions(working *state, loaded func(change)) error {
	err := m.scan(storage.CursorPrefix, 2, func(name [][]byte, value []byte) error {
		cluster, err := strconv.ParseUint(string(name[1]), 10, 64)
		if err != nil {
			return fmt.Errorf("read the cluster of a region's copy: %w", err)
		}
		region, err := decodeRegion(RegionKey{Region: m.reader.share(string(name[0])), Cluster: cluster}, value)
		if err != nil {
			return err
		}
		loaded(change{op: opRegionPut, region: region})
		return nil
	})
	if err != nil {
		return err
	}
	return m.scan(storage.RegionPrefix, 7, func(name [][]byte, value []byte) error { // region, clusters, cluster, registry, namespace, service, id
		k := InstanceKey{Namespace: m.reader.share(string(name[4])), Service: m.reader.share(string(name[5])), ID: fmt.Sprintf("%s/%s/%s", name[0], name[2], name[6])}
		i, err := m.reader.decodeInstance(k, value)
		if err != nil {
			return err
		}
		if working.services[k.ServiceKey()] == nil {
			return fmt.Errorf("instance %q belongs to service %q in namespace %q, which is not there", k.ID, k.Service, k.Namespace)
		}
		loaded(change{service: k.ServiceKey(), op: opPut, instance: i})
		return nil
	})
}

// loadProtection is that of the whole cluster, nil when there is none.
func (m *Machine) loadProtection() (*ExpiryPause, error) {
	value, found, err := m.engine.Get([]byte(storage.ProtectionKey))
	if err != nil || !found {
		return nil, err
	}
	return m.reader.decodeProtection(value)
}

// scan reads all keys under a prefix, each cut at its slashes.
func (m *Machine) scan(prefix string, parts int, fn func(name [][]byte, value []byte) error) error {
	lo := []byte(prefix)
	return m.engine.Scan(lo, storage.PrefixEnd(lo), func(key, value []byte) error {
		name := bytes.Split(key[len(prefix):], []byte("/"))
		if len(name) != parts {
			return fmt.Errorf("key %q has %d parts after its prefix, not %d", key, len(name), parts)
		}
		return fn(name, value)
	})
}

// Apply applies one entry: to the working state, and as writes to the batch. It
// is deterministic. What it returns is the answer to whoever proposed the entry.
// An entry without data, with which a leader begins its term, changes nothing.
func (m *Machine) Apply(b *storage.Batch, e Entry) []byte {
	if e.Index <= m.applied {
		panic(fmt.Sprintf("registry: apply of entry %d after %d", e.Index, m.applied))
	}
	m.applied = e.Index
	if len(e.Data) == 0 {
		return nil
	}
	t := &step{state: m.working, reader: m.reader, batch: b, entry: e, regionInstances: m.regionInstances, sweepMost: m.sweepMost}
	reply := t.run()
	m.pending = append(m.pending, t.changes...)
	return reply
}

// Publish makes everything up to the revision visible, all at once. The caller
// has put what Apply wrote into the engine.
func (m *Machine) Publish(revision Revision) {
	if revision < m.applied {
		panic(fmt.Sprintf("registry: publish of revision %d, but %d is applied", revision, m.applied))
	}
	m.applied = revision // entries that are not for the registry count too
	m.term.Store(m.engine.AppliedIndex().Term)
	if revision == m.revision {
		return
	}
	access := false
	m.mu.Lock()
	for i := range m.pending {
		m.published.apply(&m.pending[i])
		access = access || m.pending[i].op.isAccess()
		if m.pending[i].op != opHandOut {
			m.replaced += uint64(m.pending[i].previous.bytes())
		}
	}
	m.revision = revision
	replaced := m.replaced
	m.mu.Unlock()
	if access {
		m.reissue()
	}
	m.views.publish(replaced)
	m.leases.published(m.pending)
	events := m.events()
	m.ring.publish(revision, events)
	m.waker.ring(revision, events)
	m.kept.note(m.working.history)
	clear(m.pending) // lets go of the instances
	m.pending = m.pending[:0]
}

// Install takes over the state that the engine has now, another member's of a
// later revision. Readers see all of it at once. What led to it stands in the
// history that came with it: watchers go on, and one that is below its floor gets
// ErrCompacted.
func (m *Machine) Install(revision Revision) error {
	at := m.engine.AppliedIndex()
	if revision <= m.applied || Revision(at.Index) != revision {
		panic(fmt.Sprintf("registry: install of revision %d over %d, with an engine at %d", revision, m.applied, at.Index))
	}
	working, published, err := m.load()
	if err != nil {
		return fmt.Errorf("read the registry of revision %d from the engine: %w", revision, err)
	}
	floor, events, err := m.newest(working.history, revision)
	if err != nil {
		return fmt.Errorf("read the newest changes of revision %d from the engine: %w", revision, err)
	}
	m.working, m.applied = working, revision
	clear(m.pending) // of entries that were applied and never published
	m.pending = m.pending[:0]
	m.term.Store(at.Term)
	m.noteAncient(working, revision)
	left := m.published.bytes() // by this goroutine alone it is changed
	m.mu.Lock()
	m.published, m.revision = published, revision
	m.replaced += left
	replaced := m.replaced
	m.mu.Unlock()
	m.reissue()
	m.views.publish(replaced)
	m.ring.restart(revision, floor, events)
	m.waker.ringAll(revision)
	m.kept.note(working.history)
	m.log.Info("registry installed", "revision", revision, "services", len(published.order), "instances", published.tally.instances)
	return nil
}

func (m *Machine) events() []Event {
	var events []Event
	for i := range m.pending {
		c := &m.pending[i]
		if c.silent {
			continue
		}
		m.metrics.count(c)
		order := 0
		if n := len(events); n > 0 && events[n-1].Revision == c.revision {
			order = events[n-1].Order + 1
		}
		events = append(events, Event{
			Revision: c.revision, Order: order, Kind: c.kind(), Service: c.service, Instance: c.instance, Previous: c.previous, HandedOut: c.handedOut, WasHandedOut: c.wasHandedOut,
		})
	}
	return events
}

func (c *change) kind() EventKind {
	switch c.op {
	case opPut, opHandOut:
		return EventInstancePut
	case opDelete:
		return EventInstanceDelete
	case opServicePut:
		return EventServicePut
	case opPolicyPut:
		return EventPolicy
	case opUpstreamsPut:
		return EventUpstreams
	}
	return EventServiceDelete
}

// Lead begins a term as leader: from now on leases run out here, each after its
// full TTL at the soonest.
func (m *Machine) Lead(term uint64) {
	m.leases.lead(term, m.published)
	m.reports.lead(term)
	m.log.Info("keeping the leases", "term", term, "leases", m.published.tally.instances-m.published.tally.ended)
}

// Follow ends it.
func (m *Machine) Follow() {
	m.leases.follow()
	m.reports.lead(0)
}

// Revision is the newest revision that readers see.
func (m *Machine) Revision() Revision {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}

// Service is a service as it is now; nil when it is unknown. What it returns is
// built at most once after each change, and shared.
func (m *Machine) Service(k ServiceKey) *Service {
	m.mu.RLock()
	defer m.mu.RUnlock()
	svc := m.published.services[k]
	if svc == nil {
		return nil
	}
	return svc.snapshot()
}

// Policy is the policy of a service with its last edits; nil when there never was one.
func (m *Machine) Policy(k ServiceKey) *Document[Policy] {
	d, _ := readDocument(m, policyShelf(k))
	return d
}

// Upstreams is what a service calls, with its last edits; nil when nobody has ever written it down.
func (m *Machine) Upstreams(k ServiceKey) *Document[Upstreams] {
	d, _ := readDocument(m, upstreamsShelf(k))
	return d
}

// ServiceKeys are the services of a namespace, or all for "", sorted.
func (m *Machine) ServiceKeys(namespace string) []ServiceKey {
	m.mu.RLock()
	defer m.mu.RUnlock()
	services := m.published.order
	if namespace != "" {
		services = m.published.prefixed(namespace, "")
	}
	keys := make([]ServiceKey, len(services))
	for i, svc := range services {
		keys[i] = svc.key
	}
	return keys
}

// Watch tells the changes after a revision.
func (m *Machine) Watch(after Revision) *Watch {
	return &Watch{ring: m.ring, older: m.older, after: after}
}

// instance is an instance as readers see it, and the revision of that sight.
func (m *Machine) instance(k InstanceKey) (*Instance, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.published.instance(k), m.revision
}

// handedOut is an instance as callers get it, and the revision of that sight.
func (m *Machine) handedOut(k InstanceKey) (*Instance, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i := m.published.instance(k)
	if svc := m.published.services[k.ServiceKey()]; i != nil && svc.protected() {
		i = svc.snapshot().asHandedOut(i)
	}
	return i, m.revision
}
