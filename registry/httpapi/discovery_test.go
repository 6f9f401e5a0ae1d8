package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
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
			return Federation{Neighbours: registry.Neighbours{Sources: []registry.RegionKey{b, c}, Fresh: 30 * time.Second, Wanted: []registry.Selection{{}, pay}, Exports: pay}}
		}
	})
	m.register("orders", "a", "10.0.0.1", "")
	tell := func(region registry.RegionKey, all string) {
		registrytest.Tell(t, m.config.Registry, region, registrytest.ToldOf(t, all)...)
	}
	tell(b, "prod orders x http 10.1.0.1 80\nprod orders y http 10.1.0.1 81\n")
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
		"?failover=gateway":                  "gateway; here gives 1 of 1 as [0], for []; b gives 0 of 2 as [], for [no_gateway]",
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

// TestOtherRegionsAreDiscoveredByTheirGateways shows gateways in the place of instances: where there is
// something to lead to and a gateway that can be called, each endpoint with the host by which the gateway knows it.
func TestOtherRegionsAreDiscoveredByTheirGateways(t *testing.T) {
	b, c, d := registry.RegionKey{Region: "b", Cluster: 200}, registry.RegionKey{Region: "c", Cluster: 300}, registry.RegionKey{Region: "d", Cluster: 400}
	m := newMember(t, func(config *Config) {
		config.Federation = func() Federation {
			return Federation{Neighbours: registry.Neighbours{Sources: []registry.RegionKey{b, c, d}, Fresh: 30 * time.Second}}
		}
	})
	const orders = "/api/v2/namespaces/prod/services/orders"
	m.must(http.StatusCreated, http.MethodPut, orders+"/instances/a", `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80},{"name":"Admin","protocol":"http","host":"10.0.0.1","port":81},{"protocol":"redis","host":"10.0.0.1","port":82}]}`)
	m.must(http.StatusCreated, http.MethodPut, orders+"/policy", `{"failover":{"mode":"gateway","gateway":"edge.infra"}}`)
	ask := func(query string) string {
		t.Helper()
		var found shownDiscovery
		into(t, m.must(http.StatusOK, http.MethodGet, orders+"/discovery"+query, ""), &found)
		var out []string
		for _, i := range found.Instances {
			one := fmt.Sprintf("%d %s", i.Priority, i.InstanceID)
			if i.Gateway != nil {
				one += " of " + i.Gateway.Namespace + "/" + i.Gateway.Service
			}
			for _, e := range i.Endpoints {
				one += fmt.Sprintf(" %s=%s://%s:%d", e.Name, e.Protocol, e.Host, e.Port)
				if e.Authority != "" {
					one += " as " + e.Authority
				}
			}
			out = append(out, one)
		}
		for _, r := range found.Regions {
			for _, why := range r.Why {
				if strings.HasSuffix(why.Code, "gateway") {
					out = append(out, r.Region+": "+why.Text)
				}
			}
		}
		return strings.Join(out, "\n")
	}
	const (
		own    = "0 a http=http://10.0.0.1:80 Admin=http://10.0.0.1:81 redis=redis://10.0.0.1:82"
		byEdge = "it is reached by its gateways, the instances of service edge in namespace infra there, which are given in place of its instances"
		isNot  = ": it is reached by gateways, and is not: "
		noEdge = isNot + "service edge in namespace infra has no instance there that can be called"
	)
	tell := func(region registry.RegionKey, all string) {
		registrytest.Tell(t, m.config.Registry, region, registrytest.ToldOf(t, all)...)
	}
	tell(b, "prod orders x http 10.1.0.1 80\n")
	mustEqual(t, "what is given where nobody has a gateway", ask(""), own+"\nb"+isNot+"there is no service edge in namespace infra to be the gateways")
	tell(b, "prod orders x http 10.1.0.1 80\ninfra edge g1 tcp 10.1.9.1 15443\ninfra edge g2 tcp 10.1.9.2 15443 critical\n")
	tell(c, "prod orders x http 10.2.0.1 80\ninfra edge g1 tcp 10.2.9.1 15443 critical\n")
	tell(d, "prod orders x http 10.3.0.1 80 critical\ninfra edge g1 tcp 10.3.9.1 15443\n")
	const led = "b/200/g1 of infra/edge http=http://10.1.9.1:15443 as orders.prod Admin=http://10.1.9.1:15443 as admin--orders.prod.mesh"
	mustEqual(t, "what is given by gateways", ask(""), own+"\n1 "+led+"\nb: "+byEdge+"\nc"+noEdge)
	mustEqual(t, "what a client of c is given", ask("?fromRegion=c"), "0 c/300/x http=http://10.2.0.1:80\n1 "+led+"\nhere"+noEdge+"\nb: "+byEdge)
	mustEqual(t, "what is given in another mode", ask("?failover=local-first"), own)
	tell(b, "prod orders x http 10.1.0.1 80\ninfra edge g1 tcp 10.1.9.1 15443 critical\n")
	tell(c, "prod orders x http 10.2.0.1 80\ninfra edge g1 tcp 10.2.9.1 15443\n")
	mustEqual(t, "what is given when a region's gateways cannot be called", ask(""), own+"\n1 "+strings.NewReplacer("b/200", "c/300", "10.1.", "10.2.").Replace(led)+"\nb"+noEdge+"\nc: "+byEdge)
}
