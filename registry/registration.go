package registry

import (
	"strings"
	"time"
)

// A Registration is what a workload says of itself, as it was written.
// Register trims, checks and completes it.
type Registration struct {
	Namespace string
	Service   string // may be empty where Levels is given
	Levels    Levels // all five, or none
	ID        string
	Group     string
	Zone      string
	Version   string
	Labels    map[string]string
	Metadata  map[string]string
	Endpoints []Endpoint
	Checks    []Check // how the cluster tries whether the endpoints work; may be none
	// LeaseTTLSeconds is as long as the lease holds without a renewal; 0 = LeaseTTLDefault.
	LeaseTTLSeconds int64
	// Holder says who registers. LeaseToken is what the instance is held with from
	// now on, where it is asked for or not; "" = nothing: it is anybody's.
	Holder     Holder
	LeaseToken string
	// LeaseID is the shared lease that the instance is to live under, with its TTL and its token; "" = one of its own.
	LeaseID string
}

// An InstanceRef names an instance as a caller wrote it.
type InstanceRef struct {
	Namespace string
	Service   string // may be empty where Levels is given
	Levels    Levels // all five, or none
	ID        string
	Holder    Holder // whose call it is; reading asks nobody
}

// The bounds of a lease's TTL.
const (
	LeaseTTLMin     = time.Second
	LeaseTTLDefault = 30 * time.Second
	LeaseTTLMax     = 7 * 24 * time.Hour
)

// The bounds of a registration.
const (
	nameBytesMax       = 253
	endpointsMax       = 32
	endpointWeight     = 100 // what a weight of 0 stands for
	endpointWeightMax  = 65535
	endpointPathMax    = 1024
	pairsMax           = 64        // labels, and as many metadata
	pairsBytesMax      = 16 * 1024 // keys and values of the labels, and as many of the metadata
	portMax            = 65535
	namespaceReserved  = "mesh" // the last part of a mesh host name
	hostLabelBytesMax  = 63
	leaseTTLSecondsMax = int64(LeaseTTLMax / time.Second)
)

// normalize is the registration in the one form that is stored, or all that is wrong with it.
func (r Registration) normalize() (Registration, error) {
	var bad problems
	ref := r.ref().normalize(&bad)
	out := Registration{
		Namespace: ref.Namespace, Service: ref.Service, Levels: ref.Levels, ID: ref.ID,
		Group:     optionalName(r.Group, "group", &bad),
		Zone:      optionalName(r.Zone, "zone", &bad),
		Version:   optionalName(r.Version, "version", &bad),
		Labels:    normalizePairs(r.Labels, "labels", &bad),
		Metadata:  normalizePairs(r.Metadata, "metadata", &bad),
		Endpoints: normalizeEndpoints(r.Endpoints, &bad),
		Holder:    ref.Holder, LeaseToken: r.LeaseToken, LeaseID: r.LeaseID,
	}
	if r.LeaseID != "" {
		normalizeLeaseID(r.LeaseID, &bad)
		if r.LeaseTTLSeconds != 0 {
			bad.add("leaseTtlSeconds", "is that of the lease in leaseId: leave one of the two out")
		}
	}
	if r.LeaseToken != "" && r.LeaseToken != r.Holder.Token { // else it is checked as the holder's
		checkToken(r.LeaseToken, &bad)
	}
	out.Checks = normalizeChecks(r.Checks, out.Endpoints, &bad)
	out.LeaseTTLSeconds = normalizeTTL(r.LeaseTTLSeconds, &bad)
	if out.LeaseTTLSeconds == 0 {
		out.LeaseTTLSeconds = int64(LeaseTTLDefault / time.Second)
	}
	return out, bad.err()
}

func (r Registration) ref() InstanceRef {
	return InstanceRef{Namespace: r.Namespace, Service: r.Service, Levels: r.Levels, ID: r.ID, Holder: r.Holder}
}

// key checks a reference and gives the key that it stands for.
func (r InstanceRef) key() (InstanceKey, error) {
	var bad problems
	n := r.normalize(&bad)
	return InstanceKey{Namespace: n.Namespace, Service: n.Service, ID: n.ID}, bad.err()
}

// seenKey is the key for who only reads, and may name an instance of another region as well,
// by what it is called here.
func (r InstanceRef) seenKey() (InstanceKey, error) {
	of, there, isAnothers := cutInstanceID(strings.TrimSpace(r.ID))
	if isAnothers {
		r.ID = there
	}
	k, err := r.key()
	if isAnothers {
		k.ID = of.instanceID(k.ID)
	}
	return k, err
}

// Name is what people call the instance: namespace/service/id.
func (r InstanceRef) Name() string {
	service := r.Service
	if service == "" {
		service = r.Levels.String()
	}
	return r.Namespace + "/" + service + "/" + r.ID
}

func (r InstanceRef) normalize(bad *problems) InstanceRef {
	namespace := normalizeNamespace(r.Namespace, bad)
	service, levels := normalizeService(r.Service, r.Levels, bad)
	id := normalizeID(r.ID, bad)
	if r.Holder.Token != "" {
		checkToken(r.Holder.Token, bad)
	}
	return InstanceRef{Namespace: namespace, Service: service, Levels: levels, ID: id, Holder: r.Holder}
}

func checkToken(token string, bad *problems) {
	if problem := TokenProblem(token); problem != "" {
		bad.add("leaseToken", problem)
	}
}

// instanceKey is the key of a registration in normal form.
func (r Registration) instanceKey() InstanceKey {
	return InstanceKey{Namespace: r.Namespace, Service: r.Service, ID: r.ID}
}
