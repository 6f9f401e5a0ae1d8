package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// badPolicies are what the registry lets nobody write today and a log may hold all the
// same: Envoy would refuse a cluster, an assignment or a whole route table for it.
var badPolicies = map[string]struct {
	policy *recordv1.Policy
	reason string
}{
	"connect":    {&recordv1.Policy{Timeouts: &recordv1.Timeouts{ConnectMs: proto.Int64(-5)}}, "its policy is left out of the cluster, as proxies would refuse it: invalid Cluster.ConnectTimeout"},
	"ejection":   {&recordv1.Policy{OutlierDetection: &recordv1.OutlierDetection{BaseEjectionMs: proto.Int64(5000), MaxEjectionMs: proto.Int64(1000)}}, "its policy is left out of the cluster, as proxies would refuse it: outlierDetection: an ejection of 5s is longer"},
	"budget":     {&recordv1.Policy{CircuitBreaking: &recordv1.CircuitBreaking{RetryBudgetPercent: proto.Int64(200)}}, "its policy is left out of the cluster"},
	"check":      {&recordv1.Policy{Checks: &recordv1.ActiveChecks{Kind: "http", Path: "/a", IntervalMs: proto.Int64(0)}}, "its policy is left out of the cluster"},
	"check-kind": {&recordv1.Policy{Checks: &recordv1.ActiveChecks{Kind: "grpc"}}, "checks of its policy are left out: kind grpc needs HTTP/2, and its endpoint has protocol http"},
	"factor":     {&recordv1.Policy{Failover: &recordv1.Failover{OverprovisioningPercent: proto.Int64(0)}}, "its policy is left out of the endpoints"},
	"drop":       {&recordv1.Policy{Drops: []*recordv1.PolicyDrop{{Category: "a", Percent: 150}, {Category: "b", Percent: 1}}}, "its policy is left out of the endpoints, as proxies would refuse it: drops: a is more than everything"},
	"hash":       {&recordv1.Policy{LoadBalancing: &recordv1.LoadBalancing{HashHeader: "a\nb"}}, "its policy is left out of the routes"},
	"fault":      {&recordv1.Policy{Routes: []*recordv1.PolicyRoute{{Fault: &recordv1.Fault{AbortStatus: proto.Int64(99)}}}}, "its policy is left out of the routes, as proxies would refuse it: routes[0]: fault"},
	"header":     {&recordv1.Policy{Routes: []*recordv1.PolicyRoute{{Match: &recordv1.RouteMatch{Headers: []*recordv1.HeaderMatch{{Present: true}}}}}}, "its policy is left out of the routes"},
	"rewrite":    {&recordv1.Policy{Routes: []*recordv1.PolicyRoute{{PrefixRewrite: "/a\n"}}}, "its policy is left out of the routes"},
	"retry":      {&recordv1.Policy{Timeouts: &recordv1.Timeouts{PerTryMs: proto.Int64(-1)}}, "its policy is left out of the routes"},
	"subset":     {&recordv1.Policy{Routes: []*recordv1.PolicyRoute{{Split: []*recordv1.SplitTarget{{Subset: "nobody", Weight: 1}}}}}, "routes[0] of its policy leads to no subset nobody"},
	"weights":    {&recordv1.Policy{Routes: []*recordv1.PolicyRoute{{Split: []*recordv1.SplitTarget{{Weight: 0}}}}}, ""},
	"mirror":     {&recordv1.Policy{Routes: []*recordv1.PolicyRoute{{Mirror: &recordv1.Mirror{Service: "nobody"}}}}, "mirror of routes[0] of its policy is left out: its namespace has no service nobody"},
}

// store puts a policy into the log as it is.
func (m *member) store(t *testing.T, service string, p *recordv1.Policy) {
	t.Helper()
	edit := &recordv1.EditPolicy{Key: &recordv1.ServiceKey{Namespace: "prod", Service: service}, Policy: p}
	command, err := proto.Marshal(&recordv1.Command{Format: 1, Kind: &recordv1.Command_EditPolicy{EditPolicy: edit}})
	if err != nil {
		t.Fatal(err)
	}
	m.commit(command)
}

// What Envoy would refuse of a policy is left out and told, the rest of what proxies get is as
// without it, and no other service feels it.
func TestABadPolicyHoldsNothingBack(t *testing.T) {
	plain := newOrders(t).ofOrders(t)
	for name, c := range badPolicies {
		t.Run(name, func(t *testing.T) {
			m := newOrders(t)
			m.store(t, "orders", c.policy)
			if got := m.ofOrders(t); got != plain {
				t.Errorf("proxies get\n%s", got)
			}
			said := m.saidOfOrders(t, c.reason)
			if !strings.HasPrefix(said, c.reason) || (said == "") != (c.reason == "") {
				t.Errorf("withheld says %q, want %q", said, c.reason)
			}
		})
	}
}

// Where a policy was taken before that proxies take, its part stands in for one that they
// would refuse, on every member and after a restart: whoever reads the registry comes to
// the same. What the bad one says in other respects holds.
func TestTheLastGoodPolicyStandsIn(t *testing.T) {
	good := `{"loadBalancing":{"algorithm":"least-request"},"failover":{"overprovisioningPercent":120},"drops":[{"category":"lottery","percent":10}],"timeouts":{"requestMs":2000}}`
	for name, part := range map[string]struct {
		parts []int // of what is translated: 0 is the cluster, 1 its endpoints, 2 its host
		said  string
	}{
		"connect": {[]int{0}, "version 2 of its policy stands for the present one in the cluster, as proxies would refuse it: invalid Cluster.ConnectTimeout"},
		"factor":  {[]int{1}, "version 2 of its policy stands for the present one in the endpoints"},
		"drop":    {[]int{1}, "version 2 of its policy stands for the present one in the endpoints, as proxies would refuse it: drops: a is more than everything"},
		"hash":    {[]int{2}, "version 2 of its policy stands for the present one in the routes"},
		"retry":   {[]int{2}, "version 2 of its policy stands for the present one in the routes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newOrders(t)
			plain := m.partsOfOrders(t)
			m.putPolicy(t, "orders", `{"failClosed":true}`)
			m.putPolicy(t, "orders", good)
			before := m.partsOfOrders(t)
			first := proto.CloneOf(badPolicies[name].policy)
			first.GraceSeconds = proto.Int64(60)
			m.store(t, "orders", first) // which is no better
			m.store(t, "orders", badPolicies[name].policy)
			m.add("orders", 1, at("http", "http", "10.0.0.1", 80, 100), at("web", "h2c", "10.0.0.1", 81, 100)) // no edit
			after := m.partsOfOrders(t)
			for n := range after {
				want := plain[n]
				if slices.Contains(part.parts, n) {
					want = before[n]
				}
				if after[n] != want {
					t.Errorf("part %d is\n%s\nwant\n%s", n, after[n], want)
				}
			}
			if said := m.saidOfOrders(t, part.said); !strings.HasPrefix(said, part.said) {
				t.Errorf("withheld says %q, want %q", said, part.said)
			}
			m.store(t, "orders", nil)
			m.store(t, "orders", badPolicies[name].policy)
			if got := m.partsOfOrders(t); !slices.Equal(got, plain) {
				t.Errorf("after its policy was taken back, proxies get\n%s", got)
			}
		})
	}
}

// partsOfOrders are the cluster, the endpoints and the host of the service.
func (m *member) partsOfOrders(t *testing.T) []string {
	t.Helper()
	parts := strings.SplitAfter(m.ofOrders(t), "\n}\n")
	if len(parts) != 4 {
		t.Fatalf("%d parts", len(parts)-1)
	}
	return parts[:3]
}

// saidOfOrders is the reason that begins so, or else the first of all.
func (m *member) saidOfOrders(t *testing.T, prefix string) string {
	t.Helper()
	cache := newCache(m.machine, func() string { return "" }, newMetrics())
	cache.reload(time.Time{})
	said := ""
	for _, w := range cache.withheldOf(t.Context(), m.machine.Service(registry.ServiceKey{Namespace: "prod", Service: "orders"}), "here") {
		if said == "" || strings.HasPrefix(w.Reason, prefix) {
			said = w.Reason
		}
	}
	return said
}

// A real Envoy that has services with bad policies in its scope takes everything, and serves them all.
func TestRealEnvoyTakesServicesWithBadPolicies(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	backend := upstream(t, "backend")
	m.add("good", 1, backend)
	for name, c := range badPolicies {
		m.add("bad-"+name, 1, backend)
		m.store(t, "bad-"+name, c.policy)
	}
	e := startEnvoy(t, m, "DELTA_GRPC")
	e.serves("good.prod", "backend")
	for name := range badPolicies {
		e.serves("bad-"+name+".prod", "backend")
	}
	e.healthy(m)
}

// A host shows its version and its labels, of these as many as there is room for.
func TestHostMetadataAreBounded(t *testing.T) {
	i := instance("a", "here", "", registry.StatusPassing)
	if m := lbMetadata(i); m != nil {
		t.Errorf("an instance without labels has %v", m)
	}
	i.Version = "v2"
	i.Labels = registry.PairsOf(map[string]string{"a": "b", "long": strings.Repeat("x", lbMetadataBytesMax-6), "more": "y", "version": "of the label"})
	fields := lbMetadata(i).FilterMetadata[lbFilter].Fields
	if len(fields) != 3 || fields["a"].GetStringValue() != "b" || fields["long"] == nil || fields[lbVersion].GetStringValue() != "v2" {
		t.Errorf("it has %v", fields)
	}
}

// A cluster is made by the rules of the routes that are told, be the policy newer: routes that
// rely on the cluster to retry and a cluster that does not are not of one round.
func TestAClusterGoesByTheRulesOfItsRoutes(t *testing.T) {
	m := newOrders(t)
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Time{})
	k := resourceKey{typ: typeCluster, name: "orders.prod"}
	before := c.build(k)
	m.putPolicy(t, "orders", `{"retries":{"attempts":0}}`)
	if c.build(k).hash != before.hash {
		t.Error("the cluster has lost its retries while the routes rely on them")
	}
	c.reload(time.Time{})
	if c.build(k).hash == before.hash {
		t.Error("the cluster does not follow the policy with the routes")
	}
}

// What a policy is checked by is made once: a cluster is the one that was checked, and
// the rules of a policy are not checked again with every reload.
func TestAPolicyIsCheckedOnce(t *testing.T) {
	c, s := checkedOrders(t)
	once := testing.AllocsPerRun(10, func() { checkedOrdersCluster(t, s) })
	if got := testing.AllocsPerRun(10, func() { soundOrdersCluster(t, c, s) }); got > 1.5*once {
		t.Errorf("a cluster with a policy costs %.0f allocations, its check %.0f", got, once)
	}
	check := testing.AllocsPerRun(10, func() { soundRules(s, c.earlier) })
	if got := testing.AllocsPerRun(10, func() { c.reload(time.Time{}) }); got > check {
		t.Errorf("a reload costs %.0f allocations, and to check the policy %.0f", got, check)
	}
}

// checkedOrders is a service with a policy of many routes.
func checkedOrders(tb testing.TB) (*cache, *registry.Service) {
	tb.Helper()
	m := newRegistry(tb)
	m.add("orders", 1)
	var routes []string
	for n := range 20 {
		routes = append(routes, fmt.Sprintf(`{"match":{"prefix":"/%d/"},"timeouts":{"requestMs":2000}}`, n))
	}
	m.putPolicy(tb, "orders", `{"loadBalancing":{"algorithm":"least-request"},"routes":[`+strings.Join(routes, ",")+`]}`)
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Time{})
	return c, m.machine.Service(registry.ServiceKey{Namespace: "prod", Service: "orders"})
}

func checkedOrdersCluster(tb testing.TB, s *registry.Service) {
	if _, err := checkedCluster(s, 0, rulesOf(s.Policy)); err != nil {
		tb.Fatal(err)
	}
}

func soundOrdersCluster(tb testing.TB, c *cache, s *registry.Service) {
	if _, _, err := soundCluster(s, 0, rulesOf(s.Policy), c.earlier); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkSoundCluster is the cluster of a service with a policy.
func BenchmarkSoundCluster(b *testing.B) {
	c, s := checkedOrders(b)
	b.ReportAllocs()
	for b.Loop() {
		soundOrdersCluster(b, c, s)
	}
}

// BenchmarkReloadOfAPolicy is what a service with a policy of twenty routes costs a reload, under the lock.
func BenchmarkReloadOfAPolicy(b *testing.B) {
	c, _ := checkedOrders(b)
	b.ReportAllocs()
	for b.Loop() {
		c.reload(time.Time{})
	}
}
