package xds

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/stellmap/stellmap/registry"
)

// loads are what clients report of the calls that they make: how many, to which
// cluster and locality, and how they ended.
//
// They are kept in memory by the member that a client reports to, as sums over all
// clients, and are never committed: what is lost with a member is a minute of figures.
// So what they cost follows the clusters that have calls, not the clients. Where there
// is no room what is new is counted as refused, and the sums that are there go on.
type loads struct {
	slot    time.Duration // of a window, of which loadSlots are kept
	most    int           // parts of all clusters
	metrics *metrics
	now     func() time.Time

	mu       sync.Mutex // guards what follows
	clusters map[string]*clusterLoad
	parts    int // localities and categories of all clusters
	swept    time.Time
}

// The bounds of what is kept.
const (
	loadSlots      = 6                // that a window has
	loadPartsMax   = 10_000           // localities and categories of dropped calls, of all clusters
	loadPartsEach  = 64               // … of one cluster
	loadClustersIn = namesMax         // clusters in one report
	loadKept       = 10 * time.Minute // what nobody has reported for so long is forgotten
	loadSweepEvery = time.Minute
)

// A clusterLoad is what is reported of one cluster.
type clusterLoad struct {
	localities map[place]*part
	drops      map[string]*part // by category
}

// A place is a locality as it is told of. How instances of one zone are parted by
// their weights for gRPC clients says nothing about load.
type place struct{ region, zone string }

// A part is what is reported of one locality, or of one category of dropped calls.
type part struct {
	total      calls // since it was first reported
	window     [loadSlots]calls
	newest     int64  // the slot that was written last
	inProgress uint64 // in the last report of each client
	last       time.Time
}

// calls are counts of calls that have ended. A dropped one counts as failed.
type calls struct{ succeeded, failed uint64 }

func (c *calls) add(o calls) {
	c.succeeded += o.succeeded
	c.failed += o.failed
}

// A reporter is one client's stream of reports.
type reporter struct {
	node       *node
	party      *party           // who has opened it; nil where nobody is asked
	from       netip.Addr       // where it calls from; the zero one is not known
	inProgress map[*part]uint64 // in its last report

	byInstance bool                          // it was asked to report its calls by instance
	accused    map[registry.InstanceKey]bool // instances that it has said of that they fail
	turned     int                           // where in its last votes it began, when there were too many
}

func newLoads(slot time.Duration, m *metrics, now func() time.Time) *loads {
	return &loads{slot: slot, most: loadPartsMax, metrics: m, now: now, clusters: make(map[string]*clusterLoad)}
}

// take adds a report of clusters that are known. What the client has in progress is
// what this report says: where it says nothing there is nothing.
func (l *loads) take(r *reporter, stats []*endpointv3.ClusterStats, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	l.release(r)
	for _, s := range stats {
		c := l.cluster(s.GetClusterName())
		for _, of := range s.GetUpstreamLocalityStats() {
			l.takeLocality(r, c, of, now)
		}
		l.takeDrops(c, s, now)
		if len(c.localities)+len(c.drops) == 0 {
			delete(l.clusters, s.GetClusterName())
		}
	}
}

// forget takes a client that has gone out of what is in progress.
func (l *loads) forget(r *reporter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release(r)
}

func (l *loads) release(r *reporter) {
	for p, n := range r.inProgress {
		p.inProgress -= n
	}
	clear(r.inProgress)
}

func (l *loads) cluster(name string) *clusterLoad {
	c := l.clusters[name]
	if c == nil {
		c = &clusterLoad{localities: make(map[place]*part, 1), drops: make(map[string]*part)}
		l.clusters[name] = c
	}
	return c
}

func (l *loads) takeLocality(r *reporter, c *clusterLoad, of *endpointv3.UpstreamLocalityStats, now time.Time) {
	at := place{of.GetLocality().GetRegion(), of.GetLocality().GetZone()}
	p := partOf(l, c, c.localities, at, len(at.region)+len(at.zone))
	if p == nil {
		return
	}
	p.add(calls{of.GetTotalSuccessfulRequests(), of.GetTotalErrorRequests()}, now, l.slot)
	if n := of.GetTotalRequestsInProgress(); n > 0 {
		p.inProgress += n
		r.inProgress[p] += n
	}
}

// uncategorized are calls that were dropped for another reason than a policy's drops,
// such as too many at once.
const uncategorized = "other"

func (l *loads) takeDrops(c *clusterLoad, s *endpointv3.ClusterStats, now time.Time) {
	rest := s.GetTotalDroppedRequests()
	drop := func(category string, n uint64) {
		if n == 0 {
			return
		}
		if p := partOf(l, c, c.drops, category, len(category)); p != nil {
			p.add(calls{failed: n}, now, l.slot)
		}
	}
	for _, d := range s.GetDroppedRequests() {
		n := d.GetDroppedCount()
		drop(cmp.Or(d.GetCategory(), uncategorized), n)
		rest -= min(rest, n)
	}
	drop(uncategorized, rest)
}

// partOf finds a part of a cluster, or makes it if there is room; nil if there is none.
func partOf[K comparable](l *loads, c *clusterLoad, of map[K]*part, key K, bytes int) *part {
	p := of[key]
	switch {
	case p != nil:
		return p
	case bytes > 2*nodeTextMax:
		l.metrics.loadRefused[loadTooLong].Add(1)
		return nil
	case len(c.localities)+len(c.drops) >= loadPartsEach:
		l.metrics.loadRefused[loadClusterFull].Add(1)
		return nil
	case l.parts >= l.most:
		l.metrics.loadRefused[loadFull].Add(1)
		return nil
	}
	p = new(part)
	of[key] = p
	l.parts++
	return p
}

func (p *part) add(n calls, now time.Time, slot time.Duration) {
	p.last = now
	p.turn(now, slot)
	p.total.add(n)
	p.window[p.newest%loadSlots].add(n)
}

// turn empties the slots that the time has come to since the last report.
func (p *part) turn(now time.Time, slot time.Duration) {
	present := now.UnixNano() / int64(slot)
	for n := max(p.newest, present-loadSlots) + 1; n <= present; n++ {
		p.window[n%loadSlots] = calls{}
	}
	p.newest = max(p.newest, present)
}

// recent is what was reported within the window.
func (p *part) recent(now time.Time, slot time.Duration) (sum calls) {
	p.turn(now, slot)
	for _, n := range p.window {
		sum.add(n)
	}
	return sum
}

// sweep forgets what nobody has reported for long: services come and go.
func (l *loads) sweep(now time.Time) {
	if now.Sub(l.swept) < loadSweepEvery {
		return
	}
	l.swept = now
	old := func(p *part) bool { return now.Sub(p.last) >= loadKept && p.inProgress == 0 }
	for name, c := range l.clusters {
		before := len(c.localities) + len(c.drops)
		maps.DeleteFunc(c.localities, func(_ place, p *part) bool { return old(p) })
		maps.DeleteFunc(c.drops, func(_ string, p *part) bool { return old(p) })
		after := len(c.localities) + len(c.drops)
		l.parts -= before - after
		if after == 0 {
			delete(l.clusters, name)
		}
	}
}

// A Load is what clients have reported to this member of a service's clusters, within
// the window.
type Load struct {
	Reporters int // clients that report to this member, of whatever
	Window    time.Duration
	Clusters  []ClusterLoad // those with calls, the primary endpoint's first
}

// A ClusterLoad is the load of one cluster.
type ClusterLoad struct {
	Cluster    string
	Localities []LocalityLoad // by region and zone
	Drops      []DropLoad     // by category
}

// A LocalityLoad is the load of one zone of a region.
type LocalityLoad struct {
	Region, Zone                  string
	Succeeded, Failed, InProgress uint64
}

// A DropLoad is how many calls clients have not made, and by which category of the policy.
type DropLoad struct {
	Category string
	Dropped  uint64
}

// Load is what clients have reported of a service.
func (s *Server) Load(k registry.ServiceKey) Load {
	if s.loads == nil {
		return Load{}
	}
	out := Load{Reporters: int(s.metrics.loadStreams.Load()), Window: loadSlots * s.loads.slot}
	for _, name := range s.cache.clustersOf(k) {
		if c, found := s.loads.of(name, s.now()); found {
			out.Clusters = append(out.Clusters, c)
		}
	}
	return out
}

func (l *loads) of(cluster string, now time.Time) (ClusterLoad, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	c := l.clusters[cluster]
	if c == nil {
		return ClusterLoad{}, false
	}
	out := ClusterLoad{Cluster: cluster}
	for at, p := range c.localities {
		n := p.recent(now, l.slot)
		out.Localities = append(out.Localities, LocalityLoad{at.region, at.zone, n.succeeded, n.failed, p.inProgress})
	}
	for category, p := range c.drops {
		out.Drops = append(out.Drops, DropLoad{category, p.recent(now, l.slot).failed})
	}
	slices.SortFunc(out.Localities, func(a, b LocalityLoad) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Zone, b.Zone))
	})
	slices.SortFunc(out.Drops, func(a, b DropLoad) int { return cmp.Compare(a.Category, b.Category) })
	return out, true
}

// clustersOf are the names of the clusters that a service has.
func (c *cache) clustersOf(k registry.ServiceKey) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.directory.services[k]
	if l == nil {
		return nil
	}
	var names []string
	for _, one := range l.claims {
		if c.directory.owns(one) {
			names = append(names, one.cluster)
		}
	}
	return names
}

// known are those of a report's clusters that have something to tell and are of a
// service that the client may see; how many are of none is counted. A proxy reports its own clusters, too.
func (c *cache) known(by registry.Rights, stats []*endpointv3.ClusterStats, unknown *atomic.Uint64) []*endpointv3.ClusterStats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*endpointv3.ClusterStats
	for _, s := range stats {
		owner := c.directory.clusters[s.GetClusterName()]
		switch {
		case len(s.GetUpstreamLocalityStats()) == 0 && s.GetTotalDroppedRequests() == 0 && len(s.GetDroppedRequests()) == 0:
		case owner == nil || !registry.Sees(by, owner.listing.key):
			unknown.Add(1)
		default:
			out = append(out, s)
		}
	}
	return out
}
