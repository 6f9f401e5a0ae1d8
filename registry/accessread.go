package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Role reads what is written down of a role, or is built in. The error is ErrNoDocument
// when nobody has ever written it.
func (r *Registry) Role(ctx context.Context, name string, c Consistency) (*Document[Role], Revision, error) {
	for i := range builtIns {
		if builtIns[i].Name == name {
			return builtInDocument(ctx, r, &builtIns[i].Role, c)
		}
	}
	return read(ctx, r, roleShelf(name), c)
}

// Binding is Role for a binding.
func (r *Registry) Binding(ctx context.Context, name string, c Consistency) (*Document[Binding], Revision, error) {
	for i := range builtInBindings {
		if builtInBindings[i].Name == name {
			return builtInDocument(ctx, r, &builtInBindings[i].Binding, c)
		}
	}
	return read(ctx, r, bindingShelf(name), c)
}

// builtInDocument has one edit, of version 0 and of no time: what is built in has never been edited.
func builtInDocument[D any](ctx context.Context, r *Registry, content *D, c Consistency) (*Document[D], Revision, error) {
	if err := Permit(ctx, Ask{Verb: VerbRead, Resource: ResourceAccess}); err != nil {
		return nil, 0, err
	}
	if err := r.freshen(ctx, c); err != nil {
		return nil, 0, err
	}
	return &Document[D]{Edits: []Edit[D]{{Content: content}}}, r.machine.Revision(), nil
}

// IsBuiltIn says of the name of a role or a binding whether it is there from the beginning.
func IsBuiltIn(name string) bool { return strings.HasPrefix(name, builtInPrefix) }

// AccessTokens are all that were granted and not revoked, by id.
func (r *Registry) AccessTokens(ctx context.Context, c Consistency) ([]*AccessToken, Revision, error) {
	if err := r.readTokens(ctx, c); err != nil {
		return nil, 0, err
	}
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	tokens := slices.SortedFunc(maps.Values(m.published.access.tokens), func(x, y *AccessToken) int { return strings.Compare(x.ID, y.ID) })
	return tokens, m.revision, nil
}

// AccessToken is one of them.
func (r *Registry) AccessToken(ctx context.Context, id string, c Consistency) (*AccessToken, Revision, error) {
	if err := r.readTokens(ctx, c); err != nil {
		return nil, 0, err
	}
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	token := m.published.access.tokens[id]
	if token == nil {
		return nil, m.revision, missingToken(id)
	}
	return token, m.revision, nil
}

func (r *Registry) readTokens(ctx context.Context, c Consistency) error {
	if err := Permit(ctx, Ask{Verb: VerbRead, Resource: ResourceTokens}); err != nil {
		return err
	}
	return r.freshen(ctx, c)
}

// KnownAsk brings what somebody asks about into normal form, and names what is not there to be asked for.
func KnownAsk(a Ask) (Ask, error) {
	var bad problems
	a.Verb, a.Resource = Verb(strings.TrimSpace(string(a.Verb))), Resource(strings.TrimSpace(string(a.Resource)))
	if !slices.Contains(verbs, a.Verb) {
		bad.add("verb", fmt.Sprintf("%s is not known: one of %s", quoted(string(a.Verb)), joined(verbs)))
	}
	if !slices.Contains(resources, a.Resource) {
		bad.add("resource", fmt.Sprintf("%s is not known: one of %s", quoted(string(a.Resource)), joined(resources)))
	}
	if a.Namespace = strings.TrimSpace(a.Namespace); a.Namespace != "" && !isName(a.Namespace, "-_") {
		bad.add("namespace", fmt.Sprintf("%s is not allowed: %s", quoted(a.Namespace), nameRule))
	}
	if a.Service = strings.TrimSpace(a.Service); a.Service != "" && !isName(a.Service, ".-_") {
		bad.add("service", fmt.Sprintf("%s is not allowed: %s", quoted(a.Service), nameRule))
	}
	if a.Service != "" && a.Namespace == "" {
		bad.add("namespace", "is missing: a service is in one")
	}
	return a, bad.err()
}
