package xds

import (
	"cmp"
	"math"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// overprovisioning (percent) is how far the healthy hosts of a region may stand
// in for the others before traffic goes to the next: until under 72 % are healthy.
const overprovisioning = 140

// allOrNothing (percent) has one healthy host in a thousand stand in for all of them: a
// region keeps its traffic to the last.
const allOrNothing = 100_000

// A host is one instance as a cluster shows it.
type host struct {
	instance *registry.Instance
	endpoint registry.Endpoint
	priority uint32
	health   corev3.HealthStatus
	checked  bool
}

// buildEndpoints is what a proxy is told of the hosts of one endpoint of a service. The
// priorities are the groups of registry.Rank, of which the first is the proxy's own region
// unless the policy has it otherwise; there is no gap, and no address stands twice. A
// service without hosts has an assignment that says so, without which Envoy would wait for one.
func buildEndpoints(s *registry.Service, endpoint int, at registry.Standpoint) (*endpointv3.ClusterLoadAssignment, []Withheld) {
	hosts, withheld := placeHosts(s, endpoint, at)
	m := assignmentOf(s, endpoint, localities(hosts, s.Policy))
	m.Policy.DropOverloads = oneDrop(m.Policy.DropOverloads)
	markDrops(m)
	return m, withheld
}

// placeHosts are the hosts of one endpoint of a service that a client is told of, each with the priority of its group.
func placeHosts(s *registry.Service, endpoint int, at registry.Standpoint) ([]host, []Withheld) {
	hosts, withheld := pickHosts(s, endpoint)
	hosts, twins := dropTwins(prioritize(hosts, rankOf(s, hosts, at)))
	for _, w := range twins {
		withheld = append(withheld, withheldOf(s, endpoint, w.dropped.instance, reasonTwin(w.kept.instance.ID)))
	}
	closeGaps(hosts) // a group may have lost its last host
	return hosts, withheld
}

func assignmentOf(s *registry.Service, endpoint int, localities []*endpointv3.LocalityLbEndpoints) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: clusterName(s.Key, endpoint, s.Endpoints[endpoint].Name),
		Endpoints:   localities,
		Policy:      assignmentPolicy(s.Policy),
	}
}

func assignmentPolicy(p *registry.Policy) *endpointv3.ClusterLoadAssignment_Policy {
	return &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(overprovisioningOf(p)), DropOverloads: dropsOf(p)}
}

func withheldOf(s *registry.Service, endpoint int, i *registry.Instance, reason string) Withheld {
	return Withheld{Service: s.Key, Instance: i.ID, Endpoint: s.Endpoints[endpoint].Name, Reason: reason}
}

// pickHosts are the instances that can be shown, and why the others cannot.
func pickHosts(s *registry.Service, endpoint int) ([]host, []Withheld) {
	want := s.Endpoints[endpoint]
	path := checkPath(s, endpoint)
	hosts := make([]host, 0, len(s.Shown))
	var withheld []Withheld
	for _, i := range s.Shown {
		e, has := i.Endpoint(want.Name)
		if !has && endpoint > 0 {
			continue // it need not have every endpoint that the service has
		}
		health, reason := judge(i, e, has, want)
		if s.HandsOut(i) || s.Protected != nil && i.Imported == nil && health == corev3.HealthStatus_DEGRADED {
			health = corev3.HealthStatus_HEALTHY
		}
		if reason != "" {
			withheld = append(withheld, withheldOf(s, endpoint, i, reason))
			continue
		}
		hosts = append(hosts, host{instance: i, endpoint: e, health: health, checked: path == "" || ownCheckPath(i) == path})
	}
	return hosts, withheld
}

// judge gives the health of an instance in EDS, or why it is not shown.
func judge(i *registry.Instance, e registry.Endpoint, has bool, want registry.ServiceEndpoint) (corev3.HealthStatus, string) {
	health, shown := healthOf(i.Status.String())
	_, isAddress := e.Address()
	switch {
	case !shown:
		return health, reasonDisabled
	case !has:
		return health, reasonMissing
	case e.Protocol != want.Protocol:
		return health, reasonProtocol(e.Protocol, want.Protocol)
	case !isAddress:
		return health, reasonHostName
	}
	return health, ""
}

// healthOf reads a status by the name that JSON gives it; false says that such
// an instance is not shown at all. A suspect is used only where there is nothing
// better in any region. An unknown status does not get traffic.
func healthOf(status string) (corev3.HealthStatus, bool) {
	switch status {
	case "passing", "warning":
		return corev3.HealthStatus_HEALTHY, true
	case "suspect":
		return corev3.HealthStatus_DEGRADED, true
	case "draining":
		return corev3.HealthStatus_DRAINING, true
	case "disabled":
		return corev3.HealthStatus_UNKNOWN, false
	}
	return corev3.HealthStatus_UNHEALTHY, true
}

// rank orders healths, the best first.
func (h *host) rank() int {
	switch h.health {
	case corev3.HealthStatus_HEALTHY:
		return 0
	case corev3.HealthStatus_DEGRADED:
		return 1
	case corev3.HealthStatus_DRAINING:
		return 2
	}
	return 3
}

// rankOf is in which group each host is, for a client at some place.
func rankOf(s *registry.Service, hosts []host, at registry.Standpoint) registry.Rank {
	all := make([]registry.Candidate, len(hosts))
	for n := range hosts {
		h := &hosts[n]
		all[n] = registry.Candidate{
			Region: h.instance.Region, Zone: h.instance.Zone, Weight: uint64(h.weight()), Healthy: h.usable(), Leaving: h.health == corev3.HealthStatus_DRAINING,
		}
	}
	return s.Policy.Rank(at, all)
}

// prioritize gives hosts the priorities of their groups, and leaves out those that are in none.
func prioritize(hosts []host, rank registry.Rank) []host {
	kept := hosts[:0]
	for n, h := range hosts {
		if of := rank.Of[n]; of >= 0 {
			h.priority = uint32(of)
			kept = append(kept, h)
		}
	}
	return kept
}

// closeGaps numbers the priorities of hosts that are in their order anew, so that none is left out.
func closeGaps(hosts []host) {
	next, was := uint32(0), uint32(0)
	for n := range hosts {
		if n > 0 && hosts[n].priority != was {
			next++
		}
		was, hosts[n].priority = hosts[n].priority, next
	}
}

// A twin is a host at the address of a better one.
type twin struct{ kept, dropped host }

// dropTwins keeps the best host at each address: the nearest, of those the
// healthiest, of those the first by id. Envoy would pick one of them, and gRPC
// clients refuse the whole assignment.
func dropTwins(hosts []host) ([]host, []twin) {
	slices.SortStableFunc(hosts, func(a, b host) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.instance.ID, b.instance.ID))
	})
	type address struct {
		ip   string
		port int32
	}
	at := make(map[address]int, len(hosts))
	kept := hosts[:0:0]
	var twins []twin
	for _, h := range hosts {
		key := address{h.endpoint.Host, h.endpoint.Port}
		if first, taken := at[key]; taken {
			twins = append(twins, twin{kept: kept[first], dropped: h})
			continue
		}
		at[key] = len(kept)
		kept = append(kept, h)
	}
	return kept, twins
}

// localities groups the hosts by priority, region and zone, in that order, and
// by id within. Each weighs as much as its hosts do together, and under allOrNothing less
// where too few of them can be called: Envoy has one factor for regions and zones.
func localities(hosts []host, p *registry.Policy) []*endpointv3.LocalityLbEndpoints {
	slices.SortFunc(hosts, byPlace)
	var out []*endpointv3.LocalityLbEndpoints
	for _, zone := range chunk(hosts, func(a, b *host) bool { return a.priority == b.priority && sameZone(a, b) }) {
		l := locality(zone)
		if can := availability(zone, uint64(zoneOverprovisioningOf(p))); isAllOrNothing(p) && can > 0 {
			l.LoadBalancingWeight.Value = uint32(max(1, uint64(l.LoadBalancingWeight.Value)*can/100))
		}
		out = append(out, l)
	}
	return out
}

// sameZone says whether two hosts are in the same zone of the same region.
func sameZone(a, b *host) bool {
	return a.instance.Region == b.instance.Region && a.instance.Zone == b.instance.Zone
}

// byPlace orders hosts by priority, region, zone and id.
func byPlace(a, b host) int {
	return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.instance.Region, b.instance.Region),
		cmp.Compare(a.instance.Zone, b.instance.Zone), cmp.Compare(a.instance.ID, b.instance.ID))
}

// weight is the host's registered weight, at least one.
func (h *host) weight() uint32 { return uint32(max(1, h.endpoint.Weight)) }

func locality(hosts []host) *endpointv3.LocalityLbEndpoints {
	first := hosts[0].instance
	l := &endpointv3.LocalityLbEndpoints{
		Locality:    &corev3.Locality{Region: first.Region, Zone: first.Zone},
		Priority:    hosts[0].priority,
		LbEndpoints: make([]*endpointv3.LbEndpoint, 0, len(hosts)),
	}
	total := uint64(0)
	for i := range hosts {
		weight := hosts[i].weight()
		total += uint64(weight)
		l.LbEndpoints = append(l.LbEndpoints, lbEndpoint(&hosts[i], weight))
	}
	l.LoadBalancingWeight = wrapperspb.UInt32(uint32(min(total, math.MaxUint32)))
	return l
}

func lbEndpoint(h *host, weight uint32) *endpointv3.LbEndpoint {
	e := &endpointv3.Endpoint{Address: socketAddress(h.endpoint.Host, uint32(h.endpoint.Port))}
	if !h.checked {
		e.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: e},
		HealthStatus:        h.health,
		LoadBalancingWeight: wrapperspb.UInt32(weight),
		Metadata:            lbMetadata(h.instance),
	}
}

// Where Envoy looks for what tells the hosts of a cluster apart, and how much of it there is.
const (
	lbFilter           = "envoy.lb"
	lbVersion          = "version"
	lbMetadataBytesMax = 512 // of a host: labels that do not fit are left out, so that no instance makes its cluster too large to be sent
)

// lbMetadata are the version and the labels of an instance; nil where it has none.
func lbMetadata(i *registry.Instance) *corev3.Metadata {
	if i.Version == "" && len(i.Labels) == 0 {
		return nil
	}
	fields := make(map[string]*structpb.Value)
	room := lbMetadataBytesMax
	for _, p := range i.Labels { // in the order of their keys
		if room -= len(p.Key) + len(p.Value); room < 0 {
			break
		}
		fields[p.Key] = structpb.NewStringValue(p.Value)
	}
	if i.Version != "" {
		fields[lbVersion] = structpb.NewStringValue(i.Version)
	}
	if len(fields) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{lbFilter: {Fields: fields}}}
}

func socketAddress(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ip,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
