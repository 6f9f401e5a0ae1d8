package storage

import (
	"context"
	"errors"
	"fmt"
)

// StoreOptions say where all that a member keeps is.
type StoreOptions struct {
	Snapshots SnapshotsOptions
	Engine    EngineOptions
	Log       LogOptions // what Applied is, is found out
	// Read reads the whole state, of each engine that is opened: damage that it
	// meets is cured while the state can still be built anew. Nil = nobody reads.
	Read func(*Engine) error
}

// Store is all that a member keeps, but for its identity.
type Store struct {
	Snapshots *Snapshots
	Engine    *Engine
	Log       *Log
	Rebuilt   *Rebuilt // nil when the state was whole
}

// OpenStore opens snapshots, state and log, each held against the others. It is
// the one way to open them.
//
// A state that is damaged or gone is built anew from a snapshot that the log
// follows. So is one that ends before the log begins, if the snapshot that the
// log begins after is there: the last process ended between the two steps of an
// install, and the second is done now. A snapshot whose last entry is not in
// the log was received and never installed; nothing is built from it.
func OpenStore(ctx context.Context, o StoreOptions) (*Store, error) {
	s := &Store{}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, o StoreOptions) (err error) {
	if s.Snapshots, err = OpenSnapshots(o.Snapshots); err != nil {
		return err
	}
	var wrong error
	s.Log, err = openLog(o.Log, func(l *Log) (uint64, error) {
		if wrong = s.openState(ctx, o, l); wrong != nil {
			return 0, wrong
		}
		return s.Engine.AppliedIndex().Index, nil
	})
	if wrong != nil {
		return wrong // it is not the log's
	}
	return err
}

// openState opens the state for a log, and reads it.
func (s *Store) openState(ctx context.Context, o StoreOptions, log *Log) (err error) {
	usable := log.follows
	if s.Engine, s.Rebuilt, err = openOrRebuild(ctx, o.Engine, s.Snapshots, usable); err != nil {
		return err
	}
	if err := s.finishInstall(ctx, o, log); err != nil {
		return err
	}
	err = s.read(o)
	if err != nil && IsDamagedState(err) && s.Rebuilt == nil && s.Snapshots.hasListed(usable) {
		if closed := s.Engine.Close(); closed != nil {
			s.Engine.o.Logger.Warn("the damaged state does not close", "error", closed)
		}
		if s.Engine, s.Rebuilt, err = rebuildState(ctx, o.Engine, s.Snapshots, usable, err); err != nil {
			return err
		}
		err = s.read(o)
	}
	if err == nil {
		s.Engine.Trust()
	}
	return err
}

func (s *Store) read(o StoreOptions) error {
	if o.Read == nil {
		return nil
	}
	return o.Read(s.Engine)
}

// finishInstall builds the state that the log begins after, if the state is an
// older one. A log that begins where every new one does has nothing before it.
func (s *Store) finishInstall(ctx context.Context, o StoreOptions, log *Log) error {
	base, at := log.FirstIndex()-1, s.Engine.AppliedIndex().Index
	if at >= base || base == o.Log.Base.Index {
		return nil
	}
	r := &Rebuilt{Because: fmt.Errorf("the log begins after entry %d, and the state ends with %d", base, at), Install: true}
	begins := func(p Position) bool { return p.Index == base && log.follows(p) }
	var err error
	if s.Engine, s.Rebuilt, err = rebuild(ctx, s.Engine, s.Snapshots, begins, r); err != nil {
		return fmt.Errorf("%w. The snapshot of that entry, which was to be installed, is not intact: put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory", err)
	}
	return nil
}

// follows tells whether the log goes on from a state: it has the last entry of
// it, or begins after that.
func (l *Log) follows(at Position) bool {
	term, err := l.Term(at.Index)
	return err == nil && term == at.Term
}

// Close closes the log and the state, as far as they are open.
func (s *Store) Close() error {
	var errs []error
	if s.Log != nil {
		errs = append(errs, s.Log.Close())
	}
	if s.Engine != nil {
		errs = append(errs, s.Engine.Close())
	}
	return errors.Join(errs...)
}
