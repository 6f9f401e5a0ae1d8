package grpcapi

import (
	"context"
	"errors"

	"google.golang.org/grpc/metadata"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

var (
	methodRegister   = &method{name: "Register", writes: true, fields: levelFields}
	methodDeregister = &method{name: "Deregister", writes: true, fields: levelFields}
)

func (s *service) Register(ctx context.Context, m *stellmapv1.RegisterRequest) (*stellmapv1.RegisterResponse, error) {
	return unary(ctx, s.api, methodRegister, m, func(ctx context.Context) (*stellmapv1.RegisterResponse, error) {
		return s.api.register(ctx, m)
	})
}

func (a *API) register(ctx context.Context, m *stellmapv1.RegisterRequest) (*stellmapv1.RegisterResponse, error) {
	by, err := a.holderOf(ctx, m)
	if err != nil {
		return nil, err
	}
	registration, err := registrationOf(m, by)
	if err != nil {
		return nil, err
	}
	repeat, err := repeatOf(m, methodRegister, registration)
	if err != nil {
		return nil, err
	}
	if registration.LeaseID == "" {
		registration.LeaseToken = repeat.Token(by.Token, 0, a.newToken)
	}
	result, err := a.registry.Register(ctx, repeat.ID, registration)
	if err != nil {
		return nil, at(result.Revision, err)
	}
	return &stellmapv1.RegisterResponse{
		Revision: uint64(result.Revision), Created: result.Created, Changed: result.Changed,
		LeaseToken: registration.LeaseToken, LeaseTtlSeconds: secondsOf(result.LeaseTTL),
	}, nil
}

func (s *service) Deregister(ctx context.Context, m *stellmapv1.DeregisterRequest) (*stellmapv1.DeregisterResponse, error) {
	return unary(ctx, s.api, methodDeregister, m, func(ctx context.Context) (*stellmapv1.DeregisterResponse, error) {
		return s.api.deregister(ctx, m)
	})
}

func (a *API) deregister(ctx context.Context, m *stellmapv1.DeregisterRequest) (*stellmapv1.DeregisterResponse, error) {
	ref := refOf(m)
	var err error
	if ref.Holder, err = a.holderOf(ctx, m); err != nil {
		return nil, err
	}
	repeat, err := repeatOf(m, methodDeregister, ref)
	if err != nil {
		return nil, err
	}
	result, err := a.registry.Deregister(ctx, repeat.ID, ref)
	if err != nil {
		return nil, at(result.Revision, err)
	}
	return &stellmapv1.DeregisterResponse{Revision: uint64(result.Revision), Deleted: result.Changed}, nil
}

// held is a message of whoever holds an instance, or of an operator.
type held interface {
	GetLeaseToken() string
	GetForce() bool
}

// holderOf is whose call it is. With force it is an operator's, who proves it with
// the admin token and is not asked for the lease token.
func (a *API) holderOf(ctx context.Context, m interface {
	held
	named
}) (registry.Holder, error) {
	token := m.GetLeaseToken()
	if problem := registry.TokenProblem(token); token != "" && problem != "" {
		return registry.Holder{}, invalid("leaseToken", problem)
	}
	if m.GetForce() && registry.CallerOf(ctx) != nil {
		return registry.Holder{}, refOf(m).PermitForce(ctx)
	}
	if m.GetForce() && !a.isOperator(ctx) {
		return registry.Holder{}, errNotOperator
	}
	return registry.Holder{Asked: !m.GetForce(), Token: token}, nil
}

func (a *API) isOperator(ctx context.Context) bool { return a.operator(authorizationOf(ctx)) }

func authorizationOf(ctx context.Context) string {
	if all := metadata.ValueFromIncomingContext(ctx, "authorization"); len(all) > 0 {
		return all[0]
	}
	return ""
}

// repeatOf is what makes a request, repeated with the same key, one.
func repeatOf(m interface{ GetIdempotencyKey() string }, of *method, what any) (registry.Repeat, error) {
	key := m.GetIdempotencyKey()
	if problem := registry.RepeatKeyProblem(key); problem != "" {
		return registry.Repeat{}, invalid("idempotencyKey", problem)
	}
	return registry.RepeatOf(key, of.name, what), nil
}

// problems are those of a validation, or none.
func problems(err error) []registry.Problem {
	var invalid *registry.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	return invalid.Problems
}
