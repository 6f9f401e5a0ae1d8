package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Query says which instances are wanted. All that is given must match; of a
// list, any of its values. What is not given matches everything.
type Query struct {
	Namespace     string   // required, unless all of them are asked for
	AllNamespaces bool     // instead of one
	Services      []string // exact
	Prefixes      []string // textually
	Levels        Levels   // each by itself: a service without levels has none of them
	LevelsInRun   bool     // refuse levels with a gap before them, as the contract of v1 does
	Groups        []string // exact, like the next three
	Zones         []string
	Regions       []string
	Versions      []string
	Endpoints     []string    // names or protocols; of each instance only the matching endpoints are answered
	Selectors     []string    // label selectors, all of which must match; a comma is "and" too
	Labels        []string    // key=value, all of which must match
	Statuses      []string    // names of statuses, "routable" or "any"; none = routable
	Limit         int         // 0 = none; applied last
	Consistency   Consistency // linearizable unless asked otherwise
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

// The bounds of the age that a stale read may allow.
const (
	StalenessMin = time.Millisecond
	StalenessMax = 24 * time.Hour
)

// queryTermsMax bounds each list of a query.
const queryTermsMax = 256

// List reads the instances that match, sorted by namespace, service and id, and
// the revision that the answer was read at.
func (r *Registry) List(ctx context.Context, q Query) ([]*Instance, Revision, error) {
	f, err := q.filterFor(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := r.freshen(ctx, q.Consistency); err != nil {
		return nil, 0, err
	}
	found, at, _ := r.machine.find(f, instancesOnly)
	out, _ := found.instances(f, place{})
	return out, at, nil
}

// A filter is a query in the form that matching wants. Its lists are sorted,
// without repeats; an empty one is not looked at.
type filter struct {
	namespace string // "" = all
	services  []string
	prefixes  []string // none of them begins with another
	levels    [len(levelNames)]string
	groups    []string
	zones     []string
	regions   []string
	versions  []string
	endpoints []string
	labels    []requirement
	statuses  statusSet
	routable  bool // in these words: whoever is handed out will do
	limit     int
	by        Caller // who is told; nil = whoever
}

// Check says all that is wrong with a query, as reading by it would.
func (q Query) Check() error {
	_, err := q.filter()
	return err
}

// filterFor leaves out what the caller may not be told of, as if it were not there.
func (q Query) filterFor(ctx context.Context) (*filter, error) {
	f, err := q.filter()
	if err != nil {
		return nil, err
	}
	f.by = CallerOf(ctx)
	return f, f.permit()
}

// permit refuses a caller who may be told of nothing that the query can find.
func (f *filter) permit() error {
	ask := Ask{Verb: VerbRead, Resource: ResourceInstances, Namespace: f.namespace}
	if f.by != nil && !f.by.AllowsSome(ask) {
		return denied(f.by, ask)
	}
	return nil
}

// forAnybody is the same filter without that.
func (f *filter) forAnybody() *filter {
	if f.by == nil {
		return f
	}
	same := *f
	same.by = nil
	return &same
}

func (q Query) filter() (*filter, error) {
	var bad problems
	f := &filter{}
	if !q.AllNamespaces {
		f.namespace = normalizeNamespace(q.Namespace, &bad)
	} else if q.Namespace != "" {
		bad.add("namespace", "is given although all namespaces are asked for: one of the two")
	}
	f.services = terms(q.Services, "service", &bad)
	f.prefixes = withoutLonger(terms(q.Prefixes, "servicePrefix", &bad))
	f.levels = q.levels(&bad)
	f.groups = terms(q.Groups, "group", &bad)
	f.zones = terms(q.Zones, "zone", &bad)
	f.regions = terms(q.Regions, "region", &bad)
	f.versions = terms(q.Versions, "version", &bad)
	f.endpoints = terms(q.Endpoints, "endpoint", &bad)
	f.statuses = statusTerms(q.Statuses, &bad)
	f.routable = len(q.Statuses) == 0 || slices.Contains(q.Statuses, statusesRoutable)
	f.labels = append(selectorTerms(q.Selectors, &bad), labelTerms(q.Labels, &bad)...)
	if f.limit = q.Limit; q.Limit < 0 {
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

// withoutLonger drops the prefixes that say no more than a shorter one does. What
// begins with a prefix stands right behind it in a sorted list.
func withoutLonger(sorted []string) []string {
	var out []string
	for _, p := range sorted {
		if len(out) == 0 || !strings.HasPrefix(p, out[len(out)-1]) {
			out = append(out, p)
		}
	}
	return out
}

func (q Query) levels(bad *problems) [len(levelNames)]string {
	parts := trimLevels(q.Levels).parts()
	gap := slices.Index(parts[:], "")
	if !q.LevelsInRun || gap < 0 {
		return parts
	}
	for i := gap; i < len(parts); i++ {
		if parts[i] != "" {
			bad.add(levelNames[i], fmt.Sprintf("is given without %s: levels are asked for without a gap, from organization on", levelNames[gap]))
			break
		}
	}
	return parts
}

// The words that stand for several statuses.
const (
	statusesRoutable = "routable"
	statusesAny      = "any"
)

// A statusSet has one bit for each status.
type statusSet uint16

const everyStatus = ^statusSet(0)

func (s statusSet) has(one Status) bool { return s&(1<<one) != 0 }

func statusTerms(given []string, bad *problems) statusSet {
	words := terms(given, "status", bad)
	if len(words) == 0 {
		words = []string{statusesRoutable}
	}
	var out statusSet
	for _, word := range words {
		some := statusesOf(word)
		if some == 0 {
			bad.add("status", fmt.Sprintf("%s is not known: %s", quoted(word), strings.Join(statusWords(), ", ")))
		}
		out |= some
	}
	return out
}

func statusesOf(word string) statusSet {
	if word == statusesAny {
		return everyStatus
	}
	var out statusSet
	for s := range statusesMax {
		if known(s) && (s.String() == word || word == statusesRoutable && s.Routable()) {
			out |= 1 << s
		}
	}
	return out
}

func statusWords() []string {
	words := []string{statusesAny, statusesRoutable}
	for s := range statusesMax {
		if known(s) {
			words = append(words, s.String())
		}
	}
	return words
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

// matchesService looks at what a query says of services.
func (f *filter) matchesService(k ServiceKey) bool {
	if f.namespace != "" && k.Namespace != f.namespace {
		return false
	}
	if len(f.services) > 0 && !contains(f.services, k.Service) {
		return false
	}
	if len(f.prefixes) > 0 && !slices.ContainsFunc(f.prefixes, func(p string) bool { return strings.HasPrefix(k.Service, p) }) {
		return false
	}
	return (!f.hasLevels() || f.matchesLevels(k.Service)) && Sees(f.by, k)
}

func (f *filter) hasLevels() bool { return f.levels != [len(levelNames)]string{} }

// matchesLevels compares whole levels: acme is not acme2.
func (f *filter) matchesLevels(service string) bool {
	for n, want := range f.levels {
		level, rest, more := strings.Cut(service, ".")
		if level == "" || more != (n < len(f.levels)-1) || want != "" && level != want {
			return false
		}
		service = rest
	}
	return true
}

// asksOfInstances says whether a query can refuse instances of a service that it takes.
func (f *filter) asksOfInstances() bool {
	return len(f.groups)+len(f.zones)+len(f.regions)+len(f.versions)+len(f.endpoints)+len(f.labels) > 0 || f.statuses != everyStatus
}

// matchesRest looks at what a query says of instances beside their status.
func (f *filter) matchesRest(i *Instance) bool {
	if !oneOf(f.zones, i.Zone) || !oneOf(f.groups, i.Group) || !oneOf(f.regions, i.Region) || !oneOf(f.versions, i.Version) {
		return false
	}
	for _, l := range f.labels {
		if !l.matches(i.Labels) {
			return false
		}
	}
	return len(f.endpoints) == 0 || slices.ContainsFunc(i.Endpoints, f.wantsEndpoint)
}

// oneOf holds for a list that is not given, too.
func oneOf(sorted []string, value string) bool { return len(sorted) == 0 || contains(sorted, value) }

func contains(sorted []string, value string) bool {
	_, found := slices.BinarySearch(sorted, value)
	return found
}

func (f *filter) wantsEndpoint(e Endpoint) bool {
	return slices.ContainsFunc(f.endpoints, func(want string) bool { return e.Name == want || strings.EqualFold(e.Protocol, want) })
}

// asWanted is a matching instance as the query wants to see it: without the
// endpoints that were not asked for.
func (f *filter) asWanted(i *Instance) *Instance {
	if len(f.endpoints) == 0 || !slices.ContainsFunc(i.Endpoints, func(e Endpoint) bool { return !f.wantsEndpoint(e) }) {
		return i
	}
	some := *i
	some.Endpoints = nil
	for _, e := range i.Endpoints {
		if f.wantsEndpoint(e) {
			some.Endpoints = append(some.Endpoints, e)
		}
	}
	return &some
}
