package httpapi

import (
	"net"
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// sayRoutes are what operators say of instances.
func (a *API) sayRoutes(instance string) []route {
	write := func(method, pattern string, serve handler) route {
		return route{method: method, pattern: pattern, surface: surfaceV2, serve: conditionless(serve)}
	}
	return []route{
		write(http.MethodPost, instance+"/override", a.v2Override).as(operation{
			id: "overrideInstance", says: "Gives an instance a status, whatever else is said of it", headers: []string{idempotencyKey},
			body: v2OverrideBody{}, answers: ok(v2Said{}), refuses: []string{"not_found"},
		}),
		write(http.MethodDelete, instance+"/override", a.v2ClearOverride).as(operation{
			id: "clearOverride", says: "Takes that back", headers: []string{idempotencyKey}, answers: ok(v2Said{}), refuses: []string{"not_found"},
		}),
		write(http.MethodPost, instance+"/drain", a.v2Drain).as(operation{
			id: "drainInstance", says: "Has an instance get no new calls, and go after a while", query: heldQuery, headers: heldHeaders,
			body: v2DrainBody{}, bodiless: true, answers: ok(v2Said{}), refuses: []string{"not_found"},
		}),
		write(http.MethodDelete, instance+"/drain", a.v2Undrain).as(operation{
			id: "undrainInstance", says: "Takes that back", query: heldQuery, headers: heldHeaders, answers: ok(v2Said{}), refuses: []string{"not_found"},
		}),
	}
}

type v2OverrideBody struct {
	Status string `json:"status"`
	Reason string `json:"reason"`
}

type v2DrainBody struct {
	Seconds int64  `json:"seconds"`
	Reason  string `json:"reason"`
}

// v2Said is the answer to all of them.
type v2Said struct {
	v2Key
	Changed bool `json:"changed"`
}

func (a *API) v2Override(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	var body v2OverrideBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	return a.said(w, q, pathRef(q), body, func(id string, ref registry.InstanceRef) (registry.Result, error) {
		return a.registry.Override(q.Context(), id, ref, registry.Override{Status: body.Status, Reason: body.Reason, By: actor(q)})
	})
}

func (a *API) v2ClearOverride(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	return a.said(w, q, pathRef(q), "override", func(id string, ref registry.InstanceRef) (registry.Result, error) {
		return a.registry.ClearOverride(q.Context(), id, ref)
	})
}

func (a *API) v2Drain(w http.ResponseWriter, q *http.Request) error {
	ref, err := a.heldRef(w, q)
	if err != nil {
		return err
	}
	var body v2DrainBody
	if err := decodeOptional(w, q, &body); err != nil {
		return err
	}
	return a.said(w, q, ref, body, func(id string, ref registry.InstanceRef) (registry.Result, error) {
		return a.registry.Drain(q.Context(), id, ref, registry.Drain{Seconds: body.Seconds, Reason: body.Reason, By: actor(q)})
	})
}

func (a *API) v2Undrain(w http.ResponseWriter, q *http.Request) error {
	ref, err := a.heldRef(w, q)
	if err != nil {
		return err
	}
	return a.said(w, q, ref, "drain", func(id string, ref registry.InstanceRef) (registry.Result, error) {
		return a.registry.Undrain(q.Context(), id, ref)
	})
}

// said does what is asked for of an instance and answers with what became of it.
// What is asked for tells one request id's use from another's.
func (a *API) said(w http.ResponseWriter, q *http.Request, ref registry.InstanceRef, what any, do func(id string, ref registry.InstanceRef) (registry.Result, error)) error {
	repeat, err := repeatOf(q, [2]any{ref, what})
	if err != nil {
		return err
	}
	result, err := do(repeat.ID, ref)
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2Said{keyOf(ref, result.Revision), result.Changed})
	return nil
}

// actor is who asks, as far as it is known: where nobody has to say who he is, the
// address that he asks from.
func actor(q *http.Request) string {
	if c := registry.CallerOf(q.Context()); c != nil {
		return c.Who()
	}
	host, _, err := net.SplitHostPort(q.RemoteAddr)
	if err != nil {
		host = q.RemoteAddr
	}
	return "anonymous at " + host
}
