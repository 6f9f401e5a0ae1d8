package peer

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// Every error that says what became of a call says the same at the other end.
func TestErrorsKeepTheirMeaningOnTheWay(t *testing.T) {
	for _, pair := range sameMeaning {
		want := pair.err
		if errors.Is(want, consensus.ErrNoLeader) || errors.Is(want, consensus.ErrStopped) {
			want = consensus.ErrNotLeader // of another member it is all the same
		}
		code := codeOf(consensus.ForwardPropose, fmt.Errorf("wrapped: %w", pair.err))
		if have := errorOf(&peerv1.ForwardResponse{Code: code, Text: "text"}); !errors.Is(have, want) {
			t.Errorf("%v arrives as %v", pair.err, have)
		}
	}
	later := errorOf(&peerv1.ForwardResponse{Code: 99})
	if !errors.Is(later, consensus.ErrUnknownOutcome) {
		t.Errorf("a code of a later version arrives as %v, want ErrUnknownOutcome", later)
	}
}

// Members tell each other that their disks are nearly full: one of three stops
// nothing, two stop growth wherever it is asked for, and all by itself it goes on.
func TestMembersTellThatTheirDisksAreFull(t *testing.T) {
	c := newCluster(t, 3)
	c.tick = 100 * time.Millisecond // the leader had better stay
	var members []*member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, c.start(id, vfs.NewMem()))
	}
	propose(t, members[0], "first")
	leader, followers := members[0], []*member(nil)
	until(t, "a leader that all know, and that has heard all: whom it has not it takes to have no room", func() bool {
		followers = nil
		for _, m := range members {
			if m.Status().LeaderID == 0 {
				return false
			}
			if m.Status().Role == consensus.RoleLeader {
				if silent := func(p consensus.MemberProgress) bool { return !p.Active }; slices.ContainsFunc(m.Status().Progress, silent) {
					return false
				}
				leader = m
			} else {
				followers = append(followers, m)
			}
		}
		return len(followers) == 2
	})
	knows := func(n int) {
		t.Helper()
		until(t, fmt.Sprintf("the leader knows of %d", n), func() bool { return len(leader.Status().LowMembers) == n })
	}
	followers[0].low.Store(true)
	knows(1)
	propose(t, followers[0], "second")
	followers[1].low.Store(true)
	knows(2)
	for _, m := range members {
		if _, err := m.Propose(t.Context(), "", []byte("third")); !errors.Is(err, consensus.ErrFull) {
			t.Errorf("propose: %v, want ErrFull", err)
		}
	}
	followers[0].low.Store(false)
	knows(1)
	propose(t, followers[1], "fourth")
}
