package grpcapi

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access/audit"
	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// Over gRPC the same is recorded as over HTTP: what was changed, and who was not let, each
// renewal of a request by itself; of renewals only these.
func TestWhatIsAudited(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{File: file, BytesMax: 1 << 20, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := newMember(t, func(a *API) { a.audit = log })
	const token = "the-token-of-this-test"
	ctx := metadata.AppendToOutgoingContext(t.Context(), requestIDKey, "r-7")
	must := func(want codes.Code, err error) {
		t.Helper()
		if status.Code(err) != want {
			t.Errorf("it ends with %v, want %v", err, want)
		}
	}
	_, err = m.client.Register(ctx, &stellmapv1.RegisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", LeaseToken: token,
		Endpoints: []*stellmapv1.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}}})
	must(codes.OK, err)
	_, err = m.client.Deregister(ctx, &stellmapv1.DeregisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", LeaseToken: token + "-not"})
	must(codes.PermissionDenied, err)
	_, err = m.client.Deregister(ctx, &stellmapv1.DeregisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", Force: true})
	must(codes.Unauthenticated, err)
	_, err = m.client.Deregister(ctx, &stellmapv1.DeregisterRequest{Namespace: "prod", Service: "", InstanceId: "a"})
	must(codes.InvalidArgument, err)
	stream, err := m.client.Renew(t.Context())
	must(codes.OK, err)
	must(codes.OK, stream.Send(&stellmapv1.RenewRequest{Renewals: []*stellmapv1.Renewal{
		{Namespace: "prod", Service: "orders", InstanceId: "b"}, {Namespace: "prod", Service: "orders", InstanceId: "a"},
	}}))
	_, err = stream.Recv()
	must(codes.OK, err)
	must(codes.OK, stream.CloseSend())
	force := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer s3cret")
	_, err = m.client.Deregister(force, &stellmapv1.DeregisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", Force: true})
	must(codes.OK, err)

	over, end := context.WithCancel(context.Background())
	end()
	if err := log.Run(over); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), token) || strings.Contains(string(text), "s3cret") {
		t.Errorf("there is a secret in the log:\n%s", text)
	}
	bare := regexp.MustCompile(`"(time|prev|hash|from)":"[^"]*",?|"(seq|before|after)":[0-9]+,`).ReplaceAllString(string(text), "")
	_, bare, _ = strings.Cut(bare, "\n")
	want := strings.TrimLeft(`
{"who":"anonymous","port":"xds","does":"stellmap.v1.RegistryService/Register","on":"prod/orders/a","decision":"allowed","request":"r-7",}
{"who":"anonymous","port":"xds","does":"stellmap.v1.RegistryService/Deregister","on":"prod/orders/a","decision":"denied","code":"PermissionDenied","request":"r-7",}
{"who":"anonymous","port":"xds","does":"stellmap.v1.RegistryService/Deregister","on":"prod/orders/a","decision":"denied","code":"Unauthenticated","request":"r-7",}
{"who":"anonymous","port":"xds","does":"stellmap.v1.RegistryService/Renew","on":"prod/orders/a","decision":"denied","code":"PermissionDenied",}
{"who":"anonymous","token":"`+audit.TokenName("admin", "s3cret")+`","port":"xds","does":"stellmap.v1.RegistryService/Deregister","on":"prod/orders/a","decision":"allowed","request":"r-7",}
`, "\n")
	if bare != want {
		t.Errorf("the audit log is\n%s\nwant\n%s", bare, want)
	}
}
