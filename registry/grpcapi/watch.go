package grpcapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// A watch holds nothing of what it has yet to tell: the registry keeps what has
// changed for all of them together. So a client that reads slowly costs one message,
// and one that does not read is cut off and goes on later, at any member.

var methodWatch = &method{name: "Watch", reads: true, fields: filterFields}

// A watch is one that is open.
type watch struct {
	api    *API
	stream grpc.ServerStreamingServer[stellmapv1.WatchResponse]
	from   *registry.Watcher
	of     string          // the incarnation that its revisions are of
	resync registry.Resync // why it begins with all there is, where the registry does not know; 0 = it does
}

func (s *service) Watch(m *stellmapv1.WatchRequest, stream grpc.ServerStreamingServer[stellmapv1.WatchResponse]) error {
	a, start := s.api, time.Now()
	err := a.stream(stream.Context(), methodWatch, &a.watches, a.limits.watches, errTooManyWatches, func(ctx context.Context) error {
		leave, err := a.registry.WatchPlace(addressOf(ctx))
		if err != nil {
			return err
		}
		defer leave()
		w, err := a.open(ctx, m, stream)
		if err != nil {
			return err
		}
		return w.run(ctx)
	})
	a.metrics.count(methodWatch, err, time.Since(start))
	return err
}

// addressOf is where a call comes from; the zero one where that is not known.
func addressOf(ctx context.Context) netip.Addr {
	from, known := peer.FromContext(ctx)
	if !known || from.Addr == nil {
		return netip.Addr{}
	}
	at, err := netip.ParseAddrPort(from.Addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// open begins a watch, within the time that a call has.
func (a *API) open(ctx context.Context, m *stellmapv1.WatchRequest, stream grpc.ServerStreamingServer[stellmapv1.WatchResponse]) (*watch, error) {
	if err := registry.KnownFields(m); err != nil {
		return nil, err
	}
	w := &watch{api: a, stream: stream, of: a.home().Incarnation}
	query, start, err := w.asked(m)
	if err := cmp.Or(err, registry.KnownCluster(w.of)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.limits.call)
	defer cancel()
	w.from, err = a.registry.WatchFrom(ctx, query, start)
	return w, err
}

// asked tells all that is wrong with a request for a watch at once.
func (w *watch) asked(m *stellmapv1.WatchRequest) (registry.Query, registry.WatchStart, error) {
	var bad []registry.Problem
	fresh, err := w.api.freshnessOf(m.GetFreshness())
	bad = append(bad, problems(err)...)
	query := w.api.filterOf(m.GetFilter(), &bad)
	query.Consistency = fresh.Consistency
	bad = append(bad, problems(query.Check())...)
	start := registry.WatchStart{Live: m.GetLive()}
	if m.GetResume() != "" {
		incarnation, revision, ok := parseResume(m.GetResume())
		switch {
		case !ok:
			bad = append(bad, registry.Problem{Field: "resume", Reason: fmt.Sprintf("%.64q is not one that a watch has told: take it as it was, or leave it out to begin anew", m.GetResume())})
		case m.GetLive():
			bad = append(bad, registry.Problem{Field: "live", Reason: "is for the beginning of a watch, and resume goes on with one: leave one of the two out"})
		case incarnation != w.of:
			w.resync = registry.ResyncFuture
		default:
			start.After = revision
		}
	}
	if len(bad) > 0 {
		return query, start, &registry.ValidationError{Problems: bad}
	}
	return query, start, nil
}

// resumeAt is from where a watch goes on at any member.
func (w *watch) resumeAt(r registry.Revision) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s/%d", w.of, r))
}

func parseResume(text string) (incarnation string, r registry.Revision, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", 0, false
	}
	incarnation, number, ok := strings.Cut(string(raw), "/")
	n, err := strconv.ParseUint(number, 10, 64)
	return incarnation, registry.Revision(n), ok && err == nil
}

// run tells what comes until the client goes or this member stops. The client hears
// at once that it is there: it may be long until there is something to tell. One that
// goes on where nothing has come since hears that, too: it knows that it is level.
func (w *watch) run(ctx context.Context) error {
	if err := w.stream.SendHeader(metadata.MD{}); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	idle := time.NewTicker(w.api.limits.progress)
	defer idle.Stop()
	ticks := atOnce()
	for {
		told, err := w.from.Next(ctx, ticks)
		ticks = idle.C
		if ctx.Err() != nil {
			return overOf(ctx)
		}
		if err != nil {
			return err
		}
		if told.Resync != 0 {
			err = w.tellAll(ctx, told)
		} else {
			err = w.tellChanges(ctx, told)
		}
		if err != nil {
			return err
		}
	}
}

// atOnce has ticked already.
func atOnce() <-chan time.Time {
	ticked := make(chan time.Time, 1)
	ticked <- time.Time{}
	return ticked
}

// tellAll tells all there is, in parts.
func (w *watch) tellAll(ctx context.Context, told registry.Changes) error {
	if w.resync != 0 {
		told.Resync, w.resync = w.resync, 0
	}
	at := func(n int) *stellmapv1.Instance { return instanceTo(told.Instances[n], 0) }
	return inParts(w.api.limits.partBytes, len(told.Instances), ending{}, at, func(part []*stellmapv1.Instance, end ending) error {
		return w.tell(ctx, told.Revision, !end.last, &stellmapv1.WatchResponse{Resync: stellmapv1.Resync(told.Resync), Instances: part})
	})
}

// tellChanges tells what has changed, in parts where it is much. What is put into the
// message is in bytes already: they are the same for all who are told of the change.
func (w *watch) tellChanges(ctx context.Context, told registry.Changes) error {
	var part []byte
	for n := range told.Changes {
		part = append(part, w.api.shared.of(&told.Changes[n])...)
		w.api.metrics.told.Inc()
		if len(part) < w.api.limits.partBytes || n == len(told.Changes)-1 {
			continue
		}
		if err := w.tell(ctx, told.Revision, true, withChanges(part)); err != nil {
			return err
		}
		part = nil
	}
	return w.tell(ctx, told.Revision, false, withChanges(part))
}

func (w *watch) tell(ctx context.Context, at registry.Revision, partial bool, m *stellmapv1.WatchResponse) error {
	m.Revision, m.Partial = uint64(at), partial
	if !partial {
		m.Resume = w.resumeAt(at)
	}
	return w.api.send(ctx, func() error { return w.stream.Send(m) })
}
