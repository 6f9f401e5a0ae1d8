package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/stellmap/stellmap/internal/version"
	"github.com/stellmap/stellmap/xds"
)

// The bounds of spans on their way to the collector.
const (
	spansQueuedMax = 4096 // more are dropped
	spansSentMax   = 512  // at once
	spansEvery     = time.Second
	spansFlushMax  = 2 * time.Second // at the end; what is left then is dropped
	spansLostEvery = time.Minute     // that spans are dropped is logged no more often
)

// collectorVariables are where the endpoint is looked for that [trace] does not say, the first first.
var collectorVariables = [...]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}

// findCollector makes a URL of what says where spans go. In plain text they go no
// further than loopback: they tell who calls whom.
func (l *loader) findCollector(c *Config) {
	if at := c.Trace.Endpoint; at != "" {
		c.Trace.url = "https://" + at
		if onLoopback(at) {
			c.Trace.url = "http://" + at
		}
		return
	}
	for _, name := range collectorVariables {
		value, _ := l.lookup(name)
		if value == "" {
			continue
		}
		u, err := url.Parse(value)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || checkHostPort(u.Host) != "":
			l.add("env "+name, "%q is not a URL such as \"http://127.0.0.1:4317\" of a collector that takes OTLP over gRPC", value)
		case u.Scheme == "http" && !onLoopback(u.Host):
			l.add("env "+name, "%s; beyond it spans go by TLS only: say https", elsewhere(value))
		default:
			c.Trace.url = u.Scheme + "://" + u.Host
		}
		return
	}
}

// spans sends spans to a collector, and counts those that it could not take. No more
// than spansQueuedMax wait: the SDK's own queue is as long, and so never drops any
// where nobody would know.
type spans struct {
	provider *sdktrace.TracerProvider
	inner    sdktrace.SpanProcessor
	exporter sdktrace.SpanExporter
	logger   *slog.Logger
	ended    context.Context // done when what is left is dropped
	end      context.CancelFunc

	waiting                atomic.Int64 // in the queue, or being sent
	sent, unqueued, unsent atomic.Uint64

	mu     sync.Mutex
	logged time.Time // when it was last said that spans are lost
}

// openSpans begins to send spans; nil without a collector.
func openSpans(ctx context.Context, c Config, logger *slog.Logger, metrics prometheus.Registerer) (*spans, error) {
	if c.Trace.url == "" {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(c.Trace.url)) // a URL overrides what variables say of TLS
	if err != nil {
		return nil, fmt.Errorf("[trace]: %w", err)
	}
	s := &spans{exporter: exporter, logger: logger}
	s.ended, s.end = context.WithCancel(context.Background())
	s.inner = sdktrace.NewBatchSpanProcessor(collector{s}, sdktrace.WithMaxQueueSize(spansQueuedMax),
		sdktrace.WithMaxExportBatchSize(spansSentMax), sdktrace.WithBatchTimeout(spansEvery))
	s.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(queue{s}), sdktrace.WithIDGenerator(xds.SpanIDs{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "stellmapd"), attribute.String("service.version", version.Number),
			attribute.String("service.instance.id", fmt.Sprintf("%s/%d", c.Node.Region, c.Node.ID)))))
	logger.Info("spans of changes go to a collector", "url", c.Trace.url, "sample_ratio", c.Trace.SampleRatio)
	return s, s.register(metrics)
}

func (s *spans) register(metrics prometheus.Registerer) error {
	counter := func(name, help string, labels prometheus.Labels, n *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(n.Load()) })
	}
	const dropped, why = "stellmap_trace_spans_dropped_total", "Spans that were dropped, and why."
	for _, c := range []prometheus.Collector{
		counter("stellmap_trace_spans_sent_total", "Spans that the collector has taken.", nil, &s.sent),
		counter(dropped, why, prometheus.Labels{"why": "queue full"}, &s.unqueued),
		counter(dropped, why, prometheus.Labels{"why": "not taken"}, &s.unsent),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "stellmap_trace_spans_waiting", Help: "Spans on their way to the collector."},
			func() float64 { return float64(s.waiting.Load()) }),
	} {
		if err := metrics.Register(c); err != nil {
			return fmt.Errorf("register a metric: %w", err)
		}
	}
	return nil
}

// Close sends what is left, but not for long.
func (s *spans) Close() error {
	defer time.AfterFunc(spansFlushMax, s.end).Stop()
	defer s.end()
	if err := s.provider.Shutdown(context.Background()); err != nil {
		s.logger.Warn("the connection to the collector of spans was not closed", "why", err)
	}
	return nil
}

// lost says that spans were dropped, rarely.
func (s *spans) lost(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.logged) >= spansLostEvery {
		s.logged = now
		s.logger.Warn("spans are dropped", "why", why, "queue_full", s.unqueued.Load(), "not_taken", s.unsent.Load())
	}
}

// queue is what a span comes to when it has ended.
type queue struct{ *spans }

func (queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (q queue) OnEnd(span sdktrace.ReadOnlySpan) {
	if q.waiting.Add(1) > spansQueuedMax {
		q.waiting.Add(-1)
		q.unqueued.Add(1)
		q.lost("more come than the collector takes")
		return
	}
	q.inner.OnEnd(span)
}

func (q queue) Shutdown(ctx context.Context) error   { return q.inner.Shutdown(ctx) }
func (q queue) ForceFlush(ctx context.Context) error { return q.inner.ForceFlush(ctx) }

// collector is what takes spans from the queue.
type collector struct{ *spans }

// ExportSpans returns no error: the SDK would hand it to a logger that is global.
func (c collector) ExportSpans(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	err := c.exporter.ExportSpans(ctx, batch)
	c.waiting.Add(-int64(len(batch)))
	if err != nil {
		c.unsent.Add(uint64(len(batch)))
		c.lost(err.Error())
		return nil
	}
	c.sent.Add(uint64(len(batch)))
	return nil
}

func (c collector) Shutdown(ctx context.Context) error { return c.exporter.Shutdown(ctx) }

// traces is how the xDS server tells of its pushes.
func (n *node) traces() xds.Traces {
	if n.spans == nil {
		return xds.Traces{}
	}
	return xds.Traces{Provider: n.spans.provider, Ratio: n.config.Trace.SampleRatio, Member: n.config.Node.ID}
}
