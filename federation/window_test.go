package federation

import (
	"testing"
	"time"
)

// TestAWindowIsFull shows what is told ahead of what is taken in: not more than the
// window, but for one response that is larger and goes alone.
func TestAWindowIsFull(t *testing.T) {
	slow := make(chan struct{}, 1)
	w := newWindow(limits{windowRevisions: 8, windowBytes: 100, ack: time.Hour}, func() { slow <- struct{}{} })
	defer w.close()
	tell := func(revisions, bytes int) bool {
		sequence, _ := w.try(toldOne{revisions: revisions, bytes: bytes})
		return sequence != 0
	}
	mustEqual(t, "one that is larger, alone", tell(20, 1000), true)
	mustEqual(t, "another beside it", tell(1, 1), false)
	for name, wrong := range map[string]uint64{"nothing": 0, "what was not told": 2} {
		if err := w.ack(wrong); err == nil {
			t.Errorf("%s is acknowledged", name)
		}
	}
	_, room := w.try(toldOne{revisions: 1})
	if err := w.ack(1); err != nil {
		t.Fatal(err)
	}
	<-room
	for range 8 {
		mustEqual(t, "one of eight revisions", tell(1, 10), true)
	}
	mustEqual(t, "the ninth", tell(1, 1), false)
	if err := w.ack(3); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "more bytes than are left", tell(1, 41), false)
	mustEqual(t, "as many as are left", tell(1, 40), true)
	if _, _, bytes := w.stats(); bytes != 100 {
		t.Errorf("%d bytes are told and not acknowledged", bytes)
	}
	w = newWindow(limits{windowRevisions: 8, windowBytes: 100, ack: time.Millisecond}, w.slow)
	mustEqual(t, "one that nobody acknowledges", tell(1, 1), true)
	<-slow
}
