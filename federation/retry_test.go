package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// TestWhatPassesIsTriedSoon shows that a cut of the link, however long, is found to be
// over within seconds, and that what somebody has to mend is not tried all the time.
func TestWhatPassesIsTriedSoon(t *testing.T) {
	of := func(code codes.Code) error { return fmt.Errorf("follow it: %w", status.Error(code, "")) }
	most := func(d time.Duration) time.Duration { return d }
	s := &source{importer: &Importer{limits: importDefaults(), jitter: most}}
	for _, c := range []struct {
		err  error
		want time.Duration
	}{
		{of(codes.Unavailable), passingMax}, {of(codes.DeadlineExceeded), passingMax}, {of(codes.Aborted), passingMax},
		{errSilent, passingMax}, {registry.ErrNoLeader, passingMax}, {registry.ErrUnknownOutcome, passingMax}, {context.DeadlineExceeded, passingMax},
		{of(codes.Unauthenticated), retryMax}, {fmt.Errorf("follow it: %w", status.Error(codes.Unavailable, "tls: bad certificate")), retryMax}, {of(codes.FailedPrecondition), retryMax}, {errors.New("another cluster"), retryMax},
		{registry.ErrRegionFull, mendedEvery}, {registry.ErrUnreadable, mendedEvery},
	} {
		wait := time.Duration(0)
		for range 20 {
			wait = s.retryAfter(c.err, wait)
		}
		mustEqual(t, fmt.Sprintf("the time between tries after %v", c.err), wait, c.want*3/2)
	}
	mustEqual(t, "the first time", s.retryAfter(of(codes.Unavailable), 0), retryMin*3/2)
	mustEqual(t, "the first time with a newer version", s.retryAfter(registry.ErrUnreadable, 0), mendedEvery*3/2)
	if soonest := connectTimeout + passingMax*3/2; soonest >= 5*time.Second {
		t.Errorf("a source whose network drops everything is reached %v after that has ended", soonest)
	}
}

// TestAnEndIsWarnedOfOnce shows that a source that is tried again and again fills no log.
func TestAnEndIsWarnedOfOnce(t *testing.T) {
	var out strings.Builder
	s := &source{Source: Source{Addresses: []string{"there"}}, importer: &Importer{log: slog.New(slog.NewTextHandler(&out, nil))}}
	at := time.Unix(0, 0)
	for n := range 60 {
		s.warnEnded(errSilent, at.Add(time.Duration(n)*time.Second))
	}
	mustEqual(t, "lines of a minute", strings.Count(out.String(), "\n"), 1)
	s.warnEnded(registry.ErrRegionFull, at.Add(time.Minute-1))
	mustEqual(t, "lines with another reason", strings.Count(out.String(), "\n"), 2)
	s.warnEnded(registry.ErrRegionFull, at.Add(2*time.Minute))
	mustEqual(t, "lines after a minute", strings.Count(out.String(), "\n"), 3)
}

// TestAPartIsOfWholeRevisionsOrOfOne shows where changes are cut into responses: nobody is
// told again, after a stream that broke off, of a revision that he had whole.
func TestAPartIsOfWholeRevisionsOrOfOne(t *testing.T) {
	l := limits{pageBytes: 1 << 20, pageInstances: 3}
	for _, c := range []struct{ revisions, want string }{
		{"1", "1"},
		{"1 2 3 4", "1 2 3|4"},
		{"1 2 3 3", "1 2|3 3"},
		{"1 2 2 2", "1|2 2 2"},
		{"1 2 2 2 2 3", "1|2 2 2-|2 3"},
		{"5 5 5 5 5 5 5", "5 5 5-|5 5 5-|5"},
	} {
		var events []registry.Event
		for _, one := range strings.Fields(c.revisions) {
			events = append(events, registry.Event{Kind: registry.EventInstancePut, Revision: registry.Revision(one[0] - '0'), Instance: &registry.Instance{Origin: &registry.Origin{}}})
		}
		var parts []string
		for len(events) > 0 {
			part, upTo := l.partOf(events)
			var words []string
			for _, one := range part.GetChanges() {
				words = append(words, fmt.Sprint(one.GetRevision()))
			}
			text := strings.Join(words, " ")
			if upTo == 0 {
				text += "-"
			} else if last := part.GetChanges()[len(words)-1].GetRevision(); uint64(upTo) != last {
				t.Errorf("%s is said to be all up to %d", text, upTo)
			}
			parts, events = append(parts, text), events[len(words):]
		}
		mustEqual(t, "the parts of "+c.revisions, strings.Join(parts, "|"), c.want)
	}
}
