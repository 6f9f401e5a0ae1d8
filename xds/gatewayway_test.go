package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/stellmap/stellmap/registry"
)

// doors is a gateways' service, with instances as region/id/status.
func doors(protocol string, instances ...string) *registry.Service {
	s := &registry.Service{Key: registry.ServiceKey{Namespace: "infra", Service: "doors"}, Created: 4, Revision: 11, Endpoints: primary(protocol)}
	for n, text := range instances {
		parts := strings.Split(text, "/")
		i := instance(parts[1], parts[0], "", map[string]registry.Status{"passing": registry.StatusPassing, "critical": registry.StatusCritical}[parts[2]],
			at(protocol, protocol, fmt.Sprintf("10.9.0.%d", n+1), 15443, 50))
		i.Origin.Namespace, i.Origin.Service = "infra", "doors"
		s.Shown = append(s.Shown, i)
	}
	s.Instances = s.Shown
	return s
}

// hostsOfEach says what each priority of an assignment is, host by host.
func hostsOfEach(m *endpointv3.ClusterLoadAssignment) []string {
	var out []string
	for _, l := range m.Endpoints {
		for _, e := range l.LbEndpoints {
			text := fmt.Sprintf("%d %s %s", l.Priority, l.GetLocality().GetRegion(), e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
			if e.HealthStatus != corev3.HealthStatus_HEALTHY {
				text += " " + strings.ToLower(e.HealthStatus.String())
			}
			if name := e.GetEndpoint().GetHostname(); name != "" {
				text += " as " + name
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

// Other regions' instances are told as the gateways there, where a gateway can lead to them,
// in the places of their regions; and why it cannot, it is said.
func TestWaysByGateways(t *testing.T) {
	of := func(protocol string, instances ...string) *registry.Service {
		s := service(primary(protocol))
		for n, text := range instances {
			region, status, _ := strings.Cut(text, "/")
			s.Shown = append(s.Shown, instance(fmt.Sprint(n), region, "", map[string]registry.Status{"passing": registry.StatusPassing, "critical": registry.StatusCritical}[status],
				at(protocol, protocol, fmt.Sprintf("10.0.0.%d", n+1), 80, 100)))
		}
		s.Instances = s.Shown
		return s
	}
	all := []string{"here/passing", "b/passing", "b/critical", "c/critical"}
	for name, c := range map[string]struct {
		s        *registry.Service
		gateways *registry.Service
		cluster  string
		kind     kind
		want     []string
		missing  string
	}{
		"the gateways of who has instances": {s: of("http", all...), gateways: doors("tcp", "b/1/passing", "b/2/critical", "c/1/passing", "here/1/passing"),
			want: []string{"0 here 10.0.0.1", "1 b 10.9.0.1", "1 b 10.9.0.2 unhealthy"}},
		"none at home":                   {s: of("grpc", "b/passing"), gateways: doors("tcp", "b/1/passing"), want: []string{"0 b 10.9.0.1"}},
		"TLS":                            {s: of("tls", "b/passing"), gateways: doors("tcp", "b/1/passing"), want: []string{"0 b 10.9.0.1"}},
		"gateways that cannot be called": {s: of("http", all...), gateways: doors("tcp", "b/1/critical"), want: []string{"0 here 10.0.0.1"}, missing: "b: service doors in namespace infra has no instance there that can be called"},
		"no gateways":                    {s: of("http", all...), want: []string{"0 here 10.0.0.1"}, missing: "b: there is no service doors in namespace infra to be the gateways"},
		"no gateway by its protocol":     {s: of("http", all...), gateways: doors("http", "b/1/passing"), want: []string{"0 here 10.0.0.1"}, missing: "b: service doors in namespace infra has protocol http, and gateways have tcp"},
		"what says not where to":         {s: of("redis", all...), gateways: doors("tcp", "b/1/passing"), want: []string{"0 here 10.0.0.1"}, missing: "b: " + reasonNoWay},
		"a subset":                       {s: of("http", all...), gateways: doors("tcp", "b/1/passing"), cluster: "new~~orders.prod", want: []string{"0 here 10.0.0.1", "1 b 10.9.0.1 as new~~orders.prod"}},
		"a subset in TLS":                {s: of("https", all...), gateways: doors("tcp", "b/1/passing"), cluster: "new~~orders.prod", want: []string{"0 here 10.0.0.1"}, missing: "b: " + reasonSubsetTLS},
		"a subset for gRPC":              {s: of("grpc", all...), gateways: doors("tcp", "b/1/passing"), cluster: "new~~orders.prod", kind: kindGRPC, want: []string{"0 here 10.0.0.1"}, missing: "b: " + reasonSubsetGRPC},
	} {
		t.Run(name, func(t *testing.T) {
			c.s.Policy = &registry.Policy{Failover: &registry.Failover{Mode: registry.FailoverGateway, Gateway: "doors.infra"}}
			d := detour{service: c.s, subset: c.cluster != "", kind: c.kind, region: "here", by: registry.ServiceKey{Namespace: "infra", Service: "doors"}, gateways: c.gateways}
			told, missing := d.take()
			m, _ := buildEndpoints(told, 0, registry.Standpoint{Region: "here"})
			m.ClusterName = c.cluster
			d.name(m)
			if got := hostsOfEach(m); !slices.Equal(got, c.want) {
				t.Errorf("it is told %q, want %q", got, c.want)
			}
			if got := missing["b"]; c.missing != "" && "b: "+got != c.missing || c.missing == "" && got != "" {
				t.Errorf("region b is missing for %q, want %q", got, c.missing)
			}
		})
	}
}

// A change of gateways is sent to who is led by them, and to nobody else; so is a policy
// that names others.
func TestGatewaysOfAService(t *testing.T) {
	m := newMember(t, nil)
	m.server.cache.service = regionsOf(m.machine)
	in := func(service, id, region, protocol string, n int) {
		m.register(registry.Registration{Namespace: "prod", Service: service, ID: id, Metadata: map[string]string{"region": region},
			Endpoints: []registry.Endpoint{{Protocol: protocol, Host: addressOf(n), Port: 80}}})
	}
	in("orders", "1", "here", "http", 1)
	in("orders", "2", "b", "http", 2)
	in("ledger", "1", "b", "http", 3)
	in("gateway", "1", "b", "tcp", 4)
	m.putPolicy(t, "orders", `{"failover":{"mode":"gateway"}}`)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod", "ledger.prod")
	first := c.wants(typeEndpoints, "ledger.prod", "orders.prod")
	says := func(packed int, r []string, want ...string) {
		t.Helper()
		if !slices.Equal(r, want) {
			t.Errorf("%d: it is told %q, want %q", packed, r, want)
		}
	}
	says(0, hostsOfEach(assignment(t, first.Resources[1].Resource)), "0 here 10.0.0.1", "1 b 10.0.0.4")
	c.ack(first)
	in("gateway", "2", "b", "tcp", 5)
	next := c.wants(typeEndpoints, "orders.prod")
	says(1, hostsOfEach(assignment(t, next.Resources[0].Resource)), "0 here 10.0.0.1", "1 b 10.0.0.4", "1 b 10.0.0.5")
	c.ack(next)
	m.putPolicy(t, "orders", `{"failover":{"mode":"gateway","gateway":"doors.prod"}}`)
	next = c.wants(typeEndpoints, "orders.prod")
	says(2, hostsOfEach(assignment(t, next.Resources[0].Resource)), "0 here 10.0.0.1")
	c.ack(next)
	m.settled()
	withheld := m.server.cache.withheldOf(t.Context(), m.server.cache.service(registry.ServiceKey{Namespace: "prod", Service: "orders"}), "here")
	if want := reasonRegion("b", "there is no service doors in namespace prod to be the gateways"); len(withheld) != 1 || withheld[0].Reason != want {
		t.Errorf("it says of itself %+v, want %q", withheld, want)
	}
	m.drop("gateway", 2) // whose changes are nobody's any more
	m.settled()
	c.quiet()
	in("doors", "1", "b", "tcp", 6)
	next = c.wants(typeEndpoints, "orders.prod")
	says(3, hostsOfEach(assignment(t, next.Resources[0].Resource)), "0 here 10.0.0.1", "1 b 10.0.0.6")
	c.ack(next)
	m.putPolicy(t, "orders", `{}`)
	next = c.wants(typeEndpoints, "orders.prod")
	says(4, hostsOfEach(assignment(t, next.Resources[0].Resource)), "0 here 10.0.0.1", "1 b 10.0.0.2")
	if n := len(m.server.cache.directory.ledTo) + len(m.server.cache.directory.gateway); n != 0 {
		t.Errorf("%d are remembered of gateways that lead nowhere", n)
	}
}
