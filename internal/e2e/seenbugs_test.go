package e2e

import (
	"slices"
	"testing"
)

// The judge of watches finds each promise that is not kept, and nothing in a watch that
// keeps them all: it is shown what a broken member would tell.
func TestTheJudgeOfWatchesIsNotBlind(t *testing.T) {
	one := func(v string) thing { return thing{service: "s", zone: "za", value: v} }
	other := thing{service: "s", zone: "zb", value: "x"}
	tr := newTruth()
	tr.add(10, fact{"a", thing{}, one("1")})
	tr.add(12, fact{"b", thing{}, other}) // not asked for
	tr.add(15, fact{"a", one("1"), one("2")})
	tr.add(20, fact{"c", thing{}, one("1")})
	tr.add(20, fact{"d", thing{}, one("1")})
	tr.add(20, fact{"a", one("2"), other}) // leaves the zone
	tr.add(25, fact{"c", one("1"), thing{}})
	tr.add(30, fact{"d", one("1"), one("2")})
	change := func(at uint64, id string, th thing, resume uint64) tidings {
		return tidings{changes: []tiding{{revision: at, id: id, thing: th}}, resume: resume}
	}
	created := func(t tidings) tidings { t.changes[0].created = true; return t }
	gone := func(t tidings) tidings { t.changes[0].gone = true; return t }
	whole := func(at uint64, reason string, things map[string]thing) tidings {
		return tidings{whole: true, reason: reason, things: things, upTo: at, resume: at}
	}
	// What a member has to tell from revision 10 on, as a stream of events.
	right := func() []tidings {
		return []tidings{
			change(15, "a", one("2"), 15),
			created(change(20, "c", one("1"), 19)), created(change(20, "d", one("1"), 19)), gone(change(20, "a", one("2"), 20)),
			gone(change(25, "c", thing{}, 25)),
			{upTo: 27, resume: 27},
			change(30, "d", one("2"), 30),
		}
	}
	for _, c := range []struct {
		name, promise string // "" = all is well
		from, known   uint64
		told          []tidings
	}{
		{"all is well", "", 10, 10, right()},
		{"a poll of all of it", "", 10, 10, []tidings{{changes: flat(right()), upTo: 30, resume: 30}}},
		{"it is cut in the midst of a revision", "", 10, 10, right()[:2]},
		{"it goes on from a point in the midst of one", "", 19, 20, right()[1:]},
		{"all there is, and what follows", "", 0, 0, append([]tidings{whole(15, "start", map[string]thing{"a": one("2")})}, right()[1:]...)},
		{"compacted", "", 3, 20, []tidings{whole(25, "compacted", map[string]thing{"d": one("1")}), right()[6]}},
		{"an event is dropped", reliable, 10, 10, slices.Delete(right(), 4, 6)},
		{"the first event is dropped", resumable, 10, 10, right()[1:]},
		{"a part of a revision is dropped", atomically, 10, 10, slices.Delete(right(), 2, 3)},
		{"the rest of a revision comes after the next", atomically, 10, 10, swapped(right(), 3, 4)},
		{"the rest of a revision comes after a mark", atomically, 10, 10, slices.Insert(right(), 2, tidings{upTo: 20, resume: 20})},
		{"an event is repeated", unique, 10, 10, slices.Insert(right(), 1, right()[0])},
		{"it begins with what is known", unique, 10, 10, slices.Insert(right(), 0, created(change(10, "a", one("1"), 10)))},
		{"two revisions change places", ordered, 10, 10, swapped(right(), 0, 4)},
		{"a mark goes back", ordered, 10, 10, append(right(), tidings{upTo: 29, resume: 29})},
		{"a state goes back", ordered, 3, 26, []tidings{whole(25, "compacted", map[string]thing{"d": one("1")})}},
		{"a mark comes before its events", bookmarkable, 10, 10, slices.Insert(right(), 4, tidings{upTo: 27, resume: 27})},
		{"a resume point is beyond what was told", resumable, 10, 10, []tidings{change(15, "a", one("2"), 20)}},
		{"a resume point is in the midst of a revision", atomically, 10, 10, []tidings{right()[0], created(change(20, "c", one("1"), 20))}},
		{"a resume point lies too far back", resumable, 10, 10, []tidings{right()[0], created(change(20, "c", one("1"), 12))}},
		{"a gap is not announced", resumable, 10, 10, right()[4:]},
		{"a start anew is not announced", resumable, 10, 10, []tidings{whole(15, "start", map[string]thing{"a": one("2")})}},
		{"another's is told", filtered, 10, 10, slices.Insert(right(), 0, created(change(12, "b", other, 12)))},
		{"all there is has another's", filtered, 0, 0, []tidings{whole(15, "start", map[string]thing{"a": one("2"), "b": other})}},
		{"all there is lacks one", reliable, 0, 0, []tidings{whole(15, "start", map[string]thing{})}},
		{"one that was there is created", previous, 10, 10, []tidings{created(change(15, "a", one("2"), 15))}},
		{"one that is gone is as it never was", previous, 19, 19, []tidings{right()[1], right()[2], gone(change(20, "a", one("1"), 20))}},
		{"one that has left is an update", previous, 19, 19, []tidings{right()[1], right()[2], change(20, "a", other, 20)}},
		{"an old value is told", truly, 10, 10, []tidings{change(15, "a", one("1"), 15)}},
		{"what never happened is told", truly, 10, 10, []tidings{change(11, "a", one("1"), 11)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &session{who: "somebody", sieve: sieve{zone: "za"}, from: c.from, known: c.known, told: c.told}
			found := newJudge(tr).violations(s)
			switch {
			case c.promise == "" && len(found) > 0:
				t.Errorf("it is blamed for %v", found)
			case c.promise != "" && !slices.ContainsFunc(found, func(b brokenPromise) bool { return b.promise == c.promise }):
				t.Errorf("it is not %s: found is %v", c.promise, found)
			}
		})
	}
}

// flat are the changes of all of them.
func flat(all []tidings) (changes []tiding) {
	for _, t := range all {
		changes = append(changes, t.changes...)
	}
	return changes
}

func swapped(all []tidings, i, j int) []tidings {
	all[i], all[j] = all[j], all[i]
	return all
}
