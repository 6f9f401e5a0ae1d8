package grpcapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// TestMain fails when a call has left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A member is a registry over a log that commits at once, its API, and a real
// client's connection to it. What goes wrong in the log the tests switch on.
type member struct {
	tb      testing.TB
	log     *registrytest.Log
	machine *registry.Machine
	api     *API
	metrics *prometheus.Registry
	conn    *grpc.ClientConn
	client  stellmapv1.RegistryServiceClient
	stop    context.CancelFunc // ends the API's Run
	tokens  atomic.Int64
	views   atomic.Int64

	mu   sync.Mutex // guards what follows
	home registry.CursorHome
	logs bytes.Buffer
}

// neighbour is the other region that members follow.
var neighbour = registry.RegionKey{Region: "b", Cluster: 200}

// newMember makes a member; change, if not nil, may change the API before it is used.
func newMember(tb testing.TB, change func(*API)) *member {
	tb.Helper()
	clock := registrytest.StillClock{}
	m := &member{tb: tb, home: registry.CursorHome{Incarnation: "cafe", Member: 2}, log: registrytest.NewLog(tb, clock.Now), metrics: prometheus.NewRegistry()}
	m.log.FreshAt = clock.Now().Add(-1500 * time.Millisecond)
	viewID := func() string { return fmt.Sprintf("view-%d", m.views.Add(1)) }
	one := m.log.NewMember(registry.MachineConfig{Region: "here", ViewID: viewID, Registerer: m.metrics})
	m.machine = one.Machine
	m.log.Begin()
	m.machine.Lead(1)
	r := registry.New(registry.Config{Machine: m.machine, Replicator: one, Clock: clock})
	var err error
	m.api, err = New(Config{
		Registry: r, CursorHome: m.cursorHome, Neighbours: func() registry.Neighbours {
			return registry.Neighbours{Sources: []registry.RegionKey{neighbour}, Fresh: 30 * time.Second}
		}, Operator: func(header string) bool { return header == "Bearer s3cret" },
		LeaseToken: func() string { return fmt.Sprintf("lease-token-%04d", m.tokens.Add(1)) },
		Logger:     slog.New(slog.NewTextHandler(m, nil)), Registerer: m.metrics,
	})
	if err != nil {
		tb.Fatalf("make the API: %v", err)
	}
	if change != nil {
		change(m.api)
	}
	m.run(r)
	return m
}

// run serves until the test ends.
func (m *member) run(r *registry.Registry) {
	ctx, cancel := context.WithCancel(context.Background())
	serving, stop := context.WithCancel(ctx)
	m.stop = stop
	server, listener := grpc.NewServer(), bufconn.Listen(1<<20)
	m.api.Register(server)
	reflection.Register(server)
	ended := make(chan error, 3)
	go func() { ended <- r.Run(ctx) }()
	go func() { ended <- m.api.Run(serving) }()
	go func() { ended <- server.Serve(listener) }()
	var err error
	m.conn, err = grpc.NewClient("passthrough:///member", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		m.tb.Fatal(err)
	}
	m.client = stellmapv1.NewRegistryServiceClient(m.conn)
	m.tb.Cleanup(func() {
		m.conn.Close()
		cancel()
		server.Stop()
		for range cap(ended) {
			if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it may be stopped before it has begun to serve
				m.tb.Errorf("a part of the member ended with %v", err)
			}
		}
	})
}

func (m *member) cursorHome() registry.CursorHome {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.home
}

// Write takes the log.
func (m *member) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs.Write(b)
}

func (m *member) logged() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs.String()
}

// set changes what the member plays, safely.
func (m *member) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log.Set(change)
}

// call makes a call with requests in JSON, one a line, and shows the answers in the
// same form, and the error with its details. The messages are made from their
// descriptors, as tools do it. A stream that does not end is left after so many
// answers; 0 is for one that does.
func (m *member) call(of protoreflect.MethodDescriptor, requests, authorization string, most int) string {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	path := fmt.Sprintf("/%s/%s", of.Parent().FullName(), of.Name())
	stream, err := m.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path)
	if err != nil {
		return shownError(err)
	}
	var out strings.Builder
	for line := range strings.Lines(requests) {
		request := dynamicpb.NewMessage(of.Input())
		if err := protojson.Unmarshal([]byte(line), request); err != nil {
			m.tb.Fatalf("%s: %v", line, err)
		}
		if err := stream.SendMsg(request); err != nil {
			break // RecvMsg says why
		}
		if of.IsStreamingClient() && !m.receive(stream, of, &out) {
			return out.String()
		}
	}
	if err := stream.CloseSend(); err != nil {
		m.tb.Fatal(err)
	}
	for m.receive(stream, of, &out) && (most == 0 || strings.Count(out.String(), "\n") < most) {
	}
	return out.String()
}

// receive shows one answer; false after the last.
func (m *member) receive(stream grpc.ClientStream, of protoreflect.MethodDescriptor, out *strings.Builder) bool {
	answer := dynamicpb.NewMessage(of.Output())
	if err := stream.RecvMsg(answer); errors.Is(err, io.EOF) {
		return false
	} else if err != nil {
		out.WriteString(shownError(err))
		return false
	}
	fmt.Fprintln(out, asJSON(m.tb, answer))
	return true
}

// shownError is an error's code and text, and its details, one a line.
func shownError(err error) string {
	s := status.Convert(err)
	out := fmt.Sprintf("%v: %s\n", s.Code(), s.Message())
	for _, d := range s.Details() {
		message := d.(proto.Message)
		b, err := protojson.Marshal(message)
		if err != nil {
			return err.Error()
		}
		out += fmt.Sprintf("%s %s\n", message.ProtoReflect().Descriptor().Name(), compact(b))
	}
	return out
}

func asJSON(tb testing.TB, m proto.Message) string {
	tb.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return compact(b)
}

// compact takes the blanks out, which protojson puts in at random.
func compact(b []byte) string {
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return err.Error()
	}
	return out.String()
}

func mustEqual[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Fatalf("%s is\n%v\nwant\n%v", what, got, want)
	}
}

// register puts an instance of one HTTP endpoint into namespace prod.
func (m *member) register(service, id string) *stellmapv1.RegisterResponse {
	m.tb.Helper()
	answer, err := m.client.Register(m.tb.Context(), registration(service, id))
	if err != nil {
		m.tb.Fatal(err)
	}
	return answer
}

func registration(service, id string) *stellmapv1.RegisterRequest {
	return &stellmapv1.RegisterRequest{
		Namespace: "prod", Service: service, InstanceId: id,
		Endpoints: []*stellmapv1.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 8080}},
	}
}
