package access

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// An Ask is one thing that somebody wants to do.
type Ask struct {
	Verb      string
	Resource  string
	Namespace string // "" = it is of the whole cluster: only a rule for all namespaces is about it
	Service   string // "" = it is of no service: a rule for some services is not about it
}

// String is as people say it: "read policies of service orders in namespace prod".
func (a Ask) String() string {
	text := a.Verb + " " + a.Resource
	if a.Service != "" {
		text += " of service " + a.Service
	}
	if a.Namespace != "" {
		text += " in namespace " + a.Namespace
	}
	return text
}

// Rights are what one caller may do, by one policy. Of nil, it is nothing.
type Rights struct {
	who    string
	own    string // the namespace that is the caller's own; "" = none
	denies ruleSet
	allows ruleSet
	scope  *compiled // nothing beyond it; nil = it is not narrowed
	given  []GivenRole
	stamp  string
	rules  []*compiled // in the order of their coming, until seal
}

// A ruleSet is rules by the resource that they are about.
type ruleSet struct {
	of  map[string][]*compiled
	any []*compiled // about all resources
}

// A compiled rule is one for a caller: whose own namespace it is about is settled.
type compiled struct {
	deny                 bool
	verbs, resources     []string // nil = all
	namespaces, services []string // patterns; nil = all

	from Ground
}

// A Ground is the rule that something is decided by.
type Ground struct {
	Rule int // of the role, from 1
	Role string
	By   string // what gives the role: "binding teams", "token 0badc0de"
}

func (g Ground) rule() string { return fmt.Sprintf("rule %d of role %s", g.Rule, g.Role) }

// String is as people say it.
func (g Ground) String() string { return g.rule() + ", by " + g.By }

// A GivenRole is a role that somebody has, and what gives it to him.
type GivenRole struct{ Role, By string }

func newRights(who, own string) *Rights {
	return &Rights{who: who, own: own, denies: ruleSet{of: make(map[string][]*compiled)}, allows: ruleSet{of: make(map[string][]*compiled)}}
}

// add gives the caller a role. Of one that is not there, it is nothing.
func (r *Rights) add(role RoleRules, by string) {
	if role.Name != "" {
		r.given = append(r.given, GivenRole{role.Name, by})
	}
	for i := range role.Rules {
		one := compile(&role.Rules[i], r.own)
		one.from = Ground{i + 1, role.Name, by}
		one.deny = role.Rules[i].Deny
		r.rules = append(r.rules, one)
		if one.deny {
			r.denies.add(one)
		} else {
			r.allows.add(one)
		}
	}
}

// seal stamps the rights when all of them are there. By which roles, bindings and tokens
// somebody has them is left out: a thousand proxies, each with a token of its own, share
// what is made for those who may the same.
func (r *Rights) seal() *Rights {
	var rules []string
	for _, c := range r.rules {
		rules = append(rules, c.text())
	}
	slices.Sort(rules)
	if r.scope != nil {
		rules = append(rules, "within "+r.scope.text())
	}
	digest := sha256.Sum256([]byte(strings.Join(slices.Compact(rules), "\n")))
	r.rules, r.stamp = nil, hex.EncodeToString(digest[:])
	return r
}

// text is the same for rules that say the same.
func (c *compiled) text() string {
	return fmt.Sprintf("%t %q %q %q %q", c.deny, listed(c.verbs), listed(c.resources), listed(c.namespaces), listed(c.services))
}

// listed tells all from nothing.
func listed(list []string) []string {
	if list == nil {
		return []string{"*"}
	}
	return list
}

// Stamp is the same for the same rights, by whatever policy; "" of nobody's.
func (r *Rights) Stamp() string {
	if r == nil {
		return ""
	}
	return r.stamp
}

func (s *ruleSet) add(c *compiled) {
	if c.resources == nil {
		s.any = append(s.any, c)
	}
	for _, resource := range c.resources {
		s.of[resource] = append(s.of[resource], c)
	}
}

// compile settles a rule for somebody. A rule for the own namespace of one who has
// none is about no namespace.
func compile(r *Rule, own string) *compiled {
	c := &compiled{verbs: unlessAll(r.Verbs), resources: unlessAll(r.Resources), services: unlessAll(r.Services)}
	if len(r.Services) == 0 {
		c.services = nil
	}
	if c.namespaces = unlessAll(r.Namespaces); slices.Contains(c.namespaces, Own) {
		c.namespaces = slices.DeleteFunc(slices.Clone(c.namespaces), func(n string) bool { return n == Own })
		if own != "" {
			c.namespaces = append(c.namespaces, own)
		}
	}
	return c
}

// unlessAll is nil for a list that has a star, and never for another one: an empty
// list is about nothing.
func unlessAll(list []string) []string {
	if slices.Contains(list, "*") {
		return nil
	}
	return append([]string{}, list...)
}

// Allows says whether the caller may. It is asked of each item of a batch, each
// event of a watch and each name of a subscription: it allocates nothing.
func (r *Rights) Allows(a Ask) bool {
	return r != nil && r.allows.match(&a) != nil && r.denies.match(&a) == nil && (r.scope == nil || r.scope.matches(&a))
}

// AllowsSome says whether there is any object of the kind for which Allows could be
// true: in the namespace of the ask, or in any where it has none. It is for lists, of
// which every item is asked for besides.
func (r *Rights) AllowsSome(a Ask) bool {
	return r != nil && r.allows.some(&a) && !r.denies.whole(&a) && (r.scope == nil || r.scope.some(&a))
}

func (s *ruleSet) match(a *Ask) *compiled {
	for _, c := range s.any {
		if c.matches(a) {
			return c
		}
	}
	for _, c := range s.of[a.Resource] {
		if c.matches(a) {
			return c
		}
	}
	return nil
}

func (s *ruleSet) some(a *Ask) bool {
	is := func(c *compiled) bool { return c.some(a) }
	return slices.ContainsFunc(s.any, is) || slices.ContainsFunc(s.of[a.Resource], is)
}

// whole says whether a single rule is about every object of the kind.
func (s *ruleSet) whole(a *Ask) bool {
	is := func(c *compiled) bool { return c.whole(a) }
	return slices.ContainsFunc(s.any, is) || slices.ContainsFunc(s.of[a.Resource], is)
}

func (c *compiled) whole(a *Ask) bool {
	return c.does(a) && c.services == nil && (c.namespaces == nil || a.Namespace != "" && fits(c.namespaces, a.Namespace))
}

func (c *compiled) matches(a *Ask) bool {
	return c.does(a) && fits(c.namespaces, a.Namespace) && fits(c.services, a.Service)
}

func (c *compiled) some(a *Ask) bool {
	return c.does(a) && (a.Namespace == "" && (c.namespaces == nil || len(c.namespaces) > 0) || a.Namespace != "" && fits(c.namespaces, a.Namespace))
}

func (c *compiled) does(a *Ask) bool {
	return (c.verbs == nil || slices.Contains(c.verbs, a.Verb)) && (c.resources == nil || slices.Contains(c.resources, a.Resource))
}

// fits says whether a name is one of some patterns; nil is all, and the empty name is in no list.
func fits(patterns []string, name string) bool {
	if patterns == nil {
		return true
	}
	for _, p := range patterns {
		if beginning, open := strings.CutSuffix(p, "*"); p == name || open && name != "" && strings.HasPrefix(name, beginning) {
			return name != ""
		}
	}
	return false
}
