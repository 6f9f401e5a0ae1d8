package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// A Binding gives roles to identities. What each identity has is the sum of all
// bindings that are about it.
type Binding struct {
	Description string   `json:"description,omitempty"`
	Roles       []string `json:"roles"`
	Subjects    []string `json:"subjects"`
}

// subjectRule is what stands for identities. The registry knows of them that they
// are paths, and no more: who has one is told by a certificate or a JWT.
const subjectRule = "want /ns/prod/sa/web, /operator/lin, /jwt/ann@example.com or the like, after spiffe://TRUST-DOMAIN or without; '*' as the last part is for all that begin so"

// spiffe heads a subject that names its trust domain.
const spiffe = "spiffe://"

// subjectBytesMax is what an identity may have, by its specification.
const subjectBytesMax = 2_048

// builtInBindings give everybody the role of what he is.
var builtInBindings = []NamedBinding{
	{Name: builtInPrefix + "members", BuiltIn: true, Binding: Binding{Roles: []string{RoleMember}, Subjects: []string{"/region/*"}}},
	{Name: builtInPrefix + "operators", BuiltIn: true, Binding: Binding{Roles: []string{RoleAdmin}, Subjects: []string{"/operator/*"}}},
	{Name: builtInPrefix + "replicators", BuiltIn: true, Binding: Binding{Roles: []string{RoleReplicator}, Subjects: []string{"/replicator/*"}}},
	{Name: builtInPrefix + "workloads", BuiltIn: true, Binding: Binding{Roles: []string{RoleWorkload}, Subjects: []string{"/ns/*"}}},
}

func (b Binding) normalize(bad *problems) Binding {
	b.Description = saidText(b.Description, "description", descriptionBytesMax, bad)
	b.Roles = normalizeRoleNames(b.Roles, bad)
	if len(b.Subjects) == 0 || len(b.Subjects) > patternsMax {
		bad.add("subjects", fmt.Sprintf("has %d subjects: 1 to %d", len(b.Subjects), patternsMax))
		return b
	}
	var subjects []string
	for i, s := range b.Subjects {
		subjects = append(subjects, normalizeSubject(s, fmt.Sprintf("subjects[%d]", i), bad))
	}
	slices.Sort(subjects)
	b.Subjects = slices.Compact(subjects)
	if n := len(encodedBinding(&b)); n > accessBytesMax {
		bad.add("subjects", fmt.Sprintf("take %d bytes: at most %d, divide them between two bindings", n, accessBytesMax))
	}
	return b
}

func normalizeSubject(text, field string, bad *problems) string {
	s := strings.TrimSpace(text)
	if !isSubject(s) {
		bad.add(field, fmt.Sprintf("%s is no subject: %s", quoted(s), subjectRule))
	}
	return s
}

func isSubject(s string) bool {
	marks := ":/.-_"
	if strings.HasPrefix(s, bySubject) {
		marks += "@|+" // it is no URI but a name that somebody else has given
	}
	if len(s) > subjectBytesMax || !consistsOf(strings.TrimSuffix(s, all), marks) {
		return false
	}
	if rest, named := strings.CutPrefix(s, spiffe); named {
		domain, path, found := strings.Cut(rest, "/")
		if domain == "" || !found {
			return false
		}
		s = "/" + path
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || parts[0] != "" {
		return false
	}
	for i, part := range parts[1:] {
		last := i == len(parts)-2
		if part == "" || part != all && strings.Contains(part, all) || part == all && !last {
			return false
		}
	}
	return true
}

func normalizeBindingName(text string, bad *problems) string {
	name := strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(name, builtInPrefix):
		bad.add("binding", fmt.Sprintf("%s is not to be edited: bindings of %s are there from the beginning; to take away what one gives, bind a role that denies it", quoted(name), builtInPrefix))
	case !isName(name, ".-_"):
		bad.add("binding", fmt.Sprintf("%s is not allowed: %s", quoted(name), nameRule))
	}
	return name
}

func (b *Binding) record() *recordv1.Binding {
	if b == nil {
		return nil
	}
	return &recordv1.Binding{Description: b.Description, Roles: b.Roles, Subjects: b.Subjects}
}

func bindingOfRecord(record *recordv1.Binding) *Binding {
	if record == nil {
		return nil
	}
	return &Binding{Description: record.GetDescription(), Roles: record.GetRoles(), Subjects: record.GetSubjects()}
}

func encodedBinding(b *Binding) []byte { return encode(b.record()) }

func encodeBindings(d *Document[Binding]) []byte {
	return encodeDocument(d, func(e *recordv1.Edit, b *Binding) { e.Binding = b.record() })
}

func decodeBindings(name string, value []byte) (*Document[Binding], error) {
	about := fmt.Sprintf("the binding %q", name)
	return decodeDocument(about, value, func(e *recordv1.Edit) *Binding { return bindingOfRecord(e.GetBinding()) })
}

func bindingShelf(name string) shelf[Binding] {
	return shelf[Binding]{
		what:     "binding " + quoted(name),
		of:       Ask{Resource: ResourceAccess},
		document: func(s *state) *Document[Binding] { return s.access.bindings[name] },
		command: func(next *Binding, w Writing) []byte {
			edit := &recordv1.EditBinding{Name: name, Binding: next.record(), Precondition: w.If.record(), By: w.By}
			return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_EditBinding{EditBinding: edit}})
		},
	}
}

// PutBinding writes down who has which roles.
func (r *Registry) PutBinding(ctx context.Context, requestID, name string, b Binding, w Writing) (Edited, error) {
	var bad problems
	name, b = normalizeBindingName(name, &bad), b.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	if err := r.mayEditBinding(ctx, name, &b); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, bindingShelf(name), &b, w)
}

// DeleteBinding takes it back.
func (r *Registry) DeleteBinding(ctx context.Context, requestID, name string, w Writing) (Edited, error) {
	var bad problems
	name = normalizeBindingName(name, &bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	if err := r.mayEditBinding(ctx, name, nil); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, bindingShelf(name), nil, w)
}
