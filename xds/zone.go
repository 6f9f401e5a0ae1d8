package xds

// Endpoints by zone.
//
// Where a client's zone is called first depends on its zone, and only the policy of a
// service asks for that. So a client's endpoints are those of its region until the policy
// asks, and of its zone until it no longer does: then whoever subscribes to them is told
// to look, and goes over to the other view when it does. The others keep one view for all zones.

// inView is the key under which a client sees a resource now. Caller holds cache.mu.
func (c *cache) inView(k resourceKey) resourceKey {
	if k.zone != "" && !c.zoned(k.name) {
		k.zone = ""
	}
	return k
}

// zoned says that the policy of a cluster's service asks for zones. Caller holds cache.mu.
func (c *cache) zoned(cluster string) bool {
	claim := c.directory.clusters[cluster]
	return claim != nil && claim.listing.zoned
}

// rezone has the views of a service follow its policy. Caller holds cache.mu.
func (c *cache) rezone(r *round, l *listing, zoned bool) {
	if l.zoned == zoned {
		return
	}
	l.zoned = zoned
	for _, claim := range l.claims {
		c.review(r, claim.cluster)
	}
}

// review finds the views of a cluster's endpoints that clients with a zone are to leave. Caller holds cache.mu.
func (c *cache) review(r *round, cluster string) {
	zoned := c.zoned(cluster)
	for _, res := range c.byCluster[cluster] {
		if res.key.typ != typeEndpoints {
			continue
		}
		left := zoned != (res.key.zone != "")
		if res.left.Swap(left) != left && left {
			r.left[res] = struct{}{}
		}
	}
}

// goOver has the client see a name as it is to be seen now, if the view that it has is to be left.
func (b *subscription) goOver(name string, r *resource) *resource {
	if r == nil || !r.left.Load() || b.stream.node.zone == "" {
		return r
	}
	c := b.stream.server.cache
	next := c.subscribe(b.stream.keyOf(b.typ, name), b)
	if next != r {
		b.names[name] = next
		c.unsubscribe(r, b)
	}
	return next
}
