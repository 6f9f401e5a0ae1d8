package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// writesAgain is how long three members may go without acknowledging a write
// after their leader was killed.
const writesAgain = 5 * time.Second

// What is registered at one member is read at another at once; when the leader is killed with -9,
// writes go on within seconds and nothing acknowledged is missing, before and after it comes back.
func TestThreeMembersOutliveTheirLeader(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader(c.members...)
	others := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == leader })

	const before = 50
	for i := range before {
		id := fmt.Sprintf("i-%d", i)
		c.must(http.MethodPut, instanceURL(others[i%2], "orders", id), registration(9000, id), http.StatusOK, http.StatusCreated)
		c.expect(others[(i+1)%2], "orders", id, id)
	}

	c.kill(leader)
	took, tries := c.writeAgain("after", others...)
	t.Logf("leader %s killed; acknowledged again after %v, at try %d", leader.name(), took.Round(time.Millisecond), tries)

	everything := func(at *member) {
		t.Helper()
		for i := range before {
			id := fmt.Sprintf("i-%d", i)
			c.expect(at, "orders", id, id)
		}
		c.expect(at, "orders", "after", "after")
	}
	everything(others[0])
	everything(others[1])
	c.start(leader)
	c.mustBeReady()
	everything(leader)

	c.kill(c.members...)
	for _, m := range c.members {
		c.start(m)
	}
	c.mustBeReady()
	everything(c.members[0])
}

// expect reads an instance at a member, linearizably, and compares its value.
func (c *cluster) expect(m *member, service, id, value string) {
	c.t.Helper()
	a := c.must(http.MethodGet, instanceURL(m, service, id), "", http.StatusOK)
	got, err := valueOf(a)
	if err != nil || got != value {
		c.t.Fatalf("%s at %s is %q (%v), want %q: %s", id, m.name(), got, err, value, a.body)
	}
}

// All members are killed with -9 at a random moment under load, over and over: every acknowledged
// registration is there with its last value, every acknowledged deregistration stays gone, and the
// start says what it replayed.
func TestNothingAcknowledgedIsLostByKills(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("members=%d", size), func(t *testing.T) { endUnderLoad(t, size, crash) })
	}
}

// The same with SIGTERM: the members end by themselves with exit code 0, and nothing is missing.
func TestNothingAcknowledgedIsLostByACleanStop(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("members=%d", size), func(t *testing.T) { endUnderLoad(t, size, stop) })
	}
}

const (
	rounds       = 3
	acksMin      = 100 // before the members are ended
	acksMoreMost = 600 // and up to so many more
)

// endUnderLoad ends all members in the middle of writes and checks what they have after a restart.
func endUnderLoad(t *testing.T, size int, end func(*cluster)) {
	random := seed(t)
	c := newClusterWith(t, size, func(m *member) { // so small that the end comes between snapshots, segments and cuts of the log
		m.command = append(m.command, "--snapshot-entries", "100", "--snapshot-tail", "20", "--storage-segment", "64KiB")
	})
	last := make(map[string]history)
	for round := range rounds {
		w := startWriters(c, random, round, last)
		w.wait(t, acksMin+random.IntN(acksMoreMost))
		end(c)
		w.stop()
		t.Logf("round %d: %d writes acknowledged", round, w.acknowledged())
		for _, m := range c.members {
			c.start(m)
		}
		c.mustBeReady()
		for _, m := range c.members {
			if !replayed.MatchString(m.proc.Output()) {
				t.Errorf("the start of %s does not say what it replayed:\n%s", m.name(), m.proc.Output())
			}
		}
		c.check(random, last)
	}
}

// replayed is the sentence of the banner.
var replayed = regexp.MustCompile(`replayed \d+ log entries above the state at \d+`)

func crash(c *cluster) { c.t.Helper(); c.kill(c.members...) }

// stop asks all members to end and waits for it.
func stop(c *cluster) {
	c.t.Helper()
	for _, m := range c.members {
		if err := m.proc.Signal(15); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, m := range c.members {
		if err := m.proc.Stop(stopTime); err != nil {
			c.t.Fatal(err)
		}
		if code := m.proc.ExitCode(); code != 0 {
			c.t.Errorf("%s ended with exit code %d after SIGTERM:\n%s", m.name(), code, m.proc.Tail(10))
		}
	}
}

// A voter whose data folder was emptied does not vote again: its peers refuse it, it exits 1 and names
// the command that replaces it, and they go on.
func TestAnEmptiedVoterIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.must(http.MethodPut, instanceURL(c.members[0], "orders", "a"), registration(9000, "1"), http.StatusOK, http.StatusCreated)
	victim := c.leader(c.members...) // the worst to lose: the others must elect, too
	rest := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == victim })
	if err := victim.proc.Stop(stopTime); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(victim.dataDir()); err != nil {
		t.Fatal(err)
	}
	c.start(victim)
	if _, err := process.Within(t.Context(), readyTime, "the emptied member to end", func() error {
		if victim.proc.Running() {
			return fmt.Errorf("it runs and says:\n%s", victim.proc.Tail(5))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	said := victim.proc.Output()
	if code := victim.proc.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1:\n%s", code, said)
	}
	if !strings.Contains(said, "stellmapctl member") {
		t.Errorf("it does not name the command that replaces it:\n%s", said)
	}
	c.writeAgain("after", rest...)
	for i, m := range rest {
		c.expect(m, "orders", "after", "after")
		value := fmt.Sprint("again", i)
		c.must(http.MethodPut, instanceURL(m, "orders", "a"), registration(9000, value), http.StatusOK)
		c.expect(rest[1-i], "orders", "a", value)
	}
}

// All members come back on other ports, which only their files know: they find each other all the same.
func TestAllMembersMayMoveAtOnce(t *testing.T) {
	c := newCluster(t, 3)
	c.must(http.MethodPut, instanceURL(c.members[0], "orders", "a"), registration(9000, "1"), http.StatusCreated)
	stop(c)
	ports, err := freeport.Find(4 * len(c.members))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range c.members {
		m.ports = [4]int(ports[4*i:])
	}
	for _, m := range c.members {
		if err := os.WriteFile(m.config, []byte(c.configOf(m)), 0o644); err != nil {
			t.Fatal(err)
		}
		c.start(m)
	}
	c.mustBeReady()
	for _, m := range c.members {
		c.expect(m, "orders", "a", "1")
	}
}

// writeAgain registers an instance of that id and value, trying one member after the other until one acknowledges.
func (c *cluster) writeAgain(id string, at ...*member) (took time.Duration, tries int) {
	c.t.Helper()
	took, err := process.Within(c.t.Context(), writesAgain, "an acknowledged write", func() error {
		tries++
		a, err := c.call(c.t.Context(), http.MethodPut, instanceURL(at[tries%len(at)], "orders", id), registration(9000, id))
		if err != nil {
			return err
		}
		return a.want(http.StatusOK, http.StatusCreated)
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return took, tries
}
