package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"testing"

	"github.com/stellmap/stellmap/internal/freeport"
)

// A real Envoy gets its configuration over mutual TLS. One with a certificate of another authority or of another trust domain, with
// one that is revoked, or with none, gets nothing, however often it comes.
func TestEnvoyOverMutualTLS(t *testing.T) {
	a := newAuthority(t).guarding()
	c := newClusterWith(t, 1, a.prepare(a.client("orders", "ns/default/sa/orders")))
	for _, name := range []string{"web", "thief"} {
		a.client(name, "ns/default/sa/"+name)
	}
	a.cert("issue", "--name", "foreign", "--uri", "spiffe://elsewhere.example/ns/default/sa/web")
	a.revoke(c.members, "thief")
	c.shows(c.members[0], `stellmap_tls_reloads_total{result="done"} 1`)
	strangers := newAuthority(t)
	strangers.client("web", "ns/default/sa/web")
	c.must(http.MethodPut, instanceURL(c.members[0], "orders", "a"), registration(9000, "1"), http.StatusCreated)

	xds := func(by authority, name string) []string {
		args := []string{"--xds", c.members[0].address(1), "--tls-ca", a.file("ca.pem")}
		if name == "" {
			return args
		}
		return append(args, "--tls-cert", by.file(name+".pem"), "--tls-key", by.file(name+"-key.pem"))
	}
	wrong := map[string]*envoy{
		"of another authority":    c.refusedEnvoy(xds(strangers, "web")),
		"of another trust domain": c.refusedEnvoy(xds(a, "foreign")),
		"that is revoked":         c.refusedEnvoy(xds(a, "thief")),
		"that it does not have":   c.refusedEnvoy(xds(a, "")),
	}
	e := c.startEnvoy(xds(a, "web")...)
	e.has(map[string]map[string]string{"orders.default": {"127.0.0.1:9000": "HEALTHY"}})
	e.noNACK()
	for what, e := range wrong {
		e.comesInVain("a certificate " + what)
	}
}

// refusedEnvoy starts an Envoy that will not be ready; its bootstrap is in order.
func (c *cluster) refusedEnvoy(args []string) *envoy {
	c.t.Helper()
	ports, err := freeport.Find(2)
	if err != nil {
		c.t.Fatal(err)
	}
	file := c.layEnvoy(ports, args...)
	if out, err := exec.Command(envoyPath(c.t), "--mode", "validate", "-c", file).CombinedOutput(); err != nil {
		c.t.Fatalf("envoy --mode validate: %v\n%s", err, out)
	}
	return c.launchEnvoy(file, ports, 1)
}

// comesInVain waits until Envoy has connected three times, so that it was sent away twice, and has been told nothing.
func (e *envoy) comesInVain(with string) {
	e.t.Helper()
	e.until("an Envoy with "+with+" to come again", func() error {
		n, err := e.admin.Connections(e.t.Context(), "xds_cluster")
		if err == nil && n < 3 {
			err = fmt.Errorf("it has connected %d times", n)
		}
		return err
	})
	taken, rejected, err := e.admin.Updates(e.t.Context())
	if err != nil || taken != 0 || rejected != 0 {
		e.t.Errorf("an Envoy with %s took %d updates and rejected %d (%v)", with, taken, rejected, err)
	}
}
