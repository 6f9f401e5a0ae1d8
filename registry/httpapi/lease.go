package httpapi

import (
	"net/http"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// leaseRoutes are those of leases that several instances share.
func (a *API) leaseRoutes() []route {
	const lease = "/api/v2/leases/{lease}"
	write := func(method, pattern string, serve handler) route {
		return route{method: method, pattern: pattern, surface: surfaceV2, serve: conditionless(serve)}
	}
	return []route{
		write(http.MethodPost, "/api/v2/leases", a.v2GrantLease).as(operation{
			id: "grantLease", says: "Makes a lease that instances can share", headers: heldHeaders,
			body: v2LeaseBody{}, bodiless: true, answers: map[int]any{http.StatusCreated: v2LeaseGranted{}}, refuses: []string{"leases_full"},
		}),
		route{method: http.MethodPost, pattern: lease + "/renew", surface: surfaceV2, routine: true, serve: conditionless(a.v2RenewLease)}.as(operation{
			id: "renewLease", says: "Says that all instances under a lease live", query: heldQuery, headers: []string{leaseTokenHeader},
			body: v2NothingBody{}, bodiless: true, answers: ok(v2LeaseWritten{}), refuses: []string{"lease_not_found"},
		}),
		write(http.MethodDelete, lease, a.v2RevokeLease).as(operation{
			id: "revokeLease", says: "Ends a lease, and all instances under it", query: heldQuery, headers: heldHeaders,
			answers: ok(v2LeaseWritten{}), refuses: []string{"lease_not_found"},
		}),
		route{method: http.MethodGet, pattern: lease, surface: surfaceV2, reads: true, serve: conditionless(a.v2Lease)}.as(operation{
			id: "getLease", says: "Tells a lease and the instances under it", query: freshQuery, answers: ok(shownLease{}), refuses: []string{"lease_not_found"},
		}),
	}
}

// v2NothingBody has no fields.
type v2NothingBody struct{}

// The answers about shared leases.
type (
	v2LeaseGranted struct {
		v2LeaseKey
		TTLSeconds int64  `json:"ttlSeconds"`
		LeaseToken string `json:"leaseToken"`
	}
	v2LeaseWritten struct {
		v2LeaseKey
		v2Granted
	}
)

type v2LeaseBody struct {
	TTLSeconds int64 `json:"ttlSeconds"`
}

// v2LeaseKey is what every answer about a shared lease begins with.
type v2LeaseKey struct {
	LeaseID  string            `json:"leaseId"`
	Revision registry.Revision `json:"revision"`
}

// v2GrantLease makes a lease with an id and a token of its own. Both follow from
// an Idempotency-Key, so that a repeated call tells the same.
func (a *API) v2GrantLease(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	var body v2LeaseBody
	if err := decodeOptional(w, q, &body); err != nil {
		return err
	}
	token := q.Header.Get(leaseTokenHeader)
	if problem := registry.TokenProblem(token); token != "" && problem != "" {
		return invalid(leaseTokenHeader, problem)
	}
	repeat, err := repeatOf(q, [2]any{body, token})
	if err != nil {
		return err
	}
	grant := registry.LeaseGrant{ID: repeat.Token("", 1, a.newToken), TTLSeconds: body.TTLSeconds, Token: repeat.Token(token, 0, a.newToken)}
	about(w, grant.ID)
	lease, at, err := a.registry.GrantLease(q.Context(), repeat.ID, grant)
	setRevision(w, at)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, typeJSON, &v2LeaseGranted{v2LeaseKey{lease.ID, at}, int64(lease.TTL / time.Second), grant.Token})
	return nil
}

func (a *API) v2RenewLease(w http.ResponseWriter, q *http.Request) error {
	by, err := a.holderOf(w, q)
	if err != nil {
		return err
	}
	if err := decodeOptional(w, q, &v2NothingBody{}); err != nil {
		return err
	}
	id := q.PathValue("lease")
	result, err := a.registry.RenewLease(q.Context(), id, by)
	return leaseWrote(w, id, result, err)
}

func (a *API) v2RevokeLease(w http.ResponseWriter, q *http.Request) error {
	by, err := a.holderOf(w, q)
	if err != nil {
		return err
	}
	id := q.PathValue("lease")
	repeat, err := repeatOf(q, [2]any{id, by})
	if err != nil {
		return err
	}
	result, err := a.registry.RevokeLease(q.Context(), repeat.ID, id, by)
	return leaseWrote(w, id, result, err)
}

func leaseWrote(w http.ResponseWriter, id string, result registry.Result, err error) error {
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2LeaseWritten{v2LeaseKey{id, result.Revision}, grantedBy(result)})
	return nil
}

// v2Lease tells who lives under a lease.
func (a *API) v2Lease(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return err
	}
	lease, members, at, err := a.registry.Lease(q.Context(), q.PathValue("lease"), fresh.Consistency)
	setRevision(w, at)
	if err != nil {
		return err
	}
	fresh.tell(w)
	e := &encoder{}
	e.open('{')
	e.text("leaseId", lease.ID)
	e.number("revision", int64(at))
	e.number("ttlSeconds", int64(lease.TTL/time.Second))
	e.time("createdAt", lease.CreatedAt)
	if lease.EndedAt != 0 {
		e.time("endedAt", lease.EndedAt)
	}
	e.key("instances")
	e.b = append(e.b, '[')
	before := string(e.b)
	writeList(w, before, "]}", members, (*encoder).member)
	return nil
}

// member is an instance in the list of its lease.
func (e *encoder) member(i *registry.Instance) {
	e.open('{')
	e.text("namespace", i.Namespace)
	e.text("service", i.Service)
	e.text("instanceId", i.ID)
	e.text("status", i.Status.String())
	e.close('}')
}
