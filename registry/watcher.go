package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// WatchStart says from where on something is watched.
type WatchStart struct {
	After    Revision // everything up to here the caller knows; 0 = nothing
	Live     bool     // with After 0: what comes from now on, in place of all there is and then that
	Foreign  bool     // After is known to be of another cluster
	NoResync bool     // ErrCompacted in place of all there is, when what came after After is not known here
}

// A Watcher is told of the changes of what a query asks for: in order, each once,
// whole revisions, nothing else. It belongs to one goroutine and needs no closing.
// It holds a place in the history and nothing of what it has yet to tell, so that one
// that nobody asks for more costs nothing; the history goes on without it, and in the
// end it is told all there is, anew.
type Watcher struct {
	registry *Registry
	filter   *filter
	start    WatchStart
	fresh    Consistency
	key      string // of its group

	edition *Edition // of access, by which it was told up to now; nil = nobody is asked
	stamp   string   // of the caller's rights then

	after Revision // everything up to here has been told
	whole Resync   // why all there is comes next; 0 = it does not
}

// Resync says why a watcher is told all there is.
type Resync uint8

const (
	// ResyncStart is that it began so.
	ResyncStart Resync = iota + 1
	// ResyncCompacted is that not all that came after its revision is kept.
	ResyncCompacted
	// ResyncFuture is that its revision is of another cluster, or of one that was restored since.
	ResyncFuture
	// ResyncSelection is that a replica's revision is of another selection.
	ResyncSelection
	// ResyncAccess is that the caller may see other things than before.
	ResyncAccess
)

// String is for clients and logs.
func (r Resync) String() string {
	switch r {
	case ResyncStart:
		return "start"
	case ResyncCompacted:
		return "compacted"
	case ResyncFuture:
		return "unknown_revision"
	case ResyncAccess:
		return "access"
	case ResyncSelection:
		return "selections"
	}
	return "none"
}

// Changes are what a watcher is told at once: all there is, or what has changed. With
// neither they are a mark of progress: up to the revision there was nothing for it.
type Changes struct {
	Revision  Revision    // everything up to here has been told
	Resync    Resync      // not 0: Instances are all there is, and what was told before is void
	Instances []*Instance // sorted by namespace, service and id
	Changes   []Change    // in order; of each revision all
}

// A Change is one instance that has come, changed or gone, as far as the query goes:
// one that matches no longer has gone.
type Change struct {
	Revision Revision
	Order    int // of its event within the revision: the same for whoever is told of it
	Gone     bool
	Created  bool      // it did not match before
	Last     bool      // of its revision, for this watcher
	Narrowed bool      // the instance is shown without the endpoints that were not asked for
	Instance *Instance // as the query wants it; of one that has gone as it was
}

// SafeRevision is one from which a watcher that has been told of the change, and
// perhaps not of others of its revision, can go on without missing any.
func (c *Change) SafeRevision() Revision {
	if c.Last {
		return c.Revision
	}
	return c.Revision - 1
}

// The bounds of what a watcher is told at once, and of what is looked through for it
// under the lock. A larger revision is told whole.
const (
	watcherChangesMax = 128
	watcherLooksMax   = 4_096
)

// WatchFrom begins a watch. The query's limit bounds what is told of all there is.
func (r *Registry) WatchFrom(ctx context.Context, q Query, start WatchStart) (*Watcher, error) {
	f, err := q.filterFor(ctx)
	if err != nil {
		return nil, err
	}
	w := &Watcher{registry: r, filter: f, start: start, fresh: q.Consistency, key: f.waitKey(), after: start.After}
	if f.by != nil {
		w.edition, w.stamp = r.machine.Edition(), f.by.Stamp()
	}
	switch {
	case start.After == 0 && start.Live:
		w.after = r.machine.Revision()
	case start.After == 0:
		w.whole = ResyncStart
	default:
		if w.whole, err = w.resume(ctx); err != nil {
			return nil, err
		}
	}
	if w.whole != 0 && w.whole != ResyncStart && start.NoResync {
		return nil, ErrCompacted
	}
	return w, nil
}

// KnownCluster is ErrNoLeader while a member does not know of which incarnation its
// revisions are: the first leader has yet to choose it, or the log that says so is being
// applied again. A resume point of then would be taken for another cluster's later, and
// one that is right is taken for that now.
func KnownCluster(incarnation string) error {
	if incarnation == "" {
		return fmt.Errorf("%w: the cluster's incarnation is not known here yet", ErrNoLeader)
	}
	return nil
}

// resume finds out whether the watch can go on from its revision. A member that has
// not come so far looks whether it can: only a leader knows that nobody has.
func (w *Watcher) resume(ctx context.Context) (Resync, error) {
	why, err := w.registry.resyncs(ctx, w.start)
	if why == 0 && err == nil {
		w.skip()
	}
	return why, err
}

// resyncs says why one cannot go on after the revision that it knows; 0 = it can.
func (r *Registry) resyncs(ctx context.Context, start WatchStart) (Resync, error) {
	m := r.machine
	if start.Foreign {
		return ResyncFuture, nil
	}
	if start.After > m.Revision() {
		if _, err := r.replicator.Barrier(ctx); err != nil {
			return 0, err
		}
	}
	switch {
	case start.After > m.Revision() || revisionEra(start.After) != revisionEra(m.Revision()):
		return ResyncFuture, nil
	case !m.keeps(start.After):
		return ResyncCompacted, nil
	}
	return 0, nil
}

// skip passes over what has come since for others, where the services that are
// wanted say so by themselves.
func (w *Watcher) skip() {
	keys := w.filter.exactly()
	if quiet, at := w.registry.machine.quietSince(keys, w.after); quiet && len(keys) > 0 {
		w.after = at
	}
}

// keeps says whether all that came after a revision is known.
func (m *Machine) keeps(after Revision) bool {
	return after >= m.ring.begins() || after >= Revision(max(m.kept.floor.Load(), m.ancient.Load()))
}

// quietSince says whether nothing of the services has changed after a revision, up to
// another. Of one that is not there nobody knows.
func (m *Machine) quietSince(keys []ServiceKey, after Revision) (quiet bool, at Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, k := range keys {
		if svc := m.published.services[k]; svc == nil || svc.record.revision > after {
			return false, 0
		}
	}
	return true, m.revision
}

// Next waits for something to tell. A tick of idle ends the waiting with a mark of
// progress; nil never ticks. When the context is over the error is its own, and
// After is where the watch stands.
func (w *Watcher) Next(ctx context.Context, idle <-chan time.Time) (Changes, error) {
	for {
		if err := w.judge(); err != nil {
			return Changes{}, err
		}
		if w.whole != 0 {
			return w.readWhole(ctx)
		}
		changes, level, err := w.read(ctx)
		switch {
		case errors.Is(err, ErrCompacted) && !w.start.NoResync:
			w.whole = ResyncCompacted
		case err != nil:
			return Changes{}, err
		case len(changes) > 0:
			return Changes{Revision: w.after, Changes: changes}, nil
		case level:
			if ticked, err := w.wait(ctx, idle); ticked || err != nil {
				return Changes{Revision: w.after}, err
			}
		}
	}
}

// judge looks whether the caller may go on. Each event is judged by itself; but of what
// he may see no more, or sees from now on, no event tells.
func (w *Watcher) judge() error {
	by := w.filter.by
	if by == nil {
		return nil
	}
	if err := w.filter.permit(); err != nil {
		return err
	}
	edition := w.registry.machine.Edition()
	if edition == w.edition {
		return nil
	}
	stamp := by.Stamp()
	changed := stamp != w.stamp
	w.edition, w.stamp = edition, stamp
	if changed && w.start.NoResync {
		return ErrCompacted
	}
	if changed {
		w.whole = cmp.Or(w.whole, ResyncAccess)
	}
	return nil
}

// judged is closed when the caller has to be judged anew.
func (w *Watcher) judged() <-chan struct{} {
	if w.edition == nil {
		return nil
	}
	return w.edition.Over()
}

// BeginsWhole says whether all there is comes next.
func (w *Watcher) BeginsWhole() bool { return w.whole != 0 }

// After is the revision up to which everything has been told.
func (w *Watcher) After() Revision { return w.after }

// wait waits for the bell, for a tick, or for the end of the context.
func (w *Watcher) wait(ctx context.Context, idle <-chan time.Time) (ticked bool, err error) {
	waker := w.registry.machine.waker
	g := waker.join(w.filter.forAnybody(), w.key, w.after) // others wait in it, too
	if g == nil {
		return false, nil
	}
	select {
	case <-g.woken:
	case <-w.judged():
	case <-idle:
		ticked = true
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.after = max(w.after, waker.leave(g))
	return ticked, err
}

// readWhole reads all there is. It is never older than what the watcher knows of this
// cluster: that is below the floor of a history which has been published.
func (w *Watcher) readWhole(ctx context.Context) (Changes, error) {
	if err := w.registry.freshen(ctx, w.fresh); err != nil {
		return Changes{}, err
	}
	found, at, _ := w.registry.machine.find(w.filter, instancesOnly)
	instances, _ := found.instances(w.filter, place{})
	told := Changes{Revision: at, Resync: w.whole, Instances: instances}
	w.after, w.whole = at, 0
	return told, nil
}

// read looks for changes in what has come, in memory or in the history. level says
// that there is no more of it.
func (w *Watcher) read(ctx context.Context) (changes []Change, level bool, err error) {
	take := func(e *Event) int {
		if c, wanted := w.filter.change(e); wanted {
			changes = append(changes, c)
		}
		return len(changes)
	}
	m := w.registry.machine
	upTo, level, err := m.ring.scan(w.after, take)
	if errors.Is(err, ErrCompacted) {
		var batch Batch
		batch, err = m.catchUps.do(ctx, func() (Batch, error) { return m.olderOf(w.after, m.ring.begins(), w.filter.matchesService) })
		if err == nil {
			for i := range batch.Events {
				take(&batch.Events[i])
			}
			upTo = batch.Revision
		} else if errors.Is(err, ErrCompacted) {
			m.ring.compacted.Add(1)
		}
	}
	if err != nil {
		return nil, false, err
	}
	w.after = upTo
	for i := range changes {
		changes[i].Last = i == len(changes)-1 || changes[i+1].Revision != changes[i].Revision
	}
	return changes, level, nil
}

// scan shows the events after a revision, in order and whole revisions, until what
// take returns is enough or there are no more, and says up to where.
func (r *ring) scan(after Revision, take func(*Event) int) (upTo Revision, level bool, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if mutant("watch_resumes_off_by_one") {
		after++
	}
	if after < r.floor && !mutant("watch_gap_in_silence") {
		return 0, false, ErrCompacted
	}
	upTo = after
	for i, looked, taken := r.search(after), 0, 0; i < r.count; i, looked = i+1, looked+1 {
		e := r.at(i)
		if e.Revision != upTo && (taken >= watcherChangesMax || looked >= watcherLooksMax) {
			return upTo, false, nil
		}
		if mutant("watch_splits_a_revision") && e.Revision == upTo && taken > 0 {
			return upTo, false, nil
		}
		upTo, taken = e.Revision, take(e)
	}
	return max(after, r.head), true, nil
}

// change is what an event means to whoever asks by the filter; false for nothing.
func (f *filter) change(e *Event) (Change, bool) {
	if e.Kind != EventInstancePut && e.Kind != EventInstanceDelete || !f.matchesService(e.Service) {
		return Change{}, false
	}
	before, after := f.takes(e.Previous, e.WasHandedOut), f.takes(e.Instance, e.HandedOut)
	if mutant("watch_ignores_the_filter") {
		before, after = e.Previous != nil, e.Instance != nil
	}
	c := Change{Revision: e.Revision, Order: e.Order, Gone: !after, Created: after && (!before || mutant("watch_takes_all_for_new"))}
	switch {
	case after:
		c.Instance = f.asWanted(e.Instance.handed(e.HandedOut))
		c.Narrowed = len(c.Instance.Endpoints) != len(e.Instance.Endpoints)
	case before:
		c.Instance = f.asWanted(e.Previous.handed(e.WasHandedOut))
	}
	return c, before || after
}

// takes says whether the filter takes an instance of a service that it takes.
func (f *filter) takes(i *Instance, handedOut bool) bool {
	return i != nil && (f.statuses.has(i.Status) || f.routable && handedOut) && f.matchesRest(i)
}

// handed is the instance as a reader gets it.
func (i *Instance) handed(out bool) *Instance {
	if !out {
		return i
	}
	shown := *i
	shown.Protected = true
	return &shown
}
