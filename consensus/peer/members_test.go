package peer

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/consensus"
)

// Over real connections: a node is taken in, catches up, votes, leads, and is
// told when it was removed.
func TestAMemberComesAndGoes(t *testing.T) {
	c := newCluster(t, 3)
	var members []*member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, c.start(id, vfs.NewMem()))
	}
	before := propose(t, members[0], "before")
	until(t, "all have met", func() bool { return len(members[2].Status().Members) == 3 })

	four := c.join(4, members[1])
	until(t, "the learner has caught up", func() bool { return four.Status().Applied >= before.Index })
	change(t, four, consensus.MemberChange{Kind: consensus.Promote, ID: 4})
	change(t, four, consensus.MemberChange{Kind: consensus.TransferLeader, ID: 4})
	until(t, "it leads", func() bool { return members[0].Status().LeaderID == 4 })
	propose(t, members[0], "under it")
	until(t, "progress is known at node 3", func() bool {
		p, err := members[2].Progress(t.Context())
		return err == nil && len(p) == 4 && p[3].ID == 4 && p[3].Match > 0
	})

	var refusal *consensus.ChangeRefusal
	if _, err := members[0].ChangeMembers(t.Context(), consensus.MemberChange{Kind: consensus.Promote, ID: 9}); !errors.As(err, &refusal) || refusal.Reason != consensus.ChangeUnknown {
		t.Errorf("promote a stranger: %v", err)
	}

	change(t, members[0], consensus.MemberChange{Kind: consensus.Remove, ID: 4})
	until(t, "the removed member ends", func() bool { return len(four.ended) > 0 })
	if err := <-four.ended; !errors.Is(err, consensus.ErrRemoved) {
		t.Errorf("the removed member ended with %v", err)
	}
	four.ended <- nil
	propose(t, members[1], "after")

	// One that is told by the others, since it was away.
	change(t, members[0], consensus.MemberChange{Kind: consensus.Replace, ID: 3, By: 5})
	must(t, members[2].stop())
	c.join(5, members[0])
	until(t, "node 5 has taken the place of node 3", func() bool {
		s := members[0].Status()
		return s.Replacement == nil && len(s.VotersOutgoing) == 0 && s.Voters[2] == 5
	})
	c.listen(3)
	three := c.start(3, members[2].fs)
	until(t, "the replaced member ends", func() bool { return len(three.ended) > 0 })
	if err := <-three.ended; !errors.Is(err, consensus.ErrRemoved) {
		t.Errorf("the replaced member ended with %v", err)
	}
	three.ended <- nil
}

// Members that were removed do not use up the room for those that come.
func TestTheRoomOfRemovedMembersIsGivenToOthers(t *testing.T) {
	gone := make(map[uint64]bool)
	transport, err := New(Config{Address: func(id uint64) string {
		if gone[id] {
			return ""
		}
		return "127.0.0.1:1"
	}})
	must(t, err)
	for id := uint64(1); id <= targetsMax; id++ {
		if transport.target(id) == nil {
			t.Fatalf("no room for %d", id)
		}
	}
	if transport.target(targetsMax+1) != nil {
		t.Error("there is room for more than the limit")
	}
	gone[3] = true
	if transport.target(targetsMax+1) == nil || transport.target(4) == nil {
		t.Error("no room, though one was removed")
	}
	if transport.target(3) != nil {
		t.Error("there is room for more than the limit after one was removed")
	}
}

// change tries until it is done: a leader may just be ending, or not have heard yet
// what a member has got.
func change(t *testing.T, m *member, c consensus.MemberChange) {
	t.Helper()
	until(t, fmt.Sprintf("the change %+v", c), func() bool {
		_, err := m.ChangeMembers(t.Context(), c)
		if errors.Is(err, consensus.ErrStopped) {
			t.Fatalf("%+v: %v", c, err)
		}
		return err == nil
	})
}
