package xds

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// How far a change has come is not kept anywhere: it would have to be noted for
// each proxy and service, whether or not anybody wants to know. Who asks finds
// the interested streams through the index of the cache, and leaves a question
// with each. A stream looks at its questions after each of its turns, and at
// nothing when it has none.

// The bounds of questions.
const (
	inquiriesMax = 64          // at once on a member; the next is refused with ErrBusy
	pendingMax   = 100         // proxies that are named in an answer; the others are counted
	hearMax      = time.Second // for a stream to say where it is: one that is stuck in sending cannot
)

// ErrBusy says that too many ask at once.
var ErrBusy = errors.New("xds: too many are asking what proxies have")

// A Propagation is how far a service, as it was at a revision, has come among
// the proxies of this member.
type Propagation struct {
	Revision     registry.Revision // up to which this member has told its proxies
	Interested   int               // streams that have the service's clusters or endpoints, or are told of them
	Acknowledged int               // of these, those that have accepted that revision of it, or a later one
	Pending      []PendingProxy    // the others, by node; pendingMax at most
	Refused      []Refusal         // of it, by how many refuse it; refusedMax at most
}

// Complete says that all have it.
func (p *Propagation) Complete() bool { return p.Interested == p.Acknowledged }

// A PendingProxy has not accepted a service's revision yet.
type PendingProxy struct {
	Node, Peer     string
	Type, Resource string // the first that it lacks
	State          PendingState
	Since          time.Time
	Reason         string // in the proxy's words, where it has refused it
}

// A PendingState is why a proxy lacks something.
type PendingState string

// States of a PendingProxy.
const (
	PendingBehind   PendingState = "behind"   // this member has not seen the revision itself
	PendingWaiting  PendingState = "waiting"  // it is to be sent
	PendingSent     PendingState = "sent"     // it was sent and has not been answered
	PendingSilent   PendingState = "silent"   // and not in the time that proxies are given
	PendingStuck    PendingState = "stuck"    // the proxy does not take what it is sent
	PendingRejected PendingState = "rejected" // the proxy has refused it
)

// Propagation says how far a service has come, at once when all have it, and
// otherwise when they do or the wait is over. A proxy that comes meanwhile counts.
func (s *Server) Propagation(ctx context.Context, k registry.ServiceKey, revision registry.Revision, wait time.Duration) (Propagation, error) {
	if err := s.inquire(); err != nil {
		return Propagation{}, err
	}
	defer s.metrics.inquiries.Add(-1)
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	behind := s.cache.await(waiting, revision) != nil && s.cache.revision() < revision
	for {
		q := s.ask(k, revision, behind)
		q.hear(ctx)
		p := q.propagation(s.now())
		if p.Complete() || behind || waiting.Err() != nil {
			q.withdraw()
			p.Revision = s.cache.revision()
			return p, ctx.Err()
		}
		q.await(waiting) // then another look: others may have come
		q.withdraw()
	}
}

// inquire admits one more who asks.
func (s *Server) inquire() error {
	if s.metrics.inquiries.Add(1) > inquiriesMax {
		s.metrics.inquiries.Add(-1)
		s.metrics.inquiriesRefused.Add(1)
		return ErrBusy
	}
	return nil
}

// An inquiry is one question to many streams.
type inquiry struct {
	revision  registry.Revision
	behind    bool
	asked     time.Time
	key       registry.ServiceKey
	questions []*question

	unheard atomic.Int64  // streams that have not said anything
	open    atomic.Int64  // streams that have not said that they have it
	wakeup  chan struct{} // holds one
}

// A question is an inquiry as one stream sees it.
type question struct {
	inquiry *inquiry
	stream  *stream
	about   []resourceName
	verdict atomic.Pointer[verdict] // nil = it has not said anything
}

type resourceName struct {
	typ  resourceType
	name string
}

// A verdict is where a stream is.
type verdict struct {
	settled bool // it has it, or it is no more
	gone    bool
	lacks   PendingProxy
	refuses []refusing
}

// ask leaves the question with all streams that are interested in a service.
func (s *Server) ask(k registry.ServiceKey, revision registry.Revision, behind bool) *inquiry {
	q := &inquiry{key: k, revision: revision, behind: behind, asked: s.now(), wakeup: make(chan struct{}, 1)}
	for str, about := range s.cache.interested(k) {
		slices.SortFunc(about, func(a, b resourceName) int { return cmp.Or(cmp.Compare(a.typ, b.typ), cmp.Compare(a.name, b.name)) })
		q.questions = append(q.questions, &question{inquiry: q, stream: str, about: slices.Compact(about)})
	}
	q.unheard.Store(int64(len(q.questions)))
	q.open.Store(int64(len(q.questions)))
	if behind {
		return q // whatever they have, it is not that
	}
	for _, one := range q.questions {
		one.stream.put(one)
	}
	return q
}

// interested are the streams that subscribe to the clusters and endpoints of a
// service, each with what of it they subscribe to.
func (c *cache) interested(k registry.ServiceKey) map[*stream][]resourceName {
	found := make(map[*stream][]resourceName)
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.directory.services[k]
	if l == nil {
		return found
	}
	note := func(b *subscription, name string) {
		found[b.stream] = append(found[b.stream], resourceName{b.typ, name})
	}
	for _, claim := range l.claims {
		if !c.directory.owns(claim) {
			continue
		}
		for _, r := range c.byCluster[claim.cluster] {
			for one := range r.subscribers {
				one.each(func(b *subscription) { note(b, r.key.name) })
			}
		}
	}
	return found
}

// hear waits until each stream has said something, but not for long.
func (q *inquiry) hear(ctx context.Context) {
	if q.behind {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hearMax)
	defer cancel()
	q.until(ctx, &q.unheard)
}

// await waits until each stream has it.
func (q *inquiry) await(ctx context.Context) { q.until(ctx, &q.open) }

func (q *inquiry) until(ctx context.Context, none *atomic.Int64) {
	for none.Load() > 0 {
		select {
		case <-q.wakeup:
		case <-ctx.Done():
			return
		}
	}
}

// withdraw takes back what has not been settled.
func (q *inquiry) withdraw() {
	for _, one := range q.questions {
		one.stream.drop(one)
	}
}

// propagation counts what the streams have said.
func (q *inquiry) propagation(now time.Time) Propagation {
	var p Propagation
	groups := make(refusedBy)
	for _, one := range q.questions {
		v := one.verdict.Load()
		switch {
		case v == nil && q.behind:
			v = &verdict{lacks: one.lacking(0, PendingBehind, q.asked)}
		case v == nil:
			v = &verdict{lacks: one.lacking(0, PendingStuck, q.asked)}
		case v.gone:
			continue
		}
		p.Interested++
		groups.add(one.stream.status.Load(), v.refuses)
		if v.settled {
			p.Acknowledged++
			continue
		}
		p.Pending = append(p.Pending, v.lacks)
	}
	slices.SortFunc(p.Pending, func(a, b PendingProxy) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Peer, b.Peer))
	})
	p.Pending = p.Pending[:min(len(p.Pending), pendingMax)]
	p.Refused = groups.list()
	return p
}

func (q *question) lacking(n int, state PendingState, since time.Time) PendingProxy {
	p := PendingProxy{Peer: q.stream.peer, Type: q.about[n].typ.String(), Resource: q.about[n].name, State: state, Since: since}
	if s := q.stream.status.Load(); s != nil {
		p.Node = s.Node
	}
	return p
}

// settle notes what a stream says. Only the stream does it, or who finds it gone.
func (q *question) settle(v verdict) {
	if q.verdict.Swap(&v) == nil {
		q.inquiry.countDown(&q.inquiry.unheard)
	}
	if v.settled {
		q.inquiry.countDown(&q.inquiry.open)
	}
}

func (q *inquiry) countDown(n *atomic.Int64) {
	if n.Add(-1) > 0 {
		return
	}
	select {
	case q.wakeup <- struct{}{}:
	default: // a token is there already
	}
}

// put leaves a question with the stream.
func (s *stream) put(q *question) {
	s.mu.Lock()
	gone := s.gone
	if !gone {
		s.questions = append(s.questions, q)
	}
	s.mu.Unlock()
	if gone {
		q.settle(verdict{settled: true, gone: true})
		return
	}
	s.wakeUp()
}

// drop takes a question back.
func (s *stream) drop(q *question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.questions = slices.DeleteFunc(s.questions, func(o *question) bool { return o == q })
}

// answer looks at the questions that others have left, and shows those who look what there is.
func (s *stream) answer() {
	s.mu.Lock()
	open, looks := slices.Clone(s.questions), s.looks
	s.looks = nil
	s.mu.Unlock()
	for _, l := range looks {
		l.shown <- s.show(l)
	}
	for _, q := range open {
		v := s.verdict(q)
		if v.settled {
			s.drop(q)
		}
		q.settle(v)
	}
}

// leave ends all questions: a stream that is no more has nothing to accept.
func (s *stream) leave() {
	s.mu.Lock()
	left, looks := s.questions, s.looks
	s.questions, s.looks, s.gone = nil, nil, true
	s.mu.Unlock()
	for _, l := range looks {
		l.shown <- sight{gone: true}
	}
	for _, q := range left {
		q.settle(verdict{settled: true, gone: true})
	}
}

// verdict is where the stream is with what it is asked about. What the client
// does not want any more it does not lack.
func (s *stream) verdict(q *question) verdict {
	refuses := s.refuses(q)
	for n, one := range q.about {
		b := s.subs[one.typ]
		if b == nil || b.resource(one.name) == nil || b.has(one.name, q.inquiry.revision) {
			continue
		}
		state, since, reason := b.lacks(one.name)
		v := verdict{lacks: q.lacking(n, state, since), refuses: refuses}
		v.lacks.Reason = reason
		return v
	}
	return verdict{settled: true, refuses: refuses}
}

// has says that the client has accepted a resource as it was at a revision, or
// later: content that is newer, or the very content that holds now, and nothing
// is under way. In doubt, which is when newer content is under way and the one
// before was older than the revision, it says no.
func (b *subscription) has(name string, revision registry.Revision) bool {
	e, k := b.wanted(name), b.known[name]
	if k == nil {
		return e.absent() && !b.pending.mentions(name)
	}
	if !k.good.absent() && k.good.revision >= revision {
		return true
	}
	return k.sent == k.good && k.good.hashOf() == e.hashOf()
}

// lacks is why the client does not have a resource, and since when.
func (b *subscription) lacks(name string) (state PendingState, since time.Time, reason string) {
	if r, ok := b.refusals.has(b.wanted(name)); ok {
		return PendingRejected, r.at, r.reason
	}
	if p := b.pending; p.mentions(name) {
		if p.silent {
			return PendingSilent, p.sentAt, ""
		}
		return PendingSent, p.sentAt, ""
	}
	if b.changed.IsZero() { // it is what the client has asked for
		return PendingWaiting, b.stream.connected, ""
	}
	return PendingWaiting, b.changed, ""
}

// mentions says that a response is about a name.
func (r *response) mentions(name string) bool {
	return r != nil && (slices.ContainsFunc(r.entries, func(e *entry) bool { return e.name == name }) || slices.Contains(r.removed, name))
}
