package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// pages reads a list to its end, so many at a time; between the pages it calls change.
func (m *member) pages(q Query, limit func() int, change func()) (pages []Page) {
	m.tb.Helper()
	var p Paging
	for {
		q.Limit = limit()
		page, err := m.registry.Instances(context.Background(), q, p)
		if err != nil {
			m.tb.Fatalf("page %d: %v", len(pages), err)
		}
		pages = append(pages, page)
		if page.Next == nil {
			return pages
		}
		p.Cursor = page.Next
		change()
	}
}

// TestPagesAreOfOneRevision reads lists by random queries in pages of random
// sizes, while what is listed changes: put together, they are the list as it was
// when the first page was read, the instances themselves included.
func TestPagesAreOfOneRevision(t *testing.T) {
	r := newRandom(t)
	clock := newManualClock()
	m := newMember(t, clock)
	change := func() {
		one := randomInstance(r, someServices)
		if r.IntN(3) == 0 {
			m.deregister(one.ref())
		} else {
			m.register(one)
		}
	}
	for range 800 {
		change()
	}
	several := 0
	for range 120 {
		q := randomQuery(r)
		want, at, err := m.registry.List(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		var got []*Instance
		pages := m.pages(q, func() int { return 1 + r.IntN(40) }, change)
		for n, page := range pages {
			mustEqual(t, "the revision", page.Revision, at)
			if n < len(pages)-1 && len(page.Instances) == 0 {
				t.Fatalf("%+v: page %d of %d is empty", q, n, len(pages))
			}
			got = append(got, page.Instances...)
		}
		if len(pages) > 1 {
			several++
		}
		if !slices.EqualFunc(got, want, func(a, b *Instance) bool { return a.Key() == b.Key() && a.sameAs(b) && a.Revision == b.Revision }) {
			t.Fatalf("%+v\nin pages %v\nat once  %v", q, keysOf(got), keysOf(want))
		}
	}
	mustEqual(t, "that there were lists of several pages", several > 20, true)
}

// TestCounts shows that a count is of all pages, and can be had alone.
func TestCounts(t *testing.T) {
	m := shop(t)
	for name, c := range map[string]struct {
		query     Query
		instances int
		services  int
	}{
		"a namespace":    {Query{Namespace: "prod"}, 5, 4},
		"all namespaces": {Query{AllNamespaces: true}, 6, 5},
		"by a filter":    {Query{AllNamespaces: true, Zones: []string{"z1"}}, 4, 4},
		"nothing":        {Query{Namespace: "prod", Zones: []string{"z3"}}, 0, 0},
		"any status":     {Query{Namespace: "prod", Statuses: []string{"any"}}, 5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			c.query.Limit = 1
			for _, p := range []Paging{{Count: true}, {CountOnly: true}} {
				instances, err := m.registry.Instances(context.Background(), c.query, p)
				if err != nil {
					t.Fatal(err)
				}
				services, err := m.registry.Services(context.Background(), c.query, p)
				if err != nil {
					t.Fatal(err)
				}
				mustEqual(t, "the count of instances", instances.Count, c.instances)
				mustEqual(t, "the count of services", services.Count, c.services)
				mustEqual(t, "the number on the page", len(instances.Instances), min(1, c.instances, map[bool]int{true: 0, false: 1}[p.CountOnly]))
			}
		})
	}
}

// TestServices shows that they are read whole, sorted, in pages of one revision,
// with the number of instances that the query asks for, and only where a quorum
// confirms it unless stale is asked for.
func TestServices(t *testing.T) {
	m := shop(t)
	m.deregister(ref("test", "orders", "6"))
	cases := map[string]struct {
		query Query
		want  []string
	}{
		"all, of any status":   {Query{AllNamespaces: true, Statuses: []string{"any"}}, []string{"prod/acme.shop.cart.app.api=2/2", "prod/acme.shopping.cart.app.api=1/1", "prod/acme2.shop.cart.app.api=1/1", "prod/orders=1/1", "test/orders=0/0"}},
		"with instances":       {Query{Namespace: "test"}, nil},
		"a namespace, trimmed": {Query{Namespace: " test ", Statuses: []string{"any"}}, []string{"test/orders=0/0"}},
		"an unknown one":       {Query{Namespace: "none"}, nil},
		"a level":              {Query{Namespace: "prod", Levels: Levels{BusinessDomain: "shop"}}, []string{"prod/acme.shop.cart.app.api=2/2", "prod/acme2.shop.cart.app.api=1/1"}},
		"a zone":               {Query{Namespace: "prod", Zones: []string{"z2"}}, []string{"prod/acme.shop.cart.app.api=1/2"}},
		"an endpoint":          {Query{Namespace: "prod", Endpoints: []string{"grpc"}}, []string{"prod/acme.shop.cart.app.api=1/2", "prod/acme2.shop.cart.app.api=1/1"}},
	}
	for name, c := range cases {
		for limit := range 3 {
			t.Run(fmt.Sprintf("%s/limit=%d", name, limit), func(t *testing.T) {
				c.query.Limit = limit
				var got []string
				for p := (Paging{}); ; {
					page, err := m.registry.Services(context.Background(), c.query, p)
					if err != nil {
						t.Fatal(err)
					}
					for _, s := range page.Services {
						got = append(got, fmt.Sprintf("%s/%s=%d/%d", s.Key.Namespace, s.Key.Service, s.Matching, len(s.Instances)))
					}
					mustEqual(t, "the revision", page.Revision, m.machine.Revision())
					if p.Cursor = page.Next; p.Cursor == nil {
						break
					}
				}
				mustEqualSlices(t, "the services with their instances", got, c.want)
			})
		}
	}
	_, err := m.registry.Services(context.Background(), Query{Namespace: "a.b", Consistency: Stale(0)}, Paging{})
	mustBeInvalid(t, err, []string{"namespace"}, "has a dot")
	m.cut = true
	if _, err := m.registry.Services(context.Background(), Query{AllNamespaces: true}, Paging{}); !errors.Is(err, ErrNoLeader) {
		t.Fatalf("services: %v, want ErrNoLeader", err)
	}
	if _, err := m.registry.Services(context.Background(), Query{AllNamespaces: true, Consistency: Stale(0)}, Paging{}); err != nil {
		t.Fatalf("stale services: %v", err)
	}
}

// TestAServiceOfManyBlocksIsListedOnce shows it for one of which some blocks match.
func TestAServiceOfManyBlocksIsListedOnce(t *testing.T) {
	m := newMember(t, newManualClock())
	for n := range 5 * blockMax {
		one := reg("prod", "orders", fmt.Sprintf("i%04d", n), "10.0.0.1", 80)
		if n == 10 || n == 4*blockMax {
			one.Zone = "z1"
		}
		m.register(one)
	}
	m.register(reg("prod", "payments", "a", "10.0.0.1", 80))
	page, err := m.registry.Services(context.Background(), Query{Namespace: "prod", Zones: []string{"z1"}}, Paging{Count: true})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the number of services", len(page.Services), 1)
	mustEqual(t, "the count", page.Count, 1)
	mustEqual(t, "the matching instances", page.Services[0].Matching, 2)
	mustEqual(t, "all instances", len(page.Services[0].Instances), 5*blockMax)
}

// TestNamespaces shows their counts.
func TestNamespaces(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	short := reg("prod", "orders", "a", "10.0.0.1", 80)
	short.LeaseTTLSeconds = 1
	m.register(short)
	m.register(reg("prod", "payments", "b", "10.0.0.1", 80))
	m.register(reg("dev", "orders", "c", "10.0.0.1", 80))
	m.pass(clock, 2*time.Second)
	m.deregister(ref("dev", "orders", "c"))
	got, at, err := m.registry.Namespaces(context.Background(), Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	mustEqualSlices(t, "the namespaces", got, []NamespaceCount{{Namespace: "dev", Services: 1}, {Namespace: "prod", Services: 2, Instances: 2, Passing: 1, Alive: 1}})
	mustEqual(t, "the revision", at, m.machine.Revision())
}

// TestACursorExpires shows what ends a list: its time, too many others, and
// what it keeps alive; and that a member that was started anew knows none.
func TestACursorExpires(t *testing.T) {
	q := Query{Namespace: "prod", Limit: 1}
	begin := func(m *member) Paging {
		t.Helper()
		page, err := m.registry.Instances(context.Background(), q, Paging{})
		if err != nil {
			t.Fatal(err)
		}
		return Paging{Cursor: page.Next}
	}
	cases := map[string]func(m *member, clock *manualClock){
		"its time is over": func(_ *member, clock *manualClock) { clock.advance(viewLife + 1) },
		"too many others": func(m *member, _ *manualClock) {
			for range viewsMax {
				begin(m)
			}
		},
		"what it keeps alive": func(m *member, _ *manualClock) {
			m.machine.mu.Lock()
			m.machine.replaced += viewsBytesMax
			m.machine.mu.Unlock()
			m.register(reg("prod", "other", "a", "10.0.0.1", 80))
		},
		"a new start": func(m *member, _ *manualClock) { m.close(); m.open() },
	}
	for name, end := range cases {
		t.Run(name, func(t *testing.T) {
			clock := newManualClock()
			m := newMember(t, clock)
			for n := range 3 {
				m.register(reg("prod", "orders", fmt.Sprintf("i%d", n), "10.0.0.1", 80))
			}
			p := begin(m)
			clock.advance(viewLife)
			page, err := m.registry.Instances(context.Background(), q, p)
			if err != nil {
				t.Fatalf("in time: %v", err)
			}
			mustEqual(t, "the age of a later page", page.Age, viewLife)
			p = begin(m)
			end(m, clock)
			if _, err := m.registry.Instances(context.Background(), q, p); !errors.Is(err, ErrCursorExpired) {
				t.Fatalf("a later page: %v, want ErrCursorExpired", err)
			}
			kept, bytes, _ := m.machine.views.stats()
			mustEqual(t, "that views and their bytes are within bounds", kept <= viewsMax && bytes <= viewsBytesMax, true)
		})
	}
}

// TestACursorBelongsToItsList shows that one cannot be used with another query,
// or point outside its list.
func TestACursorBelongsToItsList(t *testing.T) {
	m := shop(t)
	q := Query{Namespace: "prod", Limit: 2}
	first, err := m.registry.Instances(context.Background(), q, Paging{})
	if err != nil {
		t.Fatal(err)
	}
	other := q
	other.Zones = []string{"z1"}
	_, err = m.registry.Instances(context.Background(), other, Paging{Cursor: first.Next})
	mustBeInvalid(t, err, []string{"cursor"}, "other filters")
	_, err = m.registry.Services(context.Background(), q, Paging{Cursor: first.Next})
	mustBeInvalid(t, err, []string{"cursor"}, "other filters")
	for _, wrong := range []Cursor{{Run: -1}, {Run: 99}, {Offset: -1}, {Offset: 99}} {
		wrong.View = first.Next.View
		_, err = m.registry.Instances(context.Background(), q, Paging{Cursor: &wrong})
		mustBeInvalid(t, err, []string{"cursor"}, "no place")
	}
	q.Limit = 0
	rest, err := m.registry.Instances(context.Background(), q, Paging{Cursor: first.Next})
	if err != nil {
		t.Fatal(err)
	}
	mustEqualSlices(t, "the rest", ids(rest.Instances), []string{"3", "4", "5"})
}
