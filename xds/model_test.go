package xds

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/stellmap/stellmap/registry"
)

var sequences = flag.Int("sequences", 100, "random sequences of requests and changes that clients are held against the registry by")

const (
	// Four clusters are halved three times, and new content of others begins that anew.
	rejectedMax = 6

	modelSteps = 60
	answersMax = 300         // until all is said; some 60 are usual
	badPath    = "/refused"  // a cluster with this check is refused by all clients
	badHost    = "10.66.0.1" // endpoints with this host are
)

// TestRandomClients plays random clients against random changes of instances and
// of policies of every kind: clients that
// subscribe and unsubscribe, accept, refuse, say nothing for long, and come back
// with versions. At any moment
//
//   - a type has one unanswered response, or the client has been silent for 15 s;
//   - revisions do not go down on a stream, and nonces are not used twice;
//   - what the client has refused alone is not sent on that stream again;
//   - routes lead to clusters that were sent, or that the client has refused;
//
// and when everything is answered each client has what the registry says.
func TestRandomClients(t *testing.T) {
	first := cmp.Or(*seed, 1)
	n := *sequences
	if *seed != 0 {
		n = 1
	}
	for i := range n {
		s := first + uint64(i)
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &randomRun{t: t, random: rand.New(rand.NewPCG(s, 0)), live: make(map[string]bool)}
				r.play()
				if t.Failed() {
					t.Logf("again: go test ./xds -run TestRandomClients -seed=%d\n%s", s, strings.Join(r.log, "\n"))
				}
			})
		})
	}
}

// A randomRun is one member, some clients, and what happens to them.
type randomRun struct {
	t       *testing.T
	random  *rand.Rand
	member  *member
	clients []*randomClient
	live    map[string]bool // instances, as service/number
	log     []string
}

func (r *randomRun) note(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *randomRun) chance(percent int) bool { return r.random.IntN(100) < percent }

func pick[T any](r *randomRun, of []T) T { return of[r.random.IntN(len(of))] }

func (r *randomRun) play() {
	r.member = newMember(r.t, func(c *Config, l *limits) {
		productLimits(c, l)
		l.responseBytes = pick(r, []int{400, 2000, responseBytesMax})
	})
	for n := range 3 {
		c := &randomClient{r: r, name: fmt.Sprintf("c%d", n), delta: r.chance(50), proxy: r.chance(60), lenient: r.chance(50)}
		c.node = nodeOf(r.t, metadataUpstreams, pick(r, []any{"*.prod", "s0.prod,s1.prod,s2.prod"}))
		c.node.Id = c.name
		if r.chance(50) {
			c.node.UserAgentVersionType = version140
		}
		c.node.Locality = &corev3.Locality{Region: pick(r, []string{"", "here", "east"}), Zone: pick(r, []string{"", "a", "b"})}
		switch n := r.random.IntN(100); {
		case n < 20:
			c.node.UserAgentName = "grpc-go"
		case n < 45:
			c.node.Metadata.Fields[metadataRole] = structpb.NewStringValue(roleGateway)
		}
		r.clients = append(r.clients, c)
		c.connect()
	}
	for range modelSteps {
		r.step()
		r.pass(0)
		if r.t.Failed() {
			return
		}
	}
	r.settle()
}

// pass lets time go by, in small steps: all hear what they are sent when they are.
func (r *randomRun) pass(d time.Duration) {
	for left := d; ; left -= time.Second {
		synctest.Wait()
		for _, c := range r.clients {
			c.hear()
		}
		if left <= 0 {
			return
		}
		<-time.After(time.Second)
	}
}

var modelServices = []string{"s0", "s1", "s2", "s3"}

func (r *randomRun) step() {
	c := pick(r, r.clients)
	switch n := r.random.IntN(100); {
	case n < 30:
		r.change()
	case n < 75:
		c.answerOne()
	case n < 85:
		c.subscribeAnew()
	case n < 95:
		d := pick(r, []time.Duration{time.Second, 8 * time.Second, 16 * time.Second})
		r.note("%v pass", d)
		r.pass(d)
	default:
		c.reconnect()
	}
}

// version140 is what a present Envoy says of itself.
var version140 = &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}}}

// edit has a service treated otherwise, by a policy of any kind, or as without one.
func (r *randomRun) edit(service string) {
	k := registry.ServiceKey{Namespace: "prod", Service: service}
	if r.chance(25) {
		r.note("%s has no policy", service)
		if _, err := r.member.registry.DeletePolicy(context.Background(), "", k, registry.Writing{}); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	kinds := slices.Sorted(maps.Keys(policies))
	kind := r.random.IntN(len(kinds) + 1)
	if kind == len(kinds) {
		r.note("%s is copied to s1", service)
		r.member.putPolicy(r.t, service, `{"routes":[{"mirror":{"service":"s1"}}]}`)
		return
	}
	r.note("%s has policy %s", service, kinds[kind])
	r.member.putPolicy(r.t, service, policies[kinds[kind]])
}

// change has an instance come, go, or take its service with it, or a policy be edited; some are such that clients refuse them.
func (r *randomRun) change() {
	service, n := pick(r, modelServices), r.random.IntN(3)
	if r.chance(30) {
		r.edit(service)
		return
	}
	key := fmt.Sprintf("%s/%d", service, n)
	if r.chance(20) {
		r.abroad(service, n)
		return
	}
	if r.chance(15) {
		for n := range 3 {
			r.leave(service, n)
		}
		return
	}
	if r.live[key] && r.chance(40) {
		r.leave(service, n)
		return
	}
	g := checked(service, n)
	g.Metadata[metadataHealthPath] = pick(r, []string{"/a", "/a", "/b", badPath})
	g.Version, g.Zone = pick(r, []string{"", "v1", "v2"}), pick(r, []string{"", "a", "b"})
	if r.chance(15) {
		g.Endpoints[0].Host = badHost
	}
	if service == "s3" { // a gateway has a chain for it
		g.Endpoints = append(g.Endpoints, registry.Endpoint{Name: "tls", Protocol: "tls", Host: addressOf(n), Port: 443})
	}
	r.note("%s comes: %s %s", key, g.Endpoints[0].Host, g.Metadata[metadataHealthPath])
	r.member.register(g)
	r.live[key] = true
}

// abroad has another region tell of an instance.
func (r *randomRun) abroad(service string, n int) {
	region, zone := pick(r, []string{"east", "west"}), pick(r, []string{"", "a", "b"})
	status := pick(r, []registry.Status{0, registry.StatusPassing, registry.StatusPassing, registry.StatusSuspect, registry.StatusCritical})
	r.note("%s tells of %s/%d in zone %q: %s", region, service, n, zone, status)
	r.member.tell(region, toldOf(service, 100+n, zone, status))
}

// leave takes an instance away, and mostly the service with the last one.
func (r *randomRun) leave(service string, n int) {
	key := fmt.Sprintf("%s/%d", service, n)
	if !r.live[key] {
		return
	}
	r.note("%s goes", key)
	r.member.drop(service, n)
	delete(r.live, key)
	s := r.member.machine.Service(registry.ServiceKey{Namespace: "prod", Service: service})
	if s != nil && len(s.Instances) == 0 && r.chance(70) {
		r.note("%s goes for good", service)
		r.member.reap("prod", service)
	}
}

// settle has everything answered until nothing more comes, and compares.
func (r *randomRun) settle() {
	r.note("everything is answered")
	answers := 0
	for quiet := 0; quiet < 2 && !r.t.Failed(); quiet++ {
		for _, c := range r.clients {
			for c.answerOne() && !r.t.Failed() {
				if answers++; answers > answersMax {
					c.fail("it never ends: %d answers", answers)
				}
				quiet = -1
				synctest.Wait()
				c.hear()
			}
		}
		r.pass(holdMax + time.Second)
	}
	truth := newCache(r.member.machine, func() string { return "i1" }, newMetrics())
	truth.reload(time.Now())
	for _, c := range r.clients {
		c.compare(truth)
	}
}
