package xds

import (
	"cmp"
	"fmt"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// Routes lead from host names to clusters.
//
// A request is sent again only where it cannot have been processed: a retry
// policy with `reset` was seen to process 130 POSTs twice. The first retry goes
// to another host, the second to another region. The policy is most of the bytes
// of a large table, so nothing is in it that is a default, and hosts do without it
// where their clusters have it. A cluster's overrides whatever routes say of retries, so that it is
// in no cluster to which a route leads that says something else.
const (
	routeTimeout     = registry.RequestTimeoutDefault // not for gRPC, event streams and upgrades
	retryOn          = "connect-failure,refused-stream,reset-before-request"
	retries          = 2
	retryHostTries   = 5 // how often to choose again when the choice was tried before
	retriesPerRegion = 2 // attempts before the next region gets one

	statusNotFound   = 404
	reasonHeader     = "x-stellmap-reason"
	reasonUnknown    = "no service that this proxy may call has this host name"
	reasonNotHTTP    = "this service does not speak HTTP"
	unknownHostsName = "unknown" // no cluster is called so: clusters have a dot
)

// A hostRoute leads from the hosts of one stem to one cluster, and where its
// rules say so to others.
type hostRoute struct {
	cluster string
	hosts   []string
	dialect dialect
	rules   routeRules
	known   func(cluster string) bool // whether the client has it

	retriedByCluster bool // the client looks for retries in the cluster, and finds them there

	refused string // why no request is passed on, where it is not for what the service speaks
	rewrite string // the host that instances are to see; empty = the caller's

	kept *atomic.Pointer[[]byte] // the bytes of its virtual host, once they were made; nil = they differ from scope to scope
}

// buildRoutes is the route table of a scope, from routes in the order of their clusters.
// It is joined from its hosts' bytes, which are kept: else a new service would have all
// hosts of all tables made anew.
func buildRoutes(name string, routes []hostRoute) (*anypb.Any, error) {
	retry, err := retryPolicy()
	if err != nil {
		return nil, fmt.Errorf("retry policy: %w", err)
	}
	hosts := make([][]byte, 0, len(routes)+1)
	for _, r := range routes {
		host, err := r.packed(retry)
		if err != nil {
			return nil, fmt.Errorf("routes to %s: %w", r.cluster, err)
		}
		hosts = append(hosts, host)
	}
	others := refusal(unknownHostsName, []string{"*"}, reasonUnknown)
	if name == onDemandName {
		others = demanded(others, retry)
	}
	unknown, err := pack(others)
	if err != nil {
		return nil, err
	}
	return joinRoutes(name, append(hosts, unknown.Value))
}

// routeTables are the names of a scope's route tables, by the kind of its clients.
var routeTables = map[kind][]string{kindEnvoy: {egressName, onDemandName}, kindGateway: {gatewayName}}

// routeHosts is the number of the field of a route table that has its hosts.
const routeHosts = 2

// joinRoutes puts hosts between what is before and behind them in a route table.
func joinRoutes(name string, hosts [][]byte) (*anypb.Any, error) {
	head, err := pack(&routev3.RouteConfiguration{Name: name})
	if err != nil {
		return nil, err
	}
	tail, err := pack(&routev3.RouteConfiguration{IgnorePortInHostMatching: true})
	if err != nil {
		return nil, err
	}
	size := len(head.Value) + len(tail.Value)
	for _, host := range hosts {
		size += protowire.SizeTag(routeHosts) + protowire.SizeBytes(len(host))
	}
	table := append(make([]byte, 0, size), head.Value...)
	for _, host := range hosts {
		table = protowire.AppendBytes(protowire.AppendTag(table, routeHosts, protowire.BytesType), host)
	}
	return &anypb.Any{TypeUrl: head.TypeUrl, Value: append(table, tail.Value...)}, nil
}

// packed is the virtual host of a route as bytes, made once unless they depend on what
// else a client has.
func (r hostRoute) packed(retry *routev3.RetryPolicy) ([]byte, error) {
	if r.kept != nil {
		if host := r.kept.Load(); host != nil {
			return *host, nil
		}
	}
	host, err := virtualHost(r, retry)
	if err != nil {
		return nil, err
	}
	made, err := pack(host)
	if err != nil {
		return nil, err
	}
	if r.kept != nil {
		r.kept.Store(&made.Value)
	}
	return made.Value, nil
}

func virtualHost(r hostRoute, retry *routev3.RetryPolicy) (*routev3.VirtualHost, error) {
	if r.refused != "" || !r.dialect.isHTTP() {
		return refusal(r.cluster, r.hosts, cmp.Or(r.refused, reasonNotHTTP)), nil
	}
	routes, err := r.routes(retry)
	if err != nil {
		return nil, err
	}
	host := &routev3.VirtualHost{Name: r.cluster, Domains: r.hosts, Routes: routes}
	if !r.retriedByCluster {
		host.RetryPolicy = r.rules.retry(retry)
	}
	return host, nil
}

func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

func acceptsEventStream() *routev3.HeaderMatcher { return beginsWith("accept", "text/event-stream") }

// refusal answers 404 and says why.
func refusal(name string, hosts []string, reason string) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name:    name,
		Domains: hosts,
		Routes: []*routev3.Route{{
			Match:  everything(),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: statusNotFound}},
		}},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: reasonHeader, Value: reason}}},
	}
}

func retryPolicy() (*routev3.RetryPolicy, error) {
	hosts, err := pack(&hostsv3.PreviousHostsPredicate{})
	if err != nil {
		return nil, err
	}
	priorities, err := pack(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: retriesPerRegion})
	if err != nil {
		return nil, err
	}
	return &routev3.RetryPolicy{
		RetryOn:                       retryOn,
		NumRetries:                    wrapperspb.UInt32(retries),
		HostSelectionRetryMaxAttempts: retryHostTries,
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: hosts},
		}},
		RetryPriority: retryPriority(priorities),
	}, nil
}

func retryPriority(config *anypb.Any) *routev3.RetryPolicy_RetryPriority {
	return &routev3.RetryPolicy_RetryPriority{
		Name:       "envoy.retry_priorities.previous_priorities",
		ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: config},
	}
}
