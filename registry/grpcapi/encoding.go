package grpcapi

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// encodings are changes as they stand in a message, so that one which thousands of
// watches tell is encoded once. The newest are kept: watches that are behind encode
// for themselves.
type encodings struct {
	made prometheus.Counter

	mu    sync.Mutex // guards what follows
	kept  map[encodingKey][]byte
	age   []encodingKey // the oldest first
	bytes int
}

// encodingKey is what an encoding follows from, on every member.
type encodingKey struct {
	revision      registry.Revision
	order         int
	gone, created bool
}

// The bounds of what is kept.
const (
	encodingsMax      = 4_096
	encodingsBytesMax = 8 << 20
)

// of is a change in bytes, which nobody may change. One that shows a part of its
// instance is for this watch alone.
func (e *encodings) of(c *registry.Change) []byte {
	if c.Narrowed {
		return e.encode(c)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := encodingKey{revision: c.Revision, order: c.Order, gone: c.Gone, created: c.Created}
	raw, known := e.kept[key]
	if !known {
		raw = e.encode(c)
		e.keep(key, raw)
	}
	return raw
}

func (e *encodings) keep(key encodingKey, raw []byte) {
	if e.kept == nil {
		e.kept = make(map[encodingKey][]byte)
	}
	e.kept[key], e.age, e.bytes = raw, append(e.age, key), e.bytes+len(raw)
	for len(e.age) > encodingsMax || e.bytes > encodingsBytesMax {
		e.bytes -= len(e.kept[e.age[0]])
		delete(e.kept, e.age[0])
		e.age = e.age[1:]
	}
}

// changesNumber is that of the field that changes stand in.
var changesNumber = (&stellmapv1.WatchResponse{}).ProtoReflect().Descriptor().Fields().ByName("changes").Number()

// encode writes a change as an element of WatchResponse.changes.
func (e *encodings) encode(c *registry.Change) []byte {
	e.made.Inc()
	raw, err := proto.Marshal(&stellmapv1.Change{Kind: kindOf(c), Revision: uint64(c.Revision), Instance: instanceTo(c.Instance, 0)})
	if err != nil {
		panic(fmt.Sprintf("grpcapi: encode a change: %v", err)) // texts are valid UTF-8, as the registry has checked
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, changesNumber, protowire.BytesType), raw)
}

func kindOf(c *registry.Change) stellmapv1.ChangeKind {
	switch {
	case c.Gone:
		return stellmapv1.ChangeKind_CHANGE_KIND_GONE
	case c.Created:
		return stellmapv1.ChangeKind_CHANGE_KIND_CREATED
	}
	return stellmapv1.ChangeKind_CHANGE_KIND_CHANGED
}

// withChanges is a response with changes that are in bytes. As far as the library
// goes they are fields that it does not know, which it sends as they are.
func withChanges(raw []byte) *stellmapv1.WatchResponse {
	m := &stellmapv1.WatchResponse{}
	m.ProtoReflect().SetUnknown(raw)
	return m
}
