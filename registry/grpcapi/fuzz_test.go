package grpcapi

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/internal/corpus"
	"github.com/stellmap/stellmap/internal/rawcalls"
)

// FuzzRPCs calls each method with whatever bytes there are: what is no message, or asks for what is not, is its
// caller's fault, and never the member's.
func FuzzRPCs(f *testing.F) {
	m := newMember(f, nil)
	service := stellmapv1.RegistryService_ServiceDesc.ServiceName
	filter := &stellmapv1.Filter{Namespace: "prod", Services: []string{"orders", "a*"}}
	register := &stellmapv1.RegisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", Endpoints: []*stellmapv1.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}}}
	if _, err := m.client.Register(f.Context(), register); err != nil {
		f.Fatal(err)
	}
	for method := range byte(12) { // each with what others take, too
		for _, one := range []proto.Message{
			register, &stellmapv1.RenewRequest{Renewals: []*stellmapv1.Renewal{{Namespace: "prod", Service: "orders", InstanceId: "a", LeaseToken: "lease-token-0001"}}},
			&stellmapv1.DeregisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", LeaseToken: "x"}, &stellmapv1.GetInstanceRequest{Namespace: "prod", Service: "orders", InstanceId: "a"},
			&stellmapv1.ListInstancesRequest{Filter: filter}, &stellmapv1.GetServiceRequest{Namespace: "prod", Service: "orders"}, &stellmapv1.ListServicesRequest{}, &stellmapv1.WatchRequest{Filter: filter, Resume: "cafe.1"},
		} {
			packed, err := rawcalls.Pack(one, one)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(method, packed)
		}
	}
	for name, one := range map[string]struct {
		method byte
		of     proto.Message
	}{
		"register": {0, register}, "a registration of nothing": {0, &stellmapv1.RegisterRequest{}},
		"renew": {1, &stellmapv1.RenewRequest{Renewals: []*stellmapv1.Renewal{{Namespace: "prod", Service: "orders", InstanceId: "a", LeaseToken: "lease-token-0001"}}}},
		"list":  {4, &stellmapv1.ListInstancesRequest{Filter: filter}}, "watch": {8, &stellmapv1.WatchRequest{Filter: filter, Resume: "cafe.1"}},
	} {
		packed, err := rawcalls.Pack(one.of)
		if err != nil {
			f.Fatal(err)
		}
		corpus.Add(f, name, one.method, packed)
	}
	corpus.Add(f, "a length beyond the end", byte(0), []byte{255, 255, 1})
	f.Fuzz(func(t *testing.T, method byte, raw []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // watches go on
		defer cancel()
		if err := rawcalls.Call(ctx, m.conn, service, method, raw); err != nil {
			t.Errorf("%x: %v", raw, err)
		}
	})
}
