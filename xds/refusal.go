package xds

import "time"

// refusalsMax bounds what is remembered of what one client has refused of one
// type. Above it the oldest is forgotten and counted: it may be sent once more.
const refusalsMax = 256

// refusals are what a client has refused on this stream. They outlive
// subscriptions, services and other content of the same name, so that nothing
// that was refused is sent a second time.
type refusals struct {
	of    map[content]rejection
	order []content // the oldest first
}

// A content is what a resource was at some time.
type content struct {
	name string
	hash uint64
}

// A rejection is why a content was refused, and when.
type rejection struct {
	reason string
	at     time.Time
	good   *entry // what the client had instead; nil = nothing
	lifted bool   // the client was only slow to say yes: it may have it, and is given the time
}

func newRefusals() refusals { return refusals{of: make(map[content]rejection)} }

// add remembers a refusal; true says that an older one had to be forgotten.
func (r *refusals) add(c content, why rejection) (forgotten bool) {
	if _, known := r.of[c]; !known {
		if len(r.order) == refusalsMax {
			delete(r.of, r.order[0])
			r.order, forgotten = append(r.order[:0], r.order[1:]...), true
		}
		r.order = append(r.order, c)
	}
	r.of[c] = why
	return forgotten
}

// lift takes a refusal back that was not the client's word.
func (r *refusals) lift(c content) {
	if why, ok := r.of[c]; ok {
		why.lifted = true
		r.of[c] = why
	}
}

// has says whether the client has refused this very content, and why.
func (r *refusals) has(e *entry) (rejection, bool) {
	if e.absent() {
		return rejection{}, false
	}
	why, ok := r.of[content{e.name, e.hash}]
	return why, ok && !why.lifted
}

// lifted says that this content was refused by silence only, and accepted then.
func (r *refusals) lifted(e *entry) bool { return r.of[content{e.name, e.hash}].lifted }
