package registry

import (
	"testing"
	"time"
)

// mustBeAging checks what is counted of the instances of a region by what the age of its
// copy has made of them, that it is what their policies say, and who has a word on it.
func mustBeAging(t *testing.T, s *state, of *imports) {
	t.Helper()
	var modes copied
	words := make(aging)
	for _, svc := range s.order {
		var here copied
		s.imported(of.region.Key, func(i *Instance) bool {
			if i.ServiceKey() == svc.key {
				here[i.Imported.stale]++
				modes[i.Imported.stale]++
				if want := svc.policy.staleness(of.region.Stale); i.Imported.stale != want {
					t.Fatalf("%s of a copy that is %s old is %d, and its policy says %d", i.ID, of.region.Stale, i.Imported.stale, want)
				}
			}
			return true
		})
		if of.services[svc.key] != here {
			t.Fatalf("service %v has %v instances of region %v, and is counted to have %v", svc.key, here, of.region.Key, of.services[svc.key])
		}
		if here.instances() > 0 {
			words.add(svc.key, svc.policy)
		}
	}
	if of.modes != modes {
		t.Fatalf("region %v has %v instances, and is counted to have %v", of.region.Key, modes, of.modes)
	}
	mustEqual(t, "the services that ask for an age", len(of.aging.between(0, 365*24*time.Hour)), len(words.between(0, 365*24*time.Hour)))
	for after := range words {
		mustEqual(t, "those that ask for "+after.String(), len(of.aging[after]), len(words[after]))
	}
}

// TestAgingIsBounded shows that what an age makes of many instances takes several
// commands, each of so many, and that what is told in between comes out the same.
func TestAgingIsBounded(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	k := RegionKey{Region: "b", Cluster: 200}
	const all = 2*sweepMax + 1
	copyNumbered(t, m, k, all)
	if _, err := m.registry.PutPolicy(t.Context(), "", ServiceKey{"prod", "orders"}, stalePolicy(StaleWithhold, 60), Writing{}); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	before := m.index
	if err := m.registry.AgeRegion(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the commands that it took", int(m.index-before), 3)
	mustEqual(t, "how many are withheld", m.registry.Region(k).Withheld, all)
	mustBeImported(t, m.machine.working)
	mustBeImported(t, m.machine.published)
	before = m.index
	if err := m.registry.AgeRegion(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the commands that it takes where all is said", int(m.index-before), 0)
}

// TestAnAgeIsOfWhatWasTold shows that a leader's word on a copy does nothing once the
// source has been heard again.
func TestAnAgeIsOfWhatWasTold(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	k := RegionKey{Region: "b", Cluster: 200}
	copyNumbered(t, m, k, 3)
	if _, err := m.registry.PutPolicy(t.Context(), "", ServiceKey{"prod", "orders"}, stalePolicy(StaleSuspect, 60), Writing{}); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	told, stale, due := m.registry.dueAge(k)
	mustEqual(t, "what is due", due, true)
	at := m.registry.Region(k).Cursor
	if _, err := m.registry.Import(t.Context(), Import{Region: k, Step: ImportStepChanges, After: at, Upto: at, KnownAge: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.registry.propose(t.Context(), "", ageCommand(k, told, stale)); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "how many are suspect", m.registry.Region(k).Suspect, 0)
}

func stalePolicy(stale string, after int64) Policy {
	return Policy{Failover: &Failover{Stale: stale, StaleAfterSeconds: &after}}
}

// copyNumbered makes a copy of so many instances of one service.
func copyNumbered(t *testing.T, m *member, k RegionKey, count int) {
	t.Helper()
	step := func(kind ImportStep, upto ImportCursor, items ...ImportItem) {
		t.Helper()
		in := Import{Region: k, Step: kind, After: m.registry.Region(k).Cursor, Upto: upto, Items: items, KnownAge: true}
		if _, err := m.registry.Import(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	at := ImportCursor{Incarnation: "cafe", Selections: "all", Sync: 1}
	step(ImportStepBegin, at)
	for n := 0; n < count; n += ImportItemsMax {
		at.Parts++
		step(ImportStepPart, at, numberedItems(t, n, min(ImportItemsMax, count-n))...)
	}
	step(ImportStepSweep, ImportCursor{Incarnation: "cafe", Selections: "all", Revision: 5})
}
