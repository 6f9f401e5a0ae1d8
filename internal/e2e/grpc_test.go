package e2e

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// A real client registers, renews and asks at any member of three, leader or not, and each knows what the others were told.
func TestAnyMemberAnswersOverGRPC(t *testing.T) {
	c := newCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var clients []stellmapv1.RegistryServiceClient
	for _, m := range c.members {
		conn, err := grpc.NewClient(m.address(1), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		clients = append(clients, stellmapv1.NewRegistryServiceClient(conn))
		mustServe(t, ctx, conn)
	}
	tokens := make([]string, len(clients))
	for i, at := range clients {
		answer, err := at.Register(ctx, &stellmapv1.RegisterRequest{
			Namespace: "default", Service: "orders", InstanceId: fmt.Sprint("i-", i),
			Endpoints: []*stellmapv1.Endpoint{{Protocol: "http", Host: "127.0.0.1", Port: 9000}},
		})
		if err != nil {
			t.Fatalf("register at %s: %v", c.members[i].name(), err)
		}
		tokens[i] = answer.GetLeaseToken()
	}
	mustGoOn(t, ctx, clients)
	for i, at := range clients {
		if got, want := listed(t, ctx, at), len(clients)-i; got != want {
			t.Errorf("%s knows %d instances, want %d", c.members[i].name(), got, want)
		}
		other := (i + 1) % len(clients)
		renewed(t, ctx, at, &stellmapv1.Renewal{Namespace: "default", Service: "orders", InstanceId: fmt.Sprint("i-", other), LeaseToken: tokens[other]})
		if _, err := at.Deregister(ctx, &stellmapv1.DeregisterRequest{Namespace: "default", Service: "orders", InstanceId: fmt.Sprint("i-", other), LeaseToken: tokens[other]}); err != nil {
			t.Fatalf("deregister at %s what %s has registered: %v", c.members[i].name(), c.members[other].name(), err)
		}
	}
}

// mustGoOn begins a watch at one member and goes on with it at each of the others, from
// where the first is: each tells what was registered since at the one before.
func mustGoOn(t *testing.T, ctx context.Context, clients []stellmapv1.RegistryServiceClient) {
	t.Helper()
	ask := &stellmapv1.WatchRequest{Filter: &stellmapv1.Filter{Namespace: "default", Services: []string{"watched"}}}
	for i, at := range clients {
		watching, leave := context.WithCancel(ctx)
		stream, err := at.Watch(watching, ask)
		if err != nil {
			t.Fatal(err)
		}
		told, err := stream.Recv()
		for err == nil && i > 0 && len(told.GetChanges()) == 0 { // marks of progress
			told, err = stream.Recv()
		}
		leave()
		switch {
		case err != nil:
			t.Fatal(err)
		case i == 0 && told.GetResync() != stellmapv1.Resync_RESYNC_START,
			i > 0 && (len(told.GetChanges()) != 1 || told.GetChanges()[0].GetInstance().GetInstanceId() != fmt.Sprint("w-", i-1)):
			t.Fatalf("at the client %d the watch tells %v", i, told)
		}
		ask.Resume = told.GetResume()
		if _, err := at.Register(ctx, &stellmapv1.RegisterRequest{
			Namespace: "default", Service: "watched", InstanceId: fmt.Sprint("w-", i),
			Endpoints: []*stellmapv1.Endpoint{{Protocol: "http", Host: "127.0.0.1", Port: 9000}},
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// mustServe waits until the registry's health says that it serves.
func mustServe(t *testing.T, ctx context.Context, conn *grpc.ClientConn) {
	t.Helper()
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: stellmapv1.RegistryService_ServiceDesc.ServiceName})
	if err != nil {
		t.Fatal(err)
	}
	for {
		answer, err := watch.Recv()
		if err != nil {
			t.Fatalf("wait until the registry serves over gRPC: %v", err)
		}
		if answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return
		}
	}
}

// listed is how many instances a member knows.
func listed(t *testing.T, ctx context.Context, at stellmapv1.RegistryServiceClient) int {
	t.Helper()
	list, err := at.ListInstances(ctx, &stellmapv1.ListInstancesRequest{Filter: &stellmapv1.Filter{Namespace: "default", Services: []string{"orders"}}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; {
		part, err := list.Recv()
		if err == io.EOF {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
		n += len(part.GetInstances())
	}
}

func renewed(t *testing.T, ctx context.Context, at stellmapv1.RegistryServiceClient, one *stellmapv1.Renewal) {
	t.Helper()
	stream, err := at.Renew(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&stellmapv1.RenewRequest{Renewals: []*stellmapv1.Renewal{one}}); err != nil {
		t.Fatal(err)
	}
	if answer, err := stream.Recv(); err != nil || answer.GetFailed() != 0 {
		t.Fatalf("renew %s: %v, %v", one.GetInstanceId(), answer, err)
	}
}
