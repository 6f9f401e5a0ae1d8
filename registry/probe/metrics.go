package probe

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

type metrics struct {
	targets, inFlight, lag, members, held prometheus.Gauge
	tries, transitions                    *prometheus.CounterVec
	late, denied, heldTotal               prometheus.Counter
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "stellmap_probe_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "stellmap_probe_" + name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stellmap_probe_" + name, Help: help}, labels)
	}
	return &metrics{
		targets:     gauge("targets", "Checks that this member makes: its share."),
		members:     gauge("members", "Members that share the checks, as far as this one knows."),
		inFlight:    gauge("in_flight", "Tries on their way."),
		lag:         gauge("lag_seconds", "How long the try that has waited longest is due."),
		held:        gauge("held", "Checks of this member's share that are held since they flap."),
		tries:       vector("tries_total", "Tries that have ended, by the kind of the check and what they have shown.", "kind", "outcome"),
		transitions: vector("transitions_total", "What this member had committed of checks, by what it says.", "to"),
		late:        counter("late_total", "Tries that began more than a second late, since too many were on their way."),
		denied:      counter("denied_total", "Tries that the rules did not allow."),
		heldTotal:   counter("held_total", "How often a check began to be held since it flaps."),
	}
}

func (m *metrics) register(to prometheus.Registerer) error {
	if to == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.targets, m.members, m.inFlight, m.lag, m.held, m.tries, m.transitions, m.late, m.denied, m.heldTotal} {
		if err := to.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) transition(c *registry.ConditionChange) {
	to := c.Condition.Status
	if c.Clear {
		to = registry.StatusPassing
	}
	m.transitions.WithLabelValues(to.String()).Inc()
}
