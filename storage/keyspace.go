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
