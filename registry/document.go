package registry

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// Documents are what operators write down: how a service is to be treated (its
// policy), what a service calls (its upstreams), and what a namespace may hold. One can be there long before what it is
// about, and outlives it.
//
// A document counts its edits. The count goes on when it is taken back and written
// anew: whoever edits what he has read under a version edits that, or nothing. So
// of one that was taken back its last edits stay, until their place is needed.

// The bounds of documents.
const (
	editsMax      = 16 // of each document the newest are kept
	policiesMax   = 65_536
	upstreamsMax  = 65_536 // documents of what services call
	namespacesMax = 16_384 // documents of namespaces; without one there can be more
)

// A Document is the last edits of one, of which the newest holds. It never changes:
// an edit makes a new one. Of nil, everything is zero: nobody has ever written one.
type Document[D any] struct {
	Edits []Edit[D] // the newest at the end; their versions are consecutive
}

// An Edit is one version of a document.
type Edit[D any] struct {
	Version  uint64 // from 1
	Revision Revision
	At       int64 // Unix ms
	By       string
	Content  *D // nil = it was taken back
}

// last is the edit that holds; the zero edit when there was none.
func (d *Document[D]) last() Edit[D] {
	if d == nil {
		return Edit[D]{}
	}
	return d.Edits[len(d.Edits)-1]
}

// Version is the number of edits so far.
func (d *Document[D]) Version() uint64 { return d.last().Version }

// Content is what is written down; nil for nothing.
func (d *Document[D]) Content() *D { return d.last().Content }

// ChangesOf says what an edit changed. Of one whose predecessor is not kept any
// more nothing is known.
func (d *Document[D]) ChangesOf(version uint64) []FieldChange {
	var before *D
	for _, e := range d.Edits {
		switch {
		case e.Version == version && (version == 1 || e.Version != d.Edits[0].Version):
			return differences(before, e.Content)
		case e.Version == version:
			return nil
		}
		before = e.Content
	}
	return nil
}

// with is the document after one more edit.
func (d *Document[D]) with(e Edit[D]) *Document[D] {
	var edits []Edit[D]
	if d != nil {
		edits = d.Edits[max(0, len(d.Edits)+1-editsMax):]
	}
	return &Document[D]{Edits: append(slices.Clone(edits), e)}
}

// A Precondition is what must be true of a document for an edit to be made. The
// zero value is always true.
type Precondition struct {
	Version *uint64 // it has this version; 0 = nobody has ever written one
	Present bool    // there is one
	Absent  bool    // there is none
}

func (p Precondition) holds(version uint64, present bool) bool {
	return (p.Version == nil || *p.Version == version) && (!p.Present || present) && (!p.Absent || !present)
}

func (p Precondition) record() *recordv1.Precondition {
	if p == (Precondition{}) {
		return nil
	}
	return &recordv1.Precondition{Version: p.Version, Present: p.Present, Absent: p.Absent}
}

func preconditionOf(record *recordv1.Precondition) Precondition {
	if record == nil {
		return Precondition{}
	}
	return Precondition{Version: record.Version, Present: record.GetPresent(), Absent: record.GetAbsent()}
}

// A Writing says who edits a document, and how.
type Writing struct {
	By     string       // who asks for it
	If     Precondition // else the error is a VersionError
	DryRun bool         // say what would change, and change nothing
}

// Edited is what became of an edit.
type Edited struct {
	Result
	Version uint64        // of the document now
	Changes []FieldChange // what the edit changed, or would
}

// A shelf is where documents of one kind are found, and how they are written.
type shelf[D any] struct {
	document func(*state) *Document[D]
	command  func(next *D, w Writing) []byte
	what     string // for errors
	of       Ask    // what it is, in the words of access; what is done to it is the call's
}

// permit is Permit for such a document.
func (s shelf[D]) permit(ctx context.Context, v Verb) error {
	a := s.of
	a.Verb = v
	return Permit(ctx, a)
}

// edit writes a document, or takes it back when next is nil.
func edit[D any](ctx context.Context, r *Registry, requestID string, s shelf[D], next *D, w Writing) (Edited, error) {
	if err := s.permit(ctx, VerbWrite); err != nil {
		return Edited{}, err
	}
	if w.DryRun {
		return plan(ctx, r, s, next, w)
	}
	applied, reply, err := r.propose(ctx, requestID, s.command(next, w))
	if err != nil {
		return Edited{}, fmt.Errorf("edit %s: %w", s.what, err)
	}
	out := Edited{Result: applied, Version: reply.GetVersion()}
	switch reply.GetCode() {
	case recordv1.Result_CODE_VERSION_DIFFERS:
		return out, &VersionError{What: s.what, Version: out.Version}
	case recordv1.Result_CODE_QUOTA_FULL:
		return out, fullError("", reply.GetFull())
	}
	if out.Changed {
		document, _ := readDocument(r.machine, s)
		out.Changes = document.ChangesOf(out.Version)
	}
	return out, nil
}

// plan is edit without its effect. Between it and the edit another's may come:
// who must not overwrite that gives the version that he has seen.
func plan[D any](ctx context.Context, r *Registry, s shelf[D], next *D, w Writing) (Edited, error) {
	if err := r.freshen(ctx, Consistency{}); err != nil {
		return Edited{}, err
	}
	document, at := readDocument(r.machine, s)
	out := Edited{Result: Result{Revision: at}, Version: document.Version()}
	if !w.If.holds(out.Version, document.Content() != nil) {
		return out, &VersionError{What: s.what, Version: out.Version}
	}
	out.Changes = differences(document.Content(), next)
	out.Created, out.Changed = document.Content() == nil && next != nil, (document.Content() == nil) != (next == nil) || len(out.Changes) > 0
	return out, nil
}

// read reads a document. The error is ErrNoDocument when nobody has ever written one.
func read[D any](ctx context.Context, r *Registry, s shelf[D], c Consistency) (*Document[D], Revision, error) {
	if err := s.permit(ctx, VerbRead); err != nil {
		return nil, 0, err
	}
	if err := r.freshen(ctx, c); err != nil {
		return nil, 0, err
	}
	document, at := readDocument(r.machine, s)
	if document == nil {
		return nil, at, ErrNoDocument
	}
	return document, at, nil
}

func readDocument[D any](m *Machine, s shelf[D]) (*Document[D], Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return s.document(m.published), m.revision
}

// documents are those of one kind within a state.
type documents[K comparable, D any] map[K]*Document[D]

func (s documents[K, D]) put(k K, d *Document[D]) {
	if d == nil {
		delete(s, k)
		return
	}
	s[k] = d
}

// room finds a document whose place another can have, when there are as many as
// there may be: of those that were taken back, the one that was so first. It looks
// at all of them, which is cheap beside what it takes to write so many.
func (s documents[K, D]) room(most int) (drop K, full, found bool) {
	if len(s) < most {
		return drop, false, true
	}
	oldest := Revision(0)
	for k, d := range s {
		if last := d.last(); last.Content == nil && (!found || last.Revision < oldest) { // no two are of one revision
			drop, oldest, found = k, last.Revision, true
		}
	}
	return drop, true, found
}

// admit makes room for a document of which there has been none; the answer when there is no room.
func admit[K comparable, D any](all documents[K, D], most int, of recordv1.Full_Of, forget func(K)) *recordv1.Result {
	drop, full, found := all.room(most)
	if !found {
		return &recordv1.Result{Code: recordv1.Result_CODE_QUOTA_FULL, Full: &recordv1.Full{Of: of, Limit: int64(most)}}
	}
	if full {
		forget(drop)
	}
	return nil
}

// nextEdit decides what an edit makes of a document: nil for nothing, with the answer.
func nextEdit[D any](t *step, old *Document[D], next *D, p *recordv1.Precondition, by string, encoded func(*D) []byte) (*Document[D], *recordv1.Result) {
	version, content := old.Version(), old.Content()
	switch {
	case !preconditionOf(p).holds(version, content != nil):
		return nil, &recordv1.Result{Code: recordv1.Result_CODE_VERSION_DIFFERS, Version: version}
	case content == nil && next == nil, content != nil && next != nil && bytes.Equal(encoded(content), encoded(next)):
		return nil, &recordv1.Result{Code: recordv1.Result_CODE_OK, Version: version}
	}
	made := Edit[D]{Version: version + 1, Revision: t.entry.Index, At: t.entry.Time, By: by, Content: next}
	return old.with(made), &recordv1.Result{Code: recordv1.Result_CODE_OK, Version: version + 1, Created: content == nil, Changed: true}
}

func (t *step) editPolicy(e *recordv1.EditPolicy) *recordv1.Result {
	k := ServiceKey{Namespace: t.reader.share(e.GetKey().GetNamespace()), Service: t.reader.share(e.GetKey().GetService())}
	old := t.state.policies[k]
	document, result := nextEdit(t, old, policyOfRecord(e.GetPolicy()), e.GetPrecondition(), e.GetBy(), encodedPolicy)
	if document == nil {
		return result
	}
	if old == nil {
		if full := admit(t.state.policies, policiesMax, recordv1.Full_OF_POLICIES, func(drop ServiceKey) {
			t.batch.Delete(storage.PolicyKey(drop.Namespace, drop.Service))
			t.change(change{service: drop, op: opPolicyPut, silent: true})
		}); full != nil {
			return full
		}
	}
	if d := t.draft(k); d != nil {
		d.visible = true
	}
	t.batch.Set(storage.PolicyKey(k.Namespace, k.Service), encodePolicies(document))
	t.change(change{service: k, op: opPolicyPut, policy: document})
	t.endReported(k)
	t.ageService(k)
	return result
}

func (t *step) editUpstreams(e *recordv1.EditUpstreams) *recordv1.Result {
	k := ServiceKey{Namespace: t.reader.share(e.GetKey().GetNamespace()), Service: t.reader.share(e.GetKey().GetService())}
	old := t.state.upstreams[k]
	document, result := nextEdit(t, old, upstreamsOfRecord(e.GetUpstreams()), e.GetPrecondition(), e.GetBy(), encodedUpstreams)
	if document == nil {
		return result
	}
	if old == nil {
		if full := admit(t.state.upstreams, upstreamsMax, recordv1.Full_OF_UPSTREAMS, func(drop ServiceKey) {
			t.batch.Delete(storage.UpstreamsKey(drop.Namespace, drop.Service))
			t.change(change{service: drop, op: opUpstreamsPut, silent: true})
		}); full != nil {
			return full
		}
	}
	t.batch.Set(storage.UpstreamsKey(k.Namespace, k.Service), encodeUpstreams(document))
	t.change(change{service: k, op: opUpstreamsPut, upstreams: document})
	return result
}

func (t *step) editNamespace(e *recordv1.EditNamespace) *recordv1.Result {
	name := t.reader.share(e.GetNamespace())
	old := t.state.documents[name]
	document, result := nextEdit(t, old, t.reader.namespace(e.GetDocument()), e.GetPrecondition(), e.GetBy(), encodedNamespace)
	if document == nil {
		return result
	}
	if old == nil {
		if full := admit(t.state.documents, namespacesMax, recordv1.Full_OF_NAMESPACES, func(drop string) {
			t.batch.Delete(storage.NamespaceKey(drop))
			t.change(change{service: ServiceKey{Namespace: drop}, op: opNamespacePut, silent: true})
		}); full != nil {
			return full
		}
	}
	t.batch.Set(storage.NamespaceKey(name), encodeNamespaces(document))
	t.change(change{service: ServiceKey{Namespace: name}, op: opNamespacePut, namespace: document, silent: true})
	return result
}

// encodeDocument writes a document; content puts what is written down into the record of an edit.
func encodeDocument[D any](d *Document[D], content func(*recordv1.Edit, *D)) []byte {
	record := &recordv1.DocumentRecord{Format: formatMax}
	for _, e := range d.Edits {
		one := &recordv1.Edit{Version: e.Version, Revision: uint64(e.Revision), AtMs: e.At, By: e.By}
		content(one, e.Content)
		record.Edits = append(record.Edits, one)
	}
	return encode(record)
}

// decodeDocument reads one back.
func decodeDocument[D any](about string, value []byte, content func(*recordv1.Edit) *D) (*Document[D], error) {
	var record recordv1.DocumentRecord
	if err := unmarshalRecord(about, value, &record); err != nil {
		return nil, err
	}
	if len(record.GetEdits()) == 0 {
		return nil, fmt.Errorf("%s has no edits: it is damaged", about)
	}
	d := &Document[D]{}
	for _, e := range record.GetEdits() {
		d.Edits = append(d.Edits, Edit[D]{Version: e.GetVersion(), Revision: Revision(e.GetRevision()), At: e.GetAtMs(), By: e.GetBy(), Content: content(e)})
	}
	return d, nil
}
