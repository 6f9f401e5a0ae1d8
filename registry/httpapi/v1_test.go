package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// What the Java SDK knows, and not a key more: an answer with another one is a
// failure to it.
type (
	javaEnvelope struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	javaList struct {
		Code string         `json:"code"`
		Data []javaInstance `json:"data"`
	}
	javaInstance struct {
		Namespace         string            `json:"namespace"`
		Service           string            `json:"service"`
		Organization      string            `json:"organization"`
		BusinessDomain    string            `json:"businessDomain"`
		CapabilityDomain  string            `json:"capabilityDomain"`
		Application       string            `json:"application"`
		Role              string            `json:"role"`
		InstanceID        string            `json:"instanceId"`
		Zone              string            `json:"zone"`
		Labels            map[string]string `json:"labels"`
		Metadata          map[string]string `json:"metadata"`
		Endpoints         []javaEndpoint    `json:"endpoints"`
		LeaseTTLSeconds   int64             `json:"leaseTtlSeconds"`
		RegisteredAtUnix  int64             `json:"registeredAtUnix"`
		LastHeartbeatUnix int64             `json:"lastHeartbeatUnix"`
	}
	javaEndpoint struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Host     string `json:"host"`
		Port     int32  `json:"port"`
		Path     string `json:"path"`
		Weight   int32  `json:"weight"`
	}
)

// TestJavaTakesEveryAnswer shows that v1 sends no key that the strict SDK does not
// know: for all calls, all errors, and an instance that has everything set.
func TestJavaTakesEveryAnswer(t *testing.T) {
	m := newMember(t, nil)
	m.register("a.b.c.d.e", "i", "10.0.0.1", `,"group":"g","version":"1","zone":"z","labels":{"a":"b"},"metadata":{"c":"d"}`)
	key := registry.ServiceKey{Namespace: "prod", Service: "a.b.c.d.e"}
	m.set(func() { m.withheld[key] = []Withheld{{Reason: "none of v1's business"}} })
	const at = "/api/v1/registry/"
	const ref = `{"namespace":"prod","service":"a.b.c.d.e","instanceId":"i"}`

	var list javaList
	into(t, m.must(http.StatusOK, http.MethodGet, at+"instances?namespace=prod", ""), &list)
	mustEqual(t, "the number of instances", len(list.Data), 1)
	mustEqual(t, "the zone", list.Data[0].Zone, "z")
	mustEqual(t, "the last level", list.Data[0].Role, "e")
	list.Data = nil
	into(t, m.must(http.StatusOK, http.MethodGet, at+"instances?namespace=none", ""), &list)
	mustEqual(t, "an empty list is null", list.Data == nil, false)

	answers := []*httptest.ResponseRecorder{
		m.must(http.StatusOK, http.MethodPost, at+"register", `{"namespace":"prod","service":"x","instanceId":"i","endpoints":[{"protocol":"http","host":"10.0.0.1","port":1}]}`),
		m.must(http.StatusOK, http.MethodPost, at+"heartbeat", ref),
		m.must(http.StatusOK, http.MethodPost, at+"deregister", ref),
		m.must(http.StatusNotFound, http.MethodPost, at+"heartbeat", ref),
		m.must(http.StatusGone, http.MethodGet, at+"watch?namespace=prod&sinceRevision=99&includeSnapshot=false", ""),
		m.must(http.StatusBadRequest, http.MethodPost, at+"register", "{}"),
		m.must(http.StatusUnsupportedMediaType, http.MethodPost, at+"register", "{}", "Content-Type: text/plain"),
	}
	for name, fault := range faults {
		if fault == nil {
			continue
		}
		m.set(func() { m.log.Fault = fault })
		w := m.call(http.MethodPost, at+"deregister", ref)
		if w.Code < http.StatusTooManyRequests {
			t.Fatalf("with %s the answer is %d", name, w.Code)
		}
		answers = append(answers, w, m.play(http.MethodGet, at+"instances?namespace=prod", ""))
	}
	for _, w := range answers {
		var envelope javaEnvelope
		into(t, w, &envelope)
		if envelope.Code == "" || envelope.Message == "" {
			t.Errorf("%d has code %q and message %q", w.Code, envelope.Code, envelope.Message)
		}
	}
}

// TestV1TakesFieldNamesInAnyCase shows what the existing server did, too.
func TestV1TakesFieldNamesInAnyCase(t *testing.T) {
	m := newMember(t, nil)
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/register",
		`{"Namespace":"prod","SERVICE":"x","instanceid":"i","Endpoints":[{"Protocol":"http","Host":"10.0.0.1","Port":1}]}`)
}

// TestContentTypes shows that any parameter will do.
func TestContentTypes(t *testing.T) {
	for mediaType, want := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON;charset=GBK": true, "application/json; charset": true,
		"": false, "text/json": false, "application/problem+json": false, "application/x-www-form-urlencoded": false, "multipart/form-data; boundary=a": false,
	} {
		mustEqual(t, mediaType, isJSON(mediaType), want)
	}
}
