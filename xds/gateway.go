package xds

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/stellmap/stellmap/registry"
)

// A gateway is an Envoy through which the proxies of other regions reach the instances
// of its own. It has one port: a connection that begins TLS is passed on by the name that
// it asks for (SNI), as it is; on any other come requests, which are passed on by
// their host, over HTTP/1.1 or HTTP/2. It knows the hosts that sidecars know, and
// beside them the names of clusters, by which a sidecar says that it means a subset, and
// a check which service it is about.
//
// What a policy says of requests the caller's proxy has done already: splits, faults, copies
// and drops would happen twice, and retries would multiply. So a gateway knows time-outs
// only from callers who give up, and tries again only what no instance has seen. It is told
// of the instances of its own region alone, so that nothing goes round in circles.
//
// Each service that speaks TLS has a chain in the listener. Envoy's filter that takes
// a connection to the cluster of its SNI would make do with one chain for all; but it would lead to any
// cluster that there is, the control plane's too, and not know a host in ".mesh". When a chain comes or goes
// Envoy keeps the connections of the others.
const (
	roleGateway = "gateway"

	gatewayPortDefault = 15443
	gatewayChainsMax   = 1000 // services that speak TLS; of more the oldest have it
)

// gatewayAddressDefault is within reach of nobody else: where a gateway listens for other
// regions is for its operator to say.
var gatewayAddressDefault = netip.AddrFrom4([4]byte{127, 0, 0, 1})

const (
	reasonPassedOn = "this service speaks TLS: a gateway passes on connections that ask for its name (SNI)"
	reasonNoWay    = registry.NoWayByGateways
)

func reasonChains(gateways int) string {
	return fmt.Sprintf("%d gateways of this member pass on to %d services that speak TLS, which is the most, and this one is younger: give them fewer upstreams", gateways, gatewayChainsMax)
}

// readRole reads what a node says of being a gateway. What only gateways have, or have no
// use for, is refused where it would not be obeyed.
func (n *node) readRole(fields map[string]*structpb.Value) error {
	if role := fields[metadataRole]; role != nil {
		if role.GetStringValue() != roleGateway {
			return nodeError(metadataRole, fmt.Errorf("%v is no role: %q is, and what is none leaves it out", role.AsInterface(), roleGateway))
		}
		if n.kind == kindGRPC {
			return nodeError(metadataRole, fmt.Errorf("a client of gRPC is no gateway: an Envoy is"))
		}
		n.kind = kindGateway
	}
	foreign, why := []string{metadataGateway, metadataGatePort}, "is a gateway's: set "+metadataRole+" to "+roleGateway+", or leave it out"
	if n.kind == kindGateway {
		foreign, why = []string{metadataEgressPort, metadataOnDemand}, "is for workloads' proxies, and this is a gateway: leave it out"
	}
	for _, key := range foreign {
		if fields[key] != nil {
			return nodeError(key, fmt.Errorf("%s", why))
		}
	}
	if n.kind == kindGateway {
		return n.readGateway(fields)
	}
	return nil
}

// readGateway reads where a gateway listens.
func (n *node) readGateway(fields map[string]*structpb.Value) error {
	address, port := gatewayAddressDefault, uint16(gatewayPortDefault)
	if v := fields[metadataGateway]; v != nil {
		var err error
		if address, err = netip.ParseAddr(strings.TrimSpace(v.GetStringValue())); err != nil || address.Zone() != "" {
			return nodeError(metadataGateway, fmt.Errorf("%v is not an IP address: such as 10.0.0.1, or 0.0.0.0 for all that the machine has", v.AsInterface()))
		}
	}
	if v := fields[metadataGatePort]; v != nil {
		var err error
		if port, err = portOf(v); err != nil {
			return nodeError(metadataGatePort, err)
		}
	}
	n.gateway = netip.AddrPortFrom(address, port)
	return nil
}

func nodeError(key string, err error) error {
	return status.Errorf(codes.InvalidArgument, "node.metadata[%q]: %v", key, err)
}

// passesTLS says that what speaks a protocol is reached by SNI.
func passesTLS(protocol string) bool { return protocol == "https" || protocol == "tls" }

// authorities are the hosts by which gateways know a claim. Those of a subset no workload
// calls: its callers' proxies put them in the place of the service's.
func (c *claim) authorities() []string {
	if c.subset != "" {
		return []string{c.cluster}
	}
	hosts := hostsOf(c.stem, c.endpoint)
	if !slices.Contains(hosts, c.cluster) {
		hosts = append(hosts, c.cluster)
	}
	return hosts
}

// routeAtGateway is the route by which a gateway passes requests on to a claim's cluster. Caller holds cache.mu.
func (c *claim) routeAtGateway(at retriesAt) hostRoute {
	r := hostRoute{
		cluster: c.cluster, hosts: c.authorities(), dialect: dialectOf(c.name.Protocol), rules: c.listing.rules.atGateway(),
		known: func(string) bool { return false }, // nothing but the cluster is led to
	}
	r.retriedByCluster = at == retriesAtClusters && r.rules.retryAsAll(c.endpoint)
	switch {
	case passesTLS(c.name.Protocol):
		r.refused = reasonPassedOn
	case !registry.PassesGateways(c.name.Protocol):
		r.refused = reasonNoWay
	}
	if c.subset != "" {
		r.rewrite = primaryStem(c.listing.key)
		return r
	}
	r.kept = &c.listing.gateway[at][c.endpoint]
	return r
}

// atGateway are the rules that gateways obey of those of a policy.
func (r routeRules) atGateway() routeRules {
	out := routeRules{timeouts: &registry.Timeouts{RequestMs: new(int64)}, balance: r.balance}
	if r.retries != nil && r.retries.Attempts != nil && *r.retries.Attempts == 0 {
		out.retries = r.retries
	}
	return out
}

// untouched is a service to whose instances a gateway passes TLS on as it comes.
func untouched(s *registry.Service, endpoint int) *registry.Service {
	if !passesTLS(s.Endpoints[endpoint].Protocol) {
		return s
	}
	out := *s
	out.Endpoints = slices.Clone(s.Endpoints)
	out.Endpoints[endpoint].Protocol = "tls"
	return &out
}

// withoutBlindChecks takes the checks out of a gateway's cluster that would speak without
// TLS to who expects it.
func withoutBlindChecks(c *clusterv3.Cluster) {
	if _, speaks := c.TypedExtensionProtocolOptions[httpOptions]; speaks {
		return
	}
	c.HealthChecks = slices.DeleteFunc(c.HealthChecks, func(check *corev3.HealthCheck) bool { return check.GetTcpHealthCheck() == nil })
	c.IgnoreHealthOnHostRemoval = len(c.HealthChecks) > 0
}

// homeOf is a service as the gateways of a region have it: with that region's instances,
// and nothing dropped, which their callers have done.
func homeOf(s *registry.Service, region string) *registry.Service {
	out := *s
	out.Shown = slices.DeleteFunc(slices.Clone(s.Shown), func(i *registry.Instance) bool { return i.Region != region })
	if s.Policy != nil {
		policy := *s.Policy
		policy.Drops, out.Policy = nil, &policy
	}
	return &out
}

// passedOn are the claims of a scope whose TLS its gateways pass on, in the order of their clusters.
func (c *cache) passedOn(s *scope) []*claim {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := s.passedOn()
	out = out[:min(len(out), gatewayChainsMax)]
	slices.SortFunc(out, func(a, b *claim) int { return cmp.Compare(a.cluster, b.cluster) })
	return out
}

// passedOn is how many there would be, the oldest first. Caller holds cache.mu.
func (s *scope) passedOn() []*claim {
	var out []*claim
	for _, claim := range s.members {
		if claim.subset == "" && passesTLS(claim.name.Protocol) {
			out = append(out, claim)
		}
	}
	slices.SortFunc(out, compareClaims)
	return out
}

// withheldAtGateways says that an endpoint is one too many for gateways of this member. Caller holds nothing.
func (c *cache) withheldAtGateways(s *registry.Service) []Withheld {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.directory.services[s.Key]
	if l == nil {
		return nil
	}
	var out []Withheld
	for _, claim := range l.claims {
		gateways := 0
		for _, scope := range c.scopesOf(l) {
			if len(scope.gateways) == 0 || !passesTLS(claim.name.Protocol) || claim.subset != "" {
				continue
			}
			if all := scope.passedOn(); len(all) > gatewayChainsMax && slices.Contains(all[gatewayChainsMax:], claim) {
				gateways += len(scope.wildcard)
			}
		}
		if gateways > 0 {
			out = append(out, Withheld{Service: s.Key, Endpoint: claim.name.Name, Reason: reasonChains(gateways)})
		}
	}
	return out
}

// buildGateway is the listener of a gateway.
func buildGateway(at netip.AddrPort, passed []*claim) (*listenerv3.Listener, error) {
	inspector, err := pack(&inspectorv3.TlsInspector{})
	if err != nil {
		return nil, fmt.Errorf("TLS inspector: %w", err)
	}
	filters, err := httpFilters()
	if err != nil {
		return nil, err
	}
	requests, err := managing(managerOf(gatewayName, slices.DeleteFunc(filters, func(f *hcmv3.HttpFilter) bool { return f.Disabled })))
	if err != nil {
		return nil, err
	}
	out := &listenerv3.Listener{
		Name:             gatewayName,
		Address:          socketAddress(at.Addr().String(), uint32(at.Port())),
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		ListenerFilters: []*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: inspector},
		}},
		FilterChains: []*listenerv3.FilterChain{{ // TLS that asks for no name of these is in no chain, and closed
			Name: gatewayName, FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer"}, Filters: []*listenerv3.Filter{requests},
		}},
	}
	for _, claim := range passed {
		proxy, err := tcpProxy(claim.cluster)
		if err != nil {
			return nil, fmt.Errorf("chain of %s: %w", claim.cluster, err)
		}
		out.FilterChains = append(out.FilterChains, &listenerv3.FilterChain{
			Name:             claim.cluster,
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls", ServerNames: claim.authorities()},
			Filters:          []*listenerv3.Filter{proxy},
		})
	}
	return out, nil
}
