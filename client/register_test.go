package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// TestWhatIsRegisteredIsKept shows that leases are renewed, and that Close deregisters.
func TestWhatIsRegisteredIsKept(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil, w.serve())
	for n := range 10 {
		r := web("orders", fmt.Sprint("o-", n))
		r.TTL = time.Second
		must(c.Register(t.Context(), r))(t)
	}
	before := c.renewals()
	until(t, "every lease to be renewed twice", func() bool { return c.renewals() >= before+20 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "that an instance is there after Close", w.has("orders", "o-3"), false)
	if _, err := c.Register(t.Context(), web("orders", "late")); !errors.Is(err, ErrClosed) {
		t.Fatalf("to register with a client that is closed gives %v", err)
	}
}

// TestLeasesShareTheirRenewals shows that dozens of leases are renewed by a few requests.
func TestLeasesShareTheirRenewals(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil, w.serve())
	const leases = 64
	for n := range leases {
		r := web("orders", fmt.Sprint("o-", n))
		r.TTL = 2 * time.Second
		must(c.Register(t.Context(), r))(t)
	}
	before, requests := c.renewals(), c.renewalRequests()
	until(t, "every lease to be renewed three times", func() bool { return c.renewals() >= before+3*leases })
	if n := c.renewalRequests() - requests; n > 20 {
		t.Errorf("%d renewals took %d requests", 3*leases, n)
	}
}

// TestWhatTheRegistryHasLostIsRegisteredAgain shows that an instance comes back that the
// registry does not have any more, with the same token.
func TestWhatTheRegistryHasLostIsRegisteredAgain(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil, w.serve())
	r := web("orders", "a")
	r.TTL, r.Version = time.Second, "7"
	one := must(c.Register(t.Context(), r))(t)
	for range 3 {
		w.remove("orders", "a")
		until(t, "the instance to be back", func() bool { return w.has("orders", "a") })
	}
	i, _ := w.instance("orders", "a")
	mustEqual(t, "the version", i.Version, "7")
	until(t, "that all is well", func() bool { return one.Err() == nil })
}

// TestAnInstanceThatIsAnothersIsLeftToHim shows that who comes back after another has taken
// his place says so, and does not fight.
func TestAnInstanceThatIsAnothersIsLeftToHim(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	c := w.client(nil, s)
	r := web("orders", "a")
	r.TTL = time.Second
	one := must(c.Register(t.Context(), r))(t)
	s.stop()
	w.remove("orders", "a")
	if _, err := w.registry.Register(t.Context(), "", registry.Registration{
		Namespace: "default", Service: "orders", ID: "a", LeaseToken: "the-token-of-another",
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.2", Port: 8080}},
	}); err != nil {
		t.Fatal(err)
	}
	s.start()
	select {
	case <-one.Lost():
	case <-time.After(20 * time.Second):
		t.Fatal("it is not known to be lost")
	}
	if err := one.Err(); !errors.Is(err, ErrLost) {
		t.Fatalf("the error is %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "that the other's is there", w.has("orders", "a"), true)
}

// TestServersComeAndGo shows that a client goes on at another server, and waits where
// there is none.
func TestServersComeAndGo(t *testing.T) {
	w := newWorld(t)
	a, b := w.serve(), w.serve()
	c := w.client(nil, a, b)
	r := web("orders", "a")
	r.TTL = time.Second
	must(c.Register(t.Context(), r))(t)
	renewed := func() {
		t.Helper()
		before := c.renewals()
		until(t, "a renewal", func() bool { return c.renewals() > before })
	}
	for range 3 {
		a.stop()
		renewed()
		b.stop()
		a.start()
		renewed()
		b.start()
	}
	a.stop()
	b.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Register(ctx, web("orders", "b")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("to register where no server is gives %v", err)
	}
	a.start()
	must(c.Register(t.Context(), web("orders", "b")))(t)
	renewed()
}

// TestAServerWithoutALeaderIsLeft shows that health decides, and that one without a leader
// will do where none has one.
func TestAServerWithoutALeaderIsLeft(t *testing.T) {
	w := newWorld(t)
	a, b := w.serve(), w.serve()
	b.serving(false)
	c := w.client(nil, a, b)
	at := func() string {
		l, err := c.servers.at(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(l.server, l.serving.Load())
	}
	for range 8 { // wherever they begin
		l := must(w.client(nil, a, b).servers.at(t.Context()))(t)
		mustEqual(t, "the first server that a client is at", l.server, a.address)
	}
	until(t, "the one that has a leader", func() bool { return at() == a.address+"true" })
	b.serving(true)
	a.serving(false)
	until(t, "the other", func() bool { return at() == b.address+"true" })
	b.serving(false)
	until(t, "one without a leader", func() bool { return at() == a.address+"false" })
	until(t, "the other one without a leader", func() bool { return at() == b.address+"false" })
}

// TestAServerThatStopsIsLeft shows that one that ends its streams is left for another, though
// its health has not said so yet, and that nothing is taken for current meanwhile.
func TestAServerThatStopsIsLeft(t *testing.T) {
	w := newWorld(t)
	w.put("orders", "a", "")
	a, b := w.serve(), w.serve()
	c := w.client(nil, a, b)
	orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	at := must(c.servers.at(t.Context()))(t)
	other := map[string]*server{a.address: b, b.address: a}[at.server]
	before := orders.Snapshot()
	map[string]*server{a.address: a, b.address: b}[at.server].cancel()
	mustEqual(t, "that it is stale", must(orders.Next(t.Context(), before))(t).Stale, true)
	orders.told(t, "a")
	mustEqual(t, "the server", must(c.servers.at(t.Context()))(t).server, other.address)
}

// TestACrashedProcessComesBack shows that a lease token on disk opens the door to the same
// id, and that it is removed with the instance.
func TestACrashedProcessComesBack(t *testing.T) {
	w := newWorld(t)
	s, dir := w.serve(), t.TempDir()
	kept := func(c *Config) { c.Dir, c.KeepOnClose = dir, true }
	first := w.client(kept, s)
	token := must(first.Register(t.Context(), web("orders", "a")))(t).LeaseToken()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "that it is left to its lease", w.has("orders", "a"), true)
	if _, err := w.client(nil, s).Register(t.Context(), web("orders", "a")); !errors.Is(err, ErrLost) {
		t.Fatalf("without the token it is registered with %v", err)
	}
	again := must(w.client(kept, s).Register(t.Context(), web("orders", "a")))(t)
	mustEqual(t, "the token", again.LeaseToken(), token)
	if err := again.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "that it is there", w.has("orders", "a"), false)
	if third := must(w.client(kept, s).Register(t.Context(), web("orders", "a")))(t); third.LeaseToken() == token {
		t.Fatal("the token of an instance that was deregistered is used again")
	}
}

// TestAnInstanceIsUpdated shows that what is kept is the newest, also where it has to be
// registered again.
func TestAnInstanceIsUpdated(t *testing.T) {
	w := newWorld(t)
	c := w.client(func(c *Config) { c.Zone = "z1" }, w.serve())
	r := web("orders", "a")
	r.TTL = time.Second
	one := must(c.Register(t.Context(), r))(t)
	r.Labels = map[string]string{"track": "canary"}
	if err := one.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.remove("orders", "a")
	until(t, "the instance to be back", func() bool { return w.has("orders", "a") })
	i, _ := w.instance("orders", "a")
	mustEqual(t, "the labels and the zone", fmt.Sprintf("%v %s", i.Labels, i.Zone), "[{track canary}] z1")
}

// TestWhatIsRefused shows that errors say what is wrong, and with which field.
func TestWhatIsRefused(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil, w.serve())
	bad := web("orders", "a")
	bad.Endpoints[0].Port = 0
	_, err := c.Register(t.Context(), bad)
	var refused *Error
	if !errors.As(err, &refused) || refused.Reason != "BAD_REQUEST" || len(refused.Fields) != 1 || refused.Fields[0].Field != "endpoints[0].port" {
		t.Fatalf("a port of 0 gives %v", err)
	}
	bad = web("orders", "a")
	bad.TTL = 1500 * time.Millisecond
	if _, err := c.Register(t.Context(), bad); err == nil {
		t.Fatal("a TTL of 1.5 s is taken")
	}
	must(c.Register(t.Context(), web("orders", "a")))(t)
	if _, err := c.Register(t.Context(), web("orders", "a")); err == nil {
		t.Fatal("an instance is kept twice")
	}
	for name, config := range map[string]Config{
		"no server":             {},
		"no port":               {Servers: []string{"127.0.0.1"}},
		"not loopback, no TLS":  {Servers: []string{"127.0.0.1:18000", "10.0.0.1:18000"}},
		"a Dir that is no such": {Servers: []string{"127.0.0.1:18000"}, Dir: "/dev/null/x"},
	} {
		if c, err := New(config); err == nil {
			t.Errorf("%s: it is taken", name)
			c.Close()
		}
	}
}
