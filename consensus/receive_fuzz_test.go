package consensus

import (
	"encoding/binary"
	"errors"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/internal/corpus"
)

// FuzzReceive: whatever a member sends for Raft, what is let through is from him and for this member, has entries in their
// order, and its envelopes are read or not understood; the rest is refused, and with it all that comes behind.
func FuzzReceive(f *testing.F) {
	from, to := uint64(2), uint64(1)
	of := func(kind pb.MessageType) *pb.Message {
		return &pb.Message{Type: kind.Enum(), From: &from, To: &to, Term: proto.Uint64(3), Index: proto.Uint64(7), LogTerm: proto.Uint64(2), Commit: proto.Uint64(7)}
	}
	entry := func(index, term uint64, data []byte) *pb.Entry {
		return &pb.Entry{Type: pb.EntryNormal.Enum(), Index: &index, Term: &term, Data: data}
	}
	command := envelope{kind: kindCommand, time: 7, requestID: "id", payload: []byte("data")}.encode()
	with := func(m *pb.Message, entries ...*pb.Entry) *pb.Message { m.Entries = entries; return m }
	foreign := of(pb.MsgHeartbeat)
	foreign.From = proto.Uint64(3)
	long := of(pb.MsgHeartbeat)
	long.Context = []byte("of nine b")
	for name, messages := range map[string][]*pb.Message{
		"appends": {with(of(pb.MsgApp), entry(8, 3, command), entry(9, 3, nil)), of(pb.MsgAppResp)}, "votes": {of(pb.MsgPreVote), of(pb.MsgVote), of(pb.MsgVoteResp)},
		"a gap": {with(of(pb.MsgApp), entry(9, 3, command))}, "terms that fall": {with(of(pb.MsgApp), entry(8, 1, command))}, "entries of a later term": {with(of(pb.MsgApp), entry(8, 9, command))},
		"half an envelope": {with(of(pb.MsgApp), entry(8, 3, command[:5]))}, "for another": {foreign}, "a long context": {long}, "a question of nothing": {of(pb.MsgReadIndex)},
		"a proposal": {with(of(pb.MsgProp), entry(0, 0, command))}, "of itself": {of(pb.MsgHup)}, "a snapshot without its file": {of(pb.MsgSnap)},
	} {
		var packed []byte
		for _, m := range messages {
			b := marshal(m)
			packed = append(binary.LittleEndian.AppendUint16(packed, uint16(len(b))), b...)
		}
		corpus.Add(f, name, packed)
	}
	g := &Group{config: Config{ID: to, ClusterID: 100}}
	g.facts.Store(&facts{})
	g.makeMailboxes()
	g.metrics = newMetrics(g)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var messages [][]byte
		for len(raw) >= 2 {
			n := min(int(binary.LittleEndian.Uint16(raw)), len(raw)-2)
			messages, raw = append(messages, raw[2:2+n]), raw[2+n:]
		}
		err := g.Receive(from, messages)
		passed := g.received.take(nil)
		if _, bytes := g.received.load(); bytes != 0 || (err == nil) != (len(passed) == len(messages)) {
			t.Errorf("%x: %d messages of %d are let through, with %d bytes left: %v", messages, len(passed), len(messages), bytes, err)
		}
		for _, m := range passed {
			canBeStepped(t, m, from, to)
		}
	})
}

// canBeStepped looks for what would end the process in Raft, or behind it.
func canBeStepped(t *testing.T, m *pb.Message, from, to uint64) {
	t.Helper()
	if m.GetFrom() != from || m.GetTo() != to || m.GetType() == pb.MsgProp || m.GetType() == pb.MsgHup || m.GetType() == pb.MsgSnap {
		t.Errorf("%v is let through", m)
	}
	last, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		if m.GetType() == pb.MsgApp && (e.GetIndex() != last+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm()) {
			t.Errorf("%v has entries that do not follow each other", m)
		}
		last, term = e.GetIndex(), e.GetTerm()
		if read, err := decodeEnvelope(e.GetData()); err != nil && !errors.Is(err, errNotUnderstood) || err == nil && string(read.encode()) != string(e.GetData()) {
			t.Errorf("%x is read as %+v, %v", e.GetData(), read, err)
		}
	}
}
