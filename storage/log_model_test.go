package storage

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Whatever is appended, replaced, truncated and reopened in whatever order: the
// log holds what a slice would hold, with segments and a tail so small that
// most of it is read from many files.
func TestTheLogIsWhatASliceWouldBe(t *testing.T) {
	forSeeds(t, 150, func(t *testing.T, random *rand.Rand) {
		w := &modelWalk{t: t, author: newAuthor(random)}
		w.options = LogOptions{
			FS: vfs.NewMem(), Dir: "wal", Base: w.author.model.base, Salt: random.Uint64,
			SegmentBytes: 1 + random.Int64N(3000), TailBytes: 1 + random.IntN(2000),
		}
		w.open()
		for range 60 {
			what := w.step()
			if err := w.author.model.differs(w.log); err != nil {
				t.Fatalf("after %s: %v", what, err)
			}
			w.readSome()
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

type modelWalk struct {
	t       *testing.T
	author  *author
	options LogOptions
	log     *Log
}

func (w *modelWalk) open() {
	var err error
	if w.log, err = OpenLog(w.options); err != nil {
		w.t.Fatal(err)
	}
	if torn := w.log.Load().TornBytes; torn != 0 {
		w.t.Fatalf("%d torn bytes after a clean close", torn)
	}
}

func (w *modelWalk) step() string {
	switch w.author.random.IntN(10) {
	case 0:
		return w.reopen()
	case 1:
		return w.truncate()
	case 2:
		if err := w.log.Mark(); err != nil {
			w.t.Fatal(err)
		}
		return "a mark"
	case 3:
		if err := w.log.Sync(); err != nil {
			w.t.Fatal(err)
		}
		return "a sync"
	}
	entries, hard := w.author.next()
	if err := w.log.Append(entries, hard); err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%d entries, hard state %v", len(entries), hard)
}

func (w *modelWalk) reopen() string {
	first := w.log.FirstIndex()
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
	if w.log.FirstIndex() != first {
		w.t.Fatalf("it began at %d and begins at %d", first, w.log.FirstIndex())
	}
	return "reopening"
}

// truncate removes up to something committed, which the engine then has.
func (w *modelWalk) truncate() string {
	first, index := w.log.FirstIndex(), w.author.applied()
	if err := w.log.TruncatePrefix(index); err != nil {
		w.t.Fatal(err)
	}
	w.options.Applied = max(w.options.Applied, index)
	if got := w.log.FirstIndex(); got < first || got > max(index+1, first) {
		w.t.Fatalf("truncated to %d: the first index was %d and is %d", index, first, got)
	}
	return fmt.Sprintf("truncating to %d", index)
}

// readSome reads a part of the log in pieces of bounded size.
func (w *modelWalk) readSome() {
	c, m, random := w.log.Load(), w.author.model, w.author.random
	if c.First > c.Last {
		return
	}
	lo := c.First + random.Uint64N(c.Last-c.First+1)
	hi := lo + random.Uint64N(c.Last-lo+2)
	most := random.Uint64N(1500)
	got, err := readAll(w.log, lo, hi, most)
	if err == nil {
		err = sameEntries(got, m.entries[lo-m.base.Index-1:hi-m.base.Index-1])
	}
	if err != nil {
		w.t.Fatalf("entries from %d to %d: %v", lo, hi, err)
	}
	w.readOnce(lo, hi, most)
}

// readOnce holds that one read has no more bytes than asked for, or one entry.
func (w *modelWalk) readOnce(lo, hi, most uint64) {
	got, err := w.log.Entries(lo, hi, most)
	bytes := uint64(0)
	for _, e := range got {
		bytes += uint64(len(e.Data))
	}
	if err != nil || bytes > most && len(got) > 1 {
		w.t.Fatalf("entries from %d to %d: %d with %d bytes, asked for %d: %v", lo, hi, len(got), bytes, most, err)
	}
}
