package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestProtectionAgainstAModel lets instances fall silent and come back at random, one
// by one and in crowds, under leaders that change, and holds what self-preservation
// does against what is known of who has renewed. Nothing is held back for the sake of
// a few, and nobody is kept for longer than the limit.
func TestProtectionAgainstAModel(t *testing.T) {
	random := newRandom(t)
	seen := make(map[ScopeKind]int)
	for range 8 {
		f := newFleet(t, random)
		for range 400 {
			f.step()
		}
		for kind, n := range f.begun {
			seen[kind] += n
		}
		f.allFallSilent()
	}
	for _, kind := range []ScopeKind{ScopeZone, ScopeService, ScopeCluster} {
		if seen[kind] == 0 {
			t.Errorf("no protection of a %s was seen", kind)
		}
	}
	t.Logf("protections begun: %v", seen)
}

// A fleet is instances of a few services and what is known of them.
type fleet struct {
	t      *testing.T
	random *rand.Rand
	clock  *manualClock
	member *member
	watch  *Watch
	all    []*sailor
	led    time.Time // since when the leader leads
	active map[Scope]ProtectionState
	begun  map[ScopeKind]int
}

// A sailor is an instance as its holder knows it.
type sailor struct {
	i       *Instance // as the registry told of it last
	silent  bool
	renewed time.Time // when its last renewal was acknowledged
}

const fleetLimit = 12 * time.Second

func newFleet(t *testing.T, random *rand.Rand) *fleet {
	clock := newManualClock()
	m := &member{tb: t, clock: clock, fs: vfs.NewMem(), preserve: Preservation{Limit: fleetLimit}}
	m.open()
	m.lead()
	t.Cleanup(m.close)
	m.carry()
	f := &fleet{t: t, random: random, clock: clock, member: m, watch: m.machine.Watch(m.machine.Revision()), led: clock.Now(),
		active: make(map[Scope]ProtectionState), begun: make(map[ScopeKind]int)}
	for s := range 2 + random.IntN(4) {
		for n := range 1 + random.IntN(50) {
			r := reg("prod", fmt.Sprint("s", s), fmt.Sprint("i", n), "10.0.0.1", int32(1+n))
			r.Zone, r.LeaseTTLSeconds = []string{"", "a", "b"}[random.IntN(3)], int64(1+random.IntN(4))
			m.register(r)
			i, _ := m.machine.instance(InstanceKey{Namespace: r.Namespace, Service: r.Service, ID: r.ID})
			f.all = append(f.all, &sailor{i: i, renewed: clock.Now()})
		}
	}
	f.follow()
	return f
}

// step is a quarter of a second in which something may happen.
func (f *fleet) step() {
	switch f.random.IntN(40) {
	case 0: // some of a kind fall silent or come back
		one, silent, share := f.any().i, f.random.IntN(2) == 0, f.random.Float64()
		zone, service := f.random.IntN(3) > 0, f.random.IntN(4) > 0
		for _, s := range f.all {
			if (!zone || s.i.Zone == one.Zone) && (!service || s.i.Service == one.Service) && f.random.Float64() < share {
				s.silent = silent
			}
		}
	case 1, 2:
		f.any().silent = true
	case 3, 4:
		f.any().silent = false
	case 5:
		f.member.machine.Follow()
		f.member.lead()
		f.led = f.clock.Now()
	}
	for _, s := range f.all {
		if !s.silent && f.random.IntN(int(s.i.LeaseTTL/expiryTick/2)) == 0 {
			f.renew(s)
		}
	}
	f.pass()
}

func (f *fleet) any() *sailor { return f.all[f.random.IntN(len(f.all))] }

func (f *fleet) renew(s *sailor) {
	if _, err := f.member.registry.Heartbeat(context.Background(), s.i.ref(), 0); err != nil {
		f.t.Fatalf("renew %v: %v", s.i.Key(), err)
	}
	s.renewed = f.clock.Now()
	f.follow()
	if s.i.Status != StatusPassing {
		f.t.Fatalf("%v has renewed and is %s", s.i.Key(), s.i.Status)
	}
}

func (i *Instance) ref() InstanceRef { return ref(i.Namespace, i.Service, i.ID) }

// pass lets a tick go by, and checks what it has brought.
func (f *fleet) pass() {
	f.member.pass(f.clock, expiryTick)
	f.follow()
	f.checkProtections()
	now := f.clock.Now()
	for _, s := range f.all {
		over := s.renewed.Add(s.i.LeaseTTL)
		switch {
		case s.i.Status != StatusPassing && now.Before(over):
			f.t.Fatalf("%v is %s, %v before its lease ran out", s.i.Key(), s.i.Status, over.Sub(now))
		case s.i.Status == StatusSuspect && now.Sub(time.UnixMilli(s.i.StatusSince())) > fleetLimit+2*expiryTick:
			f.t.Fatalf("%v is a suspect since %v", s.i.Key(), now.Sub(time.UnixMilli(s.i.StatusSince())))
		case s.i.Status == StatusPassing && now.After(over) && now.Sub(f.led) > s.i.LeaseTTL+2*expiryTick && now.Sub(over) > 2*expiryTick:
			f.t.Fatalf("%v is passing, %v after its lease ran out", s.i.Key(), now.Sub(over))
		}
	}
}

// checkProtections holds what has begun against who is silent.
func (f *fleet) checkProtections() {
	states, _ := f.member.machine.protections()
	before := f.active
	f.active = make(map[Scope]ProtectionState)
	for _, p := range states {
		old, there := before[p.Scope]
		f.active[p.Scope] = p
		if age := f.clock.Now().Sub(time.UnixMilli(p.Since)); age >= fleetLimit+expiryTick {
			f.t.Fatalf("the protection of %s lasts for %v", p.Scope, age)
		}
		if there && old.Since == p.Since && !old.holds(old.Suspects, old.LeasesNow) && !p.holds(p.Suspects, p.LeasesNow) {
			f.t.Fatalf("the protection of %s goes on with %d of %d", p.Scope, p.Suspects, p.LeasesNow)
		}
		if there && old.Since == p.Since {
			continue
		}
		f.begun[p.Scope.Kind]++
		over, leases := f.count(p.Scope)
		if p.Lapsed < preservationLeast || p.Lapsed*100 <= preservationPercent*p.Leases || p.Lapsed > over || p.Leases > leases {
			f.t.Fatalf("the protection of %s begins with %d of %d leases run out; %d of %d have", p.Scope, p.Lapsed, p.Leases, over, leases)
		}
	}
}

// count is how many leases of a scope have run out, by what their holders know, and how many there are.
func (f *fleet) count(scope Scope) (over, leases int) {
	for _, s := range f.all {
		if scope.Kind != ScopeCluster && scope.Service != s.i.ServiceKey() || !scope.covers(s.i) {
			continue
		}
		leases++
		if !s.renewed.Add(s.i.LeaseTTL).After(f.clock.Now()) {
			over++
		}
	}
	return over, leases
}

// follow takes in what watchers are told. Who is removed registers anew.
func (f *fleet) follow() {
	for {
		batch, more, err := f.watch.Poll()
		if err != nil {
			f.t.Fatal(err)
		}
		if !more {
			return
		}
		for _, e := range batch.Events {
			for _, s := range f.all {
				if e.Instance != nil && s.i.Key() == e.Instance.Key() {
					s.i = e.Instance
				}
			}
		}
	}
}

// allFallSilent shows that after the limit nobody is left whom nobody has renewed.
func (f *fleet) allFallSilent() {
	for _, s := range f.all {
		s.silent = true
	}
	for range int((fleetLimit + 6*time.Second) / expiryTick) {
		f.pass()
	}
	for _, s := range f.all {
		if s.i.Status != StatusExpired {
			f.t.Fatalf("%v is %s, renewed %v ago", s.i.Key(), s.i.Status, f.clock.Now().Sub(s.renewed))
		}
	}
	if len(f.active) > 0 {
		f.t.Fatalf("protections are left: %v", f.active)
	}
}
