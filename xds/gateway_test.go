package xds

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

// newHome is a registry whose instances are in the regions that their metadata name, with
// services of every kind that a gateway passes on to, or does not.
func newHome(t *testing.T) (*member, *cache) {
	t.Helper()
	m := newRegistry(t)
	add := func(service, id, region, version string, endpoints ...registry.Endpoint) {
		m.register(registry.Registration{
			Namespace: "prod", Service: service, ID: id, Version: version, Metadata: map[string]string{"region": region}, Endpoints: endpoints,
		})
	}
	add("orders", "1", "here", "v1", at("http", "http", "10.0.0.1", 80, 100), at("Admin", "https", "10.0.0.1", 443, 100))
	add("orders", "2", "here", "v2", at("http", "http", "10.0.0.2", 80, 100))
	add("orders", "3", "away", "v2", at("http", "http", "10.1.0.3", 80, 100))
	add("ledger", "1", "here", "", at("grpc", "grpc", "10.0.0.4", 50051, 100))
	add("vault", "1", "here", "", at("https", "https", "10.0.0.5", 443, 100))
	add("queue", "1", "here", "", at("tls", "tls", "10.0.0.6", 5671, 100))
	add("cache", "1", "here", "", at("redis", "redis", "10.0.0.7", 6379, 100))
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.service = regionsOf(m.machine)
	return m, c
}

// table is a scope's route table as its clients read it.
func (c *cache) table(t *testing.T, s *scope) *routev3.RouteConfiguration {
	t.Helper()
	packed, err := buildRoutes(routeTables[s.kind][0], c.routesOf(s))
	if err != nil {
		t.Fatal(err)
	}
	table := new(routev3.RouteConfiguration)
	if err := packed.UnmarshalTo(table); err != nil {
		t.Fatal(err)
	}
	return table
}

// All that a gateway is told: what speaks TLS is passed on as it is by its name, and requests
// by their host; what a policy does to requests, its callers' proxies have done; and no
// instance is of another region.
func TestWhatAGatewayIsTold(t *testing.T) {
	m, c := newHome(t)
	m.putPolicy(t, "orders", `{"timeouts":{"requestMs":1000,"perTryMs":300},"retries":{"attempts":5,"statuses":[503]},
		"subsets":[{"name":"new","version":"v2"}],"drops":[{"category":"load","percent":5}],
		"routes":[{"match":{"prefix":"/old"},"prefixRewrite":"/new","split":[{"subset":"new","weight":1}]}]}`)
	m.putPolicy(t, "vault", `{"checks":{"kind":"http","path":"/healthz"}}`)
	m.putPolicy(t, "ledger", `{"retries":{"attempts":0},"checks":{"kind":"grpc"}}`)
	c.reload(time.Time{})
	scope := c.openScope(kindGateway, retriesAtClusters, nil, []string{"*.prod"})
	key := resourceKey{typ: typeListener, name: gatewayName, kind: kindGateway, gateway: netip.MustParseAddrPort("10.0.0.9:15443"), scope: scope}
	out := built(t, c, key) + envoyJSON(t, c.table(t, scope))
	for _, name := range slices.Sorted(maps.Keys(scope.members)) {
		out += built(t, c, resourceKey{typ: typeCluster, name: name, kind: kindGateway}) + built(t, c, resourceKey{typ: typeEndpoints, name: name, kind: kindGateway, region: "here"})
	}
	golden(t, "gateway.txt", out)
}

// The bytes of a gateway's hosts are kept beside those of sidecars, and neither are the other's.
func TestHostsOfGatewaysAreKept(t *testing.T) {
	_, c := newHome(t)
	c.reload(time.Time{})
	for range 2 { // the second time they are there
		tables := make(map[kind][]byte)
		for _, of := range []kind{kindEnvoy, kindGateway} {
			packed, err := buildRoutes(egressName, c.routesOf(c.openScope(of, retriesAtHosts, nil, []string{"*.prod"})))
			if err != nil {
				t.Fatal(err)
			}
			tables[of] = packed.Value
		}
		if bytes.Contains(tables[kindEnvoy], []byte(reasonPassedOn)) || !bytes.Contains(tables[kindGateway], []byte(reasonPassedOn)) {
			t.Error("a gateway has the hosts of a sidecar, or a sidecar those of a gateway")
		}
	}
}

// What a node says of being a gateway is obeyed, or refused by its name.
func TestWhoIsAGateway(t *testing.T) {
	for _, c := range []struct {
		metadata []any
		agent    string
		at       string // where it listens
		refused  string
	}{
		{metadata: []any{metadataRole, "gateway"}, at: "127.0.0.1:15443"},
		{metadata: []any{metadataRole, "gateway", metadataGateway, "0.0.0.0", metadataGatePort, "443"}, at: "0.0.0.0:443"},
		{metadata: []any{metadataRole, "gateway", metadataGateway, "fd00::1", metadataGatePort, 8443}, at: "[fd00::1]:8443"},
		{metadata: []any{metadataRole, "router"}, refused: `node.metadata["stellmap.role"]: router is no role: "gateway" is, and what is none leaves it out`},
		{metadata: []any{metadataRole, true}, refused: `node.metadata["stellmap.role"]: true is no role`},
		{metadata: []any{metadataRole, "gateway"}, agent: "grpc-go", refused: `node.metadata["stellmap.role"]: a client of gRPC is no gateway`},
		{metadata: []any{metadataRole, "gateway", metadataGateway, "gw.example"}, refused: `node.metadata["stellmap.gateway_address"]: gw.example is not an IP address`},
		{metadata: []any{metadataRole, "gateway", metadataGateway, "fe80::1%eth0"}, refused: `node.metadata["stellmap.gateway_address"]: fe80::1%eth0 is not an IP address`},
		{metadata: []any{metadataRole, "gateway", metadataGatePort, 0}, refused: `node.metadata["stellmap.gateway_port"]: 0 is not a port`},
		{metadata: []any{metadataRole, "gateway", metadataEgressPort, 15001}, refused: `node.metadata["stellmap.egress_port"]: is for workloads' proxies, and this is a gateway: leave it out`},
		{metadata: []any{metadataRole, "gateway", metadataOnDemand, true}, refused: `node.metadata["stellmap.on_demand"]: is for workloads' proxies`},
		{metadata: []any{metadataGatePort, 15443}, refused: `node.metadata["stellmap.gateway_port"]: is a gateway's: set stellmap.role to gateway, or leave it out`},
		{metadata: []any{metadataGateway, "10.0.0.1"}, refused: `node.metadata["stellmap.gateway_address"]: is a gateway's`},
	} {
		node := nodeOf(t, c.metadata...)
		node.UserAgentName = cmp.Or(c.agent, node.UserAgentName)
		n, err := parseNode(node, "here")
		if c.refused != "" {
			mustEnd(t, err, codes.InvalidArgument, c.refused)
		} else if err != nil || n.kind != kindGateway || n.gateway.String() != c.at || n.entrance() != gatewayName {
			t.Errorf("%v is %+v, %v; want a gateway at %s", c.metadata, n, err, c.at)
		}
	}
}

// A gateway has so many chains and no more. The oldest have them, and the others say so.
func TestChainsAreBounded(t *testing.T) {
	m := newMember(t, nil)
	for n := range gatewayChainsMax + 2 {
		m.add(fmt.Sprintf("s%04d", gatewayChainsMax+2-n), n, registry.Endpoint{Protocol: "tls", Host: addressOf(n), Port: 443})
	}
	c := m.delta(nodeOf(t, metadataRole, roleGateway))
	c.subscribe(typeCluster)
	c.ack(c.next(t))
	c.subscribe(typeListener, "*")
	listener := c.next(t)
	chains := chainsIn(t, listener.Resources[0].Resource)
	if len(chains) != gatewayChainsMax || !slices.IsSorted(chains) || slices.Contains(chains, "s0001.prod") || slices.Contains(chains, "s0002.prod") || chains[0] != "s0003.prod" {
		t.Errorf("there are %d chains, from %s to %s", len(chains), chains[0], chains[len(chains)-1])
	}
	m.withholds(t, "s0001", reasonChains(1))
	m.withholds(t, "s0003")
	c.ack(listener)
	m.remove("s0003", gatewayChainsMax-1)
	if chains := chainsIn(t, c.next(t).Resources[0].Resource); chains[0] != "s0002.prod" {
		t.Errorf("the next does not take its place: %s has it", chains[0])
	}
}

func chainsIn(t *testing.T, packed *anypb.Any) []string {
	t.Helper()
	l := new(listenerv3.Listener)
	if err := packed.UnmarshalTo(l); err != nil {
		t.Fatal(err)
	}
	return strings.Fields(strings.Trim(chainsOf(l), "()"))
}
