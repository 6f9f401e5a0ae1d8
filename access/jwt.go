package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // it is of one mind about names that are there twice: it refuses them
)

// Bounds of JWTs.
const (
	jwtBytesMax = 8 << 10
	jwtLeeway   = time.Minute // that the issuer's clock may be ahead
	jwtTimeMax  = 1 << 40     // in seconds; no clock gets there, and a number beyond is none
)

// jwtAlgorithms are those by which a JWT may be signed: by a key that only the issuer has.
// One that is not signed, or by a secret that whoever verifies it has too, is none.
var jwtAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA}

// IsJWT says that a text has the beginning of a JWT, be it good or not: that of an object
// in JSON. No token of ours has it.
func IsJWT(text string) bool { return strings.HasPrefix(text, "ey") }

// A Proof is what came of a JWT that is good: whom it names, until when, by which key.
type Proof struct {
	Identity Identity
	until    time.Time
	kid      string
	key      string // the key's thumbprint: another one may come to be called the same
}

// Verify finds out whom a JWT names. Why it names nobody the log says, and not whoever
// sends it.
func (i *Issuer) Verify(text string, now time.Time) (*Proof, error) {
	p, err := i.verify(text, now)
	if err != nil {
		i.refuse(err)
	}
	return p, err
}

// Stands says whether a proof is good still: its time is not over and its key is trusted.
func (i *Issuer) Stands(p *Proof, now time.Time) bool {
	key := i.keys.Load().of[p.kid]
	return key != nil && key.thumbprint == p.key && now.Before(p.until)
}

func (i *Issuer) verify(text string, now time.Time) (*Proof, error) {
	signed, err := parseJWT(text)
	if err != nil {
		return nil, err
	}
	header := signed.Signatures[0].Protected
	key := i.keys.Load().of[header.KeyID]
	switch {
	case key == nil:
		return nil, fmt.Errorf("the key that it names, %q, is not among those of the keys file", clipped(header.KeyID))
	case !slices.Contains(key.algorithms, jose.SignatureAlgorithm(header.Algorithm)):
		return nil, fmt.Errorf("it is signed by %s, and the key %q is for %v", header.Algorithm, clipped(header.KeyID), key.algorithms)
	}
	payload, err := signed.Verify(key.public)
	if err != nil {
		return nil, fmt.Errorf("its signature is not that of the key %q", clipped(header.KeyID))
	}
	p, err := i.prove(payload, now)
	if err != nil {
		return nil, err
	}
	p.kid, p.key = header.KeyID, key.thumbprint
	return p, nil
}

// parseJWT reads what can be read before it is known whose it is: as little as that takes.
func parseJWT(text string) (*jose.JSONWebSignature, error) {
	if len(text) > jwtBytesMax {
		return nil, fmt.Errorf("it has %d bytes, at most %d", len(text), jwtBytesMax)
	}
	if n := strings.Count(text, "."); n != 2 {
		return nil, fmt.Errorf("it has %d parts, want 3: header, claims and signature; one that is encrypted has more", n+1)
	}
	signed, err := jose.ParseSignedCompact(text, jwtAlgorithms)
	var algorithm *jose.ErrUnexpectedSignatureAlgorithm
	switch {
	case errors.As(err, &algorithm):
		return nil, fmt.Errorf("it is signed by %q, want one of %v", clipped(string(algorithm.Got)), jwtAlgorithms)
	case err != nil:
		return nil, errors.New("its header is not that of a JWT") // what the library says may hold some of it
	}
	for _, name := range []jose.HeaderKey{"crit", "b64", jose.HeaderContentType} { // what is within would be something else than claims
		if _, has := signed.Signatures[0].Protected.ExtraHeaders[name]; has {
			return nil, fmt.Errorf("its header has %q, which is not for JWTs that hold claims", name)
		}
	}
	return signed, nil
}

// claims are those of a JWT. Each is there once.
type claims map[string]json.RawMessage

// prove is who is named by claims whose signature is good.
func (i *Issuer) prove(payload []byte, now time.Time) (*Proof, error) {
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, errors.New("its claims are not an object in JSON in which each name is there once")
	}
	if issuer, _ := c.text("iss"); issuer != i.config.Issuer {
		return nil, fmt.Errorf("its issuer (iss) is %q, want %q", clipped(issuer), i.config.Issuer)
	}
	if !slices.Contains(c.audience(), i.config.Audience) {
		return nil, fmt.Errorf("it is not for %q (aud)", i.config.Audience)
	}
	until, err := c.times(now)
	if err != nil {
		return nil, err
	}
	subject, is := c.text(i.config.SubjectClaim)
	if !is {
		return nil, fmt.Errorf("its %q is missing, or no text", i.config.SubjectClaim)
	}
	id, problem := ofSubject(subject)
	if problem != "" {
		return nil, fmt.Errorf("its %q, %.300q, %s", i.config.SubjectClaim, subject, problem)
	}
	return &Proof{Identity: id, until: until}, nil
}

// text is a claim that is one.
func (c claims) text(name string) (text string, is bool) {
	var value *string
	if raw, has := c[name]; !has || json.Unmarshal(raw, &value) != nil || value == nil {
		return "", false
	}
	return *value, true
}

// audience is whom it is for: a text, or several.
func (c claims) audience() []string {
	if one, is := c.text("aud"); is {
		return []string{one}
	}
	var all []string
	if json.Unmarshal(c["aud"], &all) != nil {
		return nil
	}
	return all
}

// times says until when it is good, if it is good now. When that ends is as the issuer has
// said; that his clock is ahead by a little, so that it has yet to begin, is forgiven.
func (c claims) times(now time.Time) (until time.Time, err error) {
	until, has, err := c.time("exp")
	switch {
	case err != nil:
		return until, err
	case !has:
		return until, errors.New("it has no end (exp)")
	case !now.Before(until):
		return until, fmt.Errorf("it has expired at %s (exp)", until.UTC().Format(time.RFC3339))
	}
	for _, name := range []string{"nbf", "iat"} {
		from, has, err := c.time(name)
		if err != nil {
			return until, err
		}
		if has && from.After(now.Add(jwtLeeway)) {
			return until, fmt.Errorf("it is good from %s on (%s)", from.UTC().Format(time.RFC3339), name)
		}
	}
	return until, nil
}

func (c claims) time(name string) (at time.Time, has bool, err error) {
	raw, has := c[name]
	if !has {
		return at, false, nil
	}
	var seconds *float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds == nil || *seconds < 0 || *seconds > jwtTimeMax {
		return at, false, fmt.Errorf("its %q is no time: want the seconds since 1970, as a number", name)
	}
	return time.Unix(int64(*seconds), 0), true, nil
}

// jwtPath heads the path of a subject.
const jwtPath = "/jwt/"

// subjectMarks may be in a subject, beside letters and digits: those of addresses of mail,
// and of the names that Kubernetes, CI and others give. A slash is that of a path, so that a
// binding can be about all that begin so; a star would be about others.
const subjectMarks = ":/.-_@|+"

// ofSubject is the identity that a subject is; the problem is "" when it can be one.
func ofSubject(subject string) (id Identity, problem string) {
	if subject == "" || len(subject) > nameMax {
		return Identity{}, fmt.Sprintf("has %d characters: 1 to %d", len(subject), nameMax)
	}
	for at := range len(subject) {
		if c := subject[at]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') && strings.IndexByte(subjectMarks, c) < 0 {
			return Identity{}, fmt.Sprintf("has %q: letters, digits and %s only; auth.jwt_subject_claim takes another claim", string(c), subjectMarks)
		}
	}
	if slices.Contains(strings.Split(subject, "/"), "") {
		return Identity{}, "has an empty part between slashes: no binding could name it"
	}
	return Identity{Role: RoleJWT, Name: subject}, ""
}
