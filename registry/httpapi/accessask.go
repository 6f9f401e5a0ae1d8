package httpapi

import (
	"errors"
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

func (a *API) askRoutes(read func(string, handler) route) []route {
	ask := func(pattern string, serve handler, id, says string, answer any) route {
		one := read(pattern, serve).as(operation{id: id, says: says, body: v2AskBody{}, answers: ok(answer)})
		one.method = http.MethodPost
		return one
	}
	return []route{
		read(atAccess+"whoami", a.v2WhoAmI).as(operation{id: "whoAmI", says: "Tells who asks, and which roles he has", answers: ok(v2WhoAnswer{})}),
		ask(atAccess+"can-i", a.v2CanI, "canI", "Tells whether the caller may do something, or somebody else", v2CanAnswer{}),
		ask(atAccess+"explain", a.v2Explain, "explainAccess", "Tells by which rule the caller may do something or not, or somebody else", v2ExplainAnswer{}),
	}
}

// The bodies and answers of those who ask what somebody may.
type (
	v2AskBody struct {
		Verb      registry.Verb     `json:"verb"`
		Resource  registry.Resource `json:"resource"`
		Namespace string            `json:"namespace"`
		Service   string            `json:"service"`
		As        string            `json:"as"` // an identity, or the id of a token; "" = the caller
	}
	v2WhoAnswer struct {
		Authentication string      `json:"authentication"`
		Who            string      `json:"who"`
		OwnNamespace   string      `json:"ownNamespace,omitempty"`
		Roles          []GivenRole `json:"roles"`
	}
	v2CanAnswer struct {
		Authentication string `json:"authentication"`
		Who            string `json:"who"`
		Asks           string `json:"asks"`
		Allowed        bool   `json:"allowed"`
	}
	v2ExplainAnswer struct {
		Authentication string      `json:"authentication"`
		Who            string      `json:"who"`
		Asks           string      `json:"asks"`
		Roles          []GivenRole `json:"roles"`
		Verdict
	}
)

// subject is whom a question is about. To ask about somebody else is to read what is
// written down of access.
func (a *API) subject(q *http.Request, as string) (Subject, error) {
	if as != "" {
		if err := registry.Permit(q.Context(), registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceAccess}); err != nil {
			return Subject{}, err
		}
	} else if a.access == nil {
		return Subject{Who: actor(q), Explain: func(registry.Ask) Verdict {
			return Verdict{Allowed: true, Reason: "authentication is off: nobody is asked who he is, and nothing is decided by roles"}
		}}, nil
	}
	s, err := a.authority.Subject(q.Context(), as)
	var unknown *registry.ValidationError
	if errors.As(err, &unknown) && len(unknown.Problems) == 1 {
		return s, invalid("as", unknown.Problems[0].Reason)
	}
	return s, err
}

// asked reads a question, and has it answered by the rights of the moment.
func (a *API) asked(w http.ResponseWriter, q *http.Request) (ask registry.Ask, s Subject, v Verdict, err error) {
	if err := noParameters(q); err != nil {
		return ask, s, v, err
	}
	var body v2AskBody
	if err := decode(w, q, &body); err != nil {
		return ask, s, v, err
	}
	ask, err = registry.KnownAsk(registry.Ask{Verb: body.Verb, Resource: body.Resource, Namespace: body.Namespace, Service: body.Service})
	if err != nil {
		return ask, s, v, err
	}
	if s, err = a.subject(q, body.As); err != nil {
		return ask, s, v, err
	}
	return ask, s, s.Explain(ask), nil
}

// rolesOf is a list, though it be empty.
func rolesOf(s Subject) []GivenRole { return append([]GivenRole{}, s.Roles...) }

func (a *API) v2WhoAmI(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	s, err := a.subject(q, "")
	if err != nil {
		return err
	}
	setRevision(w, a.registry.Revision())
	writeJSON(w, http.StatusOK, typeJSON, &v2WhoAnswer{a.authentication(), s.Who, s.Own, rolesOf(s)})
	return nil
}

func (a *API) v2CanI(w http.ResponseWriter, q *http.Request) error {
	ask, s, verdict, err := a.asked(w, q)
	if err != nil {
		return err
	}
	setRevision(w, a.registry.Revision())
	writeJSON(w, http.StatusOK, typeJSON, &v2CanAnswer{a.authentication(), s.Who, ask.String(), verdict.Allowed})
	return nil
}

func (a *API) v2Explain(w http.ResponseWriter, q *http.Request) error {
	ask, s, verdict, err := a.asked(w, q)
	if err != nil {
		return err
	}
	setRevision(w, a.registry.Revision())
	writeJSON(w, http.StatusOK, typeJSON, &v2ExplainAnswer{a.authentication(), s.Who, ask.String(), rolesOf(s), verdict})
	return nil
}
