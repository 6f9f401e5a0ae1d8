package registry

import (
	"cmp"
	"container/heap"
	"hash/maphash"
	"sync"
	"time"
)

// Leases are kept by the leader, in memory.
//
// A renewal that went through the log would cost a synced write on every member
// for a fact that is worth nothing half a minute later; so the log holds only
// which lease an instance has (its generation) and when one has run out. The
// deadlines in between live here. What makes that safe:
//
//   - A new leader gives every lease its full TTL from the moment it begins.
//   - A renewal is acknowledged only after a barrier that began after it arrived
//     has shown that this leader was still the leader (see Machine.Answer).
//   - An expiry names the generation and the term it was proposed for. From the
//     moment it is proposed until its fate is known, renewals of that lease go
//     through the log, where they and the expiry have an order.
//   - Time that the leader's process has spent stopped does not count: nobody
//     could have renewed.
type leases struct {
	now       func() time.Time // these two are set by newLeases and never changed
	tellBytes int              // checkpointBytesMax but in tests

	mu       sync.Mutex               // guards what follows
	term     uint64                   // that this member leads; 0 = it does not
	begun    time.Time                // where lease time is 0
	lost     time.Duration            // of the time since then: pauses, which lease time leaves out
	seen     time.Duration            // the newest lease time read
	hash     func(InstanceKey) uint64 // set by newLeases
	held     int
	byKey    map[uint64]*lease // by the key's hash, the first of those that share it: a million keys take 77 MB
	queue    leaseQueue
	budget   expiryBudget
	unspoken unspoken
	crowd    int // instances that may expire in one entry with a shared lease: sharedExpiries
	stretch  stretching

	pauses uint64 // how often time was found missing
}

// pauseMin is the longest gap between two looks at the clock that is no pause.
// The leader looks at every expiry tick; it misses some while a proposal takes
// long, and then renewals take as long, so that time need not count either. It is
// well below the shortest TTL: else such a lease could run out within one pause.
const pauseMin = 2 * expiryTick

// leaseStepsMax bounds how long one call may hold the lock.
const leaseStepsMax = 4_096

// A lease is one instance's deadline. Renewing moves the deadline only; the
// place in the queue follows when it comes up, once per TTL however often the
// lease is renewed.
type lease struct {
	instance  *Instance     // as it is now; its key, TTL and generation, without another copy of them
	deadline  time.Duration // in lease time
	queued    time.Duration // when the queue looks at it: not after the deadline
	index     int32         // in the queue; -1 = not there
	expiring  bool          // an expiry may be on its way
	overdue   bool          // a checkpoint that says so may be on its way or in force
	inherited bool          // not renewed since this leader began: it looks at what was told before when to call it overdue
	listed    bool          // among those that may be overdue
	next      *lease        // has the same hash
}

// A dueLease is what an expiry names.
type dueLease struct {
	key        InstanceKey
	generation Revision
}

// renewal is what became of a renewal on the leader.
type renewal uint8

const (
	renewalDone    renewal = iota
	renewalUnknown         // there is no such lease
	renewalLog             // it has to go through the log
	renewalWrong           // the lease token is another's
	renewalShared          // the instance lives under a shared lease
)

func newLeases(now func() time.Time) *leases {
	seed := maphash.MakeSeed()
	return &leases{
		now: now, hash: func(k InstanceKey) uint64 { return maphash.Comparable(seed, k) },
		budget: expiryBudget{cost: expiryCost}, tellBytes: checkpointBytesMax, crowd: sharedExpiries, stretch: stretching{capacity: renewalsCapacity},
	}
}

// find is the lease of an instance, or nil.
func (l *leases) find(k InstanceKey) *lease {
	one := l.byKey[l.hash(k)]
	for one != nil && one.instance.Key() != k {
		one = one.next
	}
	return one
}

func (l *leases) add(one *lease) {
	hash := l.hash(one.instance.Key())
	one.next = l.byKey[hash]
	l.byKey[hash] = one
	l.held++
}

func (l *leases) remove(one *lease) {
	hash := l.hash(one.instance.Key())
	l.held--
	first := l.byKey[hash]
	switch {
	case first == one && one.next == nil:
		delete(l.byKey, hash)
	case first == one:
		l.byKey[hash] = one.next
	default:
		for first.next != one {
			first = first.next
		}
		first.next = one.next
	}
}

// lead begins a term: every instance that has not expired has its full TTL from now.
func (l *leases) lead(term uint64, s *state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term, l.begun, l.lost, l.seen = term, l.now(), 0, 0
	l.budget = expiryBudget{cost: l.budget.cost, waits: l.budget.waits} // nothing is saved up
	l.stretch = stretching{capacity: l.stretch.capacity, factor: s.told.stretch, honoured: s.told.honoured}
	alive := s.tally.instances - s.tally.ended
	l.byKey, l.held, l.unspoken = make(map[uint64]*lease, alive), 0, unspoken{}
	l.queue = make(leaseQueue, 0, alive)
	for _, svc := range s.order {
		for _, i := range svc.own() {
			if i.alive() && i.LeaseID == "" && !mutant("leases_forgotten_by_new_leader") {
				one := l.grant(i, len(l.queue))
				if !i.kept() {
					l.inherit(one, s.told)
				}
				l.queue = append(l.queue, one)
			}
		}
	}
	for _, shared := range s.leases {
		one := l.grant(shared.record.asInstance(), len(l.queue))
		l.inherit(one, s.told)
		l.queue = append(l.queue, one)
	}
	heap.Init(&l.queue)
}

func (l *leases) grant(i *Instance, index int) *lease {
	deadline := l.seen + i.LeaseTTL
	if i.kept() { // it ran out long ago; only the log can renew it
		deadline = l.seen
	}
	if mutant("ttl_not_refreshed_by_new_leader") && index >= 0 {
		deadline = max(0, i.LeaseTTL-l.now().Sub(time.UnixMilli(i.LastHeartbeat)))
	}
	if mutant("lease_ends_a_tick_early") {
		deadline -= expiryTick
	}
	granted := &lease{instance: i, deadline: deadline, index: int32(index)}
	granted.queued = granted.overdueAt()
	l.unspoken.asOf = max(l.unspoken.asOf, i.Lease)
	l.add(granted)
	return granted
}

// follow forgets everything: another leader keeps the leases now.
func (l *leases) follow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term, l.byKey, l.held, l.queue, l.budget.late, l.unspoken = 0, nil, 0, nil, 0, unspoken{}
}

func (l *leases) leading() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term
}

// time is lease time, for whoever does not hold the lock.
func (l *leases) time() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock()
}

// clock reads lease time. It stands still over pauses and never goes back.
func (l *leases) clock() time.Duration {
	t := l.now().Sub(l.begun) - l.lost
	if gap := t - l.seen; (gap > pauseMin || gap < 0) && !mutant("lease_by_wall_clock") {
		l.lost += gap
		l.pauses++
		return l.seen
	}
	l.seen = t
	return t
}

// published follows the changes that readers have just been shown.
func (l *leases) published(changes []change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 {
		return
	}
	l.clock()
	for i := range changes {
		switch c := &changes[i]; {
		case cmp.Or(c.instance, c.previous).ofAnother():
		case c.op == opLeasePut:
			l.put(c.lease.asInstance())
		case c.op == opLeaseDelete:
			l.drop(sharedKey(c.lease.ID))
		case c.op == opPut && c.instance.alive() && c.instance.LeaseID == "":
			l.put(c.instance)
		case c.op == opPut:
			l.drop(c.instance.Key())
		case c.op == opDelete:
			l.drop(c.previous.Key())
		case c.op == opCheckpoint:
			l.stretch.follow(l.seen, c.checkpoint.command.GetStretch(), c.checkpoint.command.GetHonoured())
		}
	}
}

func (l *leases) put(i *Instance) {
	old := l.find(i.Key())
	switch {
	case old == nil:
		one := l.grant(i, -1)
		one.deadline += stretched(one.instance.LeaseTTL, l.stretch.factor) - one.instance.LeaseTTL
		one.queued = one.overdueAt()
		heap.Push(&l.queue, one)
		if !i.kept() {
			l.hear(one)
		}
	case old.instance.Lease == i.Lease:
		old.instance = i // lets go of the one before
	default:
		old.instance = i
		old.expiring, old.overdue, old.inherited = false, false, false
		l.unspoken.asOf = max(l.unspoken.asOf, i.Lease)
		l.hear(old)
		if !mutant("registration_does_not_extend") {
			old.deadline = l.seen + stretched(i.LeaseTTL, l.stretch.factor)
		}
		l.enqueue(old, min(old.overdueAt(), max(old.queued, l.seen)))
	}
}

// enqueue sets when the queue looks at a lease.
func (l *leases) enqueue(one *lease, at time.Duration) {
	one.queued = at
	if one.index < 0 {
		heap.Push(&l.queue, one)
	} else {
		heap.Fix(&l.queue, int(one.index))
	}
}

func (l *leases) drop(k InstanceKey) {
	one := l.find(k)
	if one == nil {
		return
	}
	l.remove(one)
	if one.index >= 0 {
		heap.Remove(&l.queue, int(one.index))
	}
}

// A leaseRenewal asks for one lease to be renewed.
type leaseRenewal struct {
	key InstanceKey
	ttl time.Duration // 0 = as it is
	// proof is the hash of the lease token that is presented; empty = none is asked for
	proof   []byte
	granted time.Duration // set by renew: the TTL that it was given, if it is longer than its own
}

// renew extends leases from now on; the term is 0 when this member does not lead.
func (l *leases) renew(asked []leaseRenewal) (term uint64, outcomes []renewal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 {
		return 0, nil
	}
	now := l.clock()
	outcomes = make([]renewal, len(asked))
	l.stretch.renewed += len(asked)
	for i, a := range asked {
		one := l.find(a.key)
		switch {
		case one == nil:
			outcomes[i] = renewalUnknown
		case !one.instance.heldBy(a.proof):
			outcomes[i] = renewalWrong
		case one.instance.kept(), one.expiring && !mutant("renewal_beside_an_expiry"), a.ttl != 0 && a.ttl != one.instance.LeaseTTL:
			outcomes[i] = renewalLog
		case one.overdue && !mutant("renewal_of_an_overdue_lease"):
			outcomes[i] = renewalLog
			l.extend(one, now) // else it might run out while it waits for its entry
		default:
			asked[i].granted = granted(one.instance.LeaseTTL, l.stretch.factor)
			one.inherited = false
			l.extend(one, now)
			l.hear(one)
		}
	}
	return l.term, outcomes
}

// extend gives a lease all of its TTL from now on.
func (l *leases) extend(one *lease, now time.Duration) {
	one.deadline = max(one.deadline, now+stretched(one.instance.LeaseTTL, l.stretch.factor))
}

// due takes leases that have run out, at most so many and as many as the budget
// lets go, and holds back plain renewals of them. More says that the lock was let
// go of before the end.
func (l *leases) due(most int) (term uint64, due []dueLease, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 {
		return 0, nil, false
	}
	now := l.clock()
	left, spent := l.budget.left(now), 0
	defer func() { l.budget.spend(now, spent) }()
	for range leaseStepsMax {
		if len(l.queue) == 0 || l.queue[0].queued > now {
			l.budget.late = 0
			return l.term, due, false
		}
		one := l.queue[0]
		if one.deadline > now {
			l.look(one, now)
			continue
		}
		if spent >= left {
			l.budget.wait(now, one.deadline)
			return l.term, due, false // the next tick goes on
		}
		if len(due) == most {
			return l.term, due, true
		}
		heap.Pop(&l.queue)
		one.expiring = true
		spent++
		if one.instance.Key().isShared() {
			spent += l.crowd - 1
		}
		due = append(due, dueLease{key: one.instance.Key(), generation: one.instance.Lease})
	}
	return l.term, due, true
}

// retry looks again at leases whose expiry was proposed. Those that have moved
// on are no longer in the state they were in. The others stay held back: a
// proposal whose answer was lost may still take effect.
func (l *leases) retry(term uint64, due []dueLease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return
	}
	for _, d := range due {
		if one := l.find(d.key); one != nil && one.expiring && one.instance.Lease == d.generation && one.index < 0 {
			l.enqueue(one, l.seen)
			if mutant("expiry_given_up_too_soon") {
				one.expiring = false
			}
		}
	}
}

// leaseStats is what metrics show of the leases.
type leaseStats struct {
	held   int
	pauses uint64
	late   time.Duration // of the expiry that waits longest for the budget
	waits  uint64
}

func (l *leases) stats() leaseStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return leaseStats{held: l.held, pauses: l.pauses, late: l.budget.late, waits: l.budget.waits}
}

// A leaseQueue is a heap by the time at which to look at a lease.
type leaseQueue []*lease

func (q leaseQueue) Len() int           { return len(q) }
func (q leaseQueue) Less(a, b int) bool { return q[a].queued < q[b].queued }

func (q leaseQueue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = int32(a), int32(b)
}

// Push is for package heap.
func (q *leaseQueue) Push(x any) {
	one := x.(*lease)
	one.index = int32(len(*q))
	*q = append(*q, one)
}

// Pop is for package heap.
func (q *leaseQueue) Pop() any {
	last := len(*q) - 1
	one := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	one.index = -1
	return one
}
