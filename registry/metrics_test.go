package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// samples are all samples of a registry, as name{labels} type value.
func samples(t *testing.T, g prometheus.Gatherer) []string {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels = fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			out = append(out, fmt.Sprintf("%s%s %s %v", f.GetName(), labels, strings.ToLower(f.GetType().String()), value))
		}
	}
	return out
}

// valueOf is what a counter has counted.
func valueOf(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// measured is a member whose metrics can be gathered.
func measured(t *testing.T, clock *manualClock) (*member, *prometheus.Registry) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	m := &member{tb: t, clock: clock, fs: vfs.NewMem(), metrics: metrics}
	m.open()
	m.lead()
	t.Cleanup(m.close)
	return m, metrics
}

// TestMetrics shows every metric with what it counts: two instances of which one
// has run out, a service, renewals of each outcome, a pause, and a watcher that fell behind.
func TestMetrics(t *testing.T) {
	clock := newManualClock()
	m, metrics := measured(t, clock)
	for id, ttl := range map[string]int64{"long": 60, "short": 1} {
		r := reg("prod", "orders", id, "10.0.0.1", 80)
		r.LeaseTTLSeconds = ttl
		m.register(r)
	}
	m.pass(clock, 2*time.Second)
	if _, err := renewals(m.machine, "long", "short", "none"); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	m.registry.expireDue(context.Background())
	m.machine.ring.floor = 1
	fallen := m.machine.Watch(0)
	fallen.older = nil
	mustBeCompacted(t, fallen)
	m.machine.metrics.refusedQueue.Inc()

	got := slices.DeleteFunc(samples(t, metrics), func(s string) bool {
		return strings.HasPrefix(s, "stellmap_registry_ring_bytes") || strings.HasPrefix(s, "stellmap_registry_history_bytes")
	})
	mustEqual(t, "the list of metrics", strings.Join(got, "\n"), strings.TrimSpace(`
stellmap_registry_catching_up gauge 0
stellmap_registry_checkpoint_bytes_total counter 0
stellmap_registry_checkpoints_total counter 0
stellmap_registry_expirations_total counter 1
stellmap_registry_expiry_late_seconds gauge 0
stellmap_registry_expiry_waits_total counter 0
stellmap_registry_history_events gauge 4
stellmap_registry_history_floor gauge 0
stellmap_registry_instances{status="critical"} gauge 0
stellmap_registry_instances{status="disabled"} gauge 0
stellmap_registry_instances{status="draining"} gauge 0
stellmap_registry_instances{status="expired"} gauge 1
stellmap_registry_instances{status="passing"} gauge 1
stellmap_registry_instances{status="suspect"} gauge 0
stellmap_registry_instances{status="warning"} gauge 0
stellmap_registry_lapses_forgotten_total counter 0
stellmap_registry_lease_pauses_total counter 1
stellmap_registry_lease_stretch gauge 1
stellmap_registry_leases gauge 1
stellmap_registry_overdue_total counter 0
stellmap_registry_protected_services gauge 0
stellmap_registry_protections{scope="cluster"} gauge 0
stellmap_registry_protections{scope="service"} gauge 0
stellmap_registry_protections{scope="zone"} gauge 0
stellmap_registry_renewals_refused_total counter 1
stellmap_registry_renewals_total{outcome="done"} counter 1
stellmap_registry_renewals_total{outcome="log"} counter 1
stellmap_registry_renewals_total{outcome="shared_lease"} counter 0
stellmap_registry_renewals_total{outcome="unknown"} counter 1
stellmap_registry_renewals_total{outcome="wrong_token"} counter 0
stellmap_registry_reported_instances gauge 0
stellmap_registry_reports gauge 0
stellmap_registry_revision gauge 4
stellmap_registry_ring_events gauge 4
stellmap_registry_services gauge 1
stellmap_registry_shared_leases gauge 0
stellmap_registry_views gauge 0
stellmap_registry_views_bytes gauge 0
stellmap_registry_views_dropped_total counter 0
stellmap_registry_watchers gauge 0
stellmap_registry_watchers_compacted_total counter 1
stellmap_registry_watchers_woken_total counter 0
stellmap_registry_watches_refused_total counter 0`))
}

// TestMetricNames shows that Prometheus' own rules of names have nothing to say.
func TestMetricNames(t *testing.T) {
	m, metrics := measured(t, newManualClock())
	if _, err := renewals(m.machine); err != nil {
		t.Fatal(err)
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestMetricsTwice shows that a second machine with the same registerer is refused.
func TestMetricsTwice(t *testing.T) {
	engine, _ := openEmpty(t)
	_, metrics := measured(t, newManualClock())
	if _, err := OpenMachine(MachineConfig{Engine: engine, Registerer: metrics}); err == nil || !strings.Contains(err.Error(), "register the registry's metrics") {
		t.Fatalf("got %v", err)
	}
}
