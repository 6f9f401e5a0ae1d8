package consensus

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
)

// changeKinds pairs the kinds of changes with their names on the wire.
var changeKinds = [...]struct {
	kind MemberChangeKind
	wire peerv1.MemberRequest_Kind
}{
	{AddLearner, peerv1.MemberRequest_KIND_ADD_LEARNER},
	{Promote, peerv1.MemberRequest_KIND_PROMOTE},
	{Remove, peerv1.MemberRequest_KIND_REMOVE},
	{Replace, peerv1.MemberRequest_KIND_REPLACE},
	{AbandonReplace, peerv1.MemberRequest_KIND_ABANDON},
	{TransferLeader, peerv1.MemberRequest_KIND_TRANSFER},
}

func (c MemberChange) proto() *peerv1.MemberRequest {
	r := &peerv1.MemberRequest{Member: c.Member.proto(), Id: c.ID, By: c.By, Force: c.Force}
	for _, pair := range changeKinds {
		if pair.kind == c.Kind {
			r.Kind = pair.wire
		}
	}
	return r
}

// changeOf leaves the kind 0 when this version does not know it.
func changeOf(r *peerv1.MemberRequest) MemberChange {
	c := MemberChange{Member: memberOf(r.GetMember()), ID: r.GetId(), By: r.GetBy(), Force: r.GetForce()}
	for _, pair := range changeKinds {
		if pair.wire == r.GetKind() {
			c.Kind = pair.kind
		}
	}
	return c
}

// forwardChange has the leader do it, and waits until it has come here too. A
// change may be asked for again, so what became of a lost one need not be known.
func (g *Group) forwardChange(ctx context.Context, leader uint64, c MemberChange) (uint64, error) {
	reply, answer, err := g.askAboutMembers(ctx, leader, c.proto())
	switch {
	case errors.Is(err, ErrBusy):
		return 0, err
	case err != nil:
		return 0, fmt.Errorf("%w any more, or not reached: node %d: %v", ErrNotLeader, leader, err)
	case answer.GetReason() != peerv1.MemberAnswer_REASON_UNSPECIFIED:
		return 0, &ChangeRefusal{ChangeReason(answer.GetReason()), answer.GetText(), answer.GetBehind()}
	case c.Kind == Remove && c.ID == g.config.ID:
		g.removed() // the others do not tell any more
		return reply.Index, nil
	}
	_, err = g.appliedHere(ctx, Reply{Index: reply.Index})
	return reply.Index, err
}

func (g *Group) askAboutMembers(ctx context.Context, leader uint64, r *peerv1.MemberRequest) (ForwardReply, *peerv1.MemberAnswer, error) {
	reply, err := g.forward(ctx, leader, ForwardRequest{Kind: ForwardMembers, Data: marshal(r)}, g.config.CommitTimeout)
	if err != nil {
		return ForwardReply{}, nil, err
	}
	answer := new(peerv1.MemberAnswer)
	if err := proto.Unmarshal(reply.Data, answer); err != nil {
		return ForwardReply{}, nil, fmt.Errorf("decode the answer of node %d: %w", leader, err)
	}
	return reply, answer, nil
}

// handleMembers answers a follower as its leader.
func (g *Group) handleMembers(ctx context.Context, data []byte) (ForwardReply, error) {
	var r peerv1.MemberRequest
	if err := proto.Unmarshal(data, &r); err != nil {
		return ForwardReply{}, fmt.Errorf("decode what is asked about the members: %w", err)
	}
	if r.GetKind() == peerv1.MemberRequest_KIND_PROGRESS {
		return g.handleProgress()
	}
	o := g.call(ctx, &call{kind: callChange, change: changeOf(&r), here: true})
	var refusal *ChangeRefusal
	if errors.As(o.err, &refusal) {
		return ForwardReply{Data: marshal(&peerv1.MemberAnswer{
			Reason: peerv1.MemberAnswer_Reason(refusal.Reason), Text: refusal.Text, Behind: refusal.Behind,
		})}, nil
	}
	return ForwardReply{Index: o.reply.Index, Data: marshal(&peerv1.MemberAnswer{})}, o.err
}

func (g *Group) handleProgress() (ForwardReply, error) {
	s := g.Status()
	if s.Role != RoleLeader {
		return ForwardReply{}, ErrNotLeader
	}
	answer := &peerv1.MemberAnswer{}
	for _, p := range s.Progress {
		answer.Progress = append(answer.Progress, &peerv1.MemberProgress{
			Id: p.ID, Match: p.Match, Behind: p.Behind, Learner: p.Learner, Active: p.Active, State: p.State,
		})
	}
	return ForwardReply{Data: marshal(answer)}, nil
}

// Progress is how far the members are, as the leader, whoever it is, knows.
func (g *Group) Progress(ctx context.Context) ([]MemberProgress, error) {
	s := g.Status()
	switch {
	case s.Role == RoleLeader:
		return s.Progress, nil
	case s.LeaderID == 0:
		return nil, fmt.Errorf("%w is known to this member", ErrNoLeader)
	}
	_, answer, err := g.askAboutMembers(ctx, s.LeaderID, &peerv1.MemberRequest{Kind: peerv1.MemberRequest_KIND_PROGRESS})
	if err != nil {
		return nil, askError(s.LeaderID, err)
	}
	var all []MemberProgress
	for _, p := range answer.GetProgress() {
		all = append(all, MemberProgress{p.GetId(), p.GetMatch(), p.GetBehind(), p.GetLearner(), p.GetActive(), p.GetState()})
	}
	return all, nil
}
