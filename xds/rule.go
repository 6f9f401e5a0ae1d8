package xds

import (
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// The routes of a host: those of the service's policy in their order, then the
// one that leads everything to the whole service.
//
// Whatever a route leads to is a cluster that the client has: the name of a
// subset may belong to an older service, and another service may be outside of
// the client's scope. A share that cannot be led anywhere is the others', and
// where there is no other the whole service's.

// routes are those of a host that forwards. What its virtual host retries by
// default is given, since a route that says otherwise says all of it.
func (r hostRoute) routes(retry *routev3.RetryPolicy) ([]*routev3.Route, error) {
	return r.lead(func(rule *registry.Route) []*routev3.Route { return r.forEnvoy(rule, retry) })
}

// lead makes routes of each rule, and of what none matches.
func (r hostRoute) lead(routes func(*registry.Route) []*routev3.Route) ([]*routev3.Route, error) {
	var out []*routev3.Route
	for i := range r.rules.routes {
		rule := &r.rules.routes[i]
		fault, err := faultOf(rule.Fault)
		if err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
		for _, one := range routes(rule) {
			one.TypedPerFilterConfig = fault
			out = append(out, one)
		}
	}
	if n := len(r.rules.routes); n > 0 && r.rules.routes[n-1].Match == nil {
		return out, nil // nothing is left
	}
	return append(out, routes(&registry.Route{})...), nil
}

// forEnvoy is one route of a policy: before it, one for what has no end, if there is
// a timeout to be spared.
func (r hostRoute) forEnvoy(rule *registry.Route, retry *routev3.RetryPolicy) []*routev3.Route {
	timeout := r.timeout(rule)
	timed := forward(matchOf(rule.Match), r.action(rule, retry), timeout)
	if timeout == 0 || r.dialect == dialectGRPC {
		return []*routev3.Route{timed}
	}
	stream := forward(matchOf(rule.Match), r.action(rule, retry), 0)
	stream.Match.Headers = append(stream.Match.Headers, acceptsEventStream())
	return []*routev3.Route{stream, timed}
}

func (r hostRoute) timeout(rule *registry.Route) time.Duration {
	otherwise := routeTimeout
	if r.dialect == dialectGRPC {
		otherwise = 0
	}
	return r.rules.over(rule).timeout(otherwise)
}

// forward is a route with a timeout, which counts from the end of the request, so
// that it never cuts an upgraded connection; 0 = none.
func forward(match *routev3.RouteMatch, action *routev3.RouteAction, timeout time.Duration) *routev3.Route {
	if timeout != routeTimeout { // which is Envoy's default, and would stand in every host
		action.Timeout = durationpb.New(timeout)
	}
	return &routev3.Route{Match: match, Action: &routev3.Route_Route{Route: action}}
}

func (r hostRoute) action(rule *registry.Route, retry *routev3.RetryPolicy) *routev3.RouteAction {
	action := &routev3.RouteAction{HashPolicy: r.rules.hash(), RequestMirrorPolicies: r.mirrors(rule.Mirror), PrefixRewrite: rule.PrefixRewrite}
	r.split(action, rule.Split)
	if r.rules.gateways && leadsToSubset(action) { // else the caller's host says all that gateways need
		action.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
	if r.rewrite != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.rewrite}
	}
	if split := action.GetWeightedClusters(); split != nil && len(action.HashPolicy) > 0 { // who is to stay at an instance has to stay in its part
		split.RandomValueSpecifier = &routev3.WeightedCluster_UseHashPolicy{UseHashPolicy: wrapperspb.Bool(true)}
	}
	if rule.Retries != nil || rule.Timeouts != nil && rule.Timeouts.PerTryMs != nil {
		action.RetryPolicy = r.rules.over(rule).retry(retry)
		if action.RetryPolicy == nil {
			action.RetryPolicy = &routev3.RetryPolicy{} // none at all; absent it would be the host's
		}
	}
	return action
}

func leadsToSubset(action *routev3.RouteAction) bool {
	return isSubset(action.GetCluster()) || slices.ContainsFunc(action.GetWeightedClusters().GetClusters(), func(w *routev3.WeightedCluster_ClusterWeight) bool { return isSubset(w.Name) })
}

// split has requests go to clusters by their weights.
func (r hostRoute) split(action *routev3.RouteAction, targets []registry.SplitTarget) {
	var shares []*routev3.WeightedCluster_ClusterWeight
	for _, t := range targets {
		if cluster, known := r.subset(t.Subset); known && t.Weight > 0 {
			shares = append(shares, &routev3.WeightedCluster_ClusterWeight{Name: cluster, Weight: wrapperspb.UInt32(uint32(t.Weight))})
		}
	}
	switch len(shares) {
	case 0:
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: r.cluster}
	case 1:
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: shares[0].Name}
	default:
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: shares}}
	}
}

// subset is the cluster of a subset, or of the whole service; false says that the client lacks it.
func (r hostRoute) subset(name string) (string, bool) {
	if name == "" {
		return r.cluster, true
	}
	cluster := subsetCluster(r.cluster, name)
	return cluster, r.known(cluster)
}

func (r hostRoute) mirrors(m *registry.Mirror) []*routev3.RouteAction_RequestMirrorPolicy {
	if m == nil {
		return nil
	}
	cluster := subsetCluster(r.cluster, m.Subset)
	if m.Service != "" {
		cluster = neighbour(r.cluster, m.Service)
	}
	if !r.known(cluster) {
		return nil
	}
	mirror := &routev3.RouteAction_RequestMirrorPolicy{Cluster: cluster}
	if m.Percent != nil {
		mirror.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: percentOr(m.Percent, 100)}
	}
	return []*routev3.RouteAction_RequestMirrorPolicy{mirror}
}

func matchOf(m *registry.RouteMatch) *routev3.RouteMatch {
	out := everything()
	if m == nil {
		return out
	}
	if m.Path != "" {
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path}
	}
	if m.Prefix != "" {
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Prefix}
	}
	if m.Method != "" {
		out.Headers = append(out.Headers, exactly(methodHeader, m.Method))
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(h))
	}
	return out
}

const methodHeader = ":method"

func headerMatch(h registry.HeaderMatch) *routev3.HeaderMatcher {
	switch {
	case h.Present:
		return &routev3.HeaderMatcher{Name: h.Name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	case h.Exact != "":
		return exactly(h.Name, h.Exact)
	}
	return beginsWith(h.Name, h.Prefix)
}

func exactly(header, value string) *routev3.HeaderMatcher {
	return stringMatch(header, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}})
}

func beginsWith(header, value string) *routev3.HeaderMatcher {
	return stringMatch(header, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: value}})
}

func stringMatch(header string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: header, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}
