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
type contents struct{ cert, key, ca, crl content }

// content is one file. A file that cannot be read is trouble for what needs it, and for
// nothing else.
type content struct {
	data []byte
	err  string // why there are no data; "" = there are
}

func (c content) equal(o content) bool { return c.err == o.err && bytes.Equal(c.data, o.data) }

func (c *contents) equal(o *contents) bool {
	return c != nil && c.cert.equal(o.cert) && c.key.equal(o.key) && c.ca.equal(o.ca) && c.crl.equal(o.crl)
}

func (f Files) read() *contents {
	return &contents{
		cert: readContent("certificate", f.Cert, fileBytesMax), key: readContent("key", f.Key, fileBytesMax),
		ca: readContent("authorities", f.CA, fileBytesMax), crl: readContent("revocation list", f.CRL, crlBytesMax),
	}
}

func readContent(what, path string, most int64) content {
	if path == "" {
		return content{}
	}
	data, err := readBounded(path, most)
	if err != nil {
		return content{err: fmt.Sprintf("read the %s: %v", what, err)}
	}
	return content{data: data}
}

// unread says which of several files could not be read, nil for none.
func unread(all ...content) error {
	var errs []error
	for _, c := range all {
		if c.err != "" {
			errs = append(errs, errors.New(c.err))
		}
	}
	return errors.Join(errs...)
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

// material is what a member goes by. It never changes.
type material struct {
	*own
	*trust
}

// own is what the member proves itself with.
type own struct {
	certificate tls.Certificate
	chain       []*x509.Certificate // the certificate, then those between it and the authority
	self        Identity
}

// trust is whom the member believes: the authorities, and what they have taken back. The
// two are one thing, since a list counts by whose it is.
type trust struct {
	roots   *x509.CertPool
	revoked revocations
	ca, crl []byte // what it was made of
}

// parse makes material of files; before is what is in force, nil for nothing, and right
// says whether the member's identity is the right one. A member whose own certificate
// cannot be used still has to hear of new authorities and revocations, most of all when it
// is the one revoked: then there are both, an error and material with the certificate of
// before.
func (f Files) parse(c *contents, before *material, right func(Identity) error, now time.Time) (*material, error) {
	var trusted *trust // before
	if before != nil {
		trusted = before.trust
	}
	t, err := f.parseTrust(c, trusted)
	if err != nil {
		return nil, err
	}
	o, err := f.parseOwn(c, t, right, now)
	switch {
	case err == nil:
		return &material{o, t}, nil
	case before == nil:
		return nil, err
	case before.expelledBy(t, now):
		return nil, fmt.Errorf("authorities %s: none of them stands behind the certificate in force, and another cannot be used: %w", f.CA, err)
	}
	return &material{before.own, t}, err
}

// parseTrust takes authorities and lists together or not at all. The same files are not
// read twice: a list can be long, and trouble with the certificate can last.
func (f Files) parseTrust(c *contents, before *trust) (*trust, error) {
	if err := unread(c.ca, c.crl); err != nil {
		return nil, err
	}
	if before != nil && bytes.Equal(c.ca.data, before.ca) && bytes.Equal(c.crl.data, before.crl) {
		return before, nil
	}
	authorities, err := parseAuthorities(c.ca.data)
	if err != nil {
		return nil, fmt.Errorf("authorities %s: %w", f.CA, err)
	}
	t := &trust{roots: x509.NewCertPool(), ca: c.ca.data, crl: c.crl.data}
	for _, a := range authorities {
		t.roots.AddCert(a)
	}
	t.revoked, err = parseRevocations(c.crl.data, authorities)
	if err == nil && before != nil {
		err = t.revoked.follows(before.revoked, authorities)
	}
	if err != nil {
		return nil, fmt.Errorf("revocation list %s: %w", f.CRL, err)
	}
	return t, nil
}

// parseOwn has the member take itself for what the others will take it for: else it
// would start well and be refused by everybody.
func (f Files) parseOwn(c *contents, t *trust, right func(Identity) error, now time.Time) (*own, error) {
	if err := unread(c.cert, c.key); err != nil {
		return nil, err
	}
	o := new(own)
	var err error
	if o.certificate, err = tls.X509KeyPair(c.cert.data, c.key.data); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	if err = o.introduce(t, now); err == nil && right != nil {
		err = right(o.self)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", f.Cert, err)
	}
	return o, nil
}

func (o *own) introduce(t *trust, now time.Time) (err error) {
	o.chain = []*x509.Certificate{o.certificate.Leaf}
	for _, der := range o.certificate.Certificate[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("one after the first: %w", err)
		}
		o.chain = append(o.chain, between)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := t.verify(o.chain, usage, now); err != nil {
			return fmt.Errorf("the members would refuse it: %w", err)
		}
	}
	o.self, err = IdentityOf(o.certificate.Leaf)
	return err
}

// expelledBy says that the member is in good standing now and would belong to no authority
// any more: such a file is a mistake, and would shut out everybody else, too.
func (m *material) expelledBy(next *trust, now time.Time) bool {
	var nobodys x509.UnknownAuthorityError
	return m.verify(m.chain, x509.ExtKeyUsageServerAuth, now) == nil && errors.As(next.verify(m.chain, x509.ExtKeyUsageServerAuth, now), &nobodys)
}

// verify says whether a chain, its own certificate first, leads to an authority by
// certificates of which none is revoked.
func (t *trust) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{Roots: t.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return err
	}
	for _, way := range ways {
		if err = t.revoked.check(way); err == nil {
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
