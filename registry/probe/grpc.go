package probe

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/internal/version"
	"github.com/stellmap/stellmap/registry"
)

// The bounds of an answer over gRPC.
const (
	grpcMessageBytesMax = 4 << 10
	grpcHeaderBytesMax  = 16 << 10
)

// grpc asks grpc.health.v1 for the service.
func (a *attempt) grpc(ctx context.Context) Outcome {
	secure := insecure.NewCredentials()
	if a.check.Kind == registry.CheckGRPCS {
		secure = credentials.NewTLS(a.tls())
	}
	conn, err := grpc.NewClient("passthrough:///"+a.authority(),
		grpc.WithContextDialer(func(dial context.Context, _ string) (net.Conn, error) { return a.dial(dial, ctx) }),
		grpc.WithTransportCredentials(secure),
		grpc.WithUserAgent("stellmap-check/"+version.Number),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithMaxHeaderListSize(grpcHeaderBytesMax),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(grpcMessageBytesMax)),
	)
	if err != nil {
		return fails("%v", err)
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: a.check.Service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return fails("the server has no grpc.health.v1: %v", status.Convert(err).Message())
	case status.Code(err) == codes.NotFound:
		return fails("grpc.health.v1 does not know the service %q", a.check.Service)
	case err != nil:
		return fails("%v", err)
	case answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return fails("grpc.health.v1 says %v", answer.GetStatus())
	}
	return passes
}
