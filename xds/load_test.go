package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadservice "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/stellmap/stellmap/registry"
)

const loadEvery = 10 * time.Second

// newLoadMember is a member that clients report their load to.
func newLoadMember(t *testing.T, setup func(*Config, *limits)) (*member, *clock) {
	t.Helper()
	clock := newClock()
	m := newMember(t, func(c *Config, l *limits) {
		c.Now, c.LoadEvery = clock.now, loadEvery
		if setup != nil {
			setup(c, l)
		}
	})
	return m, clock
}

// loadClient reports what it is told to.
type loadClient struct {
	tb     testing.TB
	stream loadservice.LoadReportingService_StreamLoadStatsClient
	stop   context.CancelFunc
	received[*loadservice.LoadStatsResponse]
}

// openLoad opens a stream of reports and says who it is.
func (m *member) openLoad(node *corev3.Node) *loadClient {
	m.tb.Helper()
	ctx, cancel := context.WithCancel(m.outgoing())
	stream, err := loadservice.NewLoadReportingServiceClient(m.conn).StreamLoadStats(ctx)
	if err != nil {
		m.tb.Fatal(err)
	}
	c := &loadClient{tb: m.tb, stream: stream, stop: cancel, received: receive(stream.Recv)}
	if err := stream.Send(&loadservice.LoadStatsRequest{Node: node}); err != nil && !errors.Is(err, io.EOF) { // it was refused already
		m.tb.Fatal(err)
	}
	return c
}

// reporter opens a stream of reports and takes what it is asked for.
func (m *member) reporter(node *corev3.Node) *loadClient {
	m.tb.Helper()
	c := m.openLoad(node)
	c.next(m.tb)
	return c
}

// report sends one and waits until it is taken.
func (c *loadClient) report(m *member, stats ...*endpointv3.ClusterStats) {
	c.tb.Helper()
	before := m.server.metrics.loadReports.Load()
	if err := c.stream.Send(report(stats...)); err != nil {
		c.tb.Fatal(err)
	}
	eventually(c.tb, "the report is taken", func() bool { return m.server.metrics.loadReports.Load() > before })
}

func report(stats ...*endpointv3.ClusterStats) *loadservice.LoadStatsRequest {
	return &loadservice.LoadStatsRequest{ClusterStats: stats}
}

// ofCluster are the calls of a cluster by locality.
func ofCluster(name string, localities ...*endpointv3.UpstreamLocalityStats) *endpointv3.ClusterStats {
	return &endpointv3.ClusterStats{ClusterName: name, UpstreamLocalityStats: localities}
}

func ofZone(region, zone string, succeeded, failed, inProgress uint64) *endpointv3.UpstreamLocalityStats {
	return &endpointv3.UpstreamLocalityStats{
		Locality:                &corev3.Locality{Region: region, Zone: zone},
		TotalSuccessfulRequests: succeeded, TotalErrorRequests: failed, TotalRequestsInProgress: inProgress,
	}
}

func withDrops(s *endpointv3.ClusterStats, total uint64, byCategory ...any) *endpointv3.ClusterStats {
	s.TotalDroppedRequests = total
	for i := 0; i < len(byCategory); i += 2 {
		s.DroppedRequests = append(s.DroppedRequests, &endpointv3.ClusterStats_DroppedRequests{Category: byCategory[i].(string), DroppedCount: uint64(byCategory[i+1].(int))})
	}
	return s
}

// loadText is the load of a service, in a line for each part.
func loadText(l Load) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d reporters, %v\n", l.Reporters, l.Window)
	for _, c := range l.Clusters {
		for _, at := range c.Localities {
			fmt.Fprintf(&out, "%s %s/%s %d ok %d failed %d in progress\n", c.Cluster, at.Region, at.Zone, at.Succeeded, at.Failed, at.InProgress)
		}
		for _, d := range c.Drops {
			fmt.Fprintf(&out, "%s %s %d dropped\n", c.Cluster, d.Category, d.Dropped)
		}
	}
	return out.String()
}

func mustLoad(t *testing.T, l Load, want string) {
	t.Helper()
	if got := loadText(l); got != want {
		t.Errorf("the load is\n%swant\n%s", got, want)
	}
}

// What clients report is told by cluster and locality, as the sum of all clients within
// the window; what is in progress is what the last report of each client says.
func TestLoadIsTheSumOfAllClients(t *testing.T) {
	m, clock := newLoadMember(t, nil)
	m.add("orders", 1)
	m.settled()
	a := m.openLoad(nodeOf(t))
	if r := a.next(t); !r.SendAllClusters || r.LoadReportingInterval.AsDuration() != loadEvery || r.ReportEndpointGranularity {
		t.Errorf("clients are asked for %v", r)
	}
	b := m.reporter(nodeOf(t))
	a.report(m, ofCluster("orders.prod", ofZone("here", "a", 10, 1, 3), ofZone("here", "b", 5, 0, 0)), ofCluster("xds_cluster", ofZone("", "", 9, 9, 9)))
	b.report(m, withDrops(ofCluster("orders.prod", ofZone("here", "a", 20, 2, 4), ofZone("here", "a", 1, 0, 1)), 7, "sale", 4))
	mustLoad(t, m.server.Load(ordersKey), `2 reporters, 1m0s
orders.prod here/a 31 ok 3 failed 8 in progress
orders.prod here/b 5 ok 0 failed 0 in progress
orders.prod other 3 dropped
orders.prod sale 4 dropped
`)
	clock.forward(50 * time.Second)
	a.report(m, ofCluster("orders.prod", ofZone("here", "b", 1, 0, 0)))
	mustLoad(t, m.server.Load(ordersKey), `2 reporters, 1m0s
orders.prod here/a 31 ok 3 failed 5 in progress
orders.prod here/b 6 ok 0 failed 0 in progress
orders.prod other 3 dropped
orders.prod sale 4 dropped
`)
	clock.forward(loadEvery) // the first reports are not within the window any more
	b.stop()
	eventually(t, "nobody has anything in progress", func() bool { return m.server.Load(ordersKey).Reporters == 1 })
	mustLoad(t, m.server.Load(ordersKey), `1 reporters, 1m0s
orders.prod here/a 0 ok 0 failed 0 in progress
orders.prod here/b 1 ok 0 failed 0 in progress
orders.prod other 0 dropped
orders.prod sale 0 dropped
`)
	if n := m.server.metrics.loadRefused[loadUnknown].Load(); n != 1 {
		t.Errorf("%d clusters were not known, want the proxy's own", n)
	}
	if l := m.server.Load(registry.ServiceKey{Namespace: "prod", Service: "nobody"}); len(l.Clusters) != 0 {
		t.Errorf("a service that is not there has the load %+v", l)
	}
}

// The load of one member is told at another as it is there.
func TestLoadOfAnotherMember(t *testing.T) {
	one, _ := newLoadMember(t, nil)
	two, _ := newLoadMember(t, nil)
	two.add("orders", 1)
	two.settled()
	two.reporter(nodeOf(t)).report(two, withDrops(ofCluster("orders.prod", ofZone("here", "a", 31, 3, 8)), 4, "sale", 4))
	answers := NewFleet(1, one.server, others{2: two.server, 3: nil}).Load(t.Context(), ordersKey)
	if len(answers) != 3 || answers[2].Err == nil {
		t.Fatalf("the members say %+v", answers)
	}
	mustLoad(t, answers[0].Load, "0 reporters, 1m0s\n")
	mustLoad(t, answers[1].Load, "1 reporters, 1m0s\norders.prod here/a 31 ok 3 failed 8 in progress\norders.prod sale 4 dropped\n")
}

// However much is reported, so much is kept and no more; what there is goes on, and
// what nobody reports any more makes room.
func TestLoadIsBounded(t *testing.T) {
	m, clock := newLoadMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	m.settled()
	m.server.loads.most = loadPartsEach + 1
	c := m.reporter(nodeOf(t))
	var zones []*endpointv3.UpstreamLocalityStats
	for n := range loadPartsEach + 2 {
		zones = append(zones, ofZone("here", fmt.Sprint(n), 1, 0, 0))
	}
	c.report(m, ofCluster("orders.prod", zones...))
	c.report(m, ofCluster("ledger.prod", ofZone("here", "a", 1, 0, 0), ofZone("here", "b", 1, 0, 0), ofZone(strings.Repeat("x", 2*nodeTextMax+1), "", 1, 0, 0)))
	refused := func() string {
		s := ""
		for why := range loadRefusals {
			s += fmt.Sprintf("%s %d ", loadRefusalNames[why], m.server.metrics.loadRefused[why].Load())
		}
		return s
	}
	if got, want := refused(), "unknown_cluster 0 text 1 cluster 2 all 1 "; got != want {
		t.Errorf("refused is %s, want %s", got, want)
	}
	clock.forward(loadKept)
	if n := len(m.server.loads.series()); n != 0 {
		t.Errorf("%d series are told of what nobody has reported for long", n)
	}
	c.report(m, ofCluster("ledger.prod", ofZone("here", "a", 1, 0, 5), ofZone("here", "b", 1, 0, 0)))
	mustLoad(t, m.server.Load(ordersKey), "1 reporters, 1m0s\n")
	if l := m.server.Load(registry.ServiceKey{Namespace: "prod", Service: "ledger"}); len(l.Clusters) != 1 || len(l.Clusters[0].Localities) != 2 {
		t.Errorf("what is forgotten makes no room: %+v", l)
	}
	if n := m.server.loads.parts; n != 2 {
		t.Errorf("%d parts are counted, and 2 are there", n)
	}
	many := make([]*endpointv3.ClusterStats, loadClustersIn+1)
	for n := range many {
		many[n] = ofCluster("orders.prod")
	}
	if err := c.stream.Send(&loadservice.LoadStatsRequest{ClusterStats: many}); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, c.end(t), codes.ResourceExhausted, "cluster_stats")
}

// A stream of reports is admitted as others are: by its node, below a cap, until its
// age, and not by a member that stops.
func TestStreamsOfLoadComeAndGo(t *testing.T) {
	m, _ := newLoadMember(t, func(_ *Config, l *limits) { l.streams = 2 })
	bad := m.openLoad(nodeOf(t, metadataUpstreams, "orders"))
	mustEnd(t, bad.end(t), codes.InvalidArgument, metadataUpstreams)
	mustEnd(t, m.openLoad(nil).end(t), codes.InvalidArgument, "node")
	eventually(t, "they are gone", func() bool { return m.server.metrics.loadStreams.Load() == 0 })
	first := m.reporter(nodeOf(t))
	second := m.reporter(nodeOf(t))
	mustEnd(t, m.openLoad(nodeOf(t)).end(t), codes.ResourceExhausted, "another member")
	m.server.Drain(t.Context())
	for _, c := range []*loadClient{first, second, m.openLoad(nodeOf(t))} {
		mustEnd(t, c.end(t), codes.Unavailable, "stopping")
	}
	old, _ := newLoadMember(t, func(c *Config, _ *limits) { c.StreamAge = time.Millisecond })
	mustEnd(t, old.openLoad(nodeOf(t)).end(t), codes.Unavailable, "age")
}

// gRPC clients report of clusters that say so, and only where reports are taken.
func TestGRPCClientsAreToldToReport(t *testing.T) {
	for every, want := range map[time.Duration]bool{0: false, loadEvery: true} {
		m := newMember(t, func(c *Config, _ *limits) { c.LoadEvery = every })
		m.add("orders", 1)
		node := nodeOf(t)
		node.UserAgentName = "gRPC Go"
		c := m.delta(node)
		c.subscribe(typeCluster, "orders.prod")
		cluster := new(clusterv3.Cluster)
		if err := c.wants(typeCluster, "orders.prod").Resources[0].Resource.UnmarshalTo(cluster); err != nil {
			t.Fatal(err)
		}
		if got := cluster.GetLrsServer().GetSelf() != nil; got != want {
			t.Errorf("with reports every %v a cluster says %v", every, cluster.GetLrsServer())
		}
		if every == 0 {
			mustEnd(t, m.openLoad(nodeOf(t)).end(t), codes.Unimplemented, "LoadReportingService")
		}
	}
}

// The sums are metrics, by cluster and locality, from the first report on.
func TestMetricsOfLoad(t *testing.T) {
	r := prometheus.NewRegistry()
	m, clock := newLoadMember(t, func(c *Config, _ *limits) { c.Registerer = r })
	m.add("orders", 1)
	m.settled()
	c := m.reporter(nodeOf(t))
	for range 2 {
		c.report(m, withDrops(ofCluster("orders.prod", ofZone("here", "a", 10, 1, 3)), 4, "sale", 4))
		clock.forward(10 * loadEvery)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "stellmap_xds_load_") {
			continue
		}
		for _, one := range f.GetMetric() {
			out.WriteString(f.GetName())
			for _, l := range one.GetLabel() {
				fmt.Fprintf(&out, " %s=%s", l.GetName(), l.GetValue())
			}
			fmt.Fprintf(&out, ": %v\n", one.GetCounter().GetValue()+one.GetGauge().GetValue())
		}
	}
	golden(t, "load.txt", out.String())
}

// A real Envoy that is asked to reports its calls and how they end.
func TestRealEnvoyReportsItsLoad(t *testing.T) {
	m := newMember(t, func(c *Config, l *limits) { c.LoadEvery, l.hold = time.Second, holdMax })
	m.add("orders", 1, upstream(t, "first"))
	m.add("ledger", 1, registry.Endpoint{Protocol: "http", Host: "127.0.0.1", Port: 9}) // nobody listens there
	e := startEnvoy(t, m, "DELTA_GRPC", loadReporting)
	e.serves("orders.prod", "first")
	ledger := registry.ServiceKey{Namespace: "prod", Service: "ledger"}
	eventually(t, "calls that succeed and calls that fail are reported", func() bool {
		if a := e.call("orders.prod"); a.status != "200" {
			t.Errorf("a call answers %+v", a)
		}
		e.call("ledger.prod")
		return callsOf(m.server.Load(ordersKey)).succeeded > 0 && callsOf(m.server.Load(ledger)).failed > 0
	})
	if n := callsOf(m.server.Load(ordersKey)).failed; n > 0 {
		t.Errorf("%d calls that succeeded are reported as failed", n)
	}
	e.healthy(m)
}

// callsOf is the sum over all of a service's clusters and localities.
func callsOf(l Load) (sum calls) {
	for _, c := range l.Clusters {
		for _, at := range c.Localities {
			sum.add(calls{at.Succeeded, at.Failed})
		}
	}
	return sum
}

// Clients that report at once, while others ask, lose nothing of what they say.
func TestManyReportAtOnce(t *testing.T) {
	const clients, reports = 8, 200
	clock := newClock()
	l, now := newLoads(loadEvery, newMetrics(), clock.now), clock.now()
	var all []*reporter
	var working sync.WaitGroup
	for range clients {
		r := &reporter{inProgress: make(map[*part]uint64)}
		all = append(all, r)
		working.Go(func() {
			for n := range reports {
				zone := fmt.Sprint(n % 3)
				l.take(r, []*endpointv3.ClusterStats{withDrops(ofCluster("orders.prod", ofZone("here", zone, 2, 1, 5)), 1)}, now)
			}
		})
		working.Go(func() {
			for range reports {
				l.of("orders.prod", now)
				l.series()
			}
		})
	}
	working.Wait()
	sum := func() (n LocalityLoad) {
		c, _ := l.of("orders.prod", now)
		for _, at := range c.Localities {
			n.Succeeded, n.Failed, n.InProgress = n.Succeeded+at.Succeeded, n.Failed+at.Failed, n.InProgress+at.InProgress
		}
		return n
	}
	if n := sum(); n.Succeeded != 2*clients*reports || n.Failed != clients*reports || n.InProgress != 5*clients {
		t.Errorf("of %d clients with %d reports each there is %+v", clients, reports, n)
	}
	for _, r := range all {
		l.forget(r)
	}
	if n := sum().InProgress; n != 0 {
		t.Errorf("%d calls are in progress and nobody is there", n)
	}
}

// everCalled is the sum over all that was ever reported of a cluster, however long ago.
func (m *member) everCalled(cluster string) (sum calls) {
	l := m.server.loads
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.clusters[cluster]; c != nil {
		for _, p := range c.localities {
			sum.add(p.total)
		}
	}
	return sum
}
