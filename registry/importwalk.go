package registry

import (
	"fmt"
	"slices"
)

// A walk is where the removal of a copy's instances stands, which takes many commands:
// none before that has anything to remove any more. It is not written down, since a
// member without it finds the same from the beginning, only later.
type walk struct {
	known    bool
	all      bool         // everything goes, and not only what is not marked
	syncs    uint64       // what is marked
	services []ServiceKey // that are left, sorted
	at       string       // the id in the first of them where it goes on
}

// remaining is what may have something to remove. Nothing comes into what is before that
// meanwhile: what is told has the mark, and while everything goes nothing is.
func (im *imports) remaining(all bool) *walk {
	if w := &im.walk; !w.known || w.all != all || w.syncs != im.region.syncs || mutant("sweep_takes_what_was_told") {
		*w = walk{known: true, all: all, syncs: im.region.syncs, services: im.sorted()}
	}
	return &im.walk
}

// leaving walks on over the instances that go, by service and id, until it is told to stop.
func (s *state) leaving(of *imports, w *walk, fn func(*Instance) (more bool)) {
	for ; len(w.services) > 0; w.services, w.at = w.services[1:], "" {
		svc := s.services[w.services[0]]
		if svc == nil { // its last instance, which was told to be gone, was all that there was of it
			continue
		}
		from, _ := searchID(svc.instances, w.at)
		for _, i := range svc.instances[from:] {
			if of.leaves(i, w.all) && !fn(i) {
				w.at = i.ID
				return
			}
		}
	}
}

func (im *imports) sorted() []ServiceKey {
	services := make([]ServiceKey, 0, len(im.services))
	for service := range im.services {
		services = append(services, service)
	}
	slices.SortFunc(services, ServiceKey.Compare)
	return services
}

// leaves says whether an instance is of a copy, and goes: it was not told in the last full
// sync or since, or everything goes.
func (im *imports) leaves(i *Instance, all bool) bool {
	return i.Imported != nil && i.regionKey() == im.region.Key && (all || i.Imported.mark != im.region.syncs || mutant("sweep_takes_what_was_told"))
}

// unmarked is how many instances were not told in the last full sync or since.
func (im *imports) unmarked() int {
	if mutant("sweep_takes_what_was_told") {
		return im.instances
	}
	return im.instances - im.marks[im.region.syncs]
}

// empties says whether a copy was forgotten, and not all of it is gone.
func (im *imports) empties() bool {
	return im != nil && im.region.Forgotten != 0 && im.instances > 0
}

// lacksMore says whether something was not told that was not held before.
func (t *step) lacksMore(of *imports, held HeldSweep) bool {
	more, look := held.Since == 0, *of.remaining(false) // which stays where it is: all of it may be let go of yet
	if !more {
		t.state.leaving(of, &look, func(i *Instance) bool {
			more = i.Imported.SeenAt >= held.Since
			return !more
		})
	}
	return more
}

// removeImported removes instances of a region, as many as one command may. It looks no
// further than that, and nowhere where none goes, which most full syncs end with.
func (t *step) removeImported(k RegionKey, all bool) (more bool) {
	of := t.state.importsOf(k)
	count := of.unmarked()
	if all {
		count = of.instances
	}
	most := min(count, t.sweepMost)
	if most == 0 {
		return false
	}
	gone, w := make([]*Instance, 0, most), of.remaining(all)
	t.state.leaving(of, w, func(i *Instance) bool {
		gone = append(gone, i)
		return len(gone) < most
	})
	if len(gone) < most {
		panic(fmt.Sprintf("registry: entry %d of term %d removes %d of %d instances of region %q, cluster %d, and finds %d of them: what is remembered of their removal is wrong", t.entry.Index, t.entry.Term, most, count, k.Region, k.Cluster, len(gone)))
	}
	for _, i := range gone {
		t.remove(i)
	}
	if more = count > most; !more {
		*w = walk{} // with what it holds
	}
	return more
}
