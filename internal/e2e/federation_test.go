package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// A link is a way to an address that can be cut.
type link struct {
	listener net.Listener
	to       string
	moving   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	cut   bool
	conns []net.Conn
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, to: to}
	l.moving.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.set(true)
		l.moving.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // the test is over
		}
		far, err := net.Dial("tcp", l.to)
		if err != nil {
			near.Close()
			continue
		}
		l.join(near, far)
	}
}

// join carries what two ends say to each other, unless the link is cut.
func (l *link) join(near, far net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		near.Close()
		far.Close()
		return
	}
	l.conns = append(l.conns, near, far)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		l.moving.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if errors.Join(err, way[0].Close(), way[1].Close()) != nil {
				return // whoever has closed it has said why
			}
		})
	}
}

// set cuts the link, or heals it.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for _, conn := range l.conns {
		conn.Close()
	}
	l.conns = nil
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
	Instances int
	Source    struct{ Address string }
	Problem   struct{ Code string }
}

func (c *cluster) copyIn(m *member) (of regionCopy) {
	c.t.Helper()
	var all struct{ Regions []regionCopy }
	a := c.must(http.MethodGet, m.url()+"/api/v2/federation", "", http.StatusOK)
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
	a := newClusterWith(t, 3, inRegion(t, "a", 100, fmt.Sprintf("[[federation.regions]]\nregion = \"b\"\ncluster_id = 200\ngrpc = [%q]\n", way.listener.Addr())))
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

	way.set(true)
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
			if of := a.copyIn(m); of.Problem.Code != "unreachable" || of.Source.Address != way.listener.Addr().String() {
				return fmt.Errorf("%s says %+v", m.name(), of)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	a.kill(leader)
	way.set(false)
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
