package federation

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// metrics count what replicators are told. Those of single ones are the exporter's own,
// as long as they are here: their names are no labels that stay.
type metrics struct {
	ended     *prometheus.CounterVec
	syncs     *prometheus.CounterVec
	syncBytes prometheus.Counter
	changes   prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_replication_streams_ended_total", Help: "Streams of replicators that have ended or were refused, by reason.",
		}, []string{"reason"}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_replication_full_syncs_total", Help: "Replicators that were begun to be told all there is, by reason.",
		}, []string{"reason"}),
		syncBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_replication_full_sync_bytes_total", Help: "Bytes of instances that were told with all there is.",
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_replication_changes_told_total", Help: "Changes told to replicators, each as often as it was told.",
		}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.ended), r.Register(m.syncs), r.Register(m.syncBytes), r.Register(m.changes))
}

// A Follower is what there is to know of a replicator.
type Follower struct {
	Name, Region string // as it says
	ClusterID    uint64
	Since        time.Time
	Sent, Acked  registry.Revision // everything up to here has been told, and taken in
	Behind       uint64            // revisions that have not been taken in
	WindowBytes  int               // told and not acknowledged
}

// Followers are the replicators that follow this member, by name.
func (e *Exporter) Followers() []Follower {
	head := e.registry.Revision()
	e.mu.Lock()
	out := make([]Follower, 0, len(e.following))
	for _, f := range e.following {
		one := Follower{Name: f.name, Region: f.region, ClusterID: f.clusterID, Since: f.since}
		one.Sent, one.Acked, one.WindowBytes = f.window.stats()
		one.Behind = uint64(max(head, one.Acked) - one.Acked)
		out = append(out, one)
	}
	e.mu.Unlock()
	slices.SortFunc(out, func(a, b Follower) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Region, b.Region))
	})
	return out
}

var (
	connectedDesc = prometheus.NewDesc("stellmap_replication_replicators", "Replicators that follow this member.", nil, nil)
	sentDesc      = prometheus.NewDesc("stellmap_replication_sent_revision", "Up to here a replicator has been told everything.", []string{"replicator"}, nil)
	ackedDesc     = prometheus.NewDesc("stellmap_replication_acked_revision", "Up to here a replicator has taken in everything.", []string{"replicator"}, nil)
	behindDesc    = prometheus.NewDesc("stellmap_replication_behind_revisions", "Revisions of this member that a replicator has not taken in.", []string{"replicator"}, nil)
	windowDesc    = prometheus.NewDesc("stellmap_replication_window_bytes", "Bytes told to a replicator and not acknowledged.", []string{"replicator"}, nil)
)

// Describe is for prometheus.
func (e *Exporter) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectedDesc, sentDesc, ackedDesc, behindDesc, windowDesc} {
		to <- d
	}
}

// Collect is for prometheus.
func (e *Exporter) Collect(to chan<- prometheus.Metric) {
	all := e.Followers()
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	gauge(connectedDesc, float64(len(all)))
	for _, f := range all {
		gauge(sentDesc, float64(f.Sent), f.Name)
		gauge(ackedDesc, float64(f.Acked), f.Name)
		gauge(behindDesc, float64(f.Behind), f.Name)
		gauge(windowDesc, float64(f.WindowBytes), f.Name)
	}
}
