package consensus

import (
	"context"
	"time"

	"github.com/stellmap/stellmap/internal/threads"
)

// next waits for something to come, or for the member's end: then it is false.
func next[T any](g *Group, from <-chan T) bool { return threads.Next(g.ctx, g.config.Threads, from) }

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
