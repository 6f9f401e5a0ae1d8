package main

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry/grpcapi"
	"github.com/stellmap/stellmap/xds"
)

// makeClientGRPC makes what answers on the xDS port: proxies, and the clients of the
// registry who come by gRPC (see docs/adr/0002). The health of the whole is that of
// xDS; the registry's has its own name.
func (n *node) makeClientGRPC() error {
	var err error
	n.grpcAPI, err = grpcapi.New(grpcapi.Config{
		Registry: n.registry, CursorHome: n.api.CursorHome, Neighbours: n.neighbours, Operator: n.api.IsOperator, Audit: n.audit, Logger: n.logger, Registerer: n.metrics,
	})
	if err != nil {
		return err
	}
	n.xdsGRPC = grpc.NewServer(slices.Concat(xds.ServerOptions(), []grpc.ServerOption{grpc.Creds(n.credentials(access.XDS))}, n.guardOfRPC(access.XDS), n.limitsOfRPC())...)
	n.xds.Register(n.xdsGRPC)
	n.grpcAPI.Register(n.xdsGRPC)
	n.xdsHealth = health.NewServer()
	for _, name := range []string{"", grpcapi.Service} {
		n.xdsHealth.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(n.xdsGRPC, n.xdsHealth)
	reflection.Register(n.xdsGRPC)
	mustHaveRows(n.xdsGRPC)
	return nil
}

// readinessEvery is how often the readiness of the registry is looked at for those
// who watch its health.
const readinessEvery = 500 * time.Millisecond

// tellReadiness keeps the registry's health what /readyz says.
func (n *node) tellReadiness(ctx context.Context) error {
	ticks := time.NewTicker(readinessEvery)
	defer ticks.Stop()
	for {
		word := grpc_health_v1.HealthCheckResponse_SERVING
		if n.api.Ready() != nil {
			word = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		n.xdsHealth.SetServingStatus(grpcapi.Service, word)
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}
