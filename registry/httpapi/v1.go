package httpapi

import (
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// v1 is the contract of the existing SDKs. Its clients cannot renew what they
// are told the state of, so they see routable instances only.
func (a *API) v1Routes() []route {
	const at = "/api/v1/registry/"
	return []route{
		route{method: http.MethodPost, pattern: at + "heartbeat", surface: surfaceV1, routine: true, serve: a.v1Heartbeat}.as(operation{
			id: "v1Heartbeat", says: "Says that an instance lives", body: v1HeartbeatBody{}, answers: ok(v1Answer{}), refuses: []string{"not_found", "shared_lease"},
		}),
		route{method: http.MethodPost, pattern: at + "register", surface: surfaceV1, serve: a.v1Register}.as(operation{
			id: "v1Register", says: "Registers an instance, or changes it", body: v1RegisterBody{}, answers: ok(v1Answer{}), refuses: []string{"quota_exceeded"},
		}),
		route{method: http.MethodPost, pattern: at + "deregister", surface: surfaceV1, serve: a.v1Deregister}.as(operation{
			id: "v1Deregister", says: "Removes an instance", body: refBody{}, answers: ok(v1Answer{}),
		}),
		route{method: http.MethodGet, pattern: at + "instances", surface: surfaceV1, reads: true, serve: a.v1Instances}.as(operation{
			id: "v1Instances", says: "Lists the instances that callers are sent to", query: v1Query, answers: ok(v1List{}),
		}),
		route{method: http.MethodGet, pattern: at + "watch", surface: surfaceV1, reads: true, watches: true, serve: a.v1Watch}.as(operation{
			id: "v1Watch", says: "Tells what changes, as server-sent events", query: append([]string{"sinceRevision", "includeSnapshot"}, v1Query...),
			answers: ok(eventsAnswer{}), refuses: []string{"revision_expired", "too_many_watches"},
		}),
	}
}

// v1Query is what v1 looks at; what else a client sends it does not.
var v1Query = []string{
	"namespace", "service*", "servicePrefix*", "organization", "businessDomain", "capabilityDomain", "application", "role",
	"zone", "endpoint", "selector*", "label*", limitName,
}

type v1RegisterBody struct {
	refBody
	workloadBody
}

type v1HeartbeatBody struct {
	refBody
	LeaseTTLSeconds int64 `json:"leaseTtlSeconds"`
}

// What v1 answers to writes that went well.
var (
	v1Registered   = []byte(`{"code":"ok","message":"instance registered"}`)
	v1Deregistered = []byte(`{"code":"ok","message":"instance deregistered"}`)
	v1Renewed      = []byte(`{"code":"ok","message":"heartbeat accepted"}`)
)

func (a *API) v1Register(w http.ResponseWriter, q *http.Request) error {
	var body v1RegisterBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	concerns(w, body.ref())
	result, err := a.registry.Register(q.Context(), "", body.registration(body.ref()))
	return v1Wrote(w, result, err, v1Registered)
}

// v1Deregister says the same of an instance that is not there: it is gone, as asked for.
func (a *API) v1Deregister(w http.ResponseWriter, q *http.Request) error {
	var body refBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	concerns(w, body.ref())
	result, err := a.registry.Deregister(q.Context(), "", body.ref())
	return v1Wrote(w, result, err, v1Deregistered)
}

func (a *API) v1Heartbeat(w http.ResponseWriter, q *http.Request) error {
	var body v1HeartbeatBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	result, err := a.registry.Heartbeat(q.Context(), body.ref(), body.LeaseTTLSeconds)
	return v1Wrote(w, result, err, v1Renewed)
}

func v1Wrote(w http.ResponseWriter, result registry.Result, err error, says []byte) error {
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	writeBytes(w, http.StatusOK, typeJSON, says)
	return nil
}

// v1Instances does not look at other parameters: old clients send some.
func (a *API) v1Instances(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	query := p.v1Query(a.registry.OwnRegion())
	if err := p.err(); err != nil {
		return err
	}
	instances, at, err := a.registry.List(q.Context(), query)
	if err != nil {
		return err
	}
	setRevision(w, at)
	heard := a.heard(instances)
	writeList(w, `{"code":"ok","data":[`, `]}`, instances, func(e *encoder, i *registry.Instance) { e.v1Instance(i, heard()) })
	return nil
}

// v1Instance writes the keys that the Java SDK knows, and no other.
func (e *encoder) v1Instance(i *registry.Instance, heardAt int64) {
	e.open('{')
	e.text("namespace", i.Namespace)
	e.text("service", i.Service)
	e.levels(i.Levels())
	e.text("instanceId", i.ID)
	e.optional("zone", i.Zone)
	e.pairs("labels", i.Labels)
	e.pairs("metadata", i.Metadata)
	e.endpoints(i.Endpoints)
	e.number("leaseTtlSeconds", leaseSeconds(i))
	e.number("registeredAtUnix", i.RegisteredAt/1000)
	e.number("lastHeartbeatUnix", heardAt/1000)
	e.close('}')
}
