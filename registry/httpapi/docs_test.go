package httpapi

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
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

// TestTheExamplesOfThePolicyDocs does what docs/policies.md shows.
func TestTheExamplesOfThePolicyDocs(t *testing.T) {
	m := newMember(t, nil)
	m.register("stock", "a", "10.0.0.1", "")
	m.register("stock", "b", "10.0.0.2", "")
	m.tryExamples("../../docs/policies.md", 11)
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

// tryExamples makes the calls that a page shows, at least so many, and compares the answers.
func (m *member) tryExamples(page string, least int) {
	m.tb.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		m.tb.Fatal(err)
	}
	tried := 0
	for _, block := range strings.Split(string(text), "```http\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for example := range strings.SplitSeq(strings.TrimSpace(block), "\n\n") {
			request, rest, _ := strings.Cut(example, "\n")
			method, asked, _ := strings.Cut(request, " ")
			target, body, _ := strings.Cut(asked, " ")
			var headers []string
			for !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, "[") { // as answers begin
				var header string
				header, rest, _ = strings.Cut(rest, "\n")
				headers = append(headers, header)
			}
			mustEqual(m.tb, "the answer to "+request, strings.TrimSpace(m.call(method, target, body, headers...).Body.String()), rest)
			tried++
		}
	}
	mustEqual(m.tb, "that there were examples", tried >= least, true)
}
