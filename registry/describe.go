package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// DescribeCommand is a command of the log as one line of JSON, for people.
func DescribeCommand(data []byte) (json.RawMessage, error) {
	var command recordv1.Command
	if err := proto.Unmarshal(data, &command); err != nil {
		return nil, fmt.Errorf("decode a command of %d bytes: %w", len(data), err)
	}
	if problem := formatProblem(command.GetFormat()); problem != "" {
		return nil, fmt.Errorf("the command %s", problem)
	}
	return asLine(&command)
}

// RecordDescription is what stands under one of the registry's keys, for people.
type RecordDescription struct {
	Kind    string // instance, service, lease, policy, upstreams, namespace, role, binding, access token, protection, events, history, checkpoints, checkpoint clock, imported instance or copy of a region
	Passing bool   // of an instance
	Value   json.RawMessage
}

// DescribeRecord reads a pair of the engine; false when the key is not the registry's.
func DescribeRecord(key, value []byte) (RecordDescription, bool, error) {
	d := RecordDescription{}
	var err error
	switch {
	case bytes.HasPrefix(key, []byte(storage.InstancePrefix)):
		var record recordv1.InstanceRecord
		d.Kind = "instance"
		d.Value, err = describeRecord(key, value, &record, storage.InstancePrefix, 3)
		d.Passing = record.GetStatus() == recordv1.InstanceRecord_STATUS_PASSING
	case bytes.HasPrefix(key, []byte(storage.ServicePrefix)):
		d.Kind = "service"
		d.Value, err = describeRecord(key, value, &recordv1.ServiceRecord{}, storage.ServicePrefix, 2)
	case string(key) == string(storage.CheckpointClockKey()):
		d.Kind = "checkpoint clock"
		d.Value, err = describeRecord(key, value, &recordv1.ToldClockRecord{}, storage.CheckpointPrefix, 1)
	case bytes.HasPrefix(key, []byte(storage.CheckpointPrefix)):
		d.Kind = "checkpoints"
		d.Value, err = describeRecord(key, value, &recordv1.ToldRecord{}, storage.CheckpointPrefix, 1)
	case bytes.HasPrefix(key, []byte(storage.LeasePrefix)):
		d.Kind = "lease"
		d.Value, err = describeRecord(key, value, &recordv1.LeaseRecord{}, storage.LeasePrefix, 1)
	case bytes.HasPrefix(key, []byte(storage.PolicyPrefix)):
		d.Kind = "policy"
		d.Value, err = describeRecord(key, value, &recordv1.DocumentRecord{}, storage.PolicyPrefix, 2)
	case bytes.HasPrefix(key, []byte(storage.UpstreamsPrefix)):
		d.Kind = "upstreams"
		d.Value, err = describeRecord(key, value, &recordv1.DocumentRecord{}, storage.UpstreamsPrefix, 2)
	case bytes.HasPrefix(key, []byte(storage.NamespacePrefix)):
		d.Kind = "namespace"
		d.Value, err = describeRecord(key, value, &recordv1.DocumentRecord{}, storage.NamespacePrefix, 1)
	case bytes.HasPrefix(key, []byte(storage.RolePrefix)):
		d.Kind = "role"
		d.Value, err = describeRecord(key, value, &recordv1.DocumentRecord{}, storage.RolePrefix, 1)
	case bytes.HasPrefix(key, []byte(storage.BindingPrefix)):
		d.Kind = "binding"
		d.Value, err = describeRecord(key, value, &recordv1.DocumentRecord{}, storage.BindingPrefix, 1)
	case bytes.HasPrefix(key, []byte(storage.AccessTokenPrefix)):
		d.Kind = "access token"
		d.Value, err = describeRecord(key, value, &recordv1.AccessTokenRecord{}, storage.AccessTokenPrefix, 1)
	case string(key) == storage.AccessBegunKey:
		d.Kind = "first access token"
		d.Value, err = describeRecord(key, value, &recordv1.AccessBegunRecord{}, storage.AccessBegunKey, 1)
	case bytes.HasPrefix(key, []byte(storage.EventPrefix)):
		d.Kind = "events"
		d.Value, err = describeRecord(key, value, &recordv1.EventsRecord{}, storage.EventPrefix, 1)
	case string(key) == storage.HistoryKey:
		d.Kind = "history"
		d.Value, err = describeRecord(key, value, &recordv1.HistoryRecord{}, storage.HistoryKey, 1)
	case bytes.HasPrefix(key, []byte(storage.RegionPrefix)):
		d.Kind = "imported instance"
		d.Value, err = describeRecord(key, value, &recordv1.InstanceRecord{}, storage.RegionPrefix, 7)
	case bytes.HasPrefix(key, []byte(storage.CursorPrefix)):
		d.Kind = "copy of a region"
		d.Value, err = describeRecord(key, value, &recordv1.RegionRecord{}, storage.CursorPrefix, 2)
	case string(key) == storage.ProtectionKey:
		d.Kind = "protection"
		d.Value, err = describeRecord(key, value, &recordv1.ProtectionRecord{}, storage.ProtectionKey, 1)
	default:
		return RecordDescription{}, false, nil
	}
	return d, true, err
}

// describeRecord checks what load would check.
func describeRecord(key, value []byte, into interface {
	proto.Message
	GetFormat() uint32
}, prefix string, parts int) (json.RawMessage, error) {
	if n := strings.Count(strings.TrimPrefix(string(key), prefix), "/") + 1; n != parts {
		return nil, fmt.Errorf("key %q has %d parts after its prefix, not %d", key, n, parts)
	}
	if err := proto.Unmarshal(value, into); err != nil {
		return nil, fmt.Errorf("decode the record of %d bytes under %s: %w", len(value), key, err)
	}
	if problem := formatProblem(into.GetFormat()); problem != "" {
		return nil, fmt.Errorf("the record under %s %s", key, problem)
	}
	return asLine(into)
}

func asLine(m proto.Message) (json.RawMessage, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	err = json.Compact(&line, text) // protojson puts spaces by chance
	return line.Bytes(), err
}
