package xds

import "github.com/prometheus/client_golang/prometheus"

// What is not kept of a report, and why.
const (
	loadUnknown     = iota // the cluster is of no service
	loadTooLong            // a name in it is
	loadClusterFull        // its cluster has too many parts
	loadFull               // all clusters have
	loadRefusals
)

var loadRefusalNames = [loadRefusals]string{loadUnknown: "unknown_cluster", loadTooLong: "text", loadClusterFull: "cluster", loadFull: "all"}

// What has come of a report of an instance that a report of load has brought about.
const (
	voteFailure = iota // it fails, and the leader has taken it
	voteSuccess        // it was taken back
	voteGone           // there is no such instance any more
	voteRefused        // the registry did not take it
	voteLeftOut        // there were too many in one message, or no time for it
	voteOutcomes
)

var voteNames = [voteOutcomes]string{voteFailure: "failure", voteSuccess: "success", voteGone: "gone", voteRefused: "refused", voteLeftOut: "left_out"}

var (
	loadCallsDesc = prometheus.NewDesc("stellmap_xds_load_calls_total",
		"Calls that clients of this member have reported, by how they ended.", []string{"cluster", "region", "zone", "outcome"}, nil)
	loadInProgressDesc = prometheus.NewDesc("stellmap_xds_load_calls_in_progress",
		"Calls in progress in the last report of each client of this member.", []string{"cluster", "region", "zone"}, nil)
	loadDroppedDesc = prometheus.NewDesc("stellmap_xds_load_dropped_total",
		"Calls that clients of this member have not made, by the category of the policy.", []string{"cluster", "category"}, nil)
)

// Describe and Collect make the loads a collector: there are at most loadPartsMax parts, of three series each.
func (l *loads) Describe(to chan<- *prometheus.Desc) {
	to <- loadCallsDesc
	to <- loadInProgressDesc
	to <- loadDroppedDesc
}

// Collect tells of each part. Nothing is sent under the lock, which reports need.
func (l *loads) Collect(to chan<- prometheus.Metric) {
	for _, m := range l.series() {
		to <- m
	}
}

func (l *loads) series() []prometheus.Metric {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(l.now())
	out := make([]prometheus.Metric, 0, 3*l.parts)
	for name, c := range l.clusters {
		for at, p := range c.localities {
			counter := func(n uint64, outcome string) prometheus.Metric {
				return prometheus.MustNewConstMetric(loadCallsDesc, prometheus.CounterValue, float64(n), name, at.region, at.zone, outcome)
			}
			out = append(out, counter(p.total.succeeded, "succeeded"), counter(p.total.failed, "failed"),
				prometheus.MustNewConstMetric(loadInProgressDesc, prometheus.GaugeValue, float64(p.inProgress), name, at.region, at.zone))
		}
		for category, p := range c.drops {
			out = append(out, prometheus.MustNewConstMetric(loadDroppedDesc, prometheus.CounterValue, float64(p.total.failed), name, category))
		}
	}
	return out
}
