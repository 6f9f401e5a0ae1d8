package grpcapi

import (
	"context"

	"google.golang.org/protobuf/proto"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// What a client at some place is given of a service. Which instances those are the registry
// says; here they come whole, as many as fit into one message: those that are left out
// would be called last.

var methodDiscover = &method{name: "Discover", reads: true}

func (s *service) Discover(ctx context.Context, m *stellmapv1.DiscoverRequest) (*stellmapv1.DiscoverResponse, error) {
	return unary(ctx, s.api, methodDiscover, m, func(ctx context.Context) (*stellmapv1.DiscoverResponse, error) {
		return s.api.discover(ctx, m)
	})
}

func (a *API) discover(ctx context.Context, m *stellmapv1.DiscoverRequest) (*stellmapv1.DiscoverResponse, error) {
	fresh, err := a.freshnessOf(m.GetFreshness())
	bad := problems(err)
	ask := registry.DiscoveryQuery{
		Query: registry.Query{
			Namespace: m.GetNamespace(), Services: []string{m.GetService()}, Statuses: []string{"any"}, Limit: int(m.GetLimit()), Consistency: fresh.Consistency,
		},
		Failover: m.GetFailover(), FromRegion: m.GetFromRegion(), FromZone: m.GetFromZone(), Neighbours: a.around(),
	}
	if bad = append(bad, problems(ask.Check())...); len(bad) > 0 {
		return nil, &registry.ValidationError{Problems: bad}
	}
	found, err := a.registry.Discover(ctx, ask)
	if err != nil {
		return nil, at(found.Revision, err)
	}
	out := a.discoveryTo(&found)
	out.Age = fresh.age
	return out, nil
}

func (a *API) discoveryTo(d *registry.Discovery) *stellmapv1.DiscoverResponse {
	out := &stellmapv1.DiscoverResponse{
		Revision: uint64(d.Revision), Failover: d.Mode, FromRegion: d.FromRegion, FromZone: d.FromZone, Exported: d.Exported, More: d.More,
	}
	for n := range d.Regions {
		out.Regions = append(out.Regions, discoveredRegionTo(&d.Regions[n]))
	}
	all := make([]*registry.Instance, len(d.Given))
	for n := range d.Given {
		all[n] = d.Given[n].Instance
	}
	heard, size := a.registry.LastHeartbeats(all), 0
	for n := range d.Given {
		one := &stellmapv1.DiscoveredInstance{Instance: instanceTo(all[n], heard[n]), Priority: int32(d.Given[n].Priority), Authorities: d.Given[n].Authorities}
		if size += proto.Size(one); size > a.limits.discoverBytes && n > 0 {
			out.More = true
			break
		}
		out.Instances = append(out.Instances, one)
	}
	return out
}

func discoveredRegionTo(r *registry.DiscoveredRegion) *stellmapv1.DiscoveredRegion {
	out := &stellmapv1.DiscoveredRegion{
		Region: r.Key.Region, ClusterId: r.Key.Cluster, Age: ageTo(r.Age, r.KnownAge), Connected: r.Connected, Instances: int32(r.Instances),
		Suspect: int32(r.Suspect), Withheld: int32(r.Withheld), Given: int32(r.Given), Gateways: int32(r.Gateways),
	}
	for _, p := range r.Priorities {
		out.Priorities = append(out.Priorities, int32(p))
	}
	for _, why := range r.Why {
		out.Why = append(out.Why, &stellmapv1.DiscoveryReason{Code: why.Code, Text: why.Text})
	}
	return out
}
