package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/stellmap/stellmap/internal/threads"
)

// A gatherer gathers what arrives while a question is on its way, and sends it with
// the next; one is out at a time. So the number of questions follows the time that
// an answer takes, not the number of those who ask: the more there is to do, the
// less each costs.
type gatherer[T any] struct {
	most    int                                        // that may wait: more are refused with ErrBusy
	refuse  func(items int)                            // counts those
	fits    func(waiting []T) int                      // how many of some that wait go into one question; at least one
	ask     func(ctx context.Context, batch []T) error // notes the answer with each; with an error there is none for any
	settle  func(batch []T, err error)                 // has them end
	timeout time.Duration                              // for one question
	rest    time.Duration                              // after one, unless more is waiting than fits into the next
	threads threads.Threads
	wake    chan struct{} // holds one token while something waits

	mu      sync.Mutex // guards what follows
	waiting []T
	stopped bool
}

// join lets all items wait, or none.
func (g *gatherer[T]) join(items ...T) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.stopped:
		return ErrStopping
	case len(g.waiting)+len(items) > g.most:
		g.refuse(len(items))
		return ErrBusy
	}
	g.waiting = append(g.waiting, items...)
	select {
	case g.wake <- struct{}{}:
	default: // a token is there already
	}
	return nil
}

// run asks, one question at a time, until the context ends.
func (g *gatherer[T]) run(ctx context.Context) {
	defer g.stop()
	for threads.Next(ctx, g.threads, g.wake) {
		for ctx.Err() == nil {
			batch, more := g.take()
			if len(batch) == 0 {
				break
			}
			g.askFor(ctx, batch)
			if g.rest > 0 && !more {
				threads.Rest(ctx, g.threads, g.rest)
			}
		}
	}
}

// stop answers those who still wait, and all who come later.
func (g *gatherer[T]) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	g.settle(g.waiting, ErrStopping)
	g.waiting = nil
}

// take is what goes into the next question, the oldest first. More says that there was more.
func (g *gatherer[T]) take() (batch []T, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		return nil, false
	}
	n := g.fits(g.waiting)
	batch = g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return batch, len(g.waiting) > 0
}

// askFor settles a batch, whatever comes of its question.
func (g *gatherer[T]) askFor(ctx context.Context, batch []T) {
	asking, cancel := threads.WithTimeout(ctx, g.threads, g.timeout)
	defer cancel()
	err := g.ask(asking, batch)
	if err != nil && ctx.Err() != nil { // it was cut short here: what it says of the leader is not true
		err = fmt.Errorf("%w: %v", ErrStopping, err)
	}
	g.settle(batch, err)
}

// await waits until an item that has joined is settled: then done is closed. With
// an error nothing is known of it, and the caller must not look at it any more.
func (g *gatherer[T]) await(ctx context.Context, done <-chan struct{}, what string) error {
	if g.threads != nil {
		g.threads.Park(func() bool { return threads.IsClosed(done) || ctx.Err() != nil })
		if threads.IsClosed(done) { // rather than that it is too late
			return nil
		}
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", what, ctx.Err())
	}
}
