package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// What is refused before the registry is asked.
var (
	errNoSuchPath      = errors.New("httpapi: no such path")
	errStarting        = errors.New("httpapi: this member is starting")
	errTooManyRequests = errors.New("httpapi: too many requests in flight")
	errTooManyBatches  = errors.New("httpapi: too many batches in flight")
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

// A missingError is an instance that is not there, and says which.
type missingError struct {
	ref  registry.InstanceRef
	next string // what to do
}

func (e *missingError) Error() string {
	service := e.ref.Service
	if strings.TrimSpace(service) == "" {
		service = e.ref.Levels.String()
	}
	return fmt.Sprintf("instance %q of service %q in namespace %q is not registered: %s",
		strings.TrimSpace(e.ref.ID), strings.TrimSpace(service), strings.TrimSpace(e.ref.Namespace), e.next)
}

func (e *missingError) Unwrap() error { return registry.ErrNotFound }

// A missingService is a service that is not there, and says which.
type missingService struct{ key registry.ServiceKey }

func (e *missingService) Error() string {
	return fmt.Sprintf("service %q in namespace %q is not known: it never was, or its last instance went more than a day ago", e.key.Service, e.key.Namespace)
}

func (e *missingService) Unwrap() error { return registry.ErrNotFound }

// A panicError is a handler that has panicked. The log has the stack already.
type panicError struct{ cause string }

func (e *panicError) Error() string { return "panic: " + e.cause }

// A failure is how one kind of error is answered.
type failure struct {
	is     error
	status int
	code   string
	v1     string // the code in v1 where the SDKs know another
	title  string
	says   string // "" = the error's own words
	retry  bool   // with Retry-After: the same call may work in a moment
}

// failures is the table of everything that can go wrong, but for what callers
// wrote (400), methods (405) and what nobody foresaw (500). The first that an
// error is counts.
var failures = [...]failure{
	{is: registry.ErrNotFound, status: http.StatusNotFound, code: "not_found", title: "Not found"},
	{is: registry.ErrTokenRequired, status: http.StatusForbidden, code: "lease_token_required", title: "Lease token required",
		says: "what is to be changed is held with a lease token and the call has none, nothing was done: send the token that its registration was answered with as " + leaseTokenHeader + " (leaseToken in an item of a batch); anyone may register an instance once its lease has run out; an operator does it with force=true and the admin token"},
	{is: registry.ErrWrongToken, status: http.StatusForbidden, code: "wrong_lease_token", title: "Wrong lease token",
		says: "it is held with another lease token, nothing was done: somebody else has registered it, who lives on or has taken your place after your lease had run out; use another instanceId, or stop; an operator does it with force=true and the admin token"},
	{is: registry.ErrLeaseNotFound, status: http.StatusNotFound, code: "lease_not_found", title: "Lease not found",
		says: "there is no such lease: it never was, it was revoked, or it has run out, and all of its instances with it; make a new one and register them under it"},
	{is: registry.ErrSharedLease, status: http.StatusConflict, code: "shared_lease", title: "Shared lease",
		says: "the instance lives under a lease that it shares with others, its leaseId says which: renew that, POST /api/v2/leases/{leaseId}/renew"},
	{is: registry.ErrLeasesFull, status: http.StatusTooManyRequests, code: "leases_full", title: "Too many leases",
		says: "there are as many shared leases, or as many instances under this one, as there may be: nothing was done; use another lease, or revoke one that is not used"},
	{is: registry.ErrNoDocument, status: http.StatusNotFound, code: "not_found", title: "Not found"},
	{is: registry.ErrVersion, status: http.StatusPreconditionFailed, code: "version_differs", title: "Another version"},
	{is: registry.ErrQuota, status: http.StatusForbidden, code: "quota_exceeded", title: "Quota exceeded"},
	{is: registry.ErrCursorExpired, status: http.StatusGone, code: "cursor_expired", title: "Cursor expired"},
	{is: errNoSuchPath, status: http.StatusNotFound, code: "not_found", title: "Not found",
		says: "there is nothing at this path"},
	{is: errUnauthorized, status: http.StatusUnauthorized, code: "unauthorized", title: "Unauthorized",
		says: "the admin token is missing or wrong: send it as Authorization: Bearer <token>"},
	{is: errMediaType, status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", title: "Unsupported media type",
		says: "Content-Type: the body must be application/json"},
	{is: errBodyTooLarge, status: http.StatusRequestEntityTooLarge, code: "too_large", title: "Too large"},
	{is: errTooManyRequests, status: http.StatusTooManyRequests, code: "busy", title: "Too busy", retry: true,
		says: "too many requests are in flight on this member: nothing was done, try again later or at another member"},
	{is: errTooManyBatches, status: http.StatusTooManyRequests, code: "busy", title: "Too busy", retry: true,
		says: fmt.Sprintf("%d batches are in flight on this member, which is as many as may be: nothing was done, try again later or at another member", batchesInflightMax)},
	{is: registry.ErrBusy, status: http.StatusTooManyRequests, code: "busy", title: "Too busy", retry: true,
		says: "too many calls are waiting on this member: nothing was done, try again later or at another member"},
	{is: registry.ErrFull, status: http.StatusInsufficientStorage, code: "disk_full", title: "Insufficient storage", retry: true,
		says: "the disks of too many members are nearly full: nothing was done, and nothing that grows is until there is room; reading, heartbeats and deregistration go on"},
	{is: registry.ErrDiverged, status: http.StatusServiceUnavailable, code: "states_differ", title: "The members' states differ",
		says: "the members compared their states, and no state has a majority: nothing was done, and nothing is written until an operator has made a new cluster from the right one"},
	{is: registry.ErrTooOld, status: http.StatusServiceUnavailable, code: "too_old", title: "Too old", retry: true,
		says: "what this member knows is older than max_staleness allows, and no leader with a quorum was found to confirm it: ask another member, or allow more"},
	{is: registry.ErrNoLeader, status: http.StatusServiceUnavailable, code: "no_leader", v1: "not_leader", title: "No leader", retry: true,
		says: "no leader with a quorum was found in time: nothing was done, try again"},
	{is: registry.ErrNotTried, status: http.StatusServiceUnavailable, code: "not_tried", title: "Not tried", retry: true,
		says: "an earlier part of the batch did not pass, so this one was not tried: nothing was done, try again"},
	{is: errStarting, status: http.StatusServiceUnavailable, code: "not_ready", title: "Not ready", retry: true,
		says: "this member is starting: nothing was done, try another member, or this one again later"},
	{is: registry.ErrStopping, status: http.StatusServiceUnavailable, code: "stopping", title: "Stopping", retry: true,
		says: "this member is shutting down: nothing was done, try another member"},
	{is: registry.ErrUnknownOutcome, status: http.StatusServiceUnavailable, code: "unknown_outcome", title: "Unknown outcome",
		says: "the write was sent and its answer was lost, it may or may not take effect: read before you try again, or in v2 repeat it with the same Idempotency-Key"},
}

var (
	badRequest    = failure{status: http.StatusBadRequest, code: "bad_request", title: "Bad request"}
	wrongMethod   = failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed", title: "Method not allowed"}
	internalError = failure{status: http.StatusInternalServerError, code: "internal", title: "Internal error",
		says: "something went wrong inside this member; its log says what"}
)

// failureOf finds how an error is answered. A call that ran out of time after it
// was sent has an unknown outcome, unless it only reads.
func failureOf(err error, reads bool) *failure {
	var invalid *registry.ValidationError
	var method *methodError
	var membership *MembershipError
	switch {
	case errors.As(err, &membership):
		return membershipFailures[membership.Reason]
	case errors.As(err, &invalid):
		return &badRequest
	case errors.As(err, &method):
		return &wrongMethod
	}
	for i := range failures {
		if f := &failures[i]; errors.Is(err, f.is) && !(reads && f.is == registry.ErrUnknownOutcome) {
			return f
		}
	}
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	switch {
	case reads && (late || errors.Is(err, registry.ErrUnknownOutcome)):
		return failureOf(registry.ErrNoLeader, reads)
	case late:
		return failureOf(registry.ErrUnknownOutcome, reads)
	}
	return &internalError
}

// retryAfter is in seconds: an election takes about that long.
const retryAfter = "1"

// refuse answers with an error in the form of the route's surface.
func (a *API) refuse(w http.ResponseWriter, q *http.Request, one *route, err error) {
	f := failureOf(err, one.reads)
	var panicked *panicError
	if f == &internalError && !errors.As(err, &panicked) {
		a.log.Error("a request failed", "method", q.Method, "route", one.pattern, "error", err)
	}
	if f.retry {
		w.Header().Set("Retry-After", retryAfter)
	}
	says := f.words(err)
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

// words are what the answer to an error says.
func (f *failure) words(err error) string {
	if f.says == "" {
		return err.Error()
	}
	return f.says
}

// writeAdminError tells programs more than v1 may.
func writeAdminError(w http.ResponseWriter, f *failure, says string, err error) {
	e := struct {
		envelopeError
		Behind uint64 `json:"behind,omitempty"`
	}{envelopeError: envelopeError{Code: f.code, Message: says}}
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
	code := f.code
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
	p := &problem{Type: "/errors/" + f.code, Title: f.title, Status: f.status, Code: f.code, Detail: says}
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
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("httpapi: encode %T: %v", v, err)) // texts and numbers only
	}
	writeBytes(w, status, mediaType, b)
}

// writeBytes does not look at the error of the last write: it means that the
// client has gone, and there is nobody left to tell.
func writeBytes(w http.ResponseWriter, status int, mediaType string, b []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}

// setRevision tells what an answer was read at, or what a write has become.
func setRevision(w http.ResponseWriter, at registry.Revision) {
	if at != 0 {
		w.Header().Set("X-StellMap-Revision", strconv.FormatUint(uint64(at), 10))
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
