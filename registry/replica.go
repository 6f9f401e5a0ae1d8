package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// How another cluster keeps a copy of this one.
//
// A watcher asks for what a query finds, as clients see it. A replica is of whole
// services, as they are stored, whatever their instances' status: who has all that it
// was told has what this registry had at that revision. It goes its own way, apart
// from the watchers: there are few replicas, each follows most of what there is, and
// none is in the groups that a change looks through to find whom to wake.
//
// What it begins with is read at one revision, however long that takes: what it found
// are runs of instances that never change, shared with the state.

// A Replica is told all that a selection has, and then each change of it. It belongs
// to one goroutine and needs no closing.
type Replica struct {
	registry  *Registry
	selection Selection // what was asked for
	exported  Selection // of which it gets what is in here, too
	digest    string
	watch     *Watch
	whole     Resync // why all there is has to come next; 0 = it does not
}

// ReplicaStart says from where on a selection is followed.
type ReplicaStart struct {
	After   Revision // everything up to here is known; 0 = nothing
	Foreign bool     // After is of another cluster
	Digest  string   // of the selection that After was told of

	Exported Selection // whatever is asked for, what is not in it does not exist
}

// Replicate begins a replica of what is selected; of everything if nothing is.
func (r *Registry) Replicate(ctx context.Context, selected []Selected, start ReplicaStart) (*Replica, error) {
	s, err := Select(selected)
	if err != nil {
		return nil, err
	}
	p := &Replica{registry: r, selection: s, exported: start.Exported, digest: s.digest()}
	if !p.exported.all() { // else it is what it has always been, and cursors of before are good
		p.digest = digestOf([]any{p.digest, p.exported.digest()})
	}
	switch {
	case start.After == 0 && !start.Foreign:
		p.whole = ResyncStart
	case !start.Foreign && start.Digest != p.digest && !mutant("selections_are_not_compared"):
		p.whole = ResyncSelection
	default:
		if p.whole, err = r.resyncs(ctx, WatchStart{After: start.After, Foreign: start.Foreign}); err != nil {
			return nil, err
		}
	}
	p.watch = r.machine.Watch(start.After)
	return p, nil
}

// Digest tells the replica's selection from others.
func (p *Replica) Digest() string { return p.digest }

// Whole says why all there is has to come next, by Pin; 0 = Next has what comes.
func (p *Replica) Whole() Resync { return p.whole }

// Next waits for what has changed: whole revisions, in order. One without events
// passes over what is not of the selection. A tick ends the waiting, and finds the replica level with
// this member. Where it fell behind the history Whole says so afterwards.
func (p *Replica) Next(ctx context.Context, idle <-chan time.Time) (batch Batch, ticked bool, err error) {
	batch, ticked, err = p.watch.NextOrTick(ctx, idle)
	if errors.Is(err, ErrCompacted) {
		p.whole = ResyncCompacted
		return Batch{Revision: p.watch.after}, false, nil
	}
	told := batch.Events[:0]
	for _, e := range batch.Events {
		if p.takes(&e) {
			told = append(told, e)
		}
	}
	batch.Events = told
	return batch, ticked, err
}

// takes says whether an event is told. It is if it is of an instance that is the region's
// own: what it has of others is theirs to tell, or regions that follow each other would
// never end. One whose labels have taken it out of the selection is told as gone.
func (p *Replica) takes(e *Event) bool {
	if e.Kind != EventInstancePut && e.Kind != EventInstanceDelete || !p.registry.owns(cmp.Or(e.Instance, e.Previous)) { // the region of an instance never changes
		return false
	}
	if e.Kind == EventInstancePut && p.covers(e.Instance) {
		return true
	}
	if e.Previous == nil || !p.covers(e.Previous) || e.Kind == EventInstancePut && mutant("relabelled_stays") {
		return false
	}
	e.Kind, e.Instance, e.HandedOut = EventInstanceDelete, nil, false
	return true
}

func (p *Replica) covers(i *Instance) bool {
	return p.selection.covers(i) && (p.exported.covers(i) || mutant("export_is_not_asked"))
}

// owns says whether an instance was registered here. One that was copied from a region of
// this name was not: a cluster may have been given another region's name.
func (r *Registry) owns(i *Instance) bool {
	return i != nil && i.Imported == nil && i.Region == r.machine.reader.region
}

// After is the revision up to which everything has been told.
func (p *Replica) After() Revision { return p.watch.after }

// Revision is the newest that this member has published.
func (r *Registry) Revision() Revision { return r.machine.Revision() }

// Complete is a time before which nothing was committed that this member has not. A
// leader is asked; without one it is the time that was last confirmed, and zero when
// there was none.
func (r *Registry) Complete(ctx context.Context) time.Time {
	now := r.clock.Now()
	if _, err := r.replicator.Barrier(ctx); err != nil {
		return r.replicator.Fresh()
	}
	return now
}

// Since is how long ago a time of Complete was.
func (r *Registry) Since(complete time.Time) time.Duration {
	return max(0, r.clock.Now().Sub(complete))
}

// Pinned is all that a selection has at one revision, whatever is changed meanwhile.
type Pinned struct {
	Revision Revision

	replica  *Replica
	found    found
	at       place
	replaced uint64 // Machine.replaced at the revision
}

// everything finds all instances of all services.
var everything = func() *filter {
	f, err := Query{AllNamespaces: true, Statuses: []string{statusesAny}}.filter()
	if err != nil {
		panic(fmt.Sprintf("registry: ask for everything: %v", err)) // it is a constant
	}
	return f
}()

// Pin reads all there is. It is linearizable, so never older than what was told
// before: that has come from another member, perhaps.
func (p *Replica) Pin(ctx context.Context) (*Pinned, error) {
	if err := p.registry.freshen(ctx, Consistency{}); err != nil {
		return nil, err
	}
	all := &Pinned{replica: p}
	all.found, all.Revision, all.replaced = p.registry.machine.find(everything, servicesToo)
	all.found = slices.DeleteFunc(all.found, func(one run) bool {
		return !p.selection.mayHave(one.service.Key) || !p.exported.mayHave(one.service.Key)
	})
	return all, nil
}

// Next are some more of the instances, sorted by namespace, service and id; none at
// the end, after which the replica's Next goes on.
func (a *Pinned) Next(most int) []*Instance {
	var out []*Instance
	for ; a.at.run < len(a.found) && len(out) < most; a.at = (place{run: a.at.run + 1}) {
		one := &a.found[a.at.run]
		for ; a.at.offset < len(one.instances); a.at.offset++ {
			if len(out) == most {
				return out
			}
			if i := one.instances[a.at.offset]; a.replica.registry.owns(i) && a.replica.covers(i) {
				out = append(out, one.service.asHandedOut(i))
			}
		}
	}
	if len(out) == 0 {
		a.replica.whole, a.replica.watch = 0, a.replica.registry.machine.Watch(a.Revision)
	}
	return out
}

// Held is about how many bytes it keeps, the instances included that have been
// replaced since: they may be held by it alone.
func (a *Pinned) Held() int {
	m := a.replica.registry.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	return a.found.size() + int(m.replaced-a.replaced)
}

// Replicated is the instance's record as other clusters get it. Its lease token is for
// its holder and this cluster alone, its number is of this cluster's checkpoints, and
// of other regions nothing is told.
func (i *Instance) Replicated() *recordv1.InstanceRecord {
	r := i.record()
	r.Token, r.Number, r.Imported = nil, 0, nil
	return r
}
