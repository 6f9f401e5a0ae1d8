package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// demoTime is how long the demo may take to end, building left out: it fails by itself after 75 s.
const demoTime = 90 * time.Second

// demoReport is what demo.json says.
type demoReport struct {
	Verdict string         `json:"verdict"`
	Reason  string         `json:"reason"`
	Ports   map[string]int `json:"ports"`
	Steps   []demoStep     `json:"steps"`
}

type demoStep struct {
	Name    string             `json:"name"`
	Verdict string             `json:"verdict"`
	Detail  string             `json:"detail"`
	Millis  map[string]float64 `json:"milliseconds"`
	Counts  map[string]int     `json:"counts"`
}

func startDemo(t *testing.T) (p *process.Process, work string) {
	t.Helper()
	envoy := envoyPath(t)
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	work = filepath.Join(t.TempDir(), "demo")
	p, err = process.Start(process.Options{
		Name: "demo", Path: filepath.Join(bin, "demo"), Args: []string{"--bin", bin, "--work", work},
		Env: []string{"ENVOY_BIN=" + envoy, "KEEP="}, Dir: top, Logs: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p, work
}

func readReport(t *testing.T, work string) demoReport {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(work, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r demoReport
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("read demo.json: %v", err)
	}
	return r
}

// The demo passes: a registration becomes traffic through a real Envoy, another region serves when all
// in one are dead, only kills of upstreams cost requests, Envoy rejects nothing, and nothing is left running.
func TestTheDemoPasses(t *testing.T) {
	p, work := startDemo(t)
	if _, err := process.Within(t.Context(), demoTime, "the demo to end", func() error {
		if p.Running() {
			return fmt.Errorf("it runs and says:\n%s", p.Output())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", p.Output())
	r := readReport(t, work)
	if p.ExitCode() != 0 || r.Verdict != "PASS" || !strings.Contains(p.Output(), "\nPASS") {
		t.Fatalf("exit code %d, verdict %q: %s", p.ExitCode(), r.Verdict, r.Reason)
	}
	r.check(t)
	for name, port := range r.Ports {
		if err := closed(port); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// check looks at what the demo has measured, whatever it thinks of it.
func (r demoReport) check(t *testing.T) {
	t.Helper()
	steps := make(map[string]demoStep)
	for _, s := range r.Steps {
		steps[s.Name] = s
		if s.Verdict != "ok" {
			t.Errorf("step %s: %s", s.Name, s.Verdict)
		}
	}
	kills := []string{"kill", "failover", "alone"}
	for _, name := range append([]string{"register", "configure", "request", "add", "expire", "deregister", "outage", "restart", "change",
		"region", "cut", "heal", "home", "blackout", "back"}, kills...) {
		s, ok := steps[name]
		if !ok {
			t.Errorf("step %s is missing", name)
		}
		if s.Counts["failed"] != 0 && !slices.Contains(kills, name) {
			t.Errorf("step %s: %d requests failed", name, s.Counts["failed"])
		}
	}
	if c := steps["configure"].Counts; c["updates"] == 0 || c["rejected"] != 0 {
		t.Errorf("after the start Envoy took %d updates and rejected %d", c["updates"], c["rejected"])
	}
	if c := steps["change"].Counts; c["rejected"] != 0 || c["orders-3"] == 0 {
		t.Errorf("at the end Envoy had rejected %d updates, and orders-3 answered %d requests", c["rejected"], c["orders-3"])
	}
	for _, id := range []string{"orders-1", "orders-2", "orders-3"} {
		if steps["add"].Counts[id] == 0 {
			t.Errorf("with three instances %s answered nothing", id)
		}
	}
	if c := steps["outage"].Counts; c["requests"] == 0 {
		t.Error("no request was sent while stellmapd was down")
	}
	for _, name := range []string{"failover", "cut", "alone"} {
		if c := steps[name].Counts; c["orders-b1"] == 0 || c["orders-b2"] == 0 {
			t.Errorf("step %s: the other region served nothing: %v", name, c)
		}
	}
	for _, name := range []string{"home", "back"} {
		if c := steps[name].Counts; c["orders-1"] == 0 || c["orders-2"] == 0 || c["orders-3"] == 0 {
			t.Errorf("step %s: not all came home: %v", name, c)
		}
	}
	if c := steps["blackout"].Counts; c["requests"] == 0 || c["orders-b1"] > 0 {
		t.Errorf("without its control plane a's Envoy sent its requests to %v", c)
	}
	if c := steps["back"].Counts; c["updates"] == 0 || c["rejected"] != 0 {
		t.Errorf("b's Envoy took %d updates and rejected %d", c["updates"], c["rejected"])
	}
	if steps["restart"].Counts["kept"] != 2 {
		t.Errorf("after the restart %d instances were there, want 2", steps["restart"].Counts["kept"])
	}
}

// closed is nil when nobody listens on a port.
func closed(port int) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil
	}
	return fmt.Errorf("somebody listens on %d (%v)", port, conn.Close())
}

// However the demo is ended in the middle, it takes all that it started along.
func TestAnInterruptedDemoLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		exit   int
	}{
		{syscall.SIGINT, 1},
		{syscall.SIGKILL, -1},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			p, work := startDemo(t)
			ports := listening(t, p, work)
			if err := p.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			if code := p.ExitCode(); code != c.exit {
				t.Errorf("exit code %d, want %d:\n%s", code, c.exit, p.Output())
			}
			for _, port := range ports {
				if _, err := process.Within(t.Context(), stopTime, "all ports to be closed", func() error { return closed(port) }); err != nil {
					t.Error(err)
				}
			}
			if c.signal == syscall.SIGINT && readReport(t, work).Verdict != "FAIL" {
				t.Error("an interrupted demo is no PASS")
			}
		})
	}
}

// listening waits until the demo has an Envoy, and finds the ports in its output.
func listening(t *testing.T, p *process.Process, work string) []int {
	t.Helper()
	if _, err := process.Within(t.Context(), demoTime, "the demo to start Envoy", func() error {
		if !p.Running() {
			return fmt.Errorf("it ended:\n%s", p.Output())
		}
		if _, err := os.Stat(filepath.Join(work, "envoy.log")); err != nil {
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var ports []int
	for line := range strings.Lines(p.Output()) {
		for _, name := range []string{"stellmapd", "envoy"} { // those of either region
			if !strings.HasPrefix(line, "    "+name) {
				continue
			}
			for _, word := range strings.Fields(line) {
				if port, err := strconv.Atoi(word); err == nil {
					ports = append(ports, port)
				}
			}
		}
	}
	if want := 2 * (4 + 2); len(ports) != want {
		t.Fatalf("the demo prints %d ports, not %d:\n%s", len(ports), want, p.Output())
	}
	return ports
}
