package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// otlp is a collector that takes spans, and names each with what is around it.
type otlp struct {
	coltracepb.UnimplementedTraceServiceServer
	address string

	mu    sync.Mutex // guards what follows
	spans []string
}

func (o *otlp) Export(_ context.Context, r *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		from := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" || a.Key == "service.instance.id" {
				from += a.Value.GetStringValue() + " "
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				line := from + s.Name
				for _, a := range s.Attributes {
					if a.Key == "stellmap.service" {
						line += " of " + a.Value.GetStringValue()
					}
				}
				o.spans = append(o.spans, line)
			}
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

func (o *otlp) has(line string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.spans {
		if s == line {
			return true
		}
	}
	return false
}

func collect(t *testing.T) *otlp {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o, g, served := &otlp{address: listener.Addr().String()}, grpc.NewServer(), make(chan error, 1)
	coltracepb.RegisterTraceServiceServer(g, o)
	go func() { served <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return o
}

// A member tells a collector of changes, at the end of those that are left, too.
func TestACollectorIsToldOfChanges(t *testing.T) {
	o := collect(t)
	p := launch(t, append([]string{"dev", "--trace-endpoint", o.address, "--trace-sample-ratio", "1"}, anyPorts...)...)
	p.until("it is ready", func() bool { status, _ := p.get("HTTP", "/readyz"); return status == 200 })
	p.registerOrder("a")
	p.until("a span of the change", func() bool { return o.has("local/1 stellmapd xds.change of orders") })
	p.until("that it was counted", func() bool {
		_, body := p.get("HTTP", "/metrics")
		return strings.Contains(body, "stellmap_trace_spans_sent_total") && !strings.Contains(body, "stellmap_trace_spans_sent_total 0")
	})
	p.end(exitOK)
}

// A collector that is not there costs the spans and nothing else: no more than so
// many wait, the others are counted, it is logged once, and the end does not wait for it.
func TestACollectorThatIsGone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // which answers nobody
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var c Config
	c.Trace.url = "http://" + listener.Addr().String()
	log := new(process)
	s, err := openSpans(t.Context(), c, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tracer := s.provider.Tracer("test")
	for n := range spansQueuedMax + 100 {
		_, span := tracer.Start(t.Context(), fmt.Sprint(n), trace.WithNewRoot())
		span.End()
	}
	if waiting, dropped := s.waiting.Load(), s.unqueued.Load(); waiting != spansQueuedMax || dropped != 100 {
		t.Errorf("%d spans wait and %d were dropped", waiting, dropped)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if waiting, unsent := s.waiting.Load(), s.unsent.Load(); waiting != 0 || unsent != spansQueuedMax {
		t.Errorf("at the end %d spans wait and %d were not taken", waiting, unsent)
	}
	if n := strings.Count(log.said(), "spans are dropped"); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, log.said())
	}
}
