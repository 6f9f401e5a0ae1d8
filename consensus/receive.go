package consensus

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Receive takes in what a member sent, whose Introduction was accepted. It does
// not wait. An error means that the bytes are not what a member sends: the
// sender's stream should be ended.
func (g *Group) Receive(from uint64, messages [][]byte) error {
	if r := g.facts.Load().removalRefusal(from, g.config.ClusterID); r != nil {
		return r
	}
	for _, data := range messages {
		m := new(pb.Message)
		if err := proto.Unmarshal(data, m); err != nil {
			g.metrics.invalid.Inc()
			return fmt.Errorf("decode a message of node %d: %w", from, err)
		}
		if err := g.checkMessage(from, m); err != nil {
			g.metrics.invalid.Inc()
			return err
		}
		if mutant("ack_before_commit") && m.GetType() == pb.MsgApp {
			m.Commit = proto.Uint64(m.GetIndex() + uint64(len(m.GetEntries())))
		}
		if !g.received.put(m, messageSize(m)) {
			g.metrics.dropped.WithLabelValues("receive").Inc()
		}
	}
	return nil
}

// checkMessage lets through what Raft can work on without a panic, from whom it
// says it is. A snapshot comes with its file, by OfferSnapshot, or not at all.
func (g *Group) checkMessage(from uint64, m *pb.Message) error {
	if m.GetFrom() != from || m.GetTo() != g.config.ID {
		return fmt.Errorf("node %d sent a message from node %d to node %d", from, m.GetFrom(), m.GetTo())
	}
	ok := false
	switch m.GetType() {
	case pb.MsgApp:
		ok = consecutive(m)
	case pb.MsgReadIndex, pb.MsgReadIndexResp:
		ok = len(m.GetEntries()) == 1
	case pb.MsgHeartbeat, pb.MsgHeartbeatResp:
		ok = len(m.GetContext()) == 0 || len(m.GetContext()) == 8
	case pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgTimeoutNow:
		ok = true
	}
	if !ok {
		return fmt.Errorf("node %d sent a message of type %s that cannot be worked on", from, m.GetType())
	}
	return nil
}

// consecutive: indexes follow each other, and terms do not fall.
func consecutive(m *pb.Message) bool {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		if e.GetIndex() != index+1 || e.GetTerm() < term {
			return false
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	return term <= m.GetTerm()
}
