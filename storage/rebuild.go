package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Rebuilt says that the state was built anew, and why. A state that is there
// and whole was not.
type Rebuilt struct {
	From    SnapshotMeta // the snapshot that it was built from
	Because error        // what was wrong with the state
	Install bool         // nothing was: a crash came between the two steps of an install
	Damaged []error      // newer snapshots that could not be used
	Aside   string       // the folder in which the damaged state is kept
}

// asideSuffix marks a state that could not be used.
const asideSuffix = ".damaged"

// damagedFile is in a state whose damage was found when it was in use already,
// and says which. Opening and reading may not meet it again.
const damagedFile = "DAMAGED"

// ErrDamagedState is what a state is whose files say that they are not what was written.
var ErrDamagedState = errors.New("storage: the state is damaged")

// damagedState is an ErrDamagedState in its own words.
func damagedState(format string, args ...any) error {
	return stateError{fmt.Errorf(format, args...)}
}

type stateError struct{ error }

func (stateError) Is(target error) bool { return target == ErrDamagedState }

// IsDamagedState tells what is wrong with the bytes from what is wrong with the disk.
func IsDamagedState(err error) bool {
	return errors.Is(err, ErrDamagedState) || pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist)
}

// openOrRebuild opens the state as OpenEngine does. Where it is damaged or gone
// and the log follows some snapshot, it is built anew
// from the newest intact one; what came after that, the log applies again. The
// damaged one is moved aside.
//
// Errors in the background are kept back until Trust: those of a state that
// proves damaged while it is read concern nobody, since it is built anew. After
// Trust damage ends the process, and the next start builds anew.
func openOrRebuild(ctx context.Context, o EngineOptions, snapshots *Snapshots, usable whichSnapshots) (*Engine, *Rebuilt, error) {
	o = o.withDefaults()
	found, marked, err := readFile(o.FS, o.FS.PathJoin(o.Dir, damagedFile))
	if err != nil {
		return nil, nil, fmt.Errorf("open the state: %w", err)
	}
	if marked && snapshots.hasListed(usable) {
		return rebuildState(ctx, o, snapshots, usable, damagedState("it was found damaged in use: %s", found))
	}
	e, err := openHeld(o)
	switch {
	case err == nil && (e.AppliedIndex().Index > 0 || !snapshots.hasAny(usable)):
		return e, nil, nil
	case err == nil:
		return rebuild(ctx, e, snapshots, usable, &Rebuilt{Because: errors.New("it is empty, though snapshots of it are there")})
	case !IsDamagedState(err) || !snapshots.hasAny(usable):
		return nil, nil, err
	}
	return rebuildState(ctx, o, snapshots, usable, err)
}

// rebuildState moves the state aside and builds it anew from the newest intact
// snapshot. Nothing may have it open.
func rebuildState(ctx context.Context, o EngineOptions, snapshots *Snapshots, usable whichSnapshots, because error) (*Engine, *Rebuilt, error) {
	o = o.withDefaults()
	r := &Rebuilt{Because: because, Aside: o.Dir + asideSuffix}
	if _, damaged, err := snapshots.newestOf(ctx, usable); err != nil {
		return nil, nil, r.cannot(err, damaged)
	}
	if err := moveAside(o, r.Aside); err != nil {
		return nil, nil, fmt.Errorf("move the damaged state aside: %w", err)
	}
	e, err := openHeld(o)
	if err != nil {
		return nil, nil, err
	}
	return rebuild(ctx, e, snapshots, usable, r)
}

// heldErrors keeps an error in the background back until it matters.
type heldErrors struct {
	to   func(error)
	mark func(error) // has the next start know of damage
	once sync.Once   // guards mark

	mu      sync.Mutex // guards what follows
	trusted bool
	first   error
}

func (h *heldErrors) tell(err error) {
	h.mu.Lock()
	tell := h.trusted || !IsDamagedState(err) // an error of the disk is not cured by another state
	if h.first == nil {
		h.first = err
	}
	h.mu.Unlock()
	if tell {
		h.pass(err)
	}
}

// pass tells the owner, who ends the process.
func (h *heldErrors) pass(err error) {
	if IsDamagedState(err) {
		h.once.Do(func() { h.mark(err) })
	}
	h.to(err)
}

// openHeld is OpenEngine with errors that are kept back.
func openHeld(o EngineOptions) (*Engine, error) {
	o = o.withDefaults()
	held := &heldErrors{to: o.OnFatal, mark: func(err error) {
		what, _, _ := strings.Cut(err.Error(), "\n") // Pebble goes on with its call stack
		if err := writeFileAtomic(o.FS, o.Dir, damagedFile, []byte(what)); err != nil {
			o.Logger.Error("that the state is damaged cannot be written beside it, so the next start may not know", "error", err)
		}
	}}
	o.OnFatal = held.tell
	e, err := OpenEngine(o)
	if err != nil {
		return nil, err
	}
	e.held = held
	return e, nil
}

// Trust says that the state was read and is good: from now on OnFatal is told
// of errors in the background, and now of the first one that there was.
func (e *Engine) Trust() {
	if e.held == nil {
		return
	}
	e.held.mu.Lock()
	e.held.trusted = true
	first := e.held.first
	e.held.mu.Unlock()
	if first != nil {
		e.held.pass(first)
	}
}

// rebuild fills an engine, which it closes when it cannot.
func rebuild(ctx context.Context, e *Engine, snapshots *Snapshots, usable whichSnapshots, r *Rebuilt) (*Engine, *Rebuilt, error) {
	newest, damaged, err := snapshots.newestOf(ctx, usable)
	if err != nil {
		return nil, nil, errors.Join(r.cannot(err, damaged), e.Close())
	}
	r.From, r.Damaged = newest, damaged
	if err := e.restoreFrom(snapshots, newest); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("build the state anew from the snapshot at index %d: %w", newest.Index, err), e.Close())
	}
	return e, r, nil
}

// cannot says all that is wrong: with the state, and with each snapshot.
func (r *Rebuilt) cannot(err error, damaged []error) error {
	return errors.Join(fmt.Errorf("the state cannot be used: %w", r.Because), fmt.Errorf("and it cannot be built anew: %w", err), errors.Join(damaged...))
}

// hasListed tells whether there are snapshots that may be intact.
func (s *Snapshots) hasListed(usable whichSnapshots) bool {
	return slices.ContainsFunc(s.List(), func(m SnapshotMeta) bool { return usable(m.Position()) })
}

// hasAny tells whether there are snapshots, be they intact or not.
func (s *Snapshots) hasAny(usable whichSnapshots) bool {
	s.mu.Lock()
	damaged := slices.ContainsFunc(s.damaged, func(d damagedSnapshot) bool { return usable(d.at) })
	s.mu.Unlock()
	return damaged || s.hasListed(usable)
}

// moveAside renames the folder. One that was moved before makes way: it is the
// same damage, met again by a start that was cut short, or an older one.
func moveAside(o EngineOptions, aside string) error {
	found, err := exists(o.FS, o.Dir)
	if err != nil || !found {
		return err
	}
	if err := o.FS.RemoveAll(aside); err != nil {
		return err
	}
	if err := o.FS.Rename(o.Dir, aside); err != nil {
		return err
	}
	return syncDir(o.FS, o.FS.PathDir(o.Dir))
}

func (e *Engine) restoreFrom(snapshots *Snapshots, m SnapshotMeta) (err error) {
	in, err := snapshots.Open(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return e.Restore(in)
}
