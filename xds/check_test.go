package xds

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/stellmap/stellmap/registry"
)

// What a frozen host costs follows from numbers in several places, one of which Envoy
// has of its own accord: it asks the hosts of a cluster without requests once a minute.
func TestAFrozenHostIsOutInTime(t *testing.T) {
	registered := instance("a", "here", "", registry.StatusPassing, at("http", "http", "10.0.0.1", 80, 100))
	registered.Metadata = registry.PairsOf(map[string]string{"health.path": "/healthz"})
	plain := instance("a", "here", "", registry.StatusPassing, at("http", "http", "10.0.0.1", 80, 100))
	for name, c := range map[string]struct {
		of     *registry.Instance
		policy string
		want   time.Duration
	}{
		"a path that was registered": {registered, `{}`, 1700 * time.Millisecond},
		"a check of the policy":      {plain, `{"checks":{"kind":"http","path":"/"}}`, 1700 * time.Millisecond},
		"a long interval":            {plain, `{"checks":{"kind":"tcp","intervalMs":9000,"unhealthyAfter":1}}`, 9500 * time.Millisecond},
		"a short interval":           {plain, `{"checks":{"kind":"tcp","intervalMs":100}}`, 1100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := service(primary("http"), c.of), policyOf(t, c.policy)
			s.Policy = &p
			cluster, err := buildCluster(s, 0, rulesOf(s.Policy))
			if err != nil {
				t.Fatal(err)
			}
			if got := outAfter(cluster); got != c.want {
				t.Errorf("a host that freezes right after an answer is out %v later, want %v", got, c.want)
			}
		})
	}
}

// outAfter is when a host that freezes right after an answer gets no requests any more at
// the latest, the first of which comes then.
func outAfter(c *clusterv3.Cluster) time.Duration {
	check := c.GetHealthChecks()[0]
	usual, timeout := check.GetInterval().AsDuration(), check.GetTimeout().AsDuration()
	idle := time.Minute
	if check.NoTrafficInterval != nil {
		idle = check.NoTrafficInterval.AsDuration()
	}
	first := max(usual, idle, check.GetNoTrafficHealthyInterval().AsDuration())
	further := max(usual, check.GetUnhealthyInterval().AsDuration(), check.GetUnhealthyEdgeInterval().AsDuration())
	jitter := check.GetInitialJitter().AsDuration() + check.GetIntervalJitter().AsDuration()
	failures := time.Duration(check.GetUnhealthyThreshold().GetValue())
	return first + (failures-1)*further + failures*(timeout+jitter) + c.GetCommonLbConfig().GetUpdateMergeWindow().AsDuration()
}
