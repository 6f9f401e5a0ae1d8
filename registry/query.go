package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Query says which instances are wanted. All that is given must match.
type Query struct {
	Namespace   string      // required
	Services    []string    // any of these; none = all
	Prefixes    []string    // any of these, textually; none = all
	Levels      Levels      // some of them, without a gap from the organization on
	Zone        string      // exact
	Endpoint    string      // a name or a protocol; of each instance only the matching endpoints are answered
	Selectors   []string    // label selectors, all of which must match; a comma is "and" too
	Labels      []string    // key=value, all of which must match
	Limit       int         // 0 = none; applied last
	AllStatuses bool        // the ones that nobody may be sent to as well
	Consistency Consistency // linearizable unless asked otherwise
}

// Consistency says how fresh a read must be. The zero value is linearizable: it
// sees every write that was acknowledged before it began.
type Consistency struct {
	stale  bool
	maxAge time.Duration
}

// Stale reads see whatever this member has applied. With a limit they do so if
// the member knows its state to be no older, and are linearizable otherwise; 0 is
// no limit.
func Stale(maxAge time.Duration) Consistency { return Consistency{stale: true, maxAge: maxAge} }

// queryTermsMax bounds each list of a query.
const queryTermsMax = 256

// List reads the instances that match, sorted by service and id, and the
// revision that the answer was read at.
func (r *Registry) List(ctx context.Context, q Query) ([]*Instance, Revision, error) {
	f, err := q.filter()
	if err != nil {
		return nil, 0, err
	}
	if err := r.freshen(ctx, q.Consistency); err != nil {
		return nil, 0, err
	}
	services, at := r.machine.services(f)
	return f.pick(services), at, nil
}

// Services reads the services of a namespace, or all for "", sorted by key, and
// the revision that all of them were read at.
func (r *Registry) Services(ctx context.Context, namespace string, consistency Consistency) ([]*Service, Revision, error) {
	if namespace != "" {
		var bad problems
		namespace = normalizeNamespace(namespace, &bad)
		if err := bad.err(); err != nil {
			return nil, 0, err
		}
	}
	if err := r.freshen(ctx, consistency); err != nil {
		return nil, 0, err
	}
	services, at := r.machine.servicesOf(namespace)
	return services, at, nil
}

func (m *Machine) servicesOf(namespace string) ([]*Service, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	states := m.published.order
	if namespace != "" {
		states = m.published.prefixed(namespace, "")
	}
	out := make([]*Service, len(states))
	for i, svc := range states {
		out[i] = svc.snapshot()
	}
	return out, m.revision
}

// A filter is a query in the form that matching wants.
type filter struct {
	namespace string
	services  []string // sorted, without repeats; nil = all
	prefixes  []string
	levels    []string // a run from the organization on
	zone      string
	endpoint  string
	labels    []requirement
	limit     int
	all       bool
}

func (q Query) filter() (*filter, error) {
	var bad problems
	f := &filter{
		namespace: normalizeNamespace(q.Namespace, &bad),
		services:  terms(q.Services, "service", &bad),
		prefixes:  terms(q.Prefixes, "servicePrefix", &bad),
		levels:    levelRun(q.Levels, &bad),
		zone:      strings.TrimSpace(q.Zone),
		endpoint:  strings.TrimSpace(q.Endpoint),
		limit:     q.Limit,
		all:       q.AllStatuses,
	}
	f.labels = append(selectorTerms(q.Selectors, &bad), labelTerms(q.Labels, &bad)...)
	if q.Limit < 0 {
		bad.add("limit", fmt.Sprintf("%d is negative: a number from 0 (no limit) on", q.Limit))
	}
	return f, bad.err()
}

// terms trims, sorts and unites the values of a repeated parameter; empty ones say nothing.
func terms(given []string, parameter string, bad *problems) []string {
	if len(given) > queryTermsMax {
		bad.add(parameter, fmt.Sprintf("is given %d times: at most %d", len(given), queryTermsMax))
		return nil
	}
	var out []string
	for _, text := range given {
		if text = strings.TrimSpace(text); text != "" {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func levelRun(given Levels, bad *problems) []string {
	parts := trimLevels(given).parts()
	n := 0
	for n < len(parts) && parts[n] != "" {
		n++
	}
	for i := n; i < len(parts); i++ {
		if parts[i] != "" {
			bad.add(levelNames[i], fmt.Sprintf("is given without %s: levels are asked for without a gap, from organization on", levelNames[n]))
			return nil
		}
	}
	return parts[:n]
}

func selectorTerms(given []string, bad *problems) []requirement {
	var out []requirement
	for _, text := range terms(given, "selector", bad) {
		some, err := parseSelector(text)
		if err != nil {
			bad.add("selector", fmt.Sprintf("%s: %v", quoted(text), err))
		}
		out = append(out, some...)
	}
	if len(out) > queryTermsMax {
		bad.add("selector", fmt.Sprintf("has %d terms: at most %d", len(out), queryTermsMax))
	}
	return out
}

func labelTerms(given []string, bad *problems) []requirement {
	if len(given) > queryTermsMax {
		bad.add("label", fmt.Sprintf("is given %d times: at most %d", len(given), queryTermsMax))
		return nil
	}
	var out []requirement
	for _, text := range given {
		key, value, _ := strings.Cut(text, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "" || value == "" {
			bad.add("label", fmt.Sprintf("%s is not key=value with both of them given; for an empty value use selector", quoted(text)))
		}
		out = append(out, requirement{key: key, op: selectorIn, values: []string{value}})
	}
	return out
}

// services are the services that can hold matches, all as of one revision.
func (m *Machine) services(f *filter) ([]*Service, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []*Service
	for _, svc := range m.published.candidates(f) {
		if f.matchesService(svc.key) {
			out = append(out, svc.snapshot())
		}
	}
	return out, m.revision
}

// candidates narrows the search by what the state is sorted by.
func (s *state) candidates(f *filter) []*serviceState {
	if len(f.services) == 0 && len(f.prefixes) == 1 {
		return s.prefixed(f.namespace, f.prefixes[0])
	}
	if len(f.services) == 0 {
		return s.prefixed(f.namespace, "")
	}
	var out []*serviceState
	for _, name := range f.services {
		if svc := s.services[ServiceKey{Namespace: f.namespace, Service: name}]; svc != nil {
			out = append(out, svc)
		}
	}
	return out
}

func (f *filter) matchesService(k ServiceKey) bool {
	if len(f.prefixes) > 0 && !slices.ContainsFunc(f.prefixes, func(p string) bool { return strings.HasPrefix(k.Service, p) }) {
		return false
	}
	if len(f.levels) == 0 {
		return true
	}
	parts := LevelsOf(k.Service).parts()
	return slices.Equal(parts[:len(f.levels)], f.levels)
}

func (f *filter) pick(services []*Service) []*Instance {
	out := []*Instance{}
	for _, s := range services {
		for _, i := range s.Instances {
			if f.limit > 0 && len(out) == f.limit {
				return out
			}
			if i = f.match(i); i != nil {
				out = append(out, i)
			}
		}
	}
	return out
}

// match is the instance as the query wants to see it; nil when it does not.
func (f *filter) match(i *Instance) *Instance {
	if !f.all && !i.Status.Routable() || f.zone != "" && i.Zone != f.zone {
		return nil
	}
	for _, l := range f.labels {
		if !l.matches(i.Labels) {
			return nil
		}
	}
	if f.endpoint == "" {
		return i
	}
	return i.only(f.endpoint)
}

// only keeps the endpoints of a name or protocol; nil when there are none.
func (i *Instance) only(endpoint string) *Instance {
	var kept []Endpoint
	for _, e := range i.Endpoints {
		if e.Name == endpoint || strings.EqualFold(e.Protocol, endpoint) {
			kept = append(kept, e)
		}
	}
	switch len(kept) {
	case 0:
		return nil
	case len(i.Endpoints):
		return i
	}
	some := *i
	some.Endpoints = kept
	return &some
}
