package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

var (
	envoysFlag   = flag.Int("envoys", 4, "how many Envoys TestThirtyEnvoys has")
	envoyChanges = flag.Int("envoy-changes", 60, "how often the registry is changed in TestThirtyEnvoys")
)

// The scene of the Envoys.
const (
	envoyServices = 12 // that are changed; another one, which is not, has the traffic
	envoyIDs      = 6  // instances of each at most
	envoyPause    = 50 * time.Millisecond
	fleetTime     = 60 * time.Second // for all Envoys to have what is there: not a target, a limit for waiting
	steadyHost    = "steady.default"
)

// Many Envoys, of several scopes and at several members, have exactly what the registry has after changes of
// instances, their states and their policies, and reject nothing. When the member that serves them is killed, and
// when all are down for a while, each goes on to serve its callers, and is sent nothing again that it has.
func TestThirtyEnvoys(t *testing.T) {
	t.Parallel()
	envoyPath(t) // or there is nothing to begin with
	random := seed(t)
	c := newCluster(t, 3)
	for _, name := range []string{"steady-1", "steady-2"} {
		ports, err := freeport.Find(1)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, ports[0], name)
		c.register("steady", name, fmt.Sprintf(`[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}]`, ports[0]))
	}
	f := c.startFleet(*envoysFlag)
	calls := f.call()
	for range *envoyChanges {
		c.changeSomething(random)
	}
	f.mustHaveTheRegistry()
	calls.mustNotFail("changes of the registry")

	f.mustBeServedBy(c.members...)
	sent, before := f.sent(c.members...), f.dumps()
	served := f.servedBy()
	victim := c.members[random.IntN(3)]
	for served[victim.id] == 0 {
		victim = c.members[random.IntN(3)]
	}
	t.Logf("%s, which serves %d of %d Envoys, is killed", victim.name(), served[victim.id], len(f.all))
	left := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == victim })
	sent -= f.sent(victim)
	c.kill(victim)
	f.mustBeServedBy(left...)
	f.mustBeUnchanged(before, f.sent(left...)-sent)
	c.writeAgain("steady-probe", left...) // by the next leader
	c.changeAt(random, left...)
	f.mustHaveTheRegistryOf(left[0])
	c.start(victim)
	c.mustBeReady()
	calls.mustNotFail("the death of a member")

	f.mustBeServedBy(c.members...)
	before = f.dumps()
	c.kill(c.members...)
	<-time.After(*downTime) // in which the callers have nobody but Envoy
	for _, m := range c.members {
		c.start(m)
	}
	c.mustBeReady()
	f.mustBeServedBy(c.members...)
	f.mustBeUnchanged(before, f.sent(c.members...))
	f.mustHaveTheRegistry()
	calls.mustNotFail(fmt.Sprintf("%v without any member", *downTime))
	for _, e := range f.all {
		e.noNACK()
	}
	t.Logf("%d Envoys, %d changes: each has what the registry has; %d calls, none failed", len(f.all), *envoyChanges, calls.stop())
}

// envoyFleet is many Envoys.
type envoyFleet struct {
	t   *testing.T
	c   *cluster
	all []*envoy
	see []map[string]bool // services that an Envoy declares, by the order of all; nil = its namespace's
}

// startFleet starts Envoys, every third with upstreams of its own, and waits until all are ready.
func (c *cluster) startFleet(n int) *envoyFleet {
	c.t.Helper()
	f := &envoyFleet{t: c.t, c: c}
	ports, err := freeport.Find(2 * n)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range n {
		args := []string{"--node", fmt.Sprintf("web-%d", i)}
		var see map[string]bool
		if i%3 == 2 {
			see = map[string]bool{"steady": true, envoyService(i): true, envoyService(i + 1): true}
			args = append(args, "--upstreams", strings.Join(slices.Sorted(maps.Keys(see)), ".default,")+".default")
		}
		own := ports[2*i : 2*i+2]
		f.all, f.see = append(f.all, c.launchEnvoy(c.layEnvoy(own, args...), own, 1)), append(f.see, see)
	}
	for i, e := range f.all {
		f.until(fmt.Sprintf("Envoy %d to be ready", i), func() error { return e.admin.Ready(c.t.Context()) })
	}
	return f
}

func (f *envoyFleet) until(what string, condition func() error) {
	f.t.Helper()
	if _, err := process.Within(f.t.Context(), fleetTime, what, condition); err != nil {
		f.t.Fatal(err)
	}
}

func envoyService(n int) string { return fmt.Sprintf("svc-%02d", n%envoyServices) }

// changeSomething changes an instance, its state or a policy, by any member.
func (c *cluster) changeSomething(random *rand.Rand) {
	c.t.Helper()
	c.changeAt(random, c.members...)
}

func (c *cluster) changeAt(random *rand.Rand, members ...*member) {
	c.t.Helper()
	m := members[random.IntN(len(members))]
	service := random.IntN(envoyServices)
	id := random.IntN(envoyIDs)
	at := instanceURL(m, envoyService(service), fmt.Sprintf("i-%d", id))
	policy := fmt.Sprintf("%s/api/v2/namespaces/default/services/%s/policy", m.url(), envoyService(service))
	do := func(method, url, body string) {
		c.must(method, url, body, http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusNotFound)
	}
	switch dice := random.IntN(100); {
	case dice < 50:
		do(http.MethodPut, at, randomInstance(random, 20_000+100*service+id))
	case dice < 60:
		do(http.MethodDelete, at, "")
	case dice < 70:
		do(http.MethodPost, at+"/drain", `{"seconds":3600}`)
	case dice < 80:
		status := []string{"critical", "warning", "disabled", "passing"}[random.IntN(4)]
		do(http.MethodPost, at+"/override", fmt.Sprintf(`{"status":%q,"reason":"the dice"}`, status))
	case dice < 84:
		do(http.MethodDelete, at+"/override", "")
	case dice < 96:
		do(http.MethodPut, policy, randomPolicy(random))
	default:
		do(http.MethodDelete, policy, "")
	}
}

// randomInstance is an instance at a port that nobody asks.
func randomInstance(random *rand.Rand, port int) string {
	endpoints := fmt.Sprintf(`{"name":"http","protocol":"http","host":"127.0.0.1","port":%d,"weight":%d}`, port, 1+random.IntN(200))
	if random.IntN(3) == 0 {
		endpoints += fmt.Sprintf(`,{"name":"admin","protocol":"http","host":"127.0.0.1","port":%d}`, port+50)
	}
	zone := []string{"", "z1", "z2"}[random.IntN(3)]
	return fmt.Sprintf(`{"endpoints":[%s],"zone":%q,"leaseTtlSeconds":86400}`, endpoints, zone)
}

func randomPolicy(random *rand.Rand) string {
	parts := []string{
		fmt.Sprintf(`"timeouts":{"connectMs":%d}`, 100+random.IntN(900)),
		fmt.Sprintf(`"failover":{"overprovisioningPercent":%d}`, 100+random.IntN(100)),
		fmt.Sprintf(`"protectThreshold":%.1f`, float64(random.IntN(10))/10),
		fmt.Sprintf(`"primaryEndpoint":{"name":%q,"protocol":"http"}`, []string{"http", "admin"}[random.IntN(2)]),
	}
	random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return "{" + strings.Join(parts[:1+random.IntN(len(parts))], ",") + "}"
}

// A seen cluster is what an Envoy has of it, or ought to have.
type seenCluster struct {
	connect          string // timeout
	overprovisioning int
	hosts            map[string]string // by address: health, priority, zone, weight
}

func (a seenCluster) equal(b seenCluster) bool {
	return a.connect == b.connect && a.overprovisioning == b.overprovisioning && maps.Equal(a.hosts, b.hosts)
}

// The parts of the registry's answers that decide what Envoys have.
type (
	registryService struct {
		Service   string
		Endpoints []struct{ Name, Protocol string }
	}
	registryInstance struct {
		Zone, Region, Status string
		Protected            bool
		Endpoints            []struct {
			Name, Protocol, Host string
			Port, Weight         int
		}
	}
	registryPolicy struct {
		Timeouts struct{ ConnectMs int }
		Failover struct{ OverprovisioningPercent int }
	}
)

// expected is what follows from the registry's own answers, by service and cluster.
func (c *cluster) expected(m *member) map[string]map[string]seenCluster {
	c.t.Helper()
	top := m.url() + "/api/v2/namespaces/default/services"
	var services struct{ Services []registryService }
	c.get(top+"?limit=1000", &services)
	all := make(map[string]map[string]seenCluster)
	for _, s := range services.Services {
		var instances struct{ Instances []registryInstance }
		c.get(top+"/"+s.Service+"/instances?limit=1000", &instances)
		var p struct{ Policy registryPolicy }
		c.get(top+"/"+s.Service+"/policy", &p)
		all[s.Service] = clustersOf(s, instances.Instances, p.Policy)
	}
	return all
}

func (c *cluster) get(url string, into any) {
	c.t.Helper()
	a := c.must(http.MethodGet, url, "", http.StatusOK, http.StatusNotFound)
	if a.status == http.StatusNotFound {
		return // no policy
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		c.t.Fatalf("%s: %v", url, err)
	}
}

// clustersOf is one for each endpoint of a service: the first has the service's name. Within a region all have priority 0.
func clustersOf(s registryService, instances []registryInstance, p registryPolicy) map[string]seenCluster {
	health := map[string]string{"passing": "HEALTHY", "warning": "HEALTHY", "suspect": "DEGRADED",
		"critical": "UNHEALTHY", "expired": "UNHEALTHY", "draining": "DRAINING"}
	all := make(map[string]seenCluster)
	for n, of := range s.Endpoints {
		one := seenCluster{connect: "0.250s", overprovisioning: cmp.Or(p.Failover.OverprovisioningPercent, 140), hosts: make(map[string]string)}
		if ms := p.Timeouts.ConnectMs; ms != 0 {
			one.connect = fmt.Sprintf("0.%03ds", ms)
		}
		for _, i := range instances {
			word := health[i.Status]
			if i.Protected {
				word = "HEALTHY"
			}
			for _, e := range i.Endpoints {
				if e.Name == of.Name && e.Protocol == of.Protocol && word != "" { // what is disabled is not there
					one.hosts[fmt.Sprintf("%s:%d", e.Host, e.Port)] = fmt.Sprintf("%s P0 %s/%s weight %d", word, i.Region, i.Zone, e.Weight)
				}
			}
		}
		name := s.Service + ".default"
		if n > 0 {
			name = of.Name + "~" + name
		}
		all[name] = one
	}
	return all
}

// envoyDump is the part of /config_dump?include_eds that is looked at.
type envoyDump struct {
	Configs []struct {
		DynamicActiveClusters []struct {
			Cluster struct {
				Name           string
				ConnectTimeout string `json:"connect_timeout"`
			}
		} `json:"dynamic_active_clusters"`
		DynamicWarmingClusters []json.RawMessage `json:"dynamic_warming_clusters"`
		DynamicEndpointConfigs []struct {
			EndpointConfig struct {
				ClusterName string `json:"cluster_name"`
				Policy      struct {
					OverprovisioningFactor int `json:"overprovisioning_factor"`
				}
				Endpoints []struct {
					Locality    struct{ Region, Zone string }
					Priority    int
					LBEndpoints []struct {
						Weight   int `json:"load_balancing_weight"`
						Endpoint struct {
							Address struct {
								SocketAddress struct {
									Address string
									Port    int `json:"port_value"`
								} `json:"socket_address"`
							}
						}
					} `json:"lb_endpoints"`
				}
			} `json:"endpoint_config"`
		} `json:"dynamic_endpoint_configs"`
	}
}

// clusters are what an Envoy has. The health is what EDS gave it, which /clusters tells.
func (e *envoy) clusters() (map[string]seenCluster, error) {
	var d envoyDump
	if err := e.page("/config_dump?include_eds", &d); err != nil {
		return nil, err
	}
	told, err := e.admin.Config(e.t.Context())
	if err != nil {
		return nil, err
	}
	all := make(map[string]seenCluster)
	for _, part := range d.Configs {
		if len(part.DynamicWarmingClusters) > 0 {
			return nil, fmt.Errorf("%d clusters wait for their endpoints", len(part.DynamicWarmingClusters))
		}
		for _, one := range part.DynamicActiveClusters {
			all[one.Cluster.Name] = seenCluster{connect: one.Cluster.ConnectTimeout, hosts: make(map[string]string)}
		}
		for _, one := range part.DynamicEndpointConfigs {
			of := one.EndpointConfig
			c, has := all[of.ClusterName]
			if !has {
				return nil, fmt.Errorf("endpoints of %s, which it does not have", of.ClusterName)
			}
			c.overprovisioning = of.Policy.OverprovisioningFactor
			for _, l := range of.Endpoints {
				for _, h := range l.LBEndpoints {
					at := fmt.Sprintf("%s:%d", h.Endpoint.Address.SocketAddress.Address, h.Endpoint.Address.SocketAddress.Port)
					c.hosts[at] = fmt.Sprintf("%s P%d %s/%s weight %d", told.Endpoints[of.ClusterName][at], l.Priority, l.Locality.Region, l.Locality.Zone, h.Weight)
				}
			}
			all[of.ClusterName] = c
		}
	}
	return all, nil
}

func (e *envoy) page(path string, into any) error {
	a, err := e.c.call(e.t.Context(), http.MethodGet, e.admin.URL+path, "")
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(a.body, into)
}

func (f *envoyFleet) mustHaveTheRegistry() {
	f.t.Helper()
	f.mustHaveTheRegistryOf(f.c.members[0])
}

// mustHaveTheRegistryOf waits until every Envoy has what a member says there is, within what it declares.
func (f *envoyFleet) mustHaveTheRegistryOf(m *member) {
	f.t.Helper()
	services := f.c.expected(m)
	for i, e := range f.all {
		want := make(map[string]seenCluster)
		for service, clusters := range services {
			if f.see[i] == nil || f.see[i][service] {
				maps.Copy(want, clusters)
			}
		}
		f.until(fmt.Sprintf("Envoy %d to have what the registry has", i), func() error {
			have, err := e.clusters()
			if err != nil {
				return err
			}
			return differ(have, want)
		})
	}
}

func differ(have, want map[string]seenCluster) error {
	if h, w := slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want)); !slices.Equal(h, w) {
		return fmt.Errorf("clusters %q, want %q", h, w)
	}
	for name, w := range want {
		if h := have[name]; !h.equal(w) {
			return fmt.Errorf("%s is %v, want %v", name, h, w)
		}
	}
	return nil
}

// servedBy is how many Envoys have their stream at each member.
func (f *envoyFleet) servedBy() map[int]int {
	f.t.Helper()
	by, err := f.streams(f.c.members[0])
	if err != nil {
		f.t.Fatal(err)
	}
	return by
}

func (f *envoyFleet) streams(at *member) (map[int]int, error) {
	a, err := f.c.call(f.t.Context(), http.MethodGet, at.url()+"/api/v2/proxies?limit=250", "")
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil {
		return nil, err
	}
	var list struct {
		Proxies []struct {
			Member int
			State  string
		}
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		return nil, err
	}
	by := make(map[int]int)
	for _, p := range list.Proxies {
		if p.State != "synced" {
			return nil, fmt.Errorf("one is %s", p.State)
		}
		by[p.Member]++
	}
	return by, nil
}

// mustBeServedBy waits until all Envoys have streams at these members, and have acknowledged all there is.
func (f *envoyFleet) mustBeServedBy(members ...*member) {
	f.t.Helper()
	f.until("all Envoys to be served", func() error {
		by, err := f.streams(members[0])
		if err != nil {
			return err
		}
		n := 0
		for _, m := range members {
			n += by[m.id]
		}
		if n != len(f.all) {
			return fmt.Errorf("%d of %d are", n, len(f.all))
		}
		return nil
	})
}

// sent is how many resources members have sent since they were started.
func (f *envoyFleet) sent(members ...*member) (n int) {
	f.t.Helper()
	for _, m := range members {
		a := f.c.must(http.MethodGet, m.url()+"/metrics", "", http.StatusOK)
		for line := range strings.Lines(string(a.body)) {
			if strings.HasPrefix(line, "stellmap_xds_resources_sent_total{") {
				var one float64
				if _, err := fmt.Sscanf(line[strings.Index(line, "} ")+2:], "%g", &one); err != nil {
					f.t.Fatalf("%s: %v", line, err)
				}
				n += int(one)
			}
		}
	}
	return n
}

// dumps are the clusters, listeners, routes and endpoints of each Envoy as it was sent them, with versions and times.
func (f *envoyFleet) dumps() [][]byte {
	f.t.Helper()
	var all [][]byte
	for i, e := range f.all {
		var d struct {
			Configs []struct {
				Clusters  json.RawMessage `json:"dynamic_active_clusters"`
				Listeners json.RawMessage `json:"dynamic_listeners"`
				Routes    json.RawMessage `json:"dynamic_route_configs"`
			}
		}
		if err := e.page("/config_dump", &d); err != nil {
			f.t.Fatalf("Envoy %d: %v", i, err)
		}
		text, err := json.Marshal(d)
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

// mustBeUnchanged checks that no Envoy was sent anything again, by what the members count and by what the Envoys have.
func (f *envoyFleet) mustBeUnchanged(before [][]byte, sent int) {
	f.t.Helper()
	if sent != 0 {
		f.t.Errorf("%d resources were sent again to Envoys that had them", sent)
	}
	for i, now := range f.dumps() {
		if !bytes.Equal(before[i], now) {
			f.t.Errorf("Envoy %d has taken something again: it had\n%s\nand has\n%s", i, before[i], now)
		}
	}
}

// calls go through every Envoy until they are stopped.
type envoyCalls struct {
	t       *testing.T
	end     context.CancelFunc
	working sync.WaitGroup

	mu     sync.Mutex // guards what follows
	by     []int      // answered, by Envoy
	faults []string
}

// call has a caller behind each Envoy, and waits until each was answered.
func (f *envoyFleet) call() *envoyCalls {
	f.t.Helper()
	ctx, end := context.WithCancel(f.t.Context())
	calls := &envoyCalls{t: f.t, end: end, by: make([]int, len(f.all))}
	for i, e := range f.all {
		f.until(fmt.Sprintf("an answer through Envoy %d", i), func() error {
			status, _, _, err := e.ask(f.t.Context(), steadyHost)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("it is %d", status)
			}
			return err
		})
		calls.working.Go(func() { calls.work(ctx, i, e) })
	}
	f.t.Cleanup(func() { calls.stop() })
	return calls
}

func (c *envoyCalls) work(ctx context.Context, i int, e *envoy) {
	ticks := time.NewTicker(envoyPause)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		status, _, body, err := e.ask(e.t.Context(), steadyHost) // not ctx: one that is under way is answered
		c.mu.Lock()
		if err == nil && status == http.StatusOK {
			c.by[i]++
		} else {
			c.faults = append(c.faults, fmt.Sprintf("through Envoy %d: %d %s %v", i, status, body, err))
		}
		c.mu.Unlock()
	}
}

// mustNotFail checks that calls go on through each Envoy and that none has failed.
func (c *envoyCalls) mustNotFail(during string) {
	c.t.Helper()
	c.mu.Lock()
	since := slices.Clone(c.by)
	c.mu.Unlock()
	_, err := process.Within(c.t.Context(), fleetTime, "answers through each Envoy after "+during, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range since {
			if c.by[i] == since[i] {
				return fmt.Errorf("none through Envoy %d", i)
			}
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) > 0 {
		err = errors.Join(err, fmt.Errorf("%d calls have failed, the first %s", len(c.faults), c.faults[0]))
	}
	if err != nil {
		c.t.Errorf("%s: %v", during, err)
	}
}

// stop ends the calls and says how many were answered.
func (c *envoyCalls) stop() (answered int) {
	c.end()
	c.working.Wait()
	for _, n := range c.by {
		answered += n
	}
	return answered
}
