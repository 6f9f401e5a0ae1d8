package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// TestPathsAreTakenAsWritten shows that a segment is decoded by itself, and that no
// path is tidied up into another one, least of all by a redirect.
func TestPathsAreTakenAsWritten(t *testing.T) {
	m := newMember(t, nil)
	for target, id := range map[string]string{
		"10.0.0.1:8080": "10.0.0.1:8080", "a%23b": "a#b", "a%20b": "a b", "..": "..", "%2e%2e": "..", "a+b": "a+b", "%E4%BD%A0": "你", "a%2520b": "a%20b",
	} {
		m.register("orders", target, "10.0.0.1", "")
		i, _, err := m.config.Registry.Get(t.Context(), registry.InstanceRef{Namespace: "prod", Service: "orders", ID: id}, registry.Consistency{})
		if err != nil {
			t.Fatalf("%s is not stored as %q: %v", target, id, err)
		}
		m.must(http.StatusOK, http.MethodDelete, "/api/v2/namespaces/prod/services/orders/instances/"+target+"?force=true", "")
		mustEqual(t, "the id", i.ID, id)
	}
	for target, want := range map[string]int{
		"/api/v2/namespaces//services/orders/instances/a":           http.StatusBadRequest,
		"/api/v2/namespaces/prod/services//instances/a":             http.StatusBadRequest,
		"/api/v2/namespaces/prod/services/orders/instances/":        http.StatusBadRequest,
		"/api/v2/namespaces/prod/services/orders/instances/a%2Fb":   http.StatusBadRequest,
		"/api/v2/namespaces/prod/services/orders/instances/a/b":     http.StatusNotFound,
		"/api/v2/namespaces/prod/../prod/services/orders/instances": http.StatusNotFound,
		"//api/v2/services":                      http.StatusNotFound,
		"/api/v2/services/":                      http.StatusNotFound,
		"/api/v2":                                http.StatusNotFound,
		"/" + strings.Repeat("/", 2*segmentsMax): http.StatusNotFound,
	} {
		if w := m.call(http.MethodGet, target, ""); w.Code != want {
			t.Errorf("%s answers %d, want %d: %s", target, w.Code, want, w.Body)
		}
	}
}

// TestIdempotencyKeyNamesTheRequest shows that the same request has the same id when
// it is repeated, and that a key used for another one does not make it the same.
func TestIdempotencyKeyNamesTheRequest(t *testing.T) {
	m := newMember(t, nil)
	const at = "/api/v2/namespaces/prod/services/orders/instances/"
	put := func(id string, port int, key string) string {
		body := fmt.Sprintf(`{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":%d}]}`, port)
		if w := m.call(http.MethodPut, at+id, body, "Idempotency-Key: "+key, leaseTokenHeader+": "+ownToken); w.Code >= http.StatusBadRequest {
			t.Fatalf("put answers %d: %s", w.Code, w.Body)
		}
		return m.log.Requests[len(m.log.Requests)-1]
	}
	first := put("a", 55300, "k1")
	if len(first) != 64 || strings.Contains(first, "k1") {
		t.Fatalf("the request id is %q, which is no digest", first)
	}
	mustEqual(t, "the id of the same request", put("a", 55300, "k1"), first)
	for name, other := range map[string]string{
		"another instance": put("b", 55300, "k1"), "another body": put("a", 55301, "k1"), "another key": put("a", 55300, "k2"),
	} {
		if other == first {
			t.Errorf("%s has the same request id", name)
		}
	}
	mustEqual(t, "the id without a key", put("a", 80, ""), "")
	m.must(http.StatusOK, http.MethodDelete, at+"a", "", "Idempotency-Key: k1", leaseTokenHeader+": "+ownToken)
	if last := m.log.Requests[len(m.log.Requests)-1]; last == first || last == "" {
		t.Errorf("the id of the deregistration is %q", last)
	}
	for _, key := range []string{strings.Repeat("k", 129), "k\u00e9y"} {
		mustBeRefused(t, m.call(http.MethodDelete, at+"a", "", "Idempotency-Key: "+key), "Idempotency-Key", 0)
	}
}

// TestARenewalTakesAnEmptyBody shows that there need be none, but that a form is refused even then.
func TestARenewalTakesAnEmptyBody(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	const at = "/api/v2/namespaces/prod/services/orders/instances/a/renew"
	const token = leaseTokenHeader + ": " + "lease-token-0001"
	m.must(http.StatusOK, http.MethodPost, at, "", token)
	m.must(http.StatusOK, http.MethodPost, at, "", token, "Content-Type: application/json")
	m.must(http.StatusOK, http.MethodPost, at, "{}", token)
	m.must(http.StatusUnsupportedMediaType, http.MethodPost, at, "", "Content-Type: application/x-www-form-urlencoded")
	m.must(http.StatusUnsupportedMediaType, http.MethodPost, at, "{}", "Content-Type: ")
}

// TestALongListIsWhole shows that a list of many chunks is one JSON document, in
// order and complete, and a short one says its length.
func TestALongListIsWhole(t *testing.T) {
	m := newMember(t, nil)
	const many = 1000
	for n := range many {
		m.register("orders", fmt.Sprintf("i-%04d", n), "10.0.0.1", `,"metadata":{"long":"`+strings.Repeat("x", n)+`"}`)
	}
	w := m.must(http.StatusOK, http.MethodGet, "/api/v2/namespaces/prod/instances", "")
	if w.Body.Len() < 4*chunkBytes {
		t.Fatalf("the list has %d bytes only", w.Body.Len())
	}
	var list struct {
		Revision  uint64
		Instances []struct{ InstanceID string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the number of instances", len(list.Instances), many)
	for n, i := range list.Instances {
		mustEqual(t, "the id", i.InstanceID, fmt.Sprintf("i-%04d", n))
	}
	mustEqual(t, "the length that a long answer gives", w.Header().Get("Content-Length"), "")
	short := m.must(http.StatusOK, http.MethodGet, "/api/v2/namespaces/prod/instances?limit=1", "")
	mustEqual(t, "the length that a short answer gives", short.Header().Get("Content-Length"), fmt.Sprint(short.Body.Len()))
}

// TestStaleReadsNeedNoQuorum shows that it is only them.
func TestStaleReadsNeedNoQuorum(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	m.set(func() { m.log.Fault = registry.ErrNoLeader })
	for _, target := range []string{
		"/api/v2/namespaces/prod/services/orders/instances/a", "/api/v2/namespaces/prod/services/orders/instances",
		"/api/v2/namespaces/prod/instances", "/api/v2/namespaces/prod/services", "/api/v2/services",
	} {
		m.must(http.StatusServiceUnavailable, http.MethodGet, target, "")
		m.must(http.StatusServiceUnavailable, http.MethodGet, target+"?consistency=linearizable", "")
		w := m.must(http.StatusOK, http.MethodGet, target+"?consistency=stale", "")
		mustEqual(t, "the revision", w.Header().Get("X-StellMap-Revision"), fmt.Sprint(m.machine.Revision()))
	}
}

// TestStaleReadsSayTheirAge shows the header, and what max_staleness refuses.
func TestStaleReadsSayTheirAge(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	const target = "/api/v2/namespaces/prod/services/orders/instances"
	age := func(parameters string) string {
		return m.must(http.StatusOK, http.MethodGet, target+parameters, "").Header().Get("X-StellMap-Age")
	}
	mustEqual(t, "the age of a linearizable answer", age(""), "")
	mustEqual(t, "an age that is not known", age("?consistency=stale"), "unknown")
	mustEqual(t, "an age that a leader has just confirmed", age("?consistency=stale&max_staleness=1s"), "0.000")
	m.set(func() { m.log.FreshAt, m.log.Fault = m.clock.Now().Add(-time.Hour), registry.ErrNoLeader })
	if text := age("?consistency=stale"); !strings.HasPrefix(text, "3600.000") {
		t.Errorf("a state of an hour ago has the age %q", text)
	}
	age("?consistency=stale&max_staleness=2h")
	w := m.must(http.StatusServiceUnavailable, http.MethodGet, target+"?consistency=stale&max_staleness=10s", "")
	mustEqual(t, "what is said", strings.Contains(w.Body.String(), `"too_old"`), true)
	for parameters, field := range map[string]string{
		"?max_staleness=5s": "max_staleness", "?consistency=stale&max_staleness=5": "max_staleness",
		"?consistency=stale&max_staleness=0s": "max_staleness", "?consistency=stale&max_staleness=48h": "max_staleness",
	} {
		if body := m.must(http.StatusBadRequest, http.MethodGet, target+parameters, "").Body.String(); !strings.Contains(body, field) {
			t.Errorf("%s: %s", parameters, body)
		}
	}
}

// TestWithheldIsAskedOnceForAService shows that a list costs one question for each service in it.
func TestWithheldIsAskedOnceForAService(t *testing.T) {
	var asked []string
	m := newMember(t, func(c *Config) {
		c.Withheld = func(_ context.Context, k registry.ServiceKey) []Withheld {
			asked = append(asked, k.Service)
			return nil
		}
	})
	for _, service := range []string{"orders", "pay"} {
		for _, id := range []string{"a", "b", "c"} {
			m.register(service, id, "10.0.0.1", "")
		}
	}
	m.must(http.StatusOK, http.MethodGet, "/api/v2/namespaces/prod/instances", "")
	mustEqual(t, "what was asked for", strings.Join(asked, " "), "orders pay")
}

// TestWithheldIsAskedForWhoeverAsks shows that it is asked in the name of the caller, so that it can be
// in words for him.
func TestWithheldIsAskedForWhoeverAsks(t *testing.T) {
	m := newMember(t, func(c *Config) {
		c.Access = func(*http.Request) (registry.Caller, error) {
			return &holder{"ann", func(registry.Ask) bool { return true }}, nil
		}
		c.Withheld = func(ctx context.Context, _ registry.ServiceKey) []Withheld {
			if by := registry.CallerOf(ctx); by != nil {
				return []Withheld{{Reason: "for " + by.Who()}}
			}
			return []Withheld{{Reason: "for nobody"}}
		}
	})
	m.register("orders", "a", "10.0.0.1", "")
	const service = "/api/v2/namespaces/prod/services/orders"
	for _, page := range []string{"/api/v2/instances", "/api/v2/services", service, service + "/instances", service + "/instances?failover=local-only", service + "/instances/a"} {
		if said := m.must(http.StatusOK, http.MethodGet, page, "").Body.String(); !strings.Contains(said, `"withheld":[{"reason":"for ann"}]`) {
			t.Errorf("%s tells\n%s", page, said)
		}
	}
}
