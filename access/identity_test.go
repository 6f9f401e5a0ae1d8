package access

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/corpus"
)

// Each role has one form of URI, and that form comes back from what was read.
func TestIdentitiesAreRead(t *testing.T) {
	for uri, want := range map[string]Identity{
		"spiffe://example.org/region/cn-bj/peer/3":                   {Role: RolePeer, Region: "cn-bj", PeerID: 3},
		"spiffe://example.org/region/cn-bj/peer/9223372036854775807": {Role: RolePeer, Region: "cn-bj", PeerID: 1<<63 - 1},
		"spiffe://example.org/replicator/cn-sh":                      {Role: RoleReplicator, Region: "cn-sh"},
		"spiffe://example.org/ns/prod/sa/orders":                     {Role: RoleWorkload, Namespace: "prod", Name: "orders"},
		"spiffe://example.org/operator/lin":                          {Role: RoleOperator, Name: "lin"},
		"spiffe://example.org/operator/" + strings.Repeat("a", 253):  {Role: RoleOperator, Name: strings.Repeat("a", 253)},
	} {
		want.TrustDomain = "example.org"
		got, err := ParseIdentity(uri)
		if err != nil || got != want {
			t.Errorf("%s is %+v (%v), want %+v", uri, got, err, want)
		}
		if got.String() != uri {
			t.Errorf("%s is written as %s", uri, got)
		}
	}
}

// malformed are URIs that name nobody, with a part of why.
var malformed = []struct{ name, uri, why string }{
	{"empty", "", "cannot be empty"},
	{"another scheme", "https://example.org/operator/lin", "scheme"},
	{"upper-case scheme", "SPIFFE://example.org/operator/lin", "scheme"},
	{"no trust domain", "spiffe:///operator/lin", "trust domain"},
	{"upper-case trust domain", "spiffe://Example.org/operator/lin", "trust domain"},
	{"a port", "spiffe://example.org:443/operator/lin", "trust domain"},
	{"a user", "spiffe://root@example.org/operator/lin", "trust domain"},
	{"a query", "spiffe://example.org/operator/lin?admin=1", "path"},
	{"a fragment", "spiffe://example.org/operator/lin#admin", "path"},
	{"an escape", "spiffe://example.org/operator/l%69n", "path"},
	{"an escaped slash", "spiffe://example.org/ns/a%2fsa%2fb/sa/c", "path"},
	{"a blank", "spiffe://example.org/operator/l in", "path"},
	{"no path", "spiffe://example.org", "no role"},
	{"a slash only", "spiffe://example.org/", "path"},
	{"a slash at the end", "spiffe://example.org/operator/lin/", "path"},
	{"an empty part", "spiffe://example.org/ns//sa/orders", "path"},
	{"a dot", "spiffe://example.org/ns/./sa/orders", "path"},
	{"two dots", "spiffe://example.org/ns/../sa/orders", "path"},
	{"another letter", "spiffe://example.org/operator/lín", "path"},
	{"a role without a name", "spiffe://example.org/operator", "no role"},
	{"a role in upper case", "spiffe://example.org/Operator/lin", "no role"},
	{"a part too many", "spiffe://example.org/operator/lin/root", "no role"},
	{"a region alone", "spiffe://example.org/region/cn-bj", "no role"},
	{"a peer without an id", "spiffe://example.org/region/cn-bj/peer", "no role"},
	{"a peer's id is 0", "spiffe://example.org/region/cn-bj/peer/0", "node id"},
	{"a peer's id with a zero before it", "spiffe://example.org/region/cn-bj/peer/03", "node id"},
	{"a peer's id is negative", "spiffe://example.org/region/cn-bj/peer/-3", "node id"},
	{"a peer's id is a word", "spiffe://example.org/region/cn-bj/peer/three", "node id"},
	{"a peer's id is too large", "spiffe://example.org/region/cn-bj/peer/9223372036854775808", "node id"},
	{"a name too long", "spiffe://example.org/operator/" + strings.Repeat("a", 254), "254"},
}

// What is not exactly of a role's form names nobody, and the error says what is wrong.
func TestMalformedIdentitiesAreRefused(t *testing.T) {
	for _, c := range malformed {
		t.Run(c.name, func(t *testing.T) {
			id, err := ParseIdentity(c.uri)
			if !errors.Is(err, ErrIdentity) || id != (Identity{}) {
				t.Fatalf("%q is %v (%v), want a refusal", c.uri, id, err)
			}
			if !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v: does not say %q", err, c.why)
			}
		})
	}
}

// A certificate names somebody by exactly one URI: not by its common name, not by a host
// name, and not when it has two (CVE-2018-16886, CVE-2022-40716, CVE-2026-24281).
func TestACertificateHasExactlyOneIdentity(t *testing.T) {
	lin, root := mustURL(t, "spiffe://example.org/operator/lin"), mustURL(t, "spiffe://example.org/operator/root")
	named := &x509.Certificate{DNSNames: []string{"spiffe://example.org/operator/lin"}}
	named.Subject.CommonName = "spiffe://example.org/operator/lin"
	for _, c := range []struct {
		name string
		of   *x509.Certificate
		want error
	}{
		{"one", &x509.Certificate{URIs: []*url.URL{lin}}, nil},
		{"none, whatever its names", named, ErrNoIdentity},
		{"two", &x509.Certificate{URIs: []*url.URL{lin, root}}, ErrIdentity},
		{"one twice", &x509.Certificate{URIs: []*url.URL{lin, lin}}, ErrIdentity},
		{"another URI beside it", &x509.Certificate{URIs: []*url.URL{lin, mustURL(t, "https://example.org/")}}, ErrIdentity},
		{"an authority's", &x509.Certificate{URIs: []*url.URL{lin}, IsCA: true}, ErrIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := IdentityOf(c.of); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// What is read as an identity is written the same, so that no two URIs are one identity.
func FuzzIdentities(f *testing.F) {
	for _, c := range malformed {
		f.Add(c.uri)
	}
	corpus.Add(f, "a peer", "spiffe://example.org/region/cn-bj/peer/3")
	corpus.Add(f, "a workload", "spiffe://example.org/ns/prod/sa/orders")
	corpus.Add(f, "an escaped slash", "spiffe://example.org/ns/a%2fsa%2fb/sa/c")
	corpus.Add(f, "two dots", "spiffe://example.org/ns/../sa/orders")
	corpus.Add(f, "a zero before the number", "spiffe://example.org/region/cn-bj/peer/03")
	corpus.Add(f, "a user", "spiffe://root@example.org/operator/lin")
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := ParseIdentity(uri)
		if err != nil && id != (Identity{}) || err == nil && id.String() != uri {
			t.Fatalf("%q is read as %q (%v)", uri, id, err)
		}
	})
}
