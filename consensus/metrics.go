package consensus

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this member's figures. Gauges are read when somebody asks.
type metrics struct {
	collectors []prometheus.Collector

	syncSeconds, snapshotSeconds, checkSeconds     prometheus.Histogram
	proposals, forwarded, refused, applied, rounds prometheus.Counter
	leaderChanges, invalid, refusals, full         prometheus.Counter
	postponed, diverged                            prometheus.Counter
	installed                                      prometheus.Counter
	dropped, sentSnapshots                         *prometheus.CounterVec
}

func newMetrics(g *Group) *metrics {
	m := &metrics{}
	m.syncSeconds = add(m, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "stellmap_raft_sync_seconds", Help: "Duration of the log's syncs.",
		Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16),
	}))
	m.snapshotSeconds = add(m, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "stellmap_raft_snapshot_seconds", Help: "Duration of taking a snapshot, in the background.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
	}))
	m.checkSeconds = add(m, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "stellmap_raft_state_hash_seconds", Help: "Duration of hashing the state, in the background.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
	}))
	m.dropped = add(m, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stellmap_raft_dropped_total",
		Help: "Messages dropped because a queue was full, to be sent again by Raft: receive, append (the disk is behind) or send.",
	}, []string{"queue"}))
	m.sentSnapshots = add(m, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stellmap_raft_snapshots_sent_total", Help: "Snapshots that other members were sent, or were to be sent: done or failed.",
	}, []string{"outcome"}))
	counter := func(into *prometheus.Counter, name, help string) {
		*into = add(m, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
	}
	counter(&m.proposals, "stellmap_raft_proposals_total", "Entries that this member appended as leader for callers.")
	counter(&m.forwarded, "stellmap_raft_forwarded_total", "Calls that this member passed on to the leader.")
	counter(&m.refused, "stellmap_raft_refused_total", "Calls refused because too much was waiting.")
	counter(&m.full, "stellmap_raft_full_total", "Proposals refused because the disks of too many members are nearly full.")
	counter(&m.diverged, "stellmap_raft_diverged_total", "Proposals refused because the members' states differ and none has a majority.")
	counter(&m.postponed, "stellmap_raft_snapshots_postponed_total", "Snapshots that were put off because the disk had no room for them.")
	counter(&m.installed, "stellmap_raft_snapshots_installed_total", "Snapshots of other members that became this one's state.")
	counter(&m.applied, "stellmap_raft_applied_total", "Entries applied since the start.")
	counter(&m.rounds, "stellmap_raft_read_rounds_total", "ReadIndex rounds begun by this member.")
	counter(&m.leaderChanges, "stellmap_raft_leader_changes_total", "How often the known leader became another, or none.")
	counter(&m.invalid, "stellmap_raft_invalid_messages_total", "Messages of peers that were refused because of what they held.")
	counter(&m.refusals, "stellmap_raft_refused_introductions_total", "Members that this one did not speak with.")
	m.gauges(g)
	add(m, prometheus.Collector(behindCollector{g}))
	return m
}

// behindCollector tells on the leader how far each member is; others tell nothing.
type behindCollector struct{ group *Group }

var behindDesc = prometheus.NewDesc("stellmap_raft_member_behind_entries", "Committed entries that a member's log lacks, in the leader's eyes.", []string{"member", "learner"}, nil)

func (c behindCollector) Describe(out chan<- *prometheus.Desc) { out <- behindDesc }

func (c behindCollector) Collect(out chan<- prometheus.Metric) {
	for _, p := range *c.group.progress.Load() {
		out <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, float64(p.Behind), strconv.FormatUint(p.ID, 10), strconv.FormatBool(p.Learner))
	}
}

func (m *metrics) gauges(g *Group) {
	gauge := func(name, help string, labels prometheus.Labels, read func() float64) {
		add(m, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
	}
	of := func(read func(s *Status) uint64) func() float64 {
		return func() float64 { return float64(read(g.status.Load())) }
	}
	gauge("stellmap_raft_term", "The current term.", nil, of(func(s *Status) uint64 { return s.Term }))
	gauge("stellmap_raft_leader_id", "The leader's node id; 0 when none is known.", nil, of(func(s *Status) uint64 { return s.LeaderID }))
	gauge("stellmap_raft_commit_index", "The last entry known to be committed.", nil, of(func(s *Status) uint64 { return s.Commit }))
	gauge("stellmap_raft_low_members", "Voters whose disks are nearly full, as the leader knows; 0 on others.", nil, func() float64 { return float64(len(g.Status().LowMembers)) })
	gauge("stellmap_raft_applied_index", "The last entry applied.", nil, of(func(s *Status) uint64 { return s.Applied }))
	gauge("stellmap_raft_check_index", "The entry after which the members' states were last compared; 0 for none.", nil, func() float64 { return float64(g.facts.Load().check.index) })
	gauge("stellmap_raft_check_different", "Members whose state is another than that of a majority, or all when none has one.", nil, func() float64 { return float64(len(g.facts.Load().checkStatus().Different)) })
	gauge("stellmap_raft_log_first_index", "The oldest entry in the log.", nil, func() float64 { return float64(g.config.Log.FirstIndex()) })
	gauge("stellmap_raft_snapshot_index", "The newest snapshot of this member; 0 for none.", nil, func() float64 { return float64(g.newestSnapshot()) })
	for queue, load := range map[string]func() (int, int){
		"calls": g.calls.load, "receive": g.received.load,
		"append": func() (int, int) { return g.appender.queue.load() },
		"apply":  func() (int, int) { return g.applier.queue.load() },
		"send":   func() (int, int) { return g.sender.queue.load() },
	} {
		gauge("stellmap_raft_queue_length", "What waits in a queue.", prometheus.Labels{"queue": queue}, func() float64 { count, _ := load(); return float64(count) })
		gauge("stellmap_raft_queue_bytes", "How much waits in a queue.", prometheus.Labels{"queue": queue}, func() float64 { _, bytes := load(); return float64(bytes) })
	}
}

// add remembers a collector for register.
func add[C prometheus.Collector](m *metrics, c C) C {
	m.collectors = append(m.collectors, c)
	return c
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	var err error
	for _, c := range m.collectors {
		err = errors.Join(err, r.Register(c))
	}
	return err
}
