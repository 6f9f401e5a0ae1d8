package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/consensus/peer"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/httpapi"
	"github.com/stellmap/stellmap/xds"
)

// peers are how the xDS server asks those of the other members.
type peers struct {
	group     *consensus.Group
	transport *peer.Transport
}

func (p peers) Others() []uint64 {
	s := p.group.Status()
	return slices.DeleteFunc(s.IDs(), func(id uint64) bool { return id == s.ID })
}

func (p peers) Ask(ctx context.Context, member uint64, request []byte) ([]byte, error) {
	return p.transport.Ask(ctx, member, peer.Proxies, request)
}

// proxies is how the HTTP port learns of the proxies of all members.
type proxies struct{ fleet *xds.Fleet }

var _ httpapi.Proxies = proxies{}

func (p proxies) Propagation(ctx context.Context, k registry.ServiceKey, revision registry.Revision, wait time.Duration) ([]httpapi.MemberPropagation, error) {
	answers, err := p.fleet.Propagation(ctx, k, revision, wait)
	if err != nil {
		return nil, busy(err)
	}
	out := make([]httpapi.MemberPropagation, len(answers))
	for n, a := range answers {
		out[n] = httpapi.MemberPropagation{Member: a.Member, Err: a.Err, Revision: a.Revision, Interested: a.Interested, Acknowledged: a.Acknowledged}
		for _, one := range a.Pending {
			out[n].Pending = append(out[n].Pending, httpapi.PendingProxy{
				Node: one.Node, Peer: one.Peer, Type: one.Type, Resource: one.Resource, State: string(one.State), Since: one.Since, Reason: one.Reason,
			})
		}
		for i := range a.Refused {
			out[n].Refused = append(out[n].Refused, refusalOf(&a.Refused[i]))
		}
	}
	return out, nil
}

func refusalOf(r *xds.Refusal) httpapi.ProxyRefusal {
	return httpapi.ProxyRefusal{
		Type: r.Type, Resource: r.Resource, Reason: r.Reason, Proxies: r.Proxies, Nodes: r.Nodes, Since: r.Since, Cause: (*httpapi.PolicyCause)(r.Cause),
	}
}

func (p proxies) List(ctx context.Context, q httpapi.ProxyQuery) []httpapi.MemberProxies {
	answers := p.fleet.List(ctx, xds.ProxyQuery{
		Nodes: q.Nodes, Regions: q.Regions, Zones: q.Zones, Kinds: q.Kinds, States: q.States,
		AfterNode: q.After.Node, AfterNumber: q.After.Number, Limit: q.Limit,
	}, q.After.Member, q.Members)
	out := make([]httpapi.MemberProxies, len(answers))
	for i, a := range answers {
		out[i] = httpapi.MemberProxies{Member: a.Member, Err: a.Err, Count: a.Count, More: a.More}
		for j := range a.Proxies {
			out[i].Proxies = append(out[i].Proxies, proxyOf(&a.Proxies[j]))
		}
	}
	return out
}

func proxyOf(s *xds.ProxyStatus) httpapi.Proxy {
	out := httpapi.Proxy{
		Number: s.Number, Node: s.Node, Cluster: s.Cluster, Service: s.Service, Namespace: s.Namespace, Region: s.Region, Zone: s.Zone,
		Kind: s.Kind, Protocol: s.Protocol, Peer: s.Peer, State: s.State(), Connected: s.Connected, UpstreamCount: s.UpstreamCount, Upstreams: s.Upstreams,
		UpstreamsFrom: s.UpstreamsFrom, UpstreamsVersion: s.UpstreamsVersion,
	}
	for _, t := range s.Types {
		one := httpapi.ProxyType{
			Type: t.Type, State: t.State(), Since: t.Since, AckedAt: t.AckedAt, Wildcard: t.Wildcard, Subscribed: t.Subscribed, Resources: t.Resources, Sent: t.Sent, Acked: t.Acked,
			InSync: t.InSync, Silent: t.Silent, RejectedCount: t.RejectedCount,
		}
		for _, r := range t.Rejected {
			one.Rejected = append(one.Rejected, httpapi.ProxyRejection(r))
		}
		out.Types = append(out.Types, one)
	}
	return out
}

func (p proxies) Load(ctx context.Context, k registry.ServiceKey) []httpapi.MemberLoad {
	answers := p.fleet.Load(ctx, k)
	out := make([]httpapi.MemberLoad, len(answers))
	for n, a := range answers {
		out[n] = httpapi.MemberLoad{Member: a.Member, Err: a.Err, Reporters: a.Reporters, Window: a.Window}
		for _, c := range a.Clusters {
			one := httpapi.ClusterLoad{Cluster: c.Cluster}
			for _, at := range c.Localities {
				one.Localities = append(one.Localities, httpapi.LocalityLoad(at))
			}
			for _, d := range c.Drops {
				one.Drops = append(one.Drops, httpapi.DropLoad(d))
			}
			out[n].Clusters = append(out[n].Clusters, one)
		}
	}
	return out
}

func (p proxies) Detail(ctx context.Context, q httpapi.ProxyDetailQuery) ([]httpapi.MemberProxyDetail, error) {
	answers, err := p.fleet.Detail(ctx, xds.DetailQuery{
		Node: q.Node, Types: q.Types, Names: q.Resources, States: q.States, Contents: q.Contents,
		AfterNumber: q.After.Number, AfterType: q.After.Type, AfterName: q.After.Name, Limit: q.Limit,
	}, q.After.Member)
	if err != nil {
		return nil, busy(err)
	}
	return detailsOf(answers)
}

func detailsOf(answers []xds.MemberDetail) ([]httpapi.MemberProxyDetail, error) {
	out := make([]httpapi.MemberProxyDetail, len(answers))
	for i := range answers {
		a := &answers[i]
		out[i] = httpapi.MemberProxyDetail{Member: a.Member, Err: a.Err, Stuck: a.Stuck, Count: a.Count, More: a.More}
		for j := range a.Proxies {
			out[i].Proxies = append(out[i].Proxies, proxyOf(&a.Proxies[j]))
		}
		for j := range a.Resources {
			r, err := resourceOf(&a.Resources[j])
			if err != nil {
				return nil, err
			}
			out[i].Resources = append(out[i].Resources, r)
		}
	}
	return out, nil
}

// busy is an error in the registry's words where a member is asked too much.
func busy(err error) error {
	if errors.Is(err, xds.ErrBusy) {
		return fmt.Errorf("%w: %w", registry.ErrBusy, err)
	}
	return err
}

func resourceOf(r *xds.ResourceStatus) (httpapi.ProxyResource, error) {
	wanted, wrong := contentOf(r.Type, &r.Wanted)
	acked, err := contentOf(r.Type, &r.Acked)
	out := httpapi.ProxyResource{
		Number: r.Number, Type: r.Type, Name: r.Name, State: string(r.State), Since: r.Since, Reason: r.Reason,
		Wanted: wanted, Acked: acked, Sent: httpapi.ProxyContent{Hash: r.Sent.Hash, Revision: r.Sent.Revision},
	}
	for _, c := range r.Causes {
		out.Causes = append(out.Causes, httpapi.PolicyCause(c))
	}
	return out, errors.Join(wrong, err)
}

func contentOf(typ string, c *xds.Content) (httpapi.ProxyContent, error) {
	out := httpapi.ProxyContent{Hash: c.Hash, Revision: c.Revision, LeftOut: c.LeftOut}
	if c.Bytes == nil {
		return out, nil
	}
	var err error
	out.Content, err = xds.ContentJSON(typ, c.Bytes)
	return out, err
}

func (p proxies) Explain(ctx context.Context, node string, k registry.ServiceKey, instance string) ([]httpapi.ProxyExplanation, []httpapi.MemberProxyDetail, error) {
	answers, members, err := p.fleet.Explain(ctx, node, k, instance)
	if err != nil {
		return nil, nil, busy(err)
	}
	var out []httpapi.ProxyExplanation
	for i := range answers {
		out = append(out, explanationOf(&answers[i]))
	}
	for i := range members { // what they have is told in the explanations
		members[i].Resources = nil
	}
	said, err := detailsOf(members)
	return out, said, err
}

func explanationOf(e *xds.Explanation) httpapi.ProxyExplanation {
	out := httpapi.ProxyExplanation{Member: e.Member, Proxy: proxyOf(&e.Proxy)}
	for i := range e.Clusters {
		c := &e.Clusters[i]
		one := httpapi.ClusterExplanation{
			Name: c.Name, Endpoint: c.Endpoint, Subset: c.Subset, Told: c.Told, Why: c.Why, Cluster: withoutContent(c.Cluster), Endpoints: withoutContent(c.Endpoints),
		}
		for _, p := range c.Priorities {
			one.Priorities = append(one.Priorities, httpapi.PriorityExplanation(p))
		}
		for _, h := range c.Hosts {
			one.Hosts = append(one.Hosts, httpapi.HostExplanation{
				Instance: h.Instance, Region: h.Region, Zone: h.Zone, Address: h.Address, Status: h.Status,
				Should: (*httpapi.Placement)(h.Should), Has: (*httpapi.Placement)(h.Has), Why: h.Why,
			})
		}
		out.Clusters = append(out.Clusters, one)
	}
	for i := range e.Routes {
		out.Routes = append(out.Routes, *withoutContent(&e.Routes[i]))
	}
	return out
}

// withoutContent is a resource without its messages, which nothing can be wrong with.
func withoutContent(r *xds.ResourceStatus) *httpapi.ProxyResource {
	if r == nil {
		return nil
	}
	bare := *r
	bare.Wanted.Bytes, bare.Acked.Bytes = nil, nil
	out, _ := resourceOf(&bare) // only contents can be unreadable
	return &out
}
