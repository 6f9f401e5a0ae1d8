package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/corpus"
)

// FuzzCalls sends whatever is an HTTP request to each route that there is, and to what looks
// like one: it is answered, in the form of its surface, and never with 500.
func FuzzCalls(f *testing.F) {
	m := newMember(f, func(c *Config) { c.AdminToken = "s3cret-of-an-operator" })
	m.registerFleet()
	for _, r := range []*router{m.api.public, m.api.admin} {
		for _, p := range r.paths {
			for _, one := range p.routes {
				f.Add(r == m.api.admin, []byte(rawCall(one)))
			}
		}
	}
	for name, s := range map[string]string{
		"a selector without an end": "GET /api/v2/instances?selector=a%20in%20(b&limit=0&cursor=Ly8vLw&fields=x HTTP/1.1\r\nHost: a\r\n\r\n",
		"a watch from a revision":   "GET /api/v2/watch?revision=cafe.7&wait=1s&service=a* HTTP/1.1\r\nHost: a\r\nLast-Event-ID: cafe.1\r\n\r\n",
		"dots and slashes in names": "PUT /api/v2/namespaces/%2e%2e/services/a%2fb/instances/%00 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
		"a batch of nothing":        "POST /api/v2/batch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{\"items\":[{\"renew\":{}}]}",
		"dots in the path":          "DELETE //api/v2/../namespaces HTTP/1.0\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
	} {
		corpus.Add(f, name, false, []byte(s))
	}
	f.Fuzz(func(t *testing.T, admin bool, raw []byte) {
		q, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		q.RemoteAddr = "192.0.2.1:4711"
		handler := m.api.Handler()
		if admin {
			handler = m.api.AdminHandler()
		}
		within := time.Second
		if strings.Contains(q.URL.Path, "watch") || strings.Contains(q.URL.RawQuery, "wait") {
			within = time.Millisecond // it would wait for what does not come
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, q.WithContext(ctx))
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%q is answered with %d: %s", raw, w.Code, w.Body)
		}
		if kind := w.Header().Get("Content-Type"); q.Method != http.MethodHead && strings.Contains(kind, "json") && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q is answered with what is no JSON: %s", raw, w.Body)
		}
		io.Copy(io.Discard, q.Body)
	})
}

// rawCall is a call of a route with a body that has nothing in it.
func rawCall(one route) string {
	path := one.pattern
	for strings.Contains(path, "{") {
		before, rest, _ := strings.Cut(path, "{")
		_, after, _ := strings.Cut(rest, "}")
		path = before + "p1" + after
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", one.method, path)
}

// FuzzHosts: whatever a call names as its host, it is let through for an address, localhost or a name of this member, and nothing else.
func FuzzHosts(f *testing.F) {
	for _, host := range []string{"", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "::1", "localhost", "LOCALHOST.:1", "registry.example:8080", "stranger.example", "127.0.0.1.stranger.example", "localhost@stranger.example", "[registry.example]:1", "::."} {
		f.Add(host)
	}
	for name, host := range map[string]string{"an address": "[::1]:8080", "a name of ours": "registry.example:8080", "an address in a strangers name": "127.0.0.1.stranger.example", "a user": "localhost@stranger.example"} {
		corpus.Add(f, name, host)
	}
	through := ForHosts(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), []string{"registry.example"})
	f.Fuzz(func(t *testing.T, host string) {
		q := httptest.NewRequest(http.MethodGet, "/api/v2/services", nil)
		q.Host = host
		w := httptest.NewRecorder()
		through.ServeHTTP(w, q)
		name := host[:max(strings.LastIndexByte(host, ':'), 0)]
		known := false
		for _, text := range []string{host, name} { // a dot at its end is the same name
			text = strings.Trim(strings.TrimSuffix(strings.ToLower(text), "."), "[]")
			_, err := netip.ParseAddr(text)
			known = known || err == nil || slices.Contains([]string{"localhost", "registry.example", ""}, text)
		}
		if w.Code == http.StatusOK && !known {
			t.Errorf("a call for %q is let through", host)
		}
	})
}
