package httpapi

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// TestTheExamplesOfTheQueryDocs asks for what docs/query.md shows, and compares the answers.
func TestTheExamplesOfTheQueryDocs(t *testing.T) {
	m := newMember(t, nil)
	for _, one := range []struct{ at, more string }{
		{"prod/services/acme.shop.checkout.cart.api/instances/cart-1", `"zone":"a","version":"1.4","labels":{"track":"canary"}`},
		{"prod/services/acme.shop.checkout.cart.api/instances/cart-2", `"zone":"b","version":"1.3","labels":{"track":"stable"}`},
		{"prod/services/acme2.shop.checkout.cart.api/instances/other-1", `"zone":"b","labels":{"track":"beta"}`},
		{"prod/services/orders/instances/orders-1", `"zone":"a","version":"1.3"`},
		{"test/services/orders/instances/orders-1", `"version":"1.4"`},
	} {
		m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/"+one.at, `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],`+one.more+`}`)
	}
	m.tryExamples("../../docs/query.md", 6)
}

// TestTheExamplesOfTheStateDocs does what docs/states.md shows.
func TestTheExamplesOfTheStateDocs(t *testing.T) {
	at := time.UnixMilli(1_790_000_000_123)
	m := newMember(t, func(c *Config) {
		c.Proxies = &fakeProxies{answers: []MemberPropagation{{Member: 1, Revision: 6, Interested: 2, Acknowledged: 1, Pending: []PendingProxy{
			{Node: "web-2", Peer: "10.1.0.1:4711", Type: "eds", Resource: "orders.prod", State: "rejected", Since: at, Reason: "no such filter"},
		}}}}
	})
	m.register("orders", "a", "10.0.0.1", "")
	m.tryExamples("../../docs/states.md", 6)
}

// TestTheExamplesOfTheProxyDocs asks for what docs/proxies.md shows.
func TestTheExamplesOfTheProxyDocs(t *testing.T) {
	at, f := time.UnixMilli(1_790_000_000_123), newFakeProxies()
	m := newMember(t, func(c *Config) { c.Proxies = f })
	m.register("orders", "a", "10.0.0.1", "")
	p := &f.all[1][0]
	p.State = "rejected"
	p.Types = []ProxyType{{
		Type: "cds", State: "rejected", Since: at, AckedAt: at, Wildcard: true, Resources: 4, Sent: 41, Acked: 40, InSync: true,
		RejectedCount: 1, Rejected: []ProxyRejection{{"orders.prod", "ring hash: minimum above maximum", at}},
	}}
	f.all, f.away = map[uint64][]Proxy{1: {*p}}, map[uint64]bool{}
	f.resources = []ProxyResource{{
		Number: 7, Type: "cds", Name: "orders.prod", State: "rejected", Since: at, Reason: "ring hash: minimum above maximum",
		Causes: []PolicyCause{{registry.ServiceKey{Namespace: "prod", Service: "orders"}, 3, 41, "alice at 10.0.0.9", at}},
		Wanted: ProxyContent{Hash: 1 << 60, Revision: 41, Content: []byte(`{"name":"orders.prod","lb_policy":"RING_HASH"}`)},
		Sent:   ProxyContent{Hash: 255, Revision: 40}, Acked: ProxyContent{Hash: 255, Revision: 40, Content: []byte(`{"name":"orders.prod"}`)},
	}}
	m.tryExamples("../../docs/proxies.md", 3)
}

// TestTheExamplesOfTheLoadDocs asks for what docs/load.md shows.
func TestTheExamplesOfTheLoadDocs(t *testing.T) {
	f := newFakeProxies()
	f.loads[0].Clusters = f.loads[0].Clusters[:1]
	m := newMember(t, func(c *Config) { c.Proxies = f })
	m.register("orders", "a", "10.0.0.1", "")
	m.tryExamples("../../docs/load.md", 1)
}

// TestTheExamplesOfTheBatchDocs does what docs/batch.md shows.
func TestTheExamplesOfTheBatchDocs(t *testing.T) {
	m := newMember(t, nil)
	m.tryExamples("../../docs/batch.md", 3)
}

// TestTheExamplesOfTheLeaseDocs does what docs/leases.md shows.
func TestTheExamplesOfTheLeaseDocs(t *testing.T) {
	newMember(t, nil).tryExamples("../../docs/leases.md", 7)
}

// TestTheExamplesOfTheHealthDocs does what docs/health.md shows.
func TestTheExamplesOfTheHealthDocs(t *testing.T) {
	newMember(t, nil).tryExamples("../../docs/health.md", 4)
}

// TestTheExamplesOfTheReportDocs does what docs/reports.md shows, after two others have reported a.
func TestTheExamplesOfTheReportDocs(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	m.register("orders", "b", "10.0.0.2", "")
	for n := range 2 {
		m.must(http.StatusOK, http.MethodPost, "/api/v2/namespaces/prod/services/orders/instances/a/report",
			fmt.Sprintf(`{"reporter":"web-%d","outcome":"failure","reason":"connection refused"}`, n+1), fmt.Sprintf("From-Address: 10.1.0.%d:4711", n+1))
	}
	examples := m.examples("../../docs/reports.md", 5)
	for n, one := range examples {
		if n == len(examples)-1 {
			m.await("orders", "a", "critical")
		}
		m.try(one)
	}
}

// TestTheExamplesOfThePolicyDocs does what docs/policies.md shows.
func TestTheExamplesOfThePolicyDocs(t *testing.T) {
	m := newMember(t, nil)
	m.register("stock", "a", "10.0.0.1", "")
	m.register("stock", "b", "10.0.0.2", "")
	m.tryExamples("../../docs/policies.md", 11)
}

// TestTheExamplesOfTheScopeDocs does what docs/scopes.md shows.
func TestTheExamplesOfTheScopeDocs(t *testing.T) {
	newMember(t, nil).tryExamples("../../docs/scopes.md", 3)
}

// TestTheExamplesOfTheProtectionDocs asks for what docs/protection.md shows.
func TestTheExamplesOfTheProtectionDocs(t *testing.T) {
	m := newMember(t, nil)
	m.registerFleet()
	m.clock.pass(1500 * time.Millisecond)
	m.tryExamples("../../docs/protection.md", 3)
}

// TestTheExamplesOfThePrometheusDocs asks for what docs/prometheus.md shows.
func TestTheExamplesOfThePrometheusDocs(t *testing.T) {
	newMember(t, nil).tryExamples("../../docs/prometheus.md", 3)
}

// TestTheExamplesOfTheWatchDocs watches what docs/watch.md shows.
func TestTheExamplesOfTheWatchDocs(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	text, err := os.ReadFile("../../docs/watch.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```events\nGET ")
	target, frames, _ := strings.Cut(strings.SplitN(block, "```", 2)[0], "\n\n")
	c := watch(t, m.served(), target)
	m.register("orders", "b", "10.0.0.2", "")
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/deregister", `{"namespace":"prod","service":"orders","instanceId":"a"}`)
	for frame := range strings.SplitSeq(strings.TrimSpace(frames), "\n\n") {
		c.mustBe(frame + "\n")
	}
	m.tryExamples("../../docs/watch.md", 3)
}

// tryExamples makes the calls that a page shows, at least so many, and compares the answers.
func (m *member) tryExamples(page string, least int) {
	m.tb.Helper()
	for _, one := range m.examples(page, least) {
		m.try(one)
	}
}

// examples are the calls that a page shows, at least so many, each with its answer.
func (m *member) examples(page string, least int) (all []string) {
	m.tb.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		m.tb.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "```http\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		all = append(all, strings.Split(strings.TrimSpace(block), "\n\n")...)
	}
	mustEqual(m.tb, "that there were examples", len(all) >= least, true)
	return all
}

// try makes one call and compares the answer.
func (m *member) try(example string) {
	m.tb.Helper()
	request, rest, _ := strings.Cut(example, "\n")
	method, asked, _ := strings.Cut(request, " ")
	target, body, _ := strings.Cut(asked, " ")
	var headers []string
	for !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, "[") { // as answers begin
		var header string
		header, rest, _ = strings.Cut(rest, "\n")
		headers = append(headers, header)
	}
	if body != "" {
		m.mustBeTaken(method, target, body)
	}
	mustEqual(m.tb, "the answer to "+request, strings.TrimSpace(m.call(method, target, body, headers...).Body.String()), rest)
}
