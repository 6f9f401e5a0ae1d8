package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// The lists of v2: instances, services and namespaces. What they have in common
// is what can be asked for, and that they come in pages.

// filters are the parameters that say what is listed. A star marks the ones that
// may be repeated; any of their values will do, but of selector and label.
var filters = []string{
	"servicePrefix*", "organization", "businessDomain", "capabilityDomain", "application", "role",
	"group*", "zone*", "region*", "version*", "endpoint*", "selector*", "label*", "status*",
}

// The parameters that say how a list is answered.
const (
	limitName  = "limit"
	cursorName = "cursor"
	countName  = "count"
	fieldsName = "fields"
)

// The words of count.
const (
	countNo   = "no"
	countYes  = "yes"
	countOnly = "only"
)

var forms = []string{limitName, cursorName, countName, fieldsName + "*", consistencyName, stalenessName}

// A listing is what a request for a list asks for.
type listing struct {
	query  registry.Query
	paging registry.Paging
	cursor *registry.HomedCursor // nil = from the beginning
	given  bool                  // what a client is given, see given.go
	fresh  freshness
}

// What lists take, by whether the path names the service, and what one service does.
var (
	serviceListQuery = slices.Concat(filters, forms, givenForms)
	listQuery        = slices.Concat([]string{"service*"}, filters, forms)
	serviceQuery     = append([]string{fieldsName + "*"}, freshQuery...)
)

func instanceList(id, says string, query []string, refuses ...string) operation {
	return operation{id: id, says: says, query: query, answers: ok(shownInstanceList{}), refuses: append(refuses, "cursor_expired")}
}

func serviceList(id, says string) operation {
	return operation{id: id, says: says, query: listQuery, answers: ok(shownServiceList{}), refuses: []string{"cursor_expired"}}
}

// listing reads the parameters of a list. The services are those of the path;
// where it names none, they are a parameter, too.
func (a *API) listing(p *parameters, namespace string, services ...string) listing {
	known := serviceListQuery
	if len(services) == 0 {
		known = listQuery
		services = p.all("service")
		p.refuse(failoverName, failoverOfOne)
	}
	p.only(known...)
	l := listing{given: p.givenAlone(), fresh: p.freshness(a)}
	l.query = p.filter(namespace, services, l.fresh)
	l.query.Limit = p.limit()
	count := p.choice(countName, countNo, countYes, countOnly)
	l.paging = registry.Paging{Count: count == countYes, CountOnly: count == countOnly}
	if l.cursor = p.cursor(); l.cursor != nil {
		l.paging.Cursor = &l.cursor.Place
	}
	return l
}

func (p *parameters) cursor() *registry.HomedCursor {
	text := p.first(cursorName)
	if text == "" {
		return nil
	}
	c, err := registry.ParseCursor(text)
	p.join(err)
	return &c
}

// filter is what the parameters say of what is wanted; a namespace of "" is all of them.
func (p *parameters) filter(namespace string, services []string, fresh freshness) registry.Query {
	query := registry.Query{
		Namespace: namespace, AllNamespaces: namespace == "", Services: services, Prefixes: p.all("servicePrefix"), Levels: p.levels(),
		Groups: p.all("group"), Zones: p.all("zone"), Regions: p.all("region"), Versions: p.all("version"), Endpoints: p.all("endpoint"),
		Selectors: p.all("selector"), Labels: p.all("label"), Statuses: p.words("status"), Consistency: fresh.Consistency,
	}
	if len(query.Statuses) == 0 {
		query.Statuses = []string{"any"}
	}
	return query
}

// CursorHome is where the cursors of this member are good.
func (a *API) CursorHome() registry.CursorHome {
	s := a.cluster()
	return registry.CursorHome{Incarnation: s.Incarnation, Member: s.ID}
}

// A pageReader is a list of the registry.
type pageReader func(context.Context, registry.Query, registry.Paging) (registry.Page, error)

// page reads a page of a list and tells what it was read at.
func (a *API) page(w http.ResponseWriter, q *http.Request, p *parameters, l listing, read pageReader) (registry.Page, error) {
	p.join(l.query.Check())
	if err := p.err(); err != nil {
		return registry.Page{}, err
	}
	if l.cursor != nil {
		if err := l.cursor.At(a.CursorHome()); err != nil {
			return registry.Page{}, err
		}
	}
	page, err := read(q.Context(), l.query, l.paging)
	if err != nil {
		return page, err
	}
	setRevision(w, page.Revision)
	if l.cursor != nil {
		l.fresh.age = ageText(page.Age, page.AgeKnown)
	}
	l.fresh.tell(w)
	return page, nil
}

// frame is what stands around a list: the revision before it, and behind it the
// way on and the count. Where only the count is wanted, before and after are the whole.
func (a *API) frame(l listing, page registry.Page, list string) (before, after string) {
	before = fmt.Sprintf(`{"revision":%d`, page.Revision)
	if !l.paging.CountOnly {
		before += fmt.Sprintf(`,%q:[`, list)
		after = "]"
	}
	if page.Next != nil {
		after += fmt.Sprintf(`,"nextCursor":"%v"`, registry.HomedCursor{Home: a.CursorHome(), Place: *page.Next})
	}
	if l.paging.Count || l.paging.CountOnly {
		after += fmt.Sprintf(`,"count":%d`, page.Count)
	}
	return before, after + "}"
}

func (a *API) v2ServiceInstances(w http.ResponseWriter, q *http.Request) error {
	service := strings.TrimSpace(q.PathValue("svc"))
	if service == "" {
		return invalid("service", "is missing in the path") // an empty filter would mean all of them
	}
	return a.v2NamespacesInstances(w, q, service)
}

func (a *API) v2NamespaceInstances(w http.ResponseWriter, q *http.Request) error {
	return a.v2NamespacesInstances(w, q)
}

func (a *API) v2NamespacesInstances(w http.ResponseWriter, q *http.Request, services ...string) error {
	namespace, err := pathNamespace(q)
	if err != nil {
		return err
	}
	return a.v2Instances(w, q, namespace, services...)
}

func (a *API) v2AllInstances(w http.ResponseWriter, q *http.Request) error {
	return a.v2Instances(w, q, "")
}

// pathNamespace refuses an empty one: none would mean all of them.
func pathNamespace(q *http.Request) (string, error) {
	namespace := q.PathValue("ns")
	if strings.TrimSpace(namespace) == "" {
		return "", invalid("namespace", "is missing in the path")
	}
	return namespace, nil
}

func (a *API) v2Instances(w http.ResponseWriter, q *http.Request, namespace string, services ...string) error {
	p := parametersOf(q)
	l := a.listing(p, namespace, services...)
	if l.given {
		return a.v2Given(w, q, p, l)
	}
	fields := chosen(p, instanceFields)
	page, err := a.page(w, q, p, l, a.registry.Instances)
	if err != nil {
		return err
	}
	before, after := a.frame(l, page, "instances")
	writeList(w, before, after, page.Instances, a.instanceEncoder(q.Context(), page.Instances, fields))
	return nil
}

func (a *API) v2NamespaceServices(w http.ResponseWriter, q *http.Request) error {
	namespace, err := pathNamespace(q)
	if err != nil {
		return err
	}
	return a.v2Services(w, q, namespace)
}

// v2Service is one service, as lists show it.
func (a *API) v2Service(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(serviceQuery...)
	fresh := p.freshness(a)
	fields := chosen(p, serviceFields)
	k := pathService(q)
	if k.Service == "" {
		p.add("service", "is missing in the path")
	}
	if err := p.err(); err != nil {
		return err
	}
	one, at, err := a.registry.Service(q.Context(), k, fresh.Consistency)
	setRevision(w, at)
	if err != nil {
		return err
	}
	fresh.tell(w)
	writeList(w, "", "", []registry.ServiceMatch{one}, a.serviceEncoder(q.Context(), fields))
	return nil
}

func (a *API) v2AllServices(w http.ResponseWriter, q *http.Request) error {
	return a.v2Services(w, q, "")
}

func (a *API) v2Services(w http.ResponseWriter, q *http.Request, namespace string) error {
	p := parametersOf(q)
	l := a.listing(p, namespace)
	fields := chosen(p, serviceFields)
	page, err := a.page(w, q, p, l, a.registry.Services)
	if err != nil {
		return err
	}
	before, after := a.frame(l, page, "services")
	writeList(w, before, after, page.Services, a.serviceEncoder(q.Context(), fields))
	return nil
}

func (a *API) v2Namespaces(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return err
	}
	namespaces, at, err := a.registry.Namespaces(q.Context(), fresh.Consistency)
	if err != nil {
		return err
	}
	setRevision(w, at)
	fresh.tell(w)
	writeList(w, fmt.Sprintf(`{"revision":%d,"namespaces":[`, at), "]}", namespaces, (*encoder).namespace)
	return nil
}
