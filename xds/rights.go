package xds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// What a client is told of follows from what it has proved to be, by its certificate or
// its token, and not from what it says of itself. Its scope has the services that it may
// see and no others, and each name that it asks for is asked for: one that it may not see
// looks like one that is not there. What it says of itself has to agree with what it has proved.
//
// All who may the same share their scopes. When somebody's rights change his streams go
// over to another scope, in order, as when an edit changes what a service calls. They end
// when he is nobody any more.

// rightsEvery is how long streams wait for others' edits of access before they follow
// those that there are.
const rightsEvery = time.Second

// An Identity is what a client has proved to be by its certificate.
type Identity struct {
	Name      string // as people say it; empty = it has proved nothing
	Namespace string // of a workload, like the next; empty = it is none
	Account   string
}

// A party is who has opened a stream.
type party struct {
	Identity
	caller registry.Caller
	rights registry.Rights // that the stream goes by
	stamp  string          // of the rights; guarded by stream.mu
}

// partyOf is who has opened a stream; nil where nobody is asked.
func (s *Server) partyOf(ctx context.Context) *party {
	caller := registry.CallerOf(ctx)
	if caller == nil {
		return nil
	}
	return &party{caller: caller, Identity: s.identity(ctx)}
}

// identity is what a client has proved to be.
func (s *Server) identity(ctx context.Context) Identity {
	if s.identify == nil {
		return Identity{}
	}
	return s.identify(ctx)
}

// held are the rights that a stream goes by; nil where nobody is asked.
func (p *party) held() registry.Rights {
	if p == nil {
		return nil
	}
	return p.rights
}

// denied is what a party may not that it would have to, to be told of a service; empty if it may.
func (p *party) denied(k registry.ServiceKey) string {
	if registry.Sees(p.held(), k) {
		return ""
	}
	return fmt.Sprintf("%s may not %s", p.caller.Who(), registry.AskToSee(k))
}

// errNobody ends the stream of somebody who is nobody any more.
var errNobody = status.Error(codes.Unauthenticated, "what this stream was opened with is good for nothing any more: the token has expired, or it was revoked")

// hold has a party go by its rights of the moment.
func (p *party) hold() error {
	if p == nil {
		return nil
	}
	if p.rights = p.caller.Held(); p.rights == nil {
		return errNobody
	}
	return nil
}

// regard has the stream go by its party's rights of the moment, and holds what the node
// says of itself against them.
func (s *stream) regard() error {
	p := s.party
	if err := p.hold(); p == nil || err != nil {
		return err
	}
	s.mu.Lock()
	p.stamp = p.rights.Stamp()
	s.mu.Unlock()
	return p.agrees(s.node)
}

// agrees says whether what a node says of itself may be so. A node that does not name its
// namespace has the one of its certificate.
func (p *party) agrees(n *node) error {
	if !n.placed && p.Namespace != "" {
		n.place(p.Namespace)
	}
	switch ask := (registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceInstances, Namespace: n.namespace}); {
	case p.Namespace != "" && n.namespace != p.Namespace:
		return disagreement(metadataNamespace, "is %q, and the certificate of %s is of a workload in namespace %q: say that, or leave it out", n.namespace, p.Name, p.Namespace)
	case !p.caller.AllowsSome(ask):
		return disagreement(metadataNamespace, "is %q, and %s may not %s: say one in which it may, or give it a role that allows it", n.namespace, p.caller.Who(), ask)
	}
	k, is := n.caller()
	if !is || p.Namespace != "" && p.Account == n.service {
		return nil
	}
	ask := registry.Ask{Verb: registry.VerbRegister, Resource: registry.ResourceInstances, Namespace: k.Namespace, Service: k.Service}
	if !p.rights.Allows(ask) {
		return disagreement(metadataService, "is %q, and %s may not %s, which is what makes somebody a part of it: say another, or leave it out", n.service, p.caller.Who(), ask)
	}
	return nil
}

func disagreement(key, format string, args ...any) error {
	return status.Errorf(codes.PermissionDenied, "node.metadata[%q]: %s", key, fmt.Sprintf(format, args...))
}

// reports says whether a party may report load as the node that it says it is.
func (p *party) reports(n *node) error {
	if p == nil {
		return nil
	}
	if err := p.agrees(n); err != nil {
		return err
	}
	ask := registry.Ask{Verb: registry.VerbReport, Resource: registry.ResourceProxies, Namespace: n.namespace}
	if !p.rights.Allows(ask) {
		return status.Errorf(codes.PermissionDenied, "%s may not %s", p.caller.Who(), ask)
	}
	return nil
}

// looksAt says whether a caller may look at a proxy; it always may where nobody is asked.
func looksAt(by registry.Caller, p *ProxyStatus) bool {
	return by == nil || by.Allows(registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceProxies, Namespace: p.Namespace})
}

// followRights has streams look at their rights anew whenever what is written down of
// access changes, until the context ends.
func (s *Server) followRights(ctx context.Context) {
	for {
		edition := s.cache.machine.Edition() // before anybody's rights are looked at
		s.review()
		select {
		case <-edition.Over():
		case <-ctx.Done():
			return
		}
		if s.sleep(ctx, rightsEvery) != nil {
			return
		}
	}
}

// review wakes the streams whose rights are not those that they go by.
func (s *Server) review() {
	n := &notice{at: s.now()}
	for _, str := range s.parties() {
		if str.party.caller.Stamp() != str.stamp() {
			str.rewrite(n)
		}
	}
	n.wake()
}

// parties are the streams of somebody who was asked who he is.
func (s *Server) parties() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*stream
	for str := range s.streams {
		if str.party != nil {
			out = append(out, str)
		}
	}
	return out
}

// stamp is that of the rights by which the stream goes.
func (s *stream) stamp() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.party.stamp
}

// endOf is why a stream's context has ended: who ends it says so in words that the client is told.
func endOf(ctx context.Context) error {
	var told interface{ GRPCStatus() *status.Status }
	if cause := context.Cause(ctx); errors.As(cause, &told) {
		return cause
	}
	return status.FromContextError(ctx.Err()).Err()
}
