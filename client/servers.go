package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// servers is the one place that decides which server the client is at. All else asks
// for the link, does its work over it, and asks for the next when that one has ended.
//
// A server is good when its health says so: then a write sent to it would succeed. One
// that has no leader is left after a while, for one that may have; where none has, one
// that answers at all will do, since it knows what it knew and can be watched.
type servers struct {
	client *Client
	order  []string // shuffled, so that many clients spread over the servers
	quiet  bool     // the outage was told of; run's alone

	mu      sync.Mutex    // guards what follows
	link    *link         // nil = none
	changed chan struct{} // closed when link is no longer what it was
	trouble error         // why there is none
}

// A link is the connection to the server that the client is at.
type link struct {
	server  string
	conn    *grpc.ClientConn
	api     stellmapv1.RegistryServiceClient
	serving atomic.Bool     // it has a leader
	left    context.Context // over when the client has left this server
	leave   context.CancelCauseFunc
}

const (
	pingAfter  = 10 * time.Second // of silence; servers allow one in five seconds
	pongWithin = 3 * time.Second
)

var errNotServing = errors.New("it says that it has no leader")

func newServers(c *Client) *servers {
	s := &servers{client: c, order: slices.Clone(c.config.Servers), changed: make(chan struct{})}
	rand.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
	return s
}

// at is the link; it waits until there is one.
func (s *servers) at(ctx context.Context) (*link, error) {
	for {
		s.mu.Lock()
		l, changed, trouble := s.link, s.changed, s.trouble
		s.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-s.client.life.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("client: no server answers: %w", errors.Join(ctx.Err(), trouble))
		}
	}
}

// set makes l the link, or says why there is none.
func (s *servers) set(l *link, trouble error) {
	s.mu.Lock()
	s.link, s.trouble = l, trouble
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
}

// run is at one server after the other, until the client is closed.
func (s *servers) run(ctx context.Context) {
	failures, anyWillDo := 0, false
	for n := 0; ctx.Err() == nil; n++ {
		server := s.order[n%len(s.order)]
		begun := time.Now()
		served, err := s.use(ctx, server, anyWillDo)
		if ctx.Err() != nil {
			return
		}
		failures++
		if served && time.Since(begun) > s.client.timing.steady {
			failures = 0
		}
		// After a row in which none had a leader, one without will do.
		anyWillDo = !served && (anyWillDo || failures >= len(s.order))
		s.say(ctx, server, err)
		// Each of a row is tried soon; then the row is as long as it is.
		if !pause(ctx, s.client.timing.after(failures/len(s.order))) {
			return
		}
	}
}

// say tells why a server was left. What comes after that until there is a link again, in an
// outage the same every few seconds, is for those who look closely.
func (s *servers) say(ctx context.Context, server string, why error) {
	level := slog.LevelWarn
	if s.quiet {
		level = slog.LevelDebug
	}
	s.quiet = true
	s.client.log.Log(ctx, level, "left a server of the registry", "server", server, "because", why)
	s.client.metrics.left(ctx, server)
}

// use is at a server for as long as that is good. It tells whether it ever had a leader.
func (s *servers) use(ctx context.Context, server string, anyWillDo bool) (served bool, err error) {
	conn, err := s.dial(server)
	if err != nil {
		return false, fmt.Errorf("dial %s: %w", server, err)
	}
	l := &link{server: server, conn: conn, api: stellmapv1.NewRegistryServiceClient(conn)}
	l.left, l.leave = context.WithCancelCause(ctx)
	defer conn.Close()
	health := make(chan bool)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer l.leave(nil) // before the wait, which is for it
	reader.Go(func() { l.leave(readHealth(l.left, conn, health)) })
	served, err = s.stay(l, health, anyWillDo)
	s.set(nil, fmt.Errorf("%s: %w", server, err))
	s.client.markAll()
	return served, err
}

func (s *servers) dial(server string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pongWithin}),
	}
	if c := s.client.config.TLS; c != nil {
		options[0] = grpc.WithTransportCredentials(credentials.NewTLS(c))
	}
	if token := s.client.config.Token; token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{token}))
	}
	return grpc.NewClient("passthrough:///"+server, options...)
}

// bearer sends the token. That it may go in the clear is for loopback, which is the
// only place where there is no TLS.
type bearer struct{ token string }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// stay makes the link known once the server is good, and returns when it is no longer.
func (s *servers) stay(l *link, health <-chan bool, anyWillDo bool) (served bool, err error) {
	patience := time.NewTimer(s.client.timing.healthFirst)
	defer patience.Stop()
	known, impatient := false, errors.New("it does not answer")
	for {
		select {
		case good := <-health:
			served = served || good
			l.serving.Store(good)
			if !good && !known && !anyWillDo {
				return served, errNotServing
			}
			if !known {
				known, s.quiet = true, false
				s.client.log.Info("at a server of the registry", "server", l.server, "serving", good)
				s.set(l, nil)
			}
			s.client.markAll()
			patience.Stop()
			if !good && len(s.order) > 1 {
				patience.Reset(s.client.timing.patience)
				impatient = errNotServing
			}
		case <-patience.C:
			return served, impatient
		case <-l.left.Done():
			return served, context.Cause(l.left)
		}
	}
}

// readHealth hands on what the server says of itself, until it says no more.
func readHealth(ctx context.Context, conn *grpc.ClientConn, into chan<- bool) error {
	ask := &grpc_health_v1.HealthCheckRequest{Service: stellmapv1.RegistryService_ServiceDesc.ServiceName}
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, ask)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case into <- m.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hear takes what a server has refused. One that says that it stops is left at once: others
// do better.
func (l *link) hear(e *Error) *Error {
	if e.Reason == "STOPPING" {
		l.leave(e)
	}
	return e
}

// call makes a call at whatever server is there, again and again while it may work in a
// moment and the context is not over.
func (s *servers) call(ctx context.Context, doing string, f func(context.Context, *link) error) error {
	for failures := 0; ; failures++ {
		err := s.callOnce(ctx, doing, f)
		var refused *Error
		if err == nil || !errors.As(err, &refused) || !refused.retry {
			return err
		}
		if !pause(ctx, s.client.timing.after(failures)) {
			return err
		}
	}
}

// callOnce makes a call once. A server that does not answer in time is left.
func (s *servers) callOnce(ctx context.Context, doing string, f func(context.Context, *link) error) error {
	l, err := s.at(ctx)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = f(within, l)
	if err == nil {
		return nil
	}
	refused := l.hear(errorOf(doing, l.server, err))
	if refused.Reason == "" && within.Err() != nil && ctx.Err() == nil {
		l.leave(fmt.Errorf("it did not answer within %v", callTimeout))
	}
	return refused
}
