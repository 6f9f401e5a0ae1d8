package registry

import (
	"container/heap"
	"context"
	"time"

	"github.com/stellmap/stellmap/internal/threads"
)

// The bounds of reaping.
const (
	reapTick       = time.Second
	reapBatchesMax = 8           // commands per tick, one after the other
	reapRetry      = time.Second // until a service is looked at again whose command did nothing
)

// A reaper knows, on the leader, when something is due in a service: an expired
// instance past its grace, a baseline to halve, an empty service to forget. It
// learns of services by watching, so a service where nothing is due costs
// nothing. The command it proposes names the services; Apply decides.
type reaper struct {
	machine *Machine
	term    uint64 // that this was set up for
	watch   *Watch
	due     map[ServiceKey]*reapItem
	queue   reapQueue
}

type reapItem struct {
	key   ServiceKey
	at    int64 // Unix ms
	index int
}

// reapLoop proposes what is due while this member leads.
func (r *Registry) reapLoop(ctx context.Context) {
	ticks, stop := r.clock.Ticker(reapTick)
	defer stop()
	reaper := &reaper{machine: r.machine}
	for threads.Next(ctx, r.threads, ticks) {
		r.reapDue(ctx, reaper)
	}
}

func (r *Registry) reapDue(ctx context.Context, reaper *reaper) {
	if !reaper.follow() {
		return
	}
	for range reapBatchesMax {
		now := r.clock.Now().UnixMilli()
		services := reaper.take(now, commandItemsMax)
		if len(services) == 0 {
			return
		}
		if !r.proposeReap(ctx, services) {
			return
		}
	}
}

func (r *Registry) proposeReap(ctx context.Context, services []ServiceKey) bool {
	ctx, cancel := threads.WithTimeout(ctx, r.threads, proposeTimeout)
	defer cancel()
	_, err := r.replicator.Propose(ctx, "", reapCommand(services))
	r.report("reap", err)
	return err == nil
}

// follow catches up with what has changed; false when this member does not lead.
func (p *reaper) follow() bool {
	term := p.machine.leases.leading()
	if term == 0 {
		*p = reaper{machine: p.machine}
		return false
	}
	if term != p.term {
		p.term = term
		p.readAll()
		return true
	}
	for {
		batch, more, err := p.watch.Poll()
		if err != nil { // fallen behind the ring
			p.readAll()
			return true
		}
		if !more {
			return true
		}
		for i := range batch.Events {
			p.look(batch.Events[i].Service)
		}
	}
}

// readAll looks at every service.
func (p *reaper) readAll() {
	p.watch = p.machine.Watch(p.machine.Revision())
	p.due, p.queue = make(map[ServiceKey]*reapItem), nil
	for _, k := range p.machine.ServiceKeys("") {
		p.look(k)
	}
}

// look sets when something is due in a service, if anything ever is.
func (p *reaper) look(k ServiceKey) {
	at, ok := p.machine.reapAt(k)
	item := p.due[k]
	switch {
	case !ok && item != nil:
		heap.Remove(&p.queue, item.index)
		delete(p.due, k)
	case ok && item != nil:
		item.at = at
		heap.Fix(&p.queue, item.index)
	case ok:
		item = &reapItem{key: k, at: at}
		p.due[k] = item
		heap.Push(&p.queue, item)
	}
}

// take is the services where something is due. They are looked at again soon,
// in case the command is lost or its entry's time was a little too early.
func (p *reaper) take(now int64, most int) []ServiceKey {
	var out []ServiceKey
	for len(p.queue) > 0 && p.queue[0].at <= now && len(out) < most {
		item := p.queue[0]
		out = append(out, item.key)
		item.at = now + reapRetry.Milliseconds()
		heap.Fix(&p.queue, 0)
	}
	return out
}

// reapAt is when the next thing is due in a service, in Unix ms.
func (m *Machine) reapAt(k ServiceKey) (at int64, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	svc := m.published.services[k]
	if svc == nil {
		return 0, false
	}
	return svc.reapAt()
}

func (svc *serviceState) reapAt() (at int64, ok bool) {
	sooner := func(t int64) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if svc.record.emptiedAt != 0 {
		sooner(svc.record.emptiedAt + serviceAfterlife.Milliseconds())
	}
	if svc.tally.timed > 0 {
		for _, i := range svc.own() {
			for _, c := range i.Conditions() {
				if c.Until != 0 {
					sooner(c.Until)
				}
			}
		}
	}
	if svc.tally.ended == 0 {
		return at, ok // a baseline without placeholders can wait for the next change
	}
	if svc.record.fellAt != 0 {
		sooner(svc.record.fellAt + baselineHalving.Milliseconds())
	}
	own := svc.own()
	kept := placeholders(own, svc.record.baseline-svc.tally.standing())
	for _, i := range own {
		if _, keep := kept[i]; !keep && !i.alive() {
			sooner(i.ExpiredAt + svc.policy.grace())
		}
	}
	return at, ok
}

// A reapQueue is a heap by time.
type reapQueue []*reapItem

func (q reapQueue) Len() int           { return len(q) }
func (q reapQueue) Less(a, b int) bool { return q[a].at < q[b].at }

func (q reapQueue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = a, b
}

// Push is for package heap.
func (q *reapQueue) Push(x any) {
	item := x.(*reapItem)
	item.index = len(*q)
	*q = append(*q, item)
}

// Pop is for package heap.
func (q *reapQueue) Pop() any {
	last := len(*q) - 1
	item := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return item
}
