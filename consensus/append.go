package consensus

import (
	"errors"
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/storage"
)

// appender is the executor that writes the log. It takes everything that waits,
// writes it, syncs once, and only then delivers the answers that depend on it:
// votes and acknowledgements of appends, to peers and to this member itself.
type appender struct {
	id      uint64
	log     *storage.Log
	clock   Clock
	metrics *metrics
	queue   *mailbox[*pb.Message] // MsgStorageAppend, in order; nil is a tick
	// snapshots is where one must be before the log begins after it, and install
	// has it made the state.
	snapshots *storage.Snapshots
	install   func(storage.Position)
	joined    func() error      // this member has a state, whatever comes
	respond   func(*pb.Message) // delivers an answer, to this member or another

	wanted atomic.Uint64 // entries up to here may be cut from the log's beginning
	bytes  atomic.Uint64 // of the data of all entries appended since the start

	spare    []*pb.Message
	cut      uint64            // what wanted was when the log was last cut
	written  storage.HardState // the newest in the log
	unmarked bool              // something was synced since the last mark
}

// step does all that waits.
func (a *appender) step() error {
	messages := a.queue.take(a.spare)
	a.spare = messages
	if mutant("send_before_durable") {
		a.respondAll(messages)
	}
	mustSync, answers := false, 0
	w := logWriter{log: a.log}
	for _, m := range messages {
		if m == nil {
			continue
		}
		answers++
		a.count(m)
		if m.GetSnapshot() != nil {
			if err := errors.Join(w.flush(), a.beginAnew(m)); err != nil {
				return fmt.Errorf("begin the log anew after a snapshot: %w", err)
			}
		}
		mustSync = a.mustSync(m) || mustSync
		if err := w.add(m); err != nil {
			return fmt.Errorf("append to the log: %w", err)
		}
	}
	if answers == 0 {
		return errors.Join(a.mark(len(messages) > 0), a.cutLog())
	}
	if err := w.flush(); err != nil {
		return fmt.Errorf("append to the log: %w", err)
	}
	if mustSync {
		if err := a.sync(); err != nil {
			return err
		}
	}
	if !mutant("send_before_durable") {
		a.respondAll(messages)
	}
	return a.cutLog()
}

func (a *appender) respondAll(messages []*pb.Message) {
	for _, m := range messages {
		for _, answer := range m.GetResponses() {
			a.respond(answer)
		}
	}
}

// beginAnew is the first half of an install: the log begins after the snapshot.
// When it is durable the second half is on its way, before the leader hears of it.
func (a *appender) beginAnew(m *pb.Message) error {
	at := positionOf(m.GetSnapshot())
	if _, kept := a.snapshots.Find(at); !kept {
		return fmt.Errorf("the snapshot at index %d of term %d is not kept, or is damaged", at.Index, at.Term)
	}
	hs, ok := hardStateOf(m)
	if !ok {
		hs = a.written
	}
	if err := a.log.Reset(at, hs); err != nil {
		return err
	}
	if err := a.joined(); err != nil {
		return err
	}
	a.written = hs
	a.install(at)
	return nil
}

// cutLog removes what is not needed any more from the log's beginning, after
// the answers: nobody waits for it.
func (a *appender) cutLog() error {
	wanted := a.wanted.Load()
	if wanted <= a.cut {
		return nil
	}
	a.cut = wanted
	if err := a.log.TruncatePrefix(wanted); err != nil {
		return fmt.Errorf("cut the log: %w", err)
	}
	return nil
}

// count is for whoever decides when the log is long enough to be cut.
func (a *appender) count(m *pb.Message) {
	bytes := 0
	for _, e := range m.GetEntries() {
		bytes += len(e.GetData())
	}
	a.bytes.Add(uint64(bytes))
}

// mustSync tells whether forgetting the message could break a promise. A commit
// index that moves alone promises nothing: it is found again.
func (a *appender) mustSync(m *pb.Message) bool {
	before := a.written
	if hs, ok := hardStateOf(m); ok {
		a.written = hs
	}
	promises := a.written.Term != before.Term || a.written.Vote != before.Vote
	return len(m.GetEntries()) > 0 && !mutant("unsynced_entries") || promises && !mutant("unsynced_vote")
}

func (a *appender) sync() error {
	began := a.clock.Now()
	if err := a.log.Sync(); err != nil {
		return fmt.Errorf("sync the log: %w", err)
	}
	a.metrics.syncSeconds.Observe(a.clock.Now().Sub(began).Seconds())
	a.unmarked = true
	return nil
}

// mark attests the last sync one idle tick after it: otherwise damage to the
// last frame could not be told from a tear.
func (a *appender) mark(tick bool) error {
	if !tick || !a.unmarked {
		return nil
	}
	a.unmarked = false
	if err := a.log.Mark(); err != nil {
		return fmt.Errorf("mark the log: %w", err)
	}
	return nil
}

// hardStateOf returns the hard state in a message, if it changed.
func hardStateOf(m *pb.Message) (storage.HardState, bool) {
	hs := storage.HardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
	return hs, hs != storage.HardState{}
}

// logWriter gathers consecutive entries into few writes of bounded size.
type logWriter struct {
	log       *storage.Log
	entries   []storage.Entry
	bytes     int
	hardState *storage.HardState
}

func (w *logWriter) add(m *pb.Message) error {
	if hs, ok := hardStateOf(m); ok {
		w.hardState = &hs
	}
	for _, e := range m.GetEntries() {
		follows := len(w.entries) == 0 || w.entries[len(w.entries)-1].Index+1 == e.GetIndex()
		if !follows || w.bytes+len(e.GetData()) > appendFrameBytes {
			if err := w.flush(); err != nil {
				return err
			}
		}
		w.entries = append(w.entries, entryForLog(e))
		w.bytes += len(e.GetData())
	}
	return nil
}

// flush writes what was gathered. A hard state goes with or before the entries
// that it came with; all of it is synced together.
func (w *logWriter) flush() error {
	if len(w.entries) == 0 && w.hardState == nil {
		return nil
	}
	err := w.log.Append(w.entries, w.hardState)
	w.entries, w.bytes, w.hardState = w.entries[:0], 0, nil
	return err
}
