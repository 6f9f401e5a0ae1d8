package xds

import (
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// changeWhole takes what a request for the state of the world says of a
// subscription: the list of all names wanted. An empty first list of clusters or
// listeners asks for all; an empty list after names asks for nothing.
func (b *subscription) changeWhole(r *request, first bool) {
	all := slices.Contains(r.names, wildcardName) || len(r.names) == 0 && (first || b.wildcard)
	names := make(map[string]struct{}, len(r.names))
	for _, name := range r.names {
		if name != wildcardName {
			names[name] = struct{}{}
		}
	}
	for name := range b.names {
		if !has(names, name) {
			b.leave(name)
			b.forget(name)
		}
	}
	for name := range names {
		if b.ask(name) {
			b.want(name, true)
		}
	}
	b.changeAll(all && b.typ.whole())
	if first {
		b.answer = !b.unchanged(r.version)
		b.unheard = b.answer && b.typ.whole() && r.version != ""
	}
}

func (b *subscription) changeAll(all bool) {
	if all {
		b.askAll()
		return
	}
	if !b.wildcard {
		return
	}
	b.leaveAll()
	for name := range b.known {
		if b.names[name] == nil {
			b.forget(name)
		}
	}
}

// unchanged says that the client has all that it asks for from an earlier
// stream, and notes it. Endpoints are always sent: Envoy may have forgotten them.
func (b *subscription) unchanged(text string) bool {
	v, ok := parseWholeVersion(text)
	if !ok || b.typ == typeEndpoints || v.incarnation != b.stream.server.cache.incarnation() {
		return false
	}
	var entries []*entry
	for _, name := range b.all() {
		if e := b.wanted(name); !e.absent() {
			entries = append(entries, e)
		}
	}
	if setHash(entries) != v.hash {
		return false
	}
	for _, e := range entries {
		b.known[e.name] = &known{sent: e, good: e}
		b.settled(e.name)
	}
	return true
}

// wholeWire speaks the state of the world.
type wholeWire struct{ stream streamv3.Stream }

func (w wholeWire) receive() (*request, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	return &request{
		typeURL: m.GetTypeUrl(), node: m.GetNode(), nonce: m.GetResponseNonce(),
		failed: m.GetErrorDetail() != nil, reason: m.GetErrorDetail().GetMessage(),
		names: m.GetResourceNames(), version: m.GetVersionInfo(),
	}, nil
}

func (w wholeWire) send(r *response) error {
	m := &discoveryv3.DiscoveryResponse{
		TypeUrl: typeURLs[r.typ], Nonce: r.nonce, VersionInfo: r.version,
		Resources:    make([]*anypb.Any, 0, len(r.entries)),
		ControlPlane: identify(r), ResourceErrors: r.resourceErrors(),
	}
	for _, e := range r.entries {
		m.Resources = append(m.Resources, e.resource.GetResource())
	}
	return w.stream.Send(m)
}
