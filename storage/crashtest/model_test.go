package crashtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/stellmap/stellmap/storage"
)

// base is the entry before the first of a log, as consensus has it.
var base = storage.Position{Index: 1, Term: 1}

// history is what a log may hold.
type history struct {
	entries []storage.Entry // the first one follows base; never changed once there
	hard    storage.HardState
}

func (h history) last() uint64 { return base.Index + uint64(len(h.entries)) }

func (h history) term(index uint64) uint64 {
	if index == base.Index {
		return base.Term
	}
	return h.at(index).Term
}

func (h history) at(index uint64) storage.Entry { return h.entries[index-base.Index-1] }

// from are the entries from lo on and below hi.
func (h history) from(lo, hi uint64) []storage.Entry {
	return h.entries[lo-base.Index-1 : hi-base.Index-1]
}

// common is the newest entry up to an index that two histories have in common.
// A term and an index are of one entry for ever.
func (h history) common(other history, index uint64) uint64 {
	index = min(index, h.last(), other.last())
	for h.term(index) != other.term(index) {
		index--
	}
	return index
}

// cut is the history without the entries from an index on.
func (h history) cut(from uint64) history {
	kept := int(from - base.Index - 1)
	h.entries = h.entries[:kept:kept]
	return h
}

func (h history) append(entries []storage.Entry, hard *storage.HardState) history {
	if len(entries) > 0 {
		if entries[0].Index <= h.last() {
			h = h.cut(entries[0].Index)
		}
		h.entries = append(h.entries, entries...)
	}
	if hard != nil {
		h.hard = *hard
		h.hard.Commit = min(hard.Commit, h.last())
	}
	return h
}

// differs says where a log is not the history. The log may begin later.
func (h history) differs(l *storage.Log) error {
	c := l.Load()
	switch {
	case c.HardState != h.hard:
		return fmt.Errorf("the hard state is %v, not %v", c.HardState, h.hard)
	case c.Last != h.last():
		return fmt.Errorf("the log ends at %d, not %d", c.Last, h.last())
	case c.First <= base.Index || c.First > c.Last+1:
		return fmt.Errorf("the log begins with %d and ends with %d", c.First, c.Last)
	}
	if term, err := l.Term(c.First - 1); err != nil || term != h.term(c.First-1) {
		return fmt.Errorf("the term before entry %d is %d, not %d: %w", c.First, term, h.term(c.First-1), err)
	}
	got, err := read(l, c.First, c.Last+1)
	if err != nil {
		return err
	}
	return differInEntries(got, h.from(c.First, c.Last+1))
}

func differInEntries(got, want []storage.Entry) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d entries are there, not %d", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; g.Index != w.Index || g.Term != w.Term || g.Kind != w.Kind || !bytes.Equal(g.Data, w.Data) {
			return fmt.Errorf("entry %d is of term %d with %.20q, not entry %d of term %d with %.20q", g.Index, g.Term, g.Data, w.Index, w.Term, w.Data)
		}
	}
	return nil
}

// read reads as many times as it takes.
func read(l *storage.Log, lo, hi uint64) ([]storage.Entry, error) {
	var all []storage.Entry
	for lo < hi {
		some, err := l.Entries(lo, hi, math.MaxUint64)
		if err != nil {
			return nil, fmt.Errorf("read entries from %d to %d: %w", lo, hi-1, err)
		}
		all, lo = append(all, some...), lo+uint64(len(some))
	}
	return all, nil
}

// digest stands for a state.
type digest [sha256.Size]byte

// state is what the entries have made. An entry's first byte says which key it
// sets, or removes when nothing follows; one without data changes nothing.
type state map[string]string

const keyPrefix = "/registry/ns/svc/"

func keyOf(b byte) string { return fmt.Sprintf(keyPrefix+"%02d", b) }

func (s state) apply(e storage.Entry) {
	switch len(e.Data) {
	case 0:
	case 1:
		delete(s, keyOf(e.Data[0]))
	default:
		s[keyOf(e.Data[0])] = string(e.Data)
	}
}

func (s state) digest() digest {
	sum := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(sum, "%d %d ", len(key), len(s[key]))
		io.WriteString(sum, key) // a hash takes everything
		io.WriteString(sum, s[key])
	}
	return digest(sum.Sum(nil))
}

// stateIn is the state that an engine holds.
func stateIn(e *storage.Engine) (state, error) {
	s := state{}
	err := e.Scan([]byte(keyPrefix), storage.PrefixEnd([]byte(keyPrefix)), func(key, value []byte) error {
		s[string(key)] = string(value)
		return nil
	})
	return s, err
}

// knowledge is what was asked of storage and what it promised. It is a value: a
// copy stays as it was.
type knowledge struct {
	now     history
	may     []history // what a crash may leave of the log; the first is what was acknowledged, the last is now
	digests []digest  // of the states after base and each committed entry
	durable uint64    // the state on disk is that of this index at least, as storage said
	losing  bool      // the test is taking the state away
	keep    int       // snapshots
	saved   uint64    // index of the newest snapshot that was acknowledged, 0 = none
	saving  uint64    // index of the one that may be there as well
	// received is the history of the snapshot that was received and is not yet
	// installed; empty when there is none.
	received   history
	installing bool   // the log may begin after the snapshot while the state is the old one
	reset      uint64 // the log began anew after this entry, 0 = it never did
	// identities that may be there, the last one is wanted; nil is none.
	identities []*storage.Identity
}

func newKnowledge(keep int) knowledge {
	return knowledge{may: []history{{}}, digests: []digest{state{}.digest()}, keep: keep, identities: []*storage.Identity{nil}}
}

// asked adds an append. It leaves the log with it or without, or without what
// it replaces.
func (k *knowledge) asked(entries []storage.Entry, hard *storage.HardState) {
	if len(entries) > 0 && entries[0].Index <= k.now.last() {
		k.may = append(k.may, k.now.cut(entries[0].Index))
	}
	k.now = k.now.append(entries, hard)
	k.may = append(k.may, k.now)
}

// acknowledge is a sync that succeeded.
func (k *knowledge) acknowledge() { k.may = []history{k.now} }

// commit is the newest entry that is never replaced.
func (k *knowledge) commit() uint64 { return base.Index + uint64(len(k.digests)) - 1 }

// digest is that of the state at an index.
func (k *knowledge) digest(index uint64) (digest, error) {
	if index < base.Index { // before the first configuration
		return k.digests[0], nil
	}
	if index > k.commit() && index == k.received.last() {
		s := state{}
		for _, e := range k.received.entries {
			s.apply(e)
		}
		return s.digest(), nil
	}
	if index > k.commit() {
		return digest{}, fmt.Errorf("the state is at %d, though %d is the newest that was committed", index, k.commit())
	}
	return k.digests[index-base.Index], nil
}

// frozen is a copy that later changes do not reach.
func (k *knowledge) frozen() knowledge {
	f := *k
	f.may, f.digests, f.identities = slices.Clip(k.may), slices.Clip(k.digests), slices.Clip(k.identities)
	return f
}

// holds checks all that must be so when a member has opened its storage, before
// it applies again what the state lacks. It returns what the log is.
func (k *knowledge) holds(m *member) (history, error) {
	found, err := k.logIs(m.log)
	if err != nil {
		return history{}, err
	}
	at, c := m.engine.AppliedIndex().Index, m.log.Load()
	switch {
	case c.First > max(at, base.Index)+1:
		return history{}, fmt.Errorf("the log begins with %d and the state ends with %d", c.First, at)
	case c.Last < c.HardState.Commit || c.Last < at:
		return history{}, fmt.Errorf("the log ends at %d, %d was committed and %d applied", c.Last, c.HardState.Commit, at)
	case !k.installing && m.rebuilt != nil && m.rebuilt.Install:
		return history{}, fmt.Errorf("an install was finished, and none was begun: %w", m.rebuilt.Because)
	case !k.losing && m.rebuilt != nil && !m.rebuilt.Install:
		return history{}, fmt.Errorf("the state was lost and had to be built anew: %w", m.rebuilt.Because)
	case !k.losing && at < k.durable:
		return history{}, fmt.Errorf("the state is at %d, though it was durable at %d", at, k.durable)
	}
	return found, errors.Join(k.stateIs(m.engine), k.snapshotsAre(m), k.identityIs(m.identity))
}

func (k *knowledge) logIs(l *storage.Log) (history, error) {
	var wrong error
	for _, h := range slices.Backward(k.may) {
		err := h.differs(l)
		if err == nil {
			return h, nil
		}
		wrong = errors.Join(err, wrong)
	}
	return history{}, fmt.Errorf("the log is none of %d that may be there, the first of which was acknowledged: %w", len(k.may), wrong)
}

func (k *knowledge) stateIs(e *storage.Engine) error {
	at := e.AppliedIndex().Index
	want, err := k.digest(at)
	if err != nil {
		return err
	}
	got, err := stateIn(e)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if got.digest() != want {
		return fmt.Errorf("the state at %d is not what the entries up to there make", at)
	}
	return nil
}

// snapshotsAre: all are intact, the acknowledged one or a newer one is there,
// and the log reaches back to the oldest that is kept.
func (k *knowledge) snapshotsAre(m *member) error {
	if damaged := m.snapshots.Damaged(); damaged != nil {
		return errors.Join(damaged...)
	}
	list, first := m.snapshots.List(), m.log.FirstIndex()
	for _, s := range list {
		if err := m.snapshots.Verify(s); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		if k.saved != 0 || first != base.Index+1 {
			return fmt.Errorf("no snapshot is there, one at %d was acknowledged, and the log begins with %d", k.saved, first)
		}
		return nil
	}
	if newest := list[0].Index; newest < k.saved || newest != k.saved && newest != k.saving {
		return fmt.Errorf("the newest snapshot is at %d, the acknowledged one is at %d", newest, k.saved)
	}
	return k.reaches(list, m.log)
}

// reaches: the log goes on from the oldest snapshot that counts. Those before a
// reset do not, and neither does one that is not installed.
func (k *knowledge) reaches(list []storage.SnapshotMeta, l *storage.Log) error {
	first, counts := l.FirstIndex(), false
	for i, s := range list {
		if s.Index == k.received.last() && !installed(l, s) || first > k.reset && s.Index < k.reset {
			continue
		}
		if i < k.keep && first > s.Index+1 {
			return fmt.Errorf("the log begins with %d, and a snapshot that counts is at %d: from it nothing can be built", first, s.Index)
		}
		counts = counts || first <= s.Index+1
	}
	if !counts && first != base.Index+1 {
		return fmt.Errorf("the log begins with %d, and of the snapshots %v none is of a state that it goes on from", first, list)
	}
	return nil
}

// installed tells whether the log goes on from a snapshot that was received.
func installed(l *storage.Log, s storage.SnapshotMeta) bool {
	term, err := l.Term(s.Index)
	return err == nil && term == s.Term
}

func (k *knowledge) identityIs(got storage.Identity) error {
	for _, want := range k.identities {
		if want != nil && got.UUID == want.UUID && got.Stage == want.Stage && maps.Equal(got.Peers, want.Peers) {
			return nil
		}
	}
	if k.identities[0] == nil && got.Stage == "" {
		return nil
	}
	return fmt.Errorf("the identity is %+v, which was not saved last", got)
}
