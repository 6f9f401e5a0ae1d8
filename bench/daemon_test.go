package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// daemon is a stellmapd process that ends with the benchmark.
type daemon struct {
	bin, data, log string
	args, env      []string
	http, xds      string
	client         *http.Client
	process        *exec.Cmd
}

// readyMax is how long a start may take.
const readyMax = 60 * time.Second

func newDaemon(bin, dir string) *daemon {
	return &daemon{bin: bin, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log"),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: registrars}}}
}

// scratch is this process's own folder.
var scratch string

// builtDaemon is a stellmapd, built once.
var builtDaemon = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "stellmapd")
	build := exec.Command("go", "build", "-o", bin, "../cmd/stellmapd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build stellmapd: %w\n%s", err, out)
	}
	return bin, nil
})

func buildDaemon(b *testing.B) string {
	b.Helper()
	bin, err := builtDaemon()
	if err != nil {
		b.Fatal(err)
	}
	return bin
}

// startDaemon builds and starts a node with its data on disk.
func startDaemon(b *testing.B, args ...string) *daemon {
	b.Helper()
	d := newDaemon(buildDaemon(b), b.TempDir())
	ports := freePorts(b, 4)
	d.http, d.xds = ports[0], ports[1]
	d.args = append([]string{"--data-dir", d.data, "--http-addr", ports[0],
		"--xds-addr", ports[1], "--grpc-addr", ports[2], "--admin-addr", ports[3], "--log-level", "warn"}, args...)
	d.start(b)
	b.Cleanup(func() { d.kill(b) })
	return d
}

// startCluster builds and starts the members of a cluster, and names the leader.
func startCluster(b *testing.B, size int) (members []*daemon, leader *daemon) {
	b.Helper()
	bin, ports := buildDaemon(b), freePorts(b, 4*size)
	listed := ""
	for i := range size {
		own := ports[4*i:]
		listed += fmt.Sprintf("[[cluster.members]]\nid = %d\nhttp = %q\nxds = %q\ngrpc = %q\nadmin = %q\n", i+1, own[0], own[1], own[2], own[3])
	}
	for i := range size {
		dir, own := b.TempDir(), ports[4*i:]
		d := newDaemon(bin, dir)
		d.http, d.xds = own[0], own[1]
		config := filepath.Join(dir, "stellmapd.toml")
		text := fmt.Sprintf("[node]\nid = %d\ncluster_id = 100\ndata_dir = %q\n[server]\nhttp_addr = %q\nxds_addr = %q\ngrpc_addr = %q\nadmin_addr = %q\n[log]\nlevel = \"warn\"\n",
			i+1, d.data, own[0], own[1], own[2], own[3])
		if err := os.WriteFile(config, []byte(text+listed), 0o600); err != nil {
			b.Fatal(err)
		}
		d.args = []string{"--config", config}
		d.launch(b)
		b.Cleanup(func() { d.kill(b) })
		members = append(members, d)
	}
	for _, d := range members {
		d.mustBeReady(b)
	}
	return members, members[members[0].leaderID(b)-1]
}

// leaderID is that of the leader this member knows.
func (d *daemon) leaderID(b *testing.B) int {
	b.Helper()
	r, err := d.client.Get("http://" + d.http + "/readyz")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	var body struct{ Data struct{ LeaderID int } }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Data.LeaderID == 0 {
		b.Fatalf("no leader: %v", err)
	}
	return body.Data.LeaderID
}

// start starts it and waits until it is ready.
func (d *daemon) start(b *testing.B) {
	b.Helper()
	d.launch(b)
	d.mustBeReady(b)
}

func (d *daemon) launch(b *testing.B) {
	b.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	d.process = exec.Command(d.bin, d.args...)
	d.process.Env = append(process.Environment(), d.env...)
	d.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.process.Stdout, d.process.Stderr = log, log
	if err := d.process.Start(); err != nil {
		b.Fatal(err)
	}
}

func (d *daemon) mustBeReady(b *testing.B) {
	b.Helper()
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
			b.Fatalf("%s is not ready: %s %v", d.bin, text, err)
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
		b.Errorf("%s had ended by itself", d.bin)
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

// tick is the kernel's unit of what a process has used of the processors.
const tick = 10 * time.Millisecond

// cpu is what the process has used of the processors.
func (d *daemon) cpu(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.process.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ") // behind the name, which may have blanks
	fields := strings.Fields(after)
	used := 0
	for _, f := range fields[11:13] { // utime and stime, fields 14 and 15 of the whole
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		used += n
	}
	return time.Duration(used) * tick
}
