package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// envelope is what a log entry holds:
//
//	0   format version, 1
//	1   kind
//	2   the leader's clock, Unix ms, 8 bytes big-endian
//	10  length of the request id, 2 bytes big-endian
//	12  request id, then the payload to the end
//
// An empty entry is Raft's own, with which a leader begins its term.
type envelope struct {
	kind      entryKind
	time      int64
	requestID string
	payload   []byte
}

type entryKind uint8

const (
	kindCommand entryKind = 1 // for the Machine
	kindCluster entryKind = 2 // peerv1.Cluster: incarnation and feature level
	kindMember  entryKind = 3 // peerv1.Member: a line of the address book
	// 4 is not used any more, and never again.
	// kindChange stands in the context of a change of Raft's configuration, never
	// in an entry of its own: peerv1.Member, the line that goes with it.
	kindChange      entryKind = 5
	kindReplacement entryKind = 6  // peerv1.Replacement
	kindCheck       entryKind = 8  // nothing: the members hash their states after it
	kindChecked     entryKind = 9  // peerv1.Checked: a member's hash
	kindSettled     entryKind = 10 // peerv1.Removals: who was removed may go
)

const (
	envelopeFormat    = 1
	envelopeHeadBytes = 12
)

// errNotUnderstood stops a member: whoever skips an entry that others apply
// has another state than they.
var errNotUnderstood = errors.New("this version does not understand the entry: start one that is at least as new as the leader's")

func (e envelope) encode() []byte {
	b := make([]byte, 0, envelopeHeadBytes+len(e.requestID)+len(e.payload))
	b = append(b, envelopeFormat, byte(e.kind))
	b = binary.BigEndian.AppendUint64(b, uint64(e.time))
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.requestID)))
	b = append(b, e.requestID...)
	return append(b, e.payload...)
}

func (k entryKind) known() bool {
	switch k {
	case kindCommand, kindCluster, kindMember, kindChange, kindReplacement, kindCheck, kindChecked, kindSettled:
		return true
	}
	return false
}

// decodeEnvelope shares the payload with b.
func decodeEnvelope(b []byte) (envelope, error) {
	if len(b) < envelopeHeadBytes {
		return envelope{}, fmt.Errorf("an envelope of %d bytes, want %d at least: %w", len(b), envelopeHeadBytes, errNotUnderstood)
	}
	if b[0] != envelopeFormat {
		return envelope{}, fmt.Errorf("format %d: %w", b[0], errNotUnderstood)
	}
	e := envelope{kind: entryKind(b[1]), time: int64(binary.BigEndian.Uint64(b[2:]))}
	if !e.kind.known() {
		return envelope{}, fmt.Errorf("kind %d: %w", e.kind, errNotUnderstood)
	}
	id, rest := int(binary.BigEndian.Uint16(b[10:])), b[envelopeHeadBytes:]
	if id > len(rest) {
		return envelope{}, fmt.Errorf("a request id of %d bytes in %d: %w", id, len(rest), errNotUnderstood)
	}
	e.requestID, e.payload = string(rest[:id]), rest[id:]
	return e, nil
}
