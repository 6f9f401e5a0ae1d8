package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/envoyadmin"
	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// changeTime is how long a change may take to show in Envoy: not a target, a limit for waiting.
// Envoy comes back to a server that was away after up to five seconds, and not always at the first try.
const changeTime = 30 * time.Second

// envoy is a running Envoy.
type envoy struct {
	t      *testing.T
	c      *cluster
	proc   *process.Process
	admin  envoyadmin.Admin
	egress string
}

// bootstrap is what stellmapctl prints for an Envoy.
func (c *cluster) bootstrap(args ...string) []byte {
	c.t.Helper()
	return c.bootstrapOf("envoy", args...)
}

// bootstrapOf is what it prints for a kind of client.
func (c *cluster) bootstrapOf(kind string, args ...string) []byte {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "stellmapctl"), append([]string{"--server", c.members[0].url(), "bootstrap", kind}, args...)...)
	cmd.Env = process.Environment()
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("stellmapctl bootstrap %s: %v", kind, err)
	}
	return out
}

// startEnvoy has Envoy validate its bootstrap and starts it with one worker.
func (c *cluster) startEnvoy(args ...string) *envoy {
	c.t.Helper()
	return c.startEnvoyWith(1, args...)
}

// startEnvoyWith is startEnvoy with several workers.
func (c *cluster) startEnvoyWith(workers int, args ...string) *envoy {
	t := c.t
	t.Helper()
	ports, err := freeport.Find(2)
	if err != nil {
		t.Fatal(err)
	}
	file := c.layEnvoy(ports, args...)
	if out, err := exec.Command(envoyPath(t), "--mode", "validate", "-c", file).CombinedOutput(); err != nil {
		t.Fatalf("envoy --mode validate: %v\n%s", err, out)
	}
	e := c.launchEnvoy(file, ports, workers)
	e.until("Envoy to be ready", func() error { return e.admin.Ready(t.Context()) })
	return e
}

// layEnvoy writes the bootstrap of an Envoy with ports for its callers and its admin.
func (c *cluster) layEnvoy(ports []int, args ...string) string {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "envoy.yaml")
	args = append([]string{"--node", "web-1", "--egress-port", fmt.Sprint(ports[0]), "--admin-port", fmt.Sprint(ports[1])}, args...)
	if err := os.WriteFile(file, c.bootstrap(args...), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// launchEnvoy starts an Envoy, and does not wait until it is ready.
func (c *cluster) launchEnvoy(file string, ports []int, workers int, more ...string) *envoy {
	t := c.t
	t.Helper()
	p, err := process.Start(process.Options{Name: "envoy", Path: envoyPath(t), Logs: filepath.Dir(file),
		Args: append([]string{"-c", file, "--log-level", "warning", "--concurrency", fmt.Sprint(workers), "--disable-hot-restart"}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("last words of Envoy:\n%s", p.Tail(15))
		}
	})
	return &envoy{t: t, c: c, proc: p, egress: fmt.Sprintf("http://127.0.0.1:%d", ports[0]),
		admin: envoyadmin.Admin{URL: fmt.Sprintf("http://127.0.0.1:%d", ports[1]), Client: c.client}}
}

func (e *envoy) until(what string, condition func() error) {
	e.t.Helper()
	if _, err := process.Within(e.t.Context(), changeTime, what, condition); err != nil {
		e.t.Fatal(err)
	}
}

// has waits until Envoy's clusters and their endpoints are as given.
func (e *envoy) has(want map[string]map[string]string) {
	e.t.Helper()
	e.until("the registry's clusters in Envoy", func() error {
		config, err := e.admin.Config(e.t.Context())
		if err != nil {
			return err
		}
		if names := slices.Sorted(maps.Keys(want)); !slices.Equal(config.Clusters, names) {
			return fmt.Errorf("clusters %q, want %q", config.Clusters, names)
		}
		for name, endpoints := range want {
			if !maps.Equal(config.Endpoints[name], endpoints) {
				return fmt.Errorf("endpoints of %s: %v, want %v", name, config.Endpoints[name], endpoints)
			}
		}
		return nil
	})
}

// noNACK checks that Envoy took updates and rejected none.
func (e *envoy) noNACK() {
	e.t.Helper()
	taken, rejected, err := e.admin.Updates(e.t.Context())
	if err != nil || taken == 0 || rejected != 0 {
		e.t.Errorf("Envoy took %d updates and rejected %d (%v)", taken, rejected, err)
	}
}

// ask sends a request to a host through Envoy.
func (e *envoy) ask(ctx context.Context, host string) (status int, header http.Header, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.egress, nil)
	if err != nil {
		return 0, nil, "", err
	}
	request.Host = host
	response, err := e.c.client.Do(request)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(b), err
}

func (c *cluster) register(service, id, endpoints string) {
	c.t.Helper()
	c.must(http.MethodPut, instanceURL(c.members[0], service, id), `{"endpoints":`+endpoints+`,"leaseTtlSeconds":3600}`, http.StatusOK, http.StatusCreated)
}

// A real Envoy takes what stellmapctl prints as its bootstrap, has exactly the registry's clusters and
// endpoints, follows every change, and rejects nothing; an instance with a host name, which EDS cannot
// carry, costs nobody else anything.
func TestEnvoyHasWhatTheRegistryHas(t *testing.T) {
	c := newCluster(t, 1)
	c.register("orders", "o-1", `[{"name":"http","protocol":"http","host":"127.0.0.1","port":9001},{"name":"admin","protocol":"http","host":"127.0.0.1","port":9101}]`)
	c.register("orders", "o-2", `[{"name":"http","protocol":"http","host":"127.0.0.1","port":9002}]`)
	c.register("mixed", "by-name", `[{"name":"http","protocol":"http","host":"example.invalid","port":9003}]`)
	c.register("mixed", "by-address", `[{"name":"http","protocol":"http","host":"127.0.0.1","port":9004}]`)
	e := c.startEnvoy()
	orders := map[string]string{"127.0.0.1:9001": "HEALTHY", "127.0.0.1:9002": "HEALTHY"}
	mixed := map[string]string{"127.0.0.1:9004": "HEALTHY"}
	want := map[string]map[string]string{"orders.default": orders, "admin~orders.default": {"127.0.0.1:9101": "HEALTHY"}, "mixed.default": mixed}
	e.has(want)

	c.register("late", "l-1", `[{"name":"http","protocol":"http","host":"127.0.0.1","port":9005}]`)
	late := map[string]string{"127.0.0.1:9005": "HEALTHY"}
	want["late.default"] = late
	c.must(http.MethodDelete, instanceURL(c.members[0], "orders", "o-2"), "", http.StatusOK, http.StatusNoContent)
	delete(orders, "127.0.0.1:9002")
	e.has(want)

	c.must(http.MethodDelete, instanceURL(c.members[0], "late", "l-1"), "", http.StatusOK, http.StatusNoContent)
	clear(late) // the service outlives its last instance
	e.has(want)
	e.noNACK()
}

// A host that nobody registered is a 404 that says why; a registered one is routed, whatever port the
// client wrote behind it.
func TestEnvoyRoutesByHost(t *testing.T) {
	c := newCluster(t, 1)
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ports[0], "o-1")
	c.register("orders", "o-1", fmt.Sprintf(`[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d},{"name":"admin","protocol":"http","host":"127.0.0.1","port":%[1]d}]`, ports[0]))
	e := c.startEnvoy()
	for _, host := range []string{"orders.default", "orders.default.mesh", "admin--orders.default.mesh", "orders.default:8080", "ORDERS.default"} {
		e.until("an answer for "+host, func() error {
			status, _, body, err := e.ask(t.Context(), host)
			if err == nil && (status != http.StatusOK || body != "o-1") {
				err = fmt.Errorf("%d %q", status, body)
			}
			return err
		})
	}
	status, header, _, err := e.ask(t.Context(), "nobody.default")
	if err != nil || status != http.StatusNotFound || header.Get("X-StellMap-Reason") == "" {
		t.Errorf("an unknown host: %d, %v, %v", status, header, err)
	}
	e.noNACK()
}

// serve answers every request with a name until the test ends.
func serve(t *testing.T, port int, name string, more ...string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Options{Name: name, Path: filepath.Join(bin, "demo"), Logs: t.TempDir(),
		Args: append([]string{"upstream", "--name", name, "--address", fmt.Sprintf("127.0.0.1:%d", port)}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Envoy goes on with another member when the one that it listens to is killed, and takes changes from there.
func TestEnvoyMovesToAnotherMember(t *testing.T) {
	c := newCluster(t, 3)
	c.register("orders", "o-1", `[{"name":"http","protocol":"http","host":"127.0.0.1","port":9001}]`)
	e := c.startEnvoy()
	orders := map[string]string{"127.0.0.1:9001": "HEALTHY"}
	want := map[string]map[string]string{"orders.default": orders}
	e.has(want)
	for _, m := range c.members { // one of them is the one that it listens to
		c.kill(m)
		port := 9100 + m.id
		rest := slices.DeleteFunc(slices.Clone(c.members), func(o *member) bool { return o == m })
		c.writeAgain(fmt.Sprintf("probe-%d", m.id), rest...)
		c.must(http.MethodPut, instanceURL(rest[0], "orders", fmt.Sprintf("o-%d", port)), registration(port, ""), http.StatusOK, http.StatusCreated)
		orders[fmt.Sprintf("127.0.0.1:%d", port)] = "HEALTHY"
		orders["127.0.0.1:9000"] = "HEALTHY" // the probe's
		e.has(want)
		c.start(m)
		c.mustBeReady()
	}
	e.noNACK()
}
