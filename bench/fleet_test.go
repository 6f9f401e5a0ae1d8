package bench

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

const (
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

const (
	opening       = 100       // streams at once
	clientBuffers = 4 << 10   // of a connection: ten thousand of them share a process
	frameBytesMax = 256 << 20 // a peer's response of thousands of clusters is in one piece
)

// envoyVersion is what the streams say of themselves, as the Envoy of the tests does.
var envoyVersion = &core.Node_UserAgentBuildVersion{UserAgentBuildVersion: &core.BuildVersion{
	Version: &envoytype.SemanticVersion{MajorNumber: 1, MinorNumber: 40},
}}

// An ask is what a stream subscribes to: names, or all if there are none. It is in sync
// when it has so many resources.
type ask struct {
	typ   string
	names []string
	sync  int
}

// A fleet is delta ADS streams that acknowledge whatever comes. They know of a
// response its type, its nonce and the names in it, and decode nothing else, since
// the processors are the server's too.
type fleet struct {
	addresses   []string // of servers; connections go to them in turn
	size        int      // streams
	connections int      // that they share; as many as streams = each has its own
	asks        func(n int) []ask

	conns    []*grpc.ClientConn
	readers  sync.WaitGroup
	received atomic.Int64 // responses since all were in sync
	bytes    atomic.Int64 // of those
	tables   atomic.Int64 // of those, the bytes of route tables
	took     time.Duration
	close    func()

	mu      sync.Mutex // guards what follows
	waiting map[awaited]*waiter
}

type awaited struct{ typ, name string }

// A waiter counts the streams that a change has yet to reach.
type waiter struct {
	left int
	at   time.Time // when none was left
	done chan struct{}
}

// open opens all streams and waits until they are in sync.
func (f *fleet) open(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.waiting = make(map[awaited]*waiter)
	f.close = sync.OnceFunc(func() {
		cancel()
		for _, c := range f.conns {
			if err := c.Close(); err != nil {
				b.Error(err)
			}
		}
		f.readers.Wait()
	})
	b.Cleanup(f.close)
	for i := range f.connections {
		c, err := grpc.NewClient(f.addresses[i%len(f.addresses)], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithReadBufferSize(clientBuffers), grpc.WithWriteBufferSize(clientBuffers))
		if err != nil {
			b.Fatal(err)
		}
		f.conns = append(f.conns, c)
	}
	begin := time.Now()
	var g errgroup.Group
	g.SetLimit(opening)
	for n := range f.size {
		g.Go(func() error {
			if err := f.begin(ctx, n); err != nil {
				return fmt.Errorf("stream %d: %w", n, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	f.took = time.Since(begin)
}

// begin opens a stream, brings it into sync, and leaves a reader behind that ends with ctx.
func (f *fleet) begin(ctx context.Context, n int) error {
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	s, err := f.conns[n%f.connections].NewStream(ctx, desc, discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		grpc.ForceCodecV2(frames{}), grpc.MaxCallRecvMsgSize(frameBytesMax))
	if err != nil {
		return err
	}
	node := &core.Node{Id: fmt.Sprintf("bench-%d", n), UserAgentName: "envoy", UserAgentVersionType: envoyVersion, Locality: &core.Locality{Region: "local"}}
	var in frame
	for _, a := range f.asks(n) {
		request, err := proto.Marshal(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: a.typ, ResourceNamesSubscribe: a.names})
		if err == nil {
			err = s.SendMsg(request)
		}
		node = nil // once is enough
		for have := 0; have < a.sync && err == nil; {
			if err = in.take(s); err == nil && in.typ == a.typ {
				have += len(in.names)
			}
		}
		if err != nil {
			return fmt.Errorf("sync %s: %w", a.typ, err)
		}
	}
	f.readers.Go(func() {
		for in.take(s) == nil { // else the benchmark is over
			f.arrived(&in)
		}
	})
	return nil
}

// expect waits for so many streams to have a resource: before the change is made.
func (f *fleet) expect(typ, name string, streams int) *waiter {
	w := &waiter{left: streams, done: make(chan struct{})}
	if streams == 0 {
		close(w.done)
		return w
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[awaited{typ, name}] = w
	return w
}

// wait returns how long after a moment the last of the streams had it.
func (f *fleet) wait(b *testing.B, what string, w *waiter, begin time.Time) time.Duration {
	b.Helper()
	select {
	case <-w.done:
		return w.at.Sub(begin)
	case <-time.After(propagateLimit):
		f.mu.Lock()
		defer f.mu.Unlock()
		b.Fatalf("%s: %d streams do not have it after %v", what, w.left, propagateLimit)
		return 0
	}
}

func (f *fleet) arrived(in *frame) {
	now := time.Now()
	f.received.Add(1)
	f.bytes.Add(int64(in.bytes))
	if in.typ == routeType {
		f.tables.Add(int64(in.bytes))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range in.names {
		key := awaited{in.typ, name}
		w := f.waiting[key]
		if w == nil {
			continue
		}
		if w.left--; w.left == 0 {
			w.at = now
			close(w.done)
			delete(f.waiting, key)
		}
	}
}

// A frame is what is read of a response.
type frame struct {
	typ, nonce string
	names      []string
	bytes      int
}

// take receives a response and acknowledges it.
func (f *frame) take(s grpc.ClientStream) error {
	if err := s.RecvMsg(f); err != nil {
		return err
	}
	// type_url = 2, response_nonce = 6
	ack := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), f.typ)
	return s.SendMsg(protowire.AppendString(protowire.AppendTag(ack, 6, protowire.BytesType), f.nonce))
}

// parse reads a DeltaDiscoveryResponse: resources = 2, with their name = 3; type_url = 4; nonce = 5.
func (f *frame) parse(text []byte) error {
	*f = frame{names: f.names[:0], bytes: len(text)}
	return eachField(text, func(number protowire.Number, value []byte) error {
		switch number {
		case 2:
			return eachField(value, func(number protowire.Number, value []byte) error {
				if number == 3 {
					f.names = append(f.names, string(value))
				}
				return nil
			})
		case 4:
			f.typ = string(value)
		case 5:
			f.nonce = string(value)
		}
		return nil
	})
}

// eachField goes through the fields of a message that have bytes.
func eachField(text []byte, do func(protowire.Number, []byte) error) error {
	for len(text) > 0 {
		number, wire, n := protowire.ConsumeTag(text)
		if n < 0 {
			return protowire.ParseError(n)
		}
		text = text[n:]
		n = protowire.ConsumeFieldValue(number, wire, text)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if wire == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(text)
			if err := do(number, value); err != nil {
				return err
			}
		}
		text = text[n:]
	}
	return nil
}

// frames is the codec of the streams: bytes go out, frames come in.
type frames struct{}

var _ encoding.CodecV2 = frames{}

func (frames) Name() string { return "proto" }

func (frames) Marshal(v any) (mem.BufferSlice, error) {
	text, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("send a %T: want bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(text)}, nil
}

func (frames) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("receive a %T: want a frame", v)
	}
	text := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer text.Free()
	return in.parse(text.ReadOnlyData())
}

// perStream is an amount divided among the streams.
func (f *fleet) perStream(bytes int64) int64 { return bytes / int64(max(1, f.size)) }

// perResponse is the mean size of the responses since a moment; NaN of none.
func perResponse(bytes, responses int64) float64 {
	if responses == 0 {
		return math.NaN()
	}
	return float64(bytes) / float64(responses)
}
