package consensus

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// Who was removed is needed a little longer.
//
// The entry that removes a member is committed by the old configuration, which it
// is part of. A member that has the entry, but has not heard yet that it is
// committed, goes on by the old configuration: of two voters, the one that is left
// needs the vote of the one that was removed, and if that one ended as soon as it
// knew, there would be no quorum any more, for good. The same is so after a start,
// since a commit index that moves alone is not synced.
//
// So a member that was removed stays, votes when it is asked, and ends when it is
// told that it may. The leader says so in the log, once it has applied the removal:
// each log that has this entry has before it, and synced with it at the latest,
// that the removal is committed. When it is committed itself, a quorum of those that stayed has it.

// removals are how far members were removed.
type removals struct {
	newest  uint64 // the entry that removed a member last; 0 = none
	settled uint64 // who was removed up to this entry is not needed any more
}

func (r removals) areSettled() bool { return r.settled >= r.newest }

// setRemovals changes them.
func (f *facts) setRemovals(b *storage.Batch, r removals) {
	f.removals = r
	b.Set([]byte(removalsKey), marshal(&peerv1.Removals{Newest: r.newest, Settled: r.settled}))
}

// settled is the entry that says so.
func (x *applier) settled(b *storage.Batch, payload []byte) error {
	var p peerv1.Removals
	if err := proto.Unmarshal(payload, &p); err != nil {
		return fmt.Errorf("decode how far removals are settled: %w", err)
	}
	f := x.ownFacts()
	f.setRemovals(b, removals{newest: f.removals.newest, settled: max(f.removals.settled, p.GetSettled())})
	return nil
}

// settleRemovals is the leader's. It has applied all that it speaks of.
func (g *Group) settleRemovals(f *facts) {
	g.proposeChange(&call{kind: callChange}, plan{kind: kindSettled, payload: marshal(&peerv1.Removals{Settled: f.removals.newest})})
}

// removalRefusal is what a member that was removed hears, if it was: that it may
// end, or only that nobody speaks with it.
func (f *facts) removalRefusal(id, cluster uint64) *Refusal {
	switch {
	case !f.members[id].Removed:
		return nil
	case !f.removals.areSettled():
		return &Refusal{RefusedID, fmt.Sprintf("node %d was removed from cluster %d, and may still be needed", id, cluster)}
	}
	return &Refusal{RefusedRemoved, removedText(id, cluster)}
}

// isRemoved tells whether this member was removed.
func (g *Group) isRemoved() bool { return g.facts.Load().members[g.config.ID].Removed }

// removedForGood tells whether it may end as well.
func (g *Group) removedForGood() bool {
	return g.isRemoved() && (g.facts.Load().removals.areSettled() || mutant("removed_ends_at_once"))
}

// Removed is closed once this member was removed. It may stay for its vote, but it
// is told nothing new, so nobody should hear of the cluster from it any more.
func (g *Group) Removed() <-chan struct{} { return g.gone }

// noticeRemoval ends a member that was removed and need not stay. It is the owner's.
func (g *Group) noticeRemoval() {
	switch {
	case !g.isRemoved():
	case g.removedForGood():
		g.removed()
	case !g.leaving:
		g.leaving = true
		g.log.Warn("this member was removed: it stays for its vote until the others say that they can do without it, and then ends")
		close(g.gone)
	}
}
