package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/access/authority"
	"github.com/stellmap/stellmap/registry"
)

// A town is a running member that asks everybody who he is, on all ports, and those who
// come there. Its ports let in who brings no certificate, so that it is the guards that
// refuse him, and the test can give tokens and roles as who administers would.
type town struct {
	*process
	node      *node
	authority *authority.Authority
	dir       string
	roots     *x509.CertPool
}

// townTime is how long a town's authority is good.
const townTime = time.Hour

func newTown(t *testing.T, args ...string) *town {
	t.Helper()
	a, err := authority.New(time.Now(), townTime)
	if err != nil {
		t.Fatal(err)
	}
	w := &town{authority: a, dir: t.TempDir(), roots: x509.NewCertPool()}
	ca, _, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	w.roots.AppendCertsFromPEM(ca)
	cert, key, err := a.Issue(authority.Request{URI: "spiffe://town.example/region/local/peer/1", Hosts: []string{"127.0.0.1"}, Serves: true, Validity: townTime / 2}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"ca.pem": ca, "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(w.file(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flags := pflag.NewFlagSet("stellmapd", pflag.ContinueOnError)
	addFlags(flags)
	args = append(args, "--auth-mode", "on", "--data-dir", w.file("data"), "--audit-file", w.file("audit.log"), "--tls-cert-file", w.file("cert.pem"), "--tls-key-file", w.file("key.pem"), "--tls-ca-file", w.file("ca.pem"),
		"--tls-http-client-auth", optional, "--tls-xds-client-auth", optional, "--tls-admin-client-auth", optional)
	if err := flags.Parse(append(args, anyPorts...)); err != nil {
		t.Fatal(err)
	}
	config, err := loadConfig("", flags, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.process = &process{t: t, stop: cancel, ended: make(chan int, 1)}
	w.node = newNode(nodeOptions{config: config, logger: slog.New(slog.NewTextHandler(w.process, nil)), stdout: w.process})
	go func() {
		err := w.node.live(ctx)
		if err != nil {
			fmt.Fprintln(w.process, err)
			w.ended <- exitFailed
			return
		}
		w.ended <- exitOK
	}()
	t.Cleanup(func() { w.end(exitOK) })
	w.until("the banner", func() bool { return strings.Contains(w.said(), "\nNext: ") })
	w.until("it to be ready", func() bool { return w.node.api.Ready() == nil && w.node.gate.ready() == nil })
	return w
}

func (w *town) file(name string) string { return filepath.Join(w.dir, name) }

// A visitor is who comes with a certificate, a token, both or nothing.
type visitor struct {
	t     *testing.T
	tls   *tls.Config
	token string
	http  *http.Client
}

// visitor makes one; "" = without a certificate.
func (w *town) visitor(path, token string) *visitor {
	w.t.Helper()
	if path == "" {
		return w.visitorOf(nil, "", token)
	}
	return w.visitorOf(w.authority, "spiffe://town.example"+path, token)
}

func (w *town) visitorOf(a *authority.Authority, uri, token string) *visitor {
	w.t.Helper()
	v := &visitor{t: w.t, token: token, tls: &tls.Config{RootCAs: w.roots}}
	if a != nil {
		cert, key, err := a.Issue(authority.Request{URI: uri, Validity: townTime / 2}, time.Now())
		if err != nil {
			w.t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			w.t.Fatal(err)
		}
		v.tls.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: v.tls.Clone()}
	v.http = &http.Client{Timeout: waitMax, Transport: transport}
	w.t.Cleanup(transport.CloseIdleConnections)
	return v
}

// name is what tests call him.
func (v *visitor) name() string {
	who := "nobody"
	if c := v.tls.Certificates; len(c) > 0 {
		who = c[0].Leaf.URIs[0].Path
	}
	if v.token != "" {
		who += " with a token"
	}
	return who
}

// patience is for as long as anything that he has open may last.
func (v *visitor) patience() context.Context {
	ctx, cancel := context.WithTimeout(v.t.Context(), 3*waitMax)
	v.t.Cleanup(cancel)
	return ctx
}

// request is one of his over HTTP.
func (v *visitor) request(method, url, body string) *http.Request {
	v.t.Helper()
	q, err := http.NewRequestWithContext(v.patience(), method, url, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	if v.token != "" {
		q.Header.Set("Authorization", "Bearer "+v.token)
	}
	return q
}

// do is how he is answered; 0 where he is not even let say anything.
func (v *visitor) do(method, url, body string) (status int, answer string) {
	v.t.Helper()
	response, err := v.http.Do(v.request(method, url, body))
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	if response.Header.Get("Content-Type") == "text/event-stream" {
		return response.StatusCode, "" // there is no end to wait for
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		v.t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// dial connects him to a gRPC port.
func (v *visitor) dial(address string) *grpc.ClientConn {
	v.t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(v.tls.Clone())), grpc.WithPerRPCCredentials(shown(v.token)))
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { conn.Close() })
	return conn
}

// stream opens one of a method, whatever it takes: it gives what reads from it.
func (v *visitor) stream(conn *grpc.ClientConn, fullMethod string) func() (*emptypb.Empty, error) {
	v.t.Helper()
	s, err := conn.NewStream(v.patience(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, fullMethod)
	if err != nil {
		v.t.Fatal(err)
	}
	return func() (*emptypb.Empty, error) {
		m := new(emptypb.Empty)
		return m, s.RecvMsg(m)
	}
}

// answered is a stream that was asked something and has answered: it is open.
func (v *visitor) answered(conn *grpc.ClientConn, fullMethod string) func() (*emptypb.Empty, error) {
	v.t.Helper()
	s, err := conn.NewStream(v.patience(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, fullMethod)
	if err == nil {
		err = s.SendMsg(&emptypb.Empty{})
	}
	if err == nil {
		err = s.RecvMsg(&emptypb.Empty{})
	}
	if err != nil {
		v.t.Fatalf("%s: %v", fullMethod, err)
	}
	return func() (*emptypb.Empty, error) {
		m := new(emptypb.Empty)
		return m, s.RecvMsg(m)
	}
}

// shown is a token that goes with each call.
type shown string

func (s shown) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(s)}, nil
}

func (shown) RequireTransportSecurity() bool { return true }

// role writes a role of one rule down.
func (w *town) role(name string, rules ...registry.Rule) {
	w.t.Helper()
	w.retry("write the role "+name, func() error {
		_, err := w.node.registry.PutRole(w.t.Context(), "", name, registry.Role{Rules: rules}, registry.Writing{})
		return err
	})
}

// grant makes a token with some roles, within a scope, good for so many seconds.
func (w *town) grant(ttl int64, scope *registry.Rule, roles ...string) string {
	w.t.Helper()
	id, text, hash, err := access.DrawToken(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	w.retry("grant a token", func() error {
		_, _, err := w.node.registry.GrantToken(w.t.Context(), "", registry.TokenGrant{ID: id, Hash: hash, Roles: roles, Scope: scope, TTLSeconds: ttl})
		return err
	})
	return text
}

func (w *town) revoke(token string) {
	w.t.Helper()
	w.retry("revoke a token", func() error {
		_, err := w.node.registry.RevokeToken(w.t.Context(), "", access.TokenID(token))
		return err
	})
}

// retry does something that is refused at most for a moment.
func (w *town) retry(what string, do func() error) {
	w.t.Helper()
	var err error
	w.until(what, func() bool {
		err = do()
		return !errors.Is(err, registry.ErrNoLeader) && !errors.Is(err, registry.ErrBusy)
	})
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}
