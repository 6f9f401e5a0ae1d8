package consensus

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellmap/stellmap/internal/corpus"
)

// Every envelope comes back as it was.
func TestEnvelopeRoundTrip(t *testing.T) {
	for name, want := range map[string]envelope{
		"command":         {kind: kindCommand, time: 1_800_000_000_123, requestID: "id", payload: []byte("data")},
		"no request id":   {kind: kindMember, time: 1, payload: []byte("data")},
		"no payload":      {kind: kindCluster, requestID: "id", payload: []byte{}},
		"longest id":      {kind: kindCommand, requestID: string(make([]byte, requestIDBytesMax)), payload: []byte{0}},
		"before the zero": {kind: kindCommand, time: -1, payload: []byte{}},
	} {
		t.Run(name, func(t *testing.T) {
			have, err := decodeEnvelope(want.encode())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, have, cmp.AllowUnexported(envelope{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The bytes on disk are fixed: a later version reads what this one wrote.
func TestEnvelopeBytes(t *testing.T) {
	have := envelope{kind: kindCommand, time: 0x0102030405, requestID: "ab", payload: []byte("xyz")}.encode()
	want := "\x01\x01\x00\x00\x00\x01\x02\x03\x04\x05\x00\x02abxyz"
	if string(have) != want {
		t.Errorf("%q, want %q", have, want)
	}
}

// What this version does not know is an error that stops the member.
func TestEnvelopeOfAnotherVersionIsNotUnderstood(t *testing.T) {
	good := envelope{kind: kindCommand, requestID: "id", payload: []byte("data")}.encode()
	change := func(at int, to byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"format":        change(0, 2),
		"kind 0":        change(1, 0),
		"next kind":     change(1, byte(kindReplacement)+1),
		"id too long":   change(11, 200),
		"head cut":      good[:envelopeHeadBytes-1],
		"nothing there": {},
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := decodeEnvelope(b); !errors.Is(err, errNotUnderstood) {
				t.Errorf("decoded to %+v, %v", e, err)
			}
		})
	}
}

// Whatever the bytes are, decoding does not panic, and what it accepts it would write.
func FuzzEnvelope(f *testing.F) {
	corpus.Add(f, "a command", envelope{kind: kindCommand, time: 7, requestID: "id", payload: []byte("data")}.encode())
	corpus.Add(f, "two bytes", []byte{1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEnvelope(b)
		if err == nil && string(e.encode()) != string(b) {
			t.Errorf("%q decodes to %+v, which encodes to %q", b, e, e.encode())
		}
	})
}
