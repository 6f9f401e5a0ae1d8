package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// newLink is a way to an address that can be cut, until the test ends.
func newLink(t *testing.T, to string) *process.Link {
	t.Helper()
	l, err := process.NewLink(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// inRegion gives the members of a cluster a region, and more settings.
func inRegion(t *testing.T, region string, cluster int, more string) func(*member) {
	return func(m *member) {
		text, err := os.ReadFile(m.config)
		if err == nil {
			own := strings.NewReplacer(`region = "local"`, fmt.Sprintf("region = %q", region), "cluster_id = 100", fmt.Sprintf("cluster_id = %d", cluster)).Replace(string(text))
			err = os.WriteFile(m.config, []byte(own+more), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A regionCopy is what a member says of its copy of another region.
type regionCopy struct {
	Connected bool
	AgeMs     int64
	Revision  uint64
	FullSync  bool
	Instances int
	Source    struct{ Address string }
	Problem   struct{ Code string }
}

func (c *cluster) copyIn(m *member) (of regionCopy) {
	c.t.Helper()
	var all struct{ Regions []regionCopy }
	a, err := c.page(m, "/api/v2/federation")
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(a.body, &all); err != nil || len(all.Regions) != 1 {
		c.t.Fatalf("%s says of other regions: %s, %v", m.name(), a.body, err)
	}
	return all.Regions[0]
}

// TestARegionHasACopyOfAnother shows a region of three members that follows another:
// what is registered there is found here, at any member and whoever leads; while the
// link is cut the copy stays and ages, and what has gone meanwhile goes when it is back.
func TestARegionHasACopyOfAnother(t *testing.T) {
	b := newClusterWith(t, 1, inRegion(t, "b", 200, ""))
	way := newLink(t, b.members[0].address(2))
	a := newClusterWith(t, 3, inRegion(t, "a", 100, fmt.Sprintf("[[federation.regions]]\nregion = \"b\"\ncluster_id = 200\ngrpc = [%q]\n", way.Address())))
	put := func(id, value string) {
		t.Helper()
		b.must(http.MethodPut, instanceURL(b.members[0], "orders", id), registration(9000, value), http.StatusOK, http.StatusCreated)
	}
	has := func(m *member, ids ...string) {
		t.Helper()
		_, err := process.Within(t.Context(), readyTime, "the copy", func() error {
			got, err := a.call(t.Context(), http.MethodGet, m.url()+"/api/v2/instances?region=b&fields=instanceId&consistency=stale", "")
			if err != nil {
				return err
			}
			if n := strings.Count(string(got.body), "instanceId"); n != len(ids) {
				return fmt.Errorf("%s has %d instances of the other region, want %v: %s", m.name(), n, ids, got.body)
			}
			for _, id := range ids {
				if !strings.Contains(string(got.body), fmt.Sprintf("%q", "b/200/"+id)) {
					return fmt.Errorf("%s lacks %s: %s", m.name(), id, got.body)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("one", "first")
	put("two", "first")
	for _, m := range a.members {
		has(m, "one", "two")
	}
	a.must(http.MethodPut, instanceURL(a.members[0], "orders", "one"), registration(9001, "ours"), http.StatusOK, http.StatusCreated)
	has(a.members[0], "one", "two")

	way.Set(true)
	b.must(http.MethodDelete, instanceURL(b.members[0], "orders", "one"), "", http.StatusOK, http.StatusNoContent)
	put("three", "second")
	leader := a.leader(a.members...)
	before := a.copyIn(leader)
	_, err := process.Within(t.Context(), readyTime, "a copy that ages", func() error {
		if now := a.copyIn(leader); now.AgeMs < before.AgeMs+1500 {
			return fmt.Errorf("it is %d ms old, and was %d", now.AgeMs, before.AgeMs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	has(leader, "one", "two")
	for _, m := range a.members { // those that do not lead ask the one that does
		_, err := process.Within(t.Context(), readyTime, "a word of why", func() error {
			if of := a.copyIn(m); of.Problem.Code != "unreachable" || of.Source.Address != way.Address() {
				return fmt.Errorf("%s says %+v", m.name(), of)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	a.kill(leader)
	way.Set(false)
	for _, m := range a.others(leader) {
		has(m, "two", "three")
	}
	a.must(http.MethodGet, instanceURL(a.others(leader)[0], "orders", "one"), "", http.StatusOK)
	_, err = process.Within(t.Context(), readyTime, "a connected copy", func() error {
		if of := a.copyIn(a.others(leader)[0]); !of.Connected || of.AgeMs > 12*time.Second.Milliseconds() {
			return fmt.Errorf("it is %+v", of)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
