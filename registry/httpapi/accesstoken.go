package httpapi

import (
	"net/http"
	"time"

	"github.com/stellmap/stellmap/registry"
)

func (a *API) tokenRoutes(read func(string, handler) route) []route {
	write := func(method, pattern string, serve handler) route {
		return route{method: method, pattern: pattern, surface: surfaceV2, administers: true, serve: a.undecided(conditionless(serve))}
	}
	return []route{
		write(http.MethodPost, atAccess+"tokens", a.v2GrantToken).as(operation{
			id: "grantToken", says: "Makes an access token, which is told this once", headers: []string{idempotencyKey},
			body: v2TokenBody{}, answers: map[int]any{http.StatusCreated: v2TokenGranted{}}, refuses: []string{"token_told", "quota_exceeded"},
		}),
		read(atAccess+"tokens", a.v2Tokens).as(operation{id: "listTokens", says: "Lists the access tokens that were granted and not revoked, without what makes them secret", query: freshQuery, answers: ok(v2TokenList{})}),
		read(atToken, a.v2Token).as(operation{id: "getToken", says: "Tells what an access token is good for", query: freshQuery, answers: ok(v2Token{}), refuses: []string{"not_found"}}),
		write(http.MethodDelete, atToken, a.v2RevokeToken).as(operation{
			id: "revokeToken", says: "Ends an access token, and what was opened with it", headers: []string{idempotencyKey}, answers: ok(v2TokenRevoked{}), refuses: []string{"not_found"},
		}),
	}
}

// The bodies and answers about access tokens.
type (
	v2TokenBody struct {
		Description string         `json:"description"`
		Roles       []string       `json:"roles"`
		Scope       *registry.Rule `json:"scope"`
		Holder      string         `json:"holder"`
		TTLSeconds  int64          `json:"ttlSeconds"`
	}
	v2Token struct {
		ID          string            `json:"id"`
		Description string            `json:"description,omitempty"`
		Roles       []string          `json:"roles"`
		Scope       *v2Scope          `json:"scope,omitempty"`
		Holder      string            `json:"holder,omitempty"`
		GrantedAt   string            `json:"grantedAt"`
		GrantedBy   string            `json:"grantedBy,omitempty"`
		ExpiresAt   string            `json:"expiresAt"`
		Revision    registry.Revision `json:"revision"`
	}
	v2Scope struct { // a rule of which each list may be missing
		Verbs      []registry.Verb     `json:"verbs,omitempty"`
		Resources  []registry.Resource `json:"resources,omitempty"`
		Namespaces []string            `json:"namespaces,omitempty"`
		Services   []string            `json:"services,omitempty"`
	}
	v2TokenGranted struct {
		v2Token
		Token string `json:"token"`
	}
	v2TokenList struct {
		Revision registry.Revision `json:"revision"`
		Tokens   []v2Token         `json:"tokens"`
	}
	v2TokenRevoked struct {
		ID       string            `json:"id"`
		Revision registry.Revision `json:"revision"`
	}
)

func shownToken(t *registry.AccessToken) v2Token {
	shown := v2Token{
		ID: t.ID, Description: t.Description, Roles: t.Roles, Holder: t.Holder, GrantedBy: t.By, Revision: t.Revision,
		GrantedAt: timeText(time.UnixMilli(t.GrantedAt)), ExpiresAt: timeText(time.UnixMilli(t.ExpiresAt)),
	}
	if s := t.Scope; s != nil {
		shown.Scope = &v2Scope{s.Verbs, s.Resources, s.Namespaces, s.Services}
	}
	return shown
}

// v2GrantToken draws a new token each time: of a call that is repeated with the same
// Idempotency-Key the first alone has an answer with it, since it is kept nowhere.
func (a *API) v2GrantToken(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	var body v2TokenBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	repeat, err := repeatOf(q, [2]any{q.URL.Path, body})
	if err != nil {
		return err
	}
	id, token, hash, err := a.authority.DrawToken()
	if err != nil {
		return err
	}
	about(w, "token "+id)
	granted, result, err := a.registry.GrantToken(q.Context(), repeat.ID, registry.TokenGrant{
		ID: id, Hash: hash, Description: body.Description, Roles: body.Roles, Scope: body.Scope, Holder: body.Holder, TTLSeconds: body.TTLSeconds, By: actor(q),
	})
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusCreated, typeJSON, &v2TokenGranted{shownToken(granted), token})
	return nil
}

func (a *API) v2RevokeToken(w http.ResponseWriter, q *http.Request) error {
	if err := noParameters(q); err != nil {
		return err
	}
	id := q.PathValue("token")
	about(w, "token "+id)
	repeat, err := repeatOf(q, q.URL.Path)
	if err != nil {
		return err
	}
	result, err := a.registry.RevokeToken(q.Context(), repeat.ID, id)
	setRevision(w, result.Revision)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, typeJSON, &v2TokenRevoked{id, result.Revision})
	return nil
}

func (a *API) v2Tokens(w http.ResponseWriter, q *http.Request) error {
	fresh, err := a.freshOnly(q)
	if err != nil {
		return err
	}
	tokens, at, err := a.registry.AccessTokens(q.Context(), fresh.Consistency)
	if err != nil {
		return err
	}
	setRevision(w, at)
	fresh.tell(w)
	writeList(w, listHead("tokens", at), "]}", tokens, func(e *encoder, t *registry.AccessToken) { e.value(shownToken(t)) })
	return nil
}

func (a *API) v2Token(w http.ResponseWriter, q *http.Request) error {
	fresh, err := a.freshOnly(q)
	if err != nil {
		return err
	}
	token, at, err := a.registry.AccessToken(q.Context(), q.PathValue("token"), fresh.Consistency)
	setRevision(w, at)
	if err != nil {
		return err
	}
	fresh.tell(w)
	writeJSON(w, http.StatusOK, typeJSON, shownToken(token))
	return nil
}
