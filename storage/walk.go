package storage

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// LogFrame is one thing that stands in a log's segment.
type LogFrame struct {
	Segment string // the file
	Offset  int64
	Bytes   int64 // with head and padding
	Kind    LogFrameKind
	Synced  int64      // up to where the file was known to be synced, of a frame
	Before  Position   // the entry before the segment's first, of a head
	Hard    *HardState // of a data frame, nil when it has none
	Entries []Entry    // of a data frame
}

// LogFrameKind says what a LogFrame is.
type LogFrameKind string

// Kinds of a LogFrame.
const (
	LogHead LogFrameKind = "head" // the header of a segment
	LogData LogFrameKind = "data" // entries, a hard state, or both
	LogMark LogFrameKind = "mark" // nothing but the synced offset
	LogSeal LogFrameKind = "seal" // the last of a segment
	LogTorn LogFrameKind = "torn" // bytes at the log's end that a crash left of a write; opening the log cuts them
)

// WalkLog calls fn for everything in a log, from the first segment to the last,
// and changes nothing. It checks what OpenLog checks, but for what the engine
// knows, and goes on up to the first thing that is wrong: that is its
// *DamageError. A file of a segment that was never finished is passed over.
func WalkLog(fs vfs.FS, dir string, fn func(LogFrame) error) error {
	l := &Log{o: LogOptions{FS: fs, Dir: dir, TailBytes: 1}, visit: fn}
	sequences, _, err := l.list()
	if err != nil {
		return err
	}
	whole, gap := unbroken(sequences)
	begins, err := l.newestReset(whole)
	if err != nil {
		return err
	}
	for i, n := range whole {
		if i < begins { // what a crash has left of a log that was replaced
			continue
		}
		if _, err := l.replaySegment(n, i == len(sequences)-1); err != nil {
			return err
		}
	}
	if gap != nil || len(whole) == 0 {
		return gap
	}
	l.o.Base = l.base() // whatever the log began with is right here
	return l.check()
}

// unbroken is the sequence numbers up to the first that is missing, which is
// then the error.
func unbroken(sequences []uint64) ([]uint64, error) {
	for i, n := range sequences {
		if want := sequences[0] + uint64(i); n != want {
			return sequences[:i], &DamageError{Segment: segmentName(want), Reason: "it is missing, though " + segmentName(n) + " is there"}
		}
	}
	return sequences, nil
}

func (f frame) logKind() LogFrameKind {
	switch f.kind {
	case frameMark:
		return LogMark
	case frameSeal:
		return LogSeal
	}
	return LogData
}

// show tells the visitor of a frame that was replayed.
func (l *Log) show(segment string, f frame) error {
	if l.visit == nil {
		return nil
	}
	shown := LogFrame{Segment: segment, Offset: f.offset, Bytes: f.size(), Kind: f.logKind(), Synced: f.synced}
	if f.kind == frameData {
		r, err := decodeRecord(f.payload)
		if err != nil {
			return err
		}
		shown.Hard, shown.Entries = r.hard, r.entries
	}
	return l.visit(shown)
}

// showPart tells the visitor of what is no frame.
func (l *Log) showPart(f LogFrame) error {
	if l.visit == nil {
		return nil
	}
	return l.visit(f)
}
