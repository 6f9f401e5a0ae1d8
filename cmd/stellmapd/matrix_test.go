package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stellmap/stellmap/access/authority"
	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// An everybody is one of each kind that may come to a member, by name: those who should be let
// somewhere, and those who should be let nowhere.
type everybody struct {
	*town
	names, nobodies, strangers []string
	of                         map[string]*visitor
	conns                      map[string]*grpc.ClientConn // by name and address
	public, admin              string
}

func newEverybody(t *testing.T) *everybody {
	t.Helper()
	c := &everybody{town: newTown(t), of: make(map[string]*visitor), conns: make(map[string]*grpc.ClientConn)}
	c.public, c.admin = c.address("HTTP"), c.address("admin")
	somebody := func(name, path, token string) {
		c.names, c.of[name] = append(c.names, name), c.visitor(path, token)
	}
	all := []string{"*"}
	c.role("all", registry.Rule{Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{"*"}, Namespaces: all})
	c.role("frozen", registry.Rule{Deny: true, Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{"*"}, Namespaces: all})
	scope := func(namespace string) *registry.Rule { return &registry.Rule{Namespaces: []string{namespace}} }
	somebody("workload", "/ns/prod/sa/web", "")
	somebody("workload-elsewhere", "/ns/test/sa/web", "")
	somebody("operator", "/operator/lin", "")
	somebody("member", "/region/local/peer/2", "")
	somebody("member-of-another-region", "/region/there/peer/2", "")
	somebody("replicator", "/replicator/there", "")
	somebody("token-reader", "", c.grant(600, nil, registry.RoleReader))
	somebody("token-workload", "", c.grant(600, scope("prod"), registry.RoleWorkload))
	somebody("token-workload-elsewhere", "", c.grant(600, scope("test"), registry.RoleWorkload))
	somebody("token-of-prod", "", c.grant(600, scope("prod"), "all"))
	somebody("token-denied", "", c.grant(600, nil, "all", "frozen"))

	nobody := func(name, path, token string) {
		c.nobodies, c.of[name] = append(c.nobodies, name), c.visitor(path, token)
	}
	expired, revoked := c.grant(1, nil, "all"), c.grant(600, nil, "all")
	c.revoke(revoked)
	nobody("nobody", "", "")
	nobody("a token that has expired", "", expired)
	nobody("a token that was revoked", "", revoked)
	nobody("a token that is none", "", "stellmap")
	nobody("an operator with such a token", "/operator/lin", revoked)
	nobody("a member with such a token", "/region/local/peer/2", expired)
	c.until("the token to expire", func() bool {
		code, _ := c.of["a token that has expired"].do(http.MethodGet, c.public+"/api/v2/members", "")
		return code == http.StatusUnauthorized
	})

	other, err := authority.New(time.Now(), townTime)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]*visitor{
		"of another trust domain": c.visitorOf(c.authority, "spiffe://elsewhere.example/operator/lin", ""),
		"of another authority":    c.visitorOf(other, "spiffe://town.example/operator/lin", ""),
		"without a role":          c.visitorOf(c.authority, "spiffe://town.example/something/else", ""),
	} {
		c.strangers, c.of[name] = append(c.strangers, name), v
	}
	return c
}

// It is a town of those who are let somewhere by what they are, and of those who never are:
// with no identity, a token that is over, of another domain. Each tries every route and
// every method that the member itself says it has. The file has who is let in: whoever adds
// a route says so there, or this fails. With every refusal it looks whether it says more
// than what is missing.
func TestOnlyTheRightOnesPass(t *testing.T) {
	c := newEverybody(t)
	if code, body := c.of["operator"].do(http.MethodPut, c.public+orders+"a", oneEndpoint); code != http.StatusCreated {
		t.Fatalf("register: %d %s", code, body)
	}
	public, admin := c.node.api.Routes()
	datadriven.RunTest(t, "testdata/matrix", func(t *testing.T, d *datadriven.TestData) string {
		c.t = t
		switch d.Cmd {
		case "public":
			return c.tryRoutes(t, c.public, public)
		case "admin":
			return c.tryRoutes(t, c.admin, admin)
		case "clients":
			return c.tryMethods(t, c.address("xDS"), methodsOf(c.node.xdsGRPC))
		case "members":
			return c.tryMethods(t, c.address("peers"), methodsOf(c.node.peerGRPC))
		}
		d.Fatalf(t, "there is no port %s", d.Cmd)
		return ""
	})
	c.t = t
}

// words are the only things that who is nobody is told.
var words = []string{"ok\n", "ready\n"}

// tryRoutes has everybody try all routes of a port.
func (c *everybody) tryRoutes(t *testing.T, port string, routes []string) string {
	for _, name := range c.strangers { // who do not come so far as to ask for one
		if code, body := c.of[name].do(http.MethodGet, port+"/livez", ""); code != 0 {
			t.Errorf("who is %s is answered %d %s", name, code, body)
		}
	}
	var rows strings.Builder
	for _, one := range routes {
		method, pattern, _ := strings.Cut(one, " ")
		open := pattern == "/metrics" && port == c.admin // which is on loopback
		for _, name := range c.nobodies {
			code, body := c.of[name].do(method, port+pathOf(pattern, "orders"), bodyOf(pattern, "orders"))
			if code == 0 && strings.HasPrefix(name, "a member") && port == c.public || open {
				continue
			}
			if code != http.StatusUnauthorized && !(code == http.StatusOK && slices.Contains(words, body)) {
				t.Errorf("%s: %s is answered %d %s", one, name, code, body)
			}
		}
		var let []string
		for _, name := range c.names {
			code, body := c.of[name].do(method, port+pathOf(pattern, "orders"), bodyOf(pattern, "orders"))
			switch {
			case code == 0: // the door is not theirs
			case code == http.StatusForbidden && strings.Contains(body, " may not "):
				if _, hidden := c.of[name].do(method, port+pathOf(pattern, "nothing"), bodyOf(pattern, "nothing")); strings.ReplaceAll(hidden, "nothing", "orders") != body || !saysWhatIsMissing(body) {
					t.Errorf("%s: %s is told %s of what is not there, and %s of what is", one, name, hidden, body)
				}
			case code == http.StatusUnauthorized:
				t.Errorf("%s: %s is taken for nobody", one, name)
			default: // what it is refused for then is another matter, such as a lease token
				let = append(let, name)
			}
		}
		fmt.Fprintf(&rows, "%s: %s\n", one, strings.Join(let, " "))
	}
	return rows.String()
}

// saysWhatIsMissing looks at what somebody is told who may not.
func saysWhatIsMissing(says string) bool {
	return strings.Contains(says, "whether it is there or not: a role has to allow it")
}

// pathOf is a path of a pattern, about something that is there or about something that is not.
func pathOf(pattern, service string) string {
	id, query := "a", ""
	if service != "orders" {
		id = "b"
	}
	if !strings.Contains(pattern, "{ns}") && !strings.Contains(pattern, "/admin/") { // who reads all of what he may is no matter of the door
		query = "?namespace=prod&service=" + service
	}
	return strings.NewReplacer("{ns}", "prod", "{svc}", service, "{id}", id, "{lease}", "l"+id, "{proxy}", "p"+id, "{role}", "r"+id, "{binding}", "b"+id, "{token}", "t"+id).Replace(pattern) + query
}

// bodyOf is what is said to a route: where its path does not say what it is about, that;
// else what cannot be read, so that nothing is done.
func bodyOf(pattern, service string) string {
	if !strings.HasPrefix(pattern, "/api/v1/") {
		return "{"
	}
	more := ""
	if strings.HasSuffix(pattern, "/register") {
		more = "," + strings.TrimPrefix(strings.TrimSuffix(oneEndpoint, "}"), "{")
	}
	return fmt.Sprintf(`{"namespace":"prod","service":%q,"instanceId":"c"%s}`, service, more)
}

// firstWords are what methods are told first: what it is about, or who a member is.
var firstWords = map[string]proto.Message{
	"/stellmap.peer.v1.PeerService/Hello":        &peerv1.HelloRequest{Introduction: &peerv1.Introduction{Member: &peerv1.Member{Id: 2}}},
	"/stellmap.v1.RegistryService/Register":      &stellmapv1.RegisterRequest{Namespace: "prod", Service: "orders", InstanceId: "c", Endpoints: []*stellmapv1.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}}},
	"/stellmap.v1.RegistryService/Deregister":    &stellmapv1.DeregisterRequest{Namespace: "prod", Service: "orders", InstanceId: "c"},
	"/stellmap.v1.RegistryService/GetInstance":   &stellmapv1.GetInstanceRequest{Namespace: "prod", Service: "orders", InstanceId: "c"},
	"/stellmap.v1.RegistryService/GetService":    &stellmapv1.GetServiceRequest{Namespace: "prod", Service: "orders"},
	"/stellmap.v1.RegistryService/Discover":      &stellmapv1.DiscoverRequest{Namespace: "prod", Service: "orders"},
	"/stellmap.v1.RegistryService/ListInstances": &stellmapv1.ListInstancesRequest{Filter: &stellmapv1.Filter{Namespace: "prod"}},
	"/stellmap.v1.RegistryService/ListServices":  &stellmapv1.ListServicesRequest{Filter: &stellmapv1.Filter{Namespace: "prod"}},
	"/stellmap.v1.RegistryService/Watch":         &stellmapv1.WatchRequest{Filter: &stellmapv1.Filter{Namespace: "prod"}},
}

// tryMethods is the same for the methods of a gRPC port.
func (c *everybody) tryMethods(t *testing.T, address string, methods []string) string {
	slices.Sort(methods)
	for _, name := range c.strangers {
		if err := c.call(name, address, methods[0]); status.Code(err) != codes.Unavailable {
			t.Errorf("who is %s is answered %v", name, err)
		}
	}
	var rows strings.Builder
	for _, m := range methods {
		health := strings.HasPrefix(m, "/grpc.health.v1.")
		for _, name := range c.nobodies {
			want := []codes.Code{codes.Unauthenticated}
			if health {
				want = []codes.Code{codes.OK, codes.NotFound} // a status word, or that there is none
			}
			if isOfMembers(m) != strings.HasPrefix(name, "a member") {
				want = append(want, codes.Unavailable) // the door is not theirs
			}
			if err := c.call(name, address, m); !slices.Contains(want, status.Code(err)) {
				t.Errorf("%s: %s is answered %v", m, name, err)
			}
		}
		var let []string
		for _, name := range c.names {
			err := c.call(name, address, m)
			switch says := status.Convert(err).Message(); {
			case status.Code(err) == codes.Unavailable: // the door is not theirs
			case status.Code(err) == codes.Unauthenticated:
				t.Errorf("%s: %s is taken for nobody: %v", m, name, err)
			case status.Code(err) == codes.PermissionDenied && strings.Contains(says, " may not "):
				if !saysWhatIsMissing(says) {
					t.Errorf("%s: %s is told %s", m, name, says)
				}
			default:
				let = append(let, name)
			}
		}
		fmt.Fprintf(&rows, "%s: %s\n", m, strings.Join(let, " "))
	}
	return rows.String()
}

// isOfMembers says whether a method is one of the port of the members, whose door lets in nobody else.
func isOfMembers(m string) bool {
	return strings.HasPrefix(m, "/stellmap.peer.") || strings.HasPrefix(m, "/stellmap.replication.")
}

// call says something to a method, be it what it takes or not, and is how it is answered.
func (c *everybody) call(name, address, method string) error {
	conn := c.conns[name+" "+address]
	if conn == nil {
		conn = c.of[name].dial(address)
		c.conns[name+" "+address] = conn
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), waitMax)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	first := firstWords[method]
	if first == nil {
		first = &emptypb.Empty{}
	}
	if err := s.SendMsg(first); err == nil { // else what is received says why
		if err := s.CloseSend(); err != nil {
			return err
		}
	}
	if err := s.RecvMsg(&emptypb.Empty{}); err != nil && err.Error() != "EOF" {
		return err
	}
	return nil
}
