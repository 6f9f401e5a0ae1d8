package xds

import (
	"reflect"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// What a service's policy says takes the place of the defaults in cluster.go,
// route.go and endpoint.go. What it does not say stays as it is there.

// treat has a cluster treated as the policy says.
func treat(c *clusterv3.Cluster, p *registry.Policy) {
	if p == nil {
		return
	}
	if b := p.LoadBalancing; b != nil {
		c.LbPolicy = balancers[b.Algorithm]
	}
	if o := p.OutlierDetection; o != nil {
		eject(c, o)
	}
	if b := p.CircuitBreaking; b != nil {
		breakAt(c.CircuitBreakers.Thresholds[0], b)
	}
	if t := p.Timeouts; t != nil && t.ConnectMs != nil {
		c.ConnectTimeout = milliseconds(*t.ConnectMs)
	}
	if p.FailClosed {
		c.CommonLbConfig.HealthyPanicThreshold.Value = 0
	}
}

var balancers = map[string]clusterv3.Cluster_LbPolicy{
	"":                           clusterv3.Cluster_ROUND_ROBIN,
	registry.BalanceRoundRobin:   clusterv3.Cluster_ROUND_ROBIN,
	registry.BalanceLeastRequest: clusterv3.Cluster_LEAST_REQUEST,
	registry.BalanceRandom:       clusterv3.Cluster_RANDOM,
	registry.BalanceRingHash:     clusterv3.Cluster_RING_HASH,
	registry.BalanceMaglev:       clusterv3.Cluster_MAGLEV,
}

// withoutForeign takes out of a cluster what gRPC clients would refuse the whole cluster for.
func withoutForeign(c *clusterv3.Cluster, k kind) {
	if k == kindGRPC && (c.LbPolicy == clusterv3.Cluster_RANDOM || c.LbPolicy == clusterv3.Cluster_MAGLEV) {
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	}
}

func milliseconds(n int64) *durationpb.Duration {
	return durationpb.New(time.Duration(n) * time.Millisecond)
}

func eject(c *clusterv3.Cluster, o *registry.OutlierDetection) {
	if o.Disabled {
		c.OutlierDetection = nil
		return
	}
	to := c.OutlierDetection
	setNumber(&to.ConsecutiveLocalOriginFailure, o.LocalFailures)
	setNumber(&to.ConsecutiveGatewayFailure, o.GatewayFailures)
	setNumber(&to.MaxEjectionPercent, o.MaxEjectionPercent)
	setTime(&to.Interval, o.IntervalMs)
	setTime(&to.BaseEjectionTime, o.BaseEjectionMs)
	setTime(&to.MaxEjectionTime, o.MaxEjectionMs)
}

func breakAt(to *clusterv3.CircuitBreakers_Thresholds, b *registry.CircuitBreaking) {
	setNumber(&to.MaxConnections, b.MaxConnections)
	setNumber(&to.MaxPendingRequests, b.MaxPendingRequests)
	setNumber(&to.MaxRequests, b.MaxRequests)
	setNumber(&to.RetryBudget.MinRetryConcurrency, b.MinRetries)
	if b.RetryBudgetPercent != nil {
		to.RetryBudget.BudgetPercent.Value = float64(*b.RetryBudgetPercent)
	}
}

func setNumber(to **wrapperspb.UInt32Value, n *int64) {
	if n != nil {
		*to = wrapperspb.UInt32(uint32(*n)) // the registry bounds it
	}
}

func setTime(to **durationpb.Duration, ms *int64) {
	if ms != nil {
		*to = milliseconds(*ms)
	}
}

// routeRules are the part of a policy that routes obey.
type routeRules struct {
	timeouts *registry.Timeouts
	retries  *registry.Retries
	balance  registry.LoadBalancing
	routes   []registry.Route // of the primary endpoint
}

func rulesOf(p *registry.Policy) routeRules {
	if p == nil {
		return routeRules{}
	}
	rules := routeRules{timeouts: p.Timeouts, retries: p.Retries, routes: p.Routes}
	if p.LoadBalancing != nil {
		rules.balance = *p.LoadBalancing
		rules.balance.Algorithm = "" // which is the cluster's
	}
	return rules
}

func (r routeRules) equal(o routeRules) bool { return reflect.DeepEqual(r, o) }

// of are the rules of one claim: the routes of a policy are those of the service's own name.
func (r routeRules) of(c *claim) routeRules {
	if c.endpoint > 0 || c.subset != "" {
		r.routes = nil
	}
	return r
}

// over are the rules as one route of theirs has them.
func (r routeRules) over(route *registry.Route) routeRules {
	if route.Timeouts != nil {
		timeouts := route.Timeouts.Over(r.timeouts)
		r.timeouts = &timeouts
	}
	if route.Retries != nil {
		retries := route.Retries.Over(r.retries)
		r.retries = &retries
	}
	return r
}

// timeout is that of requests which end; 0 = none.
func (r routeRules) timeout(otherwise time.Duration) time.Duration {
	if r.timeouts == nil || r.timeouts.RequestMs == nil {
		return otherwise
	}
	return time.Duration(*r.timeouts.RequestMs) * time.Millisecond
}

// hash is by what requests are told apart where equal ones go to the same instance.
func (r routeRules) hash() []*routev3.RouteAction_HashPolicy {
	if r.balance.HashHeader == "" {
		return nil
	}
	return []*routev3.RouteAction_HashPolicy{{
		PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: r.balance.HashHeader}},
	}}
}

// retry is the retry policy in place of the default one; nil for none.
func (r routeRules) retry(otherwise *routev3.RetryPolicy) *routev3.RetryPolicy {
	perTry := r.timeouts != nil && r.timeouts.PerTryMs != nil
	if r.retries == nil && !perTry {
		return otherwise
	}
	out := proto.Clone(otherwise).(*routev3.RetryPolicy)
	if perTry {
		out.PerTryTimeout = milliseconds(*r.timeouts.PerTryMs)
	}
	if r.retries == nil {
		return out
	}
	if n := r.retries.Attempts; n != nil && *n == 0 {
		return nil
	}
	setNumber(&out.NumRetries, r.retries.Attempts)
	if len(r.retries.When) > 0 {
		out.RetryOn = strings.Join(r.retries.When, ",")
	}
	for _, status := range r.retries.Statuses {
		out.RetriableStatusCodes = append(out.RetriableStatusCodes, uint32(status))
	}
	if len(out.RetriableStatusCodes) > 0 {
		out.RetryOn += ",retriable-status-codes"
	}
	return out
}

// overprovisioningOf is how far healthy hosts stand in for others.
func overprovisioningOf(p *registry.Policy) uint32 {
	if p == nil || p.Failover == nil || p.Failover.OverprovisioningPercent == nil {
		return overprovisioning
	}
	return uint32(*p.Failover.OverprovisioningPercent)
}
