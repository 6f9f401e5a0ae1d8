package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestRunKeepsTimeByItself shows the loops with nothing moved by hand: a lease that
// is renewed holds, one that is not runs out within a tick, what has expired is
// revived within its grace, and removed when nothing needs it any longer.
func TestRunKeepsTimeByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t, SystemClock{})
		m.run()
		r := good()
		r.LeaseTTLSeconds = 10
		m.register(r)
		instance := ref("prod", "orders", r.ID)
		watch := m.machine.Watch(m.machine.Revision())
		for range 30 {
			pause(3 * time.Second)
			if _, err := m.registry.Heartbeat(context.Background(), instance, 0); err != nil {
				t.Fatal(err)
			}
		}
		kinds := m.logged()
		mustEqual(t, "the renewals among the entries", kinds["renew"], 0)
		if most := int(30 * 3 * time.Second / checkpointEvery); kinds["checkpoint"] == 0 || kinds["checkpoint"] > most || len(kinds) != 2 {
			t.Fatalf("the entries after 30 renewals are %v, want a registration and up to %d checkpoints", kinds, most)
		}

		last := time.Now()
		mustTell(t, watch, EventInstancePut, StatusExpired)
		mustBeWithin(t, "the lease runs out", time.Since(last), 10*time.Second, 10*time.Second+expiryTick)
		pause(expiredGrace - time.Minute)
		if _, err := m.registry.Heartbeat(context.Background(), instance, 0); err != nil {
			t.Fatalf("a heartbeat within the grace: %v", err)
		}
		mustTell(t, watch, EventInstancePut, StatusPassing)
		last = time.Now()
		mustTell(t, watch, EventInstancePut, StatusExpired)
		fell := time.Now()
		mustBeWithin(t, "the revived lease runs out", time.Since(last), 10*time.Second, 10*time.Second+expiryTick)

		mustTell(t, watch, EventInstanceDelete, 0) // kept in view until the baseline is halved, from one to none
		mustBeWithin(t, "the placeholder goes", time.Since(fell), baselineHalving, baselineHalving+3*time.Second)
		if _, err := m.registry.Heartbeat(context.Background(), instance, 0); !errors.Is(err, ErrNotFound) {
			t.Fatalf("a heartbeat after the end: %v, want ErrNotFound", err)
		}
		mustEqual(t, "the number of instances", len(m.machine.Service(ServiceKey{"prod", "orders"}).Instances), 0)
	})
}

// pause lets the bubble's clock go on.
func pause(d time.Duration) { <-time.After(d) }

func mustBeWithin(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Fatalf("%s after %v, want %v to %v", what, got, least, most)
	}
}

// mustTell waits for the next event of an instance.
func mustTell(t *testing.T, w *Watch, kind EventKind, status Status) {
	t.Helper()
	for {
		batch, err := w.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range batch.Events {
			if e.Kind == EventServicePut {
				continue
			}
			if e.Kind != kind || status != 0 && e.Instance.Status != status {
				t.Fatalf("told of %s %+v, want %s %v", e.Kind, e.Instance, kind, status)
			}
			return
		}
	}
}

// TestManyServicesFallDueTogether shows that a crowd of services is reaped in
// commands of bounded size, none is forgotten, and the engine is empty in the end.
func TestManyServicesFallDueTogether(t *testing.T) {
	const services = 3*commandItemsMax + 7
	clock := newManualClock()
	m := newMember(t, clock)
	for n := range services {
		m.register(reg("prod", fmt.Sprint("s", n), "a", "10.0.0.1", 80))
		if _, err := m.registry.Deregister(context.Background(), "", ref("prod", fmt.Sprint("s", n), "a")); err != nil {
			t.Fatal(err)
		}
	}
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services before the day is over", len(m.machine.ServiceKeys("")), services)
	clock.advance(serviceAfterlife)
	before := m.proposed
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services after it", len(m.machine.ServiceKeys("")), 0)
	mustEqual(t, "the number of commands", m.proposed-before, 4)
	mustEqual(t, "the state and the engine", dumpState(m.machine.published)+dumpPresent(t, m.engine), "")
}

// TestAReaperThatFellBehindLooksAtAll shows that a reaper whose events are gone
// starts anew, and that one that does not lead forgets what it knew.
func TestAReaperThatFellBehindLooksAtAll(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	m.registry.reapDue(context.Background(), m.reaper)
	m.machine.ring.eventsMax, m.machine.working.history.bounds.Events = 1, 1
	for n := range 3 {
		m.register(reg("prod", fmt.Sprint("s", n), "a", "10.0.0.1", 80))
		if _, err := m.registry.Deregister(context.Background(), "", ref("prod", fmt.Sprint("s", n), "a")); err != nil {
			t.Fatal(err)
		}
	}
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services that it knows of", len(m.reaper.due), 3)
	m.machine.Follow()
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services that a follower knows of", len(m.reaper.due), 0)
	clock.advance(serviceAfterlife)
	m.lead()
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services left", len(m.machine.ServiceKeys("")), 0)
}

// TestARefusedReapIsTriedAgain shows that a command which did not pass costs a second and no more.
func TestARefusedReapIsTriedAgain(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	m.register(good())
	if _, err := m.registry.Deregister(context.Background(), "", ref("prod", "orders", good().ID)); err != nil {
		t.Fatal(err)
	}
	clock.advance(serviceAfterlife)
	m.registry.replicator = answering{err: ErrBusy}
	m.registry.reapDue(context.Background(), m.reaper)
	m.registry.replicator = m
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services at once", len(m.machine.ServiceKeys("")), 1)
	clock.advance(reapRetry)
	m.registry.reapDue(context.Background(), m.reaper)
	mustEqual(t, "the services a second later", len(m.machine.ServiceKeys("")), 0)
}
