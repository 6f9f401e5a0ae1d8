package xds

import (
	"fmt"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// A caller is a stream in the eyes of the document that says what its service wants to
// call, and may. What is wanted takes the place of what the node declares, and what is
// not allowed the client is not told of, however it asks. An edit moves the streams of
// that service to another scope, in order and without an end to any of them: clusters
// before the routes to them, and routes away before their clusters.

// callers are the streams of each service that says that it is one.
type callers map[registry.ServiceKey]map[*stream]struct{}

// caller is the service whose document is about a node; false for a node of none.
func (n *node) caller() (registry.ServiceKey, bool) {
	return registry.ServiceKey{Namespace: n.namespace, Service: n.service}, n.service != ""
}

// enterCaller has a stream told of edits of the document of its service, from now on.
func (c *cache) enterCaller(s *stream) {
	k, is := s.node.caller()
	if !is {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.callers[k] == nil {
		c.callers[k] = make(map[*stream]struct{}, 1)
	}
	c.callers[k][s] = struct{}{}
}

// leaveCaller undoes enterCaller.
func (c *cache) leaveCaller(s *stream) {
	k, _ := s.node.caller()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.callers[k], s)
	if len(c.callers[k]) == 0 {
		delete(c.callers, k)
	}
}

// rewrite notes that the document of its service was edited. The follower calls it.
func (s *stream) rewrite(n *notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rewritten.IsZero() {
		s.rewritten = n.at
	}
	if !s.marked {
		s.marked = true
		n.streams = append(n.streams, s)
	}
}

// readUpstreams reads what the stream's service is written down to call.
func (s *stream) readUpstreams() {
	s.upstreams, s.upstreamsVersion = nil, 0
	k, is := s.node.caller()
	if !is {
		return
	}
	if d := s.server.cache.machine.Upstreams(k); d.Content() != nil {
		s.upstreams, s.upstreamsVersion = d.Content(), d.Version()
	}
}

// openScope gives the stream the scope that is its own now.
func (s *stream) openScope() {
	s.scope = s.server.cache.openScope(s.node.kind, s.node.retries, s.party.held(), s.upstreams.Of(s.node.upstreams))
}

// rescope has the client follow an edit of what its service calls, or of what it may see. The
// error ends the stream: nobody is behind it any more.
func (s *stream) rescope() error {
	s.mu.Lock()
	since := s.rewritten
	s.rewritten = time.Time{}
	s.mu.Unlock()
	if since.IsZero() {
		return nil
	}
	c := s.server.cache
	before, old := s.bounds(), s.scope
	if err := s.regard(); err != nil {
		return err
	}
	s.readUpstreams()
	s.openScope()
	for _, b := range s.subs {
		if b == nil {
			continue
		}
		if s.scope != old {
			b.moveFrom(old)
		}
		b.permit(before)
		if len(b.todo) > 0 && b.changed.IsZero() {
			b.changed = since
		}
	}
	c.closeScope(old)
	return nil
}

// moveFrom has the client told of what is in its stream's scope, in place of what is in the old.
func (b *subscription) moveFrom(old *scope) {
	c := b.stream.server.cache
	if b.wildcard {
		var names []string
		if b.typ == typeCluster {
			names = c.watchAll(b.stream.scope, b) // before it leaves the other, so that what is in both is kept
			c.unwatchAll(old, b)
		} else {
			names = c.watchLocals(b.stream.scope, b)
			c.unwatchLocals(old, b)
			if before := b.listener; before.key.scope == old { // a gateway's
				b.listener = c.subscribe(b.stream.keyOf(b.typ, b.entrance()), b)
				c.unsubscribe(before, b)
			}
		}
		for name := range b.known {
			names = append(names, name)
		}
		for _, name := range names {
			b.want(name, false)
		}
	}
	for name, r := range b.names {
		if r.key.scope == old {
			b.names[name] = c.subscribe(b.stream.keyOf(b.typ, name), b)
			c.unsubscribe(r, b)
			b.want(name, false)
		}
	}
}

// permit has the client answered on the names that it may be told of since an edit, or may not any more.
func (b *subscription) permit(before bounds) {
	c, now := b.stream.server.cache, b.stream.bounds()
	for name, r := range b.names {
		if (c.within(before, r) == nil) != (c.within(now, r) == nil) {
			b.want(name, true)
		}
	}
}

// bounds are what a client is told of at all, however it asks.
type bounds struct {
	upstreams *registry.Upstreams // by the document of its service
	rights    registry.Rights     // by who it has proved to be; nil = nobody is asked
}

func (s *stream) bounds() bounds { return bounds{s.upstreams, s.party.held()} }

// within is what there is of a resource for who has some bounds; nil = he is not told of it.
func (c *cache) within(o bounds, r *resource) *entry {
	if !allowed(o.upstreams, r.key) {
		return nil
	}
	e := c.entry(r)
	if o.rights != nil && e.of != (registry.ServiceKey{}) && !registry.Sees(o.rights, e.of) {
		return nil
	}
	return e
}

// service is the name of the service that a resource is of, as patterns have it; empty for what is of many.
func (k resourceKey) service() string {
	cluster := k.cluster()
	return cluster[strings.LastIndexByte(cluster, '~')+1:]
}

// allows says whether the client may be told of a resource.
func (s *stream) allows(k resourceKey) bool { return allowed(s.upstreams, k) }

// allowed says whether a document lets a client be told of a resource: what is of no one service is made for the client.
func allowed(by *registry.Upstreams, k resourceKey) bool {
	service := k.service()
	return service == "" || by.Allows(service)
}

// upstreamsFrom says where the client's upstreams come from.
func (s *stream) upstreamsFrom() string {
	switch {
	case s.upstreams != nil && s.upstreams.Wants != nil:
		return UpstreamsByDocument
	case s.node.declared:
		return UpstreamsByNode
	}
	return UpstreamsByDefault
}

// denied is why the client is not told of something that it asks for by name.
func (s *stream) denied() string {
	k, _ := s.node.caller()
	return reasonNotAllowed(k, s.upstreamsVersion)
}

func reasonNotAllowed(caller registry.ServiceKey, version uint64) string {
	return fmt.Sprintf("service %s in namespace %s may not call it, by version %d of its upstreams", caller.Service, caller.Namespace, version)
}
