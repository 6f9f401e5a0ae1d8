package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// What is registered and not shown is listed with the reason, found on demand.
func TestWithheldSaysWhy(t *testing.T) {
	m := newMember(t, nil)
	web := func(host string) registry.Endpoint { return registry.Endpoint{Protocol: "http", Host: host, Port: 80} }
	m.add("Orders", 1, web("10.0.0.1"))
	m.add("orders", 1, web("10.0.0.2"))
	m.add("ledger", 1, web("10.0.0.3"), registry.Endpoint{Name: "admin", Protocol: "http", Host: "10.0.0.3", Port: 81})
	m.add("ledger", 2, registry.Endpoint{Name: "http", Protocol: "grpc", Host: "10.0.0.4", Port: 80})
	m.add("ledger", 3, web("db.local"))
	m.add("ledger", 4, registry.Endpoint{Protocol: "grpc", Host: "10.0.0.5", Port: 80})
	m.add("ledger", 5, web("10.0.0.3"))
	m.add("admin--ledger", 1, web("10.0.0.6"))
	m.settled()
	var got []string
	for _, w := range m.server.Withheld(t.Context()) {
		got = append(got, fmt.Sprintf("%s.%s %s/%s: %s", w.Service.Service, w.Service.Namespace, w.Instance, w.Endpoint, w.Reason))
	}
	want := []string{
		"admin--ledger.prod /http: " + reasonTaken("admin--ledger.prod", "service ledger in namespace prod"),
		"ledger.prod 2/http: " + reasonProtocol("grpc", "http"),
		"ledger.prod 3/http: " + reasonHostName,
		"ledger.prod 4/http: " + reasonMissing,
		"ledger.prod 5/http: " + reasonTwin("1"),
		"orders.prod /http: " + reasonTaken("orders.prod", "service Orders in namespace prod"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("withheld:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c := m.started("ledger.prod", "orders.prod") // and none of it costs the others anything
	c.quiet()
}

// A status per stream says who it is, what it has accepted, and what it refuses.
func TestProxiesSayWhereTheyAre(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t, metadataService, "shop", metadataUpstreams, "*.prod"))
	c.subscribe(typeCluster)
	r := c.wants(typeCluster, "orders.prod")
	eventually(t, "the stream says that it waits for an answer", func() bool {
		p := m.server.Proxies()
		return len(p) == 1 && len(p[0].Types) == 1 && !p[0].Types[0].InSync && p[0].Types[0].Sent == m.machine.Revision()
	})
	c.ack(r)
	c.quiet()
	p := m.server.Proxies()[0]
	if p.Node != "web-1" || p.Service != "shop" || p.Namespace != "prod" || p.Region != "here" || p.Kind != "envoy" || p.Protocol != "delta" || !slices.Equal(p.Upstreams, []string{"*.prod"}) {
		t.Errorf("the proxy is %+v", p)
	}
	s := p.Types[0]
	if s.Type != "cds" || !s.Wildcard || s.Resources != 1 || s.Acked != s.Sent || !s.InSync || len(s.Rejected) != 0 {
		t.Errorf("its clusters are %+v", s)
	}
}

// The metrics have the names that dashboards use, and the time from a change to
// its acknowledgement is measured for changes only, not for what a stream asks for.
func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	m := newMember(t, func(c *Config, _ *limits) { c.Registerer = r })
	m.add("orders", 1)
	c := m.started("orders.prod")
	if n := changesOf(t, r); n != [typeCount]uint64{} {
		t.Errorf("the first responses count as %v changes", n)
	}
	m.add("orders", 2)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.quiet()
	if n := changesOf(t, r); n != [typeCount]uint64{typeEndpoints: 1} {
		t.Errorf("one change of endpoints counts as %v", n)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	golden(t, "metrics.txt", strings.Join(names, "\n")+"\n")
}

// changesOf is how many changes of each type were acknowledged.
func changesOf(t *testing.T, r *prometheus.Registry) (counts [typeCount]uint64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "stellmap_change_to_ack_seconds" {
			continue
		}
		for _, one := range f.GetMetric() {
			typ := resourceType(slices.Index(TypeNames, one.GetLabel()[0].GetValue()))
			counts[typ] = one.GetHistogram().GetSampleCount()
		}
		return counts
	}
	t.Fatal("there is no stellmap_change_to_ack_seconds")
	return counts
}

// A server whose metrics are taken already says so when it runs.
func TestMetricsTwiceAreAnError(t *testing.T) {
	r := prometheus.NewRegistry()
	m := newRegistry(t)
	New(Config{Machine: m.machine, Registerer: r})
	if err := New(Config{Machine: m.machine, Registerer: r}).Run(t.Context()); err == nil {
		t.Error("Run does not mind")
	}
}

// A follower that has fallen behind the events that are kept compares everything
// and goes on: streams are told what has changed, and of nothing else.
func TestFallingBehindLosesNothing(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	m.add("basket", 1)
	c := m.started("basket.prod", "ledger.prod", "orders.prod")
	m.server.cache.mu.Lock() // the follower stands still
	m.add("orders", 2)
	m.add("mail", 1)
	m.remove("ledger", 1)
	for n := range 70 { // of a thousand events each, more than the ring holds
		m.fill(fmt.Sprintf("s%02d", n), 1000)
	}
	m.server.cache.mu.Unlock()
	m.settled()
	if m.server.metrics.reloads.Load() == 0 {
		t.Fatal("the follower has not fallen behind")
	}
	have := make(map[string]bool)
	for !have["-ledger.prod"] || !have["mail.prod"] || !have["endpoints of orders.prod"] {
		r := c.next(t)
		for _, res := range r.Resources {
			if r.TypeUrl == typeURLs[typeEndpoints] {
				have["endpoints of "+res.Name] = true
			} else {
				have[res.Name] = true
			}
		}
		for _, name := range r.RemovedResources {
			if r.TypeUrl == typeURLs[typeCluster] {
				have["-"+name] = true
			}
		}
		c.ack(r)
	}
	if have["endpoints of basket.prod"] || have["basket.prod"] {
		t.Error("what has not changed was sent again")
	}
}

// When the server stops, its streams end with UNAVAILABLE, so that proxies try
// another member at once.
func TestStoppingEndsTheStreams(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.started("orders.prod")
	m.stop()
	if err := c.end(t); !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the stream ended with %v", err)
	}
}

// A service that was made anew with other endpoints is not shown under its old
// names: what the state says of endpoint 1 is not what the directory means by it.
func TestAServiceMadeAnewIsNotMistakenForTheOld(t *testing.T) {
	m := newRegistry(t)
	web := registry.Endpoint{Name: "http", Protocol: "http", Host: "10.0.0.1", Port: 80}
	admin := registry.Endpoint{Name: "admin", Protocol: "http", Host: "10.0.0.1", Port: 81}
	debug := registry.Endpoint{Name: "debug", Protocol: "http", Host: "10.0.0.1", Port: 82}
	m.add("orders", 1, web, admin)
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Now())
	m.remove("orders", 1)
	m.add("orders", 1, web, debug)
	if s, _, err := c.lookup(c.owner("admin~orders.prod")); s != nil || !errors.Is(err, errAhead) {
		t.Errorf("the directory takes %+v for the endpoint admin, %v", s, err)
	}
	c.reload(time.Now())
	if s, n, _ := c.lookup(c.owner("debug~orders.prod")); s == nil || s.Endpoints[n].Name != "debug" {
		t.Error("the new endpoint is not found")
	}
}

// A cluster whose service is gone goes in the round in which the directory hears of
// it, with the routes that lead there, and not in an earlier one that finds the
// state ahead: there a route would lead to a cluster that the client lacks.
func TestAClusterStaysUntilItsRoutesAreToldToo(t *testing.T) {
	m := newRegistry(t)
	m.register(checked("orders", 1))
	c := newCache(m.machine, func() string { return "" }, newMetrics())
	c.reload(time.Now())
	r := c.subscribe(resourceKey{typ: typeCluster, name: "orders.prod"}, c.openScope(kindEnvoy, retriesAtHosts, nil, []string{"*.prod"}))
	first := c.entry(r)
	if first.absent() {
		t.Fatal("there is no cluster")
	}
	watch := m.machine.Watch(m.machine.Revision())
	m.remove("orders", 1)
	rounds := 0
	for !r.current.Load().absent() {
		if r.current.Load() != first {
			t.Fatal("another content is shown meanwhile")
		}
		batch, err := watch.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for n := range batch.Events { // one at a time, as a follower that keeps up may have them
			c.apply(registry.Batch{Revision: batch.Events[n].Revision, Events: batch.Events[n : n+1]}, time.Now())
			if rounds++; r.current.Load().absent() != (c.directory.clusters["orders.prod"] == nil) {
				t.Errorf("after event %d the cluster is gone %t, and its name's owner %t", n, r.current.Load().absent(), c.directory.clusters["orders.prod"] == nil)
			}
		}
	}
	if rounds < 2 {
		t.Errorf("the service went in %d round", rounds)
	}
}
