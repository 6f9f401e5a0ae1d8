package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// A network makes tries over the network, within the rules.
type network struct {
	rules   Rules
	roots   *x509.CertPool
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	denied  prometheus.Counter
}

func newNetwork(rules Rules, roots *x509.CertPool, denied prometheus.Counter) *network {
	return &network{rules: rules, roots: roots, denied: denied, resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
}

// An attempt is one try: at one address, which the rules have allowed.
type attempt struct {
	*network
	check registry.Check
	host  string // as registered: whose certificate it must be
	at    netip.AddrPort
}

var passes = Outcome{Status: registry.StatusPassing}

func fails(format string, args ...any) Outcome {
	return Outcome{Status: registry.StatusCritical, Reason: fmt.Sprintf(format, args...)}
}

func warns(format string, args ...any) Outcome {
	return Outcome{Status: registry.StatusWarning, Reason: fmt.Sprintf(format, args...)}
}

// try makes a check once.
func (n *network) try(ctx context.Context, check registry.Check, endpoint registry.Endpoint) Outcome {
	at, refused, err := n.pin(ctx, endpoint)
	switch {
	case refused != "":
		n.denied.Inc()
		return fails("not tried: %s", refused)
	case err != nil:
		return fails("%v", err)
	}
	a := &attempt{n, check, endpoint.Host, at}
	var o Outcome
	switch check.Kind {
	case registry.CheckHTTP, registry.CheckHTTPS:
		o = a.http(ctx)
	case registry.CheckGRPC, registry.CheckGRPCS:
		o = a.grpc(ctx)
	case registry.CheckTCP, registry.CheckTLS:
		o = a.talk(ctx)
	case registry.CheckRedis:
		o = a.redis(ctx)
	case registry.CheckMySQL:
		o = a.mysql(ctx)
	default:
		return fails("not tried: this version does not know checks of kind %s", check.Kind)
	}
	if o.Status != registry.StatusPassing && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		o.Reason = fmt.Sprintf("nothing within %v: %s", check.Timeout(), o.Reason)
	}
	return o
}

// pin is the address that is tried. Where a name stands for several, all must be
// allowed: which of them a server answers with is not for it to choose.
func (n *network) pin(ctx context.Context, e registry.Endpoint) (at netip.AddrPort, refused string, err error) {
	if at, ok := e.Address(); ok {
		return at, n.rules.Check(at.Addr()), nil
	}
	addresses, err := n.resolve(ctx, e.Host)
	if err != nil {
		return netip.AddrPort{}, "", fmt.Errorf("resolve %s: %w", e.Host, err)
	}
	if len(addresses) == 0 {
		return netip.AddrPort{}, "", fmt.Errorf("resolve %s: it has no address", e.Host)
	}
	for _, ip := range addresses {
		if reason := n.rules.Check(ip); reason != "" {
			return netip.AddrPort{}, fmt.Sprintf("%s stands for an address that is not allowed: %s", e.Host, reason), nil
		}
	}
	return netip.AddrPortFrom(addresses[0].Unmap(), uint16(e.Port)), "", nil
}

// dial connects to the pinned address, whatever it is asked for. The connection
// waits for nothing any more once the try is over.
func (a *attempt) dial(ctx, try context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.at.String())
	if err != nil {
		return nil, err
	}
	context.AfterFunc(try, func() { conn.SetDeadline(time.Unix(1, 0)) }) // a closed one does not mind
	return conn, nil
}

// connect is dial, with TLS where the kind has it.
func (a *attempt) connect(ctx context.Context) (net.Conn, error) {
	conn, err := a.dial(ctx, ctx)
	if err != nil || a.check.Kind != registry.CheckTLS && a.check.Kind != registry.CheckHTTPS {
		return conn, err
	}
	secured := tls.Client(conn, a.tls())
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// tls verifies the certificate, unless the check says that any is good.
func (a *attempt) tls() *tls.Config {
	name := a.check.ServerName
	if name == "" {
		name = a.host
	}
	return &tls.Config{RootCAs: a.roots, ServerName: name, InsecureSkipVerify: a.check.TLSSkipVerify, MinVersion: tls.VersionTLS12}
}

// authority is what servers of several names are asked for.
func (a *attempt) authority() string {
	return net.JoinHostPort(a.host, strconv.Itoa(int(a.at.Port())))
}
