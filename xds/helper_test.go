package xds

import (
	"fmt"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"

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
