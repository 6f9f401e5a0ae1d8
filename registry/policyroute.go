package registry

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Subset is the part of a service's instances that have a version, and labels.
// Proxies know it under a name of its own, and it comes and goes with its instances.
type Subset struct {
	Name    string            `json:"name"`
	Version string            `json:"version,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"` // an instance needs all of them
}

// Selects says whether an instance is in the subset.
func (s *Subset) Selects(i *Instance) bool {
	if s.Version != "" && s.Version != i.Version {
		return false
	}
	for key, want := range s.Labels {
		if got, has := i.Labels.Get(key); !has || got != want {
			return false
		}
	}
	return true
}

// Subset finds a subset by name; nil where there is none.
func (p *Policy) Subset(name string) *Subset {
	if p == nil {
		return nil
	}
	n := slices.IndexFunc(p.Subsets, func(s Subset) bool { return s.Name == name })
	if n < 0 {
		return nil
	}
	return &p.Subsets[n]
}

// A Route is where requests of one sort go, and how. The first that matches
// counts; what none matches goes to the whole service.
type Route struct {
	Match  *RouteMatch   `json:"match,omitempty"`  // nil = every request
	Split  []SplitTarget `json:"split,omitempty"`  // empty = the whole service
	Mirror *Mirror       `json:"mirror,omitempty"` // whose answers nobody waits for
	// Timeouts and Retries take the place of the service's, field by field.
	Timeouts      *RouteTimeouts `json:"timeouts,omitempty"`
	Retries       *Retries       `json:"retries,omitempty"`
	PrefixRewrite string         `json:"prefixRewrite,omitempty"` // in place of the path or prefix that matched
	Fault         *Fault         `json:"fault,omitempty"`
}

// RouteMatch is what a request has to be like, in every respect that is given.
type RouteMatch struct {
	Path    string        `json:"path,omitempty"`   // the whole of it, without the query
	Prefix  string        `json:"prefix,omitempty"` // of the path
	Method  string        `json:"method,omitempty"`
	Headers []HeaderMatch `json:"headers,omitempty"`
}

// HeaderMatch is one header that a request must have.
type HeaderMatch struct {
	Name    string `json:"name"`
	Exact   string `json:"exact,omitempty"`
	Prefix  string `json:"prefix,omitempty"`
	Present bool   `json:"present,omitempty"` // with any value
}

// SplitTarget has a share of the requests, as large as its part of all weights.
type SplitTarget struct {
	Subset string `json:"subset,omitempty"` // empty = the whole service
	Weight int64  `json:"weight"`
}

// Mirror is where copies of requests go: to a subset, or to another service of the namespace.
type Mirror struct {
	Subset  string `json:"subset,omitempty"`
	Service string `json:"service,omitempty"`
	Percent *int64 `json:"percent,omitempty"` // of the requests; nil = all
}

// RouteTimeouts are those of one route.
type RouteTimeouts struct {
	RequestMs *int64 `json:"requestMs,omitempty"` // with all its retries; 0 = none
	PerTryMs  *int64 `json:"perTryMs,omitempty"`
}

// The bounds of subsets and routes. Together with what a whole policy may take
// they keep a route table small enough to be sent again with each change of it.
const (
	subsetsMax      = 16
	routesMax       = 32
	matchHeadersMax = 8
	matchTextMax    = 256
	splitWeightMax  = 10_000
	policyBytesMax  = 32 << 10
)

func normalizeSubsets(given []Subset, bad *problems) []Subset {
	if len(given) > subsetsMax {
		bad.add("subsets", fmt.Sprintf("has %d subsets: at most %d", len(given), subsetsMax))
		return nil
	}
	var out []Subset
	for i, s := range given {
		s = s.normalize(fmt.Sprintf("subsets[%d]", i), bad)
		twin := slices.IndexFunc(out, func(o Subset) bool { return strings.EqualFold(o.Name, s.Name) })
		if twin >= 0 && s.Name != "" {
			bad.add(fmt.Sprintf("subsets[%d].name", i), fmt.Sprintf("%s is already the name of subsets[%d], upper and lower case being the same", quoted(s.Name), twin))
		}
		out = append(out, s)
	}
	return out
}

func (s Subset) normalize(at string, bad *problems) Subset {
	out := Subset{Name: strings.TrimSpace(s.Name), Version: optionalName(s.Version, at+".version", bad), Labels: normalizePairs(s.Labels, at+".labels", bad)}
	if !isName(out.Name, ".-_") {
		bad.add(at+".name", fmt.Sprintf("%s is not allowed: %s", quoted(out.Name), nameRule))
	}
	if out.Version == "" && len(out.Labels) == 0 {
		bad.add(at, "selects nothing: give a version, labels, or both")
	}
	return out
}

// normalizeRoutes needs the subsets that routes may lead to.
func (p *Policy) normalizeRoutes(bad *problems) []Route {
	if len(p.Routes) > routesMax {
		bad.add("routes", fmt.Sprintf("has %d routes: at most %d", len(p.Routes), routesMax))
		return nil
	}
	var out []Route
	for i, r := range p.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		r = r.normalize(at, bad)
		r.checkTargets(at, p.Subsets, bad)
		r.checkTimes(at, p.Timeouts, bad)
		r.checkRetries(at, p.Retries, bad)
		if n := slices.IndexFunc(out, func(o Route) bool { return o.Match == nil || reflect.DeepEqual(o.Match, r.Match) }); n >= 0 {
			bad.add(at+".match", fmt.Sprintf("is never reached: routes[%d] matches all that it would", n))
		}
		out = append(out, r)
	}
	return out
}

func (r Route) normalize(at string, bad *problems) Route {
	out := Route{Match: r.Match.normalize(at+".match", bad), Split: trimmedSplit(r.Split), Timeouts: section(r.Timeouts), PrefixRewrite: strings.TrimSpace(r.PrefixRewrite)}
	out.Retries = r.Retries.normalize(at+".retries", bad)
	out.Fault = section(r.Fault)
	out.Fault.check(at+".fault", bad)
	if r.Mirror != nil {
		out.Mirror = &Mirror{Subset: strings.TrimSpace(r.Mirror.Subset), Service: strings.TrimSpace(r.Mirror.Service), Percent: r.Mirror.Percent}
	}
	if out.PrefixRewrite == "" {
		return out
	}
	checkMatchPath(out.PrefixRewrite, at+".prefixRewrite", bad)
	if out.Match == nil || out.Match.Path == "" && out.Match.Prefix == "" {
		bad.add(at+".prefixRewrite", "needs a match.path or a match.prefix, whose place it takes")
	}
	return out
}

func trimmedSplit(given []SplitTarget) []SplitTarget {
	var out []SplitTarget
	for _, t := range given {
		out = append(out, SplitTarget{Subset: strings.TrimSpace(t.Subset), Weight: t.Weight})
	}
	return out
}

// checkTargets has a route lead to subsets that are there.
func (r *Route) checkTargets(at string, subsets []Subset, bad *problems) {
	total := int64(0)
	for i, t := range r.Split {
		here := fmt.Sprintf("%s.split[%d]", at, i)
		checkSubset(t.Subset, here+".subset", subsets, bad)
		if t.Weight < 0 || t.Weight > splitWeightMax {
			bad.add(here+".weight", fmt.Sprintf("%d is not allowed: 0 to %d", t.Weight, splitWeightMax))
		}
		if twin := slices.IndexFunc(r.Split[:i], func(o SplitTarget) bool { return o.Subset == t.Subset }); twin >= 0 {
			bad.add(here+".subset", fmt.Sprintf("is that of split[%d]: give it one weight", twin))
		}
		total += t.Weight
	}
	if len(r.Split) > 0 && total == 0 {
		bad.add(at+".split", "has no weight above 0, so its requests would go nowhere")
	}
	if m := r.Mirror; m != nil {
		m.check(at+".mirror", subsets, bad)
	}
}

func (m *Mirror) check(at string, subsets []Subset, bad *problems) {
	if (m.Subset == "") == (m.Service == "") {
		bad.add(at, "takes one of subset and service: where the copies go")
	}
	checkSubset(m.Subset, at+".subset", subsets, bad)
	if m.Service != "" && !isName(m.Service, ".-_") {
		bad.add(at+".service", fmt.Sprintf("%s is not allowed: %s", quoted(m.Service), nameRule))
	}
	within(m.Percent, at+".percent", 1, 100, bad)
}

func checkSubset(name, at string, subsets []Subset, bad *problems) {
	if name == "" || slices.ContainsFunc(subsets, func(s Subset) bool { return s.Name == name }) {
		return
	}
	known := "this policy has no subsets"
	if len(subsets) > 0 {
		var names []string
		for _, s := range subsets {
			names = append(names, s.Name)
		}
		known = "the subsets are " + strings.Join(names, ", ")
	}
	bad.add(at, fmt.Sprintf("%s is not known: %s", quoted(name), known))
}

// checkRetries holds what a route says of retries against what the service's policy does.
func (r *Route) checkRetries(at string, service *Retries, bad *problems) {
	all := r.Retries.Over(service)
	if all.Attempts == nil || *all.Attempts > 0 {
		return
	}
	if r.Timeouts != nil && r.Timeouts.PerTryMs != nil {
		bad.add(at+".timeouts.perTryMs", "is the time of each try, and retries.attempts is 0: use requestMs")
	}
	if r.Retries != nil && r.Retries.Attempts == nil {
		bad.add(at+".retries", "says when to try again, and retries.attempts of the service is 0: give attempts here too")
	}
}

// Over are the retries of a service as a route has them.
func (r *Retries) Over(service *Retries) Retries {
	var out Retries
	if service != nil {
		out = *service
	}
	if r == nil {
		return out
	}
	if r.Attempts != nil {
		out.Attempts = r.Attempts
	}
	if len(r.When) > 0 {
		out.When = r.When
	}
	if len(r.Statuses) > 0 {
		out.Statuses = r.Statuses
	}
	return out
}

// checkTimes holds what a route says of time against what the service's policy does.
func (r *Route) checkTimes(at string, service *Timeouts, bad *problems) {
	if r.Timeouts == nil {
		return
	}
	within(r.Timeouts.RequestMs, at+".timeouts.requestMs", 0, policyMsMax, bad)
	within(r.Timeouts.PerTryMs, at+".timeouts.perTryMs", 1, policyMsMax, bad)
	all := r.Timeouts.Over(service)
	whole := orMs(all.RequestMs, RequestTimeoutDefault)
	if whole > 0 && all.PerTryMs != nil && *all.PerTryMs > whole {
		bad.add(at+".timeouts", fmt.Sprintf("leaves %d for each try and %d for the request, which it is a part of", *all.PerTryMs, whole))
	}
}

// Over are the times of a service as a route has them.
func (t *RouteTimeouts) Over(service *Timeouts) Timeouts {
	var out Timeouts
	if service != nil {
		out = *service
	}
	if t != nil && t.RequestMs != nil {
		out.RequestMs = t.RequestMs
	}
	if t != nil && t.PerTryMs != nil {
		out.PerTryMs = t.PerTryMs
	}
	return out
}

func (m *RouteMatch) normalize(at string, bad *problems) *RouteMatch {
	if m == nil {
		return nil
	}
	out := &RouteMatch{Path: strings.TrimSpace(m.Path), Prefix: strings.TrimSpace(m.Prefix), Method: strings.ToUpper(strings.TrimSpace(m.Method))}
	if out.Prefix == "/" { // which every path has
		out.Prefix = ""
	}
	if out.Path != "" && m.Prefix != "" {
		bad.add(at+".prefix", "contradicts path: leave one of the two out")
	}
	checkMatchPath(out.Path, at+".path", bad)
	checkMatchPath(out.Prefix, at+".prefix", bad)
	if out.Method != "" && !isName(out.Method, "-_") {
		bad.add(at+".method", fmt.Sprintf("%s is not a method, like GET", quoted(m.Method)))
	}
	if len(m.Headers) > matchHeadersMax {
		bad.add(at+".headers", fmt.Sprintf("has %d headers: at most %d", len(m.Headers), matchHeadersMax))
		return section(out)
	}
	for i, h := range m.Headers {
		out.Headers = append(out.Headers, h.normalize(fmt.Sprintf("%s.headers[%d]", at, i), bad))
	}
	return section(out)
}

// checkMatchPath holds for what a path or the beginning of one can be: proxies
// compare it without the query.
func checkMatchPath(path, at string, bad *problems) {
	if path == "" {
		return
	}
	if len(path) > matchTextMax || !isPath(path) || strings.Contains(path, "?") {
		bad.add(at, fmt.Sprintf("%s is not allowed: a path from / on, without query, space or fragment, of at most %d bytes", quoted(path), matchTextMax))
	}
}

func (h HeaderMatch) normalize(at string, bad *problems) HeaderMatch {
	out := HeaderMatch{Name: strings.ToLower(strings.TrimSpace(h.Name)), Exact: h.Exact, Prefix: h.Prefix, Present: h.Present}
	checkHeaderName(out.Name, at+".name", bad)
	ways := 0
	for _, one := range []struct {
		field string
		given bool
		value string
	}{{"exact", h.Exact != "", h.Exact}, {"prefix", h.Prefix != "", h.Prefix}, {"present", h.Present, ""}} {
		if one.given {
			ways++
		}
		if len(one.value) > matchTextMax || !isPrintable(one.value) {
			bad.add(at+"."+one.field, fmt.Sprintf("is not allowed: printable characters, at most %d bytes", matchTextMax))
		}
	}
	if ways != 1 {
		bad.add(at, "takes one of exact, prefix and present: what the header has to be like")
	}
	return out
}

func checkHeaderName(name, at string, bad *problems) {
	if !isName(name, "-_") {
		bad.add(at, fmt.Sprintf("%s is not the name of a header: letters, digits, '-' and '_'", quoted(name)))
	}
}
