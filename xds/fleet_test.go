package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// others are the servers of other members, asked as the transport does; nil is one that is away.
type others map[uint64]*Server

func (o others) Others() []uint64 {
	ids := []uint64{}
	for id := range o {
		ids = append(ids, id)
	}
	return ids
}

func (o others) Ask(ctx context.Context, member uint64, request []byte) ([]byte, error) {
	if o[member] == nil {
		return nil, fmt.Errorf("node %d is not connected", member)
	}
	return o[member].Answer(ctx, request)
}

// Whoever is asked tells of the proxies of all members, and which did not say.
func TestAFleetIsTheProxiesOfAllMembers(t *testing.T) {
	one, two := newMember(t, nil), newMember(t, nil)
	for _, m := range []*member{one, two} {
		m.add("orders", 1)
		m.started("orders.prod")
	}
	c := two.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	c.nack(c.wants(typeEndpoints, "orders.prod"), "no")
	c.quiet()
	fleet := NewFleet(1, one.server, others{2: two.server, 3: nil})
	answers, err := fleet.Propagation(t.Context(), ordersKey, one.machine.Revision(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, a := range answers {
		got += fmt.Sprintf("%d: %d of %d %v", a.Member, a.Acknowledged, a.Interested, a.Err)
		for _, p := range a.Pending {
			got += fmt.Sprintf(" %s %s %s %s %s %v", p.Node, p.Type, p.Resource, p.State, p.Reason, time.Since(p.Since) < patience)
		}
		got += "\n"
	}
	if want := "1: 1 of 1 <nil>\n2: 1 of 2 <nil> web-1 eds orders.prod rejected no true\n3: 0 of 0 node 3 is not connected\n"; got != want {
		t.Errorf("the members say\n%swant\n%s", got, want)
	}
	one.server.metrics.inquiries.Store(inquiriesMax)
	if _, err := fleet.Propagation(t.Context(), ordersKey, 1, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("a member that is busy itself says %v", err)
	}
}

// What another member tells of its proxies is what it knows of them.
func TestProxiesOfAnotherMember(t *testing.T) {
	one, two := newMember(t, nil), newMember(t, nil)
	two.add("orders", 1)
	two.started("orders.prod")
	c := two.delta(nodeOf(t, metadataUpstreams, "orders.prod,ledger.prod"))
	c.subscribe(typeCluster)
	c.nack(c.wants(typeCluster, "orders.prod"), "no")
	eventually(t, "all is answered", func() bool {
		l := two.server.List(ProxyQuery{Limit: 2})
		return len(l.Proxies) == 2 && l.Proxies[0].State() == ProxySynced && l.Proxies[1].State() == ProxyRejected
	})
	fleet := NewFleet(1, one.server, others{2: two.server})
	far := fleet.List(t.Context(), ProxyQuery{Limit: 10}, 0, []uint64{2})
	near := two.server.List(ProxyQuery{Limit: 10})
	if len(far) != 1 || far[0].Err != nil || far[0].Count != 2 || len(far[0].Proxies) != 2 {
		t.Fatalf("the other member tells %+v", far)
	}
	for i := range near.Proxies {
		a, b := near.Proxies[i], far[0].Proxies[i]
		if fmt.Sprintf("%+v", shortened(a)) != fmt.Sprintf("%+v", shortened(b)) {
			t.Errorf("the other member tells\n%+v\nand knows\n%+v", b, a)
		}
	}
}

// shortened has times as they are told: whole milliseconds.
func shortened(p ProxyStatus) ProxyStatus {
	p.Connected = time.UnixMilli(p.Connected.UnixMilli())
	p.Types = slices.Clone(p.Types)
	for i := range p.Types {
		p.Types[i].Since, p.Types[i].AckedAt = timeOf(milliOf(p.Types[i].Since)), timeOf(milliOf(p.Types[i].AckedAt))
		p.Types[i].Rejected = slices.Clone(p.Types[i].Rejected)
		for j := range p.Types[i].Rejected {
			r := &p.Types[i].Rejected[j]
			r.Since = time.UnixMilli(r.Since.UnixMilli())
		}
	}
	return p
}

// A list goes on behind the last proxy of the page before, and shows what is asked for.
func TestListsOfProxies(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	for _, id := range []string{"web-2", "api-1", "web-1", "web-1"} {
		n := nodeOf(t)
		n.Id = id
		c := m.delta(n)
		c.subscribe(typeCluster)
		c.ack(c.wants(typeCluster, "orders.prod"))
	}
	eventually(t, "all are in order", func() bool { return m.server.List(ProxyQuery{States: []string{ProxySynced}}).Count == 4 })
	show := func(q ProxyQuery) string {
		p := m.server.List(q)
		var names []string
		for _, one := range p.Proxies {
			names = append(names, fmt.Sprintf("%s#%d", one.Node, one.Number))
		}
		return fmt.Sprintf("%s of %d, more %v", strings.Join(names, " "), p.Count, p.More)
	}
	for _, c := range []struct {
		query ProxyQuery
		want  string
	}{
		{ProxyQuery{Limit: 9}, "api-1#2 web-1#3 web-1#4 web-2#1 of 4, more false"},
		{ProxyQuery{Limit: 2}, "api-1#2 web-1#3 of 4, more true"},
		{ProxyQuery{Limit: 2, AfterNode: "web-1", AfterNumber: 3}, "web-1#4 web-2#1 of 4, more false"},
		{ProxyQuery{Limit: 2, AfterNode: "gone", AfterNumber: 7}, "web-1#3 web-1#4 of 4, more true"},
		{ProxyQuery{Limit: 9, Nodes: []string{"web-1"}, Kinds: []string{"envoy"}, Regions: []string{"here"}, States: []string{ProxySynced}}, "web-1#3 web-1#4 of 2, more false"},
		{ProxyQuery{Limit: 9, Zones: []string{"a"}}, " of 0, more false"},
		{ProxyQuery{}, " of 4, more true"},
	} {
		if got := show(c.query); got != c.want {
			t.Errorf("%+v gives %s, want %s", c.query, got, c.want)
		}
	}
}

// A question of a later version is refused, and so is what is none.
func TestQuestionsThatAreNotKnown(t *testing.T) {
	s := New(Config{Machine: newRegistry(t).machine})
	for _, bad := range [][]byte{nil, {0x08, 2}, {0xff}} {
		if answer, err := s.Answer(t.Context(), bad); err == nil {
			t.Errorf("%x is answered %x", bad, answer)
		}
	}
}
