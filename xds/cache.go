package xds

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// A cache holds each view that somebody subscribes to, built and marshalled
// once, and knows which streams are interested in it.
//
// Keeping a snapshot per proxy costs as much per change as there are proxies,
// interested or not. So the index is turned around, from resource to streams: a
// change costs the views of what changed, times their subscribers, and nothing
// at all where there are none. Views are built when first asked for and dropped
// with their last subscriber.
//
// Locks: resource.building before cache.mu before stream.mu. Nothing is built
// or sent under cache.mu.
type cache struct {
	machine     *registry.Machine
	service     func(registry.ServiceKey) *registry.Service // the machine's; tests move instances to other regions
	incarnation func() string
	metrics     *metrics
	tracing     *tracing
	loadWanted  bool     // gRPC clients are to report their load
	order       []string // in which regions are called, behind a client's own and those that a policy names

	rounds atomic.Uint64 // odd while the follower works on a round of changes, even between two

	mu        sync.RWMutex // guards what follows
	directory *directory
	resources map[resourceKey]*resource
	byCluster map[string][]*resource // what is of one cluster, by its name
	scopes    scopes
	callers   callers
	followed  registry.Revision // up to here changes have been told to the streams
	moved     chan struct{}     // closed when followed moves
	loaded    bool              // the directory has been filled
	late      []*stream         // to be woken when the present round is over
}

func newCache(m *registry.Machine, incarnation func() string, counters *metrics) *cache {
	return &cache{
		machine: m, service: m.Service, incarnation: incarnation, metrics: counters,
		directory: newDirectory(),
		resources: make(map[resourceKey]*resource),
		byCluster: make(map[string][]*resource),
		scopes:    newScopes(),
		callers:   make(callers),
		moved:     make(chan struct{}),
	}
}

// subscribe adds a subscriber to a resource, which is made if need be.
func (c *cache) subscribe(k resourceKey, s subscriber) *resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subscribeLocked(k, s)
}

func (c *cache) subscribeLocked(k resourceKey, s subscriber) *resource {
	k = c.inView(k)
	r := c.resources[k]
	if r == nil {
		r = &resource{key: k, subscribers: make(map[subscriber]struct{}, 1)}
		c.resources[k] = r
		if name := k.cluster(); name != "" {
			c.byCluster[name] = append(c.byCluster[name], r)
		}
		if k.typ == typeListener && k.scope != nil {
			k.scope.gateways[r] = struct{}{}
		}
	}
	r.subscribers[s] = struct{}{}
	return r
}

func (c *cache) unsubscribe(r *resource, s subscriber) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsubscribeLocked(r, s)
}

func (c *cache) unsubscribeLocked(r *resource, s subscriber) {
	delete(r.subscribers, s)
	if len(r.subscribers) > 0 || c.resources[r.key] != r {
		return
	}
	delete(c.resources, r.key)
	if r.key.typ == typeListener && r.key.scope != nil {
		delete(r.key.scope.gateways, r)
	}
	name := r.key.cluster()
	if name == "" {
		return
	}
	rest := slices.DeleteFunc(c.byCluster[name], func(o *resource) bool { return o == r })
	if len(rest) == 0 {
		delete(c.byCluster, name)
	} else {
		c.byCluster[name] = rest
	}
}

// entry is a resource's content, built by whoever asks first.
func (c *cache) entry(r *resource) *entry {
	if e := r.current.Load(); e != nil {
		return e
	}
	r.building.Lock()
	defer r.building.Unlock()
	if e := r.current.Load(); e != nil {
		return e
	}
	e := c.build(r.key)
	r.current.Store(e)
	return e
}

// rebuild gives a resource's present content if it has changed, without showing
// it yet; nil otherwise. One that nobody has built yet will be built from the
// present state anyway. The follower alone replaces what has been built. What the
// directory has yet to follow stays: the round in which it does takes the cluster
// and the routes to it away together, and the routes first.
func (c *cache) rebuild(r *resource) *entry {
	r.building.Lock()
	defer r.building.Unlock()
	old := r.current.Load()
	if old == nil {
		return nil
	}
	e := c.build(r.key)
	if e.hash == old.hash && e.of == old.of || e.ahead {
		return nil
	}
	return e
}

// await waits until everything up to a revision has been told to the streams.
func (c *cache) await(ctx context.Context, revision registry.Revision) error {
	for {
		c.mu.RLock()
		reached, moved := c.loaded && c.followed >= revision, c.moved
		c.mu.RUnlock()
		if reached {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *cache) revision() registry.Revision {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.followed
}

func (c *cache) moveLocked(revision registry.Revision) {
	c.followed, c.loaded = revision, true
	close(c.moved)
	c.moved = make(chan struct{})
}

// awaitRound has a stream woken when the present round of changes is over; if it
// is over already, at once.
func (c *cache) awaitRound(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rounds.Load()%2 == 0 {
		s.wakeUp()
		return
	}
	c.late = append(c.late, s)
}

// A notice is one round of telling streams what has changed. Each stream is
// woken once, when all of it has been told.
type notice struct {
	at      time.Time // when the change was seen here
	change  *change   // that what is marked is marked for; nil = it has no trace
	streams []*stream
}

func (n *notice) wake() {
	for _, s := range n.streams {
		s.wakeUp()
	}
}
