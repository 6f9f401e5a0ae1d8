package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stellmap/stellmap/internal/version"
)

// started is what the banner tells.
type started struct {
	config    Config
	members   int // how many the cluster has; 0 for a node that was just taken in
	dev       bool
	temporary bool            // dev's data goes with a clean stop
	replayed  string          // one sentence on what was found in the data folder
	tokenFile string          // of the administrator, "" where none is asked
	bootstrap *bootstrapToken // by which the first access token is made; nil = there is none
}

// print writes every address and the next command to type.
func (s started) print(w io.Writer) error {
	c := s.config
	name, keep := "stellmapd", "kept"
	if s.dev {
		name = "stellmapd dev"
	}
	if s.temporary {
		keep = "removed at a clean stop"
	}
	admin := "no token asked (dev)"
	if s.tokenFile != "" {
		admin = "token in " + s.tokenFile
	}
	of := "joining"
	if s.members > 0 {
		of = fmt.Sprintf("one of %d", s.members)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s   node %d, %s, cluster %d, region %s\n", name, version.Number, c.Node.ID, of, c.Node.ClusterID, c.Node.Region)
	for _, row := range [][3]string{
		{"HTTP", c.scheme() + c.Server.AdvertiseHTTPAddr, "registry, /readyz, /metrics"},
		{"xDS", c.Server.AdvertiseXDSAddr, "ADS for Envoy, the registry over gRPC"},
		{"peers", c.Server.AdvertiseGRPCAddr, "the other members"},
		{"admin", c.scheme() + c.Server.AdvertiseAdminAddr, admin},
		{"data", c.Node.DataDir, keep + "; " + s.replayed},
		{"auth", c.auth(), c.guarded()},
	} {
		fmt.Fprintf(&b, "  %-6s %-28s %s\n", row[0], row[1], row[2])
	}
	flag := ""
	if c.hasTLS() {
		flag = " --server https://" + c.Server.AdvertiseHTTPAddr + " --ca CA --cert CERT --key KEY"
	} else if c.Server.AdvertiseHTTPAddr != "127.0.0.1:8080" {
		flag = " --server http://" + c.Server.AdvertiseHTTPAddr
	}
	if s.bootstrap != nil && s.bootstrap.good() {
		fmt.Fprintf(&b, "  %-6s %-28s %s\n", "first", s.bootstrap.path, "makes the first access token, once, until "+s.bootstrap.until.UTC().Format(time.RFC3339))
		fmt.Fprintf(&b, "Next: stellmapctl%s token create --bootstrap %s\n", flag, s.bootstrap.path)
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "Next: stellmapctl%s register orders --id orders-1 --addr 127.0.0.1:9001 --keep\n", flag)
	fmt.Fprintf(&b, "      stellmapctl%s bootstrap envoy --node web-1 > envoy.yaml\n", flag)
	_, err := io.WriteString(w, b.String())
	return err
}

// auth says whether callers are asked who they are.
func (c *Config) auth() string {
	if c.authenticates() {
		return on
	}
	return off
}

// guarded says who may come.
func (c *Config) guarded() string {
	switch {
	case c.authenticates() && c.hasTLS():
		return "whoever comes is asked who he is, and may do what his roles allow"
	case c.authenticates():
		return "WITHOUT TLS: tokens can be read on their way by whoever reaches this machine's network"
	case c.hasTLS() && c.TLS.HTTPClientAuth == require && c.TLS.XDSClientAuth == require:
		return "TLS is on: whoever has a certificate of a workload or an operator may register and read"
	case c.hasTLS():
		return "TLS is on; whoever reaches a port whose client_auth is optional may register and read"
	case !c.atHome():
		return "INSECURE: no TLS, no authentication, and not all listeners are on loopback: whoever reaches them may do anything but administer"
	}
	return "authentication is OFF: all listeners are on loopback, whoever reaches them may register and read"
}
