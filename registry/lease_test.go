package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// passing is an instance whose lease is of that generation.
func passing(id string, generation Revision, ttl time.Duration) *Instance {
	return &Instance{Origin: &Origin{Namespace: "prod", Service: "orders"}, ID: id, Status: StatusPassing, Lease: generation, LeaseTTL: ttl}
}

func put(i *Instance) change { return change{op: opPut, instance: i, service: i.ServiceKey()} }

func stateOf(instances ...*Instance) *state {
	s := newState()
	for _, i := range instances {
		s.apply(&change{op: opServicePut, service: i.ServiceKey()})
		c := put(i)
		s.apply(&c)
	}
	return s
}

// leading is leases of term 7 and their clock.
func leading(instances ...*Instance) (*leases, *manualClock) {
	clock := newManualClock()
	l := newLeases(clock.Now)
	l.lead(7, stateOf(instances...))
	return l, clock
}

func dueIDs(l *leases) []string {
	_, due, _ := l.due(commandItemsMax)
	out := []string{}
	for _, d := range due {
		out = append(out, fmt.Sprintf("%s@%d", d.key.ID, d.generation))
	}
	slices.Sort(out)
	return out
}

// tick lets time go by as it does for a leader that looks at every tick.
func tick(l *leases, clock *manualClock, d time.Duration) {
	for ; d > 0; d -= expiryTick {
		clock.advance(min(d, expiryTick))
		l.published(nil) // looks at the clock and nothing else
	}
}

// TestAPauseExtendsLeases shows that time in which the leader did not run does not
// count, though it was shorter than any lease: nobody could have renewed.
func TestAPauseExtendsLeases(t *testing.T) {
	pauses := map[string]time.Duration{
		"shorter than the shortest TTL": LeaseTTLMin - time.Millisecond,
		"just longer":                   LeaseTTLMin + time.Millisecond,
		"just below two seconds":        2*time.Second - time.Millisecond,
		"an hour":                       time.Hour,
		"the clock went back":           -time.Hour,
	}
	for name, pause := range pauses {
		t.Run(name, func(t *testing.T) {
			l, clock := leading(passing("a", 1, LeaseTTLMin))
			tick(l, clock, 400*time.Millisecond)
			clock.advance(pause)
			mustEqualSlices(t, "what is due after the pause", dueIDs(l), []string{})
			tick(l, clock, 599*time.Millisecond)
			mustEqualSlices(t, "what is due before the TTL has run", dueIDs(l), []string{})
			tick(l, clock, time.Millisecond)
			mustEqualSlices(t, "what is due after it", dueIDs(l), []string{"a@1"})
			mustEqual(t, "the pauses found", l.stats().pauses, 1)
		})
	}
}

// TestAMissedTickIsNoPause shows that a leader which is a little late counts the time.
func TestAMissedTickIsNoPause(t *testing.T) {
	l, clock := leading(passing("a", 1, LeaseTTLMin))
	clock.advance(2 * expiryTick)
	mustEqualSlices(t, "what is due after half of the TTL", dueIDs(l), []string{})
	clock.advance(2 * expiryTick)
	mustEqualSlices(t, "what is due after all of it", dueIDs(l), []string{"a@1"})
	mustEqual(t, "the pauses found", l.stats().pauses, 0)
}

// TestANewLeaderGivesFullTTLs shows that nothing of an earlier term counts: not
// the time that had passed, nor what was on its way.
func TestANewLeaderGivesFullTTLs(t *testing.T) {
	a := passing("a", 1, 10*time.Second)
	l, clock := leading(a)
	tick(l, clock, 10*time.Second)
	mustEqualSlices(t, "what is due in the first term", dueIDs(l), []string{"a@1"})
	l.follow()
	mustEqualSlices(t, "what is due for a follower", dueIDs(l), []string{})
	clock.advance(time.Hour)
	l.lead(9, stateOf(a))
	tick(l, clock, 10*time.Second-time.Millisecond)
	mustEqualSlices(t, "what is due before the full TTL", dueIDs(l), []string{})
	tick(l, clock, time.Millisecond)
	mustEqualSlices(t, "what is due after it", dueIDs(l), []string{"a@1"})
	l.retry(7, []dueLease{{a.Key(), 1}}) // the end of the expiry of the first term
	mustEqualSlices(t, "what is due with an expiry of this term on its way", dueIDs(l), []string{})
}

// TestAnExpiryOnItsWayHoldsRenewalsBack shows that only the log decides from the
// moment that an expiry is proposed until a new generation is seen.
func TestAnExpiryOnItsWayHoldsRenewalsBack(t *testing.T) {
	a := passing("a", 1, time.Second)
	l, clock := leading(a)
	renew := func() renewal {
		_, outcomes := l.renew([]leaseRenewal{{key: a.Key()}})
		return outcomes[0]
	}
	mustEqual(t, "a renewal in time", renew(), renewalDone)
	tick(l, clock, time.Second)
	mustEqualSlices(t, "what is due", dueIDs(l), []string{"a@1"})
	mustEqual(t, "a renewal with the expiry on its way", renew(), renewalLog)
	mustEqualSlices(t, "what is due until the proposal has ended", dueIDs(l), []string{})
	l.retry(7, []dueLease{{a.Key(), 1}})
	mustEqual(t, "a renewal after the proposal has failed", renew(), renewalLog)
	mustEqualSlices(t, "what is due again", dueIDs(l), []string{"a@1"})

	l.published([]change{put(passing("a", 5, time.Second))}) // the logged renewal won
	l.retry(7, []dueLease{{a.Key(), 1}})
	mustEqual(t, "a renewal of the new generation", renew(), renewalDone)
	mustEqualSlices(t, "what is due of it", dueIDs(l), []string{})
	tick(l, clock, time.Second)
	mustEqualSlices(t, "what is due after its TTL", dueIDs(l), []string{"a@5"})
}

// TestOneLookIsBounded shows that a crowd of leases that come up at once does not
// hold the lock until all are looked at, and that none of them is lost.
func TestOneLookIsBounded(t *testing.T) {
	const crowd = 2*leaseStepsMax + 10
	var all []*Instance
	var asked []leaseRenewal
	for n := range crowd {
		all = append(all, passing(strconv.Itoa(n), 1, 10*time.Second))
		asked = append(asked, leaseRenewal{key: all[n].Key()})
	}
	l, clock := leading(all...)
	tick(l, clock, 9*time.Second)
	l.renew(asked[1:]) // the place in the queue stays
	tick(l, clock, time.Second)
	_, due, more := l.due(commandItemsMax)
	mustEqual(t, "the due ones found in the first look", len(due), 1)
	mustEqual(t, "whether there is more to look at", more, true)
	looks := 1
	for ; more; looks++ {
		_, due, more = l.due(commandItemsMax)
		mustEqual(t, "the due ones found in a further look", len(due), 0)
	}
	mustEqual(t, "the number of looks", looks, 3)
	tick(l, clock, 9*time.Second)
	found := 0
	l.budget.cost = 1 // what all of this is not about
	for more := true; more; {
		_, due, more = l.due(commandItemsMax)
		found += len(due)
	}
	mustEqual(t, "the due ones found in the end", found, crowd-1)
}

// TestLeasesAgainstAList shows with random operations and jumps of the clock that
// the queue finds what a plain list finds: nothing early, nothing twice, nothing
// that was renewed, and all that is due.
func TestLeasesAgainstAList(t *testing.T) {
	random := newRandom(t)
	for range 20 {
		clock := newManualClock()
		x := &leaseModel{t: t, random: random, clock: clock, real: newLeases(clock.Now), held: make(map[string]*heldLease)}
		x.real.crowd = 1         // so that a count says what the budget lets go
		if random.IntN(2) == 0 { // hashes that many keys share
			x.real.hash = func(k InstanceKey) uint64 { return uint64(k.ID[len(k.ID)-1] % 3) }
		}
		if random.IntN(2) == 0 { // so that it is felt
			x.real.budget.cost = 300 * time.Millisecond
		}
		x.lead()
		for range 1000 {
			x.step()
		}
	}
}

// leaseModel is the leases and what a plain list knows of them.
type leaseModel struct {
	t      *testing.T
	random *rand.Rand
	clock  *manualClock
	real   *leases
	term   uint64
	ran    time.Duration // how long the leader has run
	saved  time.Duration // of that, for expiries
	next   Revision
	held   map[string]*heldLease
	onWay  []dueLease // expiries whose fate is not known
}

type heldLease struct {
	generation    Revision
	ttl, deadline time.Duration // the deadline by what the leader has run
	expiring      bool
}

func (x *leaseModel) lead() {
	x.term++
	x.real.lead(x.term, x.state())
	x.onWay, x.saved = nil, 0
	for _, h := range x.held {
		h.deadline, h.expiring = x.ran+h.ttl, false
	}
}

func (x *leaseModel) state() *state {
	var all []*Instance
	shared := newState()
	for id, h := range x.held {
		if isSharedID(id) {
			shared.putLease(sharedLease(id, h.generation, h.ttl))
			continue
		}
		all = append(all, passing(id, h.generation, h.ttl))
	}
	s := stateOf(all...)
	s.leases = shared.leases
	return s
}

// named is an instance's id, or that of a shared lease.
func (x *leaseModel) named(id string) string {
	if x.random.IntN(3) == 0 {
		return "shared-" + id
	}
	return id
}

func isSharedID(id string) bool { return strings.HasPrefix(id, "shared-") }

func sharedLease(id string, generation Revision, ttl time.Duration) *SharedLease {
	return &SharedLease{ID: id, Generation: generation, TTL: ttl}
}

// leaseKey is what the leader has a lease by.
func leaseKey(id string) InstanceKey {
	if isSharedID(id) {
		return sharedKey(id)
	}
	return passing(id, 0, 0).Key()
}

func (x *leaseModel) step() {
	id := strconv.Itoa(x.random.IntN(20))
	switch x.random.IntN(12) {
	case 0, 1, 2:
		d := time.Duration(x.random.Int64N(int64(pauseMin)))
		x.clock.advance(d)
		x.ran += d
		x.saved = min(x.saved+d, expiryBurst)
		x.look()
	case 3:
		x.clock.advance([]time.Duration{-time.Hour, -time.Millisecond, pauseMin + 1, time.Second, time.Hour}[x.random.IntN(5)])
		x.look()
	case 4, 5:
		x.put(x.named(id))
	case 6:
		x.drop(x.named(id))
	case 7, 8:
		x.renew(x.named(id))
	case 9:
		x.due(1 + x.random.IntN(4))
	case 10:
		x.retry()
	case 11:
		if x.random.IntN(10) == 0 {
			x.real.follow()
			x.clock.advance(time.Minute)
			x.lead()
		}
	}
	mustEqual(x.t, "the number of leases", x.real.stats().held, len(x.held))
}

func (x *leaseModel) look() { x.real.published(nil) }

func (x *leaseModel) put(id string) {
	x.next++
	ttl := time.Duration(1+x.random.IntN(3)) * time.Second
	if isSharedID(id) {
		x.real.published([]change{{op: opLeasePut, lease: sharedLease(id, x.next, ttl)}})
	} else {
		x.real.published([]change{put(passing(id, x.next, ttl))})
	}
	x.held[id] = &heldLease{generation: x.next, ttl: ttl, deadline: x.ran + ttl}
}

func (x *leaseModel) drop(id string) {
	old := passing(id, 0, 0)
	c := change{op: opDelete, previous: old}
	if x.random.IntN(2) == 0 {
		expired := *old
		expired.Status, expired.ExpiredAt = StatusExpired, 1
		c = put(&expired)
	}
	if isSharedID(id) {
		c = change{op: opLeaseDelete, lease: sharedLease(id, 0, 0)}
	}
	x.real.published([]change{c})
	delete(x.held, id)
}

func (x *leaseModel) renew(id string) {
	ttl := []time.Duration{0, time.Second}[x.random.IntN(2)]
	term, outcomes := x.real.renew([]leaseRenewal{{key: leaseKey(id), ttl: ttl}})
	mustEqual(x.t, "the term", term, x.term)
	h := x.held[id]
	want := renewalDone
	switch {
	case h == nil:
		want = renewalUnknown
	case h.expiring || ttl != 0 && ttl != h.ttl:
		want = renewalLog
	default:
		h.deadline = x.ran + h.ttl
	}
	mustEqual(x.t, "the outcome of a renewal", outcomes[0], want)
}

func (x *leaseModel) due(most int) {
	want := 0
	for _, h := range x.held {
		if !h.expiring && h.deadline <= x.ran {
			want++
		}
	}
	again := 0
	for _, h := range x.held {
		if h.expiring && h.deadline <= x.ran && !x.isOnWay(h.generation) {
			again++ // its proposal failed
		}
	}
	_, due, more := x.real.due(most)
	mustEqual(x.t, "the number due", len(due), min(most, want+again, int(x.saved/x.real.budget.cost)))
	x.saved -= time.Duration(len(due)) * x.real.budget.cost
	if more && len(due) < most {
		x.t.Fatalf("more is due than the %d of at most %d", len(due), most)
	}
	for _, d := range due {
		h := x.held[d.key.ID]
		if h == nil || h.generation != d.generation || h.deadline > x.ran || x.isOnWay(d.generation) {
			x.t.Fatalf("lease %d of %s is due at %v; the list has %+v", d.generation, d.key.ID, x.ran, h)
		}
		h.expiring = true
	}
	x.onWay = append(x.onWay, due...)
}

func (x *leaseModel) isOnWay(generation Revision) bool {
	return slices.ContainsFunc(x.onWay, func(d dueLease) bool { return d.generation == generation })
}

// retry ends proposals whose outcome nobody knows.
func (x *leaseModel) retry() {
	x.real.retry(x.term, x.onWay)
	x.onWay = nil
}

// TestTheQueueFollowsAShorterTTL shows that a lease which a logged renewal made
// shorter does not wait for its old place in the queue.
func TestTheQueueFollowsAShorterTTL(t *testing.T) {
	l, clock := leading(passing("a", 1, time.Hour))
	l.published([]change{put(passing("a", 2, time.Second))})
	tick(l, clock, time.Second)
	mustEqualSlices(t, "what is due", dueIDs(l), []string{"a@2"})
}

// TestALeaseThatGoesLeavesTheQueue shows that it takes its place in the queue along.
func TestALeaseThatGoesLeavesTheQueue(t *testing.T) {
	l, clock := leading(passing("a", 1, time.Second), passing("b", 2, time.Second), passing("c", 3, time.Second))
	gone := passing("b", 2, time.Second)
	l.published([]change{{op: opDelete, previous: gone}})
	mustEqual(t, "the places in the queue", len(l.queue), 2)
	mustEqualSlices(t, "the leases", slices.Sorted(maps.Keys(byID(l))), []string{"a", "c"})
	tick(l, clock, time.Second)
	mustEqualSlices(t, "what is due", dueIDs(l), []string{"a@1", "c@3"})
}

func byID(l *leases) map[string]*lease {
	out := make(map[string]*lease)
	for _, one := range l.byKey {
		for ; one != nil; one = one.next {
			out[one.instance.ID] = one
		}
	}
	return out
}
