package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// deafPeer introduces itself properly and then reads nothing of what is sent.
type deafPeer struct {
	peerv1.UnimplementedPeerServiceServer
	introduction *peerv1.Introduction
	streams      chan struct{} // one for each that was opened
}

func (d *deafPeer) Hello(context.Context, *peerv1.HelloRequest) (*peerv1.HelloResponse, error) {
	return &peerv1.HelloResponse{Introduction: d.introduction}, nil
}

func (d *deafPeer) Messages(stream grpc.ClientStreamingServer[peerv1.MessagesRequest, peerv1.MessagesResponse]) error {
	select {
	case d.streams <- struct{}{}:
	default:
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// A peer whose stream is open and takes nothing fills its own queue, and the
// others work on with commands that are larger than any buffer on the way.
func TestAStreamThatTakesNothingHoldsUpNobodyElse(t *testing.T) {
	c := newCluster(t, 3)
	one, two := c.start(1, vfs.NewMem()), c.start(2, vfs.NewMem())
	introduction := introductionTo(one.Introduce())
	introduction.Member = &peerv1.Member{Id: 3, Uuid: "deaf"}
	deaf := &deafPeer{introduction: introduction, streams: make(chan struct{}, 1)}
	server := grpc.NewServer(ServerOptions(nil)...)
	peerv1.RegisterPeerServiceServer(server, deaf)
	var serving sync.WaitGroup
	serving.Go(func() { must(t, server.Serve(c.listener(3))) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })

	propose(t, one, "first")
	<-deaf.streams
	big := strings.Repeat("x", 100<<10)
	for range 10 {
		propose(t, one, big)
		propose(t, two, big)
	}
	if index := barrier(t, two); index == 0 {
		t.Error("the barrier is at no entry")
	}
}

// hearingPeer introduces itself properly and tells what it is sent.
type hearingPeer struct {
	deafPeer
	heard chan *peerv1.MessagesRequest
}

func (h *hearingPeer) Messages(stream grpc.ClientStreamingServer[peerv1.MessagesRequest, peerv1.MessagesResponse]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case h.heard <- r:
		case <-stream.Context().Done():
		}
	}
}

// A member that has nothing more to say goes on beating, so that a dead connection
// is known before something is said over it.
func TestASilentStreamBeats(t *testing.T) {
	c := newCluster(t, 2)
	c.tick = time.Hour // Raft says nothing
	one := c.start(1, vfs.NewMem())
	introduction := introductionTo(one.Introduce())
	introduction.Member = &peerv1.Member{Id: 2, Uuid: "hearing"}
	other := &hearingPeer{deafPeer{introduction: introduction}, make(chan *peerv1.MessagesRequest)}
	server := grpc.NewServer(ServerOptions(nil)...)
	peerv1.RegisterPeerServiceServer(server, other)
	var serving sync.WaitGroup
	serving.Go(func() { must(t, server.Serve(c.listener(2))) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })

	for begun := false; !begun; { // it is dropped when the connection was not made in time
		dropped := one.metric(t, "stellmap_peer_dropped_total", "2")
		one.transport.Send([]consensus.Outgoing{{To: 2, Data: []byte("the only one")}})
		until(t, "the stream begins, or the message is dropped", func() bool {
			select {
			case r := <-other.heard:
				begun = true
				if r.GetIntroduction().GetMember().GetId() != 1 {
					t.Errorf("the stream begins with %v, not with an introduction", r)
				}
			default:
			}
			return begun || one.metric(t, "stellmap_peer_dropped_total", "2") > dropped
		})
	}
	if r := <-other.heard; len(r.GetMessages()) != 1 {
		t.Errorf("%v follows, not the message", r)
	}
	for range 2 {
		if r := <-other.heard; len(r.GetMessages()) != 0 || r.GetIntroduction() != nil {
			t.Errorf("%v is no beat", r)
		}
	}
}

// A member that was away is sent everything when it is back.
func TestAMemberThatWasAwayCatchesUp(t *testing.T) {
	c := newCluster(t, 3)
	disk := vfs.NewMem()
	one, two, three := c.start(1, vfs.NewMem()), c.start(2, vfs.NewMem()), c.start(3, disk)
	propose(t, one, "all")
	until(t, "the third has it", func() bool { return three.machine.all() == "all" })
	must(t, three.stop())
	propose(t, one, "two")
	propose(t, two, "only")
	c.listen(3)
	three = c.start(3, disk)
	until(t, "the third has the rest", func() bool { return strings.HasSuffix(three.machine.all(), "two only") })
}

// dial is a caller that nobody has asked for.
func dial(t testing.TB, address string) peerv1.PeerServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return peerv1.NewPeerServiceClient(conn)
}

// Whoever is not a member of this cluster is told why, and is not bound to an id.
func TestStrangersAreRefused(t *testing.T) {
	c := newCluster(t, 3)
	one := c.start(1, vfs.NewMem())
	client := dial(t, c.address(1))
	good := func() *peerv1.Introduction {
		i := introductionTo(one.Introduce())
		i.Member = &peerv1.Member{Id: 2, Uuid: "two"}
		return i
	}
	for name, change := range map[string]struct {
		change func(*peerv1.HelloRequest)
		reason peerv1.Refusal_Reason
	}{
		"another cluster":     {func(r *peerv1.HelloRequest) { r.Introduction.ClusterId = 7 }, peerv1.Refusal_REASON_CLUSTER},
		"other founders":      {func(r *peerv1.HelloRequest) { r.Introduction.Founders = "x" }, peerv1.Refusal_REASON_CLUSTER},
		"own id":              {func(r *peerv1.HelloRequest) { r.Introduction.Member.Id = 1 }, peerv1.Refusal_REASON_ID},
		"no member":           {func(r *peerv1.HelloRequest) { r.Introduction.Member.Id = 9 }, peerv1.Refusal_REASON_ID},
		"no UUID":             {func(r *peerv1.HelloRequest) { r.Introduction.Member.Uuid = "" }, peerv1.Refusal_REASON_UUID},
		"another node meant":  {func(r *peerv1.HelloRequest) { r.To = 3 }, peerv1.Refusal_REASON_ID},
		"no introduction":     {func(r *peerv1.HelloRequest) { r.Introduction = nil }, peerv1.Refusal_REASON_CLUSTER},
		"no member in it":     {func(r *peerv1.HelloRequest) { r.Introduction.Member = nil }, peerv1.Refusal_REASON_ID},
		"nothing wrong":       {func(*peerv1.HelloRequest) {}, peerv1.Refusal_REASON_UNSPECIFIED},
		"nothing wrong again": {func(*peerv1.HelloRequest) {}, peerv1.Refusal_REASON_UNSPECIFIED},
	} {
		t.Run(name, func(t *testing.T) {
			r := &peerv1.HelloRequest{Introduction: good(), To: 1}
			change.change(r)
			answer, err := client.Hello(t.Context(), r)
			if err != nil || answer.GetRefusal().GetReason() != change.reason {
				t.Errorf("answer %v, %v; want reason %s", answer.GetRefusal(), err, change.reason)
			}
			if answer.GetIntroduction().GetMember().GetId() != 1 {
				t.Errorf("introduced itself as %v", answer.GetIntroduction())
			}
		})
	}
	other := good()
	other.Member.Uuid = "other"
	answer, err := client.Hello(t.Context(), &peerv1.HelloRequest{Introduction: other, To: 1})
	if err != nil || answer.GetRefusal().GetReason() != peerv1.Refusal_REASON_UUID {
		t.Errorf("another UUID under a bound id: %v, %v", answer.GetRefusal(), err)
	}
}

// A stream brings messages of the member that it began with, and nothing else;
// a forwarded call comes from a member that has introduced itself.
func TestAStreamIsHeldToItsIntroduction(t *testing.T) {
	c := newCluster(t, 3)
	one := c.start(1, vfs.NewMem())
	client := dial(t, c.address(1))
	member := introductionTo(one.Introduce())
	member.Member = &peerv1.Member{Id: 2, Uuid: "two"}
	stranger := introductionTo(one.Introduce())
	stranger.ClusterId = 7
	// raftpb.Message{Type: MsgHeartbeat, To: 1, From: …, Term: 9}
	heartbeat := func(from byte) []byte { return []byte{0x08, 8, 0x10, 1, 0x18, from, 0x20, 9} }
	for name, s := range map[string]struct {
		first, second *peerv1.MessagesRequest
		code          codes.Code
	}{
		"no introduction":     {&peerv1.MessagesRequest{Messages: [][]byte{heartbeat(2)}}, nil, codes.PermissionDenied},
		"a stranger":          {&peerv1.MessagesRequest{Introduction: stranger}, nil, codes.PermissionDenied},
		"another's message":   {&peerv1.MessagesRequest{Introduction: member}, &peerv1.MessagesRequest{Messages: [][]byte{heartbeat(3)}}, codes.InvalidArgument},
		"not a message":       {&peerv1.MessagesRequest{Introduction: member}, &peerv1.MessagesRequest{Messages: [][]byte{{0xff}}}, codes.InvalidArgument},
		"a message of no use": {&peerv1.MessagesRequest{Introduction: member}, &peerv1.MessagesRequest{Messages: [][]byte{{0x08, 2, 0x10, 1, 0x18, 2}}}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := client.Messages(t.Context())
			must(t, err)
			must(t, stream.Send(s.first))
			if s.second != nil {
				must(t, stream.Send(s.second))
			}
			var answer peerv1.MessagesResponse
			if err := stream.RecvMsg(&answer); status.Code(err) != s.code {
				t.Errorf("the stream ended with %v, want %s", err, s.code)
			}
		})
	}
	if term := one.Status().Term; term == 9 {
		t.Error("a refused message was taken in")
	}
	reply, err := client.Forward(t.Context(), &peerv1.ForwardRequest{From: 3, Uuid: "x", ClusterId: 100, Kind: peerv1.ForwardRequest_KIND_PROPOSE})
	if err != nil || reply.GetCode() != peerv1.ForwardResponse_CODE_NOT_LEADER || !strings.Contains(reply.GetText(), "not introduced") {
		t.Errorf("a call of a stranger: %v, %v", reply, err)
	}
	answer, err := client.Ask(t.Context(), &peerv1.AskRequest{From: 3, Uuid: "x", ClusterId: 100})
	if err != nil || !strings.Contains(answer.GetRefusal(), "not introduced") {
		t.Errorf("a question of a stranger: %v, %v", answer, err)
	}
}

// What waits for one peer is bounded by count and by bytes; the urgent goes
// first, and what goes out together is bounded too.
func TestQueueIsBoundedAndUrgentGoesFirst(t *testing.T) {
	transport, err := New(Config{Address: func(uint64) string { return "" }})
	must(t, err)
	g := newTarget(transport, 2)
	taken := 0
	for g.enqueue(consensus.Outgoing{Data: []byte{0}}) {
		taken++
	}
	if taken != queueMax {
		t.Errorf("the queue took %d messages, want %d", taken, queueMax)
	}
	g = newTarget(transport, 2)
	taken = 0
	for g.enqueue(consensus.Outgoing{Data: make([]byte, batchBytes/2+1)}) {
		taken += batchBytes/2 + 1
	}
	if taken > queueBytesMax || taken < queueBytesMax-batchBytes {
		t.Errorf("the queue took %d bytes, want up to %d", taken, queueBytesMax)
	}
	if batch, size := g.take(); len(batch) != 1 || size != batchBytes/2+1 {
		t.Errorf("%d messages of %d bytes go out together", len(batch), size)
	}

	g = newTarget(transport, 2)
	for i, urgent := range []bool{false, true, false, true} {
		if !g.enqueue(consensus.Outgoing{Data: fmt.Append(nil, i), Urgent: urgent}) {
			t.Fatal("not taken")
		}
	}
	batch, _ := g.take()
	if have := string(slices.Concat(batch...)); have != "1302" {
		t.Errorf("sent in the order %s", have)
	}
	if batch, size := g.take(); len(batch) != 0 || size != 0 || g.bytes != 0 {
		t.Errorf("left: %v, %d bytes", batch, g.bytes)
	}
}

// An error keeps its meaning on the way, and what is not known leaves the
// outcome of a proposal open.
func TestForwardedErrorsKeepTheirMeaning(t *testing.T) {
	for _, want := range []error{consensus.ErrNotLeader, consensus.ErrBusy, consensus.ErrTooLarge, consensus.ErrUnknownOutcome} {
		err := fmt.Errorf("somewhere: %w", want)
		back := errorOf(&peerv1.ForwardResponse{Code: codeOf(consensus.ForwardPropose, err), Text: err.Error()})
		if !errors.Is(back, want) {
			t.Errorf("%v came back as %v", want, back)
		}
	}
	both := fmt.Errorf("%w: %w", consensus.ErrUnknownOutcome, consensus.ErrStopped)
	for _, err := range []error{both, errors.New("new"), context.DeadlineExceeded} {
		if back := errorOf(&peerv1.ForwardResponse{Code: codeOf(consensus.ForwardPropose, err)}); !errors.Is(back, consensus.ErrUnknownOutcome) {
			t.Errorf("%v came back as %v", err, back)
		}
	}
}
