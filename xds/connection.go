package xds

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// The bounds of a connection that streams come by.
const (
	connectionStreamsMax = 1_000            // more wait
	headerBytesMax       = 64 << 10         // of a call's header, unpacked; gRPC's own bound is 16 MiB
	helloMax             = 10 * time.Second // for a client to say hello
	pingsMin             = 5 * time.Second  // a client that pings more often is cut off
	silenceMax           = 30 * time.Second // before the server pings
	pongMax              = 10 * time.Second // until its ping must be answered
)

// ServerOptions are what a gRPC server for proxies should be made with. By
// pings a proxy finds out that a member is dead, so they are permitted often.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxConcurrentStreams(connectionStreamsMax),
		grpc.MaxHeaderListSize(headerBytesMax),
		grpc.ConnectionTimeout(helloMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsMin, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silenceMax, Timeout: pongMax}),
	}
}
