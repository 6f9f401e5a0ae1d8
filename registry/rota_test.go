package registry

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestTheRota shows who is told to make checks: those that have lately said that
// they do, and nobody before all of them had the time to.
func TestTheRota(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	ask := func(what string, member uint64, want ...uint64) {
		t.Helper()
		got, err := m.registry.Checkers(context.Background(), member)
		if err != nil {
			t.Fatal(err)
		}
		mustEqualSlices(t, what, got, want)
	}
	pass := func(d time.Duration, members ...uint64) {
		for range d / (500 * time.Millisecond) {
			clock.advance(500 * time.Millisecond)
			for _, member := range members {
				if _, err := m.registry.Checkers(context.Background(), member); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	ask("a new leader", 2)
	pass(rotaSilence-500*time.Millisecond, 3, 2)
	ask("a moment before the others must have spoken", 2)
	clock.advance(500 * time.Millisecond)
	ask("after it", 1, 1, 2, 3)
	pass(time.Second, 1, 2)
	ask("as long as a member may be silent", 1, 1, 2, 3)
	pass(500*time.Millisecond, 1, 2)
	ask("after that", 1, 1, 2)
	ask("when it is there again", 3, 1, 2, 3)

	clock.advance(rotaSilence)
	ask("after a sleep, in which nobody could ask", 1)
	pass(rotaSilence, 1, 2, 3)
	ask("when all have spoken since", 1, 1, 2, 3)
	m.lead()
	ask("another term", 1)

	m.machine.Follow()
	if _, err := m.registry.Checkers(context.Background(), 1); !errors.Is(err, ErrNoLeader) {
		t.Fatalf("a follower answers %v", err)
	}
}

// TestTheRotaIsBounded shows that it remembers so many members and no more.
func TestTheRotaIsBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	for member := range uint64(rotaMembersMax + 1) {
		_, err := m.registry.Checkers(context.Background(), member+1)
		mustEqual(t, "whether it is refused", err != nil, member == rotaMembersMax)
	}
	mustEqual(t, "those remembered", len(m.machine.rota.heard), rotaMembersMax)
}
