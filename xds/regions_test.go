package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// tell has the member take in what another region tells of instances.
func (m *member) tell(region string, items ...registry.ImportItem) {
	m.tb.Helper()
	k := registry.RegionKey{Region: region, Cluster: 1}
	step := func(what registry.ImportStep, upto registry.ImportCursor, items ...registry.ImportItem) {
		in := registry.Import{Region: k, Step: what, After: m.registry.Region(k).Cursor, Upto: upto, Items: items}
		if r, err := m.registry.Import(m.tb.Context(), in); err != nil || len(r.Refused) > 0 {
			m.tb.Fatalf("what %s tells is not taken in: %v, %v", region, r.Refused, err)
		}
	}
	if m.registry.Region(k).Cursor.Anew() {
		step(registry.ImportStepBegin, m.registry.Region(k).NextSync("cafe"))
		step(registry.ImportStepSweep, registry.ImportCursor{Incarnation: "cafe", Revision: 1})
	}
	upto := m.registry.Region(k).Cursor
	upto.Revision++
	step(registry.ImportStepChanges, upto, items...)
}

// told is an instance of a service of namespace prod as its region tells it, at an address
// made of a number; status 0 = it is gone.
func toldOf(service string, n int, zone string, status registry.Status, endpoints ...registry.Endpoint) registry.ImportItem {
	item := registry.ImportItem{Key: registry.InstanceKey{Namespace: "prod", Service: service, ID: fmt.Sprint(n)}, Revision: 1, Gone: status == 0}
	if item.Gone {
		return item
	}
	if len(endpoints) == 0 {
		endpoints = []registry.Endpoint{at("http", "http", addressOf(n), 80, 100)}
	}
	spec := &recordv1.InstanceSpec{Zone: zone, LeaseTtlMs: 30_000}
	for _, e := range endpoints {
		spec.Endpoints = append(spec.Endpoints, &recordv1.Endpoint{Name: e.Name, Protocol: e.Protocol, Host: e.Host, Port: e.Port, Weight: e.Weight})
	}
	item.Record = &recordv1.InstanceRecord{Format: 1, Spec: spec, RegisteredAtMs: 1, LastHeartbeatMs: 1, Status: recordv1.InstanceRecord_Status(status)}
	if status == registry.StatusExpired {
		item.Record.ExpiredAtMs = 2
	}
	return item
}

// regionsOfAService are four instances here in two zones, of which one has failed, and some elsewhere.
func regionsOfAService() *registry.Service {
	web := func(n int, weight int32) registry.Endpoint { return at("http", "http", addressOf(n), 80, weight) }
	const passing, critical, suspect = registry.StatusPassing, registry.StatusCritical, registry.StatusSuspect
	return service(primary("http"),
		instance("east/1/a", "east", "x", passing, web(101, 100)), instance("east/1/b", "east", "y", suspect, web(102, 100)),
		instance("h1", "here", "x", passing, web(1, 100)), instance("h2", "here", "x", passing, web(2, 100)),
		instance("h3", "here", "y", passing, web(3, 300)), instance("h4", "here", "y", critical, web(4, 100)),
		instance("west/1/a", "west", "", passing, web(201, 100)), instance("west/1/h1", "west", "", passing, web(1, 100)))
}

// What each mode of failover, and each of its fields, has the two kinds of clients told:
// those of zone x of region here, whose settings name west before east.
func TestFailover(t *testing.T) {
	for name, policy := range map[string]string{
		"remote-fallback":          `{}`,
		"local-only":               `{"mode":"local-only"}`,
		"local-first":              `{"mode":"local-first"}`,
		"local-first with too few": `{"mode":"local-first","minPassing":4}`,
		"merged":                   `{"mode":"merged"}`,
		"regions":                  `{"regions":["east"]}`,
		"zone first":               `{"zoneFirst":true}`,
		"zone first without share": `{"zoneFirst":true,"overprovisioningPercent":100}`,
		"all or nothing":           `{"allOrNothing":true}`,
		"all or nothing with less": `{"allOrNothing":true,"minHealthyPercent":80}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, p := regionsOfAService(), policyOf(t, `{"failover":`+policy+`}`)
			s.Policy = &p
			at := registry.Standpoint{Region: "here", Zone: "x", Order: []string{"here", "west", "east"}}
			envoy, withheld := buildEndpoints(s, 0, at)
			grpc := buildEndpointsForGRPC(s, 0, at)
			mustBeTakenByGRPC(t, grpc)
			text := envoyJSON(t, envoy)
			for _, w := range withheld {
				text += "withheld: " + w.Instance + ": " + w.Reason + "\n"
			}
			file := strings.ReplaceAll(name, " ", "_")
			golden(t, "failover/"+file+".envoy.txt", policy+"\n"+text)
			golden(t, "failover/"+file+".grpc.txt", policy+"\n"+envoyJSON(t, grpc))
			slices.Reverse(s.Shown)
			if again, _ := buildEndpoints(s, 0, at); envoyJSON(t, again) != envoyJSON(t, envoy) {
				t.Error("it depends on the order of the instances")
			}
		})
	}
}

// What a zone that has lost four hosts of five gets of its region's calls: as much as if a
// region did not keep its calls to the last, and of both kinds of clients the same.
func TestFailoverBetweenZones(t *testing.T) {
	for name, policy := range map[string]string{"all or nothing": `{"allOrNothing":true}`, "as far as it can": `{}`} {
		t.Run(name, func(t *testing.T) {
			s, p := service(primary("http")), policyOf(t, `{"failover":`+policy+`}`)
			s.Policy = &p
			for n := 1; n <= 10; n++ {
				zone, status := "x", registry.StatusCritical
				if n > 5 {
					zone = "y"
				}
				if n >= 5 {
					status = registry.StatusPassing
				}
				s.Shown = append(s.Shown, instance(fmt.Sprintf("h%02d", n), "here", zone, status, at("http", "http", addressOf(n), 80, 100)))
			}
			s.Shown = append(s.Shown, instance("west/1/a", "west", "", registry.StatusPassing, at("http", "http", addressOf(201), 80, 100)))
			at := registry.Standpoint{Region: "here"}
			envoy, _ := buildEndpoints(s, 0, at)
			grpc := buildEndpointsForGRPC(s, 0, at)
			mustBeTakenByGRPC(t, grpc)
			if got := shareOfZone(envoy, "x", true); got != 21 { // 28 % of its half, of what both can take
				t.Errorf("of an Envoy's calls the zone gets %d %%, wanted 21:\n%s", got, envoyJSON(t, envoy))
			}
			if got := shareOfZone(grpc, "x", false); got != 21 {
				t.Errorf("of a gRPC client's calls the zone gets %d %%, wanted 21:\n%s", got, envoyJSON(t, grpc))
			}
			file := strings.ReplaceAll(name, " ", "_")
			golden(t, "failover/zones_"+file+".txt", policy+"\n"+envoyJSON(t, envoy)+envoyJSON(t, grpc))
		})
	}
}

// shareOfZone is how much of the calls of region here go to a zone of it, in percent: by the weights
// of the localities, which Envoy lowers by what is healthy in them.
func shareOfZone(m *endpointv3.ClusterLoadAssignment, zone string, lowers bool) uint64 {
	var of, all uint64
	for _, l := range m.Endpoints {
		if l.Locality.Region != "here" {
			continue
		}
		can := uint64(100)
		if lowers {
			healthy := uint64(0)
			for _, e := range l.LbEndpoints {
				if e.HealthStatus == corev3.HealthStatus_HEALTHY {
					healthy++
				}
			}
			can = min(100, uint64(m.Policy.OverprovisioningFactor.Value)*healthy/uint64(len(l.LbEndpoints)))
		}
		weight := uint64(l.LoadBalancingWeight.GetValue()) * can
		all += weight
		if l.Locality.Zone == zone {
			of += weight
		}
	}
	return of * 100 / all
}
