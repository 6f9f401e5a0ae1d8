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

// A pendingRenewal is one caller who waits.
type pendingRenewal struct {
	key     InstanceKey
	ttlMs   int64 // 0 = keep
	done    chan struct{}
	outcome recordv1.Answer_Renewal // these two are set before done is closed
	err     error
}

func newRenewer(ask func(context.Context, []byte) ([]byte, error), refused prometheus.Counter, threads threads.Threads) *renewer {
	return &renewer{ask: ask, refused: refused, threads: threads, wake: make(chan struct{}, 1)}
}

// renew waits for the leader's word on one renewal.
func (r *renewer) renew(ctx context.Context, k InstanceKey, ttlMs int64) (recordv1.Answer_Renewal, error) {
	p := &pendingRenewal{key: k, ttlMs: ttlMs, done: make(chan struct{})}
	if err := r.join(p); err != nil {
		return 0, err
	}
	if r.threads != nil {
		r.threads.Park(func() bool { return threads.IsClosed(p.done) || ctx.Err() != nil })
		if threads.IsClosed(p.done) { // rather than that it is too late
			return p.outcome, p.err
		}
	}
	select {
	case <-p.done:
		return p.outcome, p.err
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the leader's word on a renewal: %w", ctx.Err())
	}
}

func (r *renewer) join(p *pendingRenewal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopped:
		return ErrStopping
	case len(r.waiting) >= renewalsWaitingMax:
		r.refused.Inc()
		return ErrBusy
	}
	r.waiting = append(r.waiting, p)
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
		close(p.done)
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
	outcomes, err := r.outcomes(asking, batch)
	if err != nil && ctx.Err() != nil { // it was cut short here: what it says of the leader is not true
		err = fmt.Errorf("%w: %v", ErrStopping, err)
	}
	if err != nil {
		settle(batch, err)
		return
	}
	for i, p := range batch {
		p.outcome = outcomes[i]
	}
	settle(batch, nil)
}

func (r *renewer) outcomes(ctx context.Context, batch []*pendingRenewal) ([]recordv1.Answer_Renewal, error) {
	items := make([]*recordv1.RenewItem, len(batch))
	for i, p := range batch {
		items[i] = &recordv1.RenewItem{Key: keyToRecord(p.key), LeaseTtlMs: p.ttlMs}
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
	return answer.GetRenewals(), nil
}
