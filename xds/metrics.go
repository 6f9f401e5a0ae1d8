package xds

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what the package does. The counters are plain numbers, so that
// tests can read them too.
type metrics struct {
	built      [typeCount]atomic.Uint64 // translations of a view
	marshalled [typeCount]atomic.Uint64
	invalid    [typeCount]atomic.Uint64 // views that Envoy's rules refuse, withheld
	responses  [typeCount]atomic.Uint64
	resources  [typeCount]atomic.Uint64 // in responses
	acks       [typeCount]atomic.Uint64
	nacks      [typeCount]atomic.Uint64
	stale      [typeCount]atomic.Uint64 // requests that answer an older response
	silent     [typeCount]atomic.Uint64 // responses not answered in time
	forgotten  [typeCount]atomic.Uint64 // refused contents that are not remembered any more
	oversized  [typeCount]atomic.Uint64 // responses that could not be split

	streams     atomic.Int64
	refused     atomic.Uint64 // streams above the cap
	turned      atomic.Uint64 // streams that would have waited too long for their turn
	tokenless   atomic.Uint64 // streams of nodes that begin too many
	paced       atomic.Uint64 // times that a stream's next request had to wait
	delayed     atomic.Uint64 // streams that waited for it
	aged        atomic.Uint64 // streams ended for their age
	drained     atomic.Uint64 // streams sent away by a server that stops
	cut         atomic.Uint64 // streams whose client took nothing
	unsupported atomic.Uint64 // requests of other types
	reloads     atomic.Uint64 // full comparisons after falling behind

	loadStreams        atomic.Int64  // of clients that report their load
	loadStreamsRefused atomic.Uint64 // above the cap
	loadReports        atomic.Uint64
	loadRefused        [loadRefusals]atomic.Uint64 // what of them is not kept
	loadVotes          [voteOutcomes]atomic.Uint64 // reports of instances by them

	demandsForgone atomic.Uint64 // clusters asked for on demand that were not looked for

	tablesWaiting   atomic.Int64  // streams
	tablesDelayed   atomic.Uint64 // times that one had to wait
	tablesOverdue   atomic.Uint64 // turns that ended without an answer
	tablesUnclaimed atomic.Uint64 // turns that ended before anything was sent

	spansLeftOut atomic.Uint64 // pushes of a change that had spans enough
	spansMerged  atomic.Uint64 // changes whose push was that of an older one

	inquiries        atomic.Int64 // who ask how far a change has come
	inquiriesRefused atomic.Uint64

	changeToACK [typeCount]prometheus.Observer
	changes     *prometheus.HistogramVec // the same, by type
}

func newMetrics() *metrics {
	m := &metrics{changes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "stellmap_change_to_ack_seconds",
		Help:    "From a committed change being seen by the xDS server to its acknowledgement by one proxy.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"type"})}
	for t := range typeCount {
		m.changeToACK[t] = m.changes.WithLabelValues(t.String()) // looked up once, not for each acknowledgement
	}
	return m
}

// register adds the metrics; rejectedNow is how many resources clients refuse at
// present, and l what they report of their load, nil where they do not.
func (m *metrics) register(r prometheus.Registerer, rejectedNow func(resourceType) int, l *loads) error {
	if r == nil {
		return nil
	}
	collectors := []prometheus.Collector{m.changes,
		gaugeOf("stellmap_xds_streams", "Open xDS streams.", &m.streams),
		gaugeOf("stellmap_xds_tables_waiting", "Streams whose route table waits for others to be sent.", &m.tablesWaiting),
		gaugeOf("stellmap_xds_inquiries", "Callers who ask how far a change has come, or wait for it.", &m.inquiries),
	}
	single := func(name, help string, n *atomic.Uint64) {
		collectors = append(collectors, counterOf(name, help, nil, n))
	}
	single("stellmap_xds_streams_refused_total", "Streams refused because there were too many, or this member was stopping.", &m.refused)
	single("stellmap_xds_first_responses_refused_total", "Streams refused because too many others were about to begin.", &m.turned)
	single("stellmap_xds_requests_delayed_total", "Times that a stream's next request had to wait, since it had made many.", &m.paced)
	single("stellmap_xds_node_streams_refused_total", "Streams refused because their node begins too many.", &m.tokenless)
	single("stellmap_xds_first_responses_delayed_total", "Streams that waited for their turn to begin.", &m.delayed)
	single("stellmap_xds_streams_aged_total", "Streams ended because they had reached their age.", &m.aged)
	single("stellmap_xds_streams_drained_total", "Streams sent to other members by this one as it stopped.", &m.drained)
	single("stellmap_xds_streams_cut_total", "Streams ended because the client took no response.", &m.cut)
	single("stellmap_xds_requests_unsupported_total", "Requests for types that are not served.", &m.unsupported)
	single("stellmap_xds_reloads_total", "Full comparisons after falling behind the change stream.", &m.reloads)
	single("stellmap_xds_tables_delayed_total", "Times that a large route table had to wait for others to be sent.", &m.tablesDelayed)
	single("stellmap_xds_tables_overdue_total", "Large route tables that were not answered before it was the next one's turn.", &m.tablesOverdue)
	single("stellmap_xds_tables_unclaimed_total", "Turns to send a large route table that ended before the stream had come to send it.", &m.tablesUnclaimed)
	single("stellmap_xds_demands_forgone_total", "Clusters that were asked for on demand and not looked for, since the proxy had asked for too many.", &m.demandsForgone)
	single("stellmap_xds_inquiries_refused_total", "Questions how far a change has come that were refused because there were too many.", &m.inquiriesRefused)
	single("stellmap_xds_push_spans_left_out_total", "Pushes of a traced change that have no span, since it has as many as it may.", &m.spansLeftOut)
	single("stellmap_xds_push_spans_merged_total", "Times that a traced change has no span of its own, since an older one is in the same response.", &m.spansMerged)
	for t := range typeCount {
		labels := prometheus.Labels{"type": t.String()}
		typed := func(name, help string, n *[typeCount]atomic.Uint64) {
			collectors = append(collectors, counterOf(name, help, labels, &n[t]))
		}
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stellmap_xds_rejected_resources", Help: "Resources that connected clients have refused as they are now, each counted for each client.", ConstLabels: labels,
		}, func() float64 { return float64(rejectedNow(t)) }))
		typed("stellmap_xds_resources_built_total", "Views translated.", &m.built)
		typed("stellmap_xds_resources_marshalled_total", "Views marshalled.", &m.marshalled)
		typed("stellmap_xds_resources_invalid_total", "Views withheld because Envoy would refuse them.", &m.invalid)
		typed("stellmap_xds_resources_sent_total", "Resources in responses sent.", &m.resources)
		typed("stellmap_xds_responses_sent_total", "Responses sent.", &m.responses)
		typed("stellmap_xds_responses_acked_total", "Responses accepted by the client.", &m.acks)
		typed("stellmap_xds_responses_nacked_total", "Responses rejected by the client.", &m.nacks)
		typed("stellmap_xds_responses_silent_total", "Responses not answered in time.", &m.silent)
		typed("stellmap_xds_refusals_forgotten_total", "Contents that a client had refused and that it may be sent again, since there were too many.", &m.forgotten)
		typed("stellmap_xds_responses_oversized_total", "Responses larger than gRPC clients take unless told to, which cannot be split.", &m.oversized)
		typed("stellmap_xds_requests_stale_total", "Requests that answered an older response.", &m.stale)
	}
	if l != nil {
		collectors = append(collectors, l, gaugeOf("stellmap_xds_load_streams", "Clients that report their load to this member.", &m.loadStreams))
		single("stellmap_xds_load_streams_refused_total", "Clients that were not let report their load, since too many did.", &m.loadStreamsRefused)
		single("stellmap_xds_load_reports_total", "Reports of load.", &m.loadReports)
		for why := range m.loadRefused {
			labels := prometheus.Labels{"why": loadRefusalNames[why]}
			collectors = append(collectors, counterOf("stellmap_xds_load_refused_total", "Parts of reports that were not kept, and why.", labels, &m.loadRefused[why]))
		}
		for outcome := range m.loadVotes {
			labels := prometheus.Labels{"outcome": voteNames[outcome]}
			collectors = append(collectors, counterOf("stellmap_xds_load_votes_total", "Reports of instances that reports of load have brought about.", labels, &m.loadVotes[outcome]))
		}
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register a metric: %w", err)
		}
	}
	return nil
}

func gaugeOf(name, help string, n *atomic.Int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(n.Load()) })
}

func counterOf(name, help string, labels prometheus.Labels, n *atomic.Uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
		func() float64 { return float64(n.Load()) })
}
