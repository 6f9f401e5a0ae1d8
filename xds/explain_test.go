package xds

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/stellmap/stellmap/registry"
)

// explained is why web-1 has orders as it has it, in lines.
func (m *member) explained(instance string) string {
	m.tb.Helper()
	all, members, err := NewFleet(1, m.server, others{}).Explain(m.tb.Context(), "web-1", ordersKey, instance)
	if err != nil || len(members) != 1 {
		m.tb.Fatalf("%+v, %v", members, err)
	}
	var out strings.Builder
	for _, e := range all {
		for _, c := range e.Clusters {
			fmt.Fprintf(&out, "%s told=%v: %s\n", c.Name, c.Told, c.Why)
			for _, r := range []*ResourceStatus{c.Cluster, c.Endpoints} {
				if r != nil {
					fmt.Fprintf(&out, "  %s %s%s\n", r.Type, r.State, causeWords(r))
				}
			}
			for _, p := range c.Priorities {
				fmt.Fprintf(&out, "  priority %d %v: %d of %d, %d%%\n", p.Priority, p.Regions, p.Healthy, p.Hosts, p.Share)
			}
			for _, h := range c.Hosts {
				fmt.Fprintf(&out, "  %s %s %s should %s has %s: %s\n", h.Instance, h.Address, h.Status, placed(h.Should), placed(h.Has), h.Why)
			}
		}
		for _, r := range e.Routes {
			fmt.Fprintf(&out, "%s %s %s%s\n", r.Type, r.Name, r.State, causeWords(&r))
		}
	}
	return out.String()
}

func causeWords(r *ResourceStatus) string {
	text := ""
	if r.Reason != "" {
		text = ": " + r.Reason
	}
	for _, c := range r.Causes {
		text += fmt.Sprintf(" by %s's version %d", c.By, c.Version)
	}
	return text
}

func placed(p *Placement) string {
	if p == nil {
		return "nothing"
	}
	return fmt.Sprintf("%d/%d/%s", p.Priority, p.Weight, p.Health)
}

func (m *member) explains(want string) {
	m.tb.Helper()
	got := ""
	if !comesTrue(func() bool { got = m.explained(""); return got == want }) {
		m.tb.Errorf("it is explained so:\n%s\nwant\n%s", got, want)
	}
}

// Each instance is where the proxy was told that it is, or the reason is said why
// it is not; a refusal names the edit that it came by.
func TestWhyAProxyHasAnInstance(t *testing.T) {
	m := newMember(t, nil)
	for n := 1; n <= 3; n++ {
		m.add("orders", n)
	}
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "twin", Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(1), Port: 80}}})
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "name", Endpoints: []registry.Endpoint{{Protocol: "http", Host: "orders.example", Port: 80}}})
	ref := func(id string) registry.InstanceRef {
		return registry.InstanceRef{Namespace: "prod", Service: "orders", ID: id}
	}
	for id, status := range map[string]string{"2": "disabled", "3": "critical", "twin": "critical"} {
		if _, err := m.registry.Override(t.Context(), "", ref(id), registry.Override{Status: status, Reason: "its disk", By: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	c := m.started("orders.prod")
	rest := `  2 10.0.0.2:80 disabled should nothing has nothing: it is disabled; operator says disabled: its disk (alice)
  3 10.0.0.3:80 critical should 0/100/unhealthy has 0/100/unhealthy: its region is the proxy's; operator says critical: its disk (alice)
  name orders.example:80 passing should nothing has nothing: its host is a name, and proxies take IP addresses only: register the address
  twin 10.0.0.1:80 critical should nothing has nothing: instance 1 is shown at the same address; operator says critical: its disk (alice)
`
	m.explains("orders.prod told=true: it is in the proxy's scope by its upstream *.prod\n  cds synced\n  eds synced\n" +
		"  priority 0 [here]: 1 of 2, 100%\n" +
		"  1 10.0.0.1:80 passing should 0/100/healthy has 0/100/healthy: its region is the proxy's\n" + rest)

	k := registry.ServiceKey{Namespace: "prod", Service: "orders"}
	if _, err := m.registry.PutPolicy(t.Context(), "", k, policyOf(t, `{"timeouts":{"connectMs":9,"requestMs":9}}`), registry.Writing{By: "bob"}); err != nil {
		t.Fatal(err)
	}
	c.nack(c.wants(typeCluster, "orders.prod"), "too short")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.nack(c.wants(typeRoutes, "egress"), "nor these")
	c.quiet()
	if _, err := m.registry.Override(t.Context(), "", ref("1"), registry.Override{Status: "critical"}); err != nil {
		t.Fatal(err)
	}
	c.nack(c.wants(typeEndpoints, "orders.prod"), "none left")
	m.explains("orders.prod told=true: it is in the proxy's scope by its upstream *.prod\n  cds rejected: too short by bob's version 1\n  eds rejected: none left\n" +
		"  priority 0 [here]: 0 of 2, 0%\n" +
		"  1 10.0.0.1:80 critical should 0/100/unhealthy has 0/100/healthy: its region is the proxy's; operator says critical\n" + rest +
		"rds egress rejected: nor these by bob's version 1\n")
	if one := m.explained("twin"); strings.Count(one, "10.0.0.") != 1 {
		t.Errorf("of one instance it says\n%s", one)
	}
}

// What a proxy is not told of, and how it would be; subsets are clusters of their own.
func TestWhyAProxyHasNothing(t *testing.T) {
	m := newMember(t, nil)
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "1", Version: "1", Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(1), Port: 80}}})
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "2", Version: "2", Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(2), Port: 80}}})
	m.putPolicy(t, "orders", `{"subsets":[{"name":"old","version":"1"}]}`)
	node := nodeOf(t, metadataUpstreams, "ledger.prod")
	node.Locality = &corev3.Locality{Region: "west"}
	c := m.delta(node)
	c.subscribe(typeEndpoints, "old~~orders.prod")
	c.ack(c.wants(typeEndpoints, "old~~orders.prod"))
	m.explains(`orders.prod told=false: it is out of the proxy's scope, which has ledger.prod: add orders.prod, or *.prod for all of the namespace, to stellmap.upstreams in the metadata of its node
old~~orders.prod told=true: the proxy asks for it by name
  eds synced
  priority 0 [here]: 1 of 1, 100%
  1 10.0.0.1:80 passing should 0/100/healthy has 0/100/healthy: the proxy's region, west, has none, and its region is the next
  2 10.0.0.2:80 passing should nothing has nothing: subset old does not select it by its version and labels
`)
	all, _, err := NewFleet(1, m.server, others{}).Explain(t.Context(), "web-1", registry.ServiceKey{Namespace: "prod", Service: "nobody"}, "")
	if err != nil || len(all) != 1 || len(all[0].Clusters) != 0 {
		t.Errorf("of a service that is not there it says %+v, %v", all, err)
	}
}

// A proxy's upstreams are told of by the first of them; a service that is in scope by a later one is
// in scope, also where another member has the stream.
func TestWhyOfManyUpstreams(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	declared := "orders.prod"
	for n := range upstreamsShown {
		declared += fmt.Sprintf(",a%d.prod", n)
	}
	c := m.delta(nodeOf(t, metadataUpstreams, declared))
	c.subscribe(typeEndpoints, "nobody.prod")
	c.ack(c.wants(typeEndpoints, "-nobody.prod"))
	m.tells("orders.prod told=false: it is in the proxy's scope by its upstream orders.prod, and the proxy does not ask for clusters on this stream")
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	m.tells("orders.prod told=true: it is in the proxy's scope by its upstream orders.prod")
}

// A service that a proxy's client may not read is not told to be out of its scope, nor that it is not asked for.
func TestWhyWhatAClientMayNotReadIsMissing(t *testing.T) {
	m := newMember(t, identified)
	m.add("orders", 1)
	m.grant("prod/web", "ledger.prod")
	c := m.as("prod/web").delta(nodeOf(t, metadataUpstreams, "orders.prod"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "-orders.prod"))
	m.tells(`orders.prod told=false: prod/web may not read instances of service "orders" in namespace "prod": give it a role that allows that`)
	m.grant("prod/web", "orders.prod", "ledger.prod")
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	m.tells("orders.prod told=true: it is in the proxy's scope by its upstream orders.prod")
}

// A gRPC client is told of what it asks for, whatever its service wants.
func TestWhyAGRPCClientIsTold(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.calls(registry.Upstreams{Wants: []string{"orders.prod"}})
	node := nodeOf(t, metadataService, "shop")
	node.UserAgentName = "grpc-go"
	c := m.delta(node)
	c.subscribe(typeListener, "nobody.prod:80")
	c.ack(c.wants(typeListener, "-nobody.prod:80"))
	m.tells("orders.prod told=false: the client has not asked for it: it does when it dials xds:///orders.prod")
	c.subscribe(typeCluster, "orders.prod")
	c.ack(c.wants(typeCluster, "orders.prod"))
	m.tells("orders.prod told=true: the client asks for it by name")
}

// tells looks at whether the one proxy is told of orders and why, as this and as another member say it.
func (m *member) tells(want string) {
	m.tb.Helper()
	other := newMember(m.tb, nil)
	other.add("orders", 1)
	other.settled()
	for where, f := range map[string]*Fleet{"here": NewFleet(1, m.server, others{}), "elsewhere": NewFleet(2, other.server, others{1: m.server})} {
		got := ""
		if !comesTrue(func() bool {
			all, _, err := f.Explain(m.tb.Context(), "web-1", ordersKey, "")
			if err != nil {
				m.tb.Fatalf("%s it says %v", where, err)
			}
			if len(all) != 1 || len(all[0].Clusters) != 1 { // the stream tells of itself only after it has answered
				got = fmt.Sprintf("%+v", all)
				return false
			}
			got = fmt.Sprintf("%s told=%v: %s", all[0].Clusters[0].Name, all[0].Clusters[0].Told, all[0].Clusters[0].Why)
			return got == want
		}) {
			m.tb.Errorf("%s it says\n%s\nwant\n%s", where, got, want)
		}
	}
}

// Calls go to priorities as Envoy sends them.
func TestSharesOfPriorities(t *testing.T) {
	for _, one := range []struct {
		of   []PriorityExplanation
		want string
	}{
		{[]PriorityExplanation{{Hosts: 4, Healthy: 3}, {Hosts: 4, Healthy: 4}}, "[100 0]"},
		{[]PriorityExplanation{{Hosts: 4, Healthy: 2}, {Hosts: 4, Healthy: 4}}, "[70 30]"},
		{[]PriorityExplanation{{Hosts: 4, Healthy: 1}, {Hosts: 4, Healthy: 1}}, "[50 50]"},
		{[]PriorityExplanation{{Hosts: 4}, {Hosts: 2}}, "[0 0]"},
	} {
		share(one.of, overprovisioning)
		var got []int
		for _, p := range one.of {
			got = append(got, p.Share)
		}
		if fmt.Sprint(got) != one.want {
			t.Errorf("the shares are %v, want %s", got, one.want)
		}
	}
}
