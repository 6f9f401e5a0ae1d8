package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"google.golang.org/grpc"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// methodRenew has the fields of one renewal, and those of what is wrong with all of them.
var methodRenew = func() *method {
	fields := maps.Clone(levelFields)
	fields["items"] = "renewals"
	return &method{name: "Renew", fields: fields}
}()

// Renew answers request by request for as long as the client likes. A stream that
// waits for one costs a goroutine and a place among the streams.
func (s *service) Renew(stream grpc.BidiStreamingServer[stellmapv1.RenewRequest, stellmapv1.RenewResponse]) error {
	a := s.api
	return a.stream(stream.Context(), methodRenew, &a.renewals, a.limits.streams, errTooManyStreams, func(ctx context.Context) error {
		requests, ended := make(chan *stellmapv1.RenewRequest), make(chan error, 1)
		go func() { ended <- receive(ctx, stream, requests) }() // ends with the stream, whose end is the return from here
		for {
			select {
			case m := <-requests:
				answer, err := a.renewAll(ctx, m)
				if err != nil {
					return &refusedError{err}
				}
				if err := a.send(ctx, func() error { return stream.Send(answer) }); err != nil {
					return err
				}
			case err := <-ended:
				return err
			case <-ctx.Done():
				return overOf(ctx)
			}
		}
	})
}

// receive hands requests on until the client has no more; nil when it says so.
func receive(ctx context.Context, stream grpc.BidiStreamingServer[stellmapv1.RenewRequest, stellmapv1.RenewResponse], into chan<- *stellmapv1.RenewRequest) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		select {
		case into <- m:
		case <-ctx.Done():
			return overOf(ctx)
		}
	}
}

// renewAll answers one request. Only what makes it useless as a whole ends the stream.
func (a *API) renewAll(ctx context.Context, m *stellmapv1.RenewRequest) (*stellmapv1.RenewResponse, error) {
	answer := &stellmapv1.RenewResponse{Results: make([]*stellmapv1.RenewResult, len(m.GetRenewals()))}
	return unary(ctx, a, methodRenew, m, func(ctx context.Context) (*stellmapv1.RenewResponse, error) {
		done, err := a.registry.Batch(ctx, "", itemsOf(m.GetRenewals()))
		if err != nil {
			return nil, err
		}
		a.recordRenewals(ctx, m.GetRenewals(), done)
		for i := range done {
			answer.Results[i] = renewed(i, &done[i])
			if done[i].Err != nil {
				answer.Failed++
			}
		}
		return answer, nil
	})
}

func itemsOf(renewals []*stellmapv1.Renewal) []registry.BatchItem {
	items := make([]registry.BatchItem, len(renewals))
	all := make([]registry.Renewal, len(renewals))
	for i, r := range renewals {
		all[i] = registry.Renewal{Instance: refOf(r), LeaseTTLSeconds: r.GetLeaseTtlSeconds()}
		all[i].Instance.Holder = registry.Holder{Asked: true, Token: r.GetLeaseToken()}
		items[i].Renew = &all[i]
	}
	return items
}

func renewed(index int, done *registry.BatchResult) *stellmapv1.RenewResult {
	out := &stellmapv1.RenewResult{Revision: uint64(done.Revision), LeaseTtlSeconds: secondsOf(done.LeaseTTL)}
	if done.Err == nil {
		return out
	}
	r := refusalOf(done.Err, false)
	out.Problem = &stellmapv1.Problem{Reason: reasonOf(r), Retry: r.Retry}
	invalid := &registry.ValidationError{}
	for _, p := range problems(done.Err) {
		field := methodRenew.field(strings.TrimPrefix(p.Field, fmt.Sprintf("items[%d].renew.", index)))
		reason := strings.ReplaceAll(p.Reason, "items[", "renewals[")
		invalid.Problems = append(invalid.Problems, registry.Problem{Field: field, Reason: reason})
		out.Problem.Fields = append(out.Problem.Fields, &stellmapv1.FieldProblem{Field: field, Description: reason})
	}
	if out.Problem.Detail = r.Words(done.Err); len(invalid.Problems) > 0 {
		out.Problem.Detail = invalid.Error()
	}
	return out
}
