package threads

import (
	"context"
	"sync"
	"time"
)

// Threads runs threads in turn.
type Threads interface {
	// Go runs f as a thread of its own. The name is for people.
	Go(name string, f func())
	// Park returns when ready tells that there is something to go on with. Ready
	// does not wait, changes nothing, and stays true until the thread goes on.
	Park(ready func() bool)
	// WithTimeout is context.WithTimeout in the time of the threads.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Crew is threads that are waited for together. Its zero value is of goroutines.
type Crew struct {
	Threads Threads

	working int // with Threads, where only one thread runs at a time
	group   sync.WaitGroup
}

// Run begins one more.
func (c *Crew) Run(name string, f func()) {
	if c.Threads == nil {
		c.group.Go(f)
		return
	}
	c.working++
	c.Threads.Go(name, func() {
		defer func() { c.working-- }()
		f()
	})
}

// Wait returns when all have ended.
func (c *Crew) Wait() {
	if c.Threads != nil {
		c.Threads.Park(func() bool { return c.working == 0 })
	}
	c.group.Wait()
}

// Next waits for something to come, or for the context's end: then it is false.
// When both are there, the end counts with Threads, and either without.
func Next[T any](ctx context.Context, t Threads, from <-chan T) bool {
	if t != nil {
		t.Park(func() bool { return ctx.Err() != nil || len(from) > 0 })
		if ctx.Err() != nil {
			return false
		}
	}
	select {
	case <-from:
		return true
	case <-ctx.Done():
		return false
	}
}

// WithTimeout bounds a wait.
func WithTimeout(ctx context.Context, t Threads, d time.Duration) (context.Context, context.CancelFunc) {
	if t != nil {
		return t.WithTimeout(ctx, d)
	}
	return context.WithTimeout(ctx, d)
}

// Rest waits for some time, or for the context's end.
func Rest(ctx context.Context, t Threads, d time.Duration) {
	resting, stop := WithTimeout(ctx, t, d)
	defer stop()
	if t != nil {
		t.Park(func() bool { return resting.Err() != nil })
	}
	<-resting.Done()
}

// IsClosed tells whether a channel that nothing is ever sent on is closed.
func IsClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
