package registry

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// Who may do what is written down here, and replicated like everything else: roles,
// bindings and tokens. The registry keeps it and decides nothing by it. Whoever
// decides reads all of it at once, as of one Edition, and reads it anew when that is over.

// An accessState is the roles, bindings and tokens of a state.
type accessState struct {
	roles    documents[string, Role]
	bindings documents[string, Binding]
	tokens   accessTokens
	begun    bool // a token was granted, be it there or not
}

type accessTokens map[string]*AccessToken

// expired are the ids of those whose time is over, sorted.
func (all accessTokens) expired(now int64) []string {
	var ids []string
	for id, token := range all {
		if token.Expired(time.UnixMilli(now)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func newAccessState() accessState {
	return accessState{roles: make(documents[string, Role]), bindings: make(documents[string, Binding]), tokens: make(accessTokens)}
}

// An accessChange is one step of it. What it has nothing of is gone.
type accessChange struct {
	name    string
	role    *Document[Role]
	binding *Document[Binding]
	token   *AccessToken
	begun   bool // a token was granted at some time
}

func (a *accessState) apply(c *change) {
	switch one := &c.access; {
	case c.op == opRolePut:
		a.roles.put(one.name, one.role)
	case c.op == opBindingPut:
		a.bindings.put(one.name, one.binding)
	case one.begun:
		a.begun = true
	case one.token != nil:
		a.tokens[one.name], a.begun = one.token, true
	default:
		delete(a.tokens, one.name)
	}
}

func (o changeOp) isAccess() bool { return o == opRolePut || o == opBindingPut || o == opTokenPut }

func (t *step) editRole(e *recordv1.EditRole) *recordv1.Result {
	old := t.state.access.roles[e.GetName()]
	document, result := nextEdit(t, old, roleOfRecord(e.GetRole()), e.GetPrecondition(), e.GetBy(), encodedRole)
	if document == nil {
		return result
	}
	if old == nil {
		if full := admit(t.state.access.roles, rolesMax, recordv1.Full_OF_ROLES, func(drop string) {
			t.batch.Delete(storage.RoleKey(drop))
			t.change(change{op: opRolePut, access: accessChange{name: drop}, silent: true})
		}); full != nil {
			return full
		}
	}
	t.batch.Set(storage.RoleKey(e.GetName()), encodeRoles(document))
	t.change(change{op: opRolePut, access: accessChange{name: e.GetName(), role: document}, silent: true})
	return result
}

func (t *step) editBinding(e *recordv1.EditBinding) *recordv1.Result {
	old := t.state.access.bindings[e.GetName()]
	document, result := nextEdit(t, old, bindingOfRecord(e.GetBinding()), e.GetPrecondition(), e.GetBy(), encodedBinding)
	if document == nil {
		return result
	}
	if old == nil {
		if full := admit(t.state.access.bindings, bindingsMax, recordv1.Full_OF_BINDINGS, func(drop string) {
			t.batch.Delete(storage.BindingKey(drop))
			t.change(change{op: opBindingPut, access: accessChange{name: drop}, silent: true})
		}); full != nil {
			return full
		}
	}
	t.batch.Set(storage.BindingKey(e.GetName()), encodeBindings(document))
	t.change(change{op: opBindingPut, access: accessChange{name: e.GetName(), binding: document}, silent: true})
	return result
}

func (m *Machine) loadAccess(loaded func(change)) error {
	err := m.scan(storage.RolePrefix, 1, func(name [][]byte, value []byte) error {
		document, err := decodeRoles(string(name[0]), value)
		loaded(change{op: opRolePut, access: accessChange{name: string(name[0]), role: document}})
		return err
	})
	if err != nil {
		return err
	}
	err = m.scan(storage.BindingPrefix, 1, func(name [][]byte, value []byte) error {
		document, err := decodeBindings(string(name[0]), value)
		loaded(change{op: opBindingPut, access: accessChange{name: string(name[0]), binding: document}})
		return err
	})
	if err != nil {
		return err
	}
	if err := m.loadBegun(loaded); err != nil {
		return err
	}
	return m.scan(storage.AccessTokenPrefix, 1, func(name [][]byte, value []byte) error {
		token, err := decodeAccessToken(string(name[0]), value)
		loaded(change{op: opTokenPut, access: accessChange{name: string(name[0]), token: token}})
		return err
	})
}

// An Edition is what is written down of access from one change of it to the next. Two
// are the same when they are the same pointer.
type Edition struct{ over chan struct{} }

// Over is closed when something has changed: then there is another edition.
func (e *Edition) Over() <-chan struct{} { return e.over }

// Edition is the present one. It costs one load, so it can be asked of each call.
func (m *Machine) Edition() *Edition { return m.edition.Load() }

// reissue ends the edition. What has changed is published before.
func (m *Machine) reissue() {
	if before := m.edition.Swap(&Edition{over: make(chan struct{})}); before != nil {
		close(before.over)
	}
}

// Access is all that is written down of who may do what. Nothing in it is ever changed.
type Access struct {
	Revision Revision       // of the state that it was read from
	Roles    []NamedRole    // by name, the built-in ones among them, like the next
	Bindings []NamedBinding // by name
	Tokens   []*AccessToken // by id
}

// A NamedRole is a role as it holds now.
type NamedRole struct {
	Name    string
	BuiltIn bool
	Version uint64
	Role    Role
}

// A NamedBinding is a binding as it holds now.
type NamedBinding struct {
	Name    string
	BuiltIn bool
	Version uint64
	Binding Binding
}

// Access reads all of it. Its cost is that of all there is: it is for when the edition changes.
func (m *Machine) Access() Access {
	m.mu.RLock()
	defer m.mu.RUnlock()
	a := Access{Revision: m.revision, Roles: BuiltInRoles(), Bindings: slices.Clone(builtInBindings)}
	for name, d := range m.published.access.roles {
		if d.Content() != nil {
			a.Roles = append(a.Roles, NamedRole{Name: name, Version: d.Version(), Role: *d.Content()})
		}
	}
	for name, d := range m.published.access.bindings {
		if d.Content() != nil {
			a.Bindings = append(a.Bindings, NamedBinding{Name: name, Version: d.Version(), Binding: *d.Content()})
		}
	}
	slices.SortFunc(a.Roles, func(x, y NamedRole) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(a.Bindings, func(x, y NamedBinding) int { return strings.Compare(x.Name, y.Name) })
	for _, id := range slices.Sorted(maps.Keys(m.published.access.tokens)) {
		a.Tokens = append(a.Tokens, m.published.access.tokens[id])
	}
	return a
}

// Access reads all that is written down of who may do what.
func (r *Registry) Access(ctx context.Context, c Consistency) (Access, error) {
	if err := Permit(ctx, Ask{Verb: VerbRead, Resource: ResourceAccess}); err != nil {
		return Access{}, err
	}
	if err := r.freshen(ctx, c); err != nil {
		return Access{}, err
	}
	return r.machine.Access(), nil
}
