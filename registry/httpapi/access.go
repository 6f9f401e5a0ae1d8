package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Who may do what is written down as roles and bindings, which are documents as policies
// are, and as tokens. Where authentication is off nothing is decided by them, and they
// are there for an administrator to be written before it is switched on.

// An Authority knows of access what the registry does not.
type Authority interface {
	// DrawToken makes an access token: its id, which is no secret, the token, and what is kept of it.
	DrawToken() (id, token string, hash registry.AccessTokenHash, err error)
	// Subject is who a context is for, or whom a name stands for that is not "": an
	// identity, or the id of a token. The error is a ValidationError of no field.
	Subject(ctx context.Context, name string) (Subject, error)
}

// A Subject is somebody who has rights.
type Subject struct {
	Who     string
	Own     string // the namespace that is his own; "" = none
	Roles   []GivenRole
	Explain func(registry.Ask) Verdict
}

// A GivenRole is a role that somebody has, and what gives it to him.
type GivenRole struct {
	Role string `json:"role"`
	By   string `json:"by"`
}

// A Verdict is whether somebody may, and why.
type Verdict struct {
	Allowed bool     `json:"allowed"`
	Reason  string   `json:"reason"`
	Role    string   `json:"role,omitempty"` // whose rule it is that allows or denies, like the next
	Rule    int      `json:"rule,omitempty"` // from 1
	By      string   `json:"by,omitempty"`   // what gives the role
	Near    []string `json:"near,omitempty"` // rules that allow the like of what no rule allows
}

const (
	atAccess  = "/api/v2/access/"
	atRole    = atAccess + "roles/{role}"
	atBinding = atAccess + "bindings/{binding}"
	atToken   = atAccess + "tokens/{token}"
)

// accessRoutes are on both ports: whoever has lost all tokens makes a new one with the
// admin token, on the port of administration.
func (a *API) accessRoutes() []route {
	if a.authority == nil {
		return nil
	}
	write := func(method, pattern string, serve handler) route {
		return route{method: method, pattern: pattern, surface: surfaceV2, administers: true, serve: a.undecided(serve)}
	}
	read := func(pattern string, serve handler) route {
		return route{method: http.MethodGet, pattern: pattern, surface: surfaceV2, administers: true, reads: true, serve: a.undecided(conditionless(serve))}
	}
	documents := []route{
		read(atAccess+"roles", a.v2Roles).as(operation{id: "listRoles", says: "Lists all roles, those that are built in included", query: freshQuery, answers: ok(v2RoleList{})}),
		write(http.MethodPut, atRole, a.v2PutRole).as(edit("putRole", "Says what those may do who have a role", registry.Role{}, createdOr(v2Edited{}))),
		write(http.MethodDelete, atRole, a.v2DeleteRole).as(edit("deleteRole", "Takes a role back: who has it has nothing by it", nil, ok(v2Edited{}))),
		read(atRole, a.v2Role).as(operation{id: "getRole", says: "Tells what those may do who have a role", query: freshQuery, answers: ok(v2RoleAnswer{}), refuses: []string{"not_found"}}),
		read(atRole+"/history", a.v2RoleHistory).as(operation{id: "getRoleHistory", says: "Tells the last edits of a role", query: freshQuery, answers: ok(v2AccessEdits{}), refuses: []string{"not_found"}}),
		read(atAccess+"bindings", a.v2Bindings).as(operation{id: "listBindings", says: "Lists all bindings, those that are built in included", query: freshQuery, answers: ok(v2BindingList{})}),
		write(http.MethodPut, atBinding, a.v2PutBinding).as(edit("putBinding", "Gives roles to identities", registry.Binding{}, createdOr(v2Edited{}))),
		write(http.MethodDelete, atBinding, a.v2DeleteBinding).as(edit("deleteBinding", "Takes that back", nil, ok(v2Edited{}))),
		read(atBinding, a.v2Binding).as(operation{id: "getBinding", says: "Tells who has which roles by a binding", query: freshQuery, answers: ok(v2BindingAnswer{}), refuses: []string{"not_found"}}),
		read(atBinding+"/history", a.v2BindingHistory).as(operation{id: "getBindingHistory", says: "Tells the last edits of a binding", query: freshQuery, answers: ok(v2AccessEdits{}), refuses: []string{"not_found"}}),
	}
	return append(append(documents, a.tokenRoutes(read)...), a.askRoutes(read)...)
}

// authenticationHeader says in every answer about access that nothing is decided by it.
const authenticationHeader = "X-StellMap-Authentication"

// The words for whether callers are asked who they are.
const (
	authenticationOn  = "on"
	authenticationOff = "off"
)

func (a *API) authentication() string {
	if a.access == nil {
		return authenticationOff
	}
	return authenticationOn
}

func (a *API) undecided(serve handler) handler {
	if a.access != nil {
		return serve
	}
	return func(w http.ResponseWriter, q *http.Request) error {
		w.Header().Set(authenticationHeader, authenticationOff)
		return serve(w, q)
	}
}

// accessName is the role or the binding that the path names.
func accessName(q *http.Request) string {
	return strings.TrimSpace(cmp.Or(q.PathValue("role"), q.PathValue("binding")))
}

// The answers about roles and bindings. What is built in has version 0, and nobody has edited it.
type (
	v2RoleList struct {
		Revision registry.Revision `json:"revision"`
		Roles    []v2NamedRole     `json:"roles"`
	}
	v2NamedRole struct {
		Name    string        `json:"name"`
		BuiltIn bool          `json:"builtIn"`
		Version uint64        `json:"version"`
		Role    registry.Role `json:"role"`
	}
	v2BindingList struct {
		Revision registry.Revision `json:"revision"`
		Bindings []v2NamedBinding  `json:"bindings"`
	}
	v2NamedBinding struct {
		Name    string           `json:"name"`
		BuiltIn bool             `json:"builtIn"`
		Version uint64           `json:"version"`
		Binding registry.Binding `json:"binding"`
	}
	v2RoleAnswer struct {
		v2AccessHeld
		Role *registry.Role `json:"role"`
	}
	v2BindingAnswer struct {
		v2AccessHeld
		Binding *registry.Binding `json:"binding"`
	}
	v2AccessHeld struct {
		Name      string            `json:"name"`
		BuiltIn   bool              `json:"builtIn"`
		Version   uint64            `json:"version"`
		Revision  registry.Revision `json:"revision"`
		ChangedAt string            `json:"changedAt,omitempty"`
		ChangedBy string            `json:"changedBy,omitempty"`
	}
	v2AccessEdits struct {
		Name    string   `json:"name"`
		History []v2Edit `json:"history"`
	}
)

func heldOf[D any](name string, e *registry.Edit[D]) v2AccessHeld {
	held := v2AccessHeld{Name: name, BuiltIn: registry.IsBuiltIn(name), Version: e.Version, Revision: e.Revision, ChangedBy: e.By}
	if !held.BuiltIn {
		held.ChangedAt = timeText(time.UnixMilli(e.At))
	}
	return held
}

func noAccessDocument(kind, name string) error {
	return &missingDocument{what: fmt.Sprintf("there is no %s %q", kind, clip(name)), next: "a PUT to this path writes it, and GET " + atAccess + kind + "s lists those that there are"}
}

// allAccess reads everything that is written down, for a list of it.
func (a *API) allAccess(w http.ResponseWriter, q *http.Request) (registry.Access, error) {
	fresh, err := a.freshOnly(q)
	if err != nil {
		return registry.Access{}, err
	}
	all, err := a.registry.Access(q.Context(), fresh.Consistency)
	if err != nil {
		return all, err
	}
	setRevision(w, all.Revision)
	fresh.tell(w)
	return all, nil
}

// freshOnly reads the parameters of a call that has no others.
func (a *API) freshOnly(q *http.Request) (freshness, error) {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	return fresh, p.err()
}

// listHead is the beginning of a list that is written by hand.
func listHead(name string, at registry.Revision) string {
	return fmt.Sprintf(`{"revision":%d,%q:[`, at, name)
}

func (a *API) v2Roles(w http.ResponseWriter, q *http.Request) error {
	all, err := a.allAccess(w, q)
	if err != nil {
		return err
	}
	writeList(w, listHead("roles", all.Revision), "]}", all.Roles, func(e *encoder, r registry.NamedRole) {
		e.value(&v2NamedRole{r.Name, r.BuiltIn, r.Version, r.Role})
	})
	return nil
}

func (a *API) v2Bindings(w http.ResponseWriter, q *http.Request) error {
	all, err := a.allAccess(w, q)
	if err != nil {
		return err
	}
	writeList(w, listHead("bindings", all.Revision), "]}", all.Bindings, func(e *encoder, b registry.NamedBinding) {
		e.value(&v2NamedBinding{b.Name, b.BuiltIn, b.Version, b.Binding})
	})
	return nil
}

// editedAccess is edited for a role or a binding.
func (a *API) editedAccess(w http.ResponseWriter, q *http.Request, kind string, content any, do func(id string, how registry.Writing) (registry.Edited, error)) error {
	about(w, kind+" "+accessName(q))
	return a.edited(w, q, registry.ServiceKey{}, content, do)
}

func (a *API) v2PutRole(w http.ResponseWriter, q *http.Request) error {
	var body registry.Role
	if err := decode(w, q, &body); err != nil {
		return err
	}
	return a.editedAccess(w, q, "role", &body, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.PutRole(q.Context(), id, accessName(q), body, how)
	})
}

func (a *API) v2DeleteRole(w http.ResponseWriter, q *http.Request) error {
	return a.editedAccess(w, q, "role", nil, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.DeleteRole(q.Context(), id, accessName(q), how)
	})
}

func (a *API) v2PutBinding(w http.ResponseWriter, q *http.Request) error {
	var body registry.Binding
	if err := decode(w, q, &body); err != nil {
		return err
	}
	return a.editedAccess(w, q, "binding", &body, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.PutBinding(q.Context(), id, accessName(q), body, how)
	})
}

func (a *API) v2DeleteBinding(w http.ResponseWriter, q *http.Request) error {
	return a.editedAccess(w, q, "binding", nil, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.DeleteBinding(q.Context(), id, accessName(q), how)
	})
}

// accessDocument reads the document that the path names.
func accessDocument[D any](a *API, w http.ResponseWriter, q *http.Request, kind string,
	read func(context.Context, string, registry.Consistency) (*registry.Document[D], registry.Revision, error),
) (*registry.Document[D], error) {
	fresh, err := a.freshOnly(q)
	if err != nil {
		return nil, err
	}
	d, at, err := read(q.Context(), accessName(q), fresh.Consistency)
	setRevision(w, at)
	if at != 0 {
		fresh.tell(w)
	}
	if errors.Is(err, registry.ErrNoDocument) {
		err = noAccessDocument(kind, accessName(q))
	}
	return d, err
}

func tellAccess[D any](a *API, w http.ResponseWriter, q *http.Request, kind string,
	read func(context.Context, string, registry.Consistency) (*registry.Document[D], registry.Revision, error),
	answer func(v2AccessHeld, *D) any,
) error {
	d, err := accessDocument(a, w, q, kind, read)
	if err != nil {
		return err
	}
	if d.Content() == nil {
		return noAccessDocument(kind, accessName(q))
	}
	setETag(w, d.Version())
	writeJSON(w, http.StatusOK, typeJSON, answer(heldOf(accessName(q), &d.Edits[len(d.Edits)-1]), d.Content()))
	return nil
}

func tellAccessEdits[D any](a *API, w http.ResponseWriter, q *http.Request, kind string,
	read func(context.Context, string, registry.Consistency) (*registry.Document[D], registry.Revision, error),
) error {
	d, err := accessDocument(a, w, q, kind, read)
	if err != nil {
		return err
	}
	edits := &v2AccessEdits{accessName(q), []v2Edit{}}
	if !registry.IsBuiltIn(edits.Name) {
		edits.History = historyOf(d)
	}
	writeJSON(w, http.StatusOK, typeJSON, edits)
	return nil
}

func (a *API) v2Role(w http.ResponseWriter, q *http.Request) error {
	return tellAccess(a, w, q, "role", a.registry.Role, func(held v2AccessHeld, r *registry.Role) any { return &v2RoleAnswer{held, r} })
}

func (a *API) v2RoleHistory(w http.ResponseWriter, q *http.Request) error {
	return tellAccessEdits(a, w, q, "role", a.registry.Role)
}

func (a *API) v2Binding(w http.ResponseWriter, q *http.Request) error {
	return tellAccess(a, w, q, "binding", a.registry.Binding, func(held v2AccessHeld, b *registry.Binding) any { return &v2BindingAnswer{held, b} })
}

func (a *API) v2BindingHistory(w http.ResponseWriter, q *http.Request) error {
	return tellAccessEdits(a, w, q, "binding", a.registry.Binding)
}
