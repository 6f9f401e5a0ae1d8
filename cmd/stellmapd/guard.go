package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// A guard finds out who asks, on every port by the same rules: who presents a token is
// what the token is, and else what his certificate says.
type guard struct {
	policies *policies
	now      func() time.Time
}

// A caller is somebody for as long as he stays: what he may do is looked up in the
// policy of the moment, so that who has a stream open has no older rights than who
// comes anew.
type caller struct {
	guard    *guard
	identity access.Identity // of the certificate; the zero one is nobody's
	token    string          // that he presents; "" = none
}

// caller is who presents a certificate, an authorization header, or both.
func (g *guard) caller(ctx context.Context, authorization string) (registry.Caller, error) {
	c := &caller{guard: g}
	c.identity, _ = access.FromContext(ctx)
	if authorization != "" {
		scheme, token, _ := strings.Cut(authorization, " ")
		if c.token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || c.token == "" {
			return nil, registry.ErrNobody // who shows something that is nothing is not taken for another
		}
	}
	if c.identity.Role == "" && c.token == "" || c.rights() == nil {
		return nil, registry.ErrNobody
	}
	return c, nil
}

// http is who has sent a request.
func (g *guard) http(q *http.Request) (registry.Caller, error) {
	all := q.Header.Values("Authorization")
	if len(all) > 1 {
		return nil, registry.ErrNobody // of two, each would be another
	}
	return g.caller(q.Context(), strings.Join(all, ""))
}

// rights are those of the moment; nil when the token is not good any more.
func (c *caller) rights() *access.Rights {
	policy := c.guard.policies.now().policy
	if c.token == "" {
		return policy.Of(c.identity)
	}
	r, err := policy.OfToken(c.token, c.identity, c.guard.now())
	if err != nil {
		return nil
	}
	return r
}

// Who names the certificate, or the token by the part of it that is no secret.
func (c *caller) Who() string {
	if c.token == "" {
		return c.identity.String()
	}
	return "token " + access.TokenID(c.token)
}

func (c *caller) Allows(a registry.Ask) bool     { return c.rights().Allows(askOf(a)) }
func (c *caller) AllowsSome(a registry.Ask) bool { return c.rights().AllowsSome(askOf(a)) }
func (c *caller) Stamp() string                  { return c.rights().Stamp() }

// Held are his rights of the moment.
func (c *caller) Held() registry.Rights {
	if r := c.rights(); r != nil {
		return held{r}
	}
	return nil
}

// held are rights in the words of the registry.
type held struct{ *access.Rights }

func (h held) Allows(a registry.Ask) bool { return h.Rights.Allows(askOf(a)) }

func askOf(a registry.Ask) access.Ask {
	return access.Ask{Verb: string(a.Verb), Resource: string(a.Resource), Namespace: a.Namespace, Service: a.Service}
}

// unary guards the calls of a gRPC server. What is done for one is done for its caller.
func (g *guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := g.permit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (g *guard) permit(ctx context.Context, fullMethod string) (context.Context, error) {
	need, found := rpcNeeds[fullMethod]
	if !found { // a server that has it does not start, but who asks for what nobody has comes by here, too
		need = rpcNeed{whom: anybodyKnown}
	}
	all := metadata.ValueFromIncomingContext(ctx, "authorization")
	by, err := registry.Caller(nil), error(registry.ErrNobody)
	if len(all) <= 1 {
		by, err = g.caller(ctx, strings.Join(all, ""))
	}
	switch {
	case need.whom == anybody && err != nil:
		return ctx, nil
	case err != nil:
		return ctx, refusalOfRPC(err, codes.Unauthenticated)
	}
	ctx = registry.WithCaller(ctx, by)
	switch ask := (registry.Ask{Verb: need.verb, Resource: need.resource}); {
	case need.whom == whoMay:
		err = registry.Permit(ctx, ask)
	case need.whom == whoMaySome && !by.AllowsSome(ask):
		err = &registry.DeniedError{Who: by.Who(), Ask: ask}
	}
	if err != nil {
		return ctx, refusalOfRPC(err, codes.PermissionDenied)
	}
	return ctx, nil
}

func refusalOfRPC(err error, code codes.Code) error {
	return status.Error(code, registry.RefusalOf(err, true).Words(err))
}
