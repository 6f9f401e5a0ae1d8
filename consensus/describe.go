package consensus

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// EntryDescription is what stands in a log entry, for people.
type EntryDescription struct {
	Kind      string          // term, configuration, command, cluster, member, replacement, settled, check or checked
	Time      int64           // the leader's clock, Unix ms; 0 where the entry has none
	RequestID string          // "" = none
	Command   []byte          // of a command: what it means, the Machine knows
	Value     json.RawMessage // of the others: one line; nil where there is nothing to say
}

// DescribeEntry reads a log entry. It applies nothing.
func DescribeEntry(e storage.Entry) (EntryDescription, error) {
	switch pb.EntryType(e.Kind) {
	case pb.EntryConfChange:
		return describeChange(e.Data, &pb.ConfChange{})
	case pb.EntryConfChangeV2:
		return describeChangeV2(e.Data)
	}
	if len(e.Data) == 0 {
		return EntryDescription{Kind: "term"}, nil
	}
	env, err := decodeEnvelope(e.Data)
	if err != nil {
		return EntryDescription{}, err
	}
	d := EntryDescription{Time: env.time, RequestID: env.requestID}
	switch env.kind {
	case kindCommand:
		d.Kind, d.Command = "command", env.payload
	case kindCluster:
		d.Kind = "cluster"
		d.Value, err = jsonOf(env.payload, &peerv1.Cluster{})
	case kindMember:
		d.Kind = "member"
		d.Value, err = jsonOf(env.payload, &peerv1.Member{})
	case kindCheck:
		d.Kind = "check"
	case kindChecked:
		d.Kind = "checked"
		d.Value, err = jsonOf(env.payload, &peerv1.Checked{})
	case kindSettled:
		d.Kind = "settled"
		d.Value, err = jsonOf(env.payload, &peerv1.Removals{})
	case kindReplacement:
		d.Kind = "replacement"
		d.Value, err = jsonOf(env.payload, &peerv1.Replacement{})
	case kindChange:
		return EntryDescription{}, fmt.Errorf("a change of the members without one of the configuration: %w", errNotUnderstood)
	default:
		panic(fmt.Sprintf("consensus: kind %d was decoded and has no name", env.kind))
	}
	return d, err
}

func describeChange(data []byte, change proto.Message) (EntryDescription, error) {
	value, err := jsonOf(data, change)
	return EntryDescription{Kind: "configuration", Value: value}, err
}

// describeChangeV2 tells the change and the line of the address book that it
// carries apart.
func describeChangeV2(data []byte) (EntryDescription, error) {
	var change pb.ConfChangeV2
	if err := proto.Unmarshal(data, &change); err != nil {
		return EntryDescription{}, err
	}
	context := change.GetContext()
	change.Context = nil
	d, err := describeChange(marshal(&change), &pb.ConfChangeV2{})
	if err != nil || len(context) == 0 {
		return d, err
	}
	env, err := decodeEnvelope(context)
	if err != nil {
		return d, err
	}
	member, err := jsonOf(env.payload, &peerv1.Member{})
	if err != nil {
		return d, err
	}
	d.Time, d.RequestID = env.time, env.requestID
	d.Value, err = json.Marshal(struct {
		Change json.RawMessage `json:"change"`
		Member json.RawMessage `json:"member"`
	}{d.Value, member})
	return d, err
}

// KeyDescription is what stands under one of this package's keys, for people.
type KeyDescription struct {
	Kind  string // applied, configuration, cluster, time, replacement, check, member or request
	Value json.RawMessage
}

// DescribeKey reads a pair of the engine; false when the key is not this package's.
func DescribeKey(key, value []byte) (KeyDescription, bool, error) {
	k, ok := kindOfKey(key)
	if !ok {
		return KeyDescription{}, false, nil
	}
	text, err := k.describe(value)
	if err != nil {
		return KeyDescription{}, true, fmt.Errorf("%s: %w", key, err)
	}
	return KeyDescription{k.name, text}, true, nil
}

// keyKind is a kind of keys: how its values read, and what a restore into a new
// cluster does with them.
type keyKind struct {
	name     string
	key      string // ends with "/" when it heads many
	describe func(value []byte) (json.RawMessage, error)
	restore  restoreRule
}

type restoreRule uint8

const (
	restoreKeeps    restoreRule = iota + 1 // it is as true in the new cluster
	restoreReplaces                        // the new cluster has its own
	restoreDrops                           // it is about the old log or the old members
)

// keyKinds are all keys that this package writes, and the applied position.
var keyKinds = [...]keyKind{
	{"applied", storage.MetaPrefix + "applied", jsonPosition, restoreReplaces},
	{"configuration", confKey, func(v []byte) (json.RawMessage, error) { return jsonOf(v, &pb.ConfState{}) }, restoreReplaces},
	{"cluster", clusterKey, func(v []byte) (json.RawMessage, error) { return jsonOf(v, &peerv1.Cluster{}) }, restoreReplaces},
	{"time", timeKey, jsonNumber, restoreKeeps}, // it never falls
	{"check", checkKey, func(v []byte) (json.RawMessage, error) { return jsonOf(v, &peerv1.Check{}) }, restoreDrops},
	{"removals", removalsKey, func(v []byte) (json.RawMessage, error) { return jsonOf(v, &peerv1.Removals{}) }, restoreDrops},
	{"replacement", replaceKey, func(v []byte) (json.RawMessage, error) { return jsonOf(v, &peerv1.Replacement{}) }, restoreDrops},
	{"member", memberPrefix, func(v []byte) (json.RawMessage, error) { return jsonOf(v, &peerv1.Member{}) }, restoreDrops},
	{"request", requestPrefix, jsonRequest, restoreDrops},
}

func kindOfKey(key []byte) (keyKind, bool) {
	for _, k := range keyKinds {
		if string(key) == k.key || strings.HasSuffix(k.key, "/") && bytes.HasPrefix(key, []byte(k.key)) {
			return k, true
		}
	}
	return keyKind{}, false
}

// jsonOf is a marshalled message as one line.
func jsonOf(data []byte, into proto.Message) (json.RawMessage, error) {
	if err := proto.Unmarshal(data, into); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(into)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	err = json.Compact(&line, text) // protojson puts spaces by chance
	return line.Bytes(), err
}

func jsonNumber(value []byte) (json.RawMessage, error) {
	if len(value) != 8 {
		return nil, fmt.Errorf("a number of %d bytes, want 8", len(value))
	}
	return json.Marshal(binary.BigEndian.Uint64(value))
}

func jsonPosition(value []byte) (json.RawMessage, error) {
	if len(value) != 16 {
		return nil, fmt.Errorf("a position of %d bytes, want 16", len(value))
	}
	return json.Marshal(struct {
		Index uint64 `json:"index"`
		Term  uint64 `json:"term"`
	}{binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:])})
}

func jsonRequest(value []byte) (json.RawMessage, error) {
	q, reply, err := decodeRequest(value)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		ID         string `json:"id"`
		Index      uint64 `json:"index"`
		Time       int64  `json:"timeMs"`
		ReplyKept  bool   `json:"replyKept"`
		ReplyBytes int    `json:"replyBytes"`
	}{q.id, q.index, q.time, reply.kept, len(reply.data)})
}
