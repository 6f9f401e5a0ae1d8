package consensus

import (
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// MemberProgress is how far a member's log is, in the leader's eyes.
type MemberProgress struct {
	ID      uint64
	Match   uint64 // its log is the leader's up to here
	Behind  uint64 // committed entries that it lacks
	Learner bool
	Active  bool   // it was heard lately
	State   string // probe, replicate or snapshot
}

// progressReplicates is the state of a member that is sent entries as they come.
const progressReplicates = "replicate"

var progressStates = map[tracker.StateType]string{
	tracker.StateProbe: "probe", tracker.StateReplicate: progressReplicates, tracker.StateSnapshot: "snapshot",
}

// lookAtProgress asks Raft, by id; nothing on a member that does not lead. It is
// the owner's.
func (g *Group) lookAtProgress() []MemberProgress {
	if g.leads == 0 {
		return nil
	}
	var all []MemberProgress
	g.node.WithProgress(func(id uint64, kind raft.ProgressType, p tracker.Progress) {
		one := MemberProgress{
			ID: id, Match: p.Match, Behind: g.commit - min(g.commit, p.Match), Learner: kind == raft.ProgressTypeLearner,
			Active: id == g.config.ID || g.heardLately(id), State: progressStates[p.State],
		}
		if id == g.config.ID {
			one.State = progressReplicates
		}
		all = append(all, one)
	})
	slices.SortFunc(all, func(a, b MemberProgress) int { return int(a.ID) - int(b.ID) })
	return all
}

// publishProgress shows others how far the members are.
func (g *Group) publishProgress() {
	all := g.lookAtProgress()
	g.progress.Store(&all)
}

// callOut has a learner that hears nobody say something to everybody: a voter
// campaigns then, and is told if it was removed, but a learner would wait for ever.
func (g *Group) callOut() {
	f := g.facts.Load()
	if g.leads != 0 || f.isVoter(g.config.ID) || g.ticks%uint64(2*g.config.ElectionTicks) != 0 {
		return
	}
	others := without(f.ids(), g.config.ID) // those of the configuration: a young cluster has no address book yet
	if len(others) == 0 {
		others = without(memberIDs(g.config.Joining.Members), g.config.ID)
	}
	if slices.ContainsFunc(others, g.heardLately) {
		return
	}
	for _, id := range others {
		g.sender.put(&pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: &g.config.ID, To: &id, Term: new(g.term)})
	}
}
