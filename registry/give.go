package registry

import (
	"context"
	"fmt"
	"slices"
)

// Nobody gives what he does not have. Who may write roles and bindings, or make tokens,
// would else have whatever he writes down for himself. So of all that a role, a binding
// or a token would give, the caller must be allowed everything himself, and be denied
// nothing. That holds for rules that deny, too: who may not do a thing does not decide
// that others may not. And it holds for what an edit takes away from them: a rule that
// denies goes only by the hand of one whom nobody denies it.

// A Granter is a caller of whom it is known what he has. One who is none gives nothing.
type Granter interface {
	// Lacks names a rule of some roles, within a scope if that is not nil, that is about
	// something that he may not do; "" = there is none.
	Lacks(roles []NamedRole, scope *Rule) string
}

// A GiveError says what somebody would have given.
type GiveError struct {
	Who  string
	Rule string
}

func (e *GiveError) Error() string {
	return e.Who + " may not give, or take back, what is beyond his own rights: " + e.Rule + "; nothing was done"
}

// Unwrap makes it an ErrDenied.
func (e *GiveError) Unwrap() error { return ErrDenied }

// mayGive is nil when whoever a context is for has all that some roles are about.
func mayGive(ctx context.Context, roles []NamedRole, scope *Rule) error {
	c := CallerOf(ctx)
	if c == nil {
		return nil
	}
	g, gives := c.(Granter)
	if !gives {
		return &GiveError{c.Who(), "nothing is known of these"}
	}
	if rule := g.Lacks(roles, scope); rule != "" {
		return &GiveError{c.Who(), rule}
	}
	return nil
}

// mayEditRole is for a role that is written, or taken back when it is nil.
func (r *Registry) mayEditRole(ctx context.Context, name string, next *Role) error {
	return r.mayEdit(ctx, func(a *accessState) []NamedRole {
		given := denying(namedRole(name, a.roles[name].Content()))
		if next != nil {
			given = append(given, NamedRole{Name: name, Role: *next})
		}
		return given
	})
}

// mayEditBinding is mayEditRole for a binding.
func (r *Registry) mayEditBinding(ctx context.Context, name string, next *Binding) error {
	return r.mayEdit(ctx, func(a *accessState) []NamedRole {
		var given []NamedRole
		if before := a.bindings[name].Content(); before != nil {
			given = denying(a.named(before.Roles)...)
		}
		if next != nil {
			given = append(given, a.named(next.Roles)...)
		}
		return given
	})
}

func (r *Registry) mayEdit(ctx context.Context, given func(*accessState) []NamedRole) error {
	if err := Permit(ctx, Ask{Verb: VerbWrite, Resource: ResourceAccess}); err != nil {
		return err
	}
	return r.mayHandOn(ctx, given, nil)
}

// mayGrant is for a token.
func (r *Registry) mayGrant(ctx context.Context, g *TokenGrant) error {
	if err := Permit(ctx, Ask{Verb: VerbRegister, Resource: ResourceTokens}); err != nil {
		return err
	}
	return r.mayHandOn(ctx, func(a *accessState) []NamedRole { return a.named(g.Roles) }, g.Scope)
}

// mayHandOn reads what roles say now. That one says more later is the doing of whoever
// edits it then, who has to have all of it.
func (r *Registry) mayHandOn(ctx context.Context, given func(*accessState) []NamedRole, scope *Rule) error {
	if CallerOf(ctx) == nil {
		return nil
	}
	if err := r.freshen(ctx, Consistency{}); err != nil {
		return err
	}
	r.machine.mu.RLock()
	roles := given(&r.machine.published.access)
	r.machine.mu.RUnlock()
	return mayGive(ctx, roles, scope)
}

// named are the roles of some names. One that nobody has written yet could come to say
// anything: only who may do everything gives it.
func (a *accessState) named(names []string) []NamedRole {
	var out []NamedRole
	for _, name := range names {
		if i := slices.IndexFunc(builtIns, func(r NamedRole) bool { return r.Name == name }); i >= 0 {
			out = append(out, builtIns[i])
		} else if content := a.roles[name].Content(); content != nil {
			out = append(out, NamedRole{Name: name, Role: *content})
		} else {
			anything := Rule{Verbs: []Verb{all}, Resources: []Resource{all}, Namespaces: []string{all}}
			out = append(out, NamedRole{Name: fmt.Sprintf("%s, which is not there yet", name), Role: Role{Rules: []Rule{anything}}})
		}
	}
	return out
}

func namedRole(name string, content *Role) NamedRole {
	if content == nil {
		content = &Role{}
	}
	return NamedRole{Name: name, Role: *content}
}

// denying are roles without the rules that allow.
func denying(roles ...NamedRole) []NamedRole {
	var out []NamedRole
	for _, r := range roles {
		rules := slices.DeleteFunc(slices.Clone(r.Role.Rules), func(one Rule) bool { return !one.Deny })
		if len(rules) > 0 {
			out = append(out, NamedRole{Name: r.Name + " as it is", Role: Role{Rules: rules}})
		}
	}
	return out
}
