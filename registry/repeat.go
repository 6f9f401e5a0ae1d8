package registry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// A Repeat is what a caller gives with a write so that, repeated, it is done once.
// The zero Repeat is that of a call without a key: each is for itself.
type Repeat struct {
	ID  string // "" = none; of the request, as it is kept
	key string
}

// repeatKeyMax bounds what a caller makes us digest.
const repeatKeyMax = 128

// RepeatKeyProblem says why a text can be nobody's key, or nothing.
func RepeatKeyProblem(key string) string {
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	if len(key) > repeatKeyMax || strings.ContainsFunc(key, unprintable) {
		return fmt.Sprintf("is not allowed: at most %d printable ASCII characters", repeatKeyMax)
	}
	return ""
}

// RepeatOf digests a caller's key and what he asks for: a key that is used for
// another request by mistake must not have that request answered like the first,
// and lost. It is a digest since it is kept, and a lease token may follow from the key.
// What he asks for has no pointers, which would be printed as such.
func RepeatOf(key, call string, what any) Repeat {
	if key == "" {
		return Repeat{}
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%s\n%s %#v", key, call, what)) // maps are printed in order
	return Repeat{ID: hex.EncodeToString(digest[:]), key: key}
}

// Token is what an instance is registered with: what its holder presents, or
// chooses; else a new one. With a key it follows from that: who repeats a request
// because its answer was lost is told the token that was lost with it. Nobody else
// knows the key, since what is kept of it is a digest. at is the registration's
// place in the request.
func (r Repeat) Token(presented string, at int, fresh func() string) string {
	switch {
	case presented != "":
		return presented
	case r.key == "":
		return fresh()
	}
	mac := hmac.New(sha256.New, []byte(r.key))
	fmt.Fprintf(mac, "lease token %d of %s", at, r.ID)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:repeatTokenBytes])
}

// repeatTokenBytes is how much of a digest makes a token.
const repeatTokenBytes = 18
