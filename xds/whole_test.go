package xds

import (
	"fmt"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// wholeClient is a client of the state-of-the-world protocol. It does what it is told only.
type wholeClient struct {
	member *member
	node   *corev3.Node
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	names  [typeCount][]string
	last   [typeCount]*discoveryv3.DiscoveryResponse
	received[*discoveryv3.DiscoveryResponse]
}

func (m *member) whole(node *corev3.Node) *wholeClient {
	m.tb.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(m.conn).StreamAggregatedResources(m.outgoing())
	if err != nil {
		m.tb.Fatal(err)
	}
	return &wholeClient{member: m, node: node, stream: stream, received: receive(stream.Recv)}
}

func (c *wholeClient) send(r *discoveryv3.DiscoveryRequest) {
	c.member.tb.Helper()
	r.Node, c.node = c.node, nil
	if err := c.stream.Send(r); err != nil {
		c.member.tb.Fatalf("send: %v", err)
	}
}

// subscribe asks for names as a client does that has accepted the last response.
func (c *wholeClient) subscribe(t resourceType, names ...string) {
	c.member.tb.Helper()
	c.names[t] = names
	r := &discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[t], ResourceNames: names}
	if last := c.last[t]; last != nil {
		r.ResponseNonce, r.VersionInfo = last.Nonce, last.VersionInfo
	}
	c.send(r)
}

func (c *wholeClient) ack(r *discoveryv3.DiscoveryResponse) {
	c.member.tb.Helper()
	t, _ := typeOf(r.TypeUrl)
	c.last[t] = r
	c.subscribe(t, c.names[t]...)
}

func (c *wholeClient) nack(r *discoveryv3.DiscoveryResponse) {
	c.member.tb.Helper()
	t, _ := typeOf(r.TypeUrl)
	q := &discoveryv3.DiscoveryRequest{TypeUrl: r.TypeUrl, ResourceNames: c.names[t], ResponseNonce: r.Nonce, ErrorDetail: statusOf("no")}
	if last := c.last[t]; last != nil {
		q.VersionInfo = last.VersionInfo
	}
	c.send(q)
}

// quiet says that nothing more is on its way to a client that has these listeners,
// and that all it was sent is counted: the answer to one more name comes next.
func (c *wholeClient) quiet(listeners ...string) {
	c.member.tb.Helper()
	c.subscribe(typeListener, append(slices.Clone(listeners), "no-such-"+c.last[typeListener].Nonce)...)
	c.ack(c.wants(typeListener, listeners...))
}

// wants says what the next response must be.
func (c *wholeClient) wants(t resourceType, want ...string) *discoveryv3.DiscoveryResponse {
	c.member.tb.Helper()
	r := c.next(c.member.tb)
	got := []string{}
	for _, packed := range r.Resources {
		got = append(got, nameOf(c.member.tb, packed))
	}
	if r.TypeUrl != typeURLs[t] || fmt.Sprint(got) != fmt.Sprint(want) {
		c.member.tb.Fatalf("the next response is %s %v, want %s %v", r.TypeUrl, got, t, want)
	}
	return r
}

func nameOf(tb interface{ Fatal(...any) }, packed *anypb.Any) string {
	m, err := packed.UnmarshalNew()
	if err != nil {
		tb.Fatal(err)
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		return m.Name
	case *endpointv3.ClusterLoadAssignment:
		return m.ClusterName
	case *listenerv3.Listener:
		return m.Name
	case *routev3.RouteConfiguration:
		return m.Name
	}
	tb.Fatal("a resource of an unknown type ", packed.TypeUrl)
	return ""
}

// State of the world lists all clusters each time, and of the endpoints what has changed.
func TestWholeFromStartToChange(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.whole(nodeOf(t))
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
	m.add("basket", 4)
	clusters = c.wants(typeCluster, "basket.prod", "ledger.prod", "orders.prod")
	c.subscribe(typeEndpoints, "basket.prod", "ledger.prod", "orders.prod")
	c.ack(c.wants(typeEndpoints, "basket.prod"))
	c.ack(clusters)
	c.ack(c.wants(typeRoutes, "egress"))
}

// Clusters that leave are listed until the routes that named them are gone.
func TestWholeClustersLeaveAfterTheirRoutes(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 2)
	c := m.whole(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "ledger.prod", "orders.prod"))
	c.subscribe(typeRoutes, "egress")
	c.ack(c.wants(typeRoutes, "egress"))
	m.remove("ledger", 2)
	routes := c.wants(typeRoutes, "egress")
	m.add("basket", 3)
	clusters := c.wants(typeCluster, "basket.prod", "ledger.prod", "orders.prod")
	c.ack(routes)
	c.ack(clusters)
	c.ack(c.wants(typeRoutes, "egress"))
	c.ack(c.wants(typeCluster, "basket.prod", "orders.prod"))
}

// A client that has everything from an earlier stream is not sent it again, but
// for endpoints, which are always answered.
func TestWholeUnchangedIsNotSentAgain(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.whole(nodeOf(t))
	c.subscribe(typeCluster)
	version := c.wants(typeCluster, "orders.prod").VersionInfo
	again := m.whole(nodeOf(t))
	again.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeCluster], VersionInfo: version})
	again.subscribe(typeEndpoints, "orders.prod")
	endpoints := again.wants(typeEndpoints, "orders.prod")
	again.ack(endpoints)
	third := m.whole(nodeOf(t))
	third.names[typeEndpoints] = []string{"orders.prod"}
	third.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeEndpoints], ResourceNames: []string{"orders.prod"}, VersionInfo: endpoints.VersionInfo})
	third.ack(third.wants(typeEndpoints, "orders.prod"))
	m.add("ledger", 1)
	again.wants(typeCluster, "ledger.prod", "orders.prod")
}

// Endpoints that do not exist are answered once, with nothing, and sent when they do.
func TestWholeUnknownEndpointsAreAnswered(t *testing.T) {
	m := newMember(t, nil)
	c := m.whole(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints))
	m.add("orders", 1)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.subscribe(typeEndpoints) // an empty list after names asks for nothing
	c.subscribe(typeCluster, "no.prod")
	c.ack(c.wants(typeCluster))
	m.add("orders", 2)
	m.settled()
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
}

// Of rejected clusters the culprit is found by halves; from then on its last
// good content takes its place, and the others go on. Nothing goes round in a loop.
func TestWholeRejectedClusterKeepsItsLastGoodContent(t *testing.T) {
	m := newMember(t, nil)
	for n, name := range []string{"a", "b", "c", "d", "e"} {
		m.add(name, n)
	}
	c := m.whole(nodeOf(t))
	c.subscribe(typeCluster)
	first := c.wants(typeCluster, "a.prod", "b.prod", "c.prod", "d.prod", "e.prod")
	good := contentOf(t, first, "c.prod")
	c.ack(first)
	b := m.index
	for n, name := range []string{"a", "b", "c", "d"} { // the follower may tell of them in several batches
		m.register(checked(name, n))
	}
	m.settled()
	refused := 0
	for done := false; !done; {
		r := c.next(t)
		if contentOf(t, r, "c.prod") != good {
			refused++
			c.nack(r)
			continue
		}
		done = true
		for _, name := range []string{"a.prod", "b.prod", "d.prod"} {
			done = done && contentOf(t, r, name) != contentOf(t, first, name)
		}
		if len(r.Resources) != 5 {
			t.Fatalf("%d clusters are listed", len(r.Resources))
		}
		c.ack(r)
	}
	if refused == 0 || refused > 5 {
		t.Errorf("the culprit was sent %d times since revision %d", refused, b)
	}
	m.add("f", 6)
	r := c.wants(typeCluster, "a.prod", "b.prod", "c.prod", "d.prod", "e.prod", "f.prod")
	if contentOf(t, r, "c.prod") != good {
		t.Error("the refused content is sent again")
	}
}

func contentOf(t *testing.T, r *discoveryv3.DiscoveryResponse, name string) string {
	t.Helper()
	i := slices.IndexFunc(r.Resources, func(a *anypb.Any) bool { return nameOf(t, a) == name })
	if i < 0 {
		return ""
	}
	return string(r.Resources[i].Value)
}

// A client that refuses its very first response is not sent it again and again;
// a version that it does not know, from another server, is no acknowledgement.
func TestWholeFirstResponseRejectedIsNotRepeated(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	for _, kind := range []resourceType{typeCluster, typeEndpoints} {
		c := m.whole(nodeOf(t))
		c.subscribe(kind, "orders.prod")
		c.nack(c.wants(kind, "orders.prod"))
		c.subscribe(typeListener)
		c.ack(c.wants(typeListener, "egress"))
		if p := m.server.Proxies(); len(p[len(p)-1].Types[0].Rejected) != 1 || p[len(p)-1].Types[0].Acked != 0 {
			t.Errorf("the %s are %+v", kind, p[len(p)-1].Types)
		}
	}
	foreign := m.whole(nodeOf(t))
	foreign.names[typeCluster] = []string{"orders.prod"}
	foreign.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeCluster], ResourceNames: foreign.names[typeCluster], VersionInfo: "from-elsewhere", ResponseNonce: "7"})
	foreign.ack(foreign.wants(typeCluster, "orders.prod"))
}

// A request that answers an older response changes nothing: a newer one follows.
func TestWholeStaleNoncesAreIgnored(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.whole(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	first := c.wants(typeEndpoints, "orders.prod")
	c.ack(first)
	m.add("orders", 2)
	second := c.wants(typeEndpoints, "orders.prod")
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[typeEndpoints], ResponseNonce: first.Nonce})
	m.add("orders", 3)
	m.settled()
	c.ack(second)
	c.wants(typeEndpoints, "orders.prod")
	if m.server.metrics.stale[typeEndpoints].Load() != 1 {
		t.Error("it is not counted")
	}
}
