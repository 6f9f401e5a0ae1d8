package storage

import "fmt"

// The keys of the engine, all on this page. Keys are text with "/" between
// the parts; names hold no "/" (the registry refuses it), so a part never
// reaches into the next.
//
//	__meta__/applied              index and term of the last entry in the state, 8 bytes each, big-endian
//	__meta__/…                    consensus: configuration, incarnation, entry time, members, request ids
//	/registry/{ns}/{svc}/{id}     one instance
//	/services/{ns}/{svc}          one service
//	/checkpoints/clock            how long leaders have lived
//	/checkpoints/{n}              what was told of 1,024 leases; n in 8 hexadecimal digits
//	/leases/{id}                  one lease that several instances share
//	/policies/{ns}/{svc}          how a service is to be treated, with its last versions
//	/upstreams/{ns}/{svc}         what a service calls, with its last versions
//	/namespaces/{ns}              what is written down of a namespace, with its last versions
//	/access/roles/{name}          what those may do who have a role, with its last versions
//	/access/bindings/{name}       who has which roles, with its last versions
//	/access/tokens/{id}           an access token: its hash, and what it is good for
//	/events/{revision}            what a revision has changed; the revision in 16 hexadecimal digits
//	/history                      from where on the changes are kept
//	/protection                   that the whole cluster is protected from mass expiry
//	/replication/regions/{region}/clusters/{cluster}/registry/{ns}/{svc}/{id}   one instance of another region
//	/replication/cursors/{region}/{cluster}   how far the copy of that region is
const (
	// MetaPrefix heads everything that is not the replicated state machine's.
	MetaPrefix = "__meta__/"
	// InstancePrefix heads the instances.
	InstancePrefix = "/registry/"
	// ServicePrefix heads the services.
	ServicePrefix = "/services/"
	// CheckpointPrefix heads what checkpoints have told of leases.
	CheckpointPrefix = "/checkpoints/"
	// CheckpointClock stands behind it in the place of a number.
	CheckpointClock = "clock"
	// LeasePrefix heads the leases that several instances share.
	LeasePrefix = "/leases/"
	// PolicyPrefix heads the policies of services.
	PolicyPrefix = "/policies/"
	// UpstreamsPrefix heads what is written down of what services call.
	UpstreamsPrefix = "/upstreams/"
	// NamespacePrefix heads what is written down of namespaces.
	NamespacePrefix = "/namespaces/"
	// RolePrefix heads what is written down of roles.
	RolePrefix = "/access/roles/"
	// BindingPrefix heads who has which roles.
	BindingPrefix = "/access/bindings/"
	// AccessTokenPrefix heads the access tokens.
	AccessTokenPrefix = "/access/tokens/"
	// AccessBegunKey is where it is kept that there has been an access token.
	AccessBegunKey = "/access/begun"
	// EventPrefix heads what revisions have changed.
	EventPrefix = "/events/"
	// HistoryKey is where it is kept from where on the changes are.
	HistoryKey = "/history"
	// ProtectionKey is where it is kept that the whole cluster is protected.
	ProtectionKey = "/protection"
	// RegionPrefix heads the instances of other regions.
	RegionPrefix = "/replication/regions/"
	// CursorPrefix heads how far the copies of other regions are.
	CursorPrefix = "/replication/cursors/"

	appliedKey = MetaPrefix + "applied"
)

// InstanceKey is where an instance is kept.
func InstanceKey(namespace, service, id string) []byte {
	return []byte(InstancePrefix + namespace + "/" + service + "/" + id)
}

// ServiceKey is where a service is kept.
func ServiceKey(namespace, service string) []byte {
	return []byte(ServicePrefix + namespace + "/" + service)
}

// CheckpointKey is where the n-th range of leases has what was told of it.
func CheckpointKey(n uint32) []byte {
	return fmt.Appendf(nil, "%s%08x", CheckpointPrefix, n)
}

// CheckpointClockKey is where the time is kept that leaders have lived.
func CheckpointClockKey() []byte { return []byte(CheckpointPrefix + CheckpointClock) }

// LeaseKey is where a shared lease is kept.
func LeaseKey(id string) []byte { return []byte(LeasePrefix + id) }

// PolicyKey is where the policy of a service is kept.
func PolicyKey(namespace, service string) []byte {
	return []byte(PolicyPrefix + namespace + "/" + service)
}

// UpstreamsKey is where it is kept what a service calls.
func UpstreamsKey(namespace, service string) []byte {
	return []byte(UpstreamsPrefix + namespace + "/" + service)
}

// NamespaceKey is where the document of a namespace is kept.
func NamespaceKey(namespace string) []byte {
	return []byte(NamespacePrefix + namespace)
}

// RoleKey is where a role is kept.
func RoleKey(name string) []byte { return []byte(RolePrefix + name) }

// BindingKey is where a binding is kept.
func BindingKey(name string) []byte { return []byte(BindingPrefix + name) }

// AccessTokenKey is where an access token is kept.
func AccessTokenKey(id string) []byte { return []byte(AccessTokenPrefix + id) }

// EventKey is where the changes of a revision are kept.
func EventKey(revision uint64) []byte { return fmt.Appendf(nil, "%s%016x", EventPrefix, revision) }

// RegionInstanceKey is where an instance of another region is kept.
func RegionInstanceKey(region string, cluster uint64, namespace, service, id string) []byte {
	return fmt.Appendf(nil, "%s%s/clusters/%d/registry/%s/%s/%s", RegionPrefix, region, cluster, namespace, service, id)
}

// CursorKey is where it is kept how far the copy of a region is.
func CursorKey(region string, cluster uint64) []byte {
	return fmt.Appendf(nil, "%s%s/%d", CursorPrefix, region, cluster)
}

// PrefixEnd is the first key after all keys that begin with prefix, or nil
// when there is none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
