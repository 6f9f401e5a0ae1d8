package consensus

import (
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// What the entries that change the members do where they are applied.

// Replacement is one voter that takes another's place.
type Replacement struct {
	Old, New uint64
	Since    uint64 // the entry that began it
}

func (r Replacement) proto() *peerv1.Replacement {
	return &peerv1.Replacement{Old: r.Old, New: r.New, Since: r.Since}
}

// replacementOf is nil when no ids are named.
func replacementOf(p *peerv1.Replacement) *Replacement {
	if p.GetOld() == 0 || p.GetNew() == 0 {
		return nil
	}
	return &Replacement{Old: p.GetOld(), New: p.GetNew(), Since: p.GetSince()}
}

// confChange applies a change of Raft's configuration, with the line of the
// address book that it carries. What cannot be is refused in the same way on
// every member: the leader checked it already, so this is for its mistakes.
func (x *applier) confChange(b *storage.Batch, r result, e *pb.Entry, cc interface {
	proto.Message
	pb.ConfChangeI
}) (result, error) {
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return r, fmt.Errorf("decode a change of the configuration: %w", err)
	}
	change := cc.AsV2()
	m, err := x.changedMember(change.GetContext())
	if err != nil {
		return r, err
	}
	if r.err = x.facts.refuses(change); r.err != nil {
		return r, nil
	}
	if m.ID == x.id && isAnother(m.UUID, x.uuid) {
		return r, fmt.Errorf("%w: %w", ErrRefused, uuidRefusal(Member{ID: x.id, UUID: x.uuid}, m.UUID))
	}
	conf, err := x.configure(r.index, change)
	if err != nil {
		return r, err
	}
	if conf == nil {
		return r, errSuperseded
	}
	x.ownFacts().setMembers(b, conf, m, r.index)
	return r, nil
}

// changedMember is the line of the address book that goes with a change; one
// without an id for none.
func (x *applier) changedMember(data []byte) (Member, error) {
	if len(data) == 0 {
		return Member{}, nil
	}
	env, err := decodeEnvelope(data)
	if err != nil {
		return Member{}, err
	}
	if env.kind != kindChange {
		return Member{}, fmt.Errorf("a change of the configuration with kind %d: %w", env.kind, errNotUnderstood)
	}
	x.time = max(x.time, env.time)
	var m peerv1.Member
	if err := proto.Unmarshal(env.payload, &m); err != nil {
		return Member{}, fmt.Errorf("decode the member of a change: %w", err)
	}
	return memberOf(&m), nil
}

// refuses is why a change must not reach Raft, which would end the process.
func (f *facts) refuses(change *pb.ConfChangeV2) error {
	_, enters := change.EnterJoint()
	if change.LeaveJoint() != f.isJoint() {
		return refuse(ChangeConflict, "the configuration is joint: %v, and the change leaves a joint one: %v", f.isJoint(), change.LeaveJoint())
	}
	voters := slices.Clone(f.conf.GetVoters())
	for _, c := range change.GetChanges() {
		switch {
		case c.GetType() == pb.ConfChangeRemoveNode:
			voters = without(voters, c.GetNodeId())
		case f.members[c.GetNodeId()].Removed:
			return removedRefusal(c.GetNodeId())
		case c.GetType() == pb.ConfChangeAddNode:
			voters = append(without(voters, c.GetNodeId()), c.GetNodeId())
		case c.GetType() == pb.ConfChangeAddLearnerNode:
			voters = without(voters, c.GetNodeId())
		}
	}
	if len(voters) == 0 {
		return refuse(ChangeQuorum, "no voter would be left")
	}
	if moved := difference(voters, f.conf.GetVoters()); moved > 1 && !enters {
		return refuse(ChangeInvalid, "%d voters change at once without a joint configuration", moved)
	}
	return nil
}

// difference is how many are in one of the two only.
func difference(a, b []uint64) int {
	only := func(a, b []uint64) int { return count(a, func(id uint64) bool { return !slices.Contains(b, id) }) }
	return only(a, b) + only(b, a)
}

// setMembers takes the new configuration over. Whoever came gets its line in the
// address book, whoever went keeps it for ever, and a replacement that has come
// to its end, or cannot come to one, is over.
func (f *facts) setMembers(b *storage.Batch, conf *pb.ConfState, m Member, index uint64) {
	before := f.ids()
	f.setConf(b, conf)
	after := f.ids()
	for _, id := range after {
		if slices.Contains(before, id) {
			continue
		}
		line := f.members[id]
		if m.ID == id {
			line = m.over(line)
		}
		line.ID, line.Since = id, index
		f.putMember(b, line)
	}
	for _, id := range before {
		if slices.Contains(after, id) {
			continue
		}
		line := f.members[id]
		line.ID, line.Removed = id, true
		f.putMember(b, line)
		f.setRemovals(b, removals{newest: index, settled: f.removals.settled})
	}
	if r := f.replacement; r != nil && (!f.isMember(r.Old) || f.members[r.New].Removed) {
		f.setReplacement(b, nil)
	}
}

// replacement begins one, or gives up the one that is under way.
func (x *applier) replacement(b *storage.Batch, r result, payload []byte) (result, error) {
	var p peerv1.Replacement
	if err := proto.Unmarshal(payload, &p); err != nil {
		return r, fmt.Errorf("decode a replacement: %w", err)
	}
	next := replacementOf(&p)
	if next != nil {
		next.Since = r.index
		if r.err = x.facts.refusesReplacement(next); r.err != nil {
			return r, nil
		}
	}
	x.ownFacts().setReplacement(b, next)
	return r, nil
}

func (f *facts) refusesReplacement(r *Replacement) error {
	switch {
	case f.replacement != nil:
		return refuse(ChangeConflict, "node %d is already taking the place of node %d", f.replacement.New, f.replacement.Old)
	case !f.isVoter(r.Old) || f.isVoter(r.New) || f.members[r.New].Removed:
		return refuse(ChangeConflict, "node %d cannot take the place of node %d any more: the voters are %v", r.New, r.Old, f.conf.GetVoters())
	}
	return nil
}
