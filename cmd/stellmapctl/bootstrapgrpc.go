package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

// grpcBootstrap is the file that GRPC_XDS_BOOTSTRAP names.
type grpcBootstrap struct {
	Servers []grpcServer `json:"xds_servers"`
	Node    grpcNode     `json:"node"`
}

type grpcServer struct {
	URI         string      `json:"server_uri"`
	Credentials []grpcCreds `json:"channel_creds"`
	Features    []string    `json:"server_features"`
}

type grpcCreds struct {
	Type   string         `json:"type"`
	Config *grpcTLSConfig `json:"config,omitempty"`
}

type grpcTLSConfig struct {
	CA   string `json:"ca_certificate_file"`
	Cert string `json:"certificate_file,omitempty"`
	Key  string `json:"private_key_file,omitempty"`
}

// grpc is TLS as the bootstrap of gRPC says it. Clients know the server by its host name.
func (t xdsTLS) grpc() grpcCreds {
	if t.CA == "" {
		return grpcCreds{Type: "insecure"}
	}
	return grpcCreds{Type: "tls", Config: &grpcTLSConfig{CA: t.CA, Cert: t.Cert, Key: t.Key}}
}

type grpcNode struct {
	ID       string            `json:"id"`
	Cluster  string            `json:"cluster"`
	Locality grpcLocality      `json:"locality"`
	Metadata map[string]string `json:"metadata"`
}

type grpcLocality struct {
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
}

func (c *ctl) bootstrapGRPCCommand() *cobra.Command {
	var n proxyNode
	var addresses []string
	cmd := &cobra.Command{
		Use:   "grpc --node ID",
		Short: "Print the bootstrap of gRPC clients without a proxy",
		Long: `grpc prints, as JSON, the file that the environment variable GRPC_XDS_BOOTSTRAP
names to a gRPC client of a target such as xds:///orders.prod. The xDS servers are
all members of the region, from --server's list or, without asking anybody, from
--xds. A client listens to the first that it reaches, so each node has them in an
order of its own, and those of --xds in the order in which they are given.`,
		Example: `  stellmapctl bootstrap grpc --node web-1 > xds.json
  stellmapctl bootstrap grpc --node web-1 --service web --namespace prod --region cn-bj --zone a
  stellmapctl bootstrap grpc --node web-1 --xds 10.0.0.1:18000,10.0.0.2:18000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("output") && c.output != formatJSON {
				return usagef("--output: bootstrap grpc prints json, not %s", c.output)
			}
			if err := mustName(cmd, "xds", addresses); err != nil {
				return err
			}
			return c.bootstrapGRPC(cmd.Context(), n, addresses)
		},
	}
	n.flags(cmd.Flags(), &addresses)
	return cmd
}

func (c *ctl) bootstrapGRPC(ctx context.Context, n proxyNode, addresses []string) error {
	if err := n.check(); err != nil {
		return err
	}
	if err := c.find(ctx, &n, addresses, "bootstrap grpc"); err != nil {
		return err
	}
	if len(addresses) == 0 {
		n.XDS = inTurn(n.XDS, n.ID)
	}
	text, err := asJSON(n.grpc(), "  ")
	if err != nil {
		return fmt.Errorf("write the bootstrap: %w", err)
	}
	if _, err := c.stdout.Write(text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// inTurn begins a list elsewhere for each node, the same for one node whenever it
// asks: else all clients would listen to the first member.
func inTurn(servers []xdsAddress, node string) []xdsAddress {
	h := fnv.New32a()
	h.Write([]byte(node))
	first := int(h.Sum32() % uint32(len(servers)))
	return slices.Concat(servers[first:], servers[:first])
}

func (n proxyNode) grpc() grpcBootstrap {
	b := grpcBootstrap{Node: grpcNode{
		ID: n.ID, Cluster: n.Service, Locality: grpcLocality{Region: n.Region, Zone: n.Zone},
		Metadata: map[string]string{"stellmap.namespace": n.Namespace, "stellmap.service": n.Service},
	}}
	for _, a := range n.XDS {
		b.Servers = append(b.Servers, grpcServer{
			URI:         net.JoinHostPort(a.Host, strconv.Itoa(a.Port)),
			Credentials: []grpcCreds{n.TLS.grpc()},
			Features:    []string{"xds_v3"},
		})
	}
	return b
}
