package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus/peer"
	"github.com/stellmap/stellmap/federation"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/httpapi"
)

// The leader follows other regions for all members, and what keeps it from that is its
// own: another member asks it.

// followingAskMax is how long the leader is waited for. Whoever asks wants to know most
// when there is trouble, and then what this member knows itself must come soon.
const followingAskMax = time.Second

const regionsFormatV1 = 1

// following is how other regions are followed, as the leader says.
func (n *node) following(ctx context.Context) httpapi.Following {
	s := n.group.Status()
	out := httpapi.Following{Member: s.LeaderID}
	switch s.LeaderID {
	case 0:
	case s.ID:
		for _, l := range n.importer.Links() {
			out.Links = append(out.Links, shownLink(l))
		}
	default:
		out.Links, out.Err = n.askFollowing(ctx, s.LeaderID)
	}
	return out
}

func shownLink(l federation.Link) httpapi.RegionLink {
	out := httpapi.RegionLink{Region: l.Region, Address: l.Address, Member: l.Member, FeatureLevel: l.FeatureLevel}
	if l.Problem != nil {
		out.Problem = &httpapi.RegionProblem{Code: l.Problem.Code, Text: l.Problem.Text, Since: l.Problem.Since}
	}
	return out
}

func (n *node) askFollowing(ctx context.Context, leader uint64) ([]httpapi.RegionLink, error) {
	ctx, cancel := context.WithTimeout(ctx, followingAskMax)
	defer cancel()
	request, err := proto.Marshal(&peerv1.RegionsQuestion{Format: regionsFormatV1})
	if err != nil {
		return nil, fmt.Errorf("encode a question about regions: %w", err)
	}
	reply, err := n.transport.Ask(ctx, leader, peer.Regions, request)
	if err != nil {
		return nil, err
	}
	var answer peerv1.RegionsAnswer
	if err := proto.Unmarshal(reply, &answer); err != nil {
		return nil, fmt.Errorf("decode what node %d says of regions: %w", leader, err)
	}
	var out []httpapi.RegionLink
	for _, l := range answer.GetLinks() {
		one := httpapi.RegionLink{
			Region:  registry.RegionKey{Region: l.GetRegion(), Cluster: l.GetClusterId()},
			Address: l.GetAddress(), Member: l.GetMember(), FeatureLevel: l.GetFeatureLevel(),
		}
		if p := l.GetProblem(); p != nil {
			one.Problem = &httpapi.RegionProblem{Code: p.GetCode(), Text: p.GetText()}
			if p.GetSinceMs() != 0 {
				one.Problem.Since = time.UnixMilli(p.GetSinceMs())
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// regionLinks answers the other members.
type regionLinks struct{ node *node }

var _ peer.Answerer = regionLinks{}

var (
	errNotLeading  = errors.New("it does not lead any more: ask again")
	errRegionsKind = errors.New("a question about regions is of a kind that this version does not know")
)

// Answer says how this member follows other regions, if it leads.
func (r regionLinks) Answer(_ context.Context, request []byte) ([]byte, error) {
	var q peerv1.RegionsQuestion
	if err := proto.Unmarshal(request, &q); err != nil {
		return nil, fmt.Errorf("decode a question about regions: %w", err)
	}
	if q.GetFormat() != regionsFormatV1 {
		return nil, errRegionsKind
	}
	if !r.node.leads() {
		return nil, errNotLeading
	}
	answer := new(peerv1.RegionsAnswer)
	for _, l := range r.node.importer.Links() {
		one := &peerv1.RegionLink{Region: l.Region.Region, ClusterId: l.Region.Cluster, Address: l.Address, Member: l.Member, FeatureLevel: l.FeatureLevel}
		if p := l.Problem; p != nil {
			one.Problem = &peerv1.RegionProblem{Code: p.Code, Text: p.Text}
			if !p.Since.IsZero() {
				one.Problem.SinceMs = p.Since.UnixMilli()
			}
		}
		answer.Links = append(answer.Links, one)
	}
	return proto.Marshal(answer)
}
