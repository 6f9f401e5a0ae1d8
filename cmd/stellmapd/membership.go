package main

import (
	"context"
	"errors"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/httpapi"
)

// membership is how the admin port reaches the consensus group.
type membership struct {
	group *consensus.Group
	// proves says whether a caller has proved to be a node. Nil = its word is taken.
	proves func(ctx context.Context, id uint64) error
}

var _ httpapi.Membership = membership{}

// sameChange pairs the kinds of changes.
var sameChange = map[httpapi.MemberChangeKind]consensus.MemberChangeKind{
	httpapi.AddLearner: consensus.AddLearner, httpapi.Promote: consensus.Promote, httpapi.Remove: consensus.Remove,
	httpapi.Replace: consensus.Replace, httpapi.AbandonReplace: consensus.AbandonReplace, httpapi.TransferLeader: consensus.TransferLeader,
}

// sameReason pairs the reasons of refusals.
var sameReason = map[consensus.ChangeReason]httpapi.MembershipReason{
	consensus.ChangeInvalid: httpapi.MembershipInvalid, consensus.ChangeUnknown: httpapi.MembershipUnknown, consensus.ChangeRemoved: httpapi.MembershipRemoved,
	consensus.ChangeConflict: httpapi.MembershipConflict, consensus.ChangeBehind: httpapi.MembershipBehind, consensus.ChangeQuorum: httpapi.MembershipQuorum,
}

func (m membership) Change(ctx context.Context, c httpapi.MemberChange) (registry.Revision, error) {
	index, err := m.group.ChangeMembers(ctx, consensus.MemberChange{
		Kind: sameChange[c.Kind], Member: memberOfBook(c.Member, ""), ID: c.ID, By: c.By, Force: c.Force,
	})
	return registry.Revision(index), asMembership(err)
}

func (m membership) TakeIn(ctx context.Context, node httpapi.Member, uuid string) (httpapi.Joining, error) {
	if m.proves != nil {
		if err := m.proves(ctx, node.ID); err != nil { // else any member's certificate takes any id
			return httpapi.Joining{}, &httpapi.MembershipError{Reason: httpapi.MembershipDenied, Text: err.Error()}
		}
	}
	j, err := m.group.TakeIn(ctx, memberOfBook(node, uuid))
	if err != nil {
		return httpapi.Joining{}, asMembership(err)
	}
	out := httpapi.Joining{ClusterID: j.ClusterID, Founders: j.Founders, Incarnation: j.Incarnation}
	for _, one := range j.Members {
		out.Members = append(out.Members, httpapi.JoiningMember{
			Member: httpapi.Member{ID: one.ID, HTTP: one.HTTP, XDS: one.XDS, GRPC: one.GRPC, Admin: one.Admin},
			UUID:   one.UUID, Since: one.Since, Removed: one.Removed,
		})
	}
	return out, nil
}

func (m membership) Progress(ctx context.Context) ([]httpapi.MemberProgress, error) {
	list, err := m.group.Progress(ctx)
	if err != nil {
		return nil, asRegistry(err)
	}
	out := make([]httpapi.MemberProgress, len(list))
	for i, p := range list {
		out[i] = httpapi.MemberProgress(p)
	}
	return out, nil
}

func memberOfBook(m httpapi.Member, uuid string) consensus.Member {
	return consensus.Member{ID: m.ID, UUID: uuid, HTTP: m.HTTP, XDS: m.XDS, GRPC: m.GRPC, Admin: m.Admin}
}

// asMembership keeps the text, which says what to do, and adds the surface's meaning.
func asMembership(err error) error {
	var refusal *consensus.ChangeRefusal
	switch {
	case errors.As(err, &refusal):
		return &httpapi.MembershipError{Reason: sameReason[refusal.Reason], Text: refusal.Text, Behind: refusal.Behind}
	case errors.Is(err, consensus.ErrBusy):
		return &httpapi.MembershipError{Reason: httpapi.MembershipBusy, Text: err.Error()}
	}
	return asRegistry(err)
}
