package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// How a list is read in pages.
//
// All pages of a list come from one revision: a reader who puts them together
// has the list as it was at that moment, and nothing twice or not at all because
// something changed in between. So this member keeps what the first page has
// found until the last page is read: a view. It is made of runs of instances that
// are shared with the state, and costs eight bytes an instance, plus the
// instances that have been replaced since, which only views still hold. Both are
// charged to one budget. When it, the number of views, or a view's time is used
// up, the oldest view goes, and its cursors are answered with ErrCursorExpired:
// a list that begins anew is right, one that goes on with another state is not.
//
// The views of another member, or of this one before it was started anew, are
// not here; their cursors end the same way.

// The bounds of views, for all callers together.
const (
	viewsMax      = 256
	viewsBytesMax = 64 << 20
	viewLife      = 5 * time.Minute
)

// A Paging says which part of a list is wanted.
type Paging struct {
	Cursor    *Cursor // where an earlier page ended; nil = from the beginning
	Count     bool    // the number of all matches as well
	CountOnly bool    // and nothing but that
}

// A Cursor is where a page ended. It has a meaning on one member only.
type Cursor struct {
	View        string
	Run, Offset int
}

// A Page is a part of a list, and where it goes on.
type Page struct {
	Instances []*Instance    // of Instances
	Services  []ServiceMatch // of Services
	Count     int            // of the matches on all pages, where it was asked for
	Revision  Revision       // of all pages of the list
	Next      *Cursor        // nil = this was the last

	Age      time.Duration // what was committed so long ago is in it
	AgeKnown bool
}

// A ServiceMatch is a service with the number of its instances that a query asks for.
type ServiceMatch struct {
	*Service
	Matching int
}

// Instances reads a page of the instances that match, sorted by namespace,
// service and id. The query of a later page is that of the first; only its limit
// may differ.
func (r *Registry) Instances(ctx context.Context, q Query, p Paging) (Page, error) {
	return r.page(ctx, q, p, instancesOnly)
}

// Services reads a page of the services that match, sorted by namespace and
// name: those of whose instances at least one matches or, if nothing is asked of
// instances and every status will do, those without any, too.
func (r *Registry) Services(ctx context.Context, q Query, p Paging) (Page, error) {
	return r.page(ctx, q, p, servicesToo)
}

// Service reads one service. The error is ErrNotFound when it is not known, at the
// revision that is returned with it.
func (r *Registry) Service(ctx context.Context, k ServiceKey, c Consistency) (ServiceMatch, Revision, error) {
	var bad problems
	k.Namespace = normalizeNamespace(k.Namespace, &bad)
	if k.Service = strings.TrimSpace(k.Service); k.Service == "" {
		bad.add("service", "is missing: "+nameRule) // an empty filter would mean all of them
	}
	if err := bad.err(); err != nil {
		return ServiceMatch{}, 0, err
	}
	page, err := r.Services(ctx, Query{Namespace: k.Namespace, Services: []string{k.Service}, Statuses: []string{statusesAny}, Limit: 1, Consistency: c}, Paging{})
	switch {
	case err != nil:
		return ServiceMatch{}, 0, err
	case len(page.Services) == 0:
		return ServiceMatch{}, page.Revision, MissingService(k)
	}
	return page.Services[0], page.Revision, nil
}

func (r *Registry) page(ctx context.Context, q Query, p Paging, what wanted) (Page, error) {
	f, err := q.filterFor(ctx)
	if err != nil {
		return Page{}, err
	}
	edition := r.machine.Edition() // before anything is looked at by it
	v, from := (*view)(nil), place{}
	if p.Cursor == nil {
		v, err = r.look(ctx, f, q.Consistency, what)
	} else {
		v, from, err = r.machine.views.resume(p.Cursor, f.fingerprint(what))
	}
	if err == nil && p.Cursor != nil && f.by != nil && v.edition != edition { // what was found then he may not be told of now
		err = fmt.Errorf("%w: who may see what has changed since: begin the list anew, without one", ErrCursorExpired)
	}
	if err != nil {
		return Page{}, err
	}
	page, next := v.page(f, p, what, from)
	page.Age, page.AgeKnown = r.ageOf(v.asOf)
	if next != nil {
		if v.id == "" {
			v.query, v.edition = f.fingerprint(what), edition
			r.machine.views.keep(v)
		}
		page.Next = &Cursor{View: v.id, Run: next.run, Offset: next.offset}
	}
	return page, nil
}

// look makes the view of a list's first page.
func (r *Registry) look(ctx context.Context, f *filter, c Consistency, what wanted) (*view, error) {
	asOf := r.asOf(c)
	if err := r.freshen(ctx, c); err != nil {
		return nil, err
	}
	v := &view{asOf: asOf}
	v.found, v.revision, v.replaced = r.machine.find(f, what)
	return v, nil
}

// asOf is the time for which a read that begins now will be complete.
func (r *Registry) asOf(c Consistency) time.Time {
	age, known := r.Age()
	if c.stale && (c.maxAge == 0 || known && age <= c.maxAge) {
		return r.replicator.Fresh()
	}
	return r.clock.Now()
}

// fingerprint is the same for all pages of a list, and for no other list.
func (f *filter) fingerprint(what wanted) string {
	same, by := *f.forAnybody(), ""
	if f.by != nil {
		by = f.by.Who() // the list of one is not another's
	}
	same.limit = 0
	return fmt.Sprintf("%t %q %#v", what, by, same)
}

// A view is what a query has found, kept for its later pages. It does not change
// but for its place among the others.
type view struct {
	id       string // "" = not kept
	query    string
	edition  *Edition // of access, by which it was found
	found    found
	revision Revision
	asOf     time.Time
	replaced uint64    // Machine.replaced at its revision
	made     time.Time // when it was kept
	bytes    int
}

func (v *view) page(f *filter, p Paging, what wanted, from place) (Page, *place) {
	out := Page{Revision: v.revision}
	if p.Count || p.CountOnly {
		out.Count = v.found.count(f, what)
	}
	if p.CountOnly {
		return out, nil
	}
	var next *place
	if what == servicesToo {
		out.Services, next = v.found.services(f, from)
	} else {
		out.Instances, next = v.found.instances(f, from)
	}
	return out, next
}

// count is the number of matches.
func (s found) count(f *filter, what wanted) int {
	if what == servicesToo {
		whole := *f
		whole.limit = 0
		all, _ := s.services(&whole, place{})
		return len(all)
	}
	n := 0
	for _, one := range s {
		n += one.matching(f)
	}
	return n
}

func (r *run) matching(f *filter) int {
	if !f.asksOfInstances() {
		return len(r.instances)
	}
	n := 0
	for _, i := range r.instances {
		if r.matches(f, i) {
			n++
		}
	}
	return n
}

// services are the services with matches from a place on, as many as the query
// wants, and the place of the next one; nil when there is none.
func (s found) services(f *filter, from place) ([]ServiceMatch, *place) {
	out := []ServiceMatch{}
	for at := from.run; at < len(s); {
		one, begins := ServiceMatch{Service: s[at].service}, at
		for ; at < len(s) && s[at].service == one.Service; at++ {
			one.Matching += s[at].matching(f)
		}
		if one.Matching == 0 && f.asksOfInstances() {
			continue
		}
		if f.limit > 0 && len(out) == f.limit {
			return out, &place{run: begins}
		}
		out = append(out, one)
	}
	return out, nil
}

// size is what the runs take, besides the instances.
func (s found) size() int {
	const perRun, perInstance = 32, 8
	n := perRun * len(s)
	for _, one := range s {
		n += perInstance * len(one.instances)
	}
	return n
}

// views are the views that are kept.
type views struct {
	now   func() time.Time
	newID func() string

	mu       sync.Mutex // guards what follows
	byAge    []*view    // the oldest first
	bytes    int        // of all of them
	replaced uint64     // Machine.replaced
	dropped  uint64     // before their time was over
}

func (s *views) keep(v *view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.id, v.made, v.bytes = s.newID(), s.now(), v.found.size()
	s.byAge = append(s.byAge, v)
	s.bytes += v.bytes
	s.trim()
}

// publish follows what has been replaced: it is held by views alone now.
func (s *views) publish(replaced uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaced = replaced
	s.trim()
}

// trim drops the oldest views until the others are within all bounds. What the
// oldest one holds of what was replaced includes what the younger ones hold.
func (s *views) trim() {
	n, bytes, now := 0, s.bytes, s.now()
	for ; n < len(s.byAge); n++ {
		v := s.byAge[n]
		old := now.Sub(v.made) > viewLife
		if !old && len(s.byAge)-n <= viewsMax && bytes+s.held(v) <= viewsBytesMax {
			break
		}
		if !old {
			s.dropped++
		}
		bytes -= v.bytes
	}
	s.byAge, s.bytes = slices.Delete(s.byAge, 0, n), bytes
}

// held is how much of what was replaced a view may hold.
func (s *views) held(v *view) int {
	return int(max(s.replaced, v.replaced) - v.replaced)
}

// resume finds the view of a cursor.
func (s *views) resume(c *Cursor, query string) (*view, place, error) {
	s.mu.Lock()
	s.trim()
	n := slices.IndexFunc(s.byAge, func(v *view) bool { return v.id == c.View })
	if n < 0 {
		s.mu.Unlock()
		return nil, place{}, &cursorError{why: "its list is no longer kept, since its time is over, room was needed, or the member was started anew"}
	}
	v := s.byAge[n]
	s.mu.Unlock()
	switch {
	case v.query != query:
		return nil, place{}, badCursor("belongs to a list with other filters: repeat those of its first page, or leave it out to begin anew")
	case c.Run < 0 || c.Run >= len(v.found) || c.Offset < 0 || c.Offset >= max(1, len(v.found[c.Run].instances)):
		return nil, place{}, badCursor("points to no place of its list: take it as the page before gave it")
	}
	return v, place{run: c.Run, offset: c.Offset}, nil
}

func badCursor(reason string) error {
	return &ValidationError{Problems: []Problem{{Field: "cursor", Reason: reason}}}
}

// stats are for metrics.
func (s *views) stats() (kept, bytes int, dropped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes = s.bytes
	if len(s.byAge) > 0 {
		bytes += s.held(s.byAge[0])
	}
	return len(s.byAge), bytes, s.dropped
}
