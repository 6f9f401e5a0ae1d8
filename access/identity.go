package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Role is what an identity's URI begins to say after the trust domain.
type Role string

// The roles, with the paths of their URIs.
const (
	RolePeer       Role = "peer"       // /region/<region>/peer/<node id>: a member of a region's cluster
	RoleReplicator Role = "replicator" // /replicator/<region>: who keeps a copy of a region for another one
	RoleWorkload   Role = "workload"   // /ns/<namespace>/sa/<name>: a process of the mesh, or its proxy
	RoleOperator   Role = "operator"   // /operator/<name>: a person, or a machine that does a person's work
)

// RoleJWT is of those for whom an Issuer vouches: /jwt/<subject>. They are in no trust
// domain, and no certificate names one.
const RoleJWT Role = "jwt"

// Identity is who has proved to hold the key of a certificate, or for whom an Issuer
// vouches. The zero value is nobody.
type Identity struct {
	TrustDomain string
	Role        Role
	Region      string // of a peer or a replicator
	PeerID      uint64 // of a peer: its node id, from 1 on
	Namespace   string // of a workload
	Name        string // of a workload or an operator; the subject of a JWT
}

// Errors of identities. What is wrong is in the text beside them.
var (
	ErrNoIdentity = errors.New("no identity") // there is nothing to tell it by
	ErrIdentity   = errors.New("not an identity")
)

// nameMax bounds each part of an identity: these are names of the registry, too.
const nameMax = 253

// IdentityOf is whom a certificate names. It must have been verified.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	switch len(c.URIs) {
	case 0:
		return Identity{}, fmt.Errorf("%w: the certificate has no URI in its subject alternative names; its common name %q does not count", ErrNoIdentity, c.Subject.CommonName)
	case 1:
	default:
		return Identity{}, fmt.Errorf("%w: the certificate has %d URIs in its subject alternative names, want exactly one", ErrIdentity, len(c.URIs))
	}
	if c.IsCA {
		return Identity{}, fmt.Errorf("%w: the certificate is an authority's, want one that signs no others", ErrIdentity)
	}
	return ParseIdentity(c.URIs[0].String())
}

// ParseIdentity reads a SPIFFE URI of one of the roles.
func ParseIdentity(uri string) (Identity, error) {
	id, err := spiffeid.FromString(uri)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: the URI %.300q: %w", ErrIdentity, uri, err)
	}
	out, reason := ofPath(strings.Split(strings.TrimPrefix(id.Path(), "/"), "/"))
	if reason != "" {
		return Identity{}, fmt.Errorf("%w: the URI %.300q: %s", ErrIdentity, uri, reason)
	}
	out.TrustDomain = id.TrustDomain().Name()
	return out, nil
}

const pathsWanted = "want /region/<region>/peer/<node id>, /replicator/<region>, /ns/<namespace>/sa/<name> or /operator/<name>"

// ofPath reads what follows the trust domain; the reason is "" when it can be read.
func ofPath(parts []string) (id Identity, reason string) {
	for _, part := range parts {
		if len(part) > nameMax {
			return Identity{}, fmt.Sprintf("a part of its path has %d characters, at most %d", len(part), nameMax)
		}
	}
	switch {
	case len(parts) == 4 && parts[0] == "region" && parts[2] == "peer":
		node, err := strconv.ParseUint(parts[3], 10, 63)
		if err != nil || node == 0 || strconv.FormatUint(node, 10) != parts[3] {
			return Identity{}, fmt.Sprintf("the node id %q is not a whole number from 1 to 2^63-1 as it is written by itself", parts[3])
		}
		return Identity{Role: RolePeer, Region: parts[1], PeerID: node}, ""
	case len(parts) == 2 && parts[0] == "replicator":
		return Identity{Role: RoleReplicator, Region: parts[1]}, ""
	case len(parts) == 4 && parts[0] == "ns" && parts[2] == "sa":
		return Identity{Role: RoleWorkload, Namespace: parts[1], Name: parts[3]}, ""
	case len(parts) == 2 && parts[0] == "operator":
		return Identity{Role: RoleOperator, Name: parts[1]}, ""
	}
	return Identity{}, "its path is of no role: " + pathsWanted
}

// String is the URI again, "nobody", or the path of who has no URI.
func (i Identity) String() string {
	path := i.path()
	switch {
	case path == "":
		return "nobody"
	case i.Role == RoleJWT:
		return "/" + path
	}
	return "spiffe://" + i.TrustDomain + "/" + path
}

// path is what follows the trust domain; "" of nobody.
func (i Identity) path() string {
	switch i.Role {
	case RolePeer:
		return fmt.Sprintf("region/%s/peer/%d", i.Region, i.PeerID)
	case RoleReplicator:
		return "replicator/" + i.Region
	case RoleWorkload:
		return "ns/" + i.Namespace + "/sa/" + i.Name
	case RoleOperator:
		return "operator/" + i.Name
	case RoleJWT:
		return "jwt/" + i.Name
	}
	return ""
}
