package xds

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/stellmap/stellmap/registry"
)

// A directory knows who owns which name. It is a function of the services, their
// endpoint names and the subsets of their policies, so that all members settle a quarrel alike: the older
// service keeps the name, of two of one age the first by key.
type directory struct {
	services    map[registry.ServiceKey]*listing
	stems       map[string][]*claim   // the owner is first
	clusters    map[string]*claim     // by cluster name, owners only
	byNamespace map[string][]*listing // by namespace in lower case
	byName      map[string][]*listing // by primary stem

	gateway map[registry.ServiceKey]registry.ServiceKey              // whose instances are the gateways to a service
	ledTo   map[registry.ServiceKey]map[registry.ServiceKey]struct{} // the reverse

	judged map[registry.ServiceKey]registry.LoadRules // services whose policy wants it, see loadvote.go
}

// A listing is one service in the directory.
type listing struct {
	key     registry.ServiceKey
	created registry.Revision
	claims  []*claim         // by endpoint, [0] is the primary's; then those of the policy's subsets
	rules   routeRules       // of the service's policy; it changes, and the next three do, and nothing else of a listing
	policy  *registry.Policy // that the rules were found for
	port    uint32           // of the listener that leads to it, by the policy; 0 = none
	zoned   bool             // the policy asks in which zone a client is

	hosts   [retriesPlaces][]atomic.Pointer[[]byte] // the virtual hosts of its endpoints, as bytes; anew with its rules
	gateway [retriesPlaces][]atomic.Pointer[[]byte] // … as gateways have them
}

// rule gives a listing its rules.
func (l *listing) rule(rules routeRules) {
	l.rules = rules
	for at := range l.hosts {
		l.hosts[at] = make([]atomic.Pointer[[]byte], len(l.claims))
		l.gateway[at] = make([]atomic.Pointer[[]byte], len(l.claims))
	}
}

// kept is where a claim's virtual host is kept; nil if it depends on what else a client has.
func (c *claim) kept(at retriesAt) *atomic.Pointer[[]byte] {
	if c.subset != "" || len(c.listing.rules.of(c).routes) > 0 {
		return nil
	}
	return &c.listing.hosts[at][c.endpoint]
}

// A claim is the wish of one endpoint of a service to own a stem, or of a subset
// of its primary endpoint. A subset has a cluster and no host of its own.
type claim struct {
	listing  *listing
	endpoint int
	name     registry.ServiceEndpoint
	subset   string // empty = all instances
	stem     string
	cluster  string
}

// service is whose claim it is; the zero key of nobody's.
func (c *claim) service() registry.ServiceKey {
	if c == nil {
		return registry.ServiceKey{}
	}
	return c.listing.key
}

// claimsOf are the names that a service would have.
func claimsOf(l *listing, s *registry.Service) []*claim {
	var claims []*claim
	for n, e := range s.Endpoints {
		claims = append(claims, &claim{listing: l, endpoint: n, name: e, stem: stemOf(s.Key, n, e.Name), cluster: clusterName(s.Key, n, e.Name)})
	}
	if s.Policy == nil || len(s.Endpoints) == 0 {
		return claims
	}
	for _, one := range s.Policy.Subsets {
		name := subsetCluster(primaryStem(s.Key), one.Name)
		claims = append(claims, &claim{listing: l, name: s.Endpoints[0], subset: one.Name, stem: name, cluster: name})
	}
	return claims
}

func newDirectory() *directory {
	return &directory{
		services:    make(map[registry.ServiceKey]*listing),
		stems:       make(map[string][]*claim),
		clusters:    make(map[string]*claim),
		byNamespace: make(map[string][]*listing),
		byName:      make(map[string][]*listing),
		gateway:     make(map[registry.ServiceKey]registry.ServiceKey),
		ledTo:       make(map[registry.ServiceKey]map[registry.ServiceKey]struct{}),
		judged:      make(map[registry.ServiceKey]registry.LoadRules),
	}
}

// put enters a service as it is now, nil for one that is gone, and gives the
// listings whose clusters may have changed: its own, and those that lost or won
// a name by it.
func (d *directory) put(k registry.ServiceKey, s *registry.Service) []*listing {
	old := d.services[k]
	if old != nil && s != nil && old.created == s.Created && old.sameNames(s) {
		return nil
	}
	var touched []*listing
	if old != nil {
		touched = append(touched, d.remove(old)...)
	}
	if s != nil {
		touched = append(touched, d.add(s)...)
	}
	return touched
}

func (d *directory) add(s *registry.Service) []*listing {
	l := &listing{key: s.Key, created: s.Created}
	touched := []*listing{l}
	l.claims, l.port, l.zoned = claimsOf(l, s), localPort(s), s.Policy.AsksForZones()
	l.rule(routeRules{}) // for the time until the follower has looked at its policy
	for _, c := range l.claims {
		rivals := append(d.stems[c.stem], c)
		slices.SortFunc(rivals, compareClaims)
		touched = append(touched, d.settle(c.stem, rivals)...)
	}
	d.services[s.Key] = l
	ns := strings.ToLower(s.Key.Namespace)
	d.byNamespace[ns] = append(d.byNamespace[ns], l)
	d.byName[primaryStem(s.Key)] = append(d.byName[primaryStem(s.Key)], l)
	return touched
}

func (d *directory) remove(l *listing) []*listing {
	touched := []*listing{l}
	for _, c := range l.claims {
		rivals := slices.DeleteFunc(slices.Clone(d.stems[c.stem]), func(o *claim) bool { return o == c })
		delete(d.clusters, c.cluster)
		touched = append(touched, d.settle(c.stem, rivals)...)
	}
	delete(d.services, l.key)
	removeListing(d.byNamespace, strings.ToLower(l.key.Namespace), l)
	removeListing(d.byName, primaryStem(l.key), l)
	return touched
}

func removeListing(m map[string][]*listing, key string, l *listing) {
	rest := slices.DeleteFunc(m[key], func(o *listing) bool { return o == l })
	if len(rest) == 0 {
		delete(m, key)
		return
	}
	m[key] = rest
}

// settle gives a stem to the first of its rivals; all of them are touched.
func (d *directory) settle(stem string, rivals []*claim) []*listing {
	if len(rivals) == 0 {
		delete(d.stems, stem)
		return nil
	}
	d.stems[stem] = rivals
	touched := make([]*listing, 0, len(rivals))
	for _, c := range rivals {
		delete(d.clusters, c.cluster)
		touched = append(touched, c.listing)
	}
	d.clusters[rivals[0].cluster] = rivals[0]
	return touched
}

func compareClaims(a, b *claim) int {
	return cmp.Or(
		cmp.Compare(a.listing.created, b.listing.created),
		a.listing.key.Compare(b.listing.key),
		cmp.Compare(a.endpoint, b.endpoint),
		cmp.Compare(a.subset, b.subset))
}

// owns says whether a claim has won.
func (d *directory) owns(c *claim) bool { return d.clusters[c.cluster] == c }

// owner is who has a claim's stem.
func (d *directory) owner(c *claim) *claim { return d.stems[c.stem][0] }

// sameNames says whether a listing has the endpoints and the subsets of a service, in their order.
func (l *listing) sameNames(s *registry.Service) bool {
	return slices.EqualFunc(l.claims, claimsOf(l, s), func(a, b *claim) bool { return *a == *b })
}
