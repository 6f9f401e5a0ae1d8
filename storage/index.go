package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
)

// logIndex is what is known of a log without reading it: the segments, a
// sparse index into them, the terms, and the newest entries.
type logIndex struct {
	segments []segmentPlace // oldest first; the last is the active one
	last     uint64
	spans    []span    // by first entry
	terms    []termRun // by first entry
	tail     []Entry   // the newest, up to last
	tailSize int       // bytes that they take
}

// entryMemory is what an Entry takes in memory beside its data.
const entryMemory = 48

func (e *Entry) memory() int { return entryMemory + len(e.Data) }

// segmentPlace is a segment and the entry before its first that still counts.
type segmentPlace struct {
	sequence uint64
	before   Position
}

// place is where a frame is.
type place struct {
	sequence uint64
	offset   int64
}

// span says that reading on from a place finds the entries from first on, up
// to the next span's, one after the other.
type span struct {
	first uint64
	place
}

// spanBytes is how far apart two spans are at least, unless entries were
// replaced between them.
const spanBytes = 64 << 10

// termRun says that entries from first on, up to the next run's, have the term.
type termRun struct{ first, term uint64 }

func (x *logIndex) base() Position { return x.segments[0].before }
func (x *logIndex) first() uint64  { return x.base().Index + 1 }

// term is the term of an entry, or of the one before the first.
func (x *logIndex) term(index uint64) (uint64, error) {
	switch {
	case index < x.base().Index:
		return 0, ErrCompacted
	case index > x.last:
		return 0, ErrUnavailable
	case index == x.base().Index:
		return x.base().Term, nil
	}
	i := sort.Search(len(x.terms), func(i int) bool { return x.terms[i].first > index })
	return x.terms[i-1].term, nil
}

// addSegment takes in a segment. Those before it that it replaces as a whole now
// count as if they began where it does: they are empty. So the oldest segments
// can be dropped one by one, and the first index only grows.
func (x *logIndex) addSegment(s segmentPlace) {
	for i := range x.segments {
		if x.segments[i].before.Index > s.before.Index {
			x.segments[i].before = s.before
		}
	}
	x.segments = append(x.segments, s)
}

// add takes in the entries of a frame, which replace what there is from the
// first one on.
func (x *logIndex) add(entries []Entry, at place, tailBytes int) {
	first := entries[0].Index
	replaces := first <= x.last
	if replaces {
		x.cut(first)
	}
	if n := len(x.spans); replaces || n == 0 || x.spans[n-1].sequence != at.sequence || at.offset-x.spans[n-1].offset >= spanBytes {
		x.spans = append(x.spans, span{first, at})
	}
	for _, e := range entries {
		if n := len(x.terms); n == 0 || x.terms[n-1].term != e.Term {
			x.terms = append(x.terms, termRun{e.Index, e.Term})
		}
		x.tailSize += e.memory()
	}
	x.tail = append(x.tail, entries...)
	x.last = entries[len(entries)-1].Index
	x.trim(tailBytes)
}

// cut forgets the entries from an index on.
func (x *logIndex) cut(from uint64) {
	x.spans = x.spans[:sort.Search(len(x.spans), func(i int) bool { return x.spans[i].first >= from })]
	x.terms = x.terms[:sort.Search(len(x.terms), func(i int) bool { return x.terms[i].first >= from })]
	keep := 0
	if oldest := x.tailFirst(); from > oldest {
		keep = int(min(from-oldest, uint64(len(x.tail))))
	}
	for i := keep; i < len(x.tail); i++ {
		x.tailSize -= x.tail[i].memory()
	}
	clear(x.tail[keep:]) // lets go of the data
	x.tail = x.tail[:keep]
	x.last = from - 1
}

func (x *logIndex) tailFirst() uint64 { return x.last + 1 - uint64(len(x.tail)) }

// trim keeps the tail within its bytes; one entry always stays.
func (x *logIndex) trim(most int) {
	drop := 0
	for drop < len(x.tail)-1 && x.tailSize > most {
		x.tailSize -= x.tail[drop].memory()
		drop++
	}
	clear(x.tail[:drop]) // lets go of the data
	x.tail = x.tail[drop:]
}

// dropSegment forgets the oldest segment and returns it.
func (x *logIndex) dropSegment() segmentPlace {
	oldest := x.segments[0]
	dropped := oldest.sequence
	x.segments = x.segments[1:]
	first := x.first()
	x.spans = x.spans[sort.Search(len(x.spans), func(i int) bool { return x.spans[i].sequence > dropped }):]
	if i := sort.Search(len(x.terms), func(i int) bool { return x.terms[i].first > first }); i > 1 {
		x.terms = x.terms[i-1:]
	}
	if oldest := x.tailFirst(); oldest < first {
		gone := int(min(first-oldest, uint64(len(x.tail))))
		for i := range gone {
			x.tailSize -= x.tail[i].memory()
		}
		clear(x.tail[:gone])
		x.tail = x.tail[gone:]
	}
	return oldest
}

// Entries returns entries from lo on and below hi, at least one and as many as
// have no more than maxBytes of data. It may end earlier; the next call goes on.
func (l *Log) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	l.mu.RLock()
	switch {
	case lo < l.first():
		l.mu.RUnlock()
		return nil, ErrCompacted
	case hi > l.last+1:
		l.mu.RUnlock()
		return nil, ErrUnavailable
	case lo >= hi:
		l.mu.RUnlock()
		return nil, nil
	}
	oldest := l.tailFirst()
	if lo >= oldest {
		defer l.mu.RUnlock()
		return within(l.tail[lo-oldest:hi-oldest], maxBytes), nil
	}
	spans := l.spansOf(lo, min(hi, oldest))
	l.mu.RUnlock()
	entries, err := l.read(spans, lo, min(hi, oldest), maxBytes)
	if errors.Is(err, fs.ErrNotExist) && l.dropped(spans[0].sequence) {
		return l.Entries(lo, hi, maxBytes) // the segment was removed meanwhile
	}
	return entries, err
}

// dropped tells whether a segment is no longer a part of the log.
func (l *Log) dropped(sequence uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return sequence < l.segments[0].sequence
}

// within copies the entries that have no more than so many bytes, or the first.
func within(entries []Entry, maxBytes uint64) []Entry {
	bytes := uint64(0)
	n := 0
	for n < len(entries) {
		if bytes += uint64(len(entries[n].Data)); bytes > maxBytes && n > 0 {
			break
		}
		n++
	}
	return append([]Entry(nil), entries[:n]...)
}

// spansOf copies the spans that hold the entries from lo on and below hi.
func (x *logIndex) spansOf(lo, hi uint64) []span {
	from := sort.Search(len(x.spans), func(i int) bool { return x.spans[i].first > lo }) - 1
	to := sort.Search(len(x.spans), func(i int) bool { return x.spans[i].first >= hi })
	return append([]span(nil), x.spans[from:to]...)
}

// read reads entries from the segments.
func (l *Log) read(spans []span, lo, hi, maxBytes uint64) (entries []Entry, err error) {
	c := &collector{next: lo, left: maxBytes}
	for i, s := range spans {
		end := hi
		if i+1 < len(spans) {
			end = spans[i+1].first
		}
		if err := l.readSpan(s, end, c); err != nil {
			return nil, fmt.Errorf("read entry %d from the log: %w", c.next, err)
		}
		if c.full {
			break
		}
	}
	return c.entries, nil
}

// collector takes consecutive entries until it has enough.
type collector struct {
	entries []Entry
	next    uint64 // the index that is wanted
	left    uint64 // bytes
	full    bool
}

func (c *collector) take(e Entry) {
	size := uint64(len(e.Data))
	if size > c.left {
		c.full = true
		if len(c.entries) > 0 {
			return
		}
	}
	c.left -= min(size, c.left)
	c.entries = append(c.entries, e)
	c.next++
}

// readSpan reads frames from a place until the entry before end is collected.
func (l *Log) readSpan(s span, end uint64, c *collector) (err error) {
	r, err := openSegment(l.o.FS, l.o.Dir, s.sequence)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.seek(s.offset)
	for c.next < end && !c.full {
		found, err := r.nextRecord()
		if err != nil {
			return err
		}
		for _, e := range found.entries {
			if e.Index == c.next && e.Index < end && !c.full {
				c.take(e)
			}
		}
	}
	return nil
}

// nextRecord reads on to the next data frame. There has to be one.
func (r *segmentReader) nextRecord() (record, error) {
	for {
		at := r.offset
		f, err := r.next()
		if err == nil && f.kind != frameData {
			continue
		}
		var found record
		if err == nil {
			found, err = decodeRecord(f.payload)
		}
		if err != nil {
			return record{}, &DamageError{Segment: segmentName(r.head.sequence), Offset: at, Reason: "what was there is not any more: " + err.Error()}
		}
		return found, nil
	}
}
