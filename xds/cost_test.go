package xds

import (
	"fmt"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/registry"
)

// costs is what has been done so far, by type.
type costs struct{ built, marshalled, responses, resources [typeCount]uint64 }

func (m *member) costs() costs {
	var c costs
	for t := range typeCount {
		c.built[t] = m.server.metrics.built[t].Load()
		c.marshalled[t] = m.server.metrics.marshalled[t].Load()
		c.responses[t] = m.server.metrics.responses[t].Load()
		c.resources[t] = m.server.metrics.resources[t].Load()
	}
	return c
}

// since is what has been done, but for listeners: by those a test finds a stream quiet.
func (c costs) since(o costs) costs {
	for t := range typeCount {
		if t == typeListener {
			c.built[t], c.marshalled[t], c.responses[t], c.resources[t] = 0, 0, 0, 0
			continue
		}
		c.built[t] -= o.built[t]
		c.marshalled[t] -= o.marshalled[t]
		c.responses[t] -= o.responses[t]
		c.resources[t] -= o.resources[t]
	}
	return c
}

// started is an Envoy with all four types, its clusters' endpoints named.
func (m *member) started(clusters ...string) *deltaClient {
	m.tb.Helper()
	c := m.delta(nodeOf(m.tb))
	c.subscribe(typeCluster)
	c.ack(c.next(m.tb))
	c.subscribe(typeEndpoints, clusters...)
	c.ack(c.wants(typeEndpoints, clusters...))
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, "egress"))
	c.subscribe(typeRoutes, "egress")
	c.ack(c.wants(typeRoutes, "egress"))
	c.quiet()
	return c
}

// One endpoint change is translated once and marshalled once for all streams
// that share the view, is sent to those that subscribe to it and to no other,
// and moves no cluster, listener or route.
func TestOneChangeIsBuiltOnceAndSentToTheInterested(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	var interested, others []*deltaClient
	for range 20 {
		interested = append(interested, m.started("orders.prod"))
		others = append(others, m.started("ledger.prod"))
	}
	before := m.costs()
	m.add("orders", 3)
	for _, c := range interested {
		c.ack(c.wants(typeEndpoints, "orders.prod"))
	}
	for _, c := range slices.Concat(interested, others) {
		c.quiet()
	}
	got := m.costs().since(before)
	want := costs{}
	want.built[typeEndpoints], want.marshalled[typeEndpoints] = 1, 1
	want.responses[typeEndpoints], want.resources[typeEndpoints] = 20, 20
	if got != want {
		t.Errorf("one change did %+v, want %+v", got, want)
	}
}

// A new service costs one cluster and one route table per scope, however many
// proxies share the scope.
func TestANewServiceIsBuiltOncePerScope(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	var clients []*deltaClient
	for range 10 {
		clients = append(clients, m.started("orders.prod"))
	}
	before := m.costs()
	m.add("ledger", 1)
	for _, c := range clients {
		c.ack(c.wants(typeCluster, "ledger.prod"))
		c.ack(c.wants(typeRoutes, "egress"))
		c.quiet()
	}
	got := m.costs().since(before)
	want := costs{}
	want.built[typeCluster], want.marshalled[typeCluster] = 1, 1
	want.built[typeRoutes], want.marshalled[typeRoutes] = 1, 1
	want.responses = [typeCount]uint64{typeCluster: 10, typeRoutes: 10}
	want.resources = want.responses
	if got != want {
		t.Errorf("a new service did %+v, want %+v", got, want)
	}
}

// What nobody subscribes to costs nothing; what changes back is not sent.
func TestUnwatchedAndUnchangedCostNothing(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.started("orders.prod")
	before := m.costs()
	for n := range 10 {
		m.add("ledger", 10+n)
	}
	m.settled()
	if got := m.costs().since(before); got != (costs{}) {
		t.Errorf("changes that nobody watches did %+v", got)
	}
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "1", Metadata: map[string]string{"a": "b"},
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(1), Port: 80}}})
	m.settled()
	c.quiet()
	if got := m.costs().since(before); got.responses[typeEndpoints] != 0 || got.marshalled[typeEndpoints] != 1 {
		t.Errorf("metadata, which no proxy sees, did %+v", got)
	}
}

// Views are dropped with their last subscriber.
func TestNothingIsKeptForNobody(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	for range 3 {
		if err := m.started("orders.prod").stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the cache is empty", func() bool {
		c := m.server.cache
		c.mu.RLock()
		defer c.mu.RUnlock()
		return len(c.resources)+len(c.byCluster)+len(c.scopes.byKey) == 0
	})
}

// A response of more than gRPC clients take is cut into several, one at a time.
func TestDeltaLargeResponsesAreSplit(t *testing.T) {
	const services, instances, most = 20, 100, 16 << 10
	if responseBytesMax >= 4<<20 {
		t.Errorf("the bound is %d bytes, and clients take 4 MiB", responseBytesMax)
	}
	m := newMember(t, func(_ *Config, l *limits) { l.responseBytes = most })
	names := []string{}
	for n := range services {
		name := fmt.Sprintf("s%02d", n)
		names = append(names, name+".prod")
		m.fill(name, instances)
	}
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, names...)
	got := []string{}
	parts := 0
	for len(got) < services {
		r := c.next(t)
		parts++
		if size := proto.Size(r); size > most {
			t.Errorf("a response has %d bytes", size)
		}
		for _, res := range r.Resources {
			got = append(got, res.Name)
		}
		c.ack(r)
	}
	if fmt.Sprint(got) != fmt.Sprint(names) || parts < 4 {
		t.Errorf("%d parts with %v", parts, got)
	}
	c.quiet()
}

// The change of an endpoint in a registry of 5,000 services with 20 endpoints
// each, until all of 1,000 streams have it that are interested: of each service
// the few that chance brings, or all in the same one.
func BenchmarkChange(b *testing.B) {
	const services, instances, streams, subscribed = 5000, 20, 1000, 20
	m := newMember(b, nil)
	for n := range services {
		m.fill(fmt.Sprintf("s%04d", n), instances)
	}
	arrived := make(chan struct{}, streams)
	arrive := func(n int) {
		for range n {
			<-arrived
		}
	}
	interested := make([]int, services)
	for n := range streams {
		names := []string{"s0000.prod"}
		interested[0]++
		for i := 1; i < subscribed; i++ {
			service := 1 + (n*(subscribed-1)+i)%(services-1)
			interested[service]++
			names = append(names, fmt.Sprintf("s%04d.prod", service))
		}
		m.sink(names, arrived)
	}
	arrive(streams)
	next := 1_000_000
	change := func(service int) {
		next++
		m.add(fmt.Sprintf("s%04d", service), next)
		arrive(interested[service])
	}
	b.Run("few", func(b *testing.B) {
		for n := range b.N {
			change(1 + n%(services-1))
		}
	})
	b.Run("all", func(b *testing.B) {
		for range b.N {
			change(0)
		}
	})
}

// sink is a client that accepts everything and counts the responses.
func (m *member) sink(names []string, arrived chan<- struct{}) {
	c := m.delta(nodeOf(m.tb))
	c.subscribe(typeEndpoints, names...)
	go func() {
		for r := range c.messages {
			arrived <- struct{}{}
			if c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}) != nil {
				return // the benchmark is over
			}
		}
	}()
}

// BenchmarkNewService is a new service in a scope of 5,000, until the streams are marked:
// its cluster and the scope's route table are made.
func BenchmarkNewService(b *testing.B) {
	m := newMember(b, nil)
	for n := range 5000 {
		m.add(fmt.Sprintf("s%04d", n), n)
	}
	if err := m.server.cache.await(b.Context(), m.machine.Revision()); err != nil {
		b.Fatal(err)
	}
	c := m.delta(nodeOf(b))
	c.subscribe(typeRoutes, egressName)
	c.ack(c.next(b))
	b.ResetTimer()
	for n := range b.N {
		m.add(fmt.Sprintf("t%04d", n), n)
		if err := m.server.cache.await(b.Context(), m.machine.Revision()); err != nil {
			b.Fatal(err)
		}
	}
}
