package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/internal/process"
)

var (
	attackers = flag.Int("attackers", 32, "how many connections at once an attack of TestRawAttacks has")
	idlers    = flag.Int("idle", 200, "how many there are that say nothing")
	attackFor = flag.Duration("attack-for", 0, "how long each of its attacks goes on at least; then the time of answers is bounded")
)

const (
	attackGrowth   = 64 << 20               // of the member's memory, beyond what docs/security.md says that connections and calls may hold
	attackAnswers  = 2                      // to a well-behaved client, in each of its ways, while an attack is in force
	attackP99      = 100 * time.Millisecond // of those answers, where it is bounded
	fewPlaces      = 15                     // for connections there are on the ports of members and of administration, however few descriptors a machine gives
	attackPatience = time.Minute            // for an attack to come into force, and for an answer amid it
)

// victim is the member that is attacked, and those who may come to it.
type victim struct {
	*member
	c         *cluster
	authority *authority // of its TLS; nil = there is none
}

// Who attacks each port of a member with TLS, where the attack goes on behind the handshake.
var attackerNames = [4]string{"orders", "orders", "copy", "lin"}

// A member, with TLS and without, stays up through each attack on its sockets, its memory stays within bounds, and a well-behaved client
// goes on being answered. Those who attack a member with TLS have a certificate, where the attack goes on behind the handshake.
func TestRawAttacks(t *testing.T) {
	t.Parallel()
	t.Run("without TLS", func(t *testing.T) {
		c := newCluster(t, 1)
		v := &victim{member: c.members[0], c: c}
		v.boundsHeaders(t)
		v.withstand(t)
	})
	t.Run("with TLS", func(t *testing.T) {
		a := newAuthority(t)
		c := newClusterWith(t, 1, a.prepare(a.client("orders", "ns/default/sa/orders")))
		a.client("copy", "replicator/cn-sh")
		a.client("lin", "operator/lin")
		(&victim{member: c.members[0], c: c, authority: &a}).withstand(t)
	})
}

func (v *victim) withstand(t *testing.T) {
	p := v.newPolite(t)
	p.answered(attackAnswers) // what the first calls take is not the attacks'
	base := memoryOf(t, v.member)
	if *attackFor > 0 {
		base = v.work(t)
	}
	all := allAttacks(*attackers, *idlers)
	// The runtime gives memory back slowly, and in the short form nobody waits for it: what one attack may hold is there for the next, too.
	slices.SortStableFunc(all, func(a, b attack) int { return cmp.Compare(a.mayHold(), b.mayHold()) })
	for _, one := range all {
		secured := v.authority != nil
		if one.secure && !secured {
			continue
		}
		if *attackFor == 0 && !one.raw { // ports that speak the same are much the same, and so are those behind a handshake
			if secured && !one.secure {
				continue
			}
			one.ports = one.ports[:1]
		}
		for _, port := range one.ports {
			name := fmt.Sprintf("%s on the port %s", one.name, [4]string{"http", "xds", "grpc", "admin"}[port])
			t.Run(name, func(t *testing.T) {
				v.withstandOne(t, p, one, port, base)
				v.settle(t, base)
			})
			if !v.proc.Running() {
				t.Fatal("the member has ended")
			}
		}
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}

// What the member does before it is attacked: rounds of writes, until one takes it no more memory than the last.
const (
	workClients = 16
	workWrites  = 50_000
	workRounds  = 12
	workMore    = 4 << 20 // bytes that are no more
)

// work has the member do what it is there for, and is the most memory that it has meanwhile. The engine's tables come and
// go with 32 MiB each, and the history of events fills: what a well-behaved client writes amid the attacks, some 100,000
// times, is not their growth.
func (v *victim) work(t *testing.T) (most int64) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: v.trust, MaxIdleConnsPerHost: workClients}
	defer transport.CloseIdleConnections()
	by := &cluster{t: t, client: &http.Client{Timeout: attackPatience, Transport: transport}}
	for n := range workRounds {
		before := most
		most = max(most, v.workRound(t, by))
		t.Logf("at work: %d MiB after %d writes", most>>20, (n+1)*workWrites)
		if most-before <= workMore {
			return most
		}
	}
	t.Fatal("its memory grows with every write")
	return 0
}

func (v *victim) workRound(t *testing.T, by *cluster) (most int64) {
	t.Helper()
	var all sync.WaitGroup
	var left atomic.Int64
	left.Store(workWrites)
	for n := range workClients {
		all.Go(func() {
			for left.Add(-1) >= 0 && !t.Failed() {
				a, err := by.call(t.Context(), http.MethodPut, instanceURL(v.member, "orders", fmt.Sprint(n)), registration(9000, "1"))
				if err == nil {
					err = a.want(http.StatusOK, http.StatusCreated)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	ticks := time.NewTicker(attackTold)
	defer ticks.Stop()
	for ; left.Load() > 0 && !t.Failed(); <-ticks.C {
		most = max(most, memoryOf(t, v.member))
	}
	all.Wait()
	return most
}

// withstandOne attacks a port until the attack is in force and the well-behaved client has been answered amid it. In the
// full form, which asks how long he waits, that is for attackFor, and what he waited while the attack grew counts, too.
func (v *victim) withstandOne(t *testing.T, p *polite, one attack, port int, base int64) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), attackPatience+*attackFor)
	defer end()
	crowd := v.send(t, attackPlan{Name: one.name, Port: port, Attackers: *attackers, Idlers: *idlers})
	p.forget()
	began, most := time.Now(), int64(0)
	var grown time.Time // to its full size, which a member that ends silent connections does not let it keep
	inForce := one.acts
	if inForce == 0 {
		inForce = int64(one.crowd)
	}
	if port >= 2 {
		inForce = min(inForce, fewPlaces)
	}
	_, err := process.Until(ctx, "the attack to be in force", func() error {
		most = max(most, memoryOf(t, v.member))
		if n := crowd.acts.Load(); n < inForce && (grown.IsZero() || *attackFor == 0) {
			if *attackFor == 0 {
				p.forget()
			}
			return fmt.Errorf("%d of %d so far", n, inForce)
		}
		if grown.IsZero() {
			grown = time.Now()
		}
		if len(p.took(attackAnswers)[0]) == 0 || time.Since(grown) < *attackFor {
			return errors.New("the well-behaved client waits for its answers")
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v; the client: %v; the member's last words:\n%s", err, p.err(), v.proc.Tail(5))
	}
	took := p.took(1)
	if err := crowd.stop(); err != nil {
		t.Error(err)
	}
	more := (most - base) >> 20
	bound := (attackGrowth + one.mayHold()) >> 20
	line := fmt.Sprintf("%d acts in %v, memory %+d MiB of %d", crowd.acts.Load(), time.Since(began).Round(10*time.Millisecond), more, bound)
	for i, way := range took {
		if len(way) == 0 {
			continue
		}
		p99 := way[len(way)*99/100]
		line += fmt.Sprintf(", %d %s p99 %v", len(way), [politeWays]string{"writes", "reads", "calls"}[i], p99.Round(time.Millisecond))
		if *attackFor > 0 && p99 > attackP99 {
			t.Errorf("a well-behaved client waits for %v", p99)
		}
	}
	t.Log(line)
	if more > bound {
		t.Errorf("the member has %d MiB more than before, want %d at most", more, bound)
	}
}

// settle waits, before the next attack, until the member has given back what the last one took but for what may stay.
func (v *victim) settle(t *testing.T, base int64) {
	if *attackFor == 0 || !v.proc.Running() {
		return
	}
	took, err := process.Within(t.Context(), attackPatience, "the member to give back what the attack took", func() error {
		if more := memoryOf(t, v.member) - base; more > attackGrowth {
			return fmt.Errorf("it has %d MiB more than before, want %d at most", more>>20, attackGrowth>>20)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("the member has given back what the attack took %v after it", took.Round(10*time.Millisecond))
}

// boundsHeaders: a call over gRPC whose header is above the bound is refused before it is made, on both ports.
func (v *victim) boundsHeaders(t *testing.T) {
	for _, port := range []int{1, 2} {
		conn, err := grpc.NewClient(v.address(port), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for bytes, refused := range map[int]bool{60_000: false, 70_000: true} {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", bytes))
			_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
			if told := status.Code(err) == codes.Internal; told != refused {
				t.Errorf("port %d takes a header of %d bytes with %v", port, bytes, err)
			}
		}
	}
}

// politeWays are a write, a read over a new connection, and a call over gRPC.
const politeWays = 3

// polite is a client who behaves: it writes, reads over a new connection, and asks by gRPC, over and over.
type polite struct {
	end  context.CancelFunc
	gone sync.WaitGroup

	mu    sync.Mutex // guards what follows
	since [politeWays][]time.Duration
	fault error
}

func (v *victim) newPolite(t *testing.T) *polite {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	p := &polite{end: end}
	t.Cleanup(func() { end(); p.gone.Wait() })
	secure, trust := insecure.NewCredentials(), v.trust
	if trust != nil {
		secure = credentials.NewTLS(trust.Clone())
	}
	conn, err := grpc.NewClient(v.address(1), grpc.WithTransportCredentials(secure))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stays := &cluster{t: t, client: &http.Client{Timeout: attackPatience, Transport: &http.Transport{TLSClientConfig: trust}}}
	comes := &cluster{t: t, client: &http.Client{Timeout: attackPatience, Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}}
	of := func(by *cluster, method, body string) func() error {
		return func() error {
			a, err := by.call(ctx, method, instanceURL(v.member, "orders", "a"), body)
			if err != nil {
				return err
			}
			return a.want(http.StatusOK, http.StatusCreated)
		}
	}
	health := grpc_health_v1.NewHealthClient(conn)
	p.gone.Go(func() {
		p.ask(ctx, of(stays, http.MethodPut, registration(9000, "1")), of(comes, http.MethodGet, ""), func() error {
			asked, cancel := context.WithTimeout(ctx, attackPatience)
			defer cancel()
			_, err := health.Check(asked, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
			return err
		})
	})
	return p
}

// ask asks in all ways, one after the other, until it ends or is not answered.
func (p *polite) ask(ctx context.Context, ways ...func() error) {
	for ctx.Err() == nil {
		for i, way := range ways {
			began := time.Now()
			err := way()
			if ctx.Err() != nil {
				return
			}
			p.mu.Lock()
			if p.since[i] = append(p.since[i], time.Since(began)); err != nil {
				p.fault = fmt.Errorf("the well-behaved client is not answered: %w", err)
			}
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}

// took is how long it waited for each answer in each way since it has forgotten; nothing where there are not so many.
func (p *polite) took(ofEach int) (since [politeWays][]time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, way := range p.since {
		if len(way) < ofEach {
			return since
		}
	}
	for i, way := range p.since {
		since[i] = slices.Sorted(slices.Values(way))
	}
	return since
}

func (p *polite) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.since {
		p.since[i] = p.since[i][:0]
	}
}

func (p *polite) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

func (p *polite) stop() error {
	p.end()
	p.gone.Wait()
	return p.err()
}

// answered waits for so many answers in each way.
func (p *polite) answered(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), attackPatience)
	defer cancel()
	_, _ = process.Until(ctx, "answers", func() error { // where there are none, the attacks say so
		if len(p.took(n)[0]) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// A member whose descriptors are all wanted by those who connect has some for its files and its other ports, and serves again when they go.
func TestAMemberOutlivesACrowdOfConnections(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 1, func(m *member) {
		m.command = append([]string{"/bin/sh", "-c", `ulimit -n 512; exec "$0" "$@"`}, m.command...)
	})
	m := c.members[0]
	shows := func(line string) {
		t.Helper()
		if _, err := process.Within(t.Context(), readyTime, line, func() error {
			a, err := c.call(t.Context(), http.MethodGet, m.urlOf(3)+"/metrics", "")
			if err != nil {
				return err
			}
			if !strings.Contains(string(a.body), line) {
				return errors.New("the admin port does not say so")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	var crowd []net.Conn
	for range 600 { // more than there are descriptors, on both ports for clients
		for port := range 2 {
			conn, err := net.Dial("tcp", m.address(port))
			if err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, conn)
		}
	}
	shows("stellmap_connections_refused_total{port=\"xds\"} 4") // hundreds
	for _, conn := range crowd {
		conn.Close()
	}
	if _, err := process.Within(t.Context(), readyTime, "a write", func() error {
		a, err := c.call(t.Context(), http.MethodPut, instanceURL(m, "orders", "a"), registration(9000, "1"))
		if err != nil {
			return err
		}
		return a.want(http.StatusOK, http.StatusCreated)
	}); err != nil {
		t.Fatal(err)
	}
	shows("stellmap_connections_refused_total{port=\"admin\"} 0\n")
}
