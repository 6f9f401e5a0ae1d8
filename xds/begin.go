package xds

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// begin reads the node and waits until the state here is worth serving: never
// older than what the client has seen.
func (s *stream) begin(ctx context.Context, r *request) error {
	n, err := parseNode(r.node, s.server.region)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, s.server.limits.catchUp)
	defer cancel()
	if err := s.server.caughtUp(soon); err != nil {
		return status.Errorf(codes.Unavailable, "this member has not caught up with the cluster yet, another may have: %v", err)
	}
	seen := max(r.seen(s.server.cache.incarnation()), s.server.cache.machine.Revision())
	if err := s.server.cache.await(soon, seen); err != nil {
		return status.Errorf(codes.Unavailable, "this member is at revision %d, the client has seen %d", s.server.cache.revision(), seen)
	}
	if n.onDemand && !s.delta {
		return status.Errorf(codes.InvalidArgument, "node.metadata[%q]: needs deltas, and this stream is state of the world: set api_type DELTA_GRPC in ads_config, or leave it out", metadataOnDemand)
	}
	s.node = n
	if err := s.regard(); err != nil {
		return err
	}
	if err := s.server.token(ctx, n); err != nil { // before the turns of all, which it would take
		return err
	}
	if err := s.server.turn(ctx); err != nil {
		return err
	}
	s.server.cache.enterCaller(s) // before it reads, so that it misses no edit
	s.readUpstreams()
	s.openScope()
	return nil
}

// seen is the newest revision that the client knows of.
func (r *request) seen(incarnation string) registry.Revision {
	newest := registry.Revision(0)
	if v, ok := parseWholeVersion(r.version); ok && v.incarnation == incarnation {
		newest = v.revision
	}
	for _, text := range r.initial {
		if v, ok := parseDeltaVersion(text); ok && v.incarnation == incarnation {
			newest = max(newest, v.revision)
		}
	}
	return newest
}
