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
// cluster that it has.
type gate struct {
	group      *consensus.Group
	staleAfter time.Duration // without a leader for so long, the last state has to do
	logger     *slog.Logger
	opened     chan struct{} // closed by run, once
}

func newGate(group *consensus.Group, staleAfter time.Duration, logger *slog.Logger) *gate {
	return &gate{group: group, staleAfter: staleAfter, logger: logger, opened: make(chan struct{})}
}

// Bounds of one attempt to catch up and of the pause after a failed one.
const (
	gateAttempt = 2 * time.Second
	gatePause   = 100 * time.Millisecond
)

// run opens the gate after the first ReadIndex round whose index is applied
// here, or when no leader was known for staleAfter.
func (g *gate) run(ctx context.Context) error {
	defer close(g.opened)
	led := time.Now()
	for {
		if g.caughtUp(ctx) {
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case g.group.Status().LeaderID != 0:
			led = time.Now()
		case time.Since(led) >= g.staleAfter:
			g.logger.Warn("no leader: serving ADS from the last committed state", "applied", g.group.Status().Applied, "after", g.staleAfter)
			return nil
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

// wait returns when the gate is open or ctx ends.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
