package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// ctl runs stellmapctl against a server to its end.
func ctl(t *testing.T, server string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "stellmapctl"), append([]string{"--server", server}, args...)...)
	cmd.Env = process.Environment()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// What the README lets a newcomer type works: dev, register --keep, get, status; a kept lease outlives its
// TTL, and Ctrl-C takes the instance away.
func TestByHand(t *testing.T) {
	c := newClusterWith(t, 1, func(m *member) { m.command = append(m.command, "dev") })
	m := c.members[0]
	const ttl = time.Second
	keep, err := process.Start(process.Options{Name: "keep", Path: filepath.Join(bin, "stellmapctl"), Logs: t.TempDir(),
		Args: []string{"--server", m.url(), "register", "orders", "--id", "orders-1", "--addr", "127.0.0.1:9001", "--ttl", ttl.String(), "--keep"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := keep.Kill(); err != nil {
			t.Error(err)
		}
	})
	begin := time.Now()
	if _, err := process.Within(t.Context(), readyTime, "a kept lease to outlive its TTL", func() error {
		a, err := c.call(t.Context(), http.MethodGet, instanceURL(m, "orders", "orders-1"), "")
		if err != nil || a.status != http.StatusOK {
			return fmt.Errorf("%d %s %v; it says: %s", a.status, a.body, err, keep.Output())
		}
		if !strings.Contains(string(a.body), `"passing"`) {
			t.Fatalf("after %v the instance is %s", time.Since(begin), a.body)
		}
		if time.Since(begin) < 3*ttl {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"get", "services"}, {"get", "instances", "orders"}, {"version"}} {
		code, out, errs := ctl(t, m.url(), args...)
		if code != 0 || out == "" {
			t.Errorf("stellmapctl %v: exit code %d\n%s%s", args, code, out, errs)
		}
		if args[0] == "get" && !strings.Contains(out, "orders") {
			t.Errorf("stellmapctl %v does not show orders:\n%s", args, out)
		}
	}
	if err := keep.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := keep.ExitCode(); code != 0 {
		t.Errorf("after Ctrl-C register --keep ends with %d:\n%s", code, keep.Output())
	}
	c.must(http.MethodGet, instanceURL(m, "orders", "orders-1"), "", http.StatusNotFound)
}

// Scripts can tell from the exit code what went wrong, and stderr says it.
func TestExitCodes(t *testing.T) {
	c := newCluster(t, 1)
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	nobody := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	for _, one := range []struct {
		name, server string
		args         []string
		want         int
	}{
		{"unknown command", c.members[0].url(), []string{"frobnicate"}, 2},
		{"unknown flag", c.members[0].url(), []string{"status", "--frobnicate"}, 2},
		{"nobody there", nobody, []string{"status"}, 5},
		{"nobody there to write", nobody, []string{"register", "orders", "--id", "a", "--addr", "127.0.0.1:1"}, 5},
	} {
		t.Run(one.name, func(t *testing.T) {
			code, _, errs := ctl(t, one.server, one.args...)
			if code != one.want || errs == "" {
				t.Errorf("exit code %d, want %d; stderr %q", code, one.want, errs)
			}
		})
	}
}
