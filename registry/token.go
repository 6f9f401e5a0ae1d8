package registry

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// The length of a lease token. A shorter one could be found by trying.
const (
	leaseTokenBytesMin = 16
	leaseTokenBytesMax = 128
)

// A Holder says whose call it is that changes an instance. An instance that was
// registered with a lease token is changed by those who present the same, so that
// neither a mistake in an id nor a process that lives on after its time takes
// another's instance away. An instance without one is anybody's, and so is one to
// register whose lease has run out.
//
// The zero Holder is not asked: a caller of v1, where the last writer wins, an
// operator by force, or one of this process's own parties.
type Holder struct {
	Asked bool   // for the lease token
	Token string // that he presents; "" = none
}

// TokenProblem says why a text can be nobody's lease token, or nothing.
func TokenProblem(token string) string {
	unfit := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(token) < leaseTokenBytesMin || len(token) > leaseTokenBytesMax || strings.ContainsFunc(token, unfit) {
		return fmt.Sprintf("is not allowed: %d to %d printable ASCII characters without spaces, best at random", leaseTokenBytesMin, leaseTokenBytesMax)
	}
	return ""
}

// A TokenHash is what is kept of a lease token; 0 = there is none. Half of a
// digest is beyond trying, and takes half the memory of a million.
type TokenHash [sha256.Size / 2]byte

func hashOf(token string) TokenHash {
	digest := sha256.Sum256([]byte(token))
	return TokenHash(digest[:len(TokenHash{})])
}

// record is empty for no token.
func (h TokenHash) record() []byte {
	if h == (TokenHash{}) {
		return nil
	}
	return h[:]
}

// readToken reads a stored hash; false when it is none.
func readToken(record []byte) (h TokenHash, ok bool) {
	if len(record) == 0 {
		return h, true
	}
	return h, copy(h[:], record) == len(h) && len(record) == len(h)
}

// proof is what commands have of the token that is presented. No token has the
// hash of the empty one, so who presents none proves nothing.
func (h Holder) proof() []byte {
	if !h.Asked {
		return nil
	}
	hash := hashOf(h.Token)
	return hash[:]
}

// provedBy says whether a proof is good for what has the token. How long it takes tells nothing of it.
func (h TokenHash) provedBy(proof []byte) bool {
	return len(proof) == 0 || h == (TokenHash{}) || subtle.ConstantTimeCompare(proof, h[:]) == 1
}

// heldBy says whether a proof is good for the instance.
func (i *Instance) heldBy(proof []byte) bool { return i.Token.provedBy(proof) }

// refused is why a call was not taken for its holder's.
func (h Holder) refused() error {
	if h.Token == "" {
		return ErrTokenRequired
	}
	return ErrWrongToken
}

// judge is nil unless the word of Apply is that the token was not right.
func (h Holder) judge(reply *recordv1.Result) error {
	if reply.GetCode() == recordv1.Result_CODE_WRONG_TOKEN {
		return h.refused()
	}
	return nil
}
