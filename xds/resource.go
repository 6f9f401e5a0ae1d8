package xds

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typeurl "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/stellmap/stellmap/registry"
)

// resourceType is one of the four types, in the order in which a stream sends them.
type resourceType uint8

const (
	typeCluster resourceType = iota
	typeEndpoints
	typeListener
	typeRoutes
	typeCount
)

var typeURLs = [typeCount]string{typeurl.ClusterType, typeurl.EndpointType, typeurl.ListenerType, typeurl.RouteType}

var typeNames = [typeCount]string{"cds", "eds", "lds", "rds"}

func (t resourceType) String() string { return typeNames[t] }

func typeOf(url string) (resourceType, bool) {
	for t, u := range typeURLs {
		if u == url {
			return resourceType(t), true
		}
	}
	return 0, false
}

// whole says that a response as state of the world lists everything, so that
// what is missing is gone.
func (t resourceType) whole() bool { return t == typeCluster || t == typeListener }

// A resourceKey is a name of a type as one view sees it. Only what the bytes
// depend on is set: endpoints never depend on the scope.
type resourceKey struct {
	typ      resourceType
	name     string
	kind     kind
	region   string         // of endpoints
	zone     string         // of endpoints, where the policy of the service asks for it
	scope    *scope         // of Envoy's routes, and of a gateway's listener
	port     uint32         // of Envoy's listener for HTTP
	onDemand bool           // it asks for more than its scope
	gateway  netip.AddrPort // of a gateway's listener
}

// cluster is the name of the cluster that a resource is of; empty for what is of
// many. A gRPC client has a listener and routes of each.
func (k resourceKey) cluster() string {
	switch {
	case k.typ == typeCluster || k.typ == typeEndpoints:
		return k.name
	case k.kind == kindGRPC:
		return targetOf(k.name)
	case k.typ == typeListener:
		cluster, local := strings.CutPrefix(k.name, localPrefix)
		if local {
			return cluster
		}
	}
	return ""
}

// A resource is a view that somebody subscribes to.
type resource struct {
	key     resourceKey
	current atomic.Pointer[entry] // nil until it has been built
	left    atomic.Bool           // clients with a zone see it in another view now, see zone.go

	building sync.Mutex // held while it is built, so that a later state is never overwritten by an earlier one

	subscribers map[subscriber]struct{} // guarded by cache.mu
}

// A subscriber is told of changes of a resource, under cache.mu.
type subscriber interface {
	mark(name string, n *notice)
	each(func(*subscription)) // the subscriptions of streams that stand behind it
}

// An entry is what a resource is at a revision. It is shared by all streams and
// never changes, but that it is noted when another took its place.
type entry struct {
	held     atomic.Uint64 // the last revision at which it is known to have held; 0 while it does
	name     string
	of       registry.ServiceKey   // whose it is; zero for what is of many, or of none
	ahead    bool                  // there is no such thing any more, and the directory does not know yet
	hash     uint64                // of the bytes; 0 = there is no such thing
	revision registry.Revision     // by which its content was settled
	resource *discoveryv3.Resource // as deltas carry it; state of the world carries the Any within; nil where only a client's word is known
}

func (e *entry) absent() bool { return e == nil || e.hash == 0 }

// hashOf tells what a client has from what it should have.
func (e *entry) hashOf() uint64 {
	if e == nil {
		return 0
	}
	return e.hash
}

func (e *entry) size() int {
	const envelope = 64
	return envelope + len(e.name) + len(e.resource.GetResource().GetValue())
}

// Versions. The hash says whether two contents are the same, the revision which
// is newer, and the incarnation whether the revisions can be compared at all: a
// cluster that was restored or made anew counts from another beginning.

// deltaVersion is {hash}.{revision}.{incarnation}; the last part is missing
// where there is no incarnation.
func deltaVersion(hash uint64, revision registry.Revision, incarnation string) string {
	v := fmt.Sprintf("%016x.%d", hash, revision)
	if incarnation != "" {
		v += "." + incarnation
	}
	return v
}

// wholeVersion is {incarnation}.{revision}.{hash of the set}.
func wholeVersion(incarnation string, revision registry.Revision, set uint64) string {
	return fmt.Sprintf("%s.%d.%016x", incarnation, revision, set)
}

// A version is what a client says that it has.
type version struct {
	hash        uint64
	revision    registry.Revision
	incarnation string
}

func parseDeltaVersion(s string) (version, bool) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) < 2 {
		return version{}, false
	}
	hash, err := strconv.ParseUint(parts[0], 16, 64)
	revision, err2 := strconv.ParseUint(parts[1], 10, 64)
	v := version{hash: hash, revision: registry.Revision(revision)}
	if len(parts) == 3 {
		v.incarnation = parts[2]
	}
	return v, err == nil && err2 == nil
}

func parseWholeVersion(s string) (version, bool) {
	last := strings.LastIndexByte(s, '.')
	if last < 0 {
		return version{}, false
	}
	middle := strings.LastIndexByte(s[:last], '.')
	if middle < 0 {
		return version{}, false
	}
	hash, err := strconv.ParseUint(s[last+1:], 16, 64)
	revision, err2 := strconv.ParseUint(s[middle+1:last], 10, 64)
	return version{hash: hash, revision: registry.Revision(revision), incarnation: s[:middle]}, err == nil && err2 == nil
}
