package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/grpcclients"
	"github.com/stellmap/stellmap/internal/process"
)

// allRate is how many calls a second each of several clients makes: all are to keep up on a busy machine.
const allRate = 20

// callers are clients that are all to see the same.
type callers struct {
	t   *testing.T
	all map[string]*grpcCaller // by language
}

// await waits until the last n answers of each are as they should be, and gives how long that took.
func (c callers) await(what string, n int, check func([]grpcclients.Answer) error) time.Duration {
	c.t.Helper()
	began := time.Now()
	var waiting sync.WaitGroup
	var mu sync.Mutex // guards what follows
	var wrong error
	for language, one := range c.all {
		waiting.Go(func() {
			if err := one.Await(c.t.Context(), grpcPatience, n, what, check); err != nil {
				mu.Lock()
				defer mu.Unlock()
				wrong = errors.Join(wrong, fmt.Errorf("%s: %w\nits last words: %s", language, err, one.Tail(5)))
			}
		})
	}
	waiting.Wait()
	if wrong != nil {
		c.t.Fatal(wrong)
	}
	return time.Since(began)
}

// count is how many answers each has had.
func (c callers) count() map[string]int {
	c.t.Helper()
	out := make(map[string]int)
	for language, one := range c.all {
		answers, err := one.Answers()
		if err != nil {
			c.t.Fatal(err)
		}
		out[language] = len(answers)
	}
	return out
}

// only says that since then all calls of each were answered, and by nobody else.
func (c callers) only(what string, since map[string]int, names ...string) {
	c.t.Helper()
	for language, one := range c.all {
		answers, err := one.Answers()
		if err == nil {
			err = grpcclients.Only(answers[since[language]:], names...)
		}
		if err != nil {
			c.t.Errorf("%s: %s: %v", language, what, err)
		}
	}
}

// gRPC clients of four languages in region a call its instances; when these are killed, with leases
// that go on, they call those of region b, of which a has a copy; they go on while a's member is
// killed, and started again with what it has while the link is cut; and they come back when their region
// does. Behind the first answers of another region no call fails.
func TestGRPCClientsFailOverBetweenRegions(t *testing.T) {
	t.Parallel()
	s := newFollowed(t, nil)
	s.start(grpcclients.Languages)
	s.failOver()
}

// The same where every port speaks TLS, that between the regions included, for the languages whose
// clients take certificates from a bootstrap.
func TestGRPCClientsFailOverBetweenRegionsOverTLS(t *testing.T) {
	t.Parallel()
	by := newAuthority(t).guarding()
	s := newFollowed(t, &by)
	s.start([]string{grpcclients.Go, grpcclients.Python}, "--tls-ca", by.file("ca.pem"), "--tls-cert", by.file("orders.pem"), "--tls-key", by.file("orders-key.pem"))
	s.failOver()
}

// followed is a region, a, that has a copy of another, b, with two instances of a service in each, and callers in a.
type followed struct {
	callers
	a, b *cluster
	way  *process.Link // from a to b
	near []weighted    // in a
}

// newFollowed has all ports speak TLS where there is an authority.
func newFollowed(t *testing.T, by *authority) *followed {
	t.Helper()
	prepare := func(region string, cluster int, more string) func(*member) { return inRegion(t, region, cluster, more) }
	if by != nil {
		trust := by.client("orders", "ns/default/sa/orders")
		prepare = func(region string, cluster int, more string) func(*member) {
			return func(m *member) {
				inRegion(t, region, cluster, more)(m)
				by.in(region).prepare(trust)(m)
			}
		}
	}
	b := newClusterWith(t, 1, prepare("b", 200, ""))
	way := newLink(t, b.members[0].address(2))
	a := newClusterWith(t, 1, prepare("a", 100, fmt.Sprintf("[[federation.regions]]\nregion = \"b\"\ncluster_id = 200\ngrpc = [%q]\n", way.Address())))
	s := &followed{callers: callers{t, make(map[string]*grpcCaller)}, a: a, b: b, way: way}
	for n := range 2 {
		s.near = append(s.near, a.callee(fmt.Sprintf("near-%d", n+1), 100))
		a.enlist(s.near[n])
		b.enlist(b.callee(fmt.Sprintf("far-%d", n+1), 100))
	}
	if _, err := process.Within(t.Context(), readyTime, "the copy of b", func() error {
		if of := a.copyIn(a.members[0]); of.Instances != 2 {
			return fmt.Errorf("it has %d instances", of.Instances)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// start starts a caller of each language.
func (s *followed) start(languages []string, more ...string) {
	s.t.Helper()
	for _, language := range languages {
		folder := s.t.TempDir()
		command, err := grpcclients.Command(language, folder)
		need(s.t, "the "+language+" client", err)
		s.all[language] = s.a.startCaller(language, command, folder, allRate, append([]string{"--region", "a"}, more...)...)
	}
}

func (s *followed) failOver() {
	s.t.Helper()
	near, far := []string{"near-1", "near-2"}, []string{"far-1", "far-2"}
	s.await("its region alone answers", allRate, allOf(near...))
	for _, server := range s.near {
		if err := server.Stop(); err != nil {
			s.t.Fatal(err)
		}
	}
	took := s.await("the other region answers", allRate, allOf(far...))
	s.t.Logf("a second of answers of the other region, and nothing else, %v after the instances were killed", took.Round(10*time.Millisecond))
	since := s.count()
	s.restart()
	s.only("until its region heals", since, far...)

	s.revive()
	took = s.await("its region answers again", allRate, allOf(near...))
	s.t.Logf("a second of answers of the own region, %v after it was back", took.Round(10*time.Millisecond))
	s.only("all calls that end after the other region has answered succeed", since, append(far, near...)...)
}

// restart has the callers go on without a's member, and with one that has its copy only.
func (s *followed) restart() {
	s.t.Helper()
	m := s.a.members[0]
	s.a.kill(m)
	s.await("it goes on without its region's member", allRate, allOf("far-1", "far-2"))
	s.way.Set(true)
	s.a.start(m)
	s.a.mustBeReady()
	s.a.must(http.MethodGet, instanceURL(m, "orders", "near-1"), "", http.StatusOK)
	s.await("it goes on with a member that has started with its copy, and cannot reach the other region", allRate, allOf("far-1", "far-2"))
	s.way.Set(false)
}

// revive starts the instances of a again where they were.
func (s *followed) revive() {
	s.t.Helper()
	for _, server := range s.near {
		again, err := grpcclients.Serve(server.Name, server.Port)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() {
			if err := again.Stop(); err != nil {
				s.t.Error(err)
			}
		})
	}
}
