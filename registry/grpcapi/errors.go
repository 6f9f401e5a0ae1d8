package grpcapi

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/registry"
)

// What is refused before the registry is asked.
var (
	errTooManyCalls   = errors.New("grpcapi: too many calls in flight")
	errTooManyLists   = errors.New("grpcapi: too many lists in flight")
	errTooManyStreams = errors.New("grpcapi: too many streams")
	errTooManyWatches = errors.New("grpcapi: too many watches")
	errNotOperator    = errors.New("grpcapi: the admin token is missing or wrong")
	errSlow           = errors.New("grpcapi: the client does not read")
	errGone           = errors.New("grpcapi: the client has gone")
)

// A panicError is a call that has panicked. The log has the stack already.
type panicError struct{ cause string }

func (e *panicError) Error() string { return "panic: " + e.cause }

// A readAtError is an error of a call that has an answer's revision all the same.
type readAtError struct {
	error
	at registry.Revision
}

func (e *readAtError) Unwrap() error { return e.error }

// A refusedError is one in the form of gRPC already.
type refusedError struct{ error }

// at gives an error the revision that it was found at.
func at(revision registry.Revision, err error) error {
	if err == nil || revision == 0 {
		return err
	}
	return &readAtError{error: err, at: revision}
}

// A failure is what is refused here.
type failure struct {
	is error
	registry.Refusal
}

var failures = [...]failure{
	{errTooManyCalls, registry.Refusal{Code: "busy", Retry: true,
		Says: fmt.Sprintf("%d calls are in flight on this member, which is as many as may be: nothing was done, try again later or at another member", callsInflightMax)}},
	{errTooManyLists, registry.Refusal{Code: "busy", Retry: true,
		Says: fmt.Sprintf("%d lists are being read from this member, which is as many as may be: try again later or at another member", listsInflightMax)}},
	{errTooManyStreams, registry.Refusal{Code: "busy", Retry: true,
		Says: fmt.Sprintf("%d streams of renewals are open on this member, which is as many as may be: try another member, or renew more leases over each", renewStreamsMax)}},
	{errTooManyWatches, registry.Refusal{Code: "busy", Retry: true,
		Says: fmt.Sprintf("%d watches are open on this member, which is as many as may be: try another member", watchesMax)}},
	{audit.ErrUnavailable, registry.Refusal{Code: "not_audited", Retry: true,
		Says: "the audit log of this member, without which nothing may be changed, cannot be written: nothing was done, try another member"}},
	{errNotOperator, registry.Refusal{Code: "unauthorized",
		Says: "force is an operator's, and the admin token is missing or wrong: send it as authorization: Bearer <token>"}},
	{errSlow, registry.Refusal{Code: "slow",
		Says: "the client has not read the answer in time: ask for less at once, or read faster"}},
	{errGone, registry.Refusal{Code: "gone", Says: "the client has ended the call"}},
}

// statusCodes are gRPC's words for the refusals' codes. What is not here nobody
// foresaw (Internal).
var statusCodes = map[string]codes.Code{
	registry.CodeBadRequest: codes.InvalidArgument,
	"not_found":             codes.NotFound,
	"lease_token_required":  codes.PermissionDenied,
	"wrong_lease_token":     codes.PermissionDenied,
	"lease_not_found":       codes.NotFound,
	"shared_lease":          codes.FailedPrecondition,
	"leases_full":           codes.ResourceExhausted,
	"too_many_reports":      codes.ResourceExhausted,
	"too_many_watches":      codes.ResourceExhausted,
	"too_many_requests":     codes.ResourceExhausted,
	"unauthenticated":       codes.Unauthenticated,
	"forbidden":             codes.PermissionDenied,
	"token_told":            codes.AlreadyExists,
	"version_differs":       codes.Aborted,
	"quota_exceeded":        codes.ResourceExhausted,
	"revision_expired":      codes.OutOfRange, // of a watch that wants no resync
	"cursor_expired":        codes.Aborted,    // the list, not the call, has to be begun anew
	"busy":                  codes.ResourceExhausted,
	"disk_full":             codes.ResourceExhausted,
	"states_differ":         codes.FailedPrecondition, // an operator has to mend it
	"too_old":               codes.Unavailable,
	"no_leader":             codes.Unavailable,
	"not_tried":             codes.Unavailable,
	"stopping":              codes.Unavailable,
	"unknown_outcome":       codes.DeadlineExceeded, // of which gRPC says the same; Unavailable is tried again by clients
	registry.CodeInternal:   codes.Internal,
	"not_audited":           codes.Unavailable,
	"unauthorized":          codes.Unauthenticated,
	"slow":                  codes.DeadlineExceeded,
	"gone":                  codes.Canceled,
}

// refusalOf finds how an error is answered.
func refusalOf(err error, reads bool) *registry.Refusal {
	for i := range failures {
		if errors.Is(err, failures[i].is) {
			return &failures[i].Refusal
		}
	}
	return registry.RefusalOf(err, reads)
}

// The parts of an answer to an error.
const (
	domain     = "stellmap"
	retryDelay = time.Second // an election takes about that long
	// textBytesMax bounds the text of an error, and detailBytesMax the fields in it: they are
	// sent in a header, of which clients other than Go's take 8 KiB.
	textBytesMax   = 1 << 10
	detailBytesMax = 2 << 10
)

// reasonOf is a code in the form that ErrorInfo has for reasons.
func reasonOf(r *registry.Refusal) string { return strings.ToUpper(r.Code) }

// refuse is an error in the form of gRPC.
func (a *API) refuse(m *method, err error) error {
	var done *refusedError
	if errors.As(err, &done) {
		return done.error
	}
	r := refusalOf(err, m.reads)
	var panicked *panicError
	if r.Code == registry.CodeInternal && !errors.As(err, &panicked) {
		a.log.Error("a gRPC call failed", "method", m.name, "error", err)
	}
	info := &errdetails.ErrorInfo{Reason: reasonOf(r), Domain: domain}
	var read *readAtError
	if errors.As(err, &read) {
		info.Metadata = map[string]string{"revision": strconv.FormatUint(uint64(read.at), 10)}
	}
	details := []protoadapt.MessageV1{info}
	if fields := violations(m, err); len(fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: fields})
	}
	if r.Retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	}
	plain := status.New(statusCodes[r.Code], clip(m.words(r, err)))
	full, err := plain.WithDetails(details...)
	if err != nil {
		panic(fmt.Sprintf("grpcapi: add details to %v: %v", plain, err)) // it is an error, and they are messages
	}
	return full.Err()
}

// words are those of a refusal, with the names that the message has for its fields.
func (m *method) words(r *registry.Refusal, err error) string {
	var invalid *registry.ValidationError
	if !errors.As(err, &invalid) {
		return r.Words(err)
	}
	own := &registry.ValidationError{}
	for _, p := range invalid.Problems {
		own.Problems = append(own.Problems, registry.Problem{Field: m.field(p.Field), Reason: p.Reason})
	}
	return own.Error()
}

// violations are the fields that are wrong, as many as there is room for.
func violations(m *method, err error) []*errdetails.BadRequest_FieldViolation {
	var invalid *registry.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	var out []*errdetails.BadRequest_FieldViolation
	size := 0
	for n, p := range invalid.Problems {
		one := &errdetails.BadRequest_FieldViolation{Field: m.field(p.Field), Description: p.Reason}
		if size += len(one.Field) + len(one.Description); size > detailBytesMax && n > 0 {
			rest := fmt.Sprintf("%d more problems are not told, for lack of room", len(invalid.Problems)-n)
			return append(out, &errdetails.BadRequest_FieldViolation{Field: "…", Description: rest})
		}
		out = append(out, one)
	}
	return out
}

// clip is a text as a header may have it.
func clip(s string) string {
	if len(s) > textBytesMax {
		return strings.ToValidUTF8(s[:textBytesMax], "") + "…"
	}
	return s
}

// invalid is a request with one wrong field.
func invalid(field, reason string) error {
	return &registry.ValidationError{Problems: []registry.Problem{{Field: field, Reason: reason}}}
}
