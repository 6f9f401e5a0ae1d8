package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// model is what a log should hold, as a slice. It is a value: what changes it
// returns another.
type model struct {
	base    Position
	entries []Entry // the one after base first
	hard    HardState
}

func (m model) last() uint64 { return m.base.Index + uint64(len(m.entries)) }

func (m model) term(index uint64) uint64 {
	if index == m.base.Index {
		return m.base.Term
	}
	return m.entries[index-m.base.Index-1].Term
}

// cut is the model without the entries from an index on.
func (m model) cut(from uint64) model {
	m.entries = slices.Clone(m.entries[:from-m.base.Index-1])
	return m
}

func (m model) append(entries []Entry, hard *HardState) model {
	if len(entries) > 0 {
		m = m.cut(entries[0].Index)
		m.entries = append(m.entries, entries...)
	}
	if hard != nil {
		m.hard = *hard
		m.hard.Commit = min(hard.Commit, m.last())
	}
	return m
}

// differs says where a log is not the model. The log may begin later.
func (m model) differs(l *Log) error {
	c := l.Load()
	switch {
	case c.HardState != m.hard:
		return fmt.Errorf("hard state %v, want %v", c.HardState, m.hard)
	case c.Last != m.last() || l.LastIndex() != c.Last:
		return fmt.Errorf("last index %d (%d), want %d", c.Last, l.LastIndex(), m.last())
	case c.First <= m.base.Index || c.First > c.Last+1 || l.FirstIndex() != c.First:
		return fmt.Errorf("first index %d (%d) of a log from %d to %d", c.First, l.FirstIndex(), m.base.Index+1, m.last())
	}
	if err := errors.Join(m.differsInTerms(l, c.First), disorder(&l.logIndex, l.o.TailBytes)); err != nil {
		return err
	}
	got, err := readAll(l, c.First, c.Last+1, math.MaxUint64)
	if err != nil {
		return err
	}
	return sameEntries(got, m.entries[c.First-m.base.Index-1:])
}

func (m model) differsInTerms(l *Log, first uint64) error {
	for i := first - 1; i <= m.last(); i++ {
		if term, err := l.Term(i); err != nil || term != m.term(i) {
			return fmt.Errorf("entry %d of term %d, want %d: %v", i, term, m.term(i), err)
		}
	}
	if _, err := l.Term(m.last() + 1); !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("the term after the last: %v", err)
	}
	if first > 1 {
		if _, err := l.Term(first - 2); !errors.Is(err, ErrCompacted) {
			return fmt.Errorf("the term of what was removed: %v", err)
		}
	}
	return nil
}

// disorder says what is wrong with an index in itself. Nobody may write meanwhile.
func disorder(x *logIndex, tailBytes int) error {
	for i, s := range x.spans[min(1, len(x.spans)):] {
		if before := x.spans[i]; s.first <= before.first || s.sequence == before.sequence && s.offset <= before.offset || s.sequence < before.sequence {
			return fmt.Errorf("span %v follows %v", s, before)
		}
	}
	for i, r := range x.terms[min(1, len(x.terms)):] {
		if before := x.terms[i]; r.first <= before.first || r.term == before.term {
			return fmt.Errorf("term %v follows %v", r, before)
		}
	}
	size := 0
	for i := range x.tail {
		size += x.tail[i].memory()
	}
	if size != x.tailSize || size > tailBytes && len(x.tail) > 1 || len(x.tail) > 0 && x.tail[0].Index != x.tailFirst() {
		return fmt.Errorf("%d entries in memory from %d on with %d bytes, counted as %d, of %d", len(x.tail), x.tailFirst(), size, x.tailSize, tailBytes)
	}
	return nil
}

func sameEntries(got, want []Entry) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d entries, want %d", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; g.Index != w.Index || g.Term != w.Term || g.Kind != w.Kind || !bytes.Equal(g.Data, w.Data) {
			return fmt.Errorf("entry %d/%d %d %q, want %d/%d %d %q", g.Index, g.Term, g.Kind, g.Data, w.Index, w.Term, w.Kind, w.Data)
		}
	}
	return nil
}

// readAll reads as many times as it takes.
func readAll(l *Log, lo, hi, maxBytes uint64) ([]Entry, error) {
	var all []Entry
	for lo < hi {
		some, err := l.Entries(lo, hi, maxBytes)
		if err != nil {
			return nil, err
		}
		if len(some) == 0 {
			return nil, fmt.Errorf("no entries from %d to %d", lo, hi)
		}
		all, lo = append(all, some...), lo+uint64(len(some))
	}
	return all, nil
}

// author makes up what Raft may ask of a log: terms grow, and nothing that was
// committed is replaced.
type author struct {
	random *rand.Rand
	model  model
	term   uint64
	large  int // bytes of the largest entry
}

func newAuthor(random *rand.Rand) *author {
	base := Position{Index: uint64(random.IntN(3)), Term: 1}
	return &author{random: random, model: model{base: base}, term: 1, large: 1 + random.IntN(600)}
}

// entries follow the last one, or replace some.
func (a *author) entries() []Entry {
	first := a.model.last() + 1
	floor := max(a.model.hard.Commit, a.model.base.Index) + 1
	if first > floor && a.random.IntN(3) == 0 {
		first = floor + a.random.Uint64N(first-floor)
		a.term++
	}
	entries := make([]Entry, 1+a.random.IntN(4))
	for i := range entries {
		data := make([]byte, a.random.IntN(a.large))
		for k := range data {
			data[k] = byte(a.random.Uint32())
		}
		entries[i] = Entry{first + uint64(i), a.term, EntryKind(a.random.IntN(3)), data}
	}
	return entries
}

// hardState is of the present term, and commits some of what will be there.
func (a *author) hardState(last uint64) *HardState {
	commit := max(a.model.hard.Commit, a.model.base.Index)
	if commit += a.random.Uint64N(last - commit + 1); a.random.IntN(3) == 0 {
		commit = last
	}
	return &HardState{Term: a.term, Vote: uint64(a.random.IntN(4)), Commit: commit}
}

// applied is something committed, often all: the log may be truncated there.
func (a *author) applied() uint64 {
	base := a.model.base.Index
	most := max(a.model.hard.Commit, base)
	if a.random.IntN(2) == 0 {
		return most
	}
	return base + a.random.Uint64N(most-base+1)
}

// next is what to append next; the model is changed by then.
func (a *author) next() ([]Entry, *HardState) {
	var entries []Entry
	var hard *HardState
	what := a.random.IntN(4)
	if what != 0 {
		entries = a.entries()
	}
	if what < 2 {
		last := a.model.last()
		if len(entries) > 0 {
			last = entries[len(entries)-1].Index
		}
		hard = a.hardState(last)
	}
	a.model = a.model.append(entries, hard)
	return entries, hard
}
