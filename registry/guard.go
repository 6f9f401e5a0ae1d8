package registry

import (
	"cmp"
	"container/heap"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/stellmap/stellmap/internal/threads"
)

// What self-preservation begins at, unless something else is configured.
const (
	preservationLeast   = 5
	preservationPercent = 15
	preservationLimit   = 10 * time.Minute
)

// The bounds of what the leader remembers for it.
const (
	lapsesMax      = 65_536       // of those that count; the one that would count for the shortest time goes first
	lapseWindowMax = expiredGrace // who expired before it cannot be brought back
)

// Preservation says when leases that run out are held back.
type Preservation struct {
	Off     bool
	Least   int           // leases that must have run out; 0 = preservationLeast
	Percent int           // of the scope's leases, more than that; 0 = preservationPercent
	Limit   time.Duration // how long a protection lasts at most; 0 = preservationLimit
}

func (p Preservation) filled() Preservation {
	p.Least, p.Percent, p.Limit = cmp.Or(p.Least, preservationLeast), cmp.Or(p.Percent, preservationPercent), cmp.Or(p.Limit, preservationLimit)
	return p
}

// of is when leases of a service are held back: as its policy says, and else as is set.
func (p Preservation) of(policy *Policy) Preservation {
	if policy == nil || policy.SelfPreservation == nil {
		return p
	}
	s := policy.SelfPreservation
	if s.Enabled != nil {
		p.Off = !*s.Enabled
	}
	p.Least, p.Percent, p.Limit = orCount(s.Least, p.Least), orCount(s.Percent, p.Percent), orSeconds(s.LimitSeconds, p.Limit)
	return p
}

// rulesOf are those of a scope. The cluster's are nobody's to change by a policy.
func (g *guard) rulesOf(s *state, scope Scope) Preservation {
	if scope.Kind == ScopeCluster {
		return g.rules
	}
	return g.rules.of(s.policies[scope.Service].Content())
}

// A guard decides, on the leader, which of the leases that have run out are let
// go and which are kept. It counts those that ran out within the last TTL, in each
// scope. One that is kept in a narrow scope says nothing about the wider ones: a
// zone in trouble must not hold back what expires in the next.
//
// It is used by the goroutine of the expiry loop.
type guard struct {
	machine *Machine
	rules   Preservation
	term    uint64

	queue  lapseQueue
	lapses map[InstanceKey]*leaseLapse // those in the queue
	counts map[Scope]int               // of them
	owed   []protectChange             // to be committed, in this order; no lease stands in it twice
	ending []Scope                     // whose end has been proposed
	seen   map[Scope]seenPause         // the protections, as this leader met them first
}

// A seenPause is when, in lease time, a leader met a protection. The entries' time
// stands still for as long as the clock of an earlier leader was ahead of its own,
// and the limit must not wait for that.
type seenPause struct {
	since int64
	at    time.Duration
}

// A leaseLapse is a lease that ran out and was not kept.
type leaseLapse struct {
	dueLease
	scopes []Scope
	until  time.Duration // in lease time; then it counts no more
	index  int
}

// A verdict is what is to be done about leases that have run out.
type verdict struct {
	begin []ExpiryPause
	keep  []dueLease // some of them have expired already
	held  []keptLease
	let   []dueLease
}

// A keptLease is one whose instance is a suspect, and for how long it may be yet.
type keptLease struct {
	dueLease
	rest time.Duration
}

// follow begins anew with each term.
func (g *guard) follow(term uint64) {
	if g.term != term {
		*g = guard{machine: g.machine, rules: g.rules, term: term, lapses: make(map[InstanceKey]*leaseLapse), counts: make(map[Scope]int), seen: make(map[Scope]seenPause)}
	}
}

// judge decides on leases, of which the last ran out at a lease time, at a Unix time in ms.
func (g *guard) judge(at time.Duration, now int64, due []dueLease) verdict {
	g.machine.mu.RLock()
	defer g.machine.mu.RUnlock()
	s := g.machine.published
	for len(g.queue) > 0 && g.queue[0].until <= at {
		g.forget(g.queue[0])
	}
	var v verdict
	var fresh []dueLease
	for _, d := range due {
		i := s.instance(d.key)
		if i == nil || i.Lease != d.generation || !preserved(i) {
			v.let = append(v.let, d)
			continue
		}
		switch p := s.covering(i); {
		case i.kept():
			if rest := i.mayBeKept(p, now); rest > 0 {
				v.held = append(v.held, keptLease{d, rest})
			} else {
				v.let = append(v.let, d)
			}
		case p != nil:
			v.keep = append(v.keep, d)
		default:
			g.count(i, at)
			fresh = append(fresh, d)
		}
	}
	g.begin(s, fresh, &v)
	return v
}

// preserved says that an instance may be kept: that the lease of one runs out which
// is being taken out of use is to be expected.
func preserved(i *Instance) bool { return i.Status != StatusDraining && i.Status != StatusDisabled }

// mayBeKept is for how long yet an instance that is kept may be so, under a
// protection or none. No chain of protections keeps it for longer than one.
func (i *Instance) mayBeKept(p *ExpiryPause, now int64) time.Duration {
	said, _ := i.Condition(SourceProtection, "")
	if p == nil {
		return 0
	}
	return min(p.Limit, p.Limit-time.Duration(now-said.Since)*time.Millisecond)
}

// begin finds the scopes in which too many leases have run out by now. Those of
// them are kept; the rest of what is new is let go.
func (g *guard) begin(s *state, fresh []dueLease, v *verdict) {
	taken := make(map[InstanceKey]struct{})
	for _, scope := range g.touched(fresh) {
		p, begins := g.exceeded(s, scope)
		if !begins {
			continue
		}
		v.begin = append(v.begin, p)
		for _, lapse := range g.within(scope) {
			g.forget(lapse)
			taken[lapse.key] = struct{}{}
			v.keep = append(v.keep, lapse.dueLease)
		}
	}
	for _, d := range fresh {
		if _, kept := taken[d.key]; !kept {
			v.let = append(v.let, d)
		}
	}
}

// touched are the scopes of leases, the narrowest first.
func (g *guard) touched(fresh []dueLease) []Scope {
	all := make(map[Scope]struct{})
	for _, d := range fresh {
		if lapse := g.lapses[d.key]; lapse != nil {
			for _, scope := range lapse.scopes {
				all[scope] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b Scope) int { return b.compare(a) })
}

// count notes that a lease has run out. One whose expiry is proposed again is counted already.
func (g *guard) count(i *Instance, at time.Duration) {
	if old := g.lapses[i.Key()]; old != nil && old.generation == i.Lease {
		return
	} else if old != nil {
		g.forget(old)
	}
	if len(g.queue) == lapsesMax {
		g.forget(g.queue[0])
		g.machine.metrics.lapsesForgotten.Inc()
	}
	lapse := &leaseLapse{dueLease: dueLease{key: i.Key(), generation: i.Lease}, scopes: scopesOf(i), until: at + min(i.LeaseTTL, lapseWindowMax)}
	g.lapses[lapse.key] = lapse
	heap.Push(&g.queue, lapse)
	for _, scope := range lapse.scopes {
		g.counts[scope]++
	}
}

func (g *guard) forget(lapse *leaseLapse) {
	heap.Remove(&g.queue, lapse.index)
	delete(g.lapses, lapse.key)
	for _, scope := range lapse.scopes {
		if g.counts[scope]--; g.counts[scope] == 0 {
			delete(g.counts, scope)
		}
	}
}

// within are the lapses that count in a scope, by key.
func (g *guard) within(scope Scope) []*leaseLapse {
	var out []*leaseLapse
	for _, lapse := range g.queue {
		if slices.Contains(lapse.scopes, scope) {
			out = append(out, lapse)
		}
	}
	slices.SortFunc(out, func(a, b *leaseLapse) int { return a.key.Compare(b.key) })
	return out
}

// exceeded says whether too many leases of a scope have run out. The first look
// costs little and is almost always enough.
func (g *guard) exceeded(s *state, scope Scope) (ExpiryPause, bool) {
	rules := g.rulesOf(s, scope)
	p := ExpiryPause{Scope: scope, Limit: rules.Limit, Least: rules.Least, Percent: rules.Percent}
	if rules.Off || g.counts[scope] < p.Least {
		return p, false
	}
	p.Leases, _ = s.leasesOf(scope)
	if !p.holds(g.counts[scope], p.Leases) {
		return p, false
	}
	p.Leases += g.recount(s, scope)
	p.Lapsed = g.counts[scope]
	return p, p.holds(p.Lapsed, p.Leases) && g.room(s, scope)
}

// recount forgets the lapses of a scope whose instances are back or gone, and
// counts those that have expired: they are leases of the scope, too.
func (g *guard) recount(s *state, scope Scope) (expired int) {
	for _, lapse := range g.within(scope) {
		switch i := s.instance(lapse.key); {
		case i == nil || i.Lease != lapse.generation || i.kept():
			g.forget(lapse)
		case !i.alive():
			expired++
		}
	}
	return expired
}

// room says whether a service may have one more protection.
func (g *guard) room(s *state, scope Scope) bool {
	return scope.Kind == ScopeCluster || len(s.services[scope.Service].record.protections) < protectionsMax
}

// A protectionEnd is a protection that is over, and why.
type protectionEnd struct {
	ExpiryPause
	suspects, leases int
	why              string
}

// over are the protections that end now, in Unix ms and in lease time.
func (g *guard) over(now int64, at time.Duration) []protectionEnd {
	g.machine.mu.RLock()
	defer g.machine.mu.RUnlock()
	var ended []protectionEnd
	all := g.machine.published.protections()
	g.meet(all, at)
	for _, p := range all {
		leases, suspects := g.machine.published.leasesOf(p.Scope)
		why := ""
		switch {
		case g.rulesOf(g.machine.published, p.Scope).Off:
			why = "self-preservation is off"
		case now >= p.Over(), at-g.seen[p.Scope].at >= p.Limit:
			why = "its limit is reached"
		case !p.holds(suspects, leases):
			why = "renewals are back"
		default:
			continue
		}
		ended = append(ended, protectionEnd{p, suspects, leases, why})
	}
	return ended
}

// meet notes the protections that are new to this leader, and forgets those that are over.
func (g *guard) meet(all []ExpiryPause, at time.Duration) {
	met := make(map[Scope]seenPause, len(all))
	for _, p := range all {
		first, known := g.seen[p.Scope]
		if !known || first.since != p.Since {
			first = seenPause{p.Since, at}
		}
		met[p.Scope] = first
	}
	g.seen = met
}

// released are the suspects that no protection covers any more, of scopes whose
// end was proposed and has come.
func (g *guard) released() (keys []InstanceKey) {
	g.machine.mu.RLock()
	defer g.machine.mu.RUnlock()
	s := g.machine.published
	g.ending = slices.DeleteFunc(g.ending, func(scope Scope) bool {
		if s.protection != nil && scope.Kind == ScopeCluster {
			return false
		}
		services := s.order
		if scope.Kind != ScopeCluster {
			services = services[:0:0]
			if svc := s.services[scope.Service]; svc != nil {
				services = append(services, svc)
			}
		}
		for _, svc := range services {
			keys = append(keys, svc.released(s)...)
		}
		return true
	})
	return keys
}

// released are the suspects of a service that no protection covers.
func (svc *serviceState) released(s *state) (keys []InstanceKey) {
	if svc.tally.kept == 0 {
		return nil
	}
	for _, i := range svc.own() {
		if i.kept() && s.covering(i) == nil {
			keys = append(keys, i.Key())
		}
	}
	return keys
}

// preserve has the leases kept that have to be, and gives those that may go; false
// says that a command did not pass, and that the next tick is soon enough.
func (r *Registry) preserve(ctx context.Context, term uint64, due []dueLease) (let []dueLease, ok bool) {
	g := r.guard
	g.follow(term)
	v := g.judge(r.machine.leases.newest(due), r.clock.Now().UnixMilli(), due)
	r.machine.leases.hold(term, v.held)
	for i := range v.begin {
		g.owed = append(g.owed, protectChange{begin: &v.begin[i]})
		r.tellBegun(&v.begin[i])
	}
	for _, d := range v.keep {
		g.owed = append(g.owed, protectChange{keep: d})
	}
	return v.let, r.protectOwed(ctx)
}

// protectOwed commits what the guard has decided. What does not pass is tried
// again, and a lease that is not kept then, since it has moved on, is looked at.
func (r *Registry) protectOwed(ctx context.Context) bool {
	g := r.guard
	for len(g.owed) > 0 {
		batch := g.owed[:min(len(g.owed), commandItemsMax)]
		if !r.proposeProtection(ctx, g.term, batch) {
			return false
		}
		r.machine.leases.hold(g.term, g.heldOf(batch))
		g.owed = g.owed[len(batch):]
	}
	g.owed = nil
	return true
}

// heldOf are the leases that were kept, each for as long as what covers it lasts.
func (g *guard) heldOf(batch []protectChange) []keptLease {
	g.machine.mu.RLock()
	defer g.machine.mu.RUnlock()
	s := g.machine.published
	var held []keptLease
	for _, c := range batch {
		if c.begin != nil || c.end != nil {
			continue
		}
		limit := g.rules.Limit
		if i := s.instance(c.keep.key); i != nil {
			if p := s.covering(i); p != nil {
				limit = p.Limit
			}
		}
		held = append(held, keptLease{c.keep, limit})
	}
	return held
}

// endProtections ends what is over, and lets go of those that were kept for it.
func (r *Registry) endProtections(ctx context.Context) bool {
	g, term := r.guard, r.machine.leases.leading()
	if term == 0 {
		return true
	}
	g.follow(term)
	if !r.protectOwed(ctx) {
		return false
	}
	now := r.clock.Now().UnixMilli()
	for _, e := range g.over(now, r.machine.leases.time()) {
		g.ending = append(g.ending, e.Scope)
		if !r.proposeProtection(ctx, term, []protectChange{{end: &e.Scope}}) {
			return false
		}
		r.log.Info("self-preservation has ended", "scope", e.Scope.String(), "why", e.why, "suspects", e.suspects, "leases", e.leases,
			"lasted", time.Duration(now-e.Since)*time.Millisecond)
	}
	r.machine.leases.release(term, g.released())
	return true
}

func (r *Registry) tellBegun(p *ExpiryPause) {
	r.machine.metrics.protections.WithLabelValues(p.Scope.Kind.String()).Inc()
	r.log.Warn("self-preservation begins: leases that run out here are kept, and their instances are suspect", "scope", p.Scope.String(),
		"lapsed", p.Lapsed, "leases", p.Leases, "least", p.Least, "percent", p.Percent, "limit", p.Limit)
}

func (r *Registry) proposeProtection(ctx context.Context, term uint64, changes []protectChange) bool {
	ctx, cancel := threads.WithTimeout(ctx, r.threads, proposeTimeout)
	defer cancel()
	_, err := r.replicator.Propose(ctx, "", protectCommand(term, changes))
	r.report("protect from mass expiry", err)
	return err == nil
}

// newest is when the last of some leases ran out, in lease time: since the budget
// spreads a crowd, this may be long ago.
func (l *leases) newest(due []dueLease) (at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range due {
		if one := l.find(d.key); one != nil {
			at = max(at, one.deadline)
		}
	}
	return at
}

// hold has leases whose instances are suspects looked at again when their time is
// over, and the others at once: they are no longer what they were.
func (l *leases) hold(term uint64, held []keptLease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return
	}
	for _, d := range held {
		one := l.find(d.key)
		if one == nil || one.instance.Lease != d.generation || !one.expiring || one.index >= 0 {
			continue
		}
		at := l.seen
		if one.instance.kept() {
			at += d.rest
		}
		l.enqueue(one, at)
	}
}

// release has leases looked at now, whenever they would have been.
func (l *leases) release(term uint64, keys []InstanceKey) {
	for keys := range slices.Chunk(keys, leaseStepsMax) {
		l.releaseSome(term, keys)
	}
}

func (l *leases) releaseSome(term uint64, keys []InstanceKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return
	}
	for _, k := range keys {
		if one := l.find(k); one != nil && one.instance.kept() {
			one.deadline = min(one.deadline, l.seen)
			l.enqueue(one, l.seen)
		}
	}
}

// A lapseQueue is a heap by the time at which to forget a lapse.
type lapseQueue []*leaseLapse

func (q lapseQueue) Len() int           { return len(q) }
func (q lapseQueue) Less(a, b int) bool { return q[a].until < q[b].until }

func (q lapseQueue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = a, b
}

// Push is for package heap.
func (q *lapseQueue) Push(x any) {
	lapse := x.(*leaseLapse)
	lapse.index = len(*q)
	*q = append(*q, lapse)
}

// Pop is for package heap.
func (q *lapseQueue) Pop() any {
	last := len(*q) - 1
	lapse := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return lapse
}
