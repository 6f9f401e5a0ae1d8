package xds

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/stellmap/stellmap/registry"
)

// inZone is an Envoy in a zone that subscribes to the endpoints of orders.
func (m *member) inZone(zone string) *deltaClient {
	m.tb.Helper()
	node := nodeOf(m.tb)
	node.Id, node.Locality = "web-"+zone, &corev3.Locality{Zone: zone}
	c := m.delta(node)
	c.subscribe(typeEndpoints, "orders.prod")
	return c
}

// prioritiesOf are the zones that an answer has at each priority, by the first number of each.
func prioritiesOf(t *testing.T, r *discoveryv3.DeltaDiscoveryResponse) string {
	t.Helper()
	var out []string
	for _, l := range unpack[endpointv3.ClusterLoadAssignment](t, r.Resources[0].Resource).GetEndpoints() {
		out = append(out, fmt.Sprintf("%d%s", l.GetPriority(), l.GetLocality().GetZone()))
	}
	return strings.Join(out, " ")
}

// views are those of orders' endpoints that somebody has.
func (m *member) views() int {
	c := m.server.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := 0
	for _, res := range c.byCluster["orders.prod"] {
		if res.key.typ == typeEndpoints {
			n++
		}
	}
	return n
}

// All zones share one view until the policy of a service asks for zones: then each has one of
// its own, for which nobody else's are built, and later they share one again.
func TestZonesHaveViewsWhereThePolicyAsks(t *testing.T) {
	m := newMember(t, nil)
	for n, zone := range map[int]string{1: "a", 2: "b"} {
		m.addInZone("orders", n, zone)
	}
	m.add("ledger", 9)
	m.settled()
	built := m.costs()
	clients := map[string]*deltaClient{"a": m.inZone("a"), "b": m.inZone("b"), "": m.inZone("")}
	alsoA := m.inZone("a")
	expect := func(what string, views int, want map[string]string) {
		t.Helper()
		for zone, c := range clients {
			if want[zone] == "" {
				c.quiet()
				continue
			}
			r := c.wants(typeEndpoints, "orders.prod")
			if got := prioritiesOf(t, r); got != want[zone] {
				t.Errorf("%s: zone %q is told %s, want %s", what, zone, got, want[zone])
			}
			c.ack(r)
		}
		if want["a"] == "" {
			alsoA.quiet()
		} else {
			alsoA.ack(alsoA.wants(typeEndpoints, "orders.prod"))
		}
		if n := m.costs().since(built).built[typeEndpoints]; n != uint64(views) {
			t.Errorf("%s: %d views are built, want %d", what, n, views)
		}
		built = m.costs()
	}
	expect("without a policy", 1, map[string]string{"a": "0a 0b", "b": "0a 0b", "": "0a 0b"})
	m.putPolicy(t, "orders", `{"failover":{"zoneFirst":true}}`)
	expect("when the policy asks", 3, map[string]string{"a": "0a 1b", "b": "0b 1a"})
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "3", Zone: "b", Endpoints: []registry.Endpoint{at("http", "http", addressOf(3), 80, 40)}})
	expect("when an instance comes", 3, map[string]string{"a": "0a 1b", "b": "0b 1a", "": "0a 0b"})
	m.drop("orders", 1)
	expect("when a zone goes", 3, map[string]string{"a": "0b", "b": "0b", "": "0b"})
	m.add("ledger", 10)
	m.settled()
	expect("when another service changes", 0, nil)
	if n := m.views(); n != 3 {
		t.Errorf("there are %d views, want 3", n)
	}
	m.addInZone("orders", 1, "a")
	expect("when it is back", 3, map[string]string{"a": "0a 1b", "b": "0b 1a", "": "0a 0b"})
	m.putPolicy(t, "orders", `{}`)
	expect("when the policy no longer asks", 3, map[string]string{"a": "0a 0b", "b": "0a 0b"}) // the two that are left are compared once more
	if n := m.views(); n != 1 {
		t.Errorf("there are %d views, want 1", n)
	}
}

// A policy that asks for zones may come with the service, or go to another owner of the name.
func TestZonesOfANewService(t *testing.T) {
	m := newMember(t, nil)
	m.putPolicy(t, "orders", `{"failover":{"zoneFirst":true}}`)
	m.add("ledger", 9)
	m.settled()
	c := m.inZone("a")
	c.ack(c.wants(typeEndpoints, "-orders.prod"))
	for n, zone := range map[int]string{1: "a", 2: "b"} {
		m.addInZone("orders", n, zone)
	}
	got := ""
	for got != "0a 1b" && !t.Failed() {
		r := c.wants(typeEndpoints, "orders.prod")
		got = prioritiesOf(t, r)
		c.ack(r)
	}
}
