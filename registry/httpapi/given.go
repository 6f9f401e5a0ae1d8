package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// A list with failover: of one service, what a client at some place is given, flat, in the
// form of lists. It is a discovery with whole instances, so it has no pages: those that
// are left out would be called last.

// givenForms are the parameters of such a list.
var givenForms = []string{failoverName, fromRegionName, fromZoneName}

// Why a list or a watch of several services, which may have another policy each, has no failover,
// and what to do.
const (
	failoverOfOne   = "is for lists of one service: /api/v2/namespaces/{ns}/services/{svc}/instances"
	failoverWatched = "cannot be watched: whom a client calls changes with policies, gateways and the health of others, and a watch tells changes of instances. Ask GET /api/v2/namespaces/{ns}/services/{svc}/discovery from time to time, or use ADS, which tells proxies and clients of gRPC each change of it"
)

// refuse takes a parameter that is known elsewhere out, with the reason.
func (p *parameters) refuse(name, why string) {
	if _, given := p.values[name]; given {
		p.add(name, why)
		delete(p.values, name)
	}
}

// givenAlone refuses what is for lists with failover in one without, and what is for those without in one with it.
func (p *parameters) givenAlone() (with bool) {
	if with = p.values.Has(failoverName); with {
		p.refuse(cursorName, "is for lists without failover: what is given of one service comes at once, as far as there is room, and more says that there are others")
		p.refuse(countName, "is for lists without failover: regions say how many each has and gives")
		return true
	}
	p.refuse(fromRegionName, "is for lists with failover: give that as well, policy for what the service's policy says")
	p.refuse(fromZoneName, "is for lists with failover: give that as well, policy for what the service's policy says")
	return false
}

// givenFields are those of a list with failover.
var givenFields = append(instanceFields[:len(instanceFields):len(instanceFields)],
	listField[*shownInstance]{"priority", int64(0), func(e *encoder, i *shownInstance) { e.number("priority", int64(i.given.Priority)) }},
	listField[*shownInstance]{"authorities", []string(nil), func(e *encoder, i *shownInstance) { e.authorities(i.given.Authorities) }},
)

// authorities are by what a gateway knows where to, for each endpoint; of no gateway nothing.
func (e *encoder) authorities(names []string) {
	if names == nil {
		return
	}
	e.key("authorities")
	e.open('[')
	for _, name := range names {
		e.comma()
		e.b = appendText(e.b, name)
	}
	e.close(']')
}

// givenHead is what stands before the instances.
type givenHead struct {
	Revision   registry.Revision  `json:"revision"`
	Failover   string             `json:"failover"`
	FromRegion string             `json:"fromRegion"`
	FromZone   string             `json:"fromZone,omitempty"`
	More       bool               `json:"more,omitempty"`
	Regions    []discoveredRegion `json:"regions"`
}

func (a *API) v2Given(w http.ResponseWriter, q *http.Request, p *parameters, l listing) error {
	fields := chosen(p, givenFields)
	found, err := a.discover(w, q, p, l.query)
	if err != nil {
		return err
	}
	l.fresh.tell(w)
	head, err := json.Marshal(&givenHead{found.Revision, found.Mode, found.FromRegion, found.FromZone, found.More, regionsShown(&found)})
	if err != nil {
		return fmt.Errorf("write what is before a list: %w", err)
	}
	before := string(head[:len(head)-1]) + `,"instances":[`
	writeList(w, before, "]}", found.Given, a.givenEncoder(q.Context(), found.Given, fields))
	return nil
}

// givenEncoder is instanceEncoder for what a client is given.
func (a *API) givenEncoder(ctx context.Context, given []registry.Discovered, fields []listField[*shownInstance]) func(*encoder, registry.Discovered) {
	all := make([]*registry.Instance, len(given))
	for n := range given {
		all[n] = given[n].Instance
	}
	show := a.showing(ctx, all)
	return func(e *encoder, one registry.Discovered) {
		shown := show(one.Instance)
		shown.given = &one
		writeFields(e, shown, fields)
	}
}
