package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// referenceFile is the description as it is committed.
const referenceFile = "../../api/openapi.json"

// described is what a member serves that can do everything.
func described(tb testing.TB) *API {
	return newMember(tb, func(c *Config) { c.Proxies, c.Authority = newFakeProxies(), &drawer{} }).api
}

// TestTheReferenceIsCurrent shows that the committed description is what the code says.
func TestTheReferenceIsCurrent(t *testing.T) {
	current := described(t).description().json()
	if f := flag.Lookup("rewrite"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(referenceFile, current, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, current) {
		t.Error("api/openapi.json is not what the routes say: run make generate, and read what has changed")
	}
}

// TestEveryRouteIsDescribed shows that no call of v1 or v2 is left out, and that it says
// what it is for, takes and answers.
func TestEveryRouteIsDescribed(t *testing.T) {
	a := described(t)
	d, ids := a.description(), make(map[string]bool)
	for _, p := range a.public.paths {
		for _, r := range p.routes {
			if r.surface == surfacePage {
				continue
			}
			c := d.Paths[r.pattern][strings.ToLower(r.method)]
			switch {
			case c == nil || c.Summary == "" || len(r.operation.answers) == 0:
				t.Errorf("%s %s is not in the description: give its route an operation", r.method, r.pattern)
			case ids[c.OperationID]:
				t.Errorf("%s %s has the operation id %q, which another has as well", r.method, r.pattern, c.OperationID)
			default:
				ids[c.OperationID] = true
			}
		}
	}
}

// TestTheDescriptionIsTrue asks each call of v2 for a parameter, and for a field of the body,
// that there cannot be: what it says that it knows is what the description says.
func TestTheDescriptionIsTrue(t *testing.T) {
	m := newMember(t, func(c *Config) { c.Proxies, c.Authority = newFakeProxies(), &drawer{} })
	m.register("orders", "a", "10.0.0.1", "")
	d := m.api.description()
	for pattern, calls := range d.Paths {
		if !strings.HasPrefix(pattern, "/api/v2/") {
			continue
		}
		target := strings.NewReplacer("{ns}", "prod", "{svc}", "orders", "{id}", "a", "{lease}", "x", "{proxy}", "web-1").Replace(pattern)
		for method, c := range calls {
			said := refusalOf(t, m.call(strings.ToUpper(method), target+"?no-such=1", bodyOf(c, `{}`)), "no-such")
			mustEqual(t, method+" "+pattern+" and its parameters", said, wordsOf("the parameters are ", "this call takes no parameters", c.queryNames()))
			if c.RequestBody == nil {
				continue
			}
			fields := d.Components.Schemas[refName(c.RequestBody.Content[typeJSON].Schema)].Properties
			said = refusalOf(t, m.call(strings.ToUpper(method), target, `{"no-such":1}`), "no-such")
			mustEqual(t, method+" "+pattern+" and its fields", said, wordsOf("the fields here are ", "", slices.Collect(maps.Keys(fields))))
		}
	}
}

func (c *apiCall) queryNames() (names []string) {
	for _, p := range c.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	return names
}

func bodyOf(c *apiCall, body string) string {
	if c.RequestBody == nil {
		return ""
	}
	return body
}

func refName(s *schema) string { return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:] }

// refusalOf is why a field was refused, with the names in it sorted.
func refusalOf(t *testing.T, w *httptest.ResponseRecorder, field string) string {
	t.Helper()
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Errors {
		_, says, _ := strings.Cut(e.Reason, ": ")
		if before, names, found := strings.Cut(says, " are "); e.Field == field && found {
			return wordsOf(before+" are ", "", strings.Split(names, ", "))
		}
		if e.Field == field {
			return says
		}
	}
	return fmt.Sprintf("%d %s", w.Code, w.Body)
}

func wordsOf(before, none string, names []string) string {
	if len(names) == 0 && none != "" {
		return none
	}
	slices.Sort(names)
	return before + strings.Join(names, ", ")
}

// TestTheDocsPageHasEveryCall shows that the page has them all and asks nobody for anything.
func TestTheDocsPageHasEveryCall(t *testing.T) {
	a := described(t)
	page := string(a.description().html())
	for pattern, calls := range a.description().Paths {
		for _, c := range calls {
			if !strings.Contains(page, `id="`+c.OperationID+`"`) || !strings.Contains(page, pattern) {
				t.Errorf("%s %s is not on the page", c.OperationID, pattern)
			}
		}
	}
	for _, from := range []string{"http://", "https://", "src=", "<script", "<link", "@import", "url("} {
		if strings.Contains(page, from) {
			t.Errorf("the page has %q, as if it loaded something", from)
		}
	}
	m := newMember(t, nil)
	mustEqual(t, "the type of the page", m.must(http.StatusOK, http.MethodGet, "/docs", "").Header().Get("Content-Type"), "text/html; charset=utf-8")
	mustEqual(t, "the type of the document", m.must(http.StatusOK, http.MethodGet, "/openapi.json", "").Header().Get("Content-Type"), typeJSON)
}

// description is of all that the members of the tests serve.
var description = sync.OnceValue(func() *openAPI {
	a := &API{proxies: newFakeProxies(), authority: &drawer{}}
	return describe(slices.Concat(a.v1Routes(), a.v2Routes(), a.proxyRoutes(), a.accessRoutes()))
})

// mustBeAsDescribed holds the answer to a call against the description. The tests' calls
// all come through here, those that the pages of docs/ show included.
func (m *member) mustBeAsDescribed(q *http.Request, w *httptest.ResponseRecorder) {
	m.tb.Helper()
	if q.Method == http.MethodHead {
		return
	}
	d := description()
	one := m.api.public.route(q)
	c := d.Paths[one.pattern][strings.ToLower(q.Method)]
	if c == nil {
		return // nobody serves it, or it is a page
	}
	at := fmt.Sprintf("%s %s answers %d", q.Method, q.URL.Path, w.Code)
	answer := c.Responses[strconv.Itoa(w.Code)]
	if answer == nil {
		m.tb.Errorf("%s, which its description does not have: %s", at, w.Body)
		return
	}
	mediaType := w.Header().Get("Content-Type")
	content, has := answer.Content[mediaType]
	if !has {
		m.tb.Errorf("%s with the type %q, which its description does not have", at, mediaType)
		return
	}
	if mediaType == "text/event-stream" {
		return
	}
	v := validator{schemas: d.Components.Schemas, whole: true}
	v.look("the answer", content.Schema, decoded(m.tb, w.Body.Bytes()))
	if w.Code/100 != 2 {
		m.mustBeACodeOf(at, answer, w.Body.Bytes())
	}
	if len(v.wrong) > 0 {
		m.tb.Errorf("%s, and it is not as described: %s\n%s", at, strings.Join(v.wrong, "; "), w.Body)
	}
}

// mustBeTaken holds the body of a call that a page of docs/ shows against the description.
func (m *member) mustBeTaken(method, target, body string) {
	m.tb.Helper()
	d, one := description(), m.api.public.route(request(method, target, ""))
	c := d.Paths[one.pattern][strings.ToLower(method)]
	if c == nil || c.RequestBody == nil {
		m.tb.Errorf("%s %s has no body in its description", method, target)
		return
	}
	v := validator{schemas: d.Components.Schemas}
	if v.look("the body", c.RequestBody.Content[typeJSON].Schema, decoded(m.tb, []byte(body))); len(v.wrong) > 0 {
		m.tb.Errorf("what the page sends to %s %s is not as described: %s\n%s", method, target, strings.Join(v.wrong, "; "), body)
	}
}

// mustBeACodeOf shows that the code of a refusal is among those that are described.
func (m *member) mustBeACodeOf(at string, answer *apiAnswer, body []byte) {
	m.tb.Helper()
	var refused struct{ Code string }
	if err := json.Unmarshal(body, &refused); err != nil {
		m.tb.Errorf("%s: %v", at, err)
	}
	_, codes, _ := strings.Cut(answer.Description, ": ")
	if !slices.Contains(strings.Split(codes, ", "), refused.Code) {
		m.tb.Errorf("%s with the code %q, which its description does not have", at, refused.Code)
	}
}

func decoded(tb testing.TB, text []byte) any {
	tb.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		tb.Errorf("%s: %v", text, err)
	}
	return v
}

// A validator finds out what is not as a schema has it.
type validator struct {
	schemas map[string]*schema
	whole   bool // a key that the schema does not have is wrong, also where it may come one day
	wrong   []string
}

func (v *validator) add(at, why string, args ...any) {
	v.wrong = append(v.wrong, at+" "+fmt.Sprintf(why, args...))
}

func (v *validator) look(at string, s *schema, value any) {
	if s.Ref != "" {
		s = v.schemas[refName(s)]
	}
	if len(s.Type) > 0 && !slices.ContainsFunc(s.Type, func(kind string) bool { return isA(kind, value) }) {
		v.add(at, "is %v, want one of %v", value, s.Type)
		return
	}
	switch value := value.(type) {
	case map[string]any:
		v.lookInside(at, s, value)
	case []any:
		for i, one := range value {
			if s.Items != nil {
				v.look(fmt.Sprintf("%s[%d]", at, i), s.Items, one)
			}
		}
	case json.Number:
		if n, err := value.Int64(); s.Maximum != nil && (err != nil || n > *s.Maximum || n < *s.Minimum) {
			v.add(at, "is %v, want %d to %d", value, *s.Minimum, *s.Maximum)
		}
	case string:
		if s.Enum != nil && !slices.Contains(s.Enum, value) {
			v.add(at, "is %q, want one of %v", value, s.Enum)
		}
	}
}

func (v *validator) lookInside(at string, s *schema, object map[string]any) {
	for _, name := range s.Required {
		if _, there := object[name]; !there {
			v.add(at, "lacks %s", name)
		}
	}
	for name, one := range object {
		more, open := s.AdditionalProperties.(*schema)
		switch of := s.Properties[name]; {
		case of != nil:
			v.look(at+"."+name, of, one)
		case open:
			v.look(at+"."+name, more, one)
		case len(s.Type) > 0 && (v.whole || s.AdditionalProperties == false):
			v.add(at, "has %s", name)
		}
	}
}

func isA(kind string, value any) bool {
	switch value := value.(type) {
	case nil:
		return kind == "null"
	case bool:
		return kind == "boolean"
	case string:
		return kind == "string"
	case json.Number:
		_, err := value.Int64()
		return kind == "number" || kind == "integer" && (err == nil || !strings.ContainsAny(value.String(), ".eE"))
	case []any:
		return kind == "array"
	}
	return kind == "object" && reflect.TypeOf(value).Kind() == reflect.Map
}
