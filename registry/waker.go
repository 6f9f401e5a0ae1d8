package registry

import (
	"fmt"
	"sync"
)

// Who is woken by a change.
//
// Ten thousand watchers of as many services are woken ten thousand times for each
// change if there is one bell for all of them, and all but one go back to sleep. So
// watchers that wait for the same services form a group, and a change rings for the
// groups that want its service: those that name it are found by its name, and those
// of a namespace or of prefixes are asked, each group once, however many wait in it.
//
// Who waits in a group is level with the member: as long as it does not ring there
// was nothing for him. So a watcher of a quiet service does not fall behind, and
// when it rings he looks at what came with that bell and at nothing before.
type waker struct {
	mu     sync.Mutex // guards what follows
	head   Revision   // up to here it has rung
	groups map[string]*waitGroup
	exact  map[ServiceKey]map[*waitGroup]struct{}
	broad  map[string]map[*waitGroup]struct{} // by namespace, "" = of all
	wakes  uint64                             // watchers that were woken
}

// A waitGroup is the watchers that wait for the same services.
type waitGroup struct {
	filter  *filter // of which only what it says of services is looked at
	key     string
	waiters int
	woken   chan struct{} // closed when it rings
	before  Revision      // nothing up to here was for them; set before it rings
}

func newWaker(head Revision) *waker {
	return &waker{
		head: head, groups: make(map[string]*waitGroup),
		exact: make(map[ServiceKey]map[*waitGroup]struct{}), broad: make(map[string]map[*waitGroup]struct{}),
	}
}

// waitKey is the same for filters that want the same services.
func (f *filter) waitKey() string {
	return fmt.Sprintf("%q %q %q %q", f.namespace, f.services, f.prefixes, f.levels)
}

// exactly are the services that a filter names; nil when it may want others.
func (f *filter) exactly() []ServiceKey {
	if f.namespace == "" || len(f.services) == 0 {
		return nil
	}
	keys := make([]ServiceKey, len(f.services))
	for i, name := range f.services {
		keys[i] = ServiceKey{Namespace: f.namespace, Service: name}
	}
	return keys
}

// join waits in the group of the filter; nil when there has been a bell since the
// caller was level.
func (w *waker) join(f *filter, key string, level Revision) *waitGroup {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.head > level {
		return nil
	}
	g := w.groups[key]
	if g == nil {
		g = &waitGroup{filter: f, key: key, woken: make(chan struct{})}
		w.groups[key] = g
		w.index(g, addGroup)
	}
	g.waiters++
	return g
}

// leave ends the waiting, and says up to where there was nothing.
func (w *waker) leave(g *waitGroup) Revision {
	w.mu.Lock()
	defer w.mu.Unlock()
	g.waiters--
	if w.groups[g.key] != g { // it has rung
		return g.before
	}
	if g.waiters == 0 {
		w.forget(g)
	}
	return w.head
}

func (w *waker) forget(g *waitGroup) {
	delete(w.groups, g.key)
	w.index(g, removeGroup)
}

// index does something where a group is found.
func (w *waker) index(g *waitGroup, do func(in map[*waitGroup]struct{}, g *waitGroup) map[*waitGroup]struct{}) {
	for _, k := range g.filter.exactly() {
		if w.exact[k] = do(w.exact[k], g); len(w.exact[k]) == 0 {
			delete(w.exact, k)
		}
	}
	if len(g.filter.exactly()) > 0 {
		return
	}
	n := g.filter.namespace
	if w.broad[n] = do(w.broad[n], g); len(w.broad[n]) == 0 {
		delete(w.broad, n)
	}
}

func addGroup(in map[*waitGroup]struct{}, g *waitGroup) map[*waitGroup]struct{} {
	if in == nil {
		in = make(map[*waitGroup]struct{})
	}
	in[g] = struct{}{}
	return in
}

func removeGroup(in map[*waitGroup]struct{}, g *waitGroup) map[*waitGroup]struct{} {
	delete(in, g)
	return in
}

// ring wakes whoever wants something of what has come up to a revision.
func (w *waker) ring(revision Revision, events []Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.head
	w.head = revision
	if len(w.groups) == 0 {
		return
	}
	var last ServiceKey
	for i := range events {
		e := &events[i]
		if e.Kind != EventInstancePut && e.Kind != EventInstanceDelete || e.Service == last {
			continue
		}
		last = e.Service
		for _, in := range [...]map[*waitGroup]struct{}{w.exact[last], w.broad[last.Namespace], w.broad[""]} {
			for g := range in {
				if g.filter.matchesService(last) {
					w.wake(g, before)
				}
			}
		}
	}
}

// ringAll wakes everybody: what has come is not known here.
func (w *waker) ringAll(revision Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		w.wake(g, w.head)
	}
	w.head = revision
}

func (w *waker) wake(g *waitGroup, before Revision) {
	g.before = before
	w.wakes += uint64(g.waiters)
	close(g.woken)
	w.forget(g)
}

// stats are for metrics.
func (w *waker) stats() (waiting int, wakes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		waiting += g.waiters
	}
	return waiting, w.wakes
}
