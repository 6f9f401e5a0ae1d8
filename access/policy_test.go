package access

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/corpus"
)

// The words that random policies and asks are made of: few, so that they meet.
var (
	someVerbs      = []string{"read", "write", "*"}
	someResources  = []string{"instances", "policies", "members", "*"}
	someNamespaces = []string{"prod", "prod-eu", "test", "pro*", "test*", "*", Own}
	someServices   = []string{"orders", "orders.db", "pay", "orders*", "o*", "*"}
	someSubjects   = []string{"/ns/prod/sa/web", "/ns/prod/*", "/ns/*", "/*", "/operator/lin", "/operator/*", "spiffe://a.example/ns/prod/*", "spiffe://b.example/*", "spiffe://a.example/ns/test/sa/web"}
	somebody       = []Identity{
		{}, {TrustDomain: "a.example", Role: RoleWorkload, Namespace: "prod", Name: "web"}, {TrustDomain: "b.example", Role: RoleWorkload, Namespace: "prod", Name: "db"},
		{TrustDomain: "a.example", Role: RoleWorkload, Namespace: "test", Name: "web"}, {TrustDomain: "a.example", Role: RoleOperator, Name: "lin"},
		{TrustDomain: "a.example", Role: RolePeer, Region: "prod", PeerID: 1}, {TrustDomain: "b.example", Role: RoleReplicator, Region: "cn"},
	}
)

// A dice makes policies and asks, from chance or from the input of a fuzz test.
type dice struct{ next func(n int) int }

func randomDice(random *rand.Rand) dice { return dice{random.IntN} }

func bytesDice(b []byte) dice {
	return dice{func(n int) int {
		if len(b) == 0 {
			return 0
		}
		one := int(b[0])
		b = b[1:]
		return one % n
	}}
}

func (d dice) some(words []string, least int) []string {
	var out []string
	for range least + d.next(3) {
		out = append(out, words[d.next(len(words))])
	}
	return out
}

func (d dice) rule() Rule {
	return Rule{Deny: d.next(4) == 0, Verbs: d.some(someVerbs, 1), Resources: d.some(someResources, 1), Namespaces: d.some(someNamespaces, 1), Services: d.some(someServices, 0)}
}

func (d dice) written(hash [32]byte, expires time.Time) Written {
	var w Written
	for i := range 3 {
		role := RoleRules{Name: fmt.Sprint("r", i)}
		for range d.next(4) {
			role.Rules = append(role.Rules, d.rule())
		}
		w.Roles = append(w.Roles, role)
	}
	names := []string{"r0", "r1", "r2", "r3"} // of which one is not there
	for i := range d.next(4) {
		w.Bindings = append(w.Bindings, Binding{Name: fmt.Sprint("b", i), Roles: d.some(names, 1), Subjects: d.some(someSubjects, 1)})
	}
	t := Token{ID: strings.Repeat("0", 2*tokenIDBytes), Hash: hash, Roles: d.some(names, 1), Expires: expires}
	if d.next(2) == 0 {
		t.Scope = &Rule{Verbs: d.some(someVerbs, 0), Resources: d.some(someResources, 0), Namespaces: d.some(someNamespaces, 0), Services: d.some(someServices, 0)}
	}
	if d.next(2) == 0 {
		t.Holder = someSubjects[d.next(len(someSubjects))]
	}
	w.Tokens = []Token{t}
	return w
}

// asks are all that the words can make.
func asks(yield func(Ask) bool) {
	for _, verb := range []string{"read", "write", "fly"} {
		for _, resource := range []string{"instances", "policies", "members"} {
			for _, namespace := range []string{"", "prod", "prod-eu", "test", "other"} {
				for _, service := range []string{"", "orders", "orders.db", "pay", "o"} {
					if !yield(Ask{verb, resource, namespace, service}) {
						return
					}
				}
			}
		}
	}
}

// naive reads the policy as the page about it says, rule after rule.
type naive struct{ w Written }

func naivePattern(pattern, name string) bool {
	if pattern == "*" {
		return true
	}
	if strings.HasSuffix(pattern, "*") {
		return name != "" && strings.HasPrefix(name, pattern[:len(pattern)-1])
	}
	return name != "" && pattern == name
}

func naiveRule(r Rule, a Ask, own string, emptyIsAll bool) bool {
	holds := func(list []string, name string, isEmptyAll bool) bool {
		if len(list) == 0 {
			return isEmptyAll
		}
		for _, p := range list {
			if p == Own {
				if own != "" && name == own {
					return true
				}
			} else if naivePattern(p, name) {
				return true
			}
		}
		return false
	}
	return holds(r.Verbs, a.Verb, emptyIsAll) && holds(r.Resources, a.Resource, emptyIsAll) && holds(r.Namespaces, a.Namespace, emptyIsAll) && holds(r.Services, a.Service, true)
}

func naiveSubject(subject string, id Identity) bool {
	uri := id.String()
	if uri == "nobody" {
		return false
	}
	path := strings.TrimPrefix(uri, "spiffe://"+id.TrustDomain)
	return naivePattern(subject, uri) || naivePattern(subject, path)
}

func (n naive) judge(roles []string, a Ask, own string) bool {
	allowed := false
	for _, role := range n.w.Roles {
		for _, name := range roles {
			if name != role.Name {
				continue
			}
			for _, rule := range role.Rules {
				if naiveRule(rule, a, own, false) {
					if rule.Deny {
						return false
					}
					allowed = true
				}
			}
		}
	}
	return allowed
}

func (n naive) identity(id Identity, a Ask) bool {
	var roles []string
	for _, b := range n.w.Bindings {
		for _, s := range b.Subjects {
			if naiveSubject(s, id) {
				roles = append(roles, b.Roles...)
			}
		}
	}
	// A deny of one role is stronger than what another allows, whichever comes first.
	return n.judge(roles, a, id.Namespace) && n.undenied(roles, a, id.Namespace)
}

func (n naive) undenied(roles []string, a Ask, own string) bool {
	for _, role := range n.w.Roles {
		for _, name := range roles {
			for _, rule := range role.Rules {
				if name == role.Name && rule.Deny && naiveRule(rule, a, own, false) {
					return false
				}
			}
		}
	}
	return true
}

func (n naive) token(a Ask) bool {
	t, own := n.w.Tokens[0], ""
	if t.Scope != nil && len(t.Scope.Namespaces) == 1 && t.Scope.Namespaces[0] != Own && !strings.Contains(t.Scope.Namespaces[0], "*") {
		own = t.Scope.Namespaces[0]
	}
	return n.judge(t.Roles, a, own) && n.undenied(t.Roles, a, own) && (t.Scope == nil || naiveRule(*t.Scope, a, "", true))
}

// check holds a policy against the naive reading of it, for everybody and everything.
func check(t *testing.T, d dice) {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	_, text, hash, err := DrawToken(strings.NewReader(strings.Repeat("\x00", 64)))
	if err != nil {
		t.Fatal(err)
	}
	w := d.written(hash, now.Add(time.Second))
	p, model := NewPolicy(w), naive{w}
	for _, id := range somebody {
		same(t, w, p.Of(id), func(a Ask) bool { return model.identity(id, a) })
		rights, err := p.OfToken(text, id, now)
		if held := w.Tokens[0].Holder == "" || naiveSubject(w.Tokens[0].Holder, id); held != (err == nil) {
			t.Fatalf("%+v: %s presents the token: %v", w, id, err)
		}
		if err == nil {
			same(t, w, rights, model.token)
		}
	}
	if _, err := p.OfToken(text, somebody[1], now.Add(time.Second)); err == nil {
		t.Fatal("a token that has expired is good")
	}
}

func same(t *testing.T, w Written, r *Rights, want func(Ask) bool) {
	t.Helper()
	for a := range asks {
		got, explained := r.Allows(a), r.Explain(a)
		if got != want(a) || explained.Allowed != got {
			t.Fatalf("%+v\n%s: %s: allowed %v, explained by %q, want %v", w, r.Who(), a, got, explained.Reason, want(a))
		}
		if got && !(r.AllowsSome(a) && r.AllowsSome(Ask{Verb: a.Verb, Resource: a.Resource, Namespace: a.Namespace}) && r.AllowsSome(Ask{Verb: a.Verb, Resource: a.Resource})) {
			t.Fatalf("%+v\n%s: %s is allowed, and a list that would have it is not", w, r.Who(), a)
		}
	}
}

// A policy allows what a naive reading of it would allow, and no more.
func TestPoliciesAgainstANaiveReading(t *testing.T) {
	for seed := range uint64(60) {
		check(t, randomDice(rand.New(rand.NewPCG(seed, 0))))
	}
}

func FuzzPolicy(f *testing.F) {
	corpus.Add(f, "nothing", []byte{})
	corpus.Add(f, "a few rules", []byte("\x03\x01\x00\x01\x02\x00\x04\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"))
	f.Fuzz(func(t *testing.T, b []byte) { check(t, bytesDice(b)) })
}

// What nobody has said is allowed to nobody.
func TestNothingIsAllowedByDefault(t *testing.T) {
	for _, r := range []*Rights{nil, NewPolicy(Written{}).Of(Identity{}), NewPolicy(Written{}).Of(somebody[1])} {
		if a := (Ask{Verb: "read", Resource: "instances", Namespace: "prod"}); r.Allows(a) || r.AllowsSome(a) || r.Explain(a).Allowed {
			t.Errorf("%s may %s", r.Who(), a)
		}
	}
}

// An explanation names the rule that decides.
func TestAnExplanationNamesTheRule(t *testing.T) {
	p := NewPolicy(Written{
		Roles: []RoleRules{
			{Name: "team", Rules: []Rule{{Verbs: []string{"*"}, Resources: []string{"policies"}, Namespaces: []string{Own}}}},
			{Name: "freeze", Rules: []Rule{{Deny: true, Verbs: []string{"write"}, Resources: []string{"*"}, Namespaces: []string{"*"}, Services: []string{"ledger*"}}}},
		},
		Bindings: []Binding{{Name: "teams", Roles: []string{"team"}, Subjects: []string{"/ns/*"}}, {Name: "night", Roles: []string{"freeze"}, Subjects: []string{"/*"}}},
	})
	r := p.Of(somebody[1])
	for _, c := range []struct {
		ask  Ask
		want string
	}{
		{Ask{"write", "policies", "prod", "orders"}, "spiffe://a.example/ns/prod/sa/web may write policies of service orders in namespace prod: rule 1 of role team, by binding teams allows it"},
		{Ask{"write", "policies", "prod", "ledger.db"}, "spiffe://a.example/ns/prod/sa/web may not write policies of service ledger.db in namespace prod: rule 1 of role freeze, by binding night denies it, and what one rule denies is denied"},
		{Ask{"write", "policies", "test", "orders"}, "spiffe://a.example/ns/prod/sa/web may not write policies of service orders in namespace test: no rule of any of its roles allows it"},
	} {
		if got := r.Explain(c.ask).Reason; got != c.want {
			t.Errorf("%s\n is explained by %s\nwant            %s", c.ask, got, c.want)
		}
	}
}

// A token is good to the letter, and as long as its time lasts.
func TestATokenIsGoodToTheLetter(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	id, text, hash, err := DrawToken(random)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	p := NewPolicy(Written{Tokens: []Token{{ID: id, Hash: hash, Expires: now.Add(time.Hour)}}})
	if _, err := p.OfToken(text, Identity{}, now); err != nil || TokenID(text) != id {
		t.Fatalf("the token itself: %v", err)
	}
	wrong := []string{"", text + " ", text + "0", text[1:], strings.ToUpper(text), " " + text, id, "smt_" + id, "smt_" + id + "_"}
	for i := range text {
		b := []byte(text)
		b[i] ^= 1
		wrong = append(wrong, string(b))
	}
	other := text[:len(text)-2*tokenSumBytes-1] + "x"
	wrong = append(wrong, other+sumOf(other)) // whole, and of another secret
	for i, other := range wrong {
		if _, err := p.OfToken(other, Identity{}, now); err != ErrToken {
			t.Errorf("%q is taken for %q: %v", other, text, err)
		}
		if i < len(wrong)-1 && TokenID(other) != "" {
			t.Errorf("%q passes for whole", other)
		}
	}
	if _, _, _, err := DrawToken(strings.NewReader("short of chance")); err == nil {
		t.Error("a token was drawn without enough chance")
	}
}

// What makes the first token is told from a part of it, and from a token.
func TestABootstrapTokenIsWhole(t *testing.T) {
	text, err := DrawBootstrap(rand.NewChaCha8([32]byte{2}))
	if err != nil || !IsBootstrap(text) || TokenID(text) != "" {
		t.Fatalf("%q: %v", text, err)
	}
	_, token, _, err := DrawToken(rand.NewChaCha8([32]byte{2}))
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"", token, text[1:], text[:len(text)-1], text + "0", strings.ToUpper(text), text[:10] + "x" + text[11:]} {
		if IsBootstrap(other) {
			t.Errorf("%q passes for one", other)
		}
	}
	if _, err := DrawBootstrap(strings.NewReader("short of chance")); err == nil {
		t.Error("one was drawn without enough chance")
	}
}

// The rights that are kept at hand are bounded, however many callers there are.
func TestRightsAtHandAreBounded(t *testing.T) {
	p := NewPolicy(Written{})
	for i := range rightsMax + 1 {
		p.Of(Identity{TrustDomain: "a.example", Role: RoleOperator, Name: fmt.Sprint(i)})
	}
	if len(p.rights) != 1 {
		t.Errorf("%d rights are kept", len(p.rights))
	}
}

// What is asked of every item costs no allocation.
func TestAsksAllocateNothing(t *testing.T) {
	p, a := benchPolicy()
	id := somebody[1]
	if n := testing.AllocsPerRun(100, func() { p.Of(id).Allows(a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchPolicy() (*Policy, Ask) {
	w := Written{Roles: []RoleRules{{Name: "deny", Rules: []Rule{{Deny: true, Verbs: []string{"write"}, Resources: []string{"policies"}, Namespaces: []string{"*"}, Services: []string{"ledger*"}}}}}}
	for i := range 1000 {
		name := fmt.Sprint("r", i)
		w.Roles = append(w.Roles, RoleRules{Name: name, Rules: []Rule{{Verbs: []string{"read", "write"}, Resources: []string{"instances", "policies"}, Namespaces: []string{"other", "prod"}, Services: []string{"pay", "orders*"}}}})
		w.Bindings = append(w.Bindings, Binding{Name: name, Roles: []string{name, "deny"}, Subjects: []string{fmt.Sprintf("/ns/n%d/*", i)}})
	}
	w.Bindings = append(w.Bindings, Binding{Name: "mine", Roles: []string{"r1", "r2", "r3", "deny"}, Subjects: []string{"/ns/prod/*"}})
	return NewPolicy(w), Ask{"write", "policies", "prod", "orders.db"}
}

func BenchmarkAllows(b *testing.B) {
	p, a := benchPolicy()
	id := somebody[1]
	b.ReportAllocs()
	for b.Loop() {
		if !p.Of(id).Allows(a) {
			b.Fatal("denied")
		}
	}
}
