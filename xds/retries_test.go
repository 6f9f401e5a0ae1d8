package xds

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/registry"
)

// Whatever a policy says of retries, an Envoy that looks for them in clusters does
// the same as one that does not: what its cluster says overrides the route.
func TestRetriesAreTheSameInEitherPlace(t *testing.T) {
	texts := map[string]string{"none": ""}
	for name, text := range policies {
		texts[name] = text
	}
	short := 0
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			m := newOrders(t)
			if text != "" {
				m.putPolicy(t, "orders", text)
			}
			atHosts, atClusters := m.retriesOf(t, retriesAtHosts), m.retriesOf(t, retriesAtClusters)
			if len(atHosts) < 4 || len(atHosts) != len(atClusters) {
				t.Fatalf("%d and %d routes", len(atHosts), len(atClusters))
			}
			for n, want := range atHosts {
				if want.says == nil && !want.off {
					t.Fatalf("%s: nothing is said of retries", want.route)
				}
				if got := atClusters[n]; !proto.Equal(got.says, want.says) || got.route != want.route {
					t.Errorf("%s is sent again by\n%v\nin the place of clusters, by\n%v\nin that of hosts", want.route, got.says, want.says)
				}
				if atClusters[n].byCluster {
					short++
				}
			}
		})
	}
	if short < len(texts) {
		t.Errorf("%d routes leave retries to their clusters", short)
	}
}

// retried is what one route has sent again.
type retried struct {
	route     string
	says      *routev3.RetryPolicy
	off       bool // it says nothing, which is what the policy says
	byCluster bool
}

// retriesOf is what holds of all routes of a scope, for a client that looks in a place.
func (m *member) retriesOf(t *testing.T, place retriesAt) []retried {
	t.Helper()
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Time{})
	scope := c.openScope(kindEnvoy, place, nil, []string{"*.prod"})
	packed, err := buildRoutes(egressName, c.routesOf(scope))
	if err != nil {
		t.Fatal(err)
	}
	table := new(routev3.RouteConfiguration)
	if err := packed.UnmarshalTo(table); err != nil {
		t.Fatal(err)
	}
	none := m.machine.Service(registry.ServiceKey{Namespace: "prod", Service: "orders"}).Policy
	off := none != nil && none.Retries != nil && none.Retries.Attempts != nil && *none.Retries.Attempts == 0
	var out []retried
	for _, host := range table.VirtualHosts {
		for _, route := range host.Routes {
			for _, cluster := range ledTo(route.GetRoute()) {
				one := retried{route: host.Name + route.GetMatch().String() + cluster, says: host.RetryPolicy, off: off}
				if own := route.GetRoute().GetRetryPolicy(); own != nil {
					one.says = own
				}
				if own := retriesIn(t, c, cluster); own != nil && place == retriesAtClusters {
					one.says, one.byCluster = own, host.RetryPolicy == nil
				}
				out = append(out, one)
			}
		}
	}
	return out
}

func ledTo(r *routev3.RouteAction) []string {
	if r == nil {
		return nil
	}
	if one := r.GetCluster(); one != "" {
		return []string{one}
	}
	var out []string
	for _, share := range r.GetWeightedClusters().GetClusters() {
		out = append(out, share.Name)
	}
	return out
}

func retriesIn(t *testing.T, c *cache, cluster string) *routev3.RetryPolicy {
	t.Helper()
	m, _, err := c.translate(resourceKey{typ: typeCluster, name: cluster}, c.owner(cluster))
	if err != nil || m == nil {
		t.Fatalf("cluster %s: %v, %v", cluster, m, err)
	}
	options := new(upstreamv3.HttpProtocolOptions)
	for _, packed := range m.(*clusterv3.Cluster).TypedExtensionProtocolOptions {
		if err := packed.UnmarshalTo(options); err != nil {
			t.Fatal(err)
		}
	}
	return options.RetryPolicy
}

// Where a client looks for retries goes by the version that it gives of itself.
func TestWhereAClientLooksForRetries(t *testing.T) {
	version := func(major, minor uint32) *corev3.Node {
		n := nodeOf(t)
		n.UserAgentVersionType = &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: major, MinorNumber: minor}}}
		return n
	}
	grpc := version(1, 85)
	grpc.UserAgentName = "gRPC Go"
	for _, c := range []struct {
		name string
		node *corev3.Node
		want retriesAt
	}{
		{"without a version", nodeOf(t), retriesAtHosts},
		{"the last that does not", version(1, 36), retriesAtHosts},
		{"the first that does", version(1, 37), retriesAtClusters},
		{"a later one", version(1, 40), retriesAtClusters},
		{"the next generation", version(2, 0), retriesAtClusters},
		{"gRPC", grpc, retriesAtHosts},
	} {
		if n, err := parseNode(c.node, "here"); err != nil || n.retries != c.want {
			t.Errorf("%s: %v, %v, want %v", c.name, n, err, c.want)
		}
	}
}

// A real Envoy sends again what its clusters say, to hosts that it has not tried,
// though its routes say nothing; and not where a policy says so.
func TestRealEnvoySendsAgain(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	living := upstream(t, "living")
	refusing := func() registry.Endpoint {
		return registry.Endpoint{Protocol: "http", Host: "127.0.0.1", Port: int32(freePort(t))}
	}
	m.add("first", 1, living)
	for _, service := range []string{"again", "never"} {
		m.add(service, 1, refusing())
		m.add(service, 2, refusing())
		m.add(service, 3, living)
	}
	m.putPolicy(t, "never", policies["no_retries"])
	e := startEnvoy(t, m, "DELTA_GRPC")
	e.serves("first.prod", "living")
	e.healthy(m)
	never := 0
	for range 3 { // the hosts take turns
		if a := e.call("again.prod"); a.status != "200" {
			t.Errorf("a request that two of three hosts refuse is answered %+v", a)
		}
		if a := e.call("never.prod"); a.status == "503" {
			never++
		}
	}
	if never == 0 {
		t.Error("what is not to be sent again is, since no host has refused")
	}
	if routes := e.get(e.admin, "/config_dump?resource=dynamic_route_configs", "envoy").body; strings.Contains(routes, "retry_policy") || !strings.Contains(routes, "again.prod") {
		t.Errorf("the routes are %s", routes)
	}
	m.putPolicy(t, "never", policies["drop"])
	m.putPolicy(t, "again", policies["no_retries"])
	eventually(t, "one is sent again, and the other is not", func() bool {
		clusters := e.get(e.admin, "/config_dump?resource=dynamic_active_clusters&name_regex=never.prod", "envoy").body
		others := e.get(e.admin, "/config_dump?resource=dynamic_active_clusters&name_regex=again.prod", "envoy").body
		return strings.Contains(clusters, "retry_policy") && others != "" && !strings.Contains(others, "retry_policy")
	})
	e.healthy(m)
}
