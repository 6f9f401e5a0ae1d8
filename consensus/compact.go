package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stellmap/stellmap/internal/threads"
	"github.com/stellmap/stellmap/storage"
)

// The log is cut at its beginning, or it would grow for ever.
//
// What is cut must not be needed. This member needs what its state has not on
// disk, and what follows its oldest snapshot, from which the state can be built
// anew when it is damaged. A member that is sent a snapshot needs what follows
// that. Behind all that a tail stays, for whoever is a little behind; who was away
// for longer is sent a snapshot (snapshots.go).
//
// A snapshot is taken of one moment in the state, in the background: writes go on.

// snapshotRetryAfter is when a snapshot is tried again for which the disk had no
// room.
const snapshotRetryAfter = time.Minute

// snapshotCall asks the applier, which alone may, for a moment in the state.
type snapshotCall struct {
	done chan struct{} // closed when the answer is there

	mu    sync.Mutex // guards what follows
	gone  bool       // the caller does not wait any more
	state *storage.EngineSnapshot
	err   error
}

// answer hands the snapshot over, or closes it when nobody waits for it.
func (c *snapshotCall) answer(state *storage.EngineSnapshot, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone && err == nil {
		return state.Close()
	}
	c.state, c.err = state, err
	close(c.done)
	return nil
}

// leave closes what came too late.
func (c *snapshotCall) leave() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.state == nil {
		return nil
	}
	return c.state.Close()
}

// Snapshot is the state as it is at a moment during the call. The caller
// closes it, before the engine is closed.
func (g *Group) Snapshot(ctx context.Context) (state *storage.EngineSnapshot, err error) {
	c := &snapshotCall{done: make(chan struct{})}
	defer func() {
		if state == nil { // also when the thread is ended while it waits
			err = errors.Join(err, c.leave())
		}
	}()
	if !g.applier.queue.put(applyTask{snapshot: c}, 0) {
		return nil, ErrStopped
	}
	if t := g.config.Threads; t != nil {
		t.Park(func() bool { return threads.IsClosed(c.done) || ctx.Err() != nil || g.ctx.Err() != nil })
		if threads.IsClosed(c.done) { // rather than that it is too late
			return c.state, c.err
		}
	}
	select {
	case <-c.done:
		return c.state, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-g.ctx.Done():
		return nil, ErrStopped
	}
}

// compactNowAndThen takes snapshots and has the log cut.
func (g *Group) compactNowAndThen() {
	if g.config.Snapshots == nil {
		return
	}
	ticks, stop := g.config.Clock.Ticker(g.config.CompactEvery)
	defer stop()
	for next(g, ticks) {
		if err := g.compact(); err != nil && g.ctx.Err() == nil {
			g.fail(err)
			return
		}
	}
}

// compact takes a snapshot if one is due and says how far the log may be cut.
// That the disk has no room for a snapshot is not the end: the state is in the
// engine and the log, and the member would meet the same disk at its next start.
func (g *Group) compact() error {
	if g.snapshotDue() {
		err := g.saveSnapshot()
		if errors.Is(err, storage.ErrNoRoom) {
			g.postponeSnapshot(err)
		} else if err != nil {
			return fmt.Errorf("take a snapshot: %w", err)
		}
	}
	cut, err := g.cuttable()
	if err != nil {
		return fmt.Errorf("how far the log may be cut: %w", err)
	}
	g.appender.wanted.Store(cut)
	return nil
}

// snapshotDue tells whether enough was applied, or written, since the last one,
// or a member waits for one.
func (g *Group) snapshotDue() bool {
	applied, last := g.status.Load().Applied, g.newestSnapshot()
	if applied <= last || g.config.Clock.Now().Before(g.snapshotAfter) {
		return false
	}
	return g.snapshotWanted.Load() || applied-last >= g.config.SnapshotEntries || g.appender.bytes.Load()-g.snapshotBytes.Load() >= g.config.SnapshotBytes
}

// newestSnapshot is the index of the newest snapshot, 0 when there is none.
func (g *Group) newestSnapshot() uint64 {
	if g.config.Snapshots == nil {
		return 0
	}
	if list := g.config.Snapshots.List(); len(list) > 0 {
		return list[0].Index
	}
	return 0
}

func (g *Group) saveSnapshot() (err error) {
	bytes, began := g.appender.bytes.Load(), g.config.Clock.Now()
	state, err := g.Snapshot(g.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	conf, err := configurationIn(state)
	if err != nil {
		return err
	}
	meta, err := g.config.Snapshots.Save(g.ctx, state, storage.SnapshotMeta{
		ClusterID: g.config.ClusterID, Incarnation: g.facts.Load().incarnation, Created: began.UnixMilli(), Configuration: conf,
	})
	if err != nil {
		return err
	}
	g.snapshotWanted.Store(false)
	g.snapshotBytes.Store(bytes)
	took := g.config.Clock.Now().Sub(began)
	g.metrics.snapshotSeconds.Observe(took.Seconds())
	g.log.Info("snapshot taken", "index", meta.Index, "state_bytes", meta.StateBytes, "file_bytes", meta.FileBytes, "took", took)
	return nil
}

func (g *Group) postponeSnapshot(why error) {
	g.snapshotAfter = g.config.Clock.Now().Add(snapshotRetryAfter)
	g.metrics.postponed.Inc()
	g.log.Warn("a snapshot is put off, and the log is not cut behind it: make room on the disk", "again_in", snapshotRetryAfter, "why", why)
}

// cuttable is the entry up to which nobody needs the log, 0 for none. Raft reads
// on from what it was told is applied, which may be less than the engine has.
func (g *Group) cuttable() (uint64, error) {
	oldest, ok := g.config.Snapshots.Oldest()
	if !ok {
		return 0, nil
	}
	durable, err := g.config.Engine.DurableIndex()
	if err != nil {
		return 0, err
	}
	needed := min(oldest, durable, g.status.Load().Applied)
	if mutant("cut_before_snapshot") {
		needed = g.status.Load().Applied
	}
	if sent := g.sendingFrom.Load(); sent != 0 {
		needed = min(needed, sent)
	}
	return needed - min(needed, g.config.LogTail), nil
}
