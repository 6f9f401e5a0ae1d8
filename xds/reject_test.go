package xds

import (
	"strings"
	"testing"
	"time"
)

// Of a batch that is rejected the culprit is found by halves, though the client
// does not name it: the others arrive, and the culprit is not sent again until
// it changes.
func TestDeltaRejectedBatchIsBisected(t *testing.T) {
	m := newMember(t, nil)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	for n, name := range names {
		m.add(name, n)
	}
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.nack(c.next(t), "Invalid duration: Expected positive duration")
	have, bad := map[string]string{}, 0
	for len(have) < len(names)-1 {
		r := c.next(t)
		got := versions(r)
		if got["f.prod"] != "" {
			if bad++; bad > len(names) {
				t.Fatalf("the culprit has been sent %d times", bad)
			}
			c.nack(r, "Invalid duration: Expected positive duration")
			continue
		}
		for name, v := range got {
			have[name] = v
		}
		c.ack(r)
	}
	c.quiet()
	if bad != 3 { // in a half of ten, a half of five, and alone
		t.Errorf("the culprit was sent %d times more, want 3", bad)
	}
	proxies := m.server.Proxies()
	if r := proxies[0].Types[0].Rejected; len(r) != 1 || r[0].Resource != "f.prod" || !strings.Contains(r[0].Reason, "duration") {
		t.Errorf("rejected: %+v", r)
	}
	m.add("f", 99)
	m.add("k", 1)
	c.ack(c.wants(typeCluster, "k.prod")) // f has a new host, not a new cluster
	m.settled()
	c.quiet()
	m.register(checked("f", 100))
	c.ack(c.wants(typeCluster, "f.prod"))
	c.quiet()
	if r := m.server.Proxies()[0].Types[0].Rejected; len(r) != 0 {
		t.Errorf("still rejected: %+v", r)
	}
}

// One rejected endpoint assignment costs the others nothing, and what the client
// has refused once is not sent in a loop.
func TestDeltaRejectedContentIsNotSentAgain(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "ledger.prod", "orders.prod")
	c.ack(c.wants(typeEndpoints, "ledger.prod", "orders.prod"))
	m.add("orders", 2)
	c.nack(c.wants(typeEndpoints, "orders.prod"), "no")
	c.quiet()
	m.add("ledger", 2)
	c.ack(c.wants(typeEndpoints, "ledger.prod"))
	m.add("orders", 3)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	if n := m.server.metrics.nacks[typeEndpoints].Load(); n != 1 {
		t.Errorf("%d rejections are counted", n)
	}
}

// Clusters leave after the routes that named them: when those are accepted.
func TestDeltaClustersLeaveAfterTheirRoutes(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.delta(nodeOf(t, metadataUpstreams, "orders.prod,ledger.prod"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "ledger.prod", "orders.prod"))
	c.subscribe(typeRoutes, "egress")
	c.ack(c.wants(typeRoutes, "egress"))
	c.quiet()
	m.remove("ledger", 2)
	routes := c.wants(typeRoutes, "egress")
	c.quiet()
	c.ack(routes)
	c.ack(c.wants(typeCluster, "-ledger.prod"))
	c.quiet()
}

// A client that does not answer its routes keeps its old clusters no longer than the hold.
func TestDeltaClustersLeaveAfterTheHold(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = 50 * time.Millisecond })
	m.add("ledger", 2)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "ledger.prod"))
	c.subscribe(typeRoutes, "egress")
	c.ack(c.wants(typeRoutes, "egress"))
	c.quiet()
	m.remove("ledger", 2)
	c.wants(typeRoutes, "egress")
	c.wants(typeCluster, "-ledger.prod")
}
