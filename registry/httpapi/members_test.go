package httpapi

import (
	"context"
	"fmt"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// fakeMembership does as it is told, refuses node ids above 10 for the reason
// that is the last digit, and keeps what it was asked.
type fakeMembership struct {
	*member
	asked []string
}

func (f *fakeMembership) Change(_ context.Context, c MemberChange) (registry.Revision, error) {
	f.asked = append(f.asked, fmt.Sprintf("%d: %+v", c.Kind, c))
	if c.ID > 10 {
		e := &MembershipError{Reason: MembershipReason(c.ID % 10), Text: fmt.Sprintf("node %d: not so, do this instead", c.ID)}
		if e.Reason == MembershipBehind {
			e.Behind = 20
		}
		return 0, e
	}
	f.set(func() {
		s := &f.status
		switch c.Kind {
		case AddLearner:
			s.Members, s.Learners = append(s.Members, c.Member), append(s.Learners, c.ID)
		case Promote:
			s.Voters, s.Learners = append(s.Voters, c.ID), nil
		case Remove:
			s.Voters, s.Removed = s.Voters[:len(s.Voters)-1], append(s.Removed, c.ID)
		case Replace:
			s.Replacement = &Replacement{c.ID, c.By}
		case AbandonReplace:
			s.Replacement = nil
		case TransferLeader:
			s.LeaderID = c.ID
		}
	})
	return 77, f.failed()
}

func (f *fakeMembership) failed() (err error) {
	f.log.Set(func() { err = f.log.Fault })
	return err
}

func (f *fakeMembership) TakeIn(_ context.Context, m Member, uuid string) (Joining, error) {
	f.asked = append(f.asked, fmt.Sprintf("join: %+v %s", m, uuid))
	return Joining{ClusterID: 100, Founders: "f0", Incarnation: "cafe", Members: []JoiningMember{
		{Member: Member{ID: 1, GRPC: "10.0.0.1:19090"}, UUID: "u1"}, {Member: m, UUID: uuid, Since: 7}, {Member: Member{ID: 3}, Removed: true},
	}}, f.failed()
}

func (f *fakeMembership) Progress(context.Context) ([]MemberProgress, error) {
	if err := f.failed(); err != nil {
		return nil, err
	}
	return []MemberProgress{{ID: 1, Match: 41, Active: true, State: "replicate"}, {ID: 4, Match: 11, Behind: 30, Learner: true, State: "snapshot"}}, nil
}

// takeAsked is what was asked since the last call.
func (f *fakeMembership) takeAsked() string {
	asked := f.asked
	f.asked = nil
	return strings.Join(asked, "\n") + "\n"
}
