package registry

import "github.com/prometheus/client_golang/prometheus"

// machineMetrics are the counters that the registry itself raises; gauges are
// read from the state when somebody asks.
type machineMetrics struct {
	expirations  prometheus.Counter
	renewals     *prometheus.CounterVec
	refusedQueue prometheus.Counter
	batchItems   *prometheus.CounterVec

	checkpoints     prometheus.Counter
	checkpointBytes prometheus.Counter
	overdue         prometheus.Counter
	protections     *prometheus.CounterVec
	lapsesForgotten prometheus.Counter

	watchesRefused prometheus.Counter

	reports          *prometheus.CounterVec
	reportsRefused   *prometheus.CounterVec
	reportsForgotten *prometheus.CounterVec
	reportVerdicts   *prometheus.CounterVec
}

func newMachineMetrics() machineMetrics {
	return machineMetrics{
		expirations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_expirations_total", Help: "Leases that have run out, as applied by this member.",
		}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_renewals_total", Help: "Renewals that this member answered as leader: done, log (sent through the log), unknown, wrong_token or shared_lease.",
		}, []string{"outcome"}),
		refusedQueue: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_renewals_refused_total", Help: "Renewals refused because too many were waiting for the leader.",
		}),
		batchItems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_batch_items_total", Help: "Items of batches that this member was asked for, by kind and outcome: done or refused.",
		}, []string{"kind", "outcome"}),
		checkpoints: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_checkpoints_total", Help: "Checkpoints of who has renewed that this member has put into the log as leader.",
		}),
		checkpointBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_checkpoint_bytes_total", Help: "Bytes of these checkpoints.",
		}),
		overdue: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_overdue_total", Help: "Leases that these checkpoints said to be overdue: their next renewal goes through the log.",
		}),
		protections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_protections_begun_total", Help: "Times when this member, as leader, began to protect a zone, a service or the cluster from mass expiry.",
		}, []string{"scope"}),
		lapsesForgotten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_lapses_forgotten_total", Help: "Leases that ran out and that this leader had no room to count for self-preservation.",
		}),
		watchesRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellmap_registry_watches_refused_total", Help: "Watches refused because their address has as many open on this member as it may.",
		}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_reports_total", Help: "Reports on instances that this member was told as leader: failure, success, or unknown when there is no such instance.",
		}, []string{"outcome"}),
		reportsRefused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_reports_refused_total", Help: "Reports on instances that this member refused, since their address reports too much (rate), or since too many were waiting for the leader (queue).",
		}, []string{"why"}),
		reportsForgotten: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_reports_forgotten_total", Help: "Reports that this member, as leader, had to forget to make room for newer ones, by what was full: address, instance, service or all.",
		}, []string{"full"}),
		reportVerdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_registry_report_verdicts_total", Help: "What this member, as leader, has made of reports: begun, extended, over, or held_back since too much of the service would be critical.",
		}, []string{"verdict"}),
	}
}

// told counts a checkpoint that has gone through.
func (m *machineMetrics) told(bytes, overdue int) {
	m.checkpoints.Inc()
	m.checkpointBytes.Add(float64(bytes))
	m.overdue.Add(float64(overdue))
}

// count counts a visible change.
func (m *machineMetrics) count(c *change) {
	if c.op == opPut && !c.instance.ofAnother() && !c.instance.alive() && c.previous.alive() {
		m.expirations.Inc()
	}
}

func (m *machineMetrics) renewed(outcomes []renewal) {
	var done, log, unknown, wrong, shared float64
	for _, o := range outcomes {
		switch o {
		case renewalDone:
			done++
		case renewalLog:
			log++
		case renewalUnknown:
			unknown++
		case renewalWrong:
			wrong++
		case renewalShared:
			shared++
		}
	}
	m.renewals.WithLabelValues("done").Add(done)
	m.renewals.WithLabelValues("log").Add(log)
	m.renewals.WithLabelValues("unknown").Add(unknown)
	m.renewals.WithLabelValues("wrong_token").Add(wrong)
	m.renewals.WithLabelValues("shared_lease").Add(shared)
}

// batched counts the items of a batch. One that is of no kind is not.
func (m *machineMetrics) batched(items []BatchItem, results []BatchResult) {
	var counts [len(batchKinds)][2]int
	for i := range items {
		kind, outcome := items[i].kind(), 0
		if results[i].Err != nil {
			outcome = 1
		}
		if kind >= 0 {
			counts[kind][outcome]++
		}
	}
	for kind, name := range batchKinds {
		m.batchItems.WithLabelValues(name, "done").Add(float64(counts[kind][0]))
		m.batchItems.WithLabelValues(name, "refused").Add(float64(counts[kind][1]))
	}
}

// registerMetrics makes the machine's metrics known; nothing is done without a registerer.
func (m *Machine) registerMetrics(to prometheus.Registerer) error {
	if to == nil {
		return nil
	}
	all := append(m.gauges(), m.metrics.expirations, m.metrics.renewals, m.metrics.refusedQueue, m.metrics.batchItems,
		m.metrics.checkpoints, m.metrics.checkpointBytes, m.metrics.overdue, m.metrics.protections, m.metrics.lapsesForgotten,
		m.metrics.reports, m.metrics.reportsRefused, m.metrics.reportsForgotten, m.metrics.reportVerdicts, m.metrics.watchesRefused)
	for _, c := range all {
		if err := to.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) gauges() []prometheus.Collector {
	var all []prometheus.Collector
	for s := range statusesMax {
		if known(s) {
			all = append(all, m.instancesGauge(s))
		}
	}
	for _, k := range []ScopeKind{ScopeZone, ScopeService, ScopeCluster} {
		all = append(all, m.protectionsGauge(k))
	}
	return append(all,
		gauge("stellmap_registry_services", "Services known, empty ones included.", nil, func() float64 { return float64(m.count(func(s *state) int { return len(s.order) })) }),
		gauge("stellmap_registry_shared_leases", "Leases that several instances can share.", nil, func() float64 { return float64(m.count(func(s *state) int { return len(s.leases) })) }),
		gauge("stellmap_registry_protected_services", "Services of which all instances are handed out, since the healthy ones are fewer than their policy's threshold.", nil, func() float64 { return float64(m.count((*state).protected)) }),
		gauge("stellmap_registry_reported_instances", "Instances that enough of those who call them have reported, as their policy has it.", nil, func() float64 { return float64(m.count(func(s *state) int { return int(s.tally.reported) })) }),
		gauge("stellmap_registry_reports", "Reports on instances that this member keeps as leader.", nil, func() float64 { return float64(m.reports.kept()) }),
		gauge("stellmap_registry_revision", "The newest revision that readers see.", nil, func() float64 { return float64(m.Revision()) }),
		gauge("stellmap_registry_watchers", "Watchers that have seen everything and wait for more.", nil, func() float64 {
			waiting, _ := m.waker.stats()
			return float64(m.ring.waiting.Load()) + float64(waiting)
		}),
		counter("stellmap_registry_watchers_woken_total", "Times that a watcher of some services was woken by a change of one of them.", func() float64 { _, wakes := m.waker.stats(); return float64(wakes) }),
		gauge("stellmap_registry_catching_up", "Watchers that are far behind and read the history, or wait for a place to read it.", nil, func() float64 { return float64(m.catchUps.reading.Load()) }),
		gauge("stellmap_registry_history_events", "Changes kept in the state, for watchers that come back.", nil, func() float64 { return float64(m.kept.events.Load()) }),
		gauge("stellmap_registry_history_bytes", "What the records of these changes take.", nil, func() float64 { return float64(m.kept.bytes.Load()) }),
		gauge("stellmap_registry_history_floor", "The revision after which all changes are kept: watchers that have seen less read the state anew.", nil, func() float64 { return float64(m.kept.floor.Load()) }),
		gauge("stellmap_registry_ring_events", "Events kept in memory for watchers.", nil, func() float64 { events, _ := m.ring.size(); return float64(events) }),
		gauge("stellmap_registry_ring_bytes", "Roughly what the events kept for watchers take.", nil, func() float64 { _, bytes := m.ring.size(); return float64(bytes) }),
		gauge("stellmap_registry_leases", "Leases that this member keeps as leader.", nil, func() float64 { return float64(m.leases.stats().held) }),
		gauge("stellmap_registry_lease_stretch", "How many times its TTL a lease of up to a minute is given: 1, and more while the leader has more renewals than it can well answer.", nil, func() float64 { return float64(m.count(func(s *state) int { return max(1, int(s.told.stretch)) })) }),
		gauge("stellmap_registry_views", "Lists kept for their later pages.", nil, func() float64 { kept, _, _ := m.views.stats(); return float64(kept) }),
		gauge("stellmap_registry_views_bytes", "Roughly what they take, with the instances that were replaced since.", nil, func() float64 { _, bytes, _ := m.views.stats(); return float64(bytes) }),
		counter("stellmap_registry_views_dropped_total", "Lists that made room for others before their time was over.", func() float64 { _, _, dropped := m.views.stats(); return float64(dropped) }),
		counter("stellmap_registry_watchers_compacted_total", "Reads of watchers that had fallen behind the changes kept.", func() float64 { return float64(m.ring.compacted.Load()) }),
		counter("stellmap_registry_lease_pauses_total", "Times when this leader found its clock to have jumped, and extended all leases.", func() float64 { return float64(m.leases.stats().pauses) }),
		gauge("stellmap_registry_expiry_late_seconds", "How long the lease that waits longest for its expiry has been over: more run out at once than the leader lets go of at a time.", nil, func() float64 { return m.leases.stats().late.Seconds() }),
		counter("stellmap_registry_expiry_waits_total", "Looks of this leader at leases that have run out after which some had to wait.", func() float64 { return float64(m.leases.stats().waits) }),
	)
}

func (m *Machine) instancesGauge(status Status) prometheus.Collector {
	of := func(s *state) int { return int(s.tally.status[status]) }
	return gauge("stellmap_registry_instances", "Instances known, by status.", prometheus.Labels{"status": status.String()}, func() float64 { return float64(m.count(of)) })
}

func (m *Machine) protectionsGauge(kind ScopeKind) prometheus.Collector {
	of := func(s *state) (n int) {
		for _, p := range s.protections() {
			if p.Scope.Kind == kind {
				n++
			}
		}
		return n
	}
	return gauge("stellmap_registry_protections", "Zones, services or the cluster in which nothing expires for a while.", prometheus.Labels{"scope": kind.String()}, func() float64 { return float64(m.count(of)) })
}

func (m *Machine) count(of func(*state) int) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return of(m.published)
}

func gauge(name, help string, labels prometheus.Labels, read func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read)
}

func counter(name, help string, read func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read)
}
