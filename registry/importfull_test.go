package registry

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestAFullCopyIsAnOperatorsToDecide shows what is told of a copy that is full, as a source
// grows and as it returns with all else than it had; and that what is said to do helps.
func TestAFullCopyIsAnOperatorsToDecide(t *testing.T) {
	m := newMember(t, newManualClock())
	m.machine.regionInstances = 4
	k := RegionKey{Region: "b", Cluster: 200}
	step := func(kind ImportStep, upto ImportCursor, items ...ImportItem) error {
		_, err := m.registry.Import(context.Background(), Import{Region: k, Step: kind, After: m.registry.Region(k).Cursor, Upto: upto, Items: items})
		return err
	}
	control := func(action RegionAction) {
		t.Helper()
		if _, err := m.registry.ControlRegion(context.Background(), k, action); err != nil {
			t.Fatal(err)
		}
	}
	// whole has all that is there told, of the cluster that it is now.
	whole := func(incarnation string, from, count int) error {
		sync := m.registry.Region(k).NextSync(incarnation)
		part := sync
		part.Parts++
		err := step(ImportStepBegin, sync)
		if err == nil {
			err = step(ImportStepPart, part, numberedItems(t, from, count)...)
		}
		if err == nil {
			err = step(ImportStepSweep, ImportCursor{Incarnation: incarnation, Revision: 5})
		}
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	isFull := func(err error, says string) {
		t.Helper()
		if !errors.Is(err, ErrRegionFull) || !strings.Contains(err.Error(), says) {
			t.Errorf("it says %v, want %q", err, says)
		}
	}
	must(whole("cafe", 0, 3))
	more := ImportCursor{Incarnation: "cafe", Revision: 6}
	isFull(step(ImportStepChanges, more, numberedItems(t, 3, 2)...), `of region "b" there may be 4 instances, and 3 are here: when it has fewer again, stellmapctl federation resync b`)
	must(step(ImportStepChanges, more, numberedItems(t, 2, 2)...))
	mustEqual(t, "the instances of a copy that is as full as it may be", m.registry.Region(k).Instances, 4)
	swap := append(numberedItems(t, 0, 1), numberedItems(t, 4, 1)...)
	swap[0].Gone = true
	more.Revision++
	must(step(ImportStepChanges, more, swap...))
	back := append(numberedItems(t, 0, 1), numberedItems(t, 4, 1)...)
	back[1].Gone = true
	more.Revision++
	must(step(ImportStepChanges, more, back...)) // in the other order: what counts is what is left
	mustEqual(t, "the instances of a full copy that has had one for another", m.registry.Region(k).Instances, 4)
	more.Revision++
	isFull(step(ImportStepChanges, more, append(back, numberedItems(t, 5, 1)...)...), "and 4 are here")
	must(whole("cafe", 0, 4)) // they are no more than they were

	isFull(whole("beef", 10, 3), "if it has others now, stellmapctl federation forget b, and then resume")
	isFull(whole("beef", 10, 3), "and 4 are here") // however often
	control(RegionForget)
	control(RegionResume)
	must(whole("beef", 10, 3))
	mustEqual(t, "what there is of it", m.registry.Region(k).Instances, 3)
}
