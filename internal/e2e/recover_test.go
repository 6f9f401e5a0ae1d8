package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/process"
)

// recover runs stellmapd recover with a member's configuration, and answers what it asks.
func (c *cluster) recover(m *member, answer string, args ...string) (said string, err error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(bin, "stellmapd"), append([]string{"recover", "--config", m.config}, args...)...)
	cmd.Env, cmd.Stdin = process.Environment(), strings.NewReader(answer)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// alone rewrites a member's configuration: it is the only one, with data in a new folder.
func (m *member) alone(t *testing.T) {
	t.Helper()
	m.dir = t.TempDir()
	m.config = filepath.Join(m.dir, "stellmapd.toml")
	text := fmt.Sprintf("[node]\nid = %d\ncluster_id = 100\ndata_dir = %q\n[server]\nhttp_addr = \"127.0.0.1:%d\"\nxds_addr = \"127.0.0.1:%d\"\ngrpc_addr = \"127.0.0.1:%d\"\nadmin_addr = \"127.0.0.1:%d\"\n",
		m.id, m.dataDir(), m.ports[0], m.ports[1], m.ports[2], m.ports[3])
	if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// One of three members and its disk are gone when the power fails. The two that
// are left are a majority, so what was acknowledged is in the newer of their
// logs, and nothing of it is lost; a member of the old cluster is refused.
func TestAClusterIsRecoveredFromItsSurvivors(t *testing.T) {
	c := newCluster(t, 3)
	random, last := seed(t), make(map[string]history)
	w := startWriters(c, random, 0, last)
	w.wait(t, acksMin)
	c.kill(c.members...)
	w.stop()
	lost := random.IntN(3)
	if err := os.RemoveAll(c.members[lost].dataDir()); err != nil {
		t.Fatal(err)
	}
	var survivors []string
	var left []*member
	for i, m := range c.members {
		if i != lost {
			survivors = append(survivors, "--from-survivor", m.dataDir())
			left = append(left, m)
		}
	}
	old := *left[1]
	one := left[0]
	one.alone(t)
	if said, err := c.recover(one, "no\n", survivors...); err == nil || !strings.Contains(said, `"no" is not 100: nothing was changed`) {
		t.Fatalf("it goes on without having been told the cluster's id: %v\n%s", err, said)
	}
	if entries, err := os.ReadDir(one.dataDir()); err == nil && len(entries) > 0 {
		t.Fatalf("and it has made %v", entries)
	}
	said, err := c.recover(one, "100\n", survivors...)
	if err != nil || !regexp.MustCompile(`recovered  1 services, up to entry \d+; \d+ entries`).MatchString(said) {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Logf("node %d is lost\n%s", lost+1, said)
	c.members = []*member{one}
	c.start(one)
	c.mustBeReady()
	c.check(random, last)
	if again := c.must(http.MethodPut, instanceURL(one, "later", "a"), registration(9501, ""), http.StatusCreated); again.revision <= revisionStep {
		t.Errorf("a write has revision %d", again.revision)
	}

	// The folder that was taken from is as it was, and its member is refused.
	if said, err := c.recover(one, "100\n", survivors...); err == nil || !strings.Contains(said, "is not empty") {
		t.Errorf("a folder in use was recovered into: %v\n%s", err, said)
	}
	c.start(&old)
	if _, err := process.Within(t.Context(), readyTime, "the old member to be refused", func() error {
		if text := old.proc.Tail(200); !strings.Contains(text, fmt.Sprintf("node %d is refused", one.id)) {
			return fmt.Errorf("it says %s", old.proc.Tail(3))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
