package registry

import (
	"context"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// Somebody has to be the first, and has nobody to give him a token. He is let make one
// by what only who set the cluster up can have, and that is good for as long as there has
// never been a token: whether there has is part of the state, the same on every member,
// in every snapshot and in every backup. So it is good once in a cluster, however many
// members have something of the kind.

// A Founder is a caller who may grant the first access token, and no other.
type Founder interface {
	// Founds says whether it is one.
	Founds() bool
}

func founds(ctx context.Context) bool {
	f, is := CallerOf(ctx).(Founder)
	return is && f.Founds()
}

// AccessBegun says whether an access token was ever granted.
func (m *Machine) AccessBegun() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.published.access.begun
}

func (m *Machine) loadBegun(loaded func(change)) error {
	value, found, err := m.engine.Get([]byte(storage.AccessBegunKey))
	if err != nil || !found {
		return err
	}
	var record recordv1.AccessBegunRecord
	if err := unmarshalRecord("that there has been an access token", value, &record); err != nil {
		return err
	}
	loaded(change{op: opTokenPut, access: accessChange{begun: true}})
	return nil
}
