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
	return p.transport.Ask(ctx, member, request)
}

// proxies is how the HTTP port learns of the proxies of all members.
type proxies struct{ fleet *xds.Fleet }

var _ httpapi.Proxies = proxies{}

func (p proxies) Propagation(ctx context.Context, k registry.ServiceKey, revision registry.Revision, wait time.Duration) ([]httpapi.MemberPropagation, error) {
	answers, err := p.fleet.Propagation(ctx, k, revision, wait)
	if errors.Is(err, xds.ErrBusy) {
		err = fmt.Errorf("%w: %w", registry.ErrBusy, err)
	}
	if err != nil {
		return nil, err
	}
	out := make([]httpapi.MemberPropagation, len(answers))
	for i, a := range answers {
		out[i] = httpapi.MemberPropagation{Member: a.Member, Err: a.Err, Revision: a.Revision, Interested: a.Interested, Acknowledged: a.Acknowledged}
		for _, one := range a.Pending {
			out[i].Pending = append(out[i].Pending, httpapi.PendingProxy{
				Node: one.Node, Peer: one.Peer, Type: one.Type, Resource: one.Resource, State: string(one.State), Since: one.Since, Reason: one.Reason,
			})
		}
	}
	return out, nil
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
	}
	for _, t := range s.Types {
		one := httpapi.ProxyType{
			Type: t.Type, Wildcard: t.Wildcard, Subscribed: t.Subscribed, Resources: t.Resources, Sent: t.Sent, Acked: t.Acked,
			InSync: t.InSync, Silent: t.Silent, RejectedCount: t.RejectedCount,
		}
		for _, r := range t.Rejected {
			one.Rejected = append(one.Rejected, httpapi.ProxyRejection(r))
		}
		out.Types = append(out.Types, one)
	}
	return out
}
