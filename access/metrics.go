package access

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	notAfter   prometheus.Gauge
	nextUpdate prometheus.Gauge
	unusable   prometheus.Gauge
	reloads    *prometheus.CounterVec // by result
	open       *prometheus.GaugeVec   // by port, as are those below
	cut        *prometheus.CounterVec
	refused    *prometheus.CounterVec

	agentAnswers prometheus.Gauge
}

func newMetrics() *metrics {
	const port = "port"
	return &metrics{
		notAfter:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_tls_certificate_not_after_seconds", Help: "When this member's certificate runs out, as Unix time."}),
		nextUpdate: prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_tls_crl_next_update_seconds", Help: "When a newer revocation list should be there, as Unix time; 0 without a list. One that is late stays in force."}),
		unusable:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_tls_files_unusable", Help: "1 while something in the files cannot be used and what was there before stays in force, else 0."}),
		reloads:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stellmap_tls_reloads_total", Help: "How often changed files were read; failed: what was there before stays in force."}, []string{"result"}),
		open:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "stellmap_tls_connections", Help: "Open connections whose other side has proved who it is."}, []string{port}),
		cut:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stellmap_tls_connections_cut_total", Help: "Connections closed since a certificate was revoked or its authority is trusted no more."}, []string{port}),
		refused:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stellmap_tls_certificates_refused_total", Help: "Certificates that did not let anybody in."}, []string{port}),

		agentAnswers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_tls_workload_api_up", Help: "1 while the SPIFFE Workload API answers; 0 while it does not, or when the files are used."}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, result := range []string{"done", "failed"} {
		m.reloads.WithLabelValues(result)
	}
	for _, port := range []string{HTTP.Port, XDS.Port, Peers.Port, Admin.Port, outgoing} {
		m.open.WithLabelValues(port)
		m.cut.WithLabelValues(port)
		m.refused.WithLabelValues(port)
	}
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.notAfter, m.nextUpdate, m.unusable, m.reloads, m.open, m.cut, m.refused, m.agentAnswers} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("access: register a metric: %w", err)
		}
	}
	return nil
}

func (m *metrics) show(of *material) {
	m.notAfter.Set(float64(of.certificate.Leaf.NotAfter.Unix()))
	m.nextUpdate.Set(0)
	if next := of.revoked.next; !next.IsZero() {
		m.nextUpdate.Set(float64(next.Unix()))
	}
}

func (m *metrics) trouble(is bool) {
	m.unusable.Set(0)
	if is {
		m.unusable.Set(1)
	}
}
