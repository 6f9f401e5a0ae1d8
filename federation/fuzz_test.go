package federation

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/internal/corpus"
	"github.com/stellmap/stellmap/internal/rawcalls"
	"github.com/stellmap/stellmap/registry"
)

// FuzzFollow: whatever somebody with the token says who means to follow this region, it is his fault, and others
// follow on.
func FuzzFollow(f *testing.F) {
	m := newRegion(f, 1, registry.HistoryBounds{}).members[0]
	hello := &replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Hello{Hello: &replicationv1.Hello{
		Name: "there", Region: "there", ClusterId: 200, SourceRegion: "here", SourceClusterId: 100,
		After: &replicationv1.Cursor{Incarnation: "cafe", Revision: 1}, Selections: []*replicationv1.Selection{{Namespace: "prod", Services: []string{"a*"}, Labels: "a=b"}},
	}}}
	ack := &replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Ack{Ack: &replicationv1.Ack{Sequence: 1}}}
	for name, said := range map[string][]proto.Message{"hello": {hello}, "hello and ack": {hello, ack}, "hello twice": {hello, hello}, "ack alone": {ack}, "nothing": {&replicationv1.FollowRequest{}}} {
		packed, err := rawcalls.Pack(said...)
		if err != nil {
			f.Fatal(err)
		}
		corpus.Add(f, name, packed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), 50*time.Millisecond)
		defer cancel()
		if err := rawcalls.Call(ctx, m.conn, replicationv1.ReplicationService_ServiceDesc.ServiceName, 0, raw); err != nil {
			t.Errorf("%x: %v", raw, err)
		}
	})
}

// FuzzTold: whatever a source tells, in whatever order, the copy takes it in or ends the stream with a reason.
func FuzzTold(f *testing.F) {
	page := &replicationv1.FollowResponse{Sequence: 2, Kind: &replicationv1.FollowResponse_Page{Page: &replicationv1.Page{Instances: []*replicationv1.Instance{
		{Namespace: "prod", Service: "orders", Id: "a", Record: &recordv1.InstanceRecord{Format: 1, Revision: 3, Spec: &recordv1.InstanceSpec{LeaseTtlMs: 1000, Endpoints: []*recordv1.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80, Weight: 100}}}}},
	}}}}
	begin := &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Begin{Begin: &replicationv1.Begin{Revision: 9}}}
	end := &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_End{End: &replicationv1.End{}}}
	changes := &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Changes{Changes: &replicationv1.Changes{}}}
	progress := &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Progress{Progress: &replicationv1.Progress{}}}
	for name, told := range map[string][]proto.Message{
		"a full copy": {begin, page, end, progress}, "a page alone": {page}, "an end alone": {end}, "changes": {changes, progress},
		"begun twice": {begin, begin, page, page, changes, end}, "nothing": {&replicationv1.FollowResponse{}},
	} {
		packed, err := rawcalls.Pack(told...)
		if err != nil {
			f.Fatal(err)
		}
		corpus.Add(f, name, packed)
	}
	silent := &teller{}
	c := newCopying(f, newRegion(f, 1, registry.HistoryBounds{}), 1, func(i *Importer) { i.reach = silent.reach })
	from := c.importers[0].sources[0]
	f.Fuzz(func(t *testing.T, raw []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		one := &copier{source: from, stream: &tellerStream{ctx: ctx, of: silent}, at: c.registry.Region(here).Cursor, of: "cafe"}
		for len(raw) >= 2 {
			n := min(int(binary.LittleEndian.Uint16(raw)), len(raw)-2)
			m := new(replicationv1.FollowResponse)
			if proto.Unmarshal(raw[2:2+n], m) != nil {
				return
			}
			raw = raw[2+n:]
			if one.commit(ctx, received{m, n, time.Now()}) != nil {
				return
			}
		}
	})
}
