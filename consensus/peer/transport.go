package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// Limits. Each says what happens when it is reached.
const (
	// queueMax and queueBytesMax bound what waits for one peer; the next
	// message is dropped and counted.
	queueMax      = 4096
	queueBytesMax = 32 << 20
	// batchBytes is how much goes into one message of a stream, unless a single
	// one is larger.
	batchBytes = 1 << 20
	// receiveBytesMax is the largest message taken in; a larger one ends the call.
	receiveBytesMax = 8 << 20
	// headerBytesMax bounds a call's header, unpacked; gRPC's own bound is 16 MiB.
	headerBytesMax = 64 << 10
	// streamsMax bounds the calls that one connection has open; more wait.
	streamsMax = 4096
	// targetsMax bounds the peers; for another one a peer that has no address any
	// more is let go of, and where all have one its messages are dropped.
	targetsMax = 64

	handshakeTimeout = time.Second     // of one attempt; then the next after a pause
	sendTimeout      = 5 * time.Second // a stream that takes no message for so long is ended
	pauseMin         = 50 * time.Millisecond
	pauseMax         = time.Second
	beatTime         = 500 * time.Millisecond // a stream is not silent for longer
	keepaliveTime    = 10 * time.Second       // of silence before a ping
	keepaliveTimeout = 2 * time.Second        // until the ping must be answered
	keepaliveMinimum = 5 * time.Second        // whoever pings more often is cut off
)

// Group is what the transport serves: a consensus.Group.
type Group interface {
	Introduce() consensus.Introduction
	Greet(consensus.Introduction) error
	Known(id uint64, uuid string) bool
	Refused(by uint64, r *consensus.Refusal)
	Receive(from uint64, messages [][]byte) error
	Low() bool                     // of this member's disk
	HearLow(from uint64, low bool) // of another's
	ReportUnreachable(id uint64)
	OfferSnapshot(from uint64, meta, message []byte) (*consensus.IncomingSnapshot, error)
	ReportSnapshot(to uint64, ok bool)
	HandleForward(context.Context, consensus.ForwardRequest) (consensus.ForwardReply, error)
}

// Config is what a Transport needs.
type Config struct {
	// Address is where a member's gRPC port is, or "" when that is not known.
	// It is asked before each connection.
	Address func(id uint64) string
	// Credentials are what a member is dialled with: they take nobody else for it. Nil = plain text.
	Credentials func(id uint64) credentials.TransportCredentials
	// Proves says whether a caller has proved to be that member. Nil = its word is taken.
	Proves     func(ctx context.Context, id uint64) error
	Logger     *slog.Logger          // nil = none
	Registerer prometheus.Registerer // nil = none
	// Random spreads the pauses between attempts: a number below n. Nil = no spread.
	Random func(n int64) int64
	// SnapshotRate is how many bytes of snapshots are sent in a second, to all
	// members together. Default 64 MiB.
	SnapshotRate int64
}

// Transport is a consensus.Transport, and the other members' way in.
type Transport struct {
	answerers map[Subject]Answerer // set by Inform; none = it tells nothing of that

	config  Config
	log     *slog.Logger
	metrics *metrics
	group   Group         // set by Bind, before anything else
	rate    pace          // of snapshots
	chunk   int64         // of a snapshot; tests send smaller ones
	places  chan struct{} // one for each snapshot that is being sent

	mu       sync.Mutex // guards what follows
	targets  map[uint64]*target
	running  context.Context // nil before Run, done after it
	bringing int             // snapshots that are sent, or wait to be
	workers  sync.WaitGroup
}

var _ consensus.Transport = (*Transport)(nil)

// New makes a transport, which does nothing until Bind and Run.
func New(c Config) (*Transport, error) {
	if c.Address == nil {
		return nil, errors.New("peer: without addresses nobody can be reached")
	}
	if c.Credentials == nil {
		c.Credentials = func(uint64) credentials.TransportCredentials { return insecure.NewCredentials() }
	}
	if c.Proves == nil {
		c.Proves = func(context.Context, uint64) error { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Random == nil {
		c.Random = func(int64) int64 { return 0 }
	}
	t := &Transport{config: c, log: c.Logger, targets: make(map[uint64]*target), answerers: make(map[Subject]Answerer), metrics: newMetrics(), chunk: snapshotChunkBytes}
	t.rate.bytesPerSecond, t.places = cmp.Or(c.SnapshotRate, snapshotRateDefault), make(chan struct{}, snapshotsAtOnce)
	return t, t.metrics.register(c.Registerer)
}

// Bind names the group that is served. It comes before Register and Run: the
// group is made with the transport, so the transport learns of it afterwards.
func (t *Transport) Bind(g Group) { t.group = g }

// Inform names who answers the other members' questions about a subject. It comes
// before Register and Run.
func (t *Transport) Inform(about Subject, a Answerer) { t.answerers[about] = a }

// Register offers the service to the other members.
func (t *Transport) Register(s *grpc.Server) {
	peerv1.RegisterPeerServiceServer(s, &service{transport: t})
}

// ServerOptions are what a server of this service should be made with. Nil
// credentials are plain text. Its streams have no end of their own: it is
// ended with Stop.
func ServerOptions(c credentials.TransportCredentials) []grpc.ServerOption {
	if c == nil {
		c = insecure.NewCredentials()
	}
	return []grpc.ServerOption{
		grpc.Creds(c),
		grpc.MaxRecvMsgSize(receiveBytesMax),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.MaxHeaderListSize(headerBytesMax),
		grpc.ConnectionTimeout(handshakeTimeout * 10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	}
}

func (t *Transport) dialOptions(id uint64) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(t.config.Credentials(id)),
		grpc.WithDisableRetry(), // a proposal is sent at most once
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: pauseMin, Multiplier: 2, Jitter: 0.2, MaxDelay: pauseMax},
			MinConnectTimeout: handshakeTimeout,
		}),
	}
}

// Run sends until ctx ends.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	if t.running != nil {
		t.mu.Unlock()
		return errors.New("peer: a transport runs once")
	}
	t.running = ctx
	for _, g := range t.targets {
		t.work(g)
	}
	t.mu.Unlock()
	<-ctx.Done()
	t.workers.Wait()
	return nil
}

// work starts a target's goroutine; the caller holds the lock.
func (t *Transport) work(g *target) {
	if t.running != nil && t.running.Err() == nil {
		var ctx context.Context
		ctx, g.end = context.WithCancel(t.running)
		t.workers.Go(func() { g.run(ctx) })
	}
}

// Send hands messages to their targets.
func (t *Transport) Send(messages []consensus.Outgoing) {
	for _, m := range messages {
		g := t.target(m.To)
		if g == nil {
			t.metrics.dropped.WithLabelValues("unknown").Inc()
			continue
		}
		g.put(m)
	}
}

// target is the target of an id, made when it is first needed.
func (t *Transport) target(id uint64) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.targets[id]
	if g == nil && len(t.targets) >= targetsMax {
		t.letGo()
	}
	if g == nil && len(t.targets) < targetsMax {
		g = newTarget(t, id)
		t.targets[id] = g
		t.work(g)
	}
	return g
}

// letGo ends the targets of members that were removed; the caller holds the lock.
func (t *Transport) letGo() {
	for id, g := range t.targets {
		if t.config.Address(id) != "" {
			continue
		}
		delete(t.targets, id)
		if g.end != nil {
			g.end()
		}
	}
}

// Forward asks a member, once. A member that is not connected was not asked.
func (t *Transport) Forward(ctx context.Context, to uint64, r consensus.ForwardRequest) (consensus.ForwardReply, error) {
	g := t.target(to)
	if g == nil {
		return consensus.ForwardReply{}, fmt.Errorf("%w: node %d is not known", consensus.ErrNotSent, to)
	}
	client := g.connected()
	if client == nil {
		return consensus.ForwardReply{}, fmt.Errorf("%w: node %d is not connected", consensus.ErrNotSent, to)
	}
	self := t.group.Introduce()
	reply, err := client.Forward(ctx, &peerv1.ForwardRequest{
		From: self.Member.ID, Uuid: self.Member.UUID, ClusterId: self.ClusterID,
		Kind: forwardKind(r.Kind), RequestId: r.RequestID, Data: r.Data,
	})
	if err != nil {
		return consensus.ForwardReply{}, fmt.Errorf("forward to node %d: %w", to, err)
	}
	return consensus.ForwardReply{Index: reply.GetIndex(), Data: reply.GetData()}, errorOf(reply)
}
