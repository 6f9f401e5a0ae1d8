package access

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/internal/corpus"
)

const (
	login = "https://login.example.com/"
	here  = "stellmap"
)

// A voucher signs JWTs, and has a file of the keys by which he does.
type voucher struct {
	t    testing.TB
	file string
	keys map[string]crypto.Signer // by kid
	log  *syncedBuffer
}

func newVoucher(t testing.TB) *voucher {
	v := &voucher{t: t, file: filepath.Join(t.TempDir(), "jwks.json"), keys: make(map[string]crypto.Signer), log: new(syncedBuffer)}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v.keys["ed"], v.keys["ec"], v.keys["ec384"], v.keys["rsa"] = ed, newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P384()), newRSA(t, 2048)
	v.publish(v.public("ed", ""), v.public("ec", "ES256"), v.public("ec384", ""), v.public("rsa", ""))
	return v
}

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// public is the half of a key that others may have.
func (v *voucher) public(kid, algorithm string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: v.keys[kid].Public(), KeyID: kid, Algorithm: algorithm, Use: "sig"}
}

// publish writes the file.
func (v *voucher) publish(keys ...jose.JSONWebKey) {
	v.t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		v.t.Fatal(err)
	}
	v.write(string(text))
}

func (v *voucher) write(text string) {
	v.t.Helper()
	err := os.WriteFile(v.file+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(v.file+".new", v.file)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// issuer is what a member makes of him.
func (v *voucher) issuer(now func() time.Time) *Issuer {
	v.t.Helper()
	i, err := OpenIssuer(IssuerConfig{Issuer: login, Audience: here, SubjectClaim: "sub", KeysFile: v.file,
		Now: now, Logger: slog.New(slog.NewTextHandler(v.log, nil)), Registerer: prometheus.NewRegistry()})
	if err != nil {
		v.t.Fatal(err)
	}
	return i
}

// claimsOf are those of somebody whom he vouches for, good for an hour.
func claimsOf(subject string, now time.Time, others map[string]any) string {
	all := map[string]any{"iss": login, "aud": here, "sub": subject, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
	for name, value := range others {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// sign makes a JWT of claims by one of his keys, which it names, with more in its header.
func (v *voucher) sign(kid string, algorithm jose.SignatureAlgorithm, claims string, header map[string]any) string {
	v.t.Helper()
	return signBy(v.t, v.keys[kid], algorithm, claims, kid, header)
}

func signBy(t testing.TB, key any, algorithm jose.SignatureAlgorithm, claims, kid string, header map[string]any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithHeader("kid", kid)
	for name, value := range header {
		options = options.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// A JWT names somebody by each of the algorithms, to the second of its end, whichever of
// several audiences is this one, and however far his issuer's clock is ahead, up to a minute.
func TestAJWTNamesSomebody(t *testing.T) {
	v, now := newVoucher(t), time.Unix(1_800_000_000, 0)
	i := v.issuer(nil)
	for _, c := range []struct {
		kid       string
		algorithm jose.SignatureAlgorithm
		others    map[string]any
	}{
		{"rsa", jose.RS256, nil},
		{"rsa", jose.RS384, nil},
		{"rsa", jose.RS512, nil},
		{"rsa", jose.PS256, nil},
		{"ec", jose.ES256, nil},
		{"ec384", jose.ES384, nil},
		{"ed", jose.EdDSA, map[string]any{"aud": []string{"another", here}, "nbf": now.Unix() + 60, "iat": now.Unix() + 60, "exp": float64(now.Unix()) + 3600.5}},
	} {
		p, err := i.Verify(v.sign(c.kid, c.algorithm, claimsOf("ann@example.com", now, c.others), nil), now)
		if err != nil {
			t.Errorf("%s: %v", c.algorithm, err)
			continue
		}
		if p.Identity != (Identity{Role: RoleJWT, Name: "ann@example.com"}) || p.Identity.String() != "/jwt/ann@example.com" {
			t.Errorf("%s: it names %s", c.algorithm, p.Identity)
		}
		if end := now.Add(time.Hour); !i.Stands(p, end.Add(-1)) || i.Stands(p, end) {
			t.Errorf("%s: it ends at %v, want %v", c.algorithm, p.until, end)
		}
	}
}

// What is in any way not a JWT of this issuer, for this mesh, of this moment, names nobody.
// The log says why, and nothing of what it is.
func TestAJWTThatIsNotGoodNamesNobody(t *testing.T) {
	v, now := newVoucher(t), time.Unix(1_800_000_000, 0)
	v.keys["other"], v.keys["enc"], v.keys["gone"] = newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	forEncryption := v.public("enc", "ES256")
	forEncryption.Use = "enc"
	v.publish(v.public("ed", ""), v.public("ec", "ES256"), v.public("rsa", "RS256"), forEncryption)
	moment := new(clock)
	moment.at.Store(&now)
	i := v.issuer(moment.now)
	good := claimsOf("ann", now, nil)
	of := func(others map[string]any) string { return v.sign("ec", jose.ES256, claimsOf("ann", now, others), nil) }
	whole := of(nil)
	header, rest, _ := strings.Cut(whole, ".")
	body, signature, _ := strings.Cut(rest, ".")
	der, err := x509.MarshalPKIXPublicKey(v.keys["rsa"].Public())
	if err != nil {
		t.Fatal(err)
	}
	asSecret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for _, c := range []struct{ name, text, says string }{
		{"not signed", encoded(`{"alg":"none","kid":"ec"}`) + "." + encoded(good) + ".", "signed by"},
		{"not signed, in capitals", encoded(`{"alg":"NONE","kid":"ec"}`) + "." + encoded(good) + ".", "signed by"},
		{"its public key as a secret", signBy(t, asSecret, jose.HS256, good, "rsa", nil), `signed by \"HS256\"`},
		{"an algorithm that is not taken", v.sign("rsa", jose.PS512, good, nil), `signed by \"PS512\"`},
		{"an algorithm that is not the key's", v.sign("rsa", jose.RS512, good, nil), "the key \\\"rsa\\\" is for [RS256]"},
		{"another key by its name", signBy(t, v.keys["other"], jose.ES256, good, "ec", nil), "not that of the key"},
		{"a key that it brings itself", signBy(t, v.keys["other"], jose.ES256, good, "other", map[string]any{"jwk": v.public("other", "")}), "not among those"},
		{"no such key", v.sign("gone", jose.ES256, good, nil), "not among those"},
		{"no key named", signBy(t, v.keys["ec"], jose.ES256, good, "", nil), "not among those"},
		{"a key for encryption", v.sign("enc", jose.ES256, good, nil), "not among those"},
		{"other claims", header + "." + encoded(claimsOf("lin", now, nil)) + "." + signature, "not that of the key"},
		{"no signature", header + "." + body + ".", "not that of the key"},
		{"two parts", header + "." + body, "2 parts"},
		{"one part", header, "1 parts"},
		{"encrypted", header + "...." + body, "5 parts"},
		{"no header", "ey." + body + "." + signature, "header"},
		{"nested", v.sign("ec", jose.ES256, good, map[string]any{"cty": "JWT"}), `\"cty\"`},
		{"critical", v.sign("ec", jose.ES256, good, map[string]any{"crit": []string{"exp"}, "exp": 1}), "crit"},
		{"too large", of(map[string]any{"groups": strings.Repeat("g", jwtBytesMax)}), "at most 8192"},
		{"claims that are there twice", v.sign("ec", jose.ES256, strings.Replace(good, `"sub":"ann"`, `"sub":"lin","sub":"ann"`, 1), nil), "once"},
		{"no claims", v.sign("ec", jose.ES256, `"ann"`, nil), "object"},
		{"another issuer", of(map[string]any{"iss": login + "x"}), "issuer"},
		{"no issuer", of(map[string]any{"iss": nil}), "issuer"},
		{"several issuers", of(map[string]any{"iss": []string{login}}), "issuer"},
		{"for another", of(map[string]any{"aud": "another"}), "aud"},
		{"for others", of(map[string]any{"aud": []string{"another", here + "x"}}), "aud"},
		{"for nobody", of(map[string]any{"aud": nil}), "aud"},
		{"without an end", of(map[string]any{"exp": nil}), "no end"},
		{"an end that is a text", of(map[string]any{"exp": "1900000000"}), "is no time"},
		{"an end beyond all", of(map[string]any{"exp": 1e300}), "is no time"},
		{"expired", of(map[string]any{"exp": now.Unix()}), "expired"},
		{"not yet", of(map[string]any{"nbf": now.Unix() + 61}), "(nbf)"},
		{"of the future", of(map[string]any{"iat": now.Unix() + 61}), "(iat)"},
		{"nobody", of(map[string]any{"sub": nil}), `\"sub\" is missing`},
		{"a number", of(map[string]any{"sub": 7}), `\"sub\" is missing`},
		{"an empty name", of(map[string]any{"sub": ""}), "0 characters"},
		{"a long name", of(map[string]any{"sub": strings.Repeat("a", 254)}), "254 characters"},
		{"a name for all", of(map[string]any{"sub": "team/*"}), "letters, digits"},
		{"a name with a line feed", of(map[string]any{"sub": "a\nb"}), "letters, digits"},
		{"a name with an empty part", of(map[string]any{"sub": "a//b"}), "empty part"},
	} {
		moment.advance(2 * refusalsSaidEvery)
		before := len(v.log.String())
		p, err := i.Verify(c.text, now)
		said := v.log.String()[before:]
		if err == nil || p != nil {
			t.Errorf("%s: it names %v", c.name, p)
		} else if !strings.Contains(said, c.says) {
			t.Errorf("%s: the log says %q, want %q in it", c.name, said, c.says)
		}
		if strings.Contains(said, c.text) || strings.Contains(said, body) || strings.Contains(said, signature) {
			t.Errorf("%s: the log has it: %s", c.name, said)
		}
	}
	if _, err := i.Verify(whole, now); err != nil {
		t.Errorf("what all others were made from names nobody: %v", err)
	}
}

// A key may be replaced while it runs: what the old one has signed is good until it leaves
// the file, and then for nobody, also not for who was let in by it. A file that cannot be
// used changes nothing.
func TestTheKeysOfAnIssuerAreReplaced(t *testing.T) {
	v := newVoucher(t)
	v.publish(v.public("ec", ""))
	i := v.issuer(nil)
	i.every /= 20
	ctx, cancel := context.WithCancel(context.Background())
	var worker sync.WaitGroup
	worker.Go(func() { i.Run(ctx) })
	defer func() { cancel(); worker.Wait() }()
	now := time.Now()
	old, next := v.sign("ec", jose.ES256, claimsOf("ann", now, nil), nil), v.sign("ed", jose.EdDSA, claimsOf("ann", now, nil), nil)
	names := func(text string) bool { _, err := i.Verify(text, now); return err == nil }
	proof, err := i.Verify(old, now)
	if err != nil || names(next) {
		t.Fatalf("the first key is not the only one: %v", err)
	}
	v.publish(v.public("ec", ""), v.public("ed", ""))
	until(t, "the new key", func() bool { return names(next) })
	if !names(old) || !i.Stands(proof, now) {
		t.Error("the old key is not good beside the new one")
	}
	v.write(`{"keys":[`)
	until(t, "the log to say so", func() bool { return strings.Contains(v.log.String(), "cannot be used") })
	if !names(old) || !names(next) {
		t.Error("a file that cannot be used has changed something")
	}
	v.keys["ec"] = newECDSA(t, elliptic.P256())
	v.publish(v.public("ec", ""), v.public("ed", ""))
	until(t, "the old key to be gone", func() bool { return !names(old) })
	if i.Stands(proof, now) || !names(next) {
		t.Error("who came by the old key stays by another one of its name")
	}
}

// Keys that have no business in such a file are told at the start, those of another purpose
// are passed over.
func TestWhichKeysAnIssuerMayHave(t *testing.T) {
	v := newVoucher(t)
	text := func(k jose.JSONWebKey) string {
		b, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good, secret := text(v.public("ec", "")), v.public("ec", "")
	secret.Key = v.keys["ec"]
	weak := jose.JSONWebKey{Key: newRSA(t, 1024).Public(), KeyID: "weak"}
	for _, c := range []struct{ name, keys, says string }{
		{"none", ``, "no key for signatures"},
		{"a secret", good + `,{"kty":"oct","kid":"s","k":"c2VjcmV0"}`, "key 2: is a secret"},
		{"a private key", text(secret), "private half"},
		{"a weak key", text(weak), "1024 bits"},
		{"two of a name", good + "," + good, "another one, too"},
		{"a key of nobody knows what", good + `,{"kty":"XYZ","kid":"x"}`, ""},
		{"one of another algorithm", good + `,{"kty":"EC","kid":"k","alg":"ES256K","crv":"secp256k1","x":"AA","y":"AA"}`, ""},
		{"a point that is on no curve", `{"kty":"EC","kid":"k","crv":"P-256","x":"AA","y":"AA"}`, "key 1"},
		{"one without a name", strings.Replace(good, `"kid":"ec"`, `"kid":""`, 1), "no key for signatures"},
		{"one that encrypts", strings.Replace(good, `"use":"sig"`, `"key_ops":["deriveKey"]`, 1), "no key for signatures"},
		{"one that is told twice", strings.Replace(good, `"kid":"ec"`, `"kid":"a","kid":"ec"`, 1), "key 1"},
	} {
		_, err := parseJWKS([]byte(`{"keys":[` + c.keys + `]}`))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
	if _, err := OpenIssuer(IssuerConfig{Issuer: login, Audience: here, SubjectClaim: "sub", KeysFile: v.file + ".none"}); err == nil {
		t.Error("keys that are not there are taken")
	}
}

// Whom a JWT names has what bindings give him, by his name or the beginning of its path, and
// by himself nothing; a certificate cannot be such a one.
func TestBindingsAreAboutSubjectsOfJWTs(t *testing.T) {
	all := func(name string) RoleRules {
		return RoleRules{Name: name, Rules: []Rule{{Verbs: []string{"read"}, Resources: []string{"instances"}, Namespaces: []string{name}}}}
	}
	p := NewPolicy(Written{Roles: []RoleRules{all("prod"), all("test")}, Bindings: []Binding{
		{Name: "one", Roles: []string{"prod"}, Subjects: []string{"/jwt/ann@example.com"}},
		{Name: "ci", Roles: []string{"test"}, Subjects: []string{"/jwt/repo:shop/*"}},
		{Name: "others", Roles: []string{"prod", "test"}, Subjects: []string{"/operator/*", "/ns/*", "spiffe://example.org/*"}},
	}})
	may := func(subject, namespace string) bool {
		r, problem := p.As("/jwt/"+subject, "example.org", time.Now())
		if problem != "" {
			t.Errorf("%s: %s", subject, problem)
		}
		return r.Allows(Ask{Verb: "read", Resource: "instances", Namespace: namespace})
	}
	if !may("ann@example.com", "prod") || may("ann@example.com", "test") || !may("repo:shop/orders:ref:refs/heads/main", "test") || may("repo:shopping/x", "test") || may("lin", "prod") {
		t.Error("they may something else than their bindings say")
	}
	if _, problem := p.As("/jwt/a*", "example.org", time.Now()); problem == "" {
		t.Error("a subject that no JWT can have is explained")
	}
	if id, err := ParseIdentity("spiffe://example.org/jwt/ann"); err == nil {
		t.Errorf("a certificate names %s", id)
	}
}

// Whatever is sent, it names nobody whom the issuer has not named, and says nothing of itself.
func FuzzJWT(f *testing.F) {
	v, now := newVoucher(f), time.Unix(1_800_000_000, 0)
	i := v.issuer(nil)
	good := v.sign("ec", jose.ES256, claimsOf("ann", now, nil), nil)
	f.Add(good)
	f.Add(good[:len(good)-1])
	corpus.Add(f, "no header", "ey..")
	corpus.Add(f, "five parts", "eyJ.eyJ.eyJ.eyJ.eyJ")
	corpus.Add(f, "not signed", encoded(`{"alg":"none","kid":"ec"}`)+"."+encoded(`{"sub":"lin"}`)+".")
	corpus.Add(f, "not encoded", encoded(`{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}`)+".{}.AA")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := i.Verify(text, now)
		if (p == nil) == (err == nil) {
			t.Fatalf("there are %v and %v", p, err)
		}
		if p != nil && p.Identity.Name != "ann" {
			t.Errorf("it names %s", p.Identity)
		}
	})
}
