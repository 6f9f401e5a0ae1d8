package grpcapi

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/access/audit"
	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// requestIDKey is how a caller names a call, for the audit log alone.
const requestIDKey = "x-request-id"

// denials are gRPC's words for what is refused for lack of a right.
var denials = []codes.Code{codes.Unauthenticated, codes.PermissionDenied}

// record writes down a call that has changed something, or was not let; and what it did where
// nobody knows that. It does not say what was refused for other reasons.
func (a *API) record(ctx context.Context, m *method, request proto.Message, answer any, before registry.Revision, err error) {
	denied := slices.Contains(denials, status.Code(err))
	unknown := m.writes && (status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Internal)
	if a.audit == nil || !denied && !unknown && (err != nil || !m.writes && !a.audit.Reads()) {
		return
	}
	e := a.entry(ctx, m)
	e.Denied, e.Before = denied, uint64(before)
	if named, ok := request.(named); ok {
		e.On = refOf(named).Name()
	}
	if err != nil {
		e.Code = status.Code(err).String()
	} else if written, ok := answer.(interface{ GetRevision() uint64 }); ok && m.writes {
		e.After = written.GetRevision()
	}
	a.audit.Record(ctx, e)
}

// recordRenewals writes down the renewals that were not let: the others change nothing that
// is registered, and there are very many.
func (a *API) recordRenewals(ctx context.Context, renewals []*stellmapv1.Renewal, results []registry.BatchResult) {
	for i := range results {
		if results[i].Err == nil || a.audit == nil {
			continue
		}
		code := statusCodes[refusalOf(results[i].Err, false).Code]
		if !slices.Contains(denials, code) {
			continue
		}
		e := a.entry(ctx, methodRenew)
		e.Denied, e.Code, e.On = true, code.String(), refOf(renewals[i]).Name()
		a.audit.Record(ctx, e)
	}
}

func (a *API) entry(ctx context.Context, m *method) audit.Entry {
	e := audit.Entry{Port: "xds", Does: Service + "/" + m.name}
	if from, ok := peer.FromContext(ctx); ok {
		e.From = from.Addr.String()
	}
	if all := metadata.ValueFromIncomingContext(ctx, requestIDKey); len(all) > 0 {
		e.Request = all[0]
	}
	if header := authorizationOf(ctx); header != "" && a.operator(header) {
		e.Token = audit.TokenName("admin", header)
	}
	return e
}
