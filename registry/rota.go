package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// Who makes the checks is known by the leader: the members that have lately asked
// it who does. All share what it answers, so that each check is made by one of
// them. It is in memory and nobody relies on it: where two members think that a
// check is theirs it is made twice, and their words are fenced like anybody's.
type rota struct {
	now func() time.Time // set by newRota, never changed

	mu    sync.Mutex // guards what follows
	term  uint64     // that this was begun in
	begun time.Time  // since when the members have been asking without a gap
	last  time.Time  // when one of them asked
	heard map[uint64]time.Time
}

const (
	// rotaSilence is how long a member may be silent and still be counted on.
	rotaSilence = 2 * time.Second
	// rotaMembersMax bounds those that are remembered; a cluster has a handful.
	rotaMembersMax = 256
)

func newRota(now func() time.Time) *rota { return &rota{now: now} }

// sign notes that a member is there, and tells who is, sorted: nobody as long as
// some may not have had the time to say so.
func (r *rota) sign(term, member uint64) ([]uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if term != r.term || now.Sub(r.last) >= rotaSilence { // a new leader, or one that was asleep
		r.term, r.begun, r.heard = term, now, make(map[uint64]time.Time)
	}
	r.last = now
	var members []uint64
	for id, at := range r.heard {
		if now.Sub(at) >= rotaSilence && id != member {
			delete(r.heard, id)
			continue
		}
		members = append(members, id)
	}
	if _, known := r.heard[member]; !known {
		if len(r.heard) >= rotaMembersMax {
			return nil, fmt.Errorf("member %d cannot share in the checks: %d members already do", member, rotaMembersMax)
		}
		members = append(members, member)
	}
	r.heard[member] = now
	if now.Sub(r.begun) < rotaSilence {
		return nil, nil
	}
	slices.Sort(members)
	return members, nil
}

// shareChecks is the leader's answer to a member that makes checks. It needs no
// barrier: who is not the leader any more has nobody but himself on his rota, and
// his words on instances come to nothing.
func (m *Machine) shareChecks(ask *recordv1.ShareChecks) ([]byte, error) {
	term := m.leases.leading()
	if term == 0 {
		return nil, ErrNoLeader
	}
	members, err := m.rota.sign(term, ask.GetMember())
	if err != nil {
		return nil, err
	}
	return encode(&recordv1.Answer{Checkers: members}), nil
}

// Checkers tells the leader that a member makes checks, and is told who does,
// sorted; nobody when the leader does not know yet.
func (r *Registry) Checkers(ctx context.Context, member uint64) ([]uint64, error) {
	ask := &recordv1.Ask{Format: formatMax, Kind: &recordv1.Ask_ShareChecks{ShareChecks: &recordv1.ShareChecks{Member: member}}}
	reply, err := r.replicator.AskLeader(ctx, encode(ask))
	if err != nil {
		return nil, fmt.Errorf("ask the leader who makes checks: %w", err)
	}
	var answer recordv1.Answer
	if err := proto.Unmarshal(reply, &answer); err != nil {
		return nil, fmt.Errorf("decode the leader's word on who makes checks: %w", err)
	}
	return answer.GetCheckers(), nil
}
