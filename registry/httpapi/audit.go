package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/registry"
)

// requestIDHeader is how a caller, or what stands before a member, names a call, for the
// audit log alone.
const requestIDHeader = "X-Request-ID"

// about tells the audit log the object of a call whose path does not name it.
func about(w http.ResponseWriter, object string) {
	if answer, ok := w.(*answer); ok {
		answer.about = object
	}
}

// concerns is about for an instance.
func concerns(w http.ResponseWriter, ref registry.InstanceRef) {
	if answer, ok := w.(*answer); ok && answer.audited {
		answer.about = ref.Name()
	}
}

// done tells the audit log that there is nothing more to be recorded of a call, unless it
// is refused.
func done(w http.ResponseWriter) {
	if answer, ok := w.(*answer); ok {
		answer.told = true
	}
}

// mayBeDone says that what was refused so may have been done all the same.
func mayBeDone(code string) bool { return code == "unknown_outcome" || code == registry.CodeInternal }

// record writes down what a call has done, or why it was not let: whoever is not let is
// told of whatever he wanted. Other refusals changed nothing and are not the log's, but for
// those of which nobody knows what they did.
func (a *API) record(w *answer, q *http.Request, one *route) {
	denied := w.cut != nil || isDenial(w.status())
	changes := !one.reads && !one.routine && one.surface != surfacePage
	failed := w.refusal != "" && !denied
	switch {
	case denied:
	case failed && !(changes && mayBeDone(w.refusal)):
		return
	case w.told && !failed:
		return
	case !changes && !(one.reads && one.surface != surfacePage && a.audit.Reads()):
		return
	}
	e := a.entry(w, q, one.port())
	if e.Does = one.operation.id; e.Does == "" {
		e.Does = q.Method + " " + one.pattern
	}
	e.Denied, e.Code = denied, w.refusal
	if e.On = w.about; e.On == "" {
		e.On = objectOf(q, one)
	}
	if changes && w.refusal == "" {
		e.After, _ = strconv.ParseUint(w.Header().Get(revisionHeader), 10, 64) // 0 where it has none
	}
	a.audit.Record(q.Context(), e)
}

// isDenial says of a status that it is for lack of a right.
func isDenial(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// entry is what is known of a call before it is done. Its Idempotency-Key is not in it: lease
// tokens may follow from that.
func (a *API) entry(w *answer, q *http.Request, port string) audit.Entry {
	e := audit.Entry{From: q.RemoteAddr, Port: port, Token: registry.TokenOf(w.by), Before: uint64(w.before), Request: q.Header.Get(requestIDHeader)}
	if a.token != "" && q.Header.Get("Authorization") != "" && a.knows(q) {
		e.Token = audit.TokenName("admin", q.Header.Get("Authorization"))
	}
	return e
}

// objectOf is what the path of a call names.
func objectOf(q *http.Request, one *route) string {
	var names []string
	for s := range strings.SplitSeq(one.pattern, "/") {
		if isWildcard(s) {
			names = append(names, q.PathValue(s[1:len(s)-1]))
		}
	}
	return strings.Join(names, "/")
}

// The names of what a batch does, as calls of their own have them.
const (
	doesRegister   = "registerInstance"
	doesRenew      = "renewInstance"
	doesDeregister = "deregisterInstance"
)

// recordItems records each item of a batch as the call that it stands for.
func (a *API) recordItems(w http.ResponseWriter, q *http.Request, items []registry.BatchItem, results []registry.BatchResult) {
	answer, ok := w.(*answer)
	if !ok || !answer.audited {
		return
	}
	answer.told = true
	e := a.entry(answer, q, "http")
	for i := range items {
		var routine bool
		e.Does, e.On, routine = itemOf(&items[i])
		e.Code, e.Denied, e.After = "", false, uint64(results[i].Revision)
		if err := results[i].Err; err != nil {
			f := failureOf(err, false)
			e.Code, e.Denied, e.After = f.Code, isDenial(f.status), 0
			routine = routine || !mayBeDone(f.Code)
		}
		if e.Denied || !routine {
			a.audit.Record(q.Context(), e)
		}
	}
}

// itemOf is what an item does, on what, and whether that is recorded only if it is denied.
func itemOf(item *registry.BatchItem) (does, on string, routine bool) {
	switch {
	case item.Register != nil:
		r := item.Register
		return doesRegister, registry.InstanceRef{Namespace: r.Namespace, Service: r.Service, Levels: r.Levels, ID: r.ID}.Name(), false
	case item.Deregister != nil:
		return doesDeregister, item.Deregister.Name(), false
	case item.Renew != nil:
		return doesRenew, item.Renew.Instance.Name(), true
	}
	return "", "", true
}
