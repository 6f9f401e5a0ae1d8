package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is members that speak gRPC over loopback in one process.
type cluster struct {
	segmentBytes    int64  // of a log's segment; 0 = the default
	snapshotEntries uint64 // after which a snapshot is due; 0 = the default
	chunk           int64  // of a snapshot that is sent; 0 = the default
	tick            time.Duration
	intercept       grpc.StreamServerInterceptor
	informs         func(id uint64) Answerer // nil = members tell nothing of themselves
	proves          func(ctx context.Context, id uint64) error
	t               testing.TB
	members         []consensus.Member
	addresses       sync.Map // id → address, where it is not the listener's

	mu        sync.Mutex // guards what follows
	listeners map[uint64]net.Listener
}

func newCluster(t testing.TB, size int) *cluster {
	c := &cluster{t: t, tick: 20 * time.Millisecond, listeners: make(map[uint64]net.Listener)}
	for id := range uint64(size) {
		c.listeners[id+1] = listen(t)
		c.members = append(c.members, consensus.Member{ID: id + 1})
	}
	return c
}

// listen opens a port that is there for a member when it comes back.
func listen(t testing.TB) net.Listener {
	t.Helper()
	addresses, err := freeport.Addresses(1)
	if err != nil {
		t.Fatal(err)
	}
	return listenAt(t, addresses[0])
}

func listenAt(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

func (c *cluster) address(id uint64) string {
	if a, ok := c.addresses.Load(id); ok {
		return a.(string)
	}
	return c.listener(id).Addr().String()
}

func (c *cluster) listener(id uint64) net.Listener {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listeners[id]
}

// listen gives a member a port: a new one, or the one that it had when it ran last.
func (c *cluster) listen(id uint64) {
	var l net.Listener
	if old := c.listener(id); old != nil {
		l = listenAt(c.t, old.Addr().String())
	} else {
		l = listen(c.t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners[id] = l
}

// member is one that runs.
type member struct {
	*consensus.Group
	transport *Transport
	metrics   *prometheus.Registry
	machine   *echo
	low       atomic.Bool // its disk is nearly full
	store     *storage.Store
	fs        vfs.FS
	stop      func() error
	ended     chan error
}

// start runs a member with its data on fs until the test ends.
func (c *cluster) start(id uint64, fs vfs.FS) *member { return c.open(id, fs, nil) }

// join runs a member that another one takes in.
func (c *cluster) join(id uint64, via *member) *member {
	c.listen(id)
	return c.open(id, vfs.NewMem(), via)
}

func (c *cluster) open(id uint64, fs vfs.FS, via *member) *member {
	c.t.Helper()
	m := &member{fs: fs, machine: &echo{}, metrics: prometheus.NewRegistry(), ended: make(chan error, 1)}
	must(c.t, fs.MkdirAll("data", 0o700))
	file := consensus.IdentityFile{
		Load:     func() (storage.Identity, bool, error) { return storage.LoadIdentity(fs, "data") },
		Save:     func(i storage.Identity) error { return storage.SaveIdentity(fs, "data", i) },
		Occupied: func() (bool, error) { return storage.HasLogOrState(fs, "data") },
	}
	self := consensus.Member{ID: id, GRPC: c.address(id)}
	identity, err := consensus.Found(file, consensus.Founding{NodeID: id, ClusterID: 100, Members: c.members, Join: via != nil})
	must(c.t, err)
	var joining consensus.Joining
	if via != nil {
		self.UUID = identity.UUID
		joining, err = via.TakeIn(c.t.Context(), self)
		must(c.t, err)
		identity, err = consensus.Join(file, identity, joining)
		must(c.t, err)
	}
	store, err := storage.OpenStore(c.t.Context(), storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: fs, Dir: "data/snapshot"},
		Engine:    storage.EngineOptions{FS: fs, Dir: "data/state"},
		Log:       storage.LogOptions{FS: fs, Dir: "data/wal", Base: consensus.LogBase(identity), Salt: rand.Uint64, SegmentBytes: c.segmentBytes},
	})
	must(c.t, err)
	m.store = store
	m.transport, err = New(Config{Address: c.address, Proves: c.proves, Registerer: m.metrics, Random: rand.Int64N})
	must(c.t, err)
	m.transport.chunk = cmp.Or(c.chunk, snapshotChunkBytes)
	m.Group, err = consensus.Open(consensus.Config{
		ID: id, ClusterID: 100, Members: c.members, Self: self, Joining: joining, Identity: identity, IdentityFile: file, Log: store.Log, Engine: store.Engine,
		Snapshots: store.Snapshots, SnapshotEntries: c.snapshotEntries, LogTail: 1, CompactEvery: 20 * time.Millisecond, FlushEvery: 20 * time.Millisecond,
		Machine: m.machine, Transport: m.transport, Tick: c.tick, CallTimeout: 5 * time.Second, CommitTimeout: 10 * time.Second,
		Low: m.low.Load, CheckEvery: 200 * time.Millisecond,
	})
	must(c.t, err)
	m.transport.Bind(m.Group)
	if c.informs != nil {
		m.transport.Inform(Proxies, c.informs(id))
	}
	m.run(c.t, c.listener(id), c.intercept)
	stop := m.stop
	m.stop = sync.OnceValue(func() error { return errors.Join(stop(), store.Close()) })
	c.t.Cleanup(func() {
		if err := m.stop(); err != nil && !errors.Is(err, consensus.ErrRefused) && !errors.Is(err, consensus.ErrRemoved) {
			c.t.Errorf("member %d ended with: %v", id, err)
		}
	})
	return m
}

// run starts the group, its transport and its server.
func (m *member) run(t testing.TB, l net.Listener, intercept grpc.StreamServerInterceptor) {
	ctx, cancel := context.WithCancel(context.Background())
	options := ServerOptions(nil)
	if intercept != nil {
		options = append(options, grpc.StreamInterceptor(intercept))
	}
	server := grpc.NewServer(options...)
	m.transport.Register(server)
	var all sync.WaitGroup
	all.Go(func() { must(t, m.transport.Run(ctx)) })
	all.Go(func() { must(t, server.Serve(l)) })
	all.Go(func() { m.ended <- m.Run(ctx) })
	m.stop = func() error {
		cancel()
		server.Stop()
		all.Wait()
		return <-m.ended
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// waitMax is how long a test waits for anything.
const waitMax = time.Minute

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(waitMax)
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain: %s", waitMax, what)
		case <-every.C:
		}
	}
}

// echo is a machine that counts and answers with what it got.
type echo struct {
	mu      sync.Mutex // guards what follows
	applied []string
}

func (e *echo) Apply(b *storage.Batch, entry consensus.Entry) []byte {
	if len(entry.Data) > 1<<10 { // what makes a state large
		b.Set(fmt.Appendf(nil, "/large/%d", entry.Index), entry.Data)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.applied = append(e.applied, string(entry.Data[:min(len(entry.Data), 16)]))
	return entry.Data[:min(len(entry.Data), 16)]
}

func (e *echo) Publish(uint64)       {}
func (e *echo) Install(uint64) error { return nil }
func (e *echo) Lead(uint64)          {}
func (e *echo) Follow()              {}

func (e *echo) Answer(_ context.Context, request []byte) ([]byte, error) {
	if string(request) == "bad" {
		return nil, errors.New("no answer to that")
	}
	return fmt.Appendf(nil, "answer to %s", request), nil
}

func (e *echo) all() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.applied, " ")
}

// requests numbers the proposals of all tests.
var requests atomic.Uint64

// propose proposes until it succeeds. Under its request id that does no harm,
// even where a leader that has just ended leaves open what became of it.
func propose(t *testing.T, m *member, data string) consensus.Reply {
	t.Helper()
	id := fmt.Sprintf("request-%d", requests.Add(1))
	for range 20 {
		reply, err := m.Propose(t.Context(), id, []byte(data))
		if err == nil {
			return reply
		}
		if !errors.Is(err, consensus.ErrNoLeader) && !errors.Is(err, consensus.ErrBusy) && !errors.Is(err, consensus.ErrUnknownOutcome) {
			t.Fatalf("propose: %v", err)
		}
	}
	t.Fatal("propose: no leader in 20 tries")
	return consensus.Reply{}
}

// barrier asks until a quorum confirms a leader: it waits for two election time-outs
// only, in which one may just be ending.
func barrier(t *testing.T, m *member) uint64 {
	t.Helper()
	var index uint64
	until(t, "a barrier", func() bool {
		var err error
		index, err = m.Barrier(t.Context())
		if err != nil && !errors.Is(err, consensus.ErrNoLeader) {
			t.Fatalf("barrier: %v", err)
		}
		return err == nil
	})
	return index
}

// metric is the sum of a metric over the labels that the value is asked for.
func (m *member) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := m.metrics.Gather()
	must(t, err)
	sum := 0.0
	for _, f := range families {
		for _, x := range f.GetMetric() {
			for _, l := range x.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					sum += x.GetCounter().GetValue() + x.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

// Three members over real connections: whichever is asked, all apply the same.
func TestThreeMembersReplicate(t *testing.T) {
	c := newCluster(t, 3)
	var members []*member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, c.start(id, vfs.NewMem()))
	}
	var want []string
	last := uint64(0)
	for i := range 30 {
		data := fmt.Sprintf("c%d", i)
		reply := propose(t, members[i%3], data)
		if string(reply.Data) != data || reply.Index <= last {
			t.Fatalf("proposal %d: index %d after %d, reply %q", i, reply.Index, last, reply.Data)
		}
		last = reply.Index
		want = append(want, data)
	}
	for id, m := range members {
		if index := barrier(t, m); index < last {
			t.Fatalf("barrier at member %d: index %d, want %d at least", id+1, index, last)
		}
		if have := m.machine.all(); have != strings.Join(want, " ") {
			t.Errorf("member %d applied %s\nwant %s", id+1, have, strings.Join(want, " "))
		}
		if answer, err := m.Ask(t.Context(), []byte("it")); err != nil || string(answer) != "answer to it" {
			t.Errorf("ask at member %d: %q, %v", id+1, answer, err)
		}
		if _, err := m.Ask(t.Context(), []byte("bad")); err == nil || !strings.Contains(err.Error(), "no answer to that") {
			t.Errorf("ask at member %d: %v, want the machine's error", id+1, err)
		}
	}
	until(t, "the address book is complete", func() bool { return len(members[0].Status().Members) == 3 })
}

// A voter whose data directory was emptied is refused, and is told what to do.
func TestAWipedVoterIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	var members []*member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, c.start(id, vfs.NewMem()))
	}
	propose(t, members[0], "before")
	until(t, "all have met", func() bool { return len(members[2].Status().Members) == 3 })
	must(t, members[2].stop())
	c.listen(3)
	wiped := c.start(3, vfs.NewMem())
	until(t, "the wiped member ends", func() bool { return len(wiped.ended) > 0 })
	err := <-wiped.ended
	wiped.ended <- err
	if !errors.Is(err, consensus.ErrRefused) || !strings.Contains(err.Error(), "stellmapctl member replace --node-id 3 --new-node-id M") {
		t.Errorf("the wiped member ended with: %v", err)
	}
	propose(t, members[0], "after")
}

// A listener that accepts connections and never reads holds up nothing but what
// is meant for it.
func TestAPeerThatNeverReadsHoldsUpNobodyElse(t *testing.T) {
	c := newCluster(t, 3)
	deaf := listen(t)
	var connections sync.WaitGroup
	done := make(chan struct{})
	connections.Go(func() {
		for {
			conn, err := deaf.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { <-done; must(t, conn.Close()) })
		}
	})
	c.addresses.Store(uint64(3), deaf.Addr().String())
	one, two := c.start(1, vfs.NewMem()), c.start(2, vfs.NewMem())
	for i := range 50 {
		propose(t, one, fmt.Sprintf("a%d", i))
		propose(t, two, fmt.Sprintf("b%d", i))
	}
	until(t, "a leader's messages to the deaf peer are dropped and counted", func() bool {
		return slices.ContainsFunc([]*member{one, two}, func(m *member) bool {
			return m.Status().Role == consensus.RoleLeader && m.metric(t, "stellmap_peer_dropped_total", "3") > 0
		})
	})
	must(t, deaf.Close())
	close(done)
	connections.Wait()
}

// Without a connection a call is certain not to have been sent.
func TestForwardToAPeerThatIsNotConnectedWasNotSent(t *testing.T) {
	transport, err := New(Config{Address: func(uint64) string { return "" }})
	must(t, err)
	if _, err := transport.Forward(t.Context(), 2, consensus.ForwardRequest{Kind: consensus.ForwardPropose}); !errors.Is(err, consensus.ErrNotSent) {
		t.Errorf("forward: %v, want ErrNotSent", err)
	}
}

// All members say what their states are, those that follow through the leader.
func TestMembersCompareTheirStates(t *testing.T) {
	c := newCluster(t, 3)
	var members []*member
	for id := range uint64(3) {
		members = append(members, c.start(id+1, vfs.NewMem()))
	}
	written := propose(t, members[0], "a").Index
	for _, m := range members {
		until(t, "all three states are compared and equal", func() bool {
			check := m.Status().Check
			return check.Index > written && len(check.Equal) == 3 && !check.Split
		})
	}
}
