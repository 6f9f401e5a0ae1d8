package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/registry"
)

// A Fleet is the proxies of all members. Each member knows its own; whoever is
// asked asks the others, all at once.
type Fleet struct {
	self   uint64
	server *Server
	peers  Peers
}

// Peers are how a member asks the others.
type Peers interface {
	// Others are the ids of the other members.
	Others() []uint64
	// Ask has Server.Answer on a member answer.
	Ask(ctx context.Context, member uint64, request []byte) ([]byte, error)
}

// The bounds of questions between members.
const (
	PropagationMax   = 30 * time.Second // to wait for
	ProxyPageMax     = 250              // proxies in one page
	fleetAnswerMax   = 2 * time.Second  // for an answer, beyond the time that was asked to wait
	questionFormatV1 = 1
)

// NewFleet joins a member's server with the others.
func NewFleet(self uint64, s *Server, p Peers) *Fleet {
	return &Fleet{self: self, server: s, peers: p}
}

// MemberPropagation is how far a service has come among the proxies of one member.
type MemberPropagation struct {
	Member uint64
	Err    error // it did not answer
	Propagation
}

// Propagation asks all members how far a service has come, by id. A member that
// has nothing to wait for answers at once; the last one counts. The error is that
// of this member itself.
func (f *Fleet) Propagation(ctx context.Context, k registry.ServiceKey, revision registry.Revision, wait time.Duration) ([]MemberPropagation, error) {
	question := &peerv1.ProxyQuestion{Format: questionFormatV1, Kind: &peerv1.ProxyQuestion_Propagation{Propagation: &peerv1.PropagationQuestion{
		Namespace: k.Namespace, Service: k.Service, Revision: uint64(revision), WaitMs: wait.Milliseconds(),
	}}}
	var own error
	answers := everywhere(f, func() (m MemberPropagation) {
		m.Member = f.self
		m.Propagation, own = f.server.Propagation(ctx, k, revision, wait)
		return m
	}, func(id uint64) MemberPropagation {
		a, err := f.ask(ctx, id, question, wait)
		return MemberPropagation{Member: id, Err: err, Propagation: propagationOf(a.GetPropagation())}
	})
	slices.SortFunc(answers, func(a, b MemberPropagation) int { return cmp.Compare(a.Member, b.Member) })
	return answers, own
}

// MemberProxies is a page of the proxies of one member.
type MemberProxies struct {
	Member uint64
	Err    error // it did not answer
	ProxyPage
}

// List asks all members, or those given, for a page of their proxies, by id. On
// the member whose id is after the list goes on where q says; of those before it
// only the number is asked.
func (f *Fleet) List(ctx context.Context, q ProxyQuery, after uint64, only []uint64) []MemberProxies {
	asked := func(id uint64) ProxyQuery {
		one := q
		if id != after {
			one.AfterNode, one.AfterNumber = "", 0
		}
		if id < after {
			one.Limit = 0
		}
		return one
	}
	answers := everywhere(f, func() MemberProxies {
		return MemberProxies{Member: f.self, ProxyPage: f.server.List(asked(f.self))}
	}, func(id uint64) MemberProxies {
		if len(only) > 0 && !slices.Contains(only, id) {
			return MemberProxies{Member: id}
		}
		a, err := f.ask(ctx, id, &peerv1.ProxyQuestion{Format: questionFormatV1, Kind: &peerv1.ProxyQuestion_List{List: listQuestion(asked(id))}}, 0)
		return MemberProxies{Member: id, Err: err, ProxyPage: pageOf(a.GetList())}
	})
	if len(only) > 0 {
		answers = slices.DeleteFunc(answers, func(a MemberProxies) bool { return !slices.Contains(only, a.Member) })
	}
	slices.SortFunc(answers, func(a, b MemberProxies) int { return cmp.Compare(a.Member, b.Member) })
	return answers
}

// MemberDetail is a page of what the proxies of a node have on one member.
type MemberDetail struct {
	Member uint64
	Err    error // it did not answer
	ProxyDetail
}

// Detail asks all members what the proxies of a node have, by id. On the member
// whose id is after the list goes on where q says; of those before it only what
// there is in all is asked. The error is that of this member itself.
func (f *Fleet) Detail(ctx context.Context, q DetailQuery, after uint64) ([]MemberDetail, error) {
	asked := func(id uint64) DetailQuery {
		one := q
		if id != after {
			one.AfterNumber, one.AfterType, one.AfterName = 0, "", ""
		}
		if id < after {
			one.Limit = 0
		}
		return one
	}
	var own error
	answers := everywhere(f, func() (m MemberDetail) {
		m.Member = f.self
		m.ProxyDetail, own = f.server.Detail(ctx, asked(f.self))
		return m
	}, func(id uint64) MemberDetail {
		a, err := f.ask(ctx, id, &peerv1.ProxyQuestion{Format: questionFormatV1, Kind: &peerv1.ProxyQuestion_Detail{Detail: detailQuestion(asked(id))}}, 0)
		return MemberDetail{Member: id, Err: err, ProxyDetail: detailOf(a.GetDetail())}
	})
	slices.SortFunc(answers, func(a, b MemberDetail) int { return cmp.Compare(a.Member, b.Member) })
	return answers, own
}

// MemberLoad is what the proxies of one member report of the calls to a service.
type MemberLoad struct {
	Member uint64
	Err    error // it did not answer
	Load
}

// Load asks all members what is reported to them of the calls to a service, by id.
func (f *Fleet) Load(ctx context.Context, k registry.ServiceKey) []MemberLoad {
	question := &peerv1.ProxyQuestion{Format: questionFormatV1, Kind: &peerv1.ProxyQuestion_Load{Load: &peerv1.LoadQuestion{Namespace: k.Namespace, Service: k.Service}}}
	answers := everywhere(f, func() MemberLoad {
		return MemberLoad{Member: f.self, Load: f.server.Load(k)}
	}, func(id uint64) MemberLoad {
		a, err := f.ask(ctx, id, question, 0)
		return MemberLoad{Member: id, Err: err, Load: loadOf(a.GetLoad())}
	})
	slices.SortFunc(answers, func(a, b MemberLoad) int { return cmp.Compare(a.Member, b.Member) })
	return answers
}

// everywhere asks this member and all others at once.
func everywhere[A any](f *Fleet, here func() A, there func(id uint64) A) []A {
	others := f.peers.Others()
	answers := make([]A, len(others)+1)
	var asked sync.WaitGroup
	for i, id := range others {
		asked.Go(func() { answers[i] = there(id) })
	}
	answers[len(others)] = here()
	asked.Wait()
	return answers
}

func (f *Fleet) ask(ctx context.Context, id uint64, q *peerv1.ProxyQuestion, wait time.Duration) (*peerv1.ProxyAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+fleetAnswerMax)
	defer cancel()
	request, err := proto.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode a question about proxies: %w", err)
	}
	reply, err := f.peers.Ask(ctx, id, request)
	if err != nil {
		return nil, err
	}
	answer := new(peerv1.ProxyAnswer)
	if err := proto.Unmarshal(reply, answer); err != nil {
		return nil, fmt.Errorf("decode what node %d says of its proxies: %w", id, err)
	}
	return answer, nil
}

// errQuestion is answered to a member of a later version.
var errQuestion = errors.New("xds: a question about proxies is of a kind that this version does not know")

// Answer answers another member's question about the proxies of this one.
func (s *Server) Answer(ctx context.Context, request []byte) ([]byte, error) {
	var q peerv1.ProxyQuestion
	if err := proto.Unmarshal(request, &q); err != nil {
		return nil, fmt.Errorf("decode a question about proxies: %w", err)
	}
	if q.GetFormat() > questionFormatV1 {
		return nil, errQuestion
	}
	answer := new(peerv1.ProxyAnswer)
	switch {
	case q.GetPropagation() != nil:
		one := q.GetPropagation()
		wait := min(time.Duration(one.GetWaitMs())*time.Millisecond, PropagationMax)
		p, err := s.Propagation(ctx, registry.ServiceKey{Namespace: one.GetNamespace(), Service: one.GetService()}, registry.Revision(one.GetRevision()), wait)
		if err != nil {
			return nil, err
		}
		answer.Kind = &peerv1.ProxyAnswer_Propagation{Propagation: p.answer()}
	case q.GetList() != nil:
		page := s.List(queryOf(q.GetList()))
		answer.Kind = &peerv1.ProxyAnswer_List{List: page.answer()}
	case q.GetDetail() != nil:
		d, err := s.Detail(ctx, detailQueryOf(q.GetDetail()))
		if err != nil {
			return nil, err
		}
		answer.Kind = &peerv1.ProxyAnswer_Detail{Detail: d.answer()}
	case q.GetLoad() != nil:
		l := s.Load(registry.ServiceKey{Namespace: q.GetLoad().GetNamespace(), Service: q.GetLoad().GetService()})
		answer.Kind = &peerv1.ProxyAnswer_Load{Load: l.answer()}
	default:
		return nil, errQuestion
	}
	return proto.Marshal(answer)
}

func (p *Propagation) answer() *peerv1.PropagationAnswer {
	a := &peerv1.PropagationAnswer{Revision: uint64(p.Revision), Interested: uint64(p.Interested), Acknowledged: uint64(p.Acknowledged)}
	for _, one := range p.Pending {
		a.Pending = append(a.Pending, &peerv1.PendingProxy{
			Node: one.Node, Peer: one.Peer, Type: one.Type, Resource: one.Resource, State: string(one.State), SinceMs: one.Since.UnixMilli(), Reason: one.Reason,
		})
	}
	for _, r := range p.Refused {
		a.Refused = append(a.Refused, r.record())
	}
	return a
}

func propagationOf(a *peerv1.PropagationAnswer) Propagation {
	p := Propagation{Revision: registry.Revision(a.GetRevision()), Interested: int(a.GetInterested()), Acknowledged: int(a.GetAcknowledged())}
	for _, one := range a.GetPending() {
		p.Pending = append(p.Pending, PendingProxy{
			Node: one.GetNode(), Peer: one.GetPeer(), Type: one.GetType(), Resource: one.GetResource(),
			State: PendingState(one.GetState()), Since: time.UnixMilli(one.GetSinceMs()), Reason: one.GetReason(),
		})
	}
	for _, r := range a.GetRefused() {
		p.Refused = append(p.Refused, refusalFrom(r))
	}
	return p
}

func listQuestion(q ProxyQuery) *peerv1.ProxyListQuestion {
	return &peerv1.ProxyListQuestion{
		Nodes: q.Nodes, Regions: q.Regions, Zones: q.Zones, Kinds: q.Kinds, States: q.States,
		AfterNode: q.AfterNode, AfterNumber: q.AfterNumber, Limit: uint32(q.Limit),
	}
}

func queryOf(q *peerv1.ProxyListQuestion) ProxyQuery {
	return ProxyQuery{
		Nodes: q.GetNodes(), Regions: q.GetRegions(), Zones: q.GetZones(), Kinds: q.GetKinds(), States: q.GetStates(),
		AfterNode: q.GetAfterNode(), AfterNumber: q.GetAfterNumber(), Limit: min(int(q.GetLimit()), ProxyPageMax),
	}
}

func (p *ProxyPage) answer() *peerv1.ProxyListAnswer {
	a := &peerv1.ProxyListAnswer{Count: uint64(p.Count), More: p.More}
	for i := range p.Proxies {
		a.Proxies = append(a.Proxies, p.Proxies[i].record())
	}
	return a
}

func (p *ProxyStatus) record() *peerv1.Proxy {
	out := &peerv1.Proxy{
		Node: p.Node, Number: p.Number, Cluster: p.Cluster, Service: p.Service, Namespace: p.Namespace, Region: p.Region, Zone: p.Zone,
		Kind: p.Kind, Protocol: p.Protocol, Peer: p.Peer, Upstreams: p.Upstreams, UpstreamCount: uint64(p.UpstreamCount), ConnectedMs: p.Connected.UnixMilli(),
		UpstreamsFrom: p.UpstreamsFrom, UpstreamsVersion: p.UpstreamsVersion, UpstreamsFound: p.UpstreamsFound, Denied: p.Denied,
	}
	for _, t := range p.Types {
		one := &peerv1.ProxyType{
			Type: t.Type, Wildcard: t.Wildcard, Subscribed: uint64(t.Subscribed), Resources: uint64(t.Resources),
			Sent: uint64(t.Sent), Acked: uint64(t.Acked), InSync: t.InSync, Silent: t.Silent, RejectedCount: uint64(t.RejectedCount),
			SinceMs: t.Since.UnixMilli(), AckedMs: milliOf(t.AckedAt),
		}
		for _, r := range t.Rejected {
			one.Rejected = append(one.Rejected, &peerv1.ProxyRejection{Resource: r.Resource, Reason: r.Reason, SinceMs: r.Since.UnixMilli()})
		}
		out.Types = append(out.Types, one)
	}
	return out
}

func pageOf(a *peerv1.ProxyListAnswer) ProxyPage {
	p := ProxyPage{Count: int(a.GetCount()), More: a.GetMore()}
	for _, one := range a.GetProxies() {
		p.Proxies = append(p.Proxies, proxyOf(one))
	}
	return p
}

func proxyOf(p *peerv1.Proxy) ProxyStatus {
	out := ProxyStatus{
		Node: p.GetNode(), Number: p.GetNumber(), Cluster: p.GetCluster(), Service: p.GetService(), Namespace: p.GetNamespace(), Region: p.GetRegion(), Zone: p.GetZone(),
		Kind: p.GetKind(), Protocol: p.GetProtocol(), Peer: p.GetPeer(), Upstreams: p.GetUpstreams(), UpstreamCount: int(p.GetUpstreamCount()), Connected: time.UnixMilli(p.GetConnectedMs()),
		UpstreamsFrom: p.GetUpstreamsFrom(), UpstreamsVersion: p.GetUpstreamsVersion(), UpstreamsFound: p.GetUpstreamsFound(), Denied: p.GetDenied(),
	}
	for _, t := range p.GetTypes() {
		one := TypeStatus{
			Type: t.GetType(), Wildcard: t.GetWildcard(), Subscribed: int(t.GetSubscribed()), Resources: int(t.GetResources()),
			Sent: registry.Revision(t.GetSent()), Acked: registry.Revision(t.GetAcked()), InSync: t.GetInSync(), Silent: t.GetSilent(), RejectedCount: int(t.GetRejectedCount()),
			Since: timeOf(t.GetSinceMs()), AckedAt: timeOf(t.GetAckedMs()),
		}
		for _, r := range t.GetRejected() {
			one.Rejected = append(one.Rejected, Rejection{Resource: r.GetResource(), Reason: r.GetReason(), Since: time.UnixMilli(r.GetSinceMs())})
		}
		out.Types = append(out.Types, one)
	}
	return out
}

func (l *Load) answer() *peerv1.LoadAnswer {
	a := &peerv1.LoadAnswer{Reporters: uint64(l.Reporters), WindowMs: l.Window.Milliseconds()}
	for _, c := range l.Clusters {
		one := &peerv1.ClusterLoad{Cluster: c.Cluster}
		for _, at := range c.Localities {
			one.Localities = append(one.Localities, &peerv1.LocalityLoad{Region: at.Region, Zone: at.Zone, Succeeded: at.Succeeded, Failed: at.Failed, InProgress: at.InProgress})
		}
		for _, d := range c.Drops {
			one.Drops = append(one.Drops, &peerv1.DropLoad{Category: d.Category, Dropped: d.Dropped})
		}
		a.Clusters = append(a.Clusters, one)
	}
	return a
}

func loadOf(a *peerv1.LoadAnswer) Load {
	l := Load{Reporters: int(a.GetReporters()), Window: time.Duration(a.GetWindowMs()) * time.Millisecond}
	for _, c := range a.GetClusters() {
		one := ClusterLoad{Cluster: c.GetCluster()}
		for _, at := range c.GetLocalities() {
			one.Localities = append(one.Localities, LocalityLoad{at.GetRegion(), at.GetZone(), at.GetSucceeded(), at.GetFailed(), at.GetInProgress()})
		}
		for _, d := range c.GetDrops() {
			one.Drops = append(one.Drops, DropLoad{d.GetCategory(), d.GetDropped()})
		}
		l.Clusters = append(l.Clusters, one)
	}
	return l
}
