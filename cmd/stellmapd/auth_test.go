package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access"
	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

const orders = "/api/v2/namespaces/prod/services/orders/instances/"

const oneEndpoint = `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}`

// With authentication on, who comes is what his certificate or his token says, and may do
// that; who is nobody is told a status word and nothing else. What was not let is counted,
// logged and in the audit log.
func TestAMemberAsksWhoCalls(t *testing.T) {
	w := newTown(t)
	public, admin := w.address("HTTP"), w.address("admin")
	nobody, web := w.visitor("", ""), w.visitor("/ns/prod/sa/web", "")
	for page, want := range map[string]string{"/livez": "ok\n", "/healthz?verbose": "ok\n", "/readyz": "ready\n", "/readyz/xds?verbose": "ready\n"} {
		for _, port := range []string{public, admin} {
			if code, body := nobody.do(http.MethodGet, port+page, ""); code != http.StatusOK || body != want {
				t.Errorf("nobody is told %d %q by %s%s", code, body, port, page)
			}
		}
	}
	if code, body := web.do(http.MethodGet, public+"/readyz", ""); code != http.StatusOK || !strings.Contains(body, `"leaderId":1`) {
		t.Errorf("somebody is told %d %q", code, body)
	}
	secret, err := os.ReadFile(w.file("data/admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	operator, administrator := w.visitor("/operator/lin", ""), w.visitor("", strings.TrimSpace(string(secret)))
	both := w.visitor("/operator/lin", administrator.token)
	bad, badToo := w.visitor("", "smt_of-nobody"), w.visitor("/operator/lin", "smt_of-nobody")
	reader := w.visitor("", w.grant(60, nil, registry.RoleReader))
	for _, c := range []struct {
		who    *visitor
		method string
		url    string
		want   int
	}{
		{nobody, http.MethodGet, public + "/metrics", http.StatusUnauthorized},
		{nobody, http.MethodGet, admin + "/metrics", http.StatusOK}, // it is on loopback
		{nobody, http.MethodGet, admin + "/admin/v1/status", http.StatusUnauthorized},
		{nobody, http.MethodPut, public + orders + "a", http.StatusUnauthorized},
		{web, http.MethodPut, public + orders + "a", http.StatusCreated},
		{web, http.MethodPut, public + strings.Replace(orders, "prod", "test", 1) + "a", http.StatusForbidden},
		{web, http.MethodDelete, public + orders + "a?force=true", http.StatusForbidden},
		{web, http.MethodGet, public + "/metrics", http.StatusForbidden},
		{reader, http.MethodGet, public + orders + "a", http.StatusOK},
		{reader, http.MethodPut, public + orders + "b", http.StatusForbidden},
		{reader, http.MethodGet, admin + "/admin/v1/status", http.StatusOK},
		{reader, http.MethodPost, admin + "/admin/v1/leader/transfer", http.StatusForbidden},
		{operator, http.MethodGet, admin + "/admin/v1/status", http.StatusOK},
		{administrator, http.MethodGet, admin + "/admin/v1/status", http.StatusOK},
		{administrator, http.MethodGet, public + "/api/v2/members", http.StatusUnauthorized}, // it is the admin port's
		{both, http.MethodGet, public + "/api/v2/members", http.StatusOK},
		{bad, http.MethodGet, public + "/api/v2/members", http.StatusUnauthorized},
		{badToo, http.MethodGet, public + "/api/v2/members", http.StatusUnauthorized}, // his certificate does not count beside it
		{operator, http.MethodDelete, public + orders + "a?force=true", http.StatusOK},
	} {
		if code, body := c.who.do(c.method, c.url, oneEndpoint); code != c.want {
			t.Errorf("%s %s as %s: %d, want %d: %s", c.method, c.url, c.who.name(), code, c.want, body)
		}
	}
	conn := nobody.dial(w.address("xDS"))
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("nobody is told over gRPC whether it lives: %v", err)
	}
	client := stellmapv1.NewRegistryServiceClient(conn)
	if _, err := client.GetService(t.Context(), &stellmapv1.GetServiceRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody is answered over gRPC: %v", err)
	}
	w.until("the audit log to have it", func() bool {
		log, err := os.ReadFile(w.file("audit.log"))
		return err == nil && strings.Contains(string(log), `"does":"stellmap.v1.RegistryService/GetService","decision":"denied","code":"Unauthenticated"`) &&
			strings.Contains(string(log), `"token":"`+registry.NameOfToken(access.TokenID(reader.token))+`"`)
	})
	_, metrics := operator.do(http.MethodGet, public+"/metrics", "")
	if !strings.Contains(metrics, "\nstellmap_access_denied_total{port=\"xds\"} 1\n") || strings.Contains(metrics, `stellmap_access_denied_total{port="admin"} 0`) {
		t.Errorf("denials are not counted by port")
	}
	if said := w.said(); !strings.Contains(said, "a call was not let") || strings.Contains(said, reader.token) || !strings.Contains(said, "auth   on") {
		t.Errorf("it says\n%s", said)
	}
}

// What is open ends when the right to it ends, over HTTP and gRPC: a token that is revoked,
// one whose time is over, a role that is taken back. Others stay.
func TestWhatIsOpenEndsWithTheRightToIt(t *testing.T) {
	w := newTown(t)
	public, xds, peers := w.address("HTTP"), w.address("xDS"), w.address("peers")
	read := registry.Rule{Verbs: []registry.Verb{registry.VerbRead}, Resources: []registry.Resource{registry.ResourceInstances, registry.ResourceReplication, registry.ResourceProxies}, Namespaces: []string{"*"}}
	stays := w.visitor("", w.grant(600, nil, registry.RoleReader)).watch(public)
	web := w.visitor("/ns/prod/sa/web", "")
	ads := web.stream(web.dial(xds), "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	night := w.visitor("/operator/night", "")
	statuses := night.answered(night.dial(xds), "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus")
	cases := []*struct {
		name string
		ttl  int64
		end  func(token string)
		code codes.Code
		says string
		who  string // in the audit log

		events, first *eventReader
		polled        <-chan string
		streams       map[string]func() error
	}{
		{name: "revoked", ttl: 600, end: w.revoke, code: codes.Unauthenticated, says: "unauthenticated"},
		{name: "expired", ttl: 5, end: func(string) {}, code: codes.Unauthenticated, says: "unauthenticated"},
		{name: "taken", ttl: 600, end: func(string) { w.role("taken") }, code: codes.PermissionDenied, says: "forbidden"},
	}
	for _, c := range cases {
		w.role(c.name, read)
		token := w.grant(c.ttl, nil, c.name)
		v, copies := w.visitor("", token), w.visitor("/replicator/"+c.name, token)
		c.events, c.first, c.polled, c.streams = v.watch(public), v.watchV1(public), v.poll(public), v.streams(xds, copies.dial(peers), c.name)
		c.who = registry.NameOfToken(access.TokenID(token))
		c.end(token)
	}
	for _, c := range cases {
		if last := c.events.last(); last != `event: error|data: {"type":"error","code":"`+c.says+`"` {
			t.Errorf("%s: a stream ends with %s", c.name, last)
		}
		if last := c.first.last(); last != ": "+c.says {
			t.Errorf("%s: a stream of v1 ends with %s", c.name, last)
		}
		if got := <-c.polled; !strings.Contains(got, c.says) {
			t.Errorf("%s: a poll ends with %s", c.name, got)
		}
		for what, ended := range c.streams {
			if err := ended(); status.Code(err) != c.code {
				t.Errorf("%s: %s over gRPC ends with %v, want %v", c.name, what, err, c.code)
			}
		}
	}
	w.role("frozen", registry.Rule{Deny: true, Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{"*"}, Namespaces: []string{"*"}})
	w.retry("bind it", func() error {
		_, err := w.node.registry.PutBinding(t.Context(), "", "night", registry.Binding{Roles: []string{"frozen"}, Subjects: []string{"/ns/*", "/operator/night"}}, registry.Writing{})
		return err
	})
	if err := end(ads); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ADS of a certificate that was bound to nothing ends with %v", err)
	}
	if err := end(statuses); status.Code(err) != codes.PermissionDenied { // which nothing but the guard looks at
		t.Errorf("client status for a certificate that was bound to nothing ends with %v", err)
	}
	for _, c := range cases { // each stream of events by whose it was
		for _, does := range []string{"v1Watch", "watch"} {
			by, ends := fmt.Sprintf(`"token":%q`, c.who), fmt.Sprintf(`"does":%q,"decision":"denied","code":%q`, does, c.says)
			w.until("the audit log to have "+ends+" by "+by, func() bool {
				log, err := os.ReadFile(w.file("audit.log"))
				return err == nil && slices.ContainsFunc(strings.Split(string(log), "\n"), func(line string) bool {
					return strings.Contains(line, by) && strings.Contains(line, ends)
				})
			})
		}
	}
	lin := w.visitor("/operator/lin", "")
	w.until("all of them to be counted", func() bool { // a poll and two streams each
		_, metrics := lin.do(http.MethodGet, public+"/metrics", "")
		return strings.Contains(metrics, "\nstellmap_access_denied_total{port=\"http\"} 9\n")
	})
	select {
	case <-stays.ended:
		t.Errorf("a stream was ended that may stay: %s", stays.last())
	default:
	}
}

// An eventReader reads events until there are no more.
type eventReader struct {
	t     *testing.T
	ended chan struct{} // closed then
	event string        // the last, without its id and what is for people
}

// watch opens a stream of events, and waits for the first.
func (v *visitor) watch(public string) *eventReader { return v.events(public + "/api/v2/watch") }

func (v *visitor) watchV1(public string) *eventReader {
	return v.events(public + "/api/v1/registry/watch?namespace=prod&service=orders")
}

func (v *visitor) events(url string) *eventReader {
	v.t.Helper()
	client := &http.Client{Transport: v.http.Transport} // without a deadline
	response, err := client.Do(v.request(http.MethodGet, url, ""))
	if err != nil {
		v.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		v.t.Fatalf("%s answers %d", url, response.StatusCode)
	}
	r, begun := &eventReader{t: v.t, ended: make(chan struct{})}, make(chan struct{}, 1)
	go func() {
		defer close(r.ended)
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		for event := ""; lines.Scan(); {
			switch line := lines.Text(); {
			case line == "":
				r.event, event = strings.TrimPrefix(event, "|"), ""
				select {
				case begun <- struct{}{}:
				default:
				}
			case !strings.HasPrefix(line, "id:"):
				before, _, _ := strings.Cut(line, `,"detail"`)
				event += "|" + before
			}
		}
	}()
	<-begun
	return r
}

// last waits for the end, and is what came before it.
func (r *eventReader) last() string {
	<-r.ended
	return r.event
}

// poll begins a long poll: it gives its answer.
func (v *visitor) poll(public string) <-chan string {
	answer := make(chan string, 1)
	q := v.request(http.MethodGet, public+"/api/v2/watch?snapshot=false&wait=60s&service=none", "")
	go func() {
		response, err := (&http.Client{Transport: v.http.Transport}).Do(q)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		answer <- string(body) + errText(err)
	}()
	return answer
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// streams are some of each kind over gRPC: those that tell, those that wait for who calls,
// and that of a replicator. Each gives what ends it.
func (v *visitor) streams(xds string, members *grpc.ClientConn, name string) map[string]func() error {
	v.t.Helper()
	must := func(err error) {
		v.t.Helper()
		if err != nil {
			v.t.Fatal(err)
		}
	}
	clients := v.dial(xds)
	watch, err := stellmapv1.NewRegistryServiceClient(clients).Watch(v.patience(), &stellmapv1.WatchRequest{})
	must(err)
	ads := v.stream(clients, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	states := v.stream(clients, "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus")
	copies, err := replicationv1.NewReplicationServiceClient(members).Follow(v.patience())
	must(err)
	must(copies.Send(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Hello{Hello: &replicationv1.Hello{Name: name}}}))
	_, err = copies.Recv() // who answers
	must(err)
	_, err = watch.Recv()
	must(err)
	return map[string]func() error{
		"a watch":      func() error { return end(watch.Recv) },
		"ADS":          func() error { return end(ads) },
		"the clients":  func() error { return end(states) },
		"a replicator": func() error { return end(copies.Recv) },
	}
}

// end reads a stream to its end.
func end[M any](receive func() (M, error)) error {
	for {
		if _, err := receive(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
