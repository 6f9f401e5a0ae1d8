package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/registry"
)

// A guard finds out who asks, on every port by the same rules: who presents a token is
// what the token is, or whom it names, and else what his certificate says.
type guard struct {
	port     string
	region   string // this member's
	policies *policies
	secrets  []secret       // that are no access tokens
	issuer   *access.Issuer // whose JWTs count; nil = nobody's do
	stays    *stays
	denials  *denials
	limiter  *access.Limiter // of calls over gRPC that are not let; nil = nobody is held to any
	audit    *audit.Log      // nil = none
	now      func() time.Time
}

// A caller is somebody for as long as he stays: what he may do is looked up in the
// policy of the moment, so that who has a stream open has no older rights than who
// comes anew.
type caller struct {
	guard    *guard
	identity access.Identity // of the certificate; the zero one is nobody's
	token    string          // that he presents; "" = none
	proof    *access.Proof   // what came of his JWT; nil = he has presented none
}

// caller is who presents a certificate, an authorization header, or both.
func (g *guard) caller(ctx context.Context, authorization string) (registry.Caller, error) {
	c := &caller{guard: g}
	c.identity, _ = access.FromContext(ctx)
	if authorization != "" {
		var ok bool
		if c.token, ok = tokenIn(authorization); !ok {
			return nil, registry.ErrNobody // who shows something that is nothing is not taken for another
		}
		if at := slices.IndexFunc(g.secrets, func(s secret) bool { return s.is(c.token) }); at >= 0 {
			c.token = ""
			if s := &g.secrets[at]; s.bearer != nil && s.port == g.port && (s.alone || c.identity.Role == "") {
				return s.bearer, nil
			}
		}
		if err := c.believe(); err != nil {
			return nil, registry.ErrNobody
		}
	}
	if c.identity.Role == "" && !c.timed() || c.rights() == nil {
		return nil, registry.ErrNobody
	}
	return c, nil
}

// believe has the caller be whom the JWT names that he presents, if it is one. It is looked
// at once, and not kept: what is asked later is whether its time is over, or its key is gone.
func (c *caller) believe() (err error) {
	if c.guard.issuer == nil || !access.IsJWT(c.token) {
		return nil
	}
	c.proof, err = c.guard.issuer.Verify(c.token, c.guard.now())
	c.token = ""
	return err
}

// timed says that his right may end though nobody has changed anything.
func (c *caller) timed() bool { return c.token != "" || c.proof != nil }

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
	if c.proof != nil {
		if !c.guard.issuer.Stands(c.proof, c.guard.now()) {
			return nil
		}
		return policy.Of(c.proof.Identity)
	}
	if c.token == "" {
		return policy.Of(c.guard.here(c.identity))
	}
	r, err := policy.OfToken(c.token, c.identity, c.guard.now())
	if err != nil {
		return nil
	}
	return r
}

// here is what an identity is in this region: a member of another one has business here
// as who keeps a copy for that, and is no member.
func (g *guard) here(id access.Identity) access.Identity {
	if id.Role == access.RolePeer && id.Region != g.region {
		return access.Identity{TrustDomain: id.TrustDomain, Role: access.RoleReplicator, Region: id.Region}
	}
	return id
}

// Who names the certificate, the subject of the JWT, or the token by the part of it that
// is no secret.
func (c *caller) Who() string {
	switch {
	case c.proof != nil:
		return c.proof.Identity.String()
	case c.token == "":
		return c.identity.String()
	}
	return registry.NameOfToken(access.TokenID(c.token))
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
