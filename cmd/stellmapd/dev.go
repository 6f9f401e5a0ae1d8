package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// The regions of dev: each is one node, with a cluster id and ports of its own.
const (
	devRegionsMax  = 8
	devPortStep    = 100
	devClusterStep = 100
	ownRegion      = "local" // the default of node.region
)

func (d *daemon) devCommand() *cobra.Command {
	var regions []string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "One node for trying things out: loopback, no tokens, temporary data",
		Long: `dev runs one node for trying things out. It logs and syncs like any member;
nobody is asked for a token, not even for administration, and so addresses that
are not on loopback are refused. Its data is in a new temporary folder, which a
clean stop removes, or in --data-dir, which is kept.

With --regions a,b it is a node for each region, in one process. The ports of the
n-th are 100·n above those of the first, its cluster id is 100, 200 and so on, its
data is in a folder of its name, and it keeps a copy of all others.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("regions") {
				return d.serve(cmd, true)
			}
			return d.serveRegions(cmd, regions)
		},
	}
	cmd.Flags().StringSliceVar(&regions, "regions", nil, "run a node for each of these regions, at most 8, such as a,b")
	return cmd
}

// devSettings are the settings for dev, which has no administrator's token: beyond
// loopback nobody may reach it, whatever else stands before its ports.
func (d *daemon) devSettings(cmd *cobra.Command) (Config, error) {
	c, err := d.settings(cmd)
	if err != nil {
		return c, err
	}
	if c.Auth.Mode == on {
		return c, usageError{fmt.Errorf("%s: %q, and dev asks nobody who he is: start stellmapd without dev", authModeKey, on)}
	}
	c.Auth.Mode = off
	for _, s := range c.listeners() {
		if !onLoopback(s.address) {
			return c, usageError{fmt.Errorf("%s: %s, and dev lets whoever reaches it administer: choose an address on loopback, or start stellmapd without dev", s.key, elsewhere(s.address))}
		}
	}
	return c, nil
}

// serveRegions runs a node for each region until the context ends or one cannot go on.
func (d *daemon) serveRegions(cmd *cobra.Command, regions []string) error {
	c, err := d.devSettings(cmd)
	if err != nil {
		return err
	}
	all, err := inRegions(c, regions)
	if err != nil {
		return usageError{err}
	}
	return d.withData(cmd, c.Node.DataDir, func(dir string, temporary bool) error {
		nodes, ctx := errgroup.WithContext(cmd.Context())
		for _, one := range all {
			one.Node.DataDir = filepath.Join(dir, one.Node.Region)
			o := nodeOptions{config: one, dev: true, temporary: temporary, logger: newLogger(one, d.stderr).With("region", one.Node.Region), stdout: d.stdout}
			nodes.Go(func() error {
				if err := runNode(ctx, o); err != nil {
					return fmt.Errorf("region %s: %w", one.Node.Region, err)
				}
				return nil
			})
		}
		return nodes.Wait()
	})
}

// inRegions are the settings of a node for each region. What says who the node is, and
// whom it follows, says --regions.
func inRegions(c Config, regions []string) ([]Config, error) {
	switch {
	case len(regions) < 1 || len(regions) > devRegionsMax:
		return nil, fmt.Errorf("--regions: %d regions, want 1 to %d", len(regions), devRegionsMax)
	case len(c.Federation.Regions) > 0 || len(c.Cluster.Join) > 0 || len(c.Cluster.Members) > 1:
		return nil, fmt.Errorf("--regions: the settings name other members or regions, and dev makes its own: leave one of the two out")
	case c.Node.Region != ownRegion || c.Node.ClusterID != devClusterStep:
		return nil, fmt.Errorf("--regions: node.region and node.cluster_id are given, and each region has its own: leave one of the two out")
	}
	all := make([]Config, len(regions))
	for n, region := range regions {
		if reason := kindName.check(region); reason != "" || region == "" {
			return nil, fmt.Errorf("--regions: %q is not a name: letters, digits, - and _, at most 63", region)
		}
		if slices.Contains(regions[:n], region) {
			return nil, fmt.Errorf("--regions: %q is given twice", region)
		}
		one := c
		one.Node.Region, one.Node.ClusterID = region, uint64(devClusterStep*(n+1))
		if one.Audit.File != "" {
			one.Audit.File += "." + region
		}
		s := &one.Server
		for _, address := range []*string{&s.HTTPAddr, &s.XDSAddr, &s.GRPCAddr, &s.AdminAddr, &s.AdvertiseHTTPAddr, &s.AdvertiseXDSAddr, &s.AdvertiseGRPCAddr, &s.AdvertiseAdminAddr} {
			var err error
			if *address, err = shifted(*address, n*devPortStep); err != nil {
				return nil, err
			}
		}
		one.Cluster.Members = []MemberConfig{one.self()}
		all[n] = one
	}
	for n := range all {
		for _, other := range all {
			if other.Node.Region != all[n].Node.Region {
				all[n].Federation.Regions = append(all[n].Federation.Regions, RegionConfig{
					Region: other.Node.Region, ClusterID: other.Node.ClusterID, GRPC: []string{other.Server.AdvertiseGRPCAddr}, Token: other.Auth.ReplicationToken,
				})
			}
		}
	}
	return all, nil
}

// shifted is an address with a port so much higher.
func shifted(address string, by int) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("--regions: %q: %w", address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || int(n)+by > 65_535 {
		return "", fmt.Errorf("--regions: %q: its port cannot be %d higher for another region: choose ports from 1 to %d", address, by, 65_535-by)
	}
	return net.JoinHostPort(host, strconv.Itoa(int(n)+by)), nil
}
