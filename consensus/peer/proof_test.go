package peer

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
)

// Every method looks at who calls before it does anything: who has not proved to be the member that it says is told
// nothing but that, and is not bound to the id.
func TestEveryMethodAsksForProof(t *testing.T) {
	c := newCluster(t, 3)
	c.proves = func(_ context.Context, id uint64) error {
		if id == 2 {
			return errors.New("that is not node 2")
		}
		return nil
	}
	one := c.start(1, vfs.NewMem())
	client := dial(t, c.address(1))
	introduction := introductionTo(one.Introduce())
	introduction.Member = &peerv1.Member{Id: 2, Uuid: "two"}
	calls := map[string]func(context.Context) error{
		"Hello": func(ctx context.Context) error {
			_, err := client.Hello(ctx, &peerv1.HelloRequest{Introduction: introduction, To: 1})
			return err
		},
		"Forward": func(ctx context.Context) error {
			_, err := client.Forward(ctx, &peerv1.ForwardRequest{From: 2, Uuid: "two", ClusterId: 100})
			return err
		},
		"Ask": func(ctx context.Context) error {
			_, err := client.Ask(ctx, &peerv1.AskRequest{From: 2, Uuid: "two", ClusterId: 100})
			return err
		},
		"Messages": func(ctx context.Context) error {
			stream, err := client.Messages(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&peerv1.MessagesRequest{Introduction: introduction}); err != nil {
				return err
			}
			_, err = stream.CloseAndRecv()
			return err
		},
		"Snapshot": func(ctx context.Context) error {
			stream, err := client.Snapshot(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&peerv1.SnapshotRequest{Offer: &peerv1.SnapshotOffer{Introduction: introduction}}); err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
	}
	desc := peerv1.PeerService_ServiceDesc
	var names []string
	for _, m := range desc.Methods {
		names = append(names, m.MethodName)
	}
	for _, s := range desc.Streams {
		names = append(names, s.StreamName)
	}
	for _, name := range names {
		err := fmt.Errorf("%s is called by no test", name)
		if call := calls[name]; call != nil {
			err = call(t.Context())
		}
		if s, ok := status.FromError(err); !ok || s.Code() != codes.PermissionDenied || s.Message() != "that is not node 2" {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	if one.Known(2, "two") {
		t.Error("the caller was taken for node 2")
	}
}
