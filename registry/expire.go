package registry

import (
	"context"
	"errors"
	"time"

	"github.com/stellmap/stellmap/internal/threads"
)

// How fast the leader lets leases run out. A crowd of expiries is spread, so
// that it takes neither the log nor the watchers by storm.
const (
	expiryTick       = 250 * time.Millisecond
	expiryBatchesMax = 8 // commands per tick, one after the other
	proposeTimeout   = time.Second
)

// expireLoop looks for leases that have run out while this member leads.
func (r *Registry) expireLoop(ctx context.Context) {
	ticks, stop := r.clock.Ticker(expiryTick)
	defer stop()
	for threads.Next(ctx, r.threads, ticks) {
		r.expireDue(ctx)
	}
}

// expireDue proposes what has run out by now, within the bounds of one tick.
func (r *Registry) expireDue(ctx context.Context) {
	if !r.endProtections(ctx) {
		return
	}
	for batches := 0; batches < expiryBatchesMax; {
		term, due, more := r.machine.leases.due(commandItemsMax)
		if len(due) > 0 {
			batches++
			let, ok := r.preserve(ctx, term, due)
			if !ok {
				r.machine.leases.retry(term, let)
				return
			}
			if len(let) > 0 && !r.proposeExpiry(ctx, term, let) {
				return
			}
		}
		if !more || ctx.Err() != nil {
			return
		}
	}
}

// proposeExpiry says whether to go on. Whatever came of the proposal, leases
// that it did not settle are looked at again by the next tick.
func (r *Registry) proposeExpiry(ctx context.Context, term uint64, due []dueLease) bool {
	ctx, cancel := threads.WithTimeout(ctx, r.threads, proposeTimeout)
	defer cancel()
	_, err := r.replicator.Propose(ctx, "", expireCommand(term, due))
	r.machine.leases.retry(term, due)
	r.report("let leases run out", err)
	return err == nil
}

// report logs why a command of the leader's own did not pass. Not leading any
// more and stopping are no news.
func (r *Registry) report(what string, err error) {
	if err == nil || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrStopping) || errors.Is(err, context.Canceled) {
		return
	}
	r.log.Warn("a command of the leader did not pass; it is tried again", "what", what, "error", err)
}
