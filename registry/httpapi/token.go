package httpapi

import (
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// leaseTokenHeader is where a caller of v2 shows that an instance is his.
const leaseTokenHeader = "X-StellMap-Lease-Token"

const forceName = "force"

// heldQuery are the parameters of calls that change what is somebody's, and heldHeaders their headers.
var (
	heldQuery   = []string{forceName}
	heldHeaders = []string{leaseTokenHeader, idempotencyKey}
)

// heldRef is the instance that the path names, with whose call it is.
func (a *API) heldRef(w http.ResponseWriter, q *http.Request) (ref registry.InstanceRef, err error) {
	ref = pathRef(q)
	ref.Holder, err = a.holderOf(w, q)
	return ref, err
}

// holderOf is whose call it is. With force=true it is an operator's, who proves it
// with the admin token and is not asked for the lease token.
func (a *API) holderOf(w http.ResponseWriter, q *http.Request) (registry.Holder, error) {
	p := parametersOf(q)
	p.only(heldQuery...)
	force := p.first(forceName)
	if force != "" && force != "true" && force != "false" {
		p.add(forceName, "is not a truth value: true or false")
	}
	token := q.Header.Get(leaseTokenHeader)
	if problem := registry.TokenProblem(token); token != "" && problem != "" {
		p.add(leaseTokenHeader, problem)
	}
	if err := p.err(); err != nil {
		return registry.Holder{}, err
	}
	if force == "true" && a.access != nil {
		return registry.Holder{}, forceful(q)
	}
	if force == "true" && !a.knows(q) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="stellmap admin"`)
		return registry.Holder{Asked: true}, errUnauthorized
	}
	return registry.Holder{Asked: force != "true", Token: token}, nil
}
