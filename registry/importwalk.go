package registry

import "slices"

// A walk is where the removal of a copy's instances stands, which takes many commands:
// none of the services before those has anything to remove any more. It is not written
// down, since a member without it finds the same from the beginning, only later.
type walk struct {
	known    bool
	all      bool   // everything goes, and not only what is not marked
	syncs    uint64 // what is marked
	services []ServiceKey
}

// remaining are the services that may have something to remove, sorted. Nothing comes into
// those before them meanwhile: what is told has the mark, and while everything goes nothing is.
func (im *imports) remaining(all bool) *walk {
	if w := &im.walk; !w.known || w.all != all || w.syncs != im.region.syncs {
		*w = walk{known: true, all: all, syncs: im.region.syncs, services: im.sorted()}
	}
	return &im.walk
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

// imported walks the instances of a region, by service and id, until it is told to stop.
func (s *state) imported(k RegionKey, fn func(*Instance) (more bool)) {
	of := s.imports[k]
	if of == nil {
		return
	}
	for _, service := range of.sorted() {
		for _, i := range s.services[service].instances {
			if i.Imported != nil && i.regionKey() == k && !fn(i) {
				return
			}
		}
	}
}

// lacksMore says whether something was not told that was not held before.
func (t *step) lacksMore(of *imports, held HeldSweep) bool {
	more := held.Since == 0
	if !more {
		t.state.imported(of.region.Key, func(i *Instance) bool {
			more = of.leaves(i, false) && i.Imported.SeenAt >= held.Since
			return !more
		})
	}
	return more
}

// removeImported removes instances of a region, as many as one command may.
func (t *step) removeImported(k RegionKey, all bool) (more bool) {
	of := t.state.importsOf(k)
	w, room := of.remaining(all), sweepMax
	for ; len(w.services) > 0; w.services = w.services[1:] {
		svc := t.state.services[w.services[0]]
		if svc == nil { // its last instance, which was told to be gone, was all that there was of it
			continue
		}
		var gone []*Instance
		for _, i := range svc.instances {
			if !of.leaves(i, all) {
				continue
			}
			if len(gone) == room {
				more = true
				break
			}
			gone = append(gone, i)
		}
		for _, i := range gone {
			t.remove(i)
		}
		if room -= len(gone); more {
			return true
		}
	}
	return false
}
