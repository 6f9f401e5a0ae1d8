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
	Cluster   string
	Service   string // what the client says it is a part of
	Namespace string
	Region    string
	Zone      string
	Kind      string // "envoy" or "grpc"
	Protocol  string // "delta" or "sotw"
	Peer      string // its address
	Upstreams []string
	Connected time.Time
	Types     []TypeStatus // in the order CDS, EDS, LDS, RDS; those subscribed to
}

// TypeStatus is what a client has of one type.
type TypeStatus struct {
	Type       string            // cds, eds, lds or rds
	Wildcard   bool              // it asked for all
	Subscribed int               // names asked for
	Resources  int               // names that it has been sent
	Sent       registry.Revision // of the last response
	Acked      registry.Revision // of the last one it accepted
	InSync     bool              // it has accepted all there is to send
	Silent     bool              // it has not answered the last response in time
	Rejected   []Rejection       // what it has refused and is not sent again
}

// Rejection is one content that a client has refused.
type Rejection struct{ Resource, Reason string }

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
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Connected.Compare(b.Connected))
	})
	return out
}

// report publishes the stream's present status.
func (s *stream) report() {
	n := s.node
	p := &ProxyStatus{
		Node: n.id, Cluster: n.cluster, Service: n.service, Namespace: n.namespace, Region: n.region, Zone: n.zone,
		Kind: n.kind.String(), Protocol: "sotw", Peer: s.peer, Upstreams: n.upstreams, Connected: s.connected,
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
		Sent: b.last, Acked: b.acked, InSync: b.pending == nil && len(b.todo) == 0,
	}
	if b.pending != nil {
		t.Silent = b.pending.silent
	}
	for name, r := range b.rejected {
		t.Rejected = append(t.Rejected, Rejection{Resource: name, Reason: r.reason})
	}
	slices.SortFunc(t.Rejected, func(a, b Rejection) int { return cmp.Compare(a.Resource, b.Resource) })
	return t
}
