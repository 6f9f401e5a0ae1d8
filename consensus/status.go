package consensus

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

// Role is what a member does in its term.
type Role string

// Roles.
const (
	RoleFollower  Role = "follower"
	RoleCandidate Role = "candidate"
	RoleLeader    Role = "leader"
)

// Status is how a member sees the cluster.
type Status struct {
	ID, ClusterID   uint64
	LeaderID        uint64 // 0 when none is known
	Term            uint64
	Role            Role
	Commit, Applied uint64
	Incarnation     string // empty until the first leader's choice is applied here
	FeatureLevel    uint32
	Confirmed       bool      // a ReadIndex round was answered, and its index applied, since the start
	Fresh           time.Time // everything that was committed before is applied here; zero = it is not known since the start
	Members         []Member  // the replicated address book, by id
	Voters          []uint64
	VotersOutgoing  []uint64 // of the configuration that is being left
	Learners        []uint64
	Removed         []uint64         // ids that are nobody's any more
	Replacement     *Replacement     // that is under way; nil for none
	Progress        []MemberProgress // the leader's view of all members; nil on others
	Low             bool             // this member's disk is nearly full
	LowMembers      []uint64         // a leader's view: the voters whose disks are
	LogFirst        uint64           // the oldest entry in this member's log
	Check           Check            // how far the members' states are known to be equal
	Snapshot        uint64           // the index of this member's newest snapshot; 0 for none
}

// Status is as of the owner's last turn. A call that returned is part of it.
func (g *Group) Status() Status {
	s := *g.status.Load()
	f := g.facts.Load()
	s.Incarnation, s.FeatureLevel, s.Members, s.Voters = f.incarnation, f.featureLevel, f.book(), slices.Clone(f.conf.GetVoters())
	s.VotersOutgoing, s.Learners = slices.Clone(f.conf.GetVotersOutgoing()), slices.Clone(f.conf.GetLearners())
	s.Removed, s.Replacement = f.removed(), f.replacement
	s.LogFirst, s.Snapshot = g.config.Log.FirstIndex(), g.newestSnapshot()
	s.Low, s.Check = g.Low(), f.checkStatus()
	if s.Role == RoleLeader {
		s.LowMembers = g.lowMembers()
		s.Progress = *g.progress.Load()
	}
	return s
}

// IDs are those of all members, learners included, in order.
func (s *Status) IDs() []uint64 {
	all := slices.Concat(s.Voters, s.VotersOutgoing, s.Learners)
	slices.Sort(all)
	return slices.Compact(all)
}

// publishStatus shows others what the owner knows.
func (g *Group) publishStatus() {
	if g.confirms != 0 && g.applied >= g.confirms {
		g.confirmed = true
	}
	if g.applied >= g.answered.index {
		g.fresh = g.answered
	}
	next := Status{
		ID: g.config.ID, ClusterID: g.config.ClusterID, LeaderID: g.leader, Term: g.term, Role: g.role(),
		Commit: g.commit, Applied: g.applied, Confirmed: g.confirmed, Fresh: g.fresh.at,
	}
	if last := g.status.Load(); last == nil || !last.same(&next) {
		g.status.Store(&next)
	}
}

func (s *Status) same(o *Status) bool {
	return s.LeaderID == o.LeaderID && s.Term == o.Term && s.Role == o.Role && s.Commit == o.Commit && s.Applied == o.Applied && s.Confirmed == o.Confirmed && s.Fresh.Equal(o.Fresh)
}

func (g *Group) role() Role {
	if g.leads != 0 {
		return RoleLeader
	}
	switch g.node.BasicStatus().RaftState {
	case raft.StateCandidate, raft.StatePreCandidate:
		return RoleCandidate
	}
	return RoleFollower
}
