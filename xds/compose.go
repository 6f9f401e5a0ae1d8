package xds

import (
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// compose makes the next response of a type; nil if there is nothing to say.
func (b *subscription) compose(now time.Time) *response {
	for {
		group := b.nextTrial()
		r := b.composeFrom(group, now)
		if r != nil || group == nil {
			return r
		}
	}
}

// nextTrial is the group of names whose new content the next response may
// carry; nil = any.
func (b *subscription) nextTrial() map[string]struct{} {
	if len(b.trial) == 0 {
		return nil
	}
	group := make(map[string]struct{}, len(b.trial[0]))
	for _, name := range b.trial[0] {
		group[name] = struct{}{}
	}
	b.trial = b.trial[1:]
	return group
}

func (b *subscription) composeFrom(group map[string]struct{}, now time.Time) *response {
	r := &response{typ: b.typ, revision: b.stream.server.cache.revision(), sentAt: now}
	for _, name := range sortedNames(b.todo) {
		e := b.wanted(name)
		_, force := b.forced[name]
		if force {
			r.forced = append(r.forced, name)
		}
		switch {
		case b.stream.delta && r.size > b.stream.server.limits.responseBytes:
		case e.absent():
			b.composeGone(r, name, force, now)
		case b.refused(e) && force:
			b.composeRefused(r, e)
		case b.refused(e) || e.hash == b.sentHash(name) && !force:
			b.settled(name)
		case group != nil && !has(group, name):
		case b.paged() && len(r.entries) > 0 && r.size+e.size() > b.stream.server.limits.responseBytes:
		default:
			b.settled(name)
			r.add(e)
			if e.hash != b.good(name).hashOf() {
				r.fresh = append(r.fresh, e)
			}
		}
	}
	r.told = r.entries
	if !b.stream.delta {
		return b.complete(r)
	}
	if r.empty() && !b.answer {
		return nil
	}
	return r
}

func (r *response) empty() bool { return len(r.entries)+len(r.removed)+len(r.errors) == 0 }

func (r *response) add(e *entry) {
	r.entries = append(r.entries, e)
	r.size += e.size()
}

// remove says that there is nothing under a name.
func (r *response) remove(name string) {
	r.removed = append(r.removed, name)
	r.size += len(name)
}

// explain says why, to clients that read it.
func (r *response) explain(name string, code codes.Code, reason string) {
	r.errors = append(r.errors, resourceError{name: name, code: code, reason: reason})
	r.size += len(name) + len(reason)
}

func (r *response) resourceErrors() (out []*discoveryv3.ResourceError) {
	for _, e := range r.errors {
		out = append(out, &discoveryv3.ResourceError{
			ResourceName: &discoveryv3.ResourceName{Name: e.name},
			ErrorDetail:  status.New(e.code, e.reason).Proto(),
		})
	}
	return out
}

// paged says whether a response may leave something for the next.
func (b *subscription) paged() bool { return b.stream.delta || !b.typ.whole() }

func has(set map[string]struct{}, name string) bool {
	_, ok := set[name]
	return ok
}

// composeGone says that a name is gone, or that there is no such thing, unless
// that has to wait for the routes.
func (b *subscription) composeGone(r *response, name string, force bool, now time.Time) {
	_, had := b.known[name]
	if had && b.typ == typeCluster && b.waitsForRoutes(name, now) {
		return
	}
	b.settled(name)
	if had || force {
		r.remove(name)
	}
	if b.names[name] != nil && (force || had && !b.stream.delta && !b.typ.whole()) {
		if !b.stream.allows(b.names[name].key) {
			r.explain(name, codes.PermissionDenied, b.stream.denied())
			return
		}
		r.explain(name, codes.NotFound, "nothing of that name is registered and can be shown to proxies")
	}
}

// composeRefused answers a client that asks again for what it has refused: with
// what it has accepted last, or else with nothing, and the reason.
func (b *subscription) composeRefused(r *response, e *entry) {
	b.settled(e.name)
	why, _ := b.refusals.has(e)
	if !why.good.absent() && why.good.resource != nil { // else it is the client's word
		r.add(why.good)
		return
	}
	r.remove(e.name)
	if b.names[e.name] != nil {
		r.explain(e.name, codes.FailedPrecondition, "this client has refused it: "+why.reason)
	}
}

// A departure is a cluster that is gone and waits for what leads to it.
type departure struct {
	since time.Time
	after uint64 // of the stream's responses: later routes and listeners do not lead there
	local bool   // a listener leads there, too
}

// waitsForRoutes keeps a cluster until the client has answered routes that do not
// name it, since a route without its cluster answers 503; and where a listener leads
// to it, until it has answered that that is gone. It may have gone in a
// round of changes that is not over, and whose routes are yet to come.
func (b *subscription) waitsForRoutes(name string, now time.Time) bool {
	s := b.stream
	routes, listeners := s.subs[typeRoutes], s.subs[typeListener]
	d, known := b.leaving[name]
	if !known {
		d = departure{since: now, after: s.sequence, local: listeners.may(localName(name)) || listeners.may(gatewayName)}
	}
	if routes == nil && !d.local {
		return false
	}
	b.leaving[name] = d
	if s.unsettled() {
		s.server.cache.awaitRound(s)
		return now.Sub(d.since) < s.server.limits.hold
	}
	replaced := routes.leftSince(d.after) && (!d.local || listeners.leftSince(d.after))
	return !replaced && now.Sub(d.since) < s.server.limits.hold
}

// leftSince says that the client has answered all that led to what went after a response.
func (b *subscription) leftSince(after uint64) bool {
	return b.idle() || b.heard > after && !b.due() // what can go now would wait for an answer about clusters
}

// may says that the client may have something of a name.
func (b *subscription) may(name string) bool {
	return b != nil && (b.known[name] != nil || b.pending.mentions(name))
}

// complete makes a response state of the world; nil if there is nothing to
// say. Of clusters and listeners it lists everything, each with the content that
// the client may be sent, and what is gone is left out. That endpoints or routes
// are gone can be said as errors only.
func (b *subscription) complete(r *response) *response {
	if !b.typ.whole() {
		for _, name := range r.removed {
			delete(b.known, name)
		}
		r.removed = nil
	}
	if r.empty() && !b.answer {
		return nil
	}
	if b.typ.whole() {
		b.list(r)
	}
	r.version = wholeVersion(b.stream.server.cache.incarnation(), r.revision, setHash(r.entries))
	return r
}

// list fills a response with all that there is. It is not split, however large:
// what was missing would be gone. What a silent client has been told before and
// has not accepted is new to it again.
func (b *subscription) list(r *response) {
	changed := make(map[string]*entry, len(r.entries))
	for _, e := range r.entries {
		changed[e.name] = e
	}
	r.entries, r.fresh, r.size = nil, nil, 0
	for _, name := range b.listed(r.removed) {
		e := changed[name]
		if k := b.known[name]; e == nil && k != nil {
			if e = k.sent; e == nil {
				e = k.good
			}
		}
		if e.absent() {
			continue
		}
		r.add(e)
		if e.hash != b.good(name).hashOf() {
			r.fresh = append(r.fresh, e)
		}
	}
}

// listed are the names that the client wants or still has, in order.
func (b *subscription) listed(removed []string) []string {
	gone := make(map[string]struct{}, len(removed))
	for _, name := range removed {
		gone[name] = struct{}{}
	}
	names := b.all()
	for name := range b.known {
		names = append(names, name)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return has(gone, name) })
	slices.Sort(names)
	return slices.Compact(names)
}

// setHash is the same for equal sets, in whatever order.
func setHash(entries []*entry) uint64 {
	set := uint64(0)
	for _, e := range entries {
		set ^= e.hash
	}
	return set
}

func sortedNames(set map[string]struct{}) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// nonceOf is unique on a stream.
func nonceOf(revision registry.Revision, sequence uint64) string {
	return "r" + formatRevision(revision) + "." + strconv.FormatUint(sequence, 10)
}
