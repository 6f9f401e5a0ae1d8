package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// certificate is one for 127.0.0.1, and who trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))(t)
	trusted := x509.NewCertPool()
	trusted.AddCert(must(x509.ParseCertificate(der))(t))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, trusted
}

// TestServersAreSpokenToByTLS shows that a client with TLS talks to the server that it
// trusts and to no other, and that the token goes with each call.
func TestServersAreSpokenToByTLS(t *testing.T) {
	w := newWorld(t)
	w.put("orders", "a", "")
	own, trusted := certificate(t)
	var without atomic.Int64
	asked := func(ctx context.Context) {
		if !slices.Equal(metadata.ValueFromIncomingContext(ctx, "authorization"), []string{"Bearer s3cret"}) {
			without.Add(1)
		}
	}
	w.options = []grpc.ServerOption{
		grpc.Creds(credentials.NewServerTLSFromCert(&own)),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			asked(ctx)
			return next(ctx, request)
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			asked(stream.Context())
			return next(server, stream)
		}),
	}
	s := w.serve()
	c := w.client(func(c *Config) { c.Token, c.TLS = "s3cret", &tls.Config{RootCAs: trusted} }, s)
	must(c.Register(t.Context(), web("orders", "b")))(t)
	must(c.Discover(t.Context(), Query{Service: "orders"}))(t).told(t, "a b")
	mustEqual(t, "the calls without the token", without.Load(), 0)

	for name, config := range map[string]*tls.Config{"in the clear": nil, "who does not trust it": {RootCAs: x509.NewCertPool()}} {
		other := w.client(func(c *Config) { c.TLS = config }, s)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := other.Discover(ctx, Query{Service: "orders"}); err == nil {
			t.Errorf("%s: it is answered", name)
		}
		cancel()
	}
}
