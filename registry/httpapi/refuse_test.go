package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// An input is a registration that both surfaces can be asked for.
type input struct {
	namespace, service, id string
	body                   map[string]any // without the three
	raw                    string         // in place of the body, if not empty
	method, mediaType      string         // in place of the right ones, if not empty
}

func goodInput() *input {
	return &input{namespace: "prod", service: "orders", id: "o-1", body: map[string]any{"endpoints": []any{goodEndpoint()}}}
}

func goodEndpoint() map[string]any {
	return map[string]any{"name": "http", "protocol": "http", "host": "10.0.0.1", "port": 8080}
}

// v1 is the request in v1, which has everything in the body.
func (in *input) v1(tb testing.TB) *http.Request {
	body := maps.Clone(in.body)
	for name, value := range map[string]string{"namespace": in.namespace, "service": in.service, "instanceId": in.id} {
		if value != "" {
			body[name] = value
		}
	}
	return in.request(tb, http.MethodPost, "/api/v1/registry/register", body)
}

// v2 is the request in v2, which has the name in the path.
func (in *input) v2(tb testing.TB) *http.Request {
	escape := url.PathEscape
	return in.request(tb, http.MethodPut, "/api/v2/namespaces/"+escape(in.namespace)+"/services/"+escape(in.service)+"/instances/"+escape(in.id), in.body)
}

func (in *input) request(tb testing.TB, method, target string, body map[string]any) *http.Request {
	b, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	text := string(b)
	if in.raw != "" {
		text = strings.TrimPrefix(in.raw, "nothing")
	}
	if in.method != "" {
		method = in.method
	}
	q := httptest.NewRequest(method, target, strings.NewReader(text))
	q.Header.Set("Content-Type", typeJSON)
	if in.mediaType != "" {
		q.Header.Set("Content-Type", in.mediaType)
	}
	return q
}

// endpoint sets a field of the only endpoint.
func endpoint(name string, value any) func(*input) {
	return func(in *input) { in.body["endpoints"].([]any)[0].(map[string]any)[name] = value }
}

func field(name string, value any) func(*input) { return func(in *input) { in.body[name] = value } }

func raw(body string) func(*input) { return func(in *input) { in.raw = body } }

// refusals is what nobody may register, with the field that the answer must name.
var refusals = map[string]struct {
	change func(*input)
	field  string // that the answer names; for other statuses than 400 a word of it
	status int    // 0 = 400
}{
	"empty namespace":              {change: func(in *input) { in.namespace = "" }, field: "namespace"},
	"blank namespace":              {change: func(in *input) { in.namespace = " " }, field: "namespace"},
	"empty service":                {change: func(in *input) { in.service = "" }, field: "service"},
	"empty id":                     {change: func(in *input) { in.id = "" }, field: "instanceId"},
	"long namespace":               {change: func(in *input) { in.namespace = strings.Repeat("n", 254) }, field: "namespace"},
	"long service":                 {change: func(in *input) { in.service = strings.Repeat("s", 254) }, field: "service"},
	"long id":                      {change: func(in *input) { in.id = strings.Repeat("i", 254) }, field: "instanceId"},
	"slash in the namespace":       {change: func(in *input) { in.namespace = "a/b" }, field: "namespace"},
	"slash in the service":         {change: func(in *input) { in.service = "a/b" }, field: "service"},
	"slash in the id":              {change: func(in *input) { in.id = "a/b" }, field: "instanceId"},
	"star in the namespace":        {change: func(in *input) { in.namespace = "*" }, field: "namespace"},
	"star in the service":          {change: func(in *input) { in.service = "a*" }, field: "service"},
	"control character in a name":  {change: func(in *input) { in.service = "a\x00b" }, field: "service"},
	"control character in the id":  {change: func(in *input) { in.id = "a\nb" }, field: "instanceId"},
	"namespace with a dot":         {change: func(in *input) { in.namespace = "a.b" }, field: "namespace"},
	"dots for a namespace":         {change: func(in *input) { in.namespace = ".." }, field: "namespace"},
	"dots for a service":           {change: func(in *input) { in.service = ".." }, field: "service"},
	"reserved namespace":           {change: func(in *input) { in.namespace = "mesh" }, field: "namespace"},
	"half of the levels":           {change: func(in *input) { in.body["organization"], in.body["role"] = "a", "e" }, field: "businessDomain"},
	"a name against its levels":    {change: levels("a", "b", "c", "d", "e"), field: "service"},
	"control character in a zone":  {change: field("zone", "a\tb"), field: "zone"},
	"control character in a label": {change: field("labels", map[string]any{"a\nb": "c"}), field: `labels["a\nb"]`},
	"no endpoints field":           {change: func(in *input) { delete(in.body, "endpoints") }, field: "endpoints"},
	"no endpoint":                  {change: field("endpoints", []any{}), field: "endpoints"},
	"null for the endpoints":       {change: field("endpoints", nil), field: "endpoints"},
	"null for an endpoint":         {change: field("endpoints", []any{nil}), field: "endpoints[0].protocol"},
	"two endpoints of one name":    {change: field("endpoints", []any{goodEndpoint(), goodEndpoint()}), field: "endpoints[1].name"},
	"no host":                      {change: endpoint("host", ""), field: "endpoints[0].host"},
	"no protocol":                  {change: endpoint("protocol", ""), field: "endpoints[0].protocol"},
	"port 0":                       {change: endpoint("port", 0), field: "endpoints[0].port"},
	"port 70000":                   {change: endpoint("port", 70000), field: "endpoints[0].port"},
	"port beyond 32 bits":          {change: endpoint("port", int64(1)<<32), field: "endpoints[0].port"},
	"fractional port":              {change: endpoint("port", 1.5), field: "endpoints[0].port"},
	"port with an exponent":        {change: endpoint("port", json.RawMessage("1e3")), field: "endpoints[0].port"},
	"port as a text":               {change: endpoint("port", "80"), field: "endpoints[0].port"},
	"negative weight":              {change: endpoint("weight", -1), field: "endpoints[0].weight"},
	"negative TTL":                 {change: field("leaseTtlSeconds", -1), field: "leaseTtlSeconds"},
	"TTL beyond a week":            {change: field("leaseTtlSeconds", 700_000), field: "leaseTtlSeconds"},
	"TTL beyond 64 bits":           {change: field("leaseTtlSeconds", json.RawMessage("1"+strings.Repeat("0", 30))), field: "leaseTtlSeconds"},
	"TTL as a text":                {change: field("leaseTtlSeconds", "30s"), field: "leaseTtlSeconds"},
	"number for a text":            {change: field("zone", 1), field: "zone"},
	"object for a text":            {change: field("zone", map[string]any{}), field: "zone"},
	"array for an object":          {change: field("labels", []any{}), field: "labels"},
	"object for an array":          {change: field("endpoints", map[string]any{}), field: "endpoints"},
	"text for an endpoint":         {change: field("endpoints", []any{goodEndpoint(), "http"}), field: "endpoints[1]"},
	"number for a label":           {change: field("labels", map[string]any{"a": 1}), field: `labels["a"]`},
	"truth value for metadata":     {change: field("metadata", map[string]any{"a": true}), field: `metadata["a"]`},
	"unknown field":                {change: field("lables", map[string]any{}), field: "lables"},
	"unknown field of an endpoint": {change: endpoint("prot", 80), field: "endpoints[0].prot"},
	"not JSON":                     {change: raw(`name: orders`), field: "body"},
	"broken JSON":                  {change: raw(`{"zone":"a",}`), field: "body"},
	"half of a JSON document":      {change: raw(`{"zone":"a"`), field: "body"},
	"two JSON documents":           {change: raw(`{} {}`), field: "body"},
	"a document and a brace":       {change: raw(`{}}`), field: "body"},
	"no body":                      {change: raw("nothing"), field: "body"},
	"blank body":                   {change: raw(" \r\n"), field: "body"},
	"null":                         {change: raw("null"), field: "body"},
	"an array":                     {change: raw("[{}]"), field: "body"},
	"a text":                       {change: raw(`"orders"`), field: "body"},
	"not UTF-8":                    {change: raw("{\"zone\":\"\xff\"}"), field: "body"},
	"a deep body":                  {change: raw(`{"zone":` + strings.Repeat("[", 100_000)), field: "body"},
	"body over 1 MiB":              {change: field("zone", strings.Repeat("z", bodyBytesMax)), field: "1048576", status: http.StatusRequestEntityTooLarge},
	"wrong method":                 {change: func(in *input) { in.method = http.MethodPatch }, field: "PATCH", status: http.StatusMethodNotAllowed},
	"a form":                       {change: func(in *input) { in.mediaType = "application/x-www-form-urlencoded" }, field: "Content-Type", status: http.StatusUnsupportedMediaType},
	"a type much like JSON":        {change: func(in *input) { in.mediaType = "application/json2" }, field: "Content-Type", status: http.StatusUnsupportedMediaType},
	"a type that is none":          {change: func(in *input) { in.mediaType = ";" }, field: "Content-Type", status: http.StatusUnsupportedMediaType},
}

func levels(five ...string) func(*input) {
	return func(in *input) {
		for i, name := range []string{"organization", "businessDomain", "capabilityDomain", "application", "role"} {
			in.body[name] = five[i]
		}
	}
}

// TestRefusals shows that neither surface stores what is wrong: the answer names
// the field, and neither revision nor content has moved.
func TestRefusals(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "o-0", "10.0.0.9", "")
	for name, c := range refusals {
		for surface, make := range map[string]func(*input, testing.TB) *http.Request{"v1": (*input).v1, "v2": (*input).v2} {
			t.Run(name+"/"+surface, func(t *testing.T) {
				in, before := goodInput(), m.fingerprint()
				c.change(in)
				w := httptest.NewRecorder()
				m.api.Handler().ServeHTTP(w, make(in, t))
				mustBeRefused(t, w, c.field, c.status)
				mustEqual(t, "the registry", m.fingerprint(), before)
			})
		}
	}
}

func mustBeRefused(t *testing.T, w *httptest.ResponseRecorder, field string, status int) {
	t.Helper()
	says := w.Body.String()
	if status != 0 {
		if w.Code != status || !strings.Contains(says, field) {
			t.Fatalf("answered %d %s, want %d and %q", w.Code, says, status, field)
		}
		return
	}
	mustEqual(t, "the status", w.Code, http.StatusBadRequest)
	var refusal struct {
		Code, Message string
		Errors        []problemField
	}
	if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil {
		t.Fatal(err)
	}
	named := strings.HasPrefix(refusal.Message, field+": ") || strings.Contains(refusal.Message, "; "+field+": ") ||
		slices.ContainsFunc(refusal.Errors, func(e problemField) bool { return e.Field == field && e.Reason != "" })
	if refusal.Code != "bad_request" || !named {
		t.Fatalf("answered %s, which does not name %s", says, field)
	}
}

// TestTheInputsAreGoodButForOneThing shows that what TestRefusals changes is what it is refused for.
func TestTheInputsAreGoodButForOneThing(t *testing.T) {
	m := newMember(t, nil)
	for _, q := range []*http.Request{goodInput().v1(t), goodInput().v2(t)} {
		w := httptest.NewRecorder()
		m.api.Handler().ServeHTTP(w, q)
		if w.Code != http.StatusOK && w.Code != http.StatusCreated {
			t.Fatalf("%s %s answers %d: %s", q.Method, q.URL, w.Code, w.Body)
		}
	}
}

// TestRefusedCalls shows that the other calls refuse as well, and change nothing.
func TestRefusedCalls(t *testing.T) {
	const at = "/api/v2/namespaces/prod/services/orders/instances"
	cases := map[string]struct {
		method, target, body string
		field                string
		status               int
	}{
		"v1 heartbeat of a stranger":       {"POST", "/api/v1/registry/heartbeat", `{"namespace":"prod","service":"orders","instanceId":"x"}`, `\"x\"`, 404},
		"v1 heartbeat without a namespace": {"POST", "/api/v1/registry/heartbeat", `{"service":"orders","instanceId":"o-0"}`, "namespace", 0},
		"v1 heartbeat, negative TTL":       {"POST", "/api/v1/registry/heartbeat", `{"namespace":"prod","service":"orders","instanceId":"o-0","leaseTtlSeconds":-1}`, "leaseTtlSeconds", 0},
		"v1 heartbeat, wrong type":         {"POST", "/api/v1/registry/heartbeat", `{"namespace":"prod","service":"orders","instanceId":7}`, "instanceId", 0},
		"v1 deregister without an id":      {"POST", "/api/v1/registry/deregister", `{"namespace":"prod","service":"orders"}`, "instanceId", 0},
		"v1 deregister, unknown field":     {"POST", "/api/v1/registry/deregister", `{"namespace":"prod","service":"orders","instanceId":"o-0","leaseTtlSeconds":1}`, "leaseTtlSeconds", 0},
		"v1 list without a namespace":      {"GET", "/api/v1/registry/instances", "", "namespace", 0},
		"v1 list, bad limit":               {"GET", "/api/v1/registry/instances?namespace=prod&limit=1.5", "", "limit", 0},
		"v2 heartbeat of a stranger":       {"POST", at + "/x/renew", "", `\"x\"`, 404},
		"v2 heartbeat, negative TTL":       {"POST", at + "/o-0/renew", `{"leaseTtlSeconds":-1}`, "leaseTtlSeconds", 0},
		"v2 heartbeat, unknown field":      {"POST", at + "/o-0/renew", `{"ttl":1}`, "ttl", 0},
		"v2 heartbeat, parameter":          {"POST", at + "/o-0/renew?ttl=1", "", "ttl", 0},
		"v2 deregister without an id":      {"DELETE", at + "/", "", "instanceId", 0},
		"v2 deregister, parameter":         {"DELETE", at + "/o-0?now=1", "", "now", 0},
		"v2 get without an id":             {"GET", at + "/", "", "instanceId", 0},
		"v2 get, bad consistency":          {"GET", at + "/o-0?consistency=any", "", "consistency", 0},
		"v2 get, empty consistency":        {"GET", at + "/o-0?consistency=", "", "consistency", 0},
		"v2 list, empty limit":             {"GET", "/api/v2/instances?limit=", "", "limit", 0},
		"v2 list of no service":            {"GET", "/api/v2/namespaces/prod/services/%20/instances", "", "service", 0},
		"v2 list of no namespace":          {"GET", "/api/v2/namespaces//instances", "", "namespace", 0},
		"v1 list, gap in the levels":       {"GET", "/api/v1/registry/instances?namespace=prod&role=api", "", "role", 0},
		"v2 services of no namespace":      {"GET", "/api/v2/namespaces//services", "", "namespace", 0},
		"v2 services of a bad namespace":   {"GET", "/api/v2/namespaces/a.b/services", "", "namespace", 0},
		"v2 services, parameter":           {"GET", "/api/v2/services?zones=a", "", "zones", 0},
		"v2 members, parameter":            {"GET", "/api/v2/members?zone=a", "", "zone", 0},
	}
	m := newMember(t, nil)
	m.register("orders", "o-0", "10.0.0.9", "")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := m.fingerprint()
			mustBeRefused(t, m.call(c.method, c.target, c.body), c.field, c.status)
			mustEqual(t, "the registry", m.fingerprint(), before)
		})
	}
}

// TestAHostNameIsStored shows that it is no mistake on either surface.
func TestAHostNameIsStored(t *testing.T) {
	m := newMember(t, nil)
	in := goodInput()
	endpoint("host", "db.example")(in)
	w := httptest.NewRecorder()
	m.api.Handler().ServeHTTP(w, in.v1(t))
	mustEqual(t, "the status of v1", w.Code, http.StatusOK)
	in.id = "o-2"
	w = httptest.NewRecorder()
	m.api.Handler().ServeHTTP(w, in.v2(t))
	mustEqual(t, "the status of v2", w.Code, http.StatusCreated)
}

// TestManyMistakesMakeAShortAnswer shows that a body full of them is not answered in kind.
func TestManyMistakesMakeAShortAnswer(t *testing.T) {
	m := newMember(t, nil)
	fields, endpoints := goodInput(), goodInput()
	var wrong []any
	for n := range 1_000 {
		fields.body[fmt.Sprintf("unheard-of-%d", n)] = n
		wrong = append(wrong, n)
	}
	endpoints.body["endpoints"] = wrong
	for name, in := range map[string]*input{"fields": fields, "endpoints": endpoints} {
		w := httptest.NewRecorder()
		m.api.Handler().ServeHTTP(w, in.v2(t))
		var p problem
		into(t, w, &p)
		mustEqual(t, "the number of mistakes told of "+name, len(p.Errors), mistakesMax)
	}
}
