package access

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// Door is what a port asks of those who come.
type Door struct {
	Port      string // its name in metrics and logs
	Anonymous bool   // who brings no certificate is let in, too; who brings one has to be somebody

	roles     []Role
	inside    bool // members only speak through it: all of them know the newest TLS
	protocols []string
}

// The ports. Each takes those who have business there: so a workload's certificate does
// not speak Raft, a replicator's is of no use where clients read, and neither administers.
var (
	HTTP  = Door{Port: "http", roles: []Role{RoleWorkload, RoleOperator}, protocols: []string{"http/1.1"}}
	XDS   = Door{Port: "xds", roles: []Role{RoleWorkload, RoleOperator}, protocols: []string{"h2"}}
	Peers = Door{Port: "grpc", roles: []Role{RolePeer, RoleReplicator}, protocols: []string{"h2"}, inside: true}
	Admin = Door{Port: "admin", roles: []Role{RoleOperator, RolePeer}, protocols: []string{"http/1.1"}} // peers: to be taken in
)

// minVersion is TLS 1.2 where clients come: an Envoy that is not told otherwise, and Java
// 8, speak no newer one.
func (d Door) minVersion() uint16 {
	if d.inside {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

func (d Door) allows(id Identity) error {
	if !slices.Contains(d.roles, id.Role) {
		return fmt.Errorf("%s: the port %s is not for the role %s, but for %v", id, d.Port, id.Role, d.roles)
	}
	return nil
}

// Peer takes one member of a region.
func Peer(region string, node uint64) func(Identity) error {
	return func(id Identity) error {
		if id.Role != RolePeer || id.Region != region || id.PeerID != node {
			return fmt.Errorf("%s is not node %d of region %s: want the URI spiffe://<trust domain>/region/%s/peer/%d", id, node, region, region, node)
		}
		return nil
	}
}

// OfRegion takes the members of a region, and whoever keeps copies for it.
func OfRegion(region string) func(Identity) error {
	return func(id Identity) error {
		if id.Role != RolePeer && id.Role != RoleReplicator || id.Region != region {
			return fmt.Errorf("%s is neither a member nor a replicator of region %s", id, region)
		}
		return nil
	}
}

// AnyPeer takes the members of a region.
func AnyPeer(region string) func(Identity) error {
	return func(id Identity) error {
		if id.Role != RolePeer || id.Region != region {
			return fmt.Errorf("%s is no member of region %s", id, region)
		}
		return nil
	}
}
