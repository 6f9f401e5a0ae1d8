package main

import (
	"github.com/stellmap/stellmap/federation"
)

// makeExporter makes what tells other regions of this one, on the port of the members.
// Without a token it answers where anonymous callers may read, too.
func (n *node) makeExporter() (err error) {
	n.exporter, err = federation.NewExporter(federation.Config{
		Registry: n.registry, Identity: n.identity, Token: n.config.Auth.ReplicationToken, Open: n.config.atHome(),
		Logger: n.logger, Registerer: n.metrics,
	})
	return err
}

// identity is what other regions are told of who answers them.
func (n *node) identity() federation.Identity {
	s := n.group.Status()
	return federation.Identity{
		Region: n.config.Node.Region, ClusterID: s.ClusterID, Incarnation: s.Incarnation, FeatureLevel: s.FeatureLevel, Member: s.ID,
	}
}
