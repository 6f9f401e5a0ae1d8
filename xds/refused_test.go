package xds

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// refused is what proxies refuse of orders, in lines.
func (m *member) refused() string {
	m.tb.Helper()
	p := m.propagation(m.machine.Revision(), 0)
	var out strings.Builder
	for _, r := range p.Refused {
		fmt.Fprintf(&out, "%s %s by %d %v: %s", r.Type, r.Resource, r.Proxies, r.Nodes, r.Reason)
		if r.Cause != nil {
			fmt.Fprintf(&out, ", version %d of %s", r.Cause.Version, r.Cause.By)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// What proxies refuse is told of the service that brought it about, together for all
// that refuse it for one reason, until it has changed; of others it is not.
func TestARefusalShowsOnItsService(t *testing.T) {
	gauges := prometheus.NewRegistry()
	m := newMember(t, func(c *Config, _ *limits) { c.Registerer = gauges })
	m.add("orders", 1)
	m.add("ledger", 1)
	var clients []*deltaClient
	for range refuserNodes + 2 {
		clients = append(clients, m.started("ledger.prod", "orders.prod"))
	}
	put := func(text string) {
		t.Helper()
		if _, err := m.registry.PutPolicy(t.Context(), "", ordersKey, policyOf(t, text), registry.Writing{By: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"timeouts":{"connectMs":9,"requestMs":9}}`)
	for n, c := range clients {
		c.nack(c.wants(typeCluster, "orders.prod"), "too short")
		c.ack(c.wants(typeEndpoints, "orders.prod"))
		routes := c.wants(typeRoutes, "egress")
		if n == 0 {
			c.nack(routes, "nor these")
		} else {
			c.ack(routes)
		}
		c.quiet()
	}
	want := "cds orders.prod by 7 [web-1 web-1 web-1 web-1 web-1]: too short, version 1 of alice\nrds egress by 1 [web-1]: nor these, version 1 of alice\n"
	got := ""
	if !comesTrue(func() bool { got = m.refused(); return got == want }) {
		t.Errorf("it is told\n%swant\n%s", got, want)
	}
	far, err := NewFleet(2, newMember(t, nil).server, others{1: m.server}).Propagation(t.Context(), ordersKey, m.machine.Revision(), 0)
	near := m.propagation(m.machine.Revision(), 0)
	if err != nil || len(far[0].Refused) != 2 || fmt.Sprint(far[0].Refused[0].Cause.By, far[0].Refused[0].Proxies, far[0].Refused[0].Nodes) != fmt.Sprint(near.Refused[0].Cause.By, near.Refused[0].Proxies, near.Refused[0].Nodes) {
		t.Errorf("another member tells %+v, %v", far, err)
	}
	if n := m.server.rejectedNow(typeCluster); n != len(clients) {
		t.Errorf("%d refused clusters are counted", n)
	}
	ledger, err := m.server.Propagation(t.Context(), registry.ServiceKey{Namespace: "prod", Service: "ledger"}, 1, 0)
	if err != nil || len(ledger.Refused) != 0 {
		t.Errorf("of the other service it is told %+v, %v", ledger.Refused, err)
	}
	put(`{"timeouts":{"connectMs":900}}`)
	for _, c := range clients {
		c.ack(c.wants(typeCluster, "orders.prod"))
	}
	if !comesTrue(func() bool { got = m.refused(); return got == "" && m.server.rejectedNow(typeCluster) == 0 }) {
		t.Errorf("after a better one it is told\n%s", got)
	}
	families, err := gauges.Gather()
	if err != nil || len(families) == 0 {
		t.Errorf("the metrics are %v, %v", families, err)
	}
}

// So many things that are refused are named, and no more.
func TestRefusalsThatAreToldAreBounded(t *testing.T) {
	g := make(refusedBy)
	for n := range refusedMax + 5 {
		for range n + 1 {
			g.add(&ProxyStatus{Node: "web-1"}, []refusing{{name: fmt.Sprint(n)}})
		}
	}
	if all := g.list(); len(all) != refusedMax || all[0].Proxies != refusedMax+5 || len(all[0].Nodes) != refuserNodes {
		t.Errorf("it is told %+v", all)
	}
}
