package crashtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/storage/crashfs"
)

var background = context.Background()

// image is what one crash left, and what is known of it.
type image struct {
	left   *crashfs.FS
	k      knowledge
	tuning tuning
	seed   uint64          // of what is random in the recovery
	trace  func() []string // of the operations before the crash; nil = none is known
}

// How many recoveries are looked at more closely: one in so many.
const (
	againOneIn  = 16 // crashes again while it is opened
	goOnOneIn   = 16 // goes on with its work, and crashes
	deeperOneIn = 8  // the snapshots are read into an engine each
)

// recover opens what is left, as stellmapd does, and checks everything.
func (im *image) recover() error {
	random := rand.New(rand.NewPCG(im.seed, 3))
	again, goOn, deeper := random.IntN(againOneIn) == 0, random.IntN(goOnOneIn) == 0, random.IntN(deeperOneIn) == 0
	var before *crashfs.FS
	if again {
		before = im.left.Crash(crashfs.Loss{Mode: crashfs.KeepAll})
	}
	p := newPlayer(im.left, random, im.tuning)
	p.k = im.k
	if err := p.start(); err != nil {
		if p.member != nil {
			err = errors.Join(err, p.close())
		}
		return err
	}
	k, found := p.known(), p.identity.Stage != ""
	var err error
	if deeper {
		err = snapshotsHold(p.member, &im.k)
	}
	if err == nil && goOn {
		err = im.goesOn(p, random)
	}
	if err = errors.Join(err, p.close()); err != nil {
		return err
	}
	if again {
		return im.recoverAgain(before, k, found, random)
	}
	return nil
}

// goesOn does some more work, which a crash must not take either.
func (im *image) goesOn(p *player, random *rand.Rand) error {
	for range 10 {
		if err := p.step(); err != nil {
			return fmt.Errorf("going on: %w", err)
		}
	}
	if err := p.sync(); err != nil {
		return fmt.Errorf("going on: %w", err)
	}
	next := image{left: p.disk.Crash(anyLoss(random)), k: p.known(), tuning: im.tuning, seed: 0}
	if err := next.plainly(); err != nil {
		return fmt.Errorf("a crash after going on: %w", err)
	}
	return nil
}

// plainly is recover without looking closer.
func (im *image) plainly() error {
	p := newPlayer(im.left, rand.New(rand.NewPCG(im.seed, 4)), im.tuning)
	p.k = im.k
	err := p.start()
	if p.member != nil {
		err = errors.Join(err, p.close())
	}
	return err
}

// recoverAgain crashes after operations of the recovery. Each time it ends as
// the undisturbed one did.
func (im *image) recoverAgain(before *crashfs.FS, want knowledge, hadIdentity bool, random *rand.Rand) error {
	want.losing, want.durable, want.saving = im.k.losing, im.k.durable, im.k.saving
	want.installing, want.received, want.reset = im.k.installing, im.k.received, im.k.reset
	if !hadIdentity {
		want.identities = append([]*storage.Identity{nil, &founding}, want.identities...)
	} else {
		want.identities = append(want.identities[:len(want.identities):len(want.identities)], im.k.identities...)
	}
	var left []*crashfs.FS
	before.After(func(crashfs.Op) {
		if random.IntN(4) == 0 {
			left = append(left, before.Crash(anyLoss(random)))
		}
	})
	first := image{left: before, k: im.k, tuning: im.tuning, seed: im.seed}
	err := first.plainly()
	before.After(nil)
	if err != nil {
		return err
	}
	for i, disk := range left {
		second := image{left: disk, k: want, tuning: im.tuning, seed: im.seed}
		if err := second.plainly(); err != nil {
			return fmt.Errorf("and a crash in the recovery, %d of %d: %w", i, len(left), err)
		}
		secondCrashes.Add(1)
	}
	return nil
}

// anyLoss is one way in which a crash can end.
func anyLoss(random *rand.Rand) crashfs.Loss {
	l := crashfs.Loss{Seed: random.Uint64(), Mode: crashfs.Mode(random.IntN(int(crashfs.TearLast) + 1))}
	if l.Mode == crashfs.Random {
		l.Journaled = stateDir
	}
	return l
}

// stateDir is Pebble's, which needs names that change in order.
const stateDir = "data/state"

// snapshotsHold builds a state from each snapshot and compares.
func snapshotsHold(m *member, k *knowledge) error {
	for _, s := range m.snapshots.List() {
		if err := snapshotHolds(m, s, k); err != nil {
			return fmt.Errorf("the snapshot at %d: %w", s.Index, err)
		}
	}
	return nil
}

func snapshotHolds(m *member, s storage.SnapshotMeta, k *knowledge) (err error) {
	in, err := m.snapshots.Open(s)
	if err != nil {
		return err
	}
	defer func(in io.Closer) { err = errors.Join(err, in.Close()) }(in)
	e, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state", CacheBytes: cacheBytes, MemTableBytes: m.tuning.memTableBytes})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Restore(in); err != nil {
		return err
	}
	return k.stateIs(e)
}
