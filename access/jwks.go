package access

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of the keys of an issuer.
const (
	jwtKeysMax    = 100
	rsaBitsMin    = 2048
	rsaBitsMax    = 4096 // what a larger one signs takes a member so long to look at that few who send it keep it busy
	kidLengthMax  = 1024
	jwksBytesMax  = fileBytesMax
	useSignature  = "sig"
	opsVerify     = "verify"
	kindSymmetric = "oct"
)

// jwtKeys are the keys by which an issuer signs. They never change.
type jwtKeys struct{ of map[string]*jwtKey } // by kid

type jwtKey struct {
	public     any
	algorithms []jose.SignatureAlgorithm // that it may be used with
	thumbprint string
}

// purpose is what a key says of itself beside what it is.
type purpose struct {
	Kind       string   `json:"kty"`
	ID         string   `json:"kid"`
	Use        string   `json:"use"`
	Algorithm  string   `json:"alg"`
	Operations []string `json:"key_ops"`
}

// parseJWKS reads a set of keys as of RFC 7517. Those that are for something else than the
// signatures of JWTs are passed over, as it says; one that should not be there at all makes the
// whole file one that is not used.
func parseJWKS(data []byte) (*jwtKeys, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("holds no JWK set: %w", err)
	}
	if len(set.Keys) > jwtKeysMax {
		return nil, fmt.Errorf("holds %d keys, at most %d", len(set.Keys), jwtKeysMax)
	}
	keys := &jwtKeys{of: make(map[string]*jwtKey)}
	for n, raw := range set.Keys {
		if err := keys.add(raw); err != nil {
			return nil, fmt.Errorf("key %d: %w", n+1, err)
		}
	}
	if len(keys.of) == 0 {
		return nil, fmt.Errorf("holds no key for signatures by any of %v that has a kid", jwtAlgorithms)
	}
	return keys, nil
}

func (k *jwtKeys) add(raw []byte) error {
	var p purpose
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	if p.Kind == kindSymmetric {
		return errors.New("is a secret (oct): whoever verifies by it could sign, too")
	}
	if !p.verifies() {
		return nil
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwk); errors.Is(err, jose.ErrUnsupportedKeyType) {
		return nil
	} else if err != nil {
		return err
	}
	key, err := newJWTKey(&jwk)
	switch {
	case err != nil || len(key.algorithms) == 0:
		return err
	case len(p.ID) > kidLengthMax:
		return fmt.Errorf("its kid has %d characters, at most %d", len(p.ID), kidLengthMax)
	case k.of[p.ID] != nil:
		return fmt.Errorf("its kid, %q, is that of another one, too", clipped(p.ID))
	}
	k.of[p.ID] = key
	return nil
}

// verifies says whether a key is for signatures of JWTs, and can be named.
func (p *purpose) verifies() bool {
	return p.ID != "" && (p.Use == "" || p.Use == useSignature) &&
		(p.Algorithm == "" || slices.Contains(jwtAlgorithms, jose.SignatureAlgorithm(p.Algorithm))) &&
		(p.Operations == nil || slices.Contains(p.Operations, opsVerify))
}

func newJWTKey(jwk *jose.JSONWebKey) (*jwtKey, error) {
	if !jwk.IsPublic() {
		return nil, errors.New("holds the private half, which is the issuer's alone")
	}
	algorithms, err := algorithmsOf(jwk.Key)
	if err != nil {
		return nil, err
	}
	if jwk.Algorithm != "" {
		algorithms = slices.DeleteFunc(algorithms, func(a jose.SignatureAlgorithm) bool { return string(a) != jwk.Algorithm })
	}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	return &jwtKey{jwk.Key, algorithms, string(thumbprint)}, err
}

// algorithmsOf are those that a key can be used with; none are of one of another kind.
func algorithmsOf(public any) ([]jose.SignatureAlgorithm, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < rsaBitsMin || n > rsaBitsMax {
			return nil, fmt.Errorf("has %d bits, want %d to %d", n, rsaBitsMin, rsaBitsMax)
		}
		return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256}, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return []jose.SignatureAlgorithm{jose.ES256}, nil
		case elliptic.P384():
			return []jose.SignatureAlgorithm{jose.ES384}, nil
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}, nil
	}
	return nil, nil
}

// parse is parseJWKS of a file as it was read.
func (c content) parseJWKS() (*jwtKeys, error) {
	if c.err != "" {
		return nil, errors.New(c.err)
	}
	return parseJWKS(bytes.TrimSpace(c.data))
}
