package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// serve takes a request through what all have in common: the count, the slot,
// the deadline, and the answer to an error or a panic.
func (a *API) serve(w http.ResponseWriter, q *http.Request, one *route) {
	start := time.Now()
	answer := &answer{ResponseWriter: w, audited: a.audit != nil}
	defer func() { a.metrics.count(one.pattern, q.Method, answer.status(), time.Since(start)) }()
	if answer.audited {
		answer.before = a.registry.Revision()
		defer a.record(answer, q, one)
	}
	defer a.rescue(answer, q, one)
	if err := a.admit(answer, q, one); err != nil {
		a.refuse(answer, q, one, err)
	}
}

// admit serves within a slot and a deadline.
func (a *API) admit(w *answer, q *http.Request, one *route) error {
	q, err := a.permit(w, q, one)
	if over := a.held(q, one); over != nil { // who is not let is held to his share as well
		return over
	}
	if err != nil {
		return err
	}
	if one.surface == surfacePage {
		return one.serve(w, q)
	}
	if one.watches {
		return a.admitWatch(w, q, one)
	}
	if a.inflight.Add(1) > a.limits.inflight {
		a.inflight.Add(-1)
		a.metrics.refused.Inc()
		return errTooManyRequests
	}
	defer a.inflight.Add(-1)
	if one.need.verb == registry.VerbRead {
		defer a.reads.Add(-1)
		if a.reads.Add(1) > a.limits.reads {
			a.metrics.refused.Inc()
			return errTooManyReads
		}
	}
	if a.access == nil && one.asksAdmin() && !a.knows(q) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="stellmap admin"`)
		return errUnauthorized
	}
	if q.ContentLength < 0 || q.ContentLength > bodySmallMax {
		defer a.large.Add(-1)
		if a.large.Add(1) > largeInflightMax {
			a.metrics.refused.Inc()
			return errTooManyLarge
		}
	}
	if !one.reads && !one.routine {
		if err := a.audit.Ready(); err != nil {
			return err
		}
	}
	if one.long {
		return a.serveLong(w, q, one)
	}
	ctx, cancel := context.WithTimeout(q.Context(), a.limits.timeout)
	defer cancel()
	return one.serve(w, q.WithContext(ctx))
}

// held holds a caller to his share of this member. Who is answered whoever he is has no
// share to be held to: whether this member lives has to be told under any load.
func (a *API) held(q *http.Request, one *route) error {
	if a.share == nil || one.need.whom == whoever {
		return nil
	}
	return a.share(q, one.need.verb, one.need.resource, one.need.whom == whoMaySome)
}

// admitWatch serves a watch within a slot of its own: those who watch must not keep out
// those who call, nor the other way round.
func (a *API) admitWatch(w http.ResponseWriter, q *http.Request, one *route) error {
	if a.watches.Add(1) > a.limits.watches {
		a.watches.Add(-1)
		a.metrics.refused.Inc()
		return errTooManyWatches
	}
	defer a.watches.Add(-1)
	leave, err := a.registry.WatchPlace(addressOf(q))
	if err != nil {
		return err
	}
	defer leave()
	if a.place != nil {
		leave, err := a.place(q)
		if err != nil {
			return err
		}
		defer leave()
	}
	return a.serveLong(w, q, one)
}

// serveLong serves what may stay open, for as long as its caller may.
func (a *API) serveLong(w http.ResponseWriter, q *http.Request, one *route) error {
	if a.stay == nil || registry.CallerOf(q.Context()) == nil {
		return one.serve(w, q)
	}
	ctx, leave, err := a.stay(q.Context(), func() error { return one.need.permit(q) })
	if err != nil {
		return err
	}
	defer leave()
	defer func() { a.cutOff(w, q, one, context.Cause(ctx)) }() // be it that the handler aborts what it has begun
	return one.serve(w, q.WithContext(ctx))
}

// cutOff counts and notes that what had begun was ended for lack of a right. What had not is refused like any call.
func (a *API) cutOff(w http.ResponseWriter, q *http.Request, one *route, why error) {
	answer, ok := w.(*answer)
	if !ok || answer.code == 0 {
		return
	}
	if answer.cut == nil && isDenied(why) {
		answer.cut = why
	}
	if answer.cut == nil {
		return
	}
	f := failureOf(answer.cut, true)
	answer.refusal = f.Code
	a.denied(one.port(), q.RemoteAddr, q.Method+" "+one.pattern+": "+f.Words(answer.cut))
}

// rescue answers 500 to a request whose handler has panicked, or cuts the
// connection when the answer has begun: half an answer must not look whole.
func (a *API) rescue(w *answer, q *http.Request, one *route) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	a.log.Error("a handler panicked", "method", q.Method, "route", one.pattern, "panic", cause, "stack", string(debug.Stack()))
	if w.code != 0 {
		panic(http.ErrAbortHandler)
	}
	a.refuse(w, q, one, &panicError{cause: fmt.Sprint(cause)})
}

// An answer notes the status that goes out.
type answer struct {
	http.ResponseWriter
	code int   // 0 until the header is written
	cut  error // why there was no more for who asks, after the answer had begun

	by string // who asks, where that has to be known; "" = it is not

	// For the audit log.
	audited bool
	told    bool   // there is nothing more to be recorded, unless it is refused
	about   string // the object, where the path does not name it
	refusal string // the code of an error
	before  registry.Revision
}

func (w *answer) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *answer) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// status is what net/http sends for a handler that wrote nothing, too.
func (w *answer) status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}
