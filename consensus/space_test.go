package consensus

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// A full disk after a try that may have been successful does not say that
// nothing was done.
func TestAFullDiskSaysNothingOfAnEarlierTry(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		n.low.Store(true)
		p := proposal{group: n.Group, entryKind: kindCommand, requestID: "x", data: []byte("a")}
		if _, err := p.try(context.Background()); !errors.Is(err, ErrFull) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("the first try: %v, want ErrFull", err)
		}
		p = proposal{group: n.Group, entryKind: kindCommand, requestID: "x", data: []byte("a"), uncertain: true}
		if _, err := p.try(context.Background()); errors.Is(err, ErrFull) || !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a try after one whose answer was lost: %v, want ErrUnknownOutcome", err)
		}
		families, err := n.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if have := f.GetMetric()[0].GetCounter().GetValue(); f.GetName() == "stellmap_raft_full_total" && have != 2 {
				t.Errorf("%v refusals were counted, want 2", have)
			}
		}
	})
}

// What consensus itself writes passes: a cluster whose members have full disks
// from the first moment has an incarnation and an address book all the same.
func TestHousekeepingPassesOnFullDisks(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for _, id := range c.ids() {
			c.nodes[id].low.Store(true)
		}
		for range 40 {
			c.tick(c.ids())
		}
		for _, id := range c.ids() {
			s := c.nodes[id].Status()
			if s.Incarnation == "" || len(s.Members) != 3 {
				t.Errorf("node %d: incarnation %q, %d members", id, s.Incarnation, len(s.Members))
			}
			if s.Role == RoleLeader && !slices.Equal(s.LowMembers, []uint64{1, 2, 3}) {
				t.Errorf("the leader knows %v to be low", s.LowMembers)
			}
		}
		if _, err := c.nodes[1].Propose(context.Background(), "", []byte("a")); !errors.Is(err, ErrFull) {
			t.Errorf("propose: %v, want ErrFull", err)
		}
	})
}

// Without word on what grows, everything does.
func TestUnlessToldEveryCommandGrows(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		n.low.Store(true)
		n.config.Grows = nil
		if _, err := n.Propose(context.Background(), "", []byte("-a")); !errors.Is(err, ErrFull) {
			t.Errorf("propose: %v, want ErrFull", err)
		}
	})
}

// A member is low by what it said last, however often it says it.
func TestWhoIsCrowded(t *testing.T) {
	var c crowded
	for _, step := range []struct {
		id   uint64
		low  bool
		want []uint64
	}{
		{3, false, nil}, {3, true, []uint64{3}}, {3, true, []uint64{3}}, {1, true, []uint64{1, 3}}, {2, true, []uint64{1, 2, 3}},
		{1, false, []uint64{2, 3}}, {1, false, []uint64{2, 3}}, {3, false, []uint64{2}}, {2, false, nil},
	} {
		c.set(step.id, step.low)
		if have := c.all(); !slices.Equal(have, step.want) {
			t.Fatalf("after %d said %v: %v, want %v", step.id, step.low, have, step.want)
		}
	}
}
