package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stellmap/stellmap/storage"
)

// toldAll is a member with a copy of b, cluster 200, of so many instances, in services of a
// hundred, of which one command removes so many; 0 is as many as ever.
func toldAll(tb testing.TB, count, most int) (*member, RegionKey) {
	tb.Helper()
	m, k := newMember(tb, newManualClock()), RegionKey{Region: "b", Cluster: 200}
	if most > 0 {
		m.machine.sweepMost = most
	}
	m.tellAll(tb, k, 1, count, func(int) bool { return true })
	importWhole(tb, m, Import{Region: k, Step: ImportStepSweep, Upto: endOfSync})
	return m, k
}

var endOfSync = ImportCursor{Incarnation: "cafe", Selections: "all", Revision: 5}

// tellAll begins a full sync, and tells of so many instances those that are picked.
func (m *member) tellAll(tb testing.TB, k RegionKey, sync uint64, count int, tells func(n int) bool) {
	tb.Helper()
	at := ImportCursor{Incarnation: "cafe", Selections: "all", Sync: sync}
	importWhole(tb, m, Import{Region: k, Step: ImportStepBegin, Upto: at})
	var items []ImportItem
	for n := range count {
		if tells(n) {
			items = append(items, importItemOf(tb, fmt.Sprintf("prod/s%04d/%05d port=%d", n/100, n, 1+n%60_000)))
		}
		if len(items) == ImportItemsMax || n+1 == count && len(items) > 0 {
			at.Parts++
			importWhole(tb, m, Import{Region: k, Step: ImportStepPart, Upto: at, Items: items})
			items = items[:0]
		}
	}
}

// control does what an operator wants, and says how many commands that took.
func (m *member) control(t *testing.T, k RegionKey, action RegionAction) (commands int) {
	t.Helper()
	before := m.index
	if _, err := m.registry.ControlRegion(context.Background(), k, action); err != nil {
		t.Fatal(err)
	}
	return int(m.index - before)
}

const (
	fewAtOnce            = 32
	muchMoreThanAnAnswer = (controlStepsMax + 2) * fewAtOnce
)

// TestForgettingGoesOnBehindTheAnswer shows that an operator waits for so many commands at
// most, that nothing is taken in until all is gone, and that it is then, though it was resumed.
func TestForgettingGoesOnBehindTheAnswer(t *testing.T) {
	m, k := toldAll(t, muchMoreThanAnAnswer, fewAtOnce)
	mustEqual(t, "the commands until the answer", m.control(t, k, RegionForget), controlStepsMax)
	mustEqual(t, "what is left then", m.registry.Region(k).Leaving, 2*fewAtOnce)
	m.control(t, k, RegionResume)
	begin := Import{Region: k, Step: ImportStepBegin, Upto: ImportCursor{Incarnation: "cafe", Selections: "all", Sync: 2}}
	if _, err := m.registry.Import(context.Background(), begin); !errors.Is(err, ErrRegionPaused) || !m.registry.Region(k).Stopped() {
		t.Fatalf("what is told meanwhile is answered with %v", err)
	}
	if err := m.registry.LetGo(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "what is left in the end", m.registry.Region(k).Instances, 0)
	mustBeImported(t, m.machine.published)
	importWhole(t, m, begin)
	mustEqual(t, "whether it is forgotten", m.registry.Region(k).Forgotten, 0)
}

// TestForgettingTheRestIsAChange shows that an operator is told so when all that forgetting once
// more did was to remove what had been left.
func TestForgettingTheRestIsAChange(t *testing.T) {
	m, k := toldAll(t, (controlStepsMax+1)*fewAtOnce, fewAtOnce)
	for n, changes := range []bool{true, true, false} {
		result, err := m.registry.ControlRegion(context.Background(), k, RegionForget)
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, fmt.Sprintf("whether time %d changed something", n+1), result.Changed, changes)
	}
}

// TestConfirmingGoesOnBehindTheAnswer shows the same of what is held.
func TestConfirmingGoesOnBehindTheAnswer(t *testing.T) {
	m, k := toldAll(t, muchMoreThanAnAnswer, fewAtOnce)
	m.tellAll(t, k, 2, muchMoreThanAnAnswer, func(n int) bool { return n < 7 })
	importWhole(t, m, Import{Region: k, Step: ImportStepSweep, Upto: endOfSync})
	mustEqual(t, "what is held", m.registry.Region(k).Held.Instances, muchMoreThanAnAnswer-7)
	mustEqual(t, "the commands until the answer", m.control(t, k, RegionConfirm), controlStepsMax)
	mustEqual(t, "what is left then", m.registry.Region(k).Leaving, 2*fewAtOnce-7)
	if err := m.registry.LetGo(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	of := m.registry.Region(k)
	mustEqual(t, "what is left in the end", fmt.Sprint(of.Instances, of.Leaving, of.Held.Instances), "7 0 0")
	mustBeImported(t, m.machine.published)
}

// TestWhatIsForgottenAndComesBackIsForgottenAgain shows that a copy that was forgotten, was
// told anew and is forgotten again goes as a whole each time, in the midst of a full sync,
// too, and where that was in a command's midst before.
func TestWhatIsForgottenAndComesBackIsForgottenAgain(t *testing.T) {
	m, k := toldAll(t, muchMoreThanAnAnswer, fewAtOnce)
	forget := func() {
		t.Helper()
		m.control(t, k, RegionForget)
		mustEqual(t, "where a forgotten copy is", m.registry.Region(k).Cursor, ImportCursor{})
		m.control(t, k, RegionResume)
		m.control(t, k, RegionForget) // once more, while it goes
		if err := m.registry.LetGo(context.Background(), k); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "what is left", m.registry.Region(k).Instances, 0)
		m.control(t, k, RegionResume)
	}
	forget()
	m.tellAll(t, k, 2, muchMoreThanAnAnswer, func(n int) bool { return n%2 == 0 })
	forget() // before that was swept
	m.tellAll(t, k, 3, muchMoreThanAnAnswer, func(int) bool { return true })
	importWhole(t, m, Import{Region: k, Step: ImportStepSweep, Upto: endOfSync})
	mustEqual(t, "what is there again", m.registry.Region(k).Instances, muchMoreThanAnAnswer)
	m.tellAll(t, k, 4, muchMoreThanAnAnswer, func(n int) bool { return n%4 > 0 })
	in := Import{Region: k, Step: ImportStepSweep, After: m.registry.Region(k).Cursor, Upto: endOfSync}
	if result, err := m.registry.Import(context.Background(), in); err != nil || !result.More {
		t.Fatalf("the first part of a sweep: %+v, %v", result, err)
	}
	forget() // in the midst of the sweep
	mustBeImported(t, m.machine.published)
}

// TestASweepThatIsBrokenOffIsForgotten shows that where one sweep stood says nothing of what
// the next full sync did not tell, be it before that or behind it.
func TestASweepThatIsBrokenOffIsForgotten(t *testing.T) {
	const all = 10 * fewAtOnce
	m, k := toldAll(t, all, fewAtOnce)
	m.tellAll(t, k, 2, all, func(n int) bool { return n%5 > 0 })
	in := Import{Region: k, Step: ImportStepSweep, After: m.registry.Region(k).Cursor, Upto: endOfSync}
	if result, err := m.registry.Import(context.Background(), in); err != nil || !result.More {
		t.Fatalf("the first part of a sweep: %+v, %v", result, err)
	}
	m.control(t, k, RegionResync)
	m.tellAll(t, k, 3, all, func(n int) bool { return n%5 > 1 })
	importWhole(t, m, Import{Region: k, Step: ImportStepSweep, Upto: endOfSync})
	m.control(t, k, RegionConfirm)
	if err := m.registry.LetGo(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "what is left", m.registry.Region(k).Instances, all*3/5)
	mustBeImported(t, m.machine.published)
}

// TestLeavingGoesOnAfterARestart shows that what an operator has go goes on whoever leads,
// after a restart in its midst, and that it comes out the same as where there was none.
func TestLeavingGoesOnAfterARestart(t *testing.T) {
	m, k := toldAll(t, muchMoreThanAnAnswer, fewAtOnce)
	m.control(t, k, RegionForget)
	m.close()
	m.open()
	m.lead()
	m.machine.sweepMost = fewAtOnce
	of := m.registry.Region(k)
	mustEqual(t, "what is left after the restart", fmt.Sprint(of.Leaving, of.Stopped()), fmt.Sprint(2*fewAtOnce, true))
	if err := m.registry.LetGo(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "what is left in the end", m.registry.Region(k).Instances, 0)
	other := newReplica(t)
	other.machine.sweepMost = fewAtOnce
	other.apply(m.log)
	mustEqual(t, "the state where nobody was restarted", dumpState(other.machine.published)+dumpEngine(t, other.engine), m.dump())
}

// TestAForgottenCopyOfAnOlderStateStays shows that what was half removed by a version that
// did not write down that it was forgotten is a copy that is paused, and is forgotten anew.
func TestAForgottenCopyOfAnOlderStateStays(t *testing.T) {
	m, k := toldAll(t, 3*fewAtOnce, fewAtOnce)
	b, old := m.engine.NewBatch(), Region{Key: k, Paused: true, syncs: 1}
	b.Set(storage.CursorKey(k.Region, k.Cluster), old.encode())
	m.index++
	if err := m.engine.Apply(b, storage.Position{Index: uint64(m.index), Term: m.term}); err != nil {
		t.Fatal(err)
	}
	m.close()
	m.open()
	m.lead()
	if err := m.registry.LetGo(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	of := m.registry.Region(k)
	mustEqual(t, "what there is of it", fmt.Sprint(of.Instances, of.Leaving, of.Stopped()), fmt.Sprint(3*fewAtOnce, 0, true))
	m.control(t, k, RegionForget)
	mustEqual(t, "what is left in the end", m.registry.Region(k).Instances, 0)
}

// BenchmarkSweep measures how a full sync is swept that did not tell every fourth of 100,000
// instances, in services of a hundred, and how they are forgotten.
func BenchmarkSweep(b *testing.B) {
	const all = 100_000
	for range b.N {
		b.StopTimer()
		m, k := toldAll(b, all, 0)
		m.tellAll(b, k, 2, all, func(n int) bool { return n%4 > 0 })
		b.StartTimer()
		importWhole(b, m, Import{Region: k, Step: ImportStepSweep, Upto: endOfSync})
		b.StopTimer()
		swept := b.Elapsed()
		mustEqual(b, "what is left", m.registry.Region(k).Instances, all*3/4)
		b.StartTimer()
		if _, err := m.registry.ControlRegion(context.Background(), k, RegionForget); err != nil {
			b.Fatal(err)
		}
		if err := m.registry.LetGo(context.Background(), k); err != nil {
			b.Fatal(err)
		}
		mustEqual(b, "what is left in the end", m.registry.Region(k).Instances, 0)
		b.Logf("swept after %v in all, forgotten after %v", swept, b.Elapsed())
	}
}

// importWhole takes in what is told where the copy is, as often as there is more to do.
func importWhole(b testing.TB, m *member, in Import) {
	b.Helper()
	for more := true; more; {
		in.After = m.registry.Region(in.Region).Cursor
		result, err := m.registry.Import(context.Background(), in)
		if err != nil {
			b.Fatal(err)
		}
		more = result.More
	}
}

// imported walks the instances of a region, by service and id, until it is told to stop.
func (s *state) imported(k RegionKey, fn func(*Instance) (more bool)) {
	if of := s.imports[k]; of != nil {
		s.leaving(of, &walk{all: true, services: of.sorted()}, fn)
	}
}

// mustLeave checks that where the removal of a copy's instances stands has all behind it that goes.
func mustLeave(t *testing.T, s *state, of *imports) {
	t.Helper()
	w, left, want := of.walk, 0, of.unmarked()
	if w.all {
		want = of.instances
	}
	if !w.known || w.syncs != of.region.syncs {
		return // it begins anew
	}
	if s.leaving(of, &w, func(*Instance) bool { left++; return true }); left != want {
		t.Fatalf("%d instances of region %v go, and %d are found from %q of %v on", want, of.region.Key, left, of.walk.at, of.walk.services)
	}
}
