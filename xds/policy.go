package xds

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	robinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// What a service's policy says takes the place of the defaults in cluster.go,
// route.go and endpoint.go. What it does not say stays as it is there.

// treat has a cluster treated as the policy says.
func treat(c *clusterv3.Cluster, p *registry.Policy) error {
	if p == nil {
		return nil
	}
	if b := p.LoadBalancing; b != nil {
		if err := balance(c, b.Algorithm); err != nil {
			return err
		}
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
	return nil
}

// balance has a cluster choose by an algorithm. The one that goes by load is an
// extension: within it the weights of localities count as they do without, and clients that do not know it take turns.
func balance(c *clusterv3.Cluster, algorithm string) error {
	c.LbPolicy = balancers[algorithm]
	if algorithm != registry.BalanceByLoad {
		return nil
	}
	policy, err := withinLocalities(&loadv3.ClientSideWeightedRoundRobin{}, &robinv3.RoundRobin{})
	if err != nil {
		return fmt.Errorf("load balancing: %w", err)
	}
	c.LoadBalancingPolicy = policy
	c.CommonLbConfig.LocalityConfigSpecifier = nil // Envoy refuses to have it twice
	return nil
}

// withinLocalities has a client choose a locality by weight, and in it an instance by
// the first of the policies that it knows.
func withinLocalities(policies ...validated) (*clusterv3.LoadBalancingPolicy, error) {
	within, err := oneOf(policies...)
	if err != nil {
		return nil, err
	}
	return oneOf(&localityv3.WrrLocality{EndpointPickingPolicy: within})
}

// oneOf is a list of policies of which a client takes the first that it knows.
func oneOf(policies ...validated) (*clusterv3.LoadBalancingPolicy, error) {
	out := &clusterv3.LoadBalancingPolicy{}
	for _, p := range policies {
		packed, err := pack(p)
		if err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, &clusterv3.LoadBalancingPolicy_Policy{
			TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: string(p.ProtoReflect().Descriptor().Name()), TypedConfig: packed},
		})
	}
	return out, nil
}

var balancers = map[string]clusterv3.Cluster_LbPolicy{
	"":                           clusterv3.Cluster_ROUND_ROBIN,
	registry.BalanceRoundRobin:   clusterv3.Cluster_ROUND_ROBIN,
	registry.BalanceLeastRequest: clusterv3.Cluster_LEAST_REQUEST,
	registry.BalanceRandom:       clusterv3.Cluster_RANDOM,
	registry.BalanceRingHash:     clusterv3.Cluster_RING_HASH,
	registry.BalanceMaglev:       clusterv3.Cluster_MAGLEV,
	registry.BalanceByLoad:       clusterv3.Cluster_ROUND_ROBIN,
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
	if o.FailurePercent == nil {
		return
	}
	setNumber(&to.FailurePercentageThreshold, o.FailurePercent)
	to.EnforcingFailurePercentage = wrapperspb.UInt32(100)
	to.FailurePercentageMinimumHosts = wrapperspb.UInt32(failureHosts)
	to.FailurePercentageRequestVolume = wrapperspb.UInt32(failureCalls)
	setNumber(&to.FailurePercentageRequestVolume, o.MinRequests)
}

// What is said of the share of calls that fail, where a policy has one: a host that is
// the only one is kept, whatever it does.
const (
	failureHosts = 2
	failureCalls = 10 // within an interval
)

// ejectForGRPC is what gRPC clients know of it: shares of calls that fail. What counts
// failures in a row is not theirs to know, so without a share there is none. That they
// are not to compare success rates has to be said; all four languages would, unless told.
func ejectForGRPC(o *clusterv3.OutlierDetection) *clusterv3.OutlierDetection {
	if o.GetEnforcingFailurePercentage().GetValue() == 0 {
		return nil
	}
	return &clusterv3.OutlierDetection{
		Interval: o.Interval, BaseEjectionTime: o.BaseEjectionTime, MaxEjectionTime: o.MaxEjectionTime, MaxEjectionPercent: o.MaxEjectionPercent,
		EnforcingSuccessRate:           wrapperspb.UInt32(0),
		FailurePercentageThreshold:     o.FailurePercentageThreshold,
		EnforcingFailurePercentage:     o.EnforcingFailurePercentage,
		FailurePercentageMinimumHosts:  o.FailurePercentageMinimumHosts,
		FailurePercentageRequestVolume: o.FailurePercentageRequestVolume,
	}
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
	gateways bool             // lead to other regions
}

func rulesOf(p *registry.Policy) routeRules {
	if p == nil {
		return routeRules{}
	}
	rules := routeRules{timeouts: p.Timeouts, retries: p.Retries, routes: p.Routes, gateways: p.FailoverMode() == registry.FailoverGateway}
	if p.LoadBalancing != nil {
		rules.balance = *p.LoadBalancing
		rules.balance.Algorithm = "" // which is the cluster's
	}
	return rules
}

func (r routeRules) none() bool {
	return r.timeouts == nil && r.retries == nil && len(r.routes) == 0 && r.balance == registry.LoadBalancing{}
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
	by := new(routev3.RouteAction_HashPolicy)
	switch cookie := r.balance.HashCookie; {
	case r.balance.HashHeader != "":
		by.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: r.balance.HashHeader}}
	case cookie != nil:
		ttl := new(durationpb.Duration) // until the session ends; absent, proxies would give nobody a cookie
		if cookie.TTLSeconds != nil {
			ttl.Seconds = *cookie.TTLSeconds
		}
		by.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: cookie.Name, Ttl: ttl}}
	case r.balance.HashSourceAddress:
		by.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}
	default:
		return nil
	}
	return []*routev3.RouteAction_HashPolicy{by}
}

// retryAsAll says that whatever goes to an endpoint's cluster is sent again as by default.
func (r routeRules) retryAsAll(endpoint int) bool {
	if r.retries != nil || r.timeouts != nil && r.timeouts.PerTryMs != nil {
		return false
	}
	return endpoint > 0 || !slices.ContainsFunc(r.routes, func(one registry.Route) bool {
		return one.Retries != nil || one.Timeouts != nil && one.Timeouts.PerTryMs != nil
	})
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

// checkOf is the active check that a policy has proxies make; nil for none, or for one that Envoy
// would refuse the cluster for: what asks over gRPC needs HTTP/2.
func checkOf(p *registry.Policy, d dialect) *corev3.HealthCheck {
	if p == nil || p.Checks == nil || p.Checks.Kind == registry.ActiveGRPC && d != dialectHTTP2 && d != dialectGRPC {
		return nil
	}
	check := activeCheck(p.Checks.Path, d)
	switch p.Checks.Kind {
	case registry.ActiveGRPC:
		check.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: p.Checks.Service}}
	case registry.ActiveTCP:
		check.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	}
	setTime(&check.Interval, p.Checks.IntervalMs)
	setTime(&check.NoTrafficInterval, p.Checks.IntervalMs)
	setTime(&check.Timeout, p.Checks.TimeoutMs)
	setNumber(&check.UnhealthyThreshold, p.Checks.UnhealthyAfter)
	setNumber(&check.HealthyThreshold, p.Checks.HealthyAfter)
	return check
}

// dropsOf are the shares of requests that clients refuse by themselves, in the order of the policy.
func dropsOf(p *registry.Policy) []*endpointv3.ClusterLoadAssignment_Policy_DropOverload {
	if p == nil {
		return nil
	}
	var out []*endpointv3.ClusterLoadAssignment_Policy_DropOverload
	for _, d := range p.Drops {
		out = append(out, &endpointv3.ClusterLoadAssignment_Policy_DropOverload{
			Category:       d.Category,
			DropPercentage: &typev3.FractionalPercent{Numerator: uint32(d.Percent), Denominator: typev3.FractionalPercent_HUNDRED},
		})
	}
	return out
}

// oneDrop is what several drops come to together. Each is of what the ones before
// leave. Envoy takes no more than one.
func oneDrop(drops []*endpointv3.ClusterLoadAssignment_Policy_DropOverload) []*endpointv3.ClusterLoadAssignment_Policy_DropOverload {
	if len(drops) < 2 {
		return drops
	}
	const million = 1_000_000
	var names []string
	left := uint64(million)
	for _, d := range drops {
		names = append(names, d.Category)
		left = left * uint64(100-d.DropPercentage.Numerator) / 100
	}
	return []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{
		Category:       strings.Join(names, ","),
		DropPercentage: &typev3.FractionalPercent{Numerator: uint32(million - left), Denominator: typev3.FractionalPercent_MILLION},
	}}
}

// The marker of what is dropped, in the metadata of an assignment's first host.
const (
	ownMetadata = "stellmap"
	dropMarker  = "drops"
)

// markDrops has Envoy notice what is dropped: 1.40 obeys a change of it only when a host of the
// cluster has changed as well, and a host whose metadata have changed has.
func markDrops(m *endpointv3.ClusterLoadAssignment) {
	drops := m.GetPolicy().GetDropOverloads()
	if len(drops) == 0 || len(m.GetEndpoints()) == 0 {
		return
	}
	first := m.Endpoints[0].LbEndpoints[0]
	if first.Metadata == nil {
		first.Metadata = &corev3.Metadata{FilterMetadata: make(map[string]*structpb.Struct, 1)}
	}
	share := fmt.Sprintf("%s %d", drops[0].Category, drops[0].DropPercentage.GetNumerator())
	first.Metadata.FilterMetadata[ownMetadata] = &structpb.Struct{Fields: map[string]*structpb.Value{dropMarker: structpb.NewStringValue(share)}}
}

// overprovisioningOf is how far the healthy hosts of a region stand in for its others.
func overprovisioningOf(p *registry.Policy) uint32 {
	if isAllOrNothing(p) {
		return allOrNothing
	}
	return zoneOverprovisioningOf(p)
}

// zoneOverprovisioningOf is that of a zone. That a region keeps its calls to the last does
// not say that a zone does: where it has lost hosts, the other zones of the region take their calls.
func zoneOverprovisioningOf(p *registry.Policy) uint32 {
	if p == nil || p.Failover == nil || p.Failover.OverprovisioningPercent == nil {
		return overprovisioning
	}
	return uint32(*p.Failover.OverprovisioningPercent)
}

func isAllOrNothing(p *registry.Policy) bool {
	return p != nil && p.Failover != nil && p.Failover.AllOrNothing
}
