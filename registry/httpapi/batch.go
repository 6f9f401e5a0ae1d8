package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/stellmap/stellmap/registry"
)

type v2BatchBody struct {
	Items []v2BatchItem `json:"items"`
}

// A v2BatchItem is one write: one of the three.
type v2BatchItem struct {
	Register   *v2BatchRegister `json:"register"`
	Renew      *v2BatchRenew    `json:"renew"`
	Deregister *heldBody        `json:"deregister"`
}

// heldBody is the name of an instance, and what shows that it is the caller's.
type heldBody struct {
	refBody
	LeaseToken string `json:"leaseToken"`
}

func (b *heldBody) ref() registry.InstanceRef {
	ref := b.refBody.ref()
	ref.Holder = registry.Holder{Asked: true, Token: b.LeaseToken}
	return ref
}

type v2BatchRegister struct {
	heldBody
	v2WorkloadBody
}

type v2BatchRenew struct {
	heldBody
	LeaseTTLSeconds int64 `json:"leaseTtlSeconds"`
}

func (i *v2BatchItem) item() registry.BatchItem {
	var out registry.BatchItem
	if r := i.Register; r != nil {
		registration := r.registration(r.ref())
		out.Register = &registration
	}
	if r := i.Renew; r != nil {
		out.Renew = &registry.Renewal{Instance: r.ref(), LeaseTTLSeconds: r.LeaseTTLSeconds}
	}
	if r := i.Deregister; r != nil {
		ref := r.ref()
		out.Deregister = &ref
	}
	return out
}

type v2BatchAnswer struct {
	Revision registry.Revision `json:"revision"`
	Done     int               `json:"done"`
	Failed   int               `json:"failed"`
	Results  []v2BatchResult   `json:"results"`
}

// A v2BatchResult is what became of one item.
type v2BatchResult struct {
	Status     string            `json:"status"`
	Revision   registry.Revision `json:"revision,omitempty"`
	LeaseToken string            `json:"leaseToken,omitempty"` // of a registration
	Error      *v2BatchError     `json:"error,omitempty"`
	v2Granted
}

// A v2BatchError is a problem with one item, as it would be answered alone.
type v2BatchError struct {
	Index int `json:"index"`
	problem
}

// v2Batch answers 200 whatever became of single items: they are told one by one.
func (a *API) v2Batch(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	defer a.batches.Add(-1)
	if a.batches.Add(1) > batchesInflightMax {
		a.metrics.refused.Inc()
		return errTooManyBatches
	}
	var body v2BatchBody
	var wrong []error // of single items
	err := withBody(w, q, batchBytesMax, func(raw []byte) (err error) {
		wrong, err = decodeBatch(raw, &body)
		return err
	})
	if err != nil {
		return err
	}
	return a.doBatch(w, q, body.Items, wrong)
}

// doBatch leaves out what is wrong already, and tells of it in its place.
func (a *API) doBatch(w http.ResponseWriter, q *http.Request, asked []v2BatchItem, wrong []error) error {
	items := make([]registry.BatchItem, len(asked))
	for i := range asked {
		items[i] = asked[i].item()
	}
	repeat, err := batchRepeat(q, asked)
	if err != nil {
		return err
	}
	for i := range items {
		if r := items[i].Register; r != nil && r.LeaseID == "" {
			r.LeaseToken = repeat.Token(r.Holder.Token, i, a.newToken)
		}
	}
	done, err := a.registry.Batch(q.Context(), repeat.ID, items)
	if err != nil {
		return err
	}
	a.recordItems(w, q, items, done)
	answer := v2BatchAnswer{Results: make([]v2BatchResult, len(done))}
	for i := range done {
		if wrong != nil && wrong[i] != nil {
			done[i].Err = wrong[i]
		}
		answer.Results[i] = batchResult(i, &items[i], &done[i])
		answer.Revision = max(answer.Revision, done[i].Revision)
		if done[i].Err == nil {
			answer.Done++
		} else {
			answer.Failed++
		}
	}
	answer.write(w)
	return nil
}

// write writes the answer by hand, as lists are: it has thousands of results.
func (a *v2BatchAnswer) write(w http.ResponseWriter) {
	setRevision(w, a.Revision)
	before := fmt.Sprintf(`{"revision":%d,"done":%d,"failed":%d,"results":[`, a.Revision, a.Done, a.Failed)
	writeList(w, before, "]}", a.Results, (*encoder).batchResult)
}

func (e *encoder) batchResult(r v2BatchResult) {
	e.open('{')
	e.text("status", r.Status)
	if r.Revision != 0 {
		e.number("revision", int64(r.Revision))
	}
	e.optional("leaseToken", r.LeaseToken)
	if r.Error != nil {
		e.key("error")
		e.b = append(e.b, marshal(r.Error)...)
	}
	if r.LeaseTTLSeconds != 0 {
		e.number("leaseTtlSeconds", r.LeaseTTLSeconds)
	}
	e.close('}')
}

// batchRepeat is repeatOf for a batch, whose items are behind pointers.
func batchRepeat(q *http.Request, asked []v2BatchItem) (registry.Repeat, error) {
	if q.Header.Get(idempotencyKey) == "" {
		return registry.Repeat{}, nil
	}
	text, err := json.Marshal(asked)
	if err != nil {
		return registry.Repeat{}, err
	}
	return repeatOf(q, string(text))
}

func batchResult(index int, item *registry.BatchItem, done *registry.BatchResult) v2BatchResult {
	out := v2BatchResult{Revision: done.Revision, v2Granted: grantedBy(done.Result)}
	if item.Register != nil && done.Err == nil {
		out.LeaseToken = item.Register.LeaseToken
	}
	switch {
	case done.Err != nil:
		out.Status, out.Error = "error", &v2BatchError{Index: index, problem: problemAlone(done.Err)}
	case item.Renew != nil:
		out.Status = "renewed"
	case item.Deregister != nil && done.Changed:
		out.Status = "deleted"
	case item.Deregister != nil:
		out.Status = "absent"
	case done.Created:
		out.Status = "created"
	case done.Changed:
		out.Status = "changed"
	default:
		out.Status = "unchanged"
	}
	return out
}

// problemAlone is how a call for an item alone would be refused.
func problemAlone(err error) problem {
	f := failureOf(err, false)
	return *problemOf(f, f.Words(err), err)
}

// decodeBatch reads a batch. An item that is no item does not spoil the others:
// wrong has its mistakes in its place, nil when there are none at all.
func decodeBatch(raw []byte, into *v2BatchBody) (wrong []error, err error) {
	if items, ok := plainRenewals(string(raw)); ok {
		into.Items = items
		return nil, nil
	}
	refused := decodeBytes(raw, into)
	if refused == nil {
		return nil, nil
	}
	var loose struct {
		Items []json.RawMessage `json:"items"`
	}
	if decodeBytes(raw, &loose) != nil || len(loose.Items) > registry.BatchItemsMax {
		return nil, refused
	}
	wrong, into.Items = make([]error, len(loose.Items)), make([]v2BatchItem, len(loose.Items))
	for i, one := range loose.Items {
		wrong[i] = decodeItem(one, i, &into.Items[i])
	}
	return wrong, nil
}

func decodeItem(raw json.RawMessage, index int, into *v2BatchItem) error {
	var found mistakes
	found.look(raw, reflect.TypeFor[v2BatchItem](), fmt.Sprintf("items[%d]", index))
	if len(found) > 0 {
		return &registry.ValidationError{Problems: found}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		*into = v2BatchItem{} // half of an item must not be done
		return invalid(fmt.Sprintf("items[%d]", index), err.Error())
	}
	return nil
}
