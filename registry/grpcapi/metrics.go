package grpcapi

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"
)

// metrics count calls by what the API has, so that the labels cannot grow.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  prometheus.Counter
	told     prometheus.Counter
	encoded  prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_grpc_requests_total", Help: "Requests answered, by method and gRPC code; of Renew those on its streams.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stellmap_grpc_request_duration_seconds", Help: "From a request's arrival to its answer; of lists to the last part.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"method"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_grpc_requests_refused_total", Help: "Requests, lists and streams refused because too many were in flight.",
		}),
		told: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_grpc_watch_changes_told_total", Help: "Changes told to watches, each as often as it was told.",
		}),
		encoded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_grpc_watch_changes_encoded_total", Help: "Changes encoded for watches: one that many are told once, but for those that see other endpoints of it.",
		}),
	}
}

func (m *metrics) register(r prometheus.Registerer, inflight, renewals, watches *atomic.Int64) error {
	if r == nil {
		return nil
	}
	gauge := func(name, help string, of *atomic.Int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(of.Load()) })
	}
	var err error
	for _, c := range []prometheus.Collector{
		m.requests, m.duration, m.refused, m.told, m.encoded,
		gauge("stellmap_grpc_requests_inflight", "gRPC requests being worked on.", inflight),
		gauge("stellmap_grpc_renew_streams", "Open streams of renewals.", renewals),
		gauge("stellmap_grpc_watches", "Open watches.", watches),
	} {
		err = errors.Join(err, r.Register(c))
	}
	return err
}

func (m *metrics) count(of *method, err error, took time.Duration) {
	m.requests.WithLabelValues(of.name, status.Code(err).String()).Inc()
	m.duration.WithLabelValues(of.name).Observe(took.Seconds())
}
