package peer

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
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
	"github.com/stellmap/stellmap/storage"
)

// chunkID is a chunk of one snapshot: when the leader changes another one may be sent.
type chunkID struct {
	meta   string
	offset int64
}

// wire lets a test see each chunk of a snapshot before the receiver does.
type wire struct {
	mu   sync.Mutex // guards what follows
	seen map[chunkID]int
	see  func(c *peerv1.SnapshotChunk, times int) error // an error ends the stream
}

type wiredStream struct {
	grpc.ServerStream
	wire *wire
	meta string // of the snapshot that it brings
}

func (w *wire) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return next(srv, &wiredStream{ServerStream: stream, wire: w})
}

func (s *wiredStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	r, ok := m.(*peerv1.SnapshotRequest)
	if ok && r.GetOffer() != nil {
		s.meta = string(r.GetOffer().GetMeta())
	}
	if !ok || r.GetChunk() == nil {
		return nil
	}
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	id := chunkID{s.meta, r.GetChunk().GetOffset()}
	s.wire.seen[id]++
	return s.wire.see(r.GetChunk(), s.wire.seen[id])
}

func (w *wire) chunks() (offsets, times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.seen {
		times += n
	}
	return len(w.seen), times
}

const smallChunk = 64 << 10

// largeCluster is three members, of which the third is away while the others make a state of eight chunks and cut their
// logs. See is told of the chunks that it is sent when it is back.
func largeCluster(t *testing.T, see func(c *peerv1.SnapshotChunk, times int) error) (*cluster, []*member, *wire) {
	return grown(t, newCluster(t, 3), see)
}

func grown(t *testing.T, c *cluster, see func(c *peerv1.SnapshotChunk, times int) error) (*cluster, []*member, *wire) {
	w := &wire{seen: make(map[chunkID]int), see: see}
	c.segmentBytes, c.snapshotEntries, c.chunk, c.intercept = 64<<10, 10, cmp.Or(c.chunk, smallChunk), w.intercept
	c.tick = 100 * time.Millisecond // the leader had better stay, so that it is one snapshot
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
		data := make([]byte, smallChunk*2/3)
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
	t.Parallel()
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

// The connection itself is cut when a chunk has come, at every chunk once, the last one included, after which the
// file is checked. What has come stays, so that each chunk comes about once.
func TestASnapshotComesThroughConnectionsThatAreCut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	r := newRelay(t, c.address(3))
	c.addresses.Store(uint64(3), r.address())
	c.chunk = 2 * smallChunk // fewer of them: each cut costs a pause before the next connection
	_, members, w := grown(t, c, func(_ *peerv1.SnapshotChunk, times int) error {
		if times == 1 {
			r.cut()
		}
		return nil
	})
	c.listen(3)
	back := c.start(3, members[2].fs)
	until(t, "three chunks have come", func() bool { chunks, _ := w.chunks(); return chunks >= 3 })
	until(t, "the snapshot is installed", func() bool { return back.Status().Snapshot > 0 })
	isLevel(t, members, back)
	chunks, times := w.chunks()
	if chunks < 4 || r.times() < chunks {
		t.Errorf("the connection was cut %d times, and there were %d chunks", r.times(), chunks)
	}
	if times > chunks+2 {
		t.Errorf("%d chunks were sent %d times in all, want each once: what has come is lost with the connection", chunks, times)
	}
}

// A chunk that is damaged on its way is not taken in, and sent again.
func TestADamagedChunkIsSentAgain(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	reached, once := make(chan struct{}), sync.Once{}
	c, members, _ := largeCluster(t, func(chunk *peerv1.SnapshotChunk, _ int) error {
		if chunk.GetOffset() > 2*smallChunk {
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

// noEnd is a snapshot's file that is in no memory.
type noEnd struct{ storage.SnapshotFile }

func (noEnd) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (noEnd) Close() error                          { return nil }

// sink introduces itself properly, takes a snapshot and keeps nothing of it.
type sink struct {
	deafPeer
	bytes int64
	taken func(bytes int64)
	done  chan struct{}
}

func (s *sink) Snapshot(stream grpc.BidiStreamingServer[peerv1.SnapshotRequest, peerv1.SnapshotResponse]) error {
	defer close(s.done)
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&peerv1.SnapshotResponse{}); err != nil {
		return err
	}
	for at := int64(0); ; {
		r, err := stream.Recv()
		if err == io.EOF {
			return stream.Send(&peerv1.SnapshotResponse{Done: at == s.bytes})
		}
		if err != nil {
			return err
		}
		at += int64(len(r.GetChunk().GetData()))
		s.taken(at)
	}
}

// What a sender keeps in memory is a few chunks, however large the snapshot is and however slow the receiver.
func TestASnapshotThatIsSentIsNotInMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector has memory of its own for all that is touched")
	}
	const snapshotBytes, memoryMax = 192 << 20, 24 << 20
	c := newCluster(t, 2)
	one := c.start(1, vfs.NewMem())
	one.transport.rate.bytesPerSecond = 64 << 30
	live := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	introduction := introductionTo(one.Introduce())
	introduction.Member = &peerv1.Member{Id: 2, Uuid: "sink"}
	two := &sink{deafPeer: deafPeer{introduction: introduction, streams: make(chan struct{}, 1)}, bytes: snapshotBytes, done: make(chan struct{})}
	before, most := live(), int64(0)
	two.taken = func(at int64) {
		if at%(8<<20) == 0 { // the sender gets ahead as far as it may
			most = max(most, live()-before)
		}
	}
	server := grpc.NewServer(ServerOptions(nil)...)
	peerv1.RegisterPeerServiceServer(server, two)
	var serving sync.WaitGroup
	serving.Go(func() { must(t, server.Serve(c.listener(2))) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	<-two.streams

	one.transport.SendSnapshot(consensus.OutgoingSnapshot{
		To: 2, Index: 1, Bytes: snapshotBytes, Open: func() (storage.SnapshotFile, error) { return noEnd{}, nil },
	})
	<-two.done
	until(t, "all of it was sent", func() bool { return one.metric(t, "stellmap_peer_snapshot_bytes_total", "2") == snapshotBytes })
	t.Logf("at most %d KiB for a snapshot of %d MiB", most>>10, snapshotBytes>>20)
	if most == 0 || most > memoryMax {
		t.Errorf("%d bytes were in memory, want %d at most", most, memoryMax)
	}
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
