package xds

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How streams come and go, so that none is at the cost of the others.
//
// Above a cap a stream is refused. Many that come at once, as when another member has
// died, begin at a bounded rate: what costs is a stream's first responses, with all
// that it wants. What it is sent and answers later counts against no rate, so nobody
// can be late with a change because others have come. A stream has an age, which is drawn, so that proxies
// spread over the members anew in time and never all at once. A server that stops sends
// its streams away in slices, so that the other members do not get all at once.
const (
	streamsMax = 20_000           // above it RESOURCE_EXHAUSTED, so that the proxy tries another member
	turnMax    = 5 * time.Second  // a stream waits for its turn no longer
	ageSpread  = 1.0 / 3          // of its age a stream lasts longer or shorter at most
	ageGrace   = 30 * time.Second // in which a stream of its age may have an answer under way

	drainOver  = 3 * time.Second // in which all streams are sent away
	drainPause = 100 * time.Millisecond
	drainLeast = 20 // streams in a slice at least: a few proxies need no time
)

// admit takes a stream in.
func (s *Server) admit(str *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		s.metrics.refused.Add(1)
		return errStopping
	case len(s.streams) >= s.limits.streams:
		s.metrics.refused.Add(1)
		return status.Errorf(codes.ResourceExhausted, "this member serves %d streams already, another may have room", s.limits.streams)
	}
	s.numbers++
	str.number = s.numbers
	str.ends = s.endOf(str.connected)
	s.streams[str] = struct{}{}
	s.metrics.streams.Add(1)
	return nil
}

func (s *Server) dismiss(str *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, str)
	s.metrics.streams.Add(-1)
}

var (
	errStopping = status.Error(codes.Unavailable, "this member is stopping, another will serve")
	errOld      = status.Error(codes.Unavailable, "this stream has reached its age: go on with any member")
)

// endOf draws when a stream that begins now has reached its age; never is zero.
func (s *Server) endOf(begin time.Time) time.Time {
	if s.age == 0 {
		return time.Time{}
	}
	return begin.Add(time.Duration(float64(s.age) * (1 + ageSpread*(2*s.random()-1))))
}

// outlived says that a stream has reached its age and can end: with everything answered,
// so that the next member need not tell it anything again, or after a while.
func (s *stream) outlived(now time.Time) bool {
	if s.ends.IsZero() || now.Before(s.ends) {
		return false
	}
	for _, b := range s.subs {
		if !b.idle() && now.Sub(s.ends) < ageGrace {
			return false
		}
	}
	return true
}

// untilAge is when to look again whether it has.
func (s *stream) untilAge(now time.Time) time.Duration {
	end := s.ends
	if end.IsZero() {
		return time.Hour
	}
	if !now.Before(end) {
		end = end.Add(ageGrace)
	}
	return max(end.Sub(now), time.Millisecond)
}

// A turnstile lets streams through at a rate: at once as many as in a second, then
// evenly.
type turnstile struct {
	rate int // a second; 0 = any

	mu   sync.Mutex // guards what follows
	paid time.Time  // up to here the rate is used up
}

// take gives how long to wait for one's turn; false says that it would be too long, and
// takes none.
func (t *turnstile) take(now time.Time, most time.Duration) (time.Duration, bool) {
	if t.rate == 0 {
		return 0, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paid.Before(now) {
		t.paid = now
	}
	next := t.paid.Add(time.Second / time.Duration(t.rate))
	wait := max(0, next.Sub(now)-time.Second)
	if wait > most {
		return wait, false
	}
	t.paid = next
	return wait, true
}

// turn waits until a stream may have its first responses.
func (s *Server) turn(ctx context.Context) error {
	wait, ok := s.turnstile.take(s.now(), s.limits.turn)
	if !ok {
		s.metrics.turned.Add(1)
		return status.Errorf(codes.ResourceExhausted, "%d streams a second may begin here and too many wait for their turn, another member may have room", s.turnstile.rate)
	}
	if wait == 0 {
		return nil
	}
	s.metrics.delayed.Add(1)
	return s.sleep(ctx, wait)
}

// Drain sends all streams away in slices, takes no new ones, and returns when the last is
// told to go or the context or Run ends.
func (s *Server) Drain(ctx context.Context) {
	all := s.beginDrain()
	slice := max(drainLeast, (len(all)+drainSlices-1)/drainSlices)
	for len(all) > 0 {
		n := min(slice, len(all))
		for _, str := range all[:n] {
			close(str.sentAway)
			s.metrics.drained.Add(1)
		}
		if all = all[n:]; len(all) == 0 || s.sleep(ctx, drainPause) != nil {
			return
		}
		select {
		case <-s.stopped:
			return
		default:
		}
	}
}

const drainSlices = int(drainOver / drainPause)

// beginDrain gives all streams, in whatever order.
func (s *Server) beginDrain() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil
	}
	s.draining = true
	close(s.leaving)
	all := make([]*stream, 0, len(s.streams))
	for str := range s.streams {
		all = append(all, str)
	}
	return all
}

// sleep waits unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return endOf(ctx)
	}
}

// draw is the randomness of a server that is given none.
func draw() float64 { return rand.Float64() }
