package main

import (
	"bytes"
	"context"
	_ "embed" // the template
	"errors"
	"fmt"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The ports of an Envoy, unless flags say otherwise. The server takes the same
// egress port for granted.
const (
	egressPortDefault  = 15001
	adminPortDefault   = 15000
	gatewayPortDefault = 15443

	roleGateway           = "gateway"
	gatewayAddressDefault = "127.0.0.1"
)

// upstreamsMax is what the xDS server takes of one node.
const upstreamsMax = 10_000

// envoyTemplate is the bootstrap as an operator reads it, comments included: a
// marshaller would lose them. All values that are not numbers go through quote,
// and a JSON string is a YAML string whatever it holds.
//
//go:embed envoy.yaml.tmpl
var envoyTemplate string

var envoyBootstrap = template.Must(template.New("envoy").Funcs(template.FuncMap{"quote": quote}).Parse(envoyTemplate))

// quote writes a text, or a list of texts, as JSON.
func quote(v any) (string, error) {
	b, err := asJSON(v, "")
	return strings.TrimSpace(string(b)), err
}

// proxyNode is what any client says of itself, and where it finds the servers.
type proxyNode struct {
	ID, Service, Namespace string
	Region, Zone           string
	XDS                    []xdsAddress
	TLS                    xdsTLS
}

// xdsTLS are the files, on the client's machine, by which it knows the xDS servers and
// they know it. Without authorities there is no TLS.
type xdsTLS struct{ CA, Cert, Key string }

// MemberURI is who an xDS server may be: a member of any region. That it has some
// certificate of the authorities is not enough, workloads have, too.
func (xdsTLS) MemberURI() string { return `spiffe://[^/]+/region/[^/]+/peer/[0-9]+` }

func (t xdsTLS) check() error {
	switch {
	case (t.Cert == "") != (t.Key == ""):
		return usagef("--tls-cert and --tls-key: a certificate is of no use without its key, give both or neither")
	case t.Cert != "" && t.CA == "":
		return usagef("--tls-ca: is missing: without it there is no TLS")
	}
	return nil
}

// envoyNode is what an Envoy adds.
type envoyNode struct {
	proxyNode
	Upstreams             []string
	EgressPort, AdminPort uint16
	LoadStats             bool // it reports how its calls end
	OnDemand              bool // it asks for what is beyond its upstreams when it is called

	Role           string // roleGateway, or empty
	GatewayAddress string
	GatewayPort    uint16
}

// Gateway says that it is how other regions reach instances, and no workload's proxy.
func (n envoyNode) Gateway() bool { return n.Role == roleGateway }

type xdsAddress struct {
	Host string
	Port int
}

// ByName tells whether an address has to be looked up, which a STATIC cluster cannot.
func (n envoyNode) ByName() bool {
	for _, a := range n.XDS {
		if !isAddress(a.Host) {
			return true
		}
	}
	return false
}

func (c *ctl) bootstrapCommand() *cobra.Command {
	bootstrap := c.group(&cobra.Command{
		Use:   "bootstrap",
		Short: "Print the file that a proxy starts from",
		Long:  `bootstrap prints the file that a proxy, or a gRPC client without one, starts from. All else comes over xDS.`,
		Example: `  stellmapctl bootstrap envoy --node web-1 > envoy.yaml
  stellmapctl bootstrap grpc --node web-1 > xds.json`,
	})
	bootstrap.AddCommand(c.bootstrapEnvoyCommand(), c.bootstrapGRPCCommand())
	return bootstrap
}

func (c *ctl) bootstrapEnvoyCommand() *cobra.Command {
	var n envoyNode
	var addresses []string
	cmd := &cobra.Command{
		Use:   "envoy --node ID",
		Short: "Print the bootstrap of an Envoy",
		Long: `envoy prints the bootstrap of an Envoy as YAML. The xDS servers are all members
of the region, from --server's list or, without asking anybody, from --xds.
Envoy goes on with another one when the one that it listens to fails.

--upstreams says which services the proxy is told of: SERVICE.NAMESPACE, or
*.NAMESPACE for all of one. Left out, it is all of --namespace. A small scope
makes a small proxy: each service costs it some 80 kB. With --on-demand it asks for
others when they are first called.

With --role gateway it is no workload's proxy, but how the proxies of other regions
reach the instances of its own: its upstreams are what it passes on to.`,
		Example: `  stellmapctl bootstrap envoy --node web-1 > envoy.yaml
  stellmapctl bootstrap envoy --node web-1 --service web --namespace prod --region cn-bj --zone a
  stellmapctl bootstrap envoy --node web-1 --upstreams orders.prod,'*.shared' --xds 10.0.0.1:18000,10.0.0.2:18000
  stellmapctl bootstrap envoy --node gateway-1 --service gateway --namespace prod --role gateway --gateway-address 10.0.0.9
  stellmapctl bootstrap envoy --node web-1 --tls-ca /etc/web/ca.pem --tls-cert /etc/web/cert.pem --tls-key /etc/web/key.pem`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("output") && c.output != formatYAML {
				return usagef("--output: bootstrap envoy prints yaml, not %s", c.output)
			}
			if err := errors.Join(mustName(cmd, "upstreams", n.Upstreams), mustName(cmd, "xds", addresses), mustFit(cmd, n)); err != nil {
				return err
			}
			return c.bootstrapEnvoy(cmd.Context(), n, addresses)
		},
	}
	flags := cmd.Flags()
	n.flags(flags, &addresses)
	flags.StringSliceVar(&n.Upstreams, "upstreams", nil, "what it is told of: service.namespace or *.namespace, with commas between (default: all of its namespace)")
	flags.Uint16Var(&n.EgressPort, "egress-port", egressPortDefault, "where it takes requests to other services, on 127.0.0.1")
	flags.BoolVar(&n.OnDemand, "on-demand", false, "it asks for services beyond its upstreams when they are first called")
	flags.BoolVar(&n.LoadStats, "load-stats", false, "it reports how its calls end, which costs some 60 kB for each report")
	flags.Uint16Var(&n.AdminPort, "admin-port", adminPortDefault, "its admin page, on 127.0.0.1")
	flags.StringVar(&n.Role, "role", "", "gateway: other regions reach the instances of its own through it (default: it stands beside a workload)")
	flags.StringVar(&n.GatewayAddress, "gateway-address", gatewayAddressDefault, "the IP address where a gateway listens")
	flags.Uint16Var(&n.GatewayPort, "gateway-port", gatewayPortDefault, "the port where a gateway listens")
	return cmd
}

// mustFit refuses flags that the node's role has no use for.
func mustFit(cmd *cobra.Command, n envoyNode) error {
	foreign, why := []string{"gateway-address", "gateway-port"}, "is a gateway's: give --role gateway, or leave it out"
	if n.Gateway() {
		foreign, why = []string{"egress-port", "on-demand"}, "is for workloads' proxies, and this is a gateway: leave it out"
	}
	for _, flag := range foreign {
		if cmd.Flags().Changed(flag) {
			return usagef("--%s: %s", flag, why)
		}
	}
	return nil
}

// mustName refuses a list that is given and empty: an empty variable of a shell is not "all".
func mustName(cmd *cobra.Command, flag string, values []string) error {
	if cmd.Flags().Changed(flag) && len(values) == 0 {
		return usagef("--%s: is given and empty: name something, or leave it out", flag)
	}
	return nil
}

// flags are those of any client.
func (n *proxyNode) flags(flags *pflag.FlagSet, addresses *[]string) {
	flags.StringVar(&n.ID, "node", "", "the node's id, its own among all proxies")
	flags.StringVar(&n.Service, "service", "", "the service that it stands beside, or is (default: the node's id)")
	flags.StringVarP(&n.Namespace, "namespace", "n", namespaceDefault, "the service's namespace")
	flags.StringVar(&n.Region, "region", "", "the region that it stands in (default: the xDS server's)")
	flags.StringVar(&n.Zone, "zone", "", "the zone that it stands in")
	flags.StringVar(&n.TLS.CA, "tls-ca", "", "the file, on its machine, of the authorities that it trusts for xDS servers (default: no TLS)")
	flags.StringVar(&n.TLS.Cert, "tls-cert", "", "the file of the certificate that proves to them who it is")
	flags.StringVar(&n.TLS.Key, "tls-key", "", "the file of its key")
	flags.StringSliceVar(addresses, "xds", nil, "the xDS servers as host:port, with commas between (default: what --server lists)")
}

// find completes a node: its service, and the servers, from --xds or the server's list.
func (c *ctl) find(ctx context.Context, n *proxyNode, addresses []string, doing string) (err error) {
	if n.Service == "" {
		n.Service = n.ID
	}
	if len(addresses) > 0 {
		n.XDS, err = xdsAddresses(addresses)
	} else {
		n.XDS, err = c.xdsOfMembers(ctx, doing)
	}
	return err
}

func (c *ctl) bootstrapEnvoy(ctx context.Context, n envoyNode, addresses []string) error {
	if err := n.check(); err != nil {
		return err
	}
	if err := c.find(ctx, &n.proxyNode, addresses, "bootstrap envoy"); err != nil {
		return err
	}
	text, err := n.render()
	if err != nil {
		return err
	}
	if _, err := c.stdout.Write(text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// check refuses what the xDS server would refuse of the node, and what would
// give the proxy another service than the one that was meant.
func (n proxyNode) check() error {
	switch {
	case n.ID == "":
		return usagef("--node: is missing, such as --node web-1")
	case !isText(n.ID):
		return usagef("--node: %q is not allowed: %s", n.ID, textRule)
	case n.Service != "" && !isService(n.Service):
		return usagef("--service: %q is not allowed: %s", n.Service, serviceRule)
	case !isNamespace(n.Namespace):
		return usagef("--namespace: %q is not allowed: %s", n.Namespace, namespaceRule)
	case !isText(n.Region):
		return usagef("--region: %q is not allowed: %s", n.Region, textRule)
	case !isText(n.Zone):
		return usagef("--zone: %q is not allowed: %s", n.Zone, textRule)
	}
	return n.TLS.check()
}

func (n envoyNode) check() error {
	if err := n.proxyNode.check(); err != nil {
		return err
	}
	switch {
	case n.EgressPort == 0:
		return usagef("--egress-port: 0 is not a port: 1 to 65535")
	case n.AdminPort == 0:
		return usagef("--admin-port: 0 is not a port: 1 to 65535")
	case !n.Gateway() && n.EgressPort == n.AdminPort:
		return usagef("--admin-port: %d is the egress port already", n.AdminPort)
	case n.Role != "" && !n.Gateway():
		return usagef("--role: %q is none: gateway is, or leave it out", n.Role)
	case n.Gateway() && !isAddress(n.GatewayAddress):
		return usagef("--gateway-address: %q is not an IP address: such as 10.0.0.9, or 0.0.0.0 for all that the machine has", n.GatewayAddress)
	case n.Gateway() && n.GatewayPort == 0:
		return usagef("--gateway-port: 0 is not a port: 1 to 65535")
	case n.Gateway() && n.GatewayPort == n.AdminPort:
		return usagef("--admin-port: %d is the gateway's port already", n.AdminPort)
	case len(n.Upstreams) > upstreamsMax:
		return usagef("--upstreams: has %d, at most %d", len(n.Upstreams), upstreamsMax)
	}
	for _, u := range n.Upstreams {
		if !isUpstream(u) {
			return usagef("--upstreams: %q is not one: %s", u, upstreamRule)
		}
	}
	return nil
}

// xdsAddresses reads --xds.
func xdsAddresses(given []string) ([]xdsAddress, error) {
	var out []xdsAddress
	for _, text := range given {
		a, reason := parseXDS(text)
		if reason != "" {
			return nil, usagef("--xds: %s", reason)
		}
		out = appendNew(out, a)
	}
	return out, nil
}

// xdsOfMembers asks the server for all members' addresses.
func (c *ctl) xdsOfMembers(ctx context.Context, doing string) ([]xdsAddress, error) {
	list, err := c.members(ctx, doing+": get the xDS servers")
	if err != nil {
		return nil, err
	}
	var out []xdsAddress
	for _, m := range list.Members {
		if m.XDS == "" {
			continue
		}
		a, reason := parseXDS(m.XDS)
		if reason != "" {
			return nil, &failure{doing: doing, code: "bad_member", exit: exitFailed, why: fmt.Sprintf("the xDS address of member %d cannot be used: %s", m.ID, reason), next: "--xds gives addresses by hand"}
		}
		out = appendNew(out, a)
	}
	if len(out) == 0 {
		return nil, &failure{doing: doing, code: "no_xds", exit: exitFailed, why: "no member has an xDS address", next: "--xds gives addresses by hand"}
	}
	return out, nil
}

func appendNew(to []xdsAddress, a xdsAddress) []xdsAddress {
	for _, o := range to {
		if o == a {
			return to
		}
	}
	return append(to, a)
}

// parseXDS reads host:port, where the host is an IP address or a name.
func parseXDS(text string) (xdsAddress, string) {
	host, port, reason := splitHostPort(strings.TrimSpace(text))
	if reason != "" {
		return xdsAddress{}, reason
	}
	if !isAddress(host) && !isHostName(host) {
		return xdsAddress{}, fmt.Sprintf("%q: the host is neither an IP address to connect to nor a name", text)
	}
	return xdsAddress{host, port}, ""
}

// isHostName takes no name that looks like a number: it is an address with a
// slip in it.
func isHostName(host string) bool {
	return isName(host, ".-_") && strings.ContainsFunc(host, func(r rune) bool { return r > '9' })
}

func (n envoyNode) render() ([]byte, error) {
	var b bytes.Buffer
	if err := envoyBootstrap.Execute(&b, n); err != nil {
		return nil, fmt.Errorf("write the bootstrap: %w", err)
	}
	return b.Bytes(), nil
}
