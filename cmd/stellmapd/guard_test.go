package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/grpcapi"
	"github.com/stellmap/stellmap/registry/registrytest"
	"github.com/stellmap/stellmap/xds"
)

// A warden is a guard over a registry in memory, for tests.
type warden struct {
	*guard
	t        *testing.T
	registry *registry.Registry
	machine  *registry.Machine
	time     time.Time
}

func newWarden(t *testing.T) *warden {
	clock := registrytest.StillClock{}
	log := registrytest.NewLog(t, clock.Now)
	member := log.NewMember(registry.MachineConfig{Region: "here"})
	log.Begin()
	w := &warden{t: t, registry: registry.New(registry.Config{Machine: member.Machine, Replicator: member, Clock: clock}), machine: member.Machine, time: clock.Now()}
	p := &policies{machine: member.Machine}
	open, err := openStays(p, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w.guard = &guard{port: access.XDS.Port, region: "here", policies: p, stays: open, denials: newDenials(slog.New(slog.DiscardHandler)), now: func() time.Time { return w.time }}
	return w
}

// token grants one with a role of one rule, within a scope.
func (w *warden) token(rule registry.Rule, scope *registry.Rule) string {
	w.t.Helper()
	id, text, hash, err := access.DrawToken(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := w.registry.PutRole(ctx, "", "role-"+id, registry.Role{Rules: []registry.Rule{rule}}, registry.Writing{}); err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := w.registry.GrantToken(ctx, "", registry.TokenGrant{ID: id, Hash: hash, Roles: []string{"role-" + id}, Scope: scope, TTLSeconds: 60}); err != nil {
		w.t.Fatal(err)
	}
	return text
}

// call is how a method is answered to who sends some authorization headers: what it does is not reached.
func (w *warden) call(method string, authorization ...string) codes.Code {
	md := metadata.MD{}
	md.Append("authorization", authorization...)
	_, err := w.unary(metadata.NewIncomingContext(context.Background(), md), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		if rpcNeeds[method].whom != anybody && registry.CallerOf(ctx) == nil {
			w.t.Errorf("%s is called for nobody", method)
		}
		return nil, nil
	})
	return status.Code(err)
}

// clientServer has all services of the port for proxies and clients.
func clientServer(t *testing.T, w *warden) *grpc.Server {
	s := grpc.NewServer()
	xds.New(xds.Config{Machine: w.machine, LoadEvery: time.Second}).Register(s)
	api, err := grpcapi.New(grpcapi.Config{Registry: w.registry, CursorHome: func() registry.CursorHome { return registry.CursorHome{} }})
	if err != nil {
		t.Fatal(err)
	}
	api.Register(s)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	return s
}

// Every method that a server has has a row, every row a method, and a server with
// another one does not start.
func TestEveryMethodHasARow(t *testing.T) {
	s := clientServer(t, newWarden(t))
	mustHaveRows(s)
	all := methodsOf(s)
	for row := range rpcNeeds {
		if !slices.Contains(all, row) && !strings.HasPrefix(row, "/stellmap.peer.v1.") && !strings.HasPrefix(row, "/stellmap.replication.v1.") {
			t.Errorf("%s has a row, and nobody serves it", row)
		}
	}
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "new", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Call"}}}, nil)
	defer func() {
		if cause := recover(); cause == nil || !strings.Contains(cause.(string), "who may call /new/Call") {
			t.Errorf("a method without a row: %v", cause)
		}
	}()
	mustHaveRows(s)
}

// Each method is tried as nobody, as one who may do all else, as one whose token was
// revoked or has expired, or is for what is in no cluster, and as one who may.
func TestOnlyWhoMayCallsAMethod(t *testing.T) {
	w := newWarden(t)
	for method, need := range rpcNeeds {
		if need.whom == anybody {
			if code := w.call(method); code != codes.OK {
				t.Errorf("%s answers nobody with %v", method, code)
			}
			continue
		}
		everything := registry.Rule{Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{"*"}, Namespaces: []string{"*"}}
		only := everything
		if need.whom != anybodyKnown {
			only = registry.Rule{Verbs: []registry.Verb{need.verb}, Resources: []registry.Resource{need.resource}, Namespaces: []string{"*"}}
		}
		otherVerb := only
		if otherVerb.Verbs = []registry.Verb{registry.VerbOverride}; need.whom == anybodyKnown {
			otherVerb = everything
		}
		right, wrong := w.token(only, nil), w.token(otherVerb, nil)
		narrow := w.token(only, &registry.Rule{Namespaces: []string{"prod"}})
		denied, narrowed := codes.PermissionDenied, codes.PermissionDenied
		if need.whom == anybodyKnown {
			denied = codes.OK
		}
		if need.whom != whoMay { // in a namespace there is something
			narrowed = codes.OK
		}
		revoked := w.token(only, nil)
		if _, err := w.registry.RevokeToken(context.Background(), "", access.TokenID(revoked)); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			headers []string
			want    codes.Code
		}{
			"nobody":                {nil, codes.Unauthenticated},
			"right":                 {[]string{"Bearer " + right}, codes.OK},
			"right, in other case":  {[]string{"bearer " + right}, codes.OK},
			"wrong role":            {[]string{"Bearer " + wrong}, denied},
			"of one namespace":      {[]string{"Bearer " + narrow}, narrowed},
			"revoked":               {[]string{"Bearer " + revoked}, codes.Unauthenticated},
			"two":                   {[]string{"Bearer " + right, "Bearer " + wrong}, codes.Unauthenticated},
			"without a scheme":      {[]string{right}, codes.Unauthenticated},
			"of another scheme":     {[]string{"Basic " + right}, codes.Unauthenticated},
			"a part":                {[]string{"Bearer " + right[:len(right)-1]}, codes.Unauthenticated},
			"the id and no secret":  {[]string{"Bearer " + access.TokenID(right)}, codes.Unauthenticated},
			"nothing behind Bearer": {[]string{"Bearer "}, codes.Unauthenticated},
		} {
			if code := w.call(method, c.headers...); code != c.want {
				t.Errorf("%s answers %s with %v, want %v", method, name, code, c.want)
			}
		}
		before := w.time
		w.time = w.time.Add(time.Minute)
		if code := w.call(method, "Bearer "+right); code != codes.Unauthenticated {
			t.Errorf("%s answers one whose token has expired with %v", method, code)
		}
		w.time = before
	}
}

// A method that is written in another way than it is called in the table is none, be it
// that a server would find it.
func TestAMethodIsWhatItIsCalled(t *testing.T) {
	w := newWarden(t)
	all := w.token(registry.Rule{Verbs: []registry.Verb{"*"}, Resources: []registry.Resource{"*"}, Namespaces: []string{"*"}}, nil)
	for _, method := range []string{"stellmap.v1.RegistryService/GetService", "//stellmap.v1.RegistryService/GetService", "/stellmap.v1.RegistryService/getservice", "/nobody/Serves", ""} {
		if code := w.call(method); code != codes.Unauthenticated {
			t.Errorf("%q answers nobody with %v", method, code)
		}
		if code := w.call(method, "Bearer "+all); code != codes.PermissionDenied {
			t.Errorf("%q answers who may do anything with %v", method, code)
		}
	}
}

// A caller who stays has the rights of the moment, and says when they are others.
func TestACallerHasTheRightsOfTheMoment(t *testing.T) {
	w := newWarden(t)
	read := registry.Rule{Verbs: []registry.Verb{registry.VerbRead}, Resources: []registry.Resource{registry.ResourceInstances}, Namespaces: []string{"prod"}}
	text := w.token(read, nil)
	q := httptest.NewRequest("GET", "/", nil)
	q.Header.Set("Authorization", "Bearer "+text)
	c, err := w.http(q)
	if err != nil {
		t.Fatal(err)
	}
	ask := registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceInstances, Namespace: "prod", Service: "orders"}
	if !c.Allows(ask) || strings.Contains(c.Who(), text) || c.Who() != "token "+access.TokenID(text) {
		t.Errorf("%s may not %s", c.Who(), ask)
	}
	stamp, before := c.Stamp(), c.Held()
	if before.Stamp() != stamp {
		t.Error("the rights that he has have another stamp than he")
	}
	other := httptest.NewRequest("GET", "/", nil)
	other.Header.Set("Authorization", "Bearer "+w.token(read, nil))
	if another, err := w.http(other); err != nil || another.Stamp() != stamp {
		t.Errorf("who may the same by another token has other rights: %v", err)
	}
	if c.Stamp() != stamp {
		t.Error("the rights are others after an edit that is not about them")
	}
	read.Namespaces = []string{"test"}
	if _, err := w.registry.PutRole(context.Background(), "", "role-"+access.TokenID(text), registry.Role{Rules: []registry.Rule{read}}, registry.Writing{}); err != nil {
		t.Fatal(err)
	}
	if c.Allows(ask) || c.Stamp() == stamp {
		t.Error("the rights are the same after the role was edited")
	}
	if !before.Allows(ask) || before.Stamp() != stamp {
		t.Error("the rights that he had were changed by the edit")
	}
	if _, err := w.registry.RevokeToken(context.Background(), "", access.TokenID(text)); err != nil {
		t.Fatal(err)
	}
	ask.Namespace = "test"
	if c.Allows(ask) || c.AllowsSome(ask) || c.Held() != nil {
		t.Error("a revoked token is good for who came with it before")
	}
	q.Header.Add("Authorization", "Bearer "+text)
	if _, err := w.http(q); err == nil {
		t.Error("two headers are taken for one")
	}
}
