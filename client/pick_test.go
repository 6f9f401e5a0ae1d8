package client

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// TestWhoTakesWhichShare shows how weights, states, zones and regions divide the traffic.
func TestWhoTakesWhichShare(t *testing.T) {
	const near, region, far = 0, 1, 2
	for name, c := range map[string]struct {
		all  []candidate
		want []float64
	}{
		"nobody":                                   {nil, nil},
		"by weight":                                {[]candidate{{near, 100, well}, {near, 300, well}}, []float64{.25, .75}},
		"the zone first":                           {[]candidate{{near, 100, well}, {region, 100, well}, {far, 900, well}}, []float64{1, 0, 0}},
		"two in seven of the zone may be ill":      {[]candidate{{near, 500, well}, {near, 200, ill}, {region, 1, well}}, []float64{1, 0, 0}},
		"half of the zone is ill":                  {[]candidate{{near, 100, well}, {near, 100, ill}, {region, 100, well}}, []float64{.7, 0, .3}},
		"all of the zone is ill":                   {[]candidate{{near, 100, ill}, {region, 100, well}, {far, 100, well}}, []float64{0, 1, 0}},
		"the region is ill":                        {[]candidate{{near, 100, ill}, {region, 100, ill}, {far, 100, well}}, []float64{0, 0, 1}},
		"nobody is near":                           {[]candidate{{far, 100, well}, {far, 100, well}}, []float64{.5, .5}},
		"who drains is not counted on":             {[]candidate{{near, 100, well}, {near, 900, out}, {region, 100, well}}, []float64{1, 0, 0}},
		"all levels together cannot take it":       {[]candidate{{near, 10, well}, {near, 90, ill}, {region, 20, well}, {region, 80, ill}}, []float64{1. / 3, 0, 2. / 3, 0}},
		"suspects where there is no better":        {[]candidate{{near, 100, last}, {region, 100, ill}}, []float64{1, 0}},
		"no suspects where there is better":        {[]candidate{{near, 100, last}, {far, 100, well}}, []float64{0, 1}},
		"a suspect of the zone is missing from it": {[]candidate{{near, 100, last}, {near, 100, well}, {region, 100, well}}, []float64{0, .7, .3}},
		"nobody is well":                           {[]candidate{{near, 100, ill}, {near, 100, out}}, []float64{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			chooser := newChooser(c.all)
			const draws = 10_000
			got := make([]float64, len(c.all))
			for n := range draws {
				if i, ok := chooser.pick((float64(n) + .5) / draws); ok {
					got[i] += 1. / draws
				}
			}
			for i := range c.want {
				if math.Abs(got[i]-c.want[i]) > 2./draws {
					t.Fatalf("the shares are %.5f, want %.5f", got, c.want)
				}
			}
		})
	}
}

// TestThePickerFollowsTheService shows picks by endpoint, state and zone, and what is done
// with those that were tried.
func TestThePickerFollowsTheService(t *testing.T) {
	w := newWorld(t)
	c := w.client(func(c *Config) { c.Zone = "z1" }, w.serve())
	orders := must(c.Discover(t.Context(), Query{Service: "orders"}))(t)
	picker := orders.Picker(PickFrom{Endpoint: "http"})
	if _, err := picker.Pick(); !errors.Is(err, ErrNone) {
		t.Fatalf("from nothing it picks with %v", err)
	}
	put := func(id, zone, host string) {
		t.Helper()
		if _, err := w.registry.Register(t.Context(), "", registry.Registration{
			Namespace: "default", Service: "orders", ID: id, Zone: zone,
			Endpoints: []registry.Endpoint{{Name: "admin", Protocol: "tcp", Host: host, Port: 1}, {Protocol: "http", Host: host, Port: 80}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "z1", "10.0.0.1")
	put("b", "z2", "10.0.0.2")
	orders.told(t, "a b")
	for range 100 {
		mustEqual(t, "what is picked", must(picker.Pick())(t).Address(), "10.0.0.1:80")
	}
	first := must(picker.Pick())(t)
	second := must(picker.Pick(first))(t)
	mustEqual(t, "what is picked after that", second.Address(), "10.0.0.2:80")
	mustEqual(t, "what is picked after all were tried", must(picker.Pick(first, second))(t).Address(), "10.0.0.1:80")

	if _, err := w.registry.Drain(t.Context(), "", registry.InstanceRef{Namespace: "default", Service: "orders", ID: "a"}, registry.Drain{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the drain to be known", func() bool { return must(picker.Pick())(t).Instance.ID == "b" })
	other := orders.Picker(PickFrom{Endpoint: "grpc"})
	if _, err := other.Pick(); !errors.Is(err, ErrNone) {
		t.Fatalf("of an endpoint that nobody has it picks with %v", err)
	}
}

// BenchmarkPick shows what a pick costs.
func BenchmarkPick(b *testing.B) {
	for _, size := range []int{10, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := &Service{client: &Client{}, now: Snapshot{number: 1}}
			for n := range size {
				s.now.Instances = append(s.now.Instances, &Instance{ID: fmt.Sprint(n), Status: Passing, Endpoints: []Endpoint{{Host: "10.0.0.1", Port: n, Weight: 100}}})
			}
			picker := s.Picker(PickFrom{})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := picker.Pick(); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
