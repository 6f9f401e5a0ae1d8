package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

var away = flag.Int("away", 5_000, "how many entries a follower misses")

const (
	awayWriters = 32
	awayKills   = 3 // of the follower while it is sent a snapshot
	awayTime    = 60 * time.Second
)

// A follower that was away while the others cut what it lacks is sent a
// snapshot, and killed while it is sent some more times. When it is left alone it
// comes back, and its state is the others', as they find out by comparing.
func TestAFollowerThatWasAwayComesBackBySnapshot(t *testing.T) {
	random := seed(t)
	c := newClusterWith(t, 3, func(m *member) {
		m.command = append(m.command, "--snapshot-entries", fmt.Sprint(*away/5), "--snapshot-tail", "100", "--storage-segment", "64KiB", "--check-every", "1s")
	})
	leader := c.leader(c.members...)
	var follower *member
	for _, m := range c.members {
		if m != leader {
			follower = m
		}
	}
	c.kill(follower)
	began := time.Now()
	c.fill(leader, *away)
	t.Logf("%d entries were written in %v while n%d was away", *away, time.Since(began).Round(time.Millisecond), follower.id)

	// What is not flushed is not cut; a clean stop flushes.
	var rest []*member
	for _, m := range c.members {
		if m != follower {
			rest = append(rest, m)
		}
	}
	for _, m := range rest {
		if err := m.proc.Stop(stopTime); err != nil {
			t.Fatal(err)
		}
		c.start(m)
		c.readyOne(m)
	}
	for _, m := range rest {
		if _, err := process.Within(t.Context(), awayTime, m.name()+" to cut its log", func() error { return c.hasCutItsLog(m) }); err != nil {
			t.Fatal(err)
		}
	}
	leader = c.leader(rest...)

	for range awayKills {
		c.start(follower)
		within := time.Duration(random.Int64N(int64(200 * time.Millisecond)))
		<-time.After(within)
		c.kill(follower)
	}
	c.start(follower)
	began = time.Now()
	c.readyOne(follower)
	t.Logf("ready %v after its start", time.Since(began).Round(time.Millisecond))
	if err := c.wasSentASnapshot(follower, rest); err != nil {
		t.Errorf("%v\n%s", err, follower.proc.Tail(20))
	}
	after := c.must(http.MethodPut, instanceURL(leader, "away", "last"), registration(9000, "last"), http.StatusCreated).revision
	if _, err := process.Within(t.Context(), awayTime, "the members to find their states equal", func() error { return c.statesEqual(follower, after) }); err != nil {
		t.Error(err)
	}
	a := c.must(http.MethodGet, instanceURL(follower, "away", fmt.Sprint(*away-1)), "", http.StatusOK)
	if value, err := valueOf(a); err != nil || value != fmt.Sprint(*away-1) {
		t.Errorf("the last instance that it missed reads %q there: %v", value, err)
	}
}

// wasSentASnapshot tells whether one of the others brought a snapshot to a member, or
// it says itself that it took one over. A kill between the two leaves only the
// first: the next start finds the new state and has nothing to say of it.
func (c *cluster) wasSentASnapshot(m *member, others []*member) error {
	signs := map[*member][]string{m: {"snapshot installed", "install of the snapshot"}}
	for _, o := range others {
		signs[o] = []string{fmt.Sprintf(`msg="snapshot brought to a member" node=%d `, m.id)}
	}
	for o, texts := range signs {
		content, err := os.ReadFile(o.proc.Log)
		if err != nil {
			return err
		}
		for _, text := range texts {
			if strings.Contains(string(content), text) {
				return nil
			}
		}
	}
	return errors.New("it did not come back by a snapshot: nobody tells of one")
}

// hasCutItsLog tells whether a member's log begins after what the follower has.
func (c *cluster) hasCutItsLog(m *member) error {
	a, err := c.call(c.t.Context(), http.MethodGet, m.url()+"/metrics", "")
	if err != nil {
		return err
	}
	found := regexp.MustCompile(`(?m)^stellmap_raft_log_first_index (\S+)$`).FindStringSubmatch(string(a.body))
	if found == nil {
		return errors.New("it does not say where its log begins")
	}
	if first, err := strconv.ParseFloat(found[1], 64); err != nil || first < 100 {
		return fmt.Errorf("it begins at %s: %w", found[1], err)
	}
	return nil
}

// fill registers so many instances, many at a time.
func (c *cluster) fill(m *member, total int) {
	c.t.Helper()
	var next atomic.Int64
	var writers sync.WaitGroup
	for range awayWriters {
		writers.Go(func() {
			for n := int(next.Add(1)) - 1; n < total; n = int(next.Add(1)) - 1 {
				a, err := c.call(c.t.Context(), http.MethodPut, instanceURL(m, "away", fmt.Sprint(n)), registration(9000, fmt.Sprint(n)))
				if err == nil {
					err = a.want(http.StatusCreated)
				}
				if err != nil {
					c.t.Errorf("register %d: %v", n, err)
					return
				}
			}
		})
	}
	writers.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// statesEqual tells whether all three were compared after a revision.
func (c *cluster) statesEqual(m *member, after uint64) error {
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://"+m.address(3)+"/admin/v1/status", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+m.token(c.t))
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Data struct {
			StateCheck struct {
				Index uint64
				Equal []uint64
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if check := answer.Data.StateCheck; check.Index <= after || len(check.Equal) != len(c.members) {
		return fmt.Errorf("they were compared after entry %d, and are equal on %v; the last write is entry %d", check.Index, check.Equal, after)
	}
	return nil
}
