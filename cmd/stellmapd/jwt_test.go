package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

const login = "https://login.example.com/"

// An office gives those JWTs who have no certificate.
type office struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	file string // of its keys
}

func newOffice(t *testing.T) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t, key, filepath.Join(t.TempDir(), "jwks.json")}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Use: "sig", Algorithm: "ES256"}}})
	if err == nil {
		err = os.WriteFile(o.file, keys, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) settings() []string {
	return []string{"--jwt-issuer", login, "--jwt-audience", "stellmap", "--jwt-keys-file", o.file}
}

// vouch is a JWT for somebody, good until a time.
func (o *office) vouch(subject string, until time.Time) string {
	o.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: o.key}, (&jose.SignerOptions{}).WithHeader("kid", "k1"))
	if err != nil {
		o.t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"iss": login, "aud": "stellmap", "sub": subject, "exp": until.Unix()})
	if err != nil {
		o.t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// bind gives somebody roles.
func (w *town) bind(name, subject string, roles ...string) {
	w.t.Helper()
	w.retry("bind "+subject, func() error {
		_, err := w.node.registry.PutBinding(w.t.Context(), "", name, registry.Binding{Roles: roles, Subjects: []string{subject}}, registry.Writing{})
		return err
	})
}

// Who comes with a JWT is whom it names, and may do what bindings give him: over HTTP and
// gRPC, whatever certificate he has besides. Who has no binding is somebody, and may do
// nothing. What he is not let do is in the audit log by his name, and a JWT is nowhere.
func TestWhoComesWithAJWT(t *testing.T) {
	o := newOffice(t)
	w := newTown(t, o.settings()...)
	w.bind("mail", "/jwt/ann@example.com", registry.RoleReader)
	w.bind("ci", "/jwt/repo:shop/*", registry.RoleAdmin)
	soon := time.Now().Add(townTime)
	public := w.address("HTTP")
	ann, ci, lin := w.visitor("", o.vouch("ann@example.com", soon)), w.visitor("", o.vouch("repo:shop/orders:ref:refs/heads/main", soon)), w.visitor("", o.vouch("lin", soon))
	both := w.visitor("/operator/lin", lin.token)
	forged, late := w.visitor("", newOffice(t).vouch("ann@example.com", soon)), w.visitor("", o.vouch("ann@example.com", time.Now().Add(-time.Minute)))
	lateToo := w.visitor("/operator/lin", late.token)
	for _, c := range []struct {
		who         *visitor
		method, url string
		want        int
	}{
		{ann, http.MethodGet, "/api/v2/instances", http.StatusOK},
		{ann, http.MethodPut, orders + "a", http.StatusForbidden},
		{ci, http.MethodPut, orders + "a", http.StatusCreated},
		{lin, http.MethodGet, orders + "a", http.StatusForbidden},
		{both, http.MethodGet, orders + "a", http.StatusForbidden}, // the certificate does not count
		{forged, http.MethodGet, orders + "a", http.StatusUnauthorized},
		{late, http.MethodGet, orders + "a", http.StatusUnauthorized},
		{lateToo, http.MethodGet, orders + "a", http.StatusUnauthorized},
	} {
		if code, body := c.who.do(c.method, public+c.url, oneEndpoint); code != c.want {
			t.Errorf("%s %s as %s: %d, want %d: %s", c.method, c.url, c.who.name(), code, c.want, body)
		}
	}
	if _, body := ann.do(http.MethodGet, public+"/api/v2/access/whoami", ""); !strings.Contains(body, `"who":"/jwt/ann@example.com"`) || !strings.Contains(body, `"by":"binding mail"`) {
		t.Errorf("who asks who he is is told %s", body)
	}
	if _, body := ci.do(http.MethodPost, public+"/api/v2/access/explain", `{"verb":"write","resource":"policies","namespace":"prod","as":"/jwt/ann@example.com"}`); !strings.Contains(body, `"who":"/jwt/ann@example.com"`) || !strings.Contains(body, `"allowed":false`) {
		t.Errorf("why he may not is told as %s", body)
	}
	if err := lin.refused(lin.dial(w.address("xDS")), "/stellmap.v1.RegistryService/Watch"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a watch over gRPC of who has no binding ends with %v", err)
	}
	w.until("the audit log to have it", func() bool {
		log, err := os.ReadFile(w.file("audit.log"))
		return err == nil && strings.Contains(string(log), `"token":"/jwt/ann@example.com"`) && strings.Contains(string(log), `"token":"/jwt/lin"`) && strings.Contains(string(log), `"token":"/jwt/repo:shop/orders:ref:refs/heads/main"`)
	})
	log, err := os.ReadFile(w.file("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*visitor{ann, ci, lin, forged, late} {
		if parts := strings.Split(v.token, "."); strings.Contains(w.said()+string(log), parts[1]) || strings.Contains(w.said()+string(log), parts[2]) {
			t.Errorf("the log has the JWT of %s", v.name())
		}
	}
	if !strings.Contains(w.said(), "a JWT was refused") {
		t.Errorf("the log does not say why: %s", w.said())
	}
}

// What is open by a JWT ends when its time is over.
func TestWhatIsOpenByAJWTEndsWithIt(t *testing.T) {
	o := newOffice(t)
	w := newTown(t, o.settings()...)
	public := w.address("HTTP")
	w.bind("ann", "/jwt/ann", registry.RoleReader)
	stays := w.visitor("", o.vouch("ann", time.Now().Add(townTime))).watch(public)
	v := w.visitor("", o.vouch("ann", time.Now().Add(5*time.Second))) // long enough to begin it all
	ads := v.stream(v.dial(w.address("xDS")), "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if last := v.watch(public).last(); last != `event: error|data: {"type":"error","code":"unauthenticated"` {
		t.Errorf("a stream ends with %s", last)
	}
	if err := end(ads); status.Code(err) != codes.Unauthenticated {
		t.Errorf("ADS ends with %v", err)
	}
	select {
	case <-stays.ended:
		t.Errorf("another one of his has ended, with %s", stays.last())
	default:
	}
}

// Without a setting a JWT is nothing; with one it names somebody until its time is over.
func TestWithoutAnIssuerAJWTIsNothing(t *testing.T) {
	o, w := newOffice(t), newWarden(t)
	text := o.vouch("ann", w.time.Add(time.Hour))
	const method = "/stellmap.v1.RegistryService/GetService"
	if code := w.call(method, "Bearer "+text); code != codes.Unauthenticated {
		t.Errorf("it is answered with %v", code)
	}
	var err error
	if w.issuer, err = access.OpenIssuer(access.IssuerConfig{Issuer: login, Audience: "stellmap", SubjectClaim: "sub", KeysFile: o.file}); err != nil {
		t.Fatal(err)
	}
	if code := w.call(method, "Bearer "+text); code != codes.PermissionDenied {
		t.Errorf("with an issuer it is answered with %v", code)
	}
	w.time = w.time.Add(time.Hour)
	if code := w.call(method, "Bearer "+text); code != codes.Unauthenticated {
		t.Errorf("an hour later it is answered with %v", code)
	}
}
