package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/threads"
)

// The bounds of renewals on their way to the leader.
const (
	renewalsWaitingMax  = 65_536      // more are refused with ErrBusy
	renewalsPerAskMax   = 4_096       // in one question
	renewalsPerAskBytes = 1 << 20     // of names in one question
	askTimeout          = time.Second // for one question, the leader's barrier included
)

// A renewer asks the leader for renewals, for many at once when many come.
type renewer struct {
	*gatherer[*pendingRenewal]
	leader func(ctx context.Context, request []byte) ([]byte, error)
}

// A renewalCall is one caller who waits, be it for one renewal or for a batch of them.
type renewalCall struct {
	renewals []pendingRenewal
	left     int           // without an answer yet; the goroutine that answers alone looks at it
	done     chan struct{} // closed when none is left
}

// A pendingRenewal is one renewal that waits.
type pendingRenewal struct {
	key     InstanceKey
	ttlMs   int64 // 0 = keep
	by      Holder
	call    *renewalCall
	outcome recordv1.Answer_Renewal // these three are set before the call is done
	granted time.Duration           // the TTL that it was given, if it is longer than its own
	err     error
}

func newRenewalCall(renewals []pendingRenewal) *renewalCall {
	c := &renewalCall{renewals: renewals, left: len(renewals), done: make(chan struct{})}
	for i := range renewals {
		renewals[i].call = c
	}
	return c
}

func newRenewer(leader func(context.Context, []byte) ([]byte, error), refused prometheus.Counter, threads threads.Threads) *renewer {
	r := &renewer{leader: leader}
	r.gatherer = &gatherer[*pendingRenewal]{
		most: renewalsWaitingMax, refuse: func(n int) { refused.Add(float64(n)) }, fits: renewalsThatFit,
		ask: r.askLeader, settle: settleRenewals, timeout: askTimeout, threads: threads, wake: make(chan struct{}, 1),
	}
	return r
}

// renewAll waits for the leader's word on several renewals, and notes it with each
// of them. With an error nothing is known of any, and the caller must not look at
// them any more.
func (r *renewer) renewAll(ctx context.Context, renewals []pendingRenewal) error {
	call := newRenewalCall(renewals)
	if err := r.join(call.pointers()...); err != nil {
		return err
	}
	return r.await(ctx, call.done, "the leader's word on a renewal")
}

func (c *renewalCall) pointers() []*pendingRenewal {
	all := make([]*pendingRenewal, len(c.renewals))
	for i := range c.renewals {
		all[i] = &c.renewals[i]
	}
	return all
}

// settled is what the leader's word on a renewal means, once it is there: logged
// says that the log has to decide.
func (p *pendingRenewal) settled() (logged bool, err error) {
	switch {
	case p.err != nil:
		return false, p.err
	case p.outcome == recordv1.Answer_RENEWAL_DONE:
		return false, nil
	case p.outcome == recordv1.Answer_RENEWAL_LOG:
		return true, nil
	case p.outcome == recordv1.Answer_RENEWAL_NOT_FOUND:
		return false, p.missing()
	case p.outcome == recordv1.Answer_RENEWAL_SHARED:
		return false, ErrSharedLease
	case p.outcome == recordv1.Answer_RENEWAL_WRONG_TOKEN:
		return false, p.by.refused()
	}
	return false, fmt.Errorf("the leader's word %v is not known to this version", p.outcome)
}

func (p *pendingRenewal) record() *recordv1.RenewItem {
	return &recordv1.RenewItem{Key: keyToRecord(p.key), LeaseTtlMs: p.ttlMs, Proof: p.by.proof()}
}

// refused is why Apply did not take the renewal; nil when it did.
func (p *pendingRenewal) refused(reply *recordv1.Result) error {
	switch reply.GetCode() {
	case recordv1.Result_CODE_NOT_FOUND:
		return p.missing()
	case recordv1.Result_CODE_SHARED_LEASE:
		return ErrSharedLease
	}
	return p.by.judge(reply)
}

// missing says that there is nothing to renew.
func (p *pendingRenewal) missing() error {
	if p.key.isShared() {
		return ErrLeaseNotFound
	}
	return missingInstance(p.key, "register it again")
}

func settleRenewals(batch []*pendingRenewal, err error) {
	for _, p := range batch {
		p.err = err
		if p.call.left--; p.call.left == 0 {
			close(p.call.done)
		}
	}
}

// renewalsThatFit bounds a question by number and by bytes.
func renewalsThatFit(waiting []*pendingRenewal) int {
	n, size := 0, 0
	for n < len(waiting) && n < renewalsPerAskMax && size < renewalsPerAskBytes {
		k := waiting[n].key
		size += len(k.Namespace) + len(k.Service) + len(k.ID)
		n++
	}
	return n
}

func (r *renewer) askLeader(ctx context.Context, batch []*pendingRenewal) error {
	answer, err := r.answer(ctx, batch)
	if err != nil {
		return err
	}
	for i, p := range batch {
		p.outcome = answer.GetRenewals()[i]
		if granted := answer.GetGrantedMs(); granted != nil {
			p.granted = time.Duration(granted[i]) * time.Millisecond
		}
	}
	return nil
}

func (r *renewer) answer(ctx context.Context, batch []*pendingRenewal) (*recordv1.Answer, error) {
	reply, err := r.leader(ctx, appendAskToRenew(nil, batch))
	if err != nil {
		return nil, fmt.Errorf("ask the leader to renew %d leases: %w", len(batch), err)
	}
	var answer recordv1.Answer
	if err := proto.Unmarshal(reply, &answer); err != nil {
		return nil, fmt.Errorf("decode the leader's word on renewals: %w", err)
	}
	if len(answer.GetRenewals()) != len(batch) {
		return nil, fmt.Errorf("the leader answered %d renewals of %d", len(answer.GetRenewals()), len(batch))
	}
	if n := len(answer.GetGrantedMs()); n != 0 && n != len(batch) {
		return nil, fmt.Errorf("the leader tells %d TTLs of %d", n, len(batch))
	}
	return &answer, nil
}
