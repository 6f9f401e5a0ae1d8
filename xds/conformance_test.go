package xds

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"

	"github.com/stellmap/stellmap/registry"
)

// TestConformance plays the cases of docs/xds-conformance.md: what a raw client
// sends and what it is answered, frame by frame, over the protocol that the
// folder is named after. Time is the bubble's, so that the product's own bounds
// hold and nothing is waited for.
func TestConformance(t *testing.T) {
	for _, c := range conformanceCases(t) {
		t.Run(c.id, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &play{t: t, delta: strings.HasPrefix(c.id, "delta-"), contents: make(map[string][]uint64), versions: make(map[string]string)}
				datadriven.RunTest(t, c.path, func(t *testing.T, d *datadriven.TestData) string {
					p.d = d
					return p.command()
				})
			})
		})
	}
}

// A play is one case: a member, and the clients that talk to it.
type play struct {
	t       *testing.T
	d       *datadriven.TestData
	delta   bool
	member  *member
	clients []*talker

	contents map[string][]uint64 // that were seen of a resource: #1 is the first
	versions map[string]string   // that were last seen of a resource, or of a type as state of the world
}

func (p *play) command() string {
	commands := map[string]func(){
		"member": p.start, "add": p.add, "drop": p.drop, "remove": p.remove, "wait": p.wait, "call": p.call, "listen": p.listen, "tell": p.tell, "policy": p.policy, "grant": p.grant,
		"open": p.open, "close": p.close, "send": p.send, "ack": p.ack, "nack": p.nack,
	}
	if p.member == nil && p.d.Cmd != "member" {
		p.member = newMember(p.t, productLimits)
	}
	run, ok := commands[p.d.Cmd]
	if !ok && p.d.Cmd != "status" {
		p.d.Fatalf(p.t, "unknown command %q", p.d.Cmd)
	}
	if ok {
		run()
	}
	synctest.Wait() // until everything has been said
	if p.d.Cmd == "status" {
		return p.status()
	}
	return p.heard()
}

// productLimits are those that the product has.
func productLimits(_ *Config, l *limits) { l.hold, l.catchUp = holdMax, catchUpMax }

// start makes a member with other bounds than the product's.
func (p *play) start() {
	p.member = newMember(p.t, func(c *Config, l *limits) {
		productLimits(c, l)
		if p.d.HasArg("response-bytes") {
			p.d.ScanArgs(p.t, "response-bytes", &l.responseBytes)
		}
		p.d.MaybeScanArgs(p.t, "requests", &c.Requests)
		if p.d.HasArg("streams") {
			p.d.ScanArgs(p.t, "streams", &l.streams)
		}
	})
}

// instances are the arguments without a value: service/number.
func (p *play) instances(f func(service string, n int)) {
	for _, arg := range p.d.CmdArgs {
		service, number, ok := strings.Cut(arg.Key, "/")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			p.d.Fatalf(p.t, "%s: %v", arg.Key, err)
		}
		f(service, n)
		synctest.Wait() // each is told by itself
	}
}

// add registers instances; with check, with a path for active checks, which is part of the cluster;
// with host, at a host of that name; with protocol, as what speaks that.
func (p *play) add() {
	p.instances(func(service string, n int) {
		if p.d.HasArg("check") {
			p.member.register(checked(service, n))
			return
		}
		one := registry.Endpoint{Protocol: "http", Host: addressOf(n), Port: 80}
		if p.d.HasArg("host") {
			p.d.ScanArgs(p.t, "host", &one.Host)
		}
		p.d.MaybeScanArgs(p.t, "protocol", &one.Protocol)
		zone := ""
		p.d.MaybeScanArgs(p.t, "zone", &zone)
		p.member.register(registry.Registration{Namespace: "prod", Service: service, ID: strconv.Itoa(n), Zone: zone, Endpoints: []registry.Endpoint{one}})
	})
}

func (p *play) drop() { p.instances(p.member.drop) }

// remove takes services away with their last instances; that these are gone is told first.
func (p *play) remove() {
	p.instances(func(service string, n int) {
		p.member.drop(service, n)
		synctest.Wait()
		p.member.reap("prod", service)
	})
}

// call writes down what shop wants to call and may; a list that is not given says nothing.
func (p *play) call() {
	var u registry.Upstreams
	for _, arg := range p.d.CmdArgs {
		switch arg.Key {
		case "wants":
			u.Wants = append([]string{}, arg.Vals...)
		case "may":
			u.May = append([]string{}, arg.Vals...)
		}
	}
	p.member.calls(u)
}

// listen gives services a local port, service/port; 0 takes it back.
func (p *play) listen() {
	p.instances(func(service string, port int) { p.member.localPort(p.t, service, port) })
}

func (p *play) wait() {
	d, err := time.ParseDuration(p.d.CmdArgs[0].Key)
	if err != nil {
		p.d.Fatalf(p.t, "%v", err)
	}
	<-time.After(d) // in the time of the bubble
}

// A talker is one client: it says what the case says, and forgets nothing that it hears.
type talker struct {
	name  string
	node  *corev3.Node
	delta *deltaClient
	whole *wholeClient
	only  string              // the type of a stream that is not aggregated
	last  map[string]string   // nonces, by type
	names map[string][]string // that were last asked for as state of the world
	done  bool
}

// open makes a client; without it there is one called web-1.
func (p *play) open() {
	name := "web-1"
	var metadata []any
	region, zone, agent, only, as := "", "", "envoy", "", ""
	for _, arg := range p.d.CmdArgs {
		switch arg.Key {
		case "upstreams":
			metadata = append(metadata, metadataUpstreams, strings.Join(arg.Vals, ","))
		case "service":
			metadata = append(metadata, metadataService, arg.Vals[0])
		case "role":
			metadata = append(metadata, metadataRole, arg.Vals[0])
		case "region":
			region = arg.Vals[0]
		case "zone":
			zone = arg.Vals[0]
		case "agent":
			agent = arg.Vals[0]
		case "only":
			only = arg.Vals[0]
		case "anonymous":
			agent = ""
		case "as":
			as = arg.Vals[0]
		default:
			name = arg.Key
		}
	}
	node := nodeOf(p.t, metadata...)
	node.Id, node.UserAgentName, node.Locality = name, agent, &corev3.Locality{Region: region, Zone: zone}
	if agent == "" {
		node = nil
	}
	p.member.as(as)
	p.dial(name, node, only)
	p.member.as("")
}

// grant says what somebody may: grant ann may=(orders.prod,*.test); of nothing he is nobody any more.
func (p *play) grant() {
	p.member.grant(p.d.CmdArgs[0].Key, p.list("may")...)
}

func (p *play) dial(name string, node *corev3.Node, only string) *talker {
	c := &talker{name: name, node: node, only: only, last: make(map[string]string), names: make(map[string][]string)}
	if p.delta {
		c.delta = p.member.delta(node)
		if only != "" {
			c.delta = p.member.deltaOf(node, only)
		}
	} else {
		c.whole = p.member.whole(node)
		if only != "" {
			c.whole = p.member.wholeOf(node, only)
		}
	}
	p.clients = slices.DeleteFunc(p.clients, func(o *talker) bool { return o.name == name })
	p.clients = append(p.clients, c)
	return c
}

// deltaOf is a client on the stream of one type.
func (m *member) deltaOf(node *corev3.Node, of string) *deltaClient {
	ctx := m.outgoing()
	c := &deltaClient{tb: m.tb, node: node}
	var err error
	switch of {
	case "cds":
		c.stream, err = clusterservice.NewClusterDiscoveryServiceClient(m.conn).DeltaClusters(ctx)
	case "eds":
		c.stream, err = endpointservice.NewEndpointDiscoveryServiceClient(m.conn).DeltaEndpoints(ctx)
	case "lds":
		c.stream, err = listenerservice.NewListenerDiscoveryServiceClient(m.conn).DeltaListeners(ctx)
	case "rds":
		c.stream, err = routeservice.NewRouteDiscoveryServiceClient(m.conn).DeltaRoutes(ctx)
	}
	if err != nil {
		m.tb.Fatal(err)
	}
	c.received = receive(c.stream.Recv)
	return c
}

// wholeOf is a client on the stream of one type.
func (m *member) wholeOf(node *corev3.Node, of string) *wholeClient {
	ctx := m.outgoing()
	c := &wholeClient{member: m, node: node}
	var err error
	switch of {
	case "cds":
		c.stream, err = clusterservice.NewClusterDiscoveryServiceClient(m.conn).StreamClusters(ctx)
	case "eds":
		c.stream, err = endpointservice.NewEndpointDiscoveryServiceClient(m.conn).StreamEndpoints(ctx)
	case "lds":
		c.stream, err = listenerservice.NewListenerDiscoveryServiceClient(m.conn).StreamListeners(ctx)
	case "rds":
		c.stream, err = routeservice.NewRouteDiscoveryServiceClient(m.conn).StreamRoutes(ctx)
	}
	if err != nil {
		m.tb.Fatal(err)
	}
	c.received = receive(c.stream.Recv)
	return c
}

// client is who the command is about: by=NAME, or the only one.
func (p *play) client() *talker {
	name := "web-1"
	if p.d.HasArg("by") {
		p.d.ScanArgs(p.t, "by", &name)
	}
	for _, c := range p.clients {
		if c.name == name || !p.d.HasArg("by") && len(p.clients) == 1 {
			return c
		}
	}
	node := nodeOf(p.t)
	node.Id = name
	return p.dial(name, node, "")
}

func (p *play) close() {
	c := p.client()
	c.done = true
	var err error
	if p.delta {
		err = c.delta.stream.CloseSend()
	} else {
		err = c.whole.stream.CloseSend()
	}
	if err != nil {
		p.t.Error(err)
	}
}

// list is an argument with several values.
func (p *play) list(key string) []string {
	for _, arg := range p.d.CmdArgs {
		if arg.Key == key {
			return slices.DeleteFunc(arg.Vals, func(v string) bool { return v == "" })
		}
	}
	return nil
}

// typ is the first argument, as short name and URL. What is none of the four is a URL.
func (p *play) typ() (short, url string) {
	short = p.d.CmdArgs[0].Key
	if n := slices.Index(typeNames[:], short); n >= 0 {
		return short, typeURLs[n]
	}
	return short, strings.TrimPrefix(short, "none")
}

// send says what the case says, and nothing by itself but a nonce as state of the
// world, which every client repeats; nonce=none leaves it out.
func (p *play) send() {
	c := p.client()
	if p.d.HasArg("node") {
		c.delta.node = nodeOf(p.t)
	}
	short, url := p.typ()
	nonce := ""
	if !p.delta {
		nonce = c.last[short]
	}
	if p.d.HasArg("nonce") {
		p.d.ScanArgs(p.t, "nonce", &nonce)
		nonce = strings.TrimPrefix(nonce, "none")
	}
	if p.delta {
		c.delta.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: nonce,
			ResourceNamesSubscribe: p.list("subscribe"), ResourceNamesUnsubscribe: p.list("unsubscribe"), InitialResourceVersions: p.initial(short)})
		return
	}
	if p.d.HasArg("names") {
		c.names[short] = p.list("names")
	}
	c.whole.send(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResponseNonce: nonce, VersionInfo: p.version(short), ResourceNames: c.names[short]})
}

// version is what version= says: "last" is that of the last response to anybody.
func (p *play) version(short string) string {
	version := strings.Join(p.list("version"), "")
	if version == "last" {
		return p.versions[short]
	}
	return version
}

// initial are versions that the client has: those last seen, or name@version.
func (p *play) initial(short string) map[string]string {
	versions := make(map[string]string)
	for _, one := range p.list("initial") {
		name, version, ok := strings.Cut(one, "@")
		if !ok {
			version = p.versions[short+" "+name]
		}
		versions[name] = version
	}
	return versions
}

func (p *play) ack() { p.answer(false) }

func (p *play) nack() { p.answer(true) }

// answer is the client's word on the last response of a type, or on that with
// nonce=N; an ACK may change the names as it goes.
func (p *play) answer(no bool) {
	c := p.client()
	short, url := p.typ()
	nonce := c.last[short]
	if p.d.HasArg("nonce") {
		p.d.ScanArgs(p.t, "nonce", &nonce)
	}
	if p.delta {
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: nonce,
			ResourceNamesSubscribe: p.list("subscribe"), ResourceNamesUnsubscribe: p.list("unsubscribe")}
		if no {
			r.ErrorDetail = statusOf("no")
		}
		c.delta.send(r)
		return
	}
	if p.d.HasArg("names") {
		c.names[short] = p.list("names")
	}
	r := &discoveryv3.DiscoveryRequest{TypeUrl: url, ResponseNonce: nonce, ResourceNames: c.names[short]}
	if no {
		r.ErrorDetail = statusOf("no")
		r.VersionInfo = p.version(short)
	} else {
		r.VersionInfo = p.versions[short]
	}
	c.whole.send(r)
}

// A conformanceCase is a file of testdata/conformance: its name is the case's id,
// its first paragraph the rule, and the line behind "From:" where the rule is from.
type conformanceCase struct{ id, path, rule, source string }

func conformanceCases(t *testing.T) (cases []conformanceCase) {
	t.Helper()
	paths, err := filepath.Glob("testdata/conformance/*/*.story")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		protocol, name := filepath.Base(filepath.Dir(path)), strings.TrimSuffix(filepath.Base(path), ".story")
		cases = append(cases, readCase(t, protocol+"-"+name, path))
	}
	return cases
}
