package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// TestTooManyRequests shows that the one above the bound is refused at once and
// counted, that health still answers, and that a slot is free again afterwards.
func TestTooManyRequests(t *testing.T) {
	m := newMember(t, nil)
	m.api.limits.inflight, m.api.limits.timeout = 2, time.Hour // those that wait do so until they are let go
	m.set(func() { m.log.Hang = true })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	for range 2 {
		go func() {
			w := httptest.NewRecorder()
			m.api.Handler().ServeHTTP(w, request(http.MethodGet, "/api/v2/services", "").WithContext(ctx))
			done <- w.Code
		}()
	}
	eventually(t, "both slots to be taken", func() bool { return m.api.inflight.Load() == 2 })

	for target, form := range map[string]string{"/api/v2/services": typeProblem, "/api/v1/registry/instances?namespace=prod": typeJSON} {
		w := m.must(http.StatusTooManyRequests, http.MethodGet, target, "")
		mustEqual(t, "Retry-After", w.Header().Get("Retry-After"), "1")
		mustEqual(t, "the type", w.Header().Get("Content-Type"), form)
		if !strings.Contains(w.Body.String(), `"code":"busy"`) {
			t.Fatalf("the answer is %s", w.Body)
		}
	}
	m.must(http.StatusOK, http.MethodGet, "/readyz", "")
	page := m.must(http.StatusOK, http.MethodGet, "/metrics", "").Body.String()
	for _, line := range []string{"stellmap_http_requests_refused_total 2", "stellmap_http_requests_inflight 2"} {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("the metrics lack %q", line)
		}
	}

	cancel()
	for range 2 {
		mustEqual(t, "the status of one that waited", <-done, http.StatusServiceUnavailable)
	}
	mustEqual(t, "the slots in use", m.api.inflight.Load(), int64(0))
	m.set(func() { m.log.Hang = false })
	m.must(http.StatusOK, http.MethodGet, "/api/v2/services", "")
}

// Reads that wait for their answers, as they do while there is no leader, leave room for what keeps instances alive.
func TestReadsLeaveRoomForOthers(t *testing.T) {
	m := newMember(t, nil)
	m.api.limits.reads, m.api.limits.timeout = 1, time.Hour // those that wait do so until they are let go
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/orders/instances/a", "{"+oneEndpoint+"}", leaseTokenHeader+": "+ownToken)
	m.set(func() { m.log.Hang = true })
	ctx, cancel := context.WithCancel(t.Context())
	waits := func(method, target string) chan int {
		done := make(chan int, 1)
		go func() {
			w := httptest.NewRecorder()
			m.api.Handler().ServeHTTP(w, request(method, target, "", leaseTokenHeader+": "+ownToken).WithContext(ctx))
			done <- w.Code
		}()
		return done
	}
	read := waits(http.MethodGet, "/api/v2/services")
	eventually(t, "the place to be taken", func() bool { return m.api.reads.Load() == 1 })
	for _, target := range []string{"/api/v2/instances", "/api/v1/registry/instances?namespace=prod", "/api/v2/namespaces/prod/services/orders/instances", "/api/v2/namespaces/prod/services/orders/instances/a?consistency=stale"} {
		w := m.must(http.StatusTooManyRequests, http.MethodGet, target, "")
		mustEqual(t, "Retry-After", w.Header().Get("Retry-After"), "1")
		if !strings.Contains(w.Body.String(), "reads are in flight") {
			t.Errorf("the answer is %s", w.Body)
		}
	}
	write := waits(http.MethodDelete, "/api/v2/namespaces/prod/services/orders/instances/a")
	eventually(t, "a write to be in flight beside it", func() bool { return m.api.inflight.Load() == 2 })
	m.must(http.StatusOK, http.MethodGet, "/readyz", "")
	cancel()
	<-read
	mustEqual(t, "the status of the write", <-write, http.StatusServiceUnavailable)
	m.set(func() { m.log.Hang = false })
	m.must(http.StatusOK, http.MethodGet, "/api/v2/services", "")
}

// eventually waits for a condition without a sleep in between: it is other goroutines' turn.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestEveryCallEnds shows that the log cannot keep a caller waiting: a read may be
// tried again, the outcome of a write is unknown.
func TestEveryCallEnds(t *testing.T) {
	m := newMember(t, nil)
	if m.api.limits.timeout >= 5*time.Second {
		t.Fatalf("the deadline is %v; the Java SDK gives up after 5 s", m.api.limits.timeout)
	}
	m.api.limits.timeout = 10 * time.Millisecond
	m.set(func() { m.log.Hang = true })
	const ref = `{"namespace":"prod","service":"orders","instanceId":"a"}`
	for _, c := range []struct{ method, target, body, code string }{
		{http.MethodGet, "/api/v1/registry/instances?namespace=prod", "", "not_leader"},
		{http.MethodPost, "/api/v1/registry/heartbeat", ref, "unknown_outcome"},
		{http.MethodPost, "/api/v1/registry/deregister", ref, "unknown_outcome"},
		{http.MethodGet, "/api/v2/services", "", "no_leader"},
		{http.MethodDelete, "/api/v2/namespaces/prod/services/orders/instances/a", "", "unknown_outcome"},
	} {
		begin := time.Now()
		w := m.must(http.StatusServiceUnavailable, c.method, c.target, c.body)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s %s took %v", c.method, c.target, took)
		}
		if !strings.Contains(w.Body.String(), fmt.Sprintf(`"code":%q`, c.code)) {
			t.Errorf("%s %s answers %s, want %s", c.method, c.target, w.Body, c.code)
		}
		mustEqual(t, "Retry-After is given for "+c.code, w.Header().Get("Retry-After") != "", c.code != "unknown_outcome")
	}
}

// TestAPanicCostsOneRequest shows that it is answered and logged with its place,
// that what has begun is cut off, and that a wanted abort goes through.
func TestAPanicCostsOneRequest(t *testing.T) {
	var act func()
	m := newMember(t, func(c *Config) {
		c.Withheld = func(context.Context, registry.ServiceKey) []Withheld { act(); return nil }
	})
	act = func() {}
	m.register("orders", "a", "10.0.0.1", "")

	act = func() { panic("lost the thread") }
	w := m.must(http.StatusInternalServerError, http.MethodGet, "/api/v2/services", "")
	if !strings.Contains(w.Body.String(), `"code":"internal"`) || strings.Contains(w.Body.String(), "thread") {
		t.Errorf("the answer is %s", w.Body)
	}
	for _, want := range []string{"lost the thread", "serve_test.go", "route=/api/v2/services"} {
		if !strings.Contains(m.logs.String(), want) {
			t.Errorf("the log lacks %q: %s", want, m.logs)
		}
	}
	mustEqual(t, "the slots in use", m.api.inflight.Load(), int64(0))

	act = func() { panic(http.ErrAbortHandler) }
	mustAbort(t, func() { m.call(http.MethodGet, "/api/v2/services", "") })

	one := &route{pattern: "/x", serve: func(w http.ResponseWriter, _ *http.Request) error {
		writeBytes(w, http.StatusOK, typeText, []byte("half"))
		panic("in the middle")
	}}
	mustAbort(t, func() { m.api.serve(httptest.NewRecorder(), request(http.MethodGet, "/x", ""), one) })
}

func mustAbort(t *testing.T, do func()) {
	t.Helper()
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler {
			t.Fatalf("panicked with %v, want http.ErrAbortHandler", cause)
		}
	}()
	do()
}

// TestUnforeseenErrorsAreLogged shows that the cause is in the log and not in the answer.
func TestUnforeseenErrorsAreLogged(t *testing.T) {
	m := newMember(t, nil)
	m.set(func() { m.log.Fault = faults["unforeseen"] })
	w := m.must(http.StatusInternalServerError, http.MethodGet, "/api/v2/services", "")
	if strings.Contains(w.Body.String(), "fire") || !strings.Contains(m.logs.String(), "the disk is on fire") {
		t.Fatalf("the answer is %s, the log %s", w.Body, m.logs)
	}
}

// TestErrorsOfTheRegistryHaveTheirAnswer shows that each is found however it is wrapped.
func TestErrorsOfTheRegistryHaveTheirAnswer(t *testing.T) {
	cases := []struct {
		err          error
		write, reads string
	}{
		{registry.ErrNotFound, "not_found", "not_found"},
		{registry.ErrNoLeader, "no_leader", "no_leader"},
		{registry.ErrBusy, "busy", "busy"},
		{registry.ErrFull, "disk_full", "disk_full"},
		{registry.ErrUnknownOutcome, "unknown_outcome", "no_leader"},
		{registry.ErrStopping, "stopping", "stopping"},
		{context.DeadlineExceeded, "unknown_outcome", "no_leader"},
		{context.Canceled, "unknown_outcome", "no_leader"},
		{fmt.Errorf("%w: %w", registry.ErrNoLeader, context.DeadlineExceeded), "no_leader", "no_leader"},
		{fmt.Errorf("%w: %w", registry.ErrUnknownOutcome, context.Canceled), "unknown_outcome", "no_leader"},
		{invalid("a", "b"), "bad_request", "bad_request"},
		{io.ErrUnexpectedEOF, "internal", "internal"},
	}
	for _, c := range cases {
		wrapped := fmt.Errorf("register: %w", c.err)
		mustEqual(t, c.err.Error()+", writing", failureOf(wrapped, false).Code, c.write)
		mustEqual(t, c.err.Error()+", reading", failureOf(wrapped, true).Code, c.reads)
	}
}

// TestEveryRefusalHasItsStatus shows that none of the registry's is answered by
// accident, and that no status stands for nothing.
func TestEveryRefusalHasItsStatus(t *testing.T) {
	codes := make(map[string]bool)
	for _, r := range registry.Refusals() {
		codes[r.Code] = true
		if statuses[r.Code] == 0 {
			t.Errorf("the refusal %q has no status", r.Code)
		}
	}
	mustEqual(t, "how many codes have a status", len(statuses), len(codes))
}

// TestAdminToken shows that everything but health and metrics on the admin port
// asks for it, unknown paths included, and that the HTTP port has no such page.
func TestAdminToken(t *testing.T) {
	m := newMember(t, func(c *Config) { c.AdminToken = "s3cret" })
	ask := func(target, authorization string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		m.api.AdminHandler().ServeHTTP(w, request(http.MethodGet, target, "", "Authorization: "+authorization))
		return w
	}
	for name, c := range map[string]struct {
		target, authorization string
		want                  int
	}{
		"right":                    {"/admin/v1/status", "Bearer s3cret", http.StatusOK},
		"right, other case":        {"/admin/v1/status", "bearer s3cret", http.StatusOK},
		"missing":                  {"/admin/v1/status", "", http.StatusUnauthorized},
		"wrong":                    {"/admin/v1/status", "Bearer s3cres", http.StatusUnauthorized},
		"a part of it":             {"/admin/v1/status", "Bearer s3cre", http.StatusUnauthorized},
		"too long":                 {"/admin/v1/status", "Bearer s3crets", http.StatusUnauthorized},
		"without a scheme":         {"/admin/v1/status", "s3cret", http.StatusUnauthorized},
		"another scheme":           {"/admin/v1/status", "Basic s3cret", http.StatusUnauthorized},
		"missing, unknown path":    {"/admin/v1/secrets", "", http.StatusUnauthorized},
		"right, unknown path":      {"/admin/v1/secrets", "Bearer s3cret", http.StatusNotFound},
		"no token for health":      {"/healthz", "", http.StatusOK},
		"no token for metrics":     {"/metrics", "", http.StatusOK},
		"no registry on this port": {"/api/v1/registry/instances", "Bearer s3cret", http.StatusNotFound},
	} {
		w := ask(c.target, c.authorization)
		if w.Code != c.want {
			t.Errorf("%s: answered %d, want %d: %s", name, w.Code, c.want, w.Body)
		}
		if c.want == http.StatusUnauthorized {
			var envelope javaEnvelope
			into(t, w, &envelope)
			mustEqual(t, "the code", envelope.Code, "unauthorized")
			mustEqual(t, "the challenge", w.Header().Get("WWW-Authenticate"), `Bearer realm="stellmap admin"`)
		}
	}
	m.must(http.StatusNotFound, http.MethodGet, "/admin/v1/status", "", "Authorization: Bearer s3cret")
}

// TestXDSReadiness shows that it is asked for by itself and says why not.
func TestXDSReadiness(t *testing.T) {
	m := newMember(t, nil)
	m.set(func() { m.xds = fmt.Errorf("still catching up") })
	w := m.must(http.StatusServiceUnavailable, http.MethodGet, "/readyz/xds", "")
	if !strings.Contains(w.Body.String(), `"message":"still catching up"`) {
		t.Errorf("the answer is %s", w.Body)
	}
	m.must(http.StatusOK, http.MethodGet, "/readyz", "")
}

// TestMetrics shows that requests are counted by pattern, and that no client can make the labels grow.
func TestMetrics(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	for n := range 20 {
		m.call(http.MethodGet, fmt.Sprintf("/api/v2/namespaces/prod/services/orders/instances/x-%d", n), "")
		m.call(http.MethodGet, fmt.Sprintf("/nothing/%d", n), "")
		m.call(fmt.Sprintf("METHOD%d", n), "/api/v2/services", "")
	}
	page := m.must(http.StatusOK, http.MethodGet, "/metrics", "").Body.String()
	const instance = `route="/api/v2/namespaces/{ns}/services/{svc}/instances/{id}"`
	for _, line := range []string{
		`stellmap_http_requests_total{code="201",method="PUT",` + instance + `} 1`,
		`stellmap_http_requests_total{code="404",method="GET",` + instance + `} 20`,
		`stellmap_http_requests_total{code="404",method="GET",route="other"} 20`,
		`stellmap_http_requests_total{code="405",method="other",route="/api/v2/services"} 20`,
		`stellmap_http_request_duration_seconds_count{` + instance + `} 21`,
		`stellmap_http_requests_refused_total 0`,
		`stellmap_http_requests_inflight 0`,
	} {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("the metrics lack %q", line)
		}
	}
	mustEqual(t, "the number of counters", strings.Count(page, "\nstellmap_http_requests_total{"), 4)
}

// TestNew shows what is required, and what can be left out.
func TestNew(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Fatal("an API without a registry was made")
	}
	m := newMember(t, func(c *Config) {
		c.XDSReady, c.Withheld, c.Gatherer, c.Registerer, c.Logger = nil, nil, nil, nil, nil
	})
	m.register("orders", "a", "10.0.0.1", "")
	m.must(http.StatusOK, http.MethodGet, "/api/v2/services", "")
	m.must(http.StatusOK, http.MethodGet, "/readyz/xds", "")
	m.must(http.StatusNotFound, http.MethodGet, "/metrics", "")

	taken := prometheus.NewRegistry()
	m.config.Registerer = taken
	if _, err := New(m.config); err != nil {
		t.Fatal(err)
	}
	if _, err := New(m.config); err == nil {
		t.Fatal("two APIs share one registry of metrics")
	}
}

// TestServer shows the API behind a real listener: a long body, HEAD, and a body that does not arrive.
func TestServer(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	server := NewServer(m.api.Handler(), nil)
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 || server.MaxHeaderBytes == 0 || server.ErrorLog == nil {
		t.Fatal("a bound is not set")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	client := &http.Client{Timeout: 10 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	at := "http://" + listener.Addr().String()

	response, err := client.Post(at+"/api/v1/registry/register", typeJSON, strings.NewReader(`{"zone":"`+strings.Repeat("z", bodyBytesMax)))
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, response)
	mustEqual(t, "the status of a long body", response.StatusCode, http.StatusRequestEntityTooLarge)

	response, err = client.Head(at + "/api/v2/services")
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, response)
	mustEqual(t, "the status of HEAD", response.StatusCode, http.StatusOK)

	impatient := m.served(func(s *http.Server) { s.ReadTimeout = time.Second })
	mustEqual(t, "the status of half a body", halfBody(t, impatient.Listener.Addr().String()), http.StatusBadRequest)
}

func mustClose(t *testing.T, r *http.Response) {
	t.Helper()
	if err := r.Body.Close(); err != nil {
		t.Fatal(err)
	}
}

// halfBody sends a request whose body never ends.
func halfBody(t *testing.T, address string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "POST /api/v1/registry/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, response)
	return response.StatusCode
}

// Calls with large bodies, and those that do not say how large theirs is, are few at once; others do not wait for them.
func TestLargeBodiesAreBounded(t *testing.T) {
	m := newMember(t, nil)
	const target = "/api/v2/namespaces/prod/services/orders/instances/a"
	body := `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]` + strings.Repeat(" ", bodySmallMax) + `}`
	send := func(length int64) *httptest.ResponseRecorder {
		q := request(http.MethodPut, target, body)
		q.ContentLength = length
		w := httptest.NewRecorder()
		m.api.Handler().ServeHTTP(w, q)
		return w
	}
	m.api.large.Store(largeInflightMax)
	for _, length := range []int64{int64(len(body)), bodySmallMax + 1, -1} {
		mustBeRefused(t, send(length), "64 calls", http.StatusTooManyRequests)
	}
	mustEqual(t, "the slots after it", m.api.large.Load(), largeInflightMax)
	mustEqual(t, "how many refusals are counted", strings.Contains(m.must(http.StatusOK, http.MethodGet, metricsPattern, "").Body.String(), "\nstellmap_http_requests_refused_total 3\n"), true)
	m.must(http.StatusCreated, http.MethodPut, target, `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}`)
	m.api.large.Store(largeInflightMax - 1)
	mustEqual(t, "the status of the last that has a slot", send(int64(len(body))).Code, http.StatusForbidden) // its token is another
	mustEqual(t, "the slots after it", m.api.large.Load(), largeInflightMax-1)
}

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("a body that is too large is read")
	return 0, io.EOF
}

// A body that says how large it is, and is too large, is refused unread. Small bodies are not given the buffers of large ones,
// and of what is larger than any body may be nothing is kept.
func TestLargeBodiesLeaveLittleBehind(t *testing.T) {
	m := newMember(t, nil)
	q := httptest.NewRequest(http.MethodPut, "/api/v2/namespaces/prod/services/orders/instances/a", unread{t})
	q.ContentLength = bodyBytesMax + 1
	q.Header.Set("Content-Type", typeJSON)
	w := httptest.NewRecorder()
	m.api.Handler().ServeHTTP(w, q)
	mustEqual(t, "the status", w.Code, http.StatusRequestEntityTooLarge)

	for range 100 {
		putBody(bytes.NewBuffer(make([]byte, bodyBytesMax)))
		putBody(bytes.NewBuffer(make([]byte, largeBodyKeptMax+1)))
	}
	for range 100 {
		q.ContentLength = bodySmallMax
		if b := bodyFor(q); b.Cap() > bodyKeptMax {
			t.Fatalf("a small body has a buffer of %d", b.Cap())
		}
		q.ContentLength = bodySmallMax + 1
		if b := bodyFor(q); b.Cap() > largeBodyKeptMax || b.Len() != 0 {
			t.Fatalf("a large body has a buffer of %d with %d in it", b.Cap(), b.Len())
		}
	}
}
