package xds

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/stellmap/stellmap/registry"
)

// policies have each field that proxies obey, by what it is about.
var policies = map[string]string{
	"local_port":       `{"localPort":5432}`,
	"least_request":    `{"loadBalancing":{"algorithm":"least-request"}}`,
	"random":           `{"loadBalancing":{"algorithm":"random"}}`,
	"ring_hash":        `{"loadBalancing":{"algorithm":"ring-hash","hashHeader":"x-user"}}`,
	"maglev":           `{"loadBalancing":{"algorithm":"maglev","hashHeader":"x-user"}}`,
	"outliers":         `{"outlierDetection":{"localFailures":3,"gatewayFailures":7,"intervalMs":2000,"baseEjectionMs":1500,"maxEjectionMs":60000,"maxEjectionPercent":50}}`,
	"no_outliers":      `{"outlierDetection":{"disabled":true}}`,
	"circuits":         `{"circuitBreaking":{"maxConnections":100,"maxPendingRequests":10,"maxRequests":1000,"retryBudgetPercent":20,"minRetries":3}}`,
	"timeouts":         `{"timeouts":{"connectMs":100,"requestMs":2000,"perTryMs":500}}`,
	"no_timeout":       `{"timeouts":{"requestMs":0}}`,
	"retries":          `{"retries":{"attempts":5,"when":["unavailable","connect-failure"],"statuses":[503,502]}}`,
	"no_retries":       `{"retries":{"attempts":0}}`,
	"overprovisioning": `{"failover":{"overprovisioningPercent":100}}`,
	"local_only":       `{"failover":{"mode":"local-only"}}`,
	"local_first":      `{"failover":{"mode":"local-first"}}`,
	"local_first_few":  `{"failover":{"mode":"local-first","minPassing":4,"regions":["west"]}}`,
	"merged":           `{"failover":{"mode":"merged"}}`,
	"regions":          `{"failover":{"mode":"remote-fallback","regions":["west"]}}`,
	"zone_first":       `{"failover":{"zoneFirst":true}}`,
	"all_or_nothing":   `{"failover":{"allOrNothing":true}}`,
	"gateways":         `{"failover":{"mode":"gateway","gateway":"doors.infra"},"subsets":[{"name":"canary","version":"v2"}],"routes":[{"split":[{"subset":"canary","weight":5},{"weight":95}]}]}`,
	"left_whole":       `{"failover":{"allOrNothing":true,"minHealthyPercent":60}}`,
	"fail_closed":      `{"failClosed":true}`,
	"by_load":          `{"loadBalancing":{"algorithm":"client-side-weighted-round-robin"}}`,
	"hash_cookie":      `{"loadBalancing":{"algorithm":"ring-hash","hashCookie":{"name":"who","ttlSeconds":3600}}}`,
	"hash_session":     `{"loadBalancing":{"algorithm":"maglev","hashCookie":{"name":"who"}}}`,
	"hash_source":      `{"loadBalancing":{"algorithm":"ring-hash","hashSourceAddress":true}}`,
	"sticky_split":     `{"loadBalancing":{"algorithm":"ring-hash","hashHeader":"x-user"},"subsets":[{"name":"canary","version":"v2"}],"routes":[{"split":[{"subset":"canary","weight":10},{"weight":90}]}]}`,
	"check_http":       `{"checks":{"kind":"http","path":"/healthz?all=1","intervalMs":2000,"timeoutMs":1000,"unhealthyAfter":3,"healthyAfter":2}}`,
	"check_grpc":       `{"primaryEndpoint":{"name":"web","protocol":"h2c"},"checks":{"kind":"grpc","service":"shop.Orders"}}`,
	"check_tcp":        `{"checks":{"kind":"tcp"}}`,
	"drop":             `{"drops":[{"category":"lottery","percent":10}]}`,
	"drops":            `{"drops":[{"category":"lottery","percent":10},{"category":"crawlers","percent":50}]}`,
	"faults":           `{"routes":[{"match":{"path":"/slow"},"fault":{"delayMs":250,"delayPercent":50}},{"match":{"path":"/broken"},"fault":{"abortStatus":503,"abortPercent":10}},{"match":{"path":"/both"},"fault":{"delayMs":10,"abortStatus":418}}]}`,
	"subsets":          `{"subsets":[{"name":"Canary","version":"v2"},{"name":"beta","version":"v1","labels":{"track":"beta"}}]}`,
	"failure_share":    `{"outlierDetection":{"failurePercent":50,"minRequests":5,"baseEjectionMs":1000}}`,
	"failure_default":  `{"outlierDetection":{"failurePercent":90}}`,
	"split":            `{"subsets":[{"name":"canary","version":"v2"},{"name":"stable","version":"v1"}],"routes":[{"split":[{"subset":"canary","weight":5},{"subset":"stable","weight":90},{"weight":5}]}]}`,
	"matches": `{"subsets":[{"name":"canary","version":"v2"}],"routes":[
		{"match":{"path":"/v2/orders","method":"post"},"split":[{"subset":"canary","weight":1}],"prefixRewrite":"/orders"},
		{"match":{"prefix":"/beta/","headers":[{"name":"X-User","exact":"ann"},{"name":"x-tier","prefix":"gold"},{"name":"x-beta","present":true}]},"split":[{"subset":"canary","weight":1}]},
		{"match":{"prefix":"/slow/"},"timeouts":{"requestMs":0},"retries":{"attempts":0}},
		{"match":{"prefix":"/patient/"},"timeouts":{"requestMs":60000,"perTryMs":20000},"retries":{"attempts":3,"when":["connect-failure"],"statuses":[503]}}]}`,
	"mirror":             `{"subsets":[{"name":"canary","version":"v2"}],"routes":[{"match":{"method":"GET"},"mirror":{"subset":"canary","percent":10}},{"mirror":{"service":"Shadow"}}]}`,
	"primary_of_clients": `{"primaryEndpoint":{"name":"web","protocol":"h2c"}}`,
}

// obeyedElsewhere are the fields of a policy that are for the registry.
var obeyedElsewhere = []string{
	"graceSeconds", "protectThreshold", "failover.stale", "failover.staleAfterSeconds",
	"reports", "reports.effect", "reports.quorum", "reports.windowSeconds", "reports.lastsSeconds", "reports.maxPercent", "reports.fromLoad", "reports.fromLoad.errorPercent", "reports.fromLoad.minRequests",
	"selfPreservation", "selfPreservation.enabled", "selfPreservation.least", "selfPreservation.percent", "selfPreservation.limitSeconds",
}

func policyOf(t testing.TB, text string) registry.Policy {
	t.Helper()
	var p registry.Policy
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// putPolicy writes the policy of a service in namespace prod.
func (m *member) putPolicy(t testing.TB, service, text string) {
	t.Helper()
	if _, err := m.registry.PutPolicy(context.Background(), "", registry.ServiceKey{Namespace: "prod", Service: service}, policyOf(t, text), registry.Writing{}); err != nil {
		t.Fatalf("policy %s of %s: %v", text, service, err)
	}
}

// translated is all that a policy can change, as an Envoy is told it without and with it: the clusters,
// their endpoints and the host that leads to them.
func translated(t *testing.T, text string) (before, after string) {
	t.Helper()
	m := newOrders(t)
	if strings.Contains(text, "subsets") {
		m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "2", Version: "v2", Endpoints: []registry.Endpoint{at("http", "http", "10.0.0.2", 80, 100)}})
	}
	if strings.Contains(text, "failover") { // which is about zones and other regions
		for zone, n := range map[string]int{"a": 11, "b": 12} {
			m.addInZone("orders", n, zone)
		}
		m.tell("east", toldOf("orders", 101, "", registry.StatusPassing))
		m.tell("west", toldOf("orders", 201, "", registry.StatusPassing))
	}
	before = m.ofOrders(t)
	if text != "" {
		m.putPolicy(t, "orders", text)
	}
	return before, m.ofOrders(t)
}

// newOrders is a registry with a service for policies to be of.
func newOrders(t *testing.T) *member {
	t.Helper()
	m := newRegistry(t)
	m.add("orders", 1, at("http", "http", "10.0.0.1", 80, 100), at("web", "h2c", "10.0.0.1", 81, 100))
	m.add("shadow", 3)
	return m
}

func (m *member) ofOrders(t *testing.T) string {
	t.Helper()
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Time{})
	scope := c.openScope(kindEnvoy, retriesAtHosts, nil, []string{"*.prod"})
	out := ""
	for _, name := range slices.Sorted(maps.Keys(scope.members)) {
		if name == "orders.prod" || strings.Contains(name, "~~") {
			out += built(t, c, resourceKey{typ: typeCluster, name: name}) + built(t, c, resourceKey{typ: typeEndpoints, name: name, region: "here", zone: "a"})
		}
	}
	if scope.locals.entered["orders.prod"] != 0 {
		out += built(t, c, localKey(localName("orders.prod")))
	}
	for _, host := range mustBuildRoutes(t, c.routesOf(scope)).VirtualHosts {
		if host.Name == "orders.prod" {
			out += envoyJSON(t, host)
		}
	}
	return out
}

func built(t *testing.T, c *cache, k resourceKey) string {
	t.Helper()
	m, _, err := c.translate(k, c.owner(k.cluster()))
	if err != nil || m == nil {
		t.Fatalf("%s of %s: %v, %v", k.typ, k.name, m, err)
	}
	return envoyJSON(t, m)
}

// What each field of a policy becomes.
func TestPolicies(t *testing.T) {
	for name, text := range policies {
		t.Run(name, func(t *testing.T) {
			plain, got := translated(t, text)
			if got == plain {
				t.Errorf("%s changes nothing", text)
			}
			golden(t, "policy/"+name+".txt", text+"\n"+got)
		})
	}
	for _, text := range []string{`{"loadBalancing":{"algorithm":"round-robin"},"timeouts":{"requestMs":15000},"graceSeconds":60}`, `{"failover":{"mode":"remote-fallback","overprovisioningPercent":140}}`} {
		if plain, same := translated(t, text); same != plain {
			t.Errorf("the defaults, said aloud, become\n%s", same)
		}
	}
}

// No field of a policy is taken and then forgotten: each is in one of the policies
// whose translation is looked at, or is the registry's own.
func TestEveryFieldOfAPolicyIsObeyed(t *testing.T) {
	obeyed := make(map[string]bool)
	for _, field := range obeyedElsewhere {
		obeyed[field] = true
	}
	for _, text := range policies {
		var document map[string]any
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			t.Fatal(err)
		}
		for field, value := range document {
			obeyed[field] = true
			obey(obeyed, field, value)
		}
	}
	for _, field := range jsonFields(reflect.TypeFor[registry.Policy](), "") {
		if !obeyed[field] {
			t.Errorf("nothing shows that %s is obeyed", field)
		}
	}
}

// obey marks what is said within a field, in lists as well.
func obey(obeyed map[string]bool, at string, value any) {
	switch inside := value.(type) {
	case map[string]any:
		for name, one := range inside {
			obeyed[at+"."+name] = true
			obey(obeyed, at+"."+name, one)
		}
	case []any:
		for _, one := range inside {
			obey(obeyed, at, one)
		}
	}
}

func jsonFields(of reflect.Type, at string) []string {
	var out []string
	for _, f := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out = append(out, at+name)
		if kind := f.Type.Kind(); (kind == reflect.Pointer || kind == reflect.Slice) && f.Type.Elem().Kind() == reflect.Struct {
			out = append(out, jsonFields(f.Type.Elem(), at+name+".")...)
		}
	}
	return out
}

// What gRPC clients would refuse a cluster for they are not sent.
func TestGRPCClientsGetWhatTheyKnow(t *testing.T) {
	for name, want := range map[string]clusterv3.Cluster_LbPolicy{
		"random": clusterv3.Cluster_ROUND_ROBIN, "maglev": clusterv3.Cluster_ROUND_ROBIN, "ring_hash": clusterv3.Cluster_RING_HASH, "least_request": clusterv3.Cluster_LEAST_REQUEST,
	} {
		m := newRegistry(t)
		m.add("orders", 1)
		m.putPolicy(t, "orders", policies[name])
		c, err := buildCluster(m.machine.Service(registry.ServiceKey{Namespace: "prod", Service: "orders"}), 0, rulesOf(nil))
		if err != nil {
			t.Fatal(err)
		}
		if withoutForeign(c, kindEnvoy); c.LbPolicy == clusterv3.Cluster_ROUND_ROBIN {
			t.Errorf("%s: Envoy gets %s", name, c.LbPolicy)
		}
		if withoutForeign(c, kindGRPC); c.LbPolicy != want {
			t.Errorf("%s: gRPC gets %s, want %s", name, c.LbPolicy, want)
		}
	}
}

// A policy is sent to the streams that have the service in their scope, the part
// that it changes and no other, and to nobody else.
func TestAPolicyReachesTheInterested(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	var streams []*deltaClient
	for range 5 {
		streams = append(streams, m.started("orders.prod"))
	}
	elsewhere := m.delta(nodeOf(t, metadataNamespace, "test"))
	elsewhere.subscribe(typeCluster)
	elsewhere.ack(elsewhere.next(t))
	elsewhere.quiet()

	expect := func(what string, types ...resourceType) {
		t.Helper()
		before := m.costs()
		m.putPolicy(t, "orders", what)
		for _, c := range streams {
			for _, typ := range types {
				name := "orders.prod"
				if typ == typeRoutes {
					name = "egress"
				}
				c.ack(c.wants(typ, name))
			}
		}
		for _, c := range append(slices.Clone(streams), elsewhere) {
			c.quiet()
		}
		want := [typeCount]uint64{}
		for _, typ := range types {
			want[typ] = uint64(len(streams))
		}
		if got := m.costs().since(before).responses; got != want {
			t.Errorf("policy %s made %v responses, want %v", what, got, want)
		}
	}
	expect(`{"failClosed":true}`, typeCluster, typeEndpoints)
	expect(`{"failClosed":true,"timeouts":{"requestMs":500}}`, typeRoutes)
	expect(`{"failClosed":true,"timeouts":{"requestMs":500},"failover":{"overprovisioningPercent":200}}`, typeEndpoints)
	expect(`{"failClosed":true,"timeouts":{"requestMs":500},"failover":{"overprovisioningPercent":200},"graceSeconds":60}`)
	m.putPolicy(t, "nobody-knows", `{"failClosed":true}`)
	for _, c := range streams {
		c.quiet()
	}
}

// A policy can make another endpoint the primary one: the service's own name leads
// there, and the one that had it gets a name with its own in it.
func TestAPolicyNamesThePrimaryEndpoint(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1, at("http", "http", "10.0.0.1", 80, 100), at("web", "h2c", "10.0.0.1", 81, 100))
	c := m.started("orders.prod", "web~orders.prod")
	m.putPolicy(t, "orders", policies["primary_of_clients"])
	r := c.next(t)
	names := func() []string {
		var out []string
		for _, one := range r.Resources {
			out = append(out, one.Name)
		}
		slices.Sort(out)
		return out
	}
	if got := names(); r.TypeUrl != typeURLs[typeCluster] || !slices.Equal(got, []string{"http~orders.prod", "orders.prod"}) {
		t.Fatalf("first come %v of %s", got, r.TypeUrl)
	}
	s := m.machine.Service(registry.ServiceKey{Namespace: "prod", Service: "orders"})
	if got := s.Endpoints; !slices.Equal(got, []registry.ServiceEndpoint{{Name: "web", Protocol: "h2c"}, {Name: "http", Protocol: "http"}}) {
		t.Fatalf("the endpoints are %v", got)
	}
	m.settled()
	for name, want := range map[string]bool{"orders.prod": true, "http~orders.prod": true, "web~orders.prod": false} {
		if found, _, _ := m.server.cache.lookup(m.server.cache.owner(name)); (found != nil) != want {
			t.Errorf("cluster %s is there: %v, want %v", name, found != nil, want)
		}
	}
}
