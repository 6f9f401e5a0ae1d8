package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/access/authority"
)

// certs runs commands that must succeed, one after the other.
func certs(t *testing.T, lines ...[]string) {
	t.Helper()
	for _, args := range lines {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, noEnvironment, &out, &errs); code != exitOK {
			t.Fatalf("%v: exit code %d\n%s", args, code, errs.String())
		}
		if args[1] != "revoke" && !strings.Contains(out.String(), "DEVELOPMENT") {
			t.Errorf("%v does not say what it is for: %s", args, out.String())
		}
	}
}

// An authority, a member's certificate and an operator's: marked, keys for their owner only, nothing
// overwritten unasked, and what is revoked is in the list.
func TestCertificatesForDevelopment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	member := []string{"cert", "issue", "--dir", dir, "--uri", "spiffe://dev.example/region/local/peer/1", "--host", "localhost,127.0.0.1", "--name", "n1"}
	lin := []string{"cert", "issue", "--dir", dir, "--uri", "spiffe://dev.example/operator/lin", "--name", "lin"}
	certs(t, []string{"cert", "ca", "--dir", dir}, member, lin, []string{"cert", "revoke", "--dir", dir, filepath.Join(dir, "lin.pem")}, append(lin, "--overwrite"))
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o644, "ca-key.pem": 0o600, "n1.pem": 0o644, "n1-key.pem": 0o600, "crl.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), mode)
		}
	}
	for _, again := range [][]string{{"cert", "ca", "--dir", dir}, member} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), again, noEnvironment, &out, &errs); code != exitFailed || !strings.Contains(errs.String(), "is there already") {
			t.Errorf("%v again: exit code %d, %s", again, code, errs.String())
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "n1.pem"), filepath.Join(dir, "n1-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if marked := pair.Leaf.Subject.Organization; len(marked) != 1 || marked[0] != authority.Mark {
		t.Errorf("the certificate is not marked: %v", pair.Leaf.Subject)
	}
	if _, err := access.Open(access.Config{Files: access.Files{
		Cert: filepath.Join(dir, "n1.pem"), Key: filepath.Join(dir, "n1-key.pem"), CA: filepath.Join(dir, "ca.pem"), CRL: filepath.Join(dir, "crl.pem"),
	}, Self: access.Peer("local", 1)}); err != nil {
		t.Errorf("a member does not start with them: %v", err)
	}
}

// With the authority and a certificate a server with TLS answers; without either the error says which flag is missing.
func TestServersWithTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	certs(t, []string{"cert", "ca", "--dir", dir},
		[]string{"cert", "issue", "--dir", dir, "--uri", "spiffe://dev.example/region/local/peer/1", "--host", "127.0.0.1", "--name", "n1"},
		[]string{"cert", "issue", "--dir", dir, "--uri", "spiffe://dev.example/operator/lin", "--name", "lin"})
	pair, err := tls.LoadX509KeyPair(file("n1.pem"), file("n1-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"members":[]}`))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	defer s.Close()
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		exit int
		says string
	}{
		{"both", []string{"--ca", file("ca.pem"), "--cert", file("lin.pem"), "--key", file("lin-key.pem")}, nil, exitOK, ""},
		{"both from variables", nil, map[string]string{caVariable: file("ca.pem"), certVariable: file("lin.pem"), keyVariable: file("lin-key.pem")}, exitOK, ""},
		{"no authority", nil, nil, exitUnreachable, "--ca or STELLMAP_CA"},
		{"no certificate", []string{"--ca", file("ca.pem")}, nil, exitUnreachable, "--cert and --key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(t.Context(), append([]string{"--server", s.URL, "member", "list"}, c.args...), func(k string) (string, bool) { v, ok := c.env[k]; return v, ok }, &out, &errs)
			if code != c.exit || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit code %d, want %d and %q: %s%s", code, c.exit, c.says, out.String(), errs.String())
			}
		})
	}
}
