package httpapi

import (
	"sync"

	"github.com/stellmap/stellmap/registry"
)

// framesBytesMax bounds the frames that are kept. Watchers who are nearly level, as
// nearly all are, want the same newest few.
const framesBytesMax = 4 << 20

// frames are changes as streams are told them, each encoded once for all streams that
// want it, for as long as it is among the newest.
type frames struct {
	encoded func() // counts

	mu    sync.Mutex // guards what follows
	byKey map[frameKey]*frame
	order []frameKey // of those that are encoded; the oldest first
	bytes int
}

// A frameKey is a change in one form.
type frameKey struct {
	revision registry.Revision
	order    int
	surface  surface
	cluster  string // its incarnation, where the form has it
	created  bool
	gone     bool
	last     bool
}

type frame struct {
	once  sync.Once
	bytes []byte
}

func newFrames(encoded func()) *frames {
	return &frames{encoded: encoded, byKey: make(map[frameKey]*frame)}
}

// of gives the frame of a change, which only the first caller encodes.
func (f *frames) of(k frameKey, encode func() []byte) []byte {
	f.mu.Lock()
	one := f.byKey[k]
	if one == nil {
		one = &frame{}
		f.byKey[k] = one
	}
	f.mu.Unlock()
	one.once.Do(func() {
		one.bytes = encode()
		f.encoded()
		f.made(k, len(one.bytes))
	})
	return one.bytes
}

// made counts a frame, and lets go of the oldest for it.
func (f *frames) made(k frameKey, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.order = append(f.order, k)
	f.bytes += bytes
	for f.bytes > framesBytesMax && len(f.order) > 1 {
		oldest := f.order[0]
		f.bytes -= len(f.byKey[oldest].bytes)
		delete(f.byKey, oldest)
		f.order = f.order[1:]
	}
}
