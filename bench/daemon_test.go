package bench

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// daemon is a stellmapd process that ends with the benchmark.
type daemon struct {
	bin, data, log string
	args           []string
	http, xds      string
	client         *http.Client
	process        *exec.Cmd
}

// readyMax is how long a start may take.
const readyMax = 60 * time.Second

// startDaemon builds and starts a node with its data on disk.
func startDaemon(b *testing.B, args ...string) *daemon {
	b.Helper()
	dir := b.TempDir()
	d := &daemon{bin: filepath.Join(dir, "stellmapd"), data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log")}
	build := exec.Command("go", "build", "-o", d.bin, "../cmd/stellmapd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build stellmapd: %v\n%s", err, out)
	}
	ports := freePorts(b, 4)
	d.http, d.xds = ports[0], ports[1]
	d.args = append([]string{"--data-dir", d.data, "--http-addr", ports[0],
		"--xds-addr", ports[1], "--grpc-addr", ports[2], "--admin-addr", ports[3], "--log-level", "warn"}, args...)
	d.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: registrars}}
	d.start(b)
	b.Cleanup(func() { d.kill(b) })
	return d
}

// start starts it and waits until it is ready.
func (d *daemon) start(b *testing.B) {
	b.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	d.process = exec.Command(d.bin, d.args...)
	d.process.Stdout, d.process.Stderr = log, log
	if err := d.process.Start(); err != nil {
		b.Fatal(err)
	}
	for deadline := time.Now().Add(readyMax); ; {
		if r, err := d.client.Get("http://" + d.http + "/readyz"); err == nil {
			ready := r.StatusCode == http.StatusOK
			drain(b, r.Body)
			if ready {
				return
			}
		}
		if time.Now().After(deadline) {
			text, err := os.ReadFile(d.log)
			b.Fatalf("stellmapd is not ready: %s %v", text, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends it with SIGKILL.
func (d *daemon) kill(b *testing.B) {
	b.Helper()
	if d.process == nil {
		return
	}
	if err := d.process.Process.Kill(); err != nil {
		b.Error(err)
	}
	if err := d.process.Wait(); err == nil {
		b.Error("stellmapd had ended by itself")
	}
	d.process = nil
}

// metric reads one value of /metrics.
func (d *daemon) metric(b *testing.B, name string) float64 {
	b.Helper()
	r, err := d.client.Get("http://" + d.http + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				b.Fatal(err)
			}
			return f
		}
	}
	b.Fatalf("/metrics does not have %s", name)
	return 0
}

// memory is what the kernel says of the process, in bytes: VmRSS, VmHWM, RssAnon.
func (d *daemon) memory(b *testing.B, what string) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, err := fmt.Sscanf(line, what+": %d kB", &kb); n == 1 && err == nil {
			return kb << 10
		}
	}
	b.Fatalf("the kernel does not tell %s", what)
	return 0
}
