package access

import (
	"fmt"
	"strings"
	"time"
)

// A Decision is what comes of an ask, and why.
type Decision struct {
	Allowed bool
	Reason  string
	Ground  *Ground  // the rule that allows or denies; nil = there is none
	Near    []string // of what no rule allows: those that allow the like of it, and about what
}

// nearMax bounds the rules that an explanation names beside.
const nearMax = 8

// Explain is Allows for people.
func (r *Rights) Explain(a Ask) Decision {
	if r == nil {
		return Decision{Reason: "nobody is known to ask: nothing is allowed"}
	}
	denied, allowed := r.denies.match(&a), r.allows.match(&a)
	switch {
	case denied != nil:
		return Decision{Ground: &denied.from, Reason: fmt.Sprintf("%s may not %s: %s denies it, and what one rule denies is denied", r.who, a, denied.from)}
	case allowed == nil:
		return Decision{Near: r.near(&a), Reason: fmt.Sprintf("%s may not %s: no rule of any of its roles allows it", r.who, a)}
	case r.scope != nil && !r.scope.matches(&a):
		return Decision{Ground: &allowed.from, Reason: fmt.Sprintf("%s may not %s: %s allows it, but it is beyond the scope of the token", r.who, a, allowed.from)}
	}
	return Decision{Allowed: true, Ground: &allowed.from, Reason: fmt.Sprintf("%s may %s: %s allows it", r.who, a, allowed.from)}
}

// near are the rules that allow the verb on the resource, elsewhere.
func (r *Rights) near(a *Ask) []string {
	var out []string
	for _, rules := range [...][]*compiled{r.allows.any, r.allows.of[a.Resource]} {
		for _, c := range rules {
			if c.does(a) && len(out) < nearMax {
				out = append(out, fmt.Sprintf("%s allows it %s", c.from, c.where()))
			}
		}
	}
	return out
}

// where is which objects a rule is about, for people.
func (c *compiled) where() string {
	text := "in all namespaces"
	switch {
	case c.namespaces != nil && len(c.namespaces) == 0:
		text = "in no namespace: the caller has none of its own"
	case c.namespaces != nil:
		text = "in namespace " + strings.Join(c.namespaces, " or ")
	}
	if c.services != nil {
		text += ", of service " + strings.Join(c.services, " or ")
	}
	return text
}

// Who is the caller, for people.
func (r *Rights) Who() string {
	if r == nil {
		return "nobody"
	}
	return r.who
}

// Roles are those that the caller has, with what gives them.
func (r *Rights) Roles() []GivenRole {
	if r == nil {
		return nil
	}
	return r.given
}

// Own is the namespace that is the caller's own; "" = none.
func (r *Rights) Own() string {
	if r == nil {
		return ""
	}
	return r.own
}

// As are the rights of an identity or a token that does not ask itself: of a path such as
// /ns/prod/sa/web, which is in a trust domain, of a SPIFFE URI, or of a token's id. The
// problem is "" when it is somebody.
func (p *Policy) As(who, trustDomain string, now time.Time) (r *Rights, problem string) {
	if !strings.Contains(who, "/") {
		if t := p.tokens[strings.TrimPrefix(who, "token ")]; t != nil && now.Before(t.Expires) {
			return p.ofToken(t), ""
		}
		return nil, fmt.Sprintf("%q is neither an identity, such as /ns/prod/sa/web, nor the id of a token that is good", clipped(who))
	}
	if subject, is := strings.CutPrefix(who, jwtPath); is {
		id, problem := ofSubject(subject)
		if problem != "" {
			return nil, fmt.Sprintf("the subject %.300q %s", subject, problem)
		}
		return p.Of(id), ""
	}
	if strings.HasPrefix(who, "/") {
		who = "spiffe://" + trustDomain + who
	}
	id, err := ParseIdentity(who)
	if err != nil {
		return nil, err.Error()
	}
	return p.Of(id), ""
}

func clipped(text string) string { return strings.ToValidUTF8(text[:min(len(text), 64)], "") }
