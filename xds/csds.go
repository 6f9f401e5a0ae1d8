package xds

import (
	"context"
	"errors"
	"io"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stellmap/stellmap/registry"
)

// The client status discovery service tells tools that know it what the clients of
// this member have accepted, which is not what they were sent.

// The bounds of an answer. Whoever asks for more is told to ask for less.
const (
	statusStreamsMax  = 100 // streams in one answer
	statusMatchersMax = 100 // in one request
)

type clientStatus struct {
	statusv3.UnimplementedClientStatusDiscoveryServiceServer
	server *Server
}

// FetchClientStatus answers once.
func (c clientStatus) FetchClientStatus(ctx context.Context, r *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	return c.answer(ctx, r)
}

// StreamClientStatus answers each request in turn, with what is so then.
func (c clientStatus) StreamClientStatus(g statusv3.ClientStatusDiscoveryService_StreamClientStatusServer) error {
	for {
		r, err := g.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out, err := c.answer(g.Context(), r)
		if err != nil {
			return err
		}
		if err := g.Send(out); err != nil {
			return err
		}
	}
}

func (c clientStatus) answer(ctx context.Context, r *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	matches, err := nodeMatcher(r.GetNodeMatchers())
	if err != nil {
		return nil, err
	}
	s := c.server
	if err := s.inquire(); err != nil {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	defer s.metrics.inquiries.Add(-1)
	by := registry.CallerOf(ctx)
	streams := s.streamsWhere(func(p *ProxyStatus) bool { return matches(p.Node) && looksAt(by, p) })
	if len(streams) > statusStreamsMax {
		return nil, status.Errorf(codes.ResourceExhausted, "node_matchers: %d streams match: at most %d are told of at once", len(streams), statusStreamsMax)
	}
	hearing, cancel := context.WithTimeout(ctx, hearMax)
	defer cancel()
	out := new(statusv3.ClientStatusResponse)
	size := 0
	for _, str := range streams {
		one, _ := str.look(hearing, DetailQuery{})
		if one.gone {
			continue
		}
		config := clientConfig(str, one.resources, !r.GetExcludeResourceContents())
		if size += proto.Size(config); size > s.limits.responseBytes {
			return nil, status.Errorf(codes.ResourceExhausted, "the answer has more than %d bytes: ask for fewer nodes by node_matchers, or with exclude_resource_contents", s.limits.responseBytes)
		}
		out.Config = append(out.Config, config)
	}
	return out, ctx.Err()
}

// nodeMatcher reads which nodes are asked for: any of the matchers will do, and none is all.
func nodeMatcher(of []*matcherv3.NodeMatcher) (func(node string) bool, error) {
	if len(of) > statusMatchersMax {
		return nil, status.Errorf(codes.InvalidArgument, "node_matchers: has %d: at most %d", len(of), statusMatchersMax)
	}
	var all []func(string) bool
	for n, m := range of {
		one, err := idMatcher(m)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "node_matchers[%d].%v", n, err)
		}
		all = append(all, one)
	}
	return func(node string) bool {
		for _, one := range all {
			if one(node) {
				return true
			}
		}
		return len(all) == 0
	}, nil
}

func idMatcher(m *matcherv3.NodeMatcher) (func(string) bool, error) {
	if len(m.GetNodeMetadatas()) > 0 {
		return nil, errors.New("node_metadatas: is not supported: match by node_id, exact or prefix")
	}
	id := m.GetNodeId()
	fold := func(text string) string {
		if id.GetIgnoreCase() {
			return strings.ToLower(text)
		}
		return text
	}
	switch by := id.GetMatchPattern().(type) {
	case nil:
		return func(string) bool { return true }, nil
	case *matcherv3.StringMatcher_Exact:
		return func(node string) bool { return fold(node) == fold(by.Exact) }, nil
	case *matcherv3.StringMatcher_Prefix:
		return func(node string) bool { return strings.HasPrefix(fold(node), fold(by.Prefix)) }, nil
	}
	return nil, errors.New("node_id: is neither exact nor prefix, which are the patterns that are supported")
}

// clientConfig is what one client has accepted.
func clientConfig(str *stream, resources []seen, contents bool) *statusv3.ClientConfig {
	p := str.status.Load()
	out := &statusv3.ClientConfig{
		Node:        &corev3.Node{Id: p.Node, Cluster: p.Cluster, Locality: &corev3.Locality{Region: p.Region, Zone: p.Zone}},
		ClientScope: p.Kind + " " + p.Peer,
	}
	for i := range resources {
		if resources[i].state != ResourceAbsent {
			out.GenericXdsConfigs = append(out.GenericXdsConfigs, resources[i].config(contents))
		}
	}
	return out
}

var configStatuses = map[PendingState]statusv3.ConfigStatus{
	ResourceSynced:  statusv3.ConfigStatus_SYNCED,
	PendingWaiting:  statusv3.ConfigStatus_NOT_SENT,
	PendingSent:     statusv3.ConfigStatus_STALE,
	PendingSilent:   statusv3.ConfigStatus_STALE,
	PendingRejected: statusv3.ConfigStatus_ERROR,
}

func (s *seen) config(contents bool) *statusv3.ClientConfig_GenericXdsConfig {
	out := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: typeURLs[s.typ], Name: s.name, ConfigStatus: configStatuses[s.state]}
	if e := s.good; !e.absent() {
		if e.resource == nil && e.hash == s.wanted.hashOf() { // it is from an earlier stream
			e = s.wanted
		}
		out.VersionInfo = deltaVersion(e.hash, e.revision, "")
		if contents {
			out.XdsConfig = e.resource.GetResource()
		}
	}
	if s.state == PendingRejected {
		out.ErrorState = &adminv3.UpdateFailureState{
			LastUpdateAttempt: timestamppb.New(s.since), Details: s.reason, VersionInfo: deltaVersion(s.wanted.hash, s.wanted.revision, ""),
		}
		if contents {
			out.ErrorState.FailedConfiguration = s.wanted.resource.GetResource()
		}
	}
	return out
}
