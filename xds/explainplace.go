package xds

import (
	"fmt"
	"slices"

	"github.com/stellmap/stellmap/registry"
)

// Why an instance has its priority, or is left to those of other regions. It is found by
// the function that gives the priorities.

// groupsOf are the groups of the hosts of a cluster, for a client at some place; those
// that it is not told of have none.
func groupsOf(s *registry.Service, endpoint int, at registry.Standpoint) map[string]registry.Group {
	hosts, _ := pickHosts(s, endpoint)
	rank := rankOf(s, hosts, at)
	out := make(map[string]registry.Group, len(hosts))
	for n, of := range rank.Of {
		if of >= 0 {
			out[hosts[n].instance.ID] = rank.Groups[of]
		}
	}
	return out
}

// leftOut is why an instance that could be there is not.
func (e *explainer) leftOut(i *registry.Instance) string {
	_, ranked := e.groups[i.ID]
	mode := e.service.Policy.FailoverMode()
	switch {
	case !ranked && mode == registry.FailoverLocalFirst:
		return fmt.Sprintf("failover.mode of its policy is %s, and the proxy's region, %s, has the %d passing that it needs", mode, e.proxy.Region, e.service.Policy.MinPassing())
	case !ranked:
		return fmt.Sprintf("failover.mode of its policy is %s, and its region is not the proxy's, %s", mode, e.proxy.Region)
	case e.proxy.Kind == kindGRPC.String():
		return "it is " + i.Status.String() + ", and gRPC clients are told of those only that can be called"
	}
	return reasonNotYet
}

const reasonNotYet = "the member that serves the proxy has not come so far yet"

// place is why an instance has its priority.
func (e *explainer) place(i *registry.Instance, at *Placement) string {
	g, ranked := e.groups[i.ID]
	home := i.Region == e.proxy.Region
	switch {
	case !ranked:
		return reasonNotYet
	case g.Region == "":
		return "failover.mode of its policy is merged: all regions are alike"
	case g.Zone != "":
		return "its zone is the proxy's, which is called first by failover.zoneFirst"
	case g.Rest:
		return "its region is the proxy's, and the proxy's own zone, " + e.proxy.Zone + ", is called before it by failover.zoneFirst"
	case home && at.Priority > 0:
		return "its region is the proxy's, and has too few healthy by failover.minHealthyPercent: others are called before it"
	case home && e.service.Policy.AsksForZones() && e.proxy.Zone != "" && i.Zone == e.proxy.Zone:
		return "its region is the proxy's; its zone would be called first by failover.zoneFirst, and has less than its share"
	case home:
		return "its region is the proxy's"
	case at.Priority == 0 && e.proxy.Kind == kindGRPC.String():
		return "its region has a share of the calls, since the proxy's, " + e.proxy.Region + ", cannot take all of them"
	case at.Priority == 0 && e.present(e.proxy.Region):
		return "the proxy's region, " + e.proxy.Region + ", has too few healthy by failover.minHealthyPercent, and its region is the next"
	case at.Priority == 0:
		return "the proxy's region, " + e.proxy.Region + ", has none, and its region is the next"
	}
	return fmt.Sprintf("its region comes after the proxy's, %s; the others are in the order of %s", e.proxy.Region, e.orderOf(i.Region))
}

// present says whether any instance of a region has a place.
func (e *explainer) present(region string) bool {
	for _, g := range e.groups {
		if g.Region == region {
			return true
		}
	}
	return false
}

// orderOf is by what a region has its place among those that are not the client's.
func (e *explainer) orderOf(region string) string {
	switch p := e.service.Policy; {
	case p != nil && p.Failover != nil && slices.Contains(p.Failover.Regions, region):
		return "failover.regions of its policy"
	case slices.Contains(e.order, region):
		return "federation.regions in the settings"
	}
	return "their names"
}
