package federation

import (
	"os"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// TestTheMetricsOfACopy shows what the metrics of a region say, and that
// docs/federation.md names each of them.
func TestTheMetricsOfACopy(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	at.put("orders", "a", 80)
	at.put("pay", "b", 80)
	c := newCopying(t, source, 1)
	c.mustBecomeEqual()
	is := func(name string) float64 { return counted(t, c.metrics[0], name, "here") }
	eventually(t, "a confirmed copy of all", func() bool {
		return is("connected") == 1 && is("revision") == float64(at.registry.Revision()) && is("behind_revisions") == 0
	})
	mustEqual(t, "followed", is("followed"), 1)
	mustEqual(t, "instances", is("instances"), 2)
	mustEqual(t, "taken in", is("instances_taken_in_total"), 2)
	mustEqual(t, "refused", is("instances_refused_total"), 0)
	mustEqual(t, "full syncs", is("full_syncs_total"), 1)
	mustEqual(t, "held", is("held_instances"), 0)
	mustEqual(t, "problems", is("problem"), 0)
	if age := is("age_seconds"); age < 0 || age > ConnectedAge.Seconds() {
		t.Errorf("it is %v s old", age)
	}
	if bytes := is("received_bytes_total"); bytes < 100 {
		t.Errorf("%v bytes were received", bytes)
	}
	if _, err := c.registry.ControlRegion(t.Context(), here, registry.RegionPause); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "paused", is("paused"), 1)
	mustEqual(t, "connected, when it is paused", is("connected"), 0)
	eventually(t, "an end of following", func() bool { return is("followed") == 0 })
	if _, err := c.registry.ControlRegion(t.Context(), here, registry.RegionResume); err != nil {
		t.Fatal(err)
	}
	c.link(true)
	eventually(t, "a problem", func() bool { return counted(t, c.metrics[0], "problem", "unreachable") == 1 })

	page, err := os.ReadFile("../docs/federation.md")
	if err != nil {
		t.Fatal(err)
	}
	families, err := c.metrics[0].Gather()
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the number of metrics", len(families), 17)
	for _, family := range families {
		name := strings.TrimPrefix(family.GetName(), "stellmap_federation")
		if !strings.Contains(string(page), name+"`") {
			t.Errorf("docs/federation.md does not name %s", family.GetName())
		}
	}
}
