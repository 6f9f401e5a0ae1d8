package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// TestRepliesThatCannotBeRead shows that such a reply is an error and no silent success.
func TestRepliesThatCannotBeRead(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("\xff"), encode(&recordv1.Reply{Results: make([]*recordv1.Result, 2)})} {
		m := newMember(t, newManualClock())
		m.registry.replicator = answering{reply: b}
		if _, err := m.registry.Register(context.Background(), "", good()); err == nil {
			t.Errorf("register with the reply %x: no error", b)
		}
	}
}

// answering is a replicator that answers everything alike.
type answering struct {
	reply []byte
	err   error
}

func (a answering) Propose(context.Context, string, []byte) (Applied, error) {
	return Applied{Revision: 9, Reply: a.reply}, a.err
}
func (a answering) Barrier(context.Context) (Revision, error)         { return 9, a.err }
func (a answering) Fresh() time.Time                                  { return time.Time{} }
func (a answering) AskLeader(context.Context, []byte) ([]byte, error) { return a.reply, a.err }

// TestErrorsOfTheLogPassThrough shows that callers can tell what became of a
// write: above all that its outcome is unknown.
func TestErrorsOfTheLogPassThrough(t *testing.T) {
	ctx, r := context.Background(), ref("prod", "orders", "a")
	calls := map[string]func(g *Registry) error{
		"register":   func(g *Registry) error { _, err := g.Register(ctx, "id", good()); return err },
		"deregister": func(g *Registry) error { _, err := g.Deregister(ctx, "id", r); return err },
		"heartbeat":  func(g *Registry) error { _, err := g.Heartbeat(ctx, r, 0); return err },
		"renew":      func(g *Registry) error { _, err := g.renewInLog(ctx, &pendingRenewal{}); return err },
		"get":        func(g *Registry) error { _, _, err := g.Get(ctx, r, Consistency{}); return err },
		"list":       func(g *Registry) error { _, _, err := g.List(ctx, Query{Namespace: "prod"}); return err },
	}
	for name, call := range calls {
		for _, want := range []error{ErrUnknownOutcome, ErrNoLeader, ErrBusy, ErrFull, ErrStopping, context.DeadlineExceeded} {
			t.Run(name+"/"+want.Error(), func(t *testing.T) {
				_, m := openEmpty(t)
				g := &member{tb: t, registry: New(Config{Machine: m, Replicator: answering{err: fmt.Errorf("wrapped: %w", want)}, Clock: newManualClock()})}
				g.run()
				if err := call(g.registry); !errors.Is(err, want) {
					t.Fatalf("got %v, want %v", err, want)
				}
			})
		}
	}
}

// TestGetSaysWhereItWasRead shows that the revision comes with what is not there too.
func TestGetSaysWhereItWasRead(t *testing.T) {
	m := newMember(t, newManualClock())
	m.register(good())
	i, at, err := m.registry.Get(context.Background(), ref(" prod ", "orders", "10.0.0.1:8080"), Consistency{})
	if err != nil || i.ID != "10.0.0.1:8080" || at != m.index {
		t.Fatalf("get: %v at %d, %v", i, at, err)
	}
	_, at, err = m.registry.Get(context.Background(), ref("prod", "orders", "none"), Consistency{})
	if !errors.Is(err, ErrNotFound) || at != m.index {
		t.Fatalf("get of none: revision %d, %v, want %d, ErrNotFound", at, err, m.index)
	}
	m.cut = true
	if _, _, err := m.registry.Get(context.Background(), ref("prod", "orders", "none"), Stale(0)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("stale get without a leader: %v, want ErrNotFound", err)
	}
	_, _, err = m.registry.Get(context.Background(), InstanceRef{}, Stale(0))
	mustBeInvalid(t, err, []string{"namespace", "service", "instanceId"}, "is missing")
}
