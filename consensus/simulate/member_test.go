package simulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/storage/crashfs"
)

func stack() string { return string(debug.Stack()) }

// member is a machine that a process runs on: its disks and its clock stay when
// the process ends.
type member struct {
	world *world
	id    uint64
	disk  *crashfs.FS // identity, log and snapshots
	state *crashfs.FS // the engine, whose own goroutines nobody may see
	uuids int
	life  *life // the process; nil when there is none
	down  bool  // it has ended, and starts again
	lives int
	began time.Duration // this life

	newcomer bool               // it is no founder
	told     *consensus.Joining // by who took it in, for the first start
	retired  bool               // it was removed, or refused, and is done with
	emptied  bool               // it has lost all that it knew, and that it may not vote

	left, leftState *crashfs.FS // what the power cut has left of the disks

	ops       int // on the disk, of this life
	cutAt     int // the power is cut after so many; 0 = it is not
	cutLoss   crashfs.Mode
	failSyncs int // of the log's, after so many; 0 = none
	broken    bool
	away      time.Duration // how long it stays down at least when it has ended
	slowDisk  time.Duration // what a write of the log may take

	wall  time.Duration // what the clock on the wall shows beside the true time
	mono  time.Duration // the same of the clock that leases are measured by
	drift float64       // how much faster than the true time both run
}

func newMember(w *world, id uint64) *member {
	m := &member{world: w, id: id}
	m.disk, m.state = emptyDisks()
	m.drift = (w.dice.Float64()*2 - 1) * driftMax
	m.wall = w.between(-wallOffset, wallOffset)
	return m
}

func emptyDisks() (disk, state *crashfs.FS) {
	disk, state = crashfs.New(), crashfs.New()
	lock, err := storage.LockDir(state, "data") // makes the directory, for good
	if err == nil {
		err = lock.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("simulate: %v", err))
	}
	return disk, state
}

// driftMax is how wrong clocks run, and wallOffset what those on the wall are off by at first.
const (
	driftMax   = 0.01
	wallOffset = 2 * time.Second
)

func (m *member) String() string { return fmt.Sprintf("member %d", m.id) }

func (m *member) up() bool { return m.life != nil && !m.life.dead }

func (m *member) diskLatency() time.Duration {
	d := m.world.between(50*time.Microsecond, 800*time.Microsecond)
	if m.slowDisk > 0 {
		d += m.world.between(0, m.slowDisk)
	}
	return d
}

// life is one process, from its start to its end.
type life struct {
	world  *world
	member *member
	dead   bool // what it still does nobody sees
	paused bool
	uuid   string
	held   []func() // what waits until it is no longer paused

	group    *consensus.Group
	registry *registry.Registry
	machine  *registry.Machine
	engine   *storage.Engine
	log      *storage.Log
	opened   []io.Closer
	stop     context.CancelFunc
	stopping bool
	installs int  // of others' states
	ended    bool // Run has returned
	err      error
}

// gone tells that a process is not there any more, or not reachable.
func (l *life) gone() bool { return l.dead || l.ended }

// hold does something now, or when the process goes on.
func (l *life) hold(do func()) {
	switch {
	case l.gone():
	case l.paused:
		l.held = append(l.held, do)
	default:
		do()
	}
}

// start starts a process.
func (m *member) start() {
	w := m.world
	if m.asks() {
		w.spawn(nil, fmt.Sprintf("machine-%d", m.id), m.ask)
		return
	}
	l := &life{world: w, member: m}
	m.life, m.ops = l, 0
	m.lives++
	m.began = w.now
	delete(w.checks.reached, m.id)
	m.hooks()
	w.note("start", m.id)
	err := l.open()
	switch {
	case l.dead: // the power was cut meanwhile
		w.faults.count("power cut in a recovery")
		m.bury()
		return
	case err != nil && m.broken:
		m.end(l, crashfs.KeepAll)
		return
	case errors.Is(err, consensus.ErrRemoved):
		m.retire()
		m.end(l, crashfs.KeepAll)
		return
	case err != nil:
		w.fail("%v does not start: %v", m, err)
		return
	}
	m.told = nil
	l.uuid = l.group.Introduce().Member.UUID
	r := l.group.Recovery()
	w.tell("%v starts: state at %d, log %d–%d, committed %d, replayed %d", m, r.Engine.Index, r.LogFirst, r.LogLast, r.Commit, r.Replayed)
	w.note("recovered", m.id, r.LogFirst, r.LogLast, r.Commit, r.Engine.Index)
	w.checks.started(l)
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	w.spawn(l, "owner", func() {
		err := l.group.Run(ctx)
		l.err, l.ended = err, true
	})
	w.spawn(l, "registry", func() {
		if err := l.registry.Run(ctx); err != nil {
			w.fail("%v: the registry ends: %v", m, err)
		}
	})
	if w.site != nil {
		w.spawn(l, "prober", func() { w.site.check(ctx, l) })
	}
}

// open opens all, in the order of stellmapd.
func (l *life) open() (err error) {
	m, w := l.member, l.world
	lock, err := storage.LockDir(m.disk, "data")
	if err != nil {
		return err
	}
	l.opened = append(l.opened, lock)
	id, err := m.found()
	var told consensus.Joining
	if err == nil && id.Stage == storage.StageJoining {
		told = *m.told
		id, err = consensus.Join(m.identityFile(), id, told)
	}
	if err != nil {
		return err
	}
	store, err := storage.OpenStore(context.Background(), storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: m.disk, Dir: "data/snapshot", Logger: l.logger()},
		Engine:    storage.EngineOptions{FS: m.state, Dir: "data/state", CacheBytes: 128 << 10, MemTableBytes: 4 << 20},
		Log: storage.LogOptions{
			FS: m.disk, Dir: "data/wal", Base: consensus.LogBase(id), Salt: w.dice.Uint64, SegmentBytes: w.SegmentBytes, TailBytes: w.TailBytes,
		},
		Read: func(engine *storage.Engine) (err error) {
			l.machine, err = registry.OpenMachine(registry.MachineConfig{Engine: engine, Region: "here", Now: l.mono, EventsMax: w.EventsMax, History: registry.HistoryBounds{Events: 2 * w.EventsMax}, Logger: l.logger()})
			return err
		},
	})
	if err != nil {
		return err
	}
	l.engine, l.log = store.Engine, store.Log
	l.opened = append(l.opened, l.engine) // the log of a process that dies is not closed
	l.group, err = consensus.Open(consensus.Config{
		ID: m.id, ClusterID: 1, Members: w.book(), Self: consensus.Member{ID: m.id, HTTP: fmt.Sprintf("http-%d", m.id)}, Joining: told,
		Identity: id, IdentityFile: m.identityFile(), Log: l.log, Engine: l.engine, Machine: machine{l.machine, l}, Transport: l,
		Tick: w.Tick, ElectionTicks: w.ElectionTicks, FlushEvery: w.FlushEvery, CompactEvery: w.CompactEvery, CallTimeout: w.CallTimeout, CommitTimeout: w.CommitTimeout, CheckEvery: w.CheckEvery,
		Snapshots: store.Snapshots, SnapshotEntries: w.SnapshotEvery, LogTail: w.LogTail,
		Grows: registry.Grows, Clock: l, Threads: l, Random: w.dice.Uint64, Logger: l.logger(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	l.registry = registry.New(registry.Config{Machine: l.machine, Replicator: replicator{l}, Clock: l, Threads: l, Logger: l.logger(), Preserve: registry.Preservation{Limit: l.world.Protection}})
	return nil
}

func (w *world) book() []consensus.Member {
	var book []consensus.Member
	for id := range uint64(w.Size) {
		book = append(book, consensus.Member{ID: id + 1, HTTP: fmt.Sprintf("http-%d", id+1)})
	}
	return book
}

func (m *member) identityFile() consensus.IdentityFile {
	return consensus.IdentityFile{
		Load: func() (storage.Identity, bool, error) { return storage.LoadIdentity(m.disk, "data") },
		Save: func(id storage.Identity) error { return storage.SaveIdentity(m.disk, "data", id) },
		Occupied: func() (bool, error) {
			log, err := storage.HasLogOrState(m.disk, "data")
			if err != nil || log {
				return log, err
			}
			return storage.HasLogOrState(m.state, "data")
		},
	}
}

// hooks are how faults reach the disk.
func (m *member) hooks() {
	l := m.life
	m.disk.Before(func(op crashfs.Op) error {
		sync := op.Kind == crashfs.Sync || op.Kind == crashfs.SyncData
		if m.failSyncs == 0 || !sync || !strings.HasPrefix(op.Path, "data/wal/") {
			return nil
		}
		if m.failSyncs--; m.failSyncs > 0 {
			return nil
		}
		m.broken, m.failSyncs = true, 1 // for ever
		m.world.faults.count("failed sync")
		m.world.tell("%v: a sync of its disk fails", m)
		return crashfs.Forget(syscall.EIO)
	})
	m.disk.Delay(func(op crashfs.Op) {
		sync := op.Kind == crashfs.Sync || op.Kind == crashfs.SyncData || op.Kind == crashfs.SyncDir
		// The identity's file is written under a lock that the network takes, too.
		slow := strings.HasPrefix(op.Path, "data/wal") || strings.HasPrefix(op.Path, "data/snapshot")
		if t := m.world.running; sync && slow && t != nil && t.life == l && (t.name == "append" || t.name == "compact") {
			m.world.sleep(m.diskLatency())
		}
	})
	m.disk.After(func(op crashfs.Op) {
		m.ops++
		if m.cutAt != 0 && m.ops >= m.cutAt && !l.dead {
			m.world.faults.count("power cut at an operation")
			m.world.tell("%v: the power is cut after operation %v", m, op)
			m.powerCut(m.cutLoss)
		}
	})
}

// powerCut takes what is on the disks at this moment. What the process still
// does before the end of the event nobody sees.
func (m *member) powerCut(mode crashfs.Mode) {
	m.cutAt = 0
	m.end(m.life, mode)
}

// end ends a process. KeepAll is what a killed one leaves.
func (m *member) end(l *life, mode crashfs.Mode) {
	seed := m.world.dice.Uint64()
	m.left = m.disk.Crash(crashfs.Loss{Seed: seed, Mode: mode})
	stateMode := mode
	if mode == crashfs.Random { // Pebble needs a journal
		stateMode = crashfs.Journal
	}
	m.leftState = m.state.Crash(crashfs.Loss{Seed: seed, Mode: stateMode})
	l.dead = true
	m.world.note("dies", m.id, uint64(mode))
}

// bury ends the threads of a dead process, and has it started again some time later.
func (m *member) bury() {
	w, l := m.world, m.life
	m.life = nil
	for _, t := range w.threads {
		if t.life == l {
			w.kill(t)
		}
	}
	for pair := range w.network.known {
		if pair[0] == l || pair[1] == l {
			delete(w.network.known, pair)
		}
	}
	l.close()
	if m.retired {
		return
	}
	m.disk, m.state, m.left, m.leftState = m.left, m.leftState, nil, nil
	m.broken, m.failSyncs, m.cutAt = false, 0, 0
	down := w.between(0, time.Duration(2*w.ElectionTicks)*w.Tick)
	if w.faults.going() && w.chance(0.2) { // so that it needs what the others have cut
		down = w.between(down, 4*time.Second)
	}
	m.down = true
	w.after(max(down, m.away), m.startAgain)
}

// startAgain starts a member that is down, unless that has been done.
func (m *member) startAgain() {
	if m.down && !m.retired {
		m.down = false
		m.start()
	}
}

func (l *life) close() {
	for i := len(l.opened) - 1; i >= 0; i-- {
		if err := l.opened[i].Close(); err != nil {
			l.world.fail("%v: close: %v", l.member, err)
		}
	}
}

// look sees whether a process has ended by itself, and why.
func (m *member) look() {
	l := m.life
	if l == nil || l.dead || !l.ended {
		return
	}
	switch {
	case errors.Is(l.err, consensus.ErrRemoved):
		m.retire()
		m.end(l, crashfs.KeepAll)
	case errors.Is(l.err, consensus.ErrRefused) && m.emptied:
		m.world.tell("%v ends: %v", m, l.err)
		m.world.faults.count("emptied member ends")
		m.retired = true
		m.end(l, crashfs.KeepAll)
	case l.stopping && l.err == nil:
		if err := l.log.Close(); err != nil && !m.broken {
			m.world.fail("%v: close the log: %v", m, err)
		}
		m.world.tell("%v has stopped", m)
		m.end(l, crashfs.KeepAll)
	case m.broken && (errors.Is(l.err, syscall.EIO) || l.stopping):
		m.world.tell("%v ends: %v", m, l.err)
		mode := crashfs.KeepAll
		if m.world.dice.IntN(2) == 0 {
			mode = crashfs.Random
		}
		m.end(l, mode)
	default:
		m.world.fail("%v ends by itself: %v", m, l.err)
	}
}

// Now is the clock on the wall.
func (l *life) Now() time.Time { return l.member.time(l.member.wall) }

func (l *life) mono() time.Time { return l.member.time(l.member.mono) }

func (m *member) time(offset time.Duration) time.Time {
	return epoch.Add(m.world.now + time.Duration(float64(m.world.now)*m.drift) + offset)
}

// Ticker is a clock's.
func (l *life) Ticker(d time.Duration) (<-chan time.Time, func()) {
	ticks, stopped := make(chan time.Time, 1), false
	every := time.Duration(float64(d) / (1 + l.member.drift))
	var tick func()
	tick = func() {
		if stopped || l.dead {
			return
		}
		select {
		case ticks <- l.Now():
		default:
		}
		l.world.after(every, tick)
	}
	l.world.after(l.world.between(0, every), tick)
	return ticks, func() { stopped = true }
}

// Go, Park and WithTimeout are Threads.
func (l *life) Go(name string, f func()) { l.world.spawn(l, name, f) }
func (l *life) Park(ready func() bool)   { l.world.park(ready) }
func (l *life) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return l.world.withTimeout(ctx, d)
}

// logger writes into the story.
func (l *life) logger() *slog.Logger {
	if !l.world.story.told {
		return nil
	}
	return slog.New(slog.NewTextHandler(teller{l}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type teller struct{ life *life }

func (t teller) Write(p []byte) (int, error) {
	if !t.life.dead {
		t.life.world.tell("%v: %s", t.life.member, strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

// replicator and machine join registry and consensus, as cmd/stellmapd does.
type replicator struct{ life *life }

func (r replicator) Propose(ctx context.Context, requestID string, command []byte) (registry.Applied, error) {
	reply, err := r.life.group.Propose(ctx, requestID, command)
	if err != nil {
		return registry.Applied{}, asRegistry(err)
	}
	return registry.Applied{Revision: registry.Revision(reply.Index), Reply: reply.Data}, nil
}

func (r replicator) Barrier(ctx context.Context) (registry.Revision, error) {
	index, err := r.life.group.Barrier(ctx)
	return registry.Revision(index), asRegistry(err)
}

func (r replicator) AskLeader(ctx context.Context, request []byte) ([]byte, error) {
	reply, err := r.life.group.Ask(ctx, request)
	return reply, asRegistry(err)
}

func (r replicator) Fresh() time.Time { return r.life.group.Status().Fresh }

var sameMeaning = [...]struct{ consensus, registry error }{
	{consensus.ErrNoLeader, registry.ErrNoLeader},
	{consensus.ErrBusy, registry.ErrBusy},
	{consensus.ErrFull, registry.ErrFull},
	{consensus.ErrUnknownOutcome, registry.ErrUnknownOutcome},
	{consensus.ErrDiverged, registry.ErrDiverged},
	{consensus.ErrStopped, registry.ErrStopping},
}

func asRegistry(err error) error {
	for _, pair := range sameMeaning {
		if errors.Is(err, pair.consensus) {
			return fmt.Errorf("%w: %w", pair.registry, err)
		}
	}
	return err
}

type machine struct {
	*registry.Machine
	life *life
}

func (m machine) Apply(b *storage.Batch, e consensus.Entry) []byte {
	reply := m.Machine.Apply(b, registry.Entry{Index: registry.Revision(e.Index), Term: e.Term, Time: e.Time, Data: e.Data})
	m.life.world.checks.applied(m.life, e, reply)
	return reply
}

func (m machine) Publish(index uint64) {
	m.Machine.Publish(registry.Revision(index))
	m.life.world.checks.published(m.life, index)
}

func (m machine) Lead(term uint64) {
	m.life.world.checks.leads(m.life, term)
	m.Machine.Lead(term)
}

func (m machine) Install(index uint64) error {
	if err := m.Machine.Install(registry.Revision(index)); err != nil {
		return err
	}
	m.life.world.checks.installed(m.life, index)
	return nil
}
