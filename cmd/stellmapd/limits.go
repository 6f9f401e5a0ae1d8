package main

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// What a limit is by itself, where callers come from other machines or are asked who they
// are. Where neither is so there is none: nobody could do worse by calls than he can anyway.
const (
	requestsPerCPU         = 5_000 // a second: about what it serves
	requestsEachDefault    = 2_000
	streamsEachDefault     = 5_000 // a quarter of the ADS streams that a member has: proxies of one workload share a certificate
	streamsFromDefault     = 2_000
	connectionsFromDefault = 1_024
	streamRequestsDefault  = 200 // of an ADS stream: a gRPC client that dials fifty targets sends as many at once
)

// limitsOf are the limits of this member.
func (c *Config) limitsOf() access.Limits {
	l := c.Limits
	return access.Limits{
		Requests:        c.limit(l.Requests, requestsPerCPU*runtime.NumCPU()),
		RequestsEach:    c.limit(l.RequestsEach, requestsEachDefault),
		StreamsEach:     c.limit(l.StreamsEach, streamsEachDefault),
		StreamsFrom:     c.limit(l.StreamsPerAddress, streamsFromDefault),
		ConnectionsFrom: c.limit(l.ConnectionsPerAddress, connectionsFromDefault),
	}
}

// limit is a number that was set, or else the one by itself; 0 for none.
func (c *Config) limit(set string, byItself int) int {
	n, err := strconv.Atoi(set)
	switch {
	case err == nil: // else it is auto: whatever else it could be was refused
		return n
	case c.atHome() && !c.authenticates():
		return 0
	}
	return byItself
}

// openLimits makes what holds callers to their shares; there is none where nothing is
// limited. What is no call has a limit everywhere.
func (n *node) openLimits() (err error) {
	if n.pace, err = access.NewPace(n.metrics); err != nil {
		return err
	}
	if l := n.config.limitsOf(); l != (access.Limits{}) {
		n.limiter, err = access.NewLimiter(l, time.Now, n.metrics)
	}
	return err
}

// overOf is a refusal in the words of the registry.
func overOf(over *access.Over) error {
	if over == nil {
		return nil
	}
	return &registry.OverError{Says: over.Error(), After: over.After}
}

// rankOf is where a call stands when too many come: those by which instances stay
// alive are the last to be refused, and those that read a lot the first.
func rankOf(v registry.Verb, r registry.Resource, some bool) access.Rank {
	switch {
	case v == registry.VerbRenew:
		return access.RankRenewal
	case v != registry.VerbRead:
		return access.RankWrite
	case some || r == registry.ResourceSnapshots:
		return access.RankList
	}
	return access.RankRead
}

// askerOf is whose share a call is from: that of who he has proved to be, or of the address.
func askerOf(ctx context.Context, from string) string {
	if by := registry.CallerOf(ctx); by != nil {
		return by.Who()
	}
	return from
}

// networkAt is what stands for an address with a port; "" where there is none.
func networkAt(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	return registry.NetworkOf(at.Addr())
}

// shareOfHTTP holds a request to its caller's share; nil = nobody is held to any.
func (n *node) shareOfHTTP() func(*http.Request, registry.Verb, registry.Resource, bool) error {
	if n.limiter == nil {
		return nil
	}
	return func(q *http.Request, v registry.Verb, r registry.Resource, some bool) error {
		return overOf(n.limiter.Request(askerOf(q.Context(), networkAt(q.RemoteAddr)), rankOf(v, r, some)))
	}
}

// placeOfHTTP is a place for a watch; nil = there are as many as there are.
func (n *node) placeOfHTTP() func(*http.Request) (func(), error) {
	if n.limiter == nil {
		return nil
	}
	return func(q *http.Request) (func(), error) { return n.place(q.Context(), q.RemoteAddr) }
}

func (n *node) place(ctx context.Context, address string) (leave func(), err error) {
	who := ""
	if by := registry.CallerOf(ctx); by != nil {
		who = by.Who()
	}
	leave, over := n.limiter.Stream(who, networkAt(address))
	return leave, overOf(over)
}

// limitsOfRPC are the options of the gRPC server for clients. They stand behind the guard,
// since it finds out whose share it is.
func (n *node) limitsOfRPC() []grpc.ServerOption {
	if n.limiter == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(n.limitUnary), grpc.ChainStreamInterceptor(n.limitStream)}
}

func (n *node) limitUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if need := rpcNeeds[info.FullMethod]; need.whom != anybody { // health is asked for by those who have to know
		if over := n.limiter.Request(askerOf(ctx, networkAt(fromOf(ctx))), need.rank()); over != nil {
			return nil, refusedForOver(over)
		}
	}
	return handle(ctx, request)
}

func (n rpcNeed) rank() access.Rank { return rankOf(n.verb, n.resource, n.whom == whoMaySome) }

func (n *node) limitStream(server any, on grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx := on.Context()
	leave, err := n.place(ctx, fromOf(ctx))
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	defer leave()
	if need := rpcNeeds[info.FullMethod]; need.whom != anybody && !isDiscovery(info.FullMethod) {
		on = paced{on, n.limiter, askerOf(ctx, networkAt(fromOf(ctx))), need.rank()}
	}
	return handle(server, on)
}

// isDiscovery says that a stream is one of resources: its answers to responses are held up
// by nothing, and the xDS server itself sees to the rest.
func isDiscovery(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, "/envoy.") && !strings.HasPrefix(fullMethod, "/envoy.service.status.") && !strings.HasPrefix(fullMethod, "/envoy.service.load_stats.")
}

// refusedForOver says when to come again, where that is known.
func refusedForOver(over *access.Over) error {
	plain := status.New(codes.ResourceExhausted, over.Error())
	if full, err := plain.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(over.After)}); err == nil {
		plain = full
	}
	return plain.Err()
}

// A paced stream takes each message of its client from that one's share. What comes too
// fast is not refused, which would end the stream, but waits: the client feels it.
type paced struct {
	grpc.ServerStream
	limiter *access.Limiter
	who     string
	rank    access.Rank
}

// RecvMsg takes one.
func (p paced) RecvMsg(m any) error {
	if err := p.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	for {
		over := p.limiter.Request(p.who, p.rank)
		if over == nil {
			return nil
		}
		timer := time.NewTimer(over.After)
		select {
		case <-timer.C:
		case <-p.Context().Done():
			timer.Stop()
			return status.FromContextError(p.Context().Err()).Err()
		}
	}
}

// A narrow listener takes so many connections from an address, and closes those beyond that at once.
type narrow struct {
	net.Listener
	limiter *access.Limiter
}

// narrowed has a port take no more from an address than it may.
func (n *node) narrowed(l net.Listener) net.Listener {
	if n.limiter == nil {
		return l
	}
	return narrow{l, n.limiter}
}

// Accept takes the next one that has a place.
func (l narrow) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		leave, over := l.limiter.Connection(networkAt(c.RemoteAddr().String()))
		if over == nil {
			return &placed{Conn: c, leave: leave}, nil
		}
		c.Close() // nothing was said, so nothing is lost
	}
}

// A placed connection leaves its place when it is closed, be it more than once.
type placed struct {
	net.Conn
	leave func()
	once  sync.Once
}

// Close closes it.
func (c *placed) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}
