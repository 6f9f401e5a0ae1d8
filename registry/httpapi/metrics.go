package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics count requests by pattern, never by path, so that the labels cannot grow.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  prometheus.Counter

	watches       prometheus.Gauge
	watchesEnded  *prometheus.CounterVec
	framesEncoded prometheus.Counter
	framesSent    *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stellmap_http_request_duration_seconds", Help: "From the end of a request's header to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"route"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_http_requests_refused_total", Help: "Requests refused because too many were in flight, or too many watches open.",
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stellmap_http_watches", Help: "Streams of watches that are open.",
		}),
		watchesEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_http_watches_ended_total", Help: "Streams of watches that have ended, by reason: client, stuck (a frame was not taken in time), fell_behind (v1 only), stopping, denied (the right to it has ended) or error.",
		}, []string{"reason"}),
		framesEncoded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_http_watch_frames_encoded_total", Help: "Changes that were encoded for all streams that want them.",
		}),
		framesSent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_http_watch_frames_sent_total", Help: "Changes that streams were told, by whether the encoding is shared with other streams.",
		}, []string{"shared"}),
	}
}

func (m *metrics) register(r prometheus.Registerer, inflight *atomic.Int64) error {
	if r == nil {
		return nil
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stellmap_http_requests_inflight", Help: "Requests being worked on, health and metrics left out.",
	}, func() float64 { return float64(inflight.Load()) })
	var err error
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.refused, gauge, m.watches, m.watchesEnded, m.framesEncoded, m.framesSent} {
		err = errors.Join(err, r.Register(c))
	}
	return err
}

func (m *metrics) watchEnded(why string) { m.watchesEnded.WithLabelValues(why).Inc() }

func (m *metrics) frameSent(shared bool) {
	m.framesSent.WithLabelValues(strconv.FormatBool(shared)).Inc()
}

// methods are those that have a label of their own.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

func (m *metrics) count(pattern, method string, status int, took time.Duration) {
	if !slices.Contains(methods, method) {
		method = "other" // a client may send any word
	}
	m.requests.WithLabelValues(pattern, method, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(pattern).Observe(took.Seconds())
}

const metricsPattern = "/metrics"

// metricsRoutes is the page for Prometheus.
func metricsRoutes(g prometheus.Gatherer) []route {
	if g == nil {
		return nil
	}
	page := promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return []route{{method: http.MethodGet, pattern: metricsPattern, serve: func(w http.ResponseWriter, q *http.Request) error {
		page.ServeHTTP(w, q)
		return nil
	}}}
}
