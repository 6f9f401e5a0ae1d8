package xds

import (
	"slices"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// A scope is the set of clusters that a proxy is told of when it asks for all:
// those of its declared upstreams. Proxies with equal upstreams share one scope,
// its clusters and its route table, if they look for retries in one place and may
// see the same.
type scope struct {
	kind     kind
	retries  retriesAt
	rights   registry.Rights // whose services are members; nil = all
	patterns []string        // sorted, without duplicates, in lower case
	users    int             // streams

	members  map[string]*claim    // by cluster name
	clusters map[string]*resource // of the members; nil while no stream asks for all
	wildcard map[*subscription]struct{}
	locals   *locals
	gateways map[*resource]struct{} // the listeners of its gateways, which have a chain for each member that speaks TLS
}

// mark passes a change of a cluster on to the streams that asked for all.
func (s *scope) mark(name string, n *notice) {
	for sub := range s.wildcard {
		sub.mark(name, n)
	}
}

// each goes through the streams that asked for all.
func (s *scope) each(f func(*subscription)) {
	for sub := range s.wildcard {
		f(sub)
	}
}

// has are those of some patterns that are a scope's; none where the scope is not known.
func (s *scope) has(patterns []string) []string {
	var out []string
	for _, p := range patterns {
		if s == nil {
			break
		}
		if _, found := slices.BinarySearch(s.patterns, p); found {
			out = append(out, p)
		}
	}
	return out
}

// scopes are all scopes in use, found by the names that they contain. Guarded by cache.mu.
type scopes struct {
	byKey       map[string]*scope
	byNamespace map[string][]*scope // of the patterns *.{namespace}
	byName      map[string][]*scope // of the patterns {service}.{namespace}
}

func newScopes() scopes {
	return scopes{byKey: make(map[string]*scope), byNamespace: make(map[string][]*scope), byName: make(map[string][]*scope)}
}

const allOf = "*."

// scopeKey is the same for equal scopes. Neither a stamp nor a pattern has a space.
func scopeKey(k kind, retries retriesAt, by registry.Rights, patterns []string) string {
	stamp := ""
	if by != nil {
		stamp = by.Stamp()
	}
	return string(rune('0'+k)) + string(rune('0'+retries)) + stamp + " " + strings.Join(patterns, ",")
}

// openScope interns a scope for one more stream.
func (c *cache) openScope(k kind, retries retriesAt, by registry.Rights, patterns []string) *scope {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := scopeKey(k, retries, by, patterns)
	s := c.scopes.byKey[key]
	if s == nil {
		s = &scope{kind: k, retries: retries, rights: by, patterns: patterns, members: make(map[string]*claim), wildcard: make(map[*subscription]struct{}), gateways: make(map[*resource]struct{})}
		s.locals = newLocals(s)
		c.scopes.byKey[key] = s
		c.enterScope(s)
	}
	s.users++
	return s
}

// enterScope puts a scope into the indexes and fills it.
func (c *cache) enterScope(s *scope) {
	for _, p := range s.patterns {
		index, listings := c.scopes.byName, c.directory.byName
		key := p
		if ns, all := strings.CutPrefix(p, allOf); all {
			index, listings, key = c.scopes.byNamespace, c.directory.byNamespace, ns
		}
		index[key] = append(index[key], s)
		for _, l := range listings[key] {
			c.adjust(s, l)
			c.localizeAll(s, l)
		}
	}
}

// closeScope undoes openScope.
func (c *cache) closeScope(s *scope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	delete(c.scopes.byKey, scopeKey(s.kind, s.retries, s.rights, s.patterns))
	for _, p := range s.patterns {
		if ns, all := strings.CutPrefix(p, allOf); all {
			removeScope(c.scopes.byNamespace, ns, s)
		} else {
			removeScope(c.scopes.byName, p, s)
		}
	}
}

func removeScope(m map[string][]*scope, key string, s *scope) {
	rest := slices.DeleteFunc(m[key], func(o *scope) bool { return o == s })
	if len(rest) == 0 {
		delete(m, key)
	} else {
		m[key] = rest
	}
}

// scopesOf are the scopes that a service belongs to. Caller holds cache.mu.
func (c *cache) scopesOf(l *listing) []*scope {
	found := slices.Clone(c.scopes.byNamespace[strings.ToLower(l.key.Namespace)])
	for _, s := range c.scopes.byName[primaryStem(l.key)] {
		if !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	return found
}

// adjust makes a scope's members agree with the directory, as far as one service
// is concerned, and gives the clusters that came or went.
func (c *cache) adjust(s *scope, l *listing) []string {
	var changed []string
	for _, claim := range l.claims {
		owner := c.directory.clusters[claim.cluster]
		if owner != nil && !registry.Sees(s.rights, owner.listing.key) {
			owner = nil
		}
		if s.members[claim.cluster] == owner {
			continue
		}
		changed = append(changed, claim.cluster)
		if owner == nil {
			c.dropMember(s, claim.cluster)
			continue
		}
		s.members[claim.cluster] = owner
		if s.clusters != nil {
			s.clusters[claim.cluster] = c.subscribeLocked(s.clusterKey(claim.cluster), s)
		}
	}
	return changed
}

func (c *cache) dropMember(s *scope, cluster string) {
	delete(s.members, cluster)
	if r := s.clusters[cluster]; r != nil {
		c.unsubscribeLocked(r, s)
		delete(s.clusters, cluster)
	}
}

func (s *scope) clusterKey(cluster string) resourceKey {
	return resourceKey{typ: typeCluster, name: cluster, kind: s.kind}
}

// watchAll adds a stream that asks for all clusters and gives their names.
func (c *cache) watchAll(s *scope, sub *subscription) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.wildcard[sub] = struct{}{}
	if s.clusters == nil {
		s.clusters = make(map[string]*resource, len(s.members))
		for name := range s.members {
			s.clusters[name] = c.subscribeLocked(s.clusterKey(name), s)
		}
	}
	names := make([]string, 0, len(s.members))
	for name := range s.members {
		names = append(names, name)
	}
	return names
}

func (c *cache) unwatchAll(s *scope, sub *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(s.wildcard, sub)
	if len(s.wildcard) > 0 {
		return
	}
	for _, r := range s.clusters {
		c.unsubscribeLocked(r, s)
	}
	s.clusters = nil
}

// clusterIn finds a cluster of a scope.
func (c *cache) clusterIn(s *scope, name string) *resource {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return s.clusters[name]
}

// clustersIn are the names of all clusters of a scope.
func (c *cache) clustersIn(s *scope) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := make([]string, 0, len(s.members))
	for name := range s.members {
		names = append(names, name)
	}
	return names
}
