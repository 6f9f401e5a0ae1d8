package xds

import (
	"fmt"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// checked is an instance with a path for active checks.
func checked(service string, n int) registry.Registration {
	return registry.Registration{
		Namespace: "prod", Service: service, ID: fmt.Sprint(n), Metadata: map[string]string{metadataHealthPath: "/healthz"},
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: addressOf(n), Port: 80}},
	}
}

func assignment(tb testing.TB, packed *anypb.Any) *endpointv3.ClusterLoadAssignment {
	tb.Helper()
	m := new(endpointv3.ClusterLoadAssignment)
	if err := packed.UnmarshalTo(m); err != nil {
		tb.Fatal(err)
	}
	return m
}

// fill registers many instances at once, without asking the registry's opinion.
func (m *member) fill(service string, instances int) {
	m.tb.Helper()
	register := &recordv1.Register{}
	for n := range instances {
		register.Items = append(register.Items, &recordv1.RegisterItem{
			Key: &recordv1.InstanceKey{Namespace: "prod", Service: service, Id: fmt.Sprint(n)},
			Spec: &recordv1.InstanceSpec{LeaseTtlMs: 3_600_000, Endpoints: []*recordv1.Endpoint{
				{Name: "http", Protocol: "http", Host: addressOf(n), Port: 80, Weight: 100},
			}},
		})
	}
	command, err := proto.Marshal(&recordv1.Command{Format: 1, Kind: &recordv1.Command_Register{Register: register}})
	if err != nil {
		m.tb.Fatal(err)
	}
	m.commit(command)
}
