package main

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/access"
)

// denialsSaidEvery bounds the log: a stranger can knock as often as he likes. All are counted.
const denialsSaidEvery = time.Second

// denials are the calls that were not let, for lack of a right or of a name.
type denials struct {
	log    *slog.Logger
	counts *prometheus.CounterVec // by port
	said   atomic.Int64           // when one was last logged
}

func (n *node) openDenials() error {
	n.denials = newDenials(n.logger)
	return n.metrics.Register(n.denials.counts)
}

func newDenials(log *slog.Logger) *denials {
	d := &denials{log: log, counts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stellmap_access_denied_total", Help: "Calls that were not let, and open ones that were ended since they may no more, by port.",
	}, []string{"port"})}
	for _, port := range []string{access.HTTP.Port, access.XDS.Port, access.Peers.Port, access.Admin.Port} {
		d.counts.WithLabelValues(port)
	}
	return d
}

// tell counts one, and has the log say so where it has not just done that.
func (d *denials) tell(port, from, why string) {
	d.counts.WithLabelValues(port).Inc()
	now, last := time.Now().UnixNano(), d.said.Load()
	if now-last >= int64(denialsSaidEvery) && d.said.CompareAndSwap(last, now) {
		d.log.Warn("a call was not let", "port", port, "from", from, "why", why)
	}
}
