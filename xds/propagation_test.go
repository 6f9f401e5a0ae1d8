package xds

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var ordersKey = registry.ServiceKey{Namespace: "prod", Service: "orders"}

// propagation is how far orders has come.
func (m *member) propagation(revision registry.Revision, wait time.Duration) Propagation {
	m.tb.Helper()
	p, err := m.server.Propagation(context.Background(), ordersKey, revision, wait)
	if err != nil {
		m.tb.Fatal(err)
	}
	return p
}

// stands says that so many of so many have the revision, and who of the others is where.
func (m *member) stands(revision registry.Revision, want string) {
	m.tb.Helper()
	got := ""
	if !comesTrue(func() bool {
		p := m.propagation(revision, 0)
		got = fmt.Sprintf("%d of %d", p.Acknowledged, p.Interested)
		for _, one := range p.Pending {
			got += fmt.Sprintf("; %s %s %s %s", one.Node, one.Type, one.Resource, one.State)
			if one.Reason != "" {
				got += ": " + one.Reason
			}
			if one.Since.IsZero() {
				got += ", nobody knows since when"
			}
		}
		return got == want
	}) {
		m.tb.Errorf("at revision %d it stands at\n%s\nwant\n%s", revision, got, want)
	}
}

// A proxy has a service's revision when it has accepted that or a later one;
// until then it is named, with where it is. Others do not count.
func TestPropagationFollowsWhatAProxyAccepts(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	m.stands(m.machine.Revision(), "0 of 0")
	orders := m.started("orders.prod")
	ledger := m.delta(nodeOf(t, metadataUpstreams, "ledger.prod"))
	ledger.subscribe(typeCluster)
	ledger.ack(ledger.wants(typeCluster, "ledger.prod"))
	first := m.machine.Service(ordersKey).Revision
	m.stands(first, "1 of 1")

	m.add("orders", 2)
	second := m.machine.Revision()
	sent := orders.wants(typeEndpoints, "orders.prod")
	m.stands(second, "0 of 1; web-1 eds orders.prod sent")
	m.stands(first, "1 of 1")
	m.add("orders", 3)
	third := m.machine.Revision()
	m.settled()
	orders.ack(sent)
	sent = orders.wants(typeEndpoints, "orders.prod")
	m.stands(second, "1 of 1")
	m.stands(third, "0 of 1; web-1 eds orders.prod sent")
	orders.nack(sent, "I will not have it")
	m.stands(third, "0 of 1; web-1 eds orders.prod rejected: I will not have it")
	m.stands(second, "1 of 1")

	m.add("orders", 4)
	orders.ack(orders.wants(typeEndpoints, "orders.prod"))
	m.stands(m.machine.Revision(), "1 of 1")
	m.stands(third, "1 of 1")
	ledger.quiet() // nobody has troubled it
}

// A revision that has changed nothing of what a proxy sees needs no answer from it.
func TestPropagationOfWhatNobodySees(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.started("orders.prod")
	m.register(registry.Registration{Namespace: "test", Service: "orders", ID: "1", Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}}})
	m.stands(m.machine.Revision(), "1 of 1")
	// Content that comes back before the proxy has answered what was between.
	m.add("orders", 2)
	between := c.wants(typeEndpoints, "orders.prod")
	m.drop("orders", 2)
	m.settled()
	m.stands(m.machine.Revision(), "0 of 1; web-1 eds orders.prod sent")
	c.ack(between)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	m.stands(m.machine.Revision(), "1 of 1")
}

// A proxy that lacks the cluster, or is not told of the endpoints that it asked
// for, does not have the service, and one that gives up its wish lacks nothing.
func TestPropagationCountsClustersToo(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	clusters := c.wants(typeCluster, "orders.prod")
	m.stands(1, "0 of 1; web-1 cds orders.prod sent")
	c.subscribe(typeEndpoints, "orders.prod")
	endpoints := c.wants(typeEndpoints, "orders.prod")
	c.ack(clusters)
	m.stands(1, "0 of 1; web-1 eds orders.prod sent")
	c.ack(endpoints)
	m.stands(1, "1 of 1")
	m.register(checked("orders", 2))
	clusters = c.wants(typeCluster, "orders.prod")
	m.stands(m.machine.Revision(), "0 of 1; web-1 cds orders.prod sent")
	c.ack(clusters)
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	m.stands(m.machine.Revision(), "1 of 1")
}

// Who waits is told when the last proxy has it, be it that one leaves or comes
// meanwhile, and when the time is over.
func TestPropagationWaits(t *testing.T) { synctest.Test(t, testPropagationWaits) }

func testPropagationWaits(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	a, b := m.started("orders.prod"), m.started("orders.prod")
	m.add("orders", 2)
	revision := m.machine.Revision()
	ra := a.wants(typeEndpoints, "orders.prod")
	b.wants(typeEndpoints, "orders.prod")
	m.stands(revision, "0 of 2; web-1 eds orders.prod sent; web-1 eds orders.prod sent")
	done := make(chan Propagation, 1)
	go func() { done <- m.propagation(revision, time.Hour) }()
	synctest.Wait() // it has looked for the first time
	late := m.delta(nodeOf(t))
	late.subscribe(typeEndpoints, "orders.prod")
	rl := late.wants(typeEndpoints, "orders.prod")
	a.ack(ra)
	if err := b.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	m.stands(revision, "1 of 2; web-1 eds orders.prod sent")
	select {
	case p := <-done:
		t.Fatalf("the wait has ended with %+v", p)
	default:
	}
	late.ack(rl)
	if p := <-done; p.Interested != 2 || p.Acknowledged != 2 || p.Revision != revision {
		t.Errorf("the wait has ended with %+v", p)
	}
	m.add("orders", 3)
	if p := m.propagation(m.machine.Revision(), 10*time.Millisecond); p.Complete() || len(p.Pending) != 2 {
		t.Errorf("after a short wait it stands at %+v", p)
	}
	if n := m.questions(); n != 0 {
		t.Errorf("%d questions are left", n)
	}
}

// questions are those that wait at all streams.
func (m *member) questions() int {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	n := 0
	for s := range m.server.streams {
		s.mu.Lock()
		n += len(s.questions)
		s.mu.Unlock()
	}
	return n
}

// A member that has not seen the revision itself says that nobody here has it.
func TestPropagationOfALaterRevision(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.started("orders.prod")
	m.stands(m.machine.Revision()+1, "0 of 1; web-1 cds orders.prod behind")
	done := make(chan Propagation, 1)
	go func() { done <- m.propagation(m.machine.Revision()+1, time.Hour) }()
	eventually(t, "somebody waits", func() bool { return m.server.metrics.inquiries.Load() == 1 })
	m.add("ledger", 1)
	if p := <-done; !p.Complete() || p.Interested != 1 {
		t.Errorf("it stands at %+v", p)
	}
}

// More than so many who ask at once are refused, and many who lack it are counted.
func TestPropagationIsBounded(t *testing.T) {
	m := newMember(t, nil)
	m.server.metrics.inquiries.Store(inquiriesMax)
	if _, err := m.server.Propagation(t.Context(), ordersKey, 1, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many is told %v", err)
	}
	m.server.metrics.inquiries.Store(0)
	m.add("orders", 1)
	for range pendingMax + 1 {
		c := m.delta(nodeOf(t))
		c.subscribe(typeEndpoints, "orders.prod")
		c.next(t)
	}
	if p := m.propagation(1, 0); p.Interested != pendingMax+1 || p.Acknowledged != 0 || len(p.Pending) != pendingMax {
		t.Errorf("%d of %d have it, and %d are named", p.Acknowledged, p.Interested, len(p.Pending))
	}
}
