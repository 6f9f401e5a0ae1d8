package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// TestMain fails when a stream has left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A region is members with one log.
type region struct {
	tb      testing.TB
	log     *registrytest.Log
	history registry.HistoryBounds
	members []*member

	incarnation string // of the cluster
}

// A member is a machine, its exporter, and a server that a real client calls.
type member struct {
	*registrytest.Member
	region   *region
	registry *registry.Registry
	exporter *Exporter
	metrics  *prometheus.Registry
	conn     *grpc.ClientConn
	listener atomic.Pointer[bufconn.Listener] // another after a restart, of which who dials just then learns
	stop     func()                           // ends what serves; the engine stays
}

// token is what replicators of a region present.
const token = "a token of the tests"

func newRegion(tb testing.TB, members int, history registry.HistoryBounds) *region {
	tb.Helper()
	clock := registrytest.StillClock{}
	r := &region{tb: tb, history: history, incarnation: "cafe", log: registrytest.NewLog(tb, clock.Now)}
	r.log.FreshAt = clock.Now().Add(-1500 * time.Millisecond)
	for range members {
		m := &member{region: r, Member: r.log.NewMember(r.machine())}
		r.members = append(r.members, m)
		m.start(Config{Token: token}, nil)
		tb.Cleanup(func() { m.stop() })
	}
	r.log.Begin()
	return r
}

func (r *region) machine() registry.MachineConfig {
	return registry.MachineConfig{Region: "here", History: r.history, EventsMax: 8}
}

// start serves what the member has; change, if not nil, may change the bounds.
func (m *member) start(c Config, change func(*limits)) {
	tb := m.region.tb
	tb.Helper()
	m.metrics = prometheus.NewRegistry()
	m.registry = registry.New(registry.Config{Machine: m.Machine, Replicator: m, Clock: registrytest.StillClock{}})
	c.Registry, c.Registerer = m.registry, m.metrics
	c.Identity = func() Identity {
		return Identity{Region: "here", ClusterID: 100, Incarnation: m.region.incarnation, FeatureLevel: 1, Member: 2}
	}
	var err error
	if m.exporter, err = NewExporter(c); err != nil {
		tb.Fatalf("make the exporter: %v", err)
	}
	m.exporter.limits.progress = 20 * time.Millisecond // a revision with nothing in it is told by a mark only
	if change != nil {
		change(&m.exporter.limits)
	}
	m.serve()
}

func (m *member) serve() {
	tb := m.region.tb
	ctx, cancel := context.WithCancel(context.Background())
	server, listener := grpc.NewServer(), bufconn.Listen(1<<20)
	m.listener.Store(listener)
	m.exporter.Register(server)
	ended := make(chan error, 2)
	go func() { ended <- m.exporter.Run(ctx) }()
	go func() { ended <- server.Serve(listener) }()
	var err error
	m.conn, err = grpc.NewClient("passthrough:///member", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		tb.Fatal(err)
	}
	m.stop = sync.OnceFunc(func() {
		cancel()
		m.conn.Close()
		server.Stop()
		for range cap(ended) {
			if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it may be stopped before it has begun to serve
				tb.Errorf("a part of the member ended with %v", err)
			}
		}
	})
}

// restart has the member read its state back, with other settings.
func (m *member) restart(c Config, change func(*limits)) {
	m.stop()
	m.Open(m.region.machine())
	m.start(c, change)
}

// put registers an instance of one HTTP endpoint.
func (m *member) put(service, id string, port int) registry.Revision {
	m.region.tb.Helper()
	done, err := m.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "prod", Service: service, ID: id, Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: int32(port)}},
	})
	if err != nil {
		m.region.tb.Fatal(err)
	}
	return done.Revision
}

func (m *member) remove(service, id string) registry.Revision {
	m.region.tb.Helper()
	done, err := m.registry.Deregister(context.Background(), "", registry.InstanceRef{Namespace: "prod", Service: service, ID: id})
	if err != nil {
		m.region.tb.Fatal(err)
	}
	return done.Revision
}

// A replicator follows members by a real client, and keeps what it was told.
type replicator struct {
	tb    testing.TB
	hello *replicationv1.Hello

	stream replicationv1.ReplicationService_FollowClient
	end    context.CancelFunc
	lazy   bool // does not acknowledge

	at       uint64                             // the last cursor of the stream
	has      map[string]*replicationv1.Instance // whole revisions only
	held     []*replicationv1.Change            // of one that is not whole yet
	syncing  map[string]*replicationv1.Instance // nil = it is not told all there is
	reasons  []string                           // why it was
	progress *replicationv1.Progress            // the last
}

func newReplicator(tb testing.TB) *replicator {
	r := &replicator{tb: tb, hello: &replicationv1.Hello{Name: "mirror"}, has: make(map[string]*replicationv1.Instance)}
	tb.Cleanup(r.leave)
	return r
}

// follow begins a stream, with the token.
func (r *replicator) follow(m *member) {
	r.tb.Helper()
	r.leave()
	r.open(m, "Bearer "+token)
}

func (r *replicator) open(m *member, authorization string) {
	r.tb.Helper()
	var ctx context.Context
	ctx, r.end = context.WithTimeout(context.Background(), time.Minute)
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	var err error
	if r.stream, err = replicationv1.NewReplicationServiceClient(m.conn).Follow(ctx); err != nil {
		r.tb.Fatal(err)
	}
	r.at, r.held, r.syncing = 0, nil, nil
	r.say(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Hello{Hello: r.hello}})
}

func withToken() context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
}

// say sends a request; what is wrong with it, or was before, the next receipt tells.
func (r *replicator) say(m *replicationv1.FollowRequest) {
	if err := r.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		r.tb.Errorf("send: %v", err)
	}
}

func (r *replicator) ack(sequence uint64) {
	r.say(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Ack{Ack: &replicationv1.Ack{Sequence: sequence}}})
}

// leave ends the stream, wherever it is.
func (r *replicator) leave() {
	if r.end != nil {
		r.end()
		r.end = nil
	}
}

// receive takes in a response.
func (r *replicator) receive() (*replicationv1.FollowResponse, error) {
	m, err := r.stream.Recv()
	if err != nil {
		return nil, err
	}
	switch k := m.GetKind().(type) {
	case *replicationv1.FollowResponse_Begin:
		r.syncing = make(map[string]*replicationv1.Instance)
		r.reasons = append(r.reasons, strings.ToLower(strings.TrimPrefix(k.Begin.GetReason().String(), "REASON_")))
	case *replicationv1.FollowResponse_Page:
		for _, i := range k.Page.GetInstances() {
			r.syncing[keyOf(i)] = i
		}
	case *replicationv1.FollowResponse_End:
		if int(k.End.GetInstances()) != len(r.syncing) {
			r.tb.Errorf("%d instances were told, and it says %d", len(r.syncing), k.End.GetInstances())
		}
		r.has, r.syncing = r.syncing, nil
		r.take(k.End.GetCursor())
	case *replicationv1.FollowResponse_Changes:
		r.change(k.Changes)
	case *replicationv1.FollowResponse_Progress:
		r.progress = k.Progress
		r.take(k.Progress.GetCursor())
	}
	if !r.lazy {
		r.ack(m.GetSequence())
	}
	return m, nil
}

// change holds changes back until their revision is whole.
func (r *replicator) change(c *replicationv1.Changes) {
	r.held = append(r.held, c.GetChanges()...)
	if c.GetCursor() == nil {
		return
	}
	for _, one := range r.held {
		if one.GetRevision() <= r.hello.GetAfter().GetRevision() || one.GetRevision() > c.GetCursor().GetRevision() {
			r.tb.Errorf("a change of revision %d is told between %d and %d", one.GetRevision(), r.hello.GetAfter().GetRevision(), c.GetCursor().GetRevision())
		}
		if gone := one.GetGone(); gone != nil {
			if was := r.has[keyOf(gone)]; was == nil || !proto.Equal(was.GetRecord().GetSpec(), gone.GetRecord().GetSpec()) {
				r.tb.Errorf("%v is gone, which was %v", gone, was)
			}
			delete(r.has, keyOf(gone))
			continue
		}
		r.has[keyOf(one.GetPut())] = one.GetPut()
	}
	r.held = nil
	r.take(c.GetCursor())
}

// take keeps a cursor, which never goes back within a stream.
func (r *replicator) take(c *replicationv1.Cursor) {
	if c.GetRevision() < r.at {
		r.tb.Errorf("after %d it is told %d", r.at, c.GetRevision())
	}
	r.hello.After, r.at = c, c.GetRevision()
}

// reach takes in what comes until it has come to a revision, whole.
func (r *replicator) reach(at registry.Revision) {
	r.tb.Helper()
	for r.at < uint64(at) || r.syncing != nil {
		if _, err := r.receive(); err != nil {
			r.tb.Fatalf("on the way to revision %d: %v", at, shown(err))
		}
	}
}

// refused is why the stream ends.
func (r *replicator) refused() string {
	r.tb.Helper()
	for {
		if _, err := r.receive(); err != nil {
			return shown(err)
		}
	}
}

func keyOf(i *replicationv1.Instance) string {
	return i.GetNamespace() + "/" + i.GetService() + "/" + i.GetId()
}

// shown is an error with its reason and wrong fields.
func shown(err error) string {
	s := status.Convert(err)
	out := s.Code().String()
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			out += " " + d.GetReason()
		case *errdetails.BadRequest:
			for _, f := range d.GetFieldViolations() {
				out += " " + f.GetField()
			}
		}
	}
	return out
}

// mustMatch compares with what the member has.
func (r *replicator) mustMatch(m *member, of func(*registry.Instance) bool) {
	r.tb.Helper()
	page, err := m.registry.Instances(context.Background(), registry.Query{AllNamespaces: true, Statuses: []string{"any"}}, registry.Paging{})
	if err != nil {
		r.tb.Fatal(err)
	}
	want := make(map[string]string)
	for _, i := range page.Instances {
		if of == nil || of(i) {
			one := instanceTo(i)
			want[keyOf(one)] = inWords(one)
		}
	}
	got := make(map[string]string)
	for k, i := range r.has {
		got[k] = inWords(i)
	}
	if !maps.Equal(got, want) {
		r.tb.Fatalf("at revision %d it has\n%s\nand there is\n%s", page.Revision, lines(got), lines(want))
	}
}

// inWords is all of an instance but what no change tells: a renewal that went through
// the log is none.
func inWords(i *replicationv1.Instance) string {
	same := proto.CloneOf(i)
	same.Record.LastHeartbeatMs, same.Record.Lease = 0, 0
	return fmt.Sprint(same.GetHandedOut(), " ", same.GetRecord())
}

func lines(of map[string]string) string { return strings.Join(slices.Sorted(maps.Values(of)), "\n") }

func mustEqual[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Fatalf("%s is\n%v\nwant\n%v", what, got, want)
	}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	for end := time.Now().Add(20 * time.Second); !is(); <-ticks.C {
		if time.Now().After(end) {
			tb.Fatalf("%s never comes", what)
		}
	}
}
