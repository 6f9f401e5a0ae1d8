package xds

import (
	"time"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/registry"
)

// What proxies have, as members tell it to each other.

func detailQuestion(q DetailQuery) *peerv1.ProxyDetailQuestion {
	return &peerv1.ProxyDetailQuestion{
		Node: q.Node, Types: q.Types, Names: q.Names, States: q.States, Contents: q.Contents,
		AfterNumber: q.AfterNumber, AfterType: q.AfterType, AfterName: q.AfterName, Limit: uint32(q.Limit), Upstreams: q.Upstreams,
		ServiceNamespace: q.Service.Namespace, Service: q.Service.Service,
	}
}

func detailQueryOf(q *peerv1.ProxyDetailQuestion) DetailQuery {
	return DetailQuery{
		Node: q.GetNode(), Types: q.GetTypes(), Names: q.GetNames(), States: q.GetStates(), Contents: q.GetContents(),
		AfterNumber: q.GetAfterNumber(), AfterType: q.GetAfterType(), AfterName: q.GetAfterName(), Limit: min(int(q.GetLimit()), ProxyResourcesMax), Upstreams: q.GetUpstreams(),
		Service: registry.ServiceKey{Namespace: q.GetServiceNamespace(), Service: q.GetService()},
	}
}

func (d *ProxyDetail) answer() *peerv1.ProxyDetailAnswer {
	a := &peerv1.ProxyDetailAnswer{Count: uint64(d.Count), More: d.More, Stuck: d.Stuck}
	for i := range d.Proxies {
		a.Proxies = append(a.Proxies, d.Proxies[i].record())
	}
	for i := range d.Resources {
		a.Resources = append(a.Resources, d.Resources[i].record())
	}
	return a
}

func detailOf(a *peerv1.ProxyDetailAnswer) ProxyDetail {
	d := ProxyDetail{Count: int(a.GetCount()), More: a.GetMore(), Stuck: a.GetStuck()}
	for _, p := range a.GetProxies() {
		d.Proxies = append(d.Proxies, proxyOf(p))
	}
	for _, r := range a.GetResources() {
		d.Resources = append(d.Resources, resourceOf(r))
	}
	return d
}

func (r *ResourceStatus) record() *peerv1.ProxyResource {
	out := &peerv1.ProxyResource{
		Number: r.Number, Type: r.Type, Name: r.Name, State: string(r.State), SinceMs: milliOf(r.Since), Reason: r.Reason,
		Wanted: r.Wanted.record(), Sent: r.Sent.record(), Acked: r.Acked.record(),
	}
	for _, c := range r.Causes {
		out.Causes = append(out.Causes, c.record())
	}
	return out
}

func resourceOf(r *peerv1.ProxyResource) ResourceStatus {
	out := ResourceStatus{
		Number: r.GetNumber(), Type: r.GetType(), Name: r.GetName(), State: PendingState(r.GetState()), Since: timeOf(r.GetSinceMs()), Reason: r.GetReason(),
		Wanted: contentFrom(r.GetWanted()), Sent: contentFrom(r.GetSent()), Acked: contentFrom(r.GetAcked()),
	}
	for _, c := range r.GetCauses() {
		out.Causes = append(out.Causes, causeFrom(c))
	}
	return out
}

func (c Content) record() *peerv1.ProxyContent {
	return &peerv1.ProxyContent{Hash: c.Hash, Revision: uint64(c.Revision), Content: c.Bytes, LeftOutBytes: uint64(c.LeftOut)}
}

func contentFrom(c *peerv1.ProxyContent) Content {
	return Content{Hash: c.GetHash(), Revision: registry.Revision(c.GetRevision()), Bytes: c.GetContent(), LeftOut: int(c.GetLeftOutBytes())}
}

func (c Cause) record() *peerv1.PolicyCause {
	return &peerv1.PolicyCause{
		Namespace: c.Service.Namespace, Service: c.Service.Service, Version: c.Version, Revision: uint64(c.Revision), By: c.By, AtMs: milliOf(c.At),
	}
}

func causeFrom(c *peerv1.PolicyCause) Cause {
	return Cause{
		Service: registry.ServiceKey{Namespace: c.GetNamespace(), Service: c.GetService()},
		Version: c.GetVersion(), Revision: registry.Revision(c.GetRevision()), By: c.GetBy(), At: timeOf(c.GetAtMs()),
	}
}

func (r *Refusal) record() *peerv1.ProxyRefusal {
	out := &peerv1.ProxyRefusal{
		Type: r.Type, Resource: r.Resource, Reason: r.Reason, Proxies: uint64(r.Proxies), Nodes: r.Nodes, SinceMs: milliOf(r.Since),
	}
	if r.Cause != nil {
		out.Cause = r.Cause.record()
	}
	return out
}

func refusalFrom(r *peerv1.ProxyRefusal) Refusal {
	out := Refusal{
		Type: r.GetType(), Resource: r.GetResource(), Reason: r.GetReason(), Proxies: int(r.GetProxies()), Nodes: r.GetNodes(), Since: timeOf(r.GetSinceMs()),
	}
	if r.GetCause() != nil {
		cause := causeFrom(r.GetCause())
		out.Cause = &cause
	}
	return out
}

// milliOf and timeOf are a time as members tell it: 0 where there is none.
func milliOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
