package federation

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// A movingClock goes on when it is told to.
type movingClock struct {
	registrytest.StillClock
	past atomic.Int64 // ns
}

func (c *movingClock) Now() time.Time       { return registrytest.Start().Add(time.Duration(c.past.Load())) }
func (c *movingClock) pass(d time.Duration) { c.past.Add(int64(d)) }

// TestACopyThatIsOldIsWithheld shows that the leader has it said when a copy is too old for
// a policy, while its source cannot be reached and while it is paused, once; and that
// whoever leads takes it back when the source is heard again.
func TestACopyThatIsOldIsWithheld(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	at.put("orders", "a", 80)
	at.put("pay", "b", 80)
	c := newCopying(t, source, 2)
	c.mustBecomeEqual()
	for service, stale := range map[string]string{"orders": registry.StaleWithhold, "pay": registry.StaleSuspect} {
		p := registry.Policy{Failover: &registry.Failover{Stale: stale, StaleAfterSeconds: new(int64(60))}}
		if _, err := c.registry.PutPolicy(context.Background(), "", registry.ServiceKey{Namespace: "prod", Service: service}, p, registry.Writing{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a confirmed age", func() bool { _, known := c.registry.RegionAge(c.registry.Region(here)); return known })
	c.link(true)
	eventually(t, "a source that is heard no more", func() bool { return c.problem(0) == "unreachable" }) // a mark that had come is as young as when it is committed
	c.clock.pass(59 * time.Second)
	before := has(t, c.registry, "here")
	mustEqual(t, "how many are stale before their time", c.registry.Region(here).Suspect+c.registry.Region(here).Withheld, 0)
	c.clock.pass(time.Second)
	stale := func() bool {
		of := c.registry.Region(here)
		return of.Suspect == 1 && of.Withheld == 1
	}
	eventually(t, "what is stale", stale)
	for _, want := range []string{"orders/a disabled", "pay/b suspect"} {
		if all := has(t, c.registry, "here"); !strings.Contains(all, want) {
			t.Errorf("there is no %s: %s", want, all)
		}
	}
	revision := c.registry.Revision()
	c.clock.pass(time.Hour)
	c.lead(1)
	at.put("pay", "b", 81)
	c.link(false)
	c.mustBecomeEqual()
	mustEqual(t, "how many are stale after it", c.registry.Region(here).Suspect+c.registry.Region(here).Withheld, 0)
	if has(t, c.registry, "here") == before || c.registry.Revision() == revision {
		t.Error("nothing has changed")
	}

	if _, err := c.registry.ControlRegion(context.Background(), here, registry.RegionPause); err != nil {
		t.Fatal(err)
	}
	c.clock.pass(time.Minute)
	eventually(t, "what is stale of a paused copy", stale)
	if _, err := c.registry.ControlRegion(context.Background(), here, registry.RegionResume); err != nil {
		t.Fatal(err)
	}
	c.mustBecomeEqual()
}
