package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// A Verb is what somebody does. All surfaces speak of the same ones.
type Verb string

// The verbs.
const (
	VerbRead       Verb = "read"       // to see, to list, to watch, to subscribe to
	VerbRegister   Verb = "register"   // to register an instance, or to change what is registered; to be taken in as a member; to make an access token
	VerbRenew      Verb = "renew"      // to say that an instance lives
	VerbDeregister Verb = "deregister" // to remove an instance; to revoke an access token
	VerbDrain      Verb = "drain"      // to have callers leave an instance, or come back
	VerbReport     Verb = "report"     // to say how calls went
	VerbOverride   Verb = "override"   // to say by hand how an instance is, or to act on it without its lease token
	VerbWrite      Verb = "write"      // to edit, to make, to end: of everything but instances
)

// A Resource is a kind of thing that something is done to.
type Resource string

// The resources. Those below the line are of the whole cluster: they are in no
// namespace, and only a rule for all namespaces is about them.
const (
	ResourceInstances   Resource = "instances"
	ResourceServices    Resource = "services"
	ResourcePolicies    Resource = "policies"
	ResourceUpstreams   Resource = "upstreams"
	ResourceNamespaces  Resource = "namespaces"
	ResourceProtections Resource = "protections"
	ResourceProxies     Resource = "proxies" // what proxies have and report, with what it is made of
	// ----
	ResourceLeases      Resource = "leases" // that instances share; each has a token of its own beside
	ResourceRegions     Resource = "regions"
	ResourceMembers     Resource = "members" // and how the cluster is
	ResourceSnapshots   Resource = "snapshots"
	ResourceReplication Resource = "replication" // all that another region has a copy of
	ResourceAccess      Resource = "access"      // roles and bindings, and what others may
	ResourceTokens      Resource = "tokens"      // access tokens
	ResourceMetrics     Resource = "metrics"
	ResourceDebug       Resource = "debug" // what a process tells of itself: profiles
)

var (
	verbs = []Verb{VerbRead, VerbRegister, VerbRenew, VerbDeregister, VerbDrain, VerbReport, VerbOverride, VerbWrite}

	resources = []Resource{
		ResourceInstances, ResourceServices, ResourcePolicies, ResourceUpstreams, ResourceNamespaces, ResourceProtections, ResourceProxies,
		ResourceLeases, ResourceRegions, ResourceMembers, ResourceSnapshots, ResourceReplication, ResourceAccess, ResourceTokens, ResourceMetrics, ResourceDebug,
	}
)

// A Role is what those may do who have it: what one of its rules allows and none of
// any of their roles denies.
type Role struct {
	Description string `json:"description,omitempty"`
	Rules       []Rule `json:"rules"`
}

// A Rule allows, or denies, verbs on resources.
type Rule struct {
	Deny       bool       `json:"deny,omitempty"`
	Verbs      []Verb     `json:"verbs"`              // "*" = all
	Resources  []Resource `json:"resources"`          // "*" = all
	Namespaces []string   `json:"namespaces"`         // patterns
	Services   []string   `json:"services,omitempty"` // patterns; none = all, and what is of no service
}

// OwnNamespace stands in a rule for the namespace of whoever asks: that in a workload's
// identity, or the one that a token is narrowed to. For others it is about nothing.
const OwnNamespace = "{own}"

// The bounds of roles and bindings.
const (
	rolesMax         = 1_024
	bindingsMax      = 16_384
	rulesMax         = 64
	patternsMax      = 64       // in each list of a rule
	accessBytesMax   = 16 << 10 // of a role, a binding, or the scope of a token: all are in memory, and each edit is kept for a while
	namespacePattern = "a namespace, the beginning of names and '*', '*' alone for all, or " + OwnNamespace + " for that of whoever asks"
	servicePattern   = "a service, the beginning of names and '*', or '*' alone for all"
)

// builtInPrefix heads the names of roles that are there from the beginning. No
// document has such a name.
const builtInPrefix = "system:"

// The roles that are there from the beginning.
const (
	RoleAdmin      = builtInPrefix + "admin"      // anything
	RoleReader     = builtInPrefix + "reader"     // to see what is registered and written down, everywhere
	RoleWorkload   = builtInPrefix + "workload"   // of a process of the mesh: its namespace
	RoleMember     = builtInPrefix + "member"     // of a member: what members ask of each other beside Raft
	RoleReplicator = builtInPrefix + "replicator" // to have a copy of the region
)

// all is what a list has that leaves nothing out.
const all = "*"

// builtIns never change: a version that changes one says so in the changelog.
var builtIns = []NamedRole{
	{Name: RoleAdmin, BuiltIn: true, Role: Role{
		Description: "administers: may do anything",
		Rules:       []Rule{{Verbs: []Verb{all}, Resources: []Resource{all}, Namespaces: []string{all}}},
	}},
	{Name: RoleMember, BuiltIn: true, Role: Role{
		Description: "a member of the cluster: to be taken in, and to tell the others what its clients ask for",
		Rules: []Rule{
			{Verbs: []Verb{VerbRead, VerbRegister}, Resources: []Resource{ResourceMembers}, Namespaces: []string{all}},
			{Verbs: []Verb{VerbRead}, Resources: []Resource{ResourceReplication, ResourceProxies}, Namespaces: []string{all}},
		},
	}},
	{Name: RoleReader, BuiltIn: true, Role: Role{
		Description: "sees what is registered and written down in all namespaces, and how the cluster is",
		Rules: []Rule{{Verbs: []Verb{VerbRead}, Namespaces: []string{all}, Resources: []Resource{
			ResourceInstances, ResourceServices, ResourcePolicies, ResourceUpstreams, ResourceNamespaces, ResourceProtections, ResourceProxies,
			ResourceRegions, ResourceMembers, ResourceMetrics,
		}}},
	}},
	{Name: RoleReplicator, BuiltIn: true, Role: Role{
		Description: "keeps a copy of what the region tells other regions",
		Rules:       []Rule{{Verbs: []Verb{VerbRead}, Resources: []Resource{ResourceReplication}, Namespaces: []string{all}}},
	}},
	{Name: RoleWorkload, BuiltIn: true, Role: Role{
		Description: "a process of the mesh: registers in its own namespace, and sees that one",
		Rules: []Rule{
			{Verbs: []Verb{VerbRead, VerbRegister, VerbRenew, VerbDeregister, VerbDrain, VerbReport}, Resources: []Resource{ResourceInstances}, Namespaces: []string{OwnNamespace}},
			{Verbs: []Verb{VerbRead}, Resources: []Resource{ResourceServices, ResourcePolicies, ResourceUpstreams, ResourceNamespaces}, Namespaces: []string{OwnNamespace}},
			{Verbs: []Verb{VerbReport}, Resources: []Resource{ResourceProxies}, Namespaces: []string{OwnNamespace}},
			{Verbs: []Verb{VerbWrite, VerbRenew}, Resources: []Resource{ResourceLeases}, Namespaces: []string{all}}, // by its token
		},
	}},
}

// BuiltInRoles are the roles that are there from the beginning, by name.
func BuiltInRoles() []NamedRole { return slices.Clone(builtIns) }

func (r Role) normalize(bad *problems) Role {
	r.Description = saidText(r.Description, "description", descriptionBytesMax, bad)
	if len(r.Rules) > rulesMax {
		bad.add("rules", fmt.Sprintf("has %d rules: at most %d", len(r.Rules), rulesMax))
		return r
	}
	rules := make([]Rule, 0, len(r.Rules))
	for i, one := range r.Rules {
		rules = append(rules, one.normalize(fmt.Sprintf("rules[%d].", i), true, bad))
	}
	r.Rules = rules
	if n := len(encodedRole(&r)); n > accessBytesMax {
		bad.add("rules", fmt.Sprintf("take %d bytes: at most %d, divide them between two roles", n, accessBytesMax))
	}
	return r
}

// normalize is of a rule of a role, or of what narrows a token: there a list that is empty narrows nothing.
func (r Rule) normalize(at string, whole bool, bad *problems) Rule {
	r.Verbs = normalizeWords(r.Verbs, verbs, at+"verbs", whole, bad)
	r.Resources = normalizeWords(r.Resources, resources, at+"resources", whole, bad)
	r.Namespaces = checkedPatterns(r.Namespaces, at+"namespaces", whole, isNamespacePattern, namespacePattern, bad)
	r.Services = checkedPatterns(r.Services, at+"services", false, isServicePattern, servicePattern, bad)
	return r
}

// normalizeWords checks a list of words that are all known.
func normalizeWords[W ~string](given, known []W, field string, needed bool, bad *problems) []W {
	if len(given) == 0 && needed {
		bad.add(field, fmt.Sprintf("is missing: some of %s, or %q", joined(known), all))
	}
	if len(given) > len(known) {
		bad.add(field, fmt.Sprintf("has %d words: there are %d, each to be said once, or %q for all", len(given), len(known), all))
		return nil
	}
	var out []W
	for i, word := range given {
		word = W(strings.TrimSpace(string(word)))
		if word != all && !slices.Contains(known, word) {
			bad.add(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%s is not known: one of %s, or %q", quoted(string(word)), joined(known), all))
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func joined[W ~string](words []W) string {
	var texts []string
	for _, w := range words {
		texts = append(texts, string(w))
	}
	return strings.Join(texts, ", ")
}

func checkedPatterns(given []string, field string, needed bool, is func(string) bool, rule string, bad *problems) []string {
	if len(given) == 0 && needed {
		bad.add(field, "is missing: "+rule)
	}
	if len(given) > patternsMax {
		bad.add(field, fmt.Sprintf("has %d patterns: at most %d", len(given), patternsMax))
		return nil
	}
	var out []string
	for i, p := range given {
		p = strings.TrimSpace(p)
		if !is(p) {
			bad.add(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%s is no pattern: %s", quoted(p), rule))
		}
		out = append(out, p)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func isNamespacePattern(p string) bool { return p == OwnNamespace || isPattern(p, "-_") }

func isServicePattern(p string) bool { return isPattern(p, ".-_") }

func isPattern(p, marks string) bool {
	beginning, open := strings.CutSuffix(p, all)
	if !open {
		return isName(p, marks)
	}
	return beginning == "" || len(beginning) <= nameBytesMax && isAlphanumeric(beginning[0]) && consistsOf(beginning, marks)
}

// normalizeRoleName is of a role that is written down.
func normalizeRoleName(text string, bad *problems) string {
	name := strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(name, builtInPrefix):
		bad.add("role", fmt.Sprintf("%s is not to be edited: roles of %s are there from the beginning; write another one", quoted(name), builtInPrefix))
	case !isName(name, ".-_"):
		bad.add("role", fmt.Sprintf("%s is not allowed: %s", quoted(name), nameRule))
	}
	return name
}

// normalizeRoleNames is of roles that are given to somebody. One that is written down
// need not be there: until it is, it allows nothing.
func normalizeRoleNames(given []string, bad *problems) []string {
	if len(given) == 0 || len(given) > patternsMax {
		bad.add("roles", fmt.Sprintf("has %d names: 1 to %d", len(given), patternsMax))
		return nil
	}
	var out []string
	for i, name := range given {
		name = strings.TrimSpace(name)
		if at := fmt.Sprintf("roles[%d]", i); strings.HasPrefix(name, builtInPrefix) && !slices.ContainsFunc(builtIns, func(r NamedRole) bool { return r.Name == name }) {
			bad.add(at, fmt.Sprintf("%s is not known: %s", quoted(name), builtInNames()))
		} else if !strings.HasPrefix(name, builtInPrefix) && !isName(name, ".-_") {
			bad.add(at, fmt.Sprintf("%s is not allowed: %s, or %s", quoted(name), nameRule, builtInNames()))
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func builtInNames() string {
	var names []string
	for _, r := range builtIns {
		names = append(names, r.Name)
	}
	return "one of " + strings.Join(names, ", ")
}

func (r *Role) record() *recordv1.Role {
	if r == nil {
		return nil
	}
	record := &recordv1.Role{Description: r.Description}
	for i := range r.Rules {
		record.Rules = append(record.Rules, r.Rules[i].record())
	}
	return record
}

func (r *Rule) record() *recordv1.Rule {
	if r == nil {
		return nil
	}
	return &recordv1.Rule{Deny: r.Deny, Verbs: texts(r.Verbs), Resources: texts(r.Resources), Namespaces: r.Namespaces, Services: r.Services}
}

// texts are words as a record has them, or the other way.
func wordsOf[To, From ~string](words []From) []To {
	var out []To
	for _, w := range words {
		out = append(out, To(w))
	}
	return out
}

func texts[W ~string](words []W) []string { return wordsOf[string](words) }

func roleOfRecord(record *recordv1.Role) *Role {
	if record == nil {
		return nil
	}
	r := &Role{Description: record.GetDescription(), Rules: []Rule{}}
	for _, one := range record.GetRules() {
		r.Rules = append(r.Rules, *ruleOfRecord(one))
	}
	return r
}

func ruleOfRecord(record *recordv1.Rule) *Rule {
	if record == nil {
		return nil
	}
	return &Rule{
		Deny: record.GetDeny(), Verbs: wordsOf[Verb](record.GetVerbs()), Resources: wordsOf[Resource](record.GetResources()),
		Namespaces: record.GetNamespaces(), Services: record.GetServices(),
	}
}

func encodedRole(r *Role) []byte { return encode(r.record()) }

func encodeRoles(d *Document[Role]) []byte {
	return encodeDocument(d, func(e *recordv1.Edit, r *Role) { e.Role = r.record() })
}

func decodeRoles(name string, value []byte) (*Document[Role], error) {
	about := fmt.Sprintf("the role %q", name)
	return decodeDocument(about, value, func(e *recordv1.Edit) *Role { return roleOfRecord(e.GetRole()) })
}

func roleShelf(name string) shelf[Role] {
	return shelf[Role]{
		what:     "role " + quoted(name),
		of:       Ask{Resource: ResourceAccess},
		document: func(s *state) *Document[Role] { return s.access.roles[name] },
		command: func(next *Role, w Writing) []byte {
			edit := &recordv1.EditRole{Name: name, Role: next.record(), Precondition: w.If.record(), By: w.By}
			return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_EditRole{EditRole: edit}})
		},
	}
}

// PutRole writes down what those may do who have a role.
func (r *Registry) PutRole(ctx context.Context, requestID, name string, role Role, w Writing) (Edited, error) {
	var bad problems
	name, role = normalizeRoleName(name, &bad), role.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	if err := r.mayEditRole(ctx, name, &role); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, roleShelf(name), &role, w)
}

// DeleteRole takes it back: bindings and tokens that name it give nothing by it.
func (r *Registry) DeleteRole(ctx context.Context, requestID, name string, w Writing) (Edited, error) {
	var bad problems
	name = normalizeRoleName(name, &bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	if err := r.mayEditRole(ctx, name, nil); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, roleShelf(name), nil, w)
}
