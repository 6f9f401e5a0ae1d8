package audit

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	recorded *prometheus.CounterVec // by port and decision
	leftOut  prometheus.Counter
	lost     prometheus.Counter
	failing  prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		recorded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stellmap_audit_recorded_total", Help: "What was recorded for the audit log, by port and decision; denials that are not told one by one included."}, []string{"port", "decision"}),
		leftOut:  prometheus.NewCounter(prometheus.CounterOpts{Name: "stellmap_audit_left_out_total", Help: "Denials that the audit log tells only the number of, since they came too fast."}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "stellmap_audit_lost_total", Help: "Lines that had no place, since the disk did not take them as fast as they came."}),
		failing:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_audit_failing", Help: "1 while the audit log cannot be written, else 0."}),
	}
}

func (m *metrics) register(r prometheus.Registerer, waiting func() float64) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		m.recorded, m.leftOut, m.lost, m.failing,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "stellmap_audit_waiting", Help: "Lines that wait to be written."}, waiting),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("audit: register a metric: %w", err)
		}
	}
	return nil
}

func (m *metrics) count(e *Entry) {
	decision := allowed
	if e.Denied {
		decision = denied
	}
	m.recorded.WithLabelValues(e.Port, decision).Inc()
}

func (m *metrics) trouble(is bool) {
	m.failing.Set(0)
	if is {
		m.failing.Set(1)
	}
}
