package access

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Nobody gives what he does not have: neither beyond his rules nor beyond his scope, nor
// what he is denied, nor by a rule that denies it to others.
func TestNobodyGivesWhatHeDoesNotHave(t *testing.T) {
	w := Written{
		Roles: []RoleRules{
			{Name: "lead", Rules: []Rule{
				{Verbs: []string{"*"}, Resources: []string{"policies", "instances"}, Namespaces: []string{"prod", "test-*"}},
				{Verbs: []string{"read"}, Resources: []string{"*"}, Namespaces: []string{"*"}},
				{Deny: true, Verbs: []string{"write"}, Resources: []string{"*"}, Namespaces: []string{"prod"}, Services: []string{"ledger*"}},
			}},
			{Name: "admin", Rules: []Rule{{Verbs: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}}}},
		},
		Bindings: []Binding{{Name: "leads", Roles: []string{"lead"}, Subjects: []string{"/operator/lin"}}, {Name: "admins", Roles: []string{"admin"}, Subjects: []string{"/operator/root"}}},
		Tokens:   []Token{{ID: "narrow", Roles: []string{"admin"}, Scope: &Rule{Namespaces: []string{"prod"}}}},
	}
	p := NewPolicy(w)
	lead, admin := p.Of(Identity{TrustDomain: "a.example", Role: RoleOperator, Name: "lin"}), p.Of(Identity{TrustDomain: "a.example", Role: RoleOperator, Name: "root"})
	narrow := p.ofToken(p.tokens["narrow"])
	rule := func(verb, resource, namespace string, services ...string) Rule {
		return Rule{Verbs: []string{verb}, Resources: []string{resource}, Namespaces: []string{namespace}, Services: services}
	}
	denying := rule("write", "snapshots", "*")
	denying.Deny = true
	for name, c := range map[string]struct {
		by    *Rights
		rule  Rule
		scope *Rule
		gives bool
	}{
		"what he has":                       {lead, rule("write", "policies", "test-a"), nil, true},
		"all beginnings of his":             {lead, rule("write", "policies", "test-a*"), nil, true},
		"a verb more":                       {lead, rule("write", "members", "*"), nil, false},
		"all verbs on one":                  {lead, rule("*", "policies", "test-a"), nil, true},
		"all resources":                     {lead, rule("write", "*", "test-a"), nil, false},
		"a namespace more":                  {lead, rule("write", "policies", "test*"), nil, false},
		"all namespaces":                    {lead, rule("write", "policies", "*"), nil, false},
		"what one rule denies a part of":    {lead, rule("write", "policies", "prod"), nil, false},
		"beside what is denied":             {lead, rule("write", "policies", "prod", "orders*"), nil, true},
		"within what is denied":             {lead, rule("write", "policies", "prod", "ledger.db"), nil, false},
		"around what is denied":             {lead, rule("write", "policies", "prod", "l*"), nil, false},
		"too much, narrowed to what he has": {lead, rule("*", "*", "*"), &Rule{Verbs: []string{"read"}}, true},
		"too much, narrowed to too much":    {lead, rule("*", "*", "*"), &Rule{Namespaces: []string{"test-a"}}, false},
		"a namespace that is anybody's own": {lead, rule("write", "policies", Own), nil, false},
		"an own one that is his":            {lead, rule("write", "policies", Own), &Rule{Namespaces: []string{"test-a"}}, true},
		"an own one that is not":            {lead, rule("write", "policies", Own), &Rule{Namespaces: []string{"tools"}}, false},
		"to forbid what he may not":         {lead, denying, nil, false},
		"to forbid what he may":             {admin, denying, nil, true},
		"everything":                        {admin, rule("*", "*", "*"), nil, true},
		"anybody's own, of everything":      {admin, rule("*", "*", Own), nil, true},
		"within his scope":                  {narrow, rule("*", "*", "prod"), nil, true},
		"beyond his scope":                  {narrow, rule("*", "*", "*"), nil, false},
		"nobody's":                          {nil, rule("read", "instances", "prod"), nil, false},
	} {
		lacks := c.by.Lacks(Given([]RoleRules{{Name: "new", Rules: []Rule{c.rule}}}, c.scope))
		if (lacks == "") != c.gives || lacks != "" && lacks != "rule 1 of role new" {
			t.Errorf("%s: lacking is %q", name, lacks)
		}
	}
}

// Whatever somebody gives by chance, a token with it can do nothing that he cannot, and
// keeps others from nothing that he cannot.
func TestGivingAgainstWhatTokensMay(t *testing.T) {
	given := 0
	for seed := range uint64(3_000) {
		d := randomDice(rand.New(rand.NewPCG(seed, 0)))
		w := d.written([32]byte{}, time.Time{})
		t0 := &w.Tokens[0]
		p := NewPolicy(w)
		for _, id := range somebody {
			by, roles := p.Of(id), []RoleRules{}
			for _, name := range t0.Roles {
				roles = append(roles, p.roles[name])
			}
			if by.Lacks(Given(roles, t0.Scope)) != "" {
				continue
			}
			given++
			token := p.ofToken(t0)
			for a := range asks {
				within := token.scope == nil || token.scope.matches(&a)
				if within && (token.allows.match(&a) != nil || token.denies.match(&a) != nil) && !by.Allows(a) {
					t.Fatalf("seed %d: %s gives away what he may not: %s\n%+v", seed, id, a, w)
				}
			}
		}
	}
	if given < 100 {
		t.Fatalf("only %d were given", given)
	}
}
