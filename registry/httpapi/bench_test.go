package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkRegisterDecode is the way of a registration from its bytes to what the registry is handed.
func BenchmarkRegisterDecode(b *testing.B) {
	const body = `{"group":"blue","zone":"z1","version":"1.2","labels":{"track":"canary"},"metadata":{"build":"91f2"},` +
		`"endpoints":[{"name":"http","protocol":"http","host":"10.1.0.7","port":8080,"path":"/v1","weight":100}],"leaseTtlSeconds":30}`
	q := request(http.MethodPut, "/x", body)
	w := httptest.NewRecorder()
	reader := strings.NewReader(body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		q.Body = struct {
			*strings.Reader
			nopCloser
		}{Reader: reader}
		var v v2RegisterBody
		if err := decode(w, q, &v); err != nil {
			b.Fatal(err)
		}
		if r := v.registration(pathRef(q)); len(r.Endpoints) != 1 {
			b.Fatal("an endpoint is missing")
		}
	}
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// BenchmarkListInstances is a list of a thousand instances, from request to last byte.
func BenchmarkListInstances(b *testing.B) {
	m := newMember(b, nil)
	const many = 1_000
	for n := range many {
		m.register(fmt.Sprintf("orders-%02d", n%50), fmt.Sprintf("i-%04d", n), "10.0.0.1", `,"zone":"z1","labels":{"track":"canary"},"metadata":{"build":"91f2"}`)
	}
	for name, target := range map[string]string{"v1": "/api/v1/registry/instances?namespace=prod", "v2": "/api/v2/namespaces/prod/instances"} {
		b.Run(name, func(b *testing.B) {
			q := request(http.MethodGet, target, "")
			w := &discard{header: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				w.bytes = 0
				m.api.Handler().ServeHTTP(w, q)
			}
			b.SetBytes(int64(w.bytes))
			b.ReportMetric(many, "instances/op")
		})
	}
}

// discard counts what is written and keeps nothing.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}

func (d *discard) Write(b []byte) (int, error) {
	d.bytes += len(b)
	return len(b), nil
}

// BenchmarkRenew is one renewal by itself, without its connection, at a member that leads.
func BenchmarkRenew(b *testing.B) {
	m := newMember(b, nil)
	m.registerOwn("orders", "i-1")
	q := request(http.MethodPost, "/api/v2/namespaces/prod/services/orders/instances/i-1/renew", "", leaseTokenHeader+": "+ownToken)
	w := &discard{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		w.bytes = 0
		m.api.Handler().ServeHTTP(w, q)
		if w.bytes == 0 {
			b.Fatal("nothing is answered")
		}
	}
}
