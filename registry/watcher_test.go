package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// over is a context of somebody who does not wait.
func over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestWatchersOfRandomQueries makes random changes and watches what random queries
// ask for, at members that come and go: who follows knows what a list would show, and
// was told of each change once, in order, and of nothing else.
func TestWatchersOfRandomQueries(t *testing.T) {
	r := newRandom(t)
	clock := newManualClock()
	m := newMember(t, clock)
	m.machine.working.history.bounds.Events = 60 + r.IntN(300)
	m.machine.ring.eventsMax = 1 + r.IntN(100)
	var all []*follower
	for range 16 {
		all = append(all, &follower{t: t, random: r, query: randomQuery(r), told: make(map[InstanceKey]string)})
	}
	events, resyncs := 0, 0
	for round := 0; round < 40 || round < 200 && (events < 100 || resyncs == 0); round++ {
		for range 20 {
			m.doSomething(r, clock)
		}
		again := New(Config{Machine: mustOpen(t, m.engine), Replicator: m, Clock: clock})
		for _, f := range all {
			if r.IntN(3) > 0 {
				f.follow([]*Registry{m.registry, again}[r.IntN(2)])
				f.mustKnow(m.registry)
			}
		}
		events, resyncs = 0, 0
		for _, f := range all {
			events, resyncs = events+f.events, resyncs+f.resyncs
		}
	}
	if events < 100 || resyncs == 0 {
		t.Errorf("%d changes were told, and %d times all there was: that shows little", events, resyncs)
	}
}

func (m *member) doSomething(r *rand.Rand, clock *manualClock) {
	one := randomInstance(r, someServices)
	switch r.IntN(8) {
	case 0, 1:
		m.deregister(one.ref())
	case 2:
		m.policy(ServiceKey{one.Namespace, one.Service}, r)
	case 3:
		m.pass(clock, time.Duration(r.IntN(20))*time.Second)
	case 4:
		if _, err := m.registry.Override(context.Background(), "", one.ref(), Override{Status: pick(r, []string{"critical", "warning", "disabled"}), By: "ann"}); err != nil && !errors.Is(err, ErrNotFound) {
			m.tb.Fatal(err)
		}
	default:
		m.register(one)
	}
}

// policy gives a service a threshold, so that all of it may be handed out.
func (m *member) policy(k ServiceKey, r *rand.Rand) {
	if _, err := m.registry.PutPolicy(context.Background(), "", k, Policy{ProtectThreshold: new(float64(r.IntN(3)) / 2)}, Writing{By: "ann"}); err != nil {
		m.tb.Fatal(err)
	}
}

// A follower knows what a watch has told.
type follower struct {
	t      *testing.T
	random *rand.Rand
	query  Query

	after           Revision
	half            int // so many changes of the revision after that were told when the connection broke
	told            map[InstanceKey]string
	events, resyncs int
}

// follow is told all that a member has to tell; now and then the connection breaks
// between two changes of a revision.
func (f *follower) follow(r *Registry) {
	w, err := r.WatchFrom(context.Background(), f.query, WatchStart{After: f.after})
	if err != nil {
		f.t.Fatal(err)
	}
	for {
		c, err := w.Next(over(), nil)
		if errors.Is(err, context.Canceled) {
			if f.after = w.After(); f.after != r.machine.Revision() {
				f.t.Fatalf("who has been told everything is at %d of %d", f.after, r.machine.Revision())
			}
			return
		}
		if err != nil || c.Revision < f.after {
			f.t.Fatalf("a watcher after %d is told %d, %v", f.after, c.Revision, err)
		}
		if c.Resync != 0 {
			f.resyncs++
			f.after = c.Revision
			f.told = make(map[InstanceKey]string)
			for _, i := range c.Instances {
				f.told[i.Key()] = seen(i)
			}
			continue
		}
		if !f.hear(c.Changes) {
			f.follow(r)
			return
		}
		f.after, f.half = c.Revision, 0
	}
}

// hear takes changes in; false says that the connection broke.
func (f *follower) hear(changes []Change) bool {
	for n, c := range changes {
		if c.Revision <= f.after || n > 0 && (c.Revision < changes[n-1].Revision || c.Revision == changes[n-1].Revision && c.Order <= changes[n-1].Order) {
			f.t.Fatalf("a watcher after %d is told of revision %d, change %d, after %+v", f.after, c.Revision, c.Order, changes[:n])
		}
		if last := n == len(changes)-1 || changes[n+1].Revision != c.Revision; last != c.Last {
			f.t.Fatalf("the change of revision %d says that it is the last: %v", c.Revision, c.Last)
		}
		k := c.Instance.Key()
		if _, had := f.told[k]; had == c.Created || c.Gone && !had {
			if !f.repeated(changes, n) {
				f.t.Fatalf("%v is told at %d as created: %v, gone: %v; the watcher had it: %v", k, c.Revision, c.Created, c.Gone, had)
			}
		}
		f.events++
		if f.told[k] = seen(c.Instance); c.Gone {
			delete(f.told, k)
		}
		if f.random.IntN(30) == 0 {
			f.broken(changes, n)
			return false
		}
	}
	return true
}

// broken is the end of a connection over which a change was the last.
func (f *follower) broken(changes []Change, n int) {
	if changes[n].Revision > f.after+1 {
		f.half = 0
	}
	if f.after = changes[n].SafeRevision(); changes[n].Last {
		f.half = 0
		return
	}
	f.half = max(f.half, inRevision(changes, n)+1)
}

// repeated says that the change is of a revision whose first part was told before the
// connection broke: what is told again says what was true before it.
func (f *follower) repeated(changes []Change, n int) bool {
	return changes[n].Revision == f.after+1 && inRevision(changes, n) < f.half
}

// inRevision is how many changes of its revision come before one.
func inRevision(changes []Change, n int) int {
	first := n
	for first > 0 && changes[first-1].Revision == changes[n].Revision {
		first--
	}
	return n - first
}

func seen(i *Instance) string {
	shown := *i
	shown.LastHeartbeat, shown.Lease, shown.Number = 0, 0, 0 // which no event tells
	return fmt.Sprintf("%+v", shown)
}

// mustKnow compares with a list.
func (f *follower) mustKnow(r *Registry) {
	f.t.Helper()
	want := make(map[InstanceKey]string)
	listed, _, err := r.List(context.Background(), f.query)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, i := range listed {
		want[i.Key()] = seen(i)
	}
	if !maps.Equal(f.told, want) {
		f.t.Fatalf("%+v\nwas told\n%s\nand there is\n%s", f.query, lines(f.told), lines(want))
	}
}

func lines(of map[InstanceKey]string) string {
	return strings.Join(slices.Sorted(maps.Values(of)), "\n")
}

// TestAChangeWakesItsWatchersOnly shows how many are woken by a change, be it that
// they name services or a namespace, and that who was not woken has missed nothing.
func TestAChangeWakesItsWatchersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t, newManualClock())
		m.machine.ring.eventsMax, m.machine.working.history.bounds.Events = 4, 4
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		got := make(chan string, 10_000)
		follow := func(name string, q Query) {
			w, err := m.registry.WatchFrom(ctx, q, WatchStart{Live: true})
			if err != nil {
				t.Error(err)
			}
			go func() {
				for {
					c, err := w.Next(ctx, nil)
					if err != nil {
						got <- fmt.Sprintf("%s ends after %d", name, w.After())
						return
					}
					got <- fmt.Sprintf("%s %d %s", name, c.Changes[0].Revision, c.Resync)
				}
			}()
		}
		for n := range 1000 {
			follow("other", Query{Namespace: "prod", Services: []string{fmt.Sprint("s", n%10)}})
		}
		for range 3 {
			follow("orders", Query{Namespace: "prod", Services: []string{"orders", "x"}})
		}
		follow("prod", Query{Namespace: "prod", Prefixes: []string{"or"}})
		follow("all", Query{AllNamespaces: true})
		follow("test", Query{Namespace: "test"})
		synctest.Wait()
		waiting, _ := m.machine.waker.stats()
		mustEqual(t, "the number who wait", waiting, 1006)
		mustEqual(t, "the number of groups", len(m.machine.waker.groups), 14)

		for n := range 10 { // more than is kept
			m.register(reg("prod", "orders", fmt.Sprint("a", n), "10.0.0.1", 80))
			synctest.Wait()
			at := m.machine.Revision()
			var told []string
			for len(got) > 0 {
				told = append(told, <-got)
			}
			slices.Sort(told)
			all, orders, prod := fmt.Sprintf("all %d none", at), fmt.Sprintf("orders %d none", at), fmt.Sprintf("prod %d none", at)
			mustEqualSlices(t, "what was told", told, []string{all, orders, orders, orders, prod})
			_, wakes := m.machine.waker.stats()
			mustEqual(t, "the number who were woken", wakes, uint64(5*(n+1)))
		}
		m.heartbeatInLog("a0") // which is no change
		synctest.Wait()
		mustEqual(t, "what is told of a renewal", len(got), 0)
		m.register(reg("prod", "s3", "a", "10.0.0.1", 80))
		synctest.Wait()
		counts := make(map[string]int)
		for len(got) > 0 {
			counts[<-got]++
		}
		mustEqual(t, "those of another service, told after more than is kept", counts[fmt.Sprintf("other %d none", m.machine.Revision())], 100)
		cancel()
		synctest.Wait()
		for len(got) > 0 {
			counts[<-got]++
		}
		mustEqual(t, "those who have missed nothing", counts[fmt.Sprintf("other ends after %d", m.machine.Revision())], 1000)
		waiting, _ = m.machine.waker.stats()
		mustEqual(t, "the number who wait in the end", waiting, 0)
		mustEqual(t, "the groups in the end", len(m.machine.waker.groups)+len(m.machine.waker.exact)+len(m.machine.waker.broad), 0)
	})
}

// TestATickIsAMarkOfProgress shows what somebody is told for whom there is nothing.
func TestATickIsAMarkOfProgress(t *testing.T) {
	m := newMember(t, newManualClock())
	w, err := m.registry.WatchFrom(context.Background(), Query{Namespace: "prod", Services: []string{"orders"}}, WatchStart{})
	if err != nil {
		t.Fatal(err)
	}
	tick := make(chan time.Time, 1)
	first, err := w.Next(context.Background(), tick)
	if err != nil || first.Resync != ResyncStart || len(first.Instances) != 0 || first.Revision != m.index {
		t.Fatalf("the start is %+v, %v", first, err)
	}
	for range 3 {
		m.register(reg("prod", "other", "a", "10.0.0.1", 80))
		tick <- time.Time{}
		c, err := w.Next(context.Background(), tick)
		if err != nil || c.Resync != 0 || len(c.Changes) != 0 || c.Revision != m.index {
			t.Fatalf("a tick at revision %d tells %+v, %v", m.index, c, err)
		}
	}
}

// TestWhereAWatchBegins is the table of starts.
func TestWhereAWatchBegins(t *testing.T) {
	m := newMember(t, newManualClock())
	m.machine.ring.eventsMax, m.machine.working.history.bounds.Events = 2, 3
	for n := range 6 { // revisions 2 to 7
		m.register(reg("prod", "orders", fmt.Sprint("a", n), "10.0.0.1", 80))
	}
	m.register(reg("prod", "quiet", "a", "10.0.0.1", 80)) // two events, of revision 8
	m.register(reg("prod", "orders", "a6", "10.0.0.1", 80))
	orders, quiet := Query{Namespace: "prod", Services: []string{"orders"}}, Query{Namespace: "prod", Services: []string{"quiet"}}
	for name, c := range map[string]struct {
		query Query
		start WatchStart
		want  string
	}{
		"from the beginning":                 {orders, WatchStart{}, "start at 9: 7"},
		"from now on":                        {orders, WatchStart{Live: true}, "nothing, at 9"},
		"from the newest revision":           {orders, WatchStart{After: 9}, "nothing, at 9"},
		"from the oldest that is kept":       {orders, WatchStart{After: 7}, "changes at 9: 1"},
		"from one that is not kept":          {orders, WatchStart{After: 6}, "compacted at 9: 7"},
		"from one that is not kept, strict":  {orders, WatchStart{After: 6, NoResync: true}, ErrCompacted.Error()},
		"from one that nobody has":           {orders, WatchStart{After: 10}, "unknown_revision at 9: 7"},
		"from one that nobody has, strict":   {orders, WatchStart{After: 10, NoResync: true}, ErrCompacted.Error()},
		"from another cluster's":             {orders, WatchStart{After: 1<<40 + 5}, "unknown_revision at 9: 7"},
		"of what has not changed since":      {quiet, WatchStart{After: 8}, "nothing, at 9"},
		"of what changed, from one not kept": {quiet, WatchStart{After: 5}, "compacted at 9: 1"},
		"of what nobody knows":               {Query{Namespace: "none"}, WatchStart{After: 8}, "nothing, at 9"},
	} {
		t.Run(name, func(t *testing.T) {
			mustEqual(t, "what is told", m.begin(c.query, c.start), c.want)
		})
	}
	m.cut = true
	mustEqual(t, "what a member tells that does not know whether it lags", m.begin(orders, WatchStart{After: 10}), ErrNoLeader.Error())
	mustEqual(t, "what it tells of a revision that it has", m.begin(orders, WatchStart{After: 8}), "changes at 9: 1")
}

// begin is what a watch tells first.
func (m *member) begin(q Query, start WatchStart) string {
	w, err := m.registry.WatchFrom(context.Background(), q, start)
	if err != nil {
		return err.Error()
	}
	c, err := w.Next(over(), nil)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Sprintf("nothing, at %d", w.After())
	case err != nil:
		return err.Error()
	case c.Resync != 0:
		return fmt.Sprintf("%s at %d: %d", c.Resync, c.Revision, len(c.Instances))
	}
	return fmt.Sprintf("changes at %d: %d", c.Revision, len(c.Changes))
}

// TestOneThatIsNeverAskedHoldsNothing shows what becomes of a watcher that does not
// ask for more: it is told all there is, once, and goes on from there.
func TestOneThatIsNeverAskedHoldsNothing(t *testing.T) {
	m := newMember(t, newManualClock())
	m.machine.ring.eventsMax, m.machine.working.history.bounds.Events = 4, 4
	q := Query{Namespace: "prod"}
	slow, err := m.registry.WatchFrom(context.Background(), q, WatchStart{Live: true})
	strict, err2 := m.registry.WatchFrom(context.Background(), q, WatchStart{Live: true, NoResync: true})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		m.register(reg("prod", "orders", fmt.Sprint("a", n), "10.0.0.1", 80))
	}
	c, err := slow.Next(over(), nil)
	if err != nil || c.Resync != ResyncCompacted || len(c.Instances) != 20 || c.Revision != m.index {
		t.Fatalf("it is told %+v, %v", c, err)
	}
	if _, err := strict.Next(over(), nil); !errors.Is(err, ErrCompacted) {
		t.Fatalf("one that wants no resync is told %v", err)
	}
	m.register(reg("prod", "orders", "b", "10.0.0.1", 80))
	if c, err := slow.Next(over(), nil); err != nil || c.Resync != 0 || len(c.Changes) != 1 || !c.Changes[0].Created {
		t.Fatalf("then it is told %+v, %v", c, err)
	}
}

// TestAPlaceIsTakenForAsLongAsOneReads shows that nobody else has a reader's place.
func TestAPlaceIsTakenForAsLongAsOneReads(t *testing.T) {
	c := newCatchUps()
	_, err := c.do(context.Background(), func() (Batch, error) {
		mustEqual(t, "the places that are taken meanwhile", len(c.places), 1)
		return Batch{}, errEnough
	})
	mustEqual(t, "what became of it", err, errEnough)
	mustEqual(t, "the places that are taken afterwards", len(c.places), 0)
}

// TestFewReadTheHistoryAtOnce shows that who is far behind waits for a place to read the
// history, no longer than its context lasts, and gives it up after a part of it.
func TestFewReadTheHistoryAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t, newManualClock())
		m.machine.ring.eventsMax = 4
		m.machine.catchUps = newCatchUps() // of this bubble
		m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
		behind := m.machine.Revision() - 1
		for n := range catchUpRecordsMax + 10 {
			m.register(reg("prod", "other", "a", "10.0.0.1", int32(1+n%9_999)))
		}
		m.register(reg("prod", "orders", "b", "10.0.0.1", 80))
		ctx, cancel := context.WithCancel(context.Background())
		follow := func() <-chan string {
			w, err := m.registry.WatchFrom(ctx, Query{Namespace: "prod", Services: []string{"orders"}}, WatchStart{After: behind})
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan string, 2)
			go func() {
				for range 2 {
					c, err := w.Next(ctx, nil)
					if err != nil {
						told <- err.Error()
						return
					}
					told <- c.Changes[0].Instance.ID
				}
			}()
			return told
		}
		for range catchUpsMax { // others read
			m.machine.catchUps.places <- struct{}{}
		}
		waits := follow()
		synctest.Wait()
		mustEqual(t, "how many read, or wait for it", m.machine.catchUps.reading.Load(), 1)
		cancel()
		mustEqual(t, "what one is told that has waited in vain", <-waits, context.Canceled.Error())

		ctx, cancel = context.WithCancel(context.Background())
		defer cancel()
		all := []<-chan string{follow(), follow(), follow()}
		synctest.Wait()
		mustEqual(t, "how many wait", m.machine.catchUps.reading.Load(), 3)
		<-m.machine.catchUps.places
		for _, told := range all {
			mustEqual(t, "the first that is told", <-told, "a")
			mustEqual(t, "the second", <-told, "b")
		}
		synctest.Wait()
		mustEqual(t, "how many read in the end", m.machine.catchUps.reading.Load(), 0)
		batch, err := m.machine.olderOf(behind, m.machine.ring.begins(), func(k ServiceKey) bool { return k.Service == "none" })
		if err != nil || len(batch.Events) != 0 || batch.Revision != behind+catchUpRecordsMax {
			t.Fatalf("one turn tells %d changes up to %d, want none up to %d: %v", len(batch.Events), batch.Revision, behind+catchUpRecordsMax, err)
		}
	})
}
