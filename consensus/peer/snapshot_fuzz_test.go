package peer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/internal/corpus"
	"github.com/stellmap/stellmap/internal/rawcalls"
	"github.com/stellmap/stellmap/storage"
)

// bringer is a stream by which a member says what is in some bytes, and hangs up.
type bringer struct {
	grpc.BidiStreamingServer[peerv1.SnapshotRequest, peerv1.SnapshotResponse]
	ctx  context.Context
	rest []byte
	told *peerv1.SnapshotResponse // last
}

func (b *bringer) Context() context.Context { return b.ctx }

func (b *bringer) Send(r *peerv1.SnapshotResponse) error { b.told = r; return nil }

// Recv reads a message behind its length; what is no message is an end, as gRPC makes it one.
func (b *bringer) Recv() (*peerv1.SnapshotRequest, error) {
	if len(b.rest) < 2 {
		return nil, io.EOF
	}
	n := min(int(binary.LittleEndian.Uint16(b.rest)), len(b.rest)-2)
	text := b.rest[2 : 2+n]
	b.rest = b.rest[2+n:]
	r := new(peerv1.SnapshotRequest)
	if proto.Unmarshal(text, r) != nil {
		return nil, io.EOF
	}
	return r, nil
}

// smallSnapshot is one that a member of the cluster could have sent: its meta and its file.
func smallSnapshot(f *testing.F, voters []uint64) (storage.SnapshotMeta, []byte) {
	f.Helper()
	conf, err := proto.Marshal(&pb.ConfState{Voters: voters})
	must(f, err)
	fs := vfs.NewMem()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: fs, Dir: "state"})
	must(f, err)
	batch := engine.NewBatch()
	batch.Set([]byte("/registry/a/b/c"), []byte("value"))
	must(f, engine.Apply(batch, storage.Position{Index: 9, Term: 2}))
	state, err := engine.Snapshot()
	must(f, err)
	snapshots, err := storage.OpenSnapshots(storage.SnapshotsOptions{FS: fs, Dir: "snapshot"})
	must(f, err)
	meta, err := snapshots.Save(f.Context(), state, storage.SnapshotMeta{ClusterID: 100, Created: 1, Configuration: base64.StdEncoding.EncodeToString(conf)})
	must(f, err)
	file, err := snapshots.OpenFile(meta)
	must(f, err)
	whole := make([]byte, meta.FileBytes)
	_, err = file.ReadAt(whole, 0)
	must(f, err)
	must(f, file.Close())
	must(f, state.Close())
	must(f, engine.Close())
	return meta, whole
}

// receiver is a member that takes snapshots and does nothing with them: it does not run.
func receiver(t testing.TB) (*service, *storage.Store) {
	t.Helper()
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("data", 0o700))
	file := consensus.IdentityFile{
		Load:     func() (storage.Identity, bool, error) { return storage.LoadIdentity(fs, "data") },
		Save:     func(i storage.Identity) error { return storage.SaveIdentity(fs, "data", i) },
		Occupied: func() (bool, error) { return storage.HasLogOrState(fs, "data") },
	}
	members := []consensus.Member{{ID: 1}, {ID: 2}, {ID: 3}}
	identity, err := consensus.Found(file, consensus.Founding{NodeID: 1, ClusterID: 100, Members: members, UUID: func() string { return "one" }})
	must(t, err)
	store, err := storage.OpenStore(t.Context(), storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: fs, Dir: "data/snapshot"},
		Engine:    storage.EngineOptions{FS: fs, Dir: "data/state", CacheBytes: 1 << 16, MemTableBytes: 1 << 16},
		Log:       storage.LogOptions{FS: fs, Dir: "data/wal", Base: consensus.LogBase(identity), Salt: func() uint64 { return 6 }},
	})
	must(t, err)
	transport, err := New(Config{Address: func(uint64) string { return "" }})
	must(t, err)
	group, err := consensus.Open(consensus.Config{
		ID: 1, ClusterID: 100, Members: members, Self: consensus.Member{ID: 1}, Identity: identity, IdentityFile: file,
		Log: store.Log, Engine: store.Engine, Snapshots: store.Snapshots, Machine: &echo{}, Transport: transport,
	})
	must(t, err)
	transport.Bind(group)
	return &service{transport: transport}, store
}

// FuzzSnapshot: whatever a member says on a stream with a snapshot, it is taken whole, as its meta says, or refused as the
// sender's fault, and is then among the snapshots or not.
func FuzzSnapshot(f *testing.F) {
	meta, whole := smallSnapshot(f, []uint64{1, 2, 3})
	line, err := meta.Line()
	must(f, err)
	s, store := receiver(f)
	introduction := introductionTo(s.transport.group.Introduce())
	must(f, store.Close())
	introduction.Member = &peerv1.Member{Id: 2, Uuid: "two"}
	conf := &pb.ConfState{Voters: []uint64{1, 2, 3}}
	about := &pb.Message{Type: pb.MsgSnap.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(2), Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{ConfState: conf, Index: &meta.Index, Term: &meta.Term}}}
	message, err := proto.Marshal(about)
	must(f, err)
	offer := &peerv1.SnapshotRequest{Offer: &peerv1.SnapshotOffer{Introduction: introduction, Meta: line, Message: message}}
	chunk := func(at, to int) *peerv1.SnapshotRequest {
		return &peerv1.SnapshotRequest{Chunk: &peerv1.SnapshotChunk{Offset: int64(at), Data: whole[at:to], Crc32C: crc32.Checksum(whole[at:to], castagnoli)}}
	}
	end, half := len(whole), len(whole)/2
	damaged := proto.CloneOf(chunk(0, end))
	damaged.Chunk.Data[half] ^= 1
	forged := proto.CloneOf(damaged)
	forged.Chunk.Crc32C = crc32.Checksum(forged.Chunk.Data, castagnoli)
	tooLong := proto.CloneOf(chunk(half, end))
	tooLong.Chunk.Data = append(tooLong.Chunk.Data, 0)
	tooLong.Chunk.Crc32C = crc32.Checksum(tooLong.Chunk.Data, castagnoli)
	good, err := rawcalls.Pack(offer, chunk(0, half), chunk(half, end))
	must(f, err)
	corpus.Add(f, "whole", good)
	for name, requests := range map[string][]proto.Message{
		"in one": {offer, chunk(0, end)}, "a chunk is missing": {offer, chunk(half, end)}, "a chunk twice": {offer, chunk(0, half), chunk(0, half)},
		"damaged on its way": {offer, damaged}, "another file": {offer, forged}, "longer than said": {offer, chunk(0, half), tooLong},
		"an empty chunk": {offer, &peerv1.SnapshotRequest{Chunk: &peerv1.SnapshotChunk{}}}, "no offer": {chunk(0, end)}, "offered twice": {offer, offer}, "cut off": {offer, chunk(0, half)},
	} {
		packed, err := rawcalls.Pack(requests...)
		must(f, err)
		corpus.Add(f, name, packed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, store := receiver(t)
		defer func() { must(t, store.Close()) }()
		stream := &bringer{ctx: t.Context(), rest: raw}
		err := s.Snapshot(stream)
		kept := store.Snapshots.List()
		if done := stream.told.GetDone(); done != (err == nil) || done != (len(kept) == 1) {
			t.Fatalf("%x ends with %v, and of the snapshots there are %+v", raw, err, kept)
		}
		if err == nil {
			isWhole(t, store.Snapshots, kept[0])
		}
		if bytes.Equal(raw, good) && err != nil || status.Code(err) == codes.Internal {
			t.Errorf("%x ends with %v", raw, err)
		}
	})
}

// isWhole: the file has what its meta says, to the end.
func isWhole(t *testing.T, snapshots *storage.Snapshots, m storage.SnapshotMeta) {
	t.Helper()
	must(t, snapshots.Verify(m))
	in, err := snapshots.Open(m)
	must(t, err)
	var state bytes.Buffer
	n, err := io.Copy(&state, in)
	must(t, err)
	must(t, in.Close())
	if n != m.StateBytes {
		t.Errorf("a state of %d bytes is kept, and its meta says %d", n, m.StateBytes)
	}
}
