package consensus

import (
	"bytes"
	"testing"

	"github.com/stellmap/stellmap/internal/corpus"
)

// A remembered request that is read is written as it was, but for how a reply
// that was not kept is said.
func FuzzRequest(f *testing.F) {
	corpus.Add(f, "with its reply", encodeRequest(request{index: 7, time: 9, id: "id"}, requestReply{kept: true, data: []byte("reply")}))
	corpus.Add(f, "without a reply", encodeRequest(request{index: 1 << 40}, requestReply{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, reply, err := decodeRequest(b)
		if err != nil {
			return
		}
		again := encodeRequest(q, reply)
		again[16] = b[16]
		if !bytes.Equal(again, b) {
			t.Errorf("%x is %+v and %+v, which is %x", b, q, reply, again)
		}
	})
}
