package httpapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/stellmap/stellmap/registry"
)

// fakeProxies plays the members' answers about their proxies.
type fakeProxies struct {
	mu        sync.Mutex // guards what follows
	answers   []MemberPropagation
	loads     []MemberLoad
	all       map[uint64][]Proxy
	resources []ProxyResource // of each of them, by name
	away      map[uint64]bool
	asked     []string
	busy      bool
}

// newFakeProxies has a proxy at each of two members, and a third that is away.
func newFakeProxies() *fakeProxies {
	at := time.UnixMilli(1_790_000_000_123)
	return &fakeProxies{
		away: map[uint64]bool{3: true},
		loads: []MemberLoad{
			{Member: 1, Reporters: 2, Window: time.Minute, Clusters: []ClusterLoad{
				{Cluster: "orders.prod", Localities: []LocalityLoad{{"here", "a", 1200, 3, 4}, {"here", "b", 1150, 0, 2}}, Drops: []DropLoad{{"sale", 40}}},
				{Cluster: "admin~orders.prod", Localities: []LocalityLoad{{"here", "", 6, 0, 0}}},
			}},
			{Member: 2, Reporters: 1, Window: time.Minute, Clusters: []ClusterLoad{
				{Cluster: "orders.prod", Localities: []LocalityLoad{{"east", "", 0, 17, 0}, {"here", "a", 300, 0, 1}}, Drops: []DropLoad{{"other", 1}, {"sale", 2}}},
			}},
			{Member: 3, Err: errors.New("node 3 is not connected")},
		},
		resources: []ProxyResource{
			{Number: 7, Type: "cds", Name: "ledger.prod", State: "synced", Wanted: ProxyContent{Hash: 255, Revision: 38, Content: []byte(`{"name":"ledger.prod"}`)},
				Sent: ProxyContent{Hash: 255, Revision: 38}, Acked: ProxyContent{Hash: 255, Revision: 38, Content: []byte(`{"name":"ledger.prod"}`)}},
			{Number: 7, Type: "cds", Name: "orders.prod", State: "rejected", Since: at, Reason: "no", Causes: []PolicyCause{{registry.ServiceKey{Namespace: "prod", Service: "orders"}, 3, 40, "alice", at}},
				Wanted: ProxyContent{Hash: 1 << 60, Revision: 40, LeftOut: 5_000_000}},
		},
		all: map[uint64][]Proxy{
			1: {{
				Number: 7, Node: "web-1", Cluster: "web", Service: "shop", Namespace: "prod", Region: "here", Zone: "a", Kind: "envoy", Protocol: "delta",
				Peer: "10.1.0.1:4711", State: "synced", Connected: at, UpstreamCount: 1, Upstreams: []string{"*.prod"}, UpstreamsFrom: "document", UpstreamsVersion: 3,
				Types: []ProxyType{{Type: "cds", State: "synced", Since: at, AckedAt: at, Wildcard: true, Resources: 4, Sent: 40, Acked: 40, InSync: true}},
			}},
			2: {{
				Number: 1, Node: "api-1", Namespace: "default", Region: "here", Kind: "grpc", Protocol: "sotw", Peer: "10.1.0.2:4711", State: "rejected", Connected: at,
				Types: []ProxyType{{Type: "eds", State: "rejected", Since: at, Subscribed: 2, Resources: 2, Sent: 40, Acked: 38, Silent: true, RejectedCount: 1, Rejected: []ProxyRejection{{"orders.prod", "no", at}}}},
			}},
		},
	}
}

func (f *fakeProxies) Propagation(_ context.Context, k registry.ServiceKey, revision registry.Revision, wait time.Duration) ([]MemberPropagation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%s/%s at %d, wait %v", k.Namespace, k.Service, revision, wait))
	if f.busy {
		return nil, fmt.Errorf("%w: too many ask", registry.ErrBusy)
	}
	return f.answers, nil
}

// List pages as members do.
func (f *fakeProxies) List(_ context.Context, q ProxyQuery) []MemberProxies {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%+v", q))
	var out []MemberProxies
	for id := uint64(1); id <= f.members(); id++ {
		if f.away[id] {
			out = append(out, MemberProxies{Member: id, Err: errors.New("node 3 is not connected")})
			continue
		}
		all := f.all[id]
		rest := slices.DeleteFunc(slices.Clone(all), func(p Proxy) bool { return id == q.After.Member && p.Number <= q.After.Number })
		n := min(len(rest), q.Limit)
		out = append(out, MemberProxies{Member: id, Count: len(all), Proxies: rest[:n], More: n < len(rest)})
	}
	return out
}

// Load is as it was given.
func (f *fakeProxies) Load(_ context.Context, k registry.ServiceKey) []MemberLoad {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, "the load of "+k.Namespace+"/"+k.Service)
	return f.loads
}

// Detail pages as members do: over the resources of its only stream.
func (f *fakeProxies) Detail(_ context.Context, q ProxyDetailQuery) ([]MemberProxyDetail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%+v", q))
	if f.busy {
		return nil, fmt.Errorf("%w: too many look", registry.ErrBusy)
	}
	var out []MemberProxyDetail
	for id := uint64(1); id <= f.members(); id++ {
		m := MemberProxyDetail{Member: id}
		if f.away[id] {
			m.Err = errors.New("node 3 is not connected")
		}
		for _, p := range f.all[id] {
			if p.Node == q.Node {
				m.Proxies = append(m.Proxies, p)
				m.Count = len(f.resources)
			}
		}
		for _, r := range f.resources {
			if len(m.Proxies) == 0 || id == q.After.Member && r.Name <= q.After.Name {
				continue
			}
			if m.More = len(m.Resources) == q.Limit; m.More {
				break
			}
			m.Resources = append(m.Resources, r)
		}
		out = append(out, m)
	}
	return out, nil
}

// Explain has one cluster with a host that is there and one that is not.
func (f *fakeProxies) Explain(ctx context.Context, node string, k registry.ServiceKey, instance string) ([]ProxyExplanation, []MemberProxyDetail, error) {
	members, err := f.Detail(ctx, ProxyDetailQuery{Node: node})
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("explain %s %v %s", node, k, instance))
	var out []ProxyExplanation
	for _, m := range members {
		for _, p := range m.Proxies {
			out = append(out, ProxyExplanation{
				Member: m.Member, Proxy: p, Routes: f.resources[1:],
				Clusters: []ClusterExplanation{{
					Name: "orders.prod", Endpoint: "http", Told: true, Why: "it is in the proxy's scope by its upstream *.prod", Cluster: f.first(),
					Priorities: []PriorityExplanation{{Priority: 0, Regions: []string{"here"}, Hosts: 1, Healthy: 1, Share: 100}},
					Hosts: []HostExplanation{
						{Instance: "a", Region: "here", Address: "10.0.0.1:8080", Status: "passing", Should: &Placement{0, 100, "healthy"}, Has: &Placement{0, 100, "unhealthy"}, Why: "its region is the proxy's"},
						{Instance: "b", Region: "here", Zone: "z", Status: "disabled", Why: "it is disabled"},
					},
				}, {Name: "web~orders.prod", Endpoint: "web", Why: "the name is another's"}},
			})
		}
	}
	return out, members, nil
}

// first is the first of several resources.
func (f *fakeProxies) first() *ProxyResource {
	if len(f.resources) < 2 {
		return nil
	}
	return &f.resources[0]
}

// members are as many as there are; without one that is away there are as many as have proxies, and two at least.
func (f *fakeProxies) members() uint64 {
	if len(f.away) > 0 {
		return 3
	}
	return max(2, slices.Max(slices.Collect(maps.Keys(f.all))))
}

// play has lines of "member ID revision N has N of N", "member ID away" and
// "lacks NODE TYPE RESOURCE STATE [REASON]" or "refused TYPE RESOURCE PROXIES REASON" of the member above.
func (f *fakeProxies) play(d *datadriven.TestData) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = nil
	for line := range strings.Lines(d.Input) {
		line = strings.TrimSpace(line)
		var m MemberPropagation
		if n, _ := fmt.Sscanf(line, "member %d revision %d has %d of %d", &m.Member, &m.Revision, &m.Acknowledged, &m.Interested); n == 4 {
			f.answers = append(f.answers, m)
			continue
		}
		if n, _ := fmt.Sscanf(line, "member %d away", &m.Member); n == 1 {
			m.Err = fmt.Errorf("node %d is not connected", m.Member)
			f.answers = append(f.answers, m)
			continue
		}
		if rest, ok := strings.CutPrefix(line, "refused "); ok {
			words := strings.SplitN(rest, " ", 4)
			last, at := &f.answers[len(f.answers)-1], time.UnixMilli(1_790_000_000_123)
			r := ProxyRefusal{Type: words[0], Resource: words[1], Reason: words[3], Nodes: []string{"web-9"}, Since: at}
			r.Proxies, _ = strconv.Atoi(words[2])
			if r.Proxies > 1 {
				r.Cause = &PolicyCause{registry.ServiceKey{Namespace: "prod", Service: "orders"}, 3, 7, "alice", at}
			}
			last.Refused = append(last.Refused, r)
			continue
		}
		words := strings.SplitN(line, " ", 6)
		p := PendingProxy{Node: words[1], Peer: "10.1.0.1:4711", Type: words[2], Resource: words[3], State: words[4], Since: time.UnixMilli(1_790_000_000_123)}
		if len(words) > 5 {
			p.Reason = words[5]
		}
		last := &f.answers[len(f.answers)-1]
		last.Pending = append(last.Pending, p)
	}
	return "ok\n"
}

func (f *fakeProxies) takeAsked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return strings.Join(asked, "\n") + "\n"
}

// A list of proxies that goes over all members shows each once, whatever the size of its pages.
func TestProxiesComeInPages(t *testing.T) {
	f := &fakeProxies{all: make(map[uint64][]Proxy)}
	m := newMember(t, func(c *Config) { c.Proxies = f })
	want := ""
	for id, n := range map[uint64]int{1: 5, 3: 4} {
		for i := range n {
			f.all[id] = append(f.all[id], Proxy{Node: "web/1", Number: uint64(i + 1), Peer: fmt.Sprintf("%d.%d", id, i)})
		}
	}
	for id := uint64(1); id <= 3; id++ {
		for _, p := range f.all[id] {
			want += fmt.Sprintf("%d %s %s;", id, p.Node, p.Peer)
		}
	}
	for limit := 1; limit <= 10; limit++ {
		got, cursor := "", ""
		for pages := 0; ; pages++ {
			var page v2ProxyPage
			into(t, m.must(200, "GET", fmt.Sprintf("/api/v2/proxies?limit=%d&cursor=%s", limit, cursor), ""), &page)
			if len(page.Proxies) > limit || page.Count != 9 {
				t.Fatalf("a page of %d has %d proxies of %d", limit, len(page.Proxies), page.Count)
			}
			for _, p := range page.Proxies {
				got += fmt.Sprintf("%d %s %s;", p.Member, p.Node, p.Peer)
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
			if pages > 9 {
				t.Fatal("the pages do not end")
			}
		}
		mustEqual(t, "the list", got, want)
	}
}

// A member that too many ask already says that it is busy.
func TestPropagationOfABusyMember(t *testing.T) {
	f := newFakeProxies()
	m := newMember(t, func(c *Config) { c.Proxies = f })
	m.register("orders", "a", "10.0.0.1", "")
	f.busy = true
	m.must(429, "GET", "/api/v2/namespaces/prod/services/orders/propagation", "")
	m.must(429, "GET", "/api/v2/proxies/web-1", "")
}

// What a node's proxies have on several members is one list, each page of which begins
// where the one before has ended; a node that no member knows is not found.
func TestAProxysResourcesComeInPages(t *testing.T) {
	f := &fakeProxies{all: map[uint64][]Proxy{1: {{Node: "web/1", Number: 4}}, 3: {{Node: "web/1", Number: 9}}}}
	m := newMember(t, func(c *Config) { c.Proxies = f })
	want := ""
	for i := range 5 {
		f.resources = append(f.resources, ProxyResource{Type: "cds", Name: fmt.Sprintf("s%d/x", i), State: "absent"})
	}
	for _, id := range []int{1, 3} {
		for i := range 5 {
			want += fmt.Sprintf("%d s%d/x;", id, i)
		}
	}
	for limit := 1; limit <= 11; limit++ {
		got, cursor := "", ""
		for pages := 0; ; pages++ {
			var page v2ProxyDetail
			into(t, m.must(200, "GET", fmt.Sprintf("/api/v2/proxies/web%%2F1?limit=%d&cursor=%s", limit, cursor), ""), &page)
			if len(page.Resources) > limit || page.Count != 10 || len(page.Members) != 3 || len(page.Proxies) != 2 || pages > 10 {
				t.Fatalf("page %d of %d is %+v", pages, limit, page)
			}
			for _, r := range page.Resources {
				got += fmt.Sprintf("%d %s;", r.Member, r.Name)
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
		}
		mustEqual(t, "the list", got, want)
	}
	mustEqual(t, "what is said of one that is not there", strings.Contains(m.must(404, "GET", "/api/v2/proxies/web-9", "").Body.String(), `no proxy with the node id \"web-9\" is connected: /api/v2/proxies lists`), true)
}
