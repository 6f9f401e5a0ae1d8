package registry

import (
	"context"
	"fmt"
	"sync"
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

// A renewer gathers the renewals that arrive while a question is on its way to
// the leader, and sends them with the next. So the number of questions follows
// the time that the leader takes, not the number of instances.
type renewer struct {
	ask     func(ctx context.Context, request []byte) ([]byte, error)
	refused prometheus.Counter
	threads threads.Threads
	wake    chan struct{} // holds one token while something waits

	mu      sync.Mutex // guards what follows
	waiting []*pendingRenewal
	stopped bool
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

func newRenewer(ask func(context.Context, []byte) ([]byte, error), refused prometheus.Counter, threads threads.Threads) *renewer {
	return &renewer{ask: ask, refused: refused, threads: threads, wake: make(chan struct{}, 1)}
}

// renewAll waits for the leader's word on several renewals, and notes it with each
// of them. With an error nothing is known of any, and the caller must not look at
// them any more.
func (r *renewer) renewAll(ctx context.Context, renewals []pendingRenewal) error {
	call := newRenewalCall(renewals)
	if err := r.join(call); err != nil {
		return err
	}
	if r.threads != nil {
		r.threads.Park(func() bool { return threads.IsClosed(call.done) || ctx.Err() != nil })
		if threads.IsClosed(call.done) { // rather than that it is too late
			return nil
		}
	}
	select {
	case <-call.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the leader's word on a renewal: %w", ctx.Err())
	}
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

// join lets all renewals of a call wait, or none.
func (r *renewer) join(call *renewalCall) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopped:
		return ErrStopping
	case len(r.waiting)+len(call.renewals) > renewalsWaitingMax:
		r.refused.Add(float64(len(call.renewals)))
		return ErrBusy
	}
	for i := range call.renewals {
		r.waiting = append(r.waiting, &call.renewals[i])
	}
	select {
	case r.wake <- struct{}{}:
	default: // a token is there already
	}
	return nil
}

// run asks, one question at a time, until the context ends.
func (r *renewer) run(ctx context.Context) {
	defer r.stop()
	for threads.Next(ctx, r.threads, r.wake) {
		for ctx.Err() == nil {
			batch := r.take()
			if len(batch) == 0 {
				break
			}
			r.askFor(ctx, batch)
		}
	}
}

// stop answers those who still wait, and all who come later.
func (r *renewer) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	settle(r.waiting, ErrStopping)
	r.waiting = nil
}

func settle(batch []*pendingRenewal, err error) {
	for _, p := range batch {
		p.err = err
		if p.call.left--; p.call.left == 0 {
			close(p.call.done)
		}
	}
}

// take is the next batch: the oldest that fit into one question.
func (r *renewer) take() []*pendingRenewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, size := 0, 0
	for n < len(r.waiting) && n < renewalsPerAskMax && size < renewalsPerAskBytes {
		k := r.waiting[n].key
		size += len(k.Namespace) + len(k.Service) + len(k.ID)
		n++
	}
	batch := r.waiting[:n:n]
	r.waiting = r.waiting[n:]
	return batch
}

// askFor settles a batch, whatever comes of its question.
func (r *renewer) askFor(ctx context.Context, batch []*pendingRenewal) {
	asking, cancel := threads.WithTimeout(ctx, r.threads, askTimeout)
	defer cancel()
	answer, err := r.answer(asking, batch)
	if err != nil && ctx.Err() != nil { // it was cut short here: what it says of the leader is not true
		err = fmt.Errorf("%w: %v", ErrStopping, err)
	}
	if err != nil {
		settle(batch, err)
		return
	}
	for i, p := range batch {
		p.outcome = answer.GetRenewals()[i]
		if granted := answer.GetGrantedMs(); granted != nil {
			p.granted = time.Duration(granted[i]) * time.Millisecond
		}
	}
	settle(batch, nil)
}

func (r *renewer) answer(ctx context.Context, batch []*pendingRenewal) (*recordv1.Answer, error) {
	items := make([]*recordv1.RenewItem, len(batch))
	for i, p := range batch {
		items[i] = p.record()
	}
	ask := &recordv1.Ask{Format: formatMax, Kind: &recordv1.Ask_RenewLeases{RenewLeases: &recordv1.RenewLeases{Items: items}}}
	reply, err := r.ask(ctx, encode(ask))
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
