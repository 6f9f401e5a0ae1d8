package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/stellmap/stellmap/internal/version"
	"github.com/stellmap/stellmap/registry"
)

// The description of the API, in the form of OpenAPI 3.1. It is made of the routes:
// each says what it takes and answers, and bodies are described by the types that they
// are decoded into or encoded from. The tests hold every answer that they get against it.

// An operation is what the description says of a route.
type operation struct {
	id, says string
	query    []string // the parameters, as parameters.only takes them
	headers  []string
	body     any         // a value of the type that it is decoded into; nil = there is none
	bodiless bool        // the body may be left out
	answers  map[int]any // by status, values of the types that describe them; eventsAnswer = a stream, too
	refuses  []string    // codes, beside those that every call may be refused with
}

// as gives a route its description.
func (r route) as(o operation) route {
	r.operation = o
	return r
}

// ok is the only answer of a call.
func ok(answer any) map[int]any { return map[int]any{http.StatusOK: answer} }

// createdOr is the answer of a call that makes something, or finds it there.
func createdOr(answer any) map[int]any {
	return map[int]any{http.StatusOK: answer, http.StatusCreated: answer}
}

// An eventsAnswer is a stream of events, or the answer to a call that does not want one.
type eventsAnswer struct{ otherwise any } // nil = it is always a stream

// freshQuery are the parameters of whatever reads.
var freshQuery = []string{consistencyName, stalenessName}

// refusedAlways is what every call of v2 may be refused with.
var refusedAlways = []string{registry.CodeBadRequest, "unauthenticated", "forbidden", "busy", "too_many_requests", "no_leader", "stopping", "not_ready", registry.CodeInternal}

// What may be refused beside that.
var (
	refusedReads  = []string{"too_old"}
	refusedWrites = []string{"disk_full", "states_differ", "unknown_outcome", "not_audited"}
	refusedBodies = []string{"too_large", "unsupported_media_type"}
	refusedHeld   = []string{"unauthorized", "lease_token_required", "wrong_lease_token"}
)

// The document, as far as this API needs OpenAPI.
type (
	openAPI struct {
		OpenAPI    string                         `json:"openapi"`
		Info       openAPIInfo                    `json:"info"`
		Servers    []openAPIServer                `json:"servers"`
		Paths      map[string]map[string]*apiCall `json:"paths"`
		Components apiComponents                  `json:"components"`
	}
	openAPIInfo struct {
		Title       string            `json:"title"`
		Version     string            `json:"version"`
		Description string            `json:"description"`
		License     map[string]string `json:"license"`
	}
	openAPIServer struct {
		URL         string `json:"url"`
		Description string `json:"description"`
	}
	apiCall struct {
		OperationID string                `json:"operationId"`
		Summary     string                `json:"summary"`
		Tags        []string              `json:"tags"`
		Security    []map[string][]string `json:"security,omitempty"`
		Parameters  []apiParameter        `json:"parameters,omitempty"`
		RequestBody *apiBody              `json:"requestBody,omitempty"`
		Responses   map[string]*apiAnswer `json:"responses"`
	}
	apiParameter struct {
		Name        string  `json:"name"`
		In          string  `json:"in"`
		Description string  `json:"description,omitempty"`
		Required    bool    `json:"required,omitempty"`
		Explode     bool    `json:"explode,omitempty"`
		Example     string  `json:"example,omitempty"`
		Schema      *schema `json:"schema"`
	}
	apiBody struct {
		Required bool                `json:"required"`
		Content  map[string]apiMedia `json:"content"`
	}
	apiMedia struct {
		Schema *schema `json:"schema"`
	}
	apiAnswer struct {
		Description string               `json:"description"`
		Headers     map[string]apiHeader `json:"headers,omitempty"`
		Content     map[string]apiMedia  `json:"content"`
	}
	apiHeader struct {
		Description string  `json:"description"`
		Schema      *schema `json:"schema"`
	}
	apiComponents struct {
		Schemas         map[string]*schema           `json:"schemas"`
		SecuritySchemes map[string]map[string]string `json:"securitySchemes"`
	}
)

// describe makes the description of the routes that have one.
func describe(routes []route) *openAPI {
	s := newSchemas()
	s.reads = true // first, so that what is read and written is described as it is read
	for i := range routes {
		if body := routes[i].operation.body; body != nil {
			s.schema(reflect.TypeOf(body))
		}
	}
	d := &openAPI{
		OpenAPI: "3.1.0",
		Info: openAPIInfo{
			Title: "StellMap", Version: version.Number, License: map[string]string{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			Description: "A service registry, and the control plane of a mesh that is made of it. Any member takes any call.",
		},
		Servers: []openAPIServer{{URL: "/", Description: "any member"}},
		Paths:   make(map[string]map[string]*apiCall),
		Components: apiComponents{
			Schemas:         s.named,
			SecuritySchemes: map[string]map[string]string{"adminToken": {"type": "http", "scheme": "bearer"}},
		},
	}
	for i := range routes {
		one := &routes[i]
		if one.operation.id == "" {
			continue
		}
		if d.Paths[one.pattern] == nil {
			d.Paths[one.pattern] = make(map[string]*apiCall)
		}
		d.Paths[one.pattern][strings.ToLower(one.method)] = one.call(s)
	}
	return d
}

func (r *route) call(s *schemas) *apiCall {
	c := &apiCall{OperationID: r.operation.id, Summary: r.operation.says, Tags: []string{r.tag()}, Parameters: r.parameters(), Responses: make(map[string]*apiAnswer)}
	if slices.Contains(r.operation.query, forceName) {
		c.Security = []map[string][]string{{}, {"adminToken": {}}} // asked for with force only
	}
	if body := r.operation.body; body != nil {
		s.reads = true
		c.RequestBody = &apiBody{Required: !r.operation.bodiless, Content: map[string]apiMedia{typeJSON: {s.schema(reflect.TypeOf(body))}}}
	}
	s.reads = false
	for status, codes := range r.refusals() {
		slices.Sort(codes)
		c.Responses[strconv.Itoa(status)] = r.refusal(s, status, codes)
	}
	for status, answer := range r.operation.answers {
		c.Responses[strconv.Itoa(status)] = r.answer(s, status, answer)
	}
	return c
}

// tag is what the page of the API has beside each other.
func (r *route) tag() string {
	switch p := r.pattern; {
	case r.surface == surfaceV1:
		return "v1"
	case strings.HasSuffix(p, "/watch"), strings.HasSuffix(p, "/sd"):
		return "watch"
	case strings.HasPrefix(p, atAccess):
		return "access"
	case strings.Contains(p, "/leases"):
		return "leases"
	case strings.Contains(p, "/policy"):
		return "policies"
	case strings.Contains(p, "/upstreams"):
		return "upstreams"
	case strings.Contains(p, "/instances"), strings.HasSuffix(p, "/batch"):
		return "instances"
	case strings.Contains(p, "/services"):
		return "services"
	case strings.Contains(p, "/namespaces"):
		return "namespaces"
	}
	return "cluster"
}

// refusals are the codes that the call may be refused with, by status.
func (r *route) refusals() map[int][]string {
	codes := slices.Concat(refusedAlways, r.operation.refuses)
	if r.reads && slices.Contains(r.operation.query, stalenessName) {
		codes = append(codes, refusedReads...)
	}
	if !r.reads {
		codes = append(codes, refusedWrites...)
	}
	if r.operation.body != nil {
		codes = append(codes, refusedBodies...)
	}
	if slices.Contains(r.operation.query, forceName) {
		codes = append(codes, refusedHeld...)
	}
	if r.administers {
		codes = append(codes, "unauthorized")
	}
	out := make(map[int][]string)
	for _, code := range codes {
		status := statusOf(code)
		if r.surface == surfaceV1 && codesOfV1[code] != "" {
			code = codesOfV1[code]
		}
		if !slices.Contains(out[status], code) {
			out[status] = append(out[status], code)
		}
	}
	return out
}

// statusOf is the status that a code is answered with.
func statusOf(code string) int {
	for i := range failures {
		if failures[i].Code == code {
			return failures[i].status
		}
	}
	status, known := statuses[code]
	if !known {
		panic("httpapi: the description of a call has a code that there is not: " + code)
	}
	return status
}

func (r *route) refusal(s *schemas, status int, codes []string) *apiAnswer {
	out := &apiAnswer{Description: http.StatusText(status) + ": " + strings.Join(codes, ", ")}
	if r.surface == surfaceV1 {
		out.Content = map[string]apiMedia{typeJSON: {s.schema(reflect.TypeFor[envelopeError]())}}
	} else {
		out.Content = map[string]apiMedia{typeProblem: {s.schema(reflect.TypeFor[problem]())}}
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		out.Headers = map[string]apiHeader{"Retry-After": {"seconds, where the same call may work in a moment", &schema{Type: []string{"integer"}}}}
	}
	return out
}

func (r *route) answer(s *schemas, status int, answer any) *apiAnswer {
	out := &apiAnswer{Description: http.StatusText(status), Content: make(map[string]apiMedia), Headers: map[string]apiHeader{
		revisionHeader: {"the revision that it was read at, or of the write", &schema{Type: []string{"integer"}}},
	}}
	if slices.Contains(r.operation.query, consistencyName) {
		out.Headers[ageHeader] = apiHeader{"of a stale answer, in seconds", &schema{Type: []string{"string"}}}
	}
	if slices.Contains(r.operation.headers, "If-Match") || strings.HasSuffix(r.pattern, "/policy") || strings.HasSuffix(r.pattern, "/upstreams") || strings.HasSuffix(r.pattern, "/{ns}") ||
		r.reads && (r.pattern == atRole || r.pattern == atBinding) {
		out.Headers["ETag"] = apiHeader{"the version of the document, for If-Match", &schema{Type: []string{"string"}}}
	}
	if stream, streams := answer.(eventsAnswer); streams {
		out.Content["text/event-stream"] = apiMedia{&schema{Type: []string{"string"}}}
		answer = stream.otherwise
	}
	if answer != nil {
		out.Content[typeJSON] = apiMedia{s.schema(reflect.TypeOf(answer))}
	}
	return out
}

// parameters are those of the path, of the query and of headers.
func (r *route) parameters() []apiParameter {
	var out []apiParameter
	for segment := range strings.SplitSeq(r.pattern, "/") {
		if isWildcard(segment) {
			one := describedParameter("path", segment[1:len(segment)-1])
			one.Required = true
			out = append(out, one)
		}
	}
	for _, name := range r.operation.query {
		one := describedParameter("query", strings.TrimSuffix(name, "*"))
		if strings.HasSuffix(name, "*") {
			one.Explode, one.Schema = true, &schema{Type: []string{"array"}, Items: one.Schema}
		}
		out = append(out, one)
	}
	for _, name := range r.operation.headers {
		out = append(out, describedParameter("header", name))
	}
	return out
}

func describedParameter(in, name string) apiParameter {
	d, known := parameterDocs[name]
	if !known {
		panic("httpapi: the description of a call has a parameter that parameterDocs does not have: " + name)
	}
	one := apiParameter{Name: name, In: in, Description: d.says, Example: d.example, Schema: &schema{Type: []string{"string"}, Enum: d.words, Pattern: d.pattern}}
	if d.number {
		one.Schema = &schema{Type: []string{"integer"}, Minimum: new(int64)}
	}
	if d.nameBytes {
		one.Schema.MaxLength = 253
	}
	return one
}

// A parameterDoc is what a parameter's name means, wherever it stands.
type parameterDoc struct {
	says, example string
	words         []string // that there are; nil = any
	pattern       string
	number        bool
	nameBytes     bool // it is at most as long as a name
}

// limited says whether not every text is a value of a parameter.
func limited(name string) bool {
	d := parameterDocs[name]
	return d.number || len(d.words) > 0
}

var truthWords = []string{"true", "false"}

var parameterDocs = map[string]parameterDoc{
	"ns":      {says: "the namespace", example: "prod", nameBytes: true, pattern: `^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$`},
	"svc":     {says: "the service", example: "orders", nameBytes: true, pattern: `^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`},
	"id":      {says: "the instance", example: "a", nameBytes: true},
	"lease":   {says: "the lease", nameBytes: true},
	"proxy":   {says: "a proxy's node id", example: "web-1"},
	"token":   {says: "the id of an access token, which is no secret", nameBytes: true},
	"binding": {says: "the binding", nameBytes: true},

	"namespace":        {says: "the namespace; none = all of them"},
	"service":          {says: "a service"},
	"servicePrefix":    {says: "what the service's name begins with"},
	"organization":     {says: "the first level of the service's name"},
	"businessDomain":   {says: "the second"},
	"capabilityDomain": {says: "the third"},
	"application":      {says: "the fourth"},
	"role":             {says: "the fifth"},
	"group":            {says: "a group"},
	"zone":             {says: "a zone"},
	"region":           {says: "a region"},
	"version":          {says: "a version"},
	"endpoint":         {says: "the name of an endpoint; only such endpoints are shown"},
	"selector":         {says: "what labels have to be, such as track=canary,tier!=test; all have to hold"},
	"label":            {says: "a label, key=value; all have to be there"},
	"status":           {says: "passing, warning, suspect, critical, draining, expired, disabled, routable or any"},

	failoverName:   {says: "how regions are called, in place of what the service's policy says", words: registry.FailoverChoices},
	fromRegionName: {says: "the region of who calls; none = the server's"},
	fromZoneName:   {says: "the zone of who calls"},

	limitName:       {says: "how many come at once; 0 or none = all, or as many as may be", number: true},
	cursorName:      {says: "the nextCursor of the page before"},
	countName:       {says: "whether what matches is counted, or only that", words: []string{countNo, countYes, countOnly}},
	fieldsName:      {says: "the fields that are shown, with commas between them; none = all"},
	consistencyName: {says: "stale is answered by this member alone, at once", words: []string{"linearizable", "stale"}},
	stalenessName:   {says: "with consistency=stale how old the answer may be, such as 5s"},
	forceName:       {says: "true does without the lease token, and asks for the admin token", words: truthWords},
	dryRunName:      {says: "true says what would be done, and does nothing", words: truthWords},
	revisionName:    {says: "a revision, as answers have it; for a watch also the id of an event"},
	waitName:        {says: "how long the answer may wait, such as 30s"},
	snapshotName:    {says: "false leaves out what there is at the beginning", words: truthWords},

	"node":   {says: "a proxy's node id"},
	"member": {says: "a member's id", number: true},
	"kind":   {says: "what a proxy is", words: ProxyKinds},
	"state":  {says: "how a proxy stands", words: ProxyStates},

	"instance":      {says: "the id of an instance; none = all of the service"},
	"type":          {says: "a type of resources", words: ProxyTypes},
	"resource":      {says: "the name of a resource"},
	"resourceState": {says: "how a proxy stands with a resource", words: ProxyResourceStates},
	contentsName:    {says: "true shows what the resources are, as Envoy writes it", words: truthWords},

	"sinceRevision":   {says: "the revision up to which all is known", number: true},
	"includeSnapshot": {says: "false leaves out what there is at the beginning"},

	leaseTokenHeader: {says: "shows whose the instance or lease is"},
	idempotencyKey:   {says: "a word of your own: a call repeated with it is done once"},
	lastEventID:      {says: "the id of the last event; counts before revision"},
	"If-Match":       {says: "the ETag that the document must have; * = any"},
	"If-None-Match":  {says: "* = there must be none yet"},
}

// describedRoutes are the page for people and the document for programs. Both follow from
// the routes, so they are made once, when first asked for.
func (a *API) describedRoutes() []route {
	document := sync.OnceValue(func() []byte { return a.description().json() })
	page := sync.OnceValue(func() []byte { return a.description().html() })
	static := func(pattern, mediaType string, content func() []byte) route {
		return route{method: http.MethodGet, pattern: pattern, serve: func(w http.ResponseWriter, _ *http.Request) error {
			writeBytes(w, http.StatusOK, mediaType, content())
			return nil
		}}
	}
	return []route{static("/openapi.json", typeJSON, document), static("/docs", "text/html; charset=utf-8", page)}
}

// description is that of what this API serves.
func (a *API) description() *openAPI {
	var all []route
	for i := range a.public.paths {
		all = append(all, a.public.paths[i].routes...)
	}
	return describe(all)
}

// json is the document with a line for each value, so that a change of it can be read.
func (d *openAPI) json() []byte {
	b, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		panic(fmt.Sprintf("httpapi: encode the description: %v", err)) // texts and numbers only
	}
	return append(b, '\n')
}

// sorted are the keys of a map, for the page.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
