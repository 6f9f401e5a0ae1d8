package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// An asked caller may do anything, and is told on whose account he gave what.
type askedGiver struct {
	Caller
	asked []string
	lacks bool
}

func (g *askedGiver) Who() string       { return "ann" }
func (g *askedGiver) Allows(a Ask) bool { return true }

func (g *askedGiver) Lacks(roles []NamedRole, scope *Rule) string {
	for _, r := range roles {
		for _, rule := range r.Role.Rules {
			g.asked = append(g.asked, fmt.Sprintf("%s deny=%v %v", r.Name, rule.Deny, rule.Verbs))
		}
	}
	if g.lacks {
		return "rule 1"
	}
	return ""
}

// An edit asks for all that it would give, and for the rules that deny which it would
// take away. A role that nobody has written could come to say anything.
func TestWhatAnEditGives(t *testing.T) {
	m := newMember(t, newManualClock())
	ctx := context.Background()
	put := func(name string, rules ...Rule) {
		t.Helper()
		if _, err := m.registry.PutRole(ctx, "", name, Role{Rules: rules}, Writing{}); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(deny bool, verb Verb) Rule {
		return Rule{Deny: deny, Verbs: []Verb{verb}, Resources: []Resource{all}, Namespaces: []string{all}}
	}
	put("ops", rule(false, VerbRead), rule(true, VerbWrite))
	put("dev", rule(false, VerbDrain))
	if _, err := m.registry.PutBinding(ctx, "", "night", Binding{Roles: []string{"ops", "dev"}, Subjects: []string{"/ns/*"}}, Writing{}); err != nil {
		t.Fatal(err)
	}
	edits := []struct {
		name string
		do   func(ctx context.Context) error
		want string
	}{
		{"a role, written anew", func(ctx context.Context) error {
			_, err := m.registry.PutRole(ctx, "", "ops", Role{Rules: []Rule{rule(false, VerbReport)}}, Writing{DryRun: true})
			return err
		}, "ops as it is deny=true [write], ops deny=false [report]"},
		{"a role, taken back", func(ctx context.Context) error {
			_, err := m.registry.DeleteRole(ctx, "", "ops", Writing{DryRun: true})
			return err
		}, "ops as it is deny=true [write]"},
		{"a binding, written anew", func(ctx context.Context) error {
			_, err := m.registry.PutBinding(ctx, "", "night", Binding{Roles: []string{"dev", RoleReplicator}, Subjects: []string{"/ns/*"}}, Writing{DryRun: true})
			return err
		}, "ops as it is deny=true [write], dev deny=false [drain], system:replicator deny=false [read]"},
		{"a binding, taken back", func(ctx context.Context) error {
			_, err := m.registry.DeleteBinding(ctx, "", "night", Writing{DryRun: true})
			return err
		}, "ops as it is deny=true [write]"},
		{"a binding of a role that is not there", func(ctx context.Context) error {
			_, err := m.registry.PutBinding(ctx, "", "day", Binding{Roles: []string{"later"}, Subjects: []string{"/ns/*"}}, Writing{DryRun: true})
			return err
		}, "later, which is not there yet deny=false [*]"},
		{"a token", func(ctx context.Context) error {
			_, _, err := m.registry.GrantToken(ctx, "", TokenGrant{ID: "a1", Roles: []string{"dev"}})
			return err
		}, "dev deny=false [drain]"},
	}
	for _, e := range edits {
		by := &askedGiver{lacks: true}
		before := m.machine.Revision()
		var refused *GiveError
		if err := e.do(WithCaller(ctx, by)); !errors.Is(err, ErrDenied) || !errors.As(err, &refused) || !strings.Contains(err.Error(), "ann may not give") {
			t.Errorf("%s, by who lacks something: %v", e.name, err)
		}
		if got := strings.Join(by.asked, ", "); got != e.want {
			t.Errorf("%s gives\n%s\nwant\n%s", e.name, got, e.want)
		}
		if len(m.machine.Access().Tokens) > 0 || m.machine.Access().Bindings[0].Version > 1 || m.machine.Revision() > before+1 {
			t.Errorf("%s has changed something", e.name)
		}
		if err := e.do(WithCaller(ctx, &askedGiver{})); err != nil {
			t.Errorf("%s, by who has it: %v", e.name, err)
		}
	}
}

// Of a caller of whom nothing is known nothing comes.
func TestWhoIsNoGranterGivesNothing(t *testing.T) {
	m := newMember(t, newManualClock())
	ctx := WithCaller(context.Background(), struct{ Caller }{&askedGiver{}})
	if _, err := m.registry.PutRole(ctx, "", "ops", Role{}, Writing{}); !errors.Is(err, ErrDenied) {
		t.Errorf("a role: %v", err)
	}
	if _, err := m.registry.PutBinding(ctx, "", "night", Binding{Roles: []string{RoleReader}, Subjects: []string{"/ns/*"}}, Writing{}); !errors.Is(err, ErrDenied) {
		t.Errorf("a binding: %v", err)
	}
	if _, _, err := m.registry.GrantToken(ctx, "", TokenGrant{ID: "a1", Roles: []string{RoleReader}}); !errors.Is(err, ErrDenied) {
		t.Errorf("a token: %v", err)
	}
	if a := m.machine.Access(); len(a.Tokens) > 0 {
		t.Errorf("there are tokens: %v", a.Tokens)
	}
}
