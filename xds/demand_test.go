package xds

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc/codes"

	"github.com/stellmap/stellmap/registry"
)

// The listener of an Envoy that asks on demand, and the routes of what is beyond its scope.
func TestTheListenerThatAsksOnDemand(t *testing.T) {
	m, err := buildListener(15001, true)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := buildRoutes(onDemandName, nil)
	if err != nil {
		t.Fatal(err)
	}
	var routes routev3.RouteConfiguration
	if err := packed.UnmarshalTo(&routes); err != nil {
		t.Fatal(err)
	}
	golden(t, "listener_on_demand.txt", envoyJSON(t, m)+envoyJSON(t, &routes))
}

// An Envoy that asks on demand has its routes under a name of their own, which follow
// its scope, and gets by name what it may be told of.
func TestOnDemand(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.delta(nodeOf(t, metadataService, "shop", metadataUpstreams, "orders.prod", metadataOnDemand, true))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, egressName))
	c.subscribe(typeRoutes, onDemandName)
	c.ack(c.wants(typeRoutes, onDemandName))
	c.subscribe(typeCluster, "ledger.prod")
	c.ack(c.wants(typeCluster, "ledger.prod"))
	m.calls(registry.Upstreams{May: []string{"orders.prod"}})
	gone := c.wants(typeCluster, "-ledger.prod")
	denied(t, gone, "service shop in namespace prod may not call it, by version 1 of its upstreams")
	c.ack(gone)
	m.calls(registry.Upstreams{Wants: []string{"ledger.prod"}})
	c.ack(c.wants(typeCluster, "ledger.prod"))
	c.ack(c.wants(typeRoutes, onDemandName))
	c.ack(c.wants(typeCluster, "-orders.prod"))
}

// A workload that makes up hosts costs its stream a bounded number of names.
func TestDemandsAreBounded(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.demands = 2 })
	c := m.delta(nodeOf(t, metadataOnDemand, "true"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster))
	c.subscribe(typeCluster, "a.test", "b.test", "c.test")
	c.ack(c.wants(typeCluster, "-a.test", "-b.test", "-c.test"))
	m.register(registry.Registration{Namespace: "test", Service: "c", ID: "1", Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(1), Port: 80}}})
	m.register(registry.Registration{Namespace: "test", Service: "b", ID: "1", Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(1), Port: 80}}})
	c.ack(c.wants(typeCluster, "b.test"))
	c.quiet()
	if n := m.server.metrics.demandsForgone.Load(); n != 1 {
		t.Errorf("%d were forgone, want 1", n)
	}
}

// On demand needs deltas, and a word that says so.
func TestWhatOnDemandNeeds(t *testing.T) {
	m := newMember(t, nil)
	c := m.whole(nodeOf(t, metadataOnDemand, true))
	c.subscribe(typeCluster)
	mustEnd(t, c.end(t), codes.InvalidArgument, "set api_type DELTA_GRPC in ads_config")
	d := m.delta(nodeOf(t, metadataOnDemand, "perhaps"))
	d.subscribe(typeCluster)
	mustEnd(t, d.end(t), codes.InvalidArgument, `node.metadata["stellmap.on_demand"]: perhaps is neither true nor false`)
	for _, no := range []any{false, "False", nil} {
		if n, err := parseNode(nodeOf(t, metadataOnDemand, no), "here"); err != nil || n.onDemand {
			t.Errorf("%v is read as %+v, %v", no, n, err)
		}
	}
}

// sendAway ends the one stream that there is, and waits until its client has come back.
func (m *member) sendAway() {
	m.tb.Helper()
	before := m.server.Proxies()[0].Number
	m.server.mu.Lock()
	for s := range m.server.streams {
		close(s.sentAway)
	}
	m.server.mu.Unlock()
	eventually(m.tb, "the proxy has come back", func() bool {
		all := m.server.Proxies()
		return len(all) == 1 && all[0].Number > before && len(all[0].Types) == int(typeCount)
	})
}

// A workload's first call of what is beyond the scope brings the cluster and succeeds;
// what there is not answers 404 and why, until it is there.
func TestRealEnvoyAsksOnDemand(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	m.add("orders", 1, upstream(t, "first"))
	m.add("ledger", 1, upstream(t, "second"))
	m.add("pay", 1, upstream(t, "third"))
	m.calls(registry.Upstreams{Wants: []string{"orders.prod"}})
	e := startEnvoyWith(t, m, "DELTA_GRPC", ", stellmap.on_demand: true")
	e.serves("orders.prod", "first")
	if a := e.get(e.admin, "/clusters", "envoy"); strings.Contains(a.body, "ledger.prod::") {
		t.Fatal("Envoy has a cluster that nobody has called")
	}
	for host, want := range map[string]string{"ledger.prod": "second", "pay.prod": "third"} {
		if a := e.call(host); a.status != "200" || a.body != want {
			t.Errorf("the first call of %s answers %+v", host, a)
		}
	}
	for _, host := range []string{"nobody.prod", "nobody.prod", "not-a-host", "ledger.prod:80"} {
		if a := e.call(host); a.status != "404" || a.reason != reasonUnknown {
			t.Errorf("%s answers %+v", host, a)
		}
	}
	m.add("nobody", 1, upstream(t, "fourth"))
	e.serves("nobody.prod", "fourth")
	e.healthy(m)
	m.sendAway()
	e.serves("orders.prod", "first") // what it asked for on demand has not taken the place of all
	e.serves("pay.prod", "third")
	if a := e.get(e.admin, "/clusters", "envoy"); !strings.Contains(a.body, "orders.prod::") || !strings.Contains(a.body, "ledger.prod::") {
		t.Errorf("after a new stream the clusters are %s", a.body)
	}
	m.calls(registry.Upstreams{May: []string{"orders.prod", "pay.prod"}})
	eventually(t, "what is not allowed any more is gone", func() bool {
		a := e.call("ledger.prod")
		return a.status == "404" && a.reason == reasonUnknown
	})
	e.serves("pay.prod", "third")
	for t := range typeCount {
		if n := m.server.metrics.nacks[t].Load(); n != 0 {
			e.t.Errorf("%d responses of %s were rejected", n, t)
		}
	}
}
