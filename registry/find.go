package registry

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// found is where the matches of a query lie, at one revision: runs of instances,
// none of which ever changes, in the order of the answer. Whether a run's
// instances match is seen by whoever reads them.
type found []run

// A run is some instances of one service.
type run struct {
	service   *Service // nil where only the instances are wanted, and all of them are taken for what they are
	instances []*Instance
}

// matches says whether a query takes an instance of the run. Where all are handed
// out, all are routable.
func (r *run) matches(f *filter, i *Instance) bool {
	return (f.statuses.has(i.Status) || f.routable && r.service.HandsOut(i)) && f.matchesRest(i)
}

// wanted is what a query is made for.
type wanted bool

const (
	instancesOnly wanted = false
	servicesToo   wanted = true
)

// find looks a query up in the index, and says what the answer is as of.
func (m *Machine) find(f *filter, what wanted) (in found, at Revision, replaced uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, namespace := range m.published.index.names(f.namespace) {
		s := &search{state: m.published, at: m.published.index.namespaces[namespace], namespace: namespace, filter: f, what: what}
		if some := s.run(); in == nil {
			in = some
		} else {
			in = append(in, some...)
		}
	}
	return in, m.revision, m.replaced
}

// names are the namespaces that a query looks at.
func (x *index) names(one string) []string {
	if one == "" {
		return slices.Sorted(maps.Keys(x.namespaces))
	}
	if x.namespaces[one] == nil {
		return nil
	}
	return []string{one}
}

// A search is one look into one namespace, under the machine's lock.
type search struct {
	state     *state
	at        *namespaceIndex
	namespace string
	filter    *filter
	what      wanted

	wants []condition // all of which a block must have something of
}

// A condition is the postings of the values of which one must be there.
type condition []posting

func (c condition) blocks() int {
	n := 0
	for i := range c {
		n += c[i].blocks()
	}
	return n
}

func (c condition) has(b *block) bool {
	return slices.ContainsFunc(c, func(p posting) bool { return p.in(b) > 0 })
}

func (s *search) run() found {
	services := s.services()
	if !s.filter.asksOfInstances() {
		return s.whole(services)
	}
	if !s.conditions() {
		return nil
	}
	if len(s.wants) == 0 {
		return s.whole(services)
	}
	if best := s.rarest(); !fewerBlocks(services, orderedWorth*best.blocks()) {
		return s.runs(s.blocksOf(best))
	}
	return s.runs(s.blocksIn(services))
}

// orderedWorth is how many blocks that are in order cost as much as one that has to be put there.
const orderedWorth = 4

// services is the shortest list of services, sorted, that all that the query
// says of services leaves; more of it has to be looked at.
func (s *search) services() []*serviceState {
	if len(s.filter.services) > 0 {
		return s.named()
	}
	best := prefixed(s.state.order, s.namespace, "")
	if first := s.filter.levels[0]; first != "" {
		best = prefixed(best, s.namespace, first+".")
	}
	for l, level := range s.filter.levels {
		if l == 0 || level == "" {
			continue
		}
		if of := s.at.levels[l][level]; len(of) < len(best) {
			best = of
		}
	}
	if len(s.filter.prefixes) == 0 {
		return best
	}
	var out []*serviceState
	for _, p := range s.filter.prefixes {
		out = append(out, prefixed(best, s.namespace, p)...)
	}
	return out
}

func (s *search) named() []*serviceState {
	var out []*serviceState
	for _, name := range s.filter.services {
		if svc := s.state.services[ServiceKey{Namespace: s.namespace, Service: name}]; svc != nil {
			out = append(out, svc)
		}
	}
	return out
}

// whole is all instances of the services, for a query that asks nothing of instances.
func (s *search) whole(services []*serviceState) found {
	out := make(found, 0, len(services))
	for _, svc := range services {
		if s.filter.matchesService(svc.key) {
			out = append(out, s.wholeOf(svc))
		}
	}
	return out
}

func (s *search) wholeOf(svc *serviceState) run {
	if s.what == servicesToo || svc.protected() {
		v := svc.snapshot()
		return run{service: v, instances: v.Instances}
	}
	return run{instances: svc.share()}
}

// conditions looks up what the query says of instances; false when nothing in
// the namespace can match. What occurs in half of the blocks or more is not worth
// the look: it is seen at the instances, when the list is read.
func (s *search) conditions() bool {
	f := s.filter
	s.want(byGroup, f.groups)
	s.want(byZone, f.zones)
	s.want(byRegion, f.regions)
	s.want(byVersion, f.versions)
	if len(f.endpoints) > 0 {
		s.want(byEndpoint, alsoLower(f.endpoints))
	}
	if f.statuses != everyStatus && !(f.routable && s.state.holdings[s.namespace].protected > 0) {
		s.want(byStatus, f.statuses.names())
	}
	for _, l := range f.labels {
		s.label(l)
	}
	if slices.ContainsFunc(s.wants, func(c condition) bool { return c.blocks() == 0 }) {
		return false
	}
	s.wants = slices.DeleteFunc(s.wants, func(c condition) bool { return 2*c.blocks() >= s.at.blocks })
	return true
}

func (s *search) want(d dimension, values []string) {
	if len(values) > 0 {
		s.wants = append(s.wants, postings(s.at.values[d], values))
	}
}

func postings(of map[string]posting, values []string) condition {
	var out condition
	for _, v := range values {
		if p, ok := of[v]; ok {
			out = append(out, p)
		}
	}
	return out
}

// alsoLower adds the values in lower case, the form of protocols.
func alsoLower(values []string) []string {
	out := slices.Clone(values)
	for _, v := range values {
		out = append(out, strings.ToLower(v))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s statusSet) names() []string {
	var out []string
	for one := range statusesMax {
		if s.has(one) && known(one) {
			out = append(out, one.String())
		}
	}
	return out
}

// label looks up one term of a selector.
func (s *search) label(l requirement) {
	of := s.at.labels[l.key]
	switch {
	case of == nil && (l.op == selectorIn || l.op == selectorExists):
		s.wants = append(s.wants, nil)
	case of == nil: // every instance matches
	case l.op == selectorIn:
		s.wants = append(s.wants, postings(of.values, l.values))
	case l.op == selectorExists:
		s.wants = append(s.wants, condition{of.any})
	case !of.common: // nearly every instance matches
	case l.op == selectorMissing:
		s.wants = append(s.wants, condition{of.absent})
	case len(of.values) <= queryTermsMax:
		s.wants = append(s.wants, append(of.others(l.values), of.absent))
	}
}

func (of *labelIndex) others(than []string) condition {
	var out condition
	for value, p := range of.values {
		if !slices.Contains(than, value) {
			out = append(out, p)
		}
	}
	return out
}

// blocksIn are the blocks of services that can hold matches, in order.
func (s *search) blocksIn(services []*serviceState) []*block {
	var out []*block
	for _, svc := range services {
		if !s.filter.matchesService(svc.key) {
			continue
		}
		for _, b := range svc.blocks {
			if s.possible(b) {
				out = append(out, b)
			}
		}
	}
	return out
}

// blocksOf are those among the blocks of a condition, in order.
func (s *search) blocksOf(c condition) []*block {
	var out []*block
	for i := range c {
		c[i].each(func(b *block) {
			if s.filter.matchesService(b.service.key) && s.possible(b) {
				out = append(out, b)
			}
		})
	}
	slices.SortFunc(out, func(a, b *block) int {
		return cmp.Or(strings.Compare(a.service.key.Service, b.service.key.Service), strings.Compare(a.from, b.from))
	})
	return slices.Compact(out) // several values may occur in one
}

// rarest is the condition with the fewest blocks.
func (s *search) rarest() condition {
	return slices.MinFunc(s.wants, func(a, b condition) int { return cmp.Compare(a.blocks(), b.blocks()) })
}

// fewerBlocks says whether services have fewer than n blocks. It does not count further.
func fewerBlocks(services []*serviceState, n int) bool {
	if len(services) >= n {
		return false // but for empty services, which are few
	}
	for _, svc := range services {
		if n -= len(svc.blocks); n <= 0 {
			return false
		}
	}
	return true
}

// possible says that no condition rules out all instances of a block.
func (s *search) possible(b *block) bool {
	for _, c := range s.wants {
		if !c.has(b) {
			return false
		}
	}
	return true
}

// runs takes the instances out of blocks, which are sorted. A service that is
// wanted whole is shared with other readers.
func (s *search) runs(blocks []*block) found {
	var out found
	for len(blocks) > 0 {
		svc, n := blocks[0].service, 1
		for n < len(blocks) && blocks[n].service == svc {
			n++
		}
		if n == len(svc.blocks) {
			out = append(out, s.wholeOf(svc))
		} else {
			out = append(out, s.part(svc, blocks[:n])...)
		}
		blocks = blocks[n:]
	}
	return out
}

func (s *search) part(svc *serviceState, blocks []*block) found {
	var of *Service
	if s.what == servicesToo || svc.protected() {
		of = svc.snapshot()
	}
	var out found
	for _, b := range blocks {
		out = append(out, run{service: of, instances: slices.Clone(svc.inBlock(svc.blockOf(b.from)))})
	}
	return out
}

// A place is where a list goes on: in which run, and at which of its instances.
type place struct{ run, offset int }

// instances are the matches from a place on, as many as the query wants, and the
// place of the next one; nil when there is none.
func (s found) instances(f *filter, from place) ([]*Instance, *place) {
	out := []*Instance{}
	for at := from; at.run < len(s); at = (place{run: at.run + 1}) {
		for ; at.offset < len(s[at.run].instances); at.offset++ {
			i := s[at.run].instances[at.offset]
			if !s[at.run].matches(f, i) {
				continue
			}
			if f.limit > 0 && len(out) == f.limit {
				next := at
				return out, &next
			}
			out = append(out, f.asWanted(s[at.run].service.asHandedOut(i)))
		}
	}
	return out, nil
}
