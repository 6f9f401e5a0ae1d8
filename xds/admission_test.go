package xds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func mustEnd(t *testing.T, err error, code codes.Code, words string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), words) {
		t.Errorf("the stream ended with %v, want %v and %q", err, code, words)
	}
}

// Metadata that cannot be understood is refused, and the answer names the field.
func TestBadNodesAreRefused(t *testing.T) {
	m := newMember(t, nil)
	for name, c := range map[string]struct {
		node  *corev3.Node
		words string
	}{
		"no node":              {nil, "node: "},
		"namespace a number":   {nodeOf(t, metadataNamespace, 7), metadataNamespace},
		"namespace with a dot": {nodeOf(t, metadataNamespace, "a.b"), metadataNamespace},
		"service a list":       {nodeOf(t, metadataService, []any{"a"}), metadataService},
		"port zero":            {nodeOf(t, metadataEgressPort, 0), metadataEgressPort},
		"port a fraction":      {nodeOf(t, metadataEgressPort, 80.5), metadataEgressPort},
		"port a word":          {nodeOf(t, metadataEgressPort, "http"), metadataEgressPort},
		"upstream without dot": {nodeOf(t, metadataUpstreams, "orders"), metadataUpstreams},
		"upstream all":         {nodeOf(t, metadataUpstreams, []any{"*"}), metadataUpstreams},
		"upstream half star":   {nodeOf(t, metadataUpstreams, []any{"or*.prod"}), metadataUpstreams},
		"upstream a number":    {nodeOf(t, metadataUpstreams, []any{7}), metadataUpstreams},
		"upstreams a number":   {nodeOf(t, metadataUpstreams, 7), metadataUpstreams},
		"id too long":          {&corev3.Node{Id: strings.Repeat("x", nodeTextMax+1)}, "node.id: has 1025 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := m.delta(c.node)
			d.subscribe(typeCluster)
			mustEnd(t, d.end(t), codes.InvalidArgument, c.words)
		})
	}
}

// What a node says of itself decides what it sees.
func TestNodesSeeTheirUpstreams(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	for name, c := range map[string]struct {
		upstreams any
		want      []string
	}{
		"a list":             {[]any{"Orders.prod"}, []string{"orders.prod"}},
		"a string":           {" orders.prod , ledger.prod", []string{"ledger.prod", "orders.prod"}},
		"a namespace":        {"*.prod", []string{"ledger.prod", "orders.prod"}},
		"both, once":         {"*.prod,orders.prod", []string{"ledger.prod", "orders.prod"}},
		"an empty namespace": {"*.test", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := m.delta(nodeOf(t, metadataUpstreams, c.upstreams, metadataEgressPort, "15009"))
			d.subscribe(typeCluster)
			d.ack(d.wants(typeCluster, c.want...))
			d.subscribe(typeCluster, "ledger.prod") // by name whatever the scope
			d.wants(typeCluster, "ledger.prod")
			if err := d.stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
		})
	}
	eventually(t, "all scopes are forgotten with their streams", func() bool {
		m.server.cache.mu.RLock()
		defer m.server.cache.mu.RUnlock()
		return len(m.server.cache.scopes.byKey)+len(m.server.cache.scopes.byNamespace)+len(m.server.cache.scopes.byName) == 0
	})
}

// A stream is not answered before this member has caught up, and is sent away
// when that takes too long: what it would be told might be nothing.
// Time is the bubble's: it takes too long only for the stream that waits in vain.
func TestStreamsWaitUntilTheMemberHasCaughtUp(t *testing.T) {
	synctest.Test(t, testStreamsWaitUntilTheMemberHasCaughtUp)
}

func testStreamsWaitUntilTheMemberHasCaughtUp(t *testing.T) {
	caught := make(chan struct{})
	wait := func(ctx context.Context) error {
		select {
		case <-caught:
			return nil
		case <-ctx.Done():
			return errors.New("no leader")
		}
	}
	m := newMember(t, func(c *Config, l *limits) { c.CaughtUp, l.catchUp = wait, 30*time.Millisecond })
	m.add("orders", 1)
	early := m.delta(nodeOf(t))
	early.subscribe(typeCluster)
	mustEnd(t, early.end(t), codes.Unavailable, "no leader")
	close(caught)
	late := m.delta(nodeOf(t))
	late.subscribe(typeCluster)
	late.wants(typeCluster, "orders.prod")
}

// A client that has seen a later revision than this member is sent away rather
// than back in time.
func TestStreamsNeverGoBack(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.catchUp = 30 * time.Millisecond })
	m.add("orders", 1)
	delta := m.delta(nodeOf(t))
	delta.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeCluster],
		InitialResourceVersions: map[string]string{"orders.prod": deltaVersion(7, 1000, "i1")}})
	mustEnd(t, delta.end(t), codes.Unavailable, "revision")
	whole := m.whole(nodeOf(t))
	whole.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeCluster], VersionInfo: wholeVersion("i1", 1000, 7)})
	mustEnd(t, whole.end(t), codes.Unavailable, "revision")
	other := m.whole(nodeOf(t))
	other.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeCluster], VersionInfo: wholeVersion("i0", 1000, 7)})
	other.wants(typeCluster, "orders.prod")
}

// Above the cap a stream is refused, so that the proxy tries another member; one
// that ends makes room.
func TestStreamsAboveTheCapAreRefused(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.streams = 1 })
	first := m.delta(nodeOf(t))
	first.subscribe(typeCluster)
	first.wants(typeCluster)
	second := m.delta(nodeOf(t))
	mustEnd(t, second.end(t), codes.ResourceExhausted, "1 streams")
	if err := first.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first stream has made room", func() bool { return m.server.metrics.streams.Load() == 0 })
	third := m.delta(nodeOf(t))
	third.subscribe(typeCluster)
	third.wants(typeCluster)
}

// A subscription to too many names is refused with the limit.
func TestTooManyNamesAreRefused(t *testing.T) {
	m := newMember(t, nil)
	names := make([]string, namesMax+1)
	for i := range names {
		names[i] = fmt.Sprint("s", i)
	}
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, names...)
	mustEnd(t, c.end(t), codes.ResourceExhausted, fmt.Sprint(namesMax))
	eventually(t, "nothing is left of it", func() bool {
		m.server.cache.mu.RLock()
		defer m.server.cache.mu.RUnlock()
		return len(m.server.cache.resources) == 0 && len(m.server.cache.byCluster) == 0
	})
}

// A client that takes nothing is cut off; nobody waits for it.
func TestStreamsThatTakeNothingAreCut(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.send = 50 * time.Millisecond })
	blocked := &blockedWire{requests: make(chan *request, 1), ended: make(chan struct{})}
	blocked.requests <- &request{typeURL: typeURLs[typeCluster], node: nodeOf(t)}
	s := &stream{server: m.server, delta: true, wire: blocked, wakeup: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	err := s.run(ctx)
	cancel()
	close(blocked.ended)
	mustEnd(t, err, codes.DeadlineExceeded, "taken no response")
	if m.server.metrics.cut.Load() != 1 {
		t.Error("it is not counted")
	}
}

type blockedWire struct {
	requests chan *request
	ended    chan struct{}
}

func (w *blockedWire) receive() (*request, error) {
	select {
	case r := <-w.requests:
		return r, nil
	case <-w.ended:
		return nil, context.Canceled
	}
}

func (w *blockedWire) send(*response) error {
	<-w.ended
	return context.Canceled
}

// The separate services serve their own type and refuse the others.
func TestSeparateStreams(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	clusters, err := clusterservice.NewClusterDiscoveryServiceClient(m.conn).DeltaClusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := clusters.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf(t)}); err != nil {
		t.Fatal(err)
	}
	if r, err := clusters.Recv(); err != nil || len(r.Resources) != 1 || r.Resources[0].Name != "orders.prod" {
		t.Errorf("clusters: %v %v", r, err)
	}
	endpoints, err := endpointservice.NewEndpointDiscoveryServiceClient(m.conn).StreamEndpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := endpoints.Send(&discoveryv3.DiscoveryRequest{Node: nodeOf(t), ResourceNames: []string{"orders.prod"}}); err != nil {
		t.Fatal(err)
	}
	if r, err := endpoints.Recv(); err != nil || len(r.Resources) != 1 {
		t.Errorf("endpoints: %v %v", r, err)
	}
	if err := endpoints.Send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeCluster]}); err != nil {
		t.Fatal(err)
	}
	_, err = endpoints.Recv()
	mustEnd(t, err, codes.InvalidArgument, "type_url")
}

// A clock stands still until a test moves it.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time           { return time.Unix(0, c.at.Load()) }
func (c *clock) forward(by time.Duration) { c.at.Add(int64(by)) }

// Streams that begin together do not reach their age together.
func TestAgesAreDrawn(t *testing.T) {
	begin := newClock().now()
	for drawn, want := range map[float64]time.Duration{0: 20 * time.Minute, 0.5: 30 * time.Minute, 1: 40 * time.Minute} {
		s := New(Config{StreamAge: 30 * time.Minute, Random: func() float64 { return drawn }})
		if got := s.endOf(begin).Sub(begin).Round(time.Second); got != want {
			t.Errorf("of %v: %v, want %v", drawn, got, want)
		}
	}
	if end := New(Config{}).endOf(begin); !end.IsZero() {
		t.Errorf("without an age a stream ends at %v", end)
	}
}

// A stream that has reached its age ends when its client has answered everything, so
// that nothing has to be told to it again; one that does not answer ends a while later.
func TestAStreamOfItsAgeEndsBetweenTwoAnswers(t *testing.T) {
	clock := newClock()
	m := newMember(t, func(c *Config, _ *limits) {
		c.Now, c.StreamAge, c.Random = clock.now, 30*time.Minute, func() float64 { return 0.5 }
	})
	m.add("orders", 1)
	answers, silent := m.delta(nodeOf(t)), m.delta(nodeOf(t))
	for _, c := range []*deltaClient{answers, silent} {
		c.subscribe(typeEndpoints, "orders.prod")
		c.ack(c.wants(typeEndpoints, "orders.prod"))
		c.quiet()
	}
	clock.forward(30*time.Minute - time.Second)
	m.add("orders", 2)
	last := answers.wants(typeEndpoints, "orders.prod")
	silent.wants(typeEndpoints, "orders.prod")
	clock.forward(2 * time.Second)
	answers.subscribe(typeEndpoints, "ledger.prod") // it asks for more before it answers
	answers.ack(last)
	answers.ack(answers.wants(typeEndpoints, "-ledger.prod"))
	mustEnd(t, answers.end(t), codes.Unavailable, "age")
	if n := m.server.metrics.aged.Load(); n != 1 {
		t.Errorf("%d streams have ended for their age, want the one that has answered", n)
	}
	clock.forward(ageGrace)
	silent.subscribe(typeEndpoints, "ledger.prod") // anything that has it look at the clock
	mustEnd(t, silent.end(t), codes.Unavailable, "age")
}

// So many streams a second begin; those above wait for their turn, or are sent to another
// member. What a stream is sent after that, and what it answers, counts against nothing.
func TestOnlyTheBeginningOfAStreamCounts(t *testing.T) {
	clock := newClock()
	m := newMember(t, func(c *Config, l *limits) { c.Now, c.FirstResponses, l.turn = clock.now, 2, time.Second })
	waited := make(chan time.Duration, 10)
	m.server.sleep = func(_ context.Context, d time.Duration) error { waited <- d; return nil }
	m.add("orders", 1)
	begin := func() *deltaClient {
		c := m.delta(nodeOf(t))
		c.subscribe(typeEndpoints, "orders.prod")
		return c
	}
	var clients []*deltaClient
	for range 4 { // two at once, two that wait
		c := begin()
		c.ack(c.wants(typeEndpoints, "orders.prod"))
		clients = append(clients, c)
	}
	for _, want := range []time.Duration{time.Second / 2, time.Second} {
		if got := <-waited; got != want {
			t.Errorf("waited %v for the turn, want %v", got, want)
		}
	}
	mustEnd(t, begin().end(t), codes.ResourceExhausted, "2 streams a second")
	for n := range 20 {
		m.add("orders", 2+n)
		for _, c := range clients {
			c.ack(c.wants(typeEndpoints, "orders.prod"))
		}
	}
	if delayed, turned := m.server.metrics.delayed.Load(), m.server.metrics.turned.Load(); delayed != 2 || turned != 1 {
		t.Errorf("%d have waited and %d were refused, want 2 and 1", delayed, turned)
	}
	clock.forward(2 * time.Second)
	c := begin()
	c.wants(typeEndpoints, "orders.prod")
}

// A node that comes over and over has to wait, by what it has proved and what it calls
// itself; others, and those who have to prove nothing, do not.
func TestANodeThatComesOverAndOverWaits(t *testing.T) {
	clock := newClock()
	m := newMember(t, func(c *Config, _ *limits) {
		c.Now = clock.now
		c.Identify = func(ctx context.Context) Identity {
			given, _ := metadata.FromIncomingContext(ctx)
			return Identity{Name: strings.Join(given.Get("who"), "")}
		}
	})
	m.add("orders", 1)
	begin := func(who, id string) *deltaClient {
		ctx := t.Context()
		if who != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "who", who)
		}
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(m.conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		node := nodeOf(t)
		node.Id = id
		c := &deltaClient{tb: t, node: node, stream: stream, received: receive(stream.Recv)}
		c.subscribe(typeEndpoints, "orders.prod")
		return c
	}
	for range nodeTokens {
		begin("web", "web-1").wants(typeEndpoints, "orders.prod")
	}
	refused := begin("web", "web-1").end(t)
	mustEnd(t, refused, codes.ResourceExhausted, `node "web-1" of web has begun 20 streams`)
	mustEnd(t, refused, codes.ResourceExhausted, "the next in 1s")
	begin("web", "web-2").wants(typeEndpoints, "orders.prod")
	begin("shop", "web-1").wants(typeEndpoints, "orders.prod")
	for range nodeTokens + 1 {
		begin("", "web-1").wants(typeEndpoints, "orders.prod")
	}
	clock.forward(nodeTokenEvery)
	begin("web", "web-1").wants(typeEndpoints, "orders.prod")
	mustEnd(t, begin("web", "web-1").end(t), codes.ResourceExhausted, "web-1")
	if n := m.server.metrics.tokenless.Load(); n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
}

// Tokens are kept of so many nodes and no more; who has all of his is not kept for long.
func TestTokensAreKeptOfSoManyNodes(t *testing.T) {
	box, now := tokenBox{paid: make(map[string]time.Time)}, newClock().now()
	for n := range nodesMax + 10 {
		if wait := box.take(fmt.Sprint(n), now); wait != 0 {
			t.Fatalf("node %d waits %v for its first", n, wait)
		}
	}
	if n := len(box.paid); n != nodesMax {
		t.Errorf("tokens of %d nodes are kept", n)
	}
	for range nodeTokens - 1 {
		box.take("0", now)
	}
	if wait := box.take("0", now.Add(nodeTokenEvery/2)); wait != nodeTokenEvery/2 {
		t.Errorf("one that has used up its tokens waits %v", wait)
	}
	box.take("new", now.Add(2*nodeTokenEvery))
	if n := len(box.paid); n != 2 {
		t.Errorf("tokens of %d nodes are kept, want those that have not all of theirs", n)
	}
}

// A server that stops sends its streams away in slices and takes no new ones.
func TestAStoppingServerSendsStreamsAwayInSlices(t *testing.T) {
	m := newMember(t, nil)
	const streams = 2*drainLeast + 5
	var clients []*deltaClient
	for range streams {
		c := m.delta(nodeOf(t))
		c.subscribe(typeCluster)
		c.wants(typeCluster)
		clients = append(clients, c)
	}
	left := []int64{streams - drainLeast, streams - 2*drainLeast}
	m.server.sleep = func(context.Context, time.Duration) error {
		if len(left) == 0 {
			t.Error("there are more slices than there should be")
			return nil
		}
		eventually(t, "a slice to be gone", func() bool { return m.server.metrics.streams.Load() == left[0] })
		left = left[1:]
		return nil
	}
	m.server.Drain(t.Context())
	for _, c := range clients {
		mustEnd(t, c.end(t), codes.Unavailable, "stopping")
	}
	if n := m.server.metrics.drained.Load(); n != streams || len(left) != 0 {
		t.Errorf("%d streams were sent away, want %d; %d slices are missing", n, streams, len(left))
	}
	late := m.delta(nodeOf(t))
	mustEnd(t, late.end(t), codes.Unavailable, "stopping")
}
