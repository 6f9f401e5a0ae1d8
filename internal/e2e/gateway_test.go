package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/grpcclients"
)

// gatewayAnswers is how many calls in a row have to be answered by the same instance.
const gatewayAnswers = 20

// gatewayPolicy has a proxy leave instances that are killed, and try them again, soon.
const gatewayPolicy = `{"failover":{"mode":"gateway"},"outlierDetection":{"intervalMs":200,"baseEjectionMs":500,"maxEjectionMs":1000}}`

// startGateway starts an Envoy as a gateway of the region, and registers it as one.
func (c *cluster) startGateway(id string) *envoy {
	c.t.Helper()
	ports, err := freeport.Find(2)
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.t.TempDir(), "envoy.yaml")
	text := c.bootstrap("--node", id, "--service", "gateway", "--role", "gateway", "--gateway-port", fmt.Sprint(ports[0]), "--admin-port", fmt.Sprint(ports[1]))
	if err := os.WriteFile(file, text, 0o644); err != nil {
		c.t.Fatal(err)
	}
	e := c.launchEnvoy(file, ports, 1)
	e.until("a gateway to be ready", func() error { return e.admin.Ready(c.t.Context()) })
	c.register("gateway", id, fmt.Sprintf(`[{"name":"tcp","protocol":"tcp","host":"127.0.0.1","port":%d}]`, ports[0]))
	return e
}

func (e *envoy) address() string { return strings.TrimPrefix(e.egress, "http://") }

// knowsAlone waits until the Envoy has these addresses of a cluster, and no others.
func (e *envoy) knowsAlone(cluster string, addresses ...string) {
	e.t.Helper()
	e.until("the endpoints of "+cluster, func() error {
		config, err := e.admin.Config(e.t.Context())
		if err != nil {
			return err
		}
		want, got := make(map[string]bool), make(map[string]bool)
		for _, address := range addresses {
			want[address] = true
		}
		for address := range config.Endpoints[cluster] {
			got[address] = true
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("it has %v, want %v", got, want)
		}
		return nil
	})
}

// A crossing is a sidecar of one region, and what answers its calls over HTTP/1.1 and gRPC.
type crossing struct {
	*envoy
	ledger *grpc.ClientConn
}

// isAnsweredBy waits until an instance of each protocol answers, call after call.
func (c *crossing) isAnsweredBy(region, when string) {
	c.t.Helper()
	c.until("answers from "+region+" "+when, func() error {
		for range gatewayAnswers {
			status, _, body, err := c.ask(c.t.Context(), "orders.default")
			if err != nil || status != http.StatusOK || body != "orders-"+region {
				return fmt.Errorf("over HTTP: %d %q, %v", status, body, err)
			}
			if who, err := grpcclients.Ask(c.t.Context(), c.ledger); err != nil || who != "ledger-"+region {
				return fmt.Errorf("over gRPC: %q, %v", who, err)
			}
		}
		return nil
	})
}

// A sidecar calls the instances of its region. When they are killed it reaches those of
// another by the gateways that are registered there, one of which may be killed as well; and it
// comes home. Of the other region's instances themselves it is told nothing.
func TestTrafficGoesThroughGateways(t *testing.T) {
	t.Parallel() // it waits most of its time
	envoyPath(t)
	b := newClusterWith(t, 1, inRegion(t, "b", 200, ""))
	a := newClusterWith(t, 1, inRegion(t, "a", 100, fmt.Sprintf("[[federation.regions]]\nregion = \"b\"\ncluster_id = 200\ngrpc = [%q]\n", b.members[0].address(2))))
	ports, err := freeport.Find(2)
	if err != nil {
		t.Fatal(err)
	}
	orders := serve(t, ports[0], "orders-a")
	serve(t, ports[1], "orders-b")
	ledger, distant := a.callee("ledger-a", 1), b.callee("ledger-b", 1)
	for n, c := range []*cluster{a, b} {
		c.register("orders", "one", fmt.Sprintf(`[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}]`, ports[n]))
		c.register("ledger", "one", fmt.Sprintf(`[{"name":"grpc","protocol":"grpc","host":"127.0.0.1","port":%d}]`, []int{ledger.Port, distant.Port}[n]))
	}
	for _, service := range []string{"orders", "ledger"} {
		a.must(http.MethodPut, a.members[0].url()+"/api/v2/namespaces/default/services/"+service+"/policy", gatewayPolicy, http.StatusOK, http.StatusCreated)
	}
	first, second := b.startGateway("gateway-1"), b.startGateway("gateway-2")
	web := &crossing{envoy: a.startEnvoy()}
	web.ledger, err = grpc.NewClient("passthrough:///"+web.address(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("ledger.default"))
	if err != nil {
		t.Fatal(err)
	}
	defer web.ledger.Close()
	web.knowsAlone("orders.default", fmt.Sprintf("127.0.0.1:%d", ports[0]), first.address(), second.address())
	web.knowsAlone("ledger.default", fmt.Sprintf("127.0.0.1:%d", ledger.Port), first.address(), second.address())
	web.isAnsweredBy("a", "while its own instances are well")

	if err := orders.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Stop(); err != nil {
		t.Fatal(err)
	}
	web.isAnsweredBy("b", "by its gateways")
	if err := first.proc.Kill(); err != nil {
		t.Fatal(err)
	}
	web.isAnsweredBy("b", "by the gateway that is left")

	serve(t, ports[0], "orders-a")
	again, err := grpcclients.Serve("ledger-a", ledger.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	web.isAnsweredBy("a", "when they are back")
	web.noNACK()
	second.noNACK()
}
