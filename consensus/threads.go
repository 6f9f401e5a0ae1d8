package consensus

import (
	"context"
	"sync"
	"time"
)

// Threads is how a member's work is shared among threads, and how they wait.
// Without one they are goroutines. Whoever wants to see a whole cluster in one
// thread gives one that runs them in turn: every place in this package that
// waits says so to it first, and then finds what it waits for.
type Threads interface {
	// Go runs f as a thread of its own. The name is for people.
	Go(name string, f func())
	// Park returns when ready tells that there is something to go on with. Ready
	// does not wait, changes nothing, and stays true until the thread goes on.
	Park(ready func() bool)
	// WithTimeout is context.WithTimeout in the time of the threads.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// crew is threads that are waited for together.
type crew struct {
	threads Threads
	working int // with Threads, where only one thread runs at a time
	group   sync.WaitGroup
}

func (c *crew) run(name string, f func()) {
	if c.threads == nil {
		c.group.Go(f)
		return
	}
	c.working++
	c.threads.Go(name, func() {
		defer func() { c.working-- }()
		f()
	})
}

func (c *crew) wait() {
	if c.threads != nil {
		c.threads.Park(func() bool { return c.working == 0 })
	}
	c.group.Wait()
}

// next waits for something to come, or for the member's end: then it is false.
// When both are there, the end counts with Threads, and either without.
func next[T any](g *Group, from <-chan T) bool {
	if t := g.config.Threads; t != nil {
		t.Park(func() bool { return g.ctx.Err() != nil || len(from) > 0 })
		if g.ctx.Err() != nil {
			return false
		}
	}
	select {
	case <-g.ctx.Done():
		return false
	case <-from:
		return true
	}
}

// nextTurn waits until the owner has something to do. With Threads a tick comes
// before what others have put for it.
func (g *Group) nextTurn(ctx context.Context, ticks <-chan time.Time) (ticked, ended bool) {
	if t := g.config.Threads; t != nil {
		t.Park(func() bool {
			return ctx.Err() != nil || g.ctx.Err() != nil || len(ticks) > 0 || len(g.wakeOwner) > 0
		})
		switch {
		case ctx.Err() != nil || g.ctx.Err() != nil:
			return false, true
		case len(ticks) > 0:
			<-ticks
			return true, false
		}
	}
	select {
	case <-ctx.Done():
		return false, true
	case <-g.ctx.Done():
		return false, true
	case <-ticks:
		return true, false
	case <-g.wakeOwner:
		return false, false
	}
}

// withTimeout bounds a wait.
func (g *Group) withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if t := g.config.Threads; t != nil {
		return t.WithTimeout(ctx, d)
	}
	return context.WithTimeout(ctx, d)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
