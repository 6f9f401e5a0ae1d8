package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// A copier is one stream of a source, and where the copy is.
type copier struct {
	source  *source
	stream  grpc.BidiStreamingClient[replicationv1.FollowRequest, replicationv1.FollowResponse]
	queue   chan received
	at      registry.ImportCursor // of the copy, as this member has had it committed
	of      string                // the incarnation of who answers
	told    uint64                // instances of the full sync under way
	pending *received             // was taken out of the queue and does not fit to what was before it
}

// received is a response, and how much of it there is.
type received struct {
	*replicationv1.FollowResponse
	bytes int
	at    time.Time // when it was
}

// open begins a stream.
func (c *copier) open(ctx context.Context, client replicationv1.ReplicationServiceClient) error {
	s := c.source
	if s.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.Token)
	}
	var err error
	if c.stream, err = client.Follow(ctx); err != nil {
		return fmt.Errorf("follow %s: %w", s.address(), err)
	}
	return nil
}

// greet says hello. The next stream of the same name ends this one at the source, so
// that a leader who does not know yet that he is none does not hold a place.
func (c *copier) greet() error {
	s, own := c.source, c.source.importer.identity()
	hello := &replicationv1.Hello{
		Name: own.Region, Region: own.Region, ClusterId: own.ClusterID,
		SourceRegion: s.Region, SourceClusterId: s.ClusterID,
	}
	for _, w := range s.Wanted {
		hello.Selections = append(hello.Selections, &replicationv1.Selection{Namespace: w.Namespace, Services: w.Services, Labels: w.Labels})
	}
	if c.at.Incarnation != "" && c.at.Sync == 0 {
		hello.After = &replicationv1.Cursor{Incarnation: c.at.Incarnation, Revision: uint64(c.at.Revision), Selections: c.at.Selections}
	}
	return c.say(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Hello{Hello: hello}})
}

// say sends a request. That the source has ended the stream is no error here: why it has
// is what is received, behind what it told before.
func (c *copier) say(r *replicationv1.FollowRequest) error {
	if err := c.stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("answer %s: %w", c.source.address(), err)
	}
	return nil
}

// errSilent is that a source has said nothing for so long that it is gone, whatever its
// connection.
var errSilent = errors.New("federation: nothing was heard for too long")

// receive puts what is told into the queue, until the stream ends or falls silent.
func (c *copier) receive(ctx context.Context, end context.CancelCauseFunc) error {
	silence := time.AfterFunc(c.source.importer.limits.silence, func() { end(errSilent) })
	defer silence.Stop()
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return fmt.Errorf("what %s tells has ended: %w", c.source.address(), err)
		}
		silence.Reset(c.source.importer.limits.silence)
		one := received{m, proto.Size(m), time.Now()}
		c.source.importer.metrics.bytes.WithLabelValues(c.source.Region).Add(float64(one.bytes))
		select {
		case c.queue <- one:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run has what is told committed, in its order.
func (c *copier) run(ctx context.Context) error {
	for {
		one, err := c.take(ctx)
		if err != nil {
			return err
		}
		if err := c.commit(ctx, one); err != nil {
			return err
		}
	}
}

// take waits for the next response.
func (c *copier) take(ctx context.Context) (received, error) {
	if one := c.pending; one != nil {
		c.pending = nil
		return *one, nil
	}
	select {
	case one := <-c.queue:
		return one, nil
	case <-ctx.Done():
		return received{}, context.Cause(ctx)
	}
}

// commit has a response committed, with those changes that have come after it, and
// acknowledges it.
func (c *copier) commit(ctx context.Context, one received) error {
	last := one.GetSequence()
	var err error
	switch k := one.GetKind().(type) {
	case *replicationv1.FollowResponse_Identity:
		err = c.meet(k.Identity)
	case *replicationv1.FollowResponse_Begin:
		err = c.begin(ctx, k.Begin)
	case *replicationv1.FollowResponse_Page:
		err = c.page(ctx, one.bytes, k.Page)
	case *replicationv1.FollowResponse_End:
		err = c.end(ctx, k.End)
	case *replicationv1.FollowResponse_Changes:
		last, err = c.changes(ctx, one)
	case *replicationv1.FollowResponse_Progress:
		err = c.progress(ctx, one.at, k.Progress)
	default:
		err = fmt.Errorf("%s tells what this version does not know: run a newer version", c.source.address())
	}
	if err != nil {
		return err
	}
	return c.say(&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Ack{Ack: &replicationv1.Ack{Sequence: last}}})
}

// meet holds who answers against whom this region means to follow.
func (c *copier) meet(i *replicationv1.Identity) error {
	s := c.source
	if i.GetRegion() != s.Region || i.GetClusterId() != s.ClusterID || i.GetIncarnation() == "" {
		return fmt.Errorf("%w: %s is cluster %d of region %.64q, not cluster %d of region %q: correct federation.regions", errWrongCluster, s.address(), i.GetClusterId(), i.GetRegion(), s.ClusterID, s.Region)
	}
	if c.at.Incarnation != "" && c.at.Incarnation != i.GetIncarnation() {
		s.importer.log.Warn("a region was restored or recovered since it was followed last: all there is is told anew", "region", s.Region, "before", c.at.Incarnation, "now", i.GetIncarnation())
	}
	if level := i.GetFeatureLevel(); level > s.importer.understands {
		s.importer.log.Warn("a region is of a newer version", "region", s.Region, "because", newerText(level, s.importer.understands))
	}
	s.importer.log.Info("a region is followed", "region", s.Region, "cluster", s.ClusterID, "member", i.GetMember(), "after", c.at.Revision)
	c.of = i.GetIncarnation()
	s.following.Store(true)
	s.link.meets(i)
	return nil
}

// begin has what follows marked: it is all there is.
func (c *copier) begin(ctx context.Context, b *replicationv1.Begin) error {
	s := c.source
	reason := strings.ToLower(strings.TrimPrefix(b.GetReason().String(), "REASON_"))
	s.importer.metrics.syncs.WithLabelValues(s.Region, reason).Inc()
	s.importer.log.Info("a region tells all there is", "region", s.Region, "revision", b.GetRevision(), "because", reason)
	c.told = 0
	next := s.importer.registry.Region(s.key).NextSync(c.of)
	_, err := c.importTo(ctx, registry.Import{Step: registry.ImportStepBegin, Upto: next}, 0)
	return err
}

// page takes in some of all there is. A full one is what one command may have.
func (c *copier) page(ctx context.Context, bytes int, p *replicationv1.Page) error {
	for some := range slices.Chunk(p.GetInstances(), registry.ImportItemsMax) {
		items := make([]registry.ImportItem, len(some))
		for n, i := range some {
			items[n] = itemOf(i, i.GetRecord().GetRevision())
		}
		upto := c.at
		upto.Parts++
		if _, err := c.importTo(ctx, registry.Import{Step: registry.ImportStepPart, Upto: upto, Items: items}, bytes); err != nil {
			return err
		}
		c.told += uint64(len(some))
		bytes = 0 // they are paid for
	}
	return nil
}

// end lets go of what was not told, in as many commands as it needs.
func (c *copier) end(ctx context.Context, e *replicationv1.End) error {
	if e.GetInstances() != c.told {
		return fmt.Errorf("%s says that it has told %d instances, and %d have come", c.source.address(), e.GetInstances(), c.told)
	}
	for {
		more, err := c.importTo(ctx, registry.Import{Step: registry.ImportStepSweep, Upto: cursorFrom(e.GetCursor())}, 0)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		c.at.Parts++
	}
	if held := c.source.importer.registry.Region(c.source.key).Held; held.Since != 0 {
		c.source.importer.log.Warn("a region lacks much of what it had: that is kept until it is confirmed, or its time is over",
			"region", c.source.Region, "held", held.Instances, "of", held.Of, "at_most", registry.HeldSweepMax)
	}
	return nil
}

// changes takes in changes, with those that have come after them and fit into the same
// command: the more there is, the less each costs.
func (c *copier) changes(ctx context.Context, one received) (last uint64, err error) {
	upto, bytes := c.at, 0
	var items []registry.ImportItem
	for {
		changes := one.GetChanges()
		for _, change := range changes.GetChanges() {
			items = append(items, itemOfChange(change))
		}
		last, bytes = one.GetSequence(), bytes+one.bytes
		if changes.GetCursor() != nil {
			upto = cursorFrom(changes.GetCursor())
		} else {
			upto.Parts++ // its revision is not whole yet
		}
		if bytes >= c.source.importer.limits.bytes || !c.takeMore(&one, registry.ImportItemsMax-len(items)) {
			break
		}
	}
	if len(items) > registry.ImportItemsMax {
		return 0, fmt.Errorf("%s tells %d changes at once, of at most %d", c.source.address(), len(items), registry.ImportItemsMax)
	}
	_, err = c.importTo(ctx, registry.Import{Step: registry.ImportStepChanges, Upto: upto, Items: items}, bytes)
	return last, err
}

// takeMore takes changes that have come already, if they fit in.
func (c *copier) takeMore(into *received, room int) bool {
	select {
	case next := <-c.queue:
		if changes := next.GetChanges(); changes == nil || len(changes.GetChanges()) > room {
			c.pending = &next
			return false
		}
		*into = next
		return true
	default:
		return false
	}
}

// progress notes that up to a revision there was nothing else, and how old that is. It
// is an entry every ten seconds, by which every member knows how old the copy is. It has
// aged while it waited for its turn.
func (c *copier) progress(ctx context.Context, at time.Time, p *replicationv1.Progress) error {
	upto := cursorFrom(p.GetCursor())
	if upto.Revision == c.at.Revision { // a member that is behind says nothing of the parts of the next one, which another has told
		upto.Parts = c.at.Parts
	}
	_, err := c.importTo(ctx, registry.Import{
		Step: registry.ImportStepChanges, Upto: upto,
		Age: time.Duration(p.GetAgeMs())*time.Millisecond + time.Since(at), KnownAge: p.GetConfirmed(),
	}, 0)
	return err
}

// importTo has something committed that follows where the copy is. Where the copy is
// elsewhere, another leader has gone on with it, or an operator wants it anew.
func (c *copier) importTo(ctx context.Context, in registry.Import, bytes int) (more bool, err error) {
	s := c.source
	s.heard.Store(max(s.heard.Load(), uint64(in.Upto.Revision)))
	if err := s.rate.wait(ctx, bytes, s.importer.limits.rate); err != nil {
		return false, err
	}
	within, cancel := context.WithTimeout(ctx, s.importer.limits.commit)
	defer cancel()
	in.Region, in.After, in.Wanted = s.key, c.at, s.wants
	result, err := s.importer.registry.Import(within, in)
	if err != nil {
		return false, err
	}
	s.warn(result.Refused, time.Now())
	s.importer.metrics.refused.WithLabelValues(s.Region).Add(float64(len(result.Refused)))
	s.importer.metrics.items.WithLabelValues(s.Region).Add(float64(len(in.Items)))
	if !result.More {
		c.at = in.Upto
	}
	if in.Step == registry.ImportStepChanges || in.Step == registry.ImportStepSweep {
		s.link.advances()
	}
	return result.More, nil
}

// warn says what could not be had here, at most once a refusedEvery: a source may have a
// million of them, and tell them anew and anew.
func (s *source) warn(refused []error, now time.Time) {
	if len(refused) > 0 {
		s.refused, s.lastRefused = s.refused+len(refused), refused[len(refused)-1]
	}
	if s.refused == 0 || now.Sub(s.warned) < refusedEvery {
		return
	}
	s.importer.log.Warn("instances of another region cannot be had here", "region", s.Region, "count", s.refused, "last_because", s.lastRefused)
	s.refused, s.warned = 0, now
}

func cursorFrom(c *replicationv1.Cursor) registry.ImportCursor {
	return registry.ImportCursor{Incarnation: c.GetIncarnation(), Revision: registry.Revision(c.GetRevision()), Selections: c.GetSelections()}
}

func itemOf(i *replicationv1.Instance, revision uint64) registry.ImportItem {
	return registry.ImportItem{
		Key:      registry.InstanceKey{Namespace: i.GetNamespace(), Service: i.GetService(), ID: i.GetId()},
		Revision: registry.Revision(revision), Record: i.GetRecord(), HandedOut: i.GetHandedOut(),
	}
}

func itemOfChange(c *replicationv1.Change) registry.ImportItem {
	if gone := c.GetGone(); gone != nil {
		item := itemOf(gone, c.GetRevision())
		item.Gone = true
		return item
	}
	return itemOf(c.GetPut(), c.GetRevision())
}
