package registry

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An Instance is one running copy of a service. Instances are shared by all
// readers and never change: a change makes a new one.
type Instance struct {
	*Origin   // never nil
	ID        string
	Labels    Pairs
	Metadata  Pairs
	Endpoints []Endpoint // at least one, names unique, in the order registered
	LeaseTTL  time.Duration

	RegisteredAt  int64 // Unix ms of the first registration; a repeated one keeps it
	LastHeartbeat int64 // Unix ms of the last renewal that went through the log; see Machine.LastHeartbeats
	Status        Status
	Protected     bool    // handed out although it is not routable, since too few of its service are; only in what readers get, and in what another region's cluster has told
	Number        uint32  // in checkpoints, until it is removed; 0 = it has none
	ExpiredAt     int64   // Unix ms: when the lease ran out; 0 while it holds
	Health        *Health // what has come to it beside that; nil = nothing

	Revision Revision // of the last change that a reader can see
	Counter  uint64   // how often it has changed visibly since it was created, from 1
	Lease    Revision // the lease's generation: the revision of the last register or logged renewal

	Imported *Imported // of an instance of another region; nil = it is registered here

	LeaseID string    // the shared lease that it lives under, or lived under when it expired; "" = one of its own
	Token   TokenHash // of the lease token that whoever changes it has to present
}

// An Origin is what the instances have in common that one deployment has brought to
// one place: six texts that a million of them would each have a copy of. It is
// shared and never changes.
type Origin struct {
	Namespace string
	Service   string
	Group     string // optional, within the namespace
	Zone      string // optional
	Region    string // where it runs; of this registry's own instances the region of the cluster
	Version   string // optional
}

// Key is the instance's identity.
func (i *Instance) Key() InstanceKey {
	return InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}

// ServiceKey names the service that the instance belongs to.
func (i *Instance) ServiceKey() ServiceKey {
	return ServiceKey{Namespace: i.Namespace, Service: i.Service}
}

// Levels are the five parts of the service's name, or all empty. A million
// copies of them would take 80 MB.
func (i *Instance) Levels() Levels { return LevelsOf(i.Service) }

// Endpoint finds an endpoint by name.
func (i *Instance) Endpoint(name string) (Endpoint, bool) {
	for _, e := range i.Endpoints {
		if e.Name == name {
			return e, true
		}
	}
	return Endpoint{}, false
}

// sameAs says whether a reader could not tell the two apart. The lease's
// generation and the time of the last renewal are not for readers to rely on.
func (i *Instance) sameAs(o *Instance) bool {
	return i.Group == o.Group && i.LeaseID == o.LeaseID && i.Zone == o.Zone && i.Version == o.Version &&
		i.LeaseTTL == o.LeaseTTL && i.Status == o.Status && i.ToldStatus() == o.ToldStatus() && i.Protected == o.Protected && i.ExpiredAt == o.ExpiredAt && slices.Equal(i.Conditions(), o.Conditions()) &&
		slices.Equal(i.Labels, o.Labels) && slices.Equal(i.Metadata, o.Metadata) &&
		slices.Equal(i.Endpoints, o.Endpoints) && slices.Equal(i.Checks(), o.Checks())
}

// Revision is the index of a log entry: the same on every member, growing, with gaps.
type Revision uint64

// InstanceKey names an instance.
type InstanceKey struct{ Namespace, Service, ID string }

// ServiceKey is the service that the instance belongs to.
func (k InstanceKey) ServiceKey() ServiceKey {
	return ServiceKey{Namespace: k.Namespace, Service: k.Service}
}

// Status says how an instance is. The numbers are stored; up to critical they
// grow with what is wrong.
type Status uint8

const (
	// StatusPassing is an instance whose lease is being renewed and of which nothing bad is said.
	StatusPassing Status = 1
	// StatusWarning is an instance that works, and may not for long.
	StatusWarning Status = 2
	// StatusSuspect is an instance that should have expired, and is kept since too many should.
	StatusSuspect Status = 3
	// StatusCritical is an instance that does not work, though its lease is being renewed.
	StatusCritical Status = 4
	// StatusDraining is an instance that is being taken out of use.
	StatusDraining Status = 5
	// StatusExpired is an instance whose lease has run out and that has not been removed yet.
	StatusExpired Status = 6
	// StatusDisabled is an instance that an operator has taken out of use, whatever its lease.
	StatusDisabled Status = 7
)

// statusesMax is above the number of every status.
const statusesMax = StatusDisabled + 1

func known(s Status) bool { return s.String() != Status(0).String() }

// StatusCounts are how many instances have each status, by its number.
type StatusCounts [statusesMax]int32

// String gives the name that JSON uses.
func (s Status) String() string {
	switch s {
	case StatusPassing:
		return "passing"
	case StatusWarning:
		return "warning"
	case StatusSuspect:
		return "suspect"
	case StatusCritical:
		return "critical"
	case StatusDraining:
		return "draining"
	case StatusExpired:
		return "expired"
	case StatusDisabled:
		return "disabled"
	}
	return "unknown"
}

// statusCalled is the status of that name; 0 when there is none.
func statusCalled(name string) Status {
	for s := range statusesMax {
		if known(s) && s.String() == name {
			return s
		}
	}
	return 0
}

// Routable says whether callers may be sent to an instance of this status.
func (s Status) Routable() bool {
	return s == StatusPassing || s == StatusWarning || s == StatusSuspect
}

// standing says that an instance of this status counts among those that its
// service has: proxies are told of it, and it needs no placeholder.
func (s Status) standing() bool { return s != StatusExpired && s != StatusDisabled }

// An Endpoint is a place where an instance listens.
type Endpoint struct {
	Name     string // unique within the instance; the protocol when none was given
	Protocol string // lower case
	Host     string // an IP address in its shortest form, or a host name in lower case
	Port     int32  // 1 to 65535
	Path     string // optional
	Weight   int32  // 1 to endpointWeightMax
}

// Address is the endpoint's IP address; false says that Host is a name.
func (e Endpoint) Address() (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(e.Host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip, uint16(e.Port)), true
}

// Levels are the five parts of a structured service name, or all empty for a plain one.
type Levels struct {
	Organization, BusinessDomain, CapabilityDomain, Application, Role string
}

// levelNames are the JSON names, from the outermost level in.
var levelNames = [...]string{"organization", "businessDomain", "capabilityDomain", "application", "role"}

func (l Levels) parts() [len(levelNames)]string {
	return [...]string{l.Organization, l.BusinessDomain, l.CapabilityDomain, l.Application, l.Role}
}

// IsZero says that there are no levels.
func (l Levels) IsZero() bool { return l == Levels{} }

// String joins the levels to the service name that they stand for.
func (l Levels) String() string {
	if l.IsZero() {
		return ""
	}
	parts := l.parts()
	return strings.Join(parts[:], ".")
}

// LevelsOf takes a service name apart; the levels are empty unless the name has
// exactly five parts, none of them empty.
func LevelsOf(service string) Levels {
	if strings.Count(service, ".") != len(levelNames)-1 {
		return Levels{}
	}
	parts := strings.Split(service, ".")
	if slices.Contains(parts, "") {
		return Levels{}
	}
	return Levels{parts[0], parts[1], parts[2], parts[3], parts[4]}
}

// A Pair is one label or one piece of metadata.
type Pair struct{ Key, Value string }

// Pairs are sorted by key, and no key stands twice. A million maps would cost
// twice the memory of a million slices and many times the collector's work.
type Pairs []Pair

// PairsOf sorts a map into pairs; nil for an empty one.
func PairsOf(m map[string]string) Pairs {
	if len(m) == 0 {
		return nil
	}
	pairs := make(Pairs, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, Pair{Key: k, Value: v})
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return cmp.Compare(a.Key, b.Key) })
	return pairs
}

// Get finds the value of a key.
func (p Pairs) Get(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(p, key, func(pair Pair, key string) int { return cmp.Compare(pair.Key, key) })
	if !ok {
		return "", false
	}
	return p[i].Value, true
}

// Map is the pairs as a map; nil when there are none.
func (p Pairs) Map() map[string]string {
	if len(p) == 0 {
		return nil
	}
	m := make(map[string]string, len(p))
	for _, pair := range p {
		m[pair.Key] = pair.Value
	}
	return m
}
