package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// A holder is a caller who may do what a test says.
type holder struct {
	name string
	may  func(registry.Ask) bool
}

func (h *holder) Who() string                { return h.name }
func (h *holder) Allows(a registry.Ask) bool { return h.may(a) }
func (h *holder) Stamp() string              { return h.name }
func (h *holder) Held() registry.Rights      { return h }
func (h *holder) AllowsSome(a registry.Ask) bool {
	if a.Namespace != "" {
		return h.may(a)
	}
	return slices.ContainsFunc([]string{"", "prod", "test"}, func(n string) bool { a.Namespace = n; return h.may(a) })
}

// in may do anything in one namespace, and in none what is of the whole cluster.
func in(namespace string) *holder {
	return &holder{"of " + namespace, func(a registry.Ask) bool { return a.Namespace == namespace }}
}

// guarded is a member that asks who calls: the header has his name.
func guarded(t *testing.T, callers ...registry.Caller) *member {
	return newMember(t, func(c *Config) {
		c.AdminToken = "of no use here"
		c.Membership = noMembership{}
		c.Proxies = &noProxies{}
		c.Authority = &drawer{}
		c.Snapshot = func(context.Context, io.Writer) error { return nil }
		c.Access = func(q *http.Request) (registry.Caller, error) {
			for _, h := range callers {
				if q.Header.Get("Authorization") == "Bearer "+h.Who() {
					return h, nil
				}
			}
			return nil, registry.ErrNobody
		}
	})
}

// noMembership and noProxies are there for their routes; nobody in these tests may
// reach what they do by another way than being allowed to.
type (
	noMembership struct{ Membership }
	noProxies    struct{ Proxies }
)

// everyRoute is what a server has, on both ports.
func everyRoute(a *API) (all []route, admin map[string]bool) {
	admin = make(map[string]bool)
	for _, r := range []*router{a.public, a.admin} {
		for i := range r.paths {
			for _, one := range r.paths[i].routes {
				all = append(all, one)
				admin[one.method+" "+one.pattern] = r == a.admin
			}
		}
	}
	return all, admin
}

// knock asks a route for something as somebody, be its handler not there to answer.
func (m *member) knock(admin bool, one route, who string) (code int, body string) {
	target := strings.NewReplacer("{ns}", "prod", "{svc}", "orders", "{id}", "a", "{lease}", "l1", "{proxy}", "p1").Replace(one.pattern)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody stays
	q := request(one.method, target, "{", "Authorization: Bearer "+who).WithContext(ctx)
	w := httptest.NewRecorder()
	handler := m.api.Handler()
	if admin {
		handler = m.api.AdminHandler()
	}
	handler.ServeHTTP(w, q)
	return w.Code, w.Body.String()
}

// TestEveryNeedHasARoute shows that the table says nothing of what is not there. That
// every route has a row newRouter sees to.
func TestEveryNeedHasARoute(t *testing.T) {
	all, _ := everyRoute(guarded(t).api)
	for row := range needs {
		if !slices.ContainsFunc(all, func(r route) bool { return r.method+" "+r.pattern == row }) {
			t.Errorf("%s has a row and no route", row)
		}
	}
	defer func() {
		if cause := recover(); cause == nil || !strings.Contains(cause.(string), "who may call GET /new") {
			t.Errorf("a route without a row: %v", cause)
		}
	}()
	newRouter(&API{}, surfaceV2, []route{{method: http.MethodGet, pattern: "/new"}})
}

// TestOnlyWhoMayPasses tries every route as everybody: nobody, one who may do all but
// what the route needs, one who may do so elsewhere, and one who may do that alone.
func TestOnlyWhoMayPasses(t *testing.T) {
	var need registry.Ask // of the route that is tried
	right := &holder{"right", func(a registry.Ask) bool { return a == need }}
	wrong := &holder{"wrong", func(a registry.Ask) bool { return a.Verb != need.Verb || a.Resource != need.Resource }}
	elsewhere := &holder{"elsewhere", func(a registry.Ask) bool {
		return a.Verb == need.Verb && a.Resource == need.Resource && a.Namespace == "test"
	}}
	m := guarded(t, right, wrong, elsewhere)
	all, admin := everyRoute(m.api)
	before := m.contents()
	for _, one := range all {
		row, at := needs[one.method+" "+one.pattern], one.method+" "+one.pattern
		need = registry.Ask{Verb: row.verb, Resource: row.resource}
		if strings.Contains(one.pattern, "{ns}") {
			need.Namespace = "prod"
		}
		if strings.Contains(one.pattern, "{svc}") {
			need.Service = "orders"
		}
		code, body := m.knock(admin[at], one, "nobody")
		if row.whom == whoever {
			if body != "ok\n" && body != "ready\n" {
				t.Errorf("nobody is told by %s: %q", at, body)
			}
			continue
		}
		if code != http.StatusUnauthorized {
			t.Errorf("nobody is answered %d by %s: %s", code, at, body)
		}
		denied := func(who string, want bool) {
			if code, body := m.knock(admin[at], one, who); (code == http.StatusForbidden) != want || code == http.StatusUnauthorized {
				t.Errorf("%s: who is %s is answered %d: %s", at, who, code, body)
			}
		}
		denied("wrong", row.whom != whoIs)
		if row.whom == whoMay {
			denied("elsewhere", true)
		}
		if one.method != http.MethodGet { // a body that cannot be read ends it, which only comes to light behind the door
			denied("right", false)
		}
	}
	mustEqual(t, "what is registered", m.contents(), before)
}

// TestNobodyIsToldWhatIsThere shows that paths and methods that are not there look to
// nobody like those that are, and to whom they are not for.
func TestNobodyIsToldWhatIsThere(t *testing.T) {
	m := guarded(t, in("test"))
	for _, c := range []struct{ method, target string }{
		{http.MethodGet, "/api/v2/nothing"}, {http.MethodPatch, "/api/v2/services"}, {http.MethodGet, "/admin/v1/status"}, {http.MethodGet, "/"},
		{http.MethodGet, "//api/v2/services"}, {http.MethodGet, "/api/v2/services/"}, {http.MethodGet, "/api/v2/%73ervices"}, {http.MethodGet, "/livez/"},
	} {
		if w := m.ask(c.method, c.target, ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s %s answers nobody with %d: %s", c.method, c.target, w.Code, w.Body)
		}
	}
	there := "/api/v2/namespaces/prod/services/orders/instances/"
	_, err := m.config.Registry.Register(context.Background(), "", registry.Registration{
		Namespace: "prod", Service: "orders", ID: "a", Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}},
	})
	if err != nil {
		t.Fatal(err)
	}
	seen, hidden := m.ask(http.MethodGet, there+"a", "of test"), m.ask(http.MethodGet, there+"b", "of test")
	mustEqual(t, "the answer on what is there", seen.Code, http.StatusForbidden)
	mustEqual(t, "the answer on what is not", hidden.Body.String(), seen.Body.String())
	want := `of test may not read instances of service \"orders\" in namespace \"prod\", whether it is there or not`
	mustEqual(t, "whether it says what is missing in "+seen.Body.String(), strings.Contains(seen.Body.String(), want), true)
}

// ask has the HTTP port answer somebody.
func (m *member) ask(method, target, who string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.api.Handler().ServeHTTP(w, request(method, target, "", "Authorization: Bearer "+who))
	return w
}

// TestEachItemIsAskedFor shows that the names in bodies and parameters count, each by
// itself and in normal form.
func TestEachItemIsAskedFor(t *testing.T) {
	operator := &holder{"operator", func(registry.Ask) bool { return true }}
	m := guarded(t, operator, in("prod"), in("test"))
	item := func(kind, namespace, more string) string {
		return `{"` + kind + `":{"namespace":"` + namespace + `","service":"orders","instanceId":"` + namespace + `"` + more + `}}`
	}
	endpoints := `,"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]`
	prod := "Authorization: Bearer of prod"
	batch := func(items ...string) string {
		return m.must(http.StatusOK, http.MethodPost, "/api/v2/batch", `{"items":[`+strings.Join(items, ",")+`]}`, prod).Body.String()
	}
	got := batch(item("register", " prod ", endpoints), item("register", "test", endpoints))
	mustEqual(t, "one done and one forbidden in "+got, strings.Contains(got, `"done":1,"failed":1`) && strings.Contains(got, `"code":"forbidden"`), true)

	v1 := func(status int, call, namespace, more string) {
		t.Helper()
		m.must(status, http.MethodPost, "/api/v1/registry/"+call, `{"namespace":"`+namespace+`","service":"orders","instanceId":"x"`+more+`}`, prod)
	}
	v1(http.StatusOK, "register", "prod", endpoints)
	v1(http.StatusForbidden, "register", "test", endpoints)
	v1(http.StatusForbidden, "heartbeat", "test", "")
	v1(http.StatusForbidden, "deregister", " test", "")
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/register", `{"namespace":"test","service":"orders","instanceId":"t"`+endpoints+`}`, "Authorization: Bearer operator")

	for target, want := range map[string]string{
		"/api/v2/instances?count=yes&fields=instanceId": `"instances":[{"instanceId":" prod "},{"instanceId":"x"}],"count":2`,
		"/api/v2/services?fields=namespace":             `"services":[{"namespace":"prod"}]`,
		"/api/v2/namespaces":                            `"namespaces":[{"namespace":"prod"`,
		"/api/v2/prometheus/sd?endpoint=http":           `[{"targets"`,
		"/api/v2/watch?wait=0s&status=any":              `"type":"snapshot"`,
	} {
		got := m.must(http.StatusOK, http.MethodGet, target, "", prod).Body.String()
		if !strings.Contains(got, strings.ReplaceAll(want, `" prod "`, `"prod"`)) || strings.Contains(got, "test") {
			t.Errorf("%s tells one of prod: %s", target, got)
		}
	}
	m.must(http.StatusForbidden, http.MethodGet, "/api/v1/registry/instances?namespace=test", "", prod)
}

// TestWhoStartsTellsNobodyMore shows that a member which will ask who calls tells a word
// while it starts, when nobody can be anybody yet, and to come again.
func TestWhoStartsTellsNobodyMore(t *testing.T) {
	public, admin := Starting(2, true, nil)
	open, _ := Starting(2, false, nil)
	answer := func(h http.Handler, target string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request(http.MethodGet, target, "", "Authorization: Bearer any"))
		return w.Code, w.Body.String()
	}
	for _, h := range []http.Handler{public, admin} {
		for target, want := range map[string]string{"/livez": "ok\n", "/healthz?verbose": "ok\n", "/readyz": "not_ready\n", "/readyz/xds?verbose": "not_ready\n"} {
			if _, body := answer(h, target); body != want {
				t.Errorf("%s tells %q", target, body)
			}
		}
		if code, body := answer(h, "/api/v2/services"); code != http.StatusServiceUnavailable {
			t.Errorf("a list is answered %d %s", code, body)
		}
	}
	if _, body := answer(open, "/readyz"); !strings.Contains(body, `"localNodeId":2`) {
		t.Errorf("where nobody is asked, it tells %q", body)
	}
}
