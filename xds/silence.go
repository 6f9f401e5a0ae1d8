package xds

import (
	"fmt"
	"time"
)

// What a client's silence means. Envoy answers clusters when the new ones have
// warmed, and was seen to say nothing for minutes about fifty of which one was
// bad: the others worked, the NACK came when that one was taken away, and every
// later answer queued behind it. So silence opens what waits for the answer, once;
// and one new cluster that a client is silent about, while it answers what it
// was sent later, is taken back like one that was refused.
//
// Several new clusters are left as they are: all but one of them work, and to
// find that one by halves would take the others away from traffic that they
// carry. A client that answers nothing at all may just stand still, and is left
// alone too. One that was only slow says yes in the end: then it is sent the
// cluster again, and is given the time that it takes.

// listen notes that a client has not answered in time.
func (b *subscription) listen(now time.Time) {
	p, hold := b.pending, b.stream.server.limits.hold
	if p == nil || p.silent || now.Sub(p.sentAt) < hold {
		return
	}
	p.silent, b.mute, b.heard = true, true, p.sequence
	b.stream.server.metrics.silent[b.typ].Add(1)
	b.stream.tell(p, pushSilent, fmt.Sprintf("no answer in %v", hold))
	if b.typ != typeCluster || len(p.fresh) != 1 || b.stream.answered < p.sequence || b.refusals.lifted(p.fresh[0]) {
		return
	}
	if e := p.fresh[0]; b.goBack(e) {
		p.withdrew = true
		b.refuse(e, fmt.Sprintf("no answer in %v, while later responses were answered", hold), now)
		b.want(e.name, true)
	}
}

// bringBack sends again what was taken back from a client that was only slow.
func (b *subscription) bringBack(e *entry) {
	b.refusals.lift(content{e.name, e.hash})
	if k := b.known[e.name]; k != nil {
		k.good = e
	}
	if b.resource(e.name) != nil {
		b.want(e.name, false)
	}
}

// takeLate finds the silent response that a nonce answers.
func (b *subscription) takeLate(nonce string) *response {
	for n, r := range b.late {
		if r.nonce == nonce {
			b.late = append(b.late[:n:n], b.late[n+1:]...)
			return r
		}
	}
	return nil
}
