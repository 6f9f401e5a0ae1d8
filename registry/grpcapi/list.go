package grpcapi

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// A list is answered in parts, so that no message grows with it. What it has found
// does not change, so that all parts are of one revision, and it costs the registry
// nothing that the client reads them one by one.

var (
	methodListInstances = &method{name: "ListInstances", reads: true, fields: filterFields}
	methodListServices  = &method{name: "ListServices", reads: true, fields: filterFields}
)

// A listing is a request for a list.
type listing interface {
	proto.Message
	GetFilter() *stellmapv1.Filter
	GetLimit() int32
	GetCursor() string
	GetCount() stellmapv1.Count
	GetFreshness() *stellmapv1.Freshness
}

func (s *service) ListInstances(m *stellmapv1.ListInstancesRequest, stream grpc.ServerStreamingServer[stellmapv1.ListInstancesResponse]) error {
	a := s.api
	return a.list(stream.Context(), methodListInstances, m, a.registry.Instances, func(ctx context.Context, page registry.Page, all ending) error {
		heard := a.registry.LastHeartbeats(page.Instances)
		at := func(n int) *stellmapv1.Instance { return instanceTo(page.Instances[n], heard[n]) }
		return inParts(a.limits.partBytes, len(page.Instances), all, at, func(part []*stellmapv1.Instance, end ending) error {
			answer := &stellmapv1.ListInstancesResponse{Revision: uint64(page.Revision), Instances: part, NextCursor: end.cursor, Count: end.count, Age: end.age}
			return deliver(ctx, func() error { return stream.Send(answer) })
		})
	})
}

func (s *service) ListServices(m *stellmapv1.ListServicesRequest, stream grpc.ServerStreamingServer[stellmapv1.ListServicesResponse]) error {
	a := s.api
	return a.list(stream.Context(), methodListServices, m, a.registry.Services, func(ctx context.Context, page registry.Page, all ending) error {
		at := func(n int) *stellmapv1.Service { return serviceTo(page.Services[n]) }
		return inParts(a.limits.partBytes, len(page.Services), all, at, func(part []*stellmapv1.Service, end ending) error {
			answer := &stellmapv1.ListServicesResponse{Revision: uint64(page.Revision), Services: part, NextCursor: end.cursor, Count: end.count, Age: end.age}
			return deliver(ctx, func() error { return stream.Send(answer) })
		})
	})
}

// An ending is what an answer has beside its items.
type ending struct {
	cursor string               // in its last part
	count  int64                // in its last part
	age    *durationpb.Duration // in its first part
	last   bool
}

// A pageReader is a list of the registry.
type pageReader func(context.Context, registry.Query, registry.Paging) (registry.Page, error)

// list reads a page and has it sent, within a slot for lists: what is found is kept until the client has read it.
func (a *API) list(ctx context.Context, of *method, m listing, read pageReader, send func(context.Context, registry.Page, ending) error) error {
	return a.serve(ctx, of, m, a.limits.list, func(ctx context.Context) error {
		defer a.lists.Add(-1)
		if a.lists.Add(1) > a.limits.lists {
			a.metrics.refused.Inc()
			return errTooManyLists
		}
		page, end, err := a.page(ctx, m, read)
		if err != nil {
			return err
		}
		return send(ctx, page, end)
	})
}

// page reads within the time that a call has: only sending may take longer.
func (a *API) page(ctx context.Context, m listing, read pageReader) (registry.Page, ending, error) {
	query, paging, err := a.queryOf(m)
	if err != nil {
		return registry.Page{}, ending{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.limits.call)
	defer cancel()
	page, err := read(ctx, query, paging)
	if err != nil {
		return page, ending{}, err
	}
	end := ending{count: int64(page.Count)}
	if m.GetFreshness().GetStale() {
		end.age = ageTo(page.Age, page.AgeKnown)
	}
	if page.Next != nil {
		end.cursor = registry.HomedCursor{Home: a.home(), Place: *page.Next}.String()
	}
	return page, end, nil
}

// queryOf tells all that is wrong with a request for a list at once.
func (a *API) queryOf(m listing) (registry.Query, registry.Paging, error) {
	var bad []registry.Problem
	fresh, err := a.freshnessOf(m.GetFreshness())
	bad = append(bad, problems(err)...)
	query := a.filterOf(m.GetFilter(), &bad)
	query.Limit, query.Consistency = int(m.GetLimit()), fresh.Consistency
	bad = append(bad, problems(query.Check())...)
	paging := registry.Paging{Count: m.GetCount() == stellmapv1.Count_COUNT_ALL, CountOnly: m.GetCount() == stellmapv1.Count_COUNT_ONLY}
	if _, known := stellmapv1.Count_name[int32(m.GetCount())]; !known {
		bad = append(bad, registry.Problem{Field: "count", Reason: fmt.Sprintf("%d is not known to this member", m.GetCount())})
	}
	var cursor registry.HomedCursor
	if m.GetCursor() != "" {
		cursor, err = registry.ParseCursor(m.GetCursor())
		bad = append(bad, problems(err)...)
		paging.Cursor = &cursor.Place
	}
	switch {
	case len(bad) > 0:
		return query, paging, &registry.ValidationError{Problems: bad}
	case paging.Cursor != nil:
		return query, paging, cursor.At(a.home())
	}
	return query, paging, nil
}

func (a *API) filterOf(f *stellmapv1.Filter, bad *[]registry.Problem) registry.Query {
	return registry.Query{
		Namespace: f.GetNamespace(), AllNamespaces: f.GetNamespace() == "", Services: f.GetServices(), Prefixes: f.GetServicePrefixes(), Levels: levelsOf(f.GetLevels()),
		Groups: f.GetGroups(), Zones: f.GetZones(), Regions: f.GetRegions(), Versions: f.GetVersions(), Endpoints: f.GetEndpoints(),
		Selectors: f.GetSelectors(), Labels: f.GetLabels(), Statuses: statusesOf(f, bad),
	}
}

// statusesOf are the words that a query has for statuses.
func statusesOf(f *stellmapv1.Filter, bad *[]registry.Problem) []string {
	var words []string
	for i, s := range f.GetStatuses() {
		if _, known := stellmapv1.Status_name[int32(s)]; !known || s == stellmapv1.Status_STATUS_UNSPECIFIED {
			*bad = append(*bad, registry.Problem{Field: fmt.Sprintf("filter.statuses[%d]", i), Reason: fmt.Sprintf("%d is no status that this member knows", s)})
			continue
		}
		words = append(words, registry.Status(s).String())
	}
	if f.GetRoutable() {
		words = append(words, "routable")
	}
	if len(words) == 0 {
		words = []string{"any"}
	}
	return words
}

// inParts sends n items in parts of about so many bytes, and one part where there are none.
func inParts[T proto.Message](bytesMax, n int, all ending, at func(int) T, send func([]T, ending) error) error {
	var part []T
	size, age := 0, all.age
	for i := range n {
		one := at(i)
		part = append(part, one)
		if size += proto.Size(one); size < bytesMax || i == n-1 {
			continue
		}
		if err := send(part, ending{age: age}); err != nil {
			return err
		}
		part, size, age = nil, 0, nil
	}
	return send(part, ending{cursor: all.cursor, count: all.count, age: age, last: true})
}
