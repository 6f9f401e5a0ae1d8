package xds

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/stellmap/stellmap/registry"
)

// told is what the registry was told of instances, and answers it with what it is set to.
type told struct {
	mu    sync.Mutex // guards what follows
	lines []string
	err   error
}

func (t *told) report(_ context.Context, ref registry.InstanceRef, r registry.Report) (registry.Reported, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, strings.TrimSpace(fmt.Sprintf("%s says %s of %s/%s/%s %s", r.Reporter, r.Outcome, ref.Namespace, ref.Service, ref.ID, r.Reason)))
	return registry.Reported{}, t.err
}

// take is what has been told since the last time, sorted.
func (t *told) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	t.lines = nil
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// atAddress are the calls to one address.
func atAddress(host string, port uint32, succeeded, failed uint64) *endpointv3.UpstreamEndpointStats {
	return &endpointv3.UpstreamEndpointStats{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
		TotalSuccessfulRequests: succeeded, TotalErrorRequests: failed,
	}
}

func byAddress(cluster string, stats ...*endpointv3.UpstreamEndpointStats) *endpointv3.ClusterStats {
	return ofCluster(cluster, &endpointv3.UpstreamLocalityStats{Locality: &corev3.Locality{Region: "here"}, UpstreamEndpointStats: stats})
}

// What a proxy reports of its calls to an instance is a report of the instance, as the
// policy has it: of those that fail, and once more when one that was reported does not.
// Without such a policy nobody is asked for calls by instance.
func TestLoadReportsInstances(t *testing.T) {
	heard := new(told)
	m, _ := newLoadMember(t, func(c *Config, _ *limits) { c.Report = heard.report })
	for n := 1; n <= 4; n++ {
		m.add("orders", n)
	}
	m.add("ledger", 1)
	m.server.cache.service = func(k registry.ServiceKey) *registry.Service { // the fourth is of another region
		s := *m.machine.Service(k)
		s.Shown = slices.Clone(s.Shown)
		for n, i := range s.Shown {
			if i.ID == "4" {
				there := *i
				there.Imported = new(registry.Imported)
				s.Shown[n] = &there
			}
		}
		return &s
	}
	m.settled()
	c := m.reporter(nodeOf(t))
	failing := []*endpointv3.ClusterStats{
		byAddress("orders.prod",
			atAddress(addressOf(1), 80, 10, 10), atAddress(addressOf(2), 80, 11, 9), atAddress(addressOf(3), 80, 0, 19), atAddress(addressOf(4), 80, 0, 100),
			atAddress("10.9.9.9", 80, 0, 100), atAddress("a name", 80, 0, 100)),
		byAddress("ledger.prod", atAddress(addressOf(1), 80, 0, 100)),
	}
	mustHear := func(want string, stats ...*endpointv3.ClusterStats) {
		t.Helper()
		before := m.server.metrics.loadReports.Load()
		c.report(m, stats...)
		c.report(m) // the one before has had its effect when this one is taken
		if n := m.server.metrics.loadReports.Load() - before; n != 2 {
			t.Fatalf("%d reports are taken", n)
		}
		if got := heard.take(); got != want {
			t.Errorf("the registry is told\n%s\nwant\n%s", got, want)
		}
	}
	mustHear("", failing...)
	m.putPolicy(t, "orders", `{"reports":{"effect":"critical","fromLoad":{"errorPercent":50,"minRequests":20}}}`)
	m.settled()
	mustHear("", failing...) // it was not asked for them yet
	if r := c.next(t); !r.ReportEndpointGranularity || !r.SendAllClusters || r.LoadReportingInterval.AsDuration() != loadEvery {
		t.Errorf("by the policy clients are asked for %v", r)
	}
	mustHear("web-1 says failure of prod/orders/1 10 of 20 calls within 10s failed", failing...)
	mustHear("web-1 says success of prod/orders/1", byAddress("orders.prod", atAddress(addressOf(1), 80, 20, 0), atAddress(addressOf(2), 80, 20, 0)))
	mustHear("", byAddress("orders.prod", atAddress(addressOf(1), 80, 20, 0)))
	heard.err = registry.ErrReportRate
	mustHear("web-1 says failure of prod/orders/2 20 of 20 calls within 10s failed", byAddress("orders.prod", atAddress(addressOf(2), 80, 0, 20)))
	if n := m.server.metrics.loadVotes[voteRefused].Load(); n != 1 {
		t.Errorf("%d reports of instances count as refused", n)
	}
	m.putPolicy(t, "orders", `{"reports":{"effect":"critical"}}`)
	m.settled()
	mustHear("", failing...)
	if r := c.next(t); r.ReportEndpointGranularity {
		t.Error("clients are asked for calls by instance although no policy wants them")
	}
}

// However many instances fail, so many are reported by one message; the rest is counted.
func TestReportsOfInstancesAreBounded(t *testing.T) {
	heard := new(told)
	m, _ := newLoadMember(t, func(c *Config, _ *limits) { c.Report = heard.report })
	m.putPolicy(t, "orders", `{"reports":{"effect":"warning","fromLoad":{"errorPercent":100,"minRequests":1}}}`)
	var stats []*endpointv3.UpstreamEndpointStats
	for n := range loadVotesMax + 3 {
		m.add("orders", n)
		stats = append(stats, atAddress(addressOf(n), 80, 0, 1))
	}
	m.settled()
	c := m.reporter(nodeOf(t))
	var apart []*endpointv3.ClusterStats
	for _, one := range stats {
		apart = append(apart, byAddress("orders.prod", one)) // a cluster may come any number of times
	}
	c.report(m, apart...)
	c.report(m)
	failures, left := m.server.metrics.loadVotes[voteFailure].Load(), m.server.metrics.loadVotes[voteLeftOut].Load()
	if failures != loadVotesMax || left != 3 {
		t.Errorf("%d instances are reported and %d left out", failures, left)
	}
	first := heard.take()
	c.report(m, byAddress("orders.prod", stats...))
	c.report(m)
	second := heard.take()
	for n := range loadVotesMax + 3 {
		if of := fmt.Sprintf("prod/orders/%d ", n); !strings.Contains(first+second, of) {
			t.Errorf("nobody has said anything of %s in two messages", of)
		}
	}
}

// A real Envoy reports its calls by instance when a policy wants it.
func TestRealEnvoyReportsInstances(t *testing.T) {
	heard := new(told)
	m := newMember(t, func(c *Config, l *limits) { c.LoadEvery, c.Report, l.hold = time.Second, heard.report, holdMax })
	m.add("orders", 1, upstream(t, "first"))
	m.add("ledger", 1, registry.Endpoint{Protocol: "http", Host: "127.0.0.1", Port: 9}) // nobody listens there
	e := startEnvoy(t, m, "DELTA_GRPC", loadReporting)
	e.serves("orders.prod", "first")
	for _, service := range []string{"orders", "ledger"} { // while Envoy reports already
		m.putPolicy(t, service, `{"reports":{"effect":"critical","fromLoad":{"errorPercent":50,"minRequests":1}}}`)
	}
	var all string
	eventually(t, "the instance that does not answer is reported", func() bool {
		e.call("orders.prod")
		e.call("ledger.prod")
		all += heard.take()
		return strings.Contains(all, "web-1 says failure of prod/ledger/1")
	})
	if strings.Contains(all, "prod/orders") {
		t.Errorf("an instance that answers is reported: %s", all)
	}
	e.healthy(m)
}
