package access

import (
	"strings"
	"sync"
)

// A Policy is who may do what, made of what is written down at one moment. It never
// changes: an edit makes another one. It knows no clock and no files.
//
// Nothing is allowed that no rule allows. What one rule denies is denied, whatever
// others say. What the verbs and resources are called is not its business: they are
// what rules and asks have in common.
type Policy struct {
	roles  map[string]RoleRules
	whole  map[string][]*Binding // by the path of the one identity that a subject is
	begins map[string][]*Binding // by the beginning of paths that a subject stands for
	tokens map[string]*Token     // by id

	mu     sync.RWMutex // guards what follows
	rights map[caller]*Rights
}

// caller is who has rights: an identity, or who presents a token.
type caller struct {
	identity Identity
	token    string // its id; "" = none
}

// rightsMax bounds the callers whose rights are kept at hand. Beyond that it begins anew.
const rightsMax = 16_384

// Written is what a policy is made of.
type Written struct {
	Roles    []RoleRules
	Bindings []Binding
	Tokens   []Token
}

// RoleRules is what those may do who have a role.
type RoleRules struct {
	Name  string
	Rules []Rule
}

// A Rule allows or denies. "*" in a list, or at the end of a pattern, stands for all.
type Rule struct {
	Deny       bool
	Verbs      []string
	Resources  []string
	Namespaces []string // patterns, or Own
	Services   []string // patterns; none = all
}

// Own stands in a rule for the namespace of whoever asks: that of a workload, or the one
// that a token is narrowed to. For others it is about nothing.
const Own = "{own}"

// A Binding gives roles to identities.
type Binding struct {
	Name     string
	Roles    []string
	Subjects []string
}

// NewPolicy puts together what is written down.
func NewPolicy(w Written) *Policy {
	p := &Policy{
		roles: make(map[string]RoleRules, len(w.Roles)), tokens: make(map[string]*Token, len(w.Tokens)),
		whole: make(map[string][]*Binding), begins: make(map[string][]*Binding), rights: make(map[caller]*Rights),
	}
	for _, r := range w.Roles {
		p.roles[r.Name] = r
	}
	for i := range w.Bindings {
		b := &w.Bindings[i]
		for _, s := range b.Subjects {
			if beginning, all := strings.CutSuffix(s, "*"); all {
				p.begins[beginning] = append(p.begins[beginning], b)
			} else {
				p.whole[s] = append(p.whole[s], b)
			}
		}
	}
	for i := range w.Tokens {
		p.tokens[w.Tokens[i].ID] = &w.Tokens[i]
	}
	return p
}

// bindings are those that are about an identity. The cost is that of its path,
// however many there are.
func (p *Policy) bindings(id Identity) []*Binding {
	if id.Role == "" {
		return nil
	}
	var out []*Binding
	for _, path := range [...]string{"/" + id.path(), id.String()} {
		out = append(out, p.whole[path]...)
		for at := range len(path) {
			if path[at] == '/' {
				out = append(out, p.begins[path[:at+1]]...)
			}
		}
	}
	return out
}

// Of is what an identity may do. Of nobody it is nothing.
func (p *Policy) Of(id Identity) *Rights {
	return p.kept(caller{identity: id}, func() *Rights {
		r, given := newRights(id.String(), id.Namespace), make(map[string]bool)
		for _, b := range p.bindings(id) {
			for _, role := range b.Roles {
				if !given[role] { // twice is no more than once, and takes twice as long to ask
					r.add(p.roles[role], "binding "+b.Name)
				}
				given[role] = true
			}
		}
		return r.seal()
	})
}

// kept makes rights once, as long as there is room.
func (p *Policy) kept(c caller, build func() *Rights) *Rights {
	p.mu.RLock()
	r := p.rights[c]
	p.mu.RUnlock()
	if r != nil {
		return r
	}
	r = build()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rights) >= rightsMax {
		clear(p.rights)
	}
	p.rights[c] = r
	return r
}
