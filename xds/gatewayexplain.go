package xds

import (
	"github.com/stellmap/stellmap/registry"
)

// goRound has an explanation know of gateways: those by which its proxy reaches other
// regions, or that it is one.
func (e *explainer) goRound(c *cache, of *claim) {
	k := resourceKey{name: of.cluster, region: e.proxy.Region}
	switch e.proxy.Kind {
	case kindGateway.String():
		e.part = homeOf(e.part, e.proxy.Region)
		return
	case kindGRPC.String():
		k.kind = kindGRPC
	}
	if e.way = c.detourOf(e.part, of.endpoint, k); e.way != nil {
		e.part, e.missing = e.way.take()
	}
}

// passes is why an instance of another region is not told by itself, for the sake of
// gateways; empty if it is.
func (e *explainer) passes(i *registry.Instance) string {
	switch {
	case i.Region == e.proxy.Region || e.part == nil:
		return ""
	case e.proxy.Kind == kindGateway.String():
		return "the proxy is a gateway, which passes on to the instances of its own region, " + e.proxy.Region + ", alone"
	case e.way != nil:
		return e.way.why(i, e.missing)
	}
	return ""
}

// gateways are those that stand in the place of other regions' instances.
func (e *explainer) gateways(should, has places) []HostExplanation {
	if e.way == nil {
		return nil
	}
	var out []HostExplanation
	for _, i := range e.part.Shown {
		if i.Region == e.proxy.Region {
			continue
		}
		at := i.Endpoints[0]
		one := HostExplanation{Instance: i.ID, Region: i.Region, Zone: i.Zone, Address: address(at.Host, uint32(at.Port)), Status: i.Status.String(), Why: reasonGateway}
		one.Should, one.Has = should.find(one.Address), has.find(one.Address)
		out = append(out, one)
	}
	return out
}
