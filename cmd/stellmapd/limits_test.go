package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stellmap/stellmap/access"
	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

const allServices = "/api/v2/services"

// tooMany calls until it is refused, which it is at once unless this machine takes a second for a call.
func tooMany(t *testing.T, what string, call func() bool) {
	t.Helper()
	for range 1000 {
		if call() {
			return
		}
	}
	t.Fatalf("of 1,000 calls none is too much: %s", what)
}

// Who asks too often is told when to come again, over HTTP and gRPC by one count, and nobody
// else is refused for it; whether the member lives is told him all the same. Who is not let
// is held to the share of his address.
func TestAMemberHoldsEverybodyToHisShare(t *testing.T) {
	w := newTown(t, "--requests-per-second-each", "1")
	public := w.address("HTTP")
	web, lin, nobody := w.visitor("/ns/prod/sa/web", ""), w.visitor("/operator/lin", ""), w.visitor("", "")
	tooMany(t, "over HTTP", func() bool {
		response, err := web.http.Do(web.request(http.MethodGet, public+allServices, ""))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode == http.StatusTooManyRequests && (response.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), `"code":"too_many_requests","detail":"limits.requests_per_second_each of this member is 1, and nothing was done: try again in `)) {
			t.Fatalf("it is told %v %s", response.Header, body)
		}
		return response.StatusCode == http.StatusTooManyRequests
	})
	client := stellmapv1.NewRegistryServiceClient(web.dial(w.address("xDS")))
	tooMany(t, "over gRPC", func() bool {
		_, err := client.GetService(t.Context(), &stellmapv1.GetServiceRequest{})
		s := status.Convert(err)
		if s.Code() == codes.ResourceExhausted && (len(s.Details()) != 1 || s.Details()[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() > time.Second) {
			t.Fatalf("it is told %v %v", s, s.Details())
		}
		return s.Code() == codes.ResourceExhausted
	})
	for range 2 { // of two at once the second would be too much
		if _, err := grpc_health_v1.NewHealthClient(web.dial(w.address("xDS"))).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Errorf("whether the member lives he is told over gRPC by %v", err)
		}
	}
	if code, body := web.do(http.MethodGet, public+"/readyz", ""); code != http.StatusOK {
		t.Errorf("whether the member is ready he is told by %d %s", code, body)
	}
	if code, body := lin.do(http.MethodGet, public+allServices, ""); code != http.StatusOK {
		t.Errorf("another is answered %d %s", code, body)
	}
	for what, ask := range map[string]func(*grpc.ClientConn, *visitor){
		"a call after one over gRPC": func(conn *grpc.ClientConn, _ *visitor) {
			if _, err := stellmapv1.NewRegistryServiceClient(conn).GetService(t.Context(), &stellmapv1.GetServiceRequest{}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the first is answered with %v", err)
			}
		},
		"a call after a message of a stream": func(conn *grpc.ClientConn, v *visitor) {
			v.answered(conn, "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus")
		},
	} {
		n := 0
		tooMany(t, what, func() bool { // each by somebody who has not asked anything yet
			n++
			v := w.visitor(fmt.Sprintf("/operator/%s-%d", strings.ReplaceAll(what, " ", "-"), n), "")
			ask(v.dial(w.address("xDS")), v)
			code, _ := v.do(http.MethodGet, public+allServices, "")
			return code == http.StatusTooManyRequests
		})
	}
	tooMany(t, "of nobody", func() bool {
		code, _ := nobody.do(http.MethodGet, public+allServices, "")
		return code == http.StatusTooManyRequests
	})
	knocks := stellmapv1.NewRegistryServiceClient(nobody.dial(w.address("xDS")))
	tooMany(t, "of nobody over gRPC", func() bool {
		_, err := knocks.GetService(t.Context(), &stellmapv1.GetServiceRequest{})
		if code := status.Code(err); code != codes.Unauthenticated && code != codes.ResourceExhausted {
			t.Fatalf("nobody is told %v", err)
		}
		return status.Code(err) == codes.ResourceExhausted
	})
	w.until("refusals to be counted", func() bool {
		code, metrics := lin.do(http.MethodGet, public+"/metrics", "")
		return code == http.StatusOK && strings.Contains(metrics, `stellmap_limits_refused_total{limit="requests_per_second_each"}`) && !strings.Contains(metrics, `{limit="requests_per_second_each"} 0`)
	})
}

// An identity has so many streams and watches open, over whatever surface; the next is
// refused, and one that ends makes room.
func TestStreamsOfAnIdentityAreHeldToItsShare(t *testing.T) {
	w := newTown(t, "--streams-each", "2")
	web, lin := w.visitor("/ns/prod/sa/web", ""), w.visitor("/operator/lin", "")
	conn := web.dial(w.address("xDS"))
	const ads, watch = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", "/stellmap.v1.RegistryService/Watch"
	end := web.stay(conn, ads, messageOf(t, "envoy.service.discovery.v3.DeltaDiscoveryRequest",
		`{"node": {"id": "web-1"}, "typeUrl": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "resourceNamesSubscribe": ["nobody.prod"]}`))
	web.stay(conn, watch, &stellmapv1.WatchRequest{})
	if code, body := web.do(http.MethodGet, w.address("HTTP")+"/api/v2/watch?wait=1ms&revision=1", ""); code != http.StatusTooManyRequests || !strings.Contains(body, "limits.streams_each") {
		t.Errorf("a watch over HTTP: %d %s", code, body)
	}
	if err := web.refused(conn, ads); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "limits.streams_each of this member is 2") {
		t.Errorf("a third: %v", err)
	}
	if code, body := lin.do(http.MethodGet, w.address("HTTP")+"/api/v2/watch?wait=1ms&revision=1", ""); code != http.StatusOK {
		t.Errorf("another's: %d %s", code, body)
	}
	end()
	for range 3 { // each of them leaves it to the next
		w.until("there to be room again", func() bool {
			code, _ := web.do(http.MethodGet, w.address("HTTP")+"/api/v2/watch?wait=1ms&revision=1", "")
			return code == http.StatusOK
		})
	}
}

// messageOf is a message of a kind that this package does not know.
func messageOf(t *testing.T, name protoreflect.FullName, text string) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := kind.New().Interface()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// stay opens a stream that is served: what it was asked is answered. To find that out by one
// stream more would take the place of one that is on its way.
func (v *visitor) stay(conn *grpc.ClientConn, fullMethod string, ask proto.Message) (end func()) {
	v.t.Helper()
	s, err := conn.NewStream(v.patience(), &grpc.StreamDesc{ClientStreams: !strings.HasSuffix(fullMethod, "/Watch"), ServerStreams: true}, fullMethod)
	if err == nil {
		err = s.SendMsg(ask)
	}
	if err == nil {
		err = s.RecvMsg(&emptypb.Empty{})
	}
	if err != nil {
		v.t.Fatalf("%s: %v", fullMethod, err)
	}
	return func() {
		if err := s.CloseSend(); err != nil {
			v.t.Error(err)
		}
	}
}

// refused is how a stream that is not to be served ends.
func (v *visitor) refused(conn *grpc.ClientConn, fullMethod string) error {
	v.t.Helper()
	_, err := v.stream(conn, fullMethod)()
	return err
}

// A port takes so many connections from an address; one too many is closed at once, and
// one that ends makes room.
func TestConnectionsOfAnAddressAreHeldToItsShare(t *testing.T) {
	limiter, err := access.NewLimiter(access.Limits{ConnectionsFrom: 2}, time.Now, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := (&node{limiter: limiter}).narrowed(raw)
	defer l.Close()
	accepted := make(chan net.Conn, 8)
	go func() { // until the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	dial()
	first := <-accepted
	<-accepted
	mustBeClosed := func(who string) {
		t.Helper()
		c := dial()
		if err := c.SetReadDeadline(time.Now().Add(waitMax)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, errTimeout(err)) {
			t.Errorf("%s is not closed: %v", who, err)
		}
	}
	mustBeClosed("a third")
	for range 2 { // the second time it has left already
		first.Close()
	}
	dial()
	<-accepted
	mustBeClosed("a second in the place of one that was closed twice")
	if len(accepted) != 0 {
		t.Error("more are accepted than may be")
	}
}

// errTimeout is the error itself if it is of a time-out, and nil otherwise.
func errTimeout(err error) error {
	var timed net.Error
	if errors.As(err, &timed) && timed.Timeout() {
		return err
	}
	return nil
}

// talk is a stream of which only the receiving counts.
type talk struct {
	grpc.ServerStream
	t *testing.T
}

func (talk) RecvMsg(any) error          { return nil }
func (c talk) Context() context.Context { return c.t.Context() }

// What comes too fast over a stream waits for its turn, and is not refused.
func TestAStreamIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := access.NewLimiter(access.Limits{RequestsEach: 10}, time.Now, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		on, start := paced{talk{t: t}, limiter, "ann", access.RankRenewal}, time.Now()
		for range 30 {
			if err := on.RecvMsg(nil); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("30 messages at 10 a second, and 10 at once, took %v", took)
		}
	})
}

// Limits hold by themselves where callers come from elsewhere or are asked who they are,
// and a number that is set holds for everybody.
func TestWhereLimitsHold(t *testing.T) {
	byItself := access.Limits{Requests: requestsPerCPU * runtime.NumCPU(), RequestsEach: requestsEachDefault, StreamsEach: streamsEachDefault, StreamsFrom: streamsFromDefault, ConnectionsFrom: connectionsFromDefault}
	oneStream := byItself
	oneStream.StreamsEach = 1
	for flags, want := range map[string]access.Limits{
		"":               {},
		"--auth-mode=on": byItself,
		"--http-addr=0.0.0.0:8080 --insecure-beyond-loopback-without-tls-or-authentication=on": byItself,
		"--streams-each=7":                    {StreamsEach: 7},
		"--requests-per-second=9":             {Requests: 9},
		"--connections-per-address=3":         {ConnectionsFrom: 3},
		"--streams-per-address=4":             {StreamsFrom: 4},
		"--requests-per-second-each=5":        {RequestsEach: 5},
		"--stream-requests-per-second=6":      {},
		"--auth-mode=on --streams-each=1":     oneStream,
		"--auth-mode=on --streams-each=auto":  byItself,
		"--auth-mode=off --streams-each=auto": {},
	} {
		set := pflag.NewFlagSet("stellmapd", pflag.ContinueOnError)
		addFlags(set)
		if err := set.Parse(strings.Fields(flags)); err != nil {
			t.Fatal(err)
		}
		c, err := loadConfig("", set, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatalf("%s: %v", flags, err)
		}
		if got := c.limitsOf(); got != want {
			t.Errorf("%q: %+v, want %+v", flags, got, want)
		}
	}
}

// Under load those by which instances live are refused last, and those that read a lot first.
func TestWhoGivesWay(t *testing.T) {
	for _, c := range []struct {
		verb     registry.Verb
		resource registry.Resource
		some     bool
		want     access.Rank
	}{
		{registry.VerbRenew, registry.ResourceInstances, true, access.RankRenewal},
		{registry.VerbRegister, registry.ResourceInstances, true, access.RankWrite},
		{registry.VerbRead, registry.ResourceInstances, false, access.RankRead},
		{registry.VerbRead, registry.ResourceInstances, true, access.RankList},
		{registry.VerbRead, registry.ResourceSnapshots, false, access.RankList},
	} {
		if got := rankOf(c.verb, c.resource, c.some); got != c.want {
			t.Errorf("%s of %s, some %v, has rank %d, want %d", c.verb, c.resource, c.some, got, c.want)
		}
	}
	for _, streams := range []struct {
		method string
		is     bool
	}{
		{"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", true},
		{"/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes", true},
		{"/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus", false},
		{"/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats", false},
		{"/stellmap.v1.RegistryService/Renew", false},
	} {
		if got := isDiscovery(streams.method); got != streams.is {
			t.Errorf("%s is one of resources: %v", streams.method, got)
		}
	}
}
