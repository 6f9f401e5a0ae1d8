package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// A copying is a region that keeps a copy of another, with as many members as it has
// importers; they are on one log, and a link to the source that can be cut.
type copying struct {
	tb        testing.TB
	source    *region
	registry  *registry.Registry
	machine   *registry.Machine
	importers []*Importer
	leads     []atomic.Bool
	metrics   []*prometheus.Registry
	clock     *movingClock // of the registry that has the copy

	mu    sync.Mutex // guards what follows
	cut   bool
	conns []net.Conn
}

var here = registry.RegionKey{Region: "here", Cluster: 100}

// newCopying begins with the first importer leading.
// Changes may be made to each before it runs.
func newCopying(tb testing.TB, source *region, importers int, changes ...func(*Importer)) *copying {
	tb.Helper()
	clock := &movingClock{}
	log := registrytest.NewLog(tb, clock.Now)
	m := log.NewMember(registry.MachineConfig{Region: "there"})
	log.Begin()
	c := &copying{
		tb: tb, source: source, machine: m.Machine, clock: clock, leads: make([]atomic.Bool, importers),
		registry: registry.New(registry.Config{Machine: m.Machine, Replicator: m, Clock: clock}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, importers)
	for n := range importers {
		one := c.newImporter(n)
		for _, change := range changes {
			change(one)
		}
		go func() { ended <- one.Run(ctx) }()
	}
	c.leads[0].Store(true)
	tb.Cleanup(func() {
		cancel()
		for range importers {
			if err := <-ended; err != nil {
				tb.Errorf("an importer ended with %v", err)
			}
		}
	})
	return c
}

func (c *copying) newImporter(n int) *Importer {
	c.tb.Helper()
	var addresses []string
	for m := range c.source.members {
		addresses = append(addresses, fmt.Sprint("passthrough:///", m))
	}
	metrics := prometheus.NewRegistry()
	one, err := NewImporter(ImporterConfig{
		Registry: c.registry, Leads: c.leads[n].Load, Level: 1, Registerer: metrics,
		Identity: func() Identity { return Identity{Region: "there", ClusterID: 200} },
		Sources: []Source{{
			Region: "here", ClusterID: 100, Addresses: addresses, Token: token,
			Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(c.reach)},
		}},
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	one.limits.lead, one.limits.retryMin = time.Millisecond, time.Millisecond
	one.limits.passing, one.limits.retryMax = 10*time.Millisecond, 10*time.Millisecond
	c.importers, c.metrics = append(c.importers, one), append(c.metrics, metrics)
	return one
}

// reach dials a member of the source, unless the link is cut.
func (c *copying) reach(ctx context.Context, address string) (net.Conn, error) {
	n, err := strconv.Atoi(address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the link is cut")
	}
	conn, err := c.source.members[n].listener.Load().DialContext(ctx)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

// link cuts the link to the source, or heals it.
func (c *copying) link(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		for _, conn := range c.conns {
			conn.Close() // it may be closed already
		}
		c.conns = nil
	}
}

// lead has one importer's member lead.
func (c *copying) lead(which int) {
	for n := range c.leads {
		c.leads[n].Store(n == which)
	}
}

// counted is what a metric of federation says, of the series that has a label of a value.
func counted(tb testing.TB, from *prometheus.Registry, name, label string) (n float64) {
	tb.Helper()
	families, err := from.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, family := range families {
		for _, one := range family.GetMetric() {
			for _, l := range one.GetLabel() {
				if family.GetName() == "stellmap_federation_"+name && l.GetValue() == label {
					n += one.GetCounter().GetValue() + one.GetGauge().GetValue()
				}
			}
		}
	}
	return n
}

// has are the instances of a region as a registry has them, without what only they know.
func has(tb testing.TB, r *registry.Registry, region string) string {
	tb.Helper()
	page, err := r.Instances(context.Background(), registry.Query{AllNamespaces: true, Regions: []string{region}, Statuses: []string{"any"}}, registry.Paging{})
	if err != nil {
		tb.Fatal(err)
	}
	var lines []string
	for _, i := range page.Instances {
		lines = append(lines, fmt.Sprintf("%s/%s/%s %s %v %v", i.Namespace, i.Service, i.SourceID(), i.Status, i.Endpoints, i.Conditions()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (c *copying) mustBecomeEqual() {
	c.tb.Helper()
	eventually(c.tb, "a copy that is equal", func() bool {
		return has(c.tb, c.registry, "here") == has(c.tb, c.source.members[0].registry, "here")
	})
}

// TestARegionIsCopied shows the way of a copy: all there is, then each change; while the
// link is cut nothing goes, and when it is back what is gone is gone.
func TestARegionIsCopied(t *testing.T) {
	source := newRegion(t, 2, registry.HistoryBounds{})
	at := source.members[0]
	at.put("orders", "a", 80)
	at.put("orders", "b", 80)
	c := newCopying(t, source, 1)
	c.mustBecomeEqual()
	at.put("orders", "b", 81)
	at.put("pay", "c", 80)
	at.remove("orders", "a")
	c.mustBecomeEqual()
	eventually(t, "a confirmed age", func() bool { _, known := c.registry.RegionAge(c.registry.Region(here)); return known })
	c.link(true)
	before := has(t, c.registry, "here")
	at.remove("orders", "b")
	at.put("pay", "d", 80)
	eventually(t, "an attempt that fails", func() bool {
		return counted(t, c.metrics[0], "streams_ended_total", "unreachable") > 1
	})
	mustEqual(t, "the copy while the link is cut", has(t, c.registry, "here"), before)
	c.link(false)
	c.mustBecomeEqual()
	mustEqual(t, "the full syncs that it took", counted(t, c.metrics[0], "full_syncs_total", "start"), 1)
	source.members[1].stop() // the one that it may be following; the other is tried
	at.remove("pay", "d")
	c.mustBecomeEqual()
}

// TestCopiesUnderFaults shows with random changes that the copy comes to be equal,
// whatever was cut, whoever has led, and however little of the history was kept; and
// that a change of leaders, who may both believe to lead for a while, mixes nothing.
func TestCopiesUnderFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	source := newRegion(t, 2, registry.HistoryBounds{Events: 20})
	for _, m := range source.members {
		m.restart(Config{Token: token}, func(l *limits) { l.pageInstances = 2 })
	}
	at := source.members[0]
	c := newCopying(t, source, 2)
	for range 40 {
		for range random.IntN(12) {
			service, id := fmt.Sprint("s", random.IntN(3)), fmt.Sprint("i", random.IntN(8))
			if random.IntN(3) == 0 {
				at.remove(service, id)
			} else {
				at.put(service, id, 1+random.IntN(3))
			}
		}
		switch random.IntN(6) {
		case 0, 1:
			c.link(true)
		case 2:
			c.leads[random.IntN(2)].Store(random.IntN(2) == 0)
		case 3:
			c.lead(random.IntN(2))
		default:
			c.link(false)
		}
		rest(t.Context(), time.Duration(random.IntN(4))*time.Millisecond) // so that it is cut at different places; nothing is concluded from it
	}
	c.link(false)
	c.lead(1)
	if held := c.registry.Region(here).Held; held.Since != 0 { // it may have seen much go at once
		t.Logf("held: %+v", held)
	}
	confirmed(t, c)
	c.mustBecomeEqual()
}

// confirmed has an operator confirm what is held, once the copy has come to its end.
func confirmed(t *testing.T, c *copying) {
	eventually(t, "a copy of the newest revision", func() bool {
		of := c.registry.Region(here).Cursor
		return of.Sync == 0 && of.Revision == c.source.members[0].registry.Revision()
	})
	_, err := c.registry.ControlRegion(context.Background(), here, registry.RegionConfirm)
	if err != nil {
		t.Fatal(err)
	}
}

// TestARestoredSourceIsNotMerged shows that a source of another incarnation is told
// anew, even where its revisions would do; and that one which has lost all it had does
// not take it from the copy until somebody says so.
func TestARestoredSourceIsNotMerged(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	for n := range 8 {
		at.put("orders", fmt.Sprint("i", n), 80)
	}
	c := newCopying(t, source, 1)
	c.mustBecomeEqual()
	c.lead(-1)
	at.stop()
	for n := range 7 {
		at.remove("orders", fmt.Sprint("i", n))
	}
	source.incarnation = "beef"
	at.restart(Config{Token: token}, nil)
	c.lead(0)
	eventually(t, "a full sync that is held", func() bool { return c.registry.Region(here).Held.Since != 0 })
	mustEqual(t, "what is held", c.registry.Region(here).Held.Instances, 7)
	mustEqual(t, "what there is", c.registry.Region(here).Instances, 8)
	at.put("orders", "i7", 81) // what comes is followed meanwhile
	eventually(t, "the change", func() bool { return strings.Contains(has(t, c.registry, "here"), "10.0.0.1 81") })
	if _, err := c.registry.ControlRegion(context.Background(), here, registry.RegionConfirm); err != nil {
		t.Fatal(err)
	}
	c.mustBecomeEqual()
}

// TestRefusalsAreFewInTheLog shows that what cannot be had here is warned of with a count,
// and at most so often.
func TestRefusalsAreFewInTheLog(t *testing.T) {
	var out strings.Builder
	s := &source{Source: Source{Region: "here"}, importer: &Importer{log: slog.New(slog.NewTextHandler(&out, nil))}}
	at := time.Unix(0, 0).Add(refusedEvery)
	s.warn(nil, at)
	s.warn([]error{errors.New("first")}, at)
	s.warn([]error{errors.New("second"), errors.New("third")}, at.Add(time.Second))
	s.warn(nil, at.Add(refusedEvery-1))
	mustEqual(t, "lines at first", strings.Count(out.String(), "count=1 last_because=first"), strings.Count(out.String(), "\n"))
	s.warn(nil, at.Add(refusedEvery))
	s.warn(nil, at.Add(3*refusedEvery))
	if !strings.Contains(out.String(), "count=2 last_because=third") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("the log has %s", out.String())
	}
}

// TestAMarkAgesInTheQueue shows that a mark of progress is as much older as it has waited
// here to be committed.
func TestAMarkAgesInTheQueue(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	source.members[0].put("orders", "a", 80)
	c := newCopying(t, source, 1)
	eventually(t, "a confirmed age", func() bool { _, known := c.registry.RegionAge(c.registry.Region(here)); return known })
	c.lead(-1)
	s := c.importers[0].sources[0]
	eventually(t, "an end of following", func() bool { return !s.following.Load() && len(source.members[0].exporter.Followers()) == 0 })
	at := c.registry.Region(here).Cursor
	one := &copier{source: s, at: at}
	mark := &replicationv1.Progress{Cursor: &replicationv1.Cursor{Incarnation: at.Incarnation, Revision: uint64(at.Revision), Selections: at.Selections}, Confirmed: true, AgeMs: 1000}
	if err := one.progress(t.Context(), time.Now().Add(-5*time.Second), mark); err != nil {
		t.Fatal(err)
	}
	if age := c.registry.Region(here).Age; age < 6*time.Second {
		t.Errorf("a mark of a second that has waited for five is %v old", age)
	}
}

// TestAMemberThatIsCutOffIsLeft shows that a region is followed on at another member when
// the one that is followed is cut off from the others, and does not hear of anything new.
func TestAMemberThatIsCutOffIsLeft(t *testing.T) {
	source := newRegion(t, 2, registry.HistoryBounds{})
	for _, m := range source.members {
		m.restart(Config{Token: token}, func(l *limits) { l.confirm = 50 * time.Millisecond })
	}
	source.members[1].put("orders", "a", 80)
	c := newCopying(t, source, 1)
	c.mustBecomeEqual()
	mustEqual(t, "who is followed", c.importers[0].Links()[0].Address, "passthrough:///0")
	source.members[0].Leave()
	source.log.Set(func() { source.log.FreshAt = registrytest.Start().Add(-leaderlessMax - time.Millisecond) })
	source.members[1].put("orders", "b", 80)
	eventually(t, "what is told at the other member", func() bool {
		return has(t, c.registry, "here") == has(t, source.members[1].registry, "here")
	})
	if n := counted(t, c.metrics[0], "streams_ended_total", "no_leader"); n == 0 {
		t.Error("nothing is said of why the member was left")
	}
}

// TestACopyIsPaused shows that an operator's word holds for whoever leads.
func TestACopyIsPaused(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	at.put("orders", "a", 80)
	c := newCopying(t, source, 2)
	c.mustBecomeEqual()
	control := func(action registry.RegionAction) {
		t.Helper()
		if _, err := c.registry.ControlRegion(context.Background(), here, action); err != nil {
			t.Fatal(err)
		}
	}
	control(registry.RegionPause)
	c.lead(1)
	before := has(t, c.registry, "here")
	at.put("orders", "b", 80)
	eventually(t, "an end of following", func() bool { return !c.importers[0].sources[0].following.Load() && len(at.exporter.Followers()) == 0 })
	mustEqual(t, "the paused copy", has(t, c.registry, "here"), before)
	control(registry.RegionResume)
	c.mustBecomeEqual()
	control(registry.RegionForget)
	mustEqual(t, "the forgotten copy", has(t, c.registry, "here"), "")
	control(registry.RegionResume)
	c.mustBecomeEqual()
	control(registry.RegionResync)
	c.mustBecomeEqual()
}

// TestALeaderGoesOnWithForgetting shows that what an operator was not kept waiting for goes
// all the same, of a region that is in nobody's settings, too.
func TestALeaderGoesOnWithForgetting(t *testing.T) {
	c := newCopying(t, newRegion(t, 1, registry.HistoryBounds{}), 1)
	c.lead(-1)
	elsewhere := registry.RegionKey{Region: "elsewhere", Cluster: 300}
	record := &recordv1.InstanceRecord{Format: 1, Status: recordv1.InstanceRecord_STATUS_PASSING, Spec: &recordv1.InstanceSpec{
		LeaseTtlMs: 30_000, Endpoints: []*recordv1.Endpoint{{Name: "http", Protocol: "http", Host: "10.0.0.1", Port: 80, Weight: 100}},
	}}
	tell := func(step registry.ImportStep, upto registry.ImportCursor, items ...registry.ImportItem) {
		t.Helper()
		if result, err := c.registry.Import(t.Context(), registry.Import{Region: elsewhere, Step: step, After: c.registry.Region(elsewhere).Cursor, Upto: upto, Items: items}); err != nil || len(result.Refused) > 0 {
			t.Fatal(err, result.Refused)
		}
	}
	at := registry.ImportCursor{Incarnation: "cafe", Sync: 1}
	tell(registry.ImportStepBegin, at)
	for at.Parts < 40 { // of which an operator waits for four fifths
		at.Parts++
		var items []registry.ImportItem
		for n := range registry.ImportItemsMax {
			items = append(items, registry.ImportItem{Key: registry.InstanceKey{Namespace: "prod", Service: fmt.Sprint("s", at.Parts), ID: fmt.Sprint(n)}, Record: record})
		}
		tell(registry.ImportStepPart, at, items...)
	}
	if _, err := c.registry.ControlRegion(t.Context(), elsewhere, registry.RegionForget); err != nil {
		t.Fatal(err)
	}
	left := c.registry.Region(elsewhere)
	if left.Leaving == 0 || left.Leaving != left.Instances {
		t.Fatalf("after the answer there are %d instances, of which %d go", left.Instances, left.Leaving)
	}
	c.lead(0)
	eventually(t, "an end of what was forgotten", func() bool { return c.registry.Region(elsewhere).Instances == 0 })
}

// TestAPauseIsNoFailure shows that a copy whose pause was found out by a command that was
// refused goes on as soon as it is resumed, as after any other pause.
func TestAPauseIsNoFailure(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	c := newCopying(t, source, 1, func(i *Importer) { // by which a pause is found out much later, and a failure waited for much longer
		i.limits.lead, i.limits.retryMin, i.limits.passing, i.limits.retryMax = 200*time.Millisecond, time.Hour, time.Hour, time.Hour
	})
	for _, id := range []string{"a", "b", "c"} {
		at.put("orders", id, 80)
		c.mustBecomeEqual()
		eventually(t, "an end of the full sync", func() bool { // one that is cut short is told anew, and what it lacks then is held
			cursor := c.registry.Region(here).Cursor
			return !cursor.Anew() && cursor.Sync == 0
		})
		if _, err := c.registry.ControlRegion(t.Context(), here, registry.RegionPause); err != nil {
			t.Fatal(err)
		}
		at.remove("orders", id)
		eventually(t, "an end of following", func() bool { return !c.importers[0].sources[0].following.Load() })
		if _, err := c.registry.ControlRegion(t.Context(), here, registry.RegionResume); err != nil {
			t.Fatal(err)
		}
		c.mustBecomeEqual()
	}
}

// TestWhomARegionDoesNotFollow shows that the cluster that answers must be the one that
// is meant, and must take the token.
func TestWhomARegionDoesNotFollow(t *testing.T) {
	of := newRegion(t, 1, registry.HistoryBounds{})
	of.members[0].put("orders", "a", 80)
	c := newCopying(t, of, 1)
	c.mustBecomeEqual()
	for name, change := range map[string]func(*Source){
		"another cluster": func(s *Source) { s.ClusterID = 300 },
		"another region":  func(s *Source) { s.Region = "elsewhere" },
		"a wrong token":   func(s *Source) { s.Token = "another token of the tests" },
	} {
		t.Run(name, func(t *testing.T) {
			wrong := &source{Source: c.importers[0].sources[0].Source, importer: c.importers[0]}
			change(&wrong.Source)
			wrong.key = registry.RegionKey{Region: wrong.Region, Cluster: wrong.ClusterID}
			if err := wrong.follow(context.Background()); err == nil {
				t.Fatal("it is followed")
			}
			if wrong.key != here {
				mustEqual(t, "what is known of it", c.registry.Region(wrong.key), registry.Region{Key: wrong.key})
			}
		})
	}
}
