package federation

import (
	"context"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
)

// A simLink is the network from a region to one that it follows. It has two ways, and
// each can be cut.
type simLink struct {
	world    *world
	from, to *simRegion
	wants    int // of simSelections

	mu       sync.Mutex // guards what follows
	cut      [2]bool
	cutSince time.Time
	changed  chan struct{} // closed when a way is cut or healed
	latency  time.Duration
	conns    map[*simConn]bool
	made     int
	breaks   float64 // how likely a connection ends by itself
}

// The ways of a link.
const (
	there = iota // to who is followed
	back
)

// The times of a connection.
const (
	latencyUsual   = 2 * time.Millisecond
	keepaliveLeast = 5 * time.Second // one whose link is cut is found out after that,
	keepaliveMost  = 15 * time.Second
	again          = 3 * time.Second // and what was sent meanwhile comes so much later at most
)

func newSimLink(w *world, from, to *simRegion) *simLink {
	return &simLink{world: w, from: from, to: to, changed: make(chan struct{}), latency: latencyUsual, conns: make(map[*simConn]bool)}
}

func (l *simLink) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.cut
	change()
	if l.cut != before {
		if before == [2]bool{} {
			l.cutSince = time.Now()
		}
		close(l.changed)
		l.changed = make(chan struct{})
		if l.cut != [2]bool{} {
			l.doom()
		}
	}
}

// doom has the connections end, unless the link is healed before they are found to be dead.
func (l *simLink) doom() {
	cut := l.cutSince
	for c := range l.conns {
		time.AfterFunc(c.dice.between(keepaliveLeast, keepaliveMost, "dies"), func() {
			if since, is := l.isCut(); is && since.Equal(cut) {
				c.hangUp()
			}
		})
	}
}

func (l *simLink) isCut() (since time.Time, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutSince, l.cut != [2]bool{}
}

// passes waits until a way is open, and then for what TCP takes to find that out.
func (l *simLink) passes(ctx context.Context, way int, d dice) error {
	began := time.Now()
	for {
		l.mu.Lock()
		cut, changed := l.cut[way], l.changed
		l.mu.Unlock()
		if !cut {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if waited := time.Since(began); waited > 0 {
		rest(ctx, d.between(0, min(waited, again), "again"))
	}
	return nil
}

// breakAll ends all connections at once, as a reset does.
func (l *simLink) breakAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.hangUp()
	}
}

// A simConn is one connection with one stream.
type simConn struct {
	link     *simLink
	dice     dice
	policy   simPolicy
	client   context.Context
	server   context.Context
	end      context.CancelCauseFunc // of the client's side
	endThere context.CancelCauseFunc

	requests  simPipe[*replicationv1.FollowRequest]
	responses simPipe[*replicationv1.FollowResponse]
}

var errLinkBroken = status.Error(codes.Unavailable, "the link is broken")

// hangUp ends it for both, each of whom finds that out in its time.
func (c *simConn) hangUp() {
	c.end(errLinkBroken)
	time.AfterFunc(c.dice.between(0, 10*time.Second, "hears"), func() { c.endThere(errLinkBroken) })
}

// A simPipe is one way of a connection: in order, nothing is lost but the end.
type simPipe[T any] struct {
	sent, come chan simItem[T]
}

type simItem[T any] struct {
	what T
	at   time.Time // when it comes
	err  error     // the end, in place of it
}

// apart is what is between two things that come: each has an instant of its own.
const apart = time.Microsecond

// pipeItems is more than a window has.
const pipeItems = 1 << 13

func newSimPipe[T any]() simPipe[T] {
	return simPipe[T]{sent: make(chan simItem[T], pipeItems), come: make(chan simItem[T], pipeItems)}
}

// run brings what is sent, until the receiving side ends.
func (p *simPipe[T]) run(ctx context.Context, c *simConn, way, most int) {
	for n := 0; ; n++ {
		select {
		case one := <-p.sent:
			if !rest(ctx, max(apart, time.Until(one.at))) || c.link.passes(ctx, way, c.dice) != nil {
				return
			}
			if n == most {
				c.link.world.count("a connection breaks by itself")
				c.hangUp()
				return
			}
			p.come <- one
		case <-ctx.Done():
			return
		}
	}
}

func (p *simPipe[T]) send(ctx context.Context, c *simConn, one simItem[T]) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.link.mu.Lock()
	latency := c.link.latency
	c.link.mu.Unlock()
	one.at = time.Now().Add(c.dice.between(latency/4, latency, "way"))
	p.sent <- one
	return nil
}

func (p *simPipe[T]) receive(ctx context.Context) (T, error) {
	var none T
	select {
	case one := <-p.come:
		return one.what, one.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// A simClient calls one member of a source.
type simClient struct {
	link  *simLink
	n     int
	wants int
	dice  dice
}

// reach is the importer's way to a member.
func (m *simMember) reach(s *source) (replicationv1.ReplicationServiceClient, io.Closer, error) {
	n, err := strconv.Atoi(s.address())
	if err != nil {
		return nil, nil, err
	}
	return simClient{link: m.cluster.region.links[s.Region], n: n, wants: m.wants[s.Region], dice: m.dice}, io.NopCloser(nil), nil
}

// Follow connects, if both ways are open within the time that there is for that.
func (c simClient) Follow(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[replicationv1.FollowRequest, replicationv1.FollowResponse], error) {
	within, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for way := range 2 {
		if c.link.passes(within, way, c.dice) != nil || !rest(within, c.dice.between(100*time.Microsecond, latencyUsual, "connect"+c.link.to.name)) {
			return nil, errLinkBroken
		}
	}
	conn := c.link.connect(ctx, c.n, c.wants)
	if conn == nil {
		return nil, status.Error(codes.Unavailable, "connection refused")
	}
	return &simClientStream{conn: conn}, nil
}

// connect makes a connection to a member; nil = it is not there.
func (l *simLink) connect(ctx context.Context, n, wants int) *simConn {
	members := l.to.members()
	if n >= len(members) || !members[n].isUp() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	c := &simConn{link: l, policy: simPolicy{members[n].exports, wants}, requests: newSimPipe[*replicationv1.FollowRequest](), responses: newSimPipe[*replicationv1.FollowResponse]()}
	c.dice = dice{l.world.Seed, 2<<32 | uint64(l.from.number)<<24 | uint64(l.to.number)<<20 | uint64(l.made)}
	c.client, c.end = context.WithCancelCause(ctx)
	header, _ := metadata.FromOutgoingContext(ctx)
	c.server, c.endThere = context.WithCancelCause(metadata.NewIncomingContext(context.Background(), header))
	l.conns[c] = true
	l.world.tell("connection %d of %s to member %d of %s", l.made, l.from.name, n, l.to.name)
	most := -1
	if c.dice.chance(l.breaks, "breaks") {
		most = int(c.dice.between(0, 40, "after"))
	}
	go c.serve(members[n])
	go c.requests.run(c.server, c, there, -1)
	go c.responses.run(c.client, c, back, most)
	context.AfterFunc(c.client, func() { // the other side hears of it, if anything comes there
		if c.link.passes(c.server, there, c.dice) == nil {
			rest(c.server, c.dice.between(0, latencyUsual, "hears"))
			c.endThere(errLinkBroken)
		}
	})
	return c
}

// serve is the server's side; it ends with the stream.
func (c *simConn) serve(m *simMember) {
	err := m.service.Follow(&simServerStream{conn: c})
	if err == nil {
		err = io.EOF
	}
	c.link.world.note("stream ends", c.dice.of)
	_ = c.responses.send(c.server, c, simItem[*replicationv1.FollowResponse]{err: err}) // who has gone is not told
	c.endThere(errLinkBroken)
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	delete(c.link.conns, c)
}

type simClientStream struct {
	grpc.ClientStream
	conn *simConn
}

func (s *simClientStream) Send(r *replicationv1.FollowRequest) error {
	return s.conn.requests.send(s.conn.client, s.conn, simItem[*replicationv1.FollowRequest]{what: r})
}

func (s *simClientStream) Recv() (*replicationv1.FollowResponse, error) {
	r, err := s.conn.responses.receive(s.conn.client)
	if err == nil {
		s.conn.link.world.note("told", r.GetSequence())
		if b := r.GetBegin(); b != nil {
			s.conn.link.world.count("full sync: " + strings.ToLower(strings.TrimPrefix(b.GetReason().String(), "REASON_")))
		}
	}
	return r, err
}

type simServerStream struct {
	grpc.ServerStream
	conn *simConn
}

func (s *simServerStream) Context() context.Context { return s.conn.server }

func (s *simServerStream) Send(r *replicationv1.FollowResponse) error {
	s.conn.link.world.calls(cursorIn(r), s.conn.policy)
	return s.conn.responses.send(s.conn.server, s.conn, simItem[*replicationv1.FollowResponse]{what: proto.CloneOf(r)}) // as the wire makes one
}

func (s *simServerStream) Recv() (*replicationv1.FollowRequest, error) {
	return s.conn.requests.receive(s.conn.server)
}
