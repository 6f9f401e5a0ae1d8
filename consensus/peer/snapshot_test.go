package peer

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// wire lets a test see each chunk of a snapshot before the receiver does.
type wire struct {
	mu   sync.Mutex // guards what follows
	seen map[int64]int
	see  func(c *peerv1.SnapshotChunk, times int) error // an error ends the stream
}

type wiredStream struct {
	grpc.ServerStream
	wire *wire
}

func (w *wire) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return next(srv, wiredStream{stream, w})
}

func (s wiredStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	r, ok := m.(*peerv1.SnapshotRequest)
	if !ok || r.GetChunk() == nil {
		return nil
	}
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	s.wire.seen[r.GetChunk().GetOffset()]++
	return s.wire.see(r.GetChunk(), s.wire.seen[r.GetChunk().GetOffset()])
}

func (w *wire) chunks() (offsets, times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.seen {
		times += n
	}
	return len(w.seen), times
}

// largeCluster is three members, of which the third is away while the others make a state of some 6 MiB and cut their
// logs. See is told of the chunks that it is sent when it is back.
func largeCluster(t *testing.T, see func(c *peerv1.SnapshotChunk, times int) error) (*cluster, []*member, *wire) {
	w := &wire{seen: make(map[int64]int), see: see}
	c := newCluster(t, 3)
	c.segmentBytes, c.snapshotEntries, c.intercept = 64<<10, 10, w.intercept
	var members []*member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, c.start(id, vfs.NewMem()))
	}
	propose(t, members[0], "before")
	until(t, "all have met", func() bool { return len(members[2].Status().Members) == 3 })
	must(t, members[2].stop())
	last := members[2].Status().Applied
	random := rand.NewChaCha8([32]byte{1})
	var large consensus.Reply
	for range 12 {
		data := make([]byte, 512<<10)
		if _, err := random.Read(data); err != nil {
			t.Fatal(err)
		}
		large = propose(t, members[0], string(data))
	}
	for i := range 40 {
		propose(t, members[1], fmt.Sprint(i))
	}
	until(t, "the logs are cut, and all of it is in the snapshots", func() bool {
		one, two := members[0].Status(), members[1].Status()
		return min(one.LogFirst, two.LogFirst) > last+1 && min(one.Snapshot, two.Snapshot) >= large.Index
	})
	return c, members, w
}

// comesBack starts the third member and waits until it has what the others have.
func comesBack(t *testing.T, c *cluster, members []*member) *member {
	t.Helper()
	c.listen(3)
	back := c.start(3, members[2].fs)
	isLevel(t, members, back)
	return back
}

func isLevel(t *testing.T, members []*member, back *member) {
	t.Helper()
	reply := propose(t, members[0], "after")
	until(t, "it has caught up", func() bool { return back.Status().Applied >= reply.Index })
	until(t, "its state, built from the snapshot, is known to be that of the others", func() bool {
		s := members[0].Status().Check
		return s.Index >= back.Status().LogFirst && len(s.Equal) == 3 && len(s.Different) == 0
	})
}

// The stream is cut at every chunk once, and each time the next one goes on there. In the end the states are equal.
func TestASnapshotComesThroughWhateverIsCut(t *testing.T) {
	c, members, w := largeCluster(t, func(_ *peerv1.SnapshotChunk, times int) error {
		if times == 1 {
			return status.Error(codes.Unavailable, "cut")
		}
		return nil
	})
	comesBack(t, c, members)
	if chunks, times := w.chunks(); chunks < 6 || times > 2*chunks+2 {
		t.Errorf("%d chunks were sent %d times in all, want 6 chunks at least, and each twice", chunks, times)
	}
}

// A chunk that is damaged on its way is not taken in, and sent again.
func TestADamagedChunkIsSentAgain(t *testing.T) {
	c, members, w := largeCluster(t, func(chunk *peerv1.SnapshotChunk, times int) error {
		if times == 1 {
			chunk.Data[len(chunk.Data)/2] ^= 1
		}
		return nil
	})
	comesBack(t, c, members)
	if chunks, times := w.chunks(); times < 2*chunks {
		t.Errorf("%d chunks were damaged, and there were %d in all", chunks, times)
	}
}

// A receiver that starts again in the middle begins with an empty hand, and gets it all.
func TestAReceiverThatStartsAgain(t *testing.T) {
	reached, once := make(chan struct{}), sync.Once{}
	c, members, _ := largeCluster(t, func(chunk *peerv1.SnapshotChunk, _ int) error {
		if chunk.GetOffset() > 2<<20 {
			once.Do(func() { close(reached) })
		}
		return nil
	})
	c.listen(3)
	first := c.start(3, members[2].fs)
	<-reached
	must(t, first.stop())
	c.listen(3)
	isLevel(t, members, c.start(3, first.fs))
}

// Whoever is of another cluster brings nothing, and neither does one that sends what is no snapshot.
func TestWhatIsNoSnapshotOfThisCluster(t *testing.T) {
	c := newCluster(t, 1)
	m := c.start(1, vfs.NewMem())
	propose(t, m, "it")
	conn, err := grpc.NewClient("passthrough:///"+c.address(1), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	own := introductionTo(m.Introduce())
	other := introductionTo(m.Introduce())
	other.ClusterId++
	for _, o := range []struct {
		what string
		from *peerv1.Introduction
		want codes.Code
	}{{"another cluster", other, codes.PermissionDenied}, {"its own id", own, codes.PermissionDenied}, {"nobody", nil, codes.PermissionDenied}} {
		stream, err := peerv1.NewPeerServiceClient(conn).Snapshot(t.Context())
		must(t, err)
		must(t, stream.Send(&peerv1.SnapshotRequest{Offer: &peerv1.SnapshotOffer{Introduction: o.from}}))
		if _, err := stream.Recv(); status.Code(err) != o.want {
			t.Errorf("%s: %v, want %v", o.what, err, o.want)
		}
	}
}
