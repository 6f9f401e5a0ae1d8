package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/xds"
)

// clientAuthKeys are what says of a port whether its clients must prove who they are.
// That of the members has none: they always must.
var clientAuthKeys = map[string]string{
	"server.http_addr": "tls.http_client_auth", "server.xds_addr": "tls.xds_client_auth", "server.admin_addr": "tls.admin_client_auth",
}

// giveTLS is what to do about ports and regions that need it.
const giveTLS = "give tls.cert_file, tls.key_file and tls.ca_file, or tls.workload_api"

// hasTLS says whether the ports have TLS.
func (c *Config) hasTLS() bool { return c.TLS.CertFile != "" || c.TLS.WorkloadAPI != "" }

// elsewhere says of an address that it is not on loopback.
func elsewhere(address string) string {
	return fmt.Sprintf("%q is not on loopback (127.0.0.0/8, ::1, localhost)", address)
}

// beyond says why a port may not listen where it is to, or "". Beyond loopback nobody is
// let in who has not proved who it is.
func (l *loader) beyond(s setting) string {
	address := l.text(s)
	if s.kind != kindListen || onLoopback(address) || l.viper.GetString(beyondKey) == on {
		return ""
	}
	if l.viper.GetString("tls.cert_file") == "" && l.viper.GetString("tls.workload_api") == "" {
		return elsewhere(address) + "; beyond it nothing listens without TLS and authentication: " + giveTLS
	}
	if key := clientAuthKeys[s.key]; key != "" && l.viper.GetString(key) != require && l.viper.GetString(authModeKey) != on { // where it is on by itself, an upgrade has done that
		return fmt.Sprintf("%s; beyond it nothing listens without authentication: set %s to %q, or %s to %q", elsewhere(address), key, require, authModeKey, on)
	}
	return ""
}

// inTheClear says why another region may not be followed where it is, or "". Beyond
// loopback neither a token is sent nor anything believed that nobody has signed.
func (c *Config) inTheClear(addresses []string) string {
	at := slices.IndexFunc(addresses, func(one string) bool { return !onLoopback(one) })
	if at < 0 || c.hasTLS() || c.Server.InsecureBeyondLoopback == on {
		return ""
	}
	return elsewhere(addresses[at]) + "; without TLS the token would go there in the clear, and whoever answers would be believed: " + giveTLS
}

// checkTLS: the certificate, its key and the authorities belong together or come from an
// agent, and the rest belongs to them.
func (l *loader) checkTLS(c Config) {
	given := map[string]string{"tls.cert_file": c.TLS.CertFile, "tls.key_file": c.TLS.KeyFile, "tls.ca_file": c.TLS.CAFile}
	some := c.TLS.CertFile+c.TLS.KeyFile+c.TLS.CAFile != ""
	for _, s := range settings {
		switch value, needed := given[s.key]; {
		case needed && c.TLS.WorkloadAPI != "":
			if value != "" {
				l.add(l.origin(s), "%s: not with tls.workload_api, which gives the same; give one of them", s.key)
			}
		case needed && some && value == "":
			l.add(l.origin(s), "%s: missing; tls.cert_file, tls.key_file and tls.ca_file are given together", s.key)
		case !some && !c.hasTLS() && l.origin(s) != "default" && (s.key == "tls.crl_file" && c.TLS.CRLFile != "" || s.kind == kindClientAuth):
			l.add(l.origin(s), "%s: without tls.cert_file or tls.workload_api there is no TLS and nobody to ask for a certificate", s.key)
		}
	}
}

// openTLS reads what all ports go by; without [tls] there is none.
func (n *node) openTLS() (err error) {
	c := n.config.TLS
	if n.config.Server.InsecureBeyondLoopback == on && !n.config.atHome() {
		n.logger.Warn("INSECURE: ports beyond loopback are open to whoever reaches them, as "+beyondKey+" says", "tls", n.config.hasTLS())
	}
	if !n.config.hasTLS() {
		return nil
	}
	n.tls, err = access.Open(access.Config{
		Files:    access.Files{Cert: c.CertFile, Key: c.KeyFile, CA: c.CAFile, CRL: c.CRLFile},
		Workload: c.WorkloadAPI,
		Self:     access.Peer(n.config.Node.Region, n.config.Node.ID),
		Refused:  n.turnedAway, Logger: n.logger, Registerer: n.metrics,
	})
	if err != nil {
		return fmt.Errorf("[tls]: %w", err)
	}
	return nil
}

// door is what a port asks of those who come, by its client_auth.
func (c *Config) door(d access.Door) access.Door {
	d.Anonymous = map[string]string{
		access.HTTP.Port: c.TLS.HTTPClientAuth, access.XDS.Port: c.TLS.XDSClientAuth, access.Admin.Port: c.TLS.AdminClientAuth,
	}[d.Port] == optional
	return d
}

// secured is a port for HTTP with its bound, and with TLS where there is any.
func (n *node) secured(l net.Listener, d access.Door) net.Listener {
	l = n.narrowed(n.crowd.bound(l, d))
	if n.tls == nil {
		return l
	}
	return n.tls.Listener(l, n.config.door(d))
}

// credentials are those of a gRPC port. Behind them its connections are held to their pace.
func (n *node) credentials(d access.Door) credentials.TransportCredentials {
	if n.tls == nil {
		return n.pace.Credentials(insecure.NewCredentials(), d)
	}
	return n.pace.Credentials(n.tls.Server(n.config.door(d)), d)
}

// toMember is what a member is dialled with: nobody is taken for it who has not its certificate.
func (n *node) toMember() func(id uint64) credentials.TransportCredentials {
	if n.tls == nil {
		return nil
	}
	return func(id uint64) credentials.TransportCredentials {
		return n.tls.Client(access.Peer(n.config.Node.Region, id))
	}
}

// proved is what a caller has proved to be.
func proved(ctx context.Context) xds.Identity {
	who, ok := access.FromContext(ctx)
	if !ok {
		return xds.Identity{}
	}
	out := xds.Identity{Name: who.String(), Namespace: who.Namespace}
	if who.Role == access.RoleWorkload {
		out.Account = who.Name
	}
	return out
}

// provesMember holds a caller on the members' port to its certificate: the id in it is the
// one that it says, and the region is this one. Whether such a member is in the cluster, the
// cluster decides.
func (n *node) provesMember() func(context.Context, uint64) error {
	if n.tls == nil {
		return nil
	}
	return func(ctx context.Context, id uint64) error {
		who, ok := access.FromContext(ctx)
		if !ok {
			return errors.New("the caller has proved nothing")
		}
		return access.Peer(n.config.Node.Region, id)(who)
	}
}

// provesRegion holds a replicator to its certificate: that is of the region that it names.
func (n *node) provesRegion() func(context.Context, string) error {
	if n.tls == nil {
		return nil
	}
	return func(ctx context.Context, region string) error {
		who, ok := access.FromContext(ctx)
		if !ok {
			return errors.New("the caller has proved nothing")
		}
		return access.OfRegion(region)(who)
	}
}

// runTLS keeps what the ports go by current.
func (n *node) runTLS(ctx context.Context) error {
	if n.tls == nil {
		return nil
	}
	return n.tls.Run(ctx)
}

// scheme is what the URLs of the HTTP ports begin with.
func (c *Config) scheme() string {
	if c.hasTLS() {
		return "https://"
	}
	return "http://"
}
