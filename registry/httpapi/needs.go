package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// Who may call what. The table is of the routes: what a caller must be allowed before
// anything of his request is looked at. What is done then is asked for again by the
// registry, by the names that it does it to: each item of a batch, each instance of a
// list and each event of a watch.

// A need is what a route asks of its caller.
type need struct {
	verb     registry.Verb
	resource registry.Resource // of the namespace and service of the path, where it has them
	whom     whom
}

// whom says of which callers a route asks something.
type whom uint8

const (
	whoMay     whom = iota // he may do it to what the path names
	whoMaySome             // he may do it to something: to what, is asked of each
	whoIs                  // anybody who has proved who he is
	whoever                // he need be nobody
)

// The beginnings of patterns.
const (
	atNamespace = "/api/v2/namespaces/{ns}"
	atService   = atNamespace + "/services/{svc}"
	atInstance  = atService + "/instances/{id}"
	atLease     = "/api/v2/leases/{lease}"
	atV1        = "/api/v1/registry/"
	atAdmin     = "/admin/v1/"
)

// needs has a row for every route, by method and pattern. A server with a route that has
// none does not start.
var needs = map[string]need{
	"GET /livez":        {whom: whoever},
	"GET /healthz":      {whom: whoever},
	"GET /readyz":       {whom: whoever},
	"GET /readyz/xds":   {whom: whoever},
	"GET /metrics":      {registry.VerbRead, registry.ResourceMetrics, whoMay},
	"GET /openapi.json": {whom: whoIs},
	"GET /docs":         {whom: whoIs},

	"POST " + atV1 + "register":   {registry.VerbRegister, registry.ResourceInstances, whoMaySome},
	"POST " + atV1 + "heartbeat":  {registry.VerbRenew, registry.ResourceInstances, whoMaySome},
	"POST " + atV1 + "deregister": {registry.VerbDeregister, registry.ResourceInstances, whoMaySome},
	"GET " + atV1 + "instances":   {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET " + atV1 + "watch":       {registry.VerbRead, registry.ResourceInstances, whoMaySome},

	"PUT " + atInstance:                  {registry.VerbRegister, registry.ResourceInstances, whoMay},
	"GET " + atInstance:                  {registry.VerbRead, registry.ResourceInstances, whoMay},
	"DELETE " + atInstance:               {registry.VerbDeregister, registry.ResourceInstances, whoMay},
	"POST " + atInstance + "/renew":      {registry.VerbRenew, registry.ResourceInstances, whoMay},
	"POST " + atInstance + "/drain":      {registry.VerbDrain, registry.ResourceInstances, whoMay},
	"DELETE " + atInstance + "/drain":    {registry.VerbDrain, registry.ResourceInstances, whoMay},
	"POST " + atInstance + "/override":   {registry.VerbOverride, registry.ResourceInstances, whoMay},
	"DELETE " + atInstance + "/override": {registry.VerbOverride, registry.ResourceInstances, whoMay},
	"POST " + atInstance + "/report":     {registry.VerbReport, registry.ResourceInstances, whoMay},
	"GET " + atService + "/reports":      {registry.VerbRead, registry.ResourceInstances, whoMay},
	"GET " + atService + "/discovery":    {registry.VerbRead, registry.ResourceInstances, whoMay},
	"POST /api/v2/batch":                 {registry.VerbRenew, registry.ResourceInstances, whoIs}, // each item is one of three

	"GET " + atService:                  {registry.VerbRead, registry.ResourceInstances, whoMay},
	"GET " + atService + "/instances":   {registry.VerbRead, registry.ResourceInstances, whoMay},
	"GET " + atNamespace + "/instances": {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET " + atNamespace + "/services":  {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET /api/v2/instances":             {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET /api/v2/services":              {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET /api/v2/watch":                 {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET /api/v2/prometheus/sd":         {registry.VerbRead, registry.ResourceInstances, whoMaySome},
	"GET /api/v2/namespaces":            {registry.VerbRead, registry.ResourceNamespaces, whoMaySome},
	"GET /api/v2/protections":           {registry.VerbRead, registry.ResourceProtections, whoMaySome},

	"PUT " + atService + "/policy":            {registry.VerbWrite, registry.ResourcePolicies, whoMay},
	"DELETE " + atService + "/policy":         {registry.VerbWrite, registry.ResourcePolicies, whoMay},
	"GET " + atService + "/policy":            {registry.VerbRead, registry.ResourcePolicies, whoMay},
	"GET " + atService + "/policy/history":    {registry.VerbRead, registry.ResourcePolicies, whoMay},
	"PUT " + atService + "/upstreams":         {registry.VerbWrite, registry.ResourceUpstreams, whoMay},
	"DELETE " + atService + "/upstreams":      {registry.VerbWrite, registry.ResourceUpstreams, whoMay},
	"GET " + atService + "/upstreams":         {registry.VerbRead, registry.ResourceUpstreams, whoMay},
	"GET " + atService + "/upstreams/history": {registry.VerbRead, registry.ResourceUpstreams, whoMay},
	"PUT " + atNamespace:                      {registry.VerbWrite, registry.ResourceNamespaces, whoMay},
	"DELETE " + atNamespace:                   {registry.VerbWrite, registry.ResourceNamespaces, whoMay},
	"GET " + atNamespace:                      {registry.VerbRead, registry.ResourceNamespaces, whoMay},
	"GET " + atNamespace + "/history":         {registry.VerbRead, registry.ResourceNamespaces, whoMay},

	"POST /api/v2/leases":        {registry.VerbWrite, registry.ResourceLeases, whoMay},
	"GET " + atLease:             {registry.VerbRead, registry.ResourceLeases, whoMay},
	"POST " + atLease + "/renew": {registry.VerbRenew, registry.ResourceLeases, whoMay},
	"DELETE " + atLease:          {registry.VerbWrite, registry.ResourceLeases, whoMay},

	"GET " + atService + "/propagation":   {registry.VerbRead, registry.ResourceProxies, whoMay},
	"GET " + atService + "/load":          {registry.VerbRead, registry.ResourceProxies, whoMay},
	"GET /api/v2/proxies":                 {registry.VerbRead, registry.ResourceProxies, whoMay}, // of all namespaces, like the next
	"GET /api/v2/proxies/{proxy}":         {registry.VerbRead, registry.ResourceProxies, whoMay},
	"GET /api/v2/proxies/{proxy}/explain": {registry.VerbRead, registry.ResourceProxies, whoMay},
	"GET /api/v2/members":                 {registry.VerbRead, registry.ResourceMembers, whoMay},
	"GET /api/v2/federation":              {registry.VerbRead, registry.ResourceRegions, whoMay},

	"GET " + atAccess + "roles":     {registry.VerbRead, registry.ResourceAccess, whoMay},
	"PUT " + atRole:                 {registry.VerbWrite, registry.ResourceAccess, whoMay},
	"DELETE " + atRole:              {registry.VerbWrite, registry.ResourceAccess, whoMay},
	"GET " + atRole:                 {registry.VerbRead, registry.ResourceAccess, whoMay},
	"GET " + atRole + "/history":    {registry.VerbRead, registry.ResourceAccess, whoMay},
	"GET " + atAccess + "bindings":  {registry.VerbRead, registry.ResourceAccess, whoMay},
	"PUT " + atBinding:              {registry.VerbWrite, registry.ResourceAccess, whoMay},
	"DELETE " + atBinding:           {registry.VerbWrite, registry.ResourceAccess, whoMay},
	"GET " + atBinding:              {registry.VerbRead, registry.ResourceAccess, whoMay},
	"GET " + atBinding + "/history": {registry.VerbRead, registry.ResourceAccess, whoMay},
	"GET " + atAccess + "tokens":    {registry.VerbRead, registry.ResourceTokens, whoMay},
	"POST " + atAccess + "tokens":   {registry.VerbRegister, registry.ResourceTokens, whoMay},
	"GET " + atToken:                {registry.VerbRead, registry.ResourceTokens, whoMay},
	"DELETE " + atToken:             {registry.VerbDeregister, registry.ResourceTokens, whoMay},
	"GET " + atAccess + "whoami":    {whom: whoIs},
	"POST " + atAccess + "can-i":    {whom: whoIs}, // who asks of others, has to be let read what is written down
	"POST " + atAccess + "explain":  {whom: whoIs},

	"GET " + atAdmin + "status":               {registry.VerbRead, registry.ResourceMembers, whoMay},
	"GET " + atAdmin + "replication/status":   {registry.VerbRead, registry.ResourceMembers, whoMay},
	"GET " + atAdmin + "snapshot":             {registry.VerbRead, registry.ResourceSnapshots, whoMay},
	"POST " + atAdmin + "members/join":        {registry.VerbRegister, registry.ResourceMembers, whoMay}, // whom it takes in, the certificate says
	"POST " + atAdmin + "members/add-learner": {registry.VerbWrite, registry.ResourceMembers, whoMay},
	"POST " + atAdmin + "members/promote":     {registry.VerbWrite, registry.ResourceMembers, whoMay},
	"POST " + atAdmin + "members/remove":      {registry.VerbWrite, registry.ResourceMembers, whoMay},
	"POST " + atAdmin + "members/replace":     {registry.VerbWrite, registry.ResourceMembers, whoMay},
	"POST " + atAdmin + "members/abandon":     {registry.VerbWrite, registry.ResourceMembers, whoMay},
	"POST " + atAdmin + "leader/transfer":     {registry.VerbWrite, registry.ResourceMembers, whoMay},
	"POST " + atAdmin + "federation/pause":    {registry.VerbWrite, registry.ResourceRegions, whoMay},
	"POST " + atAdmin + "federation/resume":   {registry.VerbWrite, registry.ResourceRegions, whoMay},
	"POST " + atAdmin + "federation/resync":   {registry.VerbWrite, registry.ResourceRegions, whoMay},
	"POST " + atAdmin + "federation/confirm":  {registry.VerbWrite, registry.ResourceRegions, whoMay},
	"POST " + atAdmin + "federation/forget":   {registry.VerbWrite, registry.ResourceRegions, whoMay},
}

// needOf is the row of a route. That one is missing is found at the start, not by
// whoever gets in through it.
func needOf(one route) need {
	row, found := needs[one.method+" "+one.pattern]
	if !found {
		panic(fmt.Sprintf("httpapi: nobody has said who may call %s %s: it has no row in the table of needs", one.method, one.pattern))
	}
	return row
}

// ask is what a request needs, by the names in its path.
func (n need) ask(q *http.Request) registry.Ask {
	return registry.Ask{Verb: n.verb, Resource: n.resource, Namespace: strings.TrimSpace(q.PathValue("ns")), Service: strings.TrimSpace(q.PathValue("svc"))}
}

// permit finds out who asks and whether he may. What is done for the request it gives is
// done for him.
func (a *API) permit(w *answer, q *http.Request, one *route) (*http.Request, error) {
	if a.access == nil {
		return q, nil
	}
	caller, err := a.caller(q, one)
	if err != nil && a.isOpen(one) {
		return q, nil
	}
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="stellmap"`)
		return q, err
	}
	w.by = caller.Who()
	q = q.WithContext(registry.WithCaller(q.Context(), caller))
	return q, one.need.permit(q)
}

// caller is who asks. The admin token is good on the admin port and nowhere else: it has no
// end and cannot be revoked, and that port need not be where others are.
func (a *API) caller(q *http.Request, one *route) (registry.Caller, error) {
	if one.admin && a.token != "" && a.knows(q) {
		return administrator{}, nil
	}
	return a.access(q)
}

// isOpen says whether a route is for whoever comes.
func (a *API) isOpen(one *route) bool {
	return one.need.whom == whoever || a.openMetrics && one.admin && one.pattern == metricsPattern
}

// permit says whether the caller of a request may do what the route is for. Of what stays
// open it is asked again and again.
func (n need) permit(q *http.Request) error {
	switch n.whom {
	case whoMay:
		return registry.Permit(q.Context(), n.ask(q))
	case whoMaySome:
		return registry.PermitSome(q.Context(), n.ask(q))
	}
	return registry.Known(q.Context())
}

// An administrator is whoever shows the admin token.
type administrator struct{}

func (administrator) Who() string                  { return "admin token" }
func (administrator) Allows(registry.Ask) bool     { return true }
func (administrator) AllowsSome(registry.Ask) bool { return true }
func (administrator) Stamp() string                { return "admin token" }
func (a administrator) Held() registry.Rights      { return a }

// Lacks says that he has whatever he gives.
func (administrator) Lacks([]registry.NamedRole, *registry.Rule) string { return "" }

// forceful says whether the caller may act on an instance, or on a lease, without its token.
func forceful(q *http.Request) error {
	n := need{verb: registry.VerbOverride, resource: registry.ResourceInstances}
	if q.PathValue("lease") != "" {
		n.resource = registry.ResourceLeases
	}
	return registry.Permit(q.Context(), n.ask(q))
}
