package registry

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestACrowdRunsOutAtABoundedRate shows for whatever makes a crowd of leases end
// together that none of them ends early, that no tick takes more than the budget,
// and that all are gone within the stated bound, while one that is renewed stays.
func TestACrowdRunsOutAtABoundedRate(t *testing.T) {
	const (
		crowd = 1_000
		ttl   = 10 * time.Second
		bound = ttl + expiryTick + crowd*time.Second/expiryRate
	)
	events := map[string]func(m *member, clock *manualClock){
		"they stop":       func(*member, *manualClock) {},
		"a leader change": func(m *member, _ *manualClock) { m.lead() },
		"an outage":       func(m *member, clock *manualClock) { m.machine.Follow(); clock.advance(time.Hour); m.lead() },
		"a pause": func(m *member, clock *manualClock) {
			clock.advance(time.Hour)
			m.registry.expireDue(context.Background())
			m.renewAll(crowd + 1)
		},
	}
	for name, happens := range events {
		t.Run(name, func(t *testing.T) {
			clock := newManualClock()
			m := newMember(t, clock)
			m.registry.guard.rules.Off = true // or nobody would go
			for n := range crowd + 1 {
				r := reg("prod", "orders", fmt.Sprint(n), "10.0.0.1", int32(1+n))
				r.LeaseTTLSeconds = int64(ttl.Seconds())
				m.register(r)
			}
			m.pass(clock, ttl/2)
			m.renewAll(crowd + 1)
			happens(m, clock)
			gone, waited := 0, false
			for passed := expiryTick; passed <= bound; passed += expiryTick {
				m.renewAll(1)
				m.pass(clock, expiryTick)
				now := int(m.machine.Service(ServiceKey{"prod", "orders"}).Statuses[StatusExpired])
				if passed < ttl && now > 0 {
					t.Fatalf("%d are gone %v before their time", now, ttl-passed)
				}
				if most := int(expiryBurst / expiryCost); now-gone > most || gone > 0 && now-gone > int(expiryTick/expiryCost) {
					t.Fatalf("%d are gone within a tick, after %d: the budget is %d a second, %d at first", now-gone, gone, expiryRate, most)
				}
				gone = now
				waited = waited || m.machine.leases.stats().late > 0
			}
			mustEqual(t, "the number gone within the bound", gone, crowd)
			mustEqual(t, "whether it was seen that some had to wait", waited, true)
			mustEqual(t, "how late the next is", m.machine.leases.stats().late, 0)
		})
	}
}

// renewAll renews the leases of the first so many of the orders.
func (m *member) renewAll(instances int) {
	m.tb.Helper()
	asked := make([]leaseRenewal, instances)
	for n := range asked {
		asked[n].key = orders(fmt.Sprint(n))
	}
	if _, err := m.machine.renewLeases(context.Background(), asked); err != nil {
		m.tb.Fatalf("renew %d leases: %v", instances, err)
	}
}
