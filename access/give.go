package access

import (
	"slices"
	"strings"
)

// Given are the rights that somebody would have by some roles, within a scope if that is
// not nil. They are for Lacks alone. Whose own namespace a rule is about is not known of
// somebody to come, unless the scope says so: then it could be any.
func Given(roles []RoleRules, scope *Rule) *Rights {
	t := Token{Scope: scope}
	own := t.own()
	if own == "" {
		own = Own
	}
	r := newRights("", own)
	for _, role := range roles {
		r.add(role, "")
	}
	if scope != nil {
		r.scope = t.narrowing()
	}
	return r
}

// Lacks names the first rule of what is to be given, be it one that allows or one that
// denies, that is about something which these rights do not allow; "" = they have it
// all. Each verb on each resource in each namespace must be allowed by one rule, for all
// services of the given one, and no rule that denies may touch any of it: more than
// that would be found out by nobody who reads it.
func (r *Rights) Lacks(given *Rights) string {
	for _, rule := range given.rules {
		for part := range rule.within(given.scope).parts {
			if !r.has(part) {
				return rule.from.rule()
			}
		}
	}
	return ""
}

func (r *Rights) has(part *compiled) bool {
	if r == nil || r.scope != nil && !r.scope.covers(part) {
		return false
	}
	return r.allows.finds(part, (*compiled).covers) && !r.denies.finds(part, (*compiled).touches)
}

// finds says whether there is a rule of the set that is so to a part of another one.
func (s *ruleSet) finds(part *compiled, is func(rule, part *compiled) bool) bool {
	found := func(c *compiled) bool { return is(c, part) }
	if slices.ContainsFunc(s.any, found) {
		return true
	}
	if part.resources != nil {
		return slices.ContainsFunc(s.of[part.resources[0]], found)
	}
	for _, rules := range s.of {
		if slices.ContainsFunc(rules, found) {
			return true
		}
	}
	return false
}

// parts are the rule for one verb, resource and namespace at a time.
func (c *compiled) parts(yield func(*compiled) bool) {
	if c.services != nil && len(c.services) == 0 {
		return // there is no service that it is about
	}
	for _, verb := range each(c.verbs) {
		for _, resource := range each(c.resources) {
			for _, namespace := range each(c.namespaces) {
				if !yield(&compiled{verbs: verb, resources: resource, namespaces: namespace, services: c.services}) {
					return
				}
			}
		}
	}
}

func each(list []string) [][]string {
	if list == nil {
		return [][]string{nil}
	}
	var out [][]string
	for i := range list {
		out = append(out, list[i:i+1])
	}
	return out
}

// within is what a rule is about inside of a scope.
func (c *compiled) within(scope *compiled) *compiled {
	if scope == nil {
		return c
	}
	return &compiled{
		verbs: both(c.verbs, scope.verbs), resources: both(c.resources, scope.resources),
		namespaces: both(c.namespaces, scope.namespaces), services: both(c.services, scope.services),
	}
}

// both are the patterns of what two lists stand for in common; nil is all.
func both(a, b []string) []string {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := []string{}
	for _, p := range a {
		for _, q := range b {
			if stands(p, q) {
				out = append(out, q)
			} else if stands(q, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// covers says whether a rule is about all that another one is about.
func (c *compiled) covers(o *compiled) bool {
	return coversAll(c.verbs, o.verbs) && coversAll(c.resources, o.resources) && coversAll(c.namespaces, o.namespaces) && coversAll(c.services, o.services)
}

func coversAll(outer, inner []string) bool {
	if outer == nil || inner == nil {
		return outer == nil
	}
	for _, q := range inner {
		if !slices.ContainsFunc(outer, func(p string) bool { return stands(p, q) }) {
			return false
		}
	}
	return true
}

// touches says whether there may be anything that both rules are about.
func (c *compiled) touches(o *compiled) bool {
	return meet(c.verbs, o.verbs) && meet(c.resources, o.resources) && meet(c.namespaces, o.namespaces) && meet(c.services, o.services)
}

func meet(a, b []string) bool {
	if a == nil || b == nil {
		return true // also what is about nothing: who gives that loses nothing by being careful
	}
	return slices.ContainsFunc(a, func(p string) bool {
		return slices.ContainsFunc(b, func(q string) bool { return q == Own || stands(p, q) || stands(q, p) })
	})
}

// stands says whether a pattern stands for all that another pattern, or a name, stands for.
func stands(p, q string) bool {
	beginning, open := strings.CutSuffix(p, "*")
	return p == q || open && strings.HasPrefix(q, beginning)
}
