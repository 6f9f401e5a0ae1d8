package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/registry"
)

// A method is what the API has to know of a call to treat it.
type method struct {
	name   string            // for metrics and the log
	reads  bool              // it changes nothing, so its outcome is never unknown
	writes bool              // it changes what is registered, which the audit log is told
	fields map[string]string // how the message calls what the registry calls otherwise
}

// serve takes a request through what all have in common: the count, what must not
// be in it, the slot, the deadline, and the answer to an error or a panic.
func (a *API) serve(ctx context.Context, m *method, request proto.Message, within time.Duration, do func(context.Context) error) (err error) {
	start := time.Now()
	defer func() { a.metrics.count(m, err, time.Since(start)) }()
	defer a.rescue(m, &err)
	if err := registry.KnownFields(request); err != nil {
		return a.refuse(m, err)
	}
	if a.inflight.Add(1) > a.limits.calls {
		a.inflight.Add(-1)
		a.metrics.refused.Inc()
		return a.refuse(m, errTooManyCalls)
	}
	defer a.inflight.Add(-1)
	if m.writes {
		if err := a.audit.Ready(); err != nil {
			return a.refuse(m, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := do(ctx); err != nil {
		return a.refuse(m, err)
	}
	return nil
}

// rescue makes a panic the end of one call.
func (a *API) rescue(m *method, err *error) {
	if cause := recover(); cause != nil {
		a.log.Error("a gRPC call panicked", "method", m.name, "panic", cause, "stack", string(debug.Stack()))
		*err = a.refuse(m, &panicError{cause: fmt.Sprint(cause)})
	}
}

// unary serves a call with one answer.
func unary[A any](ctx context.Context, a *API, m *method, request proto.Message, do func(context.Context) (*A, error)) (*A, error) {
	var answer *A
	before := a.registry.Revision()
	err := a.serve(ctx, m, request, a.limits.call, func(ctx context.Context) (err error) {
		answer, err = do(ctx)
		return err
	})
	a.record(ctx, m, request, any(answer), before, err)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// deliver sends a message. A client that takes it not before the context ends is cut
// off: returning ends the stream, and with it the goroutine that is stuck in it.
func deliver(ctx context.Context, send func() error) error {
	done := make(chan error, 1)
	go func() { done <- send() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		return nil
	case <-ctx.Done():
		return overOf(ctx)
	}
}

// overOf is why a context of ours has ended.
func overOf(ctx context.Context) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return errSlow
	case errors.Is(cause, context.Canceled):
		return errGone
	default:
		return cause
	}
}

// stream serves one that stays open, within a place for its kind, until this member stops.
func (a *API) stream(ctx context.Context, m *method, open *atomic.Int64, most int64, tooMany error, do func(context.Context) error) (err error) {
	defer a.rescue(m, &err)
	defer open.Add(-1)
	if open.Add(1) > most {
		a.metrics.refused.Inc()
		return a.refuse(m, tooMany)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.life, func() { cancel(registry.ErrStopping) })()
	if err := do(ctx); err != nil {
		return a.refuse(m, err)
	}
	return nil
}

// send is deliver within the time that a client has for one message.
func (a *API) send(ctx context.Context, send func() error) error {
	ctx, cancel := context.WithTimeout(ctx, a.limits.send)
	defer cancel()
	return deliver(ctx, send)
}
