package xds

import (
	"cmp"
	"slices"
	"time"
)

// What proxies refuse of a service is told with how far it has come: who asks the
// one asks the other, and whoever brought it about finds it at the service.

// The bounds of what is told of refusals.
const (
	refusedMax   = 20 // things that are refused, or reasons; others are not named
	refuserNodes = 5  // nodes that are named for each
)

// A Refusal is one thing that some proxies refuse for one reason.
type Refusal struct {
	Type, Resource, Reason string
	Proxies                int
	Nodes                  []string  // the first of them, by name
	Since                  time.Time // the first of them does
	Cause                  *Cause    // the edit of the service's policy that it came by; nil = it came otherwise
}

// refusing is what one stream refuses of a service.
type refusing struct {
	typ   resourceType
	name  string
	why   rejection
	cause *Cause
}

// refuses is what the client refuses of a service: of its clusters and endpoints
// whatever it is, of routes what came by the service's policy, since they are those
// of all others, too.
func (s *stream) refuses(q *question) []refusing {
	var out []refusing
	for _, one := range q.about {
		if b := s.subs[one.typ]; b != nil {
			if r, ok := b.refusal(one.name, q); ok {
				out = append(out, r)
			}
		}
	}
	routes := s.subs[typeRoutes]
	if routes == nil {
		return out
	}
	for c := range routes.refusals.of {
		if r, ok := routes.refusal(c.name, q); ok && r.cause != nil && routes.wanted(c.name).hash == c.hash {
			out = append(out, r)
		}
	}
	return out
}

// refusal is how the client refuses what holds under a name now.
func (b *subscription) refusal(name string, q *question) (refusing, bool) {
	e := b.wanted(name)
	why, refused := b.refusals.has(e)
	if !refused {
		return refusing{}, false
	}
	out := refusing{typ: b.typ, name: name, why: why}
	if cause, ok := b.stream.server.cache.causeOf(q.inquiry.key, b.good(name), e); ok {
		out.cause = &cause
	}
	return out, true
}

// refusedBy are refusals by what is refused and why.
type refusedBy map[refusalKey]*Refusal

type refusalKey struct {
	typ          resourceType
	name, reason string
	version      uint64 // of the policy
}

func (g refusedBy) add(p *ProxyStatus, of []refusing) {
	for _, r := range of {
		k := refusalKey{typ: r.typ, name: r.name, reason: r.why.reason}
		if r.cause != nil {
			k.version = r.cause.Version
		}
		one := g[k]
		if one == nil {
			one = &Refusal{Type: r.typ.String(), Resource: r.name, Reason: r.why.reason, Since: r.why.at, Cause: r.cause}
			g[k] = one
		}
		one.Proxies++
		if r.why.at.Before(one.Since) {
			one.Since = r.why.at
		}
		if p != nil {
			one.Nodes = append(one.Nodes, p.Node)
		}
	}
}

// list has what most refuse first.
func (g refusedBy) list() []Refusal {
	var out []Refusal
	for _, one := range g {
		slices.Sort(one.Nodes)
		one.Nodes = slices.Clip(one.Nodes[:min(len(one.Nodes), refuserNodes)])
		out = append(out, *one)
	}
	slices.SortFunc(out, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Proxies, a.Proxies), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Reason, b.Reason))
	})
	return out[:min(len(out), refusedMax)]
}
