package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// Who may look at proxies, but not at those of one namespace, finds no trace of these: not in
// a list, whatever the size of its pages, nor by their names, nor beside others of one name.
func TestProxiesOfANamespaceAreHidden(t *testing.T) {
	f := &fakeProxies{all: map[uint64][]Proxy{
		1: {{Node: "a", Number: 1, Namespace: "prod"}, {Node: "b", Number: 2, Namespace: "secret"}, {Node: "c", Number: 3, Namespace: "secret"}},
		2: {{Node: "a", Number: 1, Namespace: "secret"}, {Node: "d", Number: 2, Namespace: "prod"}},
	}, resources: []ProxyResource{{Number: 1, Type: "cds", Name: "x", State: "absent"}, {Number: 1, Type: "cds", Name: "y", State: "absent"}}}
	some := &holder{"some", func(a registry.Ask) bool { return a.Namespace != "secret" }}
	m := newMember(t, func(c *Config) {
		c.Proxies = f
		c.Access = func(*http.Request) (registry.Caller, error) { return some, nil }
	})
	m.register("orders", "a", "10.0.0.1", "")
	for limit := 1; limit <= 6; limit++ {
		got, cursor := "", ""
		for pages := 0; pages <= 6; pages++ {
			var page v2ProxyPage
			into(t, m.must(200, "GET", fmt.Sprintf("/api/v2/proxies?limit=%d&cursor=%s", limit, cursor), ""), &page)
			for _, p := range page.Proxies {
				got += fmt.Sprintf("%d %s;", p.Member, p.Node)
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
		}
		mustEqual(t, fmt.Sprintf("the list in pages of %d", limit), got, "1 a;2 d;")
	}
	m.must(404, "GET", "/api/v2/proxies/b", "")
	m.must(404, "GET", "/api/v2/proxies/b/explain?namespace=prod&service=orders", "")
	for limit := 1; limit <= 4; limit++ {
		got, cursor := "", ""
		for pages := 0; pages <= 5; pages++ {
			var page v2ProxyDetail
			into(t, m.must(200, "GET", fmt.Sprintf("/api/v2/proxies/a?limit=%d&cursor=%s", limit, cursor), ""), &page)
			if len(page.Proxies) != 1 {
				t.Errorf("of one name there are %+v", page.Proxies)
			}
			for _, r := range page.Resources {
				got += fmt.Sprintf("%d %s;", r.Member, r.Name)
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
		}
		mustEqual(t, fmt.Sprintf("the resources in pages of %d", limit), got, "1 x;1 y;")
	}
	var page v2ProxyPage
	into(t, m.must(200, "GET", "/api/v2/proxies", ""), &page)
	if page.Count != 2 || page.Members[0].Proxies != 1 || page.Members[1].Proxies != 1 {
		t.Errorf("they are counted: %+v", page)
	}
	var explained v2ProxyExplained
	into(t, m.must(200, "GET", "/api/v2/proxies/a/explain?namespace=prod&service=orders", ""), &explained)
	if len(explained.Explanations) != 1 || len(explained.Members) != 2 || explained.Members[1].Proxies != 0 {
		t.Errorf("it is explained: %+v", explained)
	}
}

// Who may look at all proxies, but not at the instances of one namespace, is told by none of its
// services that a proxy refuses what came by it: neither by its name nor in the proxy's words.
func TestEditsOfServicesOfANamespaceAreHidden(t *testing.T) {
	cause := func(namespace, service string) PolicyCause {
		return PolicyCause{Service: registry.ServiceKey{Namespace: namespace, Service: service}, Version: 3, By: "alice"}
	}
	resources := []ProxyResource{
		{Number: 1, Type: "cds", Name: "orders.prod", State: "synced"},
		{Number: 1, Type: "rds", Name: "http", State: "rejected", Reason: "host orders.prod", Causes: []PolicyCause{cause("prod", "orders")}},
		{Number: 1, Type: "rds", Name: "tls", State: "rejected", Reason: "host vault.secret", Causes: []PolicyCause{cause("secret", "vault"), cause("prod", "orders")}},
	}
	f := &fakeProxies{all: map[uint64][]Proxy{1: {{Node: "a", Number: 1, Namespace: "prod"}}}, resources: resources}
	may := func(registry.Ask) bool { return true }
	m := newMember(t, func(c *Config) {
		c.Proxies = f
		c.Access = func(*http.Request) (registry.Caller, error) { return &holder{"some", may}, nil }
	})
	m.register("orders", "a", "10.0.0.1", "")
	pages := []string{"/api/v2/proxies/a", "/api/v2/proxies/a/explain?namespace=prod&service=orders"}
	for _, page := range pages {
		if said := m.must(200, "GET", page, "").Body.String(); !strings.Contains(said, "vault") || strings.Contains(said, causeLeftOut) {
			t.Errorf("who may read everything is told by %s\n%s", page, said)
		}
	}
	may = func(a registry.Ask) bool { return a.Namespace != "secret" || a.Resource != registry.ResourceInstances }
	for _, page := range pages {
		said := m.must(200, "GET", page, "").Body.String()
		if strings.Contains(said, "vault") || !strings.Contains(said, "host orders.prod") || !strings.Contains(said, causeLeftOut) || strings.Count(said, `"service":"orders","version":3`) != 2 {
			t.Errorf("who may not is told by %s\n%s", page, said)
		}
	}
}
