package main

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/probe"
)

// openProber makes what checks instances. It needs the registry.
func (n *node) openProber(machine *registry.Machine) (err error) {
	roots, err := readRoots(n.config.Health.CAFile)
	if err != nil {
		return err
	}
	n.prober, err = probe.New(probe.Config{
		Registry: n.registry, Machine: machine, Member: n.config.Node.ID, Rules: n.config.probeRules(), Roots: roots,
		InFlight: int(n.config.Health.InFlight), HalfLife: n.config.Health.FlapHalfLife,
		Random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), Logger: n.logger, Registerer: n.metrics,
	})
	return err
}

// probeRules are where checks may go. The settings have been checked.
func (c *Config) probeRules() probe.Rules {
	return probe.Rules{Allow: prefixesOf(c.Health.Allow), Deny: prefixesOf(c.Health.Deny), Home: c.atHome()}
}

func prefixesOf(list []string) []netip.Prefix {
	prefixes, _ := parsePrefixes(strings.Join(list, ","))
	return prefixes
}

// checksInFlightMax bounds health.in_flight: each check on its way has a connection.
const checksInFlightMax = 16_384

func (l *loader) checkHealth(c Config) {
	if c.Health.InFlight > checksInFlightMax {
		at := slices.IndexFunc(settings[:], func(s setting) bool { return s.key == "health.in_flight" })
		l.add(l.origin(settings[at]), "health.in_flight: %d is more than %d: each check on its way has a connection", c.Health.InFlight, checksInFlightMax)
	}
}

// atHome says that all listeners are on loopback.
func (c *Config) atHome() bool {
	return !slices.ContainsFunc(c.listeners(), func(l listening) bool { return !onLoopback(l.address) })
}

// hosts are the names that calls over HTTP may be for: any, unless the member takes whoever is on
// this machine, and with that what a page in a browser there may send (see httpapi.ForHosts).
func (c *Config) hosts() []string {
	if !c.atHome() || c.hasTLS() {
		return nil
	}
	names := []string{"localhost"}
	for _, address := range []string{c.Server.AdvertiseHTTPAddr, c.Server.AdvertiseAdminAddr} {
		if host, _, err := net.SplitHostPort(address); err == nil {
			names = append(names, strings.ToLower(host))
		}
	}
	return names
}

// listening is where a port is to be, by the key that says so.
type listening struct{ key, address string }

func (c *Config) listeners() []listening {
	s := c.Server
	return []listening{{"server.http_addr", s.HTTPAddr}, {"server.xds_addr", s.XDSAddr}, {"server.grpc_addr", s.GRPCAddr}, {"server.admin_addr", s.AdminAddr}}
}

// caFileBytesMax bounds a file of authorities.
const caFileBytesMax = 4 << 20

// readRoots reads the authorities that checks trust; nil for the system's.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("health.ca_file: %w", err)
	}
	if info.Size() > caFileBytesMax {
		return nil, fmt.Errorf("health.ca_file: %s has %d bytes, more than %d", path, info.Size(), caFileBytesMax)
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("health.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("health.ca_file: %s has no certificate in PEM: the certificates of the authorities, one after the other", path)
	}
	return roots, nil
}
