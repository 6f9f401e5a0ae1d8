package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestParseSelector shows the grammar, and that a value may hold what looks like grammar.
func TestParseSelector(t *testing.T) {
	labels := PairsOf(map[string]string{"track": "canary", "made": "made in china", "f": "g(x)", "empty": "", "in": "yes"})
	cases := map[string]bool{
		"track": true, "missing": false, "!missing": true, "!track": false, "! missing": true,
		"track=canary": true, "track==canary": true, "track = canary": true, "track=stable": false,
		"track!=stable": true, "track!=canary": false, "missing!=x": true,
		"track in (canary,stable)": true, "track in ( stable , canary )": true, "track in (stable)": false,
		"track notin (stable)": true, "track notin (canary)": false, "missing notin (x)": true, "missing in (x)": false,
		"track=canary,!missing": true, "track=canary,missing": false, "track in (a,canary),f": true,
		"made=made in china": true, "f=g(x)": true, "empty=": true, "empty": true, "in": true, "in in (yes)": true,
	}
	for text, want := range cases {
		t.Run(text, func(t *testing.T) {
			terms, err := parseSelector(text)
			if err != nil {
				t.Fatal(err)
			}
			got := true
			for _, q := range terms {
				got = got && q.matches(labels)
			}
			mustEqual(t, "the match", got, want)
		})
	}
}

// TestParseSelectorErrors shows that an error says where it stands and what is allowed.
func TestParseSelectorErrors(t *testing.T) {
	cases := map[string]string{
		"track,":            "expected a label key at the end",
		",track":            "expected a label key in column 1",
		"!":                 "expected a label key at the end",
		"=x":                "expected a label key in column 1",
		"track in":          `expected "(" at the end`,
		"track in canary":   `expected "(" in column 10, before "canary"`,
		"track in (canary":  "never closed",
		"track in ()":       "expected a value in column 11",
		"track canary":      "expected a comma or the end in column 7",
		"track in (a) junk": "expected a comma or the end",
	}
	for text, says := range cases {
		t.Run(text, func(t *testing.T) {
			m := newMember(t, newManualClock())
			_, _, err := m.registry.List(context.Background(), Query{Namespace: "prod", Selectors: []string{text}})
			mustBeInvalid(t, err, []string{"selector"}, says)
		})
	}
}

// shop fills a member with what the list tests ask for.
func shop(t *testing.T) *member {
	m := newMember(t, newManualClock())
	add := func(service, id, zone string, labels map[string]string, protocols ...string) {
		r := Registration{Namespace: "prod", Service: service, ID: id, Zone: zone, Labels: labels}
		for _, p := range protocols {
			r.Endpoints = append(r.Endpoints, Endpoint{Protocol: p, Host: "10.0.0.1", Port: 80})
		}
		m.register(r)
	}
	add("acme.shop.cart.app.api", "2", "z1", map[string]string{"track": "canary"}, "http")
	add("acme.shop.cart.app.api", "1", "z2", map[string]string{"track": "stable"}, "http", "grpc")
	add("acme.shopping.cart.app.api", "3", "z1", nil, "http")
	add("acme2.shop.cart.app.api", "4", "z1", nil, "grpc")
	add("orders", "5", "z1", nil, "tcp")
	other := reg("test", "orders", "6", "10.0.0.1", 80)
	m.register(other)
	return m
}

// TestList shows each filter of a query, and that all of them must match.
func TestList(t *testing.T) {
	m := shop(t)
	cases := map[string]struct {
		query Query
		want  []string
	}{
		"a namespace, sorted by service and id":  {Query{}, []string{"1", "2", "3", "4", "5"}},
		"a service":                              {Query{Services: []string{"orders"}}, []string{"5"}},
		"the union of services, one named twice": {Query{Services: []string{"orders", "acme2.shop.cart.app.api", "orders"}}, []string{"4", "5"}},
		"an unknown service":                     {Query{Services: []string{"nothing"}}, []string{}},
		"a textual prefix":                       {Query{Prefixes: []string{"acme.sh"}}, []string{"1", "2", "3"}},
		"the union of prefixes":                  {Query{Prefixes: []string{"acme2", "ord"}}, []string{"4", "5"}},
		"services and prefixes must both match":  {Query{Services: []string{"orders", "acme2.shop.cart.app.api"}, Prefixes: []string{"acme"}}, []string{"4"}},
		"a level matches the whole field":        {Query{Levels: Levels{Organization: "acme", BusinessDomain: "shop"}}, []string{"1", "2"}},
		"a level in the middle":                  {Query{Levels: Levels{Application: "app"}}, []string{"1", "2", "3", "4"}},
		"levels with a gap":                      {Query{Levels: Levels{Organization: "acme", Application: "app"}}, []string{"1", "2", "3"}},
		"the last level and a prefix":            {Query{Levels: Levels{Role: "api"}, Prefixes: []string{"acme2", "acme.shopping"}}, []string{"3", "4"}},
		"a level that no service has":            {Query{Levels: Levels{Role: "app"}}, []string{}},
		"one of several zones":                   {Query{Zones: []string{"z2", "z3"}}, []string{"1"}},
		"a region":                               {Query{Regions: []string{"here"}, Services: []string{"orders"}}, []string{"5"}},
		"another region":                         {Query{Regions: []string{"there"}}, []string{}},
		"a label that is missing":                {Query{Selectors: []string{"!track"}}, []string{"3", "4", "5"}},
		"a status":                               {Query{Statuses: []string{"passing"}, Zones: []string{"z2"}}, []string{"1"}},
		"another status":                         {Query{Statuses: []string{"expired"}}, []string{}},
		"a zone":                                 {Query{Zones: []string{"z2"}}, []string{"1"}},
		"an endpoint by protocol":                {Query{Endpoints: []string{"grpc"}}, []string{"1", "4"}},
		"a selector":                             {Query{Selectors: []string{"track in (canary,stable)", "track!=stable"}}, []string{"2"}},
		"a label":                                {Query{Labels: []string{"track=stable"}}, []string{"1"}},
		"a limit, applied last":                  {Query{Zones: []string{"z1"}, Limit: 2}, []string{"2", "3"}},
		"empty values say nothing":               {Query{Services: []string{""}, Prefixes: []string{" "}, Selectors: []string{""}}, []string{"1", "2", "3", "4", "5"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.query.Namespace = "prod"
			got, at, err := m.registry.List(context.Background(), c.query)
			if err != nil {
				t.Fatal(err)
			}
			mustEqualSlices(t, "the list", ids(got), c.want)
			mustEqual(t, "the revision", at, m.machine.Revision())
		})
	}
}

// TestListKeepsMatchingEndpointsOnly shows that asking for an endpoint leaves the
// others out of the answer, and leaves the stored instance alone.
func TestListKeepsMatchingEndpointsOnly(t *testing.T) {
	m := shop(t)
	got, _, err := m.registry.List(context.Background(), Query{Namespace: "prod", Endpoints: []string{"grpc"}, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the number of endpoints", len(got[0].Endpoints), 1)
	mustEqual(t, "the endpoint", got[0].Endpoints[0].Protocol, "grpc")
	stored, _, err := m.registry.Get(context.Background(), ref("prod", "acme.shop.cart.app.api", "1"), Stale(0))
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the number of stored endpoints", len(stored.Endpoints), 2)
}

// TestListRefusesBadQueries shows that each error names its parameter.
func TestListRefusesBadQueries(t *testing.T) {
	m := newMember(t, newManualClock())
	cases := map[string]struct {
		query Query
		field string
		says  string
	}{
		"no namespace":         {Query{}, "namespace", "is missing"},
		"a gap in the levels":  {Query{Namespace: "p", Levels: Levels{Organization: "a", Role: "b"}, LevelsInRun: true}, "role", "without businessDomain"},
		"levels from below":    {Query{Namespace: "p", Levels: Levels{BusinessDomain: "b"}, LevelsInRun: true}, "businessDomain", "without organization"},
		"label without value":  {Query{Namespace: "p", Labels: []string{"k="}}, "label", "not key=value"},
		"label without key":    {Query{Namespace: "p", Labels: []string{"=v"}}, "label", "not key=value"},
		"label without either": {Query{Namespace: "p", Labels: []string{"k"}}, "label", "not key=value"},
		"an unknown status":    {Query{Namespace: "p", Statuses: []string{"dead"}}, "status", "any, routable, passing, warning, suspect, critical, draining, expired, disabled"},
		"two namespaces":       {Query{Namespace: "p", AllNamespaces: true}, "namespace", "one of the two"},
		"negative limit":       {Query{Namespace: "p", Limit: -1}, "limit", "-1 is negative"},
		"too many services":    {Query{Namespace: "p", Services: make([]string, queryTermsMax+1)}, "service", "at most 256"},
		"too many labels":      {Query{Namespace: "p", Labels: slices.Repeat([]string{"k=v"}, queryTermsMax+1)}, "label", "at most 256"},
		"too many selectors":   {Query{Namespace: "p", Selectors: []string{"k" + strings.Repeat(",k", queryTermsMax)}}, "selector", "has 257 terms: at most 256"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, _, err := m.registry.List(context.Background(), c.query)
			mustBeInvalid(t, err, []string{c.field}, c.says)
		})
	}
	most := Query{Namespace: "p", Services: make([]string, queryTermsMax), Labels: slices.Repeat([]string{"k=v"}, queryTermsMax), Selectors: []string{"k" + strings.Repeat(",k", queryTermsMax-1)}}
	if _, _, err := m.registry.List(context.Background(), most); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
}

// TestExpiredInstancesAreListedOnRequestOnly shows what leaves the list with its lease.
func TestExpiredInstancesAreListedOnRequestOnly(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	r := reg("prod", "orders", "a", "10.0.0.1", 80)
	r.LeaseTTLSeconds = 1
	m.register(r)
	m.pass(clock, 2*expiryTick+1e9)
	routable, _, err := m.registry.List(context.Background(), Query{Namespace: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the number of routable instances", len(routable), 0)
	all, _, err := m.registry.List(context.Background(), Query{Namespace: "prod", Statuses: []string{"any"}})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the status", all[0].Status.String(), "expired")
}

// TestReadsNeedAQuorumUnlessStale shows that a linearizable read is refused where
// nobody confirms the leader, and a stale one is not.
func TestReadsNeedAQuorumUnlessStale(t *testing.T) {
	m := shop(t)
	m.cut = true
	if _, _, err := m.registry.List(context.Background(), Query{Namespace: "prod"}); !errors.Is(err, ErrNoLeader) {
		t.Fatalf("list: %v, want ErrNoLeader", err)
	}
	if _, _, err := m.registry.Get(context.Background(), ref("prod", "orders", "5"), Consistency{}); !errors.Is(err, ErrNoLeader) {
		t.Fatalf("get: %v, want ErrNoLeader", err)
	}
	if _, _, err := m.registry.List(context.Background(), Query{Namespace: "prod", Consistency: Stale(0)}); err != nil {
		t.Fatalf("stale list: %v", err)
	}
	_, at, err := m.registry.Get(context.Background(), ref("prod", "orders", "none"), Stale(0))
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("get: %v, want ErrNotFound", err)
	}
	mustEqual(t, "the revision", at, m.machine.Revision())
}

// TestAStaleReadCanBeBoundInAge shows that a member whose state is too old answers
// only when a leader confirms it, and that one that knows nothing of its age is too old.
func TestAStaleReadCanBeBoundInAge(t *testing.T) {
	m := shop(t)
	read := func(maxAge time.Duration) error {
		_, _, err := m.registry.List(context.Background(), Query{Namespace: "prod", Consistency: Stale(maxAge)})
		return err
	}
	_, known := m.registry.Age()
	mustEqual(t, "the age is known", known, false)
	mustEqual(t, "a read", read(time.Second), nil)
	m.cut = true
	if err := read(time.Second); !errors.Is(err, ErrTooOld) || errors.Is(err, ErrNoLeader) {
		t.Errorf("a state of unknown age was read: %v", err)
	}
	m.fresh = m.registry.clock.Now().Add(-2 * time.Second)
	age, _ := m.registry.Age()
	mustEqual(t, "the age", age, 2*time.Second)
	mustEqual(t, "a read", read(2*time.Second), nil)
	if err := read(2*time.Second - 1); !errors.Is(err, ErrTooOld) {
		t.Errorf("a state that is too old was read: %v", err)
	}
}

// TestServiceKeys shows that they are sorted, of one namespace or of all.
func TestServiceKeys(t *testing.T) {
	m := shop(t)
	mustEqual(t, "the number of services", len(m.machine.ServiceKeys("")), 5)
	mustEqualSlices(t, "one namespace", m.machine.ServiceKeys("test"), []ServiceKey{{"test", "orders"}})
	mustEqualSlices(t, "the other", m.machine.ServiceKeys("prod"), []ServiceKey{
		{"prod", "acme.shop.cart.app.api"}, {"prod", "acme.shopping.cart.app.api"}, {"prod", "acme2.shop.cart.app.api"}, {"prod", "orders"},
	})
	mustEqual(t, "an unknown one", len(m.machine.ServiceKeys("none")), 0)
}
