package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// AuthConfig is the [auth] table.
type AuthConfig struct {
	Mode             string `mapstructure:"mode"`
	ReplicationToken string `mapstructure:"replication_token"`
	JWTIssuer        string `mapstructure:"jwt_issuer"`
	JWTAudience      string `mapstructure:"jwt_audience"`
	JWTKeysFile      string `mapstructure:"jwt_keys_file"`
	JWTSubjectClaim  string `mapstructure:"jwt_subject_claim"`
}

// authenticates says whether callers are asked who they are. By itself it is so wherever
// somebody else than this machine's own users may come.
func (c *Config) authenticates() bool {
	if c.Auth.Mode == auto {
		return !c.atHome() && c.Server.InsecureBeyondLoopback != on
	}
	return c.Auth.Mode == on
}

// checkAuth: nobody is left unasked beyond loopback, and members do not ask each other
// for what they could not prove.
func (l *loader) checkAuth(c Config) {
	of := settingOf(authModeKey)
	switch {
	case c.Auth.Mode == off && !c.atHome() && c.Server.InsecureBeyondLoopback != on:
		for _, s := range c.listeners() {
			if !onLoopback(s.address) {
				l.add(l.origin(of), "%s: off, though %s %s; beyond it nothing listens without authentication: leave it out, or set it to %q", authModeKey, s.key, elsewhere(s.address), on)
				return
			}
		}
	case c.Auth.Mode == on && !c.hasTLS() && (len(c.Cluster.Members) > 1 || len(c.Cluster.Join) > 0):
		l.add(l.origin(of), "%s: on, and without TLS members cannot prove to each other who they are: %s", authModeKey, giveTLS)
	}
}

// settingOf finds a setting that is there.
func settingOf(key string) setting {
	for _, s := range settings {
		if s.key == key {
			return s
		}
	}
	panic(fmt.Sprintf("stellmapd: there is no setting %s", key))
}

// A secret is something that callers show in place of an access token. It makes nobody
// somebody else: who has a certificate is who that says.
type secret struct {
	digest [sha256.Size]byte
	port   string          // where it is good by itself
	bearer registry.Caller // who shows it there without a certificate; nil = nobody
	alone  bool            // with a certificate, too, it is that bearer who shows it
	good   func() bool     // nil = for ever
}

// is compares digests, so that the time it takes tells nothing of what is compared.
func (s *secret) is(token string) bool {
	digest := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(digest[:], s.digest[:]) == 1 && (s.good == nil || s.good())
}

// openAuth has callers asked who they are, where that is so.
func (n *node) openAuth(machine *registry.Machine, adminToken string) error {
	if !n.config.authenticates() {
		return nil
	}
	if n.tls == nil {
		n.logger.Warn("authentication is on without TLS: tokens can be read on their way", "why", "all listeners are on loopback, or "+beyondKey+" is on")
	}
	n.policies = &policies{machine: machine}
	if adminToken != "" { // the admin port knows its own, and it is good nowhere else
		n.secrets = append(n.secrets, secret{digest: sha256.Sum256([]byte(adminToken))})
	}
	if t := n.config.Auth.ReplicationToken; t != "" {
		n.secrets = append(n.secrets, secret{digest: sha256.Sum256([]byte(t)), port: access.Peers.Port, bearer: copier{}})
	}
	if err := n.openBootstrap(machine); err != nil {
		return err
	}
	if err := n.openIssuer(); err != nil {
		return err
	}
	var err error
	n.stays, err = openStays(n.policies, n.metrics)
	return err
}

// A copier is who follows this region by the replication token alone.
type copier struct{}

func (copier) Who() string { return "replication token" }
func (copier) Allows(a registry.Ask) bool {
	return a == registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceReplication}
}
func (c copier) AllowsSome(a registry.Ask) bool { return c.Allows(a) }
func (copier) Stamp() string                    { return "replication token" }
func (c copier) Held() registry.Rights          { return c }

// guardOf guards a port.
func (n *node) guardOf(port string) *guard {
	return &guard{port: port, region: n.config.Node.Region, policies: n.policies, secrets: n.secrets, issuer: n.issuer, stays: n.stays, denials: n.denials, limiter: n.limiter, audit: n.audit, now: time.Now}
}

// guardOfHTTP finds out who calls over HTTP; nil = nobody is asked.
func (n *node) guardOfHTTP() func(*http.Request) (registry.Caller, error) {
	if n.policies == nil {
		return nil
	}
	return n.guardOf(access.HTTP.Port).http
}

// stayOfHTTP ends what is open over HTTP when its caller may no more; nil = nothing does.
func (n *node) stayOfHTTP() func(context.Context, func() error) (context.Context, func(), error) {
	if n.stays == nil {
		return nil
	}
	return n.stays.enter
}

// guardOfRPC are the options of a gRPC server that asks who calls.
func (n *node) guardOfRPC(d access.Door) []grpc.ServerOption {
	if n.policies == nil {
		return nil
	}
	g := n.guardOf(d.Port)
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
}

// tokenIn is the token of an authorization header.
func tokenIn(authorization string) (string, bool) {
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}
