package main

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// What is written down in the registry is what access decides by: the roles that are
// there from the beginning, at once, and each edit from the revision on that has it.
func TestPoliciesFollowWhatIsWrittenDown(t *testing.T) {
	clock := registrytest.StillClock{}
	log := registrytest.NewLog(t, clock.Now)
	member := log.NewMember(registry.MachineConfig{Region: "here"})
	log.Begin()
	r := registry.New(registry.Config{Machine: member.Machine, Replicator: member, Clock: clock})
	p := &policies{machine: member.Machine}
	ctx := context.Background()

	web := access.Identity{TrustDomain: "a.example", Role: access.RoleWorkload, Namespace: "prod", Name: "web"}
	register := access.Ask{Verb: "register", Resource: "instances", Namespace: "prod", Service: "orders"}
	for _, c := range []struct {
		who  access.Identity
		ask  access.Ask
		want bool
	}{
		{web, register, true},
		{web, access.Ask{Verb: "register", Resource: "instances", Namespace: "test", Service: "orders"}, false},
		{web, access.Ask{Verb: "write", Resource: "policies", Namespace: "prod", Service: "orders"}, false},
		{web, access.Ask{Verb: "read", Resource: "members"}, false},
		{access.Identity{TrustDomain: "a.example", Role: access.RoleOperator, Name: "lin"}, access.Ask{Verb: "write", Resource: "members"}, true},
		{access.Identity{TrustDomain: "a.example", Role: access.RoleReplicator, Region: "b"}, access.Ask{Verb: "read", Resource: "replication"}, true},
		{access.Identity{TrustDomain: "a.example", Role: access.RoleReplicator, Region: "b"}, register, false},
		{access.Identity{TrustDomain: "a.example", Role: access.RolePeer, Region: "b", PeerID: 1}, access.Ask{Verb: "write", Resource: "access"}, false},
		{access.Identity{}, register, false},
	} {
		if d := p.now().policy.Of(c.who).Explain(c.ask); d.Allowed != c.want {
			t.Errorf("%s", d.Reason)
		}
	}

	before := p.now()
	if again := p.now(); again != before {
		t.Error("a policy was made anew though nothing had changed")
	}
	freeze := registry.Role{Rules: []registry.Rule{{Deny: true, Verbs: []registry.Verb{registry.VerbRegister}, Resources: []registry.Resource{"*"}, Namespaces: []string{"*"}}}}
	if _, err := r.PutRole(ctx, "", "freeze", freeze, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutBinding(ctx, "", "night", registry.Binding{Roles: []string{"freeze"}, Subjects: []string{"/ns/*"}}, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
	if p.now().policy.Of(web).Allows(register) {
		t.Error("what was denied since is allowed still")
	}

	id, text, hash, err := access.DrawToken(rand.NewChaCha8([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	grant := registry.TokenGrant{ID: id, Hash: hash, Roles: []string{registry.RoleWorkload}, Scope: &registry.Rule{Namespaces: []string{"prod"}}, TTLSeconds: 60}
	if _, _, err := r.GrantToken(ctx, "", grant); err != nil {
		t.Fatal(err)
	}
	rights, err := p.now().policy.OfToken(text, access.Identity{}, clock.Now())
	if err != nil || !rights.Allows(register) || rights.Allows(access.Ask{Verb: "register", Resource: "instances", Namespace: "test", Service: "orders"}) {
		t.Errorf("the token: %v, %v", err, rights.Explain(register))
	}
	if _, err := p.now().policy.OfToken(text, access.Identity{}, clock.Now().Add(time.Minute)); err == nil {
		t.Error("the token is good after its time")
	}
	if _, err := r.RevokeToken(ctx, "", id); err != nil {
		t.Fatal(err)
	}
	if _, err := p.now().policy.OfToken(text, access.Identity{}, clock.Now()); err == nil {
		t.Error("the token is good though it was revoked")
	}
}
