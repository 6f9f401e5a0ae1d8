package main

import (
	"github.com/stellmap/stellmap/federation"
	"github.com/stellmap/stellmap/registry/httpapi"
)

// makeExporter makes what tells other regions of this one, on the port of the members.
// Without a token it answers where anonymous callers may read, too, and those who have
// proved by a certificate that they may come to this port.
func (n *node) makeExporter() (err error) {
	n.exporter, err = federation.NewExporter(federation.Config{
		Registry: n.registry, Identity: n.identity, Token: n.config.Auth.ReplicationToken, Open: n.config.atHome() || n.tls != nil,
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
