package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// ownToken is the lease token that callers in tests choose.
const ownToken = "the-token-of-this-test"

// heldCalls are all calls of v2 that change an instance as its holder may, with
// bodies for those that want one.
var heldCalls = []struct{ method, target, body string }{
	{http.MethodPut, "", `{"endpoints":[{"protocol":"http","host":"10.0.0.7","port":80}]}`},
	{http.MethodPost, "/renew", ""},
	{http.MethodPost, "/renew", `{"leaseTtlSeconds":60}`},
	{http.MethodPost, "/drain", ""},
	{http.MethodDelete, "/drain", ""},
	{http.MethodDelete, "", ""},
}

// TestOnlyTheHolderChangesAnInstance shows that each call asks for the token, says
// which of the two mistakes it was, and has changed nothing then.
func TestOnlyTheHolderChangesAnInstance(t *testing.T) {
	const at = "/api/v2/namespaces/prod/services/orders/instances/a"
	m := newMember(t, func(c *Config) { c.AdminToken = "s3cret" })
	m.registerOwn("orders", "a")
	for _, c := range heldCalls {
		for code, headers := range map[string][]string{
			"lease_token_required": nil, "wrong_lease_token": {leaseTokenHeader + ": " + ownToken + "."},
		} {
			before := m.contents()
			w := m.must(http.StatusForbidden, c.method, at+c.target, c.body, headers...)
			mustEqual(t, "the code", strings.Contains(w.Body.String(), `"code":"`+code+`"`), true)
			mustEqual(t, "the registry after "+c.method+" "+c.target, m.contents(), before)
		}
		before := m.contents()
		m.must(http.StatusUnauthorized, c.method, at+c.target+"?force=true", c.body)
		m.must(http.StatusUnauthorized, c.method, at+c.target+"?force=true", c.body, "Authorization: Bearer "+ownToken)
		mustEqual(t, "the registry after force without the admin token", m.contents(), before)
	}
	for _, c := range heldCalls {
		m.must(http.StatusOK, c.method, at+c.target, c.body, leaseTokenHeader+": "+ownToken)
	}
	m.registerOwn("orders", "a")
	for _, c := range heldCalls {
		m.must(http.StatusOK, c.method, at+c.target+"?force=true", c.body, "Authorization: Bearer s3cret")
	}
	mustEqual(t, "that the log has no token", strings.Contains(m.logs.String(), ownToken), false)
}

// contents is the fingerprint without its revision: a refusal may be an entry.
func (m *member) contents() string {
	_, rest, _ := strings.Cut(m.fingerprint(), "\n")
	return rest
}

// TestOnlyHashesOfTokensAreKept shows that neither the state nor a request id holds what a caller presents.
func TestOnlyHashesOfTokensAreKept(t *testing.T) {
	m := newMember(t, nil)
	m.registerOwn("orders", "a")
	const key = "a-key-at-random"
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/orders/instances/b", `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}`, "Idempotency-Key: "+key)
	kept := m.contents() + strings.Join(m.log.Requests, " ")
	for _, secret := range []string{ownToken, key} {
		if strings.Contains(kept, secret) || strings.Contains(kept, hexOf(secret)) {
			t.Errorf("%s is kept", secret)
		}
	}
}

func hexOf(s string) string {
	var out strings.Builder
	for i := range len(s) {
		out.WriteByte(hexDigits[s[i]>>4])
		out.WriteByte(hexDigits[s[i]&15])
	}
	return out.String()
}

// TestARepeatedRequestIsToldTheSameToken shows that nobody is locked out whose
// answer was lost: with the same Idempotency-Key the same request has the same
// token, each registration of it its own, and nobody else's has it.
func TestARepeatedRequestIsToldTheSameToken(t *testing.T) {
	const at = "/api/v2/namespaces/prod/services/orders/instances/"
	put := func(id, key string) string {
		m := newMember(t, nil) // as if the first answer, and the entry, were another member's
		w := m.must(http.StatusCreated, http.MethodPut, at+id, `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}`, "Idempotency-Key: "+key)
		token := tokensIn(t, w.Body.Bytes())[0]
		m.must(http.StatusOK, http.MethodPost, at+id+"/renew", "", leaseTokenHeader+": "+token)
		return token
	}
	first := put("a", "k-1")
	mustEqual(t, "the token of the same request", put("a", "k-1"), first)
	batch := func(key string) []string {
		m := newMember(t, nil)
		body := `{"items":[{"register":{"namespace":"prod","service":"orders","instanceId":"a","endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}},{"register":{"namespace":"prod","service":"orders","instanceId":"b","endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}}]}`
		return tokensIn(t, m.must(http.StatusOK, http.MethodPost, "/api/v2/batch", body, "Idempotency-Key: "+key).Body.Bytes())
	}
	many := batch("k-1")
	mustEqual(t, "the tokens of the same batch", strings.Join(batch("k-1"), " "), strings.Join(many, " "))
	seen := make(map[string]bool)
	for _, token := range append(many, first, put("b", "k-1"), put("a", "k-2")) {
		if seen[token] || len(token) < 24 {
			t.Errorf("token %q is another's too, or too short", token)
		}
		seen[token] = true
	}
	mustEqual(t, "tokens", len(seen), 5)
}

// tokensIn are the lease tokens of an answer.
func tokensIn(t *testing.T, body []byte) []string {
	t.Helper()
	var answer struct {
		LeaseToken string
		Results    []struct{ LeaseToken string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	tokens := []string{answer.LeaseToken}
	if answer.Results != nil {
		tokens = nil
	}
	for _, r := range answer.Results {
		tokens = append(tokens, r.LeaseToken)
	}
	return tokens
}
