package xds

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/stellmap/stellmap/registry"
)

// Why a proxy got a change late is told in spans, of a few changes. Which ones
// follows from their revision, and so does the id of the trace: all members choose
// the same changes without asking each other, and one trace shows a change at all
// proxies. The follower chooses once for each change; streams carry a pointer to it
// along, which is nil for all others and costs them nothing.
//
// A span is made when the push is over, by what was noted on the way, and there is
// none of a stream: it would not end.

// The bounds of spans, for each change and member. The proxies that are late answer
// last, and are what a trace is looked at for: they have room of their own.
const (
	promptSpansMax = 192
	lateSpansMax   = 64
	lateAfter      = time.Second // and all pushes that are not accepted are late
	spanNamesMax   = 10          // resources that are named in a span; the others are counted
)

// Traces are how a server tells of its pushes in spans.
type Traces struct {
	Provider trace.TracerProvider // with SpanIDs, sampling all spans; nil = no spans
	Ratio    float64              // of the changes, those that have a trace: 0 to 1
	Member   uint64               // this one
}

// tracing makes the spans; nil makes none.
type tracing struct {
	tracer      trace.Tracer
	below       uint64 // an id whose second half, without its lowest bit, is below this is chosen
	member      string
	incarnation func() string
	now         func() time.Time
	metrics     *metrics
}

func newTracing(t Traces, incarnation func() string, now func() time.Time, m *metrics) *tracing {
	if t.Provider == nil || t.Ratio <= 0 {
		return nil
	}
	return &tracing{
		tracer: t.Provider.Tracer("github.com/stellmap/stellmap/xds"), below: uint64(min(t.Ratio, 1) * (1 << 63)),
		member: strconv.FormatUint(t.Member, 10), incarnation: incarnation, now: now, metrics: m,
	}
}

// traceOf is the trace of a change; false says that it has none.
func (t *tracing) traceOf(revision registry.Revision) (trace.TraceID, bool) {
	var room [64]byte
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append(room[:0], t.incarnation()...), uint64(revision)))
	id := trace.TraceID(sum[:16])
	return id, binary.BigEndian.Uint64(id[8:])>>1 < t.below
}

// A change is a revision that has a trace, as this member has seen it.
type change struct {
	tracing  *tracing
	revision registry.Revision
	at       time.Time  // when it was seen
	span     trace.Span // until the streams have been told

	prompt, late atomic.Int32 // spans of pushes
}

// changes are those of one round that have a trace; nil = none has.
type changes struct {
	all []*change
	of  map[registry.ServiceKey]*change // the oldest of each service
}

// choose begins the spans of the changes in a batch that have a trace.
func (t *tracing) choose(events []registry.Event, at time.Time) *changes {
	if t == nil {
		return nil
	}
	var (
		out      *changes
		current  *change
		revision registry.Revision
	)
	for i := range events {
		e := &events[i]
		if e.Revision != revision {
			revision, current = e.Revision, t.begin(e, at)
		}
		if current != nil {
			out = out.add(e.Service, current)
		}
	}
	return out
}

func (t *tracing) begin(e *registry.Event, at time.Time) *change {
	id, chosen := t.traceOf(e.Revision)
	if !chosen {
		return nil
	}
	ctx := context.WithValue(context.Background(), traceKey{}, id)
	_, span := t.tracer.Start(ctx, "xds.change", trace.WithTimestamp(at), trace.WithAttributes(
		attribute.String("stellmap.member", t.member), attribute.Int64("stellmap.revision", int64(e.Revision)),
		attribute.String("stellmap.namespace", e.Service.Namespace), attribute.String("stellmap.service", e.Service.Service),
	))
	return &change{tracing: t, revision: e.Revision, at: at, span: span}
}

func (c *changes) add(k registry.ServiceKey, one *change) *changes {
	if c == nil {
		c = &changes{of: make(map[registry.ServiceKey]*change)}
	}
	if n := len(c.all); n == 0 || c.all[n-1] != one {
		c.all = append(c.all, one)
	}
	if c.of[k] == nil {
		c.of[k] = one
	}
	return c
}

// behind is the change that a resource was built anew for: that of its service, and
// the oldest where it is of many or its service is gone. Caller holds cache.mu.
func (c *changes) behind(d *directory, name string) *change {
	if c == nil {
		return nil
	}
	if owner := d.clusters[name]; owner != nil {
		return c.of[owner.listing.key]
	}
	return c.all[0]
}

// told ends the spans of a round.
func (c *changes) told() {
	if c == nil {
		return
	}
	for _, one := range c.all {
		one.span.End(trace.WithTimestamp(one.tracing.now()))
	}
}

// merge is the older of two changes that the same response will tell of. The other
// has no span there, which is counted.
func (c *change) merge(o *change) *change {
	switch {
	case o == nil || o == c:
		return c
	case c == nil:
		return o
	}
	c.tracing.metrics.spansMerged.Add(1)
	return c
}

// How a push can end.
const (
	pushAcked    = "acked"
	pushRejected = "rejected"
	pushSilent   = "silent"
	pushCut      = "cut off"
)

// Why a response can have had to wait.
const (
	heldByAnswer   = "the answer to the response before"
	heldByClusters = "the answer to the clusters"
	heldByRoutes   = "the answer to the routes"
	heldByChange   = "changes that were under way"
	heldByTables   = "other large route tables"
)

// tell makes the span of a push that is over; each has one at most.
func (s *stream) tell(r *response, outcome, reason string) {
	c, now := r.change, s.server.now()
	if c == nil {
		return
	}
	r.change = nil
	if !c.hasRoom(outcome, now) {
		c.tracing.metrics.spansLeftOut.Add(1)
		return
	}
	ctx := trace.ContextWithSpanContext(context.Background(), c.span.SpanContext())
	_, span := c.tracing.tracer.Start(ctx, "xds.push", trace.WithTimestamp(c.at), trace.WithAttributes(s.attributes(c, r)...))
	span.AddEvent("composed", trace.WithTimestamp(r.sentAt))
	if !r.delivered.IsZero() {
		span.AddEvent("sent", trace.WithTimestamp(r.delivered))
	}
	if outcome == pushAcked {
		span.AddEvent(outcome, trace.WithTimestamp(now))
	} else {
		span.AddEvent(outcome, trace.WithTimestamp(now), trace.WithAttributes(attribute.String("stellmap.reason", clip(reason))))
		span.SetStatus(codes.Error, outcome)
	}
	span.End(trace.WithTimestamp(now))
}

// hasRoom says that the change may have another span.
func (c *change) hasRoom(outcome string, now time.Time) bool {
	if outcome != pushAcked || now.Sub(c.at) >= lateAfter {
		return c.late.Add(1) <= lateSpansMax
	}
	return c.prompt.Add(1) <= promptSpansMax
}

func (s *stream) attributes(c *change, r *response) []attribute.KeyValue {
	var names []string
	for _, e := range r.told[:min(len(r.told), spanNamesMax)] {
		names = append(names, e.name)
	}
	return []attribute.KeyValue{
		attribute.String("stellmap.node", s.name()), attribute.Int64("stellmap.stream", int64(s.number)), attribute.String("stellmap.kind", s.node.kind.String()),
		attribute.String("stellmap.member", c.tracing.member), attribute.String("stellmap.type", r.typ.String()),
		attribute.Int64("stellmap.revision", int64(c.revision)), attribute.Int64("stellmap.sent_revision", int64(r.revision)),
		attribute.Int("stellmap.resources", len(r.entries)), attribute.Int("stellmap.removed", len(r.removed)), attribute.Int("stellmap.bytes", r.size),
		attribute.StringSlice("stellmap.names", names), attribute.String("stellmap.held_by", r.held),
	}
}

// traceKey is where a context has the id of the trace that a span begins.
type traceKey struct{}

// SpanIDs give spans their ids: those of a change the trace that it has on all members.
type SpanIDs struct{}

// NewIDs are those of a span that begins a trace.
func (SpanIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(traceKey{}).(trace.TraceID)
	for !ok {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
		ok = id.IsValid()
	}
	return id, SpanIDs{}.NewSpanID(ctx, id)
}

// NewSpanID is that of a span in a trace.
func (SpanIDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
