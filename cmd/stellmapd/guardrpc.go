package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/registry"
)

// unary guards the calls of a gRPC server. What is done for one is done for its caller.
func (g *guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, need, err := g.permit(ctx, info.FullMethod)
	if err != nil {
		return nil, g.turnAway(ctx, info.FullMethod, need, err)
	}
	answer, err := handle(ctx, request)
	g.notice(ctx, info.FullMethod, err)
	return answer, err
}

// stream guards streams. One whose caller may have it no more is ended, be it that its
// handler waits for the client: to return from here is what wakes it.
func (g *guard) stream(server any, on grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, need, err := g.permit(on.Context(), info.FullMethod)
	if err != nil {
		return g.turnAway(ctx, info.FullMethod, need, err)
	}
	if registry.CallerOf(ctx) == nil { // he need be nobody, and has no right that could end
		return handle(server, on)
	}
	ctx, leave, err := g.stays.enter(ctx, func() error { return need.permit(ctx) })
	if err != nil {
		return g.refuse(on.Context(), info.FullMethod, err)
	}
	defer leave()
	done := make(chan error, 1)
	go func() { done <- handle(server, guarded{on, ctx}) }() // ends with the stream, whose end is the return from here
	select {
	case err = <-done:
	case <-ctx.Done():
		if err = context.Cause(ctx); !isDenied(err) { // the client has gone, which the handler sees by itself
			err = <-done
		}
	}
	if why := context.Cause(ctx); isDenied(why) {
		return g.refuse(ctx, info.FullMethod, why)
	}
	g.notice(ctx, info.FullMethod, err)
	return err
}

// A guarded stream has the context of its caller.
type guarded struct {
	grpc.ServerStream
	ctx context.Context
}

func (s guarded) Context() context.Context { return s.ctx }

// permit finds out who calls and whether he may.
func (g *guard) permit(ctx context.Context, fullMethod string) (context.Context, rpcNeed, error) {
	need, found := rpcNeeds[fullMethod]
	if !found {
		need = rpcNeed{whom: anybodyKnown}
	}
	all := metadata.ValueFromIncomingContext(ctx, "authorization")
	by, err := registry.Caller(nil), error(registry.ErrNobody)
	if len(all) <= 1 {
		by, err = g.caller(ctx, strings.Join(all, ""))
	}
	switch {
	case need.whom == anybody && err != nil:
		return ctx, need, nil
	case err != nil:
		return ctx, need, err
	}
	ctx = registry.WithCaller(ctx, by)
	if !found { // a server that has such a method does not start; but it may be asked for another way of writing one
		return ctx, need, fmt.Errorf("%w: there is no method %.300q", registry.ErrDenied, fullMethod)
	}
	return ctx, need, need.permit(ctx)
}

// permit says whether the caller of a method may call it. Of a stream it is asked again and again.
func (n rpcNeed) permit(ctx context.Context) error {
	ask := registry.Ask{Verb: n.verb, Resource: n.resource}
	switch n.whom {
	case whoMay:
		return registry.Permit(ctx, ask)
	case whoMaySome:
		return registry.PermitSome(ctx, ask)
	}
	return registry.Known(ctx)
}

func isDenied(err error) bool {
	return errors.Is(err, registry.ErrDenied) || errors.Is(err, registry.ErrNobody)
}

// codeOfRPC is gRPC's word for why somebody is not let.
func codeOfRPC(err error) codes.Code {
	switch {
	case errors.Is(err, registry.ErrNobody):
		return codes.Unauthenticated
	case errors.Is(err, registry.ErrDenied):
		return codes.PermissionDenied
	}
	return codes.ResourceExhausted
}

// turnAway is refuse for a call that has not begun, which counts as one of its caller's share: what it takes to find out that
// somebody is nobody, and to write that down, is bounded as well.
func (g *guard) turnAway(ctx context.Context, fullMethod string, need rpcNeed, err error) error {
	if over := g.limiter.Request(askerOf(ctx, networkAt(fromOf(ctx))), need.rank()); over != nil {
		return refusedForOver(over)
	}
	return g.refuse(ctx, fullMethod, err)
}

// refuse answers who is not let, and has it written down: what would have been done does not see the call.
func (g *guard) refuse(ctx context.Context, fullMethod string, err error) error {
	code, from, does := codeOfRPC(err), fromOf(ctx), strings.TrimPrefix(fullMethod, "/")
	says := registry.RefusalOf(err, true).Words(err)
	if isDenied(err) {
		g.denials.tell(g.port, from, does+": "+says)
		e := audit.Entry{Port: g.port, From: from, Does: does, Denied: true, Code: code.String()}
		if by := registry.CallerOf(ctx); by != nil {
			e.Token = registry.TokenOf(by.Who())
		}
		g.audit.Record(ctx, e)
	}
	return status.Error(code, says)
}

// notice counts a call that was not let by whoever served it. Who does that writes it down, too.
func (g *guard) notice(ctx context.Context, fullMethod string, err error) {
	if code := status.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
		g.denials.tell(g.port, fromOf(ctx), strings.TrimPrefix(fullMethod, "/")+": "+status.Convert(err).Message())
	}
}

// fromOf is where a call comes from.
func fromOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
