package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

var (
	// ErrClosed is that of a client, or of a service, that was closed.
	ErrClosed = errors.New("client: it was closed")
	// ErrNone is that there is nothing to pick.
	ErrNone = errors.New("client: no instance to pick")
	// ErrLost is that an instance is another's now.
	ErrLost = errors.New("client: the instance is held by another")
)

// Error is what a server has refused.
type Error struct {
	Doing  string // what, such as "register orders/a in namespace prod"
	Server string // which one
	Reason string // such as LEASE_TOKEN_REQUIRED; docs/grpc.md lists them. "" where gRPC itself has failed
	Detail string
	Fields []FieldError

	code  codes.Code
	retry bool // the same may work in a moment
}

// FieldError is a field of a request that is wrong, by its name in the message.
type FieldError struct{ Field, Description string }

func (e *Error) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = e.code.String()
	}
	return fmt.Sprintf("client: %s at %s: %s: %s", e.Doing, e.Server, reason, e.Detail)
}

// GRPCStatus is what gRPC would say of it.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.code, e.Detail) }

// Is makes an error that says whose the instance is an ErrLost.
func (e *Error) Is(target error) bool { return target == ErrLost && e.lost() }

// lost tells that the instance is another's, so that trying on is no use.
func (e *Error) lost() bool {
	return slices.Contains([]string{"WRONG_LEASE_TOKEN", "LEASE_TOKEN_REQUIRED"}, e.Reason)
}

// errorOf reads what a call has ended with; nil for nil.
func errorOf(doing, server string, err error) *Error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = status.FromContextError(err).Err()
	}
	s := status.Convert(err)
	e := &Error{Doing: doing, Server: server, Detail: s.Message(), code: s.Code()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Reason = d.GetReason()
		case *errdetails.RetryInfo:
			e.retry = true
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, FieldError{v.GetField(), v.GetDescription()})
			}
		}
	}
	// A connection that ended, be it that the client itself has left the server, and
	// an answer that did not come: another server may do better.
	e.retry = e.retry || slices.Contains([]codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Canceled}, e.code)
	return e
}

// problemOf reads why one of many was not done.
func problemOf(doing, server string, p *stellmapv1.Problem) *Error {
	e := &Error{Doing: doing, Server: server, Reason: p.GetReason(), Detail: p.GetDetail(), retry: p.GetRetry(), code: codes.Unknown}
	for _, f := range p.GetFields() {
		e.Fields = append(e.Fields, FieldError{f.GetField(), f.GetDescription()})
	}
	if strings.HasSuffix(e.Reason, "NOT_FOUND") {
		e.code = codes.NotFound
	}
	return e
}
