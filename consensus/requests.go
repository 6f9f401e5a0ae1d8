package consensus

import (
	"encoding/binary"
	"fmt"

	"github.com/stellmap/stellmap/storage"
)

// Bounds of what is remembered of request ids.
const (
	requestsMax          = 65536
	requestAgeMax        = int64(10 * 60 * 1000) // ms of entry time
	requestReplyBytesMax = 1024                  // a longer reply is not kept
)

// requests remembers which request ids were applied, where, and with which
// reply. It is replicated state: it changes in Apply only, by entry time only,
// so all members forget an id at the same entry.
//
// In the engine a request is a key by the index of its entry, so that the
// oldest come first. In memory there are the ids and the order; replies are
// read from the engine, but for those of the batch that is not there yet.
type requests struct {
	engine *storage.Engine
	byID   map[string]uint64 // request id → index
	queue  []request         // by index; queue[:head] are forgotten
	head   int
	fresh  map[uint64]requestReply // of the batch being made
}

type request struct {
	index uint64
	time  int64
	id    string
}

// requestReply is what a second try is told.
type requestReply struct {
	kept bool // false: it was too long
	data []byte
}

const requestPrefix = storage.MetaPrefix + "request/"

func requestKey(index uint64) []byte { return fmt.Appendf(nil, "%s%020d", requestPrefix, index) }

func newRequests(e *storage.Engine) *requests {
	return &requests{engine: e, byID: make(map[string]uint64), fresh: make(map[uint64]requestReply)}
}

// loadRequests reads the table back.
func loadRequests(e *storage.Engine) (*requests, error) {
	r := newRequests(e)
	prefix := []byte(requestPrefix)
	err := e.Scan(prefix, storage.PrefixEnd(prefix), func(key, value []byte) error {
		q, _, err := decodeRequest(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if !mutant("requests_forgotten_at_start") {
			r.remember(q)
		}
		return nil
	})
	return r, err
}

func (r *requests) remember(q request) {
	r.byID[q.id] = q.index
	r.queue = append(r.queue, q)
}

// find returns the index at which the id was applied, and what it was answered.
func (r *requests) find(id string) (uint64, requestReply, bool, error) {
	index, known := r.byID[id]
	if !known || mutant("request_applied_twice") {
		return 0, requestReply{}, false, nil
	}
	if reply, ok := r.fresh[index]; ok {
		return index, reply, true, nil
	}
	value, ok, err := r.engine.Get(requestKey(index))
	if err != nil || !ok {
		return 0, requestReply{}, false, fmt.Errorf("request %q was applied at %d and its record is gone: %w", id, index, err)
	}
	_, reply, err := decodeRequest(value)
	return index, reply, true, err
}

// add remembers an applied request.
func (r *requests) add(b *storage.Batch, q request, reply []byte) {
	kept := requestReply{kept: len(reply) <= requestReplyBytesMax}
	if kept.kept {
		kept.data = reply
	}
	r.remember(q)
	r.fresh[q.index] = kept
	b.Set(requestKey(q.index), encodeRequest(q, kept))
}

// trim forgets what is too old at the time of an entry, or too much.
func (r *requests) trim(b *storage.Batch, now int64) {
	for r.head < len(r.queue) && (len(r.queue)-r.head >= requestsMax || r.queue[r.head].time < now-requestAgeMax) {
		oldest := &r.queue[r.head]
		delete(r.byID, oldest.id)
		b.Delete(requestKey(oldest.index))
		*oldest = request{}
		r.head++
	}
	if r.head > requestsMax {
		r.queue = append([]request(nil), r.queue[r.head:]...)
		r.head = 0
	}
}

// flushed says that the batch is in the engine.
func (r *requests) flushed() { clear(r.fresh) }

// encodeRequest: index and time, 8 bytes each; whether the reply was kept; the
// length of the id, 2 bytes; id and reply.
func encodeRequest(q request, reply requestReply) []byte {
	b := binary.BigEndian.AppendUint64(nil, q.index)
	b = binary.BigEndian.AppendUint64(b, uint64(q.time))
	if reply.kept {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.id)))
	b = append(b, q.id...)
	return append(b, reply.data...)
}

func decodeRequest(b []byte) (request, requestReply, error) {
	const head = 19
	if len(b) < head || len(b) < head+int(binary.BigEndian.Uint16(b[17:])) {
		return request{}, requestReply{}, fmt.Errorf("a remembered request of %d bytes is cut short", len(b))
	}
	id := head + int(binary.BigEndian.Uint16(b[17:]))
	q := request{index: binary.BigEndian.Uint64(b), time: int64(binary.BigEndian.Uint64(b[8:])), id: string(b[head:id])}
	return q, requestReply{kept: b[16] == 1, data: b[id:]}, nil
}
