package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

// build makes the entry of a resource from the present state: one translation,
// one check by Envoy's rules, one marshalling, for all who share the view. What
// the rules refuse is absent and counted; it costs no other resource anything.
func (c *cache) build(k resourceKey) *entry {
	c.metrics.built[k.typ].Add(1)
	owner := c.owner(k.cluster())
	packed, revision, err := c.pack(k, owner)
	ahead := errors.Is(err, errAhead)
	if err != nil && !ahead {
		c.metrics.invalid[k.typ].Add(1)
	}
	if err != nil || packed == nil {
		return &entry{name: k.name, revision: revision, ahead: ahead}
	}
	c.metrics.marshalled[k.typ].Add(1)
	hash := max(1, xxhash.Sum64(packed.Value))
	return &entry{
		name: k.name, of: owner.service(), hash: hash, revision: revision,
		resource: &discoveryv3.Resource{Name: k.name, Version: deltaVersion(hash, revision, c.incarnation()), Resource: packed},
	}
}

// pack gives a view as bytes; nil when there is no such thing.
func (c *cache) pack(k resourceKey, owner *claim) (*anypb.Any, registry.Revision, error) {
	if k.typ == typeRoutes && slices.Contains(routeTables[k.kind], k.name) {
		revision := c.machine.Revision()
		table, err := buildRoutes(k.name, c.routesOf(k.scope))
		return table, revision, err
	}
	message, revision, err := c.translate(k, owner)
	if err != nil || message == nil {
		return nil, revision, err
	}
	packed, err := pack(message)
	return packed, revision, err
}

// translate gives the message of a view but for a scope's route table, which is
// joined from parts; nil when there is no such thing. What is of one service is that of
// the owner of its name, also if another takes the name meanwhile.
func (c *cache) translate(k resourceKey, owner *claim) (validated, registry.Revision, error) {
	revision := c.machine.Revision()
	switch k.typ {
	case typeCluster, typeEndpoints:
		return c.translateService(k, owner, revision)
	case typeListener, typeRoutes:
		if k.kind == kindGRPC {
			return c.translateTarget(k, owner, revision)
		}
		if k.typ == typeListener && k.cluster() != "" {
			return c.translateLocal(owner, revision)
		}
		if k.gateway.IsValid() {
			m, err := buildGateway(k.gateway, c.passedOn(k.scope))
			return orNil(m, err), revision, err
		}
		if k.typ == typeRoutes || k.name != egressName || k.kind == kindGateway {
			return nil, 0, nil // Envoy has one route table, and one listener that leads there
		}
		m, err := buildListener(k.port, k.onDemand)
		return orNil(m, err), 0, err
	}
	panic(fmt.Sprintf("xds: build of a resource of type %d", k.typ))
}

// translateLocal is the listener of a service that has one to itself.
func (c *cache) translateLocal(owner *claim, revision registry.Revision) (validated, registry.Revision, error) {
	port := uint32(0)
	if owner != nil && owner.endpoint == 0 && owner.subset == "" {
		c.mu.RLock()
		port = owner.listing.port
		c.mu.RUnlock()
	}
	if port == 0 {
		return nil, revision, nil
	}
	m, err := buildLocal(owner.cluster, port)
	return orNil(m, err), revision, err
}

// translateTarget is what leads a gRPC client to a cluster.
func (c *cache) translateTarget(k resourceKey, owner *claim, revision registry.Revision) (validated, registry.Revision, error) {
	if owner == nil {
		return nil, revision, nil
	}
	c.mu.RLock()
	route := owner.route(retriesAtHosts, c.isThere)
	c.mu.RUnlock()
	if k.typ == typeListener {
		m, err := buildTarget(k.name, route.cluster)
		return orNil(m, err), revision, err
	}
	m, err := buildTargetRoutes(route)
	return orNil(m, err), revision, err
}

// route is the route to a claim's cluster, for a client that knows some others. Caller holds cache.mu.
func (c *claim) route(at retriesAt, known func(cluster string) bool) hostRoute {
	return hostRoute{
		cluster: c.cluster, hosts: hostsOf(c.stem, c.endpoint), dialect: dialectOf(c.name.Protocol), rules: c.listing.rules.of(c), known: known, kept: c.kept(at),
		retriedByCluster: at == retriesAtClusters && c.listing.rules.retryAsAll(c.endpoint),
	}
}

// orNil keeps a typed nil out of an interface.
func orNil[M interface {
	*T
	validated
}, T any](m M, err error) validated {
	if err != nil {
		return nil
	}
	return m
}

func (c *cache) translateService(k resourceKey, owner *claim, revision registry.Revision) (validated, registry.Revision, error) {
	s, endpoint, err := c.lookup(owner)
	if s == nil {
		return nil, revision, err
	}
	if k.typ == typeCluster {
		rules := c.rulesFor(owner) // those of the routes, be the policy newer: one may rely on the other
		if k.kind == kindGateway {
			s, rules = untouched(s, endpoint), rules.atGateway()
		}
		m, _, err := soundCluster(s, endpoint, rules, c.earlier)
		if k.kind == kindGateway && err == nil {
			withoutBlindChecks(m)
		}
		if err == nil {
			m.Name, m.AltStatName = k.name, statName(k.name)
		}
		if err == nil && k.kind == kindGRPC {
			if m, err = forGRPC(m); err == nil && c.loadWanted {
				m.LrsServer = toSelf() // without it gRPC clients report nothing of a cluster
			}
		}
		return orNil(m, err), s.Revision, err
	}
	s, _ = soundAssignment(s, c.earlier)
	way := c.detourOf(s, endpoint, k)
	settled := max(s.Revision, way.revision())
	if way != nil {
		s, _ = way.take()
	}
	if k.kind == kindGRPC {
		m := buildEndpointsForGRPC(s, endpoint, c.standpoint(k.region, k.zone))
		m.ClusterName = k.name
		return m, settled, nil
	}
	if k.kind == kindGateway {
		s = homeOf(s, k.region)
	}
	m, _ := buildEndpoints(s, endpoint, c.standpoint(k.region, k.zone))
	m.ClusterName = k.name
	way.name(m)
	return m, settled, nil
}

// standpoint is where a client is.
func (c *cache) standpoint(region, zone string) registry.Standpoint {
	return registry.Standpoint{Region: region, Zone: zone, Order: c.order}
}

// rulesFor are the rules by which routes to a claim's cluster are made at present.
func (c *cache) rulesFor(of *claim) routeRules {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return of.listing.rules
}

// errAhead says that a name's owner is gone, or has other endpoints, and that the
// directory has yet to follow.
var errAhead = errors.New("xds: the state is ahead of the directory")

// owner is who has the name of a cluster; nil where nobody does.
func (c *cache) owner(cluster string) *claim {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.directory.clusters[cluster]
}

// lookup finds the service and the endpoint of the owner of a cluster's name; nil where
// there is none. Of a subset it gives the service as if it had no other instances.
func (c *cache) lookup(owner *claim) (*registry.Service, int, error) {
	if owner == nil {
		return nil, 0, nil
	}
	s := c.service(owner.listing.key)
	if s == nil || s.Created != owner.listing.created || owner.endpoint >= len(s.Endpoints) || s.Endpoints[owner.endpoint] != owner.name {
		return nil, 0, errAhead
	}
	if part := subsetOf(s, owner.subset); part != nil {
		return part, 0, nil // else the policy has just lost it, and what routes still lead there is the whole service's
	}
	return s, owner.endpoint, nil
}

// subsetOf is a service with the instances of a subset alone; nil where its policy has no such subset.
func subsetOf(s *registry.Service, name string) *registry.Service {
	subset := s.Policy.Subset(name)
	if subset == nil {
		return nil
	}
	part := *s
	part.Instances, part.Shown = selected(s.Instances, subset), selected(s.Shown, subset)
	return &part
}

func selected(all []*registry.Instance, by *registry.Subset) []*registry.Instance {
	var out []*registry.Instance
	for _, i := range all {
		if by.Selects(i) {
			out = append(out, i)
		}
	}
	return out
}

// routesOf are the routes of a scope in the order of their clusters. What changes while
// they are collected is a round of the follower, which has the table built anew.
func (c *cache) routesOf(s *scope) []hostRoute {
	names := c.clustersIn(s)
	slices.Sort(names)
	c.mu.RLock()
	defer c.mu.RUnlock()
	routes := make([]hostRoute, 0, len(names))
	known := func(cluster string) bool { // of the copy, since the table is built without the lock
		_, found := slices.BinarySearch(names, cluster)
		return found
	}
	for _, name := range names {
		claim := s.members[name]
		switch {
		case claim == nil:
		case s.kind == kindGateway:
			routes = append(routes, claim.routeAtGateway(s.retries))
		case claim.subset == "":
			routes = append(routes, claim.route(s.retries, known))
		}
	}
	return routes
}

// withheld is everything that is registered and not shown, found on demand. What another
// service has to do with it is told whoever a context is for without its name, if he may not read it.
func (c *cache) withheld(ctx context.Context, region string) []Withheld {
	var out []Withheld
	for _, k := range c.machine.ServiceKeys("") {
		if s := c.machine.Service(k); s != nil {
			out = append(out, c.withheldOf(ctx, s, region)...)
		}
	}
	return out
}

func (c *cache) withheldOf(ctx context.Context, s *registry.Service, region string) []Withheld {
	var out []Withheld
	rules, wrongRoutes := soundRules(s, c.earlier)
	shown, wrongHosts := soundAssignment(s, c.earlier)
	for n, e := range s.Endpoints {
		if reason := c.taken(ctx, s.Key, n); reason != "" {
			out = append(out, Withheld{Service: s.Key, Endpoint: e.Name, Reason: reason})
			continue
		}
		if _, wrong, err := soundCluster(s, n, rules, c.earlier); err != nil {
			out = append(out, Withheld{Service: s.Key, Endpoint: e.Name, Reason: reasonInvalid(err)})
		} else if wrong != nil {
			out = append(out, Withheld{Service: s.Key, Endpoint: e.Name, Reason: reasonUnsound("the cluster", wrong)})
		}
		told := shown
		if way := c.detourOf(shown, n, resourceKey{region: region}); way != nil {
			var missing map[string]string
			told, missing = way.take()
			out = append(out, way.withheld(missing)...)
		}
		m, instances := buildEndpoints(told, n, c.standpoint(region, ""))
		if err := m.ValidateAll(); err != nil {
			out = append(out, Withheld{Service: s.Key, Endpoint: e.Name, Reason: reasonInvalid(err)})
		}
		out = append(out, instances...)
	}
	if wrongHosts != nil {
		out = append(out, Withheld{Service: s.Key, Reason: reasonUnsound("the endpoints", wrongHosts)})
	}
	if wrongRoutes != nil {
		out = append(out, Withheld{Service: s.Key, Reason: reasonUnsound("the routes", wrongRoutes)})
	}
	return append(append(out, c.withheldAtGateways(s)...), c.withheldRules(ctx, s)...)
}

// withheldRules is what a policy says of routes that no proxy is told of.
func (c *cache) withheldRules(ctx context.Context, s *registry.Service) []Withheld {
	if s.Policy == nil {
		return nil
	}
	var out []Withheld
	out = append(out, c.withheldLocal(ctx, s)...)
	if s.Policy.Checks != nil && len(s.Endpoints) > 0 && checkOf(s.Policy, dialectOf(s.Endpoints[0].Protocol)) == nil {
		out = append(out, Withheld{Service: s.Key, Endpoint: s.Endpoints[0].Name, Reason: reasonCheck(s.Endpoints[0].Protocol)})
	}
	for n, one := range s.Policy.Subsets {
		if reason := c.taken(ctx, s.Key, len(s.Endpoints)+n); reason != "" {
			out = append(out, Withheld{Service: s.Key, Reason: reasonSubset(one.Name, reason)})
		}
	}
	for n, r := range s.Policy.Routes {
		for _, t := range r.Split {
			if t.Subset != "" && s.Policy.Subset(t.Subset) == nil {
				out = append(out, Withheld{Service: s.Key, Reason: reasonNoSubset(n, t.Subset)})
			}
		}
		if m := r.Mirror; m != nil && m.Service != "" && !c.isThere(neighbour(primaryStem(s.Key), m.Service)) {
			out = append(out, Withheld{Service: s.Key, Reason: reasonMirror(n, m.Service)})
		}
	}
	return out
}

func (c *cache) isThere(cluster string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.directory.clusters[cluster] != nil
}

// taken says who has the name that a service claims, if it is not the service itself.
func (c *cache) taken(ctx context.Context, k registry.ServiceKey, claim int) string {
	name, by := c.usurper(k, claim)
	if name == "" {
		return ""
	}
	return reasonTaken(name, by.NameFor(ctx))
}

// usurper is who has the name that a service claims; "" where it is the service itself.
func (c *cache) usurper(k registry.ServiceKey, claim int) (name string, by registry.ServiceKey) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.directory.services[k]
	if l == nil || claim >= len(l.claims) || c.directory.owns(l.claims[claim]) {
		return "", by
	}
	mine := l.claims[claim]
	return mine.stem, c.directory.owner(mine).listing.key
}
