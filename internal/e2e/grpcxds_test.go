package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/grpcclients"
)

const (
	grpcRate     = 60              // calls a second
	grpcPatience = 2 * time.Minute // with which a client is waited for
)

// A client of xds:///orders.default in each language, with the bootstrap that
// stellmapctl prints, finds the instances, calls them by their weights, follows who
// comes and goes, goes on while the servers of StellMap are down, and splits its calls
// as a policy says.
func TestGRPCClientsFindInstances(t *testing.T) {
	t.Parallel()
	for _, language := range grpcclients.Languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			command, err := grpcclients.Command(language, folder)
			need(t, "the "+language+" client", err)
			c := newCluster(t, 1)
			m := c.members[0]
			light, heavy, late := c.callee("light", 100), c.callee("heavy", 300), c.callee("late", 100)
			c.enlist(light)
			c.enlist(heavy)
			caller := c.startCaller(language, command, folder, grpcRate)

			caller.await("three of four calls go to the one with three times the weight", 300, func(answers []grpcclients.Answer) error {
				count := grpcclients.Count(answers)
				if n := count["heavy"]; n < 195 || n > 255 || n+count["light"] != 300 {
					return fmt.Errorf("of 300 answers are %v", count)
				}
				return nil
			})
			c.enlist(late)
			caller.await("who is registered is called", 60, allOf("light", "heavy", "late"))
			c.must(http.MethodDelete, instanceURL(m, "orders", "light"), "", http.StatusOK)
			caller.await("who is deregistered is not called", 60, allOf("heavy", "late"))
			if err := heavy.Stop(); err != nil {
				t.Fatal(err)
			}
			caller.await("who cannot be reached is not called", 60, allOf("late"))

			c.kill(m)
			caller.await("all goes on without a server of StellMap", 100, allOf("late"))
			c.start(m)
			c.mustBeReady()
			c.enlist(light)
			caller.await("who is registered after that is called", 60, allOf("light", "late"))

			c.must(http.MethodPut, m.url()+"/api/v2/namespaces/default/services/orders/policy",
				`{"subsets":[{"name":"old","version":"light"},{"name":"new","version":"late"}],"routes":[{"split":[{"subset":"old","weight":80},{"subset":"new","weight":20}]}]}`, http.StatusOK, http.StatusCreated)
			caller.await("one of five calls goes to the new version", 300, func(answers []grpcclients.Answer) error {
				count := grpcclients.Count(answers)
				if n := count["light"]; n < 212 || n > 268 || n+count["late"] != 300 {
					return fmt.Errorf("of 300 answers are %v", count)
				}
				return nil
			})
		})
	}
}

// weighted is a server with its weight in the registry.
type weighted struct {
	*grpcclients.Server
	weight int
}

func (c *cluster) callee(name string, weight int) weighted {
	c.t.Helper()
	s, err := grpcclients.Serve(name, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			c.t.Error(err)
		}
	})
	return weighted{s, weight}
}

func (c *cluster) enlist(s weighted) {
	c.t.Helper()
	body := fmt.Sprintf(`{"endpoints":[{"name":"grpc","protocol":"grpc","host":"127.0.0.1","port":%d,"weight":%d}],"version":%q,"leaseTtlSeconds":3600}`, s.Port, s.weight, s.Name)
	c.must(http.MethodPut, instanceURL(c.members[0], "orders", s.Name), body, http.StatusOK, http.StatusCreated)
}

// grpcCaller is a client that runs.
type grpcCaller struct {
	t *testing.T
	*grpcclients.Client
}

// startCaller starts a client. The first server that it is told of is dead, but for
// Node's, which tries no other.
func (c *cluster) startCaller(language string, command []string, folder string, rate int, more ...string) *grpcCaller {
	c.t.Helper()
	servers := []string{c.members[0].address(1)}
	if language != grpcclients.Node {
		dead, err := freeport.Find(1)
		if err != nil {
			c.t.Fatal(err)
		}
		servers = []string{fmt.Sprintf("127.0.0.1:%d", dead[0]), servers[0]}
	}
	return c.startCallerOf(servers, command, folder, rate, more...)
}

// startCallerOf starts a client that is told of these servers.
func (c *cluster) startCallerOf(servers, command []string, folder string, rate int, more ...string) *grpcCaller {
	c.t.Helper()
	text := c.bootstrapOf("grpc", append([]string{"--node", "caller-1", "--region", "local", "--xds", strings.Join(servers, ",")}, more...)...)
	bootstrap := filepath.Join(folder, "xds.json")
	if err := os.WriteFile(bootstrap, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	client, err := grpcclients.Start(grpcclients.Options{Command: command, Target: "xds:///orders.default:8080", Bootstrap: bootstrap, Rate: rate, Folder: folder})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := client.End(); err != nil {
			c.t.Error(err)
		}
	})
	return &grpcCaller{t: c.t, Client: client}
}

func (c *grpcCaller) await(what string, n int, check func([]grpcclients.Answer) error) {
	c.t.Helper()
	if err := c.Await(c.t.Context(), grpcPatience, n, what, check); err != nil {
		c.t.Fatalf("%v\nits last words: %s", err, c.Tail(5))
	}
}

// allOf is that all of the given answer, and nobody else.
func allOf(names ...string) func([]grpcclients.Answer) error {
	return func(answers []grpcclients.Answer) error { return grpcclients.Only(answers, names...) }
}
