package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	loadservice "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	statusservice "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	typeurl "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// A Server serves the registry to proxies. Register it with a gRPC server and
// call Run; streams are answered from then on, once this member has caught up.
type Server struct {
	region   string
	caughtUp func(context.Context) error
	now      func() time.Time
	log      *slog.Logger
	limits   limits
	cache    *cache
	metrics  *metrics
	loads    *loads // nil = clients are not asked for them
	accuse   func(context.Context, registry.InstanceRef, registry.Report) (registry.Reported, error)
	stopped  chan struct{} // closed when Run ends
	leaving  chan struct{} // closed when streams are sent away

	age       time.Duration                  // of a stream, about; 0 = any
	turnstile turnstile                      // of streams that begin
	tokens    tokenBox                       // of nodes that begin them
	identify  func(context.Context) Identity // nil = nobody has to prove anything
	pace      int                            // requests a second that are taken from a stream; 0 = any
	passage   passage                        // of large route tables
	random    func() float64
	sleep     func(context.Context, time.Duration) error

	registering error // of the metrics; Run returns it

	mu       sync.Mutex // guards what follows
	streams  map[*stream]struct{}
	numbers  uint64 // given out to streams
	draining bool   // no more streams are taken
}

// Config is what a server needs.
type Config struct {
	Machine     *registry.Machine           // required
	Region      string                      // of proxies that do not name theirs
	Regions     []string                    // in which order they are called, behind a client's own and those that a policy names; the same at all members
	Incarnation func() string               // of the cluster, part of every version; nil = none
	CaughtUp    func(context.Context) error // returns nil once the state here is worth serving; nil = always
	Logger      *slog.Logger                // nil = none
	Registerer  prometheus.Registerer       // nil = none
	Now         func() time.Time            // nil = time.Now

	StreamAge      time.Duration // how long a stream lasts, a third more or less; 0 = as long as it will
	FirstResponses int           // so many streams a second may begin; 0 = any
	Requests       int           // so many requests a second are taken from a stream, answers not counted; 0 = any
	LoadEvery      time.Duration // how often clients report their load; 0 = never, and the service is not offered
	// Report takes what clients' load says of instances, where a policy wants it; nil = they are not asked for it.
	Report func(context.Context, registry.InstanceRef, registry.Report) (registry.Reported, error)
	// Identify gives what a client has proved to be by its certificate. nil = nobody has to prove anything.
	Identify func(context.Context) Identity
	Random   func() float64 // from 0 to 1; nil = math/rand
	Traces   Traces
}

// The bounds of a server.
const (
	namesMax         = 10_000           // subscribed to by one stream, of one type
	responseBytesMax = 4<<20 - 256<<10  // gRPC clients take 4 MiB, envelope included
	holdMax          = 15 * time.Second // one type waits for another no longer
	sendMax          = 30 * time.Second // a client that takes nothing for so long is cut off
	catchUpMax       = 5 * time.Second  // a new stream waits for this member to catch up
)

// limits are the bounds that tests make smaller.
type limits struct {
	hold, send, catchUp     time.Duration
	turn                    time.Duration
	streams, responseBytes  int
	demands                 int // clusters that are remembered of an Envoy which asks on demand
	tablesBytes, tableBytes int
	tableTurn, tableClaim   time.Duration
}

// New makes a server.
func New(c Config) *Server {
	s := &Server{
		region: c.Region, caughtUp: c.CaughtUp, now: c.Now, log: c.Logger,
		limits: limits{
			hold: holdMax, send: sendMax, catchUp: catchUpMax, turn: turnMax, streams: streamsMax, responseBytes: responseBytesMax, demands: namesMax,
			tablesBytes: tablesBytes, tableBytes: tableBytesMin, tableTurn: tableTurn, tableClaim: tableClaim,
		},
		metrics: newMetrics(), stopped: make(chan struct{}), leaving: make(chan struct{}), streams: make(map[*stream]struct{}),
		age: c.StreamAge, turnstile: turnstile{rate: c.FirstResponses}, random: c.Random, pace: c.Requests, sleep: sleep, accuse: c.Report,
		identify: c.Identify, tokens: tokenBox{paid: make(map[string]time.Time)},
	}
	s.passage = passage{server: s, inside: make(map[*stream]*turn)}
	if s.random == nil {
		s.random = draw
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.caughtUp == nil {
		s.caughtUp = func(context.Context) error { return nil }
	}
	incarnation := c.Incarnation
	if incarnation == nil {
		incarnation = func() string { return "" }
	}
	s.cache = newCache(c.Machine, incarnation, s.metrics)
	s.cache.order = c.Regions
	s.cache.tracing = newTracing(c.Traces, incarnation, s.now, s.metrics)
	if c.LoadEvery > 0 {
		s.loads = newLoads(c.LoadEvery, s.metrics, s.now)
	}
	s.cache.loadWanted = s.loads != nil
	s.registering = s.metrics.register(c.Registerer, s.rejectedNow, s.loads)
	return s
}

// Register adds the aggregated service and the separate ones.
func (s *Server) Register(g *grpc.Server) {
	server := serverv3.NewServerAdvanced(fetcher{}, s, s)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server)
	clusterservice.RegisterClusterDiscoveryServiceServer(g, server)
	endpointservice.RegisterEndpointDiscoveryServiceServer(g, server)
	listenerservice.RegisterListenerDiscoveryServiceServer(g, server)
	routeservice.RegisterRouteDiscoveryServiceServer(g, server)
	statusservice.RegisterClientStatusDiscoveryServiceServer(g, clientStatus{server: s})
	if s.loads != nil {
		loadservice.RegisterLoadReportingServiceServer(g, loadService{server: s})
	}
}

// Run follows the registry until the context ends; then it ends all streams.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.stopped)
	if s.registering != nil {
		return s.registering
	}
	within, cancel := context.WithCancel(ctx)
	var rights sync.WaitGroup
	rights.Go(func() { s.followRights(within) })
	defer rights.Wait()
	defer cancel()
	return s.cache.follow(ctx, s.now)
}

// Withheld is what is registered and not shown to proxies, with the reasons,
// found out when it is asked for.
func (s *Server) Withheld(ctx context.Context) []Withheld { return s.cache.withheld(ctx, s.region) }

// WithheldOf is the same for one service.
func (s *Server) WithheldOf(ctx context.Context, k registry.ServiceKey) []Withheld {
	service := s.cache.machine.Service(k)
	if service == nil {
		return nil
	}
	return s.cache.withheldOf(ctx, service, s.region)
}

// StreamHandler serves state of the world. The gRPC services call it.
func (s *Server) StreamHandler(g streamv3.Stream, url string) error {
	return s.serve(g, wholeWire{g}, url, false)
}

// DeltaStreamHandler serves deltas. The gRPC services call it.
func (s *Server) DeltaStreamHandler(g streamv3.DeltaStream, url string) error {
	return s.serve(g, deltaWire{g}, url, true)
}

// fetcher answers requests over REST, which proxies of this registry never make.
type fetcher struct{}

func (fetcher) Fetch(context.Context, *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return nil, status.Error(codes.Unimplemented, "use a stream: resources are not served one request at a time")
}

func (s *Server) serve(g grpc.ServerStream, w wire, url string, delta bool) error {
	str := &stream{server: s, party: s.partyOf(g.Context()), delta: delta, pace: pace{rate: s.pace}, wire: w, connected: s.now(), wakeup: make(chan struct{}, 1), sentAway: make(chan struct{})}
	if p, ok := peer.FromContext(g.Context()); ok && p.Addr != nil {
		str.peer = p.Addr.String()
	}
	if url != typeurl.AnyType {
		t, ok := typeOf(url)
		if !ok {
			return status.Errorf(codes.Unimplemented, "resources of type %s are not served", url)
		}
		str.only = &t
	}
	if err := s.admit(str); err != nil {
		return err
	}
	defer s.dismiss(str)
	err := str.run(g.Context())
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	level := slog.LevelInfo
	if status.Code(err) == codes.Canceled { // the client has gone
		level = slog.LevelDebug
	}
	s.log.Log(g.Context(), level, "xds stream ended", "node", str.name(), "peer", str.peer, "error", err)
	return err
}

func (s *stream) name() string {
	if s.node == nil {
		return ""
	}
	return s.node.id
}

func (s *Server) delivered(r *response) {
	s.metrics.responses[r.typ].Add(1)
	s.metrics.resources[r.typ].Add(uint64(len(r.entries)))
	if r.size > s.limits.responseBytes {
		s.metrics.oversized[r.typ].Add(1)
	}
}

func (s *Server) accepted(r *response) {
	s.metrics.acks[r.typ].Add(1)
	if !r.since.IsZero() {
		s.metrics.changeToACK[r.typ].Observe(s.now().Sub(r.since).Seconds())
	}
}

func (s *Server) rejected(b *subscription, p *response, reason string) {
	s.metrics.nacks[b.typ].Add(1)
	s.log.Warn("a proxy has rejected a response", "node", b.stream.name(), "type", b.typ.String(), "resource", p.suspected(),
		"revision", p.revision, "resources", len(p.entries), "new", len(p.fresh), "reason", clip(reason))
}

// suspected is the one resource that a client can have meant; of several it is found by halves, and logged then.
func (r *response) suspected() string {
	if len(r.fresh) == 1 {
		return r.fresh[0].name
	}
	return ""
}

// reasonBytesMax bounds what is kept of a client's words: Envoy may quote a whole resource.
const reasonBytesMax = 1024

func clip(reason string) string {
	if len(reason) <= reasonBytesMax {
		return reason
	}
	return fmt.Sprintf("%s... (%d bytes)", reason[:reasonBytesMax], len(reason))
}

func formatRevision(r registry.Revision) string { return strconv.FormatUint(uint64(r), 10) }

// identify tells the client by which revision it was answered.
func identify(r *response) *corev3.ControlPlane {
	return &corev3.ControlPlane{Identifier: "stellmap@" + formatRevision(r.revision)}
}
