package xds

import (
	"context"
	"fmt"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/stellmap/stellmap/registry"
)

// detail is what web-1 has, in few words.
func (m *member) detail(q DetailQuery) ProxyDetail {
	m.tb.Helper()
	q.Node = "web-1"
	if q.Limit == 0 {
		q.Limit = ProxyResourcesMax
	}
	d, err := m.server.Detail(context.Background(), q)
	if err != nil {
		m.tb.Fatal(err)
	}
	return d
}

func (d *ProxyDetail) words() string {
	var out []string
	for _, r := range d.Resources {
		text := fmt.Sprintf("%s %s %s %d/%d/%d", r.Type, r.Name, r.State, r.Wanted.Revision, r.Sent.Revision, r.Acked.Revision)
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		for _, c := range r.Causes {
			text += fmt.Sprintf(" by version %d at %d of %s", c.Version, c.Revision, c.By)
		}
		if r.State != ResourceSynced && r.State != ResourceAbsent && r.Since.IsZero() {
			text += ", nobody knows since when"
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// has says what web-1 has: of each resource the revision that holds, that was sent, and that was accepted.
func (m *member) has(q DetailQuery, want string) {
	m.tb.Helper()
	got := ""
	if !comesTrue(func() bool { d := m.detail(q); got = d.words(); return got == want }) {
		m.tb.Errorf("it has\n%s\nwant\n%s", got, want)
	}
}

// What a client has accepted is told apart from what it was sent and from what
// holds, resource by resource, through changes, refusals and what does not exist.
func TestWhatAProxyHas(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	first := m.machine.Revision()
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod", "nobody.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod", "-nobody.prod"))
	m.has(DetailQuery{}, fmt.Sprintf("eds nobody.prod absent 0/0/0; eds orders.prod synced %d/%d/%d", first, first, first))

	m.add("orders", 9)
	c.nack(c.wants(typeEndpoints, "orders.prod"), "no")
	m.drop("orders", 9) // what it has accepted holds again
	again := m.machine.Revision()
	m.has(DetailQuery{Names: []string{"orders.prod"}}, fmt.Sprintf("eds orders.prod synced %d/%d/%d", again, first, first))

	m.add("orders", 2)
	second := m.machine.Revision()
	sent := c.wants(typeEndpoints, "orders.prod")
	only := DetailQuery{Names: []string{"orders.prod"}}
	m.has(only, fmt.Sprintf("eds orders.prod sent %d/%d/%d", second, second, first))
	m.add("orders", 3)
	third := m.machine.Revision()
	m.settled()
	m.has(only, fmt.Sprintf("eds orders.prod sent %d/%d/%d", third, second, first))
	c.nack(sent, "I will not have it")
	sent = c.wants(typeEndpoints, "orders.prod") // which is newer
	c.nack(sent, "nor that")
	m.has(only, fmt.Sprintf("eds orders.prod rejected %d/%d/%d: nor that", third, first, first))
	m.has(DetailQuery{States: []string{"synced"}}, "")
	m.has(DetailQuery{Types: []string{"cds"}}, "")
}

// A refusal names the edits of policies that the refused content came by, and
// those only; the contents say what it was.
func TestARefusalNamesWhoChangedThePolicy(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	m.add("ledger", 1)
	first := m.machine.Service(ordersKey).Revision
	c := m.started("ledger.prod", "orders.prod")
	edit := func(service, by, text string) registry.Revision {
		t.Helper()
		k := registry.ServiceKey{Namespace: "prod", Service: service}
		if _, err := m.registry.PutPolicy(t.Context(), "", k, policyOf(t, text), registry.Writing{By: by}); err != nil {
			t.Fatal(err)
		}
		return m.machine.Revision()
	}
	edit("ledger", "bob", `{"timeouts":{"connectMs":300}}`)
	c.ack(c.wants(typeCluster, "ledger.prod"))
	c.ack(c.wants(typeEndpoints, "ledger.prod"))
	at := edit("orders", "alice", `{"timeouts":{"connectMs":200,"requestMs":1000}}`)
	c.nack(c.wants(typeCluster, "orders.prod"), "too short")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	c.nack(c.wants(typeRoutes, "egress"), "no such route")
	c.quiet()
	d := m.detail(DetailQuery{States: []string{"rejected"}, Contents: true})
	words := d.words()
	for _, want := range []string{": too short by version 1 at %d of alice", ": no such route by version 1 at %d of alice"} {
		if want = fmt.Sprintf(want, at); !strings.Contains(words, want) {
			t.Errorf("it says %s, want %s", words, want)
		}
	}
	if strings.Contains(words, "bob") || len(d.Resources) != 2 {
		t.Errorf("it says %s", words)
	}
	for want, has := range map[string]Content{`"connect_timeout":"0.250s"`: d.Resources[0].Acked, `"connect_timeout":"0.200s"`: d.Resources[0].Wanted} {
		text, err := ContentJSON("cds", has.Bytes)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("a content is %s, %v, want %s", text, err, want)
		}
	}
	m.add("orders", 2) // a refusal of what came by an instance is nobody's policy
	c.nack(c.wants(typeEndpoints, "orders.prod"), "too many")
	m.has(DetailQuery{Types: []string{"eds"}, States: []string{"rejected"}},
		fmt.Sprintf("eds orders.prod rejected %d/%d/%d: too many", m.machine.Revision(), first, first))
}

// What a client has from an earlier stream is known by its version, and by its
// content where that still holds.
func TestWhatAProxyBrings(t *testing.T) {
	m := newMember(t, nil)
	m.add("orders", 1)
	c := m.delta(nodeOf(t))
	c.subscribe(typeEndpoints, "orders.prod")
	first := c.wants(typeEndpoints, "orders.prod")
	brought := map[string]string{"orders.prod": first.Resources[0].Version, "gone.prod": "00000000000000ff.1.i1"}
	if err := c.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	c.end(t)
	again := m.delta(nodeOf(t))
	again.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: typeURLs[typeEndpoints], ResourceNamesSubscribe: []string{"orders.prod", "gone.prod"}, InitialResourceVersions: brought,
	})
	again.wants(typeEndpoints, "-gone.prod")
	eventually(t, "it is seen", func() bool {
		d := m.detail(DetailQuery{Contents: true, Names: []string{"orders.prod"}})
		return len(d.Proxies) == 1 && len(d.Resources) == 1 && d.Resources[0].State == ResourceSynced && len(d.Resources[0].Acked.Bytes) > 0
	})
}

// The list of a node's resources comes in pages, over all of its streams, each once.
func TestWhatAProxyHasComesInPages(t *testing.T) {
	m := newMember(t, nil)
	var names []string
	for n := range 7 {
		names = append(names, fmt.Sprintf("s%d.prod", n))
		m.add(fmt.Sprintf("s%d", n), 1)
	}
	for range 2 {
		c := m.delta(nodeOf(t))
		c.subscribe(typeCluster)
		c.ack(c.wants(typeCluster, names...))
		c.subscribe(typeEndpoints, names...)
		c.ack(c.wants(typeEndpoints, names...))
		c.quiet()
	}
	want := ""
	for _, r := range m.detail(DetailQuery{}).Resources {
		want += fmt.Sprintln(r.Number, r.Type, r.Name)
	}
	for limit := 1; limit < 30; limit++ {
		got, q := "", DetailQuery{Limit: limit}
		for pages := 0; ; pages++ {
			d := m.detail(q)
			if d.Count != 30 || len(d.Resources) > limit || len(d.Proxies) != 2 || pages > 30 { // two listeners that are not there are asked for
				t.Fatalf("page %d of %d has %d of %d", pages, limit, len(d.Resources), d.Count)
			}
			for _, r := range d.Resources {
				got += fmt.Sprintln(r.Number, r.Type, r.Name)
				q.AfterNumber, q.AfterType, q.AfterName = r.Number, r.Type, r.Name
			}
			if !d.More {
				break
			}
		}
		if got != want {
			t.Fatalf("in pages of %d it is\n%swant\n%s", limit, got, want)
		}
	}
}

// Who cannot show what he has is named and holds nobody up for long; too many who
// look are refused; and what another member tells is what it knows.
func TestLooksAreBounded(t *testing.T) {
	one, two := newMember(t, nil), newMember(t, nil)
	two.add("orders", 1)
	c := two.started("orders.prod")
	two.add("orders", 2)
	c.nack(c.wants(typeEndpoints, "orders.prod"), "no")
	c.quiet()
	stuck := &stream{server: two.server, wakeup: make(chan struct{}, 1), number: 99}
	stuck.status.Store(&ProxyStatus{Node: "web-1", Number: 99})
	two.server.mu.Lock()
	two.server.streams[stuck] = struct{}{}
	two.server.mu.Unlock()
	fleet := NewFleet(1, one.server, others{2: two.server, 3: nil})
	q := DetailQuery{Node: "web-1", Limit: 10, Contents: true, States: []string{"rejected"}}
	answers, err := fleet.Detail(t.Context(), q, 0)
	if err != nil || len(answers) != 3 || answers[2].Err == nil {
		t.Fatalf("the members say %+v, %v", answers, err)
	}
	far := answers[1]
	if len(far.Proxies) != 2 || fmt.Sprint(far.Stuck) != "[99]" || far.words() == "" || len(far.Resources[0].Acked.Bytes) == 0 || len(far.Resources[0].Wanted.Bytes) == 0 {
		t.Errorf("the other member tells %+v", far)
	}
	near := two.detail(q)
	if near.words() != far.words() {
		t.Errorf("the other member tells %s, and knows %s", far.words(), near.words())
	}
	if len(stuck.looks) != 0 {
		t.Error("a look is left at the one that is stuck")
	}
	one.server.metrics.inquiries.Store(inquiriesMax)
	if _, err := fleet.Detail(t.Context(), q, 0); err == nil {
		t.Error("one too many is not refused")
	}
}
