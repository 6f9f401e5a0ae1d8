package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/stellmap/stellmap/consensus"
)

// gate holds new ADS streams back until this member's state is worth serving.
// A server that answers before its state is loaded makes Envoy remove every
// cluster that it has. So a member that ends before that never opens it.
type gate struct {
	group      quorum
	staleAfter time.Duration // without a leader for so long, the last state has to do
	logger     *slog.Logger
	opened     chan struct{} // closed by run when the state is worth serving
	stopped    chan struct{} // closed by run when it ends without that
}

// quorum is what the gate asks of a consensus group.
type quorum interface {
	Barrier(ctx context.Context) (uint64, error)
	Status() consensus.Status
}

func newGate(group quorum, staleAfter time.Duration, logger *slog.Logger) *gate {
	return &gate{group: group, staleAfter: staleAfter, logger: logger, opened: make(chan struct{}), stopped: make(chan struct{})}
}

// Bounds of one attempt to catch up and of the pause after a failed one.
const (
	gateAttempt = 2 * time.Second
	gatePause   = 100 * time.Millisecond
)

// run opens the gate, and tells whether it did before the context ended.
func (g *gate) run(ctx context.Context) (open bool) {
	if !g.worthServing(ctx) {
		close(g.stopped)
		return false
	}
	close(g.opened)
	return true
}

// worthServing waits for the first ReadIndex round whose index is applied here,
// or until no leader was known for staleAfter. It is false when the context ends.
func (g *gate) worthServing(ctx context.Context) bool {
	led := time.Now()
	for {
		if g.caughtUp(ctx) {
			return true
		}
		switch {
		case ctx.Err() != nil:
			return false
		case g.group.Status().LeaderID != 0:
			led = time.Now()
		case time.Since(led) >= g.staleAfter:
			g.logger.Warn("no leader: serving ADS from the last committed state", "applied", g.group.Status().Applied, "after", g.staleAfter)
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(gatePause):
		}
	}
}

// caughtUp makes one attempt. The incarnation is part of every version, so a
// cluster that has none yet is not ready.
func (g *gate) caughtUp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, gateAttempt)
	defer cancel()
	_, err := g.group.Barrier(ctx)
	return err == nil && g.group.Status().Incarnation != ""
}

// ready is nil once new streams are served.
func (g *gate) ready() error {
	select {
	case <-g.opened:
		return nil
	default:
		return errors.New("this member has not caught up with the cluster")
	}
}

// wait returns nil when the gate is open, and an error when it will not be any
// more or ctx ends.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.opened:
		return nil
	case <-g.stopped:
		return errors.New("this member is stopping")
	case <-ctx.Done():
		return ctx.Err()
	}
}
