package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/grpcapi"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// TestMain fails when a client has left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hurried is the timing of tests: what is waited for comes soon.
var hurried = timing{
	healthFirst: 2 * time.Second, patience: 50 * time.Millisecond, steady: time.Second,
	retryMin: time.Millisecond, retryMax: 20 * time.Millisecond,
	renewal: time.Second, liveWait: 50 * time.Millisecond, saveEvery: time.Millisecond, hold: time.Hour,
}

// A world is a registry over a log that commits at once, and what answers for it: any
// number of servers, which the test stops and starts.
type world struct {
	tb       testing.TB
	log      *registrytest.Log
	registry *registry.Registry
	options  []grpc.ServerOption // of servers that start

	mu          sync.Mutex // guards what follows
	incarnation string
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	clock := registrytest.StillClock{} // so that no lease runs out
	w := &world{tb: tb, incarnation: "cafe", log: registrytest.NewLog(tb, clock.Now)}
	w.log.FreshAt = clock.Now()
	views := 0
	viewID := func() string { views++; return fmt.Sprintf("view-%d", views) }
	m := w.log.NewMember(registry.MachineConfig{Region: "here", ViewID: viewID})
	w.log.Begin()
	m.Machine.Lead(1)
	w.registry = registry.New(registry.Config{Machine: m.Machine, Replicator: m, Clock: clock})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.registry.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("the registry ended with %v", err)
		}
	})
	return w
}

// set changes what the world plays, safely.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Set(change)
}

// has tells whether an instance of namespace default is registered.
func (w *world) has(service, id string) bool {
	_, found := w.instance(service, id)
	return found
}

func (w *world) instance(service, id string) (*registry.Instance, bool) {
	list, _, err := w.registry.List(context.Background(), registry.Query{Namespace: "default", Services: []string{service}, Statuses: []string{"any"}})
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, i := range list {
		if i.ID == id {
			return i, true
		}
	}
	return nil, false
}

// put registers an instance as another than the client would, without a lease token.
func (w *world) put(service, id, zone string) {
	w.tb.Helper()
	if _, err := w.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "default", Service: service, ID: id, Zone: zone,
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 8080}},
	}); err != nil {
		w.tb.Fatal(err)
	}
}

// remove removes an instance, whoever holds it.
func (w *world) remove(service, id string) {
	w.tb.Helper()
	if _, err := w.registry.Deregister(context.Background(), "", registry.InstanceRef{Namespace: "default", Service: service, ID: id}); err != nil {
		w.tb.Fatal(err)
	}
}

// A server answers for the world at an address of its own.
type server struct {
	world   *world
	address string

	grpc   *grpc.Server
	health *health.Server
	cancel context.CancelFunc
	ended  chan error
}

// serve makes a server and starts it.
func (w *world) serve() *server {
	w.tb.Helper()
	addresses, err := freeport.Addresses(1)
	if err != nil {
		w.tb.Fatal(err)
	}
	s := &server{world: w, address: addresses[0]}
	s.start()
	w.tb.Cleanup(s.stop)
	return s
}

// start has the server answer, at the address that it had before.
func (s *server) start() {
	w := s.world
	w.tb.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		w.tb.Fatal(err)
	}
	api, err := grpcapi.New(grpcapi.Config{Registry: w.registry, CursorHome: func() registry.CursorHome {
		w.mu.Lock()
		defer w.mu.Unlock()
		return registry.CursorHome{Incarnation: w.incarnation, Member: 1}
	}})
	if err != nil {
		w.tb.Fatal(err)
	}
	s.grpc, s.health, s.ended = grpc.NewServer(w.options...), health.NewServer(), make(chan error, 2)
	api.Register(s.grpc)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	s.serving(true)
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	go func() { s.ended <- api.Run(ctx) }()
	go func() { s.ended <- s.grpc.Serve(listener) }()
}

func (s *server) serving(is bool) {
	word := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if is {
		word = grpc_health_v1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(grpcapi.Service, word)
}

// stop ends the server at once, with all its connections.
func (s *server) stop() {
	if s.grpc == nil {
		return
	}
	s.grpc.Stop()
	s.cancel()
	for range cap(s.ended) {
		if err := <-s.ended; err != nil {
			s.world.tb.Errorf("a server ended with %v", err)
		}
	}
	s.grpc = nil
}

// client makes a client of some servers, which the test's end closes.
func (w *world) client(change func(*Config), servers ...*server) *Client {
	w.tb.Helper()
	var config Config
	for _, s := range servers {
		config.Servers = append(config.Servers, s.address)
	}
	if change != nil {
		change(&config)
	}
	if config.Meters == nil {
		config.Meters = &counts{of: make(map[string]*atomic.Int64)}
	}
	config.Logger = slog.New(slog.NewTextHandler(testLog{w.tb}, nil))
	c, err := newClient(config, hurried)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			w.tb.Logf("close the client: %v", err)
		}
	})
	return c
}

// counts is an OpenTelemetry of counters only, by name and outcome.
type counts struct {
	metricnoop.MeterProvider
	mu sync.Mutex
	of map[string]*atomic.Int64
}

func (c *counts) Meter(string, ...metric.MeterOption) metric.Meter { return counting{counts: c} }

type counting struct {
	metricnoop.Meter
	counts *counts
}

func (c counting) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return counter{name: name, counts: c.counts}, nil
}

type counter struct {
	metricnoop.Int64Counter
	name   string
	counts *counts
}

func (c counter) Add(_ context.Context, n int64, options ...metric.AddOption) {
	name := c.name
	attributes := metric.NewAddConfig(options).Attributes()
	if outcome, ok := attributes.Value("outcome"); ok {
		name += " " + outcome.AsString()
	}
	c.counts.get(name).Add(n)
}

func (c *counts) get(name string) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[name] == nil {
		c.of[name] = new(atomic.Int64)
	}
	return c.of[name]
}

// counted is what a counter of the client stands at.
func (c *Client) counted(name string) int64 {
	return c.config.Meters.(*counts).get("stellmap.client." + name).Load()
}

func (c *Client) renewals() int64        { return c.counted("renewals ok") }
func (c *Client) renewalRequests() int64 { return c.counted("renewal.requests") }

type testLog struct{ tb testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.tb.Logf("%s", b)
	return len(b), nil
}

// until waits for a condition.
func until(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for !is() {
		if !pause(ctx, time.Millisecond) {
			tb.Fatalf("waited in vain for %s", what)
		}
	}
}

func mustEqual[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Fatalf("%s is\n%v\nwant\n%v", what, got, want)
	}
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return value
	}
}

// web is a registration of one HTTP endpoint.
func web(service, id string) Registration {
	return Registration{Service: service, ID: id, Endpoints: []Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 8080}}}
}
