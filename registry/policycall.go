package registry

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ActiveChecks are those that proxies make themselves of the endpoint that the
// service's own name leads to, in place of what instances have registered for them.
type ActiveChecks struct {
	Kind           string `json:"kind"`                 // one of the names below
	Path           string `json:"path,omitempty"`       // of http
	Service        string `json:"service,omitempty"`    // of grpc; empty = the whole server
	IntervalMs     *int64 `json:"intervalMs,omitempty"` // from one to the next
	TimeoutMs      *int64 `json:"timeoutMs,omitempty"`
	UnhealthyAfter *int64 `json:"unhealthyAfter,omitempty"` // failures in a row
	HealthyAfter   *int64 `json:"healthyAfter,omitempty"`   // successes in a row
}

// The kinds of checks that proxies know.
const (
	ActiveHTTP = "http"
	ActiveGRPC = "grpc"
	ActiveTCP  = "tcp"
)

// A Drop is a share of the requests that proxies refuse at once, under a name that
// their statistics show: what is to be done without when there is too much.
type Drop struct {
	Category string `json:"category"`
	Percent  int64  `json:"percent"`
}

// Fault is what proxies do to requests of a route, for a test of those who call.
type Fault struct {
	DelayMs      *int64 `json:"delayMs,omitempty"`
	DelayPercent *int64 `json:"delayPercent,omitempty"` // of the requests; nil = all
	AbortStatus  *int64 `json:"abortStatus,omitempty"`  // instead of an answer of the service
	AbortPercent *int64 `json:"abortPercent,omitempty"`
}

// The bounds of these.
const (
	dropsMax            = 8
	activeIntervalMsMin = 100
	activeFailuresMax   = 100
)

// ActiveIntervalDefault is the time from one check of a proxy to the next, and how long it waits for an answer.
// A frozen instance is out after two of each and a moment at most (see xds, activeCheck): with half a second five
// of them were out after 1.98 s in the middle of twenty rounds, and after more than 2 s in eight.
const ActiveIntervalDefault = 400 * time.Millisecond

func (c *ActiveChecks) normalize(bad *problems) *ActiveChecks {
	if c == nil {
		return nil
	}
	out := *c
	out.Kind, out.Path, out.Service = strings.ToLower(strings.TrimSpace(c.Kind)), strings.TrimSpace(c.Path), strings.TrimSpace(c.Service)
	switch out.Kind {
	case ActiveHTTP, ActiveGRPC, ActiveTCP:
	case "":
		bad.add("checks.kind", "is missing: http, grpc or tcp")
	default:
		bad.add("checks.kind", fmt.Sprintf("%s is not known: http, grpc, tcp", quoted(out.Kind)))
	}
	out.checkTarget(bad)
	within(out.IntervalMs, "checks.intervalMs", activeIntervalMsMin, policyMsMax, bad)
	within(out.TimeoutMs, "checks.timeoutMs", 1, policyMsMax, bad)
	within(out.UnhealthyAfter, "checks.unhealthyAfter", 1, activeFailuresMax, bad)
	within(out.HealthyAfter, "checks.healthyAfter", 1, activeFailuresMax, bad)
	return &out
}

// checkTarget holds what is asked for against the kind of the check.
func (c *ActiveChecks) checkTarget(bad *problems) {
	switch {
	case c.Kind == ActiveHTTP && (!isPath(c.Path) || len(c.Path) > matchTextMax):
		bad.add("checks.path", fmt.Sprintf("%s is not allowed: a path from / on, without space or fragment, of at most %d bytes", quoted(c.Path), matchTextMax))
	case c.Kind != ActiveHTTP && c.Path != "":
		bad.add("checks.path", "is for checks of kind http")
	}
	switch {
	case c.Kind != ActiveGRPC && c.Service != "":
		bad.add("checks.service", "is for checks of kind grpc")
	case c.Service != "" && !isName(c.Service, "._-"):
		bad.add("checks.service", fmt.Sprintf("%s is not allowed: %s", quoted(c.Service), nameRule))
	}
}

func normalizeDrops(given []Drop, bad *problems) []Drop {
	if len(given) > dropsMax {
		bad.add("drops", fmt.Sprintf("has %d drops: at most %d", len(given), dropsMax))
		return nil
	}
	var out []Drop
	for i, d := range given {
		at := fmt.Sprintf("drops[%d]", i)
		d.Category = strings.TrimSpace(d.Category)
		if !isName(d.Category, "._-") {
			bad.add(at+".category", fmt.Sprintf("%s is not allowed: %s", quoted(d.Category), nameRule))
		}
		if twin := slices.IndexFunc(out, func(o Drop) bool { return o.Category == d.Category }); twin >= 0 {
			bad.add(at+".category", fmt.Sprintf("is that of drops[%d]: give it one percentage", twin))
		}
		if d.Percent < 1 || d.Percent > 100 {
			bad.add(at+".percent", fmt.Sprintf("%d is not allowed: 1 to 100", d.Percent))
		}
		out = append(out, d)
	}
	return out
}

func (f *Fault) check(at string, bad *problems) {
	if f == nil {
		return
	}
	within(f.DelayMs, at+".delayMs", 1, policyMsMax, bad)
	within(f.DelayPercent, at+".delayPercent", 1, 100, bad)
	within(f.AbortStatus, at+".abortStatus", 200, 599, bad)
	within(f.AbortPercent, at+".abortPercent", 1, 100, bad)
	if f.DelayPercent != nil && f.DelayMs == nil {
		bad.add(at+".delayPercent", "is a share of nothing: give delayMs as well")
	}
	if f.AbortPercent != nil && f.AbortStatus == nil {
		bad.add(at+".abortPercent", "is a share of nothing: give abortStatus as well")
	}
}
