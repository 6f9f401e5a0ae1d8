package client

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// scope is whose the instruments are.
const scope = "github.com/stellmap/stellmap/client"

// metrics are what the client tells OpenTelemetry, whose API alone it knows: where the
// program has no SDK of it, it costs nothing.
type metrics struct {
	tracer        trace.Tracer
	gauges        metric.Registration // ended by Close
	registrations metric.Int64Counter
	renewals      metric.Int64Counter
	requests      metric.Int64Counter
	moves         metric.Int64Counter
	changes       metric.Int64Counter
	resyncs       metric.Int64Counter
	unsaved       metric.Int64Counter
}

func newMetrics(c *Client) (*metrics, error) {
	meters, traces := c.config.Meters, c.config.Traces
	if meters == nil {
		meters = metricnoop.NewMeterProvider()
	}
	if traces == nil {
		traces = tracenoop.NewTracerProvider()
	}
	m := &metrics{tracer: traces.Tracer(scope)}
	of := meters.Meter(scope)
	var errs []error
	counter := func(into *metric.Int64Counter, name, what string) {
		made, err := of.Int64Counter(name, metric.WithDescription(what))
		*into, errs = made, append(errs, err)
	}
	counter(&m.registrations, "stellmap.client.registrations", "Registrations that were answered, also of what the registry had lost, by outcome.")
	counter(&m.renewals, "stellmap.client.renewals", "Renewals of leases, by outcome.")
	counter(&m.requests, "stellmap.client.renewal.requests", "Requests that renewals were sent in.")
	counter(&m.moves, "stellmap.client.server.left", "How often a server was left for another, or for itself.")
	counter(&m.changes, "stellmap.client.discovery.changes", "Changes of discovered services that a watch has told.")
	counter(&m.resyncs, "stellmap.client.discovery.resyncs", "How often a watch has told all there is, anew.")
	counter(&m.unsaved, "stellmap.client.discovery.unsaved", "Discovered services that could not be saved in Dir.")
	leases, err := of.Int64ObservableGauge("stellmap.client.leases", metric.WithDescription("Instances that are kept registered."))
	errs = append(errs, err)
	stale, err := of.Int64ObservableGauge("stellmap.client.discovery.stale", metric.WithDescription("Discovered services that are not known to be current."))
	errs = append(errs, err)
	m.gauges, err = of.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(leases, int64(c.keeper.count()))
		o.ObserveInt64(stale, c.countStale())
		return nil
	}, leases, stale)
	return m, errors.Join(append(errs, err)...)
}

// span begins one of a call that somebody waits for; what is returned ends it.
func (m *metrics) span(ctx context.Context, name, service string) (context.Context, func(error)) {
	ctx, span := m.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("stellmap.service", service)))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

func outcome(ok bool) metric.MeasurementOption {
	word := "failed"
	if ok {
		word = "ok"
	}
	return metric.WithAttributes(attribute.String("outcome", word))
}

func (m *metrics) registered(ctx context.Context, err error) {
	m.registrations.Add(ctx, 1, outcome(err == nil))
}

func (m *metrics) renewed(ctx context.Context, done, failed int) {
	m.requests.Add(ctx, 1)
	for ok, n := range map[bool]int{true: done, false: failed} {
		if n > 0 {
			m.renewals.Add(ctx, int64(n), outcome(ok))
		}
	}
}

func (m *metrics) left(ctx context.Context, server string) {
	m.moves.Add(ctx, 1, metric.WithAttributes(attribute.String("server", server)))
}
