package xds

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/registry"
)

// An explanation holds what the registry knows of a service against what a proxy
// was told of it. What stands where is read from the assignment that the proxy is
// to have, so that it cannot differ from it; why it does is found anew.

// An Explanation is why a proxy has the instances of a service as it has them.
type Explanation struct {
	Member   uint64 // that serves the proxy
	Proxy    ProxyStatus
	Clusters []ClusterExplanation
	Routes   []ResourceStatus // that it refuses for the sake of the service's policy
}

// A ClusterExplanation is about one cluster of the service.
type ClusterExplanation struct {
	Name, Endpoint, Subset string
	Told                   bool   // the proxy is told of it
	Why                    string // it is, or not and how to get it in
	Cluster, Endpoints     *ResourceStatus
	Priorities             []PriorityExplanation
	Hosts                  []HostExplanation
}

// A PriorityExplanation is one priority of a cluster.
type PriorityExplanation struct {
	Priority       uint32
	Regions        []string
	Hosts, Healthy int
	Share          int // percent of the calls
}

// A HostExplanation is why an instance stands where it does, or is not there.
type HostExplanation struct {
	Instance, Region, Zone, Address, Status string
	Should, Has                             *Placement // as it is to be, and as the proxy has accepted it; nil = not at all
	Why                                     string
}

// A Placement is where a cluster has a host.
type Placement struct {
	Priority, Weight uint32
	Health           string
}

// Explain tells of each proxy of a node why it has a service, or one instance of
// it, as it has it. It gives the members that did not say, too. The error is that
// of this member itself.
func (f *Fleet) Explain(ctx context.Context, node string, k registry.ServiceKey, instance string) ([]Explanation, []MemberDetail, error) {
	c := f.server.cache
	claims := c.claimsOf(k)
	names := make([]string, len(claims))
	for n, one := range claims {
		names[n] = one.cluster
	}
	q := DetailQuery{Node: node, Limit: ProxyResourcesMax, Types: []string{typeCluster.String(), typeEndpoints.String()}, Names: append(names, noName), Contents: true, Upstreams: upstreamsOf(k), Service: k}
	members, err := f.Detail(ctx, q, 0)
	if err != nil {
		return nil, nil, err
	}
	refused, err := f.Detail(ctx, DetailQuery{Node: node, Limit: ProxyResourcesMax, Types: []string{typeListener.String(), typeRoutes.String()}, States: []string{string(PendingRejected)}}, 0)
	if err != nil {
		return nil, nil, err
	}
	service := c.machine.Service(k)
	var out []Explanation
	for i := range members {
		for _, p := range members[i].Proxies {
			one := Explanation{Member: members[i].Member, Proxy: p, Routes: causedBy(k, p.Number, members[i].Member, refused)}
			for _, claim := range claims {
				one.Clusters = append(one.Clusters, c.explain(ctx, service, claim, &p, members[i].Resources, instance))
			}
			out = append(out, one)
		}
	}
	return out, members, nil
}

// upstreamsOf are the patterns by which a service is in scope.
func upstreamsOf(k registry.ServiceKey) []string {
	return []string{primaryStem(k), allOf + strings.ToLower(k.Namespace)}
}

// noName is no resource's, so that a query for none of a service's names is not one for all.
const noName = " "

// claimsOf are the names that a service would have, of those that this member knows of.
func (c *cache) claimsOf(k registry.ServiceKey) []*claim {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if l := c.directory.services[k]; l != nil {
		return l.claims
	}
	return nil
}

// causedBy are the resources of a proxy that came by an edit of a service's policy.
func causedBy(k registry.ServiceKey, number, member uint64, answers []MemberDetail) []ResourceStatus {
	var out []ResourceStatus
	for _, m := range answers {
		for _, r := range m.Resources {
			if m.Member == member && r.Number == number && slices.ContainsFunc(r.Causes, func(c Cause) bool { return c.Service == k }) {
				out = append(out, r)
			}
		}
	}
	return out
}

// explain is about one cluster of a service, as a proxy has it.
func (c *cache) explain(ctx context.Context, s *registry.Service, of *claim, p *ProxyStatus, resources []ResourceStatus, instance string) ClusterExplanation {
	out := ClusterExplanation{Name: of.cluster, Endpoint: of.name.Name, Subset: of.subset}
	for i := range resources {
		r := &resources[i]
		switch {
		case r.Number != p.Number || r.Name != of.cluster:
		case r.Type == typeCluster.String():
			out.Cluster = r
		default:
			out.Endpoints = r
		}
	}
	out.Told, out.Why = c.told(ctx, of, p, &out)
	if s == nil || of.endpoint >= len(s.Endpoints) || out.Endpoints == nil {
		return out
	}
	should, has := placesOf(&out.Endpoints.Wanted), placesOf(&out.Endpoints.Acked)
	if out.Endpoints.Wanted.Hash == out.Endpoints.Acked.Hash { // of two that are equal one is told
		should = has
	}
	out.Priorities = should.priorities()
	e := explainer{proxy: p, service: s, claim: of, part: s}
	if of.subset != "" {
		e.part = subsetOf(s, of.subset)
	}
	if e.part != nil {
		at := c.standpoint(p.Region, p.Zone)
		e.goRound(c, of)
		_, e.withheld = placeHosts(e.part, of.endpoint, at)
		e.groups, e.order = groupsOf(e.part, of.endpoint, at), c.order
	}
	for _, i := range s.Instances {
		if instance == "" || i.ID == instance {
			out.Hosts = append(out.Hosts, e.host(i, should, has))
		}
	}
	if instance == "" {
		out.Hosts = append(out.Hosts, e.gateways(should, has)...)
	}
	return out
}

// told says whether a proxy is told of a cluster, and why.
func (c *cache) told(ctx context.Context, of *claim, p *ProxyStatus, e *ClusterExplanation) (bool, string) {
	if owner := c.rival(of); owner != nil {
		return false, reasonTaken(of.stem, owner.listing.key.NameFor(ctx))
	}
	if p.Denied != "" {
		return false, p.Denied + ": give it a role that allows that"
	}
	patterns := upstreamsOf(of.listing.key)
	stem := patterns[0]
	caller := registry.ServiceKey{Namespace: p.Namespace, Service: p.Service}
	if d := c.machine.Upstreams(caller); p.Service != "" && !d.Content().Allows(stem) {
		return false, reasonNotAllowed(caller, d.Version()) + ": add " + stem + " to what it may"
	}
	has, upstream := e.Cluster != nil || e.Endpoints != nil, p.upstreamOf(patterns)
	switch {
	case has && p.Kind == kindGRPC.String(): // to which its scope says nothing
		return true, "the client asks for it by name"
	case p.Kind == kindGRPC.String():
		return false, fmt.Sprintf("the client has not asked for it: it does when it dials xds:///%s", of.cluster)
	case has && upstream != "":
		return true, fmt.Sprintf("it is in the proxy's scope by its upstream %s", upstream) + byDocument(p)
	case has:
		return true, "the proxy asks for it by name"
	case upstream != "":
		return false, fmt.Sprintf("it is in the proxy's scope by its upstream %s, and the proxy does not ask for clusters on this stream", upstream)
	}
	where := metadataUpstreams + " in the metadata of its node"
	if p.UpstreamsFrom == UpstreamsByDocument {
		where = fmt.Sprintf("what service %s in namespace %s wants by its upstreams", p.Service, p.Namespace)
	}
	return false, fmt.Sprintf("it is out of the proxy's scope, which has %s: add %s, or %s for all of the namespace, to %s", upstreamText(p), stem, patterns[1], where)
}

// upstreamOf is the first of some patterns that are a proxy's upstreams; empty if none is. A member of
// an earlier version does not say which it found: those of its first that it tells are looked at, too.
func (p *ProxyStatus) upstreamOf(patterns []string) string {
	at := slices.IndexFunc(patterns, func(u string) bool {
		return slices.Contains(p.UpstreamsFound, u) || slices.Contains(p.Upstreams, u)
	})
	if at < 0 {
		return ""
	}
	return patterns[at]
}

// byDocument names the document that a proxy's scope is from, where it is from one.
func byDocument(p *ProxyStatus) string {
	if p.UpstreamsFrom != UpstreamsByDocument {
		return ""
	}
	return fmt.Sprintf(", which version %d of the upstreams of service %s in namespace %s wants", p.UpstreamsVersion, p.Service, p.Namespace)
}

func upstreamText(p *ProxyStatus) string {
	if p.UpstreamCount == 0 {
		return "nothing"
	}
	text := strings.Join(p.Upstreams, ", ")
	if more := p.UpstreamCount - len(p.Upstreams); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// rival is who has the name that a claim would have; nil = the claim itself.
func (c *cache) rival(of *claim) *claim {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.directory.owns(of) || len(c.directory.stems[of.stem]) == 0 {
		return nil
	}
	return c.directory.owner(of)
}

// places are where an assignment has its hosts, by address.
type places struct {
	assignment *endpointv3.ClusterLoadAssignment
	at         map[string]Placement
}

func placesOf(c *Content) places {
	out := places{assignment: new(endpointv3.ClusterLoadAssignment), at: make(map[string]Placement)}
	if c.Bytes == nil || proto.Unmarshal(c.Bytes, out.assignment) != nil {
		return out
	}
	for _, l := range out.assignment.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress()
			out.at[address(a.GetAddress(), a.GetPortValue())] = Placement{
				Priority: l.GetPriority(), Weight: e.GetLoadBalancingWeight().GetValue(), Health: strings.ToLower(e.GetHealthStatus().String()),
			}
		}
	}
	return out
}

func address(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

func (p *places) find(address string) *Placement {
	if at, found := p.at[address]; found {
		return &at
	}
	return nil
}

// priorities are those of an assignment, each with the share of calls that Envoy gives it.
func (p *places) priorities() []PriorityExplanation {
	var out []PriorityExplanation
	for _, l := range p.assignment.GetEndpoints() {
		n := slices.IndexFunc(out, func(one PriorityExplanation) bool { return one.Priority == l.GetPriority() })
		if n < 0 {
			n = len(out)
			out = append(out, PriorityExplanation{Priority: l.GetPriority()})
		}
		if region := l.GetLocality().GetRegion(); !slices.Contains(out[n].Regions, region) {
			out[n].Regions = append(out[n].Regions, region)
		}
		for _, e := range l.GetLbEndpoints() {
			out[n].Hosts++
			if h := e.GetHealthStatus(); h == corev3.HealthStatus_HEALTHY || h == corev3.HealthStatus_UNKNOWN {
				out[n].Healthy++
			}
		}
	}
	slices.SortFunc(out, func(a, b PriorityExplanation) int { return cmp.Compare(a.Priority, b.Priority) })
	share(out, int(p.assignment.GetPolicy().GetOverprovisioningFactor().GetValue()))
	return out
}

// share fills each priority in turn with what its healthy hosts can take; where
// all together cannot take everything, they share it as they can.
func share(of []PriorityExplanation, factor int) {
	together := 0
	for i := range of {
		of[i].Share = min(100, of[i].Healthy*factor/max(1, of[i].Hosts))
		together += of[i].Share
	}
	left := 100
	for i := range of {
		of[i].Share = min(left, of[i].Share*100/max(1, min(100, together)))
		left -= of[i].Share
	}
}

// An explainer finds out why instances stand where they do.
type explainer struct {
	proxy    *ProxyStatus
	claim    *claim
	service  *registry.Service
	part     *registry.Service // with the instances of the subset alone; nil = there is no such subset
	withheld []Withheld
	groups   map[string]registry.Group // of the instances that have a place, by id
	order    []string                  // of regions, by the settings

	way     *detour           // nil = other regions are reached without gateways
	missing map[string]string // by region, why no gateway leads there
}

func (e *explainer) host(i *registry.Instance, should, has places) HostExplanation {
	out := HostExplanation{Instance: i.ID, Region: i.Region, Zone: i.Zone, Status: i.Status.String()}
	at, offers := i.Endpoint(e.claim.name.Name)
	if offers {
		out.Address = address(at.Host, uint32(at.Port))
	}
	absent := e.absent(i, offers)
	there := should.find(out.Address)
	if absent == "" {
		out.Should = there
	}
	if absent == "" || there == nil { // else it is another instance that has the address
		out.Has = has.find(out.Address)
	}
	switch {
	case absent != "":
		out.Why = absent
	case out.Should == nil:
		out.Why = e.leftOut(i)
	default:
		out.Why = e.place(i, out.Should)
	}
	if said := saidOf(i); said != "" {
		out.Why += "; " + said
	}
	return out
}

// absent is why an instance cannot be in a cluster; empty if it can.
func (e *explainer) absent(i *registry.Instance, offers bool) string {
	at := slices.IndexFunc(e.withheld, func(w Withheld) bool { return w.Instance == i.ID })
	switch {
	case e.passes(i) != "":
		return e.passes(i)
	case e.part == nil || !slices.Contains(e.part.Instances, i):
		return "subset " + e.claim.subset + " does not select it by its version and labels"
	case at >= 0:
		return e.withheld[at].Reason
	case i.Status.String() == "disabled":
		return reasonDisabled
	case !offers:
		return "it has no endpoint " + e.claim.name.Name
	case !slices.Contains(e.part.Shown, i):
		return "its lease ran out, and others have taken its place"
	}
	return ""
}

// saidOf is why an instance is not simply passing: the first that is said of it.
func saidOf(i *registry.Instance) string {
	if i.ExpiredAt != 0 {
		return "its lease ran out"
	}
	all := i.Conditions()
	if i.Status.String() == "passing" || len(all) == 0 {
		return ""
	}
	first := all[0]
	text := strings.TrimSpace(first.Source.String()+" "+first.Name) + " says " + first.Status.String()
	if first.Reason != "" {
		text += ": " + first.Reason
	}
	if first.By != "" {
		text += " (" + first.By + ")"
	}
	return text
}
