package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// stream is a call of Follow.
type stream = grpc.BidiStreamingServer[replicationv1.FollowRequest, replicationv1.FollowResponse]

// A follower is one replicator, and how far it is. It holds a place in the history, and
// of what it has been told only the size.
type follower struct {
	exporter *Exporter
	stream   stream
	cut      context.CancelCauseFunc
	window   *window

	name, region string // as it says, like the next
	clusterID    uint64
	of           string // the incarnation of this cluster when the stream began
	since        time.Time
	replica      *registry.Replica
}

func (f *follower) key() followerKey { return followerKey{f.region, f.name} }

// Follow serves a replicator until one of both sides has enough.
func (s *service) Follow(on stream) (answer error) {
	e := s.exporter
	err := e.admit(on.Context())
	if err == nil {
		err = e.serve(on)
	}
	reason, answer := e.answer(err)
	e.metrics.ended.WithLabelValues(reason).Inc()
	return answer
}

func (e *Exporter) serve(on stream) (err error) {
	defer func() {
		if cause := recover(); cause != nil { // which costs one stream, not the process
			e.log.Error("a replicator's stream panicked", "panic", cause, "stack", string(debug.Stack()))
			err = fmt.Errorf("federation: panic: %v", cause)
		}
	}()
	ctx, cut := context.WithCancelCause(on.Context())
	defer cut(nil)
	defer context.AfterFunc(e.life, func() { cut(registry.ErrStopping) })()
	f := &follower{exporter: e, stream: on, cut: cut, since: time.Now()}
	f.window = newWindow(e.limits, func() { cut(errSlow) })
	defer f.window.close()
	defer e.leave(f)
	if err = f.greet(ctx); err == nil {
		e.log.Info("a replicator follows", "name", f.name, "region", f.region, "cluster", f.clusterID, "after", f.replica.After())
		err = f.run(ctx)
	}
	if ctx.Err() != nil { // what it was cut for is why it ended, whatever that broke
		err = context.Cause(ctx)
	}
	if f.replica != nil {
		e.log.Info("a replicator has stopped following", "name", f.name, "because", err)
	}
	return err
}

// greet waits for the hello, has acknowledgements heard from then on, and begins.
func (f *follower) greet(ctx context.Context) error {
	e := f.exporter
	select {
	case e.greetings <- struct{}{}:
	default:
		return errTooManyGreetings
	}
	defer func() { <-e.greetings }()
	hello := make(chan *replicationv1.Hello)
	go f.listen(ctx, hello) // ends with the stream, whose end is the return from Follow
	timer := time.NewTimer(e.limits.hello)
	defer timer.Stop()
	select {
	case h := <-hello:
		return f.begin(ctx, h)
	case <-timer.C:
		return errNoHello
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// listen hands the hello on, and counts what is acknowledged after it. What is wrong
// with what it hears ends the stream.
func (f *follower) listen(ctx context.Context, hello chan<- *replicationv1.Hello) {
	for first := true; ; first = false {
		m, err := f.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			err = errDone
		case err == nil:
			err = f.hear(ctx, m, first, hello)
		default:
			err = context.Canceled
		}
		if err != nil {
			f.cut(err)
			return
		}
	}
}

func (f *follower) hear(ctx context.Context, m *replicationv1.FollowRequest, first bool, hello chan<- *replicationv1.Hello) error {
	if err := registry.KnownFields(m); err != nil {
		return err
	}
	switch {
	case first && m.GetHello() == nil:
		return invalid("hello", "is missing: the first request of a stream says who follows")
	case !first && m.GetAck() == nil:
		return invalid("ack", "is missing: after the hello a stream has acknowledgements only")
	case !first:
		return f.window.ack(m.GetAck().GetSequence())
	}
	select {
	case hello <- m.GetHello():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// begin looks at the hello, and says who answers.
func (f *follower) begin(ctx context.Context, h *replicationv1.Hello) error {
	e, own := f.exporter, f.exporter.identity()
	if !namePattern.MatchString(h.GetName()) {
		return invalid("hello.name", fmt.Sprintf("%.64q is no name: letters, digits, '.', '-' and '_', at most 63", h.GetName()))
	}
	if h.GetRegion() != "" && !namePattern.MatchString(h.GetRegion()) {
		return invalid("hello.region", fmt.Sprintf("%.64q is no name: letters, digits, '.', '-' and '_', at most 63", h.GetRegion()))
	}
	if r, id := h.GetSourceRegion(), h.GetSourceClusterId(); r != "" && r != own.Region || id != 0 && id != own.ClusterID {
		return wrongCluster(own, fmt.Sprintf("cluster %d of region %.64q", id, r))
	}
	if h.GetClusterId() == own.ClusterID && h.GetRegion() == own.Region {
		return itself(own)
	}
	if err := e.proves(ctx, h.GetRegion()); h.GetRegion() != "" && err != nil { // a mirror need not be of any
		return unproved(h.GetRegion(), err)
	}
	if own.Incarnation == "" { // a member that has only been founded
		return registry.ErrNoLeader
	}
	f.name, f.region, f.clusterID, f.of = h.GetName(), h.GetRegion(), h.GetClusterId(), own.Incarnation
	var err error
	within, cancel := context.WithTimeout(ctx, e.limits.call)
	defer cancel()
	after := h.GetAfter()
	f.replica, err = e.registry.Replicate(within, selectedBy(h), registry.ReplicaStart{
		After: registry.Revision(after.GetRevision()), Foreign: after != nil && after.GetIncarnation() != f.of && !mutant("revisions_of_another_cluster"), Digest: after.GetSelections(),
		Exported: e.exports,
	})
	if err != nil {
		return inHello(err)
	}
	f.window.begin(f.replica.After())
	if err := e.join(f); err != nil {
		return err
	}
	return f.tell(ctx, 0, &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Identity{Identity: &replicationv1.Identity{
		Region: own.Region, ClusterId: own.ClusterID, Incarnation: own.Incarnation, FeatureLevel: own.FeatureLevel, Member: own.Member,
	}}})
}

func selectedBy(h *replicationv1.Hello) []registry.Selected {
	var out []registry.Selected
	for _, s := range h.GetSelections() {
		out = append(out, registry.Selected{Namespace: s.GetNamespace(), Services: s.GetServices(), Labels: s.GetLabels()})
	}
	return out
}

// run tells what comes. A tick of idle has a leader confirm how far this member is; what
// has come up to then is told, and then the mark.
func (f *follower) run(ctx context.Context) error {
	idle := time.NewTicker(f.exporter.limits.progress)
	defer idle.Stop()
	ticks, confirmed, complete := atOnce(), false, time.Time{}
	for {
		if f.replica.Whole() != 0 {
			if err := f.tellAll(ctx); err != nil {
				return err
			}
			ticks, confirmed = atOnce(), false
		}
		batch, ticked, err := f.replica.Next(ctx, ticks)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case ticked && confirmed:
			ticks, confirmed, err = idle.C, false, f.tellProgress(ctx, complete)
		case ticked:
			complete, err = f.complete(ctx)
			confirmed = err == nil
		default:
			err = f.tellChanges(ctx, batch)
		}
		if err != nil {
			return err
		}
		if confirmed {
			ticks = atOnce()
		}
	}
}

// atOnce has ticked already.
func atOnce() <-chan time.Time {
	ticked := make(chan time.Time, 1)
	ticked <- time.Time{}
	return ticked
}

// complete is a time before which nothing was committed that this member has not. One that
// has heard of no leader for so long that there is another one, or none, has nothing to tell:
// the replicator is to look among the others, and would never do so by itself, since it is
// told that there is nothing new.
func (f *follower) complete(ctx context.Context) (time.Time, error) {
	of := f.exporter.registry
	ctx, cancel := context.WithTimeout(ctx, f.exporter.limits.confirm)
	defer cancel()
	at := of.Complete(ctx)
	if at.IsZero() || of.Since(at) > leaderlessMax {
		return at, errCutOff
	}
	return at, nil
}

// tellAll tells all there is at one revision, when there is a place for it.
func (f *follower) tellAll(ctx context.Context) error {
	e := f.exporter
	select {
	case e.syncs <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-e.syncs }()
	ctx, cancel := context.WithTimeoutCause(ctx, e.limits.sync, errSyncTooLong)
	defer cancel()
	why := f.replica.Whole()
	all, err := f.pin(ctx)
	if err != nil {
		return err
	}
	e.metrics.syncs.WithLabelValues(why.String()).Inc()
	begin := &replicationv1.Begin{Revision: uint64(all.Revision), Reason: replicationv1.Begin_Reason(why)}
	if err := f.tell(ctx, 0, &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Begin{Begin: begin}}); err != nil {
		return err
	}
	count := 0
	for some := all.Next(e.limits.pageInstances); len(some) > 0; some = all.Next(e.limits.pageInstances) {
		count += len(some)
		if err := f.tellPages(ctx, some); err != nil {
			return err
		}
		if all.Held() > e.limits.syncHeld {
			return errSyncTooLong
		}
	}
	end := &replicationv1.End{Cursor: f.cursor(all.Revision), Instances: uint64(count)}
	return f.tell(ctx, all.Revision, &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_End{End: end}})
}

func (f *follower) pin(ctx context.Context) (*registry.Pinned, error) {
	ctx, cancel := context.WithTimeout(ctx, f.exporter.limits.call)
	defer cancel()
	return f.replica.Pin(ctx)
}

// tellPages tells some instances, in as many pages as they need, at the rate that there
// is for all replicators that are told all there is.
func (f *follower) tellPages(ctx context.Context, some []*registry.Instance) error {
	e, page, bytes := f.exporter, &replicationv1.Page{}, 0
	for n, i := range some {
		one := instanceTo(i)
		page.Instances, bytes = append(page.Instances, one), bytes+proto.Size(one)
		if bytes < e.limits.pageBytes && n < len(some)-1 {
			continue
		}
		if err := e.rate.wait(ctx, bytes, e.limits.syncRate); err != nil {
			return err
		}
		if err := f.tell(ctx, 0, &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Page{Page: page}}); err != nil {
			return err
		}
		e.metrics.syncBytes.Add(float64(bytes))
		page, bytes = &replicationv1.Page{}, 0
	}
	return nil
}

// tellChanges tells whole revisions, in parts where they are much.
func (f *follower) tellChanges(ctx context.Context, batch registry.Batch) error {
	for events := batch.Events; len(events) > 0; {
		part, upTo := f.exporter.limits.partOf(events)
		events = events[len(part.Changes):]
		if len(events) == 0 {
			upTo = batch.Revision
		}
		if upTo != 0 {
			part.Cursor = f.cursor(upTo)
		}
		if err := f.tell(ctx, upTo, &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Changes{Changes: part}}); err != nil {
			return err
		}
		f.exporter.metrics.changes.Add(float64(len(part.Changes)))
	}
	return nil
}

// partOf is what one response has of some events, and up to which revision that is all.
// A revision that does not fit whole has responses of its own, which have no cursor but
// the last: who loses the stream after one of them is told that revision again. Were
// others with it they would be told again, too, and what has gone in them since would
// be back for a moment.
func (l *limits) partOf(events []registry.Event) (part *replicationv1.Changes, upTo registry.Revision) {
	part = &replicationv1.Changes{}
	whole, bytes := 0, 0
	for n := range events {
		one := changeTo(&events[n])
		part.Changes, bytes = append(part.Changes, one), bytes+proto.Size(one)
		if n == len(events)-1 || events[n+1].Revision != events[n].Revision {
			whole, upTo = n+1, events[n].Revision
		}
		if bytes >= l.pageBytes || len(part.Changes) >= l.pageInstances {
			break
		}
	}
	if whole > 0 && !mutant("whole_revisions_with_a_part") {
		part.Changes = part.Changes[:whole]
	}
	return part, upTo
}

func (f *follower) tellProgress(ctx context.Context, complete time.Time) error {
	progress := &replicationv1.Progress{
		Cursor: f.cursor(f.replica.After()), Confirmed: true,
		CompleteMs: complete.UnixMilli(), AgeMs: f.exporter.registry.Since(complete).Milliseconds(),
	}
	return f.tell(ctx, f.replica.After(), &replicationv1.FollowResponse{Kind: &replicationv1.FollowResponse_Progress{Progress: progress}})
}

func (f *follower) cursor(at registry.Revision) *replicationv1.Cursor {
	return &replicationv1.Cursor{Incarnation: f.of, Revision: uint64(at), Selections: f.replica.Digest()}
}

// tell sends a response when the window has room for it. One that is not taken is not
// acknowledged either, and the end of the context ends the stream, and with it the
// goroutine that is stuck in it.
func (f *follower) tell(ctx context.Context, upTo registry.Revision, r *replicationv1.FollowResponse) error {
	var err error
	r.Sequence, err = f.window.take(ctx, toldOne{revisions: revisionsIn(r.GetChanges()), bytes: proto.Size(r), upTo: upTo})
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- f.stream.Send(r) }()
	select {
	case err := <-sent:
		if err != nil {
			return context.Canceled // the replicator has gone
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// revisionsIn is how many revisions a part has something of. Whatever else is told
// counts as one, so that there is a bound on that, too.
func revisionsIn(c *replicationv1.Changes) int {
	n, last := 1, uint64(0)
	for _, one := range c.GetChanges() {
		if last != 0 && one.GetRevision() != last {
			n++
		}
		last = one.GetRevision()
	}
	return n
}

func instanceTo(i *registry.Instance) *replicationv1.Instance {
	return &replicationv1.Instance{Namespace: i.Namespace, Service: i.Service, Id: i.ID, Record: i.Replicated(), HandedOut: i.Protected}
}

func changeTo(e *registry.Event) *replicationv1.Change {
	c := &replicationv1.Change{Revision: uint64(e.Revision)}
	if e.Kind == registry.EventInstanceDelete {
		gone := instanceTo(e.Previous)
		gone.HandedOut = e.WasHandedOut
		c.Kind = &replicationv1.Change_Gone{Gone: gone}
		return c
	}
	put := instanceTo(e.Instance)
	put.HandedOut = e.HandedOut
	c.Kind = &replicationv1.Change_Put{Put: put}
	return c
}
