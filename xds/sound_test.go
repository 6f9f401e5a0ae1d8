package xds

import (
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
			cache := newCache(m.machine, func() string { return "" }, newMetrics())
			cache.reload(time.Time{})
			said := ""
			for _, w := range cache.withheldOf(m.machine.Service(registry.ServiceKey{Namespace: "prod", Service: "orders"}), "here") {
				if said == "" || strings.HasPrefix(w.Reason, c.reason) {
					said = w.Reason
				}
			}
			if !strings.HasPrefix(said, c.reason) || (said == "") != (c.reason == "") {
				t.Errorf("withheld says %q, want %q", said, c.reason)
			}
		})
	}
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
