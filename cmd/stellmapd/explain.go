package main

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/httpapi"
)

// An explainer answers who may do what, and why, by the same policy that the guard goes by.
type explainer struct {
	policies    *policies
	now         func() time.Time
	trustDomain func() string // of identities that are asked about by their path alone
}

// noTrustDomain stands in where there is no TLS: no binding that names a trust domain is
// about such an identity.
const noTrustDomain = "no-trust-domain.invalid"

// explainer is that of this member. Where authentication is off there is no policy but its own.
func (n *node) explainer(machine *registry.Machine) explainer {
	p := n.policies
	if p == nil {
		p = &policies{machine: machine}
	}
	return explainer{policies: p, now: time.Now, trustDomain: n.trustDomain}
}

// trustDomain is that of this member's certificate.
func (n *node) trustDomain() string {
	if n.tls == nil {
		return noTrustDomain
	}
	return n.tls.Self().TrustDomain
}

func (explainer) DrawToken() (id, token string, hash registry.AccessTokenHash, err error) {
	return access.DrawToken(rand.Reader)
}

func (e explainer) Subject(ctx context.Context, name string) (httpapi.Subject, error) {
	if name == "" {
		return subjectOf(registry.CallerOf(ctx)), nil
	}
	rights, problem := e.policies.now().policy.As(name, e.trustDomain(), e.now())
	if problem != "" {
		return httpapi.Subject{}, &registry.ValidationError{Problems: []registry.Problem{{Reason: problem}}}
	}
	return subjectBy(rights), nil
}

// subjectOf is who asks. Of one who has no rules, such as the administrator by the admin
// token, there is nothing to be told but whether he may.
func subjectOf(c registry.Caller) httpapi.Subject {
	if ruled, is := c.(*caller); is {
		return subjectBy(ruled.rights())
	}
	return httpapi.Subject{Who: c.Who(), Explain: func(ask registry.Ask) httpapi.Verdict {
		if !c.Allows(ask) {
			return httpapi.Verdict{Reason: c.Who() + " may not " + ask.String() + ": it is good for one thing, and no role is asked"}
		}
		return httpapi.Verdict{Allowed: true, Reason: c.Who() + " may " + ask.String() + ": no role is asked"}
	}}
}

func subjectBy(r *access.Rights) httpapi.Subject {
	s := httpapi.Subject{Who: r.Who(), Own: r.Own(), Explain: func(ask registry.Ask) httpapi.Verdict { return verdictOf(r.Explain(askOf(ask))) }}
	for _, g := range r.Roles() {
		s.Roles = append(s.Roles, httpapi.GivenRole{Role: g.Role, By: g.By})
	}
	return s
}

func verdictOf(d access.Decision) httpapi.Verdict {
	v := httpapi.Verdict{Allowed: d.Allowed, Reason: d.Reason, Near: d.Near}
	if d.Ground != nil {
		v.Role, v.Rule, v.By = d.Ground.Role, d.Ground.Rule, d.Ground.By
	}
	return v
}

// Lacks is for those who give others rights: nobody gives what he does not have.
func (c *caller) Lacks(roles []registry.NamedRole, scope *registry.Rule) string {
	return c.rights().Lacks(access.Given(rolesOf(roles), ruleOf(scope)))
}
