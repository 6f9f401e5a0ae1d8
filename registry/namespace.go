package registry

import (
	"context"
	"fmt"
	"slices"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// A Namespace is what is written down of one. There need not be anything: a
// namespace is there as soon as one of its services is.
type Namespace struct {
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"` // for people and their tools
	Quota       *Quota            `json:"quota,omitempty"`
}

// A Quota bounds what a namespace may hold. What it holds already is left alone,
// and may be registered anew; what would be more is refused.
type Quota struct {
	Services  *int64 `json:"services,omitempty"`  // those without instances included, as long as they are known
	Instances *int64 `json:"instances,omitempty"` // whose lease holds: one that has died must not keep its successor out
}

// The bounds of a namespace's document.
const (
	descriptionBytesMax = 1_024
	quotaMax            = 1 << 40
)

func (n Namespace) normalize(bad *problems) Namespace {
	n.Description = saidText(n.Description, "description", descriptionBytesMax, bad)
	n.Labels = normalizePairs(n.Labels, "labels", bad)
	if n.Quota = section(n.Quota); n.Quota != nil {
		within(n.Quota.Services, "quota.services", 0, quotaMax, bad)
		within(n.Quota.Instances, "quota.instances", 0, quotaMax, bad)
	}
	return n
}

func (n *Namespace) record() *recordv1.Namespace {
	if n == nil {
		return nil
	}
	record := &recordv1.Namespace{Description: n.Description, Labels: pairsToRecord(PairsOf(n.Labels))}
	if n.Quota != nil {
		record.Quota = &recordv1.Quota{Services: n.Quota.Services, Instances: n.Quota.Instances}
	}
	return record
}

func (d *reader) namespace(record *recordv1.Namespace) *Namespace {
	if record == nil {
		return nil
	}
	n := &Namespace{Description: record.GetDescription(), Labels: d.pairs(record.GetLabels()).Map()}
	if q := record.GetQuota(); q != nil {
		n.Quota = &Quota{Services: q.Services, Instances: q.Instances}
	}
	return n
}

func encodedNamespace(n *Namespace) []byte { return encode(n.record()) }

func encodeNamespaces(d *Document[Namespace]) []byte {
	return encodeDocument(d, func(e *recordv1.Edit, n *Namespace) { e.Namespace = n.record() })
}

func (d *reader) decodeNamespaces(name string, value []byte) (*Document[Namespace], error) {
	about := fmt.Sprintf("the document of namespace %q", name)
	return decodeDocument(about, value, func(e *recordv1.Edit) *Namespace { return d.namespace(e.GetNamespace()) })
}

// A holding counts what a namespace has.
type holding struct {
	known     int // services, those that only other regions have included
	services  int // that take a place in the quota
	alive     int // instances whose lease holds
	protected int // services of which all instances are handed out
}

// full is the limit of its namespace's quota that a registration would break; nil
// for none. What is there is never refused.
func (t *step) full(k InstanceKey, old *Instance) *recordv1.Full {
	document := t.state.documents[k.Namespace].Content()
	if document == nil || document.Quota == nil {
		return nil
	}
	has, quota := t.state.holdings[k.Namespace], document.Quota
	if has == nil {
		has = &holding{}
	}
	svc := t.state.services[k.ServiceKey()]
	switch {
	case quota.Services != nil && (svc == nil || !svc.placed) && int64(has.services) >= *quota.Services:
		return &recordv1.Full{Of: recordv1.Full_OF_SERVICES, Limit: *quota.Services}
	case quota.Instances != nil && (old == nil || !old.alive()) && int64(has.alive) >= *quota.Instances:
		return &recordv1.Full{Of: recordv1.Full_OF_INSTANCES, Limit: *quota.Instances}
	}
	return nil
}

func namespaceShelf(name string) shelf[Namespace] {
	return shelf[Namespace]{
		what:     "namespace " + quoted(name),
		of:       Ask{Resource: ResourceNamespaces, Namespace: name},
		document: func(s *state) *Document[Namespace] { return s.documents[name] },
		command: func(next *Namespace, w Writing) []byte {
			edit := &recordv1.EditNamespace{Namespace: name, Document: next.record(), Precondition: w.If.record(), By: w.By}
			return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_EditNamespace{EditNamespace: edit}})
		},
	}
}

// PutNamespace writes down what is to be known of a namespace.
func (r *Registry) PutNamespace(ctx context.Context, requestID, name string, n Namespace, w Writing) (Edited, error) {
	var bad problems
	name, n = normalizeNamespace(name, &bad), n.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, namespaceShelf(name), &n, w)
}

// DeleteNamespace takes it back, quota and all. The services of the namespace stay.
func (r *Registry) DeleteNamespace(ctx context.Context, requestID, name string, w Writing) (Edited, error) {
	var bad problems
	name = normalizeNamespace(name, &bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, namespaceShelf(name), nil, w)
}

// A NamespaceCount is a namespace with what is in it and what is written down of it.
type NamespaceCount struct {
	Namespace string
	Services  int
	Instances int // of every status
	Passing   int
	Alive     int // instances whose lease holds, which are what a quota counts
	Document  *Document[Namespace]
}

// Namespaces reads all namespaces that have a service or a document, sorted.
func (r *Registry) Namespaces(ctx context.Context, c Consistency) ([]NamespaceCount, Revision, error) {
	if err := r.freshen(ctx, c); err != nil {
		return nil, 0, err
	}
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := m.published.index.names("")
	for name, d := range m.published.documents {
		if d.Content() != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := []NamespaceCount{}
	names = visible(ctx, slices.Compact(names), func(name string) Ask { return Ask{Verb: VerbRead, Resource: ResourceNamespaces, Namespace: name} })
	for _, name := range names {
		out = append(out, m.published.namespace(name))
	}
	return out, m.revision, nil
}

// Namespace reads one. The error is ErrNoDocument when it has neither a service
// nor has anything ever been written down of it.
func (r *Registry) Namespace(ctx context.Context, name string, c Consistency) (NamespaceCount, Revision, error) {
	var bad problems
	name = normalizeNamespace(name, &bad)
	if err := bad.err(); err != nil {
		return NamespaceCount{}, 0, err
	}
	if err := Permit(ctx, Ask{Verb: VerbRead, Resource: ResourceNamespaces, Namespace: name}); err != nil {
		return NamespaceCount{}, 0, err
	}
	if err := r.freshen(ctx, c); err != nil {
		return NamespaceCount{}, 0, err
	}
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.published.namespace(name)
	if n.Services == 0 && n.Document == nil {
		return n, m.revision, ErrNoDocument
	}
	return n, m.revision, nil
}

func (s *state) namespace(name string) NamespaceCount {
	n := NamespaceCount{Namespace: name, Document: s.documents[name]}
	if has := s.holdings[name]; has != nil {
		n.Services, n.Alive = has.known, has.alive
	}
	if x := s.index.namespaces[name]; x != nil {
		n.Instances, n.Passing = x.instances, x.values[byStatus][StatusPassing.String()].instances
	}
	return n
}
