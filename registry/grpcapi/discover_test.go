package grpcapi

import (
	"testing"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// TestADiscoveryFitsIntoAMessage shows that of many instances as many come as there is room for, and
// one always, and that the answer says that there are others.
func TestADiscoveryFitsIntoAMessage(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.discoverBytes = 200 })
	given := func() (int, bool) {
		t.Helper()
		answer, err := m.client.Discover(t.Context(), &stellmapv1.DiscoverRequest{Namespace: "prod", Service: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		return len(answer.GetInstances()), answer.GetMore()
	}
	for _, id := range []string{"a", "b", "c"} {
		m.register("orders", id)
		if n, more := given(); n != 1 || more != (id != "a") {
			t.Errorf("with %s there are %d in the answer, and it says that there are more: %v", id, n, more)
		}
	}
	m = newMember(t, nil)
	for _, id := range []string{"a", "b", "c"} {
		m.register("orders", id)
	}
	n, more := given()
	mustEqual(t, "how many there are where there is room", n, 3)
	mustEqual(t, "whether there are more", more, false)
}
