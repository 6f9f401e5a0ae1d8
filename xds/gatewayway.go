package xds

import (
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/stellmap/stellmap/registry"
)

// The way of a client to the instances of other regions, where the policy of their
// service has gateways lead there: in the place of a region's instances it is told of the
// gateways that are registered in that region. A region where none of the service's instances can be
// called has no place for gateways, so that calls go on to the next; and one whose gateways
// cannot be called is not there.
//
// A gateway goes by what the call itself says: host, authority or SNI. Those are what
// a client says anyway. But of a subset an Envoy has to put the cluster's name in the place of the host,
// which it does where an endpoint has a hostname; a gRPC client does not, and what is in TLS cannot be changed.
type detour struct {
	service  *registry.Service // with the instances of the subset alone, if it is one
	endpoint int
	subset   bool
	kind     kind
	region   string              // the client's
	by       registry.ServiceKey // the gateways' service
	gateways *registry.Service   // nil = there is none
}

const (
	reasonSubsetTLS  = "a gateway cannot be told which subset a connection is for, since it is in TLS"
	reasonSubsetGRPC = "a gateway cannot be told by a client of gRPC which subset a call is for"
	reasonGateway    = "it is a gateway of its region, by which the proxy reaches the instances there"
)

// detourOf is the way to a cluster, for clients of a kind and a region; nil where the policy has no gateways.
func (c *cache) detourOf(s *registry.Service, endpoint int, k resourceKey) *detour {
	by, wanted := s.Policy.GatewayOf(s.Key)
	if !wanted || k.kind == kindGateway {
		return nil
	}
	return &detour{service: s, endpoint: endpoint, subset: isSubset(k.name), kind: k.kind, region: k.region, by: by, gateways: c.service(by)}
}

// revision is by which the detour was settled.
func (d *detour) revision() registry.Revision {
	if d == nil || d.gateways == nil {
		return 0
	}
	return d.gateways.Revision
}

// closed is why no gateway can lead to the cluster; empty if one can.
func (d *detour) closed() string {
	protocol := d.service.Endpoints[d.endpoint].Protocol
	switch {
	case d.subset && passesTLS(protocol):
		return reasonSubsetTLS
	case d.subset && d.kind == kindGRPC && registry.PassesGateways(protocol):
		return reasonSubsetGRPC
	}
	return registry.GatewaysClosed(protocol, d.by, d.gateways)
}

// callable are the regions, the client's left out, that have hosts which can be called.
func (d *detour) callable(hosts []host) map[string]bool {
	out := make(map[string]bool)
	for n := range hosts {
		h := &hosts[n]
		if h.instance.Region != d.region && (h.usable() || h.health == corev3.HealthStatus_DEGRADED) {
			out[h.instance.Region] = true
		}
	}
	return out
}

// take is the service as the client is told of it, and by region why one is not there.
func (d *detour) take() (*registry.Service, map[string]string) {
	hosts, _ := pickHosts(d.service, d.endpoint)
	way := registry.Passage{By: d.by, Closed: d.closed(), Wanted: d.callable(hosts)}
	var gateways []host
	if way.Closed == "" {
		gateways, _ = pickHosts(d.gateways, 0)
	}
	way.Open = d.callable(gateways)
	var standIns []*registry.Instance
	for n := range gateways {
		if way.Leads(gateways[n].instance.Region) {
			standIns = append(standIns, d.standIn(&gateways[n]))
		}
	}
	return d.service.Instead(d.region, standIns), way.Missing()
}

// standIn is a gateway in the place of instances: it is where the gateway is, and offers what they do.
func (d *detour) standIn(h *host) *registry.Instance {
	want, origin := d.service.Endpoints[d.endpoint], *h.instance.Origin
	e := h.endpoint
	e.Name, e.Protocol = want.Name, want.Protocol
	origin.Version = ""
	out := *h.instance
	out.ID = primaryStem(d.by) + "/" + out.ID
	out.Origin, out.Labels, out.Metadata, out.Endpoints = &origin, nil, nil, []registry.Endpoint{e}
	if path := checkPath(d.service, d.endpoint); path != "" { // which is passed on, too
		out.Metadata = registry.PairsOf(map[string]string{metadataHealthPath: path})
	}
	return &out
}

// name has an Envoy say to gateways that a request is for a subset.
func (d *detour) name(m *endpointv3.ClusterLoadAssignment) {
	if d == nil || !d.subset || d.kind != kindEnvoy {
		return
	}
	for _, l := range m.Endpoints {
		for _, e := range l.LbEndpoints {
			if l.GetLocality().GetRegion() != d.region {
				e.GetEndpoint().Hostname = m.ClusterName
			}
		}
	}
}

// withheld says which regions clients here do not reach.
func (d *detour) withheld(missing map[string]string) []Withheld {
	var out []Withheld
	for _, region := range slices.Sorted(maps.Keys(missing)) {
		out = append(out, Withheld{Service: d.service.Key, Endpoint: d.service.Endpoints[d.endpoint].Name, Reason: reasonRegion(region, missing[region])})
	}
	return out
}

func reasonRegion(region, why string) string {
	return "region " + region + " is reached by gateways, and is not: " + why
}

// why is why an instance of another region is not told by itself.
func (d *detour) why(i *registry.Instance, missing map[string]string) string {
	if reason := missing[i.Region]; reason != "" {
		return reasonRegion(i.Region, reason)
	}
	return fmt.Sprintf("its region is reached by gateways, the instances of service %s in namespace %s there", d.by.Service, d.by.Namespace)
}

// The services that gateways lead to: a change of gateways is one of theirs, too.

// lead notes which service's instances are the gateways to a service, nil for one that is gone.
func (d *directory) lead(k registry.ServiceKey, s *registry.Service) {
	if old, had := d.gateway[k]; had {
		delete(d.ledTo[old], k)
		if len(d.ledTo[old]) == 0 {
			delete(d.ledTo, old)
		}
		delete(d.gateway, k)
	}
	if s == nil {
		return
	}
	by, wanted := s.Policy.GatewayOf(k)
	if !wanted {
		return
	}
	d.gateway[k] = by
	if d.ledTo[by] == nil {
		d.ledTo[by] = make(map[registry.ServiceKey]struct{})
	}
	d.ledTo[by][k] = struct{}{}
}
