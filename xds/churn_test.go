package xds

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

var seed = flag.Uint64("seed", 0, "of the random tests; 0 = a new one")

// After random changes every client has exactly what the state says, whatever
// the protocol, its scope, and how often it lost its stream.
func TestClientsConverge(t *testing.T) {
	s := cmp.Or(*seed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d: run it again with -seed=%d", s, s)
	random := rand.New(rand.NewPCG(s, 0))
	m := newMember(t, nil)
	var proxies []*proxy
	for n := range 12 {
		upstreams := [][]any{{"*.prod"}, {"orders.prod", "ledger.prod"}, {"*.prod", "*.test"}}[n%3]
		p := &proxy{m: m, delta: n%2 == 0, node: nodeOf(t, metadataUpstreams, upstreams, metadataService, []string{"shop", "desk"}[n/4%2])}
		p.node.Locality = &corev3.Locality{Region: []string{"here", "west"}[n/2%2]}
		p.connect()
		proxies = append(proxies, p)
	}
	c := &churn{m: m, random: random, live: make(map[registry.InstanceKey]bool)}
	for n := range 600 {
		c.step()
		if n%20 == 0 {
			proxies[random.IntN(len(proxies))].reconnect()
		}
	}
	m.settled()
	truth := newCache(m.machine, func() string { return "i1" }, newMetrics())
	truth.reload(time.Now())
	for n, p := range proxies {
		want := truth.shouldHave(t, p.node)
		if !comesTrue(func() bool { return p.has(want) }) {
			t.Fatalf("client %d (delta: %t): %s", n, p.delta, p.differences(want))
		}
	}
}

// have is content by name, of each type.
type have [typeCount]map[string]string

// shouldHave is what a client must have in the end, from the state alone.
func (c *cache) shouldHave(t *testing.T, n *corev3.Node) have {
	t.Helper()
	parsed, err := parseNode(n, "here")
	if err != nil {
		t.Fatal(err)
	}
	k, _ := parsed.caller()
	s := &stream{node: parsed, scope: c.openScope(parsed.kind, parsed.retries, nil, c.machine.Upstreams(k).Content().Of(parsed.upstreams))}
	var out have
	names := [typeCount][]string{typeCluster: c.clustersIn(s.scope), typeListener: append(s.scope.locals.names(&subscription{stream: s}), egressName), typeRoutes: {egressName}}
	names[typeEndpoints] = names[typeCluster]
	for t := range typeCount {
		out[t] = make(map[string]string)
		for _, name := range names[t] {
			if e := c.build(s.keyOf(t, name)); !e.absent() {
				out[t][name] = string(e.resource.Resource.Value)
			}
		}
	}
	return out
}

// A churn makes random changes: instances come and go, with names that collide,
// addresses that cannot be shown, protocols that differ, checks and further endpoints.
type churn struct {
	m      *member
	random *rand.Rand
	live   map[registry.InstanceKey]bool
}

func (c *churn) pick(of ...string) string { return of[c.random.IntN(len(of))] }

func (c *churn) step() {
	switch c.random.IntN(12) {
	case 0, 1:
		c.policy()
		return
	case 2:
		c.upstreams()
		return
	}
	k := registry.InstanceKey{
		Namespace: c.pick("prod", "prod", "test", "Prod"),
		Service:   c.pick("orders", "Orders", "ledger", "admin--orders", "basket", "mail", "cache"),
		ID:        fmt.Sprint(c.random.IntN(6)),
	}
	if c.live[k] && c.random.IntN(2) == 0 {
		c.leave(k)
		return
	}
	r := registry.Registration{Namespace: k.Namespace, Service: k.Service, ID: k.ID, Zone: c.pick("", "a", "b"), Version: c.pick("", "v1", "v2"), Metadata: map[string]string{}}
	if c.random.IntN(5) == 0 {
		r.Metadata[metadataHealthPath] = c.pick("/healthz", "/ready", "bad")
	}
	r.Endpoints = append(r.Endpoints, registry.Endpoint{
		Name: "main", Protocol: c.pick("http", "http", "http", "grpc"), Port: 80, Weight: int32(c.random.IntN(100)),
		Host: c.pick(addressOf(c.random.IntN(8)), addressOf(c.random.IntN(8)), "db.local"),
	})
	if c.random.IntN(3) == 0 {
		r.Endpoints = append(r.Endpoints, registry.Endpoint{Name: c.pick("admin", "Admin", "tcp"), Protocol: c.pick("http", "tcp"), Port: 81, Host: addressOf(1)})
	}
	c.m.register(r)
	c.live[k] = true
}

// upstreams says what the proxies' service wants to call and may, or leaves it to them.
func (c *churn) upstreams() {
	k := registry.ServiceKey{Namespace: "prod", Service: "shop"}
	lists := [][]string{nil, {}, {"*.prod"}, {"orders.prod", "ledger.prod", "admin--orders.prod"}, {"*.prod", "*.test"}}
	u := registry.Upstreams{Wants: lists[c.random.IntN(len(lists))]}
	if u.Wants == nil || c.random.IntN(2) == 0 {
		u.May = slices.Clone(append(lists[1+c.random.IntN(len(lists)-1)], u.Wants...))
	}
	if _, err := c.m.registry.PutUpstreams(context.Background(), "", k, u, registry.Writing{}); err != nil {
		c.m.tb.Fatalf("upstreams %+v: %v", u, err)
	}
}

// policy gives a service subsets, and routes to them and to copies, or takes them back.
func (c *churn) policy() {
	k := registry.ServiceKey{Namespace: c.pick("prod", "prod", "test"), Service: c.pick("orders", "Orders", "ledger")}
	var p registry.Policy
	for _, name := range []string{"old", "new", c.pick("New", "third")} {
		if c.random.IntN(2) == 0 && !slices.ContainsFunc(p.Subsets, func(s registry.Subset) bool { return strings.EqualFold(s.Name, name) }) {
			p.Subsets = append(p.Subsets, registry.Subset{Name: name, Version: c.pick("v1", "v2")})
		}
	}
	var split []registry.SplitTarget
	for _, s := range p.Subsets {
		split = append(split, registry.SplitTarget{Subset: s.Name, Weight: 1 + c.random.Int64N(9)})
	}
	p.Routes = []registry.Route{
		{Match: &registry.RouteMatch{Prefix: c.pick("/a", "/b")}, Split: split},
		{Mirror: &registry.Mirror{Service: c.pick("orders", "ledger", "basket")}},
	}
	if c.random.IntN(2) == 0 {
		p.LocalPort = new([]int64{5432, 6379, egressPortDefault}[c.random.IntN(3)])
	}
	var err error
	if c.random.IntN(5) == 0 {
		_, err = c.m.registry.DeletePolicy(context.Background(), "", k, registry.Writing{})
	} else {
		_, err = c.m.registry.PutPolicy(context.Background(), "", k, p, registry.Writing{})
	}
	if err != nil {
		c.m.tb.Fatalf("policy of %v: %v", k, err)
	}
}

func (c *churn) leave(k registry.InstanceKey) {
	ref := registry.InstanceRef{Namespace: k.Namespace, Service: k.Service, ID: k.ID}
	if _, err := c.m.registry.Deregister(context.Background(), "", ref); err != nil {
		c.m.tb.Fatalf("deregister %v: %v", k, err)
	}
	delete(c.live, k)
	if s := c.m.machine.Service(k.ServiceKey()); len(s.Instances) == 0 && fleeting(k.Service) {
		c.m.reap(k.Namespace, k.Service)
	}
}

// A proxy is a client that behaves as Envoy does: it accepts everything, asks for
// the endpoints of its clusters, and takes up where it was on a new stream.
type proxy struct {
	m     *member
	delta bool
	node  *corev3.Node
	stop  context.CancelFunc
	ended chan struct{}

	routes atomic.Int64 // route tables received

	mu       sync.Mutex // guards what follows
	have     have
	versions [typeCount]map[string]string // by name; of state of the world, under ""
}

func (p *proxy) connect() {
	ctx, cancel := context.WithCancel(context.Background())
	p.stop, p.ended = cancel, make(chan struct{})
	p.m.tb.Cleanup(cancel)
	if p.versions[0] == nil {
		for t := range typeCount {
			p.have[t], p.versions[t] = make(map[string]string), make(map[string]string)
		}
	}
	if p.delta {
		go p.followDelta(ctx)
	} else {
		go p.followWhole(ctx)
	}
}

func (p *proxy) reconnect() {
	p.stop()
	<-p.ended
	p.connect()
}

func (p *proxy) has(want have) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range typeCount {
		if !maps.Equal(p.have[t], want[t]) {
			return false
		}
	}
	return true
}

func (p *proxy) differences(want have) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := ""
	for t := range typeCount {
		for name, content := range want[t] {
			if got, ok := p.have[t][name]; !ok {
				out += fmt.Sprintf("%s %s is missing\n", t, name)
			} else if got != content {
				out += fmt.Sprintf("%s %s is old\n", t, name)
			}
		}
		for name := range p.have[t] {
			if _, ok := want[t][name]; !ok {
				out += fmt.Sprintf("%s %s should be gone\n", t, name)
			}
		}
	}
	return out
}

// followDelta ends with its stream.
func (p *proxy) followDelta(ctx context.Context) {
	defer close(p.ended)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.m.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return
	}
	node := proto.CloneOf(p.node)
	for t, names := range [typeCount][]string{typeListener: nil, typeRoutes: {egressName}, typeEndpoints: slices.Collect(maps.Keys(p.have[typeCluster]))} {
		if stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURLs[t], ResourceNamesSubscribe: names, InitialResourceVersions: p.versions[t]}) != nil {
			return
		}
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		subscribe, unsubscribe := p.takeDelta(r)
		if len(subscribe)+len(unsubscribe) > 0 {
			q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[typeEndpoints], ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe}
			if stream.Send(q) != nil {
				return
			}
		}
		if stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}) != nil {
			return
		}
	}
}

func (p *proxy) takeDelta(r *discoveryv3.DeltaDiscoveryResponse) (subscribe, unsubscribe []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, _ := typeOf(r.TypeUrl)
	if t == typeRoutes && len(r.Resources) > 0 {
		p.checkRoutes(r.Resources[0].Resource)
	}
	for _, res := range r.Resources {
		if _, known := p.have[t][res.Name]; t == typeCluster && !known {
			subscribe = append(subscribe, res.Name)
		}
		if _, wanted := p.have[typeCluster][res.Name]; t == typeEndpoints && !wanted {
			continue // it has unsubscribed, and the server does not know yet
		}
		p.have[t][res.Name] = string(res.Resource.Value)
		p.versions[t][res.Name] = res.Version
	}
	for _, name := range r.RemovedResources {
		if _, known := p.have[t][name]; t == typeCluster && known {
			unsubscribe = append(unsubscribe, name)
			delete(p.have[typeEndpoints], name)
			delete(p.versions[typeEndpoints], name)
		}
		delete(p.have[t], name)
		delete(p.versions[t], name)
	}
	return subscribe, unsubscribe
}

// followWhole ends with its stream.
func (p *proxy) followWhole(ctx context.Context) {
	defer close(p.ended)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.m.conn).StreamAggregatedResources(ctx)
	if err != nil {
		return
	}
	nonces := [typeCount]string{}
	ask := func(t resourceType, names []string) error {
		return stream.Send(&discoveryv3.DiscoveryRequest{Node: p.node, TypeUrl: typeURLs[t], ResourceNames: names, VersionInfo: p.versions[t][""], ResponseNonce: nonces[t]})
	}
	p.forgetEndpoints()
	if ask(typeCluster, nil) != nil || ask(typeListener, nil) != nil || ask(typeRoutes, []string{egressName}) != nil || ask(typeEndpoints, p.clusters()) != nil {
		return
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		t, _ := typeOf(r.TypeUrl)
		p.takeWhole(t, r)
		nonces[t] = r.Nonce
		names := [typeCount][]string{typeEndpoints: p.clusters(), typeRoutes: {egressName}}
		if ask(t, names[t]) != nil || t == typeCluster && ask(typeEndpoints, p.clusters()) != nil {
			return
		}
	}
}

// forgetEndpoints is what Envoy may do when it loses its stream.
func (p *proxy) forgetEndpoints() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.have[typeEndpoints])
}

func (p *proxy) clusters() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.have[typeCluster]))
}

func (p *proxy) takeWhole(t resourceType, r *discoveryv3.DiscoveryResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.whole() {
		clear(p.have[t])
	}
	for _, packed := range r.Resources {
		if t == typeRoutes {
			p.checkRoutes(packed)
		}
		p.have[t][nameOf(p.m.tb, packed)] = string(packed.Value)
	}
	p.versions[t][""] = r.VersionInfo
	for name := range p.have[typeEndpoints] {
		if _, ok := p.have[typeCluster][name]; !ok {
			delete(p.have[typeEndpoints], name)
		}
	}
}

// fleeting services are taken away with their last instance.
func fleeting(name string) bool {
	return slices.ContainsFunc([]string{"basket", "mail", "cache"}, func(s string) bool { return strings.Contains(name, s) })
}

// checkRoutes says that no route leads to a cluster that the client lacks. A
// service that has just been taken away may have lost its cluster a moment
// before the follower takes its route away; that is a 503 in place of a 404.
func (p *proxy) checkRoutes(packed *anypb.Any) {
	m := new(routev3.RouteConfiguration)
	if err := packed.UnmarshalTo(m); err != nil {
		p.m.tb.Error(err)
	}
	for _, host := range m.VirtualHosts {
		for _, cluster := range clustersOf(host) {
			if _, ok := p.have[typeCluster][cluster]; !ok && !fleeting(cluster) {
				p.m.tb.Errorf("a route leads to cluster %s, which the client lacks (delta: %t)", cluster, p.delta)
			}
		}
	}
	p.routes.Add(1)
}

// clustersOf are those that the routes of a host name, by weight and for copies as well.
func clustersOf(host *routev3.VirtualHost) []string {
	var out []string
	for _, route := range host.Routes {
		action := route.GetRoute()
		if name := action.GetCluster(); name != "" {
			out = append(out, name)
		}
		for _, share := range action.GetWeightedClusters().GetClusters() {
			out = append(out, share.Name)
		}
		for _, mirror := range action.GetRequestMirrorPolicies() {
			out = append(out, mirror.Cluster)
		}
	}
	return out
}
