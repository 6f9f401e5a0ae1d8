package xds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

const patience = 20 * time.Second // with which tests wait for what must happen

// A member is a registry whose log commits at once, and an xDS server on it.
type member struct {
	tb       testing.TB
	engine   *storage.Engine
	machine  *registry.Machine
	registry *registry.Registry
	server   *Server
	listener *bufconn.Listener
	conn     *grpc.ClientConn
	stop     context.CancelFunc // of the server's Run
	people   people
	by       string // who opens streams

	mu    sync.Mutex // the goroutine that applies
	index registry.Revision
	ahead time.Duration // of the log's time
}

// newMember starts all of it; setup may change the server before it serves.
func newMember(tb testing.TB, setup func(*Config, *limits)) *member {
	tb.Helper()
	m := newRegistry(tb)
	config := Config{Machine: m.machine, Region: "here", Incarnation: func() string { return "i1" }}
	bounds := New(config).limits
	bounds.hold, bounds.catchUp = time.Hour, time.Hour // nothing happens by the passing of time, unless a test says so
	if setup != nil {
		setup(&config, &bounds)
	}
	m.server = New(config)
	m.server.limits = bounds
	m.serve()
	return m
}

func newRegistry(tb testing.TB) *member {
	tb.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		tb.Fatalf("open the engine: %v", err)
	}
	machine, err := registry.OpenMachine(registry.MachineConfig{Engine: engine, Region: "here", EventsMax: 1 << 16, History: registry.HistoryBounds{Events: 1 << 16}})
	if err != nil {
		tb.Fatalf("open the machine: %v", err)
	}
	m := &member{tb: tb, engine: engine, machine: machine}
	m.registry = registry.New(registry.Config{Machine: machine, Replicator: m})
	m.commit(nil)
	tb.Cleanup(func() {
		if err := engine.Close(); err != nil {
			tb.Errorf("close the engine: %v", err)
		}
	})
	return m
}

func (m *member) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	ran := make(chan error, 1)
	go func() { ran <- m.server.Run(ctx) }()
	g := grpc.NewServer(grpc.StreamInterceptor(m.people.ofStream), grpc.UnaryInterceptor(m.people.ofCall))
	m.server.Register(g)
	m.listener = bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- g.Serve(m.listener) }()
	m.conn = m.dial()
	m.tb.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			m.tb.Errorf("run: %v", err)
		}
		g.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // the test was over before it began to serve
			m.tb.Errorf("serve: %v", err)
		}
	})
}

func (m *member) dial() *grpc.ClientConn {
	m.tb.Helper()
	conn, err := grpc.NewClient("passthrough:///member", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.listener.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		m.tb.Fatalf("dial: %v", err)
	}
	m.tb.Cleanup(func() {
		if err := conn.Close(); err != nil {
			m.tb.Errorf("close the connection: %v", err)
		}
	})
	return conn
}

// commit applies and publishes one entry.
func (m *member) commit(data []byte) registry.Applied {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	b := m.engine.NewBatch()
	reply := m.machine.Apply(b, registry.Entry{Index: m.index, Term: 1, Time: time.Now().Add(m.ahead).UnixMilli(), Data: data})
	if err := m.engine.Apply(b, storage.Position{Index: uint64(m.index), Term: 1}); err != nil {
		m.tb.Fatalf("apply: %v", err)
	}
	m.machine.Publish(m.index)
	return registry.Applied{Revision: m.index, Reply: reply}
}

func (m *member) Propose(_ context.Context, _ string, command []byte) (registry.Applied, error) {
	return m.commit(command), nil
}

func (m *member) Barrier(context.Context) (registry.Revision, error) {
	return m.machine.Revision(), nil
}

func (m *member) Fresh() time.Time { return time.Time{} }

func (m *member) AskLeader(ctx context.Context, request []byte) ([]byte, error) {
	return m.machine.Answer(ctx, request)
}

// add registers an instance of a service of namespace prod, at an address made of a number.
func (m *member) add(service string, n int, endpoints ...registry.Endpoint) {
	m.tb.Helper()
	if len(endpoints) == 0 {
		endpoints = []registry.Endpoint{{Protocol: "http", Host: addressOf(n), Port: 80}}
	}
	m.register(registry.Registration{Namespace: "prod", Service: service, ID: fmt.Sprint(n), Endpoints: endpoints})
}

func (m *member) register(r registry.Registration) {
	m.tb.Helper()
	if _, err := m.registry.Register(context.Background(), "", r); err != nil {
		m.tb.Fatalf("register %s/%s: %v", r.Service, r.ID, err)
	}
}

func (m *member) drop(service string, n int) {
	m.tb.Helper()
	ref := registry.InstanceRef{Namespace: "prod", Service: service, ID: fmt.Sprint(n)}
	if _, err := m.registry.Deregister(context.Background(), "", ref); err != nil {
		m.tb.Fatalf("deregister %s/%d: %v", service, n, err)
	}
}

// remove takes a service with its last instance away for good.
func (m *member) remove(service string, n int) {
	m.tb.Helper()
	m.drop(service, n)
	m.reap("prod", service)
}

// reap takes a service without instances away, a day later.
func (m *member) reap(namespace, service string) {
	m.tb.Helper()
	m.mu.Lock()
	m.ahead += 25 * time.Hour
	m.mu.Unlock()
	reap := &recordv1.Reap{Services: []*recordv1.ServiceKey{{Namespace: namespace, Service: service}}}
	command, err := proto.Marshal(&recordv1.Command{Format: 1, Kind: &recordv1.Command_Reap{Reap: reap}})
	if err != nil {
		m.tb.Fatal(err)
	}
	m.commit(command)
	if m.machine.Service(registry.ServiceKey{Namespace: namespace, Service: service}) != nil {
		m.tb.Fatalf("service %s is still there", service)
	}
}

// settled waits until the streams have been told of everything committed.
func (m *member) settled() {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.server.cache.await(ctx, m.machine.Revision()); err != nil {
		m.tb.Fatalf("the follower is at %d of %d", m.server.cache.revision(), m.machine.Revision())
	}
}

func addressOf(n int) string { return fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255) }

// nodeOf is an Envoy in a namespace; metadata come in pairs.
func nodeOf(tb testing.TB, metadata ...any) *corev3.Node {
	tb.Helper()
	fields := map[string]any{metadataNamespace: "prod"}
	for i := 0; i < len(metadata); i += 2 {
		fields[metadata[i].(string)] = metadata[i+1]
	}
	s, err := structpb.NewStruct(fields)
	if err != nil {
		tb.Fatal(err)
	}
	return &corev3.Node{Id: "web-1", UserAgentName: "envoy", Metadata: s}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	if !comesTrue(ok) {
		tb.Fatalf("it never came true that %s", what)
	}
}

// comesTrue looks again and again, for as long as tests wait.
func comesTrue(ok func() bool) bool {
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-again.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// received is what comes from a stream, in turn.
type received[M any] struct {
	messages chan M
	ended    chan error
}

func receive[M any](recv func() (M, error)) received[M] {
	r := received[M]{messages: make(chan M, 4096), ended: make(chan error, 1)}
	go func() {
		for {
			m, err := recv()
			if err != nil {
				r.ended <- err
				close(r.messages)
				return
			}
			r.messages <- m
		}
	}()
	return r
}

func (r received[M]) next(tb testing.TB) M {
	tb.Helper()
	select {
	case m, ok := <-r.messages:
		if !ok {
			tb.Fatalf("the stream has ended: %v", <-r.ended)
		}
		return m
	case <-time.After(patience):
		tb.Fatal("no response")
		panic("unreachable")
	}
}

// end waits for the stream's error.
func (r received[M]) end(tb testing.TB) error {
	tb.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		tb.Fatal("the stream does not end")
		panic("unreachable")
	}
}

// deltaClient is a client of the incremental protocol. It does what it is told only.
type deltaClient struct {
	tb     testing.TB
	node   *corev3.Node // sent with the first request
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	received[*discoveryv3.DeltaDiscoveryResponse]
}

func (m *member) delta(node *corev3.Node) *deltaClient {
	m.tb.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(m.conn).DeltaAggregatedResources(m.outgoing())
	if err != nil {
		m.tb.Fatal(err)
	}
	return &deltaClient{tb: m.tb, node: node, stream: stream, received: receive(stream.Recv)}
}

func (c *deltaClient) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.tb.Helper()
	r.Node, c.node = c.node, nil
	if err := c.stream.Send(r); err != nil {
		c.tb.Fatalf("send: %v", err)
	}
}

func (c *deltaClient) subscribe(t resourceType, names ...string) {
	c.tb.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[t], ResourceNamesSubscribe: names})
}

func (c *deltaClient) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	c.tb.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}

func (c *deltaClient) nack(r *discoveryv3.DeltaDiscoveryResponse, reason string) {
	c.tb.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce, ErrorDetail: statusOf(reason)})
}

// wants says what the next response must be: its type, then each resource, and
// each one removed behind a minus.
func (c *deltaClient) wants(t resourceType, want ...string) *discoveryv3.DeltaDiscoveryResponse {
	c.tb.Helper()
	r := c.next(c.tb)
	got := []string{}
	for _, res := range r.Resources {
		got = append(got, res.Name)
	}
	for _, name := range r.RemovedResources {
		got = append(got, "-"+name)
	}
	if r.TypeUrl != typeURLs[t] || fmt.Sprint(got) != fmt.Sprint(want) {
		c.tb.Fatalf("the next response is %s %v, want %s %v", r.TypeUrl, got, t, want)
	}
	return r
}

// quiet says that nothing more is on its way: the answer to a name that does
// not exist is the next response.
func (c *deltaClient) quiet() {
	c.tb.Helper()
	c.subscribe(typeListener, "no-such-listener")
	c.ack(c.wants(typeListener, "-no-such-listener"))
}

func statusOf(reason string) *statuspb.Status { return &statuspb.Status{Code: 3, Message: reason} }
