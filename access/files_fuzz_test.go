package access

import (
	"testing"
	"time"

	"github.com/stellmap/stellmap/access/authority"
	"github.com/stellmap/stellmap/internal/corpus"
)

// Whatever is in the files, what is made of them has an identity and an authority behind it,
// and is the same the next time; what cannot be used leaves what is in force.
func FuzzFiles(f *testing.F) {
	now := time.Now()
	a, err := authority.New(now, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	ca, _, err := a.PEM()
	if err != nil {
		f.Fatal(err)
	}
	cert, key, err := a.Issue(authority.Request{URI: peerOne, Serves: true, Validity: time.Hour / 2}, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert, key, ca, []byte(nil))
	f.Add(cert, key, append(ca, ca...), []byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	f.Add(append(cert, ca...), key, ca, []byte("rubbish"))
	f.Add(key, cert, key, ca)
	// A key stays out of files, even one that nobody uses.
	corpus.Add(f, "a certificate for a key", cert, cert, ca, []byte(nil))
	corpus.Add(f, "two authorities and an empty list", cert, []byte(nil), append(ca, ca...), []byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	corpus.Add(f, "nothing", []byte(nil), []byte(nil), []byte(nil), []byte(nil))
	files := Files{"cert.pem", "key.pem", "ca.pem", "crl.pem"}
	before, err := files.parse(contentsOf(cert, key, ca, nil), nil, nil, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, cert, key, ca, crl []byte) {
		c := contentsOf(cert, key, ca, crl)
		m, err := files.parse(c, nil, nil, now)
		if (m == nil) == (err == nil) {
			t.Fatalf("there are %v and %v", m, err)
		}
		if m != nil && (m.self == Identity{} || len(m.chain) == 0) {
			t.Errorf("a certificate without an identity is taken: %+v", m.self)
		}
		if again, errAgain := files.parse(c, nil, nil, now); (again == nil) != (m == nil) || (errAgain == nil) != (err == nil) {
			t.Errorf("the same files are %v, and then %v", err, errAgain)
		}
		if later, err := files.parse(c, before, nil, now); later != nil && err != nil && later.own != before.own {
			t.Errorf("with %v another certificate is in force", err)
		}
	})
}

func contentsOf(cert, key, ca, crl []byte) *contents {
	return &contents{cert: content{data: cert}, key: content{data: key}, ca: content{data: ca}, crl: content{data: crl}}
}
