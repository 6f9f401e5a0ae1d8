package xds

import (
	"cmp"
	"slices"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// ProxyStatus is what is known of one stream and its client.
type ProxyStatus struct {
	Node      string
	Number    uint64 // of the stream on this member, from 1 on
	Cluster   string
	Service   string // what the client says it is a part of
	Namespace string
	Region    string
	Zone      string
	Kind      string // "envoy", "gateway" or "grpc"
	Protocol  string // "delta" or "sotw"
	Peer      string // its address
	Connected time.Time
	Types     []TypeStatus // in the order CDS, EDS, LDS, RDS; those subscribed to

	UpstreamCount    int
	Upstreams        []string // the first of them
	UpstreamsFrom    string   // one of the words below
	UpstreamsVersion uint64   // of the document of the proxy's service, which bounds them; 0 = there is none
	UpstreamsFound   []string // of all of them, those that a DetailQuery asks after
	Denied           string   // why its client may not be told of the service that a DetailQuery asks after; empty = it may
}

// What the upstreams of a proxy are from.
const (
	UpstreamsByDefault  = "default"  // all of its namespace
	UpstreamsByNode     = "node"     // its metadata
	UpstreamsByDocument = "document" // what is written down that its service wants
)

// What is told of a proxy's lists; the rest is counted.
const (
	upstreamsShown = 20
	rejectedShown  = 5 // of one type
)

// TypeStatus is what a client has of one type.
type TypeStatus struct {
	Type       string            // cds, eds, lds or rds
	Wildcard   bool              // it asked for all
	Subscribed int               // names asked for
	Resources  int               // names that it has been sent
	Sent       registry.Revision // of the last response
	Acked      registry.Revision // of the last one it accepted
	AckedAt    time.Time         // when it did; zero = never
	InSync     bool              // it has accepted all there is to send
	Silent     bool              // it has not answered the last response in time
	Since      time.Time         // when its State began

	RejectedCount int         // of resources that it has refused and is not sent again
	Rejected      []Rejection // the first of them
}

// Rejection is one content that a client has refused.
type Rejection struct {
	Resource, Reason string
	Since            time.Time
}

// The words for where a proxy is with all that it asks for.
const (
	ProxySynced   = "synced"   // it has accepted all there is to send
	ProxyPending  = "pending"  // something is to be sent, or was sent and is not answered yet
	ProxySilent   = "silent"   // something was not answered in time
	ProxyRejected = "rejected" // it has refused something
)

// ProxyStates are all of them.
var ProxyStates = []string{ProxySynced, ProxyPending, ProxySilent, ProxyRejected}

// State is where the proxy is; the worst of its types counts.
func (p *ProxyStatus) State() string {
	worst := 0
	for i := range p.Types {
		worst = max(worst, slices.Index(ProxyStates, p.Types[i].State()))
	}
	return ProxyStates[worst]
}

// State is where the proxy is with the type.
func (t *TypeStatus) State() string {
	switch {
	case t.RejectedCount > 0:
		return ProxyRejected
	case t.Silent:
		return ProxySilent
	case !t.InSync:
		return ProxyPending
	}
	return ProxySynced
}

// A ProxyQuery says which proxies are listed. Of what is empty, any will do.
type ProxyQuery struct {
	Nodes, Regions, Zones, Kinds, States []string

	AfterNode   string // with AfterNumber, of a ProxyStatus: the list goes on behind it
	AfterNumber uint64 // 0 = from the beginning
	Limit       int
}

func (q *ProxyQuery) matches(p *ProxyStatus) bool {
	for _, one := range []struct {
		wanted []string
		has    string
	}{{q.Nodes, p.Node}, {q.Regions, p.Region}, {q.Zones, p.Zone}, {q.Kinds, p.Kind}} {
		if len(one.wanted) > 0 && !slices.Contains(one.wanted, one.has) {
			return false
		}
	}
	return len(q.States) == 0 || slices.Contains(q.States, p.State())
}

// A ProxyPage is a part of a list. The list is not kept: who comes or goes
// between two pages may be missing.
type ProxyPage struct {
	Proxies []ProxyStatus
	Count   int  // of those that match, on all pages
	More    bool // there are others behind the last
}

// List is a page of the open streams, by node and time of connecting.
func (s *Server) List(q ProxyQuery) ProxyPage {
	all := slices.DeleteFunc(s.Proxies(), func(p ProxyStatus) bool { return !q.matches(&p) })
	rest := all
	if q.AfterNumber > 0 {
		after := &ProxyStatus{Node: q.AfterNode, Number: q.AfterNumber}
		rest = slices.DeleteFunc(slices.Clone(all), func(p ProxyStatus) bool { return compareProxies(&p, after) <= 0 })
	}
	n := min(len(rest), q.Limit)
	return ProxyPage{Proxies: rest[:n], Count: len(all), More: n < len(rest)}
}

func compareProxies(a, b *ProxyStatus) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Number, b.Number))
}

// Proxies are the open streams, by node and time of connecting.
func (s *Server) Proxies() []ProxyStatus {
	s.mu.Lock()
	out := make([]ProxyStatus, 0, len(s.streams))
	for str := range s.streams {
		if p := str.status.Load(); p != nil {
			out = append(out, *p)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b ProxyStatus) int { return compareProxies(&a, &b) })
	return out
}

// rejectedNow is how many resources of a type clients refuse at present; it is counted
// when it is asked for, since each stream knows its own.
func (s *Server) rejectedNow(t resourceType) int {
	n := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for str := range s.streams {
		p := str.status.Load()
		if p == nil {
			continue
		}
		for i := range p.Types {
			if p.Types[i].Type == t.String() {
				n += p.Types[i].RejectedCount
			}
		}
	}
	return n
}

// report publishes the stream's present status.
func (s *stream) report() {
	n := s.node
	p := &ProxyStatus{
		Node: n.id, Number: s.number, Cluster: n.cluster, Service: n.service, Namespace: n.namespace, Region: n.region, Zone: n.zone,
		Kind: n.kind.String(), Protocol: "sotw", Peer: s.peer, Connected: s.connected,
		UpstreamCount: len(s.scope.patterns), Upstreams: s.scope.patterns[:min(len(s.scope.patterns), upstreamsShown)],
		UpstreamsFrom: s.upstreamsFrom(), UpstreamsVersion: s.upstreamsVersion,
	}
	if s.delta {
		p.Protocol = "delta"
	}
	for _, b := range s.subs {
		if b != nil {
			p.Types = append(p.Types, b.report())
		}
	}
	s.status.Store(p)
}

func (b *subscription) report() TypeStatus {
	t := TypeStatus{
		Type: b.typ.String(), Wildcard: b.wildcard, Subscribed: len(b.names), Resources: len(b.known),
		Sent: b.last, Acked: b.acked, AckedAt: b.ackedAt, InSync: b.pending == nil && len(b.todo) == 0,
	}
	if b.pending != nil {
		t.Silent = b.pending.silent
	}
	for c, r := range b.refusals.of {
		if !r.lifted && b.wanted(c.name).hashOf() == c.hash { // what it refused before has passed
			t.Rejected = append(t.Rejected, Rejection{Resource: c.name, Reason: r.reason, Since: r.at})
		}
	}
	slices.SortFunc(t.Rejected, func(a, b Rejection) int { return cmp.Compare(a.Resource, b.Resource) })
	t.RejectedCount = len(t.Rejected)
	t.Since = b.stateSince(&t)
	t.Rejected = slices.Clip(t.Rejected[:min(len(t.Rejected), rejectedShown)])
	return t
}

// stateSince is when the state of a type, as it is reported, began.
func (b *subscription) stateSince(t *TypeStatus) time.Time {
	since := b.ackedAt
	switch {
	case len(t.Rejected) > 0:
		since = slices.MinFunc(t.Rejected, func(a, b Rejection) int { return a.Since.Compare(b.Since) }).Since
	case b.pending != nil:
		since = b.pending.sentAt
	case !t.InSync:
		since = b.changed
	}
	if since.IsZero() { // all of it is what the client has asked for
		return b.stream.connected
	}
	return since
}
