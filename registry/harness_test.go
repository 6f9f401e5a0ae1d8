package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// manualClock stands still until it is moved. Its tickers never tick: tests that
// use it call what the loops would call.
type manualClock struct {
	mu  sync.Mutex
	now time.Time
}

func newManualClock() *manualClock {
	return &manualClock{now: time.UnixMilli(1_800_000_000_000)}
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *manualClock) Ticker(time.Duration) (<-chan time.Time, func()) {
	return make(chan time.Time), func() {}
}

// A member is a machine, its engine and its registry, with a log that commits at
// once. It plays the replicator; its faults are switched on by the tests.
type member struct {
	fresh    time.Time // what the log says of how fresh the state is
	tb       testing.TB
	clock    Clock
	fs       vfs.FS
	metrics  prometheus.Registerer // nil = none
	preserve Preservation
	engine   *storage.Engine
	machine  *Machine
	registry *Registry
	reaper   *reaper

	mu       sync.Mutex // guards what follows, and is the goroutine that applies
	log      []Entry
	index    Revision
	term     uint64
	latest   int64    // of the entries' time, which never falls
	holding  bool     // expiries and checkpoints are kept back, their outcome unknown
	held     [][]byte // those kept back
	cut      bool     // nobody confirms a barrier
	deposed  bool     // a barrier is confirmed by a successor
	proposed int
	ids      []string                     // request ids of what was proposed
	spoil    func(requestID string) error // what a proposal ends with in place of its being committed; nil = nothing
}

func newMember(tb testing.TB, clock Clock) *member {
	tb.Helper()
	m := &member{tb: tb, clock: clock, fs: vfs.NewMem()}
	m.open()
	m.lead()
	tb.Cleanup(func() { m.close() })
	return m
}

func (m *member) open() {
	m.tb.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: m.fs, Dir: "state"})
	if err != nil {
		m.tb.Fatalf("open the engine: %v", err)
	}
	machine, err := OpenMachine(MachineConfig{Engine: engine, Region: "here", Now: m.clock.Now, Registerer: m.metrics})
	if err != nil {
		m.tb.Fatalf("open the machine: %v", err)
	}
	m.engine, m.machine = engine, machine
	m.registry = New(Config{Machine: machine, Replicator: m, Clock: m.clock, Preserve: m.preserve})
	m.registry.logged.rest = 0 // what waits for it has a test of its own
	m.reaper = &reaper{machine: machine}
}

func (m *member) close() {
	m.tb.Helper()
	if err := m.engine.Close(); err != nil {
		m.tb.Fatalf("close the engine: %v", err)
	}
}

// run runs the registry's loops until the test ends.
func (m *member) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- m.registry.Run(ctx) }()
	m.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.tb.Errorf("run: %v", err)
		}
	})
}

// carry runs what brings renewals and reports to the leader, until the test ends: the
// other loops are for tests to step.
func (m *member) carry() {
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { m.registry.renewer.run(ctx) })
	loops.Go(func() { m.registry.logged.run(ctx) })
	loops.Go(func() { m.registry.messenger.run(ctx) })
	m.tb.Cleanup(func() {
		cancel()
		loops.Wait()
	})
}

// lead begins a new term with an empty entry, as the log does.
func (m *member) lead() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.term++
	m.deposed = false
	m.commit(nil)
	m.machine.Lead(m.term)
}

// commit applies and publishes one entry; the caller holds mu.
func (m *member) commit(data []byte) Applied {
	m.index++
	m.latest = max(m.latest, m.clock.Now().UnixMilli())
	e := Entry{Index: m.index, Term: m.term, Time: m.latest, Data: data}
	m.log = append(m.log, e)
	reply := applyEntry(m.tb, m.engine, m.machine, e)
	m.machine.Publish(e.Index)
	return Applied{Revision: e.Index, Reply: reply}
}

func applyEntry(tb testing.TB, engine *storage.Engine, machine *Machine, e Entry) []byte {
	b := engine.NewBatch()
	reply := machine.Apply(b, e)
	if err := engine.Apply(b, storage.Position{Index: uint64(e.Index), Term: e.Term}); err != nil {
		tb.Fatalf("apply entry %d to the engine: %v", e.Index, err)
	}
	return reply
}

// logged are the commands in the log, by their kind.
func (m *member) logged() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	kinds := make(map[string]int)
	for _, e := range m.log {
		if len(e.Data) > 0 {
			var c recordv1.Command
			if err := proto.Unmarshal(e.Data, &c); err != nil {
				m.tb.Fatalf("decode entry %d: %v", e.Index, err)
			}
			r := c.ProtoReflect()
			kinds[string(r.WhichOneof(r.Descriptor().Oneofs().ByName("kind")).Name())]++
		}
	}
	return kinds
}

func (m *member) Propose(ctx context.Context, requestID string, command []byte) (Applied, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proposed++
	m.ids = append(m.ids, requestID)
	if m.spoil != nil {
		if err := m.spoil(requestID); err != nil {
			return Applied{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return Applied{}, err
	}
	if m.holding && isLeaders(m.tb, command) {
		m.held = append(m.held, command)
		return Applied{}, ErrUnknownOutcome
	}
	return m.commit(command), nil
}

// isLeaders says that a command is the leader's own, about leases.
func isLeaders(tb testing.TB, b []byte) bool {
	var c recordv1.Command
	if err := proto.Unmarshal(b, &c); err != nil {
		tb.Fatalf("decode a command: %v", err)
	}
	return c.GetExpire() != nil || c.GetCheckpoint() != nil
}

func (m *member) Barrier(context.Context) (Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return 0, ErrNoLeader
	}
	if m.deposed { // confirmed by a successor, whose first entry has been applied here
		m.term++
		m.deposed = false
		m.commit(nil)
	}
	return m.index, nil
}

func (m *member) Fresh() time.Time { return m.fresh }

func (m *member) AskLeader(ctx context.Context, request []byte) ([]byte, error) {
	return m.machine.Answer(ctx, request)
}

// pass lets time go by, with the leader's loops ticking as they would.
func (m *member) pass(clock *manualClock, d time.Duration) {
	for passed := time.Duration(0); passed < d; passed += expiryTick {
		clock.advance(min(expiryTick, d-passed))
		m.registry.expireDue(context.Background())
		if passed%reapTick == 0 {
			m.registry.reapDue(context.Background(), m.reaper)
		}
	}
}

// String is all of an instance, its origin included, by which tests compare it.
func (i Instance) String() string {
	type rest Instance
	origin := *i.Origin
	i.Origin = nil
	return fmt.Sprintf("%+v %+v", origin, rest(i))
}

// String is for the same.
func (i *Imported) String() string { return fmt.Sprintf("%+v", *i) }

// dump is everything that the published state knows, and everything in the engine.
func (m *member) dump() string {
	return dumpState(m.machine.published) + dumpEngine(m.tb, m.engine)
}

func dumpState(s *state) string {
	var out strings.Builder
	for _, p := range s.protections() {
		fmt.Fprintf(&out, "%+v\n", p)
	}
	for _, svc := range s.order {
		fmt.Fprintf(&out, "%s/%s %+v %+v\n", svc.key.Namespace, svc.key.Service, svc.record, svc.tally)
		for _, i := range svc.instances {
			fmt.Fprintf(&out, "  %+v told %+v\n", *i, s.told.of(i))
		}
		fmt.Fprintf(&out, "  policy %x, abroad %+v\n", encodedPolicy(svc.policy), svc.abroad)
	}
	fmt.Fprintf(&out, "%s%s", dumpDocuments(s.policies, encodedPolicy), dumpDocuments(s.documents, encodedNamespace)+dumpDocuments(s.upstreams, encodedUpstreams))
	fmt.Fprintf(&out, "%s%s", dumpDocuments(s.access.roles, encodedRole), dumpDocuments(s.access.bindings, encodedBinding))
	if s.access.begun {
		out.WriteString("there has been a token\n")
	}
	for _, id := range slices.Sorted(maps.Keys(s.access.tokens)) {
		token := *s.access.tokens[id]
		scope := encode(token.Scope.record())
		token.Scope = nil // a pointer
		fmt.Fprintf(&out, "%+v within %x\n", token, scope)
	}
	for _, name := range slices.Sorted(maps.Keys(s.holdings)) {
		fmt.Fprintf(&out, "%s holds %+v\n", name, *s.holdings[name])
	}
	if s.told.term != 0 {
		fmt.Fprintf(&out, "told in term %d: %v of %v, %d overdue, stretched %d and %d\n", s.told.term, s.told.reign, s.told.lived, s.told.late, s.told.stretch, s.told.honoured)
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.imports), RegionKey.compare) {
		fmt.Fprintf(&out, "%+v\n", s.imports[k].shown())
	}
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		fmt.Fprintf(&out, "%+v %v\n", *s.leases[id].record, ids(s.leases[id].members))
	}
	return out.String()
}

func dumpDocuments[K comparable, D any](all documents[K, D], encoded func(*D) []byte) string {
	var lines []string
	for k, d := range all {
		line := fmt.Sprintf("%v", k)
		for _, e := range d.Edits {
			line += fmt.Sprintf(" %d at %d (%d) by %q: %x", e.Version, e.Revision, e.At, e.By, encoded(e.Content))
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// dumpEngine is all that the engine has, the history included.
func dumpEngine(tb testing.TB, e *storage.Engine) string {
	return dumpPresent(tb, e) + dumpKeys(tb, e, storage.EventPrefix, storage.HistoryKey)
}

// dumpPresent is what the engine has of how things are.
func dumpPresent(tb testing.TB, e *storage.Engine) string {
	return dumpKeys(tb, e, storage.ServicePrefix, storage.InstancePrefix, storage.CheckpointPrefix, storage.LeasePrefix, storage.PolicyPrefix, storage.UpstreamsPrefix, storage.NamespacePrefix, storage.ProtectionKey,
		storage.RolePrefix, storage.BindingPrefix, storage.AccessTokenPrefix, storage.AccessBegunKey,
		storage.RegionPrefix, storage.CursorPrefix)
}

func dumpKeys(tb testing.TB, e *storage.Engine, prefixes ...string) string {
	var out strings.Builder
	for _, prefix := range prefixes {
		lo := []byte(prefix)
		err := e.Scan(lo, storage.PrefixEnd(lo), func(key, value []byte) error {
			fmt.Fprintf(&out, "%s = %x\n", key, value)
			return nil
		})
		if err != nil {
			tb.Fatalf("scan the engine: %v", err)
		}
	}
	return out.String()
}

// reg is a registration of one HTTP endpoint.
func reg(namespace, service, id, host string, port int32) Registration {
	return Registration{
		Namespace: namespace, Service: service, ID: id,
		Endpoints: []Endpoint{{Protocol: "http", Host: host, Port: port}},
	}
}

func (m *member) register(r Registration) Result {
	m.tb.Helper()
	result, err := m.registry.Register(context.Background(), "", r)
	if err != nil {
		m.tb.Fatalf("register %s/%s/%s: %v", r.Namespace, r.Service, r.ID, err)
	}
	return result
}

func ref(namespace, service, id string) InstanceRef {
	return InstanceRef{Namespace: namespace, Service: service, ID: id}
}

func ids(instances []*Instance) []string {
	out := []string{}
	for _, i := range instances {
		out = append(out, i.ID)
	}
	return out
}

func mustEqual[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, want %v", what, got, want)
	}
}

func mustEqualSlices[T comparable](t testing.TB, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s is %v, want %v", what, got, want)
	}
}
