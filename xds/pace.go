package xds

import (
	"context"
	"slices"
	"time"
)

// How fast a stream is heard. A client that asks for something other over and over, each
// time with a list of all that it wants, costs this member more than itself. So what is no
// answer to a response is taken at a rate; the rest waits where the client has put it, and
// nothing is refused, since that would end the stream. Answers cost nothing: else a client
// could be late with one because it has asked for something.

// paceBurst is for how long the rate may be used up in advance.
const paceBurst = 2 * time.Second

// A pace is how fast a stream has been heard.
type pace struct {
	rate int       // requests a second; 0 = any
	paid time.Time // up to here the rate is used up
}

// hears takes a request.
func (p *pace) hears(now time.Time) {
	if p.rate == 0 {
		return
	}
	if p.paid.Before(now) {
		p.paid = now
	}
	p.paid = p.paid.Add(p.each())
}

func (p *pace) each() time.Duration { return time.Second / time.Duration(p.rate) }

// until is how long the next request has to wait; 0 = it need not.
func (p *pace) until(now time.Time) time.Duration {
	if p.rate == 0 || p.paid.Before(now) {
		return 0
	}
	return max(0, p.paid.Add(p.each()).Sub(now)-paceBurst)
}

// hear takes the request that waits, if there is one and it may be heard, and says when to try again.
func (s *stream) hear(ctx context.Context) (time.Duration, error) {
	r, now := s.waiting, s.server.now()
	if r == nil {
		return time.Hour, nil
	}
	if !s.isAnswer(r) {
		if wait := s.pace.until(now); wait > 0 {
			s.server.metrics.paced.Add(1)
			return wait, nil
		}
		s.pace.hears(now)
	}
	s.waiting = nil
	return time.Hour, s.handle(ctx, r)
}

// isAnswer says that a request answers a response that is not answered yet.
func (s *stream) isAnswer(r *request) bool {
	t, known := typeOf(r.typeURL)
	if s.only != nil {
		t, known = *s.only, true
	}
	if !known || s.subs[t] == nil || r.nonce == "" {
		return false
	}
	b := s.subs[t]
	return b.pending != nil && b.pending.nonce == r.nonce || slices.ContainsFunc(b.late, func(late *response) bool { return late.nonce == r.nonce })
}
