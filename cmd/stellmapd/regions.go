package main

import (
	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/federation"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/httpapi"
)

// makeExporter makes what tells other regions of this one, on the port of the members.
// Without a token it answers where anonymous callers may read, too, and those who have
// proved by a certificate that they may come to this port.
func (n *node) makeExporter() (err error) {
	n.exporter, err = federation.NewExporter(federation.Config{
		Registry: n.registry, Identity: n.identity, Token: n.config.Auth.ReplicationToken, Open: n.config.atHome() || n.tls != nil,
		Exports: n.config.exports(),
		Proves:  n.provesRegion(), Logger: n.logger, Registerer: n.metrics,
	})
	return err
}

// makeImporter makes what keeps this region's copies of others.
func (n *node) makeImporter() (err error) {
	var sources []federation.Source
	for _, r := range n.config.Federation.Regions {
		one := federation.Source{Region: r.Region, ClusterID: r.ClusterID, Addresses: r.GRPC, Token: r.Token, Wanted: selected(r.Import)}
		if n.tls != nil { // nobody is taken for a member of the region who has not the certificate of one
			one.Dial = []grpc.DialOption{grpc.WithTransportCredentials(n.tls.Client(access.AnyPeer(r.Region)))}
		}
		sources = append(sources, one)
	}
	n.importer, err = federation.NewImporter(federation.ImporterConfig{
		Registry: n.registry, Identity: n.identity, Leads: n.leads, Level: consensus.FeatureLevel, Sources: sources, Logger: n.logger, Registerer: n.metrics,
	})
	return err
}

// regionOrder is in which order regions are called where no policy says so: this one, and then the others as they are set.
func (c *Config) regionOrder() []string {
	order := []string{c.Node.Region}
	for _, r := range c.Federation.Regions {
		order = append(order, r.Region)
	}
	return order
}

// leads says whether this member leads, and has a quorum as far as it knows.
func (n *node) leads() bool { return n.group.Status().Role == consensus.RoleLeader }

// federation is what the settings say of other regions, and how they are followed.
func (n *node) federation() httpapi.Federation {
	return httpapi.Federation{Neighbours: n.neighbours(), Following: n.following}
}

// neighbours are the other regions of the settings, and what they are told.
func (n *node) neighbours() registry.Neighbours {
	out := registry.Neighbours{Fresh: federation.ConnectedAge, Exports: n.config.exports()}
	for _, r := range n.config.Federation.Regions {
		out.Sources = append(out.Sources, registry.RegionKey{Region: r.Region, Cluster: r.ClusterID})
		out.Wanted = append(out.Wanted, r.wanted())
	}
	return out
}

// identity is what other regions are told of who answers them.
func (n *node) identity() federation.Identity {
	s := n.group.Status()
	return federation.Identity{
		Region: n.config.Node.Region, ClusterID: s.ClusterID, Incarnation: s.Incarnation, FeatureLevel: s.FeatureLevel, Member: s.ID,
	}
}

// replicators are those who follow this member.
func (n *node) replicators() []httpapi.Replicator {
	out := []httpapi.Replicator{}
	for _, f := range n.exporter.Followers() {
		out = append(out, httpapi.Replicator{
			Name: f.Name, Region: f.Region, ClusterID: f.ClusterID, Since: f.Since,
			SentRevision: f.Sent, AckedRevision: f.Acked, BehindRevisions: f.Behind, WindowBytes: f.WindowBytes,
		})
	}
	return out
}
