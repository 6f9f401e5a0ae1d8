package xds

import (
	"slices"
	"strconv"
	"time"
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
	size, held := 0, false
	for _, name := range sortedNames(b.todo) {
		e := b.wanted(name)
		_, force := b.forced[name]
		switch {
		case b.stream.delta && size > b.stream.server.limits.responseBytes:
		case e.absent():
			size += len(name)
			held = b.composeGone(r, name, force, now) || held
		case b.refused(e) || e.hash == b.sentHash(name) && !force:
			b.settled(name)
		case group != nil && !has(group, name):
		case b.paged() && len(r.entries) > 0 && size+e.size() > b.stream.server.limits.responseBytes:
		default:
			size += e.size()
			b.settled(name)
			r.entries = append(r.entries, e)
			if e.hash != b.good(name).hashOf() {
				r.fresh = append(r.fresh, e)
			}
		}
	}
	if !held {
		b.leaving = time.Time{}
	}
	if !b.stream.delta {
		return b.complete(r)
	}
	if len(r.entries) == 0 && len(r.removed) == 0 && !b.answer {
		return nil
	}
	return r
}

// paged says whether a response may leave something for the next.
func (b *subscription) paged() bool { return b.stream.delta || !b.typ.whole() }

func has(set map[string]struct{}, name string) bool {
	_, ok := set[name]
	return ok
}

// composeGone says that a name is gone, or that there is no such thing; true if
// that has to wait for the routes.
func (b *subscription) composeGone(r *response, name string, force bool, now time.Time) bool {
	_, had := b.known[name]
	if had && b.typ == typeCluster && b.removalsWait(now) {
		return true
	}
	b.settled(name)
	if had || force {
		r.removed = append(r.removed, name)
	}
	return false
}

// removalsWait keeps clusters until the client has accepted routes that do not
// name them, since a route without its cluster answers 503.
func (b *subscription) removalsWait(now time.Time) bool {
	if b.stream.subs[typeRoutes].idle() {
		return false
	}
	if b.leaving.IsZero() {
		b.leaving = now
	}
	return now.Sub(b.leaving) < b.stream.server.limits.hold
}

// complete makes a response state of the world; nil if there is nothing to
// say. Of clusters and listeners it lists everything, each with the content that
// the client may be sent, and what is gone is left out. That endpoints or routes
// are gone cannot be said.
func (b *subscription) complete(r *response) *response {
	if !b.typ.whole() {
		for _, name := range r.removed {
			delete(b.known, name)
		}
		r.removed = nil
	}
	if len(r.entries) == 0 && len(r.removed) == 0 && !b.answer {
		return nil
	}
	if b.typ.whole() {
		r.entries = b.whole(r)
	}
	r.version = wholeVersion(b.stream.server.cache.incarnation(), r.revision, setHash(r.entries))
	return r
}

func (b *subscription) whole(r *response) []*entry {
	changed := make(map[string]*entry, len(r.entries))
	for _, e := range r.entries {
		changed[e.name] = e
	}
	var all []*entry
	for _, name := range b.listed(r.removed) {
		e := changed[name]
		if k := b.known[name]; e == nil && k != nil {
			e = k.sent
		}
		if !e.absent() {
			all = append(all, e)
		}
	}
	return all
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

// nextNonce is unique on a stream.
func (s *stream) nextNonce(r *response) string {
	s.sequence++
	return "r" + strconv.FormatUint(uint64(r.revision), 10) + "." + strconv.FormatUint(s.sequence, 10)
}
