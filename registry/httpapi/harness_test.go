package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
	"github.com/stellmap/stellmap/storage"
)

// manualClock stands still until it is moved, in steps that the registry's loops see.
type manualClock struct {
	made  chan struct{} // holds one token for each ticker
	still sync.RWMutex  // locked while time stands still

	mu    sync.Mutex // guards what follows
	now   time.Time
	ticks []chan time.Time
}

// loops are the registry's that tick: for expiry, for reaping and for checkpoints.
const loops = 3

func newManualClock() *manualClock {
	c := &manualClock{now: registrytest.Start(), made: make(chan struct{}, loops)}
	c.still.Lock()
	return c
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) Ticker(time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ticks := make(chan time.Time)
	c.ticks = append(c.ticks, ticks)
	c.made <- struct{}{}
	return ticks, func() {}
}

// pass lets time go by. A tick is taken only by a loop that is done with the one
// before, so the second of each step says that the first has done its work, at
// the time of that step.
func (c *manualClock) pass(d time.Duration) {
	const step = 250 * time.Millisecond
	c.still.Unlock()
	defer c.still.Lock()
	for passed := time.Duration(0); passed < d; passed += step {
		c.mu.Lock()
		c.now = c.now.Add(min(step, d-passed))
		now := c.now
		c.mu.Unlock()
		for _, ticks := range c.ticks {
			ticks <- now
			ticks <- now
		}
	}
}

// timely is a log that takes checkpoints only while time goes by. What follows the last
// tick of all runs beside the test, and may see a renewal that came behind it.
type timely struct {
	*registrytest.Member
	clock *manualClock
}

func (l timely) Propose(ctx context.Context, requestID string, command []byte) (registry.Applied, error) {
	var one recordv1.Command
	if err := proto.Unmarshal(command, &one); err != nil {
		return registry.Applied{}, err
	}
	if one.GetCheckpoint() != nil {
		l.clock.still.RLock()
		defer l.clock.still.RUnlock()
	}
	return l.Member.Propose(ctx, requestID, command)
}

// A member is a registry over a log that commits at once, and its API.
type member struct {
	tb      testing.TB
	clock   *manualClock
	log     *registrytest.Log
	engine  *storage.Engine
	machine *registry.Machine
	api     *API
	logs    *logs
	config  Config
	views   atomic.Int64
	tokens  atomic.Int64

	mu       sync.Mutex // guards what follows
	status   ClusterStatus
	withheld map[registry.ServiceKey][]Withheld
	xds      error
}

// newMember makes a member; change, if not nil, may change the API's configuration before it is used.
func newMember(tb testing.TB, change func(*Config)) *member {
	tb.Helper()
	return newMemberOn(tb, registry.MachineConfig{}, change)
}

// newMemberOn is newMember with bounds of the machine's own.
func newMemberOn(tb testing.TB, machine registry.MachineConfig, change func(*Config)) *member {
	tb.Helper()
	metrics := prometheus.NewRegistry()
	m := &member{tb: tb, clock: newManualClock(), logs: &logs{}, withheld: make(map[registry.ServiceKey][]Withheld)}
	m.log = registrytest.NewLog(tb, m.clock.Now)
	machine.Region, machine.ViewID, machine.Registerer = "here", m.viewID, metrics
	one := m.log.NewMember(machine)
	m.engine, m.machine = one.Engine, one.Machine
	m.status = ClusterStatus{
		ID: 2, ClusterID: 100, LeaderID: 1, Region: "here", Term: 7, Commit: 41, Applied: 40, Role: "follower", Confirmed: true, Incarnation: "cafe",
		Members: []Member{
			{ID: 1, HTTP: "10.0.0.1:8080", XDS: "10.0.0.1:18000", GRPC: "10.0.0.1:19090", Admin: "10.0.0.1:18080"},
			{ID: 2, HTTP: "10.0.0.2:8080", XDS: "10.0.0.2:18000", GRPC: "10.0.0.2:19090", Admin: "10.0.0.2:18080"},
		},
		Voters: []uint64{1, 2},
	}
	m.log.Begin()
	m.machine.Lead(1)
	r := registry.New(registry.Config{Machine: m.machine, Replicator: timely{one, m.clock}, Clock: m.clock})
	m.run(r)
	m.config = Config{
		Registry: r, Cluster: m.cluster, XDSReady: m.xdsReady, Withheld: m.withhold,
		LeaseToken: m.leaseToken,
		Gatherer:   metrics, Registerer: metrics, Logger: slog.New(slog.NewTextHandler(m.logs, nil)),
	}
	if change != nil {
		change(&m.config)
	}
	var err error
	if m.api, err = New(m.config); err != nil {
		tb.Fatalf("make the API: %v", err)
	}
	return m
}

// run runs the registry's loops until the test ends.
func (m *member) run(r *registry.Registry) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	for range loops {
		<-m.clock.made
	}
	m.tb.Cleanup(func() {
		cancel()
		m.clock.still.Unlock()
		if err := <-done; err != nil {
			m.tb.Errorf("run: %v", err)
		}
	})
}

func (m *member) cluster() ClusterStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

func (m *member) xdsReady() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.xds
}

func (m *member) withhold(_ context.Context, k registry.ServiceKey) []Withheld {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.withheld[k]
}

// viewID gives lists the names view-1, view-2 and so on.
func (m *member) viewID() string {
	return fmt.Sprintf("view-%d", m.views.Add(1))
}

// leaseToken gives registrations the tokens lease-token-0001 and so on.
func (m *member) leaseToken() string {
	return fmt.Sprintf("lease-token-%04d", m.tokens.Add(1))
}

// set changes what the member plays, safely.
func (m *member) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log.Set(change)
}

// registerFleet registers ten instances of one zone, of which five have short leases.
func (m *member) registerFleet() {
	m.tb.Helper()
	for n := range 10 {
		ttl := []int{1, 60}[n%2]
		m.must(http.StatusCreated, http.MethodPut, fmt.Sprintf("/api/v2/namespaces/prod/services/pay/instances/p%d", n),
			fmt.Sprintf(`{"zone":"a","leaseTtlSeconds":%d,"endpoints":[{"protocol":"http","host":"10.0.0.%d","port":80}]}`, ttl, n+1))
	}
}

// fingerprint is the revision, and everything that the engine holds.
func (m *member) fingerprint() string {
	m.tb.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "revision %d\n", m.machine.Revision())
	for _, prefix := range []string{storage.ServicePrefix, storage.InstancePrefix, storage.LeasePrefix, storage.PolicyPrefix, storage.UpstreamsPrefix, storage.NamespacePrefix, storage.RolePrefix, storage.BindingPrefix, storage.AccessTokenPrefix, storage.EventPrefix, storage.HistoryKey, storage.ProtectionKey} {
		lo := []byte(prefix)
		if err := m.engine.Scan(lo, storage.PrefixEnd(lo), func(key, value []byte) error {
			fmt.Fprintf(&out, "%s = %x\n", key, value)
			return nil
		}); err != nil {
			m.tb.Fatalf("scan the engine: %v", err)
		}
	}
	return out.String()
}

// logs keeps what was logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// request makes a request with a JSON body where there is one. Headers are "Name: value".
func request(method, target, body string, headers ...string) *http.Request {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	q := httptest.NewRequest(method, target, reader)
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "From-Address" { // where the call comes from, and no header
			q.RemoteAddr = value
			continue
		}
		q.Header.Set(name, value)
		if value == "" {
			q.Header.Del(name)
		}
	}
	return q
}

// call has the HTTP port answer, as its description says that it does.
func (m *member) call(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	m.tb.Helper()
	q, w := request(method, target, body, headers...), httptest.NewRecorder()
	m.api.Handler().ServeHTTP(w, q)
	m.mustBeAsDescribed(q, w)
	return w
}

// play is call for an answer that no real member gives.
func (m *member) play(method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.api.Handler().ServeHTTP(w, request(method, target, body))
	return w
}

// must is a call that has to be answered with a status.
func (m *member) must(status int, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	m.tb.Helper()
	w := m.call(method, target, body, headers...)
	if w.Code != status {
		m.tb.Fatalf("%s %s answers %d, want %d: %s", method, target, w.Code, status, w.Body)
	}
	return w
}

// into decodes an answer that must have no other keys than v.
func into(tb testing.TB, w *httptest.ResponseRecorder, v any) {
	tb.Helper()
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		tb.Fatalf("decode the answer: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		tb.Fatalf("something comes after the answer: %v", err)
	}
}

func mustEqual[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Fatalf("%s is\n%v\nwant\n%v", what, got, want)
	}
}

// await waits until an instance of namespace prod has a status.
func (m *member) await(service, id, status string) {
	m.tb.Helper()
	k := registry.InstanceKey{Namespace: "prod", Service: service, ID: id}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	watch := m.machine.Watch(m.machine.Revision())
	for m.machine.Instance(k).Status.String() != status {
		if _, err := watch.Next(ctx); err != nil {
			m.tb.Fatalf("%s is %s, not %s: %v", id, m.machine.Instance(k).Status, status, err)
		}
	}
}

// register puts an instance of one HTTP endpoint into namespace prod.
func (m *member) register(service, id, host string, more string) {
	m.tb.Helper()
	body := fmt.Sprintf(`{"endpoints":[{"protocol":"http","host":%q,"port":8080}]%s}`, host, more)
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/"+service+"/instances/"+id, body)
}
