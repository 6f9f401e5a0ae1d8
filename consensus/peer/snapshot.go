package peer

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
)

// A snapshot goes by a stream of its own beside the messages, chunk by chunk,
// straight from the file. When the stream breaks the next one goes on where the
// receiver is. Each chunk has its checksum; the receiver checks the whole as well.

// Limits of it.
const (
	// snapshotChunkBytes is the largest chunk; a larger one ends the stream.
	snapshotChunkBytes = 1 << 20
	// snapshotsAtOnce is how many are sent at once; more wait.
	snapshotsAtOnce = 2
	// snapshotRateDefault is how many bytes a second are sent in all.
	snapshotRateDefault = 64 << 20
	// snapshotTriesMax is how many streams may end without having brought anything
	// before Raft is told that it failed. It begins again, perhaps with a newer one.
	snapshotTriesMax = 10

	snapshotStallTimeout  = 30 * time.Second // a chunk that is not taken for so long ends the stream
	snapshotFinishTimeout = 10 * time.Minute // in which the receiver has checked the file
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SendSnapshot brings a snapshot to a member, in a goroutine of its own.
func (t *Transport) SendSnapshot(s consensus.OutgoingSnapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == nil || t.running.Err() != nil || t.bringing >= targetsMax {
		t.group.ReportSnapshot(s.To, false)
		return
	}
	ctx := t.running
	t.bringing++
	t.workers.Go(func() {
		err := t.bring(ctx, s)
		t.mu.Lock()
		t.bringing--
		t.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			t.log.Warn("a snapshot was not brought to a member; it is tried again", "node", s.To, "index", s.Index, "error", err)
		}
		t.group.ReportSnapshot(s.To, err == nil)
	})
}

// bring tries until the member has it, or as long as something is brought.
func (t *Transport) bring(ctx context.Context, s consensus.OutgoingSnapshot) error {
	select {
	case t.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.places }()
	began := time.Now()
	furthest := int64(-1)
	for tries := 0; ; tries++ {
		from, err := t.bringOnce(ctx, s)
		if err == nil {
			t.log.Info("snapshot brought to a member", "node", s.To, "index", s.Index, "file_bytes", s.Bytes, "took", time.Since(began))
			return nil
		}
		if from > furthest {
			furthest, tries = from, 0
		}
		if tries >= snapshotTriesMax || isFinal(err) {
			return err
		}
		if !sleep(ctx, min(pauseMin<<tries, pauseMax)) {
			return err
		}
	}
}

// isFinal tells whether another stream would end the same way.
func isFinal(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// bringOnce is one stream. It returns from which byte on the receiver wanted it,
// or -1 when it did not say.
func (t *Transport) bringOnce(ctx context.Context, s consensus.OutgoingSnapshot) (from int64, err error) {
	g := t.target(s.To)
	if g == nil {
		return -1, fmt.Errorf("node %d is not known", s.To)
	}
	client := g.connected()
	if client == nil {
		return -1, fmt.Errorf("node %d is not connected", s.To)
	}
	file, err := s.Open()
	if err != nil {
		return -1, fmt.Errorf("open the file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(snapshotStallTimeout, cancel)
	defer watchdog.Stop()
	stream, err := client.Snapshot(ctx)
	if err != nil {
		return -1, err
	}
	b := &bringing{transport: t, stream: stream, watchdog: watchdog, file: file, s: s, label: strconv.FormatUint(s.To, 10)}
	from, err = b.offer()
	if err == nil {
		err = b.send(ctx, from)
	}
	if err == nil {
		err = b.finish()
	}
	return from, err
}

// bringing is one stream with a snapshot.
type bringing struct {
	transport *Transport
	stream    grpc.BidiStreamingClient[peerv1.SnapshotRequest, peerv1.SnapshotResponse]
	watchdog  *time.Timer
	file      io.ReaderAt
	s         consensus.OutgoingSnapshot
	label     string
}

func (b *bringing) offer() (int64, error) {
	offer := &peerv1.SnapshotOffer{Introduction: introductionTo(b.transport.group.Introduce()), Meta: b.s.Meta, Message: b.s.Message}
	if err := b.put(&peerv1.SnapshotRequest{Offer: offer}); err != nil {
		return -1, err
	}
	answer, err := b.stream.Recv()
	if err != nil {
		return -1, err
	}
	if answer.GetOffset() < 0 || answer.GetOffset() > b.s.Bytes {
		return -1, status.Errorf(codes.InvalidArgument, "byte %d of a file of %d is wanted", answer.GetOffset(), b.s.Bytes)
	}
	return answer.GetOffset(), nil
}

// put sends a request. What is wrong with the stream its end says.
func (b *bringing) put(r *peerv1.SnapshotRequest) error {
	err := b.stream.Send(r)
	if err == io.EOF {
		_, err = b.stream.Recv()
	}
	return err
}

func (b *bringing) send(ctx context.Context, at int64) error {
	for at < b.s.Bytes {
		data := make([]byte, min(b.transport.chunk, b.s.Bytes-at)) // gRPC may keep it for a while
		if err := b.transport.rate.wait(ctx, len(data)); err != nil {
			return err
		}
		if n, err := b.file.ReadAt(data, at); n < len(data) {
			return fmt.Errorf("read the file at byte %d: %w", at, err)
		}
		b.watchdog.Reset(snapshotStallTimeout)
		chunk := &peerv1.SnapshotChunk{Offset: at, Data: data, Crc32C: crc32.Checksum(data, castagnoli)}
		if err := b.put(&peerv1.SnapshotRequest{Chunk: chunk}); err != nil {
			return err
		}
		b.transport.metrics.snapshotBytes.WithLabelValues(b.label).Add(float64(len(data)))
		at += int64(len(data))
	}
	return b.stream.CloseSend()
}

func (b *bringing) finish() error {
	b.watchdog.Reset(snapshotFinishTimeout)
	answer, err := b.stream.Recv()
	if err != nil {
		return err
	}
	if !answer.GetDone() {
		return fmt.Errorf("node %d answered before it had the snapshot", b.s.To)
	}
	return nil
}

// Snapshot takes in a snapshot.
func (s *service) Snapshot(stream grpc.BidiStreamingServer[peerv1.SnapshotRequest, peerv1.SnapshotResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	offer := first.GetOffer()
	refusal, err := s.greet(stream.Context(), offer.GetIntroduction())
	if err != nil {
		return err
	}
	if refusal != nil {
		return status.Error(codes.PermissionDenied, refusal.GetText())
	}
	from := offer.GetIntroduction().GetMember().GetId()
	in, err := s.transport.group.OfferSnapshot(from, offer.GetMeta(), offer.GetMessage())
	if err != nil {
		s.transport.log.Warn("a snapshot is not taken", "node", from, "error", err)
		return snapshotStatus(err, codes.FailedPrecondition)
	}
	defer in.Leave()
	if err := stream.Send(&peerv1.SnapshotResponse{Offset: in.Offset()}); err != nil {
		return err
	}
	for in.Offset() < in.Bytes() {
		r, err := stream.Recv()
		if err == io.EOF {
			return status.Error(codes.Aborted, "the stream ends before the file")
		}
		if err != nil {
			return err
		}
		if err := takeChunk(in, r.GetChunk()); err != nil {
			s.transport.log.Warn("a stream with a snapshot ended for what it brought", "node", from, "error", err)
			return err
		}
	}
	if err := in.Finish(); err != nil {
		s.transport.log.Warn("a snapshot that was received is not taken", "node", from, "error", err)
		return snapshotStatus(err, codes.DataLoss)
	}
	s.transport.log.Info("snapshot received", "node", from, "file_bytes", in.Bytes())
	return stream.Send(&peerv1.SnapshotResponse{Offset: in.Bytes(), Done: true})
}

func takeChunk(in *consensus.IncomingSnapshot, c *peerv1.SnapshotChunk) error {
	switch at := in.Offset(); {
	case len(c.GetData()) == 0 || len(c.GetData()) > snapshotChunkBytes:
		return status.Errorf(codes.InvalidArgument, "a chunk of %d bytes, the most is %d", len(c.GetData()), snapshotChunkBytes)
	case c.GetOffset() != at:
		return status.Errorf(codes.Aborted, "a chunk at byte %d, wanted is %d", c.GetOffset(), at)
	case crc32.Checksum(c.GetData(), castagnoli) != c.GetCrc32C():
		return status.Errorf(codes.DataLoss, "the chunk at byte %d was damaged on its way", at)
	}
	if _, err := in.Write(c.GetData()); err != nil {
		return snapshotStatus(err, codes.DataLoss)
	}
	return nil
}

// snapshotStatus: whoever is too busy is tried again.
func snapshotStatus(err error, otherwise codes.Code) error {
	if errors.Is(err, consensus.ErrBusy) || errors.Is(err, consensus.ErrStopped) {
		otherwise = codes.Unavailable
	}
	return status.Error(otherwise, err.Error())
}

// pace spreads bytes over time.
type pace struct {
	bytesPerSecond int64 // set by New, never changed

	mu   sync.Mutex // guards what follows
	free time.Time  // when the next bytes may go
}

// wait returns when so many bytes may go.
func (p *pace) wait(ctx context.Context, bytes int) error {
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	at := p.free
	p.free = at.Add(time.Duration(float64(bytes) / float64(p.bytesPerSecond) * float64(time.Second)))
	p.mu.Unlock()
	if d := at.Sub(now); d > 0 && !sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}
