package federation

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// How soon a source is tried again. What may pass by itself is tried so often that a copy
// is level within seconds of its passing, however long it has lasted: a connection that
// is not made costs next to nothing. What somebody has to mend is tried less often, and
// what is found out by a full sync only, which is told at full rate and committed, is
// tried every few minutes: whoever mends it can say so.
const (
	connectTimeout = 2 * time.Second // for a member to be reached: a network that drops everything says nothing
	retryMin       = 500 * time.Millisecond
	passingMax     = 1500 * time.Millisecond // between tries, and half as much by chance, like the next
	retryMax       = 15 * time.Second
	mendedEvery    = 5 * time.Minute
)

// retryAfter is how long to wait after an error, when it was waited so long before.
func (s *source) retryAfter(err error, before time.Duration) time.Duration {
	l := &s.importer.limits
	most := l.retryMax
	if passes(err) {
		most = l.passing
	}
	wait := min(max(2*before, l.retryMin), most)
	if lasts(err) {
		wait = l.mended
	}
	return wait + s.importer.jitter(wait/2)
}

// lasts says whether an error is there until somebody has done something, whichever
// member tells: the copy is full, or the source is of a version that cannot be read.
func lasts(err error) bool {
	return errors.Is(err, registry.ErrRegionFull) || errors.Is(err, registry.ErrUnreadable)
}

// awaitMended waits for so long, or until something was done about the copy: this member
// is not to follow it now, it is elsewhere than where the last stream stood, as after a
// resync, or it has got room.
func (s *source) awaitMended(ctx context.Context, most time.Duration) {
	l, of := &s.importer.limits, s.importer.registry
	had := of.Region(s.key).Instances
	for end := time.Now().Add(most); rest(ctx, min(l.lead, time.Until(end))); {
		now := of.Region(s.key)
		if !s.wanted() || now.Cursor != s.stood || now.Instances < had || !time.Now().Before(end) {
			return
		}
	}
}

// passes says whether an error may be over in a moment without anybody's doing: the link
// is cut, a member is gone, or nobody leads, here or there.
func passes(err error) bool {
	for _, one := range []error{errSilent, registry.ErrNoLeader, registry.ErrUnknownOutcome, registry.ErrBusy, context.DeadlineExceeded} {
		if errors.Is(err, one) {
			return true
		}
	}
	if whyEnded(err) == problemTLS { // whose code says that it may pass
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	}
	return false
}

// meant says whether a stream has ended since somebody wanted that, or has gone on with the
// copy: nothing has failed, and nothing is to be waited for. That a copy was paused may be
// found out by a command that is refused, before it is looked for.
func meant(err error) bool {
	return errors.Is(err, errNotWanted) || errors.Is(err, registry.ErrCursorDiffers) || errors.Is(err, registry.ErrRegionPaused)
}

// warnEvery is how often the log is told that a source cannot be followed, as long as the
// reason is the same.
const warnEvery = time.Minute

// warnEnded says why a source is not followed any more.
func (s *source) warnEnded(err error, now time.Time) {
	why := whyEnded(err)
	if why == s.ended && now.Sub(s.endedAt) < warnEvery {
		return
	}
	s.ended, s.endedAt = why, now
	s.importer.log.Warn("a region is not followed any more: its copy ages until it is again", "region", s.Region, "cluster", s.ClusterID, "member", s.address(), "because", err)
}
