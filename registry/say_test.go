package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// said is a check's word on an instance of prod/orders.
func said(id string, status Status) ConditionChange {
	return ConditionChange{Key: orders(id), Condition: Condition{Source: SourceCheck, Name: "web", Status: status}}
}

// TestConditionsAreFenced shows that a word on an instance which is no longer as
// it was seen does nothing, and that the other words of the entry count.
func TestConditionsAreFenced(t *testing.T) {
	m := newMember(t, newManualClock())
	for n, id := range []string{"a", "b", "c", "d", "e"} {
		m.register(reg("prod", "orders", id, "10.0.0.1", int32(n+1)))
	}
	lease := func(id string) Revision { i, _ := m.machine.instance(orders(id)); return i.Lease }
	status := func(id string) Status { i, _ := m.machine.instance(orders(id)); return i.Status }
	set := func(changes ...ConditionChange) []ConditionOutcome {
		t.Helper()
		outcomes, _, err := m.registry.SetConditions(context.Background(), changes)
		if err != nil {
			t.Fatal(err)
		}
		return outcomes
	}
	a, b, c, d := said("a", StatusCritical), said("b", StatusCritical), said("c", StatusCritical), said("d", StatusCritical)
	a.Lease, b.Lease = lease("a"), lease("b")-1
	c.Seen, d.Seen = StatusPassing, StatusWarning
	mustEqualSlices(t, "the outcomes", set(a, b, c, d, said("none", StatusCritical)),
		[]ConditionOutcome{ConditionDone, ConditionSeenOtherwise, ConditionDone, ConditionSeenOtherwise, ConditionNoInstance})
	mustEqualSlices(t, "the statuses", []Status{status("a"), status("b"), status("c"), status("d"), status("e")},
		[]Status{StatusCritical, StatusPassing, StatusCritical, StatusPassing, StatusPassing})

	a.Seen, a.Clear = StatusCritical, true // by whoever saw it fail
	m.register(reg("prod", "orders", "a", "10.0.0.1", 1))
	mustEqualSlices(t, "the outcome for a lease that has begun anew", set(a), []ConditionOutcome{ConditionSeenOtherwise})
	c.Seen, c.Clear = StatusCritical, true
	mustEqualSlices(t, "the outcome for what is as it was seen", set(c), []ConditionOutcome{ConditionDone})
	mustEqual(t, "the status", status("c"), StatusPassing)
}

// TestAPartySaysOnlyWhatIsItsOwn shows that a status which does not belong to a
// source, and a crowd too large for one entry, are refused whole.
func TestAPartySaysOnlyWhatIsItsOwn(t *testing.T) {
	m := newMember(t, newManualClock())
	m.register(reg("prod", "orders", "a", "10.0.0.1", 1))
	before := m.machine.Revision()
	for source := range SourceProtection + 2 {
		for status := range statusesMax {
			c := said("a", status)
			c.Condition.Source = source
			if source.says(status) {
				continue
			}
			if _, _, err := m.registry.SetConditions(context.Background(), []ConditionChange{said("a", StatusCritical), c}); err == nil || !strings.Contains(err.Error(), "cannot say") {
				t.Errorf("%s says %s: %v", source, status, err)
			}
		}
	}
	for _, n := range []int{0, ConditionsPerCommand + 1} {
		if _, _, err := m.registry.SetConditions(context.Background(), make([]ConditionChange, n)); err == nil {
			t.Errorf("%d changes at once are taken", n)
		}
	}
	mustEqual(t, "the revision", m.machine.Revision(), before)
}

// TestOverridesAreBounded shows that a service has no more overrides than it may
// have, those of instances that are gone included, and that what there is can be
// changed, and cleared to make room.
func TestOverridesAreBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	ctx, disabled := context.Background(), Override{Status: "disabled"}
	for n := range overridesMax + 1 {
		m.register(reg("prod", "orders", fmt.Sprint(n), "10.0.0.1", int32(n+1)))
	}
	for n := range overridesMax {
		if _, err := m.registry.Override(ctx, "", ref("prod", "orders", fmt.Sprint(n)), disabled); err != nil {
			t.Fatal(err)
		}
	}
	m.deregister(ref("prod", "orders", "0"))
	last := ref("prod", "orders", fmt.Sprint(overridesMax))
	var bad *ValidationError
	if _, err := m.registry.Override(ctx, "", last, disabled); !errors.As(err, &bad) || !strings.Contains(bad.Problems[0].Reason, "more than 1024 overrides") {
		t.Fatalf("one more override: %v", err)
	}
	if _, err := m.registry.Override(ctx, "", ref("prod", "orders", "1"), Override{Status: "warning"}); err != nil {
		t.Errorf("to change one that is there: %v", err)
	}
	if _, err := m.registry.ClearOverride(ctx, "", ref("prod", "orders", "0")); err != nil {
		t.Errorf("to clear that of an instance that is gone: %v", err)
	}
	if _, err := m.registry.Override(ctx, "", last, disabled); err != nil {
		t.Errorf("with room for it: %v", err)
	}
}

// TestWhatStandsNeedsNoPlaceholder shows that an instance which is critical or
// drains, and so is in view itself, leaves no room for one that has expired.
func TestWhatStandsNeedsNoPlaceholder(t *testing.T) {
	a := newAged(t)
	a.expire("a")
	a.clock.advance(time.Second)
	a.expire("b")
	a.register(reg("prod", "orders", "f", "10.0.0.9", 1)) // the baseline is five: there is room for one
	mustEqualSlices(t, "what is in view", a.shown(), []string{"b", "c", "d", "e", "f"})
	if _, _, err := a.registry.SetConditions(context.Background(), []ConditionChange{said("c", StatusCritical), said("d", StatusWarning)}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.registry.Drain(context.Background(), "", ref("prod", "orders", "e"), Drain{}); err != nil {
		t.Fatal(err)
	}
	mustEqualSlices(t, "what is in view beside a critical and a draining one", a.shown(), []string{"b", "c", "d", "e", "f"})
	if _, err := a.registry.Override(context.Background(), "", ref("prod", "orders", "f"), Override{Status: "disabled"}); err != nil {
		t.Fatal(err)
	}
	mustEqualSlices(t, "what is in view when one that stood is disabled", a.shown(), []string{"a", "b", "c", "d", "e"})
}
