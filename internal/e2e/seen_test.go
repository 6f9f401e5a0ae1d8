package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
)

// What a watch promises, and how it is found out whether what was told keeps it. Each
// instance has one writer, with one write in flight until it is acknowledged with its
// revision: so when all is over it is known what was changed at which revision, and with
// that what a watch had to tell, whichever way it did. The nine promises are:
//
//	ordered      revisions never fall, and nobody is told a state that is older than what he knows
//	unique       nothing is told twice, but what follows a resume point that is in the midst of it
//	atomic       of a revision all is told before anything of the next
//	reliable     nothing is left out in the midst of a watch
//	resumable    nor where it goes on from a resume point, at whichever member; what is no longer kept is told as a whole, and why
//	bookmarkable up to where it says that it has come there was nothing else
//	filtered     what is asked for, and nothing else
//	previous     what has come is new or not as it says, and what has gone is as it was
//	true         what is told has happened
const (
	ordered      = "ordered"
	unique       = "unique"
	atomically   = "atomic"
	reliable     = "reliable"
	resumable    = "resumable"
	bookmarkable = "bookmarkable"
	filtered     = "filtered"
	previous     = "previous"
	truly        = "true"
)

// thing is an instance as far as it matters here. The zero value is: not there.
type thing struct{ service, zone, color, value string }

// sieve is what a watch asks for; "" is anything.
type sieve struct{ service, zone, color string }

func (s sieve) takes(t thing) bool {
	return t.value != "" && (s.service == "" || s.service == t.service) && (s.zone == "" || s.zone == t.zone) && (s.color == "" || s.color == t.color)
}

// fact is that an instance was changed.
type fact struct {
	id            string
	before, after thing
}

// truth is all that was changed.
type truth struct {
	mu    sync.Mutex        // guards what follows
	facts map[uint64][]fact // by revision
	last  uint64
}

func newTruth() *truth { return &truth{facts: make(map[uint64][]fact)} }

func (t *truth) add(revision uint64, f fact) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.facts[revision] = append(t.facts[revision], f)
	t.last = max(t.last, revision)
}

// tidings are what a watch told at once.
type tidings struct {
	whole   bool // things are all there is
	reason  string
	things  map[string]thing
	changes []tiding
	upTo    uint64 // everything up to here has been told; 0 = it does not say
	resume  uint64 // from where it can be gone on with; 0 = it does not say
}

// tiding is one change as it was told.
type tiding struct {
	revision      uint64
	id            string
	created, gone bool
	thing         thing // of one that has gone as it was, where that is told
}

// session is one connection, or some polls in a row.
type session struct {
	who   string
	sieve sieve
	from  uint64 // its resume point; 0 = it begins anew
	known uint64 // what its client had been told of before
	told  []tidings
}

// brokenPromise is one that was not kept.
type brokenPromise struct{ promise, what string }

// judge knows what sessions had to tell.
type judge struct {
	truth *truth
	by    map[sieve][]due
}

// due is a change that a watch has to tell.
type due struct {
	revision uint64
	tiding
}

func newJudge(t *truth) *judge { return &judge{truth: t, by: make(map[sieve][]due)} }

// dues are all changes of what a sieve takes, in order.
func (j *judge) dues(s sieve) []due {
	if d, known := j.by[s]; known {
		return d
	}
	var all []due
	for _, revision := range slices.Sorted(maps.Keys(j.truth.facts)) {
		for _, f := range j.truth.facts[revision] {
			was, is := s.takes(f.before), s.takes(f.after)
			if !was && !is {
				continue
			}
			d := due{revision, tiding{revision: revision, id: f.id, created: !was, gone: !is, thing: f.after}}
			if d.gone {
				d.thing = f.before
			}
			all = append(all, d)
		}
	}
	j.by[s] = all
	return all
}

// between are those after one revision, up to another.
func (j *judge) between(s sieve, after, upTo uint64) []due {
	all := j.dues(s)
	place := func(r uint64) int { return sort.Search(len(all), func(i int) bool { return all[i].revision > r }) }
	if upTo <= after {
		return nil
	}
	return all[place(after):place(upTo)]
}

// state is all that a sieve takes at a revision.
func (j *judge) state(s sieve, at uint64) map[string]thing {
	things := make(map[string]thing)
	for _, d := range j.between(s, 0, at) {
		if things[d.id] = d.thing; d.gone {
			delete(things, d.id)
		}
	}
	return things
}

// listener is the judge at one session.
type listener struct {
	*judge
	s        *session
	found    []brokenPromise
	complete uint64          // all up to here has been told
	open     uint64          // of this revision some has; 0 = of none
	heard    map[string]bool // which, as id@revision
	first    bool            // nothing has been told yet
}

// violations are what was wrong with a session.
func (j *judge) violations(s *session) []brokenPromise {
	l := &listener{judge: j, s: s, complete: s.from, heard: make(map[string]bool), first: true}
	for i := range s.told {
		l.hear(&s.told[i], i == 0)
	}
	return l.found
}

func (l *listener) blame(promise, format string, args ...any) {
	l.found = append(l.found, brokenPromise{promise, fmt.Sprintf("%s, from %d: ", l.s.who, l.s.from) + fmt.Sprintf(format, args...)})
}

func (l *listener) hear(t *tidings, first bool) {
	if t.whole {
		l.whole(t, first)
		return
	}
	for i := range t.changes {
		l.change(&t.changes[i])
	}
	if t.upTo != 0 {
		l.mark(t.upTo)
	}
	if t.resume != 0 {
		l.resume(t.resume)
	}
}

// whole is all there is, which makes up for whatever was not told.
func (l *listener) whole(t *tidings, first bool) {
	if t.upTo < max(l.s.known, l.complete, l.open) {
		l.blame(ordered, "a state of revision %d, though %d was known", t.upTo, max(l.s.known, l.complete, l.open))
	}
	if want := map[bool]string{true: "start", false: "compacted"}[first && l.s.from == 0]; t.reason != want {
		l.blame(resumable, "all there is, for the reason %q: want %q", t.reason, want)
	}
	if want := l.state(l.s.sieve, t.upTo); !maps.Equal(t.things, want) {
		l.blame(l.wrongState(t.things, want), "at revision %d there is %v, want %v", t.upTo, t.things, want)
	}
	l.complete, l.open, l.first = t.upTo, 0, false
	if t.resume != t.upTo {
		l.blame(resumable, "a state of revision %d is gone on with from %d", t.upTo, t.resume)
	}
}

func (l *listener) wrongState(told, want map[string]thing) string {
	for id, t := range told {
		if _, wanted := want[id]; !wanted && !l.s.sieve.takes(t) {
			return filtered
		}
	}
	return reliable
}

func (l *listener) change(t *tiding) {
	key := fmt.Sprintf("%s@%d", t.id, t.revision)
	switch {
	case l.heard[key]:
		l.blame(unique, "%s twice", key)
		return
	case t.revision <= l.s.from:
		l.blame(unique, "%s, which it knew", key)
		return
	case t.revision < max(l.complete, l.open):
		l.blame(ordered, "%s after %d", key, max(l.complete, l.open))
		return
	case t.revision == l.complete:
		l.blame(atomically, "%s after all of the revision", key)
		return
	}
	l.heard[key] = true
	if t.revision != l.open {
		l.close()
		l.missing(t.revision-1, reliable)
		l.open = t.revision
	}
	l.first = false
	l.right(key, t)
}

// right holds a change against what has happened.
func (l *listener) right(key string, t *tiding) {
	all := l.between(l.s.sieve, t.revision-1, t.revision)
	at := slices.IndexFunc(all, func(d due) bool { return d.id == t.id })
	switch {
	case at < 0 && slices.ContainsFunc(l.truth.facts[t.revision], func(f fact) bool { return f.id == t.id }):
		l.blame(filtered, "%s, which was not asked for", key)
	case at < 0:
		l.blame(truly, "%s, which did not happen", key)
	case all[at].created != t.created || all[at].gone != t.gone:
		l.blame(previous, "%s: created %v, gone %v; want %v, %v", key, t.created, t.gone, all[at].created, all[at].gone)
	case t.gone && t.thing != (thing{}) && t.thing != all[at].thing:
		l.blame(previous, "%s has gone as %v, and was %v", key, t.thing, all[at].thing)
	case !t.gone && t.thing != all[at].thing:
		l.blame(truly, "%s is %v, want %v", key, t.thing, all[at].thing)
	}
}

// close ends the revision of which some has been told: nothing of it comes later.
func (l *listener) close() {
	if l.open == 0 {
		return
	}
	for _, d := range l.between(l.s.sieve, l.open-1, l.open) {
		if !l.heard[fmt.Sprintf("%s@%d", d.id, d.revision)] {
			l.blame(atomically, "%s@%d is not told with the rest of the revision", d.id, d.revision)
		}
	}
	l.complete, l.open = max(l.complete, l.open), 0
}

// missing blames what had to be told up to a revision and was not.
func (l *listener) missing(upTo uint64, promise string) {
	if l.first && promise == reliable {
		promise = resumable
	}
	for _, d := range l.between(l.s.sieve, l.complete, upTo) {
		l.blame(promise, "%s@%d is not told", d.id, d.revision)
	}
	l.complete = max(l.complete, upTo)
}

func (l *listener) mark(upTo uint64) {
	if upTo < max(l.complete, l.open) {
		l.blame(ordered, "up to %d, after %d", upTo, max(l.complete, l.open))
		return
	}
	l.close()
	l.missing(upTo, bookmarkable)
	l.first = false
}

// resume: whoever goes on from there has been told all before it.
func (l *listener) resume(at uint64) {
	switch {
	case l.open != 0 && at == l.open:
		l.close()
	case at > max(l.complete, l.open):
		l.blame(resumable, "to go on from %d, having come to %d", at, max(l.complete, l.open))
	case at < cmp.Or(l.open, l.complete+1)-1:
		l.blame(resumable, "to go on from %d, having come to %d", at, max(l.complete, l.open))
	}
}
