package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// TestEqualLogsMakeEqualMembers shows with random commands that members which
// apply the same log come to the same state, bytes, answers and events, wherever
// one batch ends for them and whenever they are restarted. On the way it shows
// what holds of every state.
func TestEqualLogsMakeEqualMembers(t *testing.T) {
	random := newRandom(t)
	for range 5 {
		log := (&author{random: random, clock: 1_800_000_000_000, term: 1}).write(600)
		want := newReplica(t)
		for i := range log { // one by one
			want.apply(log[i : i+1])
			mustHold(t, want.machine)
		}
		want.machine.Publish(want.index)
		for name, sizes := range map[string][]int{"all at once": {len(log)}, "in random batches": {1, 3, 10, 100}, "restarted": {2, 50, -1}} {
			got := newReplica(t)
			for rest := log; len(rest) > 0; {
				n := sizes[random.IntN(len(sizes))]
				if n < 0 {
					got.machine = mustOpen(t, got.engine)
					got.machine.sweepMost = replicaSweepMost
					continue
				}
				n = min(n, len(rest))
				got.apply(rest[:n])
				rest = rest[n:]
			}
			mustBeEqual(t, name, got, want)
		}
	}
}

// replicaSweepMost is so few that what goes of a copy takes several commands, with others between.
const replicaSweepMost = 2

// A replica applies a log, and notes all that it answers and tells.
type replica struct {
	t       *testing.T
	engine  *storage.Engine
	machine *Machine
	index   Revision
	replies strings.Builder
	events  strings.Builder
	mirror  map[InstanceKey]*Instance // what follows from the events alone
	seen    map[ServiceKey]*Service   // as it was after the last batch
	times   map[Revision]int64        // of the entries
}

func newReplica(t *testing.T) *replica {
	engine, machine := openEmpty(t)
	machine.sweepMost = replicaSweepMost
	return &replica{t: t, engine: engine, machine: machine, mirror: make(map[InstanceKey]*Instance), seen: make(map[ServiceKey]*Service), times: make(map[Revision]int64)}
}

// apply applies entries in one batch, as the consensus does.
func (r *replica) apply(entries []Entry) {
	b, watch := r.engine.NewBatch(), r.machine.Watch(r.machine.Revision())
	for _, e := range entries {
		r.times[e.Index] = e.Time
		fmt.Fprintf(&r.replies, "%d %x\n", e.Index, r.machine.Apply(b, e))
		r.index = e.Index
	}
	last := entries[len(entries)-1]
	if err := r.engine.Apply(b, storage.Position{Index: uint64(last.Index), Term: last.Term}); err != nil {
		r.t.Fatal(err)
	}
	r.machine.Publish(last.Index)
	told := make(map[ServiceKey]Revision)
	for batch, more, err := watch.Poll(); more || err != nil; batch, more, err = watch.Poll() {
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range batch.Events {
			fmt.Fprintf(&r.events, "%d %s %v %+v %+v\n", e.Revision, e.Kind, e.Service, e.Instance, e.Previous)
			r.reflect(&e)
			if e.Kind != EventUpstreams { // which are the service's as a caller, and leave it as it is
				told[e.Service] = e.Revision
			}
		}
	}
	r.mustTellAll(told)
}

// reflect follows an event, whose previous value must be what was told before.
func (r *replica) reflect(e *Event) {
	if e.Instance == nil && e.Previous == nil {
		return
	}
	one := e.Instance
	if one == nil {
		one = e.Previous
	}
	old := r.mirror[one.Key()]
	if (old == nil) != (e.Previous == nil) || old != nil && !old.sameAs(e.Previous) {
		r.t.Fatalf("the event of revision %d has the previous value %+v, told was %+v", e.Revision, e.Previous, old)
	}
	if r.mirror[one.Key()] = e.Instance; e.Instance == nil {
		delete(r.mirror, one.Key())
		return
	}
	if e.Instance.Imported != nil {
		return // since when it is as it is its own region says
	}
	since := r.times[e.Revision]
	if old != nil && old.Status == e.Instance.Status {
		since = old.StatusSince()
	}
	if got := e.Instance.StatusSince(); got != since {
		r.t.Fatalf("instance %+v has its status since %d, told at revision %d after %+v, want %d", e.Instance, got, e.Revision, old, since)
	}
}

// mustTellAll checks that whoever looks at a service after its events, and at no
// other time, misses nothing: no instance, no placeholder, no revision.
func (r *replica) mustTellAll(told map[ServiceKey]Revision) {
	r.t.Helper()
	for _, k := range r.machine.ServiceKeys("") {
		now, before := r.machine.Service(k), r.seen[k]
		at, news := told[k]
		switch {
		case news && now.Revision != at:
			r.t.Fatalf("service %v is of revision %d, its last event of %d", k, now.Revision, at)
		case !news && (before == nil || before.Revision != now.Revision || !slices.Equal(ids(before.Shown), ids(now.Shown))):
			r.t.Fatalf("service %v has changed without an event: from %+v to %+v", k, before, now)
		}
		r.seen[k] = now
		for _, i := range now.Instances {
			if m := r.mirror[i.Key()]; m == nil || !m.sameAs(i) || m.Revision != i.Revision {
				r.t.Fatalf("instance %+v was told as %+v", i, m)
			}
		}
	}
	for k := range r.mirror {
		if i, _ := r.machine.instance(k); i == nil {
			r.t.Fatalf("nobody was told that instance %v is gone", k)
		}
	}
}

func mustBeEqual(t *testing.T, name string, got, want *replica) {
	t.Helper()
	for what, pair := range map[string][2]string{
		"state":         {dumpState(got.machine.published), dumpState(want.machine.published)},
		"working state": {dumpState(got.machine.working), dumpState(want.machine.published)},
		"engine":        {dumpEngine(t, got.engine), dumpEngine(t, want.engine)},
		"replies":       {got.replies.String(), want.replies.String()},
		"events":        {got.events.String(), want.events.String()},
		"shown":         {dumpShown(got.machine), dumpShown(want.machine)},
	} {
		if pair[0] != pair[1] {
			t.Fatalf("%s: the %s differs:\n%s\nfrom that of the member that applies one by one:\n%s", name, what, pair[0], pair[1])
		}
	}
}

func dumpShown(m *Machine) string {
	var out strings.Builder
	for _, k := range m.ServiceKeys("") {
		fmt.Fprintf(&out, "%v %v\n", k, ids(m.Service(k).Shown))
	}
	return out.String()
}

// mustHold checks what is true of every published state.
func mustHold(t *testing.T, m *Machine) {
	t.Helper()
	mustBeNumbered(t, m.published)
	members := make(map[string]int)
	for _, svc := range m.published.order {
		for _, i := range svc.instances {
			if i.LeaseID != "" && i.ExpiredAt == 0 {
				members[i.LeaseID]++
			}
		}
	}
	for id, l := range m.published.leases {
		if len(l.members) != members[id] || l.record.EndedAt != 0 && len(l.members) == 0 {
			t.Fatalf("shared lease %+v has %d instances, of which %d are alive", *l.record, len(l.members), members[id])
		}
		delete(members, id)
	}
	if len(members) > 0 {
		t.Fatalf("instances live under leases that are gone: %v", members)
	}
	holdings := make(map[string]holding)
	for _, svc := range m.published.order {
		s := m.Service(svc.key)
		has := holdings[svc.key.Namespace]
		has.known, has.alive = has.known+1, has.alive+int(svc.tally.instances-svc.tally.ended)
		if own := len(own(svc.instances)); own > 0 || len(svc.record.endpoints) > 0 && len(svc.instances) == 0 {
			has.services++
		}
		if mustBeProtectedRightly(t, s) {
			has.protected++
		}
		holdings[svc.key.Namespace] = has
		var counted, abroad tally
		for _, i := range svc.instances {
			if i.Imported != nil {
				abroad.count(i, 1)
				continue
			}
			counted.count(i, 1)
			mustBeDerived(t, i)
		}
		standing, shown := 0, 0
		for _, i := range own(s.Shown) {
			if i.Status == StatusExpired {
				shown++
			} else {
				standing++
			}
		}
		switch room := svc.record.baseline - standing; {
		case !slices.Equal(s.Instances, svc.instances):
			t.Fatalf("service %v is read with other instances than it has", svc.key)
		case svc.tally != counted || svc.abroad != abroad || s.Statuses != counted.status.and(abroad.status) || standing != svc.tally.standing():
			t.Fatalf("service %v is counted as %+v and shows %d that stand, not %+v", svc.key, svc.tally, standing, counted)
		case room < 0 || shown > room:
			t.Fatalf("service %v shows %d placeholders, with %d standing of a baseline of %d", svc.key, shown, standing, svc.record.baseline)
		case int(svc.tally.overridden)+len(svc.record.overrides) > overridesMax:
			t.Fatalf("service %v has %d overrides and keeps %d", svc.key, svc.tally.overridden, len(svc.record.overrides))
		case len(svc.record.protections) > protectionsMax || (len(svc.record.protections) > 0) != (m.published.paused[svc.key] == svc):
			t.Fatalf("service %v has %d protections and is noted: %v", svc.key, len(svc.record.protections), m.published.paused[svc.key] != nil)
		case (len(svc.instances) == 0) != (svc.record.emptiedAt != 0):
			t.Fatalf("service %v has %d instances and was emptied at %d", svc.key, len(svc.instances), svc.record.emptiedAt)
		case svc.policy != m.published.policies[svc.key].Content() || svc.holding != m.published.holdings[svc.key.Namespace]:
			t.Fatalf("service %v has policy %+v, not the one that is written down", svc.key, svc.policy)
		case s.Revision > m.Revision() || s.Created > s.Revision:
			t.Fatalf("service %v was created at %d and changed at %d, at revision %d", svc.key, s.Created, s.Revision, m.Revision())
		}
	}
	mustBeImported(t, m.published)
	for _, of := range m.working.imports {
		mustLeave(t, m.working, of)
	}
	for name, has := range m.published.holdings {
		if *has != holdings[name] {
			t.Fatalf("namespace %s is counted as %+v, not %+v", name, *has, holdings[name])
		}
	}
}

// mustBeImported checks what is counted of other regions.
func mustBeImported(t *testing.T, s *state) {
	t.Helper()
	counted, marked := make(map[RegionKey]int), make(map[RegionKey]map[uint64]int)
	for _, svc := range s.order {
		for _, i := range svc.instances {
			if i.Imported != nil {
				counted[i.regionKey()]++
				if marked[i.regionKey()] == nil {
					marked[i.regionKey()] = make(map[uint64]int)
				}
				marked[i.regionKey()][i.Imported.mark]++
			}
		}
	}
	for k, of := range s.imports {
		walked := 0
		s.imported(k, func(*Instance) bool { walked++; return true })
		mustBeAging(t, s, of)
		if of.instances != counted[k] || walked != counted[k] {
			t.Fatalf("region %v has %d instances, is counted to have %d, and has %d when it is walked", k, counted[k], of.instances, walked)
		}
		if !maps.Equal(of.marks, marked[k]) {
			t.Fatalf("region %v has instances by mark %v, and is counted to have %v", k, marked[k], of.marks)
		}
		delete(counted, k)
	}
	if len(counted) > 0 {
		t.Fatalf("there are instances of regions that there is no copy of: %v", counted)
	}
}

// mustBeNumbered checks that each instance has a number of its own, below what
// that many instances can have had at once, and that what is told is told of it.
func mustBeNumbered(t *testing.T, s *state) {
	t.Helper()
	taken, late := make(map[uint32]string), 0
	for _, svc := range s.order {
		for _, i := range svc.own() {
			if other, twice := taken[i.Number]; twice || i.Number == 0 || int(i.Number) >= len(s.told.leases) {
				t.Fatalf("instance %s has the number %d of %d, as %s has", i.ID, i.Number, len(s.told.leases), other)
			}
			taken[i.Number] = i.ID
			if one := s.told.leases[i.Number]; one.generation != i.Lease {
				t.Fatalf("of instance %+v is told what %+v is", i, one)
			} else if one.overdue() {
				late++
			}
		}
	}
	for n, one := range s.told.leases {
		if _, had := taken[uint32(n)]; !had && one != (toldLease{}) {
			t.Fatalf("nobody has the number %d, of which %+v is told", n, one)
		}
	}
	mustEqual(t, "the number that are overdue", s.told.late, late)
	if most := 1 + 3*6; len(s.told.leases) > most {
		t.Fatalf("there are numbers up to %d, and never more than %d instances", len(s.told.leases), most)
	}
}

// mustBeProtectedRightly checks whether all instances of a service are handed out
// by counting what is in view, and says whether they are.
func mustBeProtectedRightly(t *testing.T, s *Service) bool {
	t.Helper()
	healthy, total := 0, 0
	for _, i := range own(s.Shown) {
		switch i.Status {
		case StatusPassing, StatusWarning, StatusSuspect:
			healthy, total = healthy+1, total+1
		case StatusCritical, StatusExpired:
			total++
		}
	}
	want := s.Policy != nil && s.Policy.ProtectThreshold != nil && float64(healthy) < *s.Policy.ProtectThreshold*float64(total)
	if got := s.Protected; (got != nil) != want || want && (got.Healthy != healthy || got.Total != total || got.Since == 0) {
		t.Fatalf("service %v has %d healthy of %d in view, policy %+v: it is protected as %+v", s.Key, healthy, total, s.Policy, got)
	}
	return want
}

// mustBeDerived checks an instance's status against what is said of it, in other words than derive's.
func mustBeDerived(t *testing.T, i *Instance) {
	t.Helper()
	said := make(map[Source]Status)
	for _, c := range i.Conditions() {
		said[c.Source] = max(said[c.Source], c.Status)
	}
	want := max(StatusPassing, said[SourceCheck], said[SourceReports], said[SourceProtection])
	if said[SourceOperator] != 0 {
		want = said[SourceOperator]
	}
	if said[SourceDrain] != 0 {
		want = StatusDraining
	}
	if i.ExpiredAt != 0 {
		want = StatusExpired
	}
	if said[SourceOperator] == StatusDisabled {
		want = StatusDisabled
	}
	if i.Status != want || i.StatusSince() == 0 {
		t.Fatalf("instance %+v is %s since %d, not %s", i, i.Status, i.StatusSince(), want)
	}
}

// An author writes random logs of few names, so that commands meet.
type author struct {
	random *rand.Rand
	clock  int64
	term   uint64
	leases []dueLease // that there have been
	reign  int64      // of the leader, ms
	copied Region     // where it believes that the copy of another region is
}

func (a *author) write(entries int) []Entry {
	var log []Entry
	index := Revision(1)
	for range entries {
		index += Revision(1 + a.random.IntN(3)/2) // others have entries in the log, too
		a.clock += a.pause()
		if a.random.IntN(50) == 0 {
			a.term++
		}
		log = append(log, Entry{Index: index, Term: a.term, Time: a.clock, Data: a.command(index)})
	}
	return log
}

// pause is the time to the next entry: mostly short, and now and then so long that something falls due.
func (a *author) pause() int64 {
	pauses := []int64{0, 1, 250, 1000, 30_000, 240_000, expiredGrace.Milliseconds(), baselineHalving.Milliseconds() / 2, baselineHalving.Milliseconds(), serviceAfterlife.Milliseconds()}
	return pauses[a.random.IntN(1+a.random.IntN(len(pauses)))]
}

func (a *author) key() InstanceKey {
	k := a.service()
	return InstanceKey{Namespace: k.Namespace, Service: k.Service, ID: string(rune('a' + a.random.IntN(6)))}
}

func (a *author) service() ServiceKey {
	return ServiceKey{"prod", []string{"orders", "pay", "a.b.c.d.e"}[a.random.IntN(3)]}
}

func (a *author) command(index Revision) []byte {
	switch a.random.IntN(31) {
	case 29, 30:
		return a.access(index)
	case 28:
		return a.upstreams(index)
	case 25, 26, 27:
		return a.imported()
	case 23, 24:
		return a.verdicts()
	case 9, 16:
		return a.checkpoint(index)
	case 0:
		return nil
	case 12, 13:
		return a.many(func() []byte { return conditionsCommand([]ConditionChange{a.change()}) })
	case 17, 18:
		return a.edit(index)
	case 19:
		return namespaceShelf("prod").command(a.namespace(), Writing{By: "ann", If: a.precondition()})
	case 21, 22:
		return protectCommand(a.recentTerm(), a.protection())
	case 1, 2:
		return a.many(func() []byte { return deregisterCommand(a.key(), a.holder()) })
	case 3, 4:
		return a.many(func() []byte {
			k := a.key()
			a.leases = append(a.leases, dueLease{k, index})
			return renewCommand(&pendingRenewal{key: k, ttlMs: []int64{0, 5000}[a.random.IntN(2)], by: a.holder()})
		})
	case 5, 6, 7:
		return a.expiry()
	case 14, 15:
		return a.shared(index)
	case 8:
		return reapCommand([]ServiceKey{a.service(), a.service()})
	}
	return a.many(func() []byte { return a.registration(index) })
}

// many is a command of one to three items.
func (a *author) many(one func() []byte) []byte {
	var c recordv1.Command
	for range 1 + a.random.IntN(3) {
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(one(), &c); err != nil {
			panic(err)
		}
	}
	return encode(&c)
}

// change is a word on an instance, seen rightly or not.
func (a *author) change() ConditionChange {
	said := []Condition{
		{Source: SourceOperator, Status: StatusDisabled}, {Source: SourceOperator, Status: StatusPassing}, {Source: SourceOperator, Status: StatusWarning},
		{Source: SourceDrain, Status: StatusDraining}, {Source: SourceCheck, Name: "web", Status: StatusCritical}, {Source: SourceCheck, Name: "db", Status: StatusWarning, Held: 1_800_000_300_000},
		{Source: SourceReports, Status: StatusCritical}, {Source: SourceProtection, Status: StatusSuspect},
	}
	c := ConditionChange{Key: a.key(), Holder: a.holder(), Condition: said[a.random.IntN(len(said))], Clear: a.random.IntN(3) == 0}
	if c.Condition.Source == SourceDrain || a.random.IntN(4) == 0 {
		c.For = time.Duration(1+a.random.IntN(60_000)) * time.Millisecond
	}
	if a.random.IntN(4) == 0 {
		c.Seen = []Status{StatusPassing, StatusCritical}[a.random.IntN(2)]
	}
	if len(a.leases) > 0 && a.random.IntN(4) == 0 {
		c.Lease = a.leases[len(a.leases)-1-a.random.IntN(min(len(a.leases), 8))].generation
	}
	return c
}

// checkpoint tells of any numbers, mostly for the right term and as of a while ago.
func (a *author) checkpoint(index Revision) []byte {
	a.reign += a.random.Int64N(3000)
	if a.random.IntN(10) == 0 {
		a.reign = a.random.Int64N(3000) // a leader that has just begun
	}
	some := func() []*recordv1.LeaseNumbers {
		out := []*recordv1.LeaseNumbers{{First: uint32(a.random.IntN(20)), Bits: []byte{byte(a.random.IntN(256))}}}
		if a.random.IntN(8) == 0 {
			out = append(out, &recordv1.LeaseNumbers{First: 1 << 20, Bits: []byte{1}}) // which nobody has
		}
		return out
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Checkpoint{Checkpoint: &recordv1.Checkpoint{
		Term: a.term - uint64(a.random.IntN(8)/7), AsOf: uint64(index) - uint64(a.random.IntN(20)), ReignMs: a.reign, Heard: some(), Overdue: some(),
		Stretch: uint32(a.random.IntN(3)), Honoured: uint32(a.random.IntN(3)),
	}}})
}

// edit is one of a policy, of a service that need not be there.
func (a *author) edit(index Revision) []byte {
	var p *Policy
	if a.random.IntN(4) > 0 {
		p = &Policy{}
		if a.random.IntN(2) == 0 {
			p.GraceSeconds = new([]int64{1, 60, 3600}[a.random.IntN(3)])
		}
		if a.random.IntN(2) == 0 {
			p.ProtectThreshold = new([]float64{0.3, 0.5, 1}[a.random.IntN(3)])
		}
		if a.random.IntN(2) == 0 {
			p.Reports = &Reports{Effect: []string{"warning", "critical"}[a.random.IntN(2)], LastsSeconds: new(int64(60))}
		}
		if a.random.IntN(2) == 0 {
			p.Failover = stalePolicy([]string{StaleSuspect, StaleWithhold}[a.random.IntN(2)], []int64{60, 120}[a.random.IntN(2)]).Failover
		}
		if a.random.IntN(3) == 0 {
			p.PrimaryEndpoint = &PrimaryEndpoint{Name: []string{"web", "y"}[a.random.IntN(2)], Protocol: "h2c"}
			p.Retries = &Retries{When: []string{"unavailable"}, Statuses: []int64{502}}
		}
	}
	return policyShelf(a.service()).command(p, Writing{By: fmt.Sprint("ann", index), If: a.precondition()})
}

// upstreams is an edit of what a service calls.
func (a *author) upstreams(index Revision) []byte {
	var u *Upstreams
	if a.random.IntN(3) > 0 {
		u = &Upstreams{Wants: [][]string{nil, {}, {"*.prod"}}[a.random.IntN(3)], May: [][]string{nil, {}, {"*.prod", "orders.test"}}[a.random.IntN(3)]}
	}
	return upstreamsShelf(a.service()).command(u, Writing{By: fmt.Sprint("ann", index), If: a.precondition()})
}

func (a *author) namespace() *Namespace {
	if a.random.IntN(3) == 0 {
		return nil
	}
	return &Namespace{Description: "what sells", Quota: &Quota{Instances: new(int64(a.random.IntN(12))), Services: new(int64(1 + a.random.IntN(3)))}}
}

func (a *author) precondition() Precondition {
	switch a.random.IntN(5) {
	case 0:
		return Precondition{Version: new(uint64(a.random.IntN(4)))}
	case 1:
		return Precondition{Present: true}
	case 2:
		return Precondition{Absent: true}
	}
	return Precondition{}
}

// expiry names leases of late, most of them still held, and mostly for the right term.
func (a *author) expiry() []byte {
	var due []dueLease
	for range min(len(a.leases), 1+a.random.IntN(4)) {
		due = append(due, a.leases[len(a.leases)-1-a.random.IntN(min(len(a.leases), 8))])
	}
	return expireCommand(a.recentTerm(), due)
}

// recentTerm is mostly the right one.
func (a *author) recentTerm() uint64 { return a.term - uint64(a.random.IntN(8)/7) }

// protection begins or ends protections, and keeps leases of late.
func (a *author) protection() []protectChange {
	var all []protectChange
	for range 1 + a.random.IntN(3) {
		scope := Scope{Kind: ScopeCluster}
		if kind := ScopeKind(1 + a.random.IntN(3)); kind != ScopeCluster {
			scope = Scope{Kind: kind, Service: a.service()}
		}
		if scope.Kind == ScopeZone {
			scope.Zone = a.zone()
		}
		switch p := (ExpiryPause{Scope: scope, Limit: time.Minute, Lapsed: 5, Leases: 6, Least: 5, Percent: 15}); {
		case len(a.leases) > 0 && a.random.IntN(2) == 0:
			all = append(all, protectChange{keep: a.leases[len(a.leases)-1-a.random.IntN(min(len(a.leases), 8))]})
		case a.random.IntN(3) == 0:
			all = append(all, protectChange{end: &scope})
		default:
			all = append(all, protectChange{begin: &p})
		}
	}
	return all
}

// verdicts are on what is reported of instances, with leases of late.
func (a *author) verdicts() []byte {
	judge := &recordv1.JudgeReports{Term: a.recentTerm()}
	for range min(len(a.leases), 1+a.random.IntN(3)) {
		lease := a.leases[len(a.leases)-1-a.random.IntN(min(len(a.leases), 8))]
		judge.Items = append(judge.Items, &recordv1.ReportVerdict{
			Key: keyToRecord(lease.key), Lease: uint64(lease.generation), Over: a.random.IntN(4) == 0, Reporters: uint32(2 + a.random.IntN(3)), Reason: "refused", By: "10.0.0.1",
		})
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_JudgeReports{JudgeReports: judge}})
}

func (a *author) zone() string { return string(rune('a' + a.random.IntN(2))) }

func (a *author) registration(index Revision) []byte {
	k := a.key()
	a.leases = append(a.leases, dueLease{k, index})
	r := reg(k.Namespace, k.Service, k.ID, fmt.Sprint("10.0.0.", 1+a.random.IntN(3)), int32(1+a.random.IntN(3)))
	if a.random.IntN(2) == 0 {
		r.Zone = a.zone()
	}
	r.Endpoints[0].Name = []string{"http", "web", "x"}[a.random.IntN(3)]
	if a.random.IntN(2) == 0 {
		r.Checks = []Check{{Name: []string{"web", "db"}[a.random.IntN(2)], Kind: CheckTCP, Initial: []string{"passing", "warning", "critical"}[a.random.IntN(3)]}}
	}
	r.Labels = map[string]string{"track": []string{"canary", "stable"}[a.random.IntN(2)], "b": "2", "a": "1"}
	r.Holder = a.holder()
	if a.random.IntN(3) == 0 {
		r.LeaseID = a.sharedID()
	}
	r.LeaseToken = []string{r.Holder.Token, "", token1}[a.random.IntN(3)]
	normal, err := r.normalize()
	if err != nil {
		panic(err)
	}
	return registerCommand(normal)
}

func (a *author) sharedID() string { return []string{"l1", "l2"}[a.random.IntN(2)] }

// shared is a command about a shared lease.
func (a *author) shared(index Revision) []byte {
	id := a.sharedID()
	a.leases = append(a.leases, dueLease{sharedKey(id), index})
	command := &recordv1.Command{Format: formatMax}
	switch a.random.IntN(4) {
	case 0:
		return renewCommand(&pendingRenewal{key: sharedKey(id), by: a.holder()})
	case 1:
		command.Kind = &recordv1.Command_RevokeLease{RevokeLease: &recordv1.RevokeLease{Id: id, Proof: a.holder().proof()}}
	default:
		command.Kind = &recordv1.Command_GrantLease{GrantLease: &recordv1.GrantLease{Id: id, TtlMs: 5000, Token: hashOf(token1).record()}}
	}
	return encode(command)
}

// The lease tokens of tests.
const token1, token2 = "the-first-lease-token", "the-second-lease-token"

// holder is one of few, so that some are right and some are not.
func (a *author) holder() Holder {
	return []Holder{{}, {}, {Asked: true}, {Asked: true, Token: token1}, {Asked: true, Token: token1}, {Asked: true, Token: token2}}[a.random.IntN(6)]
}
