package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// leaseTokenHeader is where a caller of v2 shows that an instance is his.
const leaseTokenHeader = "X-StellMap-Lease-Token"

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
	p.only("force")
	force := p.first("force")
	if force != "" && force != "true" && force != "false" {
		p.add("force", "is not a truth value: true or false")
	}
	token := q.Header.Get(leaseTokenHeader)
	if problem := registry.TokenProblem(token); token != "" && problem != "" {
		p.add(leaseTokenHeader, problem)
	}
	if err := p.err(); err != nil {
		return registry.Holder{}, err
	}
	if force == "true" && !a.knows(q) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="stellmap admin"`)
		return registry.Holder{Asked: true}, errUnauthorized
	}
	return registry.Holder{Asked: force != "true", Token: token}, nil
}

// leaseToken is what an instance is registered with: what its holder presents, or
// chooses; else a new one. With an Idempotency-Key that follows from the key: who
// repeats a request because its answer was lost is told the token that was lost
// with it. Nobody else knows the key, since what is kept of it is a digest. at is
// the registration's place in the request.
func (a *API) leaseToken(q *http.Request, presented, requestID string, at int) string {
	if presented != "" {
		return presented
	}
	key := q.Header.Get(idempotencyKey)
	if key == "" {
		return a.newToken()
	}
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "lease token %d of %s", at, requestID)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:leaseTokenBytes])
}

// leaseTokenBytes is how much of a digest makes a token.
const leaseTokenBytes = 18
