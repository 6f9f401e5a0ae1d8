package xds

import (
	"context"
	"fmt"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/stellmap/stellmap/registry"
)

var shopKey = registry.ServiceKey{Namespace: "prod", Service: "shop"}

// calls writes down what shop wants to call and may.
func (m *member) calls(u registry.Upstreams) {
	m.tb.Helper()
	if _, err := m.registry.PutUpstreams(context.Background(), "", shopKey, u, registry.Writing{By: "ann"}); err != nil {
		m.tb.Fatalf("upstreams %+v: %v", u, err)
	}
}

// newCallees are a member with three services, and a client of shop that declares one of them.
func newCallees(t *testing.T) (*member, *deltaClient) {
	m := newMember(t, nil)
	for n, service := range []string{"ledger", "orders", "pay"} {
		m.add(service, n+1)
	}
	c := m.delta(nodeOf(t, metadataService, "shop", metadataUpstreams, "orders.prod"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, egressName))
	c.subscribe(typeRoutes, egressName)
	c.ack(c.wants(typeRoutes, egressName))
	return m, c
}

// What a service wants to call is edited while its proxy runs: the new cluster comes
// before the routes to it, and the old one goes behind those that led there. Who
// belongs to another service is sent nothing, though its scope was the same.
func TestAScopeIsEditedUnderAStream(t *testing.T) {
	m, c := newCallees(t)
	other := m.delta(nodeOf(t, metadataService, "desk", metadataUpstreams, "orders.prod"))
	other.subscribe(typeCluster)
	other.ack(other.wants(typeCluster, "orders.prod"))
	other.subscribe(typeRoutes, egressName)
	other.ack(other.wants(typeRoutes, egressName))
	built := m.built(typeCluster)
	m.calls(registry.Upstreams{Wants: []string{"ledger.prod"}})
	clusters := c.wants(typeCluster, "ledger.prod")
	c.subscribe(typeEndpoints, "ledger.prod")
	c.ack(c.wants(typeEndpoints, "ledger.prod"))
	c.ack(clusters)
	routes := c.wants(typeRoutes, egressName)
	if text := fmt.Sprint(routes.Resources[0].Resource); !strings.Contains(text, "ledger.prod") || strings.Contains(text, "orders.prod") {
		t.Errorf("the routes are %s", text)
	}
	c.ack(routes)
	c.ack(c.wants(typeCluster, "-orders.prod"))
	if n := m.built(typeCluster) - built; n != 1 {
		t.Errorf("%d clusters were built, want the new one", n)
	}
	m.settled()
	other.quiet()
	c.quiet()
	eventually(t, "the proxy says what it is told of", func() bool {
		p := m.server.Proxies()[0]
		return fmt.Sprint(p.Upstreams) == "[ledger.prod]" && p.UpstreamsFrom == UpstreamsByDocument && p.UpstreamsVersion == 1
	})
	if p := m.server.Proxies()[1]; p.UpstreamsFrom != UpstreamsByNode || p.UpstreamsVersion != 0 {
		t.Errorf("the other is %+v", p)
	}
}

// built are the resources of a type that were built so far.
func (m *member) built(t resourceType) uint64 { return m.server.metrics.built[t].Load() }

// A document that is taken back leaves it to the proxies again; one that says the same
// as before sends nothing.
func TestADocumentIsTakenBack(t *testing.T) {
	m, c := newCallees(t)
	m.calls(registry.Upstreams{Wants: []string{"orders.prod"}})
	m.settled()
	c.quiet()
	m.calls(registry.Upstreams{May: []string{"orders.prod"}})
	m.calls(registry.Upstreams{May: []string{"orders.prod", "*.test"}})
	m.settled()
	c.quiet()
	m.calls(registry.Upstreams{Wants: []string{}})
	routes := c.wants(typeRoutes, egressName)
	c.ack(routes)
	c.ack(c.wants(typeCluster, "-orders.prod"))
	if _, err := m.registry.DeleteUpstreams(context.Background(), "", shopKey, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
	clusters := c.wants(typeCluster, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.ack(clusters)
	c.ack(c.wants(typeRoutes, egressName))
}

// As state of the world each response has all there is, the old cluster with the new
// one until the routes have left it.
func TestAScopeIsEditedUnderAWholeStream(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.whole(nodeOf(t, metadataService, "shop", metadataUpstreams, "orders.prod"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.subscribe(typeRoutes, egressName)
	c.ack(c.wants(typeRoutes, egressName))
	m.calls(registry.Upstreams{Wants: []string{"ledger.prod"}})
	c.ack(c.wants(typeCluster, "ledger.prod", "orders.prod"))
	c.ack(c.wants(typeRoutes, egressName))
	c.ack(c.wants(typeCluster, "ledger.prod"))
}

// What a service may not call its proxies are not told of, whatever they declare and
// however they ask, and they are told why. They get it as soon as it is allowed.
func TestWhatAServiceMayNotCall(t *testing.T) {
	m, c := newCallees(t)
	c.subscribe(typeEndpoints, "pay.prod")
	c.ack(c.wants(typeEndpoints, "pay.prod"))
	m.calls(registry.Upstreams{May: []string{"ledger.prod", "orders.prod"}})
	gone := c.wants(typeEndpoints, "-pay.prod")
	why := "service shop in namespace prod may not call it, by version 1 of its upstreams"
	denied(t, gone, why)
	c.ack(gone)
	c.subscribe(typeCluster, "pay.prod")
	gone = c.wants(typeCluster, "-pay.prod")
	denied(t, gone, why)
	c.ack(gone)
	c.quiet() // its answer has arrived
	m.calls(registry.Upstreams{May: []string{"*.prod"}})
	clusters := c.wants(typeCluster, "pay.prod")
	c.ack(c.wants(typeEndpoints, "pay.prod"))
	c.ack(clusters)
	m.settled()
	c.quiet()
}

func denied(t *testing.T, r *discoveryv3.DeltaDiscoveryResponse, why string) {
	t.Helper()
	if len(r.ResourceErrors) != 1 || r.ResourceErrors[0].GetErrorDetail().GetCode() != 7 || r.ResourceErrors[0].GetErrorDetail().GetMessage() != why {
		t.Errorf("it is told %v, want that it may not", r.ResourceErrors)
	}
}

// A document that was there before the stream holds from its first response on, also
// where it is read from a state that was installed.
func TestADocumentHoldsFromTheBeginning(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	m.calls(registry.Upstreams{May: []string{"ledger.prod"}})
	c := m.delta(nodeOf(t, metadataService, "shop"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "ledger.prod"))
	eventually(t, "the proxy says so", func() bool {
		all := m.server.Proxies() // there is none until it has been answered
		return len(all) == 1 && fmt.Sprint(all[0].Upstreams) == "[ledger.prod]" && all[0].UpstreamsFrom == UpstreamsByDefault && all[0].UpstreamsVersion == 1
	})
	m.explains(`orders.prod told=false: service shop in namespace prod may not call it, by version 1 of its upstreams: add orders.prod to what it may
`)
	m.calls(registry.Upstreams{Wants: []string{"ledger.prod"}})
	m.settled()
	m.explains(`orders.prod told=false: it is out of the proxy's scope, which has ledger.prod: add orders.prod, or *.prod for all of the namespace, to what service shop in namespace prod wants by its upstreams
`)
	m.calls(registry.Upstreams{Wants: []string{"*.prod"}})
	c.ack(c.wants(typeCluster, "orders.prod"))
	eventually(t, "it is explained", func() bool {
		return strings.HasPrefix(m.explained(""), "orders.prod told=true: it is in the proxy's scope by its upstream *.prod, which version 3 of the upstreams of service shop in namespace prod wants\n")
	})
}

// A gRPC client asks for all by name, and gets what its service may call.
func TestAGRPCClientIsBoundedByItsService(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.calls(registry.Upstreams{May: []string{}})
	node := nodeOf(t, metadataService, "shop")
	node.UserAgentName = "grpc-go"
	c := m.delta(node)
	c.subscribe(typeListener, "orders.prod:80")
	gone := c.wants(typeListener, "-orders.prod:80")
	denied(t, gone, "service shop in namespace prod may not call it, by version 1 of its upstreams")
	c.ack(gone)
	m.calls(registry.Upstreams{May: []string{"orders.prod"}})
	c.ack(c.wants(typeListener, "orders.prod:80"))
}

// Streams that have gone leave nothing behind.
func TestCallersLeave(t *testing.T) {
	m, c := newCallees(t)
	if err := c.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody is noted as a caller", func() bool {
		cache := m.server.cache
		cache.mu.RLock()
		defer cache.mu.RUnlock()
		return len(cache.callers)+len(cache.scopes.byKey) == 0
	})
}
