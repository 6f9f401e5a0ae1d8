package federation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stellmap/stellmap/registry"
)

// A refusal is why a stream does not begin, or ends.
type refusal struct {
	code   codes.Code
	reason string // for programs
	text   string // what to do next
	retry  bool   // it may work in a moment
}

func (r *refusal) Error() string { return r.text }

var (
	errNoToken = &refusal{code: codes.PermissionDenied, reason: "REPLICATION_OFF",
		text: "this member tells its registry to nobody, since there is no replication token: set auth.replication_token at all members of the source, and present it"}
	errUnauthorized = &refusal{code: codes.Unauthenticated, reason: "UNAUTHORIZED",
		text: "the replication token is missing or wrong: send the source's auth.replication_token as authorization: Bearer <token>"}
	errTooMany = &refusal{code: codes.ResourceExhausted, reason: "BUSY", retry: true,
		text: fmt.Sprintf("%d replicators follow this member, which is as many as may be: try another member", followersMax)}
	errTooManyGreetings = &refusal{code: codes.ResourceExhausted, reason: "BUSY", retry: true,
		text: fmt.Sprintf("%d streams have not said yet who they are, which is as many as may be: try again later or at another member", greetingsMax)}
	errNoHello = &refusal{code: codes.DeadlineExceeded, reason: "NO_HELLO",
		text: fmt.Sprintf("nothing was said for %v: begin with a hello", helloTimeout)}
	errSlow = &refusal{code: codes.DeadlineExceeded, reason: "SLOW",
		text: fmt.Sprintf("a response was not acknowledged within %v: go on from the last cursor, and acknowledge what is taken in", ackTimeout)}
	errReplaced = &refusal{code: codes.Aborted, reason: "REPLACED",
		text: "another stream has begun with the name of this replicator: give each a name of its own"}
	errSyncTooLong = &refusal{code: codes.Aborted, reason: "SYNC_TOO_LONG",
		text: "to tell all there is took too long, and too much has been replaced meanwhile: begin anew, and read faster"}
	errCutOff = &refusal{code: codes.Unavailable, reason: "NO_LEADER", retry: true,
		text: fmt.Sprintf("this member has heard of no leader for more than %v, and may be cut off from the others: follow another member", leaderlessMax)}
	errDone = errors.New("federation: the replicator has ended the stream")
)

func wrongCluster(i Identity, hello string) error {
	return &refusal{code: codes.FailedPrecondition, reason: "WRONG_CLUSTER",
		text: fmt.Sprintf("this is cluster %d of region %q, and not %s: correct the address, or whom the replicator means to follow", i.ClusterID, i.Region, hello)}
}

func itself(i Identity) error {
	return &refusal{code: codes.FailedPrecondition, reason: "ITSELF",
		text: fmt.Sprintf("cluster %d of region %q does not follow itself: correct the address", i.ClusterID, i.Region)}
}

func unproved(region string, why error) error {
	return &refusal{code: codes.PermissionDenied, reason: "NOT_PROVED",
		text: fmt.Sprintf("the hello is of region %.64q, and its sender has not proved to be: %v; present a certificate of /replicator/%[1]s or of a peer of that region, or correct hello.region", region, why)}
}

// invalid is a request with one wrong field.
func invalid(field, reason string) error {
	return &registry.ValidationError{Problems: []registry.Problem{{Field: field, Reason: reason}}}
}

// inHello gives fields the names that the message has for them.
func inHello(err error) error {
	var wrong *registry.ValidationError
	if !errors.As(err, &wrong) {
		return err
	}
	own := &registry.ValidationError{}
	for _, p := range wrong.Problems {
		own.Problems = append(own.Problems, registry.Problem{Field: "hello." + p.Field, Reason: p.Reason})
	}
	return own
}

// The parts of an answer to an error.
const (
	domain       = "stellmap"
	retryDelay   = time.Second
	textBytesMax = 1 << 10 // it is sent in a header
	fieldsMax    = 8       // the same
)

// refusalOf finds how an error is answered. Nobody changes anything here, so what ran
// out of time had no leader.
func refusalOf(err error) *refusal {
	var own *refusal
	if errors.As(err, &own) {
		return own
	}
	r := registry.RefusalOf(err, true)
	code := codes.Unavailable
	switch r.Code {
	case registry.CodeBadRequest:
		code = codes.InvalidArgument
	case registry.CodeInternal:
		code = codes.Internal
	}
	return &refusal{code: code, reason: strings.ToUpper(r.Code), text: r.Words(err), retry: r.Retry}
}

// answer is an error in the form of gRPC, and its reason; nil for an end that is none.
func (e *Exporter) answer(err error) (reason string, answer error) {
	if err == nil || errors.Is(err, errDone) {
		return "done", nil
	}
	if errors.Is(err, context.Canceled) {
		return "gone", status.FromContextError(context.Canceled).Err()
	}
	r := refusalOf(err)
	if r.code == codes.Internal {
		e.log.Error("a replicator's stream failed", "error", err)
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: r.reason, Domain: domain}}
	if fields := violations(err); len(fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: fields})
	}
	if r.retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	}
	plain := status.New(r.code, clip(r.text, textBytesMax))
	full, err := plain.WithDetails(details...)
	if err != nil {
		panic(fmt.Sprintf("federation: add details to %v: %v", plain, err)) // it is an error, and they are messages
	}
	return strings.ToLower(r.reason), full.Err()
}

func violations(err error) []*errdetails.BadRequest_FieldViolation {
	var wrong *registry.ValidationError
	if !errors.As(err, &wrong) {
		return nil
	}
	var out []*errdetails.BadRequest_FieldViolation
	for _, p := range wrong.Problems[:min(len(wrong.Problems), fieldsMax)] {
		out = append(out, &errdetails.BadRequest_FieldViolation{Field: p.Field, Description: clip(p.Reason, textBytesMax/4)})
	}
	return out
}

// clip is a text as a header may have it.
func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
