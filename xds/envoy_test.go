package xds

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/registry"
)

var envoyBinary = flag.String("envoy", "", "an Envoy 1.40 to test with")

const envoyBootstrap = `
node:
  id: web-1
  cluster: web
  locality: {region: here}
  metadata: {stellmap.namespace: prod, stellmap.service: shop, %[2]s}
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

// loadReporting is added to the bootstrap of an Envoy that reports its load.
const loadReporting = `
cluster_manager:
  load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: stellmap}}]}
`

// startEnvoy starts one; more is added to its bootstrap.
func startEnvoy(t *testing.T, m *member, api string, more ...string) *envoy {
	t.Helper()
	return startEnvoyWith(t, m, api, "", more...)
}

// startEnvoyWith has more in the metadata of its node, behind a comma.
func startEnvoyWith(t *testing.T, m *member, api, metadata string, more ...string) *envoy {
	t.Helper()
	egress := freePort(t)
	e := launchEnvoy(t, m, api, fmt.Sprintf("stellmap.egress_port: %d%s", egress, metadata), more...)
	e.egress = fmt.Sprintf("127.0.0.1:%d", egress)
	return e
}

// launchEnvoy starts one whose node has some metadata.
func launchEnvoy(t *testing.T, m *member, api, metadata string, more ...string) *envoy {
	t.Helper()
	if *envoyBinary == "" {
		t.Skip("not played, since -envoy names no Envoy 1.40")
	}
	dir := t.TempDir()
	config := fmt.Sprintf(envoyBootstrap, m.listenTCP(), metadata, api) + strings.Join(more, "")
	if err := os.WriteFile(filepath.Join(dir, "envoy.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(dir, "admin")
	cmd := exec.Command(*envoyBinary, "-c", filepath.Join(dir, "envoy.yaml"), "--admin-address-path", admin,
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
	e := &envoy{t: t}
	eventually(t, "Envoy opens its admin port", func() bool {
		address, err := os.ReadFile(admin)
		e.admin = strings.TrimSpace(string(address))
		return err == nil && len(address) > 0
	})
	return e
}

// freePort is one that a test has to name before somebody listens on it, or on which nobody ever does.
func freePort(t *testing.T) int {
	t.Helper()
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
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

// An answer is what a caller sees.
type answer struct {
	status string // "404", or empty without an answer
	reason string // of the header that tells why
	body   string
}

// get asks in plain HTTP/1.1.
func (e *envoy) get(address, path, host string) answer {
	e.t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return answer{body: err.Error()}
	}
	a, err := ask(conn, path, host)
	if err := errors.Join(err, conn.Close()); err != nil {
		return answer{body: err.Error()}
	}
	return a
}

func ask(conn net.Conn, path, host string) (answer, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return answer{}, err
	}
	in := bufio.NewReader(conn)
	text := textproto.NewReader(in)
	line, err := text.ReadLine()
	if err != nil {
		return answer{}, err
	}
	header, err := text.ReadMIMEHeader()
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(in)
	_, line, _ = strings.Cut(line, " ")
	status, _, _ := strings.Cut(line, " ")
	return answer{status: status, reason: header.Get(reasonHeader), body: string(body)}, err
}

func (e *envoy) call(host string) answer { return e.get(e.egress, "/", host) }

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
	stats := e.get(e.admin, "/stats?filter=warming_clusters|update_rejected|init_fetch_timeout", "envoy").body
	for line := range strings.Lines(stats) {
		if strings.Contains(line, ": ") && !strings.HasSuffix(strings.TrimSpace(line), ": 0") {
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
			for name, text := range policies {
				m.add(strings.ReplaceAll("policy-"+name, "_", "-"), 1, first, registry.Endpoint{Name: "web", Protocol: "h2c", Host: "127.0.0.1", Port: 9})
				m.putPolicy(t, strings.ReplaceAll("policy-"+name, "_", "-"), text)
			}
			e := startEnvoy(t, m, api)
			e.serves("orders.prod", "first")
			for _, name := range []string{"ring-hash", "timeouts", "no-retries", "fail-closed"} {
				e.serves("policy-"+name+".prod", "first")
			}
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
				a := e.call("later.prod")
				return a.status == "404" && a.reason == reasonUnknown
			})
			if a := e.call("redis.prod"); a.status != "404" || a.reason != reasonNotHTTP {
				t.Errorf("a service that does not speak HTTP answers %+v", a)
			}
			e.healthy(m)
			if a := e.get(e.admin, "/clusters", "envoy"); strings.Contains(a.body, "later.prod::") || !strings.Contains(a.body, "orders.prod::") {
				t.Errorf("the clusters are %s", a.body)
			}
			prometheus := e.get(e.admin, "/stats/prometheus?filter=membership_total", "envoy").body
			if !regexp.MustCompile(`envoy_cluster_membership_total\{envoy_cluster_name="ad~umin~~grpc_prod"\}`).MatchString(prometheus) {
				t.Errorf("the statistics have no label for a cluster: %s", prometheus)
			}
		})
	}
}

func (e *envoy) serves(host, want string) {
	e.t.Helper()
	var last answer
	if !comesTrue(func() bool {
		last = e.call(host)
		return last.status == "200" && strings.Contains(last.body, want)
	}) {
		e.t.Fatalf("%s answers %+v, want %q", host, last, want)
	}
}

// upstream is a server that says its name to everyone.
func upstream(t *testing.T, name string) registry.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed below
			}
			serving.Go(func() {
				if err := tellName(conn, name); err != nil {
					t.Logf("upstream %s: %v", name, err) // Envoy may end a connection that it does not need
				}
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close upstream %s: %v", name, err)
		}
		serving.Wait()
	})
	at := l.Addr().(*net.TCPAddr)
	return registry.Endpoint{Protocol: "http", Host: at.IP.String(), Port: int32(at.Port)}
}

// tellName answers the one request of a connection.
func tellName(conn net.Conn, name string) error {
	text := textproto.NewReader(bufio.NewReader(conn))
	err := conn.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = text.ReadLine()
	}
	if err == nil {
		_, err = text.ReadMIMEHeader()
	}
	if err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(name), name)
	}
	return errors.Join(err, conn.Close())
}

// What a service wants to call is edited while its Envoy runs: that calls the new
// upstream and no longer the old, on the stream that it had.
func TestRealEnvoyFollowsItsUpstreams(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
			m.add("orders", 1, upstream(t, "first"))
			m.add("ledger", 1, upstream(t, "second"))
			m.calls(registry.Upstreams{Wants: []string{"orders.prod"}})
			e := startEnvoy(t, m, api)
			e.serves("orders.prod", "first")
			if a := e.call("ledger.prod"); a.status != "404" || a.reason != reasonUnknown {
				t.Errorf("what is not wanted answers %+v", a)
			}
			began := m.server.Proxies()[0].Number
			m.calls(registry.Upstreams{Wants: []string{"ledger.prod"}})
			e.serves("ledger.prod", "second")
			if a := e.call("orders.prod"); a.status != "404" || a.reason != reasonUnknown {
				t.Errorf("what is not wanted any more answers %+v", a)
			}
			e.healthy(m)
			if p := m.server.Proxies()[0]; p.Number != began {
				t.Errorf("it has come back as number %d, and began as %d", p.Number, began)
			}
			eventually(t, "Envoy has dropped the cluster", func() bool {
				return !strings.Contains(e.get(e.admin, "/clusters", "envoy").body, "orders.prod::")
			})
		})
	}
}
