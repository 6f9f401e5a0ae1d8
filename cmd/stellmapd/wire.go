package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// replicator is how the registry reaches the consensus group.
type replicator struct{ group *consensus.Group }

func (r replicator) Propose(ctx context.Context, requestID string, command []byte) (registry.Applied, error) {
	reply, err := r.group.Propose(ctx, requestID, command)
	if err != nil {
		return registry.Applied{}, asRegistry(err)
	}
	return registry.Applied{Revision: registry.Revision(reply.Index), Reply: reply.Data}, nil
}

func (r replicator) Barrier(ctx context.Context) (registry.Revision, error) {
	index, err := r.group.Barrier(ctx)
	return registry.Revision(index), asRegistry(err)
}

func (r replicator) Fresh() time.Time { return r.group.Status().Fresh }

func (r replicator) AskLeader(ctx context.Context, request []byte) ([]byte, error) {
	reply, err := r.group.Ask(ctx, request)
	return reply, asRegistry(err)
}

// sameMeaning pairs the errors of consensus with those that the registry's
// surfaces know.
var sameMeaning = [...]struct{ consensus, registry error }{
	{consensus.ErrNoLeader, registry.ErrNoLeader},
	{consensus.ErrBusy, registry.ErrBusy},
	{consensus.ErrFull, registry.ErrFull},
	{consensus.ErrDiverged, registry.ErrDiverged},
	{consensus.ErrUnknownOutcome, registry.ErrUnknownOutcome},
	{consensus.ErrStopped, registry.ErrStopping},
}

// asRegistry keeps the text and adds the registry's meaning.
func asRegistry(err error) error {
	for _, pair := range sameMeaning {
		if errors.Is(err, pair.consensus) {
			return fmt.Errorf("%w: %w", pair.registry, err)
		}
	}
	return err
}

// machine is how the consensus group reaches the registry.
type machine struct{ *registry.Machine }

func (m machine) Apply(b *storage.Batch, e consensus.Entry) []byte {
	return m.Machine.Apply(b, registry.Entry{Index: registry.Revision(e.Index), Term: e.Term, Time: e.Time, Data: e.Data})
}

func (m machine) Publish(index uint64) { m.Machine.Publish(registry.Revision(index)) }

func (m machine) Install(index uint64) error { return m.Machine.Install(registry.Revision(index)) }
