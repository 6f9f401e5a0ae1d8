package federation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// selects reads selections as the settings have them.
func selects(t *testing.T, texts ...string) (out []registry.Selected) {
	t.Helper()
	for _, text := range texts {
		one, err := registry.ParseSelected(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, one)
	}
	return out
}

func exports(t *testing.T, texts ...string) registry.Selection {
	t.Helper()
	out, err := registry.Select(selects(t, texts...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// labelled registers an instance of a tier.
func (m *member) labelled(service, id, tier string) registry.Revision {
	m.region.tb.Helper()
	done, err := m.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "prod", Service: service, ID: id, Labels: map[string]string{"tier": tier},
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}},
	})
	if err != nil {
		m.region.tb.Fatal(err)
	}
	return done.Revision
}

func ofTier(tier string) func(*registry.Instance) bool {
	return func(i *registry.Instance) bool { v, _ := i.Labels.Get("tier"); return v == tier }
}

// soon has marks come soon: what is not selected is told by them alone.
func soon(l *limits) { l.progress = time.Millisecond }

// TestWhatIsNotExportedDoesNotExist shows that a replicator, whatever it asks for, is told
// of what the region exports only: all at once, and when an instance comes into it and
// leaves it by a change of its labels.
func TestWhatIsNotExportedDoesNotExist(t *testing.T) {
	region := newRegion(t, 1, registry.HistoryBounds{})
	m := region.members[0]
	m.restart(Config{Token: token, Exports: exports(t, "prod/pay-* tier=gold", "prod/orders tier=gold")}, soon)
	m.labelled("orders", "a", "gold")
	m.labelled("orders", "b", "tin")
	m.labelled("other", "c", "gold")
	r := newReplicator(t)
	r.follow(m)
	exported := func(i *registry.Instance) bool { return i.Service != "other" && ofTier("gold")(i) }
	r.reach(m.labelled("pay-cards", "d", "gold"))
	r.mustMatch(m, exported)
	mustEqual(t, "how much there is", len(r.has), 2)
	m.labelled("orders", "b", "gold")
	r.reach(m.labelled("orders", "a", "tin"))
	r.mustMatch(m, exported)
	m.remove("orders", "a") // of which it has heard that it is gone already
	r.reach(m.labelled("other", "c", "tin"))
	r.mustMatch(m, exported)

	r.hello.Selections = []*replicationv1.Selection{{Namespace: "*", Services: []string{"o*"}, Labels: "tier"}}
	r.follow(m)
	r.reach(m.labelled("orders", "e", "gold"))
	r.mustMatch(m, func(i *registry.Instance) bool { return i.Service == "orders" && exported(i) })
	mustEqual(t, "why all was told", strings.Join(r.reasons, " "), "start selections")

	m.restart(Config{Token: token, Exports: registry.Nothing()}, soon)
	r.follow(m)
	r.reach(m.labelled("orders", "f", "gold"))
	mustEqual(t, "what there is where nothing is exported", len(r.has), 0)
}

// TestLabelsUnderRandomChanges shows the same with random changes, at any member.
func TestLabelsUnderRandomChanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	region := newRegion(t, 2, registry.HistoryBounds{Events: 40})
	for _, m := range region.members {
		m.restart(Config{Token: token, Exports: exports(t, "prod/s1", "prod/* tier=gold")}, func(l *limits) { l.pageInstances, l.progress = 2, time.Millisecond })
	}
	at := region.members[0]
	r := newReplicator(t)
	for range 60 {
		for range random.IntN(8) {
			service, id := fmt.Sprint("s", random.IntN(3)), fmt.Sprint("i", random.IntN(6))
			if random.IntN(4) == 0 {
				at.remove(service, id)
			} else {
				at.labelled(service, id, []string{"gold", "tin"}[random.IntN(2)])
			}
		}
		if r.end == nil || random.IntN(4) == 0 {
			r.follow(region.members[random.IntN(2)])
		}
		r.reach(at.Machine.Revision())
		r.mustMatch(at, func(i *registry.Instance) bool { return i.Service == "s1" || ofTier("gold")(i) })
	}
}

// TestOtherSettingsSelectAnew shows that a copy comes to be what is selected when either
// side's settings are others than before, and that what is deselected goes at once, though
// it is much: nothing was lost.
func TestOtherSettingsSelectAnew(t *testing.T) {
	source := newRegion(t, 1, registry.HistoryBounds{})
	at := source.members[0]
	for n := range 16 {
		at.labelled(fmt.Sprint("s", n%4), fmt.Sprint("i", n), []string{"gold", "tin"}[n%2])
	}
	c := newCopying(t, source, 2)
	c.mustBecomeEqual()
	eventually(t, "a copy that is whole", func() bool { return c.registry.Region(here).Cursor.Revision != 0 }) // else all is told for another reason
	becomes := func(what string, want ...string) {
		t.Helper()
		var got []string
		defer func() {
			if t.Failed() {
				t.Logf("the last was %q", got)
			}
		}()
		eventually(t, what, func() bool {
			got = nil
			for line := range strings.Lines(has(t, c.registry, "here")) {
				name, _, _ := strings.Cut(line, " ")
				got = append(got, name)
			}
			return slices.Equal(got, want)
		})
		mustEqual(t, "whether anything is held", c.registry.Region(here).Held, registry.HeldSweep{})
	}

	c.lead(-1) // the next leader has other settings
	c.importers[1].sources[0].Wanted = selects(t, "prod/s0", "*/* tier=tin")
	c.importers[1].sources[0].wants = exports(t, "prod/s0", "*/* tier=tin")
	c.lead(1)
	s0, s1, s3 := []string{"prod/s0/i0", "prod/s0/i12", "prod/s0/i4", "prod/s0/i8"}, []string{"prod/s1/i13", "prod/s1/i5", "prod/s1/i9"}, []string{"prod/s3/i11", "prod/s3/i15", "prod/s3/i3", "prod/s3/i7"}
	becomes("what is wanted", slices.Concat(s0, []string{"prod/s1/i1"}, s1, s3)...)
	at.labelled("s1", "i1", "gold")
	at.labelled("s2", "i2", "tin")
	becomes("what has changed", slices.Concat(s0, s1, []string{"prod/s2/i2"}, s3)...)

	at.restart(Config{Token: token, Exports: exports(t, "prod/s2", "prod/s3")}, nil)
	becomes("what is exported", slices.Concat([]string{"prod/s2/i2"}, s3)...)
	mustEqual(t, "full syncs for other selections", counted(t, c.metrics[1], "full_syncs_total", "selections"), 2)
	at.restart(Config{Token: token}, nil)
	becomes("what is wanted again", slices.Concat(s0, s1, []string{"prod/s2/i2"}, s3)...)
}
