package httpapi

import (
	"fmt"
	"net/http"
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
