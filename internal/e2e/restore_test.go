package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// revisionStep is what the revisions of a restored cluster begin at a multiple of.
const revisionStep = 1 << 40

// token is what the member's administration asks for.
func (m *member) token(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dataDir(), "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// incarnation is the cluster's, as the member's administration has it. A new
// cluster has one a moment after it is ready.
func (c *cluster) incarnation(m *member) (found string) {
	c.t.Helper()
	if _, err := process.Within(c.t.Context(), readyTime, m.name()+" to know its incarnation", func() (err error) {
		found, err = c.askIncarnation(m)
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return found
}

func (c *cluster) askIncarnation(m *member) (string, error) {
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/admin/v1/status", m.ports[3]), nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+m.token(c.t))
	response, err := c.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct{ Data struct{ Incarnation string } }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Data.Incarnation == "" {
		return "", fmt.Errorf("it answers %d without one: %w", response.StatusCode, err)
	}
	return answer.Data.Incarnation, nil
}

// save has stellmapctl save a backup and verify it.
func (c *cluster) save(m *member) string {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "backup")
	for _, args := range [][]string{{"snapshot", "save", file, "--token", m.token(c.t)}, {"snapshot", "verify", file}, {"snapshot", "inspect", file}} {
		if code, out, errs := ctl(c.t, m.url(), args...); code != 0 || out == "" || errs != "" {
			c.t.Fatalf("stellmapctl %v: exit code %d\n%s%s", args[:2], code, out, errs)
		}
	}
	return file
}

// setAside moves a member's data away and returns where to.
func (c *cluster) setAside(m *member) string {
	c.t.Helper()
	aside := m.dataDir() + ".aside"
	if err := os.Rename(m.dataDir(), aside); err != nil {
		c.t.Fatal(err)
	}
	return aside
}

// restore runs stellmapd restore with a member's configuration and returns the
// incarnation that it prints.
func (c *cluster) restore(m *member, file string, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(bin, "stellmapd"), append([]string{"restore", "--from", file, "--config", m.config}, args...)...)
	cmd.Env = process.Environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("stellmapd restore: %v\n%s", err, out)
	}
	found := regexp.MustCompile(`now .* incarnation ([0-9a-f]{32})\n`).FindSubmatch(out)
	if found == nil || !strings.Contains(string(out), "stellmapd --config "+m.config+"\n") {
		c.t.Fatalf("it does not say the incarnation, or the next command:\n%s", out)
	}
	return string(found[1])
}

// readyOne waits until one member is ready.
func (c *cluster) readyOne(members ...*member) {
	c.t.Helper()
	for _, m := range members {
		if _, err := process.Within(c.t.Context(), readyTime, m.name()+" to be ready", func() error { return c.isReady(m) }); err != nil {
			c.t.Fatalf("%v\n%s", err, m.proc.Tail(5))
		}
	}
}

// A backup that was saved under load is restored into a new folder, on the same ports: Envoy goes on with
// every cluster of the backup, without one moment without it, and loses what was registered later. Revisions
// go on after 2^40, in another incarnation. The old folder, as kill -9 left it, can be read offline to its
// last record.
func TestEnvoyGoesOnWithARestoredCluster(t *testing.T) {
	c := newCluster(t, 1)
	m := c.members[0]
	const services = 20
	want := make(map[string]map[string]string)
	for i := range services {
		service, port := fmt.Sprintf("s-%d", i), 9000+i
		c.register(service, "a", fmt.Sprintf(`[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}]`, port))
		want[service+".default"] = map[string]string{fmt.Sprintf("127.0.0.1:%d", port): "HEALTHY"}
	}
	e := c.startEnvoy()
	e.has(want)
	last := make(map[string]history)
	w := startWriters(c, seed(t), 0, last)
	w.wait(t, acksMin)
	file := c.save(m)
	w.wait(t, 2*acksMin)
	w.stop()
	late := c.must(http.MethodPut, instanceURL(m, "late", "a"), registration(9500, ""), http.StatusCreated)
	e.hasCluster("late.default", true)
	old := c.incarnation(m)

	c.kill(m)
	stop := e.watch(want)
	aside := c.setAside(m)
	made := c.restore(m, file)
	c.start(m)
	c.mustBeReady()
	if now := c.incarnation(m); now == old || now != made {
		t.Errorf("the incarnation is %s, it was %s, and restore said %s", now, old, made)
	}
	e.hasCluster("late.default", false)
	// Envoy keeps the version of what has not changed, so the routes are looked at, which have.
	e.until("routes of the new incarnation", func() error {
		text, err := e.dump("resource=dynamic_route_configs")
		if err == nil && (strings.Contains(text, old) || !strings.Contains(text, made)) {
			err = fmt.Errorf("they are of another: %.300s", text)
		}
		return err
	})
	again := c.must(http.MethodPut, instanceURL(m, "later", "a"), registration(9501, ""), http.StatusCreated)
	if late.revision >= revisionStep || again.revision <= revisionStep {
		t.Errorf("a write has revision %d before and %d after", late.revision, again.revision)
	}
	c.must(http.MethodGet, instanceURL(m, "late", "a"), "", http.StatusNotFound)
	e.hasCluster("later.default", true)
	if err := stop(); err != nil {
		t.Error(err)
	}
	e.noNACK()

	for _, args := range [][]string{{"debug", "wal", aside}, {"debug", "db", aside}, {"debug", "wal", aside, "-o", "jsonl"}} {
		if code, out, errs := ctl(t, m.url(), args...); code != 0 || out == "" || errs != "" {
			t.Errorf("stellmapctl %v: exit code %d\n%.300s%s", args, code, out, errs)
		}
	}
	if code, _, errs := ctl(t, m.url(), "debug", "db", m.dataDir()); code != 6 || !strings.Contains(errs, "in use by another process") {
		t.Errorf("the folder of a running member is read: exit code %d, %s", code, errs)
	}
	if code, out, errs := ctl(t, m.url(), "debug", "wal", m.dataDir(), "--force"); code != 0 || !strings.Contains(out, "begins after entry 1099511627776") {
		t.Errorf("--force: exit code %d\n%s%s", code, out, errs)
	}
}

// hasCluster waits until Envoy has a cluster, or has it no more.
func (e *envoy) hasCluster(name string, want bool) {
	e.t.Helper()
	e.until(fmt.Sprintf("Envoy to have %s: %v", name, want), func() error {
		config, err := e.admin.Config(e.t.Context())
		if err != nil {
			return err
		}
		for _, n := range config.Clusters {
			if n == name && want {
				return nil
			} else if n == name {
				return errors.New("it is there")
			}
		}
		if want {
			return errors.New("it is not there")
		}
		return nil
	})
}

// watch looks again and again whether Envoy lacks a cluster or an endpoint. The
// function that it returns ends that, and says what was missing.
func (e *envoy) watch(want map[string]map[string]string) func() error {
	ctx, cancel := context.WithCancel(e.t.Context())
	result := make(chan error, 1)
	go func() {
		looks := 0
		for ctx.Err() == nil {
			config, err := e.admin.Config(ctx)
			if err != nil {
				continue // the test has ended, or Envoy has, which others notice
			}
			looks++
			for name, endpoints := range want {
				for address := range endpoints {
					if config.Endpoints[name][address] == "" {
						result <- fmt.Errorf("look %d: Envoy has no %s of %s", looks, address, name)
						return
					}
				}
			}
		}
		if looks < 3 {
			result <- fmt.Errorf("only %d looks at Envoy", looks)
			return
		}
		result <- nil
	}()
	return func() error { cancel(); return <-result }
}

// dump is what Envoy holds of something, with the versions.
func (e *envoy) dump(what string) (string, error) {
	request, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, e.admin.URL+"/config_dump?"+what, nil)
	if err != nil {
		return "", err
	}
	response, err := e.c.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return string(b), err
}

// Three members are restored one by one from one file. One that comes with the old data, or with none, is
// refused by the new cluster, which goes on without it; restored, it belongs.
func TestAnOldMemberIsRefusedByARestoredCluster(t *testing.T) {
	c := newCluster(t, 3)
	first, second, third := c.members[0], c.members[1], c.members[2]
	c.must(http.MethodPut, instanceURL(third, "orders", "a"), registration(9000, "1"), http.StatusCreated)
	c.expect(second, "orders", "a", "1") // a backup is of what its member has, which may be behind
	file := c.save(second)
	c.must(http.MethodPut, instanceURL(third, "orders", "a"), registration(9000, "2"), http.StatusOK)
	old := c.incarnation(first)
	c.kill(c.members...)

	c.setAside(first)
	c.setAside(second)
	made := c.restore(first, file)
	if again := c.restore(second, file, "--incarnation", made); again != made || made == old {
		t.Fatalf("the incarnations are %s, %s and %s", old, made, again)
	}
	for _, m := range c.members {
		c.start(m)
	}
	c.readyOne(first, second)
	c.expect(first, "orders", "a", "1")
	c.writeAgain("new", first, second)
	refused := func(what string) {
		t.Helper()
		if _, err := process.Within(t.Context(), readyTime, what+" to be refused", func() error {
			if !strings.Contains(first.proc.Output()+second.proc.Output()+third.proc.Output(), "incarnation "+made+" of cluster 100") {
				return errors.New("nobody says so")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := c.isReady(third); err == nil {
			t.Errorf("%s is ready", what)
		}
		c.writeAgain("without "+strings.ReplaceAll(what, " ", "-"), first, second)
	}
	refused("the old one")
	c.kill(third)
	c.setAside(third)
	c.start(third)
	refused("an empty one")
	c.kill(third)
	if err := os.RemoveAll(third.dataDir()); err != nil {
		t.Fatal(err)
	}
	c.restore(third, file, "--incarnation", made)
	c.start(third)
	c.mustBeReady()
	c.expect(third, "orders", "new", "new")
	if now := c.incarnation(third); now != made {
		t.Errorf("the third member is of incarnation %s", now)
	}
}

// What a member writes is for its user alone, whatever the umask that it was started with.
func TestDataIsPrivate(t *testing.T) {
	c := newClusterWith(t, 1, func(m *member) {
		m.command = append([]string{"/bin/sh", "-c", `umask 0; exec "$0" "$@"`}, m.command...)
	})
	m := c.members[0]
	c.must(http.MethodPut, instanceURL(m, "orders", "a"), registration(9000, "1"), http.StatusCreated)
	if err := m.proc.Stop(stopTime); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	err := filepath.WalkDir(m.dataDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
		seen[filepath.Ext(path)] = true
		return nil
	})
	if err != nil || !seen[".wal"] || !seen[".json"] || !seen[".token"] || !seen[".sst"] {
		t.Errorf("saw %v, %v", seen, err)
	}
}

// A backup of a running member costs no write: while it is sent over a slow line, registrations go on.
func TestWritesGoOnWhileABackupIsSent(t *testing.T) {
	c := newCluster(t, 1)
	m := c.members[0]
	random := seed(t)
	for i := range 50 {
		value := "" // that nothing makes shorter
		for len(value) < 3000 {
			value += strconv.FormatUint(random.Uint64(), 36)
		}
		c.must(http.MethodPut, instanceURL(m, "orders", fmt.Sprintf("o-%d", i)), registration(9000, value), http.StatusCreated)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/admin/v1/snapshot", m.ports[3]), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+m.token(t))
	response, err := (&http.Client{Transport: c.client.Transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got bytes.Buffer
	for begin := time.Now(); ; {
		n, err := io.CopyN(&got, response.Body, 2000)
		c.must(http.MethodPut, instanceURL(m, "orders", "beside"), registration(9000, fmt.Sprint(got.Len())), http.StatusCreated, http.StatusOK)
		if n < 2000 || err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("after %d bytes: %v", got.Len(), err)
			}
			t.Logf("%d bytes in %v", got.Len(), time.Since(begin).Round(time.Millisecond))
			break
		}
	}
	file := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := ctl(t, m.url(), "snapshot", "verify", file); code != 0 || !strings.Contains(out, "50 instances") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}
