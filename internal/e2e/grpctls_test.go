package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/grpcclients"
	"github.com/stellmap/stellmap/internal/process"
)

// wrongRate are the calls a second of clients of whom nothing but errors is wanted.
const wrongRate = 2

// gRPC clients in four languages find instances over mutual TLS, by the bootstrap that stellmapctl prints; Node goes by an Envoy beside it. Who has
// no certificate, one that is revoked or one of another trust domain finds nothing. The SDK for Go registers by the same certificate.
func TestGRPCClientsOverMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t).guarding()
	c := newClusterWith(t, 1, a.prepare(a.client("orders", "ns/default/sa/orders")))
	one := c.callee("one", 100)
	c.enlist(one)
	a.client("thief", "ns/default/sa/orders")
	a.revoke(c.members, "thief")
	a.cert("issue", "--name", "foreign", "--uri", "spiffe://elsewhere.example/ns/default/sa/orders")
	c.shows(c.members[0], `stellmap_tls_reloads_total{result="done"} 1`)
	keep(t, c.sdk(""), "kept", time.Minute)
	c.must(http.MethodGet, instanceURL(c.members[0], "orders", "kept"), "", http.StatusOK)
	c.must(http.MethodDelete, instanceURL(c.members[0], "orders", "kept"), "", http.StatusOK, http.StatusForbidden)
	t.Run("clients", func(t *testing.T) { // ends when all of them have
		for _, language := range grpcclients.Languages {
			t.Run(language, func(t *testing.T) {
				t.Parallel()
				folder := t.TempDir()
				command, err := grpcclients.Command(language, folder)
				need(t, "the "+language+" client", err)
				at := *c
				at.t = t
				at.secureCaller(a, language, command, "orders", grpcRate).await("the instance is called", 60, allOf("one"))
				var wrong sync.WaitGroup
				for _, name := range []string{"", "thief", "foreign"} {
					caller := at.secureCaller(a, language, command, name, wrongRate)
					wrong.Go(func() {
						if err := findsNothing(caller.Client); err != nil {
							t.Errorf("with the certificate %q: %v\nits last words: %s", name, err, caller.Tail(5))
						}
					})
				}
				wrong.Wait()
			})
		}
	})
}

// findsNothing waits until a client has been answered twice, and says whether it was by errors.
func findsNothing(c *grpcclients.Client) error {
	var served int
	err := c.Await(context.Background(), grpcPatience, 2, "errors", func([]grpcclients.Answer) error {
		all, err := c.Answers()
		served = grpcclients.Count(all)["one"]
		return err
	})
	if err == nil && served > 0 {
		err = fmt.Errorf("it was served %d times", served)
	}
	return err
}

// secureCaller starts a client with a certificate, or with none. Where its library cannot speak TLS with its server, an Envoy beside it does.
func (c *cluster) secureCaller(a authority, language string, command []string, name string, rate int) *grpcCaller {
	c.t.Helper()
	files := []string{"--tls-ca", a.file("ca.pem")}
	if name != "" {
		files = append(files, "--tls-cert", a.file(name+".pem"), "--tls-key", a.file(name+"-key.pem"))
	}
	folder := c.t.TempDir()
	if language != grpcclients.Node {
		return c.startCaller(language, command, folder, rate, files...)
	}
	return c.startCallerOf([]string{c.besideWith(files)}, command, folder, rate)
}

// besideWith starts an Envoy that goes to the server for a client beside it, as docs/proxyless.md says. It returns where.
func (c *cluster) besideWith(files []string) string {
	c.t.Helper()
	ports, err := freeport.Find(3)
	if err != nil {
		c.t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/proxyless.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	_, yaml, _ := strings.Cut(string(page), "```yaml\n")
	yaml, _, _ = strings.Cut(yaml, "```")
	const port = "port_value: 18000"
	if !strings.Contains(yaml, port) {
		c.t.Fatalf("docs/proxyless.md has no listener on the port 18000: %s", yaml)
	}
	yaml = strings.Replace(yaml, port, fmt.Sprint("port_value: ", ports[2]), 1)
	e := c.launchEnvoy(c.layEnvoy(ports, append([]string{"--xds", c.members[0].address(1)}, files...)...), ports, 1, "--config-yaml", yaml)
	if _, err := process.Within(c.t.Context(), readyTime, "Envoy to listen", func() error {
		if out := e.proc.Output(); !e.proc.Running() {
			return errors.New(out)
		}
		_, _, err := e.admin.Updates(c.t.Context())
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[2])
}
