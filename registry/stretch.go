package registry

import "time"

// What a leader does that is asked for more renewals than it can well answer.
//
// It gives leases a longer TTL, and tells their holders, who may then renew less
// often. A holder that was told so relies on it, whoever leads next; so the leader
// has to tell the others before, in a checkpoint (stretch), and what was given has
// to be honoured by new leaders until the last lease that may have been given it is
// over (honoured), long after it is given no more.
const (
	renewalsCapacity = 100_000 // a second
	stretchFactor    = 2
	stretchTTLMax    = time.Minute      // longer ones are renewed so seldom that they are no load
	stretchRest      = 10 * time.Second // below half of the capacity until it ends
)

// stretched is what a lease is given.
func stretched(ttl time.Duration, factor uint32) time.Duration {
	if factor <= 1 || ttl > stretchTTLMax {
		return ttl
	}
	return ttl * time.Duration(factor)
}

// granted is what of that the holder is told: 0 when it is what it asked for.
func granted(ttl time.Duration, factor uint32) time.Duration {
	if given := stretched(ttl, factor); given != ttl {
		return given
	}
	return 0
}

// A stretching is what the leader gives, and why.
type stretching struct {
	capacity int           // renewals a second; renewalsCapacity but in tests
	factor   uint32        // that is given now, as told by the last checkpoint
	honoured uint32        // the same, by new leaders
	renewed  int           // since the last checkpoint; each is counted before its barrier and after it
	busy     time.Duration // in lease time: when there was last too much to do
	ended    time.Duration // in lease time: when it was given last
}

// follow takes over what a checkpoint says.
func (s *stretching) follow(now time.Duration, factor, honoured uint32) {
	if s.factor > 1 {
		s.ended = now
	}
	s.factor, s.honoured = factor, honoured
}

// decide says what the next checkpoint is to say, after so much time since the last.
func (s *stretching) decide(now, since time.Duration) (factor, honoured uint32) {
	rate := float64(s.renewed) / 2 / since.Seconds()
	s.renewed = 0
	if rate > float64(s.capacity) || s.factor > 1 && rate > float64(s.capacity)/stretchFactor {
		s.busy = now
		return stretchFactor, stretchFactor
	}
	switch {
	case s.factor > 1 && now-s.busy < stretchRest:
		return s.factor, s.honoured
	case s.factor > 1 || s.honoured > 1 && now-s.ended < stretchFactor*stretchTTLMax:
		return 0, s.honoured
	}
	return 0, 0
}
