package httpapi

import (
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// reportRoutes are what those who call instances say of them.
func (a *API) reportRoutes(service, instance string) []route {
	return []route{
		route{method: http.MethodPost, pattern: instance + "/report", surface: surfaceV2, routine: true, serve: conditionless(a.v2Report)}.as(operation{
			id: "reportInstance", says: "Says that a caller can, or cannot, reach an instance",
			body: v2ReportBody{}, answers: ok(v2Reported{}), refuses: []string{"not_found", "too_many_reports"},
		}),
		route{method: http.MethodGet, pattern: service + "/reports", surface: surfaceV2, reads: true, serve: conditionless(a.v2Reports)}.as(operation{
			id: "listReports", says: "Tells what callers have said of a service's instances lately", answers: ok(shownServiceReports{}), refuses: []string{"not_found"},
		}),
	}
}

type v2ReportBody struct {
	Reporter string `json:"reporter"`
	Outcome  string `json:"outcome"`
	Reason   string `json:"reason"`
}

// v2ReportRules are what a policy wants done with reports, its defaults filled in.
type v2ReportRules struct {
	Effect        string `json:"effect"` // none, warning or critical
	Quorum        int    `json:"quorum"`
	WindowSeconds int64  `json:"windowSeconds"`
}

// v2Reported is how many have reported the instance by now.
type v2Reported struct {
	v2Key
	Reporters int `json:"reporters"`
	v2ReportRules
}

func reportRulesOf(r registry.ReportRules) v2ReportRules {
	rules := v2ReportRules{Effect: "none", Quorum: r.Quorum, WindowSeconds: int64(r.Window / time.Second)}
	if r.Effect != 0 {
		rules.Effect = r.Effect.String()
	}
	return rules
}

// v2Report takes what a caller says of an instance. It needs no idempotency key: who
// says the same again has said it once.
func (a *API) v2Report(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	var body v2ReportBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	ref := pathRef(q)
	told, err := a.registry.Report(q.Context(), ref, registry.Report{Reporter: body.Reporter, Outcome: body.Outcome, Reason: body.Reason, From: addressOf(q)})
	setRevision(w, told.Revision)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2Reported{keyOf(ref, told.Revision), told.Reporters, reportRulesOf(told.Rules)})
	return nil
}

// addressOf is where a call came from; the zero one where that is not known.
func addressOf(q *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(q.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// v2Reports is what callers have said of a service's instances lately. The leader
// alone knows.
func (a *API) v2Reports(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	k := registry.ServiceKey{Namespace: strings.TrimSpace(q.PathValue("ns")), Service: strings.TrimSpace(q.PathValue("svc"))}
	all, rules, at, err := a.registry.Reports(q.Context(), k)
	setRevision(w, at)
	if err != nil {
		return err
	}
	shown := reportRulesOf(rules)
	e := &encoder{}
	e.open('{')
	e.text("namespace", k.Namespace)
	e.text("service", k.Service)
	e.number("revision", int64(at))
	e.text("effect", shown.Effect)
	e.number("quorum", int64(shown.Quorum))
	e.number("windowSeconds", shown.WindowSeconds)
	e.key("instances")
	e.b = append(e.b, '[')
	before := string(e.b)
	writeList(w, before, "]}", all, (*encoder).reported)
	return nil
}

// reported is an instance with those who have reported it.
func (e *encoder) reported(i registry.ReportedInstance) {
	e.open('{')
	e.text("instanceId", i.ID)
	e.number("reporters", int64(i.Reporters))
	e.optional("reason", i.Reason)
	e.objects("reports", len(i.By), func(n int) {
		by := &i.By[n]
		e.optional("reporter", by.Reporter)
		e.text("from", by.From)
		e.time("since", by.Since)
		e.time("last", by.Last)
		e.number("times", int64(by.Times))
	})
	e.close('}')
}
