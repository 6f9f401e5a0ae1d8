package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// toldAll is a member with a copy of b, cluster 200, of so many instances, in services of a hundred.
func toldAll(tb testing.TB, count int) (*member, RegionKey) {
	tb.Helper()
	m, k := newMember(tb, newManualClock()), RegionKey{Region: "b", Cluster: 200}
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

const muchMoreThanAnAnswer = (controlStepsMax + 2) * sweepMax

// TestForgettingGoesOnBehindTheAnswer shows that an operator waits for so many commands at
// most, that nothing is taken in until all is gone, and that it is then, though it was resumed.
func TestForgettingGoesOnBehindTheAnswer(t *testing.T) {
	m, k := toldAll(t, muchMoreThanAnAnswer)
	mustEqual(t, "the commands until the answer", m.control(t, k, RegionForget), controlStepsMax)
	mustEqual(t, "what is left then", m.registry.Region(k).Leaving, 2*sweepMax)
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

// TestConfirmingGoesOnBehindTheAnswer shows the same of what is held.
func TestConfirmingGoesOnBehindTheAnswer(t *testing.T) {
	m, k := toldAll(t, muchMoreThanAnAnswer)
	m.tellAll(t, k, 2, muchMoreThanAnAnswer, func(n int) bool { return n < 7 })
	importWhole(t, m, Import{Region: k, Step: ImportStepSweep, Upto: endOfSync})
	mustEqual(t, "what is held", m.registry.Region(k).Held.Instances, muchMoreThanAnAnswer-7)
	mustEqual(t, "the commands until the answer", m.control(t, k, RegionConfirm), controlStepsMax)
	mustEqual(t, "what is left then", m.registry.Region(k).Leaving, 2*sweepMax-7)
	if err := m.registry.LetGo(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	of := m.registry.Region(k)
	mustEqual(t, "what is left in the end", fmt.Sprint(of.Instances, of.Leaving, of.Held.Instances), "7 0 0")
	mustBeImported(t, m.machine.published)
}

// BenchmarkSweep measures how a full sync is swept that did not tell every fourth of 100,000
// instances, in services of a hundred, and how they are forgotten.
func BenchmarkSweep(b *testing.B) {
	const all = 100_000
	for range b.N {
		b.StopTimer()
		m, k := toldAll(b, all)
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
