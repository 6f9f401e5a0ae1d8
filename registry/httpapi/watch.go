package httpapi

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Watches over HTTP: streams of server-sent events, in the form of v1 and of v2.
//
// A stream holds a place in the history and one frame at a time. What it has not sent
// yet is not kept for it: a client that reads slowly is told later, one that does not
// read is cut when a frame is not taken in time, and one that comes back goes on from
// the id that it was told last, here or at another member. What many streams are told
// is encoded once, see frames.go.

// The bounds of watches.
const (
	watchesMax     = 32_768           // open at once on this member; the next is refused with 429
	watchStall     = 30 * time.Second // for a frame to be taken
	watchKeepalive = 30 * time.Second // without anything to tell
)

// A watching is what a request for a watch asks for, and how it is told.
type watching struct {
	query registry.Query
	start registry.WatchStart
	form  eventForm
}

// An eventForm is how a surface writes what a watcher is told.
type eventForm interface {
	// whole writes all there is; sent, called after each item, empties an encoder that is full.
	whole(e *encoder, c *registry.Changes, sent func())
	// change is the frame of a change; false says that it is for this watcher alone.
	change(c *registry.Change) ([]byte, bool)
	// idle writes that there was nothing for a while.
	idle(e *encoder, at registry.Revision)
	// denied writes that the watcher may watch no more.
	denied(e *encoder, f *failure, says string)
	// resyncs says that all there is may come in the midst of a stream.
	resyncs() bool
}

// serveWatch answers with a stream that ends with the client, with the member, or
// when it cannot go on. What is wrong with the start is an ordinary error.
func (a *API) serveWatch(w http.ResponseWriter, q *http.Request, o watching) error {
	ctx, cancel := a.watchContext(q)
	defer cancel()
	watcher, first, err := a.beginWatch(ctx, o)
	if err != nil {
		return err
	}
	s := &eventStream{patientWriter: patientWriter{w: w, control: http.NewResponseController(w), stall: a.limits.watchStall}, api: a, form: o.form}
	setRevision(w, max(watcher.After(), first.Revision))
	if err := s.open(w); err != nil || q.Method == http.MethodHead {
		return err
	}
	a.metrics.watchEnded(s.follow(ctx, watcher, first))
	if answer, ok := w.(*answer); ok {
		answer.cut = s.denied
	}
	return nil
}

// watchContext is over when the client has gone or this member stops.
func (a *API) watchContext(q *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(q.Context())
	stop := context.AfterFunc(a.stopping, func() { cancel(registry.ErrStopping) })
	return ctx, func() { stop(); cancel(nil) }
}

// beginWatch is bounded like any call: it may have to ask a leader.
func (a *API) beginWatch(ctx context.Context, o watching) (*registry.Watcher, registry.Changes, error) {
	ctx, cancel := context.WithTimeout(ctx, a.limits.timeout)
	defer cancel()
	watcher, err := a.registry.WatchFrom(ctx, o.query, o.start)
	if err != nil || !watcher.BeginsWhole() {
		return watcher, registry.Changes{}, err
	}
	first, err := watcher.Next(ctx, nil)
	return watcher, first, err
}

// EndWatches ends all watches, and those that come later: the server waits for them when it stops.
func (a *API) EndWatches() { a.stop() }

// An eventStream is the connection of one watcher.
type eventStream struct {
	patientWriter
	api    *API
	form   eventForm
	denied error // why the watcher may watch no more; nil = he may
}

// open sends the header at once: clients wait for it, however long there is nothing to tell.
func (s *eventStream) open(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("Connection", "keep-alive")
	h.Set("X-Accel-Buffering", "no")
	if err := ignoreUnsupported(s.control.SetReadDeadline(time.Time{})); err != nil { // that of the request, which is here
		return err
	}
	w.WriteHeader(http.StatusOK)
	return s.flush()
}

func (s *eventStream) flush() error {
	if err := ignoreUnsupported(s.control.SetWriteDeadline(time.Now().Add(s.stall))); err != nil {
		return err
	}
	return ignoreUnsupported(s.control.Flush())
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// Why a stream has ended, for the metric.
const (
	endClient   = "client"
	endStopping = "stopping"
	endStuck    = "stuck"
	endBehind   = "fell_behind"
	endDenied   = "denied"
	endError    = "error"
)

// follow tells all that there is to tell, and says why it ended.
func (s *eventStream) follow(ctx context.Context, w *registry.Watcher, c registry.Changes) string {
	s.api.metrics.watches.Inc()
	defer s.api.metrics.watches.Dec()
	idle := time.NewTicker(s.api.limits.keepalive)
	defer idle.Stop()
	var err error
	for {
		if c.Revision != 0 {
			if err = s.tell(&c); err != nil {
				return s.whyNotTold(ctx, err)
			}
			idle.Reset(s.api.limits.keepalive)
		}
		if c, err = w.Next(ctx, idle.C); err != nil {
			return s.whyNotNext(ctx, err)
		}
		if c.Resync != 0 && !s.form.resyncs() {
			return endBehind // it comes back, and is told then what it can go on from
		}
	}
}

func (s *eventStream) whyNotTold(ctx context.Context, err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.api.log.Info("a watcher that takes nothing was cut off", "after", s.stall, "sent_bytes", s.n)
		return endStuck
	}
	return s.whyNotNext(ctx, ctx.Err())
}

func (s *eventStream) whyNotNext(ctx context.Context, err error) string {
	switch {
	case errors.Is(context.Cause(ctx), registry.ErrStopping):
		return endStopping
	case isDenied(context.Cause(ctx)):
		return s.sayDenied(context.Cause(ctx))
	case isDenied(err):
		return s.sayDenied(err)
	case errors.Is(err, registry.ErrCompacted):
		return endBehind
	case ctx.Err() != nil || err == nil:
		return endClient
	}
	s.api.log.Warn("a watch was ended", "error", err)
	return endError
}

// isDenied says of an error that it is for lack of a right.
func isDenied(err error) bool {
	return errors.Is(err, registry.ErrDenied) || errors.Is(err, registry.ErrNobody)
}

// sayDenied tells a watcher why there is no more for him. Whether he hears of it, the end of
// the stream says the same.
func (s *eventStream) sayDenied(err error) string {
	s.denied = err
	f := failureOf(err, true)
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.b = e.b[:0]
	s.form.denied(e, f, f.Words(err))
	if _, err = s.Write(e.b); err == nil {
		err = s.flush()
	}
	s.api.log.Debug("a watcher may watch no more", "code", f.Code, "told", err == nil)
	return endDenied
}

// tell writes what comes next and sends it.
func (s *eventStream) tell(c *registry.Changes) error {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.b = e.b[:0]
	var err error
	sent := func() {
		if len(e.b) >= chunkBytes && err == nil {
			last := len(e.b) - 1 // as in writeList
			_, err = s.Write(e.b[:last])
			e.b = append(e.b[:0], e.b[last])
		}
	}
	switch {
	case c.Resync != 0:
		s.form.whole(e, c, sent)
	case len(c.Changes) == 0:
		s.form.idle(e, c.Revision)
	}
	for i := range c.Changes {
		frame, shared := s.form.change(&c.Changes[i])
		s.api.metrics.frameSent(shared)
		e.b = append(e.b, frame...)
		sent()
	}
	if err == nil {
		_, err = s.Write(e.b)
	}
	if err == nil {
		err = s.flush()
	}
	return err
}

// event is the head of a frame, up to its data.
func (e *encoder) event(id, name string) {
	e.b = append(append(append(append(append(e.b, "id: "...), id...), "\nevent: "...), name...), "\ndata: "...)
}

// eventEnd ends it.
func (e *encoder) eventEnd() { e.b = append(e.b, "\n\n"...) }

func revisionText(r registry.Revision) string { return strconv.FormatUint(uint64(r), 10) }
