package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/stellmap/stellmap/storage"
)

// A member that did not found the cluster begins with nothing but its id and the
// UUID of its directory. It asks any member to be taken in, by which it becomes a
// learner, and is told what it cannot know. From then on it is sent all that the
// others have.
//
// Its log and its state are empty before it is sent a snapshot, in which it is a
// member itself. Its identity is "joining" until then: up to there it has promised
// nothing, so that nothing can be lost of it.

// Joining is what whoever is taken in is told of the cluster.
type Joining struct {
	ClusterID   uint64
	Founders    string
	Incarnation string
	Members     []Member // those that were removed too
}

// LogBase is where the log of a member begins that is opened for the first time.
// That of one that joins begins with nothing, so that it is sent a snapshot.
func LogBase(id storage.Identity) storage.Position {
	if id.Joined {
		return storage.Position{}
	}
	return Base()
}

// Join writes down what a member that is joining was told. It comes before the
// log is opened, and may come again after a start that did not get further.
func Join(file IdentityFile, id storage.Identity, j Joining) (storage.Identity, error) {
	switch {
	case id.Stage != storage.StageJoining:
		return id, fmt.Errorf("the data directory is %s: only one that is joining is told of its cluster", id.Stage)
	case j.ClusterID != id.ClusterID:
		return id, fmt.Errorf("the members that were asked are of cluster %d, and the configuration says %d", j.ClusterID, id.ClusterID)
	case j.Founders == "" || j.Incarnation == "":
		return id, errors.New("the cluster told neither who founded it nor its incarnation: ask a newer member of it")
	}
	id.Founders, id.Peers = j.Founders, make(map[uint64]string)
	for _, m := range j.Members {
		if m.UUID != "" && m.ID != id.NodeID {
			id.Peers[m.ID] = m.UUID
		}
	}
	if err := file.Save(id); err != nil {
		return id, fmt.Errorf("save the identity: %w", err)
	}
	return id, nil
}

// foundJoining is the start of a member that is joining. The last process may
// have ended when the first snapshot was there and this was not written down yet.
func (c *Config) foundJoining(r Recovery) (Recovery, error) {
	switch {
	case r.Engine.Index == 0 && r.LogLast == 0:
		r.Founded = true
		return r, nil
	case r.Engine.Index == 0:
		return r, fmt.Errorf("the member is still joining, but its log ends at %d and its state is empty: the identity file is an old copy", r.LogLast)
	}
	c.Identity.Stage = storage.StageReady
	if err := c.IdentityFile.Save(c.Identity); err != nil {
		return r, fmt.Errorf("save the identity: %w", err)
	}
	return r, nil
}

// joined says in the directory, durably, that this member has its first state,
// for which it will be held to what it promises.
func (a *acquaintances) joined() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.identity.Stage != storage.StageJoining {
		return nil
	}
	next := a.identity
	next.Stage = storage.StageReady
	if err := a.file.Save(next); err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	a.identity = next
	return nil
}

// TakeIn makes a node that asks for it a learner, unless it is a member already,
// and returns what it has to know.
func (g *Group) TakeIn(ctx context.Context, m Member) (Joining, error) {
	if m.UUID == "" {
		return Joining{}, refuse(ChangeInvalid, "node %d did not name its data directory", m.ID)
	}
	if _, err := g.ChangeMembers(ctx, MemberChange{Kind: AddLearner, Member: m}); err != nil {
		return Joining{}, err
	}
	f := g.facts.Load()
	if f.incarnation == "" {
		return Joining{}, fmt.Errorf("%w: the cluster has no incarnation yet", ErrBusy)
	}
	return Joining{
		ClusterID: g.config.ClusterID, Founders: g.config.Identity.Founders, Incarnation: f.incarnation,
		Members: slices.SortedFunc(maps.Values(f.members), byID),
	}, nil
}
