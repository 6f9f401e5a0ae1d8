package storage

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Entry is one entry of the Raft log. Data are never changed once appended.
type Entry struct {
	Index, Term uint64
	Kind        EntryKind
	Data        []byte
}

// EntryKind is Raft's entry type.
type EntryKind uint8

// HardState is what a member has promised: the term it is in, whom it voted
// for in it, and how far it knows the log to be committed.
type HardState struct{ Term, Vote, Commit uint64 }

// Defaults of LogOptions.
const (
	segmentBytesDefault = 64 << 20
	tailBytesDefault    = 16 << 20
)

// LogOptions says where the log is and how it is kept.
type LogOptions struct {
	FS  vfs.FS
	Dir string // "wal" in the data directory
	// Base is the entry before the first one of a new log. An existing log
	// knows its own.
	Base Position
	// Applied is the last entry that the engine holds: a log that ends before
	// it, or begins after what follows it, is refused.
	Applied      uint64
	Salt         func() uint64       // a random number for each segment
	SegmentBytes int64               // a segment of this size is followed by the next; default 64 MiB
	TailBytes    int                 // entries kept in memory, the newest; default 16 MiB
	OnSync       func(time.Duration) // told how long each sync took; nil = nobody
}

// LogContents is what an open log holds.
type LogContents struct {
	First, Last uint64 // indexes; First is Last + 1 when it is empty
	HardState   HardState
	TornBytes   int64 // cut from the end when it was opened
}

var (
	// ErrCompacted is returned for entries that are before the log's first.
	ErrCompacted = errors.New("storage: the entry is before the log's first")
	// ErrUnavailable is returned for entries that are after the log's last.
	ErrUnavailable = errors.New("storage: the entry is after the log's last")
	// ErrTooLarge is returned for an entry that no frame can hold.
	ErrTooLarge = errors.New("storage: the entry is too large for the log")
)

// Log is what Raft must not forget, in segment files.
//
// Append, Sync, Mark, TruncatePrefix, Reset and Close are one goroutine's; the others
// are anybody's, at the same time. The newest entries are in memory, the rest
// is read from the segments by a sparse index.
//
// The first error of the disk is final: every later write returns it too.
type Log struct {
	o LogOptions

	// The writer's alone.
	active *segment
	buf    []byte
	broken error
	closed bool
	visit  func(LogFrame) error // told of all that is replayed; nil = nobody

	mu sync.RWMutex // guards what follows; the writer alone changes it
	logIndex
	hard HardState
	torn int64
}

// Load tells what the log holds.
func (l *Log) Load() LogContents {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return LogContents{First: l.first(), Last: l.last, HardState: l.hard, TornBytes: l.torn}
}

// FirstIndex is that of the oldest entry.
func (l *Log) FirstIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first()
}

// LastIndex is that of the newest entry.
func (l *Log) LastIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// Term is the term of an entry, or of the one before the first.
func (l *Log) Term(index uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.term(index)
}

// Append writes consecutive entries, a hard state, or both: the hard state is
// never on disk later than the entries. Entries that the log has already from
// the first one's index on are replaced. Nothing is durable before Sync.
//
// A commit index above the log's last entry is written as that entry's, in each
// frame anew: a crash may tear off the frames that hold the rest, and a log that
// ends before its commit index is refused.
func (l *Log) Append(entries []Entry, hard *HardState) error {
	if l.closed {
		return ErrClosed
	}
	if l.broken != nil {
		return l.broken
	}
	if err := l.checkEntries(entries); err != nil {
		return err
	}
	if l.active.size >= l.o.SegmentBytes || l.overwritesEarlierSegment(entries) {
		if err := l.rotate(entries); err != nil {
			return l.fail(err)
		}
	}
	for first := true; first || len(entries) > 0; first = false {
		n := fitting(entries)
		if err := l.write(l.record(entries[:n], hard)); err != nil {
			return l.fail(err)
		}
		entries = entries[n:]
	}
	return nil
}

// record is what goes into one frame.
func (l *Log) record(entries []Entry, hard *HardState) record {
	if hard == nil {
		return record{entries: entries}
	}
	last, h := l.last, *hard
	if len(entries) > 0 {
		last = entries[len(entries)-1].Index
	}
	if !mutant("commit_beyond_last") {
		h.Commit = min(h.Commit, last)
	}
	return record{entries: entries, hard: &h}
}

// checkEntries refuses what is too large and stops at what Raft never does.
func (l *Log) checkEntries(entries []Entry) error {
	for i, e := range entries {
		if len(e.Data) > frameBytesMax-frameRoom {
			return fmt.Errorf("entry %d has %d bytes, the most is %d: %w", e.Index, len(e.Data), frameBytesMax-frameRoom, ErrTooLarge)
		}
		if e.Index != entries[0].Index+uint64(i) {
			panic(fmt.Sprintf("storage: entry %d appended as the %d. after %d", e.Index, i, entries[0].Index))
		}
	}
	if len(entries) > 0 && (entries[0].Index > l.last+1 || entries[0].Index < l.first()) {
		panic(fmt.Sprintf("storage: entry %d appended to a log from %d to %d", entries[0].Index, l.first(), l.last))
	}
	return nil
}

// frameRoom is kept free in a frame for what goes with one entry: flags, hard
// state, the number of entries and the entry's own head.
const frameRoom = 128

// fitting is how many of the entries one frame holds.
func fitting(entries []Entry) int {
	bytes := frameRoom
	for n, e := range entries {
		if bytes += entryBytesMax + len(e.Data); bytes > frameBytesMax && n > 0 {
			return n
		}
	}
	return len(entries)
}

// overwritesEarlierSegment tells whether entries replace some that lie before
// the active segment. They then begin a segment of their own, so that every
// entry of a segment comes after the one that its header names.
func (l *Log) overwritesEarlierSegment(entries []Entry) bool {
	return len(entries) > 0 && entries[0].Index <= l.active.head.before.Index
}

// write writes one frame and takes it into the index.
func (l *Log) write(r record) error {
	l.buf = r.appendTo(l.buf[:0])
	at := l.active.size
	if err := l.active.add(frameData, l.buf); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(r, l.active.head.sequence, at)
	return nil
}

// take notes what a data frame holds.
func (l *Log) take(r record, sequence uint64, offset int64) {
	if r.hard != nil {
		l.hard = *r.hard
	}
	if len(r.entries) > 0 {
		l.add(r.entries, place{sequence, offset}, l.o.TailBytes)
	}
}

// rotate ends the active segment and begins the next, which repeats the hard
// state, since the segments before it may be removed.
func (l *Log) rotate(next []Entry) error {
	before := l.last
	if len(next) > 0 {
		before = next[0].Index - 1
	}
	term, err := l.term(before)
	if err != nil {
		panic(fmt.Sprintf("storage: the term of entry %d of a log from %d to %d: %v", before, l.first(), l.last, err))
	}
	if err := l.syncActive(); err != nil {
		return err
	}
	if err := l.active.add(frameSeal, nil); err != nil {
		return err
	}
	if err := unless("skip_seal_sync", l.syncActive); err != nil {
		return err
	}
	head := segmentHead{salt: l.o.Salt(), sequence: l.active.head.sequence + 1, before: Position{before, term}}
	created, err := createSegment(l.o.FS, l.o.Dir, head, func(s *segment) error {
		return unless("forget_hard_state_at_rotation", func() error {
			return s.add(frameData, record{hard: &l.hard}.appendTo(nil))
		})
	})
	if err != nil {
		return err
	}
	old := l.active
	l.active = created
	l.mu.Lock()
	l.addSegment(segmentPlace{head.sequence, head.before})
	l.mu.Unlock()
	return old.file.Close()
}

// Sync makes everything appended so far durable.
func (l *Log) Sync() error {
	if l.closed {
		return ErrClosed
	}
	if l.broken != nil {
		return l.broken
	}
	if err := unless("skip_log_sync", l.syncActive); err != nil {
		return l.fail(err)
	}
	return nil
}

func (l *Log) syncActive() error {
	began := time.Now()
	if err := l.active.sync(); err != nil {
		return err
	}
	if l.o.OnSync != nil {
		l.o.OnSync(time.Since(began))
	}
	return nil
}

// Mark writes an empty frame that attests the last sync: without a frame after
// it, damage to what was synced last could not be told from a torn write. It
// is for idle moments; the mark itself need not be synced.
func (l *Log) Mark() error {
	if l.closed {
		return ErrClosed
	}
	if l.broken != nil {
		return l.broken
	}
	if err := l.active.add(frameMark, nil); err != nil {
		return l.fail(err)
	}
	return nil
}

// TruncatePrefix removes the segments that hold no entry above index, all of
// which the caller has in a durable state. The active segment stays, so
// FirstIndex may be anything up to index + 1.
func (l *Log) TruncatePrefix(index uint64) error {
	if l.closed {
		return ErrClosed
	}
	if l.broken != nil {
		return l.broken
	}
	for len(l.segments) > 1 && l.segments[1].before.Index <= index {
		l.mu.Lock()
		oldest := l.dropSegment()
		l.mu.Unlock()
		if err := removeSegments(l.o, []segmentPlace{oldest}); err != nil {
			return l.fail(err)
		}
	}
	return nil
}

// Reset replaces the log by an empty one that begins after base, with a hard
// state whose commit index is base's: the state comes from elsewhere. It is
// durable when the call returns; after a crash the old log is there or the new
// one. The new one begins in a segment that says so; those before it are no part
// of the log from the moment on at which that has its name, and go one by one.
func (l *Log) Reset(base Position, hard HardState) error {
	if l.closed {
		return ErrClosed
	}
	if l.broken != nil {
		return l.broken
	}
	if err := l.reset(base, hard); err != nil {
		return l.fail(fmt.Errorf("begin anew after entry %d: %w", base.Index, err))
	}
	return nil
}

func (l *Log) reset(base Position, hard HardState) error {
	hard.Commit = base.Index
	head := segmentHead{salt: l.o.Salt(), sequence: l.active.head.sequence + 1, before: base, reset: true}
	before := l.segments
	if mutant("reset_removes_first") {
		if err := removeSegments(l.o, before); err != nil {
			return err
		}
		before = nil
	}
	created, err := createSegment(l.o.FS, l.o.Dir, head, func(s *segment) error {
		if err := s.add(frameData, record{hard: &hard}.appendTo(nil)); err != nil {
			return err
		}
		if err := s.sync(); err != nil {
			return err
		}
		return s.add(frameMark, nil)
	})
	if err != nil {
		return err
	}
	old := l.active
	l.active = created
	l.mu.Lock()
	l.logIndex, l.hard = logIndex{segments: []segmentPlace{{head.sequence, base}}, last: base.Index}, hard
	l.mu.Unlock()
	if err := old.file.Close(); err != nil {
		return err
	}
	return removeSegments(l.o, before)
}

// removeSegments removes segments one after the other: what a crash leaves has
// no gap.
func removeSegments(o LogOptions, all []segmentPlace) error {
	for _, s := range all {
		err := o.FS.Remove(o.FS.PathJoin(o.Dir, segmentName(s.sequence)))
		if err == nil {
			err = unless("skip_removal_dir_sync", func() error { return syncDir(o.FS, o.Dir) })
		}
		if err != nil {
			return fmt.Errorf("remove segment %s: %w", segmentName(s.sequence), err)
		}
	}
	return nil
}

// Close makes everything durable and attests it.
func (l *Log) Close() error {
	if l.closed {
		return nil
	}
	var err error
	if l.broken == nil {
		if err = l.Sync(); err == nil {
			err = l.Mark()
		}
		if err == nil {
			err = l.Sync()
		}
	}
	l.closed = true
	return errors.Join(err, l.active.file.Close())
}

// fail makes an error final.
func (l *Log) fail(err error) error {
	if mutant("retry_after_eio") {
		return err
	}
	l.broken = fmt.Errorf("write log: %w", err)
	return l.broken
}
