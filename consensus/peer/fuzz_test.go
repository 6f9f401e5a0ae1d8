package peer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/internal/corpus"
	"github.com/stellmap/stellmap/internal/rawcalls"
)

// FuzzPeers: whatever somebody says to a member who has a certificate of the region, but not a member's, it is refused as his
// fault. What members say to each other is believed: a quorum of liars is not what this is for.
func FuzzPeers(f *testing.F) {
	c := newCluster(f, 3)
	c.proves = func(_ context.Context, id uint64) error {
		if id >= 1 && id <= 3 {
			return errors.New("that is a member, and you are none")
		}
		return nil
	}
	one := c.start(1, vfs.NewMem())
	introduction := introductionTo(one.Introduce())
	introduction.Member = &peerv1.Member{Id: 9, Uuid: "nine", Grpc: "127.0.0.1:1"}
	asks := []proto.Message{ // by method, in their order
		&peerv1.HelloRequest{Introduction: introduction, To: 1}, &peerv1.MessagesRequest{Introduction: introduction},
		&peerv1.ForwardRequest{From: 9, Uuid: "nine", ClusterId: 100, Kind: peerv1.ForwardRequest_KIND_PROPOSE},
		&peerv1.SnapshotRequest{Offer: &peerv1.SnapshotOffer{Introduction: introduction, Meta: []byte("{}")}}, &peerv1.AskRequest{From: 9, Uuid: "nine", ClusterId: 100},
	}
	for own, m := range asks {
		packed, err := rawcalls.Pack(m, m)
		if err != nil {
			f.Fatal(err)
		}
		corpus.Add(f, strings.TrimSuffix(string(m.ProtoReflect().Descriptor().Name()), "Request"), byte(own), packed)
		for method := range asks { // the others' as well
			f.Add(byte(method), packed)
		}
	}
	conn, err := grpc.NewClient(c.address(1), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	f.Fuzz(func(t *testing.T, method byte, raw []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := rawcalls.Call(ctx, conn, peerv1.PeerService_ServiceDesc.ServiceName, method, raw); err != nil {
			t.Errorf("%x: %v", raw, err)
		}
	})
}
