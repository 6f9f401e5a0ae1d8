package client

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// backend starts a gRPC server and registers it as an instance of orders.
func (w *world) backend(id, zone string, weight int32) (stop func()) {
	w.tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.tb.Fatal(err)
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	over := false
	stop = func() {
		if over {
			return
		}
		over = true
		s.Stop()
		if err := <-ended; err != nil {
			w.tb.Errorf("a backend ended with %v", err)
		}
	}
	w.tb.Cleanup(stop)
	if _, err := w.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "default", Service: "orders", ID: id, Zone: zone, Metadata: map[string]string{"address": listener.Addr().String()},
		Endpoints: []registry.Endpoint{
			{Name: "admin", Protocol: "http", Host: "127.0.0.1", Port: 1},
			{Protocol: "grpc", Host: "127.0.0.1", Port: int32(listener.Addr().(*net.TCPAddr).Port), Weight: weight},
		},
	}); err != nil {
		w.tb.Fatal(err)
	}
	return stop
}

// calls are the shares in a hundred that calls over a connection came to, by instance.
func (w *world) calls(conn *grpc.ClientConn) map[string]int {
	w.tb.Helper()
	const calls = 400
	ids := make(map[string]string)
	list, _, err := w.registry.List(context.Background(), registry.Query{Namespace: "default", Services: []string{"orders"}, Statuses: []string{"any"}})
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, i := range list {
		ids[i.Endpoints[1].Host+":"+fmt.Sprint(i.Endpoints[1].Port)] = i.ID
	}
	got := make(map[string]int)
	for range calls {
		var at peer.Peer
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&at), grpc.WaitForReady(true)); err != nil {
			continue // one that was under way as its server was stopped
		}
		got[ids[at.Addr.String()]]++
	}
	for id := range got {
		got[id] = got[id] * 100 / calls
	}
	return got
}

func (c *Client) dial(tb testing.TB, target string) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(target, grpc.WithResolvers(c.Resolver()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// TestGRPCConnectionsFollowTheService shows calls that go by zone and weight, away from who
// fails or drains, and on while no server of the registry is there.
func TestGRPCConnectionsFollowTheService(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	w.backend("a", "z1", 300)
	stopB := w.backend("b", "z1", 100)
	w.backend("c", "z2", 100)
	c := w.client(func(c *Config) { c.Zone = "z1" }, s)
	conn := c.dial(t, "stellmap:///orders")
	mustEqual(t, "the authority", conn.CanonicalTarget(), "stellmap:///orders")

	near := func(got, want int) bool { return got > want-12 && got < want+12 }
	shares := func(what string, is func(got map[string]int) bool) {
		t.Helper()
		var got map[string]int
		until(t, what, func() bool { got = w.calls(conn); return is(got) })
		t.Logf("%s: %v", what, got)
	}
	shares("the zone, by weight", func(got map[string]int) bool { return near(got["a"], 75) && near(got["b"], 25) && got["c"] == 0 })
	s.stop() // all that follows is known without the registry
	stopB()
	shares("the zone, which can take it without the lesser one", func(got map[string]int) bool { return got["a"] == 100 })
	s.start()
	w.drain("a")
	shares("another zone", func(got map[string]int) bool { return got["c"] == 100 })
	w.remove("orders", "b")
	shares("another zone, still", func(got map[string]int) bool { return got["c"] == 100 })
	w.backend("d", "z1", 100)
	shares("who is new in the zone", func(got map[string]int) bool { return got["d"] == 100 })
}

func (w *world) drain(id string) {
	w.tb.Helper()
	if _, err := w.registry.Drain(context.Background(), "", registry.InstanceRef{Namespace: "default", Service: "orders", ID: id}, registry.Drain{}); err != nil {
		w.tb.Fatal(err)
	}
}

// TestGRPCConnectionsToNobodyFailAtOnce shows that calls are told why, and that those that
// wait get whoever comes.
func TestGRPCConnectionsToNobodyFailAtOnce(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil, w.serve())
	conn := c.dial(t, "stellmap:///default/orders?endpoint=grpc")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no instance to pick") {
		t.Fatalf("a call to nobody ends with %v", err)
	}
	w.backend("a", "", 0)
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
}

// TestTargets shows which targets there are, and what is said of others.
func TestTargets(t *testing.T) {
	c := &Client{config: Config{Namespace: "default"}}
	for target, want := range map[string]string{
		"stellmap:///orders":                                   "{{default orders   } }",
		"stellmap:///prod/orders":                              "{{prod orders   } }",
		"stellmap:///prod/orders?endpoint=a&version=2&group=g": "{{prod orders g 2 } a}",
		"stellmap:///orders?selector=tier%3Dfree":              "{{default orders   tier=free} }",
		"stellmap://10.0.0.1/orders":                           `"10.0.0.1" stands where an authority does`,
		"stellmap:///":                                         `"/" is no service`,
		"stellmap:///a/b/c":                                    `"/a/b/c" is no service`,
		"stellmap:////orders":                                  "is no service",
		"stellmap:///orders?endpiont=a":                        `"endpiont" is unknown`,
		"stellmap:///orders?group=a&group=b":                   `"group" is unknown, or is there 2 times`,
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.parseTarget(*u)
		shown := fmt.Sprint(got)
		if err != nil {
			shown = err.Error()
		}
		if shown != want && (err == nil || !strings.Contains(shown, want)) {
			t.Errorf("%s is %s, want %s", target, shown, want)
		}
	}
}
