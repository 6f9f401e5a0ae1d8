package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// follow tells the streams of every change, in order, until the context ends.
// It is one goroutine. A follower that has fallen behind the events that are
// kept compares everything that is subscribed with the present state, so that
// nothing is missed.
func (c *cache) follow(ctx context.Context, now func() time.Time) error {
	watch := c.machine.Watch(c.reload(now()))
	for {
		batch, err := watch.Next(ctx)
		switch {
		case err == nil:
			c.apply(batch, now())
		case errors.Is(err, registry.ErrCompacted):
			c.metrics.reloads.Add(1)
			watch = c.machine.Watch(c.reload(now()))
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("follow the registry: %w", err)
		}
	}
}

// A round is what one batch of events makes dirty.
type round struct {
	listed  map[registry.ServiceKey]struct{} // services whose names may have changed
	moved   map[registry.ServiceKey]struct{} // whose hosts may have
	checked map[registry.ServiceKey]struct{} // whose active check may have, or whose policy
	calling map[registry.ServiceKey]struct{} // of which it was written down what they call

	resources map[*resource]struct{} // to be built anew
	left      map[*resource]struct{} // views that clients with a zone go over from
	joined    map[*scope][]string    // clusters that came to a scope or left it
	located   map[*locals][]string   // listeners that did

	changes *changes // that have a trace
}

func newRound() *round {
	return &round{
		listed:    make(map[registry.ServiceKey]struct{}),
		moved:     make(map[registry.ServiceKey]struct{}),
		checked:   make(map[registry.ServiceKey]struct{}),
		calling:   make(map[registry.ServiceKey]struct{}),
		resources: make(map[*resource]struct{}),
		left:      make(map[*resource]struct{}),
		joined:    make(map[*scope][]string),
		located:   make(map[*locals][]string),
	}
}

// otherPart says that an instance may have gone from one subset to another, of
// which each is checked at the path of its own instances.
func otherPart(now, before *registry.Instance) bool {
	return now.Version != before.Version || !slices.Equal(now.Labels, before.Labels)
}

// note sorts an event. An instance that comes or goes moves hosts only; its
// cluster stays as it is unless the path of the active check is at stake.
func (r *round) note(e *registry.Event) {
	if e.Kind == registry.EventUpstreams { // which leaves those that call the service as they are
		r.calling[e.Service] = struct{}{}
		return
	}
	r.moved[e.Service] = struct{}{}
	switch e.Kind {
	case registry.EventServicePut, registry.EventServiceDelete:
		r.listed[e.Service] = struct{}{}
	case registry.EventPolicy: // which may name another primary endpoint
		r.listed[e.Service] = struct{}{}
		r.checked[e.Service] = struct{}{}
	default:
		if ownCheckPath(e.Instance) != ownCheckPath(e.Previous) || ownCheckPath(e.Instance) != "" && otherPart(e.Instance, e.Previous) {
			r.checked[e.Service] = struct{}{}
		}
	}
}

func (c *cache) apply(b registry.Batch, at time.Time) {
	if len(b.Events) == 0 {
		c.mu.Lock()
		c.moveLocked(b.Revision)
		c.mu.Unlock()
		return
	}
	r := newRound()
	r.changes = c.tracing.choose(b.Events, at)
	for i := range b.Events {
		r.note(&b.Events[i])
	}
	c.mu.Lock()
	c.rounds.Add(1)
	for k := range r.listed {
		c.list(r, k, c.machine.Service(k))
	}
	for k := range r.moved {
		c.dirty(r, k, typeEndpoints)
		for led := range c.directory.ledTo[k] {
			c.dirty(r, led, typeEndpoints)
		}
	}
	for k := range r.checked {
		c.dirty(r, k, typeCluster)
	}
	c.mu.Unlock()
	c.publish(r, b.Revision, at)
}

// list brings the directory up to date with a service, and the scopes with the directory.
func (c *cache) list(r *round, k registry.ServiceKey, s *registry.Service) {
	for _, l := range c.directory.put(k, s) {
		for _, claim := range l.claims {
			for _, res := range c.byCluster[claim.cluster] {
				r.resources[res] = struct{}{}
			}
			c.review(r, claim.cluster)
		}
		for _, scope := range c.scopesOf(l) {
			c.join(r, scope, c.adjust(scope, l))
			r.locate(scope, c.localizeAll(scope, l))
		}
	}
	c.directory.judge(k, s)
	c.directory.lead(k, s)
	if l := c.directory.services[k]; l != nil && s != nil {
		c.judge(r, l, s)
		c.relocate(r, l, localPort(s))
		c.rezone(r, l, s.Policy.AsksForZones())
	}
}

// judge finds the rules of a service's policy where that is not the one that they were found
// for: to check them is dear, and the streams wait for it.
func (c *cache) judge(r *round, l *listing, s *registry.Service) {
	if l.policy == s.Policy {
		return
	}
	rules, _ := soundRules(s, c.earlier)
	l.policy = s.Policy
	c.rule(r, l, rules)
}

// rule has the routes to a service follow its policy, and the clusters, which retry for them.
func (c *cache) rule(r *round, l *listing, rules routeRules) {
	if l.rules.equal(rules) {
		return
	}
	l.rule(rules)
	c.dirty(r, l.key, typeRoutes)
	c.dirty(r, l.key, typeCluster)
	for _, scope := range c.scopesOf(l) {
		r.reroute(c, scope)
	}
}

// relocate has the listener of a service follow its policy.
func (c *cache) relocate(r *round, l *listing, port uint32) {
	if l.port == port {
		return
	}
	l.port = port
	c.dirty(r, l.key, typeListener)
	for _, scope := range c.scopesOf(l) {
		r.locate(scope, c.localizeAll(scope, l))
	}
}

// locate notes listeners that came to a scope or left it.
func (r *round) locate(s *scope, changed []string) {
	if len(changed) > 0 {
		r.located[s.locals] = append(r.located[s.locals], changed...)
	}
}

func (c *cache) join(r *round, s *scope, changed []string) {
	if len(changed) == 0 {
		return
	}
	r.joined[s] = append(r.joined[s], changed...)
	for gateway := range s.gateways {
		r.resources[gateway] = struct{}{}
	}
	r.reroute(c, s)
}

// reroute has the route tables of a scope built anew.
func (r *round) reroute(c *cache, s *scope) {
	for _, name := range routeTables[s.kind] {
		if routes := c.resources[resourceKey{typ: typeRoutes, name: name, kind: s.kind, scope: s}]; routes != nil {
			r.resources[routes] = struct{}{}
		}
	}
}

// dirty notes the views of a type that show a service.
func (c *cache) dirty(r *round, k registry.ServiceKey, t resourceType) {
	l := c.directory.services[k]
	if l == nil {
		return
	}
	for _, claim := range l.claims {
		if !c.directory.owns(claim) {
			continue
		}
		for _, res := range c.byCluster[claim.cluster] {
			if res.key.typ == t {
				r.resources[res] = struct{}{}
			}
		}
	}
}

// publish ends a round: it builds what is dirty, shows what has changed in one step, marks the
// streams that subscribe to it, and wakes each of them once.
func (c *cache) publish(r *round, revision registry.Revision, at time.Time) {
	changed := make(map[*resource]*entry)
	for res := range r.resources {
		if e := c.rebuild(res); e != nil {
			changed[res] = e
		}
	}
	n := &notice{at: at}
	c.mu.Lock()
	for res, e := range changed {
		if old := res.current.Swap(e); old != nil {
			old.held.Store(uint64(c.followed))
		}
		n.change = r.changes.behind(c.directory, res.key.cluster())
		for s := range res.subscribers {
			s.mark(res.key.name, n)
		}
	}
	for res := range r.left { // be what they show there the same
		n.change = r.changes.behind(c.directory, res.key.cluster())
		for s := range res.subscribers {
			s.mark(res.key.name, n)
		}
	}
	for k := range r.calling {
		for s := range c.callers[k] {
			s.rewrite(n)
		}
	}
	for s, names := range r.joined {
		for _, name := range names {
			n.change = r.changes.behind(c.directory, name)
			s.mark(name, n)
		}
	}
	for l, names := range r.located {
		for _, name := range names {
			n.change = r.changes.behind(c.directory, name)
			l.mark(name, n)
		}
	}
	c.moveLocked(revision)
	c.rounds.Add(1)
	n.streams, c.late = append(n.streams, c.late...), nil
	c.mu.Unlock()
	n.wake()
	r.changes.told()
}

// reload compares everything with the present state and gives the revision of
// that state, from which to watch on.
func (c *cache) reload(at time.Time) registry.Revision {
	revision := c.machine.Revision()
	r := newRound()
	keys := c.machine.ServiceKeys("")
	c.mu.Lock()
	c.rounds.Add(1)
	present := make(map[registry.ServiceKey]struct{}, len(keys))
	for _, k := range keys {
		present[k] = struct{}{}
		c.list(r, k, c.machine.Service(k))
	}
	for k := range c.directory.services {
		if _, ok := present[k]; !ok {
			c.list(r, k, nil)
		}
	}
	for _, res := range c.resources {
		r.resources[res] = struct{}{}
	}
	for k := range c.callers {
		r.calling[k] = struct{}{}
	}
	c.mu.Unlock()
	c.publish(r, revision, at)
	return revision
}
