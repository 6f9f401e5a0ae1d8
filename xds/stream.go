package xds

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// A stream is one connection's talk with a client. One goroutine owns it: it
// takes the client's requests and the follower's marks, and sends what is due.
//
// Of each type at most one response is unanswered. What changes meanwhile is
// marked, not queued, so that the next response carries the latest of all of it;
// a slow client costs a set of names. The order between types: clusters first,
// their endpoints right behind them (Envoy acknowledges a cluster only when it
// has its endpoints), listeners and routes when the client has answered the
// clusters, and removals of clusters when it has answered the routes. Nothing
// waits longer than limits.hold.
type stream struct {
	server    *Server
	delta     bool
	wire      wire
	only      *resourceType // the type of a stream that is not aggregated; nil = all
	peer      string
	connected time.Time
	number    uint64 // of the server's streams, in the order of their coming

	party            *party // who has opened it; nil where nobody is asked
	node             *node
	scope            *scope
	upstreams        *registry.Upstreams // what its service is written down to call; nil = nothing is
	upstreamsVersion uint64              // of that document; 0 = it says nothing
	subs             [typeCount]*subscription
	sequence         uint64 // of the last response
	answered         uint64 // of the latest that the client has answered
	round            uint64 // of changes, up to which the marks have been taken

	tableWaits bool // for its turn, or has it and is not sent
	inLine     bool // for its turn to send a table; guarded by passage.mu
	tableBytes int  // of that table; guarded by passage.mu

	pace     pace
	waiting  *request      // that has been received and not been heard
	ends     time.Time     // when it has reached its age; zero = never
	sentAway chan struct{} // closed when it has to go

	wakeup chan struct{} // holds one
	status atomic.Pointer[ProxyStatus]

	mu        sync.Mutex // guards what follows and what the follower marks
	marked    bool       // noted to be woken
	rewritten time.Time  // when an edit of upstreams was seen; zero = none that it has not followed
	questions []*question
	looks     []*look
	gone      bool // it has ended, and answers no questions any more
}

// A wire is the two directions of a stream, in the words of one protocol.
type wire interface {
	receive() (*request, error)
	send(*response) error
}

// A request is a message of a client, as state of the world or as a delta.
type request struct {
	typeURL string
	node    *corev3.Node
	nonce   string
	failed  bool // a NACK
	reason  string

	names   []string // state of the world: all that is wanted
	version string

	subscribe, unsubscribe []string // delta
	initial                map[string]string
}

func (s *stream) wakeUp() {
	select {
	case s.wakeup <- struct{}{}:
	default: // it is awake
	}
}

// run serves the stream until it ends. The receiving goroutine ends with the
// handler, since that ends the stream.
func (s *stream) run(ctx context.Context) error {
	requests, failure := make(chan *request), make(chan error, 1)
	go s.receive(ctx, requests, failure)
	defer s.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		hears := requests
		if s.waiting != nil {
			hears = nil
		}
		select {
		case r := <-hears:
			s.waiting = r
		case err := <-failure:
			return err
		case <-s.wakeup:
		case <-timer.C:
		case <-ctx.Done():
			return endOf(ctx)
		case <-s.sentAway:
			return errStopping
		case <-s.server.stopped:
			return errStopping
		}
		wait, err := s.hear(ctx)
		if err != nil {
			return err
		}
		next, err := s.flush(ctx)
		if err != nil {
			return err
		}
		if s.node != nil {
			s.report()
			s.answer()
		}
		now := s.server.now()
		if s.outlived(now) {
			s.server.metrics.aged.Add(1)
			return errOld
		}
		timer.Reset(min(next, wait, s.untilAge(now)))
	}
}

func (s *stream) receive(ctx context.Context, requests chan<- *request, failure chan<- error) {
	for {
		r, err := s.wire.receive()
		if err != nil {
			failure <- err
			return
		}
		select {
		case requests <- r:
		case <-ctx.Done():
			return
		}
	}
}

func (s *stream) close() {
	s.leave()
	s.server.passage.leave(s)
	for _, b := range s.subs {
		if b != nil {
			if b.pending != nil {
				s.tell(b.pending, pushCut, "the stream has ended before the answer")
			}
			b.close()
		}
	}
	if s.scope != nil {
		s.server.cache.closeScope(s.scope)
		s.server.cache.leaveCaller(s)
	}
}

// keyOf is the view in which this client sees a name.
func (s *stream) keyOf(t resourceType, name string) resourceKey {
	k := resourceKey{typ: t, name: name, kind: s.node.kind}
	switch {
	case t == typeEndpoints:
		k.region, k.zone = s.node.region, s.node.zone
	case s.node.kind == kindGRPC: // which has them by name, whatever its scope
	case t == typeListener && s.node.kind == kindGateway && name == gatewayName:
		k.gateway, k.scope = s.node.gateway, s.scope
	case t == typeListener && name == egressName:
		k.port, k.onDemand = s.node.egressPort, s.node.onDemand
	case t == typeRoutes:
		k.scope = s.scope
	}
	return k
}

// handle takes a request.
func (s *stream) handle(ctx context.Context, r *request) error {
	if s.node == nil {
		if err := s.begin(ctx, r); err != nil {
			return err
		}
	}
	t, ok := typeOf(r.typeURL)
	if s.only != nil {
		if r.typeURL != "" && (!ok || t != *s.only) {
			return status.Errorf(codes.InvalidArgument, "type_url: %q on a stream of %s", r.typeURL, typeURLs[*s.only])
		}
		t, ok = *s.only, true
	}
	if !ok {
		s.server.metrics.unsupported.Add(1) // there are none, and no way to say so
		return nil
	}
	first := s.subs[t] == nil
	if first {
		s.subs[t] = newSubscription(s, t)
	}
	b := s.subs[t]
	if s.delta {
		b.settle(r)
		b.changeDelta(r, first)
	} else if b.settle(r) {
		b.changeWhole(r, first)
	}
	if len(b.names) > namesMax {
		return status.Errorf(codes.ResourceExhausted, "resource_names: %d names of %s: at most %d", len(b.names), t, namesMax)
	}
	return nil
}

// settle takes the answer to a response; false says that the request answers an
// older one, and that a newer request will follow.
func (b *subscription) settle(r *request) bool {
	if r.nonce == "" || b.nonce == "" { // the latter: it is from another stream
		return true
	}
	b.mute = false
	if late := b.takeLate(r.nonce); late != nil {
		b.answered(late, r)
		return false
	}
	if r.nonce != b.nonce {
		b.stream.server.metrics.stale[b.typ].Add(1)
		return false
	}
	if b.pending != nil {
		b.answered(b.pending, r)
	}
	return true
}

// answered takes the answer to a response.
func (b *subscription) answered(p *response, r *request) {
	s := b.stream
	s.answered = max(s.answered, p.sequence)
	if s.server.isTable(p) {
		s.server.passage.answered(s, p.sequence)
	}
	b.heard = max(b.heard, p.sequence)
	if r.failed {
		s.server.rejected(b, p, r.reason)
		s.tell(p, pushRejected, r.reason)
		b.reject(p, r.reason, s.server.now())
		return
	}
	s.server.accepted(p)
	s.tell(p, pushAcked, "")
	b.accept(p)
}

// flush sends all that may be sent and says when to look again at the latest.
func (s *stream) flush(ctx context.Context) (time.Duration, error) {
	if s.node == nil {
		return time.Hour, nil
	}
	now := s.server.now()
	for again := true; again; {
		again = false
		if err := s.rescope(); err != nil {
			return 0, err
		}
		s.take()
		for _, b := range s.subs {
			if b == nil {
				continue
			}
			before := len(b.todo)
			if err := s.push(ctx, b, now); err != nil {
				return 0, err
			}
			again = again || len(b.todo) < before
		}
	}
	return s.next(now), nil
}

// take collects what the follower has marked: whole rounds of it, so that a
// cluster is never seen without the routes that go with it.
func (s *stream) take() {
	c := s.server.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	s.round = c.rounds.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = false
	for _, b := range s.subs {
		if b == nil {
			continue
		}
		if since := b.take(); !since.IsZero() && (b.changed.IsZero() || since.Before(b.changed)) {
			b.changed = since
		}
	}
}

// push sends a type's next response, if there is one and it may go.
func (s *stream) push(ctx context.Context, b *subscription, now time.Time) error {
	b.listen(now)
	if len(b.todo) == 0 && !b.answer {
		b.waiting = time.Time{} // nothing does; what comes next has its own time to wait
		if b.typ == typeRoutes {
			s.giveUpTurn()
		}
		return nil
	}
	if !b.open() {
		b.held = heldByAnswer
		return nil
	}
	if s.waits(b, now) {
		b.held = heldByClusters
		return nil
	}
	r := b.compose(now)
	if r == nil {
		b.held = heldByRoutes // clusters that are gone
		if len(b.todo) == 0 {
			b.changed, b.change, b.held = time.Time{}, nil, ""
		}
		return nil
	}
	if b.typ >= typeListener && s.unsettled() {
		b.takeBack(r)
		b.held = heldByChange
		s.server.cache.awaitRound(s)
		return nil
	}
	if s.server.isTable(r) {
		if s.tableWaits = !s.server.passage.enter(s, r.size, s.sequence+1); s.tableWaits {
			b.takeBack(r)
			b.held = heldByTables
			return nil
		}
	}
	s.sequence++
	r.sequence, r.nonce = s.sequence, nonceOf(r.revision, s.sequence)
	r.since, b.changed = b.changed, time.Time{}
	r.change, r.held, b.change, b.held = b.change, b.held, nil, ""
	if err := s.deliver(ctx, r); err != nil {
		s.tell(r, pushCut, err.Error())
		return err
	}
	b.sending(r)
	s.followUp(r)
	return nil
}

// giveUpTurn makes room for others' tables: what this one's was to say is not so any more.
func (s *stream) giveUpTurn() {
	if s.tableWaits {
		s.tableWaits = false
		s.server.passage.leave(s)
	}
}

// unsettled says that the state has moved since the marks were taken, or is about
// to: routes may then name clusters that the client has not been told of.
func (s *stream) unsettled() bool {
	now := s.server.cache.rounds.Load()
	return now != s.round || now%2 == 1
}

// waits says that listeners or routes have to wait for the answer to the clusters;
// not for that of a client that has been silent about clusters since.
func (s *stream) waits(b *subscription, now time.Time) bool {
	clusters := s.subs[typeCluster]
	if b.typ < typeListener || clusters == nil || (clusters.open() || clusters.mute) && len(clusters.trial) == 0 {
		b.waiting = time.Time{}
		return false
	}
	if b.waiting.IsZero() {
		b.waiting = now
	}
	return now.Sub(b.waiting) < s.server.limits.hold
}

// followUp has the endpoints of the clusters that the client has been told of
// sent right after them: Envoy waits for them and does not ask again.
func (s *stream) followUp(r *response) {
	endpoints := s.subs[typeEndpoints]
	if r.typ != typeCluster || endpoints == nil {
		return
	}
	for _, e := range r.told {
		if endpoints.names[e.name] != nil {
			endpoints.want(e.name, true)
		}
	}
}

// deliver sends a response. A client that takes none for limits.send is cut off:
// returning ends the stream, and with it the goroutine that is stuck in it.
func (s *stream) deliver(ctx context.Context, r *response) error {
	done := make(chan error, 1)
	go func() { done <- s.wire.send(r) }()
	timer := time.NewTimer(s.server.limits.send)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("send %s: %w", r.typ, err)
		}
		s.server.delivered(r)
		if r.change != nil {
			r.delivered = s.server.now()
		}
		return nil
	case <-timer.C:
		s.server.metrics.cut.Add(1)
		return status.Errorf(codes.DeadlineExceeded, "the client has taken no response for %v", s.server.limits.send)
	case <-ctx.Done():
		return endOf(ctx)
	}
}

// next is how long nothing can become due but by a request or a change.
func (s *stream) next(now time.Time) time.Duration {
	hold := s.server.limits.hold
	next := time.Hour
	due := func(since time.Time) {
		if !since.IsZero() {
			next = min(next, max(since.Add(hold).Sub(now), time.Millisecond))
		}
	}
	for _, b := range s.subs {
		if b == nil {
			continue
		}
		if b.open() {
			due(b.waiting)
			for _, d := range b.leaving {
				due(d.since)
			}
		}
		if b.pending != nil && !b.pending.silent {
			due(b.pending.sentAt)
		}
	}
	return next
}
