package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"

	"github.com/spf13/pflag"
)

// The variables that stand in for the flags of TLS.
const (
	caVariable   = "STELLMAP_CA"
	certVariable = "STELLMAP_CERT"
	keyVariable  = "STELLMAP_KEY"
)

// proof is what stellmapctl trusts and proves itself with, as files in PEM.
type proof struct{ ca, cert, key string }

func (p *proof) flags(flags *pflag.FlagSet) {
	flags.StringVar(&p.ca, "ca", "", "PEM file of the authorities whose servers are trusted (default: the system's); also "+caVariable)
	flags.StringVar(&p.cert, "cert", "", "PEM file of the certificate that proves who you are; also "+certVariable)
	flags.StringVar(&p.key, "key", "", "PEM file of its key; also "+keyVariable)
}

// settle takes from variables what no flag gave.
func (p *proof) settle(flags *pflag.FlagSet, lookup func(string) (string, bool)) {
	for _, one := range []struct {
		flag, variable string
		into           *string
	}{{"ca", caVariable, &p.ca}, {"cert", certVariable, &p.cert}, {"key", keyVariable, &p.key}} {
		if value, ok := lookup(one.variable); ok && !flags.Changed(one.flag) {
			*one.into = value
		}
	}
}

// config reads the files; nil where none is given.
func (p *proof) config() (*tls.Config, error) {
	if (p.cert == "") != (p.key == "") {
		return nil, usagef("--cert and --key: a certificate is of no use without its key, give both or neither")
	}
	if p.ca == "" && p.cert == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.ca != "" {
		data, err := os.ReadFile(p.ca)
		if err != nil {
			return nil, usagef("--ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, usagef("--ca: %s holds no certificate in PEM", p.ca)
		}
	}
	if p.cert != "" {
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, usagef("--cert and --key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// untrusted says what to do where TLS is why there is no answer, or "".
func untrusted(err error) string {
	var alert *net.OpError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return "--ca or " + caVariable + " names the file of the authorities to trust"
	case errors.As(err, &host):
		return "--server must be a name or an address that is in the server's certificate"
	case errors.As(err, &plain):
		return "the server speaks no TLS there: --server http://…"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return "the server wants a certificate that it trusts, of a role that may come to this port: --cert and --key, or " + certVariable + " and " + keyVariable
	}
	return ""
}
