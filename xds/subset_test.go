package xds

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/stellmap/stellmap/registry"
)

const canaryPolicy = `{"subsets":[{"name":"canary","version":"v2"}],"routes":[{"split":[{"subset":"canary","weight":10},{"weight":90}]}]}`

// versioned is an instance of service orders that has a version.
func versioned(n int, version string) registry.Registration {
	return registry.Registration{
		Namespace: "prod", Service: "orders", ID: addressOf(n), Version: version,
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(n), Port: 80}},
	}
}

// A subset's cluster comes before the routes that name it and goes behind them; its
// endpoints follow its own instances and no others.
func TestASubsetComesBeforeItsRoutesAndGoesBehindThem(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	m.register(versioned(1, "v1"))
	c := m.started("orders.prod")
	m.putPolicy(t, "orders", canaryPolicy)
	cluster := c.wants(typeCluster, "canary~~orders.prod")
	c.subscribe(typeEndpoints, "canary~~orders.prod")
	c.ack(c.wants(typeEndpoints, "canary~~orders.prod"))
	c.subscribe(typeEndpoints, "nobody.prod") // which is answered at once, while the routes wait
	c.ack(c.wants(typeEndpoints, "-nobody.prod"))
	c.ack(cluster)
	c.ack(c.wants(typeRoutes, egressName))
	m.register(versioned(2, "v2"))
	r := c.wants(typeEndpoints, "canary~~orders.prod", "orders.prod")
	if hosts := assignment(t, r.Resources[0].Resource).GetEndpoints(); len(hosts) != 1 || len(hosts[0].GetLbEndpoints()) != 1 {
		t.Errorf("the subset has the hosts %v", hosts)
	}
	c.ack(r)
	m.register(versioned(3, "v1"))
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	if _, err := m.registry.DeletePolicy(context.Background(), "", registry.ServiceKey{Namespace: "prod", Service: "orders"}, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
	var last string
	for range 3 { // that its endpoints are gone may be said at any time
		r := c.next(t)
		if last = r.TypeUrl; last != typeURLs[typeRoutes] && !slices.Equal(r.RemovedResources, []string{"canary~~orders.prod"}) {
			t.Errorf("%s are %v, without %v", r.TypeUrl, r.Resources, r.RemovedResources)
		}
		c.ack(r)
	}
	if last != typeURLs[typeCluster] {
		t.Errorf("%s come behind the cluster", last)
	}
	c.quiet()
}

// A subset is checked at the path of its own instances: one that goes from it to another
// part, and keeps its path, takes that with it.
func TestASubsetIsCheckedAsItsInstancesAre(t *testing.T) {
	m := newMember(t, nil)
	leaves := versioned(2, "v2")
	leaves.Metadata = map[string]string{metadataHealthPath: "/healthz"}
	m.register(versioned(1, "v1"))
	m.register(leaves)
	m.putPolicy(t, "orders", canaryPolicy)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster, "canary~~orders.prod")
	r := c.wants(typeCluster, "canary~~orders.prod")
	if !strings.Contains(string(r.Resources[0].Resource.Value), "/healthz") {
		t.Error("it is not checked while it has the instance")
	}
	c.ack(r)
	leaves.Version = "v1"
	m.register(leaves)
	if r := c.wants(typeCluster, "canary~~orders.prod"); strings.Contains(string(r.Resources[0].Resource.Value), "/healthz") {
		t.Error("it is checked yet when the instance has gone to another part")
	}
}

// A route leads only to clusters that the proxy has: of two services that would have one
// subset's name the older keeps it, and another service is sent copies only by
// proxies that may call it. What is left out everywhere is told.
func TestARouteLeadsToWhatIsThere(t *testing.T) {
	m := newRegistry(t)
	m.add("Orders", 1)
	m.putPolicy(t, "Orders", `{"subsets":[{"name":"canary","version":"v2"}]}`)
	m.add("ledger", 2)
	m.putPolicy(t, "ledger", `{"routes":[{"match":{"path":"/a"},"mirror":{"service":"shadow"}},{"mirror":{"service":"nowhere"}}]}`)
	m.add("shadow", 3)
	m.add("orders", 4)
	m.putPolicy(t, "orders", canaryPolicy)
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Time{})
	for scope, want := range map[string]string{
		"*.prod":                      "shadow.prod",
		"ledger.prod,shadow.prod":     "shadow.prod",
		"ledger.prod,orders.prod":     "",
		"ledger.prod,nowhere.prod,to": "",
	} {
		s := c.openScope(kindEnvoy, retriesAtHosts, nil, strings.Split(scope, ","))
		table := mustBuildRoutes(t, c.routesOf(s))
		if got := strings.Join(mirrorsOf(table), ","); got != want {
			t.Errorf("in the scope %s copies go to %q, want %q", scope, got, want)
		}
		c.closeScope(s)
	}
	var reasons []string
	for _, w := range c.withheld(t.Context(), "here") {
		reasons = append(reasons, w.Service.Service+": "+w.Reason)
	}
	slices.Sort(reasons)
	want := []string{
		"ledger: mirror of routes[1] of its policy is left out: its namespace has no service nowhere",
		"orders: subset canary of its policy: the name canary~~orders.prod belongs to the older service Orders in namespace prod",
		"orders: the name orders.prod belongs to the older service Orders in namespace prod",
	}
	if !slices.Equal(reasons, want) {
		t.Errorf("withheld are\n%s", strings.Join(reasons, "\n"))
	}
}

// mirrorsOf are the clusters that routes of a table send copies to, each once.
func mirrorsOf(table *routev3.RouteConfiguration) []string {
	var out []string
	for _, host := range table.VirtualHosts {
		for _, route := range host.Routes {
			for _, mirror := range route.GetRoute().GetRequestMirrorPolicies() {
				out = append(out, mirror.Cluster)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A real Envoy leads requests where the routes of a policy say, and follows when they change.
func TestRealEnvoyObeysRoutes(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	old, canary := versioned(1, "v1"), versioned(2, "v2")
	old.Endpoints, canary.Endpoints = []registry.Endpoint{upstream(t, "old")}, []registry.Endpoint{upstream(t, "canary")}
	m.register(old)
	m.register(canary)
	subsets := `{"subsets":[{"name":"old","version":"v1"},{"name":"canary","version":"v2"}],"routes":`
	m.putPolicy(t, "orders", subsets+`[{"match":{"prefix":"/try/"},"split":[{"subset":"canary","weight":1}]},{"split":[{"subset":"old","weight":1},{"subset":"canary","weight":0}]}]}`)
	e := startEnvoy(t, m, "DELTA_GRPC")
	always := func(path, want string) {
		t.Helper()
		for range 20 {
			if a := e.get(e.egress, path, "orders.prod"); a.status != "200" || a.body != want {
				t.Fatalf("%s is answered %+v, want %s", path, a, want)
			}
		}
	}
	e.serves("orders.prod", "old")
	always("/", "old")
	always("/try/it", "canary")
	m.putPolicy(t, "orders", subsets+`[{"split":[{"subset":"canary","weight":1}]}]}`)
	e.serves("orders.prod", "canary")
	always("/", "canary")
	m.putPolicy(t, "orders", subsets+`[{"split":[{"subset":"old","weight":1},{"subset":"canary","weight":1}]}]}`)
	e.serves("orders.prod", "old")
	e.serves("orders.prod", "canary")
	m.putPolicy(t, "orders", `{"loadBalancing":{"algorithm":"ring-hash","hashHeader":"x-user"},`+subsets[1:]+`[{"split":[{"subset":"old","weight":1},{"subset":"canary","weight":1}]}]}`)
	eventually(t, "each user stays in one part, some in either", func() bool { return e.parts(100) == "canary old" })
	m.putPolicy(t, "orders", `{"routes":[{"match":{"path":"/teapot"},"fault":{"abortStatus":418}}]}`)
	eventually(t, "one path fails by intent", func() bool { return e.get(e.egress, "/teapot", "orders.prod").status == "418" })
	e.serves("orders.prod", "old")
	m.putPolicy(t, "orders", `{"drops":[{"category":"some","percent":50},{"category":"rest","percent":100}]}`)
	eventually(t, "all requests are dropped", func() bool { return e.call("orders.prod").status == "503" })
	m.putPolicy(t, "orders", `{"loadBalancing":{"algorithm":"client-side-weighted-round-robin"}}`)
	e.serves("orders.prod", "old")
	e.serves("orders.prod", "canary")
	e.healthy(m)
}

// parts are the bodies that so many users get, each of them one, or "both" if there is one who does not.
func (e *envoy) parts(users int) string {
	e.t.Helper()
	seen := make(map[string]bool)
	for n := range users {
		host := fmt.Sprintf("orders.prod\r\nX-User: user-%d", n)
		first := e.call(host).body
		if seen[first] = true; e.call(host).body != first {
			return "both"
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), " ")
}
