package registry

import (
	"testing"
	"time"
)

// aged is a member with instances a to e at ports 1 to 5, which expire when told.
type aged struct {
	*member
	clock *manualClock
}

func newAged(t *testing.T) aged {
	clock := newManualClock()
	a := aged{newMember(t, clock), clock}
	for n, id := range []string{"a", "b", "c", "d", "e"} {
		a.register(reg("prod", "orders", id, "10.0.0.1", int32(n+1)))
	}
	return a
}

// expire has instances run out in one entry.
func (a aged) expire(ids ...string) {
	var due []dueLease
	for _, id := range ids {
		i, _ := a.machine.instance(orders(id))
		due = append(due, dueLease{i.Key(), i.Lease})
	}
	a.commit(expireCommand(a.term, due))
}

func (a aged) shown() []string { return ids(a.machine.Service(ServiceKey{"prod", "orders"}).Shown) }

func (a aged) baseline() int {
	return a.machine.published.services[ServiceKey{"prod", "orders"}].record.baseline
}

// TestTheNewestPlaceholdersStay shows which of the expired ones give way to
// replacements: the one that has been gone for longest first.
func TestTheNewestPlaceholdersStay(t *testing.T) {
	a := newAged(t)
	for _, id := range []string{"d", "a", "c"} {
		a.clock.advance(time.Second)
		a.expire(id)
	}
	mustEqualSlices(t, "what is in view", a.shown(), []string{"a", "b", "c", "d", "e"})
	a.register(reg("prod", "orders", "f", "10.0.0.9", 1))
	mustEqualSlices(t, "what is in view after a replacement", a.shown(), []string{"a", "b", "c", "e", "f"})
	a.register(reg("prod", "orders", "g", "10.0.0.9", 2))
	mustEqualSlices(t, "what is in view after another", a.shown(), []string{"b", "c", "e", "f", "g"})
}

// TestTheBaselineIsHalvedByTheCountFromBefore shows that a fall counts for the
// hour that begins with it, and not for the hour that ends with it.
func TestTheBaselineIsHalvedByTheCountFromBefore(t *testing.T) {
	a := newAged(t)
	a.expire("a", "b")
	a.clock.advance(baselineHalving)
	a.expire("c")
	mustEqual(t, "the baseline after an hour of three and a fall to two", a.baseline(), 3)
	mustEqualSlices(t, "what is in view", a.shown(), []string{"c", "d", "e"})
	a.clock.advance(baselineHalving - time.Millisecond)
	a.register(reg("prod", "orders", "a", "10.0.0.1", 1))
	a.expire("a")
	mustEqual(t, "the baseline, which was reached again just within the hour", a.baseline(), 3)
	a.clock.advance(10 * baselineHalving)
	a.expire("d", "e")
	mustEqual(t, "the baseline after many hours of two", a.baseline(), 2)
	a.clock.advance(2 * baselineHalving)
	a.register(reg("prod", "orders", "x", "10.0.0.8", 1))
	mustEqual(t, "the baseline after two hours of none, and one new", a.baseline(), 1)
}

// TestHoursThatNobodyLookedAtCount shows that a baseline which nothing touched for
// hours is halved for each of them when something does.
func TestHoursThatNobodyLookedAtCount(t *testing.T) {
	a := newAged(t)
	a.expire("a", "b", "c", "d")
	a.clock.advance(2 * baselineHalving)
	a.expire("e")
	mustEqual(t, "the baseline of five after two hours of one", a.baseline(), 1)
	mustEqualSlices(t, "what is in view", a.shown(), []string{"e"})
}
