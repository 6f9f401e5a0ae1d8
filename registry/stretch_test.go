package registry

import (
	"context"
	"testing"
	"time"
)

// TestALeaderWithTooMuchToDoGivesLongerTTLs shows that more renewals than the leader
// can well answer have it give leases twice their TTL and say so, after it has told
// the others; that the next leader honours what was given; and that both end by
// themselves, what is honoured long after what is given. A long lease stays as it is.
func TestALeaderWithTooMuchToDoGivesLongerTTLs(t *testing.T) {
	const ttl = 10 * time.Second
	clock := newManualClock()
	m := newMember(t, clock)
	m.run()
	m.machine.leases.stretch.capacity = 20
	for id, seconds := range map[string]int64{"a": int64(ttl.Seconds()), "b": int64(ttl.Seconds()), "long": 3600} {
		r := reg("prod", "orders", id, "10.0.0.1", 80)
		r.LeaseTTLSeconds = seconds
		m.register(r)
	}
	renew := func(id string, want time.Duration) {
		t.Helper()
		got, err := m.registry.Heartbeat(context.Background(), ref("prod", "orders", id), 0)
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "the TTL that "+id+" is given", got.LeaseTTL, want)
	}
	status := func(id string) Status { i, _ := m.machine.instance(orders(id)); return i.Status }
	busy := func(d time.Duration) {
		for passed := time.Duration(0); passed < d; passed += expiryTick {
			for range 10 {
				m.heartbeat("a", renewalDone)
			}
			m.passTelling(clock, expiryTick)
		}
	}
	renew("a", 0)
	busy(checkpointEvery)
	renew("a", 2*ttl)
	renew("long", 0)
	mustEqual(t, "the TTL that a registration is given", m.register(reg("prod", "orders", "c", "10.0.0.1", 80)).LeaseTTL, time.Minute)
	renew("b", 2*ttl)

	m.lead() // who has told nothing yet honours what b was given
	m.passTelling(clock, 2*ttl-expiryTick)
	mustEqual(t, "the status of b before the end of what it was given", status("b"), StatusPassing)
	m.passTelling(clock, 2*expiryTick)
	mustEqual(t, "the status of b after it", status("b"), StatusExpired)

	renew("b", 0) // it has been calm for long
	mustEqual(t, "what is given", m.machine.published.told.stretch, 0)
	mustEqual(t, "what is honoured", m.machine.published.told.honoured, stretchFactor)
	m.passTelling(clock, stretchFactor*stretchTTLMax+stretchRest+checkpointQuiet)
	mustEqual(t, "what is honoured in the end", m.machine.published.told.honoured, 0)
}

// TestWhatWasGivenIsHonoured shows that a lease which was given a longer TTL by the
// last renewal before that ended holds for it under a leader that never gave it.
func TestWhatWasGivenIsHonoured(t *testing.T) {
	const ttl = 50 * time.Second
	clock := newManualClock()
	m := newMember(t, clock)
	m.machine.leases.stretch.capacity = 20
	r := reg("prod", "orders", "a", "10.0.0.1", 80)
	r.LeaseTTLSeconds = int64(ttl.Seconds())
	m.register(r)
	for m.machine.published.told.stretch == 0 {
		m.heartbeat("a", renewalDone)
		for range 10 {
			m.heartbeat("a", renewalDone)
		}
		m.passTelling(clock, expiryTick)
	}
	for m.machine.published.told.stretch != 0 {
		m.heartbeat("a", renewalDone)
		renewed := clock.Now()
		m.passTelling(clock, expiryTick)
		if m.machine.published.told.stretch == 0 {
			m.lead()
			m.passTelling(clock, 2*ttl-clock.Now().Sub(renewed)-expiryTick)
		}
	}
	i, _ := m.machine.instance(orders("a"))
	mustEqual(t, "the status before the end of what it was given", i.Status, StatusPassing)
}
