package grpcapi

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

var (
	methodGetInstance = &method{name: "GetInstance", reads: true, fields: levelFields}
	methodGetService  = &method{name: "GetService", reads: true}
)

// freshness is what a read asks for, and what its answer says of itself.
type freshness struct {
	registry.Consistency
	age *durationpb.Duration // nil = it is not stale, or nobody knows
}

func (a *API) freshnessOf(f *stellmapv1.Freshness) (freshness, error) {
	limit := f.GetMaxStaleness().AsDuration()
	switch {
	case f.GetMaxStaleness() == nil:
	case limit < registry.StalenessMin || limit > registry.StalenessMax:
		return freshness{}, invalid("freshness.max_staleness", fmt.Sprintf("%v is not a time from %v to %v", limit, registry.StalenessMin, registry.StalenessMax))
	case !f.GetStale():
		return freshness{}, invalid("freshness.max_staleness", "is for reads with stale")
	}
	if !f.GetStale() {
		return freshness{}, nil
	}
	return freshness{Consistency: registry.Stale(limit), age: ageTo(a.registry.StaleAge(limit))}, nil
}

func (s *service) GetInstance(ctx context.Context, m *stellmapv1.GetInstanceRequest) (*stellmapv1.GetInstanceResponse, error) {
	return unary(ctx, s.api, methodGetInstance, m, func(ctx context.Context) (*stellmapv1.GetInstanceResponse, error) {
		return s.api.instance(ctx, m)
	})
}

func (a *API) instance(ctx context.Context, m *stellmapv1.GetInstanceRequest) (*stellmapv1.GetInstanceResponse, error) {
	fresh, err := a.freshnessOf(m.GetFreshness())
	if err != nil {
		return nil, err
	}
	i, revision, err := a.registry.Get(ctx, refOf(m), fresh.Consistency)
	if err != nil {
		return nil, at(revision, err)
	}
	heard := a.registry.LastHeartbeats([]*registry.Instance{i})
	return &stellmapv1.GetInstanceResponse{Revision: uint64(revision), Instance: instanceTo(i, heard[0]), Age: fresh.age}, nil
}

func (s *service) GetService(ctx context.Context, m *stellmapv1.GetServiceRequest) (*stellmapv1.GetServiceResponse, error) {
	return unary(ctx, s.api, methodGetService, m, func(ctx context.Context) (*stellmapv1.GetServiceResponse, error) {
		return s.api.service(ctx, m)
	})
}

func (a *API) service(ctx context.Context, m *stellmapv1.GetServiceRequest) (*stellmapv1.GetServiceResponse, error) {
	fresh, err := a.freshnessOf(m.GetFreshness())
	if err != nil {
		return nil, err
	}
	one, revision, err := a.registry.Service(ctx, registry.ServiceKey{Namespace: m.GetNamespace(), Service: m.GetService()}, fresh.Consistency)
	if err != nil {
		return nil, at(revision, err)
	}
	return &stellmapv1.GetServiceResponse{Revision: uint64(revision), Service: serviceTo(one), Age: fresh.age}, nil
}
