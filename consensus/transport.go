package consensus

import (
	"context"

	"github.com/stellmap/stellmap/storage"
)

// Transport carries messages to the other members. It may lose, repeat and
// reorder them; it must not change them, and it must not deliver a message of
// a sender whose Introduction the receiver did not accept.
type Transport interface {
	// Send takes messages and returns at once. What cannot be delivered is
	// dropped, and told by Group.ReportUnreachable.
	Send(messages []Outgoing)
	// Forward asks a member, at most once, and returns its answer.
	// ErrNotSent, ErrNotLeader, ErrBusy, ErrFull and ErrTooLarge mean that nothing
	// was done; any other error of a proposal, that the outcome is unknown.
	Forward(ctx context.Context, to uint64, r ForwardRequest) (ForwardReply, error)
	// SendSnapshot brings a snapshot to a member and returns at once. When the
	// member has it, or cannot be brought it, Group.ReportSnapshot is told, once.
	SendSnapshot(s OutgoingSnapshot)
}

// OutgoingSnapshot is a snapshot for one member: its Group.OfferSnapshot is asked
// which part of the file it lacks.
type OutgoingSnapshot struct {
	To      uint64
	Index   uint64 // for people
	Bytes   int64  // of the file
	Meta    []byte // what it is, for OfferSnapshot
	Message []byte // the same
	Open    func() (storage.SnapshotFile, error)
}

// Outgoing is a marshalled message for one member.
type Outgoing struct {
	To     uint64
	Data   []byte
	Urgent bool // small, and late is as bad as lost: it may overtake others
}

// ForwardKind is what a follower wants of its leader.
type ForwardKind uint8

// Kinds of a ForwardRequest.
const (
	ForwardPropose ForwardKind = iota + 1
	ForwardAsk
	ForwardChecked // proposes the hash of a member's state
	ForwardMembers // a change of the members, or how far they are; it may be sent again
)

// ForwardRequest is a call that a follower passes on to its leader.
type ForwardRequest struct {
	Kind      ForwardKind
	RequestID string // of a proposal; empty for none
	Data      []byte
}

// ForwardReply is what the leader answered.
type ForwardReply struct {
	Index uint64 // of a proposal: where it was applied
	Data  []byte
}
