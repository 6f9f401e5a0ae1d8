package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// as is a context of who presents a token.
func (w *warden) as(token string) context.Context {
	w.t.Helper()
	q := httptest.NewRequest("GET", "/", nil)
	q.Header.Set("Authorization", "Bearer "+token)
	c, err := w.http(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return registry.WithCaller(context.Background(), c)
}

// Who may write down who may what cannot make himself an administrator: neither by a
// role, nor by a binding, nor by a token, nor by taking back what keeps him from it.
func TestWritingRolesMakesNobodyAnAdministrator(t *testing.T) {
	w := newWarden(t)
	background := context.Background()
	everything := registry.Rule{Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{"*"}, Namespaces: []string{"*"}}
	clerk := w.token(registry.Rule{Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{registry.ResourceAccess, registry.ResourceTokens}, Namespaces: []string{"*"}}, nil)
	ctx := w.as(clerk)
	night := registry.Rule{Deny: true, Verbs: []registry.Verb{"write"}, Resources: []registry.Resource{"policies"}, Namespaces: []string{"*"}}
	if _, err := w.registry.PutRole(background, "", "night", registry.Role{Rules: []registry.Rule{night}}, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
	own := "role-" + access.TokenID(clerk)
	for name, do := range map[string]func() error{
		"his own role": func() error {
			_, err := w.registry.PutRole(ctx, "", own, registry.Role{Rules: []registry.Rule{everything}}, registry.Writing{})
			return err
		},
		"a binding": func() error {
			_, err := w.registry.PutBinding(ctx, "", "me", registry.Binding{Roles: []string{registry.RoleAdmin}, Subjects: []string{"/operator/me"}}, registry.Writing{})
			return err
		},
		"a token": func() error {
			_, _, err := w.registry.GrantToken(ctx, "", registry.TokenGrant{ID: "mine", Roles: []string{registry.RoleAdmin}})
			return err
		},
		"a token for a part of it": func() error {
			_, _, err := w.registry.GrantToken(ctx, "", registry.TokenGrant{ID: "mine", Roles: []string{registry.RoleAdmin}, Scope: &registry.Rule{Verbs: []registry.Verb{"read"}}})
			return err
		},
		"what denies": func() error {
			_, err := w.registry.DeleteRole(ctx, "", "night", registry.Writing{})
			return err
		},
	} {
		if err := do(); !errors.Is(err, registry.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	grant := registry.TokenGrant{ID: "helper", Roles: []string{registry.RoleAdmin}, Scope: &registry.Rule{Resources: []registry.Resource{registry.ResourceTokens}}}
	if _, _, err := w.registry.GrantToken(ctx, "", grant); err != nil {
		t.Errorf("a token for what he has himself: %v", err)
	}
}

// Whoever asks is told by which rule he may, and what would be needed.
func TestWhoMayDoWhatAndWhy(t *testing.T) {
	w := newWarden(t)
	a := explainer{policies: w.policies, now: w.now, trustDomain: func() string { return "a.example" }}
	read := registry.Rule{Verbs: []registry.Verb{registry.VerbRead}, Resources: []registry.Resource{registry.ResourceInstances}, Namespaces: []string{"prod"}}
	token := w.token(read, nil)
	id := access.TokenID(token)
	narrow := w.token(read, &registry.Rule{Services: []string{"orders"}})
	narrowID := access.TokenID(narrow)
	in := func(namespace string) registry.Ask {
		return registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceInstances, Namespace: namespace}
	}
	for name, c := range map[string]struct {
		ctx    context.Context
		as     string
		ask    registry.Ask
		who    string
		by     string
		nearBy string
	}{
		"the caller":       {w.as(token), "", in("prod"), "token " + id, "rule 1 of role role-" + id + ", by token " + id, ""},
		"elsewhere":        {w.as(token), "", in("test"), "token " + id, "", "in namespace prod"},
		"a token by id":    {context.Background(), id, in("prod"), "token " + id, "rule 1 of role role-" + id + ", by token " + id, ""},
		"beyond its scope": {context.Background(), narrowID, in("prod"), "token " + narrowID, "", ""},
		"somebody's for":   {w.as(token), "/operator/lin", in("test"), "spiffe://a.example/operator/lin", "rule 1 of role system:admin, by binding system:operators", ""},
		"a path":           {context.Background(), "/ns/prod/sa/web", in("prod"), "spiffe://a.example/ns/prod/sa/web", "rule 1 of role system:workload, by binding system:workloads", ""},
		"an operator":      {context.Background(), "spiffe://b.example/operator/lin", in("test"), "spiffe://b.example/operator/lin", "rule 1 of role system:admin, by binding system:operators", ""},
		"another's region": {context.Background(), "/replicator/b", in("prod"), "spiffe://a.example/replicator/b", "", ""},
	} {
		s, err := a.Subject(c.ctx, c.as)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := s.Explain(c.ask)
		if s.Who != c.who || v.Allowed != (c.by != "") || !strings.Contains(v.Reason, c.by) || !strings.Contains(strings.Join(v.Near, ";"), c.nearBy) || len(s.Roles) != 1 {
			t.Errorf("%s: %+v by %+v", name, v, s)
		}
	}
	w.time = w.time.Add(time.Hour) // the tokens are over
	for _, nobody := range []string{"web", "/web", "spiffe://", strings.Repeat("x", 1000), "smt_" + id, id} {
		var bad *registry.ValidationError
		if s, err := a.Subject(context.Background(), nobody); !errors.As(err, &bad) {
			t.Errorf("%.20q is %s: %v", nobody, s.Who, err)
		}
	}
}
