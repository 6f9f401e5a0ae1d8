package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The words that random instances and queries are made of. Some are prefixes of others.
var (
	someNamespaces = []string{"prod", "prod2", "test"}
	someServices   = []string{
		"acme.shop.cart.app.api", "acme.shop.cart.app2.api", "acme.shopping.cart.app.web", "acme2.shop.cart.app.api",
		"beta.shop.pay.app.api", "acme.shop", "orders", "orders2", "acme", "api",
	}
	someZones    = []string{"", "z1", "z2", "z11"}
	someGroups   = []string{"", "blue", "green"}
	someVersions = []string{"", "1", "1.2", "1.2.3", "2"}
	someTracks   = []string{"canary", "stable", ""}
	someNames    = []string{"http", "grpc", "admin", "GRPC"}
)

func pick(r *rand.Rand, of []string) string { return of[r.IntN(len(of))] }

// picks are so many of the words, or none at all.
func picks(r *rand.Rand, of []string, chance float64) []string {
	if r.Float64() >= chance {
		return nil
	}
	out := make([]string, 1+r.IntN(2))
	for i := range out {
		out[i] = pick(r, of)
	}
	return out
}

// randomInstance has most often an id of a few, so that it meets others.
func randomInstance(r *rand.Rand, services []string) Registration {
	number := r.IntN(400)
	out := Registration{
		Namespace: pick(r, someNamespaces), Service: pick(r, services), ID: fmt.Sprintf("i%d", number),
		Zone: pick(r, someZones), Group: pick(r, someGroups), Version: pick(r, someVersions), Labels: map[string]string{},
	}
	if r.IntN(3) > 0 {
		out.Labels["track"] = pick(r, someTracks)
	}
	if r.IntN(20) > 0 {
		out.Labels["team"] = fmt.Sprintf("t%d", r.IntN(5))
	}
	if r.IntN(4) == 0 {
		out.Labels["pod"] = out.ID // a value that no other has
	}
	for _, name := range someNames[:1+r.IntN(len(someNames))] {
		out.Endpoints = append(out.Endpoints, Endpoint{Name: name, Protocol: strings.ToLower(pick(r, someNames)), Host: "10.0.0.1", Port: int32(80 + number)})
	}
	return out
}

func randomQuery(r *rand.Rand) Query {
	q := Query{
		Services: picks(r, someServices, 0.2), Prefixes: picks(r, []string{"acme", "acme.", "acme.sh", "acme.shop.", "o", "orders", "x"}, 0.2),
		Groups: picks(r, someGroups[1:], 0.1), Zones: picks(r, someZones[1:], 0.2), Versions: picks(r, someVersions[1:], 0.2),
		Regions: picks(r, []string{"here", "there"}, 0.1), Endpoints: picks(r, someNames, 0.2),
		Statuses: picks(r, []string{"any", "routable", "passing", "warning", "critical", "draining", "expired", "disabled"}, 0.5),
	}
	if r.IntN(8) == 0 {
		q.Labels = []string{pick(r, []string{"track=canary", "track=stable", "team=t1", "none=x"})}
	}
	if q.AllNamespaces = r.IntN(4) == 0; !q.AllNamespaces {
		q.Namespace = pick(r, someNamespaces)
	}
	for l, of := range [...]*string{&q.Levels.Organization, &q.Levels.BusinessDomain, &q.Levels.CapabilityDomain, &q.Levels.Application, &q.Levels.Role} {
		if r.IntN(8) == 0 {
			*of = LevelsOf(someServices[r.IntN(5)]).parts()[l]
		}
	}
	for range r.IntN(3) {
		q.Selectors = append(q.Selectors, randomSelector(r))
	}
	return q
}

func randomSelector(r *rand.Rand) string {
	key, one, two := "track", pick(r, someTracks), pick(r, someTracks)
	switch r.IntN(3) {
	case 0:
		key, one, two = "team", fmt.Sprintf("t%d", r.IntN(6)), fmt.Sprintf("t%d", r.IntN(6))
	case 1:
		key, one, two = pick(r, []string{"pod", "none"}), fmt.Sprintf("i%d", r.IntN(400)), fmt.Sprintf("i%d", r.IntN(400))
	}
	return fmt.Sprintf(pick(r, []string{"%[1]s", "!%[1]s", "%[1]s=%[2]s", "%[1]s!=%[2]s", "%[1]s in (%[2]s,%[3]s)", "%[1]s notin (%[2]s,%[3]s,%[2]s)"})+"%.0[1]s%.0[2]s%.0[3]s", key, one, two)
}

// naively answers a query by looking at everything, in words of its own.
func naively(q Query, all []*Instance, handedOut map[InstanceKey]bool) []*Instance {
	out := []*Instance{}
	for _, i := range all {
		if naiveService(q, i) && naiveInstance(q, i, handedOut[i.Key()]) {
			out = append(out, i)
		}
	}
	return out
}

func naiveService(q Query, i *Instance) bool {
	prefixed := len(q.Prefixes) == 0
	for _, p := range q.Prefixes {
		prefixed = prefixed || len(i.Service) >= len(p) && i.Service[:len(p)] == p
	}
	parts := strings.Split(i.Service, ".")
	for l, level := range q.Levels.parts() {
		if level != "" && (len(parts) != 5 || parts[l] != level) {
			return false
		}
	}
	return prefixed && (q.AllNamespaces || i.Namespace == q.Namespace) && naiveOne(q.Services, i.Service)
}

func naiveOne(of []string, value string) bool { return len(of) == 0 || slices.Contains(of, value) }

func naiveInstance(q Query, i *Instance, handedOut bool) bool {
	endpoint := len(q.Endpoints) == 0
	for _, want := range q.Endpoints {
		for _, e := range i.Endpoints {
			endpoint = endpoint || e.Name == want || strings.EqualFold(e.Protocol, want)
		}
	}
	routable := slices.Contains([]string{"passing", "warning", "suspect"}, i.Status.String()) || handedOut
	status := len(q.Statuses) == 0 && routable
	for _, s := range q.Statuses {
		status = status || s == "any" || s == i.Status.String() || s == "routable" && routable
	}
	for _, label := range q.Labels {
		key, want, _ := strings.Cut(label, "=")
		if value, has := i.Labels.Map()[key]; !has || value != want {
			return false
		}
	}
	for _, s := range q.Selectors {
		if !naiveSelector(s, i.Labels.Map()) {
			return false
		}
	}
	return endpoint && status && naiveOne(q.Groups, i.Group) && naiveOne(q.Zones, i.Zone) && naiveOne(q.Versions, i.Version) && naiveOne(q.Regions, i.Region)
}

// naiveSelector knows the forms that randomSelector makes.
func naiveSelector(text string, labels map[string]string) bool {
	if key, ok := strings.CutPrefix(text, "!"); ok {
		_, has := labels[key]
		return !has
	}
	for _, form := range []string{" notin (", " in (", "!=", "="} {
		key, values, ok := strings.Cut(text, form)
		if !ok {
			continue
		}
		value, has := labels[key]
		in := has && slices.Contains(strings.Split(strings.TrimSuffix(values, ")"), ","), value)
		return in == (form == " in (" || form == "=")
	}
	_, has := labels[text]
	return has
}

// all is every instance that readers can see, in the order of lists.
func (m *member) all() []*Instance {
	var out []*Instance
	for _, svc := range m.machine.published.order {
		out = append(out, svc.instances...)
	}
	return out
}

// TestQueriesAgainstANaiveModel makes random changes and asks random queries:
// the index never loses an instance, and never shows one that does not match.
// The services are a few large ones, whose blocks split and join, among small ones.
func TestQueriesAgainstANaiveModel(t *testing.T) {
	r := newRandom(t)
	clock := newManualClock()
	m := newMember(t, clock)
	large := append(slices.Repeat([]string{"orders", "acme.shop.cart.app.api"}, 8), someServices...)
	matched, kept, seen := 0, 0, make(map[Status]int)
	for round := range 60 {
		shrinking := round%20 >= 14
		for range 60 {
			one := randomInstance(r, large)
			if shrinking || r.IntN(5) == 0 {
				m.deregister(one.ref())
			} else if r.IntN(4) == 0 {
				m.sayAnything(r)
			} else {
				one.LeaseTTLSeconds = int64(1 + r.IntN(60))
				m.register(one)
			}
		}
		m.pass(clock, time.Duration(r.IntN(4))*time.Second)
		m.policeAtRandom(r)
		mustHaveRightIndex(t, m.machine.published)
		all, handedOut := m.all(), m.handedOut(t)
		kept += len(handedOut)
		for _, i := range all {
			seen[i.Status]++
		}
		for range 60 {
			q := randomQuery(r)
			got, _, err := m.registry.List(context.Background(), q)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			want := naively(q, all, handedOut)
			for _, i := range got {
				if i.Protected != handedOut[i.Key()] {
					t.Fatalf("round %d: %+v answers %v as protected: %v", round, q, i.Key(), i.Protected)
				}
			}
			if !slices.Equal(keysOf(got), keysOf(want)) {
				t.Fatalf("round %d: %+v\nanswers %v\nwant    %v", round, q, keysOf(got), keysOf(want))
			}
			matched += len(got)
		}
	}
	t.Logf("%d instances at the end, %d matches in all, %d times one was handed out that is not healthy", len(m.all()), matched, kept)
	for _, status := range []Status{StatusPassing, StatusWarning, StatusCritical, StatusDraining, StatusExpired, StatusDisabled} {
		if seen[status] == 0 {
			t.Errorf("no instance was ever %s", status)
		}
	}
}

// policeAtRandom has a few services hand out all of their instances when some are unhealthy, and makes some so.
func (m *member) policeAtRandom(r *rand.Rand) {
	m.tb.Helper()
	ctx, services := context.Background(), m.machine.ServiceKeys("")
	for range 4 {
		k := services[r.IntN(len(services))]
		threshold := float64(r.IntN(4)) / 3
		if _, err := m.registry.PutPolicy(ctx, "", k, Policy{ProtectThreshold: &threshold}, Writing{}); err != nil {
			m.tb.Fatal(err)
		}
		var said []ConditionChange
		for _, i := range m.machine.Service(k).Instances {
			if len(said) < ConditionsPerCommand && r.IntN(2) == 0 {
				said = append(said, ConditionChange{Key: i.Key(), Condition: Condition{Source: SourceReports, Status: StatusCritical}, Clear: r.IntN(2) == 0})
			}
		}
		if len(said) == 0 {
			continue
		}
		if _, _, err := m.registry.SetConditions(ctx, said); err != nil {
			m.tb.Fatal(err)
		}
	}
}

// sayAnything has an operator say something of an instance, or take it back.
func (m *member) sayAnything(r *rand.Rand) {
	m.tb.Helper()
	all := m.all()
	if len(all) == 0 {
		return
	}
	k := all[r.IntN(len(all))].Key()
	ref := InstanceRef{Namespace: k.Namespace, Service: k.Service, ID: k.ID}
	var err error
	switch r.IntN(4) {
	case 0:
		_, err = m.registry.ClearOverride(context.Background(), "", ref)
	case 1:
		_, err = m.registry.Drain(context.Background(), "", ref, Drain{Seconds: int64(1 + r.IntN(60))})
	case 2:
		_, err = m.registry.Undrain(context.Background(), "", ref)
	default:
		_, err = m.registry.Override(context.Background(), "", ref, Override{Status: pick(r, []string{"passing", "warning", "critical", "disabled"})})
	}
	if err != nil {
		m.tb.Fatal(err)
	}
}

// handedOut are the instances that only a policy makes routable.
func (m *member) handedOut(t *testing.T) map[InstanceKey]bool {
	t.Helper()
	out := make(map[InstanceKey]bool)
	for _, k := range m.machine.ServiceKeys("") {
		s := m.machine.Service(k)
		if !mustBeProtectedRightly(t, s) {
			continue
		}
		for _, i := range s.Shown {
			if i.Status == StatusCritical || i.Status == StatusExpired {
				out[i.Key()] = true
			}
		}
	}
	return out
}

func (m *member) deregister(ref InstanceRef) {
	m.tb.Helper()
	if _, err := m.registry.Deregister(context.Background(), "", ref); err != nil {
		m.tb.Fatal(err)
	}
}

func keysOf(instances []*Instance) []InstanceKey {
	out := make([]InstanceKey, len(instances))
	for n, i := range instances {
		out[n] = i.Key()
	}
	return out
}

// mustHaveRightIndex counts everything anew and compares.
func mustHaveRightIndex(t *testing.T, s *state) {
	t.Helper()
	fresh, blocks := newPublishedState(), make(map[string]int)
	for _, svc := range s.order {
		fresh.putService(svc.key, svc.record)
		blocks[svc.key.Namespace] += len(svc.blocks)
		for at, b := range svc.blocks {
			inside := svc.inBlock(at)
			if len(inside) != b.instances || b.instances == 0 || b.instances > blockMax || b.service != svc || at == 0 != (b.from == "") {
				t.Fatalf("block %d of %s from %q holds %d instances and says %d", at, svc.key.Service, b.from, len(inside), b.instances)
			}
		}
		for _, i := range svc.instances {
			fresh.put(fresh.services[svc.key], i)
		}
	}
	mustEqual(t, "the number of namespaces in the index", len(s.index.namespaces), len(fresh.index.namespaces))
	for name, n := range s.index.namespaces {
		mustEqual(t, "the number of blocks in "+name, n.blocks, blocks[name])
		mustEqual(t, "the index of "+name, counted(n), counted(fresh.index.namespaces[name]))
	}
}

// counted is an index without its blocks, which depend on what was before; that
// their counts add up is seen on the way.
func counted(n *namespaceIndex) string {
	out := []string{fmt.Sprintf("%d services, %d instances", n.services, n.instances)}
	for d, of := range n.values {
		for value, p := range of {
			out = append(out, fmt.Sprintf("%d %q %d", d, value, p.total()))
		}
	}
	common := 0
	for key, of := range n.labels {
		out = append(out, fmt.Sprintf("label %s %d", key, of.any.total()))
		if of.common {
			common++
		}
		if of.common && of.any.instances+of.absent.instances != n.instances || of.absent.instances > 0 && (!of.common || of.absent.total() < 0) {
			out = append(out, fmt.Sprintf("label %s common=%v counts %d absences", key, of.common, of.absent.instances))
		}
		for value, p := range of.values {
			out = append(out, fmt.Sprintf("label %s=%s %d", key, value, p.total()))
		}
	}
	if common != len(n.common) {
		out = append(out, fmt.Sprintf("%d common labels, %d in order", common, len(n.common)))
	}
	for l, of := range n.levels {
		for level, services := range of {
			out = append(out, fmt.Sprintf("level %d %s %d", l, level, len(services)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// total counts a posting by its blocks, -1 when they do not add up.
func (p *posting) total() int {
	n := 0
	p.each(func(b *block) { n += p.in(b) })
	if n != p.instances || n == 0 || len(p.more) == 1 {
		return -1
	}
	return n
}

// TestQueriesWhileTheStateChanges has one label wander from instance to
// instance, two entries published at once for each step: every reader finds it
// exactly once, at one instance, and what readers were given never changes.
func TestQueriesWhileTheStateChanges(t *testing.T) {
	const steps, readers, crowd = 300, 4, 3 * blockMax
	m := newMember(t, newManualClock())
	id := func(n int) string { return fmt.Sprintf("i%04d", n%crowd) }
	command := func(n int, labels map[string]string) []byte {
		r := reg("prod", "orders", id(n), "10.0.0.1", 80)
		r.Labels = labels
		normal, err := r.normalize()
		if err != nil {
			t.Fatal(err)
		}
		return registerCommand(normal)
	}
	for n := range crowd {
		m.apply(command(n, nil))
	}
	m.apply(command(0, map[string]string{"here": "yes"}))
	done := make(chan struct{})
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				before := m.machine.Service(ServiceKey{"prod", "orders"})
				copied := slices.Clone(before.Instances)
				for _, q := range []Query{
					{Namespace: "prod", Selectors: []string{"here=yes"}},
					{Namespace: "prod", Selectors: []string{"here"}, Regions: []string{"here"}},
					{AllNamespaces: true, Labels: []string{"here=yes"}, Services: []string{"orders"}},
				} {
					q.Consistency = Stale(0)
					if got, _, err := m.registry.List(context.Background(), q); err != nil || len(got) != 1 {
						t.Errorf("%+v: %v, %v", q, keysOf(got), err)
						return
					}
				}
				if !slices.Equal(copied, before.Instances) {
					t.Error("a service that a reader holds has changed")
					return
				}
			}
		})
	}
	for n := range steps {
		m.index += 2
		applyEntry(t, m.engine, m.machine, Entry{Index: m.index - 1, Term: 1, Time: 1_800_000_000_000, Data: command(n, nil)})
		applyEntry(t, m.engine, m.machine, Entry{Index: m.index, Term: 1, Time: 1_800_000_000_000, Data: command(n+1, map[string]string{"here": "yes"})})
		m.machine.Publish(m.index)
	}
	close(done)
	all.Wait()
}
