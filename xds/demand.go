package xds

import (
	"fmt"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	demandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// An Envoy that asks on demand is told of what is beyond its scope when a workload first
// calls it: the request waits while Envoy asks for the cluster that has the name of its
// host, and goes on when that and its endpoints are there. The name of a cluster is that
// of a host, so that no table has to lead from the one to the other.

const (
	onDemandName = "egress-on-demand" // the routes of such an Envoy

	// A request waits for its cluster no longer, which is there after some 10 ms. Envoy 1.40
	// asks for a name once: while there is no such service, each further request waits as
	// long in vain (https://github.com/envoyproxy/envoy/pull/44742).
	demandMax = time.Second

	// A host as it is a cluster's name as well: without a port, and not in ".mesh".
	demandedHosts = `[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?`
)

// askOnDemand has a listener ask for clusters that it does not have.
func askOnDemand(m *hcmv3.HttpConnectionManager) error {
	filter, err := pack(&demandv3.OnDemand{Odcds: &demandv3.OnDemandCds{Source: overADS(), Timeout: durationpb.New(demandMax)}})
	if err != nil {
		return fmt.Errorf("on-demand filter: %w", err)
	}
	router := len(m.HttpFilters) - 1
	m.HttpFilters = append(m.HttpFilters[:router:router],
		&hcmv3.HttpFilter{Name: "envoy.filters.http.on_demand", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: filter}}, m.HttpFilters[router])
	m.GetRds().RouteConfigName = onDemandName
	m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"NC"}}, // no such cluster
		}},
		HeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: reasonHeader, Value: reasonUnknown}}},
	}}}
	return nil
}

// demanded leads hosts that are in no other virtual host to the clusters of their names,
// before they are refused. What a service speaks is not known yet: event streams and calls
// of gRPC have no time-out, as where it is.
func demanded(others *routev3.VirtualHost, retry *routev3.RetryPolicy) *routev3.VirtualHost {
	host := stringMatch(":authority", &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: demandedHosts}},
	})
	route := func(timeout *durationpb.Duration, headers ...*routev3.HeaderMatcher) *routev3.Route {
		match := everything()
		match.Headers = append(headers, host)
		return &routev3.Route{Match: match, Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier:            &routev3.RouteAction_ClusterHeader{ClusterHeader: ":authority"},
			ClusterNotFoundResponseCode: routev3.RouteAction_NOT_FOUND,
			Timeout:                     timeout,
		}}}
	}
	never := durationpb.New(0)
	others.RetryPolicy = retry
	others.Routes[0].ResponseHeadersToAdd, others.ResponseHeadersToAdd = others.ResponseHeadersToAdd, nil // of what is refused alone
	others.Routes = append([]*routev3.Route{
		route(never, acceptsEventStream()), route(never, beginsWith("content-type", "application/grpc")), route(nil),
	}, others.Routes...)
	return others
}

// forgoes says that a name is one more than is remembered of an Envoy that asks on
// demand, which asks for whatever host its workload makes up: it is told that there is no such
// cluster. Of others so many names are a mistake, and end the stream.
func (b *subscription) forgoes(name string) bool {
	if !b.stream.node.onDemand || b.typ != typeCluster || b.names[name] != nil || len(b.names) < b.stream.server.limits.demands {
		return false
	}
	b.stream.server.metrics.demandsForgone.Add(1)
	return true
}
