package xds

import (
	"context"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/stellmap/stellmap/registry"
)

// healthsOf are the hosts of an assignment in its order.
func healthsOf(m *endpointv3.ClusterLoadAssignment) string {
	var out []string
	for _, l := range m.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			out = append(out, l.GetLocality().GetRegion()+" "+e.GetHealthStatus().String())
		}
	}
	return strings.Join(out, ", ")
}

// A gRPC client knows no degraded host. It gets suspects as healthy where nothing
// is better in any region, and else not at all. Nor is it told of others that it would not call.
func TestSuspectsForGRPC(t *testing.T) {
	const passing, suspect, expired = registry.StatusPassing, registry.StatusSuspect, registry.StatusExpired
	for name, c := range map[string]struct {
		here, there registry.Status
		want        string
	}{
		"nothing better":               {suspect, suspect, "here HEALTHY, there HEALTHY"},
		"the others have expired":      {expired, suspect, "there HEALTHY"},
		"better in its region":         {passing, suspect, "here HEALTHY"},
		"better in another region":     {suspect, passing, "there HEALTHY"},
		"nobody is worth being called": {expired, expired, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := buildEndpointsForGRPC(service(primary("http"), instance("a", "here", "", c.here, at("http", "http", "10.0.0.1", 80, 1)),
				instance("b", "there", "", c.there, at("http", "http", "10.0.0.2", 80, 1))), 0, here)
			if healthsOf(m) != c.want {
				t.Errorf("it is told %s, want %s", healthsOf(m), c.want)
			}
		})
	}
}

// The two kinds of clients have each their own view of the same suspects.
func TestEachKindHasItsViewOfSuspects(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	said := registry.ConditionChange{
		Key:       registry.InstanceKey{Namespace: "prod", Service: "orders", ID: "1"},
		Condition: registry.Condition{Source: registry.SourceProtection, Status: registry.StatusSuspect},
	}
	if _, _, err := m.registry.SetConditions(context.Background(), []registry.ConditionChange{said}); err != nil {
		t.Fatal(err)
	}
	m.settled()
	for of, want := range map[kind]string{kindEnvoy: "here DEGRADED", kindGRPC: "here HEALTHY"} {
		c := m.server.cache
		got, _, err := c.translate(resourceKey{typ: typeEndpoints, name: "orders.prod", kind: of, region: "here"}, c.owner("orders.prod"))
		if err != nil {
			t.Fatal(err)
		}
		if got := healthsOf(got.(*endpointv3.ClusterLoadAssignment)); got != want {
			t.Errorf("%v is told %s, want %s", of, got, want)
		}
	}
}
