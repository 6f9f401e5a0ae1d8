package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails when a stopped member has left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitMax is how long a member may take for anything that a test waits for.
const waitMax = 20 * time.Second

// process is a stellmapd in this process.
type process struct {
	t      *testing.T
	stop   context.CancelFunc
	ended  chan int // its exit code
	client *http.Client

	mu  sync.Mutex // guards what follows
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// anyPorts have the system choose the ports.
var anyPorts = []string{"--http-addr", "127.0.0.1:0", "--xds-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}

// launch starts a stellmapd; the test's end stops it.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, stop: cancel, ended: make(chan int, 1), client: &http.Client{Timeout: waitMax, Transport: &http.Transport{}}}
	nothing := func(string) (string, bool) { return "", false }
	go func() { p.ended <- run(ctx, args, nothing, p, p) }()
	t.Cleanup(func() {
		if p.stop != nil {
			p.end(exitOK)
		}
		p.client.CloseIdleConnections()
	})
	return p
}

// end stops it and waits for its exit code.
func (p *process) end(want int) {
	p.t.Helper()
	p.stop()
	p.stop = nil
	select {
	case code := <-p.ended:
		if code != want {
			p.t.Errorf("exit code %d, want %d:\n%s", code, want, p.said())
		}
	case <-time.After(waitMax):
		p.t.Fatalf("it has not ended %v after it was asked to:\n%s", waitMax, p.said())
	}
}

// fails waits until it has ended by itself, and returns what it said.
func (p *process) fails(want int) string {
	p.t.Helper()
	select {
	case code := <-p.ended:
		if code != want {
			p.t.Errorf("exit code %d, want %d:\n%s", code, want, p.said())
		}
	case <-time.After(waitMax):
		p.t.Fatalf("it still runs after %v:\n%s", waitMax, p.said())
	}
	p.stop()
	p.stop = nil
	return p.said()
}

// until waits for a condition.
func (p *process) until(what string, condition func() bool) {
	p.t.Helper()
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for deadline := time.Now().Add(waitMax); !condition(); <-ticks.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited %v for %s; it says:\n%s", waitMax, what, p.said())
		}
	}
}

// address is what the banner says after a word.
func (p *process) address(word string) string {
	p.t.Helper()
	line := regexp.MustCompile(`(?m)^  ` + word + ` +(\S+) `)
	p.until("the banner", func() bool { return line.MatchString(p.said()) })
	return line.FindStringSubmatch(p.said())[1]
}

// get reads a page of one of the HTTP ports.
func (p *process) get(word, path string, headers ...string) (status int, body string) {
	p.t.Helper()
	request, err := http.NewRequest(http.MethodGet, p.address(word)+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := p.client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func (p *process) answers(word, path string, want int) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s to answer %d", path, want), func() bool {
		status, _ := p.get(word, path)
		return status == want
	})
}

// Without settings but the ports it is a member that can be registered with, tells all its addresses and what
// it replayed, and ends in order when asked to.
func TestOneNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := launch(t, append(anyPorts, "--data-dir", dir)...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	p.answers("HTTP", "/readyz/xds", http.StatusOK)
	p.answers("admin", "/metrics", http.StatusOK)
	for _, want := range []string{"node 1, one of 1", "new, nothing to be replayed", "authentication is OFF", "stellmapctl --server " + p.address("HTTP") + " register", "bootstrap envoy"} {
		if !strings.Contains(p.said(), want) {
			t.Errorf("%q is missing in:\n%s", want, p.said())
		}
	}
	for _, family := range []string{"go_goroutines", "process_open_fds", "stellmap_raft_term", "stellmap_registry_revision", "stellmap_xds_streams", "stellmap_http_requests_total", "stellmap_grpc_requests_inflight"} {
		if _, body := p.get("HTTP", "/metrics"); !strings.Contains(body, "\n"+family) {
			t.Errorf("/metrics does not have %s", family)
		}
	}
	p.end(exitOK)

	p = launch(t, append(anyPorts, "--data-dir", dir)...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	if !strings.Contains(p.said(), "replayed 0 log entries above the state at") {
		t.Errorf("after a clean stop there is nothing to replay:\n%s", p.said())
	}
}

// The first start makes a token that only the owner can read; administration asks for it, and later starts keep it.
// In dev nobody is asked, and the temporary data are removed at the end.
func TestAdminToken(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, append(anyPorts, "--data-dir", dir)...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	file := filepath.Join(dir, "admin.token")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%s: %v %v", file, info, err)
	}
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.said(), "token in "+file) || strings.Contains(p.said(), strings.TrimSpace(string(token))) {
		t.Errorf("the banner names the file of the token, not the token:\n%s", p.said())
	}
	for _, c := range []struct {
		header string
		want   int
	}{
		{"", http.StatusUnauthorized},
		{"Bearer stellmap", http.StatusUnauthorized},
		{"Bearer " + strings.TrimSpace(string(token)), http.StatusOK},
	} {
		if status, body := p.get("admin", "/admin/v1/status", "Authorization", c.header); status != c.want {
			t.Errorf("with %.10q: %d, want %d: %s", c.header, status, c.want, body)
		}
	}
	p.end(exitOK)
	p = launch(t, append(anyPorts, "--data-dir", dir)...)
	p.address("HTTP")
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, token) {
		t.Errorf("the second start has another token: %v", err)
	}

	dev := launch(t, append([]string{"dev"}, anyPorts...)...)
	if status, body := dev.get("admin", "/admin/v1/status"); status != http.StatusOK {
		t.Errorf("dev asks for a token: %d %s", status, body)
	}
	data := dev.address("data")
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
	dev.end(exitOK)
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("dev left its temporary data: %v", err)
	}
}

// A token file that was cut short is not taken for a weak token.
func TestAShortTokenIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := launch(t, append(anyPorts, "--data-dir", dir)...).fails(exitFailed)
	if !strings.Contains(said, "admin.token holds 5 characters") {
		t.Error(said)
	}
}

// A data directory belongs to one process, and a port that somebody has is named with its key; neither start changes anything.
func TestWhatIsTakenIsTold(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, append(anyPorts, "--data-dir", dir)...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	if said := launch(t, append(anyPorts, "--data-dir", dir)...).fails(exitFailed); !strings.Contains(said, dir+" is in use by another process") {
		t.Error(said)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other := filepath.Join(t.TempDir(), "other")
	args := append([]string{"--data-dir", other}, anyPorts...)
	said := launch(t, append(args, "--xds-addr", taken.Addr().String())...).fails(exitFailed)
	if !strings.Contains(said, "server.xds_addr: listen tcp "+taken.Addr().String()) {
		t.Error(said)
	}
	if found, err := filepath.Glob(filepath.Join(other, "*.json")); err != nil || len(found) > 0 {
		t.Errorf("it began a member though a port was taken: %v %v", found, err)
	}
	p.answers("HTTP", "/readyz", http.StatusOK)
}

// A directory that belongs to another node is refused.
func TestAnotherNodesDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, append(anyPorts, "--data-dir", dir)...)
	p.address("HTTP")
	p.end(exitOK)
	said := launch(t, append(anyPorts, "--data-dir", dir, "--node-id", "2")...).fails(exitFailed)
	if !strings.Contains(said, "belongs to node 1 of cluster 100, and the configuration says node 2") {
		t.Error(said)
	}
}

// A member without a quorum is alive and not ready. New proxies wait, until it has been without a leader for
// xds.stale_start_after: then its last state has to do.
func TestAMemberWithoutAQuorum(t *testing.T) {
	ports := freePorts(t, 8)
	dir := t.TempDir()
	var file strings.Builder
	fmt.Fprintf(&file, "[node]\ndata_dir = %q\n[server]\nhttp_addr = %q\nxds_addr = %q\ngrpc_addr = %q\nadmin_addr = %q\n[xds]\nstale_start_after = \"3s\"\n",
		filepath.Join(dir, "data"), ports[0], ports[1], ports[2], ports[3])
	for i := range 2 {
		fmt.Fprintf(&file, "[[cluster.members]]\nid = %d\nhttp = %q\nxds = %q\ngrpc = %q\nadmin = %q\n", i+1, ports[4*i], ports[4*i+1], ports[4*i+2], ports[4*i+3])
	}
	path := filepath.Join(dir, "stellmapd.toml")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "--config", path)
	if status, body := p.get("HTTP", "/readyz/xds"); status != http.StatusServiceUnavailable {
		t.Errorf("new proxies are served at once by a member that knows nothing: %d %s", status, body)
	}
	p.answers("HTTP", "/livez", http.StatusOK)
	p.answers("HTTP", "/readyz", http.StatusServiceUnavailable)
	p.answers("HTTP", "/readyz/xds", http.StatusOK)
	if !strings.Contains(p.said(), "serving ADS from the last committed state") {
		t.Errorf("it does not say so:\n%s", p.said())
	}
	p.answers("HTTP", "/readyz", http.StatusServiceUnavailable)
}

// Mistakes on the command line are told and start nothing.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--frobnicate"}, "unknown flag: --frobnicate"},
		{[]string{"frobnicate"}, "frobnicate"},
		{[]string{"dev", "now"}, `takes no argument, got "now"`},
		{[]string{"--config", filepath.Join(t.TempDir(), "none.toml")}, "no such file"},
		{[]string{"--http-addr", "0.0.0.0:8080"}, "flag --http-addr  server.http_addr:"},
	} {
		if said := launch(t, c.args...).fails(exitUsage); !strings.Contains(said, c.want) {
			t.Errorf("%v: %q is missing in:\n%s", c.args, c.want, said)
		}
	}
}
