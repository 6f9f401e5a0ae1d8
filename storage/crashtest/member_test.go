package crashtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/storage/crashfs"
)

// tuning is how a member is set up, so that little work has everything happen.
type tuning struct {
	memTableBytes int64
	segmentBytes  int64
	tailBytes     int
	keep          int    // snapshots
	tail          uint64 // entries that stay behind what may be cut
	large         int    // bytes of the largest entry
	hardOneIn     int    // of the appends have a hard state
}

// newTuning makes up one. Pebble flushes by itself when its table in memory is
// full. How full one is depends on dice of its own, so a life in which that
// happens is not quite the same the next time: every second schedule has them.
func newTuning(random *rand.Rand, schedule int) tuning {
	memTable := int64(memTableLarge)
	if schedule%2 == 1 {
		memTable = memTableSmall
	}
	return tuning{
		memTableBytes: memTable,
		segmentBytes:  1000 + random.Int64N(12_000), tailBytes: 1 + random.IntN(10_000),
		keep: 1 + random.IntN(2), tail: random.Uint64N(20) * random.Uint64N(2), large: 100 + random.IntN(1500),
		hardOneIn: 1 + random.IntN(12),
	}
}

const (
	memTableSmall = 16 << 10 // Pebble flushes by itself, too
	memTableLarge = 4 << 20  // it does not
	cacheBytes    = 256 << 10
)

// member is one process with its storage open, in the order of stellmapd.
type member struct {
	disk      vfs.FS
	tuning    tuning
	settle    func() // waits until the engine does nothing more
	lock      io.Closer
	identity  storage.Identity // as it was found; Stage "" = it was not
	snapshots *storage.Snapshots
	engine    *storage.Engine
	log       *storage.Log
	rebuilt   *storage.Rebuilt
	die       func(error) // the engine's OnFatal
}

var founding = storage.Identity{NodeID: 1, ClusterID: 7, UUID: "one", Stage: storage.StageFounding, Founders: "1", Peers: map[uint64]string{}}

// saveIdentity is told before an identity is saved and after.
type saveIdentity func(id storage.Identity, done bool)

// open opens all. Settle is called when the engine may have something to do.
func open(disk vfs.FS, t tuning, random *rand.Rand, tell saveIdentity, settle func(), die func(error)) (*member, error) {
	m := &member{disk: disk, tuning: t, settle: settle, die: die}
	if err := m.openAll(random, tell); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *member) openAll(random *rand.Rand, tell saveIdentity) (err error) {
	if m.lock, err = storage.LockDir(m.disk, "data"); err != nil {
		return err
	}
	if err := m.openIdentity(tell); err != nil {
		return err
	}
	s, err := storage.OpenStore(background, storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: m.disk, Dir: "data/snapshot", Keep: m.tuning.keep},
		Engine:    storage.EngineOptions{FS: m.disk, Dir: "data/state", CacheBytes: cacheBytes, MemTableBytes: m.tuning.memTableBytes, OnFatal: m.die},
		Log: storage.LogOptions{
			FS: m.disk, Dir: "data/wal", Base: base, Salt: random.Uint64,
			SegmentBytes: m.tuning.segmentBytes, TailBytes: m.tuning.tailBytes,
		},
		Read: func(e *storage.Engine) error {
			defer m.settle()
			_, err := stateIn(e)
			return err
		},
	})
	if err == nil {
		m.snapshots, m.engine, m.log, m.rebuilt = s.Snapshots, s.Engine, s.Log, s.Rebuilt
	}
	return err
}

func (m *member) openIdentity(tell saveIdentity) error {
	id, found, err := storage.LoadIdentity(m.disk, "data")
	if err != nil || found {
		m.identity = id
		return err
	}
	occupied, err := storage.HasLogOrState(m.disk, "data")
	if err == nil && occupied {
		err = errors.New("a log or a state is there and the identity is lost")
	}
	if err != nil {
		return err
	}
	return m.save(founding, tell)
}

func (m *member) save(id storage.Identity, tell saveIdentity) error {
	tell(id, false)
	err := storage.SaveIdentity(m.disk, "data", id)
	if err == nil {
		tell(id, true)
	}
	return err
}

// found gives a founding member its first state. A crash before the end leaves
// it founding.
func (m *member) found(tell saveIdentity) error {
	at := m.engine.AppliedIndex().Index
	if m.identity.Stage == storage.StageReady {
		if at < base.Index {
			return errors.New("the state is empty though the member was in use")
		}
		return nil
	}
	if last := m.log.LastIndex(); last != base.Index || at > base.Index {
		return fmt.Errorf("the member is being founded, and its log ends at %d and its state at %d", last, at)
	}
	if err := m.engine.Apply(m.engine.NewBatch(), base); err != nil {
		return err
	}
	if err := m.engine.Flush(); err != nil {
		return err
	}
	ready := founding
	ready.Stage = storage.StageReady
	return m.save(ready, tell)
}

// apply puts the entries up to an index into the state, at most so many in one batch.
func (m *member) apply(to uint64, most uint64) error {
	for m.engine.AppliedIndex().Index < to {
		at := m.engine.AppliedIndex().Index
		entries, err := read(m.log, at+1, min(to, at+most)+1)
		if err != nil {
			return err
		}
		b := m.engine.NewBatch()
		for _, e := range entries {
			switch len(e.Data) {
			case 0:
			case 1:
				b.Delete([]byte(keyOf(e.Data[0])))
			default:
				b.Set([]byte(keyOf(e.Data[0])), e.Data)
			}
		}
		last := entries[len(entries)-1]
		if err := m.engine.Apply(b, storage.Position{Index: last.Index, Term: last.Term}); err != nil {
			return err
		}
	}
	return nil
}

// replay applies again what the log has and the state lacks.
func (m *member) replay() error {
	return m.apply(max(m.log.Load().HardState.Commit, m.engine.AppliedIndex().Index), 100)
}

// close ends the process cleanly, as far as it had begun.
func (m *member) close() error {
	var errs []error
	if m.log != nil {
		errs = append(errs, m.log.Close())
	}
	return errors.Join(append(errs, m.closeState())...)
}

// closeState is close without the log: as if the process had been killed.
func (m *member) closeState() error {
	var errs []error
	if m.engine != nil {
		errs = append(errs, m.engine.Flush())
		m.settle()
		errs = append(errs, m.engine.Close())
	}
	if m.lock != nil {
		errs = append(errs, m.lock.Close())
	}
	return errors.Join(errs...)
}

// player is a member at work, and what is known of it.
type player struct {
	*member
	random *rand.Rand
	disk   *crashfs.FS
	via    vfs.FS // what the member sees of the disk
	tuning tuning
	settle func()
	die    func(error)
	fatal  atomic.Pointer[error] // what the engine told in the background

	stable uint64 // entries up to here are synced
	term   uint64
	state  state // at knowledge.commit
	peers  int

	nested bool // a step is being done while a snapshot is saved
	saving bool
	err    error // of a nested step
	done   map[string]int

	mu sync.Mutex // guards what follows: the engine's goroutines crash, too
	k  knowledge
}

func newPlayer(disk *crashfs.FS, random *rand.Rand, t tuning) *player {
	p := &player{
		random: random, disk: disk, via: disk, tuning: t, settle: func() {}, stable: base.Index, term: base.Term,
		state: state{}, k: newKnowledge(t.keep), done: map[string]int{},
	}
	p.die = func(err error) { p.fatal.CompareAndSwap(nil, &err) }
	return p
}

// know changes what is known.
func (p *player) know(change func(*knowledge)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.k)
}

// known is what is known at this moment.
func (p *player) known() knowledge {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.k.frozen()
}

func (p *player) savesIdentity(id storage.Identity, done bool) {
	p.know(func(k *knowledge) {
		if done {
			k.identities = []*storage.Identity{&id}
		} else {
			k.identities = append(k.identities[:len(k.identities):len(k.identities)], &id)
		}
	})
}

// start opens the storage after whatever there was, and goes on from what it finds.
func (p *player) start() error {
	k := p.known()
	p.member = nil
	m, err := open(p.via, p.tuning, p.random, p.savesIdentity, p.settle, p.die)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	p.member = m
	found, err := k.holds(m)
	if err != nil {
		return fmt.Errorf("after a start: %w", err)
	}
	p.goOn(found)
	if err := m.found(p.savesIdentity); err != nil {
		return fmt.Errorf("found: %w", err)
	}
	if err := m.replay(); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	k = p.known()
	return k.stateIs(m.engine)
}

// goOn takes what was found for what there is: it is on disk, since the log
// wrote its end anew, and a snapshot that is listed is durable.
func (p *player) goOn(found history) {
	found.entries = slices.Clip(found.entries) // others may have the same
	p.stable, p.term = found.last(), max(p.term, found.hard.Term, found.term(found.last()))
	if r := p.k.received; r.last() > base.Index {
		p.term = max(p.term, r.term(r.last())+1) // whose entries are another's
	}
	p.know(func(k *knowledge) {
		known := k.now.common(found, k.commit()) - base.Index + 1
		k.digests = k.digests[:known:known]
		k.now, k.may = found, []history{found}
		k.durable, k.losing = p.engine.AppliedIndex().Index, false
		if list := p.snapshots.List(); len(list) > 0 {
			k.saved = list[0].Index
		}
		k.saving, k.installing = 0, false
		if p.log.FirstIndex() <= k.reset {
			k.reset = 0
		}
		if at := k.received.last(); at != k.saved || k.now.last() >= at && k.now.term(at) == k.received.term(at) {
			k.received = history{} // lost, or installed
		}
		if id := p.identity; id.Stage != "" {
			k.identities = []*storage.Identity{&id}
		}
	})
	p.state = state{}
	for _, e := range found.from(base.Index+1, p.k.commit()+1) {
		p.state.apply(e)
	}
}

// step is something that a member does.
type step struct {
	name   string
	weight int  // how often
	nested bool // it is also done while a snapshot is saved
	do     func(*player) error
}

var steps = []step{
	{"append", 30, true, (*player).append},
	{"append in parts", 4, true, (*player).appendInParts},
	{"sync", 20, true, (*player).sync},
	{"mark", 3, true, (*player).mark},
	{"apply", 20, true, (*player).applySome},
	{"cut", 6, true, (*player).cutLog},
	{"flush", 3, false, (*player).flush},
	{"snapshot", 2, false, (*player).snapshot},
	{"compact", 3, false, (*player).compact},
	{"identity", 2, false, (*player).meet},
	{"restart", 3, false, (*player).restart},
	{"lose the state", 2, false, (*player).loseState},
	{"install", 2, false, (*player).install},
	{"receive damage", 1, false, (*player).receiveDamage},
}

// step does one thing that a member does. A snapshot that was received and not
// installed is of entries that are committed for ever: it is installed first.
func (p *player) step() error {
	if p.k.received.last() != base.Index && !p.nested {
		return p.did("install", (*player).installReceived)
	}
	total := 0
	for _, s := range steps {
		if !p.nested || s.nested {
			total += s.weight
		}
	}
	at := p.random.IntN(total)
	for _, s := range steps {
		if p.nested && !s.nested {
			continue
		}
		if at -= s.weight; at < 0 {
			return p.did(s.name, s.do)
		}
	}
	panic("crashtest: no step")
}

func (p *player) did(name string, do func(*player) error) error {
	p.done[name]++
	err := do(p)
	p.settle()
	if err == nil {
		err = p.died()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// didAll is whether the member has done each of the steps.
func (p *player) didAll() bool {
	return !slices.ContainsFunc(steps, func(s step) bool { return p.done[s.name] == 0 })
}

// died is what the engine told in the background.
func (p *player) died() error {
	if err := p.fatal.Load(); err != nil {
		return *err
	}
	return nil
}

// entries follow the last one, or replace some that were not committed.
func (p *player) entries() []storage.Entry {
	now, commit := p.k.now, p.k.commit()
	first := now.last() + 1
	if first > commit+1 && p.random.IntN(6) == 0 {
		first = commit + 1 + p.random.Uint64N(first-commit-1)
		p.term++
	}
	entries := make([]storage.Entry, 1+p.random.IntN(5))
	for i := range entries {
		data := make([]byte, p.random.IntN(p.tuning.large))
		for k := range data {
			data[k] = byte(p.random.Uint32())
		}
		if len(data) > 0 {
			data[0] %= 32
		}
		entries[i] = storage.Entry{Index: first + uint64(i), Term: p.term, Kind: storage.EntryKind(p.random.IntN(3)), Data: data}
	}
	return entries
}

// hardState is of the present term, and commits some of what will be there.
func (p *player) hardState(last uint64) *storage.HardState {
	if p.random.IntN(8) == 0 {
		p.term++
	}
	commit := p.k.commit()
	commit += p.random.Uint64N(last - commit + 1)
	return &storage.HardState{Term: p.term, Vote: p.random.Uint64N(4), Commit: commit}
}

// append is what a member does for one or more messages of Raft.
func (p *player) append() error {
	var entries []storage.Entry
	var hard *storage.HardState
	last := p.k.now.last()
	if p.random.IntN(12) != 0 {
		entries = p.entries()
		last = entries[len(entries)-1].Index
	}
	if len(entries) == 0 || p.random.IntN(p.tuning.hardOneIn) == 0 {
		hard = p.hardState(last)
	}
	return p.appendThese(entries, hard)
}

// appendInParts writes a hard state with the first of the entries that it came
// with, and the others after it: its commit index is of all of them.
func (p *player) appendInParts() error {
	entries := p.entries()
	hard := p.hardState(entries[len(entries)-1].Index)
	for i, e := range entries {
		if err := p.appendThese([]storage.Entry{e}, hard); err != nil {
			return err
		}
		if i+1 < len(entries) && p.random.IntN(2) == 0 {
			hard = nil
		}
	}
	return nil
}

func (p *player) appendThese(entries []storage.Entry, hard *storage.HardState) error {
	if len(entries) > 0 {
		p.stable = min(p.stable, entries[0].Index-1)
	}
	p.know(func(k *knowledge) { k.asked(entries, hard) })
	p.commit()
	if err := p.log.Append(entries, hard); err != nil {
		return err
	}
	if planted("ack_before_sync") {
		p.know(func(k *knowledge) { k.acknowledge() })
	}
	return nil
}

// commit notes what the state will be after each entry that was committed.
func (p *player) commit() {
	p.know(func(k *knowledge) {
		for i := k.commit() + 1; i <= k.now.hard.Commit; i++ {
			p.state.apply(k.now.at(i))
			k.digests = append(k.digests, p.state.digest())
		}
	})
}

func (p *player) sync() error {
	err := p.log.Sync()
	if err == nil {
		p.know(func(k *knowledge) { k.acknowledge() })
		p.stable = p.k.now.last()
	}
	return err
}

func (p *player) mark() error { return p.log.Mark() }

// applySome applies what is committed and synced.
func (p *player) applySome() error {
	at, to := p.engine.AppliedIndex().Index, min(p.k.commit(), p.stable)
	if planted("apply_before_sync") {
		to = p.k.commit()
	}
	if to <= at {
		return nil
	}
	return p.apply(at+1+p.random.Uint64N(to-at), 1+p.random.Uint64N(8))
}

func (p *player) flush() error {
	at := p.engine.AppliedIndex().Index
	if err := p.engine.Flush(); err != nil {
		return err
	}
	p.isDurable(at)
	return nil
}

func (p *player) isDurable(at uint64) {
	p.know(func(k *knowledge) { k.durable = max(k.durable, at) })
}

// cutLog removes what neither the state on disk nor the oldest snapshot needs.
func (p *player) cutLog() error {
	oldest, ok := p.snapshots.Oldest()
	if !ok {
		return nil
	}
	durable, err := p.engine.DurableIndex()
	if err != nil {
		return err
	}
	p.isDurable(durable)
	needed := min(oldest, durable)
	return p.log.TruncatePrefix(needed - min(needed, p.tuning.tail))
}

// snapshot saves the state as it is, and other work goes on meanwhile.
func (p *player) snapshot() (err error) {
	s, err := p.engine.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p.know(func(k *knowledge) { k.saving = s.Applied().Index })
	p.saving = true
	saved, err := p.snapshots.Save(background, s, storage.SnapshotMeta{ClusterID: founding.ClusterID, Incarnation: "first", Created: 1})
	p.saving = false
	if err = errors.Join(err, p.err); err == nil {
		p.know(func(k *knowledge) { k.saved, k.saving = max(k.saved, saved.Index), 0 })
	}
	return err
}

// compact is what a member does when a snapshot is due: then all that is
// committed is soon in it, and the log is cut behind it.
func (p *player) compact() error {
	for _, do := range []func() error{p.sync, p.applyAll, p.flush, p.snapshot, p.cutLog} {
		if err := do(); err != nil {
			return err
		}
		p.settle()
	}
	return nil
}

func (p *player) applyAll() error {
	return p.apply(max(p.k.commit(), p.engine.AppliedIndex().Index), 50)
}

// meanwhile does other work before an operation of a snapshot.
func (p *player) meanwhile(op crashfs.Op) {
	// No goroutine of the engine comes past the path.
	if !strings.HasPrefix(op.Path, "data/snapshot/") || !p.saving || p.nested || p.err != nil || p.random.IntN(2) == 0 {
		return
	}
	p.nested = true
	p.err = p.step()
	p.nested = false
}

// meet notes one more peer.
func (p *player) meet() error {
	p.peers++
	id := *p.k.identities[0]
	id.Peers = map[uint64]string{9: fmt.Sprint(p.peers)}
	return p.save(id, p.savesIdentity)
}

// restart ends the process, cleanly or not; the disk keeps its power.
func (p *player) restart() error {
	at := p.engine.AppliedIndex().Index
	end := p.closeState
	if p.random.IntN(2) == 0 {
		end = p.close
	}
	if err := end(); err != nil {
		return err
	}
	p.isDurable(at) // closing flushes
	return p.start()
}

// loseState takes the state away while the process is down. It is built anew
// from a snapshot.
func (p *player) loseState() error {
	if p.k.saved == 0 {
		return nil
	}
	if err := p.close(); err != nil {
		return err
	}
	p.know(func(k *knowledge) { k.losing = true })
	if err := p.disk.RemoveAll("data/state"); err != nil {
		return err
	}
	return p.start()
}
