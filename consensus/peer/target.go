package peer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// target is one peer to send to. Its goroutine connects when there is something
// to say, introduces this member, and then sends what waits until it fails.
// While it pauses after a failure nothing waits: by then it would be old.
type target struct {
	transport *Transport
	id        uint64
	label     string
	wake      chan struct{}
	end       context.CancelFunc // ends its goroutine; the transport's lock guards it

	mu     sync.Mutex // guards what follows
	urgent [][]byte   // before the others
	queue  [][]byte
	bytes  int
	down   bool // pausing: drop
	conn   *grpc.ClientConn
	client peerv1.PeerServiceClient // not nil: both have accepted each other

	callers int           // who wait for the connection, without a message
	joined  chan struct{} // closed when client is set
}

func newTarget(t *Transport, id uint64) *target {
	g := &target{transport: t, id: id, label: strconv.FormatUint(id, 10), wake: make(chan struct{}, 1), joined: make(chan struct{})}
	t.metrics.touch(g.label)
	return g
}

// put takes a message, or drops and counts it.
func (g *target) put(m consensus.Outgoing) {
	if g.enqueue(m) {
		select {
		case g.wake <- struct{}{}:
		default:
		}
		return
	}
	g.transport.metrics.dropped.WithLabelValues(g.label).Inc()
	g.transport.group.ReportUnreachable(g.id)
}

func (g *target) enqueue(m consensus.Outgoing) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	count := len(g.urgent) + len(g.queue)
	if g.down || count >= queueMax || count > 0 && g.bytes+len(m.Data) > queueBytesMax {
		return false
	}
	if m.Urgent {
		g.urgent = append(g.urgent, m.Data)
	} else {
		g.queue = append(g.queue, m.Data)
	}
	g.bytes += len(m.Data)
	return true
}

// take returns what goes into the next message of the stream.
func (g *target) take() (batch [][]byte, size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, queue := range []*[][]byte{&g.urgent, &g.queue} {
		n := 0
		for n < len(*queue) && (len(batch) == 0 || size+len((*queue)[n]) <= batchBytes) {
			batch = append(batch, (*queue)[n])
			size += len((*queue)[n])
			n++
		}
		clear((*queue)[:n])
		if *queue = (*queue)[n:]; len(*queue) == 0 {
			*queue = nil // lets go of the array
		} else {
			break // the order within a queue is kept, and so is the precedence
		}
	}
	g.bytes -= size
	return batch, size
}

// run works until ctx ends.
func (g *target) run(ctx context.Context) {
	defer g.disconnect()
	pause, said := pauseMin, ""
	for g.wait(ctx, nil, nil, g.wanted) {
		began := time.Now()
		err := g.talk(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			g.transport.log.Warn("peer lost", "node", g.id, "error", err)
			said = text
		}
		if time.Since(began) > pauseMax {
			pause = pauseMin // it had worked for a while
		}
		g.pause(ctx, pause)
		pause = min(2*pause, pauseMax)
	}
}

// wait returns when there is a reason to, or at a beat; false at the end.
func (g *target) wait(ctx context.Context, broken <-chan struct{}, beat <-chan time.Time, reason func() bool) bool {
	for {
		if reason() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-broken:
			return false
		case <-beat:
			return true
		case <-g.wake:
		}
	}
}

// loaded says that something waits to be sent.
func (g *target) loaded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.urgent)+len(g.queue) > 0
}

// wanted says that somebody wants the connection.
func (g *target) wanted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.urgent)+len(g.queue)+g.callers > 0
}

// pause drops what waits and what comes, for a while.
func (g *target) pause(ctx context.Context, d time.Duration) {
	g.mu.Lock()
	lost := len(g.urgent) + len(g.queue)
	g.urgent, g.queue, g.bytes, g.down, g.client = nil, nil, 0, true, nil
	g.mu.Unlock()
	g.transport.metrics.dropped.WithLabelValues(g.label).Add(float64(lost))
	g.transport.metrics.connected.WithLabelValues(g.label).Set(0)
	g.transport.group.ReportUnreachable(g.id)
	timer := time.NewTimer(d + time.Duration(g.transport.config.Random(int64(d))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	g.mu.Lock()
	g.down = false
	g.mu.Unlock()
}

// talk connects, introduces and sends until something fails.
func (g *target) talk(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := g.connect()
	if err != nil {
		return err
	}
	if err := g.hello(ctx, client); err != nil {
		g.transport.metrics.handshakes.WithLabelValues(g.label, "failed").Inc()
		return err
	}
	stream, err := client.Messages(ctx)
	if err != nil {
		return fmt.Errorf("open the stream: %w", err)
	}
	g.transport.metrics.handshakes.WithLabelValues(g.label, "done").Inc()
	g.transport.metrics.connected.WithLabelValues(g.label).Set(1)
	g.mu.Lock()
	g.client = client
	close(g.joined)
	g.joined = make(chan struct{})
	g.mu.Unlock()
	g.transport.log.Info("peer connected", "node", g.id)
	return g.send(ctx, cancel, stream)
}

// connect makes the connection, anew if the address is another.
func (g *target) connect() (peerv1.PeerServiceClient, error) {
	address := g.transport.config.Address(g.id)
	if address == "" {
		return nil, fmt.Errorf("the address of node %d is not known", g.id)
	}
	if g.conn == nil || g.conn.Target() != "passthrough:///"+address {
		g.disconnect()
		conn, err := grpc.NewClient("passthrough:///"+address, g.transport.dialOptions(g.id)...)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		g.mu.Lock()
		g.conn = conn
		g.mu.Unlock()
	}
	return peerv1.NewPeerServiceClient(g.conn), nil
}

func (g *target) disconnect() {
	g.mu.Lock()
	conn := g.conn
	g.conn, g.client = nil, nil
	g.mu.Unlock()
	if conn == nil {
		return
	}
	if err := conn.Close(); err != nil {
		g.transport.log.Warn("closing the connection", "node", g.id, "error", err)
	}
}

// connected is the client when a call can be sent at once.
func (g *target) connected() peerv1.PeerServiceClient {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client == nil || g.conn.GetState() != connectivity.Ready {
		return nil
	}
	return g.client
}

// hello has both sides accept each other.
func (g *target) hello(ctx context.Context, client peerv1.PeerServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	group := g.transport.group
	answer, err := client.Hello(ctx, &peerv1.HelloRequest{Introduction: introductionTo(group.Introduce()), To: g.id}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("introduce this node: %w", err)
	}
	other := introductionOf(answer.GetIntroduction())
	if other.Member.ID != g.id {
		return fmt.Errorf("node %d answers at the address of node %d", other.Member.ID, g.id)
	}
	if err := group.Greet(other); err != nil {
		return fmt.Errorf("node %d is refused: %w", g.id, err)
	}
	if r := answer.GetRefusal(); r != nil {
		if reason := refusalReasonOf(r.GetReason()); reason == consensus.RefusedUUID || reason == consensus.RefusedRemoved {
			group.Refused(g.id, &consensus.Refusal{Reason: reason, Text: r.GetText()})
		}
		return fmt.Errorf("node %d refuses this node: %s", g.id, r.GetText())
	}
	return nil
}

// send sends what waits, and ends when the stream does. What has nothing to say
// for a while sends an empty message: members that follow are silent towards each
// other, and a connection between them that died in a cut would be found dead by a
// vote, which is lost with it, and with the vote the election.
func (g *target) send(ctx context.Context, cancel context.CancelFunc, stream grpc.ClientStreamingClient[peerv1.MessagesRequest, peerv1.MessagesResponse]) error {
	group := g.transport.group
	beat := time.NewTimer(beatTime)
	defer beat.Stop()
	request := &peerv1.MessagesRequest{Introduction: introductionTo(group.Introduce()), LowSpace: group.Low()}
	for {
		watchdog := time.AfterFunc(sendTimeout, cancel)
		err := stream.Send(request)
		watchdog.Stop()
		if err != nil {
			return g.ended(stream, err)
		}
		beat.Reset(beatTime)
		if !g.wait(ctx, stream.Context().Done(), beat.C, g.loaded) {
			return g.ended(stream, stream.Context().Err())
		}
		batch, size := g.take()
		request = &peerv1.MessagesRequest{Messages: batch, LowSpace: group.Low()}
		g.transport.metrics.sent.WithLabelValues(g.label).Add(float64(len(batch)))
		g.transport.metrics.sentBytes.WithLabelValues(g.label).Add(float64(size))
	}
}

// ended is why the other side ended the stream, if it said so.
func (g *target) ended(stream grpc.ClientStreamingClient[peerv1.MessagesRequest, peerv1.MessagesResponse], err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("node %d takes no messages: %w", g.id, err)
	}
	if _, reason := stream.CloseAndRecv(); reason != nil {
		err = reason
	}
	return fmt.Errorf("the stream to node %d: %w", g.id, err)
}
