package consensus

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// sender is the executor that marshals messages to peers and hands them to the
// transport. Entries are shared with Raft, which does not change them.
type sender struct {
	transport Transport
	metrics   *metrics
	queue     *mailbox[*pb.Message]
	spare     []*pb.Message
}

// put takes a message, or drops and counts it: Raft sends again.
func (s *sender) put(m *pb.Message) {
	if !s.queue.put(m, messageSize(m)) {
		s.metrics.dropped.WithLabelValues("send").Inc()
	}
}

func (s *sender) step() error {
	messages := s.queue.take(s.spare)
	s.spare = messages
	if len(messages) == 0 {
		return nil
	}
	outgoing := make([]Outgoing, len(messages))
	for i, m := range messages {
		data, err := proto.Marshal(m)
		if err != nil {
			return fmt.Errorf("marshal a message to node %d: %w", m.GetTo(), err)
		}
		outgoing[i] = Outgoing{To: m.GetTo(), Data: data, Urgent: len(m.GetEntries()) == 0 && m.GetType() != pb.MsgApp}
	}
	s.transport.Send(outgoing)
	return nil
}

// messageSize is about how much memory a message holds on to.
func messageSize(m *pb.Message) int {
	const fixed = 64
	size := fixed + len(m.GetContext())
	for _, e := range m.GetEntries() {
		size += fixed + len(e.GetData())
	}
	return size
}
