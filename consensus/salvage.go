package consensus

import (
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/storage"
)

// When a majority of a cluster is lost for good, what a survivor has is all
// there is. Its log may hold entries of which it never learned that they were
// committed; whoever wrote them may have been told that they were. So all of
// the log counts: an entry too many is a write whose caller was told that its
// outcome is unknown, an entry too few is an acknowledged write that is gone.

// Salvaged is what Salvage found in a log.
type Salvaged struct {
	From      storage.Position // where the state was
	Committed uint64           // known to the member to be committed
	Last      storage.Position // of the log, and of the state now
}

// salvageBytes is how much of the log is read at a time.
const salvageBytes = 4 << 20

// Salvage applies all that a member's log has to a copy of its state, committed
// or not. The member must not run, and the state is no member's any more: it is
// good for Restore only.
func Salvage(id storage.Identity, e *storage.Engine, log *storage.Log, m Machine) (Salvaged, error) {
	x, err := newSalvager(id, e, m)
	if err != nil {
		return Salvaged{}, err
	}
	at, contents := e.AppliedIndex(), log.Load()
	out := Salvaged{From: at, Committed: max(contents.HardState.Commit, at.Index), Last: at}
	if contents.First > at.Index+1 {
		return out, fmt.Errorf("the log begins at entry %d, and the state is that of entry %d: what lies between is not there", contents.First, at.Index)
	}
	for next := at.Index + 1; next <= contents.Last; next = out.Last.Index + 1 {
		stored, err := log.Entries(next, contents.Last+1, salvageBytes)
		if err != nil {
			return out, fmt.Errorf("read the log from entry %d on: %w", next, err)
		}
		if out.Last, err = x.applyAll(stored); err != nil {
			return out, err
		}
	}
	return out, e.Flush()
}

// newSalvager is an applier for whom changes of the configuration have no
// meaning: the new cluster has its own.
func newSalvager(id storage.Identity, e *storage.Engine, m Machine) (*applier, error) {
	f, err := loadFacts(e)
	if err != nil {
		return nil, fmt.Errorf("read the facts about the cluster: %w", err)
	}
	if f.featureLevel > FeatureLevel {
		return nil, fmt.Errorf("the cluster worked at feature level %d, this version knows up to %d: %w", f.featureLevel, FeatureLevel, errNotUnderstood)
	}
	requests, err := loadRequests(e)
	if err != nil {
		return nil, fmt.Errorf("read the remembered requests: %w", err)
	}
	time, err := loadTime(e)
	if err != nil {
		return nil, fmt.Errorf("read the time of the newest entry: %w", err)
	}
	x := &applier{
		id: id.NodeID, uuid: id.UUID, engine: e, machine: m, published: &atomic.Pointer[facts]{}, facts: f, requests: requests, time: time,
		applied: func(appliedBatch) {},
	}
	x.configure = func(_ uint64, _ pb.ConfChangeI) (*pb.ConfState, error) { return proto.CloneOf(x.facts.conf), nil }
	return x, nil
}

func (x *applier) applyAll(stored []storage.Entry) (storage.Position, error) {
	entries := make([]*pb.Entry, len(stored))
	for i := range stored {
		entries[i] = entryFromLog(&stored[i])
	}
	last := stored[len(stored)-1]
	return storage.Position{Index: last.Index, Term: last.Term}, x.apply(&pb.Message{Entries: entries, Responses: []*pb.Message{{}}})
}
