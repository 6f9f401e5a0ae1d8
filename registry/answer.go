package registry

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// Answer answers a member's question to its leader. The error is ErrNoLeader
// when this member does not lead, or did not lead throughout.
func (m *Machine) Answer(ctx context.Context, request []byte) ([]byte, error) {
	asked, ok := readAskToRenew(request)
	if !ok {
		return m.answerOther(ctx, request)
	}
	return m.answerRenewals(ctx, asked)
}

func (m *Machine) answerOther(ctx context.Context, request []byte) ([]byte, error) {
	var ask recordv1.Ask
	if err := proto.Unmarshal(request, &ask); err != nil {
		return nil, fmt.Errorf("decode a member's question: %w", err)
	}
	if ask.GetFormat() <= formatMax && ask.GetShareChecks() != nil {
		return m.shareChecks(ask.GetShareChecks())
	}
	if ask.GetFormat() <= formatMax && ask.GetTellReports() != nil {
		return m.tellReports(ask.GetTellReports())
	}
	if ask.GetFormat() > formatMax || ask.GetRenewLeases() == nil {
		return nil, fmt.Errorf("a member's question has format %d, or is of a kind that this version (up to %d) does not know", ask.GetFormat(), formatMax)
	}
	return m.answerRenewals(ctx, leaseRenewals(ask.GetRenewLeases().GetItems()))
}

func (m *Machine) answerRenewals(ctx context.Context, asked []leaseRenewal) ([]byte, error) {
	outcomes, err := m.renewLeases(ctx, asked)
	if err != nil {
		return nil, err
	}
	answer := &recordv1.Answer{Renewals: make([]recordv1.Answer_Renewal, len(outcomes))}
	for i, o := range outcomes {
		answer.Renewals[i] = o.record()
	}
	answer.GrantedMs = grantedMs(asked)
	return encode(answer), nil
}

func leaseRenewals(items []*recordv1.RenewItem) []leaseRenewal {
	asked := make([]leaseRenewal, len(items))
	for i, item := range items {
		asked[i] = leaseRenewal{key: keyOfRecord(item.GetKey()), ttl: time.Duration(item.GetLeaseTtlMs()) * time.Millisecond, proof: item.GetProof()}
	}
	return asked
}

// grantedMs is nil as long as nobody is given more than he asked for.
func grantedMs(asked []leaseRenewal) []int64 {
	var all []int64
	for i := range asked {
		if asked[i].granted != 0 && all == nil {
			all = make([]int64, len(asked))
		}
		if all != nil {
			all[i] = asked[i].granted.Milliseconds()
		}
	}
	return all
}

func (r renewal) record() recordv1.Answer_Renewal {
	switch r {
	case renewalDone:
		return recordv1.Answer_RENEWAL_DONE
	case renewalLog:
		return recordv1.Answer_RENEWAL_LOG
	case renewalWrong:
		return recordv1.Answer_RENEWAL_WRONG_TOKEN
	case renewalShared:
		return recordv1.Answer_RENEWAL_SHARED
	}
	return recordv1.Answer_RENEWAL_NOT_FOUND
}

// renewLeases extends the deadlines at once, so that no lease runs out while the
// barrier is on its way, and answers after it. Without it a leader that has been
// cut off would acknowledge renewals that its successor, who counts from its own
// beginning, never hears of. And what was registered or deregistered elsewhere
// before the question may not have been applied here before the barrier: so what
// counts is a second look at the leases, after it.
func (m *Machine) renewLeases(ctx context.Context, asked []leaseRenewal) ([]renewal, error) {
	barrier := m.barrier.Load()
	if barrier == nil {
		return nil, ErrNoLeader
	}
	term, _ := m.leases.renew(asked)
	if term == 0 {
		return nil, ErrNoLeader
	}
	if mutant("renewal_without_quorum") {
		barrier = new(func(context.Context) (Revision, error) { return 0, nil })
	}
	if _, err := (*barrier)(ctx); err != nil {
		return nil, fmt.Errorf("confirm the leadership for renewals: %w", err)
	}
	led, outcomes := m.leases.renew(asked)
	if led != term || !m.confirmed(term) {
		return nil, ErrNoLeader
	}
	m.leaveToLog(asked, outcomes)
	m.metrics.renewed(outcomes)
	return outcomes, nil
}

// leaveToLog has the log decide about instances that are known and have no
// lease: they have expired, or have just been registered.
func (m *Machine) leaveToLog(asked []leaseRenewal, outcomes []renewal) {
	for i := range asked {
		if outcomes[i] != renewalUnknown {
			continue
		}
		known := m.holding(asked[i].key)
		switch {
		case known == nil:
		case known.LeaseID != "":
			outcomes[i] = renewalShared
		case known.heldBy(asked[i].proof):
			outcomes[i] = renewalLog
		default:
			outcomes[i] = renewalWrong // which must not fill the log
		}
	}
}

// holding is what has the lease that is asked for, nil when nothing has it any
// more: an instance that has expired with its shared lease can be registered only.
func (m *Machine) holding(k InstanceKey) *Instance {
	if k.isShared() {
		return m.holdingShared(k.ID)
	}
	known, _ := m.instance(k)
	if known != nil && known.LeaseID != "" && !known.alive() {
		return nil
	}
	return known
}

// confirmed says whether the barrier that has just returned spoke for the leader
// of the term. It can be confirmed by a successor too; then it waited for an
// entry of the successor's term, and that has been published here.
func (m *Machine) confirmed(term uint64) bool { return m.term.Load() == term }
