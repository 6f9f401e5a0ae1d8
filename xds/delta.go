package xds

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
)

// wildcardName asks for all.
const wildcardName = "*"

// changeDelta takes what a delta request says of a subscription. Every name that
// is subscribed to is answered, even if the client is believed to have it; only
// what it says itself to have, on a stream's first request, is not sent again.
// What it has and should not have any more is listed as removed.
func (b *subscription) changeDelta(r *request, first bool) {
	if first {
		b.recall(r.initial)
		if len(r.subscribe) == 0 && b.typ.whole() {
			b.askAll()
			b.answer = len(r.initial) == 0
		}
	}
	for _, name := range r.subscribe {
		if name == wildcardName {
			b.subscribeAll(first, r)
			continue
		}
		if b.forgoes(name) {
			b.want(name, true)
			continue
		}
		b.ask(name)
		_, has := r.initial[name]
		b.want(name, !first || !has || b.stream.renewed(b.typ, name))
	}
	for _, name := range r.unsubscribe {
		b.unsubscribe(name)
	}
}

// renewed says that this stream has sent the cluster of these endpoints, which
// Envoy then waits for, though it says that it has them.
func (s *stream) renewed(t resourceType, name string) bool {
	clusters := s.subs[typeCluster]
	if t != typeEndpoints || clusters == nil {
		return false
	}
	k := clusters.known[name]
	return k != nil && k.sent != nil && k.sent.resource != nil // else it is the client's word
}

func (b *subscription) subscribeAll(first bool, r *request) {
	if !b.typ.whole() {
		return // there is no "all" of endpoints and routes
	}
	b.askAll()
	b.answer = b.answer || !first || len(r.initial) == 0
	if !first {
		for _, name := range b.all() {
			b.want(name, true)
		}
	}
}

// recall notes what the client has from an earlier stream.
func (b *subscription) recall(initial map[string]string) {
	incarnation := b.stream.server.cache.incarnation()
	for name, text := range initial {
		e := &entry{name: name, hash: ^uint64(0)}
		if v, ok := parseDeltaVersion(text); ok && v.incarnation == incarnation {
			e.hash, e.revision = v.hash, v.revision
		}
		b.known[name] = &known{sent: e, good: e}
		b.want(name, false)
	}
}

func (b *subscription) unsubscribe(name string) {
	if name == wildcardName {
		b.leaveAll()
		for name := range b.known {
			if b.names[name] == nil {
				b.forget(name)
			}
		}
		return
	}
	b.leave(name)
	if b.wildcard {
		b.want(name, true) // the client drops it and needs to be told whether it is part of "all"
		return
	}
	b.forget(name)
}

// forget drops what is remembered of a name that the client does not want, but
// not what it has refused.
func (b *subscription) forget(name string) {
	delete(b.known, name)
	b.settled(name)
}

// deltaWire speaks deltas.
type deltaWire struct{ stream streamv3.DeltaStream }

func (w deltaWire) receive() (*request, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	return &request{
		typeURL: m.GetTypeUrl(), node: m.GetNode(), nonce: m.GetResponseNonce(),
		failed: m.GetErrorDetail() != nil, reason: m.GetErrorDetail().GetMessage(),
		subscribe: m.GetResourceNamesSubscribe(), unsubscribe: m.GetResourceNamesUnsubscribe(),
		initial: m.GetInitialResourceVersions(),
	}, nil
}

func (w deltaWire) send(r *response) error {
	m := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: typeURLs[r.typ], Nonce: r.nonce, SystemVersionInfo: formatRevision(r.revision),
		RemovedResources: r.removed, ResourceErrors: r.resourceErrors(),
		Resources:    make([]*discoveryv3.Resource, 0, len(r.entries)),
		ControlPlane: identify(r),
	}
	for _, e := range r.entries {
		m.Resources = append(m.Resources, e.resource)
	}
	return w.stream.Send(m)
}
