package bench

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// The sizes of the targets P3 to P6 and P11 in the design's §5.
var (
	xdsStreams  = flag.Int("streams", streams, "proxies of P3, P5 and P11")
	xdsOwn      = flag.Int("own", 10_000, "proxies of P4 and P6, each with a connection of its own")
	xdsServices = flag.Int("services", services, "services of P3, P5 and P11")
	xdsMany     = flag.Int("many", 10_000, "services of P4 and P6")
	xdsChanges  = flag.Int("changes", 1000, "changes that are measured, one after the other, as long as there is time")
	xdsFor      = flag.Duration("for", 10*time.Second, "the time for the changes of a row")
)

// Some of the scenes' sizes.
const (
	manyInstances = 10         // of each service in P4 and P6
	rareChanges   = 20         // measured of those that concern all
	walkMax       = 10_000_000 // streams times services
)

// tooMany says that SnapshotCache, which goes through everything for each stream and
// again at each change, would take minutes for one.
func tooMany(c contestant, streams, services int) bool {
	return c.name == snapshotCache && streams*services > walkMax
}

// A contestant is a server that is measured. The scenes bring it up anew each.
type contestant struct {
	name  string
	start func(b *testing.B, scene peerScene) venue
	ours  bool
}

// A venue is where a contestant is: registrations go to one address, streams to all.
type venue struct {
	entry   *daemon
	servers []*daemon
}

func (v venue) addresses() []string {
	var all []string
	for _, d := range v.servers {
		all = append(all, d.xds)
	}
	return all
}

func (v venue) memory(b *testing.B) (sum int64) {
	for _, d := range v.servers {
		sum += d.memory(b, "RssAnon")
	}
	return sum
}

func (v venue) cpu(b *testing.B) (sum time.Duration) {
	for _, d := range v.servers {
		sum += d.cpu(b)
	}
	return sum
}

// kill ends all of it, before the next one is measured.
func (v venue) kill(b *testing.B) {
	for _, d := range v.servers {
		d.kill(b)
	}
}

var (
	oursAlone  = contestant{"StellMap, one synced node", startOurs, true}
	oursThree  = contestant{"StellMap, three nodes, registered at a follower", startThree, true}
	withLinear = contestant{linearCache, peerOf(linearCache), false}
	withSnaps  = contestant{snapshotCache, peerOf(snapshotCache), false}
)

func startOurs(b *testing.B, scene peerScene) venue {
	d := startDaemon(b)
	fillScene(b, d, scene)
	return venue{entry: d, servers: []*daemon{d}}
}

func startThree(b *testing.B, scene peerScene) venue {
	members, leader := startCluster(b, 3)
	fillScene(b, leader, scene)
	follower := members[slices.IndexFunc(members, func(d *daemon) bool { return d != leader })]
	return venue{entry: follower, servers: members}
}

func peerOf(cache string) func(b *testing.B, scene peerScene) venue {
	return func(b *testing.B, scene peerScene) venue {
		scene.Cache = cache
		d := startPeer(b, scene)
		return venue{entry: d, servers: []*daemon{d}}
	}
}

// fillScene registers what a peer begins with.
func fillScene(b *testing.B, d *daemon, scene peerScene) {
	b.Helper()
	fill(b, d, scene.Services, scene.Instances)
	for _, service := range scene.Extra {
		d.register(b, service, 0, weights+1)
	}
}

// A result is a row of the table.
type result struct {
	target, what, who string
	times             spread
	elsewhere         float64       // responses that nobody waited for, for a change
	bytes             float64       // of a response; NaN = none
	cpu               time.Duration // of the servers, for a change
	more              string
}

type results struct{ rows []result }

// BenchmarkXDS measures what a change costs until the proxies have it, side by side
// with go-control-plane's caches: the same changes by the same clients on the same
// machine. It prints a table. Once is enough.
func BenchmarkXDS(b *testing.B) {
	if b.N > 1 {
		b.Skip("once is enough: -benchtime 1x")
	}
	var r results
	load := loadNow(b)
	for _, c := range []contestant{oursAlone, oursThree, withLinear, withSnaps} {
		b.Run("few/"+c.name, func(b *testing.B) { r.few(b, c) })
	}
	for _, c := range []contestant{oursAlone, withLinear, withSnaps} {
		b.Run("own/"+c.name, func(b *testing.B) {
			if tooMany(c, *xdsOwn, *xdsMany) {
				b.Skipf("%s is not measured with %d streams and %d services: a change would take minutes", c.name, *xdsOwn, *xdsMany)
			}
			r.own(b, c)
		})
	}
	for _, c := range []contestant{oursAlone, withLinear, withSnaps} {
		b.Run("all/"+c.name, func(b *testing.B) { r.all(b, c) })
	}
	r.print(b, load)
}

// few is P3, a change that few streams wait for, and P5, one that all do.
func (r *results) few(b *testing.B, c contestant) {
	watched, n := *xdsServices, *xdsStreams
	v := c.start(b, peerScene{Services: *xdsServices, Instances: instances, Extra: []int{watched}})
	f := &fleet{addresses: v.addresses(), size: n, connections: min(n, connections), asks: byName(*xdsServices, watched)}
	f.open(b)
	m := measuring{b: b, venue: v, fleet: f}
	r.add("P3", "one service that few proxies want changes", c, m.of(*xdsChanges, func(i int) change {
		service := i * 7919 % *xdsServices // a prime: walks all services before it repeats one
		return change{service, i % instances, interestedIn(service, *xdsServices, n)}
	}), fmt.Sprintf("%d streams in sync after %.1f s", n, f.took.Seconds()))
	r.add("P5", "the service that all proxies want changes", c, m.of(rareChanges, func(int) change { return change{watched, 0, n} }), "")
	f.close()
	v.kill(b)
}

// own is P4, streams on connections of their own, and P6, a change that nobody wants.
func (r *results) own(b *testing.B, c contestant) {
	unwanted, n := *xdsMany, *xdsOwn
	v := c.start(b, peerScene{Services: *xdsMany, Instances: manyInstances, Extra: []int{unwanted}})
	f := &fleet{addresses: v.addresses(), size: n, connections: n, asks: byName(*xdsMany)}
	m := measuring{b: b, venue: v, fleet: f}
	nobody := func(i int) change { return change{unwanted, 0, 0} }
	r.add("P6", "a service that nobody wants changes, no streams", c, m.of(*xdsChanges, nobody), "")
	before := v.memory(b)
	f.open(b)
	each := f.perStream(v.memory(b) - before)
	r.add("P4", "one service that few proxies want changes", c, m.of(*xdsChanges, func(i int) change {
		service := i * 7919 % *xdsMany
		return change{service, i % manyInstances, interestedIn(service, *xdsMany, n)}
	}), fmt.Sprintf("%d streams in sync after %.1f s, %.1f kB each", n, f.took.Seconds(), float64(each)/1000))
	r.add("P6", fmt.Sprintf("a service that nobody wants changes, %d streams", n), c, m.of(*xdsChanges, nobody), "")
	f.close()
	v.kill(b)
}

// all is P11, a new service that every proxy's clusters and routes have to have.
func (r *results) all(b *testing.B, c contestant) {
	n := *xdsStreams
	v := c.start(b, peerScene{Services: *xdsServices, Instances: 1, Tables: true})
	f := &fleet{addresses: v.addresses(), size: n, connections: min(n, connections), asks: func(int) []ask {
		return []ask{{clusterType, nil, *xdsServices}, {routeType, []string{routeTable}, 1}}
	}}
	f.open(b)
	built := func(typ string) float64 {
		if !c.ours {
			return 0
		}
		return v.entry.metric(b, fmt.Sprintf("stellmap_xds_resources_built_total{type=%q}", typ))
	}
	clusters, routes := built("cds"), built("rds")
	var inClusters, inRoutes []time.Duration
	begin, cpu := time.Now(), v.cpu(b)
	for i := 0; i < rareChanges && (i == 0 || time.Since(begin) < *xdsFor); i++ {
		name := serviceName(*xdsServices + i)
		cluster, route := f.expect(clusterType, clusterOf(name), n), f.expect(routeType, routeTable, n)
		start := time.Now()
		v.entry.register(b, *xdsServices+i, 0, 1)
		inClusters = append(inClusters, f.wait(b, name, cluster, start))
		inRoutes = append(inRoutes, f.wait(b, name, route, start))
	}
	cpu = (v.cpu(b) - cpu) / time.Duration(len(inClusters))
	more := fmt.Sprintf("%d streams in sync after %.1f s", n, f.took.Seconds())
	if c.ours {
		changes := float64(len(inClusters))
		more += fmt.Sprintf(", %.1f clusters and %.1f routes built for a change", (built("cds")-clusters)/changes, (built("rds")-routes)/changes)
	}
	bytes := perResponse(f.tables.Load(), int64(len(inRoutes)*n))
	elsewhere := float64(f.received.Load())/float64(len(inClusters)) - 2*float64(n)
	r.rows = append(r.rows,
		result{"P11", "a new service: its cluster", c.name, spreadOf(inClusters), elsewhere, math.NaN(), cpu, more},
		result{"P11", "a new service: its route", c.name, spreadOf(inRoutes), elsewhere, bytes, cpu, ""})
	f.close()
	v.kill(b)
}

func (r *results) add(target, what string, c contestant, m result, more string) {
	m.target, m.what, m.who, m.more = target, what, c.name, more
	r.rows = append(r.rows, m)
}

// A change is a registration of an instance, and how many streams are to be told.
type change struct{ service, instance, interested int }

// measuring makes changes and waits for each.
type measuring struct {
	b     *testing.B
	venue venue
	fleet *fleet
	made  int // changes so far, over all rows
}

// of makes so many changes, or what there is time for. The clock runs from the first
// byte of the registration until the last interested stream has the change; where none
// is, until the answer.
func (m *measuring) of(total int, next func(i int) change) result {
	m.b.Helper()
	f := m.fleet
	received, bytes, cpu := f.received.Load(), f.bytes.Load(), m.venue.cpu(m.b)
	var times []time.Duration
	wanted, begin := 0, time.Now()
	for i := 0; i < total && (i == 0 || time.Since(begin) < *xdsFor); i++ {
		c := next(i)
		wanted += c.interested
		name := serviceName(c.service)
		w := f.expect(endpointType, clusterOf(name), c.interested)
		start := time.Now()
		m.venue.entry.register(m.b, c.service, c.instance, 1+m.made%weights)
		m.made++
		took := time.Since(start)
		if c.interested > 0 {
			took = f.wait(m.b, name, w, start)
		}
		times = append(times, took)
	}
	received, bytes = f.received.Load()-received, f.bytes.Load()-bytes
	return result{
		times: spreadOf(times), elsewhere: float64(received-int64(wanted)) / float64(len(times)),
		bytes: perResponse(bytes, received), cpu: (m.venue.cpu(m.b) - cpu) / time.Duration(len(times)),
	}
}

// print prints all as a table, with the machine and what it had to do.
func (r *results) print(b *testing.B, load string) {
	fmt.Printf("\n%s; load %s before, %s after. %d and %d streams, %d and %d services.\n\n", machine(b), load, loadNow(b), *xdsStreams, *xdsOwn, *xdsServices, *xdsMany)
	fmt.Println("| | | server | changes | p50 ms | p99 ms | responses elsewhere | bytes of a response | CPU ms of a change | |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	slices.SortStableFunc(r.rows, func(x, y result) int { return strings.Compare(x.order(), y.order()) })
	for _, row := range r.rows {
		bytes := "–"
		if !math.IsNaN(row.bytes) {
			bytes = fmt.Sprintf("%.0f", row.bytes)
		}
		fmt.Printf("| %s | %s | %s | %d | %.2f | %.2f | %.2f | %s | %.2f | %s |\n", row.target, row.what, row.who, row.times.writes,
			milliseconds(row.times.p50), milliseconds(row.times.p99), row.elsewhere, bytes, milliseconds(row.cpu), row.more)
	}
}

// order sorts by target and what is measured; who is measured stays in turn.
func (r result) order() string { return fmt.Sprintf("%3s %s", r.target[1:], r.what) }

// machine says on what it was measured.
func machine(b *testing.B) string {
	b.Helper()
	model := "an unknown processor"
	for line := range strings.Lines(read(b, "/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), model, strings.TrimSpace(read(b, "/proc/sys/kernel/osrelease")), runtime.Version())
}

// loadNow is the load of the last minute.
func loadNow(b *testing.B) string {
	b.Helper()
	minute, _, _ := strings.Cut(read(b, "/proc/loadavg"), " ")
	return minute
}

func read(b *testing.B, file string) string {
	b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}
