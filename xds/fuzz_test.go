package xds

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadservice "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	typeurl "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/internal/corpus"
	"github.com/stellmap/stellmap/registry"
)

// talk is a stream whose client says what is in some bytes, and hangs up; what it is told
// it does not look at.
type talk struct {
	grpc.ServerStream
	ctx  context.Context
	rest []byte
}

func (t *talk) Context() context.Context { return t.ctx }

// next reads a message behind its length; what is no message is an end, as gRPC makes it one.
func (t *talk) next(m proto.Message) error {
	if len(t.rest) < 2 {
		return io.EOF
	}
	n := int(binary.LittleEndian.Uint16(t.rest))
	t.rest = t.rest[2:]
	n = min(n, len(t.rest))
	text := t.rest[:n]
	t.rest = t.rest[n:]
	if proto.Unmarshal(text, m) != nil {
		return io.EOF
	}
	return nil
}

func spoken(tb testing.TB, messages ...proto.Message) (out []byte) {
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(binary.LittleEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	return out
}

type (
	wholeTalk struct{ talk }
	deltaTalk struct{ talk }
	loadTalk  struct{ talk }
)

func (t *wholeTalk) Send(*discoveryv3.DiscoveryResponse) error { return nil }
func (t *wholeTalk) Recv() (*discoveryv3.DiscoveryRequest, error) {
	m := new(discoveryv3.DiscoveryRequest)
	return m, t.next(m)
}

func (t *deltaTalk) Send(*discoveryv3.DeltaDiscoveryResponse) error { return nil }
func (t *deltaTalk) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	m := new(discoveryv3.DeltaDiscoveryRequest)
	return m, t.next(m)
}

func (t *loadTalk) Send(*loadservice.LoadStatsResponse) error { return nil }
func (t *loadTalk) Recv() (*loadservice.LoadStatsRequest, error) {
	m := new(loadservice.LoadStatsRequest)
	return m, t.next(m)
}

var (
	_ streamv3.Stream      = (*wholeTalk)(nil)
	_ streamv3.DeltaStream = (*deltaTalk)(nil)
)

// FuzzStreams: whatever clients say, in whatever order, a stream ends with a word of gRPC
// that is the client's fault, leaves nothing behind, and the next one is served.
func FuzzStreams(f *testing.F) {
	m := newMember(f, func(c *Config, l *limits) { c.LoadEvery, l.catchUp = 10*time.Second, catchUpMax })
	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "1", Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}}})
	node := &corev3.Node{Id: "web-1", Cluster: "web", UserAgentName: "envoy"}
	cds, eds := typeURLs[typeCluster], typeURLs[typeEndpoints]
	corpus.Add(f, "whole", byte(0), spoken(f, &discoveryv3.DiscoveryRequest{Node: node, TypeUrl: cds}, &discoveryv3.DiscoveryRequest{TypeUrl: cds, ResponseNonce: "1", VersionInfo: "x"}, &discoveryv3.DiscoveryRequest{TypeUrl: eds, ResourceNames: []string{"orders.prod", "", "~~"}}))
	corpus.Add(f, "delta", byte(1), spoken(f, &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: cds, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: map[string]string{"orders.prod": "a.1", "x": "."}},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"orders.prod"}, ResourceNamesUnsubscribe: []string{"*", "orders.prod"}}))
	corpus.Add(f, "loads", byte(2), spoken(f, &loadservice.LoadStatsRequest{Node: node}, &loadservice.LoadStatsRequest{}))
	corpus.Add(f, "nobody", byte(0), spoken(f, &discoveryv3.DiscoveryRequest{TypeUrl: cds}))
	corpus.Add(f, "a length beyond the end", byte(1), []byte{255, 255, 1})
	f.Fuzz(func(t *testing.T, way byte, raw []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		words := talk{ctx: ctx, rest: raw}
		var err error
		switch way % 3 {
		case 0:
			err = m.server.StreamHandler(&wholeTalk{words}, typeurl.AnyType)
		case 1:
			err = m.server.DeltaStreamHandler(&deltaTalk{words}, typeurl.AnyType)
		default:
			err = loadService{server: m.server}.StreamLoadStats(&loadTalk{words})
		}
		switch status.Code(err) {
		case codes.Internal, codes.Unknown, codes.DataLoss:
			t.Errorf("%x ends with %v", raw, err)
		}
		if n := m.server.metrics.streams.Load(); n != 0 {
			t.Errorf("%x leaves %d streams", raw, n)
		}
	})
}

// FuzzNode: what a client says of itself is understood within its bounds, the same each time,
// or refused as its fault.
func FuzzNode(f *testing.F) {
	for name, n := range map[string]*corev3.Node{"nobody": {}, "grpc": {Id: "a", UserAgentName: "gRPC Go"}, "with a zone": {Id: "a", Locality: &corev3.Locality{Region: "r", Zone: "z"}}} {
		b, err := proto.Marshal(n)
		if err != nil {
			f.Fatal(err)
		}
		corpus.Add(f, name, b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var of corev3.Node
		if proto.Unmarshal(b, &of) != nil {
			return
		}
		n, err := parseNode(&of, "here")
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%x is refused with %v", b, err)
			}
			return
		}
		for _, text := range []string{n.id, n.cluster, n.region, n.zone, n.namespace, n.service} {
			if len(text) > nodeTextMax {
				t.Errorf("%x is taken with a text of %d bytes", b, len(text))
			}
		}
	})
}
