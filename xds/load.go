package xds

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadservice "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stellmap/stellmap/registry"
)

// The load reporting service takes what clients report of the calls that they make.
// A client is told once what is wanted of it, which is all clusters, and reports from
// then on at the interval. That it wants to be told of clusters is no condition: it
// has them from here, or from another member.
type loadService struct {
	loadservice.UnimplementedLoadReportingServiceServer
	server *Server
}

// A loadReports is the stream that a client reports by.
type loadReports = loadservice.LoadReportingService_StreamLoadStatsServer

// toSelf says to whom a client reports: where it has the cluster from. It is the only
// one that gRPC clients take; of another they refuse the cluster.
func toSelf() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Self{Self: &corev3.SelfConfigSource{}}, ResourceApiVersion: corev3.ApiVersion_V3}
}

// StreamLoadStats takes reports until the client goes or is sent away.
func (l loadService) StreamLoadStats(g loadReports) error {
	s := l.server
	if err := s.admitLoads(); err != nil {
		return err
	}
	defer s.metrics.loadStreams.Add(-1)
	r := &reporter{from: callerOf(g.Context()), party: s.partyOf(g.Context()), inProgress: make(map[*part]uint64), accused: make(map[registry.InstanceKey]bool)}
	defer s.loads.forget(r)
	err := s.takeLoads(g, r)
	if errors.Is(err, io.EOF) {
		return nil
	}
	s.log.Debug("a stream of load reports ended", "peer", r.from, "error", err)
	return err
}

// callerOf is where a stream comes from; the zero address where that is not known.
func callerOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}
	}
	at, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// admitLoads takes one more stream in. That it begins costs next to nothing, so it has
// no turn to wait for.
func (s *Server) admitLoads() error {
	select {
	case <-s.leaving:
		return errStopping
	default:
	}
	if n := s.metrics.loadStreams.Add(1); n > int64(s.limits.streams) {
		s.metrics.loadStreams.Add(-1)
		s.metrics.loadStreamsRefused.Add(1)
		return status.Errorf(codes.ResourceExhausted, "%d clients report their load here already, another member may have room", s.limits.streams)
	}
	return nil
}

// takeLoads takes reports. The receiving goroutine ends with the handler, since that ends the stream.
func (s *Server) takeLoads(g loadReports, r *reporter) error {
	reports, failure := make(chan *loadservice.LoadStatsRequest), make(chan error, 1)
	go receiveLoads(g, reports, failure)
	var aged <-chan time.Time // nil = never
	if end := s.endOf(s.now()); !end.IsZero() {
		timer := time.NewTimer(end.Sub(s.now()))
		defer timer.Stop()
		aged = timer.C
	}
	for {
		select {
		case report := <-reports:
			if err := s.takeLoad(g, r, report); err != nil {
				return err
			}
		case err := <-failure:
			return err
		case <-g.Context().Done():
			return endOf(g.Context())
		case <-aged:
			return errOld
		case <-s.leaving:
			return errStopping
		case <-s.stopped:
			return errStopping
		}
	}
}

func receiveLoads(g loadReports, reports chan<- *loadservice.LoadStatsRequest, failure chan<- error) {
	for {
		report, err := g.Recv()
		if err != nil {
			failure <- err
			return
		}
		select {
		case reports <- report:
		case <-g.Context().Done():
			return
		}
	}
}

// takeLoad takes one message. The first says who the client is, and reports nothing.
func (s *Server) takeLoad(g loadReports, r *reporter, report *loadservice.LoadStatsRequest) error {
	if err := r.party.hold(); err != nil {
		return err
	}
	if r.node == nil {
		var err error
		if r.node, err = parseNode(report.GetNode(), s.region); err != nil {
			return err
		}
		if err := r.party.reports(r.node); err != nil {
			return err
		}
		r.byInstance = s.byInstance(r.node)
		return g.Send(s.wanted(r))
	}
	if n := len(report.GetClusterStats()); n > loadClustersIn {
		return status.Errorf(codes.ResourceExhausted, "cluster_stats: has %d clusters: at most %d", n, loadClustersIn)
	}
	stats := s.cache.known(r.party.held(), report.GetClusterStats(), &s.metrics.loadRefused[loadUnknown])
	s.loads.take(r, stats, s.now())
	s.metrics.loadReports.Add(1)
	s.vote(g.Context(), r, stats)
	if by := s.byInstance(r.node); by != r.byInstance { // a policy has come or gone
		r.byInstance = by
		return g.Send(s.wanted(r))
	}
	return nil
}

// wanted is what a client is to report.
func (s *Server) wanted(r *reporter) *loadservice.LoadStatsResponse {
	return &loadservice.LoadStatsResponse{
		SendAllClusters: true, LoadReportingInterval: durationpb.New(s.loads.slot), ReportEndpointGranularity: r.byInstance,
	}
}
