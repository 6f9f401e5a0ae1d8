package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

// Two regions with three members and five instances each, and an Envoy in either.
// Each has two nodes of a lan: one for its members, one for its instances.
//
//	members of a   members of b   instances of a   instances of b
//	     |              |               |                |
//	     └──────────────┴──── bridge ───┴────────────────┘     the Envoys and their callers
const (
	pairMembers   = 3
	pairInstances = 5
	pairNodes     = 4
	pairLeaseTTL  = 30 // seconds
	pairRenewal   = 5 * time.Second
)

// pairServices are what each instance offers, with what finds out that one is
// frozen: nobody; each Envoy; the region's members.
var pairServices = []string{"plain", "checked", "probed"}

// regionPair is the two of them.
type regionPair struct {
	t    *testing.T
	lan  *lan
	a, b *sideOfPair
}

// sideOfPair is one region.
type sideOfPair struct {
	*cluster
	name      string
	number    int // 0 or 1
	envoy     *envoy
	instances []*backend
}

// A backend is an instance's process, which renews its leases as long as it can.
type backend struct {
	name, address string
	command       []string
	logs          string
	proc          *process.Process

	mu     sync.Mutex // guards what follows
	silent bool       // it renews nothing
}

func newRegionPair(t *testing.T, l *lan) *regionPair {
	t.Helper()
	p := &regionPair{t: t, lan: l}
	p.a, p.b = p.newSide("a", 0), p.newSide("b", 1)
	p.a.follow(p.b)
	p.b.follow(p.a)
	for _, s := range []*sideOfPair{p.a, p.b} {
		for _, m := range s.members {
			s.cluster.start(m)
		}
		s.startInstances()
	}
	for _, s := range []*sideOfPair{p.a, p.b} {
		s.mustBeReady()
		s.enlist()
	}
	for _, s := range []*sideOfPair{p.a, p.b} {
		s.envoy = s.startEnvoyWith(2, "--node", "web-"+s.name)
		s.envoy.until("both regions' instances in its Envoy", func() error { return s.knows(p.a, p.b) })
		s.keepLeases()
	}
	return p
}

func (p *regionPair) newSide(name string, number int) *sideOfPair {
	c := &cluster{t: p.t, client: newClient(p.t), lan: p.lan, place: func(int) int { return number }}
	c.lay(pairMembers)
	return &sideOfPair{cluster: c, name: name, number: number}
}

// instancesNode is the lan's node of the instances; that of the members is the number.
func (s *sideOfPair) instancesNode() int { return s.number + 2 }

func (s *sideOfPair) clusterID() int { return 100 * (s.number + 1) }

// follow has the members of a region keep a copy of the other. What flaps is let go
// at once: in life instances do not fail every few seconds.
func (s *sideOfPair) follow(other *sideOfPair) {
	var peers []string
	for _, m := range other.members {
		peers = append(peers, fmt.Sprintf("%q", m.address(2)))
	}
	more := fmt.Sprintf("[health]\nflap_half_life = \"1s\"\n[[federation.regions]]\nregion = %q\ncluster_id = %d\ngrpc = [%s]\n",
		other.name, other.clusterID(), strings.Join(peers, ", "))
	for _, m := range s.members {
		inRegion(s.t, s.name, s.clusterID(), more)(m)
	}
}

func (s *sideOfPair) startInstances() {
	s.t.Helper()
	ports, err := freeport.Find(pairInstances)
	if err != nil {
		s.t.Fatal(err)
	}
	node, logs := s.instancesNode(), s.t.TempDir()
	for i, port := range ports {
		b := &backend{name: fmt.Sprintf("%s%d", s.name, i+1), address: fmt.Sprintf("%s:%d", lanHost(node), port), logs: logs}
		b.command = s.lan.inside(node, filepath.Join(bin, "demo"), "upstream", "--name", b.name, "--address", b.address, "--delay", "10ms")
		s.instances = append(s.instances, b)
	}
	s.revive(s.instances...)
}

// revive starts instances and waits until they listen.
func (s *sideOfPair) revive(instances ...*backend) {
	s.t.Helper()
	for _, b := range instances {
		p, err := process.Start(process.Options{Name: b.name, Path: b.command[0], Args: b.command[1:], Logs: b.logs})
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() {
			if err := p.Kill(); err != nil {
				s.t.Error(err)
			}
		})
		b.proc = p
	}
	for _, b := range instances {
		if _, err := process.Within(s.t.Context(), readyTime, b.name+" to listen", b.listens); err != nil {
			s.t.Fatal(err)
		}
	}
	s.renews(true, instances...)
}

func (b *backend) listens() error {
	conn, err := net.DialTimeout("tcp", b.address, callTime)
	if err != nil {
		return err
	}
	return conn.Close()
}

// signal sends a signal to instances, as close to each other as can be.
func (s *sideOfPair) signal(signal syscall.Signal, instances ...*backend) {
	s.t.Helper()
	s.renews(signal == syscall.SIGCONT, instances...)
	for _, b := range instances {
		if err := b.proc.Signal(signal); err != nil {
			s.t.Fatal(err)
		}
	}
	if signal != syscall.SIGKILL {
		return
	}
	for _, b := range instances {
		<-b.proc.Ended()
	}
}

// renews says whether instances can renew their leases.
func (s *sideOfPair) renews(yes bool, instances ...*backend) {
	for _, b := range instances {
		b.mu.Lock()
		b.silent = !yes
		b.mu.Unlock()
	}
}

func (b *backend) isSilent() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.silent
}

// batchItem is one instance of one service in a batch.
type batchItem struct {
	Namespace  string `json:"namespace"`
	Service    string `json:"service"`
	InstanceID string `json:"instanceId"`
	LeaseToken string `json:"leaseToken"`

	LeaseTTLSeconds int              `json:"leaseTtlSeconds,omitempty"`
	Endpoints       []map[string]any `json:"endpoints,omitempty"`
	Checks          []map[string]any `json:"checks,omitempty"`
}

// enlist registers all instances for all services, and has the Envoys check one of these.
func (s *sideOfPair) enlist() {
	s.t.Helper()
	s.must(http.MethodPut, s.members[0].url()+"/api/v2/namespaces/default/services/checked/policy", `{"checks":{"kind":"http","path":"/healthz"}}`, http.StatusOK, http.StatusCreated)
	if err := s.batch("register", func(b *backend, i *batchItem) bool {
		host, port, err := net.SplitHostPort(b.address)
		if err != nil {
			s.t.Fatal(err)
		}
		i.LeaseTTLSeconds = pairLeaseTTL
		i.Endpoints = []map[string]any{{"name": "http", "protocol": "http", "host": host, "port": json.Number(port)}}
		if i.Service == "probed" {
			i.Checks = []map[string]any{{"kind": "http", "path": "/healthz", "intervalSeconds": 1, "timeoutSeconds": 1, "rise": 1, "fall": 2}}
		}
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
}

// batch does something with instances that fill says, for all services.
func (s *sideOfPair) batch(what string, fill func(*backend, *batchItem) bool) error {
	var items []map[string]batchItem
	for _, b := range s.instances {
		for _, service := range pairServices {
			item := batchItem{Namespace: "default", Service: service, InstanceID: b.name, LeaseToken: leaseToken}
			if fill(b, &item) {
				items = append(items, map[string]batchItem{what: item})
			}
		}
	}
	if len(items) == 0 {
		return nil
	}
	body, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return err
	}
	a, err := s.call(s.t.Context(), http.MethodPost, s.members[0].url()+"/api/v2/batch", string(body))
	if err != nil {
		return err
	}
	var answer struct{ Failed int }
	if err := errors.Join(a.want(http.StatusOK), json.Unmarshal(a.body, &answer)); err != nil {
		return err
	}
	if answer.Failed > 0 {
		return fmt.Errorf("%s: %s", what, a.body)
	}
	return nil
}

// keepLeases renews the leases of those instances that could do so themselves, until
// the test ends.
func (s *sideOfPair) keepLeases() {
	quit := make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() {
		ticker := time.NewTicker(pairRenewal)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			if err := s.batch("renew", func(b *backend, _ *batchItem) bool { return !b.isSilent() }); err != nil {
				s.t.Logf("renew in %s: %v", s.name, err) // it is tried again; what comes of it shows
			}
		}
	})
	s.t.Cleanup(func() { close(quit); loop.Wait() })
}

// knows is nil when the region's Envoy has all instances of regions, healthy, for all services.
func (s *sideOfPair) knows(regions ...*sideOfPair) error {
	config, err := s.envoy.admin.Config(s.t.Context())
	if err != nil {
		return err
	}
	for _, service := range pairServices {
		for _, region := range regions {
			for _, b := range region.instances {
				if health := config.Endpoints[service+".default"][b.address]; health != "HEALTHY" {
					return fmt.Errorf("%s of %s is %q", b.name, service, health)
				}
			}
		}
	}
	return nil
}

// cutLink makes whatever members of the two regions send each other vanish; heal ends it.
func (p *regionPair) cutLink() (heal func()) {
	p.lan.cut(p.a.number, p.b.number)
	p.lan.cut(p.b.number, p.a.number)
	return p.lan.heal
}

// done are how often each POST was done, by its id, as the instances' own logs say.
func (p *regionPair) done() map[string]int {
	p.t.Helper()
	all := make(map[string]int)
	for _, s := range []*sideOfPair{p.a, p.b} {
		for _, b := range s.instances {
			text, err := os.ReadFile(b.proc.Log)
			if err != nil {
				p.t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if id, ok := strings.CutPrefix(strings.TrimSpace(line), "did "); ok {
					all[id]++
				}
			}
		}
	}
	return all
}
