package xds

import (
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// An Envoy that starts gets its clusters, their endpoints, the listener and the
// routes; an instance that comes later is one response with one resource.
func TestDeltaFromStartToChange(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	clusters := c.wants(typeCluster, "ledger.prod", "orders.prod")
	c.subscribe(typeEndpoints, "ledger.prod", "orders.prod")
	c.ack(c.wants(typeEndpoints, "ledger.prod", "orders.prod"))
	c.ack(clusters)
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, "egress"))
	c.subscribe(typeRoutes, "egress")
	c.ack(c.wants(typeRoutes, "egress"))
	m.add("orders", 3)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.quiet()
}

// A proxy without a service in sight is told so at once.
func TestDeltaEmptyScopeIsAnswered(t *testing.T) {
	m := newMember(t, nil)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster))
	c.quiet()
}

// A name that nobody has is answered as removed, and sent when it appears.
func TestDeltaUnknownNameAppearsLater(t *testing.T) {
	m := newMember(t, nil)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "-orders.prod"))
	m.add("orders", 1)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	m.drop("orders", 1)
	empty := c.wants(typeEndpoints, "orders.prod") // a service outlives its last instance
	c.ack(empty)
	c.quiet()
}

// A name that is subscribed to again is answered again, though it has not changed.
func TestDeltaSubscribingAgainIsAnswered(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.quiet()
}

// What is not subscribed to any more is not sent any more; under "*" it is sent
// again, since the client has just dropped it.
func TestDeltaUnsubscribe(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeEndpoints], ResourceNamesUnsubscribe: []string{"orders.prod"}})
	c.quiet()
	m.add("orders", 2)
	m.settled()
	c.quiet()
	c.subscribe(typeCluster, "*", "orders.prod")
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeCluster], ResourceNamesUnsubscribe: []string{"orders.prod"}})
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeCluster], ResourceNamesUnsubscribe: []string{"*"}})
	c.quiet()
	m.add("ledger", 1)
	m.settled()
	c.quiet()
}

// A client that names what it has from an earlier stream is sent what differs,
// and told what is gone; endpoints too.
func TestDeltaInitialVersions(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	have := versions(c.wants(typeCluster, "ledger.prod", "orders.prod"))
	have["gone.prod"] = have["orders.prod"]
	have["ledger.prod"] = "0123456789abcdef.1.i1"

	again := m.delta(nodeOf(t))
	again.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeCluster], InitialResourceVersions: have})
	again.ack(again.wants(typeCluster, "ledger.prod", "-gone.prod"))
	again.subscribe(typeEndpoints, "orders.prod")
	have = versions(again.wants(typeEndpoints, "orders.prod"))

	third := m.delta(nodeOf(t))
	third.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeEndpoints], ResourceNamesSubscribe: []string{"orders.prod"}, InitialResourceVersions: have})
	third.quiet()
	m.add("orders", 2)
	third.wants(typeEndpoints, "orders.prod")
}

// Versions of another incarnation of the cluster say nothing: all is sent anew.
func TestDeltaVersionsOfAnotherIncarnation(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	have := versions(c.wants(typeCluster, "orders.prod"))
	have["orders.prod"] = strings.Replace(have["orders.prod"], ".i1", ".i0", 1)
	have["gone.prod"] = "0123456789abcdef.999999.i0"
	again := m.delta(nodeOf(t))
	again.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeCluster], InitialResourceVersions: have})
	again.wants(typeCluster, "orders.prod", "-gone.prod")
}

func versions(r *discoveryv3.DeltaDiscoveryResponse) map[string]string {
	out := make(map[string]string)
	for _, res := range r.Resources {
		out[res.Name] = res.Version
	}
	return out
}

// While a response is not answered, changes coalesce: the next one has the latest
// of all of them, once.
func TestDeltaOneUnansweredResponse(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	first := c.wants(typeEndpoints, "orders.prod")
	for n := range 50 {
		m.add("orders", 10+n)
	}
	m.settled()
	c.quiet()
	c.ack(first)
	second := c.wants(typeEndpoints, "orders.prod")
	if n := len(assignment(t, second.Resources[0].Resource).Endpoints[0].LbEndpoints); n != 51 {
		t.Errorf("the second response has %d endpoints, want 51", n)
	}
	c.ack(first) // stale: it answers an older response
	m.add("orders", 99)
	m.settled()
	c.quiet()
	c.ack(second)
	c.wants(typeEndpoints, "orders.prod")
	if first.Nonce == second.Nonce {
		t.Errorf("two responses have the nonce %s", first.Nonce)
	}
}

// A cluster that is new or changed brings its endpoints along, before the client
// has answered; the routes that name it come after the answer.
func TestDeltaOrderOfANewCluster(t *testing.T) {
	for name, answer := range map[string]func(*deltaClient, *discoveryv3.DeltaDiscoveryResponse){
		"ack":  (*deltaClient).ack,
		"nack": func(c *deltaClient, r *discoveryv3.DeltaDiscoveryResponse) { c.nack(r, "no") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(t, nil)
			c := m.delta(nodeOf(t))
			c.subscribe(typeCluster)
			c.ack(c.wants(typeCluster))
			c.subscribe(typeEndpoints, "orders.prod")
			c.ack(c.wants(typeEndpoints, "-orders.prod"))
			c.subscribe(typeRoutes, "egress")
			c.ack(c.wants(typeRoutes, "egress"))
			m.add("orders", 1)
			clusters := c.wants(typeCluster, "orders.prod")
			c.ack(c.wants(typeEndpoints, "orders.prod"))
			answer(c, clusters)
			c.wants(typeRoutes, "egress")
		})
	}
}

// Routes do not wait for ever for a client that says nothing about its clusters.
func TestDeltaRoutesWaitNoLongerThanTheHold(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = 20 * time.Millisecond })
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.wants(typeCluster, "orders.prod")
	c.subscribe(typeRoutes, "egress")
	c.ack(c.wants(typeRoutes, "egress"))
	if m.server.metrics.silent[typeCluster].Load() != 1 {
		t.Error("the silence is not counted")
	}
}

// A cluster whose bytes change brings its endpoints along even though they have
// not changed: Envoy waits for them and does not ask.
func TestDeltaChangedClusterBringsItsEndpoints(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	m.register(checked("orders", 1))
	clusters := c.wants(typeCluster, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.ack(clusters)
	c.quiet()
}
