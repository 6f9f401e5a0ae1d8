package registry

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// A Policy says how a service is to be treated. What is not given is the default,
// so every field is a pointer or can be empty. The JSON names are those that
// problems and changes use.
type Policy struct {
	// GraceSeconds is for how long an expired instance can be revived by a heartbeat.
	GraceSeconds *int64 `json:"graceSeconds,omitempty"`
	// PrimaryEndpoint takes the place of the first endpoint of the service's first registration.
	PrimaryEndpoint  *PrimaryEndpoint  `json:"primaryEndpoint,omitempty"`
	LoadBalancing    *LoadBalancing    `json:"loadBalancing,omitempty"`
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
	CircuitBreaking  *CircuitBreaking  `json:"circuitBreaking,omitempty"`
	Timeouts         *Timeouts         `json:"timeouts,omitempty"`
	Retries          *Retries          `json:"retries,omitempty"`
	Failover         *Failover         `json:"failover,omitempty"`
	// FailClosed has proxies refuse requests when nothing is healthy anywhere, instead of trying all.
	FailClosed bool `json:"failClosed,omitempty"`
	// ProtectThreshold is the share of healthy instances below which all are handed out, see threshold.go.
	ProtectThreshold *float64 `json:"protectThreshold,omitempty"`
	Reports          *Reports `json:"reports,omitempty"`
	// SelfPreservation takes the place of what this registry is set to, for the service and its zones.
	SelfPreservation *SelfPreservation `json:"selfPreservation,omitempty"`
	Checks           *ActiveChecks     `json:"checks,omitempty"`
	Drops            []Drop            `json:"drops,omitempty"`
	// LocalPort is where proxies of those who call the service take connections and pass them on to it, whatever it speaks.
	LocalPort *int64   `json:"localPort,omitempty"`
	Subsets   []Subset `json:"subsets,omitempty"`
	Routes    []Route  `json:"routes,omitempty"` // in their order, see policyroute.go
}

// PrimaryEndpoint is the endpoint that a service's own name leads to. Instances
// that have another protocol under its name, or lack it, are withheld.
type PrimaryEndpoint struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
}

// LoadBalancing is how proxies choose among the instances.
type LoadBalancing struct {
	Algorithm string `json:"algorithm,omitempty"` // one of the names below
	// By what requests are told apart where equal ones go to the same instance; one of the three.
	HashHeader        string      `json:"hashHeader,omitempty"`
	HashCookie        *HashCookie `json:"hashCookie,omitempty"`
	HashSourceAddress bool        `json:"hashSourceAddress,omitempty"`
}

// HashCookie is a cookie that proxies give to who has none.
type HashCookie struct {
	Name       string `json:"name"`
	TTLSeconds *int64 `json:"ttlSeconds,omitempty"` // nil = until the session ends
}

// The ways to choose an instance.
const (
	BalanceRoundRobin   = "round-robin"
	BalanceLeastRequest = "least-request"
	BalanceRandom       = "random"
	BalanceRingHash     = "ring-hash"
	BalanceMaglev       = "maglev"
	BalanceByLoad       = "client-side-weighted-round-robin" // by what instances say of their load
)

var balanceAlgorithms = []string{BalanceRoundRobin, BalanceLeastRequest, BalanceRandom, BalanceRingHash, BalanceMaglev, BalanceByLoad}

// OutlierDetection is when proxies leave an instance alone for a while.
type OutlierDetection struct {
	Disabled           bool   `json:"disabled,omitempty"`
	LocalFailures      *int64 `json:"localFailures,omitempty"`   // connections in a row that are refused, reset or late
	GatewayFailures    *int64 `json:"gatewayFailures,omitempty"` // 502, 503 and 504 in a row
	IntervalMs         *int64 `json:"intervalMs,omitempty"`
	BaseEjectionMs     *int64 `json:"baseEjectionMs,omitempty"` // times the number of ejections so far
	MaxEjectionMs      *int64 `json:"maxEjectionMs,omitempty"`
	MaxEjectionPercent *int64 `json:"maxEjectionPercent,omitempty"`
	FailurePercent     *int64 `json:"failurePercent,omitempty"` // of the calls within an interval; nil = however many
	MinRequests        *int64 `json:"minRequests,omitempty"`    // within an interval, below which that is not looked at
}

// CircuitBreaking bounds what each proxy has under way.
type CircuitBreaking struct {
	MaxConnections     *int64 `json:"maxConnections,omitempty"`
	MaxPendingRequests *int64 `json:"maxPendingRequests,omitempty"`
	MaxRequests        *int64 `json:"maxRequests,omitempty"`
	RetryBudgetPercent *int64 `json:"retryBudgetPercent,omitempty"` // of the requests under way
	MinRetries         *int64 `json:"minRetries,omitempty"`         // that the budget always has room for
}

// Timeouts are those of proxies.
type Timeouts struct {
	ConnectMs *int64 `json:"connectMs,omitempty"`
	RequestMs *int64 `json:"requestMs,omitempty"` // with all its retries; 0 = none
	PerTryMs  *int64 `json:"perTryMs,omitempty"`
}

// Retries are when proxies send a request again.
type Retries struct {
	Attempts *int64   `json:"attempts,omitempty"` // beside the first; 0 = none
	When     []string `json:"when,omitempty"`     // instead of the default conditions
	Statuses []int64  `json:"statuses,omitempty"` // answers that are tried again as well
}

// Reports is what becomes of an instance that those who call it report, see
// reports.go. Without it reports are counted and shown.
type Reports struct {
	Effect        string `json:"effect,omitempty"`        // warning or critical
	Quorum        *int64 `json:"quorum,omitempty"`        // reporters that have to agree
	WindowSeconds *int64 `json:"windowSeconds,omitempty"` // within which they have to
	LastsSeconds  *int64 `json:"lastsSeconds,omitempty"`  // how long it has its effect
	MaxPercent    *int64 `json:"maxPercent,omitempty"`    // of the instances may be critical by it
	// FromLoad has what proxies report of their calls be reports of the instances, too.
	FromLoad *LoadReports `json:"fromLoad,omitempty"`
}

// LoadReports is when what a proxy reports of its calls to an instance is a report that it fails.
type LoadReports struct {
	ErrorPercent *int64 `json:"errorPercent,omitempty"` // of the calls in one report of the proxy
	MinRequests  *int64 `json:"minRequests,omitempty"`  // in it, below which it says nothing
}

// SelfPreservation is when leases that run out together are held back, see protection.go.
type SelfPreservation struct {
	Enabled      *bool  `json:"enabled,omitempty"`
	Least        *int64 `json:"least,omitempty"`        // leases that must have run out
	Percent      *int64 `json:"percent,omitempty"`      // of the leases, more than that
	LimitSeconds *int64 `json:"limitSeconds,omitempty"` // how long it lasts at most
}

// The defaults that what a policy says can contradict.
const (
	RequestTimeoutDefault = 15 * time.Second
	BaseEjectionDefault   = 3 * time.Second
	MaxEjectionDefault    = 30 * time.Second
)

// The bounds of a policy.
const (
	graceSecondsMax   = int64(24 * time.Hour / time.Second)
	policyMsMax       = int64(time.Hour / time.Millisecond)
	policyFailuresMax = 10_000
	policyLimitMax    = 1_000_000
	localPortMin      = 1024 // below it a proxy would have to be privileged
	localPortMax      = 65_535
	attemptsMax       = 10
	retryStatusesMax  = 16
	reportSecondsMax  = int64(reportsKept / time.Second)
	limitSecondsMax   = int64(time.Hour / time.Second) // of self-preservation, as of its setting
	cookieSecondsMax  = int64(365 * 24 * time.Hour / time.Second)
)

// What may be given as a reason to try again: only what a request cannot have been
// processed before, or what the service itself answers. What proxies call reset, 5xx
// and gateway-error repeats requests whose connection broke after they were sent.
var (
	retryReasons = []string{
		"cancelled", "connect-failure", "deadline-exceeded", "internal", "refused-stream", "reset-before-request",
		"resource-exhausted", "retriable-4xx", "unavailable",
	}
	retryRepeats = []string{"reset", "5xx", "gateway-error"}
)

// normalize is the policy in the one form that is stored: without sections that say
// nothing. It adds everything that is wrong with it, contradictions included.
func (p Policy) normalize(bad *problems) Policy {
	within(p.GraceSeconds, "graceSeconds", 1, graceSecondsMax, bad)
	p.PrimaryEndpoint = p.PrimaryEndpoint.normalize(bad)
	p.LoadBalancing = section(p.LoadBalancing)
	p.LoadBalancing.check(bad)
	p.OutlierDetection = section(p.OutlierDetection)
	p.OutlierDetection.check(bad)
	p.CircuitBreaking = section(p.CircuitBreaking)
	p.CircuitBreaking.check(bad)
	p.Timeouts = section(p.Timeouts)
	p.Timeouts.check(bad)
	p.Retries = p.Retries.normalize("retries", bad)
	p.Failover = p.Failover.normalize(bad)
	p.checkGateway(bad)
	if p.ProtectThreshold != nil && (*p.ProtectThreshold < 0 || *p.ProtectThreshold > 1) {
		bad.add("protectThreshold", fmt.Sprintf("%v is not a share: 0 (never) to 1 (as soon as one is unhealthy)", *p.ProtectThreshold))
	}
	p.Reports = section(p.Reports)
	p.Reports.check(bad)
	p.SelfPreservation = section(p.SelfPreservation)
	p.SelfPreservation.check(bad)
	p.Checks = p.Checks.normalize(bad)
	p.Drops = normalizeDrops(p.Drops, bad)
	within(p.LocalPort, "localPort", localPortMin, localPortMax, bad)
	p.Subsets = normalizeSubsets(p.Subsets, bad)
	p.Routes = p.normalizeRoutes(bad)
	p.contradictions(bad)
	if size := len(encodedPolicy(&p)); len(*bad) == 0 && size > policyBytesMax {
		bad.add("routes", fmt.Sprintf("make a policy of %d bytes: at most %d", size, policyBytesMax))
	}
	return p
}

// contradictions are what one section says against another.
func (p *Policy) contradictions(bad *problems) {
	never := p.Retries != nil && p.Retries.Attempts != nil && *p.Retries.Attempts == 0
	if c := p.CircuitBreaking; never && c != nil && (c.RetryBudgetPercent != nil || c.MinRetries != nil) {
		bad.add("circuitBreaking", "bounds retries, and retries.attempts is 0: leave one of the two out")
	}
	if t := p.Timeouts; never && t != nil && t.PerTryMs != nil {
		bad.add("timeouts.perTryMs", "is the time of each try, and retries.attempts is 0: use timeouts.requestMs")
	}
	if p.FailClosed && p.ProtectThreshold != nil && *p.ProtectThreshold > 0 {
		bad.add("protectThreshold", "hands out unhealthy instances, and failClosed refuses requests when nothing is healthy: leave one of the two out")
	}
}

func (e *PrimaryEndpoint) normalize(bad *problems) *PrimaryEndpoint {
	if e == nil {
		return nil
	}
	out := &PrimaryEndpoint{Name: strings.TrimSpace(e.Name), Protocol: strings.ToLower(strings.TrimSpace(e.Protocol))}
	if !isName(out.Name, ".-_") {
		bad.add("primaryEndpoint.name", fmt.Sprintf("%s is not allowed: %s", quoted(out.Name), nameRule))
	}
	if !isName(out.Protocol, ".-_+") {
		bad.add("primaryEndpoint.protocol", fmt.Sprintf("%s is not allowed: %s, for example http, grpc or tcp", quoted(out.Protocol), nameRule))
	}
	return out
}

func (b *LoadBalancing) check(bad *problems) {
	if b == nil {
		return
	}
	if b.Algorithm != "" && !slices.Contains(balanceAlgorithms, b.Algorithm) {
		bad.add("loadBalancing.algorithm", fmt.Sprintf("%s is not known: %s", quoted(b.Algorithm), strings.Join(balanceAlgorithms, ", ")))
		return
	}
	hashes := b.Algorithm == BalanceRingHash || b.Algorithm == BalanceMaglev
	given := b.hashFields()
	switch {
	case hashes && len(given) == 0:
		bad.add("loadBalancing.hashHeader", fmt.Sprintf("is missing: %s chooses by the value of a header, or by hashCookie or hashSourceAddress", b.Algorithm))
	case !hashes && len(given) > 0:
		bad.add("loadBalancing."+given[0], fmt.Sprintf("is for %s and %s, not for %s", BalanceRingHash, BalanceMaglev, cmp.Or(b.Algorithm, BalanceRoundRobin)))
	case len(given) > 1:
		bad.add("loadBalancing."+given[1], fmt.Sprintf("contradicts %s: leave one of the two out", given[0]))
	}
	if b.HashHeader != "" {
		checkHeaderName(b.HashHeader, "loadBalancing.hashHeader", bad)
	}
	if c := b.HashCookie; c != nil {
		if !isName(c.Name, "-_") {
			bad.add("loadBalancing.hashCookie.name", fmt.Sprintf("%s is not the name of a cookie: letters, digits, '-' and '_'", quoted(c.Name)))
		}
		within(c.TTLSeconds, "loadBalancing.hashCookie.ttlSeconds", 1, cookieSecondsMax, bad)
	}
}

// hashFields are the fields that say by what requests are told apart.
func (b *LoadBalancing) hashFields() []string {
	var given []string
	if b.HashHeader != "" {
		given = append(given, "hashHeader")
	}
	if b.HashCookie != nil {
		given = append(given, "hashCookie")
	}
	if b.HashSourceAddress {
		given = append(given, "hashSourceAddress")
	}
	return given
}

func (o *OutlierDetection) check(bad *problems) {
	if o == nil {
		return
	}
	if rest := *o; o.Disabled {
		if rest.Disabled = false; rest != (OutlierDetection{}) {
			bad.add("outlierDetection.disabled", "contradicts the other fields of outlierDetection: leave one of the two out")
		}
	}
	within(o.LocalFailures, "outlierDetection.localFailures", 1, policyFailuresMax, bad)
	within(o.GatewayFailures, "outlierDetection.gatewayFailures", 1, policyFailuresMax, bad)
	within(o.IntervalMs, "outlierDetection.intervalMs", 100, policyMsMax, bad)
	within(o.BaseEjectionMs, "outlierDetection.baseEjectionMs", 1, policyMsMax, bad)
	within(o.MaxEjectionMs, "outlierDetection.maxEjectionMs", 1, policyMsMax, bad)
	within(o.MaxEjectionPercent, "outlierDetection.maxEjectionPercent", 1, 100, bad)
	within(o.FailurePercent, "outlierDetection.failurePercent", 1, 99, bad)
	within(o.MinRequests, "outlierDetection.minRequests", 1, policyLimitMax, bad)
	if o.MinRequests != nil && o.FailurePercent == nil {
		bad.add("outlierDetection.minRequests", "says from how many calls on failurePercent counts, and there is none: give failurePercent as well")
	}
	base, most := orMs(o.BaseEjectionMs, BaseEjectionDefault), orMs(o.MaxEjectionMs, MaxEjectionDefault)
	if base > most {
		bad.add("outlierDetection.maxEjectionMs", fmt.Sprintf("is %d, less than the %d of baseEjectionMs", most, base))
	}
}

// orMs is a number of milliseconds, or its default.
func orMs(ms *int64, otherwise time.Duration) int64 {
	if ms == nil {
		return otherwise.Milliseconds()
	}
	return *ms
}

func (c *CircuitBreaking) check(bad *problems) {
	if c == nil {
		return
	}
	within(c.MaxConnections, "circuitBreaking.maxConnections", 1, policyLimitMax, bad)
	within(c.MaxPendingRequests, "circuitBreaking.maxPendingRequests", 1, policyLimitMax, bad)
	within(c.MaxRequests, "circuitBreaking.maxRequests", 1, policyLimitMax, bad)
	within(c.RetryBudgetPercent, "circuitBreaking.retryBudgetPercent", 0, 100, bad)
	within(c.MinRetries, "circuitBreaking.minRetries", 0, policyLimitMax, bad)
}

func (t *Timeouts) check(bad *problems) {
	if t == nil {
		return
	}
	within(t.ConnectMs, "timeouts.connectMs", 1, policyMsMax, bad)
	within(t.RequestMs, "timeouts.requestMs", 0, policyMsMax, bad)
	within(t.PerTryMs, "timeouts.perTryMs", 1, policyMsMax, bad)
	whole := orMs(t.RequestMs, RequestTimeoutDefault)
	if whole > 0 && t.PerTryMs != nil && *t.PerTryMs > whole {
		bad.add("timeouts.perTryMs", fmt.Sprintf("is %d, more than the %d of requestMs, which it is a part of", *t.PerTryMs, whole))
	}
	if whole > 0 && t.ConnectMs != nil && *t.ConnectMs > whole {
		bad.add("timeouts.connectMs", fmt.Sprintf("is %d, more than the %d of requestMs, which it is a part of", *t.ConnectMs, whole))
	}
}

func (r *Reports) check(bad *problems) {
	if r == nil {
		return
	}
	switch r.Effect {
	case StatusWarning.String(), StatusCritical.String():
	case "":
		bad.add("reports.effect", "is missing: what instances that are reported become, warning or critical")
	default:
		bad.add("reports.effect", fmt.Sprintf("%s is not what reports can bring about: warning or critical", quoted(r.Effect)))
	}
	within(r.Quorum, "reports.quorum", reportQuorumMin, reportQuorumMax, bad)
	within(r.WindowSeconds, "reports.windowSeconds", 1, reportSecondsMax, bad)
	within(r.LastsSeconds, "reports.lastsSeconds", 1, reportSecondsMax, bad)
	within(r.MaxPercent, "reports.maxPercent", 1, 100, bad)
	if l := r.FromLoad; l != nil {
		within(l.ErrorPercent, "reports.fromLoad.errorPercent", 1, 100, bad)
		within(l.MinRequests, "reports.fromLoad.minRequests", 1, policyLimitMax, bad)
		if l.ErrorPercent == nil {
			bad.add("reports.fromLoad.errorPercent", "is missing: so many failed calls in a hundred are a report that the instance fails")
		}
	}
	if r.Effect == StatusWarning.String() && r.MaxPercent != nil {
		bad.add("reports.maxPercent", "bounds how many instances are critical, and reports.effect is warning, which takes none away from callers: leave one of the two out")
	}
}

func (s *SelfPreservation) check(bad *problems) {
	if s == nil {
		return
	}
	if rest := *s; s.Enabled != nil && !*s.Enabled {
		if rest.Enabled = nil; rest != (SelfPreservation{}) {
			bad.add("selfPreservation.enabled", "is false, which contradicts the other fields of selfPreservation: leave one of the two out")
		}
	}
	within(s.Least, "selfPreservation.least", 1, policyLimitMax, bad)
	within(s.Percent, "selfPreservation.percent", 1, 99, bad)
	within(s.LimitSeconds, "selfPreservation.limitSeconds", 1, limitSecondsMax, bad)
}

func (r *Retries) normalize(at string, bad *problems) *Retries {
	if r = section(r); r == nil {
		return nil
	}
	within(r.Attempts, at+".attempts", 0, attemptsMax, bad)
	if r.Attempts != nil && *r.Attempts == 0 && len(r.When)+len(r.Statuses) > 0 {
		bad.add(at+".attempts", "is 0 although there are reasons to try again: leave one of the two out")
	}
	for i, reason := range r.When {
		switch here := fmt.Sprintf("%s.when[%d]", at, i); {
		case slices.Contains(retryRepeats, reason):
			bad.add(here, fmt.Sprintf("%q would repeat requests that were processed, when a connection breaks behind them: use reset-before-request, and retries.statuses for answers", reason))
		case !slices.Contains(retryReasons, reason):
			bad.add(here, fmt.Sprintf("%s is not known: %s", quoted(reason), strings.Join(retryReasons, ", ")))
		}
	}
	for i, status := range r.Statuses {
		within(&status, fmt.Sprintf("%s.statuses[%d]", at, i), 400, 599, bad)
	}
	if len(r.Statuses) > retryStatusesMax {
		bad.add(at+".statuses", fmt.Sprintf("has %d numbers: at most %d", len(r.Statuses), retryStatusesMax))
	}
	return section(&Retries{Attempts: r.Attempts, When: sorted(r.When), Statuses: sorted(r.Statuses)})
}

// sorted is a list without order or repeats, as it is stored; nil for an empty one.
func sorted[T cmp.Ordered](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// within checks a number that is given.
func within(n *int64, field string, least, most int64, bad *problems) {
	if n != nil && (*n < least || *n > most) {
		bad.add(field, fmt.Sprintf("%d is not allowed: %d to %d, or leave it out for the default", *n, least, most))
	}
}

// section drops a part of a document that says nothing.
func section[S any](s *S) *S {
	if s == nil || reflect.ValueOf(s).Elem().IsZero() {
		return nil
	}
	return s
}

// grace is for how long an expired instance can be revived, in ms.
func (p *Policy) grace() int64 {
	if p == nil || p.GraceSeconds == nil {
		return expiredGrace.Milliseconds()
	}
	return *p.GraceSeconds * 1000
}

// endpoints are a service's endpoints with the primary one at the head, as the policy has it.
func (p *Policy) endpoints(known []ServiceEndpoint) []ServiceEndpoint {
	if p == nil || p.PrimaryEndpoint == nil {
		return known
	}
	primary := ServiceEndpoint{Name: p.PrimaryEndpoint.Name, Protocol: p.PrimaryEndpoint.Protocol}
	return append([]ServiceEndpoint{primary}, slices.DeleteFunc(slices.Clone(known), func(e ServiceEndpoint) bool { return e.Name == primary.Name })...)
}

// normalize checks the name of a service as a caller wrote it.
func (k ServiceKey) normalize(bad *problems) ServiceKey {
	namespace := normalizeNamespace(k.Namespace, bad)
	service, _ := normalizeService(k.Service, Levels{}, bad)
	return ServiceKey{Namespace: namespace, Service: service}
}

func policyShelf(k ServiceKey) shelf[Policy] {
	return shelf[Policy]{
		what:     fmt.Sprintf("the policy of service %s in namespace %s", quoted(k.Service), quoted(k.Namespace)),
		of:       Ask{Resource: ResourcePolicies, Namespace: k.Namespace, Service: k.Service},
		document: func(s *state) *Document[Policy] { return s.policies[k] },
		command: func(next *Policy, w Writing) []byte {
			edit := &recordv1.EditPolicy{Key: &recordv1.ServiceKey{Namespace: k.Namespace, Service: k.Service}, Policy: next.record(), Precondition: w.If.record(), By: w.By}
			return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_EditPolicy{EditPolicy: edit}})
		},
	}
}

// PutPolicy writes the policy of a service, whether that is there or not.
func (r *Registry) PutPolicy(ctx context.Context, requestID string, k ServiceKey, p Policy, w Writing) (Edited, error) {
	var bad problems
	k, p = k.normalize(&bad), p.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	if err := r.permitGateways(ctx, k, &p); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, policyShelf(k), &p, w)
}

// DeletePolicy takes the policy of a service back. It is no error that there is none.
func (r *Registry) DeletePolicy(ctx context.Context, requestID string, k ServiceKey, w Writing) (Edited, error) {
	var bad problems
	k = k.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, policyShelf(k), nil, w)
}

// Policy reads the policy of a service with its last edits. The error is
// ErrNoDocument when nobody has ever written one; it may have been taken back.
func (r *Registry) Policy(ctx context.Context, k ServiceKey, c Consistency) (*Document[Policy], Revision, error) {
	var bad problems
	k = k.normalize(&bad)
	if err := bad.err(); err != nil {
		return nil, 0, err
	}
	return read(ctx, r, policyShelf(k), c)
}
