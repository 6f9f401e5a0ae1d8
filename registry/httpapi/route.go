package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A surface is a part of the API whose answers have one form.
type surface uint8

const (
	surfacePage surface = iota // health and metrics: no slot, since they must answer under any load
	surfaceV1
	surfaceV2
	surfaceAdmin
)

// A route is one call of the API.
type route struct {
	method  string // GET stands for HEAD too
	pattern string // with {name} for a segment that can be anything
	surface surface
	reads   bool // it changes nothing, so its outcome is never unknown
	long    bool // it may take any time as long as it goes on; it bounds each step itself
	watches bool // it may stay for as long as its client does; it has a slot of a kind of its own
	open    bool // of the admin port: it asks for no token
	admin   bool // it is called by the admin port; newRouter says so

	administers bool // where authentication is off it asks for the admin token, also beside the admin port

	routine bool // those who live call it over and over, and it changes what is registered not at all: the audit log would be of nothing else
	serve   handler
	need    need // what the caller must be allowed; newRouter looks it up

	operation operation // what the description of the API says of it; of pages and the admin port it says nothing
}

// port is what logs and metrics call the port that a route was called by.
func (r *route) port() string {
	if r.admin {
		return "admin"
	}
	return "http"
}

// asksAdmin says whether the route asks for the admin token where authentication is off.
func (r *route) asksAdmin() bool { return r.surface == surfaceAdmin && !r.open || r.administers }

// A handler answers a request, or returns why not before it has written anything.
type handler func(http.ResponseWriter, *http.Request) error

// A router finds the route of a request.
//
// It is not http.ServeMux, because that one answers `//` and `..` in a path with
// a redirect to another path: an empty name would lead to another object in place
// of an error, and the Java SDK does not follow redirects. Here a path is what
// it is, and each segment is decoded by itself, so that an encoded slash stays
// within its name.
type router struct {
	api      *API
	fallback surface // in whose form an unknown path is refused
	paths    []path
}

// A path is a pattern with its methods.
type path struct {
	pattern  string
	segments []string
	routes   []route
}

// segmentsMax is more than any pattern has.
const segmentsMax = 12

func newRouter(a *API, fallback surface, routes []route) *router {
	r := &router{api: a, fallback: fallback}
	for _, one := range routes {
		one.need, one.admin = needOf(one), r.admin()
		at := slices.IndexFunc(r.paths, func(p path) bool { return p.pattern == one.pattern })
		if at < 0 {
			at = len(r.paths)
			r.paths = append(r.paths, path{pattern: one.pattern, segments: strings.Split(one.pattern[1:], "/")})
		}
		r.paths[at].routes = append(r.paths[at].routes, one)
	}
	return r
}

func (r *router) admin() bool { return r.fallback == surfaceAdmin }

// routes are all that it has, sorted.
func (r *router) routes() []string {
	var all []string
	for _, p := range r.paths {
		for _, one := range p.routes {
			all = append(all, one.method+" "+one.pattern)
		}
	}
	slices.Sort(all)
	return all
}

func (r *router) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	one := r.route(q)
	r.api.serve(w, q, &one)
}

// route is what serves the request, be it a refusal.
func (r *router) route(q *http.Request) route {
	var buffer [segmentsMax]string
	segments, ok := segmentsOf(q.URL, buffer[:0])
	if !ok {
		return r.unknown(q)
	}
	for i := range r.paths {
		if r.paths[i].matches(segments) {
			r.paths[i].setValues(q, segments)
			return r.paths[i].route(q.Method)
		}
	}
	return r.unknown(q)
}

// segmentsOf takes a path apart and decodes the parts; false when there are more than any pattern has.
func segmentsOf(u *url.URL, into []string) ([]string, bool) {
	rest, encoded := u.Path, false
	if u.RawPath != "" {
		rest, encoded = u.EscapedPath(), true
	}
	rest, more := strings.CutPrefix(rest, "/")
	for more {
		if len(into) == cap(into) {
			return nil, false
		}
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if encoded {
			var err error
			if segment, err = url.PathUnescape(segment); err != nil {
				return nil, false
			}
		}
		into = append(into, segment)
	}
	return into, true
}

func (p *path) matches(segments []string) bool {
	if len(segments) != len(p.segments) {
		return false
	}
	for i, s := range p.segments {
		if s != segments[i] && !isWildcard(s) {
			return false
		}
	}
	return true
}

func isWildcard(segment string) bool { return strings.HasPrefix(segment, "{") }

func (p *path) setValues(q *http.Request, segments []string) {
	for i, s := range p.segments {
		if isWildcard(s) {
			q.SetPathValue(s[1:len(s)-1], segments[i])
		}
	}
}

// route is the one of a method, or the one that says which methods there are.
func (p *path) route(method string) route {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, one := range p.routes {
		if one.method == method {
			return one
		}
	}
	return route{pattern: p.pattern, surface: p.routes[0].surface, admin: p.routes[0].admin, need: need{whom: whoIs}, serve: p.refuseMethod}
}

func (p *path) refuseMethod(w http.ResponseWriter, q *http.Request) error {
	var allowed []string
	for _, one := range p.routes {
		allowed = append(allowed, one.method)
		if one.method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return &methodError{method: q.Method, allowed: allowed}
}

// patternOther is the pattern of all paths that nobody serves.
const patternOther = "other"

func (r *router) unknown(q *http.Request) route {
	form := r.fallback
	if strings.HasPrefix(q.URL.Path, "/api/v2/") {
		form = surfaceV2
	}
	return route{pattern: patternOther, surface: form, admin: r.admin(), need: need{whom: whoIs}, serve: func(http.ResponseWriter, *http.Request) error { return errNoSuchPath }}
}
