package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/stellmap/stellmap/registry"
)

// traced is a member that tells all of its pushes, and where it tells them.
func traced(tb testing.TB, id uint64, setup func(*Config, *limits)) (*member, *tracetest.InMemoryExporter) {
	exporter := tracetest.NewInMemoryExporter()
	return newMember(tb, func(c *Config, l *limits) {
		c.Traces = Traces{Provider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithIDGenerator(SpanIDs{})), Ratio: 1, Member: id}
		if setup != nil {
			setup(c, l)
		}
	}), exporter
}

// attributeOf is what a span says under a name.
func attributeOf(s tracetest.SpanStub, name string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == "stellmap."+name {
			return a.Value.String()
		}
	}
	return ""
}

// pushes are the spans of one revision's pushes, when there are so many.
func pushes(tb testing.TB, e *tracetest.InMemoryExporter, revision registry.Revision, want int) []tracetest.SpanStub {
	tb.Helper()
	var found []tracetest.SpanStub
	eventually(tb, fmt.Sprintf("revision %d has %d spans of pushes", revision, want), func() bool {
		found = nil
		for _, s := range e.GetSpans() {
			if s.Name == "xds.push" && attributeOf(s, "revision") == fmt.Sprint(revision) {
				found = append(found, s)
			}
		}
		return len(found) >= want
	})
	return found
}

// tellingOf is a span of a push in a line.
func tellingOf(s tracetest.SpanStub) string {
	out := ""
	for _, name := range []string{"node", "stream", "kind", "member", "type", "sent_revision", "resources", "removed", "names", "held_by"} {
		out += fmt.Sprintf("%s=%s ", name, attributeOf(s, name))
	}
	for _, e := range s.Events {
		out += e.Name + " "
		for _, a := range e.Attributes {
			out += "(" + a.Value.String() + ") "
		}
	}
	return out + s.Status.Code.String()
}

// A trace tells how a change came to each proxy, and is the same on all members.
func TestATraceShowsAChangeAtAllProxies(t *testing.T) {
	a, spansA := traced(t, 1, nil)
	b, spansB := traced(t, 2, nil)
	var ids []trace.TraceID
	for n, m := range []*member{a, b} {
		m.add("orders", 1)
		c := m.started("orders.prod")
		m.add("orders", 2)
		c.ack(c.wants(typeEndpoints, "orders.prod"))
		spans := []*tracetest.InMemoryExporter{spansA, spansB}[n]
		one := pushes(t, spans, m.machine.Revision(), 1)[0]
		want := fmt.Sprintf(`node=web-1 stream=1 kind=envoy member=%d type=eds sent_revision=%d resources=1 removed=0 names=["orders.prod"] held_by= composed sent acked Unset`, n+1, m.machine.Revision())
		if got := tellingOf(one); got != want {
			t.Errorf("the push is told as\n%s\nwant\n%s", got, want)
		}
		root := parentOf(t, spans, one)
		if root.Name != "xds.change" || root.Parent.IsValid() || attributeOf(root, "service") != "orders" {
			t.Errorf("above it is %s of %s, below %v", root.Name, attributeOf(root, "service"), root.Parent)
		}
		ids = append(ids, one.SpanContext.TraceID())
	}
	if ids[0] != ids[1] {
		t.Errorf("two members have the traces %v", ids)
	}
}

// parentOf is the span above another. That of a change ends when all streams have been
// woken, which may be after one has had its answer.
func parentOf(tb testing.TB, e *tracetest.InMemoryExporter, child tracetest.SpanStub) (parent tracetest.SpanStub) {
	tb.Helper()
	eventually(tb, "the span above is told", func() bool {
		all := e.GetSpans()
		n := slices.IndexFunc(all, func(s tracetest.SpanStub) bool { return s.SpanContext.Equal(child.Parent) })
		if n < 0 {
			return false
		}
		parent = all[n]
		return true
	})
	return parent
}

// A refusal, a change that waited for the answer before, and a stream that ends
// are told as what they are.
func TestATraceSaysWhyAProxyIsLate(t *testing.T) {
	m, spans := traced(t, 1, nil)
	m.add("orders", 1)
	c := m.started("orders.prod")
	m.add("orders", 2)
	refused := m.machine.Revision()
	sent := c.wants(typeEndpoints, "orders.prod")
	m.add("orders", 3)
	held := m.machine.Revision()
	m.settled()
	c.quiet() // its stream has seen the change
	c.nack(sent, "I will not have it")
	c.wants(typeEndpoints, "orders.prod")
	if err := c.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for revision, want := range map[registry.Revision]string{
		refused: "held_by= composed sent rejected (I will not have it) Error",
		held:    "held_by=the answer to the response before composed sent cut off (the stream has ended before the answer) Error",
	} {
		if got := tellingOf(pushes(t, spans, revision, 1)[0]); !strings.HasSuffix(got, want) {
			t.Errorf("revision %d is told as\n%s\nwant\n…%s", revision, got, want)
		}
	}
}

// A proxy that does not answer is told once the time for it is over, and only once.
func TestATraceTellsSilence(t *testing.T) { synctest.Test(t, testATraceTellsSilence) }

func testATraceTellsSilence(t *testing.T) {
	m, spans := traced(t, 1, func(_ *Config, l *limits) { l.hold = holdMax })
	m.add("orders", 1)
	c := m.started("orders.prod")
	m.add("orders", 2)
	sent := c.wants(typeEndpoints, "orders.prod")
	one := pushes(t, spans, m.machine.Revision(), 1)[0]
	if got := tellingOf(one); !strings.HasSuffix(got, "composed sent silent (no answer in 15s) Error") || one.EndTime.Sub(one.StartTime) < holdMax {
		t.Errorf("it is told as\n%s\nafter %v", got, one.EndTime.Sub(one.StartTime))
	}
	c.ack(sent)
	c.quiet()
	if n := len(pushes(t, spans, m.machine.Revision(), 1)); n != 1 {
		t.Errorf("it is told %d times", n)
	}
}

// The spans of a change are bounded, with room kept for those that are late or refused.
func TestSpansOfAChangeAreBounded(t *testing.T) {
	m, spans := traced(t, 1, func(c *Config, _ *limits) {
		c.Now = func() time.Time { return time.Unix(0, 0) } // nobody is late by the clock
	})
	m.add("orders", 1)
	const clients = promptSpansMax + 3
	var all []*deltaClient
	for range clients {
		c := m.delta(nodeOf(t))
		c.subscribe(typeEndpoints, "orders.prod")
		c.ack(c.next(t))
		all = append(all, c)
	}
	eventually(t, "all have it", func() bool { p := m.propagation(m.machine.Revision(), 0); return p.Acknowledged == clients })
	m.add("orders", 2)
	for _, c := range all[:clients-1] {
		c.ack(c.next(t))
	}
	metrics := m.server.metrics
	eventually(t, "two are left out", func() bool { return metrics.spansLeftOut.Load() == 2 })
	last := all[clients-1]
	last.nack(last.next(t), "no")
	got := pushes(t, spans, m.machine.Revision(), promptSpansMax+1)
	refused := slices.DeleteFunc(got, func(s tracetest.SpanStub) bool { return s.Status.Code != codes.Error })
	if len(refused) != 1 || metrics.spansLeftOut.Load() != 2 {
		t.Errorf("%d refusals are told and %d pushes left out", len(refused), metrics.spansLeftOut.Load())
	}
}

// Members choose the same changes, about as many as they are told, and one that is not chosen costs no memory.
func TestTheChangesThatAreTraced(t *testing.T) {
	incarnation := func() string { return "0123456789abcdef" }
	provider := sdktrace.NewTracerProvider()
	rare := newTracing(Traces{Provider: provider, Ratio: .01}, incarnation, time.Now, newMetrics())
	often := newTracing(Traces{Provider: provider, Ratio: .5}, incarnation, time.Now, newMetrics())
	chosen, both, unchosen := 0, 0, registry.Revision(0)
	for revision := range registry.Revision(10_000) {
		_, ok := rare.traceOf(revision)
		_, too := often.traceOf(revision)
		switch {
		case ok && too:
			both++
			fallthrough
		case ok:
			chosen++
		default:
			unchosen = revision
		}
	}
	if chosen < 50 || chosen > 200 || both != chosen {
		t.Errorf("%d of 10,000 are chosen at 0.01, %d of them at 0.5 too", chosen, both)
	}
	events := []registry.Event{{Revision: unchosen, Service: ordersKey}}
	var b subscription
	r := &response{}
	s := &stream{server: &Server{now: time.Now}}
	if n := testing.AllocsPerRun(100, func() {
		c := rare.choose(events, time.Time{})
		b.fresh = b.fresh.merge(c.behind(nil, "orders.prod"))
		s.tell(r, pushAcked, "")
		c.told()
	}); n != 0 {
		t.Errorf("a change that is not chosen allocates %v times", n)
	}
	if newTracing(Traces{Ratio: 1}, incarnation, time.Now, nil) != nil {
		t.Error("there are spans without a provider")
	}
}
