package xds

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stellmap/stellmap/registry"
)

// rewriting says that -rewrite was given: write what is said now to testdata.
// The flag is that of the stories.
func rewriting() bool { return flag.Lookup("rewrite").Value.String() == "true" }

// golden compares a text with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if rewriting() {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (write it anew with -rewrite and read the difference):\n%s", path, got)
	}
}

// envoyJSON is a message as Envoy's config dump would show it. It must pass
// Envoy's own rules. The spaces of protojson are random by intent.
func envoyJSON(t *testing.T, m validated) string {
	t.Helper()
	if err := m.ValidateAll(); err != nil {
		t.Errorf("Envoy would refuse: %v", err)
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\n"
}

// here is where most clients are.
var here = registry.Standpoint{Region: "here"}

func instance(id, region, zone string, status registry.Status, endpoints ...registry.Endpoint) *registry.Instance {
	return &registry.Instance{Origin: &registry.Origin{Namespace: "prod", Service: "orders", Region: region, Zone: zone}, ID: id, Status: status, Endpoints: endpoints}
}

func at(name, protocol, host string, port, weight int32) registry.Endpoint {
	return registry.Endpoint{Name: name, Protocol: protocol, Host: host, Port: port, Weight: weight}
}

// service is a service whose instances are all shown.
func service(endpoints []registry.ServiceEndpoint, instances ...*registry.Instance) *registry.Service {
	return &registry.Service{
		Key: registry.ServiceKey{Namespace: "prod", Service: "orders"}, Created: 3, Revision: 9,
		Endpoints: endpoints, Instances: instances, Shown: instances,
	}
}

func primary(protocol string) []registry.ServiceEndpoint {
	return []registry.ServiceEndpoint{{Name: protocol, Protocol: protocol}}
}

// Each protocol becomes the cluster that talks to it.
func TestClusterOfEachProtocol(t *testing.T) {
	for _, protocol := range []string{"http", "h2c", "grpc", "https", "tcp", "tls", "redis"} {
		t.Run(protocol, func(t *testing.T) {
			m, err := buildCluster(service(primary(protocol)), 0, routeRules{})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "cluster/"+protocol+".json", envoyJSON(t, m))
		})
	}
}

// A further endpoint has a cluster of its own, with a name in lower case.
func TestClusterOfANamedEndpoint(t *testing.T) {
	s := service([]registry.ServiceEndpoint{{Name: "http", Protocol: "http"}, {Name: "Admin", Protocol: "http"}})
	m, err := buildCluster(s, 1, rulesOf(s.Policy))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "admin~orders.prod" || m.AltStatName != "admin~~orders_prod" {
		t.Errorf("cluster %q, in statistics %q", m.Name, m.AltStatName)
	}
}

// A registered path is checked actively: the first to register it decides, and
// those without it are not checked.
func TestClusterWithAnActiveCheck(t *testing.T) {
	first := instance("a", "here", "", registry.StatusPassing, at("http", "http", "10.0.0.1", 80, 100))
	first.RegisteredAt, first.Metadata = 2, registry.PairsOf(map[string]string{"health.path": "/late"})
	second := instance("b", "here", "", registry.StatusPassing, at("http", "http", "10.0.0.2", 80, 100))
	second.RegisteredAt, second.Metadata = 1, registry.PairsOf(map[string]string{"health.path": "/healthz"})
	third := instance("c", "here", "", registry.StatusPassing, at("http", "http", "10.0.0.3", 80, 100))
	s := service(primary("http"), first, second, third)
	cluster, err := buildCluster(s, 0, rulesOf(s.Policy))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cluster/check.json", envoyJSON(t, cluster))
	endpoints, _ := buildEndpoints(s, 0, here)
	golden(t, "endpoints/check.json", envoyJSON(t, endpoints))
}

// What instances become in EDS, for a proxy of region "here".
func TestEndpoints(t *testing.T) {
	web := func(host string, weight int32) registry.Endpoint { return at("http", "http", host, 80, weight) }
	passing, expired := registry.StatusPassing, registry.StatusExpired
	cases := map[string]struct {
		s      *registry.Service
		region string
	}{
		"no instance":               {service(primary("http")), "here"},
		"zones and weights":         {service(primary("http"), instance("a", "here", "z1", passing, web("10.0.0.1", 100)), instance("b", "here", "z2", passing, web("10.0.0.2", 1)), instance("c", "here", "z1", passing, web("fd00::1", 50))), "here"},
		"expired stays unhealthy":   {service(primary("http"), instance("a", "here", "", passing, web("10.0.0.1", 100)), instance("b", "here", "", expired, web("10.0.0.2", 70))), "here"},
		"remote regions in order":   {service(primary("http"), instance("a", "west", "", passing, web("10.2.0.1", 100)), instance("b", "here", "", passing, web("10.0.0.1", 100)), instance("c", "east", "", passing, web("10.1.0.1", 100))), "here"},
		"only remote, no gap":       {service(primary("http"), instance("a", "west", "", passing, web("10.2.0.1", 100)), instance("c", "east", "", passing, web("10.1.0.1", 100))), "here"},
		"twins: nearest wins":       {service(primary("http"), instance("a", "west", "", passing, web("10.0.0.1", 100)), instance("b", "here", "", expired, web("10.0.0.1", 100)), instance("c", "west", "", passing, web("10.2.0.1", 100))), "here"},
		"twins: healthiest wins":    {service(primary("http"), instance("a", "here", "", expired, web("10.0.0.1", 100)), instance("b", "here", "", passing, web("10.0.0.1", 40))), "here"},
		"twins: a region empties":   {service(primary("http"), instance("a", "here", "", passing, web("10.0.0.1", 100)), instance("b", "east", "", passing, web("10.0.0.1", 40)), instance("c", "west", "", passing, web("10.2.0.1", 40))), "here"},
		"host names are withheld":   {service(primary("http"), instance("a", "here", "", passing, web("db.local", 100)), instance("b", "here", "", passing, web("10.0.0.1", 100))), "here"},
		"other protocol withheld":   {service(primary("http"), instance("a", "here", "", passing, at("http", "grpc", "10.0.0.1", 80, 100)), instance("b", "here", "", passing, web("10.0.0.2", 100))), "here"},
		"missing endpoint withheld": {service(primary("http"), instance("a", "here", "", passing, at("grpc", "grpc", "10.0.0.1", 80, 100))), "here"},
		"weight below one":          {service(primary("http"), instance("a", "here", "", passing, web("10.0.0.1", 0))), "here"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m, withheld := buildEndpoints(c.s, 0, registry.Standpoint{Region: c.region})
			text := envoyJSON(t, m)
			for _, w := range withheld {
				text += "withheld: " + w.Instance + "/" + w.Endpoint + ": " + w.Reason + "\n"
			}
			golden(t, "endpoints/"+strings.NewReplacer(" ", "_", ":", "", ",", "").Replace(name)+".txt", text)
		})
	}
}

// Below the threshold of its policy all instances of a service are told as healthy,
// but for those that somebody took out.
func TestEndpointsOfAProtectedService(t *testing.T) {
	var all []*registry.Instance
	for n, status := range []registry.Status{
		registry.StatusPassing, registry.StatusSuspect, registry.StatusCritical, registry.StatusExpired, registry.StatusDraining, registry.StatusDisabled,
	} {
		all = append(all, instance(status.String(), "here", "", status, at("http", "http", fmt.Sprint("10.0.0.", n+1), 80, 100)))
	}
	slices.SortFunc(all, func(a, b *registry.Instance) int { return strings.Compare(a.ID, b.ID) })
	s := service(primary("http"), all...)
	s.Protected = &registry.Protection{Since: 1, Healthy: 2, Total: 4, Threshold: 0.6}
	m, _ := buildEndpoints(s, 0, here)
	golden(t, "endpoints/protected.json", envoyJSON(t, m))
}

// The statuses of the registry, present and to come, in Envoy's words.
func TestHealthOfEachStatus(t *testing.T) {
	want := map[string]string{
		"passing": "HEALTHY", "warning": "HEALTHY", "suspect": "DEGRADED", "draining": "DRAINING",
		"critical": "UNHEALTHY", "expired": "UNHEALTHY", "disabled": "not shown", "unknown": "UNHEALTHY",
	}
	for status, name := range want {
		got := "not shown"
		if h, shown := healthOf(status); shown {
			got = h.String()
		}
		if got != name {
			t.Errorf("%s is %s, want %s", status, got, name)
		}
	}
}

// The route table has a host per cluster, says why it refuses, and ends with all other hosts.
func TestRoutes(t *testing.T) {
	m := mustBuildRoutes(t, []hostRoute{
		{cluster: "admin~orders.prod", hosts: hostsOf("admin--orders.prod", 1), dialect: dialectHTTP1},
		{cluster: "cache.prod", hosts: hostsOf("cache.prod", 0), dialect: dialectTCP},
		{cluster: "ledger.prod", hosts: hostsOf("ledger.prod", 0), dialect: dialectGRPC},
		{cluster: "orders.prod", hosts: hostsOf("orders.prod", 0), dialect: dialectHTTP1},
	})
	golden(t, "routes.json", envoyJSON(t, m))
}

// mustBuildRoutes is the route table as a client reads it, whose bytes are those that it has when
// it is marshalled in one piece: a release that joins it otherwise sends nothing again.
func mustBuildRoutes(t *testing.T, routes []hostRoute) *routev3.RouteConfiguration {
	t.Helper()
	packed, err := buildRoutes(egressName, routes)
	if err != nil {
		t.Fatal(err)
	}
	table := new(routev3.RouteConfiguration)
	if err := packed.UnmarshalTo(table); err != nil {
		t.Fatal(err)
	}
	if whole, err := pack(table); err != nil || !bytes.Equal(whole.Value, packed.Value) {
		t.Errorf("in one piece the table has other bytes (%v)", err)
	}
	return table
}

// The listener takes what the workload sends, on loopback only.
func TestListener(t *testing.T) {
	m, err := buildListener(15001, false)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "listener.json", envoyJSON(t, m))
}

// No two clusters share a name in Envoy's statistics, and none has a dot.
func TestStatNamesDiffer(t *testing.T) {
	seen := make(map[string]string)
	for _, cluster := range []string{"a.b_c", "a_b.c", "a.b.c", "a__b.c", "a-b.c", "a~b.c", "a~~b.c", "a~u.c", "a_.c", "a.u_c"} {
		name := statName(cluster)
		if strings.Contains(name, ".") {
			t.Errorf("%s becomes %s, with a dot", cluster, name)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("%s and %s both become %s", cluster, other, name)
		}
		seen[name] = cluster
	}
}

// Of two that would claim one name the older has it, whichever came to be known first.
func TestTheOlderKeepsTheName(t *testing.T) {
	older := &registry.Service{Key: registry.ServiceKey{Namespace: "prod", Service: "Orders"}, Created: 5, Endpoints: primary("http")}
	younger := &registry.Service{Key: registry.ServiceKey{Namespace: "prod", Service: "orders"}, Created: 8, Endpoints: primary("http")}
	named := &registry.Service{Key: registry.ServiceKey{Namespace: "prod", Service: "ledger"}, Created: 2,
		Endpoints: []registry.ServiceEndpoint{{Name: "http", Protocol: "http"}, {Name: "admin", Protocol: "http"}}}
	posing := &registry.Service{Key: registry.ServiceKey{Namespace: "prod", Service: "admin--ledger"}, Created: 9, Endpoints: primary("http")}
	orders := [][]*registry.Service{{older, younger, named, posing}, {posing, younger, older, named}}
	for _, order := range orders {
		d := newDirectory()
		for _, s := range order {
			d.put(s.Key, s)
		}
		for cluster, want := range map[string]*registry.Service{"orders.prod": older, "admin~ledger.prod": named, "admin--ledger.prod": nil, "ledger.prod": named} {
			owner := d.clusters[cluster]
			if want == nil && owner != nil || want != nil && (owner == nil || owner.listing.key != want.Key) {
				t.Errorf("%s belongs to %+v", cluster, owner)
			}
		}
		d.put(older.Key, nil)
		if d.clusters["orders.prod"].listing.key != younger.Key {
			t.Error("the younger does not inherit the name")
		}
	}
}
