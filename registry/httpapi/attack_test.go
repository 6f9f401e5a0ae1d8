package httpapi

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Nothing but the token opens the admin port: no header that somebody before the server might
// set, no word of a client for itself, no other way to write the path or the token.
func TestNothingTalksItsWayIn(t *testing.T) {
	const token = "s3cret-of-an-operator"
	m := newMember(t, func(c *Config) { c.AdminToken, c.Membership = token, &fakeMembership{} })
	guarded := 0
	for _, p := range m.api.admin.paths {
		for _, one := range p.routes {
			if one.surface != surfaceAdmin || one.open {
				continue
			}
			guarded++
			for _, headers := range [][]string{
				nil, {"User-Agent: Nacos-Server"}, {"User-Agent: stellmapctl/1.0"}, {"X-Forwarded-For: 127.0.0.1"}, {"X-Real-IP: 127.0.0.1"}, {"Forwarded: for=127.0.0.1"},
				{"X-Original-URL: /livez"}, {"X-Rewrite-URL: /livez"}, {"X-HTTP-Method-Override: GET"}, {"serverIdentity: security"}, {"X-StellMap-Lease-Token: " + token},
				{"Authorization: " + token}, {"Authorization: Basic " + token}, {"Authorization: Bearer"}, {"Authorization: Bearer " + token + "x"}, {"Authorization: Bearer " + strings.ToUpper(token)},
				{"Authorization: Bearer a", "Authorization: Bearer " + token}, {"Cookie: token=" + token}, {"X-Api-Key: " + token},
			} {
				for _, path := range pathsLike(p.pattern) {
					w := m.raw(m.api.AdminHandler(), one.method, path, headers...)
					if w.Code != http.StatusUnauthorized && w.Code != http.StatusNotFound || path == p.pattern && w.Code != http.StatusUnauthorized {
						t.Errorf("%s %s with %q is answered with %d", one.method, path, headers, w.Code)
					}
				}
			}
		}
	}
	if guarded < 8 {
		t.Errorf("there are %d calls that ask for the token", guarded)
	}
}

// pathsLike are ways to write a path that some servers take for it.
func pathsLike(path string) []string {
	last := strings.LastIndex(path, "/")
	return []string{
		path, path + "/", path + "?token=s3cret-of-an-operator", "/" + path, path[:last] + "/." + path[last:], path[:last] + "/x/.." + path[last:], path + ";a=b", path + "%00", path + "%2f",
		path[:last] + "%2f" + path[last+1:], strings.ToUpper(path), "/livez/.." + path, path + ".json", path + "%20",
	}
}

// raw sends a call as it is written.
func (m *member) raw(h http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	m.tb.Helper()
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n%s\r\n{}", method, path, strings.Join(append(headers, ""), "\r\n"))
	q, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		m.tb.Fatal(err)
	}
	q.RemoteAddr = "192.0.2.1:4711"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	return w
}

// What is of one port is not on the other, and nobody finds the inside of the process on either.
func TestPlanesAreApart(t *testing.T) {
	m := newMember(t, func(c *Config) { c.AdminToken, c.Membership = "s3cret-of-an-operator", &fakeMembership{} })
	for _, p := range m.api.admin.paths {
		if p.routes[0].surface == surfaceAdmin {
			mustEqual(t, "the status of "+p.pattern+" on the HTTP port", m.raw(m.api.Handler(), p.routes[0].method, p.pattern, "Authorization: Bearer s3cret-of-an-operator").Code, http.StatusNotFound)
		}
	}
	for _, p := range m.api.public.paths {
		if one := p.routes[0]; one.surface != surfacePage {
			path := strings.Fields(rawCall(one))[1]
			mustEqual(t, "the status of "+path+" on the admin port", m.raw(m.api.AdminHandler(), one.method, path, "Authorization: Bearer s3cret-of-an-operator").Code, http.StatusNotFound)
		}
	}
	for _, h := range []http.Handler{m.api.Handler(), m.api.AdminHandler()} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/debug/requests", "/.git/config", "/admin.token"} {
			mustEqual(t, "the status of "+path, m.raw(h, http.MethodGet, path, "Authorization: Bearer s3cret-of-an-operator").Code, http.StatusNotFound)
		}
	}
}

// A page in a browser can send a GET to anywhere: none changes anything. And nothing lets a page of another
// site read what is answered.
func TestReadingChangesNothing(t *testing.T) {
	m := newMember(t, nil)
	for _, r := range []*router{m.api.public, m.api.admin} {
		for _, p := range r.paths {
			for _, one := range p.routes {
				if one.method == http.MethodGet && !one.reads && one.surface != surfacePage {
					t.Errorf("GET %s changes something", one.pattern)
				}
			}
		}
	}
	w := m.raw(m.api.Handler(), http.MethodGet, "/api/v2/services", "Origin: http://stranger.example")
	for name := range w.Header() {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("the answer has %s", name)
		}
	}
	mustEqual(t, "the status of a preflight", m.raw(m.api.Handler(), http.MethodOptions, "/api/v2/services", "Origin: http://stranger.example", "Access-Control-Request-Method: GET").Code, http.StatusMethodNotAllowed)
}

// A member that takes whoever is on the machine does not take a site whose name was made to lead
// there.
func TestANameThatLeadsHereIsRefused(t *testing.T) {
	m := newMember(t, nil)
	names := []string{"localhost", "registry.example"}
	for host, want := range map[string]int{
		"127.0.0.1:8080": http.StatusOK, "[::1]:8080": http.StatusOK, "localhost": http.StatusOK, "LocalHost.:8080": http.StatusOK, "registry.example:8080": http.StatusOK, "": http.StatusOK,
		"stranger.example": http.StatusMisdirectedRequest, "stranger.example:8080": http.StatusMisdirectedRequest, "127.0.0.1.stranger.example": http.StatusMisdirectedRequest,
		"localhost.stranger.example:8080": http.StatusMisdirectedRequest, "127.0.0.1@stranger.example": http.StatusMisdirectedRequest,
	} {
		for _, h := range []struct {
			http.Handler
			path string
		}{{m.api.Handler(), "/api/v2/services"}, {m.api.Handler(), "/metrics"}, {m.api.AdminHandler(), "/admin/v1/status"}} {
			q := httptest.NewRequest(http.MethodGet, h.path, nil)
			q.Host = host
			w := httptest.NewRecorder()
			ForHosts(h, names).ServeHTTP(w, q)
			mustEqual(t, "the status of "+h.path+" for the host "+host, w.Code, want)
		}
	}
}

// Who an act is of is the address that it came from, and no header is.
func TestForwardedAddressesAreIgnored(t *testing.T) {
	m := newMember(t, nil)
	m.registerOwn("orders", "a")
	const at = "/api/v2/namespaces/prod/services/orders/instances/a"
	for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP"} {
		mustEqual(t, "the status", m.raw(m.api.Handler(), http.MethodPost, at+"/drain", header+": 203.0.113.9", leaseTokenHeader+": "+ownToken).Code, http.StatusOK)
		said := m.raw(m.api.Handler(), http.MethodGet, at).Body.String()
		mustEqual(t, "that the address is told with "+header, strings.Contains(said, "192.0.2.1") && !strings.Contains(said, "203.0.113.9"), true)
	}
}

// Headers above the bound are refused before anybody looks at them.
func TestHeadersAreBounded(t *testing.T) {
	m := newMember(t, nil)
	s := httptest.NewUnstartedServer(m.api.Handler())
	s.Config.MaxHeaderBytes = NewServer(nil, nil).MaxHeaderBytes
	s.Start()
	defer s.Close()
	const slack = 4096 // net/http's own
	for bytes, want := range map[int]string{headerBytesMax / 2: "200", headerBytesMax + slack + 1: "431"} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: %s\r\n\r\n", strings.Repeat("x", bytes))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("a header of %d bytes is answered with %q, %v; want %s", bytes, line, err, want)
		}
		c.Close()
	}
}
