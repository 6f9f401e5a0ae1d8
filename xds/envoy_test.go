package xds

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/registry"
)

const envoyBootstrap = `
node:
  id: web-1
  cluster: web
  locality: {region: here}
  metadata: {stellmap.namespace: prod, stellmap.egress_port: %[2]d}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config:
    api_type: %[3]s
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: stellmap}}]
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: stellmap
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: stellmap
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[1]d}}}}]}]
`

// An envoy is a running Envoy.
type envoy struct {
	t             *testing.T
	admin, egress string
}

func startEnvoy(t *testing.T, m *member, api string) *envoy {
	t.Helper()
	binary := os.Getenv("ENVOY_BIN")
	if binary == "" {
		t.Skip("ENVOY_BIN names no Envoy 1.40")
	}
	dir := t.TempDir()
	egress := freePort(t)
	config := fmt.Sprintf(envoyBootstrap, m.listenTCP(), egress, api)
	if err := os.WriteFile(filepath.Join(dir, "envoy.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(dir, "admin")
	cmd := exec.Command(binary, "-c", filepath.Join(dir, "envoy.yaml"), "--admin-address-path", admin,
		"--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--log-path", filepath.Join(dir, "log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, err := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("Envoy's log (%v):\n%s", err, log)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("end Envoy: %v", err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("Envoy ended by itself")
		}
	})
	e := &envoy{t: t, egress: fmt.Sprintf("http://127.0.0.1:%d", egress)}
	eventually(t, "Envoy opens its admin port", func() bool {
		address, err := os.ReadFile(admin)
		e.admin = "http://" + strings.TrimSpace(string(address))
		return err == nil && len(address) > 0
	})
	return e
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// listenTCP serves on a real port too.
func (m *member) listenTCP() int {
	m.tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.tb.Fatal(err)
	}
	g := grpc.NewServer()
	m.server.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	m.tb.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			m.tb.Errorf("serve: %v", err)
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

func (e *envoy) get(url, host string) (int, http.Header, string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Host = host
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	body, err := io.ReadAll(answer.Body)
	if err := answer.Body.Close(); err != nil {
		e.t.Errorf("close the answer: %v", err)
	}
	if err != nil {
		return 0, nil, err.Error()
	}
	return answer.StatusCode, answer.Header, string(body)
}

func (e *envoy) call(host string) (int, http.Header, string) { return e.get(e.egress, host) }

// healthy says that Envoy rejected nothing and waits for nothing.
func (e *envoy) healthy(m *member) {
	e.t.Helper()
	eventually(e.t, "the proxy has accepted everything", func() bool {
		proxies := m.server.Proxies()
		if len(proxies) != 1 || len(proxies[0].Types) != int(typeCount) {
			return false
		}
		for _, s := range proxies[0].Types {
			if !s.InSync || s.Acked == 0 {
				return false
			}
		}
		return true
	})
	_, _, stats := e.get(e.admin+"/stats?filter=warming_clusters|update_rejected|init_fetch_timeout", "")
	for line := range strings.Lines(stats) {
		if !strings.HasSuffix(strings.TrimSpace(line), ": 0") {
			e.t.Errorf("Envoy says %s", line)
		}
	}
	if !strings.Contains(stats, "warming_clusters: 0") {
		e.t.Errorf("Envoy does not say that nothing is warming: %q", stats)
	}
	for t := range typeCount {
		if n := m.server.metrics.nacks[t].Load() + m.server.metrics.silent[t].Load(); n != 0 {
			e.t.Errorf("%d responses of %s were rejected or not answered", n, t)
		}
	}
}

// A real Envoy accepts all that it is sent, over both protocols, with every
// dialect; it serves what is registered, follows changes, and tells a caller why
// a host is unknown.
func TestRealEnvoyAcceptsEverything(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
			first, second := upstream(t, "first"), upstream(t, "second")
			m.add("orders", 1, first)
			for n, protocol := range []string{"h2c", "grpc", "https", "tcp", "redis"} {
				m.add(protocol, n, registry.Endpoint{Protocol: protocol, Host: "127.0.0.1", Port: 9, Weight: 5},
					registry.Endpoint{Name: "Ad_min", Protocol: "http", Host: "::1", Port: 9})
			}
			slow := checked("checked", 1)
			slow.Endpoints = []registry.Endpoint{first}
			m.register(slow)
			e := startEnvoy(t, m, api)
			e.serves("orders.prod", "first")
			e.serves("ORDERS.prod.mesh:8080", "first")
			e.serves("checked.prod", "first")
			e.healthy(m)
			m.add("orders", 2, second)
			m.drop("orders", 1)
			e.serves("orders.prod", "second")
			m.add("later", 1, first)
			e.serves("later.prod", "first")
			m.remove("later", 1)
			eventually(t, "the removed service has no host any more", func() bool {
				code, header, _ := e.call("later.prod")
				return code == http.StatusNotFound && header.Get(reasonHeader) == reasonUnknown
			})
			if code, header, _ := e.call("redis.prod"); code != http.StatusNotFound || header.Get(reasonHeader) != reasonNotHTTP {
				t.Errorf("a service that does not speak HTTP: %d, %q", code, header.Get(reasonHeader))
			}
			e.healthy(m)
			_, _, clusters := e.get(e.admin+"/clusters", "")
			if strings.Contains(clusters, "later.prod::") {
				t.Error("the removed cluster is still there")
			}
			_, _, prometheus := e.get(e.admin+"/stats/prometheus?filter=membership_total", "")
			if !regexp.MustCompile(`envoy_cluster_membership_total\{envoy_cluster_name="ad~umin~~grpc_prod"\}`).MatchString(prometheus) {
				t.Errorf("the statistics have no label for a cluster: %s", prometheus)
			}
		})
	}
}

func (e *envoy) serves(host, want string) {
	e.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		code, _, body := e.call(host)
		if code == http.StatusOK && body == want {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%s answers %d %q, want %q", host, code, body, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// upstream is a server that says its name.
func upstream(t *testing.T, name string) registry.Endpoint {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.WriteString(w, name); err != nil {
			t.Errorf("answer: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	return registry.Endpoint{Protocol: "http", Host: at.Addr().String(), Port: int32(at.Port())}
}
