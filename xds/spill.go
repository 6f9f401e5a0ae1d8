package xds

import (
	"cmp"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// What Envoy does by itself is done for gRPC clients here.
//
// A gRPC client leaves its first priority only when none of it can be called, so
// that what is left of a region would take all of its traffic. And it looks at no
// weight but a locality's. So the share of each group is computed here as Envoy
// would: the groups that have one are together in the first priority, as
// localities whose weights are their shares; those without follow, for when all
// others are gone. The hosts of a zone that differ in weight are in localities of
// their own. Hosts that are not to be called count, and are then left out.

const (
	allShares       = 1_000_000 // the weights of a priority's localities, together
	weightGroupsMax = 16        // of a zone; where there are more weights, neighbours share one
)

// buildEndpointsForGRPC is buildEndpoints for gRPC clients.
func buildEndpointsForGRPC(s *registry.Service, endpoint int, at registry.Standpoint) *endpointv3.ClusterLoadAssignment {
	hosts, _ := placeHosts(s, endpoint, at)
	trustSuspects(hosts)
	slices.SortFunc(hosts, byPlace)
	groups := chunk(hosts, func(a, b *host) bool { return a.priority == b.priority })
	loads := loadsOf(groups, uint64(overprovisioningOf(s.Policy)))
	factor := uint64(zoneOverprovisioningOf(s.Policy))

	var first []*endpointv3.LocalityLbEndpoints
	var rest [][]*endpointv3.LocalityLbEndpoints
	for n, all := range groups {
		if loads[n] > 0 {
			first = append(first, shareOut(all, loads[n]*allShares/100, factor)...)
		} else if usable(all) > 0 {
			rest = append(rest, shareOut(all, allShares, factor))
		}
	}
	if len(first) > 0 {
		rest = slices.Insert(rest, 0, first)
	}
	if isRing(s.Policy) {
		for n, all := range rest {
			rest[n] = []*endpointv3.LocalityLbEndpoints{oneRing(all)}
		}
	}
	return assignmentOf(s, endpoint, inOrder(rest))
}

// inOrder numbers priorities.
func inOrder(priorities [][]*endpointv3.LocalityLbEndpoints) []*endpointv3.LocalityLbEndpoints {
	for n, localities := range priorities {
		for _, l := range localities {
			l.Priority = uint32(n)
		}
	}
	return slices.Concat(priorities...)
}

// trustSuspects is for gRPC clients, to whom a degraded host is no host: where none in
// any region is better, suspects are healthy. Envoy has them after all that are better by itself.
func trustSuspects(hosts []host) {
	if slices.ContainsFunc(hosts, func(h host) bool { return h.health == corev3.HealthStatus_HEALTHY }) {
		return
	}
	for n := range hosts {
		if hosts[n].health == corev3.HealthStatus_DEGRADED {
			hosts[n].health = corev3.HealthStatus_HEALTHY
		}
	}
}

// chunk cuts a list where neighbours differ.
func chunk(hosts []host, same func(a, b *host) bool) [][]host {
	var out [][]host
	for from := 0; from < len(hosts); {
		to := from + 1
		for to < len(hosts) && same(&hosts[from], &hosts[to]) {
			to++
		}
		out = append(out, hosts[from:to])
		from = to
	}
	return out
}

func (h *host) usable() bool { return h.health == corev3.HealthStatus_HEALTHY }

func usable(hosts []host) uint64 {
	n := uint64(0)
	for i := range hosts {
		if hosts[i].usable() {
			n++
		}
	}
	return n
}

// availability is how much of their full traffic hosts can take, in percent. Those
// that drain do not count, so that a deployment sends nothing elsewhere.
func availability(hosts []host, factor uint64) uint64 {
	all := uint64(0)
	for i := range hosts {
		if hosts[i].health != corev3.HealthStatus_DRAINING {
			all++
		}
	}
	if all == 0 {
		return 0
	}
	return min(100, factor*usable(hosts)/all)
}

// loadsOf are the shares of groups, in percent: each in turn gets as much of what
// is left as it can take. Where all of them cannot take it all, they share it as they can.
func loadsOf(groups [][]host, factor uint64) []uint64 {
	loads := make([]uint64, len(groups))
	together := uint64(0)
	for n, hosts := range groups {
		loads[n] = availability(hosts, factor)
		together += loads[n]
	}
	together = min(100, together)
	if together == 0 {
		return loads
	}
	left := uint64(100)
	for n := range loads {
		loads[n] = min(left, loads[n]*100/together)
		left -= loads[n]
	}
	for n := range loads { // what rounding has left goes to the first
		if loads[n] > 0 {
			loads[n] += left
			break
		}
	}
	return loads
}

// shareOut are the localities of a group, which has a share of all. A zone's share
// is that of its hosts' weights, less where too few of them can be called.
func shareOut(hosts []host, share, factor uint64) []*endpointv3.LocalityLbEndpoints {
	zones := chunk(hosts, sameZone)
	weights, together := make([]uint64, len(zones)), uint64(0)
	for n, zone := range zones {
		weights[n] = weightOf(zone) * availability(zone, factor)
		together += weights[n]
	}
	var out []*endpointv3.LocalityLbEndpoints
	for n, zone := range zones {
		if weights[n] > 0 {
			out = append(out, partsOf(zone, share*weights[n]/together)...)
		}
	}
	return out
}

func weightOf(hosts []host) uint64 {
	sum := uint64(0)
	for i := range hosts {
		sum += uint64(hosts[i].weight())
	}
	return sum
}

// partsOf are the localities of a zone. A host is always in the one that its weight
// names, so that clients keep their connections to it when others come and go.
func partsOf(zone []host, share uint64) []*endpointv3.LocalityLbEndpoints {
	hosts := slices.DeleteFunc(slices.Clone(zone), func(h host) bool { return !h.usable() })
	slices.SortFunc(hosts, func(a, b host) int {
		return cmp.Or(cmp.Compare(a.weight(), b.weight()), cmp.Compare(a.instance.ID, b.instance.ID))
	})
	together := weightOf(hosts)
	parts := chunk(hosts, func(a, b *host) bool { return a.weight() == b.weight() })
	name := func(n int) string { return fmt.Sprintf("weight-%d", parts[n][0].weight()) }
	if len(parts) > weightGroupsMax {
		parts = slices.Collect(slices.Chunk(hosts, (len(hosts)+weightGroupsMax-1)/weightGroupsMax))
		name = func(n int) string { return fmt.Sprintf("part-%d", n+1) }
	}
	out := make([]*endpointv3.LocalityLbEndpoints, 0, len(parts))
	for n, part := range parts {
		l := locality(part)
		l.Locality.SubZone = name(n)
		l.LoadBalancingWeight = wrapperspb.UInt32(uint32(max(1, share*weightOf(part)/together)))
		out = append(out, l)
	}
	return out
}

func isRing(p *registry.Policy) bool {
	return p != nil && p.LoadBalancing != nil && p.LoadBalancing.Algorithm == registry.BalanceRingHash
}

// oneRing puts the hosts of a priority into one locality, each with its share of all
// as its weight: on a ring the weights of hosts count, and some clients multiply them
// with their locality's as it is.
func oneRing(localities []*endpointv3.LocalityLbEndpoints) *endpointv3.LocalityLbEndpoints {
	out := &endpointv3.LocalityLbEndpoints{
		Locality:            &corev3.Locality{Region: localities[0].GetLocality().GetRegion()},
		LoadBalancingWeight: wrapperspb.UInt32(1),
	}
	for _, l := range localities {
		together := uint64(0)
		for _, e := range l.LbEndpoints {
			together += uint64(e.GetLoadBalancingWeight().GetValue())
		}
		for _, e := range l.LbEndpoints {
			share := uint64(l.GetLoadBalancingWeight().GetValue()) * uint64(e.GetLoadBalancingWeight().GetValue()) / together
			e.LoadBalancingWeight = wrapperspb.UInt32(uint32(max(1, share)))
			out.LbEndpoints = append(out.LbEndpoints, e)
		}
	}
	return out
}
