package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// A real Prometheus with the configuration of docs/prometheus.md scrapes what is registered, with its labels,
// and leaves what is gone.
func TestPrometheusScrapesWhatIsRegistered(t *testing.T) {
	t.Parallel() // it waits most of its time
	binary, err := exec.LookPath("prometheus")
	need(t, "Prometheus", err)
	c := newCluster(t, 1)
	exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/internal/metrics" {
			w.WriteHeader(http.StatusNotFound)
		}
		io.WriteString(w, "orders_total 7\n")
	}))
	defer exporter.Close()
	_, port, _ := strings.Cut(exporter.Listener.Addr().String(), ":")
	instance := strings.Replace(instanceURL(c.members[0], "orders", "a"), "/default/", "/prod/", 1)
	c.must(http.MethodPut, instance, fmt.Sprintf(
		`{"zone":"z1","labels":{"track":"canary"},"leaseTtlSeconds":600,"endpoints":[{"name":"metrics","protocol":"http","host":"127.0.0.1","port":%s,"path":"/internal/metrics"}]}`, port), http.StatusCreated)

	p := c.startPrometheus(binary)
	p.finds(`{instance="a", job="prod/orders", track="canary", zone="z1"} http://127.0.0.1:` + port + `/internal/metrics up`)
	c.must(http.MethodDelete, instance, "", http.StatusOK)
	p.finds("")
}

// prometheus is a real one.
type prometheus struct {
	c   *cluster
	url string
}

// startPrometheus starts one with the configuration that the page shows, which asks more often here.
func (c *cluster) startPrometheus(path string) *prometheus {
	t := c.t
	t.Helper()
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/prometheus.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, config, _ := strings.Cut(string(page), "```yaml\n")
	config, _, _ = strings.Cut(config, "```")
	config = strings.NewReplacer("127.0.0.1:8080", c.members[0].address(0), "refresh_interval: 30s", "refresh_interval: 1s").Replace(config)
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte("global: {scrape_interval: 1s}\n"+config), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(process.Options{Name: "prometheus", Path: path, Logs: dir, Args: []string{
		"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", fmt.Sprintf("127.0.0.1:%d", ports[0]),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("last words of Prometheus:\n%s", p.Tail(15))
		}
	})
	return &prometheus{c: c, url: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
}

// finds waits until the targets, one a line, are those.
func (p *prometheus) finds(want string) {
	p.c.t.Helper()
	_, err := process.Within(p.c.t.Context(), readyTime, "Prometheus to have the targets", func() error {
		got, err := p.targets()
		if err == nil && got != want {
			err = fmt.Errorf("it has %q, want %q", got, want)
		}
		return err
	})
	if err != nil {
		p.c.t.Fatal(err)
	}
}

// targets are labels, URL and health, one a line.
func (p *prometheus) targets() (string, error) {
	a, err := p.c.call(p.c.t.Context(), http.MethodGet, p.url+"/api/v1/targets?state=active", "")
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			ActiveTargets []struct {
				Labels            map[string]string
				ScrapeURL, Health string
			}
		}
	}
	if err := json.Unmarshal(a.body, &answer); err != nil {
		return "", err
	}
	var lines []string
	for _, one := range answer.Data.ActiveTargets {
		l := one.Labels
		lines = append(lines, fmt.Sprintf("{instance=%q, job=%q, track=%q, zone=%q} %s %s", l["instance"], l["job"], l["track"], l["zone"], one.ScrapeURL, one.Health))
	}
	return strings.Join(lines, "\n"), nil
}
