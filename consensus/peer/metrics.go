package peer

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are labelled by the peer's node id; there are few of them.
type metrics struct {
	sent, sentBytes, dropped *prometheus.CounterVec
	snapshotBytes            *prometheus.CounterVec
	handshakes               *prometheus.CounterVec
	connected                *prometheus.GaugeVec
	received                 prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		sent:          counter("stellmap_peer_sent_total", "Messages sent to a peer.", "peer"),
		sentBytes:     counter("stellmap_peer_sent_bytes_total", "Bytes of messages sent to a peer.", "peer"),
		dropped:       counter("stellmap_peer_dropped_total", "Messages to a peer that were dropped since its queue was full or it was not connected.", "peer"),
		snapshotBytes: counter("stellmap_peer_snapshot_bytes_total", "Bytes of snapshots sent to a peer.", "peer"),
		handshakes:    counter("stellmap_peer_handshakes_total", "Introductions to a peer: done or failed.", "peer", "outcome"),
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "stellmap_peer_connected", Help: "1 while messages can be sent to a peer.",
		}, []string{"peer"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_peer_received_total", Help: "Messages received from all peers.",
		}),
	}
}

// touch shows a peer before anything has happened to it.
func (m *metrics) touch(peer string) {
	m.connected.WithLabelValues(peer)
	m.dropped.WithLabelValues(peer)
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	var err error
	for _, c := range []prometheus.Collector{m.sent, m.sentBytes, m.snapshotBytes, m.dropped, m.handshakes, m.connected, m.received} {
		err = errors.Join(err, r.Register(c))
	}
	return err
}
