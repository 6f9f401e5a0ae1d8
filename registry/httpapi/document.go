package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Documents are what operators write down: policies of services, what services
// call, and what a namespace may hold. A PUT gives the whole document. Its version is the ETag, and
// an edit may ask for it with If-Match, or for there being none with
// If-None-Match: *, so that nobody overwrites what he has not seen.

func (a *API) documentRoutes(namespace, service string) []route {
	write := func(method, pattern string, serve handler) route {
		return route{method: method, pattern: pattern, surface: surfaceV2, serve: serve}
	}
	read := func(pattern string, serve handler) route {
		return route{method: http.MethodGet, pattern: pattern, surface: surfaceV2, reads: true, serve: conditionless(serve)}
	}
	return []route{
		write(http.MethodPut, service+"/policy", a.v2PutPolicy).as(edit("putPolicy", "Says how a service is to be treated", registry.Policy{}, createdOr(v2Edited{}))),
		write(http.MethodDelete, service+"/policy", a.v2DeletePolicy).as(edit("deletePolicy", "Has a service treated as by default", nil, ok(v2Edited{}))),
		read(service+"/policy", a.v2Policy).as(operation{
			id: "getPolicy", says: "Tells how a service is to be treated", query: freshQuery, answers: ok(v2PolicyAnswer{}), refuses: []string{"not_found"},
		}),
		read(service+"/policy/history", a.v2PolicyHistory).as(operation{
			id: "getPolicyHistory", says: "Tells the last edits of a policy", query: freshQuery, answers: ok(v2PolicyEdits{}), refuses: []string{"not_found"},
		}),
		write(http.MethodPut, service+"/upstreams", a.v2PutUpstreams).as(edit("putUpstreams", "Says what a service wants to call, and may", registry.Upstreams{}, createdOr(v2Edited{}))),
		write(http.MethodDelete, service+"/upstreams", a.v2DeleteUpstreams).as(edit("deleteUpstreams", "Leaves that to its proxies again", nil, ok(v2Edited{}))),
		read(service+"/upstreams", a.v2Upstreams).as(operation{
			id: "getUpstreams", says: "Tells what a service wants to call, and may", query: freshQuery, answers: ok(v2UpstreamsAnswer{}), refuses: []string{"not_found"},
		}),
		read(service+"/upstreams/history", a.v2UpstreamsHistory).as(operation{
			id: "getUpstreamsHistory", says: "Tells the last edits of what a service calls", query: freshQuery, answers: ok(v2UpstreamsEdits{}), refuses: []string{"not_found"},
		}),
		write(http.MethodPut, namespace, a.v2PutNamespace).as(edit("putNamespace", "Says what a namespace is for, and what it may hold", registry.Namespace{}, createdOr(v2Edited{}))),
		write(http.MethodDelete, namespace, a.v2DeleteNamespace).as(edit("deleteNamespace", "Takes that back", nil, ok(v2Edited{}))),
		read(namespace, a.v2Namespace).as(operation{
			id: "getNamespace", says: "Tells a namespace and what it holds", query: freshQuery, answers: ok(v2NamespaceAnswer{}), refuses: []string{"not_found"},
		}),
		read(namespace+"/history", a.v2NamespaceHistory).as(operation{
			id: "getNamespaceHistory", says: "Tells the last edits of a namespace's document", query: freshQuery, answers: ok(v2NamespaceEdits{}), refuses: []string{"not_found"},
		}),
	}
}

// edit is what the description says of an edit.
func edit(id, says string, body any, answers map[int]any) operation {
	return operation{
		id: id, says: says, query: editQuery, headers: []string{"If-Match", "If-None-Match", idempotencyKey}, body: body, answers: answers,
		refuses: []string{"not_found", "version_differs"},
	}
}

// A missingDocument is one that is not there, and says which and what to do.
type missingDocument struct{ what, next string }

func (e *missingDocument) Error() string { return e.what + ": " + e.next }

func (e *missingDocument) Unwrap() error { return registry.ErrNoDocument }

func noPolicy(k registry.ServiceKey) error {
	return &missingDocument{
		what: fmt.Sprintf("service %q in namespace %q has no policy", k.Service, k.Namespace),
		next: "it is treated as by default, and a PUT to this path writes one",
	}
}

func noUpstreams(k registry.ServiceKey) error {
	return &missingDocument{
		what: fmt.Sprintf("nothing is written down of what service %q in namespace %q calls", k.Service, k.Namespace),
		next: "its proxies are told of what they declare themselves, and a PUT to this path writes it down",
	}
}

func noNamespace(name string) error {
	return &missingDocument{what: fmt.Sprintf("nothing is known of namespace %q", name), next: "a PUT to this path, or the first registration in it, makes it known"}
}

// writingOf is how a request wants a document edited.
func writingOf(q *http.Request) (registry.Writing, error) {
	p := parametersOf(q)
	p.only(editQuery...)
	w := registry.Writing{By: actor(q), DryRun: p.choice(dryRunName, "false", "true") == "true"}
	if tags := q.Header.Values("If-Match"); len(tags) > 0 {
		w.If.Version, w.If.Present = p.version("If-Match", strings.Join(tags, ","))
	}
	if tags := q.Header.Values("If-None-Match"); len(tags) > 0 {
		w.If.Absent = true
		if strings.Join(tags, ",") != "*" {
			p.add("If-None-Match", "is * or nothing: a document is written anew only where there is none")
		}
	}
	if w.If.Absent && len(q.Header.Values("If-Match")) > 0 {
		p.add("If-None-Match", "contradicts If-Match: leave one of the two out")
	}
	return w, p.err()
}

const dryRunName = "dryRun"

var editQuery = []string{dryRunName}

// version reads a condition on the version of a document.
func (p *parameters) version(header, tag string) (version *uint64, any bool) {
	if tag == "*" {
		return nil, true
	}
	text, ok := strings.CutPrefix(tag, `"`)
	text, closed := strings.CutSuffix(text, `"`)
	n, err := strconv.ParseUint(text, 10, 64)
	if !ok || !closed || err != nil {
		p.add(header, fmt.Sprintf(`%q is not the version of a document: one ETag as it was answered, such as "3", or *`, clip(tag)))
		return nil, false
	}
	return &n, false
}

func setETag(w http.ResponseWriter, version uint64) {
	w.Header().Set("ETag", fmt.Sprintf("%q", strconv.FormatUint(version, 10)))
}

// v2Edited is the answer to an edit.
type v2Edited struct {
	Namespace string                 `json:"namespace,omitempty"`
	Service   string                 `json:"service,omitempty"`
	Name      string                 `json:"name,omitempty"`   // of a role or a binding
	DryRun    bool                   `json:"dryRun,omitempty"` // nothing was done
	Version   uint64                 `json:"version"`
	Revision  registry.Revision      `json:"revision"`
	Created   bool                   `json:"created"`
	Changed   bool                   `json:"changed"`
	Changes   []registry.FieldChange `json:"changes"`
}

// edited does what an edit asks for. What is asked for tells one request id's use from another's.
func (a *API) edited(w http.ResponseWriter, q *http.Request, k registry.ServiceKey, content any, do func(id string, how registry.Writing) (registry.Edited, error)) error {
	how, err := writingOf(q)
	if err != nil {
		return err
	}
	asked, err := json.Marshal([]any{q.URL.Path, content, q.Header.Values("If-Match"), q.Header.Values("If-None-Match")})
	if err != nil {
		return err
	}
	repeat, err := repeatOf(q, string(asked))
	if err != nil {
		return err
	}
	result, err := do(repeat.ID, how)
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	if how.DryRun {
		done(w)
	}
	setETag(w, result.Version)
	status := http.StatusOK
	if result.Created && !how.DryRun {
		status = http.StatusCreated
	}
	writeJSON(w, status, typeJSON, &v2Edited{
		Namespace: k.Namespace, Service: k.Service, Name: accessName(q), DryRun: how.DryRun, Version: result.Version, Revision: result.Revision,
		Created: result.Created, Changed: result.Changed, Changes: append([]registry.FieldChange{}, result.Changes...),
	})
	return nil
}

// pathService is the service that the path names, in the form in which it is stored.
func pathService(q *http.Request) registry.ServiceKey {
	return registry.ServiceKey{Namespace: strings.TrimSpace(q.PathValue("ns")), Service: strings.TrimSpace(q.PathValue("svc"))}
}

func (a *API) v2PutPolicy(w http.ResponseWriter, q *http.Request) error {
	var body registry.Policy
	if err := decode(w, q, &body); err != nil {
		return err
	}
	k := pathService(q)
	return a.edited(w, q, k, &body, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.PutPolicy(q.Context(), id, k, body, how)
	})
}

func (a *API) v2DeletePolicy(w http.ResponseWriter, q *http.Request) error {
	k := pathService(q)
	return a.edited(w, q, k, nil, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.DeletePolicy(q.Context(), id, k, how)
	})
}

func (a *API) v2PutUpstreams(w http.ResponseWriter, q *http.Request) error {
	var body registry.Upstreams
	if err := decode(w, q, &body); err != nil {
		return err
	}
	k := pathService(q)
	return a.edited(w, q, k, &body, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.PutUpstreams(q.Context(), id, k, body, how)
	})
}

func (a *API) v2DeleteUpstreams(w http.ResponseWriter, q *http.Request) error {
	k := pathService(q)
	return a.edited(w, q, k, nil, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.DeleteUpstreams(q.Context(), id, k, how)
	})
}

func (a *API) v2PutNamespace(w http.ResponseWriter, q *http.Request) error {
	var body registry.Namespace
	if err := decode(w, q, &body); err != nil {
		return err
	}
	k := pathService(q)
	return a.edited(w, q, k, &body, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.PutNamespace(q.Context(), id, k.Namespace, body, how)
	})
}

func (a *API) v2DeleteNamespace(w http.ResponseWriter, q *http.Request) error {
	k := pathService(q)
	return a.edited(w, q, k, nil, func(id string, how registry.Writing) (registry.Edited, error) {
		return a.registry.DeleteNamespace(q.Context(), id, k.Namespace, how)
	})
}

// The answers about documents.
type (
	v2PolicyAnswer struct {
		Namespace string            `json:"namespace"`
		Service   string            `json:"service"`
		Version   uint64            `json:"version"`
		Revision  registry.Revision `json:"revision"`
		ChangedAt string            `json:"changedAt"`
		ChangedBy string            `json:"changedBy"`
		Policy    *registry.Policy  `json:"policy"`
	}
	v2PolicyEdits struct {
		Namespace string   `json:"namespace"`
		Service   string   `json:"service"`
		History   []v2Edit `json:"history"`
	}
	v2UpstreamsAnswer struct {
		Namespace string              `json:"namespace"`
		Service   string              `json:"service"`
		Version   uint64              `json:"version"`
		Revision  registry.Revision   `json:"revision"`
		ChangedAt string              `json:"changedAt"`
		ChangedBy string              `json:"changedBy"`
		Upstreams *registry.Upstreams `json:"upstreams"`
	}
	v2UpstreamsEdits struct {
		Namespace string   `json:"namespace"`
		Service   string   `json:"service"`
		History   []v2Edit `json:"history"`
	}
	v2NamespaceAnswer struct {
		Namespace string              `json:"namespace"`
		Version   uint64              `json:"version"`
		ChangedAt string              `json:"changedAt,omitempty"`
		ChangedBy string              `json:"changedBy,omitempty"`
		Usage     v2Usage             `json:"usage"`
		Document  *registry.Namespace `json:"document,omitempty"`
	}
	v2NamespaceEdits struct {
		Namespace string   `json:"namespace"`
		History   []v2Edit `json:"history"`
	}
)

// v2Edit is one version of a document.
type v2Edit struct {
	Version  uint64                 `json:"version"`
	Revision registry.Revision      `json:"revision"`
	At       string                 `json:"at"`
	By       string                 `json:"by"`
	Deleted  bool                   `json:"deleted,omitempty"`
	Changes  []registry.FieldChange `json:"changes,omitempty"`
	Document any                    `json:"document,omitempty"` // as it was from then on
}

// timeForm is how times are written.
const timeForm = "2006-01-02T15:04:05.000Z07:00"

// historyOf is what is kept of a document's edits, the newest first.
func historyOf[D any](d *registry.Document[D]) []v2Edit {
	out := []v2Edit{}
	if d == nil {
		return out
	}
	for i := len(d.Edits) - 1; i >= 0; i-- {
		e := &d.Edits[i]
		one := v2Edit{Version: e.Version, Revision: e.Revision, At: timeText(time.UnixMilli(e.At)), By: e.By, Deleted: e.Content == nil, Changes: d.ChangesOf(e.Version)}
		if e.Content != nil {
			one.Document = e.Content
		}
		out = append(out, one)
	}
	return out
}

// documentOf reads a document of the service that a request is about.
func documentOf[D any](a *API, w http.ResponseWriter, q *http.Request, missing func(registry.ServiceKey) error,
	read func(context.Context, registry.ServiceKey, registry.Consistency) (*registry.Document[D], registry.Revision, error),
) (*registry.Document[D], error) {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return nil, err
	}
	k := pathService(q)
	d, at, err := read(q.Context(), k, fresh.Consistency)
	setRevision(w, at)
	if at != 0 {
		fresh.tell(w)
	}
	if errors.Is(err, registry.ErrNoDocument) {
		err = missing(k)
	}
	return d, err
}

// tellHeld answers with the edit of such a document that holds.
func tellHeld[D any](a *API, w http.ResponseWriter, q *http.Request, missing func(registry.ServiceKey) error,
	read func(context.Context, registry.ServiceKey, registry.Consistency) (*registry.Document[D], registry.Revision, error),
	answer func(registry.ServiceKey, *registry.Edit[D]) any,
) error {
	d, err := documentOf(a, w, q, missing, read)
	if err != nil {
		return err
	}
	k := pathService(q)
	if d.Content() == nil {
		return missing(k)
	}
	setETag(w, d.Version())
	writeJSON(w, http.StatusOK, typeJSON, answer(k, &d.Edits[len(d.Edits)-1]))
	return nil
}

// tellEdits answers with the last edits of such a document.
func tellEdits[D any](a *API, w http.ResponseWriter, q *http.Request, missing func(registry.ServiceKey) error,
	read func(context.Context, registry.ServiceKey, registry.Consistency) (*registry.Document[D], registry.Revision, error),
	answer func(registry.ServiceKey, []v2Edit) any,
) error {
	d, err := documentOf(a, w, q, missing, read)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, answer(pathService(q), historyOf(d)))
	return nil
}

func (a *API) v2Policy(w http.ResponseWriter, q *http.Request) error {
	return tellHeld(a, w, q, noPolicy, a.registry.Policy, func(k registry.ServiceKey, e *registry.Edit[registry.Policy]) any {
		return &v2PolicyAnswer{k.Namespace, k.Service, e.Version, e.Revision, timeText(time.UnixMilli(e.At)), e.By, e.Content}
	})
}

func (a *API) v2PolicyHistory(w http.ResponseWriter, q *http.Request) error {
	return tellEdits(a, w, q, noPolicy, a.registry.Policy, func(k registry.ServiceKey, edits []v2Edit) any {
		return &v2PolicyEdits{k.Namespace, k.Service, edits}
	})
}

func (a *API) v2Upstreams(w http.ResponseWriter, q *http.Request) error {
	return tellHeld(a, w, q, noUpstreams, a.registry.Upstreams, func(k registry.ServiceKey, e *registry.Edit[registry.Upstreams]) any {
		return &v2UpstreamsAnswer{k.Namespace, k.Service, e.Version, e.Revision, timeText(time.UnixMilli(e.At)), e.By, e.Content}
	})
}

func (a *API) v2UpstreamsHistory(w http.ResponseWriter, q *http.Request) error {
	return tellEdits(a, w, q, noUpstreams, a.registry.Upstreams, func(k registry.ServiceKey, edits []v2Edit) any {
		return &v2UpstreamsEdits{k.Namespace, k.Service, edits}
	})
}

func (a *API) namespace(w http.ResponseWriter, q *http.Request) (registry.NamespaceCount, error) {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return registry.NamespaceCount{}, err
	}
	name := pathService(q).Namespace
	n, at, err := a.registry.Namespace(q.Context(), name, fresh.Consistency)
	setRevision(w, at)
	if at != 0 {
		fresh.tell(w)
	}
	if errors.Is(err, registry.ErrNoDocument) {
		err = noNamespace(name)
	}
	return n, err
}

// v2Usage is what a namespace has of what a quota bounds.
type v2Usage struct {
	Services  int `json:"services"`
	Instances int `json:"instances"`
}

func (a *API) v2Namespace(w http.ResponseWriter, q *http.Request) error {
	n, err := a.namespace(w, q)
	if err != nil {
		return err
	}
	if n.Services == 0 && n.Document.Content() == nil {
		return noNamespace(n.Namespace)
	}
	setETag(w, n.Document.Version())
	answer := v2NamespaceAnswer{Namespace: n.Namespace, Version: n.Document.Version(), Usage: v2Usage{n.Services, n.Alive}, Document: n.Document.Content()}
	if n.Document != nil {
		last := &n.Document.Edits[len(n.Document.Edits)-1]
		answer.ChangedAt, answer.ChangedBy = timeText(time.UnixMilli(last.At)), last.By
	}
	writeJSON(w, http.StatusOK, typeJSON, &answer)
	return nil
}

func (a *API) v2NamespaceHistory(w http.ResponseWriter, q *http.Request) error {
	n, err := a.namespace(w, q)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2NamespaceEdits{n.Namespace, historyOf(n.Document)})
	return nil
}
