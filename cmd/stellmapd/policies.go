package main

import (
	"sync/atomic"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// policies is where what the registry has written down of access becomes what access
// decides by. A policy is made when somebody asks first after a change, and holds for
// one edition: that all ask the same one needs no lock.
type policies struct {
	machine *registry.Machine
	present atomic.Pointer[issued]
}

// issued is the policy of an edition.
type issued struct {
	edition *registry.Edition
	policy  *access.Policy
}

// now is the policy as of the last change that this member has applied. Two that make
// it at once make the same.
func (p *policies) now() issued {
	edition := p.machine.Edition() // before it is read: what changes meanwhile ends this one
	if present := p.present.Load(); present != nil && present.edition == edition {
		return *present
	}
	made := &issued{edition: edition, policy: access.NewPolicy(writtenDown(p.machine.Access()))}
	p.present.Store(made)
	return *made
}

// writtenDown says what the registry has in the words of access.
func writtenDown(a registry.Access) access.Written {
	w := access.Written{Roles: rolesOf(a.Roles)}
	for _, b := range a.Bindings {
		w.Bindings = append(w.Bindings, access.Binding{Name: b.Name, Roles: b.Binding.Roles, Subjects: b.Binding.Subjects})
	}
	for _, t := range a.Tokens {
		w.Tokens = append(w.Tokens, access.Token{
			ID: t.ID, Hash: t.Hash, Roles: t.Roles, Scope: ruleOf(t.Scope), Holder: t.Holder, Expires: time.UnixMilli(t.ExpiresAt),
		})
	}
	return w
}

func rolesOf(all []registry.NamedRole) []access.RoleRules {
	var out []access.RoleRules
	for _, r := range all {
		role := access.RoleRules{Name: r.Name}
		for i := range r.Role.Rules {
			role.Rules = append(role.Rules, *ruleOf(&r.Role.Rules[i]))
		}
		out = append(out, role)
	}
	return out
}

func ruleOf(r *registry.Rule) *access.Rule {
	if r == nil {
		return nil
	}
	return &access.Rule{Deny: r.Deny, Verbs: texts(r.Verbs), Resources: texts(r.Resources), Namespaces: r.Namespaces, Services: r.Services}
}

func texts[W ~string](words []W) []string {
	var out []string
	for _, w := range words {
		out = append(out, string(w))
	}
	return out
}
