package xds

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// grpcNode is a gRPC client as grpc-go says that it is one.
func grpcNode() *corev3.Node {
	return &corev3.Node{
		Id: "caller-1", UserAgentName: "gRPC Go", ClientFeatures: []string{"envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"},
		Locality: &corev3.Locality{Region: "here"},
	}
}

func unpack[M any, P interface {
	*M
	validated
}](t *testing.T, packed *anypb.Any) *M {
	t.Helper()
	m := P(new(M))
	if err := packed.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// What a gRPC client of a service gets, of each policy that it knows something of.
func TestTargetsOfPolicies(t *testing.T) {
	cases := map[string]string{"plain": ""}
	for _, name := range []string{"least_request", "ring_hash", "maglev", "random", "outliers", "circuits", "timeouts", "no_timeout", "retries", "no_retries", "split", "matches", "mirror", "by_load", "hash_cookie", "hash_source", "drops", "faults"} {
		cases[name] = policies[name]
	}
	cases["retries_of_envoy"] = `{"retries":{"attempts":5,"when":["connect-failure"],"statuses":[503]}}`
	for name, policy := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMember(t, nil)
			m.add("orders", 1, at("grpc", "grpc", "10.0.0.1", 80, 100))
			if policy != "" {
				m.putPolicy(t, "orders", policy)
			}
			m.settled()
			text := policy + "\n"
			for _, typ := range []resourceType{typeListener, typeRoutes, typeCluster, typeEndpoints} {
				c := m.server.cache
				got, _, err := c.translate(resourceKey{typ: typ, name: "orders.prod", kind: kindGRPC, region: "here"}, c.owner("orders.prod"))
				if err != nil {
					t.Fatal(err)
				}
				text += envoyJSON(t, got)
			}
			golden(t, "grpc/"+name+".txt", text)
		})
	}
}

// A gRPC client is led from its target to the endpoints, one name at a time, in a
// namespace that is not its own, whatever its target says of a port.
func TestATargetLeadsToEndpoints(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1, at("grpc", "grpc", "10.0.0.1", 80, 100), at("Admin", "grpc", "10.0.0.1", 81, 100))
	for target, cluster := range map[string]string{
		"orders.prod": "orders.prod", "orders.prod:8080": "orders.prod", "Orders.Prod": "orders.prod",
		"admin~orders.prod": "admin~orders.prod", "admin~orders.prod:443": "admin~orders.prod",
	} {
		c := m.whole(grpcNode())
		c.subscribe(typeListener, target)
		listener := c.wants(typeListener, target)
		c.ack(listener)
		manager := unpack[hcmv3.HttpConnectionManager](t, unpack[listenerv3.Listener](t, listener.Resources[0]).GetApiListener().GetApiListener())
		route := manager.GetRds().GetRouteConfigName()
		c.subscribe(typeRoutes, route)
		routes := c.wants(typeRoutes, route)
		c.ack(routes)
		host := unpack[routev3.RouteConfiguration](t, routes.Resources[0]).GetVirtualHosts()[0]
		if !slices.Contains(host.GetDomains(), cluster) || !slices.Contains(host.GetDomains(), cluster+":*") {
			t.Errorf("%s: the domains are %v", target, host.GetDomains())
		}
		name := host.GetRoutes()[0].GetRoute().GetCluster()
		c.subscribe(typeCluster, name)
		c.ack(c.wants(typeCluster, cluster))
		c.subscribe(typeEndpoints, name)
		c.ack(c.wants(typeEndpoints, cluster))
	}
}

// That there is no such service is said at once, and that it is there when it comes;
// a client that has several targets is told of all of them each time.
func TestATargetThatIsUnknown(t *testing.T) {
	m := newMember(t, nil)
	m.add("ledger", 1, at("grpc", "grpc", "10.0.0.9", 80, 100))
	c := m.whole(grpcNode())
	c.subscribe(typeListener, "orders.prod")
	c.ack(c.wants(typeListener))
	c.subscribe(typeListener, "orders.prod", "ledger.prod")
	c.ack(c.wants(typeListener, "ledger.prod"))
	c.subscribe(typeCluster, "orders.prod")
	c.ack(c.wants(typeCluster))
	m.add("orders", 1, at("grpc", "grpc", "10.0.0.1", 80, 100))
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.ack(c.wants(typeListener, "ledger.prod", "orders.prod"))
	m.remove("orders", 1)
	c.ack(c.wants(typeCluster))
	c.ack(c.wants(typeListener, "ledger.prod"))
}

// A policy reaches the gRPC clients of the service, in the resource that it changes;
// those of another service hear nothing.
func TestAPolicyReachesATarget(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1, at("grpc", "grpc", "10.0.0.1", 80, 100))
	m.add("ledger", 2, at("grpc", "grpc", "10.0.0.2", 80, 100))
	caller := func(name string) *wholeClient {
		c := m.whole(grpcNode())
		for _, typ := range []resourceType{typeListener, typeRoutes, typeCluster, typeEndpoints} {
			c.subscribe(typ, name)
			c.ack(c.wants(typ, name))
		}
		c.quiet(name)
		return c
	}
	c, other := caller("orders.prod"), caller("ledger.prod")
	before := m.costs()
	m.putPolicy(t, "orders", `{"timeouts":{"requestMs":500}}`)
	routes := c.wants(typeRoutes, "orders.prod")
	c.ack(routes)
	limit := unpack[routev3.RouteConfiguration](t, routes.Resources[0]).GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetMaxStreamDuration().GetMaxStreamDuration()
	if limit.AsDuration().Milliseconds() != 500 {
		t.Errorf("a call may take %v", limit.AsDuration())
	}
	m.putPolicy(t, "orders", `{"timeouts":{"requestMs":500},"loadBalancing":{"algorithm":"least-request"}}`)
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.ack(c.wants(typeEndpoints, "orders.prod")) // which follow a changed cluster
	m.settled()
	c.quiet("orders.prod")
	other.quiet("ledger.prod")
	if got := m.costs().since(before).responses; got != [typeCount]uint64{typeCluster: 1, typeEndpoints: 1, typeRoutes: 1} {
		t.Errorf("two policies made %v responses", got)
	}
	m.drop("ledger", 2)
	other.ack(other.wants(typeEndpoints, "ledger.prod"))
}

// What a gRPC client of region "here" is told of instances: the share of each region
// as Envoy would have it, and no host that is not to be called.
func TestEndpointsForGRPC(t *testing.T) {
	web := func(host string, weight int32) registry.Endpoint { return at("grpc", "grpc", host, 80, weight) }
	const passing, expired, draining, suspect = registry.StatusPassing, registry.StatusExpired, registry.StatusDraining, registry.StatusSuspect
	some := func(region, zone string, from int, weight int32, of ...registry.Status) []*registry.Instance {
		var out []*registry.Instance
		for n, status := range of {
			out = append(out, instance(fmt.Sprintf("%s-%d", region, from+n), region, zone, status, web(fmt.Sprintf("10.%d.0.%d", region[0], from+n), weight)))
		}
		return out
	}
	for name, instances := range map[string][][]*registry.Instance{
		"nobody":                        nil,
		"one region":                    {some("here", "", 1, 100, passing, passing)},
		"weights are parts of a zone":   {some("here", "a", 1, 100, passing, passing), some("here", "a", 3, 300, passing), some("here", "b", 4, 100, passing)},
		"others are for total failure":  {some("here", "", 1, 100, passing, expired, passing, passing), some("east", "", 1, 100, passing), some("westward", "", 1, 100, passing)},
		"half is gone":                  {some("here", "", 1, 100, passing, expired), some("east", "", 1, 100, passing, passing), some("westward", "", 1, 100, passing)},
		"half is gone, little is left":  {some("here", "", 1, 100, passing, expired), some("east", "", 1, 100, passing, expired, expired, expired)},
		"all is gone":                   {some("here", "", 1, 100, expired, expired), some("east", "", 1, 100, passing), some("westward", "", 1, 100, passing)},
		"those that drain do not count": {some("here", "", 1, 100, passing, draining, draining), some("east", "", 1, 100, passing)},
		"all drain":                     {some("here", "", 1, 100, draining), some("east", "", 1, 100, passing)},
		"a zone is half gone":           {some("here", "a", 1, 100, passing, expired, passing, passing, passing), some("here", "b", 6, 100, passing, passing, expired, expired, expired), some("east", "", 1, 100, passing)},
		"suspects count as gone":        {some("here", "", 1, 100, passing, passing, suspect, suspect), some("east", "", 1, 100, passing)},
		"nobody is to be called":        {some("here", "", 1, 100, expired), some("east", "", 1, 100, expired)},
	} {
		t.Run(name, func(t *testing.T) {
			m := buildEndpointsForGRPC(service(primary("grpc"), slices.Concat(instances...)...), 0, here)
			mustBeTakenByGRPC(t, m)
			golden(t, "grpc/endpoints/"+strings.NewReplacer(" ", "_", ",", "").Replace(name)+".txt", envoyJSON(t, m))
		})
	}
}

// mustBeTakenByGRPC refuses what gRPC clients refuse a whole assignment for, and what they would pass over in silence.
func mustBeTakenByGRPC(t *testing.T, m *endpointv3.ClusterLoadAssignment) {
	t.Helper()
	addresses, localities := make(map[string]bool), make(map[string]bool)
	weights := make(map[uint32]uint64)
	for _, l := range m.GetEndpoints() {
		key := fmt.Sprint(l.GetPriority(), l.GetLocality())
		if l.GetLocality() == nil || localities[key] {
			t.Errorf("locality %s stands twice in a priority", key)
		}
		localities[key] = true
		if l.GetLoadBalancingWeight().GetValue() < 1 || len(l.GetLbEndpoints()) == 0 {
			t.Errorf("locality %s has weight %v and %d hosts", key, l.GetLoadBalancingWeight(), len(l.GetLbEndpoints()))
		}
		weights[l.GetPriority()] += uint64(l.GetLoadBalancingWeight().GetValue())
		for _, e := range l.GetLbEndpoints() {
			address := fmt.Sprint(e.GetEndpoint().GetAddress().GetSocketAddress())
			if addresses[address] || e.GetLoadBalancingWeight().GetValue() < 1 || e.GetHealthStatus() != corev3.HealthStatus_HEALTHY {
				t.Errorf("host %s stands twice, weighs %v or is %v", address, e.GetLoadBalancingWeight(), e.GetHealthStatus())
			}
			addresses[address] = true
		}
	}
	for n := range uint32(len(weights)) {
		if weights[n] == 0 || weights[n] > math.MaxUint32 {
			t.Errorf("priority %d weighs %d", n, weights[n])
		}
	}
}

// A zone whose hosts have many weights has a bounded number of parts, which share
// as the hosts' weights say.
func TestManyWeightsShareParts(t *testing.T) {
	var all []*registry.Instance
	for n := range 64 * weightGroupsMax {
		all = append(all, instance(fmt.Sprint(n), "here", "a", registry.StatusPassing, at("grpc", "grpc", addressOf(n), 80, int32(n*63+1))))
	}
	m := buildEndpointsForGRPC(service(primary("grpc"), all...), 0, here)
	mustBeTakenByGRPC(t, m)
	if n := len(m.GetEndpoints()); n != weightGroupsMax {
		t.Errorf("it has %d parts, want %d", n, weightGroupsMax)
	}
	sum, last := uint32(0), uint32(0)
	for _, l := range m.GetEndpoints() {
		weight := l.GetLoadBalancingWeight().GetValue()
		if weight < last {
			t.Errorf("%v weighs %d, the one before %d", l.GetLocality(), weight, last)
		}
		sum, last = sum+weight, weight
	}
	if sum > allShares || sum < allShares-weightGroupsMax {
		t.Errorf("together they weigh %d", sum)
	}
}

// On a ring each host has its share of all, in one locality of a priority.
func TestEndpointsOfARing(t *testing.T) {
	grpc := func(host string, weight int32) registry.Endpoint { return at("grpc", "grpc", host, 80, weight) }
	s := service(primary("grpc"),
		instance("a", "here", "z1", registry.StatusPassing, grpc("10.0.0.1", 100)), instance("b", "here", "z2", registry.StatusPassing, grpc("10.0.0.2", 300)),
		instance("c", "here", "z2", registry.StatusExpired, grpc("10.0.0.3", 100)), instance("d", "here", "z2", registry.StatusExpired, grpc("10.0.0.4", 100)),
		instance("e", "east", "", registry.StatusPassing, grpc("10.1.0.1", 100)), instance("f", "west", "", registry.StatusPassing, grpc("10.2.0.1", 100)))
	s.Policy = &registry.Policy{LoadBalancing: &registry.LoadBalancing{Algorithm: registry.BalanceRingHash}}
	m := buildEndpointsForGRPC(s, 0, here)
	mustBeTakenByGRPC(t, m)
	golden(t, "grpc/endpoints/ring.txt", envoyJSON(t, m))
}

// Least request, which not all clients know, is told as a list that ends with what all know.
func TestLeastRequestIsTakenByAll(t *testing.T) {
	s := service(primary("grpc"))
	s.Policy = &registry.Policy{LoadBalancing: &registry.LoadBalancing{Algorithm: registry.BalanceLeastRequest}}
	c, err := buildCluster(s, 0, rulesOf(s.Policy))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = forGRPC(c); err != nil {
		t.Fatal(err)
	}
	inner := unpack[localityv3.WrrLocality](t, c.GetLoadBalancingPolicy().GetPolicies()[0].GetTypedExtensionConfig().GetTypedConfig())
	var names []string
	for _, p := range inner.GetEndpointPickingPolicy().GetPolicies() {
		names = append(names, p.GetTypedExtensionConfig().GetName())
	}
	if c.GetLbPolicy() != clusterv3.Cluster_LEAST_REQUEST || !slices.Equal(names, []string{"LeastRequest", "RoundRobin"}) {
		t.Errorf("%v: %v", c.GetLbPolicy(), names)
	}
}

// gRPC clients are told of shares of failed calls where the policy has one, and of no
// success rates, which they would go by unless told; without a share of nothing.
func TestGRPCClientsKnowShares(t *testing.T) {
	for text, want := range map[string]*clusterv3.OutlierDetection{
		`{}`: nil,
		`{"outlierDetection":{"localFailures":3,"maxEjectionPercent":20}}`: nil,
		`{"outlierDetection":{"disabled":true}}`:                           nil,
		`{"outlierDetection":{"failurePercent":40,"maxEjectionPercent":20,"intervalMs":500}}`: {
			Interval: durationpb.New(500 * time.Millisecond), BaseEjectionTime: durationpb.New(3 * time.Second), MaxEjectionTime: durationpb.New(30 * time.Second),
			MaxEjectionPercent: wrapperspb.UInt32(20), EnforcingSuccessRate: wrapperspb.UInt32(0),
			FailurePercentageThreshold: wrapperspb.UInt32(40), EnforcingFailurePercentage: wrapperspb.UInt32(100),
			FailurePercentageMinimumHosts: wrapperspb.UInt32(2), FailurePercentageRequestVolume: wrapperspb.UInt32(10),
		},
	} {
		s, p := service(primary("grpc")), policyOf(t, text)
		s.Policy = &p
		c, err := buildCluster(s, 0, rulesOf(s.Policy))
		if err != nil {
			t.Fatal(err)
		}
		if c, err = forGRPC(c); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(c.GetOutlierDetection(), want) {
			t.Errorf("by %s gRPC clients are told %v, want %v", text, c.GetOutlierDetection(), want)
		}
	}
}

// An instance stays in its locality when one of another weight comes: clients would
// make their connections to it anew.
func TestALocalityOutlivesOthers(t *testing.T) {
	grpc := func(id string, weight int32) *registry.Instance {
		return instance(id, "here", "a", registry.StatusPassing, at("grpc", "grpc", "10.0.0."+id, 80, weight))
	}
	before := buildEndpointsForGRPC(service(primary("grpc"), grpc("1", 100)), 0, here)
	after := buildEndpointsForGRPC(service(primary("grpc"), grpc("1", 100), grpc("2", 50)), 0, here)
	was := before.GetEndpoints()[0].GetLocality().GetSubZone()
	for _, l := range after.GetEndpoints() {
		if l.GetLbEndpoints()[0].GetLoadBalancingWeight().GetValue() == 100 && l.GetLocality().GetSubZone() != was {
			t.Errorf("it moves from %s to %s", was, l.GetLocality().GetSubZone())
		}
	}
}

// However many gRPC clients of a region call a service, whatever else they call and
// wherever they are from, a change of it is translated once and marshalled once for
// all of them, and once for Envoys.
func TestGRPCClientsShareAView(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1, at("grpc", "grpc", "10.0.0.1", 80, 100))
	m.add("ledger", 2, at("grpc", "grpc", "10.0.0.2", 80, 100))
	envoy := m.started("ledger.prod", "orders.prod")
	var callers []*wholeClient
	for n := range 5 {
		node := grpcNode()
		node.Id, node.Locality.Zone = fmt.Sprint("caller-", n), fmt.Sprint("z", n)
		c := m.whole(node)
		for _, typ := range []resourceType{typeListener, typeRoutes, typeCluster, typeEndpoints} {
			c.subscribe(typ, "orders.prod")
			c.ack(c.wants(typ, "orders.prod"))
		}
		c.quiet("orders.prod")
		callers = append(callers, c)
	}
	before := m.costs()
	m.add("orders", 3, at("grpc", "grpc", "10.0.0.3", 80, 100))
	envoy.ack(envoy.wants(typeEndpoints, "orders.prod"))
	for _, c := range callers {
		c.ack(c.wants(typeEndpoints, "orders.prod"))
	}
	m.add("ledger", 4, at("grpc", "grpc", "10.0.0.4", 80, 100))
	envoy.ack(envoy.wants(typeEndpoints, "ledger.prod"))
	m.settled()
	envoy.quiet()
	for _, c := range callers {
		c.quiet("orders.prod")
	}
	got := m.costs().since(before)
	if want := [typeCount]uint64{typeEndpoints: 3}; got.built != want || got.marshalled != want {
		t.Errorf("built %v and marshalled %v, want %v: orders for each kind, ledger for Envoys", got.built, got.marshalled, want)
	}
	if want := [typeCount]uint64{typeEndpoints: 7}; got.responses != want {
		t.Errorf("there were %v responses, want %v", got.responses, want)
	}
}
