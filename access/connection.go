package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// connection is one that a Source may cut. It is known to it from when its other side has
// proved who it is until it is closed.
type connection struct {
	net.Conn
	source *Source
	port   string
	usage  x509.ExtKeyUsage // of the other side's certificate

	chain []*x509.Certificate // set by admit, before it is entered
	since time.Time           // when the chain was good
	who   atomic.Pointer[Identity]
}

func (c *connection) Close() error {
	c.source.leave(c)
	return c.Conn.Close()
}

func (c *connection) identity() (Identity, bool) {
	if id := c.who.Load(); id != nil {
		return *id, true
	}
	return Identity{}, false
}

// listener gives its connections TLS. The handshake is made when one is first read, which
// is in the goroutine that serves it: who never ends it holds up nobody.
type listener struct {
	net.Listener
	source *Source
	door   Door
}

// Listener is l with TLS, for HTTP.
func (s *Source) Listener(l net.Listener, d Door) net.Listener { return listener{l, s, d} }

func (l listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := l.source.incoming(raw, l.door)
	return tls.Server(c, l.source.serve(l.door, c)), nil
}

func (s *Source) incoming(raw net.Conn, d Door) *connection {
	return &connection{Conn: raw, source: s, port: d.Port, usage: x509.ExtKeyUsageClientAuth}
}

// outgoing is the port of connections to other members.
const outgoing = "out"

func (s *Source) outgoing(raw net.Conn) *connection {
	return &connection{Conn: raw, source: s, port: outgoing, usage: x509.ExtKeyUsageServerAuth}
}

// Dial connects to a member whom expected takes, for HTTP.
func (s *Source) Dial(ctx context.Context, address string, expected func(Identity) error) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := s.outgoing(raw)
	secure := tls.Client(c, s.ask(c, expected))
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return secure, nil
}

// server and client are TLS for gRPC. Each handshake has settings of its own, by which the
// connection is known afterwards.
type server struct {
	credentials.TransportCredentials
	source *Source
	door   Door
}

type client struct {
	credentials.TransportCredentials
	source   *Source
	expected func(Identity) error
}

// Server is what a gRPC server takes on a port.
func (s *Source) Server(d Door) credentials.TransportCredentials {
	return server{credentials.NewTLS(nil), s, d}
}

// Client is what a gRPC client takes for connections to a member whom expected takes.
func (s *Source) Client(expected func(Identity) error) credentials.TransportCredentials {
	return client{credentials.NewTLS(nil), s, expected}
}

func (s server) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := s.source.incoming(raw, s.door)
	secure, info, err := credentials.NewTLS(s.source.serve(s.door, c)).ServerHandshake(c)
	return c.shaken(secure, info, err)
}

func (s server) Clone() credentials.TransportCredentials { return s }

func (s client) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := s.source.outgoing(raw)
	secure, info, err := credentials.NewTLS(s.source.ask(c, s.expected)).ClientHandshake(ctx, authority, c)
	return c.shaken(secure, info, err)
}

func (s client) Clone() credentials.TransportCredentials { return s }

// shaken is the end of a handshake; of one that failed nothing stays.
func (c *connection) shaken(secure net.Conn, info credentials.AuthInfo, err error) (net.Conn, credentials.AuthInfo, error) {
	if err != nil {
		c.source.leave(c)
		return nil, nil, err
	}
	return secure, authInfo{info.(credentials.TLSInfo), c}, nil
}

// authInfo is TLS's, with who the other side is.
type authInfo struct {
	credentials.TLSInfo
	connection *connection
}

type contextKey struct{}

// ConnContext has the contexts of what comes over an HTTP connection know who sent it.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if known, ok := c.(*connection); ok {
		return context.WithValue(ctx, contextKey{}, known)
	}
	return ctx
}

// FromContext is who asks, over HTTP or gRPC; false where nobody had to prove it, or
// nobody has.
func FromContext(ctx context.Context) (Identity, bool) {
	if c, ok := ctx.Value(contextKey{}).(*connection); ok {
		return c.identity()
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(authInfo); ok {
			return info.connection.identity()
		}
	}
	return Identity{}, false
}
