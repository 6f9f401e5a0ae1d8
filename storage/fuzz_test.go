package storage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"maps"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/internal/corpus"
)

// A frame that is accepted is the one that was written: it encodes to the bytes
// that it was read from.
func FuzzFrame(f *testing.F) {
	corpus.Add(f, "data", frame{kind: frameData, salt: 5, offset: 48, synced: 8, payload: []byte("payload")}.appendTo(nil), uint64(5), int64(48))
	corpus.Add(f, "a mark", frame{kind: frameMark, salt: 5, offset: 1 << 40}.appendTo(nil), uint64(5), int64(1<<40))
	f.Fuzz(func(t *testing.T, b []byte, salt uint64, offset int64) {
		got, err := decodeFrame(b, salt, offset)
		if err != nil {
			return
		}
		// The seven bytes after the kind are not looked at, but for the checksum.
		if again := got.appendTo(nil); int64(len(again)) != got.size() || !bytes.Equal(again[24:], b[24:len(again)]) && bytes.Equal(again[:4], b[:4]) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, got, again)
		}
	})
}

// A record that is accepted, hard state included, means the same when it is
// written and read again, and takes no more memory than its bytes account for.
func FuzzRecord(f *testing.F) {
	corpus.Add(f, "hard state", record{hard: &HardState{Term: 3, Vote: 2, Commit: 1 << 40}}.appendTo(nil))
	corpus.Add(f, "two entries", record{entries: []Entry{{Index: 7, Term: 2, Kind: 1, Data: []byte("data")}, {Index: 8, Term: 2}}}.appendTo(nil))
	corpus.Add(f, "an entry and hard state", record{entries: []Entry{{Index: 1}}, hard: &HardState{}}.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := decodeRecord(got.appendTo(nil))
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%x decodes to %+v, and that to %+v: %v", b, got, again, err)
		}
	})
}

// A header that is accepted is the one that was written.
func FuzzSegmentHead(f *testing.F) {
	corpus.Add(f, "the first", segmentHead{salt: 5, sequence: 1, before: Position{1, 1}}.encode(), uint64(1))
	corpus.Add(f, "of a high index", segmentHead{salt: 1 << 63, sequence: 1 << 40, before: Position{1 << 62, 9}}.encode(), uint64(1<<40))
	f.Fuzz(func(t *testing.T, b []byte, sequence uint64) {
		if h, err := decodeSegmentHead(b, sequence); err == nil && !bytes.Equal(h.encode(), b[:segmentHeadBytes]) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, h, h.encode())
		}
	})
}

// Whatever follows the header of a segment, the log is refused, or opens and
// opens again as it was.
func FuzzSegment(f *testing.F) {
	head := segmentHead{salt: 5, sequence: 1, before: Position{1, 1}}
	entries := record{entries: []Entry{{Index: 2, Term: 1, Data: []byte("data")}}, hard: &HardState{Term: 1, Commit: 2}}.appendTo(nil)
	first := frame{kind: frameData, salt: 5, offset: segmentHeadBytes, payload: entries}.appendTo(nil)
	corpus.Add(f, "an entry", first)
	corpus.Add(f, "an entry and a mark", frame{kind: frameMark, salt: 5, offset: segmentHeadBytes + int64(len(first)), synced: segmentHeadBytes + int64(len(first))}.appendTo(first))
	corpus.Add(f, "an entry is missing", frame{kind: frameData, salt: 5, offset: segmentHeadBytes, payload: record{entries: []Entry{{Index: 3, Term: 1}}}.appendTo(nil)}.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		o := LogOptions{FS: withFile(append(head.encode(), b...)), Dir: "wal", Base: Position{1, 1}, Salt: func() uint64 { return 6 }}
		log, err := OpenLog(o)
		var damage *DamageError
		if err != nil && !errors.As(err, &damage) {
			t.Fatalf("%x: %v", b, err)
		}
		if err != nil {
			return
		}
		was := log.Load()
		check(log.Close())
		log, err = OpenLog(o)
		if err != nil {
			t.Fatalf("%x opens once: %v", b, err)
		}
		if is := log.Load(); is.First != was.First || is.Last != was.Last || is.HardState != was.HardState || is.TornBytes != 0 {
			t.Errorf("%x opens as %+v, and then as %+v", b, was, is)
		}
		check(log.Close())
	})
}

// A meta that is accepted is spelled as it was written, to the byte.
func FuzzSnapshotMeta(f *testing.F) {
	for name, m := range map[string]SnapshotMeta{
		"for one member alone": {Format: snapshotFormatAlone},
		"for all members":      {Format: snapshotFormat, Index: 9, Term: 2, Incarnation: "abc", ClusterID: 7, StateBytes: 100, FileBytes: 50, SHA256: "00", Created: 1, Configuration: "of all"},
	} {
		line, err := encodeSnapshotMeta(m)
		check(err)
		corpus.Add(f, name, line)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeSnapshotMeta(b)
		if err != nil {
			return
		}
		if line, err := encodeSnapshotMeta(m); err != nil || !bytes.Equal(line, b) {
			t.Errorf("%q decodes to %+v, which encodes to %q: %v", b, m, line, err)
		}
	})
}

// An identity that is accepted is the same when it is saved and loaded again.
func FuzzIdentity(f *testing.F) {
	fs := vfs.NewMem()
	check(SaveIdentity(fs, "", Identity{NodeID: 1, ClusterID: 2, UUID: "u", Stage: StageReady, Founders: "f", Peers: map[uint64]string{2: "v"}}))
	data, _, err := readFile(fs, identityFile)
	check(err)
	corpus.Add(f, "a member", data)
	corpus.Add(f, "cut off", data[:len(data)/2])
	corpus.Add(f, "nothing", []byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		check(writeFileAtomic(fs, "", identityFile, bytes.Clone(b)))
		id, ok, err := LoadIdentity(fs, "")
		if err != nil || !ok {
			return
		}
		check(SaveIdentity(fs, "", id))
		again, _, err := LoadIdentity(fs, "")
		if err != nil || !maps.Equal(id.Peers, again.Peers) || again.UUID != id.UUID || again.NodeID != id.NodeID || again.Stage != id.Stage {
			t.Errorf("%q is %+v, and then %+v: %v", b, id, again, err)
		}
	})
}

// A state's stream is taken in whole or not at all: then the old state stays.
// What is fuzzed is a stream, and the pairs of one whose checksum is right.
func FuzzRestore(f *testing.F) {
	pair := func(key, value string) []byte {
		head := pairHead([]byte(key), []byte(value))
		return append(append(head[:], key...), value...)
	}
	whole := append(pair(appliedKey, string(encodePosition(Position{7, 2}))), pair("/registry/a/b/c", "value")...)
	corpus.Add(f, "a state", whole)
	corpus.Add(f, "a state with its checksum", signedState(whole))
	corpus.Add(f, "not below its prefix", pair("/services/a/b", ""))
	corpus.Add(f, "a short position", pair(appliedKey, "short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := OpenEngine(EngineOptions{FS: vfs.NewMem(), Dir: "state", CacheBytes: 1 << 16, MemTableBytes: 1 << 16})
		check(err)
		put(t, e, Position{3, 1}, "/registry/old/old/old", "old")
		for _, stream := range [][]byte{b, signedState(b)} {
			before := e.AppliedIndex()
			if err := e.Restore(bytes.NewReader(stream)); err != nil {
				if _, found, err := e.Get([]byte("/registry/old/old/old")); e.AppliedIndex() != before || err != nil || before.Index == 3 && before.Term == 1 && !found {
					t.Errorf("%x is refused, and the state is at %v: %v", stream, e.AppliedIndex(), err)
				}
				continue
			}
			s, err := e.Snapshot()
			check(err)
			var out bytes.Buffer
			_, err = s.WriteTo(&out)
			check(errors.Join(err, s.Close()))
			if err := readState(&out, func(_, _ []byte) error { return nil }); err != nil {
				t.Errorf("%x is taken in, and what comes out is refused: %v", stream, err)
			}
		}
		check(e.Close())
	})
}

// signedState is a whole stream with these pairs.
func signedState(pairs []byte) []byte {
	b := append([]byte(stateMagic), pairs...)
	b = append(b, 0, 0, 0, 0)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}
