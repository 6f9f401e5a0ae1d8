package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/registry"
)

// What is refused before the registry is asked.
var (
	errNoSuchPath      = errors.New("httpapi: no such path")
	errStarting        = errors.New("httpapi: this member is starting")
	errTooManyRequests = errors.New("httpapi: too many requests in flight")
	errTooManyReads    = errors.New("httpapi: too many reads in flight")
	errTooManyWatches  = errors.New("httpapi: too many watches on this member")
	errTooManyBatches  = errors.New("httpapi: too many batches in flight")
	errTooManyLarge    = errors.New("httpapi: too many large bodies in flight")
	errUnauthorized    = errors.New("httpapi: the admin token is missing or wrong")
	errBodyTooLarge    = errors.New("body: is larger")
	errMediaType       = errors.New("httpapi: the body's type is not application/json")
)

// A methodError is a method that a path does not have.
type methodError struct {
	method  string
	allowed []string
}

func (e *methodError) Error() string {
	return fmt.Sprintf("%s is not allowed here: use %s", clip(e.method), strings.Join(e.allowed, ", "))
}

// A panicError is a handler that has panicked. The log has the stack already.
type panicError struct{ cause string }

func (e *panicError) Error() string { return "panic: " + e.cause }

// A failure is how one kind of error is answered.
type failure struct {
	registry.Refusal
	is     error // of those that are refused here; nil for the registry's
	status int
	v1     string // the code in v1 where the SDKs know another
}

// failures is the table of what is refused before the registry is asked, but for
// methods (405).
var failures = [...]failure{
	{is: errNoSuchPath, status: http.StatusNotFound, Refusal: registry.Refusal{Code: "not_found", Title: "Not found",
		Says: "there is nothing at this path"}},
	{is: errUnauthorized, status: http.StatusUnauthorized, Refusal: registry.Refusal{Code: "unauthorized", Title: "Unauthorized",
		Says: "the admin token is missing or wrong: send it as Authorization: Bearer <token>"}},
	{is: errMediaType, status: http.StatusUnsupportedMediaType, Refusal: registry.Refusal{Code: "unsupported_media_type", Title: "Unsupported media type",
		Says: "Content-Type: the body must be application/json"}},
	{is: errBodyTooLarge, status: http.StatusRequestEntityTooLarge, Refusal: registry.Refusal{Code: "too_large", Title: "Too large"}},
	{is: errTooManyRequests, status: http.StatusTooManyRequests, Refusal: registry.Refusal{Code: "busy", Title: "Too busy", Retry: true,
		Says: "too many requests are in flight on this member: nothing was done, try again later or at another member"}},
	{is: errTooManyReads, status: http.StatusTooManyRequests, Refusal: registry.Refusal{Code: "busy", Title: "Too busy", Retry: true,
		Says: fmt.Sprintf("%d reads are in flight on this member, which is as many as may be: try again later or at another member", readsInflightMax)}},
	{is: errTooManyWatches, status: http.StatusTooManyRequests, Refusal: registry.Refusal{Code: "busy", Title: "Too busy", Retry: true,
		Says: "as many watches are open on this member as may be: watch at another member, or try again later"}},
	{is: errTooManyBatches, status: http.StatusTooManyRequests, Refusal: registry.Refusal{Code: "busy", Title: "Too busy", Retry: true,
		Says: fmt.Sprintf("%d batches are in flight on this member, which is as many as may be: nothing was done, try again later or at another member", batchesInflightMax)}},
	{is: errTooManyLarge, status: http.StatusTooManyRequests, Refusal: registry.Refusal{Code: "busy", Title: "Too busy", Retry: true,
		Says: fmt.Sprintf("%d calls with a body above %d bytes, or of unknown length, are in flight on this member, which is as many as may be: nothing was done, try again later or at another member", largeInflightMax, bodySmallMax)}},
	{is: audit.ErrUnavailable, status: http.StatusServiceUnavailable, Refusal: registry.Refusal{Code: "not_audited", Title: "Not audited", Retry: true,
		Says: "the audit log of this member, without which nothing may be changed, cannot be written: nothing was done, try another member"}},
	{is: errStarting, status: http.StatusServiceUnavailable, Refusal: registry.Refusal{Code: "not_ready", Title: "Not ready", Retry: true,
		Says: "this member is starting: nothing was done, try another member, or this one again later"}},
}

// statuses are those of what the registry refuses, by its codes. What is not here
// nobody foresaw (500).
var statuses = map[string]int{
	registry.CodeBadRequest: http.StatusBadRequest,
	"not_found":             http.StatusNotFound,
	"revision_expired":      http.StatusGone,
	"lease_token_required":  http.StatusForbidden,
	"wrong_lease_token":     http.StatusForbidden,
	"lease_not_found":       http.StatusNotFound,
	"shared_lease":          http.StatusConflict,
	"leases_full":           http.StatusTooManyRequests,
	"unauthenticated":       http.StatusUnauthorized,
	"forbidden":             http.StatusForbidden,
	"token_told":            http.StatusConflict,
	"version_differs":       http.StatusPreconditionFailed,
	"quota_exceeded":        http.StatusForbidden,
	"cursor_expired":        http.StatusGone,
	"busy":                  http.StatusTooManyRequests,
	"too_many_reports":      http.StatusTooManyRequests,
	"too_many_watches":      http.StatusTooManyRequests,
	"too_many_requests":     http.StatusTooManyRequests,
	"disk_full":             http.StatusInsufficientStorage,
	"states_differ":         http.StatusServiceUnavailable,
	"too_old":               http.StatusServiceUnavailable,
	"no_leader":             http.StatusServiceUnavailable,
	"not_tried":             http.StatusServiceUnavailable,
	"stopping":              http.StatusServiceUnavailable,
	"unknown_outcome":       http.StatusServiceUnavailable,
	registry.CodeInternal:   http.StatusInternalServerError,
}

// codesOfV1 are the codes that the SDKs know by another name.
var codesOfV1 = map[string]string{"no_leader": "not_leader"}

var wrongMethod = failure{status: http.StatusMethodNotAllowed, Refusal: registry.Refusal{Code: "method_not_allowed", Title: "Method not allowed"}}

// failureOf finds how an error is answered.
func failureOf(err error, reads bool) *failure {
	var method *methodError
	var membership *MembershipError
	switch {
	case errors.As(err, &membership):
		return membershipFailures[membership.Reason]
	case errors.As(err, &method):
		return &wrongMethod
	}
	for i := range failures {
		if errors.Is(err, failures[i].is) {
			return &failures[i]
		}
	}
	r := registry.RefusalOf(err, reads)
	return &failure{Refusal: *r, status: statuses[r.Code], v1: codesOfV1[r.Code]}
}

// retryAfter is when a call may work again, where the error does not say: an election takes about that long.
const retryAfter = time.Second

// inSeconds is a time as Retry-After has it: in whole seconds, and not too early.
func inSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// refuse answers with an error in the form of the route's surface.
func (a *API) refuse(w http.ResponseWriter, q *http.Request, one *route, err error) {
	f := failureOf(err, one.reads)
	var panicked *panicError
	if f.Code == registry.CodeInternal && !errors.As(err, &panicked) {
		a.log.Error("a request failed", "method", q.Method, "route", one.pattern, "error", err)
	}
	if f.Retry {
		w.Header().Set("Retry-After", inSeconds(registry.RetryAfter(err, retryAfter)))
	}
	if answer, ok := w.(*answer); ok {
		answer.refusal = f.Code
	}
	says := f.Words(err)
	if isDenial(f.status) {
		a.denied(one.port(), q.RemoteAddr, q.Method+" "+one.pattern+": "+says)
	}
	switch {
	case one.surface == surfaceV2:
		writeProblem(w, f, says, err)
	case f == &wrongMethod:
		http.Error(w, says, f.status) // as the existing server does
	case one.surface == surfaceAdmin:
		writeAdminError(w, f, says, err)
	default:
		writeEnvelopeError(w, f, says)
	}
}

// writeAdminError tells programs more than v1 may.
func writeAdminError(w http.ResponseWriter, f *failure, says string, err error) {
	e := struct {
		envelopeError
		Behind uint64 `json:"behind,omitempty"`
	}{envelopeError: envelopeError{Code: f.Code, Message: says}}
	if f.v1 != "" {
		e.Code = f.v1
	}
	var membership *MembershipError
	if errors.As(err, &membership) {
		e.Behind = membership.Behind
	}
	writeJSON(w, f.status, typeJSON, &e)
}

// An envelopeError is an error in v1. The Java SDK does not take another key.
type envelopeError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func writeEnvelopeError(w http.ResponseWriter, f *failure, says string) {
	code := f.Code
	if f.v1 != "" {
		code = f.v1
	}
	writeJSON(w, f.status, typeJSON, &envelopeError{Code: code, Message: says})
}

// A problem is an error in v2, as RFC 9457 has it.
type problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Code   string         `json:"code"`
	Detail string         `json:"detail"`
	Errors []problemField `json:"errors,omitempty"`
	// CurrentVersion is a document's that an edit was refused for, 0 when nobody has ever written one.
	CurrentVersion *uint64 `json:"currentVersion,omitempty"`
}

type problemField struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func writeProblem(w http.ResponseWriter, f *failure, says string, err error) {
	p := problemOf(f, says, err)
	if p.CurrentVersion != nil {
		setETag(w, *p.CurrentVersion)
	}
	writeJSON(w, f.status, typeProblem, p)
}

func problemOf(f *failure, says string, err error) *problem {
	p := &problem{Type: "/errors/" + f.Code, Title: f.Title, Status: f.status, Code: f.Code, Detail: says}
	var invalid *registry.ValidationError
	if errors.As(err, &invalid) {
		for _, one := range invalid.Problems {
			p.Errors = append(p.Errors, problemField{Field: one.Field, Reason: one.Reason})
		}
	}
	var version *registry.VersionError
	if errors.As(err, &version) {
		p.CurrentVersion = &version.Version
	}
	return p
}

// The types of answers.
const (
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
	typeText    = "text/plain; charset=utf-8"
)

// writeJSON answers with what marshals by itself.
func writeJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	writeBytes(w, status, mediaType, marshal(v))
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("httpapi: encode %T: %v", v, err)) // texts and numbers only
	}
	return b
}

// writeBytes does not look at the error of the last write: it means that the
// client has gone, and there is nobody left to tell.
func writeBytes(w http.ResponseWriter, status int, mediaType string, b []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}

// revisionHeader is in every answer that depends on the state.
const revisionHeader = "X-StellMap-Revision"

// setRevision tells what an answer was read at, or what a write has become.
func setRevision(w http.ResponseWriter, at registry.Revision) {
	if at != 0 {
		w.Header().Set(revisionHeader, strconv.FormatUint(uint64(at), 10))
	}
}

// invalid is a request with one wrong field.
func invalid(field, reason string) error {
	return &registry.ValidationError{Problems: []registry.Problem{{Field: field, Reason: reason}}}
}

// clip is a caller's text as an answer may show it.
func clip(s string) string {
	const shown = 64
	if len(s) > shown {
		return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:shown], ""), len(s))
	}
	return s
}
