package access

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"time"
)

// Files are where a member has what it proves itself with and what it goes by. All are
// PEM.
type Files struct {
	Cert string // the member's certificate, then those between it and the authority
	Key  string
	CA   string // the authorities, one or more: while one takes another's place, both
	CRL  string // what they have revoked; "" = nothing
}

// Limits of files. One that is larger is refused and the one before stays in force.
const (
	fileBytesMax = 1 << 20
	crlBytesMax  = 8 << 20 // some 200,000 certificates
)

// contents are the files as they were read, to be compared with the next time.
type contents struct{ cert, key, ca, crl []byte }

func (c *contents) equal(o *contents) bool {
	return c != nil && bytes.Equal(c.cert, o.cert) && bytes.Equal(c.key, o.key) && bytes.Equal(c.ca, o.ca) && bytes.Equal(c.crl, o.crl)
}

func (f Files) read() (*contents, error) {
	c := new(contents)
	var errs []error
	for _, one := range []struct {
		what, path string
		most       int64
		into       *[]byte
	}{
		{"certificate", f.Cert, fileBytesMax, &c.cert},
		{"key", f.Key, fileBytesMax, &c.key},
		{"authorities", f.CA, fileBytesMax, &c.ca},
		{"revocation list", f.CRL, crlBytesMax, &c.crl},
	} {
		if one.path == "" {
			continue
		}
		data, err := readBounded(one.path, one.most)
		if err != nil {
			errs = append(errs, fmt.Errorf("read the %s: %w", one.what, err))
		}
		*one.into = data
	}
	return c, errors.Join(errs...)
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: has more than %d bytes", path, most)
	}
	return data, err
}

// material is what one reading of the files gave. It never changes.
type material struct {
	certificate tls.Certificate
	self        Identity
	roots       *x509.CertPool
	revoked     revocations
}

// parse makes material of files, all of it or none; before is what is in force, nil for
// nothing.
func (f Files) parse(c *contents, before *material, now time.Time) (*material, error) {
	m := new(material)
	var err error
	if m.certificate, err = tls.X509KeyPair(c.cert, c.key); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	authorities, err := parseAuthorities(c.ca)
	if err != nil {
		return nil, fmt.Errorf("authorities %s: %w", f.CA, err)
	}
	m.roots = x509.NewCertPool()
	for _, a := range authorities {
		m.roots.AddCert(a)
	}
	if m.revoked, err = parseRevocations(c.crl, authorities); err != nil {
		return nil, fmt.Errorf("revocation list %s: %w", f.CRL, err)
	}
	if before != nil {
		if err := m.revoked.follows(before.revoked, authorities); err != nil {
			return nil, fmt.Errorf("revocation list %s: %w", f.CRL, err)
		}
	}
	if err := m.introduce(now); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", f.Cert, err)
	}
	return m, nil
}

// introduce has the member take itself for what the others will take it for: else it
// would start well and be refused by everybody.
func (m *material) introduce(now time.Time) (err error) {
	chain := []*x509.Certificate{m.certificate.Leaf}
	for _, der := range m.certificate.Certificate[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("one after the first: %w", err)
		}
		chain = append(chain, between)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := m.verify(chain, usage, now); err != nil {
			return fmt.Errorf("the members would refuse it: %w", err)
		}
	}
	m.self, err = IdentityOf(m.certificate.Leaf)
	return err
}

// verify says whether a chain, its own certificate first, leads to an authority by
// certificates of which none is revoked.
func (m *material) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return err
	}
	for _, way := range ways {
		if err = m.revoked.check(way); err == nil {
			return nil
		}
	}
	return err
}

// certificatesMax bounds the authorities.
const certificatesMax = 100

func parseAuthorities(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(out) <= certificatesMax {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s, want certificates only", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		if !c.IsCA {
			return nil, fmt.Errorf("certificate %d, %q, is no authority's", len(out)+1, c.Subject)
		}
		out = append(out, c)
	}
	switch {
	case len(out) == 0:
		return nil, errors.New("holds no certificate in PEM")
	case len(out) > certificatesMax:
		return nil, fmt.Errorf("holds more than %d certificates", certificatesMax)
	case len(bytes.TrimSpace(data)) > 0:
		return nil, fmt.Errorf("holds something after certificate %d that is not PEM", len(out))
	}
	return out, nil
}

// revocations are the serial numbers that each authority has revoked, by its name as in
// the certificates.
type revocations struct {
	serials map[string]map[string]struct{}
	next    time.Time // when the first of the lists should have a newer one; zero = there is none
}

// parseRevocations reads lists as of RFC 5280. Each must be whole and signed by one of
// the authorities; what it does not say is not guessed.
func parseRevocations(data []byte, authorities []*x509.Certificate) (revocations, error) {
	r := revocations{serials: make(map[string]map[string]struct{})}
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "X509 CRL" {
			return r, fmt.Errorf("holds a %s, want X509 CRL only", block.Type)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err == nil {
			err = signedByOne(list, authorities)
		}
		if err != nil {
			return r, fmt.Errorf("list %d: %w", n, err)
		}
		r.add(list)
	}
	if len(bytes.TrimSpace(data)) > 0 {
		return r, errors.New("holds something that is not PEM")
	}
	return r, nil
}

func signedByOne(list *x509.RevocationList, authorities []*x509.Certificate) error {
	for _, e := range list.Extensions {
		if e.Critical {
			return fmt.Errorf("has the critical extension %v: want a whole list of one authority", e.Id)
		}
	}
	for _, a := range authorities {
		if bytes.Equal(a.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(a) == nil {
			return nil
		}
	}
	return fmt.Errorf("is of %q and signed by none of the authorities of that name", list.Issuer)
}

func (r *revocations) add(list *x509.RevocationList) {
	of := r.serials[string(list.RawIssuer)]
	if of == nil {
		of = make(map[string]struct{}, len(list.RevokedCertificateEntries))
		r.serials[string(list.RawIssuer)] = of
	}
	for _, e := range list.RevokedCertificateEntries {
		of[keyOf(e.SerialNumber)] = struct{}{}
	}
	if r.next.IsZero() || list.NextUpdate.Before(r.next) {
		r.next = list.NextUpdate
	}
}

// follows refuses to lose the list of an authority that is still trusted: a file that is
// just being written may be empty, and nobody shall come in by that.
func (r revocations) follows(before revocations, authorities []*x509.Certificate) error {
	for _, a := range authorities {
		_, was := before.serials[string(a.RawSubject)]
		if _, is := r.serials[string(a.RawSubject)]; was && !is {
			return fmt.Errorf("has no list of %q any more, and that is still an authority", a.Subject)
		}
	}
	return nil
}

func keyOf(serial *big.Int) string { return string(serial.Bytes()) }

// errRevoked is of a certificate whose authority has taken it back.
var errRevoked = errors.New("revoked by its authority")

// check says which certificate of a way is revoked. The authority at its end is not
// asked about: who distrusts it takes it out of the file.
func (r revocations) check(way []*x509.Certificate) error {
	for _, c := range way[:len(way)-1] {
		if _, is := r.serials[string(c.RawIssuer)][keyOf(c.SerialNumber)]; is {
			return fmt.Errorf("certificate %x of %q: %w", c.SerialNumber, c.Subject, errRevoked)
		}
	}
	return nil
}
