package main

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellmap/stellmap/consensus"
)

// fakeQuorum answers a barrier once it has confirmed; until then nobody leads.
type fakeQuorum struct{ confirmed chan struct{} }

func (q fakeQuorum) Barrier(ctx context.Context) (uint64, error) {
	select {
	case <-q.confirmed:
		return 7, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (q fakeQuorum) Status() consensus.Status { return consensus.Status{Incarnation: "i1"} }

// New proxies wait until the member has caught up, or has been without a leader for long. One that ends before that
// sends those that wait away: what it would have told them may be nothing, and they would drop every cluster.
func TestTheGateOpensOnlyForAStateThatIsWorthServing(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(q fakeQuorum, stop func())
		open bool
	}{
		{"it catches up", func(q fakeQuorum, _ func()) { close(q.confirmed) }, true},
		{"there is no leader for long", func(fakeQuorum, func()) { <-time.After(time.Minute) }, true},
		{"it is stopped", func(_ fakeQuorum, stop func()) { stop() }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := fakeQuorum{confirmed: make(chan struct{})}
				g := newGate(q, 30*time.Second, slog.New(slog.DiscardHandler))
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				ran, waited := make(chan bool, 1), make(chan error, 1)
				go func() { ran <- g.run(ctx) }()
				go func() { waited <- g.wait(t.Context()) }()
				synctest.Wait()
				if len(waited) > 0 || g.ready() == nil {
					t.Fatal("it is open at once")
				}
				c.end(q, stop)
				if open := <-ran; open != c.open {
					t.Errorf("it opened: %v, want %v", open, c.open)
				}
				if err := <-waited; (err == nil) != c.open {
					t.Errorf("who waited was told %v", err)
				}
				if err := g.ready(); (err == nil) != c.open {
					t.Errorf("ready says %v", err)
				}
			})
		})
	}
}
