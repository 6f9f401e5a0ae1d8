package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

// localPort has a service at a port of its callers' proxies; 0 takes that back.
func (m *member) localPort(t *testing.T, service string, port int) {
	t.Helper()
	if port != 0 {
		m.putPolicy(t, service, fmt.Sprintf(`{"localPort":%d}`, port))
		return
	}
	if _, err := m.registry.DeletePolicy(context.Background(), "", registry.ServiceKey{Namespace: "prod", Service: service}, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
}

func listenerPort(t *testing.T, packed *anypb.Any) uint32 {
	t.Helper()
	var l listenerv3.Listener
	if err := packed.UnmarshalTo(&l); err != nil {
		t.Fatal(err)
	}
	return l.GetAddress().GetSocketAddress().GetPortValue()
}

// newDatabase is a member with a service that speaks TCP, and a client that has all of it.
func newDatabase(t *testing.T) (*member, *deltaClient) {
	m := newMember(t, nil)
	m.add("db", 1, registry.Endpoint{Protocol: "tcp", Host: addressOf(1), Port: 80})
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "db.prod"))
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, egressName))
	c.subscribe(typeRoutes, egressName)
	c.ack(c.wants(typeRoutes, egressName))
	return m, c
}

// A policy gives a service a listener, which comes, moves and goes by itself: nothing
// else is sent with it.
func TestAServiceHasAListener(t *testing.T) {
	m, c := newDatabase(t)
	m.localPort(t, "db", 5432)
	r := c.wants(typeListener, "tcp~db.prod")
	if port := listenerPort(t, r.Resources[0].Resource); port != 5432 {
		t.Errorf("it is at %d", port)
	}
	c.ack(r)
	m.localPort(t, "db", 5433)
	r = c.wants(typeListener, "tcp~db.prod")
	if port := listenerPort(t, r.Resources[0].Resource); port != 5433 {
		t.Errorf("it is at %d", port)
	}
	c.ack(r)
	m.add("db", 2, registry.Endpoint{Protocol: "tcp", Host: addressOf(2), Port: 80}) // which is the endpoints' to tell
	m.localPort(t, "db", 0)
	c.ack(c.wants(typeListener, "-tcp~db.prod"))
	m.settled()
	c.quiet()
}

// The listener of a new service waits for the answer to its cluster, and a cluster
// goes behind the routes and the listener that led to it.
func TestAListenerComesBehindItsClusterAndGoesBefore(t *testing.T) {
	m, c := newDatabase(t)
	m.localPort(t, "cache", 6379) // the policy is there before the service
	m.add("cache", 1, registry.Endpoint{Protocol: "tcp", Host: addressOf(1), Port: 80})
	clusters := c.wants(typeCluster, "cache.prod")
	c.ack(clusters)
	c.ack(c.wants(typeListener, "tcp~cache.prod"))
	c.ack(c.wants(typeRoutes, egressName))
	m.remove("cache", 1)
	listeners := c.wants(typeListener, "-tcp~cache.prod")
	routes := c.wants(typeRoutes, egressName)
	c.ack(routes)
	m.settled()
	c.subscribe(typeEndpoints, "nobody.prod") // whose answer is the next, since the cluster waits for the listener still
	c.ack(c.wants(typeEndpoints, "-nobody.prod"))
	c.ack(listeners)
	c.ack(c.wants(typeCluster, "-cache.prod"))
}

// As state of the world each response lists all listeners.
func TestListenersAsStateOfTheWorld(t *testing.T) {
	m := newMember(t, nil)
	m.add("db", 1)
	m.localPort(t, "db", 5432)
	c := m.whole(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "db.prod"))
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, egressName, "tcp~db.prod"))
	m.add("cache", 1)
	c.ack(c.wants(typeCluster, "cache.prod", "db.prod"))
	m.localPort(t, "cache", 6379)
	c.ack(c.wants(typeListener, egressName, "tcp~cache.prod", "tcp~db.prod"))
	m.localPort(t, "db", 0)
	c.ack(c.wants(typeListener, egressName, "tcp~cache.prod"))
}

// Of two services that name one port the older has it, and the other says so; it gets
// the port when the older lets go of it. At proxies that have HTTP there neither has.
func TestAPortIsTheOlderServices(t *testing.T) {
	m, c := newDatabase(t)
	m.add("later", 1)
	c.ack(c.wants(typeCluster, "later.prod"))
	c.ack(c.wants(typeRoutes, egressName))
	m.localPort(t, "later", 5432)
	c.ack(c.wants(typeListener, "tcp~later.prod"))
	m.localPort(t, "db", 5432)
	c.ack(c.wants(typeListener, "tcp~db.prod", "-tcp~later.prod"))
	m.withholds(t, "later", "local port 5432 is that of service db in namespace prod already at 1 proxy of this member, which has no listener for this service: name another localPort in its policy")
	m.withholds(t, "db")
	m.localPort(t, "db", egressPortDefault)
	c.ack(c.wants(typeListener, "tcp~later.prod", "-tcp~db.prod"))
	m.withholds(t, "db", fmt.Sprintf("local port %d is that of HTTP already at 1 proxy of this member, which has no listener for this service: name another localPort in its policy", egressPortDefault))
	m.withholds(t, "later")
	other := m.delta(nodeOf(t, metadataEgressPort, 5432))
	other.subscribe(typeListener)
	other.ack(other.wants(typeListener, egressName, "tcp~db.prod"))
}

func (m *member) withholds(t *testing.T, service string, want ...string) {
	t.Helper()
	m.settled()
	var got []string
	for _, w := range m.server.WithheldOf(t.Context(), registry.ServiceKey{Namespace: "prod", Service: service}) {
		got = append(got, w.Reason)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s says of itself %q, want %q", service, got, want)
	}
}

// A listener is told where its service is in scope, and moves with the scope. A gRPC
// client, which has no ports, is told of none; who asks by name gets what there is.
func TestAListenerIsOfAScope(t *testing.T) {
	m := newMember(t, nil)
	m.add("db", 1)
	m.add("orders", 2)
	m.localPort(t, "db", 5432)
	c := m.delta(nodeOf(t, metadataService, "shop", metadataUpstreams, "orders.prod"))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "orders.prod"))
	c.subscribe(typeListener)
	c.ack(c.wants(typeListener, egressName))
	m.calls(registry.Upstreams{Wants: []string{"db.prod"}})
	c.ack(c.wants(typeCluster, "db.prod", "-orders.prod"))
	c.ack(c.wants(typeListener, "tcp~db.prod"))
	m.calls(registry.Upstreams{Wants: []string{}})
	c.ack(c.wants(typeListener, "-tcp~db.prod"))
	c.ack(c.wants(typeCluster, "-db.prod"))
	c.subscribe(typeListener, "tcp~db.prod")
	c.ack(c.wants(typeListener, "tcp~db.prod"))

	node := nodeOf(t)
	node.UserAgentName = "grpc-go"
	g := m.delta(node)
	g.subscribe(typeListener)
	r := g.next(t)
	if len(r.Resources) != 0 {
		t.Errorf("a gRPC client is told of %v", r.Resources)
	}
}

// Bytes that a workload sends to a local port reach the service, whatever it speaks,
// through a real Envoy that follows when the policy changes.
func TestRealEnvoyPassesBytes(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
			db := echo(t)
			m.add("db", 1, db)
			m.add("orders", 1, upstream(t, "first"))
			first, second := freePort(t), freePort(t)
			m.localPort(t, "db", first)
			e := startEnvoy(t, m, api)
			e.serves("orders.prod", "first")
			e.echoes(first)
			m.localPort(t, "db", second)
			e.echoes(second)
			e.closed(first)
			m.localPort(t, "orders", first)
			eventually(t, "a service that speaks HTTP is there as well", func() bool {
				return e.get(fmt.Sprintf("127.0.0.1:%d", first), "/", "anything").body == "first"
			})
			e.healthy(m)
			m.localPort(t, "db", 0)
			e.closed(second)
			m.drop("db", 1)
			m.reap("prod", "db")
			eventually(t, "the cluster is gone", func() bool {
				return !strings.Contains(e.get(e.admin, "/clusters", "envoy").body, "db.prod::")
			})
			e.healthy(m)
		})
	}
}

// echo is a server that says what it hears.
func echo(t *testing.T) registry.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed below
			}
			word := make([]byte, 4)
			_, err = io.ReadFull(conn, word)
			if err == nil {
				_, err = conn.Write(word)
			}
			if err := errors.Join(err, conn.Close()); err != nil {
				t.Logf("echo: %v", err) // Envoy may try whether somebody is there
			}
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return registry.Endpoint{Protocol: "tcp", Host: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port)}
}

func (e *envoy) echoes(port int) {
	e.t.Helper()
	eventually(e.t, "bytes come back", func() bool { return said(port) == "ping" })
}

func (e *envoy) closed(port int) {
	e.t.Helper()
	eventually(e.t, "nobody listens any more", func() bool {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
		if err != nil {
			return true
		}
		if err := conn.Close(); err != nil {
			e.t.Log(err)
		}
		return false
	})
}

// said is what comes back for a word; empty when nothing does.
func said(port int) string {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
	if err != nil {
		return ""
	}
	err = conn.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = conn.Write([]byte("ping"))
	}
	word := make([]byte, 4)
	if err == nil {
		_, err = io.ReadFull(conn, word)
	}
	if errors.Join(err, conn.Close()) != nil {
		return ""
	}
	return string(word)
}

// A port that something else has on the proxy's machine is refused by Envoy; it shows
// on the service, with the edit that it came by, and nothing else waits for it.
func TestRealEnvoyRefusesAPortThatIsTaken(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	m.add("db", 1, echo(t))
	m.add("orders", 1, upstream(t, "first"))
	e := startEnvoy(t, m, "DELTA_GRPC")
	e.serves("orders.prod", "first")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.localPort(t, "db", l.Addr().(*net.TCPAddr).Port)
	var p Propagation
	eventually(t, "the service says what is refused", func() bool {
		p, err = m.server.Propagation(t.Context(), registry.ServiceKey{Namespace: "prod", Service: "db"}, 0, 0)
		return err == nil && len(p.Refused) == 1
	})
	if r := p.Refused[0]; r.Type != "lds" || r.Resource != "tcp~db.prod" || !strings.Contains(r.Reason, "Address already in use") || r.Cause == nil || r.Cause.Version != 1 {
		t.Errorf("it says %+v", r)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m.add("later", 1, upstream(t, "later"))
	e.serves("later.prod", "later")
	free := freePort(t)
	m.localPort(t, "db", free)
	e.echoes(free)
}
