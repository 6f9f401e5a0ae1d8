package httpapi

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestTheExamplesOfTheQueryDocs asks for what docs/query.md shows, and compares the answers.
func TestTheExamplesOfTheQueryDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/query.md")
	if err != nil {
		t.Fatal(err)
	}
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
	asked := 0
	for _, block := range strings.Split(string(text), "```http\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for example := range strings.SplitSeq(strings.TrimSpace(block), "\n\n") {
			request, want, _ := strings.Cut(example, "\n")
			method, target, _ := strings.Cut(request, " ")
			mustEqual(t, "the answer to "+request, strings.TrimSpace(m.call(method, target, "").Body.String()), want)
			asked++
		}
	}
	mustEqual(t, "that there were examples", asked > 5, true)
}
