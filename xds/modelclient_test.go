package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

// A randomClient is a client of either protocol. A proxy does as Envoy does:
// asks for all clusters and listeners, for the endpoints of its clusters, and for
// its routes. Others ask for whatever comes to their mind.
type randomClient struct {
	r       *randomRun
	name    string
	node    *corev3.Node
	delta   bool
	proxy   bool
	lenient bool // takes what it can of a response that it refuses

	have [typeCount]map[string]modelContent
	wish [typeCount]wish

	// of the present stream
	d         *deltaClient
	w         *wholeClient
	inbox     []frame
	nonce     [typeCount]string
	version   [typeCount]string // as state of the world: accepted last
	nonces    map[string]bool
	refused   map[string]int  // contents of responses that were refused: how often they were sent after that
	blamed    map[string]bool // contents refused alone
	delivered map[string]bool // clusters
	busy      [typeCount]time.Time
	late      time.Time                  // when it answered something after that time
	doubted   map[string]bool            // clusters of responses that it has refused
	routed    [typeCount]map[string]bool // clusters of the last routes, and of a gateway's last listener
}

type wish struct {
	asked bool
	all   bool
	names map[string]bool
}

func (w *wish) list() []string { return slices.Sorted(maps.Keys(w.names)) }

type modelContent struct {
	hash    uint64
	version string
	bad     bool
	routes  []string
}

// A frame is a response of either protocol.
type frame struct {
	typ       resourceType
	nonce     string
	version   string
	revision  registry.Revision
	resources map[string]modelContent
	removed   []string
	at        time.Time
}

func (c *randomClient) fail(format string, args ...any) {
	c.r.t.Errorf("%s (delta %t, proxy %t, lenient %t): %s", c.name, c.delta, c.proxy, c.lenient, fmt.Sprintf(format, args...))
}

func (c *randomClient) entrance() string {
	if c.node.GetMetadata().GetFields()[metadataRole] != nil {
		return gatewayName
	}
	return egressName
}

func (c *randomClient) connect() {
	c.r.note("%s connects (delta %t, proxy %t, lenient %t)", c.name, c.delta, c.proxy, c.lenient)
	c.busy, c.late = [typeCount]time.Time{}, time.Time{}
	c.inbox, c.nonce = nil, [typeCount]string{}
	c.refused = make(map[string]int)
	c.nonces, c.blamed, c.delivered, c.doubted = make(map[string]bool), make(map[string]bool), make(map[string]bool), make(map[string]bool)
	c.routed = [typeCount]map[string]bool{}
	node := proto.CloneOf(c.node)
	if c.delta {
		c.d = c.r.member.delta(node)
	} else {
		c.w = c.r.member.whole(node)
	}
	for t := range typeCount {
		if c.have[t] == nil {
			c.have[t] = make(map[string]modelContent)
			c.wish[t].names = make(map[string]bool)
		}
		c.wish[t].asked = false
	}
	for name := range c.have[typeCluster] {
		c.delivered[name] = true
	}
	if c.proxy {
		c.wish[typeCluster].all, c.wish[typeListener].all = true, true
		c.wish[typeRoutes].names[c.entrance()] = true
		for _, t := range []resourceType{typeCluster, typeEndpoints, typeListener, typeRoutes} {
			c.request(t, c.wish[t].list(), nil)
		}
	} else {
		for t := range typeCount {
			if c.wish[t].all || len(c.wish[t].names) > 0 {
				c.request(t, c.wish[t].list(), nil)
			}
		}
	}
}

func (c *randomClient) reconnect() {
	var err error
	if c.delta {
		err = c.d.stream.CloseSend()
	} else {
		err = c.w.stream.CloseSend()
	}
	if err != nil {
		c.fail("close: %v", err)
	}
	for range c.r.random.IntN(4) { // while it is away
		c.r.change()
	}
	if !c.delta { // what Envoy may do when it loses its stream
		clear(c.have[typeEndpoints])
		for t := range typeCount {
			if c.version[t] == "" { // it cannot say what it has, and begins anew
				clear(c.have[t])
			}
		}
	}
	c.connect()
}

// request says what is wanted: as a delta what is new, as state of the world all of it.
func (c *randomClient) request(t resourceType, subscribe, unsubscribe []string) {
	first := !c.wish[t].asked
	c.wish[t].asked = true
	if !c.delta {
		names := c.wish[t].list()
		if c.wish[t].all && (len(names) > 0 || !first) {
			names = append(names, wildcardName)
		}
		c.w.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[t], ResourceNames: names, ResponseNonce: c.nonce[t], VersionInfo: c.version[t]})
		return
	}
	q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[t], ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe}
	if first {
		q.InitialResourceVersions = make(map[string]string)
		for name, have := range c.have[t] {
			q.InitialResourceVersions[name] = have.version
		}
		if c.wish[t].all && len(subscribe) > 0 {
			q.ResourceNamesSubscribe = append(q.ResourceNamesSubscribe, wildcardName)
		}
	}
	c.d.send(q)
}

// subscribeAnew changes the wishes of a client that is no proxy.
func (c *randomClient) subscribeAnew() {
	if c.proxy {
		return
	}
	t := pick(c.r, []resourceType{typeCluster, typeEndpoints, typeEndpoints})
	w := &c.wish[t]
	if c.wouldBeStale(t) {
		return
	}
	if t == typeCluster && !w.all && c.r.chance(20) && (!c.delta || !w.asked) {
		w.all = true
		c.r.note("%s asks for all clusters", c.name)
		c.request(t, w.list(), nil)
		return
	}
	name := pick(c.r, []string{"", "", "canary~~", "stable~~"}) + pick(c.r, modelServices) + ".prod"
	if w.names[name] && c.r.chance(60) {
		delete(w.names, name)
		c.r.note("%s unsubscribes from %s %s", c.name, t, name)
		if !w.all || !c.delta {
			delete(c.have[t], name) // as state of the world it is listed again, where it is part of all
		}
		c.request(t, nil, []string{name})
		return
	}
	w.names[name] = true
	c.r.note("%s subscribes to %s %s", c.name, t, name)
	c.request(t, []string{name}, nil)
}

// hear takes what has come and checks it as it comes.
func (c *randomClient) hear() {
	if c.delta {
		for _, m := range drain(c.d.received) {
			c.arrive(c.deltaFrame(m))
		}
	} else {
		for _, m := range drain(c.w.received) {
			c.arrive(c.wholeFrame(m))
		}
	}
	for t := range typeCount {
		c.occupied(t)
	}
}

func (c *randomClient) deltaFrame(m *discoveryv3.DeltaDiscoveryResponse) frame {
	t, _ := typeOf(m.TypeUrl)
	f := frame{typ: t, nonce: m.Nonce, resources: make(map[string]modelContent), removed: m.RemovedResources, at: time.Now()}
	if _, err := fmt.Sscan(m.SystemVersionInfo, &f.revision); err != nil {
		c.fail("the version of a response: %v", err)
	}
	for _, res := range m.Resources {
		f.resources[res.Name] = c.content(res.Resource, res.Version)
	}
	return f
}

func (c *randomClient) wholeFrame(m *discoveryv3.DiscoveryResponse) frame {
	t, _ := typeOf(m.TypeUrl)
	v, _ := parseWholeVersion(m.VersionInfo)
	f := frame{typ: t, nonce: m.Nonce, version: m.VersionInfo, revision: v.revision, resources: make(map[string]modelContent), at: time.Now()}
	for _, packed := range m.Resources {
		f.resources[nameOf(c.r.t, packed)] = c.content(packed, "")
	}
	for _, e := range m.ResourceErrors {
		if codes.Code(e.GetErrorDetail().GetCode()) == codes.NotFound {
			f.removed = append(f.removed, e.GetResourceName().GetName())
		}
	}
	return f
}

// content is what is compared of a resource, and whether the client will refuse it.
func (c *randomClient) content(packed *anypb.Any, version string) modelContent {
	out := modelContent{hash: xxhash.Sum64(packed.Value), version: version, bad: strings.Contains(string(packed.Value), badPath)}
	message, err := packed.UnmarshalNew()
	if err != nil {
		c.fail("%v", err)
	}
	switch m := message.(type) {
	case *endpointv3.ClusterLoadAssignment:
		out.bad = strings.Contains(string(packed.Value), badHost)
	case *listenerv3.Listener:
		if m.Name == gatewayName {
			out.routes = strings.Fields(strings.Trim(chainsOf(m), "()"))
		}
	case *routev3.RouteConfiguration:
		for _, host := range m.VirtualHosts {
			out.routes = append(out.routes, clustersOf(host)...)
		}
	}
	return out
}

func (c *randomClient) arrive(f frame) {
	c.r.note("%s hears %s %s: %v -%v", c.name, f.typ, f.nonce, slices.Sorted(maps.Keys(f.resources)), f.removed)
	if c.nonces[f.nonce] {
		c.fail("the nonce %s is used twice", f.nonce)
	}
	c.nonces[f.nonce] = true
	for _, one := range c.inbox {
		if one.typ == f.typ && f.at.Sub(one.at) < holdMax {
			c.fail("%s %s is sent %v after %s, which is unanswered", f.typ, f.nonce, f.at.Sub(one.at), one.nonce)
		}
		if one.revision > f.revision {
			c.fail("%s %s goes back behind %s", f.typ, f.nonce, one.nonce)
		}
	}
	for name, content := range f.resources {
		key := blame(f.typ, name, content)
		if c.blamed[key] {
			c.fail("%s %s has been refused and is sent again", f.typ, name)
		}
		if again, refused := c.refused[key]; refused && content.bad {
			if c.refused[key]++; again == rejectedMax {
				c.fail("%s %s is sent for the %dth time after it was refused", f.typ, name, again+1)
			}
		}
	}
	c.checkOrder(f)
	c.inbox = append(c.inbox, f)
}

func blame(t resourceType, name string, content modelContent) string {
	return fmt.Sprintf("%s %s %x", t, name, content.hash)
}

// checkOrder says that routes lead to clusters that have been sent, and that no
// cluster goes while the routes sent last lead to it, unless a client is silent.
func (c *randomClient) checkOrder(f frame) {
	switch f.typ {
	case typeCluster:
		if !c.delta {
			for name := range c.delivered {
				if _, ok := f.resources[name]; !ok {
					f.removed = append(f.removed, name)
				}
			}
		}
		for name := range f.resources {
			c.delivered[name] = true
		}
		for _, name := range f.removed {
			if (c.routed[typeRoutes][name] || c.routed[typeListener][name]) && c.answersInTime() && !c.doubted[name] && c.proxy {
				c.fail("cluster %s goes while routes, or chains, lead to it", name)
			}
			delete(c.delivered, name)
		}
	case typeRoutes, typeListener:
		for name, content := range f.resources {
			if name != c.entrance() {
				continue
			}
			c.routed[f.typ] = make(map[string]bool)
			for _, cluster := range content.routes {
				c.routed[f.typ][cluster] = true
				if !c.delivered[cluster] && c.answersInTime() && !c.doubted[cluster] && c.proxy {
					c.fail("%s leads to cluster %s, which was not sent", f.typ, cluster)
				}
			}
		}
	}
}

// answersInTime says that nothing has been unanswered for so long that order was
// given up: no response, and no type, by one after the other. What waited for a
// late answer has waited for its time, too.
func (c *randomClient) answersInTime() bool {
	if time.Since(c.late) < holdMax {
		return false
	}
	for t := range typeCount {
		if !c.busy[t].IsZero() && time.Since(c.busy[t]) >= holdMax {
			return false
		}
	}
	return true
}

// occupied keeps since when a type has had something unanswered without a pause.
func (c *randomClient) occupied(t resourceType) {
	waits := slices.ContainsFunc(c.inbox, func(f frame) bool { return f.typ == t })
	switch {
	case waits && c.busy[t].IsZero():
		c.busy[t] = time.Now()
	case !waits:
		if !c.busy[t].IsZero() && time.Since(c.busy[t]) >= holdMax {
			c.late = time.Now()
		}
		c.busy[t] = time.Time{}
	}
}

// answerOne answers the first unanswered response of a type; false: there is none.
func (c *randomClient) answerOne() bool {
	if len(c.inbox) == 0 {
		return false
	}
	t := pick(c.r, c.inbox).typ
	n := slices.IndexFunc(c.inbox, func(f frame) bool { return f.typ == t })
	f := c.inbox[n]
	c.inbox = slices.Delete(c.inbox, n, n+1)
	no := false
	for _, content := range f.resources {
		no = no || content.bad
	}
	c.r.note("%s answers %s %s: refused %t", c.name, t, f.nonce, no)
	if no {
		c.blameFor(f)
	}
	if !no || c.lenient {
		c.take(f)
	}
	c.nonce[t] = f.nonce
	c.say(f, no)
	if c.proxy && !c.wouldBeStale(typeEndpoints) {
		c.followClusters()
	}
	return true
}

// wouldBeStale says that a request for other names would be passed over, as state
// of the world, since it has the nonce of an older response. A client that takes
// a name back and forth meanwhile cannot say so.
func (c *randomClient) wouldBeStale(t resourceType) bool {
	return !c.delta && slices.ContainsFunc(c.inbox, func(f frame) bool { return f.typ == t })
}

// blameFor remembers what was refused: alone, so that it must not come again, or
// in company, so that it may until the culprit has been found.
func (c *randomClient) blameFor(f frame) {
	for name, content := range f.resources {
		if f.typ == typeCluster {
			c.doubted[name] = true
		}
		key := blame(f.typ, name, content)
		if _, known := c.refused[key]; !known {
			c.refused[key] = 0
		}
		c.blamed[key] = c.blamed[key] || len(f.resources) == 1
	}
}

func (c *randomClient) take(f frame) {
	old := c.have[f.typ]
	if !c.delta && f.typ.whole() {
		c.have[f.typ] = make(map[string]modelContent)
	}
	for name, content := range f.resources {
		wanted := f.typ != typeEndpoints || c.wish[f.typ].names[name]
		if f.typ == typeCluster {
			wanted = c.wish[f.typ].all || c.wish[f.typ].names[name]
		}
		had, ok := old[name]
		switch {
		case !wanted: // it has unsubscribed, and the server did not know yet
		case !content.bad:
			c.have[f.typ][name] = content
		case ok:
			c.have[f.typ][name] = had
		}
	}
	for _, name := range f.removed {
		delete(c.have[f.typ], name)
	}
}

func (c *randomClient) say(f frame, no bool) {
	if c.delta {
		q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURLs[f.typ], ResponseNonce: f.nonce}
		if no {
			q.ErrorDetail = statusOf("no")
		}
		c.d.send(q)
		return
	}
	if !no {
		c.version[f.typ] = f.version
	} else if c.lenient {
		c.version[f.typ] = "" // what it has is of no version
	}
	q := &discoveryv3.DiscoveryRequest{TypeUrl: typeURLs[f.typ], ResourceNames: c.wish[f.typ].list(), ResponseNonce: f.nonce, VersionInfo: c.version[f.typ]}
	if c.wish[f.typ].all {
		q.ResourceNames = append(q.ResourceNames, wildcardName)
	}
	if no {
		q.ErrorDetail = statusOf("no")
	}
	c.w.send(q)
}

// followClusters asks for the endpoints of the clusters that the client has.
func (c *randomClient) followClusters() {
	w := &c.wish[typeEndpoints]
	var more, less []string
	for name := range c.have[typeCluster] {
		if !w.names[name] {
			w.names[name] = true
			more = append(more, name)
		}
	}
	for name := range w.names {
		if _, ok := c.have[typeCluster][name]; !ok {
			delete(w.names, name)
			delete(c.have[typeEndpoints], name)
			less = append(less, name)
		}
	}
	if len(more)+len(less) > 0 {
		slices.Sort(more)
		slices.Sort(less)
		c.request(typeEndpoints, more, less)
	}
}

// compare holds what the client has against the registry. Of what it refuses it
// may have anything that it has accepted.
func (c *randomClient) compare(truth *cache) {
	parsed, err := parseNode(c.node, "here")
	if err != nil {
		c.fail("%v", err)
		return
	}
	s := &stream{node: parsed, scope: truth.openScope(parsed.kind, parsed.retries, nil, parsed.upstreams)}
	for t := range typeCount {
		names := c.wish[t].list()
		if c.wish[t].all && t == typeCluster {
			names = append(names, truth.clustersIn(s.scope)...)
		} else if c.wish[t].all && t == typeListener {
			names = append(append(names, c.entrance()), truth.watchLocals(s.scope, newSubscription(s, typeListener))...)
		}
		for name := range c.have[t] {
			if !slices.Contains(names, name) {
				c.fail("it has %s %s, which it should not", t, name)
			}
		}
		for _, name := range names {
			c.compareOne(t, name, truth.build(s.keyOf(t, name)))
		}
	}
}

func (c *randomClient) compareOne(t resourceType, name string, want *entry) {
	have, ok := c.have[t][name]
	switch {
	case want.absent():
		if ok {
			c.fail("it has %s %s, which is gone", t, name)
		}
	case c.content(want.resource.Resource, "").bad:
		if have.bad {
			c.fail("it has %s %s, which it refuses", t, name)
		}
	case !ok:
		c.fail("it lacks %s %s", t, name)
	case have.hash != xxhash.Sum64(want.resource.Resource.Value):
		c.fail("it has an old %s %s", t, name)
	}
}
