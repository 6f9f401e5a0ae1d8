package federation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// A window is what has been told and not acknowledged. Nothing of it is kept but its
// size: who loses it goes on from a cursor.
type window struct {
	revisionsMax, bytesMax int // set by newWindow, never changed
	within                 time.Duration
	slow                   func() // called when something has not been acknowledged within that

	mu        sync.Mutex // guards what follows
	told      []toldOne  // the oldest first
	sequence  uint64     // of the last that was told
	revisions int        // of those in told, as are bytes
	bytes     int
	sent      registry.Revision // everything up to here has been told
	acked     registry.Revision // and taken in
	room      chan struct{}     // closed when something is acknowledged
	timer     *time.Timer       // of the oldest; nil when there is none
}

// A toldOne is a response that has not been acknowledged.
type toldOne struct {
	sequence         uint64
	revisions, bytes int
	upTo             registry.Revision // 0 = it ends within one
	at               time.Time
}

func newWindow(l limits, slow func()) *window {
	return &window{revisionsMax: l.windowRevisions, bytesMax: l.windowBytes, within: l.ack, slow: slow, room: make(chan struct{})}
}

// begin says what the other side has already.
func (w *window) begin(at registry.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.acked = at, at
}

// take waits until a response fits in, and gives it its number.
func (w *window) take(ctx context.Context, one toldOne) (sequence uint64, err error) {
	for {
		sequence, room := w.try(one)
		if sequence != 0 {
			return sequence, nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (w *window) try(one toldOne) (sequence uint64, room <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) > 0 && (w.revisions+one.revisions > w.revisionsMax || w.bytes+one.bytes > w.bytesMax) {
		return 0, w.room
	}
	w.sequence++
	one.sequence, one.at = w.sequence, time.Now()
	w.told = append(w.told, one)
	w.revisions, w.bytes, w.sent = w.revisions+one.revisions, w.bytes+one.bytes, max(w.sent, one.upTo)
	if len(w.told) == 1 {
		w.timer = time.AfterFunc(w.within, w.slow)
	}
	return w.sequence, nil
}

// ack takes out what has been acknowledged.
func (w *window) ack(sequence uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sequence == 0 || sequence > w.sequence {
		return invalid("ack.sequence", fmt.Sprintf("%d has not been told, the last was %d: acknowledge what has been received", sequence, w.sequence))
	}
	n := 0
	for ; n < len(w.told) && w.told[n].sequence <= sequence; n++ {
		w.revisions, w.bytes = w.revisions-w.told[n].revisions, w.bytes-w.told[n].bytes
		w.acked = max(w.acked, w.told[n].upTo)
	}
	if n == 0 {
		return nil
	}
	w.told = append(w.told[:0], w.told[n:]...)
	close(w.room)
	w.room = make(chan struct{})
	w.timer.Stop()
	if len(w.told) > 0 {
		w.timer = time.AfterFunc(w.within-time.Since(w.told[0].at), w.slow)
	}
	return nil
}

// close has nobody called any more.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// stats are for metrics and the status.
func (w *window) stats() (sent, acked registry.Revision, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, w.acked, w.bytes
}

// A pace spreads bytes over time.
type pace struct {
	mu   sync.Mutex // guards what follows
	free time.Time  // when the next bytes may go
}

// wait returns when so many bytes may go, of so many a second.
func (p *pace) wait(ctx context.Context, bytes, rate int) error {
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	at := p.free
	p.free = at.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
	p.mu.Unlock()
	if !at.After(now) {
		return nil
	}
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
