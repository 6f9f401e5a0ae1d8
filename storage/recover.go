package storage

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// DamageError says that the log is not what was written, and where. Nothing is
// repaired then: what is missing may have been acknowledged.
type DamageError struct {
	Segment string // the file; empty when the log as a whole is meant
	Offset  int64  // of the first byte that is wrong
	Reason  string
}

func (e *DamageError) Error() string {
	where := "the log"
	if e.Segment != "" {
		where = fmt.Sprintf("segment %s of the log, at offset %d,", e.Segment, e.Offset)
	}
	return fmt.Sprintf("%s is damaged: %s; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory", where, e.Reason)
}

// OpenLog opens a log, or begins an empty one.
//
// It reads every segment from its first frame to its last. A write that a
// crash cut short may be missing at the end of the last segment, above all
// that is known to be synced: that tail is cut. Anything else that does not
// check is a *DamageError, and so is a log that ends before its hard state's
// commit index or before what the engine has applied.
//
// The last segment is then written anew. After a failed sync its pages may be
// in memory only, marked as written: to sync them again would prove nothing.
func OpenLog(o LogOptions) (*Log, error) {
	return openLog(o, nil)
}

// openLog has the state opened between the reading of the log and the writing,
// unless it is open, so that each may be held against the other. The log that it
// is given may prove to be damaged.
func openLog(o LogOptions, openState func(*Log) (applied uint64, err error)) (*Log, error) {
	o.SegmentBytes, o.TailBytes = cmp.Or(o.SegmentBytes, segmentBytesDefault), cmp.Or(o.TailBytes, tailBytesDefault)
	l := &Log{o: o}
	if err := l.open(openState); err != nil {
		err = fmt.Errorf("open the log in %s: %w", o.Dir, err)
		if l.active != nil {
			err = errors.Join(err, l.active.file.Close())
		}
		return nil, err
	}
	return l, nil
}

func (l *Log) open(openState func(*Log) (uint64, error)) error {
	if err := makeDir(l.o.FS, l.o.Dir); err != nil {
		return err
	}
	sequences, err := l.tidy()
	if err != nil {
		return err
	}
	var end int64
	isNew := len(sequences) == 0
	if !isNew {
		end, err = l.replay(sequences)
	}
	if err != nil {
		return err
	}
	if openState != nil {
		if isNew {
			l.segments, l.last = []segmentPlace{{1, l.o.Base}}, l.o.Base.Index
		}
		if l.o.Applied, err = openState(l); err != nil {
			return err
		}
	}
	if isNew {
		return l.begin()
	}
	if err := l.check(); err != nil {
		return err
	}
	return l.rewriteLast(end)
}

// tidy removes segments that were never finished and lists the others in order.
func (l *Log) tidy() ([]uint64, error) {
	sequences, unfinished, err := l.list()
	if err != nil {
		return nil, err
	}
	for _, name := range unfinished {
		if err := l.o.FS.Remove(l.o.FS.PathJoin(l.o.Dir, name)); err != nil {
			return nil, fmt.Errorf("remove a leftover: %w", err)
		}
	}
	whole, err := unbroken(sequences)
	if err != nil {
		return nil, err
	}
	return l.removeReplaced(whole)
}

// removeReplaced removes what a crash has left of a log that was replaced, and
// lists the rest.
func (l *Log) removeReplaced(sequences []uint64) ([]uint64, error) {
	begins, err := l.newestReset(sequences)
	if err != nil {
		return nil, err
	}
	var replaced []segmentPlace
	for _, n := range sequences[:begins] {
		replaced = append(replaced, segmentPlace{sequence: n})
	}
	return sequences[begins:], removeSegments(l.o, replaced)
}

// newestReset is where the newest segment is with which the log begins anew,
// or 0. A header that cannot be read is told of when the segment is replayed.
func (l *Log) newestReset(sequences []uint64) (int, error) {
	for i, n := range slices.Backward(sequences) {
		r, err := openSegment(l.o.FS, l.o.Dir, n)
		var damaged *DamageError
		if errors.As(err, &damaged) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if err := r.close(); err != nil {
			return 0, err
		}
		if r.head.reset {
			return i, nil
		}
	}
	return 0, nil
}

// list is the segments in order, and the files of those that were never finished.
func (l *Log) list() (sequences []uint64, unfinished []string, err error) {
	names, err := l.o.FS.List(l.o.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", l.o.Dir, err)
	}
	for _, name := range names {
		if n, ok := segmentSequence(name); ok {
			sequences = append(sequences, n)
		} else if _, ok := segmentSequence(strings.TrimSuffix(name, tempSuffix)); ok {
			unfinished = append(unfinished, name)
		}
	}
	slices.Sort(sequences)
	return sequences, unfinished, nil
}

// begin makes the first segment of a new log.
func (l *Log) begin() error {
	if l.o.Applied > l.o.Base.Index {
		return &DamageError{Reason: fmt.Sprintf("it is empty, though entry %d was applied", l.o.Applied)}
	}
	head := segmentHead{salt: l.o.Salt(), sequence: 1, before: l.o.Base}
	created, err := createSegment(l.o.FS, l.o.Dir, head, func(*segment) error { return nil })
	if err != nil {
		return err
	}
	l.active = created
	l.segments, l.last = []segmentPlace{{1, l.o.Base}}, l.o.Base.Index
	return nil
}

// replay reads all segments and returns where the valid part of the last ends.
func (l *Log) replay(sequences []uint64) (end int64, err error) {
	for i, n := range sequences {
		if end, err = l.replaySegment(n, i == len(sequences)-1); err != nil {
			return 0, err
		}
	}
	return end, nil
}

func (l *Log) replaySegment(sequence uint64, isLast bool) (end int64, err error) {
	r, err := openSegment(l.o.FS, l.o.Dir, sequence)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	damaged := func(offset int64, format string, args ...any) error {
		return &DamageError{Segment: segmentName(sequence), Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	if err := l.follow(r.head); err != nil {
		return 0, damaged(0, "%v", err)
	}
	if err := l.showPart(LogFrame{Segment: segmentName(sequence), Kind: LogHead, Bytes: segmentHeadBytes, Before: r.head.before}); err != nil {
		return 0, err
	}
	sealed := false
	for {
		at := r.offset
		f, err := r.next()
		switch {
		case err == io.EOF && !isLast && !sealed:
			return 0, damaged(at, "the file ends without its seal, though a later segment is there")
		case err == io.EOF:
			return at, nil
		case errors.Is(err, errBadFrame) && !isLast:
			return 0, damaged(at, "no valid frame is there, though a later segment is")
		case errors.Is(err, errBadFrame):
			return at, l.tear(r, at)
		case err != nil:
			return 0, fmt.Errorf("read segment %s: %w", segmentName(sequence), err)
		case sealed:
			return 0, damaged(at, "a frame follows the seal")
		}
		if err := l.replayFrame(f, r.head); err != nil {
			return 0, damaged(at, "%v", err)
		}
		if err := l.show(segmentName(sequence), f); err != nil {
			return 0, err
		}
		sealed = f.kind == frameSeal
	}
}

// follow checks that a segment goes on where the ones before it end. One that
// replaces entries begins earlier, even before all that is left: then it has
// replaced all that, and the segments it went on from were removed.
func (l *Log) follow(h segmentHead) error {
	switch {
	case len(l.segments) == 0:
		l.last = h.before.Index
	case h.before.Index < l.base().Index:
		l.cut(h.before.Index + 1)
	default:
		term, err := l.term(h.before.Index)
		if err != nil || term != h.before.Term {
			return fmt.Errorf("it follows entry %d of term %d, which is not in the log from %d to %d", h.before.Index, h.before.Term, l.first(), l.last)
		}
		if h.before.Index < l.last {
			l.cut(h.before.Index + 1)
		}
	}
	l.addSegment(segmentPlace{h.sequence, h.before})
	return nil
}

// replayFrame takes in a frame whose checksum is right.
func (l *Log) replayFrame(f frame, h segmentHead) error {
	switch f.kind {
	case frameMark, frameSeal:
		return nil
	case frameData:
	default:
		return fmt.Errorf("a frame of kind %d, which this version does not know", f.kind)
	}
	r, err := decodeRecord(f.payload)
	if err != nil {
		return err
	}
	for i, e := range r.entries {
		if first := r.entries[0].Index; e.Index != first+uint64(i) || first > l.last+1 || first <= h.before.Index {
			return fmt.Errorf("entry %d stands where one of %d to %d should", e.Index, h.before.Index+1, l.last+1)
		}
	}
	l.take(r, h.sequence, f.offset)
	return nil
}

// tear decides about a place in the last segment where no valid frame is: nil
// when a write was cut short there.
func (l *Log) tear(r *segmentReader, hole int64) error {
	beyond, found, err := r.syncedBeyond(hole)
	if err != nil {
		return fmt.Errorf("read segment %s: %w", segmentName(r.head.sequence), err)
	}
	if found && !mutant("cut_synced_records") {
		return &DamageError{Segment: segmentName(r.head.sequence), Offset: hole, Reason: fmt.Sprintf("no valid frame is there, though the one at %d says that it was synced", beyond)}
	}
	l.torn = r.size - hole
	return l.showPart(LogFrame{Segment: segmentName(r.head.sequence), Offset: hole, Bytes: l.torn, Kind: LogTorn})
}

// check holds the log against what is known to have been in it.
func (l *Log) check() error {
	switch {
	case l.last < l.hard.Commit:
		return &DamageError{Reason: fmt.Sprintf("it ends at entry %d, though %d was committed", l.last, l.hard.Commit)}
	case l.last < l.o.Applied:
		return &DamageError{Reason: fmt.Sprintf("it ends at entry %d, though %d was applied", l.last, l.o.Applied)}
	case l.base().Index > max(l.o.Applied, l.o.Base.Index):
		return &DamageError{Reason: fmt.Sprintf("it begins with entry %d, though the state ends with %d: what lies between is missing", l.first(), max(l.o.Applied, l.o.Base.Index))}
	}
	return nil
}

// rewriteLast copies the valid part of the last segment to a new file that
// takes its name, and goes on in that. The copy ends with a mark, or damage to
// what had been synced long ago would look like a torn write.
func (l *Log) rewriteLast(end int64) (err error) {
	if mutant("tail_not_rewritten") && l.torn == 0 {
		if l.active, err = l.reuseLast(end); l.active != nil || err != nil {
			return err
		}
	}
	last := l.segments[len(l.segments)-1]
	r, err := openSegment(l.o.FS, l.o.Dir, last.sequence)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	head := segmentHead{salt: l.o.Salt(), sequence: last.sequence, before: last.before, reset: r.head.reset}
	l.active, err = createSegment(l.o.FS, l.o.Dir, head, func(s *segment) error {
		if err := l.copyFrames(s, r, end); err != nil {
			return err
		}
		if err := s.sync(); err != nil {
			return err
		}
		return unless("rewrite_without_mark", func() error { return s.add(frameMark, nil) })
	})
	return err
}

// copyFrames copies the data frames and moves the index along.
func (l *Log) copyFrames(to *segment, from *segmentReader, end int64) error {
	moved := 0
	for moved < len(l.spans) && l.spans[moved].sequence != to.head.sequence {
		moved++
	}
	for from.offset < end {
		f, err := from.next()
		if err != nil {
			return fmt.Errorf("read it again: %w", err)
		}
		if moved < len(l.spans) && l.spans[moved].offset == f.offset {
			l.spans[moved].offset = to.size
			moved++
		}
		if f.kind != frameData {
			continue
		}
		if err := to.add(frameData, f.payload); err != nil {
			return err
		}
	}
	return nil
}
