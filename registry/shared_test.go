package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// shared grants a lease of ten seconds and registers so many instances under it.
func (m *member) shared(id string, instances int) {
	m.tb.Helper()
	if _, _, err := m.registry.GrantLease(context.Background(), "", LeaseGrant{ID: id, TTLSeconds: 10, Token: token1}); err != nil {
		m.tb.Fatal(err)
	}
	var items []BatchItem
	for n := range instances {
		r := reg("prod", fmt.Sprint("svc-", n%7), fmt.Sprint(id, n), "10.0.0.1", int32(n%1000+1))
		r.Holder, r.LeaseID = Holder{Asked: true, Token: token1}, id
		items = append(items, BatchItem{Register: &r})
	}
	mustEqualSlices(m.tb, "what was refused", failures(m.batch("", items)), []string{})
}

// alive counts the instances that have not expired.
func (m *member) alive() int {
	s := m.machine.published
	return int(s.tally.instances - s.tally.ended)
}

// TestTheEndOfASharedLeaseIsACrowd shows that its instances expire at the rate of
// any crowd, so many in an entry, that a new leader goes on where the old one was,
// and that other leases which are renewed meanwhile stay.
func TestTheEndOfASharedLeaseIsACrowd(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	m.run()
	m.shared("dies", 4*sharedExpiries+10)
	m.shared("lives", 20)
	renew := func() {
		t.Helper()
		if _, err := m.registry.RenewLease(context.Background(), "lives", Holder{Asked: true, Token: token1}); err != nil {
			t.Fatal(err)
		}
	}
	m.pass(clock, 9*time.Second)
	renew()
	before := m.alive()
	m.pass(clock, time.Second)
	mustEqual(t, "what is left after the first entry", m.alive(), before-sharedExpiries)
	lease, members, _ := m.machine.lease("dies")
	if lease == nil || lease.EndedAt == 0 || len(members) != 3*sharedExpiries+10 {
		t.Fatalf("the lease is %+v with %d instances", lease, len(members))
	}
	if _, err := m.registry.RenewLease(context.Background(), "dies", Holder{Asked: true, Token: token1}); !errors.Is(err, ErrLeaseNotFound) {
		t.Fatalf("a renewal of what has ended: %v", err)
	}
	m.lead()
	m.pass(clock, expiryTick)
	mustEqual(t, "what is left after the first tick of a new leader", m.alive(), before-2*sharedExpiries)
	m.pass(clock, time.Second)
	mustEqual(t, "what is left in the end", m.alive(), 20)
	if lease, _, _ := m.machine.lease("dies"); lease != nil {
		t.Fatalf("the lease is still there: %+v", lease)
	}
	renew()
	m.pass(clock, 9*time.Second)
	mustEqual(t, "what is left of the other lease", m.alive(), 20)
}

// TestSharedLeasesAreBounded shows that a lease takes so many instances and no
// more, that those which it has can be registered again, and that there are so
// many leases.
func TestSharedLeasesAreBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	if _, _, err := m.registry.GrantLease(context.Background(), "", LeaseGrant{ID: "l", Token: token1}); err != nil {
		t.Fatal(err)
	}
	one := reg("prod", "orders", "one", "10.0.0.1", 1)
	one.Holder, one.LeaseID = Holder{Asked: true, Token: token1}, "l"
	m.register(one)
	working := m.machine.working.leases["l"]
	kept := working.members
	for len(working.members) < sharedLeaseInstancesMax { // as if there were so many
		working.members = append(working.members, kept[0])
	}
	m.register(one)
	more := one
	more.ID = "more"
	if _, err := m.registry.Register(context.Background(), "", more); !errors.Is(err, ErrLeasesFull) {
		t.Fatalf("one more instance: %v", err)
	}
	working.members = kept
	m.register(more)

	for n := 1; n < sharedLeasesMax; n++ {
		m.machine.working.leases[fmt.Sprint("x", n)] = working
	}
	if _, _, err := m.registry.GrantLease(context.Background(), "", LeaseGrant{ID: "m", Token: token1}); !errors.Is(err, ErrLeasesFull) {
		t.Fatalf("one more lease: %v", err)
	}
}

// TestBadSharedLeases shows that what is wrong is named, and nothing done.
func TestBadSharedLeases(t *testing.T) {
	m := newMember(t, newManualClock())
	before := m.machine.Revision()
	ctx := context.Background()
	calls := map[string]func() error{
		"leaseId": func() error { _, err := m.registry.RenewLease(ctx, "a/b", Holder{}); return err },
		"leaseToken": func() error {
			_, err := m.registry.RevokeLease(ctx, "", "l", Holder{Asked: true, Token: "short"})
			return err
		},
		"ttlSeconds": func() error {
			_, _, err := m.registry.GrantLease(ctx, "", LeaseGrant{ID: "l", Token: token1, TTLSeconds: leaseTTLSecondsMax + 1})
			return err
		},
		"leaseTtlSeconds": func() error {
			r := reg("prod", "orders", "a", "10.0.0.1", 1)
			r.LeaseID, r.LeaseTTLSeconds = "l", 30
			_, err := m.registry.Register(ctx, "", r)
			return err
		},
	}
	for field, call := range calls {
		var bad *ValidationError
		if err := call(); !errors.As(err, &bad) || bad.Problems[0].Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	mustEqual(t, "the revision", m.machine.Revision(), before)
}
