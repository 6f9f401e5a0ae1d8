package xds

import (
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	robinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"

	"github.com/stellmap/stellmap/registry"
)

// A gRPC client of target xds:///orders.prod asks for the listener of that name,
// is led to the routes of the name, and by them to the cluster of the name and its
// endpoints. It has all four for a cluster's name, whatever its scope. What it would
// refuse is not sent, since it refuses the whole resource for it; what it does not
// know is left out, since it would be nothing but bytes.

// targetOf is the cluster that a target names: a port, which the target may have
// by habit, says nothing.
func targetOf(name string) string {
	if host, port, found := strings.Cut(name, ":"); found && strings.Trim(port, "0123456789") == "" {
		name = host
	}
	return strings.ToLower(name)
}

// buildTarget is the listener by which a gRPC client of a target begins.
func buildTarget(name, cluster string) (*listenerv3.Listener, error) {
	filters, err := httpFilters()
	if err != nil {
		return nil, err
	}
	filters[0].Disabled = false // which is not theirs to know
	manager, err := pack(&hcmv3.HttpConnectionManager{
		StatPrefix:     cluster,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: overADS(), RouteConfigName: cluster}},
		HttpFilters:    filters,
	})
	if err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	return &listenerv3.Listener{Name: name, ApiListener: &listenerv3.ApiListener{ApiListener: manager}}, nil
}

// buildTargetRoutes are the routes of a target: one host, with and without a port,
// since gRPC clients do not ignore it.
func buildTargetRoutes(r hostRoute) (*routev3.RouteConfiguration, error) {
	r.hosts = []string{r.cluster, r.cluster + ":*"}
	host, err := targetHost(r)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", r.cluster, err)
	}
	return &routev3.RouteConfiguration{Name: r.cluster, VirtualHosts: []*routev3.VirtualHost{host}}, nil
}

func targetHost(r hostRoute) (*routev3.VirtualHost, error) {
	if !r.dialect.isHTTP() {
		return refusal(r.cluster, r.hosts, reasonNotHTTP), nil
	}
	routes, err := r.lead(r.forGRPC)
	if err != nil {
		return nil, err
	}
	return &routev3.VirtualHost{Name: r.cluster, Domains: r.hosts, RetryPolicy: r.rules.retryOfGRPC(), Routes: routes}, nil
}

// forGRPC is one route of a policy as gRPC clients know it: without copies and
// another path. None for one that no call can match.
func (r hostRoute) forGRPC(rule *registry.Route) []*routev3.Route {
	match := matchOf(rule.Match)
	if rule.Match != nil && rule.Match.Method != "" {
		if rule.Match.Method != "POST" { // which every call is, though clients do not see it
			return nil
		}
		match.Headers = match.Headers[1:]
	}
	rules := r.rules.over(rule)
	action := &routev3.RouteAction{HashPolicy: rules.hashOfGRPC()}
	r.split(action, rule.Split)
	rules.limitStreams(action)
	if rule.Retries != nil {
		if action.RetryPolicy = rules.retryOfGRPC(); action.RetryPolicy == nil {
			action.RetryPolicy = &routev3.RetryPolicy{} // none at all; absent it would be the host's
		}
	}
	return []*routev3.Route{{Match: match, Action: &routev3.Route_Route{Route: action}}}
}

// channelID is what a gRPC client calls itself on its connections: that it is the
// same is the best that can be known of where its calls come from.
const channelID = "io.grpc.channel_id"

// hashOfGRPC is by what gRPC clients tell calls apart. They have no cookies.
func (r routeRules) hashOfGRPC() []*routev3.RouteAction_HashPolicy {
	if r.balance.HashCookie == nil && !r.balance.HashSourceAddress {
		return r.hash()
	}
	return []*routev3.RouteAction_HashPolicy{{
		PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: channelID}},
	}}
}

// limitStreams puts a policy's timeout where gRPC clients look for it. They have
// none of their own accord.
func (r routeRules) limitStreams(action *routev3.RouteAction) {
	if t := r.timeouts; t != nil && t.RequestMs != nil && *t.RequestMs > 0 {
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: milliseconds(*t.RequestMs)}
	}
}

// grpcRetryReasons are those that gRPC clients know. A call that no server has seen
// they send again by themselves.
var grpcRetryReasons = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

// retryOfGRPC is a policy's retries as far as gRPC clients know them; nil for none.
func (r routeRules) retryOfGRPC() *routev3.RetryPolicy {
	if r.retries == nil || r.retries.Attempts != nil && *r.retries.Attempts == 0 {
		return nil
	}
	var when []string
	for _, reason := range r.retries.When {
		if slices.Contains(grpcRetryReasons, reason) {
			when = append(when, reason)
		}
	}
	if len(when) == 0 {
		return nil
	}
	out := &routev3.RetryPolicy{RetryOn: strings.Join(when, ",")}
	attempts := int64(retries)
	if r.retries.Attempts != nil {
		attempts = *r.retries.Attempts
	}
	setNumber(&out.NumRetries, &attempts)
	return out
}

// forGRPC is what of a cluster a gRPC client knows. It finds out by itself which
// hosts cannot be reached.
func forGRPC(c *clusterv3.Cluster) (*clusterv3.Cluster, error) {
	withoutForeign(c, kindGRPC)
	out := &clusterv3.Cluster{
		Name:                 c.Name,
		ClusterDiscoveryType: c.ClusterDiscoveryType,
		EdsClusterConfig:     c.EdsClusterConfig,
		LbPolicy:             c.LbPolicy,
		LoadBalancingPolicy:  c.LoadBalancingPolicy,
		OutlierDetection:     ejectForGRPC(c.OutlierDetection),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxRequests: c.CircuitBreakers.Thresholds[0].MaxRequests, // without it they have 1,024 calls at once
		}}},
	}
	if c.LbPolicy != clusterv3.Cluster_LEAST_REQUEST {
		return out, nil
	}
	var err error
	if out.LoadBalancingPolicy, err = leastRequest(); err != nil {
		return nil, fmt.Errorf("load balancing of %s: %w", c.Name, err)
	}
	return out, nil
}

// leastRequest is told as a list, of which a client takes the first that it knows:
// not all of them know it.
func leastRequest() (*clusterv3.LoadBalancingPolicy, error) {
	return withinLocalities(&leastv3.LeastRequest{}, &robinv3.RoundRobin{})
}
