package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Mark is the organisation of every certificate made here.
const Mark = "StellMap DEVELOPMENT ONLY, not for production"

// skew is how far back certificates are good, for clocks that are not quite right.
const skew = time.Minute

// Authority signs.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// New makes an authority that signs nothing but certificates of nodes and workloads, and
// revocation lists.
func New(now time.Time, validity time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{Mark}, CommonName: "StellMap development authority"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	return &Authority{c, key}, err
}

// Load reads an authority that New has made: its certificate and its key.
func Load(cert, key []byte) (*Authority, error) {
	c, err := parseCertificate(cert)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok || !c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(signer.Public()) {
		return nil, errors.New("the key is not that of the certificate")
	}
	if !c.IsCA {
		return nil, errors.New("the certificate is no authority's")
	}
	return &Authority{c, signer}, nil
}

// PEM is the authority as Load reads it.
func (a *Authority) PEM() (cert, key []byte, err error) {
	key, err = keyPEM(a.key)
	return certPEM(a.Certificate.Raw), key, err
}

// Request is whom a certificate is for.
type Request struct {
	URI      string   // the identity; it is written as it is
	Hosts    []string // names and addresses at which its holder serves
	Serves   bool     // its holder takes connections as a member does; else it makes them only
	Validity time.Duration
}

// Issue makes a key and its certificate.
func (a *Authority) Issue(r Request, now time.Time) (cert, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{Mark}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(r.Validity), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if r.Serves {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if template.NotAfter.After(a.Certificate.NotAfter) {
		return nil, nil, fmt.Errorf("it would be good until %s, and its authority's only until %s", template.NotAfter.UTC().Format(time.RFC3339), a.Certificate.NotAfter.UTC().Format(time.RFC3339))
	}
	if r.URI != "" {
		u, err := url.Parse(r.URI)
		if err != nil {
			return nil, nil, err
		}
		template.URIs = []*url.URL{u}
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, own.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(own)
	return certPEM(der), key, err
}

// Revoke makes a list that has what old has, "" for none, and a certificate of this authority.
func (a *Authority) Revoke(old, cert []byte, now time.Time, validity time.Duration) ([]byte, error) {
	c, err := parseCertificate(cert)
	if err != nil {
		return nil, err
	}
	if err := c.CheckSignatureFrom(a.Certificate); err != nil {
		return nil, fmt.Errorf("the certificate is not of this authority: %w", err)
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-skew), NextUpdate: now.Add(validity)}
	if len(old) > 0 {
		if err := a.takeOver(list, old); err != nil {
			return nil, fmt.Errorf("the list so far: %w", err)
		}
	}
	list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Certificate, a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), err
}

func (a *Authority) takeOver(list *x509.RevocationList, old []byte) error {
	block, _ := pem.Decode(old)
	if block == nil {
		return errors.New("it is not PEM")
	}
	before, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return err
	}
	if err := before.CheckSignatureFrom(a.Certificate); err != nil {
		return err
	}
	list.RevokedCertificateEntries = before.RevokedCertificateEntries
	list.Number.Add(before.Number, big.NewInt(1))
	return nil
}

// serial is drawn, so that no two authorities or starts give the same.
func serial() *big.Int {
	random := make([]byte, 16)
	rand.Read(random) // never fails
	random[0] &= 0x7f
	return new(big.Int).SetBytes(random)
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the certificate is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
