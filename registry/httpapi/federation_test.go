package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// TestTheCopiesOfRegions shows what is told of other regions: in the list of copies, of
// their instances, and to those who know no regions.
func TestTheCopiesOfRegions(t *testing.T) {
	b := registry.RegionKey{Region: "b", Cluster: 200}
	m := newMember(t, func(c *Config) {
		c.Federation = func() Federation {
			return Federation{Neighbours: registry.Neighbours{Sources: []registry.RegionKey{b, {Region: "c", Cluster: 300}}, Fresh: 30 * time.Second}}
		}
	})
	m.register("orders", "a", "10.0.0.1", "")
	at := registry.ImportCursor{}
	step := func(kind registry.ImportStep, upto registry.ImportCursor, items ...registry.ImportItem) {
		t.Helper()
		if _, err := m.config.Registry.Import(context.Background(), registry.Import{Region: b, Step: kind, After: at, Upto: upto, Items: items, Age: time.Second, KnownAge: true}); err != nil {
			t.Fatal(err)
		}
		at = upto
	}
	told := func(id string) registry.ImportItem {
		return registry.ImportItem{
			Key: registry.InstanceKey{Namespace: "prod", Service: "orders", ID: id}, Revision: 6,
			Record: &recordv1.InstanceRecord{
				Format: 1, Status: recordv1.InstanceRecord_STATUS_PASSING, RegisteredAtMs: 1, LastHeartbeatMs: 1,
				Spec: &recordv1.InstanceSpec{LeaseTtlMs: 30_000, Endpoints: []*recordv1.Endpoint{{Name: "http", Protocol: "http", Host: "10.1.0.1", Port: 80, Weight: 100}}},
			},
		}
	}
	step(registry.ImportStepBegin, registry.ImportCursor{Incarnation: "beef", Sync: 1})
	step(registry.ImportStepPart, registry.ImportCursor{Incarnation: "beef", Sync: 1, Parts: 1}, told("a"))
	step(registry.ImportStepSweep, registry.ImportCursor{Incarnation: "beef", Revision: 7})

	var regions v2Federation
	status := func() v2Region {
		t.Helper()
		into(t, m.must(http.StatusOK, http.MethodGet, "/api/v2/federation", ""), &regions)
		return regions.Regions[0]
	}
	one := status()
	mustEqual(t, "the age of the copy", *one.AgeMs, 1000)
	one.AgeMs = nil
	mustEqual(t, "the copy", one, v2Region{Region: "b", ClusterID: 200, Configured: true, Connected: true, Incarnation: "beef", Revision: 7, Instances: 1, Services: 1})
	mustEqual(t, "one that nothing was told of", regions.Regions[1], v2Region{Region: "c", ClusterID: 300, Configured: true})
	m.clock.pass(30 * time.Second)
	mustEqual(t, "whether it is connected when nothing was heard for so long", status().Connected, false)

	mustEqual(t, "who follows, where nobody knows", regions.FollowedBy, nil)

	list := func(path string) string { return m.must(http.StatusOK, http.MethodGet, path, "").Body.String() }
	of := list("/api/v2/namespaces/prod/services/orders/instances?region=b")
	for _, part := range []string{`"instanceId":"b/200/a"`, `"region":"b"`, `"origin":{"clusterId":200,"instanceId":"a","revision":6,`} {
		if !strings.Contains(of, part) {
			t.Errorf("the instances of the region lack %s: %s", part, of)
		}
	}
	for path, sees := range map[string]bool{
		"/api/v2/namespaces/prod/services/orders/instances":               true,
		"/api/v1/registry/instances?namespace=prod&service=orders":        false,
		"/api/v2/prometheus/sd?namespace=prod&endpoint=http":              false,
		"/api/v2/prometheus/sd?namespace=prod&endpoint=http&region=b":     true,
		"/api/v2/namespaces/prod/services/orders/instances?region=here":   false,
		"/api/v2/instances?region=b&status=routable&fields=instanceId":    true,
		"/api/v2/namespaces/prod/instances?status=critical&region=b":      false,
		"/api/v2/namespaces/prod/instances?servicePrefix=ord&endpoint=no": false,
	} {
		if body := list(path); strings.Contains(body, "b/200/a") != sees {
			t.Errorf("%s sees the other region's: %v, want %v: %s", path, !sees, sees, body)
		}
	}
}

// TestWhatIsOnItsWayOutIsCounted shows how many instances of a copy are still to go, in the
// list of copies: of what was held until that was over, and of a copy that was forgotten.
func TestWhatIsOnItsWayOutIsCounted(t *testing.T) {
	const all, kept, commandsRemove = 9 * 1024, 5, 1024
	m, k := newMember(t, nil), registry.RegionKey{Region: "b", Cluster: 200}
	at := registry.ImportCursor{}
	step := func(kind registry.ImportStep, upto registry.ImportCursor, items ...registry.ImportItem) {
		t.Helper()
		if _, err := m.config.Registry.Import(t.Context(), registry.Import{Region: k, Step: kind, After: at, Upto: upto, Items: items, KnownAge: true}); err != nil {
			t.Fatal(err)
		}
		at = upto
	}
	tellAll := func(sync uint64, count int) {
		t.Helper()
		upto := registry.ImportCursor{Incarnation: "beef", Sync: sync}
		step(registry.ImportStepBegin, upto)
		for n := 0; n < count; n += registry.ImportItemsMax {
			upto.Parts++
			step(registry.ImportStepPart, upto, toldInstances(n, min(count, n+registry.ImportItemsMax))...)
		}
		step(registry.ImportStepSweep, registry.ImportCursor{Incarnation: "beef", Revision: 7})
	}
	leaving := func() int {
		t.Helper()
		var regions v2Federation
		into(t, m.must(http.StatusOK, http.MethodGet, "/api/v2/federation", ""), &regions)
		return regions.Regions[0].Leaving
	}
	tellAll(1, all)
	tellAll(2, kept)
	mustEqual(t, "what goes while it is held", leaving(), 0)
	for passed := time.Duration(0); passed < registry.HeldSweepMax+time.Minute; passed += 10 * time.Second {
		m.clock.pass(10 * time.Second)
		step(registry.ImportStepChanges, at)
	}
	mustEqual(t, "what goes when it was held for long enough", leaving(), all-kept)
	if _, err := m.config.Registry.ControlRegion(t.Context(), k, registry.RegionForget); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "what goes of a forgotten copy", leaving(), all-8*commandsRemove)
}

// toldInstances are some instances as a region tells them, by number.
func toldInstances(from, to int) []registry.ImportItem {
	var items []registry.ImportItem
	for n := from; n < to; n++ {
		items = append(items, registry.ImportItem{
			Key: registry.InstanceKey{Namespace: "prod", Service: "orders", ID: fmt.Sprintf("%05d", n)}, Revision: 6,
			Record: &recordv1.InstanceRecord{Format: 1, Status: recordv1.InstanceRecord_STATUS_PASSING, Spec: &recordv1.InstanceSpec{
				LeaseTtlMs: 30_000, Endpoints: []*recordv1.Endpoint{{Name: "http", Protocol: "http", Host: "10.1.0.1", Port: 80, Weight: 100}},
			}},
		})
	}
	return items
}

// TestWhatAnOldCopyIsToldAs shows an instance that is suspect since its copy is old: with
// the reason, with what its own region says, and in the list of copies.
func TestWhatAnOldCopyIsToldAs(t *testing.T) {
	b := registry.RegionKey{Region: "b", Cluster: 200}
	m := newMember(t, func(c *Config) {
		c.Federation = func() Federation {
			return Federation{Neighbours: registry.Neighbours{Sources: []registry.RegionKey{b}, Fresh: 30 * time.Second}}
		}
	})
	in := registry.Import{Region: b, Step: registry.ImportStepBegin, Upto: registry.ImportCursor{Incarnation: "beef", Sync: 1}}
	part := in
	part.Step, part.After, part.Upto.Parts, part.KnownAge = registry.ImportStepPart, in.Upto, 1, true
	part.Items = []registry.ImportItem{{
		Key: registry.InstanceKey{Namespace: "prod", Service: "orders", ID: "a"}, Revision: 6,
		Record: &recordv1.InstanceRecord{Format: 1, Status: recordv1.InstanceRecord_STATUS_WARNING, Spec: &recordv1.InstanceSpec{
			LeaseTtlMs: 30_000, Endpoints: []*recordv1.Endpoint{{Name: "http", Protocol: "http", Host: "10.1.0.1", Port: 80, Weight: 100}},
		}},
	}}
	for _, one := range []registry.Import{in, part} {
		if _, err := m.config.Registry.Import(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/orders/policy", `{"failover":{"stale":"suspect","staleAfterSeconds":30}}`)
	m.clock.pass(30 * time.Second)
	if err := m.config.Registry.AgeRegion(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	of := m.must(http.StatusOK, http.MethodGet, "/api/v2/namespaces/prod/services/orders/instances?region=b", "").Body.String()
	for _, part := range []string{`"status":"suspect"`, `"status":"warning"}`, `"source":"region"`, `"reason":"the copy of region b is older than the 30s of the service's policy"`} {
		if !strings.Contains(of, part) {
			t.Errorf("the instances of the region lack %s: %s", part, of)
		}
	}
	var regions v2Federation
	into(t, m.must(http.StatusOK, http.MethodGet, "/api/v2/federation", ""), &regions)
	mustEqual(t, "how many are suspect", regions.Regions[0].Suspect, 1)
}

// TestAnOperatorActsOnACopy shows the calls of the administration port, and what they refuse.
func TestAnOperatorActsOnACopy(t *testing.T) {
	m := newMember(t, func(c *Config) { c.AdminToken = "secret" })
	b := registry.RegionKey{Region: "b", Cluster: 200}
	begin := registry.Import{Region: b, Step: registry.ImportStepBegin, Upto: registry.ImportCursor{Incarnation: "beef", Sync: 1}}
	if _, err := m.config.Registry.Import(context.Background(), begin); err != nil {
		t.Fatal(err)
	}
	post := func(status int, action, body, token string) {
		t.Helper()
		w := httptest.NewRecorder()
		m.api.AdminHandler().ServeHTTP(w, request(http.MethodPost, "/admin/v1/federation/"+action, body, "Authorization: Bearer "+token))
		if w.Code != status {
			t.Errorf("%s %s: %d %s, want %d", action, body, w.Code, w.Body, status)
		}
	}
	post(http.StatusUnauthorized, "pause", `{"region":"b"}`, "wrong")
	post(http.StatusBadRequest, "pause", `{}`, "secret")
	post(http.StatusBadRequest, "pause", `{"region":"b","cluster":200}`, "secret")
	post(http.StatusNotFound, "pause", `{"region":"c"}`, "secret")
	post(http.StatusNotFound, "pause", `{"region":"b","clusterId":300}`, "secret")
	post(http.StatusNotFound, "spin", `{"region":"b"}`, "secret")
	mustEqual(t, "whether it is paused", m.config.Registry.Region(b).Paused, false)
	post(http.StatusOK, "pause", `{"region":"b"}`, "secret")
	mustEqual(t, "whether it is paused", m.config.Registry.Region(b).Paused, true)
	post(http.StatusOK, "resume", `{"region":"b","clusterId":200}`, "secret")
	mustEqual(t, "whether it is paused", m.config.Registry.Region(b).Paused, false)
	post(http.StatusOK, "resync", `{"region":"b"}`, "secret")
	mustEqual(t, "where it is, within a sync that was not swept", m.config.Registry.Region(b).Cursor, registry.ImportCursor{Sync: 1})
}

// TestWhyARegionIsNotFollowed shows the leader's word on how regions are followed, beside
// what the asked member has of them, and what is told where it gives none.
func TestWhyARegionIsNotFollowed(t *testing.T) {
	b, c := registry.RegionKey{Region: "b", Cluster: 200}, registry.RegionKey{Region: "c", Cluster: 300}
	var says Following
	m := newMember(t, func(config *Config) {
		config.Federation = func() Federation {
			return Federation{Neighbours: registry.Neighbours{Sources: []registry.RegionKey{b, c}}, Following: func(context.Context) Following { return says }}
		}
	})
	var got v2Federation
	ask := func() {
		t.Helper()
		got = v2Federation{}
		into(t, m.must(http.StatusOK, http.MethodGet, "/api/v2/federation", ""), &got)
	}
	says = Following{Member: 2, Links: []RegionLink{
		{Region: c, Address: "10.3.0.1:19090", Problem: &RegionProblem{Code: "unreachable", Text: "it cannot be reached", Since: time.Unix(60, 0)}},
		{Region: b, Address: "10.2.0.1:19090", Member: 3, FeatureLevel: 2, Problem: &RegionProblem{Code: "newer_version", Text: "it is newer"}},
	}}
	ask()
	mustEqual(t, "who follows", *got.FollowedBy, v2FollowedBy{Member: 2})
	mustEqual(t, "who is followed", *got.Regions[0].Source, v2RegionSource{Address: "10.2.0.1:19090", Member: 3, FeatureLevel: 2})
	mustEqual(t, "what may soon be wrong", *got.Regions[0].Problem, v2RegionProblem{Code: "newer_version", Text: "it is newer"})
	mustEqual(t, "who is tried", *got.Regions[1].Source, v2RegionSource{Address: "10.3.0.1:19090"})
	mustEqual(t, "what is wrong", *got.Regions[1].Problem, v2RegionProblem{Code: "unreachable", Text: "it cannot be reached", Since: "1970-01-01T00:01:00.000Z"})

	for _, says = range []Following{{Member: 2, Err: errors.New("node 2 is not connected")}, {}, {Member: 1, Links: []RegionLink{{Region: b}}}} {
		ask()
		want := v2FollowedBy{Member: says.Member}
		if says.Err != nil {
			want.Error = "node 2 is not connected"
		}
		mustEqual(t, "who follows", *got.FollowedBy, want)
		if got.Regions[0].Source != nil || got.Regions[0].Problem != nil {
			t.Errorf("it is said to be followed: %+v", got.Regions[0])
		}
	}
}
