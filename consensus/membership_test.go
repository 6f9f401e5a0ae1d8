package consensus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// change has a member's cluster change its members.
func (n *node) change(c *cluster, m MemberChange) error {
	done := make(chan error, 1)
	go func() {
		_, err := n.ChangeMembers(context.Background(), m)
		done <- err
	}()
	for range 40 {
		c.settle()
		select {
		case err := <-done:
			return err
		default:
			c.tick(c.ids())
		}
	}
	return errors.New("it never came to an end")
}

// A change that Raft would end the process on is refused where it is applied,
// whatever a leader thought.
func TestImpossibleChangesDoNotReachRaft(t *testing.T) {
	add := func(id uint64) *pb.ConfChangeSingle { return single(pb.ConfChangeAddNode, id) }
	remove := func(id uint64) *pb.ConfChangeSingle { return single(pb.ConfChangeRemoveNode, id) }
	of := func(changes ...*pb.ConfChangeSingle) *pb.ConfChangeV2 { return &pb.ConfChangeV2{Changes: changes} }
	explicit := func(changes ...*pb.ConfChangeSingle) *pb.ConfChangeV2 {
		return &pb.ConfChangeV2{Transition: pb.ConfChangeTransitionJointExplicit.Enum(), Changes: changes}
	}
	for name, s := range map[string]struct {
		voters, outgoing []uint64
		change           *pb.ConfChangeV2
		want             ChangeReason // 0 = it is made
	}{
		"one more":                {[]uint64{1, 2}, nil, of(add(3)), 0},
		"one less":                {[]uint64{1, 2}, nil, of(remove(2)), 0},
		"nobody left":             {[]uint64{1}, nil, of(remove(1)), ChangeQuorum},
		"the last but one":        {[]uint64{1, 2}, nil, explicit(remove(1), remove(2)), ChangeQuorum},
		"one for the other":       {[]uint64{1, 2}, nil, explicit(add(3), remove(2)), 0},
		"two at once, joint":      {[]uint64{1, 2}, nil, of(add(3), remove(2)), 0},
		"a removed id":            {[]uint64{1, 2}, nil, of(add(9)), ChangeRemoved},
		"a removed id, jointly":   {[]uint64{1, 2}, nil, explicit(add(9), remove(2)), ChangeRemoved},
		"leave what is not joint": {[]uint64{1, 2}, nil, of(), ChangeConflict},
		"leave what is joint":     {[]uint64{1, 3}, []uint64{1, 2}, of(), 0},
		"enter what is joint":     {[]uint64{1, 3}, []uint64{1, 2}, explicit(add(4)), ChangeConflict},
		"one more to the joint":   {[]uint64{1, 3}, []uint64{1, 2}, of(add(4)), ChangeConflict},
	} {
		t.Run(name, func(t *testing.T) {
			f := &facts{conf: &pb.ConfState{Voters: s.voters, VotersOutgoing: s.outgoing}, members: map[uint64]Member{9: {ID: 9, Removed: true}}}
			var refusal *ChangeRefusal
			err := f.refuses(s.change)
			switch {
			case s.want == 0 && err != nil:
				t.Error(err)
			case s.want != 0 && (!errors.As(err, &refusal) || refusal.Reason != s.want):
				t.Errorf("%v, want reason %d", err, s.want)
			}
		})
	}
}

// A crash at any moment of taking in is repaired by the next start, under the
// same UUID.
func TestACrashWhileJoiningIsRepaired(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		for range 5 {
			c.tick(c.ids())
		}
		for saves := range 4 { // of the identity, before the crash
			id := uint64(saves + 2)
			n := &node{cluster: c, id: id, fs: vfs.NewCrashableMem(), gone: true, joins: true, via: 1, crashAtSave: saves + 1}
			c.nodes[id] = n
			err := n.start()
			if (err == nil) != (saves >= 2) {
				t.Fatalf("crash at save %d: %v", saves+1, err)
			}
			if err == nil { // the third save is when it has its first state
				for range 10 {
					c.tick(c.ids())
				}
				left := n.fs.CrashClone(vfs.CrashCloneCfg{})
				if err := n.stop(); (err == nil) != (saves > 2) {
					t.Fatalf("crash at save %d: it ended with %v", saves+1, err)
				}
				n.fs = left
			}
			n.fs, n.crashAtSave = n.fs.CrashClone(vfs.CrashCloneCfg{}), 0
			if err := n.start(); err != nil {
				t.Fatalf("after a crash at save %d: %v", saves+1, err)
			}
			for range 10 {
				c.tick(c.ids())
			}
			if s := n.Status(); !slices.Contains(s.Learners, id) || !s.Confirmed {
				t.Errorf("after a crash at save %d: learners %v, confirmed %v", saves+1, s.Learners, s.Confirmed)
			}
		}
	})
}

// A directory that was begun to join founds nothing, and the other way round.
func TestJoiningAndFoundingDoNotMix(t *testing.T) {
	members := []Member{{ID: 1}}
	for name, s := range map[string]struct {
		stage    string
		joined   bool
		founding Founding
		want     string
	}{
		"joining, without join":     {storage.StageJoining, true, Founding{NodeID: 4, ClusterID: 100, Members: []Member{{ID: 4}}}, "with `[cluster] join` as before"},
		"joining again":             {storage.StageJoining, true, Founding{NodeID: 4, ClusterID: 100, Join: true}, ""},
		"founding, with join":       {storage.StageFounding, false, Founding{NodeID: 4, ClusterID: 100, Join: true}, "without `[cluster] join`"},
		"joined, list of members":   {storage.StageReady, true, Founding{NodeID: 4, ClusterID: 100, Members: append(members, Member{ID: 4})}, ""},
		"joined, join still there":  {storage.StageReady, true, Founding{NodeID: 4, ClusterID: 100, Join: true}, ""},
		"joined by another id":      {storage.StageReady, true, Founding{NodeID: 5, ClusterID: 100, Join: true}, "belongs to node 4"},
		"founded, join added since": {storage.StageReady, false, Founding{NodeID: 4, ClusterID: 100, Join: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Found(IdentityFile{
				Load: func() (storage.Identity, bool, error) {
					return storage.Identity{NodeID: 4, ClusterID: 100, UUID: "u", Stage: s.stage, Joined: s.joined, Founders: "f"}, true, nil
				},
				Save:     func(storage.Identity) error { return errors.New("the identity was written") },
				Occupied: func() (bool, error) { return true, nil },
			}, s.founding)
			if s.want == "" && err != nil || s.want != "" && (err == nil || !strings.Contains(err.Error(), s.want)) {
				t.Errorf("%v, want %q", err, s.want)
			}
		})
	}
}

// Whoever joins a cluster that is not the one that was meant is told so.
func TestWhatIsToldToAJoiningMemberIsChecked(t *testing.T) {
	joining := storage.Identity{NodeID: 4, ClusterID: 100, Stage: storage.StageJoining, Joined: true}
	told := Joining{ClusterID: 100, Founders: "f", Incarnation: "i", Members: []Member{{ID: 1, UUID: "u1"}, {ID: 2}, {ID: 4, UUID: "u4"}}}
	for name, s := range map[string]struct {
		change func(*storage.Identity, *Joining)
		want   string
	}{
		"good":            {func(*storage.Identity, *Joining) {}, ""},
		"another cluster": {func(_ *storage.Identity, j *Joining) { j.ClusterID = 7 }, "of cluster 7, and the configuration says 100"},
		"no founders":     {func(_ *storage.Identity, j *Joining) { j.Founders = "" }, "neither who founded it"},
		"ready already":   {func(id *storage.Identity, _ *Joining) { id.Stage = storage.StageReady }, "only one that is joining"},
	} {
		t.Run(name, func(t *testing.T) {
			id, j := joining, told
			s.change(&id, &j)
			var saved storage.Identity
			have, err := Join(IdentityFile{Save: func(i storage.Identity) error { saved = i; return nil }}, id, j)
			switch {
			case s.want != "" && (err == nil || !strings.Contains(err.Error(), s.want)):
				t.Errorf("%v, want %q", err, s.want)
			case s.want == "" && (err != nil || have.Founders != "f" || saved.Peers[1] != "u1" || len(saved.Peers) != 1):
				t.Errorf("%+v, %v", saved, err)
			}
		})
	}
}

// What a change does to the address book comes back from the disk.
func TestMembersSurviveARestart(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		one := c.nodes[1]
		for _, m := range []MemberChange{
			{Kind: AddLearner, Member: Member{ID: 4, HTTP: "http-4", XDS: "xds-4", GRPC: "grpc-4", Admin: "admin-4"}},
			{Kind: AddLearner, Member: Member{ID: 5, HTTP: "http-5"}},
			{Kind: AddLearner, Member: Member{ID: 4, HTTP: "moved-4"}}, // until it has introduced itself
			{Kind: Remove, ID: 5},
			{Kind: Replace, ID: 2, By: 6},
		} {
			if err := one.change(c, m); err != nil {
				t.Fatalf("%+v: %v", m, err)
			}
		}
		before := one.Status()
		if err := one.config.Engine.Flush(); err != nil {
			t.Fatal(err)
		}
		one.crash()
		if err := one.start(); err != nil {
			t.Fatal(err)
		}
		after := one.Status()
		if !slices.Equal(before.Members, after.Members) || !slices.Equal(after.Learners, []uint64{4}) || !slices.Equal(after.Removed, []uint64{5}) ||
			after.Replacement == nil || *before.Replacement != *after.Replacement || after.Replacement.New != 6 {
			t.Errorf("before %+v\nafter %+v", before, after)
		}
		at := slices.IndexFunc(after.Members, func(m Member) bool { return m.ID == 4 })
		if want := (Member{ID: 4, HTTP: "moved-4", XDS: "xds-4", GRPC: "grpc-4", Admin: "admin-4", Since: after.Members[at].Since}); after.Members[at] != want || want.Since == 0 {
			t.Errorf("%+v, want %+v", after.Members[at], want)
		}
	})
}

// A node that asks to be taken in under a founder's id gets no hold of it, not
// even before the address book says whose it is.
func TestAFoundersIDIsNotGivenAway(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for c.nodes[1].Status().LeaderID == 0 {
			c.tick(c.ids())
		}
		for id := range c.nodes {
			var refusal *ChangeRefusal
			err := c.nodes[1].change(c, MemberChange{Kind: AddLearner, Member: Member{ID: id, UUID: "a stranger's"}})
			if !errors.As(err, &refusal) || refusal.Reason != ChangeConflict {
				t.Errorf("id %d: %v", id, err)
			}
		}
		for range 25 {
			c.tick(c.ids())
		}
		for id, n := range c.nodes {
			if len(n.ended) > 0 || n.Status().LeaderID == 0 {
				t.Errorf("node %d does not go on", id)
			}
		}
	})
}

// A change whose caller has left while it waited for its turn holds up no other.
func TestAChangeThatNobodyWaitsForHoldsUpNoOther(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		other := leader.id%3 + 1
		c.mu.Lock()
		for id := range c.nodes {
			c.cut[[2]uint64{id, other}], c.cut[[2]uint64{other, id}] = true, true
		}
		c.mu.Unlock()
		begin := func(ctx context.Context, m MemberChange) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := leader.ChangeMembers(ctx, m)
				done <- err
			}()
			c.settle()
			return done
		}
		transfer := begin(t.Context(), MemberChange{Kind: TransferLeader, ID: other})
		ctx, cancel := context.WithCancel(t.Context())
		left := begin(ctx, MemberChange{Kind: AddLearner, Member: Member{ID: 4}})
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left: %v", err)
		}
		if err := leader.change(c, MemberChange{Kind: AddLearner, Member: Member{ID: 5}}); err != nil {
			t.Errorf("the next one: %v", err)
		}
		if err := <-transfer; !errors.Is(err, ErrBusy) {
			t.Errorf("the transfer: %v", err)
		}
		if learners := leader.Status().Learners; !slices.Equal(learners, []uint64{5}) {
			t.Errorf("the learners are %v", learners)
		}
	})
}

// A cluster does not grow without end.
func TestThereAreNoMoreMembersThanTheLimit(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		for range 5 {
			c.tick(c.ids())
		}
		for id := uint64(2); id <= membersMax; id++ {
			if err := c.nodes[1].change(c, MemberChange{Kind: AddLearner, Member: Member{ID: id}}); err != nil {
				t.Fatal(err)
			}
		}
		var refusal *ChangeRefusal
		if err := c.nodes[1].change(c, MemberChange{Kind: AddLearner, Member: Member{ID: 100}}); !errors.As(err, &refusal) || refusal.Reason != ChangeConflict {
			t.Errorf("one more: %v", err)
		}
	})
}

// How far the members are is known on any of them, and what is asked in a way
// that this version does not know is refused.
func TestProgressIsKnownOnEveryMember(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		for id, n := range c.nodes {
			all, err := n.Progress(t.Context())
			if err != nil || len(all) != 3 || all[0].ID != 1 || !all[0].Active || all[0].Match == 0 {
				t.Errorf("member %d: %+v, %v", id, all, err)
			}
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		if _, err := leader.handleMembers(t.Context(), []byte{0xff}); err == nil {
			t.Error("what is no message was answered")
		}
		reply, err := leader.handleMembers(t.Context(), marshal(&peerv1.MemberRequest{Kind: 77}))
		if err != nil || len(reply.Data) == 0 {
			t.Errorf("a kind of the future: %+v, %v", reply, err)
		}
	})
}
