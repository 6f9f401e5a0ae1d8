package xds

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/grpcclients"
	"github.com/stellmap/stellmap/registry"
)

var realClients = flag.Bool("grpc-clients", false, "test with real gRPC clients, which scripts/grpc-* get")

const (
	clientPatience = 2 * time.Minute // with which a real client is waited for
	callRate       = 100             // a second
)

// A callee is a server of region metadata["region"], which answers with its name.
type callee struct {
	*grpcclients.Server
	region string
}

// Real clients of four languages send each region the share that is computed for
// them, go to another region when theirs cannot be reached, come back, and take what
// becomes of any policy.
func TestRealGRPCClients(t *testing.T) {
	if !*realClients {
		t.Skip("not tested without -grpc-clients (`make e2e` has it)")
	}
	for _, language := range grpcclients.Languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			m := newMember(t, nil)
			m.server.cache.service = regionsOf(m.machine)
			callees := make(map[string]*callee)
			for name, region := range map[string]string{"here-1": "here", "here-2": "here", "east-1": "east", "east-2": "east"} {
				callees[name] = m.callee(name, region)
			}
			c := m.caller(language)

			c.await("its region alone answers", 100, only("here-1", "here-2"))
			m.say("here-2", registry.StatusCritical)
			c.await("seven of ten calls stay in a region of which half can be called", 400, func(answers []grpcclients.Answer) error {
				count := grpcclients.Count(answers)
				if n := count["here-1"]; n < 240 || n > 320 || n+count["east-1"]+count["east-2"] != 400 {
					return fmt.Errorf("of 400 answers are %v", count)
				}
				return nil
			})
			m.say("here-2", registry.StatusPassing)
			c.await("all of them stay again", 100, only("here-1", "here-2"))

			for _, name := range []string{"here-1", "here-2"} {
				if err := callees[name].Stop(); err != nil {
					t.Fatal(err)
				}
			}
			c.await("the next region answers when nobody of the first can be reached", 100, only("east-1", "east-2"))
			for _, name := range []string{"here-1", "here-2"} {
				m.serveCallee(callees[name])
			}
			c.await("its own region answers when it is back", 100, only("here-1", "here-2"))

			for _, name := range slices.Sorted(maps.Keys(policies)) {
				if strings.Contains(policies[name], "primaryEndpoint") {
					continue // it withholds all of these instances
				}
				m.putPolicy(t, "orders", policies[name])
				if strings.Contains(policies[name], "drops") { // by which some calls fail
					c.await("calls fail by policy "+name, 100, someErrors)
					continue
				}
				c.await("it goes on with policy "+name, 10, noErrors)
			}
			m.settled()
			for typ := range typeCount {
				if n := m.server.metrics.nacks[typ].Load(); n > 0 {
					t.Errorf("it has refused %d responses of %v", n, typ)
				}
			}
		})
	}
}

// Real clients of four languages report their calls, and leave alone an instance of
// which more calls fail than its policy allows, until it works again.
func TestRealGRPCClientsLeaveWhoFails(t *testing.T) {
	if !*realClients {
		t.Skip("not tested without -grpc-clients (`make e2e` has it)")
	}
	for _, language := range grpcclients.Languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			m := newMember(t, func(c *Config, _ *limits) { c.LoadEvery = time.Second })
			sound, broken := m.callee("here-1", "here"), m.callee("here-2", "here")
			m.putPolicy(t, "orders", `{"outlierDetection":{"failurePercent":50,"minRequests":5,"baseEjectionMs":600000,"maxEjectionMs":600000}}`)
			c := m.caller(language)
			c.await("both answer", 100, only(sound.Name, broken.Name))
			eventually(t, "it reports its calls", func() bool { return m.everCalled("orders.prod").succeeded > 0 })
			broken.Fail(true)
			c.await("it leaves the one that fails", 300, only(sound.Name))
			eventually(t, "it reports the calls that have failed", func() bool { return m.everCalled("orders.prod").failed > 0 })
			broken.Fail(false)
			m.putPolicy(t, "orders", `{"outlierDetection":{"disabled":true}}`)
			c.await("both answer again when the policy leaves nobody alone", 100, only(sound.Name, broken.Name))
		})
	}
}

// regionsOf puts instances into the region that their metadata name, as an import
// from that region would.
func regionsOf(machine *registry.Machine) func(registry.ServiceKey) *registry.Service {
	return func(k registry.ServiceKey) *registry.Service {
		s := machine.Service(k)
		if s == nil {
			return nil
		}
		moved := *s
		moved.Shown = slices.Clone(s.Shown)
		for n, i := range s.Shown {
			there, origin := *i, *i.Origin
			origin.Region, _ = i.Metadata.Get("region")
			there.Origin = &origin
			moved.Shown[n] = &there
		}
		return &moved
	}
}

// callee starts a server and registers it.
func (m *member) callee(name, region string) *callee {
	m.tb.Helper()
	c := &callee{Server: &grpcclients.Server{Name: name}, region: region}
	m.serveCallee(c)
	m.register(registry.Registration{
		Namespace: "prod", Service: "orders", ID: name, Metadata: map[string]string{"region": region},
		Version:   map[bool]string{true: "v1", false: "v2"}[strings.HasSuffix(name, "1")], // policies split by it
		Endpoints: []registry.Endpoint{{Protocol: "grpc", Host: "127.0.0.1", Port: int32(c.Port)}},
	})
	return c
}

func (m *member) serveCallee(c *callee) {
	m.tb.Helper()
	server, err := grpcclients.Serve(c.Name, c.Port)
	if err != nil {
		m.tb.Fatal(err)
	}
	c.Server = server
	m.tb.Cleanup(func() {
		if err := server.Stop(); err != nil {
			m.tb.Error(err)
		}
	})
}

// say has an operator say what an instance is; passing takes the word back.
func (m *member) say(id string, status registry.Status) {
	m.tb.Helper()
	said := registry.ConditionChange{
		Key:       registry.InstanceKey{Namespace: "prod", Service: "orders", ID: id},
		Condition: registry.Condition{Source: registry.SourceOperator, Status: status}, Clear: status == registry.StatusPassing,
	}
	if _, _, err := m.registry.SetConditions(context.Background(), []registry.ConditionChange{said}); err != nil {
		m.tb.Fatal(err)
	}
}

// A caller is a real client of orders.prod.
type caller struct {
	tb testing.TB
	*grpcclients.Client
}

func (m *member) caller(language string) *caller {
	m.tb.Helper()
	folder := m.tb.TempDir()
	command, err := grpcclients.Command(language, folder)
	if err != nil {
		m.tb.Fatal(err)
	}
	bootstrap := filepath.Join(folder, "xds.json")
	text := fmt.Sprintf(`{"xds_servers":[{"server_uri":"127.0.0.1:%d","channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],
		"node":{"id":"caller-1","cluster":"caller","locality":{"region":"here"}}}`, m.listenTCP())
	if err := os.WriteFile(bootstrap, []byte(text), 0o600); err != nil {
		m.tb.Fatal(err)
	}
	c, err := grpcclients.Start(grpcclients.Options{Command: command, Target: "xds:///orders.prod", Bootstrap: bootstrap, Rate: callRate, Folder: folder})
	if err != nil {
		m.tb.Fatal(err)
	}
	m.tb.Cleanup(func() {
		if err := c.End(); err != nil {
			m.tb.Error(err)
		}
	})
	return &caller{tb: m.tb, Client: c}
}

func (c *caller) await(what string, n int, check func([]grpcclients.Answer) error) {
	c.tb.Helper()
	if err := c.Await(c.tb.Context(), clientPatience, n, what, check); err != nil {
		c.tb.Fatalf("%v\nits last words: %s", err, c.Tail(5))
	}
}

// only is that all of the given answer, and nobody else.
func only(names ...string) func([]grpcclients.Answer) error {
	return func(answers []grpcclients.Answer) error { return grpcclients.Only(answers, names...) }
}

func noErrors(answers []grpcclients.Answer) error {
	for _, a := range answers {
		if a.Error != "" {
			return fmt.Errorf("one failed: %s", a.Error)
		}
	}
	return nil
}

// someErrors is that some fail and some do not.
func someErrors(answers []grpcclients.Answer) error {
	count := grpcclients.Count(answers)
	if noErrors(answers) == nil || count["here-1"] == 0 {
		return fmt.Errorf("it has had %v", count)
	}
	return nil
}
