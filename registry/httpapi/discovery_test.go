package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// TestWhoIsGivenWhat shows what a client is given of a service by the mode of its policy or
// of the request, in which priority, and what is said of regions that it is given nothing of.
func TestWhoIsGivenWhat(t *testing.T) {
	b, c := registry.RegionKey{Region: "b", Cluster: 200}, registry.RegionKey{Region: "c", Cluster: 300}
	pay, err := registry.Select([]registry.Selected{{Namespace: "prod", Services: []string{"pay"}}})
	if err != nil {
		t.Fatal(err)
	}
	m := newMember(t, func(config *Config) {
		config.Federation = func() Federation {
			return Federation{Sources: []registry.RegionKey{b, c}, Fresh: 30 * time.Second, Wanted: []registry.Selection{{}, pay}, Exports: pay}
		}
	})
	m.register("orders", "a", "10.0.0.1", "")
	in := registry.Import{Region: b, Step: registry.ImportStepBegin, Upto: registry.ImportCursor{Incarnation: "beef", Sync: 1}}
	part := in
	part.Step, part.After, part.Upto.Parts, part.KnownAge = registry.ImportStepPart, in.Upto, 1, true
	for _, id := range []string{"x", "y"} {
		part.Items = append(part.Items, registry.ImportItem{
			Key: registry.InstanceKey{Namespace: "prod", Service: "orders", ID: id},
			Record: &recordv1.InstanceRecord{Format: 1, Status: recordv1.InstanceRecord_STATUS_PASSING, Spec: &recordv1.InstanceSpec{
				LeaseTtlMs: 30_000, Endpoints: []*recordv1.Endpoint{{Name: "http", Protocol: "http", Host: "10.1.0.1", Port: 80, Weight: 100}},
			}},
		})
	}
	sweep := part
	sweep.Step, sweep.After, sweep.Items, sweep.Upto = registry.ImportStepSweep, part.Upto, nil, registry.ImportCursor{Incarnation: "beef", Revision: 7}
	for _, one := range []registry.Import{in, part, sweep} {
		if _, err := m.config.Registry.Import(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(query string) (d shownDiscovery) {
		t.Helper()
		into(t, m.must(http.StatusOK, http.MethodGet, "/api/v2/namespaces/prod/services/orders/discovery"+query, ""), &d)
		return d
	}
	inWords := func(d shownDiscovery) string {
		out := []string{d.Mode}
		for _, r := range d.Regions {
			var codes []string
			for _, why := range r.Why {
				codes = append(codes, why.Code)
			}
			out = append(out, fmt.Sprintf("%s gives %d of %d as %v, for %v", r.Region, r.Given, r.Instances, r.Priorities, codes))
		}
		return strings.Join(out, "; ")
	}
	const cGives = "; c gives 0 of 0 as [], for [not_imported nothing_told not_connected]"
	for query, want := range map[string]string{
		"":                                   "remote-fallback; here gives 1 of 1 as [0], for []; b gives 2 of 2 as [1], for []",
		"?failover=merged":                   "merged; here gives 1 of 1 as [0], for []; b gives 2 of 2 as [0], for []",
		"?failover=local-only":               "local-only; here gives 1 of 1 as [0], for []; b gives 0 of 2 as [], for [local_only]",
		"?failover=local-first":              "local-first; here gives 1 of 1 as [0], for []; b gives 0 of 2 as [], for [local_first]",
		"?fromRegion=b":                      "remote-fallback; here gives 1 of 1 as [1], for []; b gives 2 of 2 as [0], for []",
		"?fromRegion=c&failover=local-first": "local-first; here gives 1 of 1 as [1], for []; b gives 2 of 2 as [0], for []",
	} {
		mustEqual(t, "what is given for "+query, inWords(ask(query)), want+cGives)
	}
	d := ask("?limit=1")
	mustEqual(t, "the first", d.Instances[0].InstanceID, "a")
	mustEqual(t, "whether there are more", d.More && len(d.Instances) == 1, true)
	mustEqual(t, "what others are told", d.Exported, "none")
	for query, field := range map[string]string{"?failover=nearest": "failover", "?failover=": "failover", "?limit=1001": "limit", "?region=b": "region"} {
		if body := m.must(http.StatusBadRequest, http.MethodGet, "/api/v2/namespaces/prod/services/orders/discovery"+query, "").Body.String(); !strings.Contains(body, `"field":"`+field+`"`) {
			t.Errorf("%s is refused with %s", query, body)
		}
	}
}
