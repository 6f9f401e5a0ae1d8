package grpcapi

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// mustFail checks an error's code and reason.
func mustFail(tb testing.TB, what string, err error, code codes.Code, reason string) {
	tb.Helper()
	if status.Code(err) != code || !strings.Contains(shownError(err), fmt.Sprintf(`"reason":%q`, reason)) {
		tb.Fatalf("%s: %v, want %v and %s", what, shownError(err), code, reason)
	}
}

// until waits for a condition.
func until(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	for deadline := time.Now().Add(20 * time.Second); !condition(); <-ticks.C {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestCallsAreBounded shows that the call above the bound is refused at once and counted,
// and that one that waits ends within its deadline.
// Time is the bubble's: no deadline passes but while all wait for one.
func TestCallsAreBounded(t *testing.T) { synctest.Test(t, testCallsAreBounded) }

func testCallsAreBounded(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.calls, a.limits.call = 1, 300*time.Millisecond })
	m.set(func() { m.log.Hang = true })
	waiting := make(chan error, 1)
	go func() {
		_, err := m.client.Register(t.Context(), registration("orders", "a"))
		waiting <- err
	}()
	until(t, "the first call to be in flight", func() bool { return m.api.inflight.Load() == 1 })
	_, err := m.client.GetService(t.Context(), &stellmapv1.GetServiceRequest{Namespace: "prod", Service: "orders"})
	mustFail(t, "the second call", err, codes.ResourceExhausted, "BUSY")
	mustEqual(t, "how many were refused", m.metric("stellmap_grpc_requests_refused_total", ""), 1)
	mustFail(t, "the first call", <-waiting, codes.DeadlineExceeded, "UNKNOWN_OUTCOME")

	_, err = m.client.GetService(t.Context(), &stellmapv1.GetServiceRequest{Namespace: "prod", Service: "orders"})
	mustFail(t, "a read that waits", err, codes.Unavailable, "NO_LEADER")
	mustEqual(t, "what is in flight in the end", m.api.inflight.Load(), 0)
}

// TestASlowReaderIsCutOff shows that who asks for a list and does not read it is not
// waited for, and told why; and that meanwhile no more than the bound are read.
// Time is the bubble's: no deadline passes but while all wait for one.
func TestASlowReaderIsCutOff(t *testing.T) { synctest.Test(t, testASlowReaderIsCutOff) }

func testASlowReaderIsCutOff(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.lists, a.limits.list, a.limits.partBytes = 1, time.Second, 16<<10 })
	fat := registration("orders", "")
	fat.Metadata = []*stellmapv1.Pair{{Key: "much", Value: strings.Repeat("x", 15<<10)}}
	for n := range 100 {
		fat.InstanceId = fmt.Sprint("i", n)
		if _, err := m.client.Register(t.Context(), fat); err != nil {
			t.Fatal(err)
		}
	}
	slow, err := m.client.ListInstances(t.Context(), &stellmapv1.ListInstancesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the list to be in flight", func() bool { return m.api.lists.Load() == 1 })
	_, err = m.client.ListServices(t.Context(), &stellmapv1.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := m.client.ListServices(t.Context(), &stellmapv1.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = second.Recv()
	mustFail(t, "a second list", err, codes.ResourceExhausted, "BUSY")

	until(t, "the slow reader to be cut off", func() bool { return m.api.lists.Load() == 0 })
	got := 0
	for err = nil; err == nil; {
		var part *stellmapv1.ListInstancesResponse
		if part, err = slow.Recv(); err == nil {
			got += len(part.GetInstances())
		}
	}
	mustFail(t, "the slow reader", err, codes.DeadlineExceeded, "SLOW")
	if got == 0 || got >= 100 {
		t.Fatalf("it got %d instances of 100 before it was cut off, want some", got)
	}
}

// TestStreamsOfRenewalsAreBounded shows that the one above the bound is refused, and
// that all end when the member stops, so that their clients go to another.
func TestStreamsOfRenewalsAreBounded(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.streams = 1 })
	token := m.register("orders", "a").GetLeaseToken()
	renewal := &stellmapv1.RenewRequest{Renewals: []*stellmapv1.Renewal{{Namespace: "prod", Service: "orders", InstanceId: "a", LeaseToken: token}}}
	first, err := m.client.Renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	renew := func() {
		t.Helper()
		if err := first.Send(renewal); err != nil {
			t.Fatal(err)
		}
		if answer, err := first.Recv(); err != nil || answer.GetFailed() != 0 {
			t.Fatalf("renew: %v, %v", answer, err)
		}
	}
	renew()
	second, err := m.client.Renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = second.Recv()
	mustFail(t, "a second stream", err, codes.ResourceExhausted, "BUSY")
	renew()
	m.stop()
	_, err = first.Recv()
	mustFail(t, "a stream of a member that stops", err, codes.Unavailable, "STOPPING")
}

// TestAStreamOfRenewalsEndsAsItsClientLikes shows both ways: it says so, or goes away.
func TestAStreamOfRenewalsEndsAsItsClientLikes(t *testing.T) {
	m := newMember(t, nil)
	stream, err := m.client.Renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatalf("after its end: %v, want EOF", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err = m.client.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, "the stream to be there", func() bool { return m.api.renewals.Load() == 1 })
	cancel()
	until(t, "the stream to be gone", func() bool { return m.api.renewals.Load() == 0 })
}

// TestUnknownFieldsAreRefused shows that what a newer client asks for is not ignored,
// however deep it lies.
func TestUnknownFieldsAreRefused(t *testing.T) {
	m := newMember(t, nil)
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	one := registration("orders", "a")
	one.Endpoints[0].ProtoReflect().SetUnknown(unknown)
	one.ProtoReflect().SetUnknown(unknown)
	_, err := m.client.Register(t.Context(), one)
	mustFail(t, "register", err, codes.InvalidArgument, "BAD_REQUEST")
	for _, want := range []string{`"field":"99","description":"is no field that this member knows in RegisterRequest`, `"field":"endpoints[0].99"`} {
		if !strings.Contains(shownError(err), want) {
			t.Errorf("the error is %s, want %s in it", shownError(err), want)
		}
	}
	stream, err := m.client.Renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	renewal := &stellmapv1.RenewRequest{Renewals: []*stellmapv1.Renewal{{Namespace: "prod", Service: "orders", InstanceId: "a"}}}
	renewal.Renewals[0].ProtoReflect().SetUnknown(unknown)
	if err := stream.Send(renewal); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	mustFail(t, "renew", err, codes.InvalidArgument, "BAD_REQUEST")
}

// TestAPanicCostsOneCall shows that it is logged, told without its words, and over.
func TestAPanicCostsOneCall(t *testing.T) {
	m := newMember(t, func(a *API) { a.operator = func(string) bool { panic("boom") } })
	_, err := m.client.Deregister(t.Context(), &stellmapv1.DeregisterRequest{Namespace: "prod", Service: "orders", InstanceId: "a", Force: true})
	mustFail(t, "the call", err, codes.Internal, "INTERNAL")
	if strings.Contains(err.Error(), "boom") || !strings.Contains(m.logged(), "boom") {
		t.Fatalf("the error is %v, the log %s", err, m.logged())
	}
	m.register("orders", "a")
}

// TestAnErrorFitsIntoAHeader shows that many and long problems are cut where
// clients would not take them any more, and that their number is told.
func TestAnErrorFitsIntoAHeader(t *testing.T) {
	m := newMember(t, nil)
	one := registration("orders", "a")
	for n := range 30 {
		one.Endpoints = append(one.Endpoints, &stellmapv1.Endpoint{Name: fmt.Sprint("e", n), Protocol: "ht tp", Host: strings.Repeat("x", 300)})
	}
	_, err := m.client.Register(t.Context(), one)
	mustFail(t, "register", err, codes.InvalidArgument, "BAD_REQUEST")
	if text := shownError(err); len(text) > 6<<10 || !strings.Contains(text, "more problems are not told") {
		t.Fatalf("the error has %d bytes: %s", len(text), text)
	}
}

// TestEveryRefusalHasItsCode shows that none is answered by accident, and that no
// code stands for nothing.
func TestEveryRefusalHasItsCode(t *testing.T) {
	known := make(map[string]bool)
	for _, r := range registry.Refusals() {
		known[r.Code] = true
	}
	for _, f := range failures {
		known[f.Code] = true
	}
	for code := range known {
		if statusCodes[code] == codes.OK {
			t.Errorf("the refusal %q has no code", code)
		}
	}
	mustEqual(t, "how many refusals have a code", len(statusCodes), len(known))
}

// TestStatusesAreTheRegistrys shows that a status has its number and name in messages, too.
func TestStatusesAreTheRegistrys(t *testing.T) {
	for number, name := range stellmapv1.Status_name {
		if number == 0 {
			continue
		}
		mustEqual(t, "the name of status "+name, "STATUS_"+strings.ToUpper(registry.Status(number).String()), name)
	}
	mustEqual(t, "the status after the last", registry.Status(len(stellmapv1.Status_name)).String(), "unknown")
}

// TestMethodsAreCounted shows what is counted of calls.
func TestMethodsAreCounted(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a")
	if _, err := m.client.GetService(t.Context(), &stellmapv1.GetServiceRequest{}); err == nil {
		t.Fatal("a service without a name was found")
	}
	mustEqual(t, "calls of Register", m.metric("stellmap_grpc_requests_total", `name:"code" value:"OK" name:"method" value:"Register"`), 1)
	mustEqual(t, "calls of GetService", m.metric("stellmap_grpc_requests_total", `name:"code" value:"InvalidArgument" name:"method" value:"GetService"`), 1)
	mustEqual(t, "calls in flight", m.metric("stellmap_grpc_requests_inflight", ""), 0)
}

// metric is a counter's or gauge's value, of the one with those labels.
func (m *member) metric(name, labels string) float64 {
	m.tb.Helper()
	families, err := m.metrics.Gather()
	if err != nil {
		m.tb.Fatal(err)
	}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			var has []string
			for _, l := range one.GetLabel() {
				has = append(has, fmt.Sprintf("name:%q value:%q", l.GetName(), l.GetValue()))
			}
			if f.GetName() == name && strings.Join(has, " ") == labels {
				return one.GetCounter().GetValue() + one.GetGauge().GetValue()
			}
		}
	}
	m.tb.Fatalf("there is no metric %s with %s", name, labels)
	return 0
}
