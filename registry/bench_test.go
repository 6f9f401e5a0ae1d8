package registry

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/storage"
)

// crowd registers so many instances, in services of a hundred, in entries of a
// thousand that are one batch each, and leads.
func crowd(b *testing.B, instances int) *member {
	b.Helper()
	m := &member{tb: b, clock: SystemClock{}, term: 1}
	m.engine, m.machine = openEmpty(b)
	m.registry = New(Config{Machine: m.machine, Replicator: m, Clock: m.clock})
	for n := 0; n < instances; {
		batch := m.engine.NewBatch()
		for range min(1000, instances-n) {
			m.index++
			m.machine.Apply(batch, Entry{Index: m.index, Term: 1, Time: 1_800_000_000_000, Data: registerCommand(crowded(b, n))})
			n++
		}
		if err := m.engine.Apply(batch, storage.Position{Index: uint64(m.index), Term: 1}); err != nil {
			b.Fatal(err)
		}
		m.machine.Publish(m.index)
	}
	m.machine.Lead(1)
	return m
}

// crowded is the n-th registration of a crowd, as workloads write them.
func crowded(b *testing.B, n int) Registration {
	r := reg("prod", fmt.Sprintf("acme.shop.checkout.s%05d.api", n/100), "10.0.0.1:"+strconv.Itoa(n), fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255), 8080)
	r.Zone, r.Version = "z"+strconv.Itoa(n%3), "1.2.3"
	r.Labels = map[string]string{"track": "stable", "team": "checkout"}
	r.LeaseTTLSeconds = int64(LeaseTTLMax / time.Second)
	normal, err := r.normalize()
	if err != nil {
		b.Fatal(err)
	}
	return normal
}

// BenchmarkApplyRegister is what one registration costs the goroutine that
// applies, engine and publishing included, among so many instances: new ones,
// and ones that say what they said before.
func BenchmarkApplyRegister(b *testing.B) {
	for _, instances := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("again/among=%d", instances), func(b *testing.B) {
			m := crowd(b, instances)
			commands := make([][]byte, instances)
			for n := range commands {
				commands[n] = registerCommand(crowded(b, n))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				m.apply(commands[n%instances])
			}
		})
		b.Run(fmt.Sprintf("new/among=%d", instances), func(b *testing.B) {
			m := crowd(b, instances)
			commands := make([][]byte, b.N)
			for n := range commands {
				commands[n] = registerCommand(crowded(b, instances+n))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, c := range commands {
				m.apply(c)
			}
		})
	}
}

// apply is commit without a log that grows.
func (m *member) apply(data []byte) {
	m.index++
	applyEntry(m.tb, m.engine, m.machine, Entry{Index: m.index, Term: 1, Time: 1_800_000_000_000, Data: data})
	m.machine.Publish(m.index)
}

// BenchmarkRenew is renewals among 100,000 leases: in the leader, by questions of
// a thousand, and from callers through the queue of a member that leads.
func BenchmarkRenew(b *testing.B) {
	const instances, perAsk = 100_000, 1000
	b.Run("leader", func(b *testing.B) {
		m := crowd(b, instances)
		asked := make([]leaseRenewal, instances)
		for n := range asked {
			asked[n].key = crowded(b, n).instanceKey()
		}
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N; n += perAsk {
			from := n % instances
			if _, err := m.machine.renewLeases(context.Background(), asked[from:from+min(perAsk, b.N-n)]); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "renewals/s")
	})
	b.Run("callers=1000", func(b *testing.B) {
		m := crowd(b, instances)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go m.registry.renewer.run(ctx)
		refs := make([]InstanceRef, instances)
		for n := range refs {
			refs[n] = crowded(b, n).ref()
		}
		b.ReportAllocs()
		b.ResetTimer()
		var callers sync.WaitGroup
		for c := range perAsk {
			callers.Go(func() {
				for n := c; n < b.N; n += perAsk {
					if _, err := m.registry.Heartbeat(ctx, refs[n%instances], 0); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "renewals/s")
	})
}

// BenchmarkListOneService is a list of one service of a hundred instances among
// 100,000: as readers do again and again, and with a change of one of the hundred
// before each, which costs as much as in BenchmarkApplyRegister.
func BenchmarkListOneService(b *testing.B) {
	q := Query{Namespace: "prod", Services: []string{"acme.shop.checkout.s00500.api"}, Consistency: Stale(0)}
	for _, changed := range []bool{false, true} {
		b.Run(fmt.Sprintf("changed=%v", changed), func(b *testing.B) {
			m := crowd(b, 100_000)
			one := crowded(b, 50_050)
			other := one
			other.Version = "1.2.4"
			commands := [][]byte{registerCommand(other), registerCommand(one)}
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				if changed {
					m.apply(commands[n%2])
				}
				got, _, err := m.registry.List(context.Background(), q)
				if err != nil || len(got) != 100 {
					b.Fatalf("list: %d, %v", len(got), err)
				}
			}
		})
	}
}

// BenchmarkWatchFanout is one publish of one event until all watchers of the ring have been told.
func BenchmarkWatchFanout(b *testing.B) {
	for _, watchers := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			r := newRing(ringEventsMax, ringBytesMax, 0)
			ctx, cancel := context.WithCancel(context.Background())
			var told, ended sync.WaitGroup
			for range watchers {
				ended.Go(func() {
					for w := (&Watch{ring: r}); ; told.Done() {
						if _, err := w.Next(ctx); err != nil {
							return
						}
					}
				})
			}
			one := events(1, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				told.Add(watchers)
				one[0].Revision = Revision(n + 1)
				r.publish(Revision(n+1), one)
				told.Wait()
			}
			b.StopTimer()
			cancel()
			ended.Wait()
		})
	}
}

// BenchmarkHeap is what a registered instance keeps alive, all in: the instance,
// its lease and its place in the state, the event ring left out by its bound.
func BenchmarkHeap(b *testing.B) {
	if b.N > 1 {
		b.Skip("once is enough: -benchtime 1x")
	}
	const total, services = 200_000, 2_000
	m := newMember(b, SystemClock{})
	before := heapAlloc()
	for n := range total {
		s, i := n%services, n/services
		r := reg("prod", fmt.Sprintf("team-%d.app-%d", s%100, s/100), fmt.Sprintf("10.%d.%d.%d:8080", s/250, s%250, i), fmt.Sprintf("10.%d.%d.%d", s/250, s%250, i), 8080)
		r.Zone, r.Version = fmt.Sprintf("z%d", i%3), fmt.Sprintf("1.4.%d", i%7)
		r.Labels = map[string]string{"track": "stable", "team": fmt.Sprintf("team-%d", s%100)}
		r.Metadata = map[string]string{"build": "91f2c0de", "started": "2026-11-24T10:00:00Z"}
		m.register(r)
		m.log = m.log[:0] // the harness's, not the registry's
	}
	b.ReportMetric(float64(heapAlloc()-before)/total, "B/instance")
}

func heapAlloc() uint64 {
	runtime.GC()
	runtime.GC() // what the first one freed by finalizers
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// shopfloor is a large registry as a state that can be queried: services of a
// hundred instances, but for one that has a tenth of them all. Ten instances are
// rare: in their group, zone, version, status, labels and an endpoint.
func shopfloor(b *testing.B, instances int) *Registry {
	b.Helper()
	m := newMember(b, SystemClock{})
	d := m.machine.reader
	put := func(service string, n int) {
		k := ServiceKey{Namespace: "prod", Service: d.share(service)}
		if m.machine.published.services[k] == nil {
			m.machine.published.putService(k, serviceRecord{})
		}
		r := Registration{
			Namespace: "prod", Service: service, ID: fmt.Sprintf("10.%d.%d.%d:8080", n>>16, n>>8&255, n&255), Zone: fmt.Sprintf("z%d", n%3), Version: "1.2.3",
			Labels:    map[string]string{"track": "stable", "rack": strconv.Itoa(n % 100)},
			Endpoints: []Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 8080}},
		}
		rare := n%(instances/10) == 0
		if rare {
			r.Zone, r.Group, r.Version, r.Labels["track"] = "z4", "blue", "1.2.4", "canary"
			r.Endpoints = append(r.Endpoints, Endpoint{Protocol: "grpc", Host: "10.0.0.1", Port: 9090})
			delete(r.Labels, "rack")
		}
		normal, err := r.normalize()
		if err != nil {
			b.Fatal(err)
		}
		i := d.instance(k.instance(r.ID), specOf(normal))
		if rare {
			i.Status = StatusExpired
		}
		m.machine.published.put(m.machine.published.services[k], i)
	}
	for n := range instances {
		switch service := n / 100; {
		case n < instances/10:
			put("acme.shop.checkout.large.api", n)
		default:
			put(fmt.Sprintf("acme.domain%d.checkout.app%d.api", (instances/100-service)/10, instances/100-service), n)
		}
	}
	return m.registry
}

func (k ServiceKey) instance(id string) InstanceKey {
	return InstanceKey{Namespace: k.Namespace, Service: k.Service, ID: id}
}

// BenchmarkQuery is a query by each dimension, with a limit of ten answers where
// more match, at a size and at ten times that. The first page of the third of
// everything looks at every service once.
func BenchmarkQuery(b *testing.B) {
	any := []string{"any"}
	queries := []struct {
		name string
		q    Query
	}{
		{"service", Query{Services: []string{"acme.domain50.checkout.app505.api"}}},
		{"services=2", Query{Services: []string{"acme.domain50.checkout.app505.api", "acme.domain70.checkout.app705.api"}}},
		{"prefix", Query{Prefixes: []string{"acme.domain50.checkout.app5"}, Limit: 10}},
		{"business-domain", Query{Levels: Levels{BusinessDomain: "domain50"}, Limit: 10}},
		{"application", Query{Levels: Levels{Application: "app505"}, Limit: 10}},
		{"group", Query{Groups: []string{"blue"}, Statuses: any, Limit: 10}},
		{"zone", Query{Zones: []string{"z4"}, Statuses: any, Limit: 10}},
		{"zone-of-a-third", Query{Zones: []string{"z1"}, Statuses: any, Limit: 10}},
		{"version", Query{Versions: []string{"1.2.4"}, Statuses: any, Limit: 10}},
		{"endpoint", Query{Endpoints: []string{"grpc"}, Statuses: any, Limit: 10}},
		{"status", Query{Statuses: []string{"expired"}, Limit: 10}},
		{"label", Query{Selectors: []string{"track=canary"}, Statuses: any, Limit: 10}},
		{"label-other", Query{Selectors: []string{"track!=stable"}, Statuses: any, Limit: 10}},
		{"label-missing", Query{Selectors: []string{"!rack"}, Statuses: any, Limit: 10}},
		{"in-the-large", Query{Services: []string{"acme.shop.checkout.large.api"}, Versions: []string{"1.2.4"}, Statuses: any, Limit: 10}},
		{"combined", Query{Levels: Levels{Organization: "acme", Role: "api"}, Zones: []string{"z4", "z5"}, Versions: []string{"1.2.4"}, Selectors: []string{"track in (canary,beta)"}, Statuses: any, Limit: 10}},
	}
	for _, instances := range []int{100_000, 1_000_000} {
		r := shopfloor(b, instances)
		for _, one := range queries {
			b.Run(fmt.Sprintf("%s/among=%d", one.name, instances), func(b *testing.B) {
				one.q.Namespace, one.q.Consistency = "prod", Stale(0)
				b.ReportAllocs()
				found := 0
				for range b.N {
					page, err := r.Instances(context.Background(), one.q, Paging{})
					if found = len(page.Instances); err != nil || found == 0 {
						b.Fatalf("list: %d, %v", found, err)
					}
				}
				b.ReportMetric(float64(found), "found")
			})
		}
	}
}
