package registry

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

// events are n events of a revision, numbered from 0 in the name of the service.
func events(revision Revision, n int) []Event {
	var out []Event
	for i := range n {
		out = append(out, Event{Revision: revision, Kind: EventServicePut, Service: ServiceKey{"prod", strconv.Itoa(i)}})
	}
	return out
}

// fill publishes a revision with so many events for each count, from revision 1 on.
func fill(r *ring, counts ...int) {
	for i, n := range counts {
		r.publish(Revision(i+1), events(Revision(i+1), n))
	}
}

// told is the revisions and sizes of everything that a watcher is told without waiting.
func told(t *testing.T, w *Watch) (heads []Revision, sizes []int) {
	t.Helper()
	for {
		batch, more, err := w.Poll()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return heads, sizes
		}
		heads, sizes = append(heads, batch.Revision), append(sizes, len(batch.Events))
	}
}

// TestBatchesAreWholeRevisions shows how the bound of a batch falls: before a
// revision that it would cut in two, unless that one is larger than the bound.
func TestBatchesAreWholeRevisions(t *testing.T) {
	const most = batchEventsMax
	cases := map[string]struct {
		counts []int
		heads  []Revision
		sizes  []int
	}{
		"everything fits":                     {[]int{most - 1, 1}, []Revision{2}, []int{most}},
		"the bound is between two revisions":  {[]int{most - 1, 1, 1}, []Revision{2, 3}, []int{most, 1}},
		"a full batch is not the end":         {[]int{most, 0}, []Revision{2}, []int{most}},
		"the bound is inside a revision":      {[]int{most - 1, 2, 1}, []Revision{1, 3}, []int{most - 1, 3}},
		"a revision is larger than the bound": {[]int{most + 5, 1}, []Revision{1, 2}, []int{most + 5, 1}},
		"a large one comes second":            {[]int{1, 2 * most, 1}, []Revision{1, 2, 3}, []int{1, 2 * most, 1}},
		"only a large one":                    {[]int{3 * most}, []Revision{1}, []int{3 * most}},
		"revisions without events":            {[]int{0, 0, 1, 0}, []Revision{4}, []int{1}},
		"nothing but such":                    {[]int{0, 0}, []Revision{2}, []int{0}},
		"such behind a full batch":            {[]int{most, 1, 0, 0}, []Revision{1, 4}, []int{most, 1}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRing(ringEventsMax, ringBytesMax, 0)
			fill(r, c.counts...)
			heads, sizes := told(t, &Watch{ring: r})
			mustEqualSlices(t, "the revisions told", heads, c.heads)
			mustEqualSlices(t, "the number of events", sizes, c.sizes)
		})
	}
}

// TestOnePublishWakesEveryWatcher shows that all who wait are woken at once, that
// each is told the same, and that a watcher ahead of this member waits for it.
func TestOnePublishWakesEveryWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const watchers = 100
		r := newRing(ringEventsMax, ringBytesMax, 7)
		got := make(chan Batch, watchers)
		for range watchers {
			go func() { got <- mustNext(t, &Watch{ring: r, after: 7}) }()
		}
		ahead := make(chan Batch, 1)
		go func() { ahead <- mustNext(t, &Watch{ring: r, after: 8}) }()
		synctest.Wait()
		mustEqual(t, "the number who wait", r.waiting.Load(), watchers+1)

		r.publish(8, events(8, 3))
		for range watchers {
			b := <-got
			mustEqual(t, "the revision told", b.Revision, 8)
			mustEqualSlices(t, "the events", b.Events, events(8, 3))
		}
		synctest.Wait()
		mustEqual(t, "the number who wait for more than revision 8", r.waiting.Load(), 1)
		r.publish(9, nil)
		b := <-ahead
		mustEqual(t, "the revision told to the one ahead", b.Revision, 9)
		mustEqual(t, "the number of its events", len(b.Events), 0)
		mustEqual(t, "the number who wait in the end", r.waiting.Load(), 0)
	})
}

func mustNext(t *testing.T, w *Watch) Batch {
	b, err := w.Next(context.Background())
	if err != nil {
		t.Errorf("next: %v", err)
	}
	return b
}

// TestNextEndsWithItsContext shows that a watcher need not wait for ever, and has lost nothing by it.
func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(ringEventsMax, ringBytesMax, 0)
		w := &Watch{ring: r}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() {
			_, err := w.Next(ctx)
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("next: %v, want the context's error", err)
		}
		mustEqual(t, "the number who wait", r.waiting.Load(), 0)
		fill(r, 1)
		mustEqual(t, "the revision told afterwards", mustNext(t, w).Revision, 1)
	})
}

// TestCompactedIsForGood shows that a watcher whose events are gone is told so at
// every call, however much comes after, and that one at the edge misses nothing.
func TestCompactedIsForGood(t *testing.T) {
	r := newRing(4, ringBytesMax, 0)
	fill(r, 1, 1, 1, 2) // five events: revision 1 is gone
	behind, edge := &Watch{ring: r}, &Watch{ring: r, after: 1}
	mustBeCompacted(t, behind)
	heads, sizes := told(t, edge)
	mustEqualSlices(t, "the revisions told at the edge", heads, []Revision{4})
	mustEqualSlices(t, "the number of events at the edge", sizes, []int{4})
	r.publish(5, nil)
	mustBeCompacted(t, behind)
	mustEqual(t, "the number of refused reads", r.compacted.Load(), 2)

	half := &Watch{ring: r, after: 3}
	r.publish(6, events(6, 3)) // half of revision 4 is gone, so all of it is
	mustBeCompacted(t, half)
	heads, _ = told(t, &Watch{ring: r, after: 4})
	mustEqualSlices(t, "the revisions told after the half one", heads, []Revision{6})
}

func mustBeCompacted(t *testing.T, w *Watch) {
	t.Helper()
	if _, err := w.Next(context.Background()); !errors.Is(err, ErrCompacted) {
		t.Fatalf("next after %d: %v, want ErrCompacted", w.after, err)
	}
}

// TestARevisionLargerThanTheRing shows that a revision that does not fit is told to nobody in part.
func TestARevisionLargerThanTheRing(t *testing.T) {
	r := newRing(4, ringBytesMax, 0)
	before, at := &Watch{ring: r}, &Watch{ring: r, after: 1}
	r.publish(1, events(1, 5))
	mustBeCompacted(t, before)
	r.publish(2, events(2, 1))
	heads, sizes := told(t, at)
	mustEqualSlices(t, "the revisions told after it", heads, []Revision{2})
	mustEqualSlices(t, "the number of events", sizes, []int{1})
}

// TestTheRingIsBoundedByBytes shows that large instances push out older events
// before there are many, and that one above the bound is still told.
func TestTheRingIsBoundedByBytes(t *testing.T) {
	large := func(revision Revision, size int) Event {
		i := &Instance{Origin: &nowhere, ID: "a", Labels: Pairs{{"k", strings.Repeat("v", size)}}}
		return Event{Revision: revision, Kind: EventInstancePut, Instance: i}
	}
	r := newRing(ringEventsMax, 10_000, 0)
	for n := range Revision(20) {
		r.publish(n+1, []Event{large(n+1, 1000)})
	}
	kept, bytes := r.size()
	if kept < 5 || kept > 9 || bytes > 10_000 {
		t.Fatalf("the ring keeps %d events in %d bytes, want some six in at most 10000", kept, bytes)
	}
	r.publish(21, []Event{large(21, 50_000)})
	kept, _ = r.size()
	mustEqual(t, "the number kept beside the large one", kept, 1)
	heads, _ := told(t, &Watch{ring: r, after: 20})
	mustEqualSlices(t, "the revisions told", heads, []Revision{21})
	r.publish(22, []Event{large(22, 1)})
	kept, bytes = r.size()
	mustEqual(t, "the number kept after it", kept, 1)
	if bytes > 1000 {
		t.Fatalf("a small event takes %d bytes: the large one's are still counted", bytes)
	}
}

// TestWatchersUnderChurn shows with random publishes of all sizes that watchers
// are told exactly what was published: in order, without a gap or a repeat, in
// whole revisions, or else that they have fallen behind what is kept.
func TestWatchersUnderChurn(t *testing.T) {
	random := newRandom(t)
	for range 5 {
		c := &churn{t: t, random: random, eventsMax: 1 + random.IntN(3*batchEventsMax)}
		c.ring = newRing(c.eventsMax, ringBytesMax, 0)
		for range 8 {
			c.watchers = append(c.watchers, &Watch{ring: c.ring})
		}
		for range 200 {
			c.publish()
			for range 4 {
				c.read(random.IntN(len(c.watchers)))
			}
		}
	}
}

// churn is a ring and what a plain list knows of it.
type churn struct {
	t         *testing.T
	random    *rand.Rand
	eventsMax int
	ring      *ring
	watchers  []*Watch
	all       []Event // that were ever published
	head      Revision
}

func (c *churn) publish() {
	sizes := []int{0, 0, 1, 1, 2, 5, 50, batchEventsMax - 1, batchEventsMax, batchEventsMax + 1}
	var published []Event
	for range 1 + c.random.IntN(3) { // one publish may show several revisions
		c.head += Revision(1 + c.random.IntN(3))
		published = append(published, events(c.head, sizes[c.random.IntN(len(sizes))])...)
	}
	c.ring.publish(c.head, published)
	c.all = append(c.all, published...)
}

// floor is the newest revision of which an event is gone.
func (c *churn) floor() Revision {
	if gone := len(c.all) - c.eventsMax; gone > 0 {
		return c.all[gone-1].Revision
	}
	return 0
}

func (c *churn) read(n int) {
	w := c.watchers[n]
	before := w.after
	batch, more, err := w.Poll()
	switch {
	case before < c.floor():
		if !errors.Is(err, ErrCompacted) {
			c.t.Fatalf("a watcher after %d, of which up to %d is gone: %v, want ErrCompacted", before, c.floor(), err)
		}
		c.watchers[n] = &Watch{ring: c.ring, after: c.head}
	case err != nil:
		c.t.Fatalf("a watcher after %d, of which nothing is gone: %v", before, err)
	case more != (before < c.head):
		c.t.Fatalf("a watcher after %d of %d: more is %v", before, c.head, more)
	case more:
		c.check(before, batch)
	}
}

// upTo is how many events there have been up to a revision.
func (c *churn) upTo(revision Revision) int {
	n, _ := slices.BinarySearchFunc(c.all, revision+1, func(e Event, r Revision) int { return cmp.Compare(e.Revision, r) })
	return n
}

func (c *churn) check(before Revision, b Batch) {
	want := c.all[c.upTo(before):c.upTo(b.Revision)]
	if !slices.Equal(b.Events, want) {
		c.t.Fatalf("a watcher after %d is told %d events up to %d, want %d", before, len(b.Events), b.Revision, len(want))
	}
	if b.Revision <= before || b.Revision > c.head {
		c.t.Fatalf("a watcher after %d of %d is told revision %d", before, c.head, b.Revision)
	}
	if n := len(want); n > batchEventsMax && want[0].Revision != want[n-1].Revision {
		c.t.Fatalf("a batch of %d events is more than one revision", n)
	}
}
