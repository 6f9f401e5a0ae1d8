package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Members come and go by entries in the log: a change of Raft's configuration
// that carries the member's line of the address book with it, so that no member
// ever knows the one without the other.
//
// Any member may be asked; the leader decides. It looks at what is applied, so
// it begins when an entry of its own term is, and it has one change under way at
// a time. What it decided is checked again where it is applied. A change that is
// already so is done, so asking twice does no harm.
//
// A voter begins as a learner, which is sent everything and counts for nothing,
// and is promoted when it has nearly all. One voter takes another's place in a
// joint change: both configurations have to agree until it is left, so at no
// moment are there fewer to rely on than before. That the one shall follow the
// other is written in the log first, and whoever leads carries it on.
//
// An id that was removed is never given out again: what its old owner voted is
// nobody's to repeat. Who was removed stays until the others can do without it,
// see removal.go.

// MemberChangeKind is what shall become of a member.
type MemberChangeKind uint8

// Kinds of a MemberChange.
const (
	AddLearner     MemberChangeKind = iota + 1 // Member is sent everything and does not vote
	Promote                                    // ID votes
	Remove                                     // ID is no member any more, for ever
	Replace                                    // By takes the place of ID
	AbandonReplace                             // the replacement that is under way is given up
	TransferLeader                             // ID leads; 0 = whoever is nearest
)

// MemberChange is one change of the members.
type MemberChange struct {
	Kind   MemberChangeKind
	Member Member // of AddLearner
	ID     uint64 // of the others
	By     uint64 // of Replace
	// Force removes a voter also when no quorum that lives would be left: nothing
	// is written from then on until enough of the others are back.
	Force bool
}

// ChangeReason is why a MemberChange is refused.
type ChangeReason uint8

// Reasons of a ChangeRefusal.
const (
	ChangeInvalid  ChangeReason = iota + 1 // it could never be done
	ChangeUnknown                          // the id is no member's and never was
	ChangeRemoved                          // the id was a member's that was removed
	ChangeConflict                         // it does not go with how the cluster is now
	ChangeBehind                           // the member lacks too much to count on it
	ChangeQuorum                           // no quorum would be left
)

// ChangeRefusal says why a change of the members is not made. Nothing was done.
type ChangeRefusal struct {
	Reason ChangeReason
	Text   string
	Behind uint64 // with ChangeBehind: how many entries are missing
}

func (r *ChangeRefusal) Error() string { return r.Text }

func refuse(reason ChangeReason, format string, args ...any) error {
	return &ChangeRefusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// membersMax is how many members there may be, learners included; another is
// refused. Each costs the leader every entry once more.
const membersMax = 15

// ChangeMembers makes a change and returns when it is applied here; a Replace,
// when it is in the log: Status shows how far it is. The error is a
// *ChangeRefusal or one of this package's. It may always be tried again.
func (g *Group) ChangeMembers(ctx context.Context, m MemberChange) (uint64, error) {
	c := &call{kind: callChange, change: m}
	for {
		o := g.call(ctx, c)
		if o.err == nil && o.leader != 0 {
			o.reply.Index, o.err = g.forwardChange(ctx, o.leader, m)
		}
		switch {
		case o.err == nil:
			return o.reply.Index, nil
		case !errors.Is(o.err, ErrNotLeader) || ctx.Err() != nil:
			return 0, o.err
		}
		c = &call{kind: callChange, change: m, deadline: o.deadline, again: true}
	}
}

// HandOver gives the leadership, if this member has it, to whoever is nearest.
// It is for a member that is about to stop: the others need not notice first.
func (g *Group) HandOver(ctx context.Context) error {
	if s := g.Status(); s.Role != RoleLeader || g.onlyVoter() {
		return nil
	}
	o := g.call(ctx, &call{kind: callChange, change: MemberChange{Kind: TransferLeader}, here: true})
	if errors.Is(o.err, ErrNotLeader) {
		return nil
	}
	return o.err
}

// dispatchChange sends a change on its way if a leader is known.
func (g *Group) dispatchChange(c *call) {
	switch {
	case c.deadline <= g.ticks:
		g.expireChange(c)
	case g.leads == 0 && g.tookOver(c):
		c.finish(outcome{reply: Reply{Index: g.applied}})
	case c.change.Kind == Remove && c.change.ID == g.config.ID && g.isRemoved():
		c.finish(outcome{reply: Reply{Index: g.applied}}) // by force, and it led: nobody else answers
	case g.leads == 0 && c.here && (c.successor == 0 || g.leader != 0):
		c.finish(outcome{err: ErrNotLeader})
	case g.leader == 0:
		g.waitForLeader(c)
	case g.leads == 0:
		c.finish(outcome{leader: g.leader})
	default:
		g.change(c)
	}
}

// tookOver tells whether a transfer has come to its end.
func (g *Group) tookOver(c *call) bool {
	if c.change.Kind != TransferLeader || g.leader == 0 {
		return false
	}
	return c.change.ID == g.leader || c.change.ID == 0 && c.successor != 0
}

// expireChange ends a change whose turn did not come.
func (g *Group) expireChange(c *call) {
	switch {
	case g.leads == 0:
		c.finish(outcome{err: fmt.Errorf("%w that could make the change was found within %v", ErrNoLeader, g.config.CommitTimeout)})
	case c.successor != 0:
		c.finish(outcome{err: fmt.Errorf("%w: node %d did not take over the leadership in time", ErrBusy, c.successor)})
	default:
		c.finish(outcome{err: fmt.Errorf("%w: another change of the members is under way", ErrBusy)})
	}
}

// mayChange tells whether this leader knows all changes that were made before,
// and has none under way.
func (g *Group) mayChange() bool {
	return g.leads != 0 && g.appliedTerm == g.leads && (g.changing == nil || g.changing.done) && g.successor() == 0
}

// successor is whom the leadership is being handed to, 0 for nobody.
func (g *Group) successor() uint64 { return g.node.BasicStatus().LeadTransferee }

// change is the leader's.
func (g *Group) change(c *call) {
	if !g.mayChange() || g.facts.Load().isJoint() && c.change.Kind != Replace && c.change.Kind != TransferLeader {
		g.waitForLeader(c) // and look again after a tick: a joint configuration does not last
		return
	}
	p, err := g.plan(c.change)
	switch {
	case err != nil:
		c.finish(outcome{err: err})
	case p.successor != 0 && c.successor != 0:
		c.finish(outcome{err: fmt.Errorf("%w: node %d did not take over the leadership within an election time-out", ErrBusy, c.successor)})
	case p.successor != 0:
		c.successor = p.successor
		g.node.TransferLeader(p.successor)
		g.waitForLeader(c)
	case p.waits:
		g.waitForLeader(c) // and look again after a tick
	case p.conf == nil && p.kind == 0:
		c.finish(outcome{reply: Reply{Index: g.applied}}) // it is so
	default:
		g.proposeChange(c, p)
	}
}

func (g *Group) proposeChange(c *call, p plan) {
	c.conf, c.entryKind, c.data = p.conf, p.kind, p.payload
	g.changing = c
	g.enqueue(c)
	if c.state.Load() == callLeft {
		c.done = true // nobody waits for it, and nothing was proposed
	}
}

// plan is what a leader does about a change. Nothing when it is so already.
type plan struct {
	conf      *pb.ConfChangeV2 // to be proposed, with an envelope of kind and payload in it
	kind      entryKind        // without conf: the entry to be proposed
	payload   []byte
	successor uint64 // the leadership goes there first
	waits     bool   // for what the leader does by itself
}

// changeOfOne changes what one member is.
func changeOfOne(t pb.ConfChangeType, id uint64, record Member) plan {
	return plan{conf: &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{single(t, id)}}, kind: kindChange, payload: marshal(record.proto())}
}

func single(t pb.ConfChangeType, id uint64) *pb.ConfChangeSingle {
	return &pb.ConfChangeSingle{Type: t.Enum(), NodeId: &id}
}

// plan decides. It changes nothing.
func (g *Group) plan(c MemberChange) (plan, error) {
	f := g.facts.Load()
	switch c.Kind {
	case AddLearner:
		return g.planAdd(f, c.Member)
	case Promote:
		return g.planPromote(f, c.ID)
	case Remove:
		return g.planRemove(f, c.ID, c.Force)
	case Replace:
		return g.planReplace(f, c.ID, c.By)
	case AbandonReplace:
		if f.replacement == nil {
			return plan{}, nil
		}
		return plan{kind: kindReplacement, payload: marshal(Replacement{}.proto())}, nil
	case TransferLeader:
		return g.planTransfer(f, c.ID)
	}
	return plan{}, refuse(ChangeInvalid, "a change of kind %d is not known to this version", c.Kind)
}

func (g *Group) planAdd(f *facts, m Member) (plan, error) {
	have := f.members[m.ID]
	switch {
	case m.ID == 0:
		return plan{}, refuse(ChangeInvalid, "a node id is above 0")
	case have.Removed:
		return plan{}, removedRefusal(m.ID)
	case m.UUID != "" && !g.mayBind(f, have, m):
		return plan{}, refuse(ChangeConflict, "node id %d is that of a member with another data directory: begin with an id that was never used. "+
			"If it is that member's whose directory was lost, %s", m.ID, replaceHint(m.ID))
	case f.isMember(m.ID):
		return planAddress(have, m)
	case f.size() >= membersMax:
		return plan{}, refuse(ChangeConflict, "there are %d members, and no cluster has more: remove one first", f.size())
	}
	return changeOfOne(pb.ConfChangeAddLearnerNode, m.ID, m), nil
}

// mayBind tells whether the id may be that of the data directory that asks for
// it. What the book does not say yet, since a founder has not introduced itself,
// may be known to this member; and a founder does not ask to be taken in.
func (g *Group) mayBind(f *facts, have, m Member) bool {
	switch bound := g.acquaintances.boundTo(m.ID); {
	case have.UUID != "":
		return have.UUID == m.UUID
	case m.ID == g.config.ID || f.isMember(m.ID) && have.Since == 0:
		return false
	default:
		return bound == "" || bound == m.UUID
	}
}

// planAddress: whoever has introduced itself says itself where it is reached.
func planAddress(have, m Member) (plan, error) {
	if m.UUID == "" {
		m.UUID = have.UUID
	}
	if m = m.over(have); m == have {
		return plan{}, nil
	}
	if have.UUID != "" && m.UUID == have.UUID {
		return plan{}, refuse(ChangeConflict, "node %d is a member already, and says itself where it is reached: set its addresses in its own configuration", m.ID)
	}
	return plan{kind: kindMember, payload: marshal(m.proto())}, nil
}

func (g *Group) planPromote(f *facts, id uint64) (plan, error) {
	switch {
	case f.isVoter(id):
		return plan{}, nil
	case !f.isMember(id):
		return plan{}, noMember(f, id)
	}
	if err := g.caughtUp(id); err != nil {
		return plan{}, err
	}
	return changeOfOne(pb.ConfChangeAddNode, id, Member{ID: id}), nil
}

func (g *Group) planRemove(f *facts, id uint64, force bool) (plan, error) {
	switch {
	case f.members[id].Removed:
		return plan{waits: !force && !f.removals.areSettled()}, nil
	case !f.isMember(id):
		return plan{}, noMember(f, id)
	case !f.isVoter(id):
		return changeOfOne(pb.ConfChangeRemoveNode, id, Member{ID: id}), nil
	}
	rest := without(f.conf.GetVoters(), id)
	if len(rest) == 0 {
		return plan{}, refuse(ChangeQuorum, "node %d is the only voter, and without one there is no cluster: promote another first", id)
	}
	if silent := g.silent(rest); len(rest)-len(silent) < len(rest)/2+1 && !force {
		return plan{}, refuse(ChangeQuorum, "without node %d the voters are %v, of which %v are not heard: no quorum would be left, and nothing could be written. "+
			"Start these first, or replace one with `stellmapctl member replace`; --force removes it anyway, and then all writes stop until enough of them are back", id, rest, silent)
	}
	if id == g.config.ID {
		if to := g.nearest(rest); to != 0 {
			return plan{successor: to}, nil
		}
		if !force {
			return plan{}, refuse(ChangeConflict, "node %d leads, and none of %v is near enough to take over: try again when one is", id, rest)
		}
	}
	return changeOfOne(pb.ConfChangeRemoveNode, id, Member{ID: id}), nil
}

func (g *Group) planReplace(f *facts, old, by uint64) (plan, error) {
	r := f.replacement
	switch {
	case old == 0 || by == 0 || old == by:
		return plan{}, refuse(ChangeInvalid, "one node takes another's place: name two ids")
	case r != nil && r.Old == old && r.New == by, f.members[old].Removed && f.isVoter(by):
		return plan{}, nil
	case r != nil:
		return plan{}, refuse(ChangeConflict, "node %d is already taking the place of node %d: wait until it has, or give that up with `stellmapctl member replace --abandon`", r.New, r.Old)
	case f.members[by].Removed:
		return plan{}, removedRefusal(by)
	case !f.isMember(old):
		return plan{}, noMember(f, old)
	case !f.isVoter(old):
		return plan{}, refuse(ChangeConflict, "node %d is a learner, whose place nobody needs to take: remove it with `stellmapctl member remove %d`", old, old)
	case f.isVoter(by):
		return plan{}, refuse(ChangeConflict, "node %d votes already: remove node %d with `stellmapctl member remove %d`", by, old, old)
	}
	voters := append(without(f.conf.GetVoters(), old), by)
	if silent := without(g.silent(voters), by); len(voters)-len(silent) < len(voters)/2+1 {
		return plan{}, refuse(ChangeQuorum, "with node %d in the place of node %d the voters are %v, of which %v are not heard: no quorum would be left. Start these first", by, old, voters, silent)
	}
	return plan{kind: kindReplacement, payload: marshal(Replacement{Old: old, New: by}.proto())}, nil
}

func (g *Group) planTransfer(f *facts, to uint64) (plan, error) {
	switch {
	case to == g.config.ID:
		return plan{}, nil
	case to == 0:
		if to = g.nearest(without(f.conf.GetVoters(), g.config.ID)); to == 0 {
			return plan{}, refuse(ChangeConflict, "no other voter is near enough to take over the leadership")
		}
	case !f.isMember(to):
		return plan{}, noMember(f, to)
	case !slices.Contains(f.conf.GetVoters(), to):
		return plan{}, refuse(ChangeConflict, "node %d does not vote, so it cannot lead: promote it first with `stellmapctl member promote %d`", to, to)
	default:
		if err := g.caughtUp(to); err != nil {
			return plan{}, err
		}
	}
	return plan{successor: to}, nil
}

// caughtUp is nil when a member has nearly everything and is heard.
func (g *Group) caughtUp(id uint64) error {
	var p MemberProgress
	for _, one := range g.lookAtProgress() {
		if one.ID == id {
			p = one
		}
	}
	switch {
	case p.Match == 0:
		return &ChangeRefusal{ChangeBehind, fmt.Sprintf("node %d has not got anything yet: start it with `[cluster] join`, and wait until it has caught up", id), g.commit}
	case !p.Active:
		return &ChangeRefusal{ChangeBehind, fmt.Sprintf("node %d is not heard, and was %d entries behind when it last was: start it, or look at its log", id, p.Behind), p.Behind}
	case p.State != progressReplicates || p.Behind > g.config.BehindMax:
		return &ChangeRefusal{ChangeBehind, fmt.Sprintf("node %d is %d entries behind, %d are allowed: try again when it has caught up", id, p.Behind, g.config.BehindMax), p.Behind}
	}
	return nil
}

// nearest is the one of the ids that is caught up best, 0 for none.
func (g *Group) nearest(ids []uint64) uint64 {
	best, match := uint64(0), uint64(0)
	for _, p := range g.lookAtProgress() {
		if slices.Contains(ids, p.ID) && p.ID != g.config.ID && !p.Learner && g.caughtUp(p.ID) == nil && (best == 0 || p.Match > match) {
			best, match = p.ID, p.Match
		}
	}
	return best
}

// silent are those of the ids that this member does not hear.
func (g *Group) silent(ids []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return id == g.config.ID || g.heardLately(id) })
}

func without(ids []uint64, id uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(ids), func(i uint64) bool { return i == id })
}

func noMember(f *facts, id uint64) error {
	if f.members[id].Removed {
		return refuse(ChangeRemoved, "node %d was removed from the cluster", id)
	}
	return refuse(ChangeUnknown, "node %d is not a member: the voters are %v and the learners %v", id, f.conf.GetVoters(), f.conf.GetLearners())
}

func removedRefusal(id uint64) error {
	return refuse(ChangeRemoved, "node id %d was removed from the cluster, and ids are never given out twice: "+
		"begin with an empty data directory and an id that was never used", id)
}

// carryOn is the leader's housekeeping of the members: a joint configuration is
// left, whoever entered it, and a replacement goes on.
func (g *Group) carryOn() {
	if !g.mayChange() {
		return
	}
	f := g.facts.Load()
	if f.isJoint() && !mutant("joint_change_is_not_left") {
		g.leaveJoint(f)
		return
	}
	if !f.removals.areSettled() {
		g.settleRemovals(f)
		return
	}
	r := f.replacement
	if r == nil || mutant("replacement_is_not_carried_on") || !f.isMember(r.New) || g.caughtUp(r.New) != nil {
		return // it waits for the new one
	}
	if others := without(f.conf.GetVoters(), r.Old); r.Old == g.config.ID && len(others) > 0 {
		if to := g.nearest(others); to != 0 {
			g.node.TransferLeader(to) // who carries it on
		}
		return
	}
	g.proposeChange(&call{kind: callChange}, plan{kind: kindChange, conf: &pb.ConfChangeV2{
		Transition: pb.ConfChangeTransitionJointExplicit.Enum(),
		Changes:    []*pb.ConfChangeSingle{single(pb.ConfChangeAddNode, r.New), single(pb.ConfChangeRemoveNode, r.Old)},
	}})
}

// leaveJoint ends a joint configuration. A leader that will not be in the next
// one first gives the leadership to one that is: it ends as soon as it has applied
// the change, perhaps before it has told anybody that it is committed, and if it
// was the only voter nobody could be elected without it.
func (g *Group) leaveJoint(f *facts) {
	next := f.conf.GetVoters()
	if slices.Contains(next, g.config.ID) {
		g.proposeChange(&call{kind: callChange}, plan{conf: &pb.ConfChangeV2{}, kind: kindChange})
		return
	}
	if to := g.nearest(next); to != 0 {
		g.node.TransferLeader(to)
	}
}
