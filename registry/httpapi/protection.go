package httpapi

import (
	"fmt"
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// v2Protections is where nothing expires at the moment, since when, why, and what
// ends it: the cluster, services and their zones.
func (a *API) v2Protections(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return err
	}
	protections, at, err := a.registry.Protections(q.Context(), fresh.Consistency)
	if err != nil {
		return err
	}
	setRevision(w, at)
	fresh.tell(w)
	writeList(w, fmt.Sprintf(`{"revision":%d,"protections":[`, at), "]}", protections, func(e *encoder, p registry.ProtectionState) {
		e.open('{')
		e.pause(&p)
		e.close('}')
	})
	return nil
}

func (e *encoder) protections(protections []registry.ProtectionState) {
	e.objects("protections", len(protections), func(i int) { e.pause(&protections[i]) })
}

func (e *encoder) pause(p *registry.ProtectionState) {
	e.text("scope", p.Scope.Kind.String())
	e.optional("namespace", p.Scope.Service.Namespace)
	e.optional("service", p.Scope.Service.Service)
	e.optional("zone", p.Scope.Zone)
	e.time("since", p.Since)
	e.text("reason", p.Reason())
	e.number("suspects", int64(p.Suspects))
	e.number("leases", int64(p.LeasesNow))
	e.number("endsAtSuspects", int64(p.EndsAt()))
	e.time("endsAtTheLatest", p.Over())
}
