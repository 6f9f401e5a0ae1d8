package registry

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// TestAnyMemberGoesOnWithAWatcher shows with random commands and bounds that a
// watcher which has seen a revision is told the same by a member that was there, by
// one that was started anew and by one that has taken over a snapshot: all that came
// after it, or that some of it is no longer kept.
func TestAnyMemberGoesOnWithAWatcher(t *testing.T) {
	random := newRandom(t)
	for range 4 {
		c := newPast(t, random)
		log := (&author{random: random, clock: 1_800_000_000_000, term: 1}).write(400)
		for n := range log {
			c.apply(&log[n])
			if n%67 == 66 {
				c.check()
			}
		}
		c.check()
	}
}

// past is a member with a history, and what a plain list knows of it.
type past struct {
	t      *testing.T
	random *rand.Rand
	config MachineConfig
	member *Machine
	index  Revision
	all    []Event // that were ever told
	watch  *Watch
}

func newPast(t *testing.T, random *rand.Rand) *past {
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &past{t: t, random: random}
	c.config = MachineConfig{Engine: engine, Region: "here", EventsMax: 1 + random.IntN(200), History: HistoryBounds{Events: 1 + random.IntN(2000), Bytes: 1 + random.IntN(400_000), Age: time.Duration(1+random.IntN(600)) * time.Minute}}
	c.member = c.open()
	c.watch = c.member.Watch(0)
	return c
}

func (c *past) open() *Machine {
	m, err := OpenMachine(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *past) apply(e *Entry) {
	applyEntry(c.t, c.config.Engine, c.member, *e)
	c.member.Publish(e.Index)
	c.index = e.Index
	batch, more, err := c.watch.Poll()
	switch {
	case errors.Is(err, ErrCompacted): // the revision alone is more than is kept
		c.watch = c.member.Watch(e.Index)
	case err != nil || !more:
		c.t.Fatalf("who watches is told of revision %d: %v, %v", e.Index, more, err)
	default:
		c.all = append(c.all, batch.Events...)
	}
}

// check asks members of each kind.
func (c *past) check() {
	installed := c.install()
	for name, m := range map[string]*Machine{"the same": c.member, "one that was started anew": c.open(), "one that has installed a snapshot": installed} {
		mustEqual(c.t, "the bookkeeping of "+name, c.kept(m), c.kept(c.member))
		for range 12 {
			c.mustGoOn(name, m, Revision(c.random.IntN(int(c.index)+1)))
		}
	}
}

func (c *past) kept(m *Machine) string {
	h := m.working.history
	return fmt.Sprintf("from %d on %d events in %d bytes: %v", h.floor, h.events, h.bytes, h.kept[h.first:])
}

// install makes a member of the snapshot of a state.
func (c *past) install() *Machine {
	m := newMember(c.t, newManualClock())
	m.machine.history, m.machine.ring.eventsMax = c.config.History, c.config.EventsMax
	m.machine.Follow()
	m.becomes(&member{tb: c.t, engine: c.config.Engine})
	return m.machine
}

func (c *past) mustGoOn(name string, m *Machine, after Revision) {
	c.t.Helper()
	var got, want []string
	for _, e := range c.all {
		if e.Revision > after {
			want = append(want, plain(&e))
		}
	}
	watch := m.Watch(after)
	for {
		batch, more, err := watch.Poll()
		if floor := c.member.working.history.floor; err != nil {
			if !errors.Is(err, ErrCompacted) || after >= floor {
				c.t.Fatalf("%s says to a watcher after %d of %d, from %d on: %v", name, after, c.index, floor, err)
			}
			return
		}
		if !more {
			break
		}
		for i := range batch.Events {
			got = append(got, plain(&batch.Events[i]))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		c.t.Fatalf("%s tells a watcher after %d:\n%s\nwant:\n%s", name, after, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func plain(e *Event) string {
	return fmt.Sprintf("%d %s %v %+v %+v %v %v", e.Revision, e.Kind, e.Service, e.Instance, e.Previous, e.HandedOut, e.WasHandedOut)
}

// TestTheHistoryIsBounded shows what makes changes go: their number, their bytes and
// their age, the last a few revisions at a time.
func TestTheHistoryIsBounded(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	h := m.machine.working.history
	mustEqual(t, "the bounds that nobody has named", h.bounds, HistoryBounds{Events: 131_072, Bytes: 48 << 20, Age: time.Hour})
	h.bounds.Events = 3 * historyAgedMax
	for n := range 4 * historyAgedMax {
		m.register(reg("prod", "orders", fmt.Sprint("i", n), "10.0.0.1", 80))
	}
	mustEqual(t, "the number kept", h.events, h.bounds.Events)
	mustEqual(t, "the records kept", m.records(), h.bounds.Events)
	mustEqual(t, "the floor", h.floor, m.index-Revision(h.bounds.Events))

	one := h.bytes / h.events
	h.bounds.Bytes = 2*historyAgedMax*one + one/2
	m.register(reg("prod", "orders", "i0", "10.0.0.2", 80))
	if h.bytes > h.bounds.Bytes || h.bytes < h.bounds.Bytes-2*one {
		t.Fatalf("%d bytes are kept, of at most %d", h.bytes, h.bounds.Bytes)
	}

	clock.advance(h.bounds.Age)
	before := h.events
	m.register(reg("prod", "orders", "i0", "10.0.0.3", 80))
	clock.advance(time.Millisecond)
	mustEqual(t, "the number that are as old as they may be", h.events > before/2, true)
	m.register(reg("prod", "orders", "i0", "10.0.0.4", 80))
	mustEqual(t, "the number that one entry takes", before+1+1-h.events >= historyAgedMax, true)
	mustEqual(t, "the number that two entries take", before+1+1-h.events <= historyAgedMax+2, true)
	for range 3 {
		m.heartbeatInLog("i0")
	}
	mustEqual(t, "the number kept in the end", h.events, 2)
	mustEqual(t, "the records kept in the end", m.records(), 2)
}

// heartbeatInLog is an entry that changes nothing that a reader can see.
func (m *member) heartbeatInLog(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commit(renewCommand(&pendingRenewal{key: InstanceKey{"prod", "orders", id}}))
}

// records are the revisions of which the engine has the changes.
func (m *member) records() (n int) {
	lo := []byte(storage.EventPrefix)
	if err := m.engine.Scan(lo, storage.PrefixEnd(lo), func([]byte, []byte) error { n++; return nil }); err != nil {
		m.tb.Fatal(err)
	}
	return n
}

// TestARestoredClusterHasAPastOfItsOwn shows that a watcher with a revision of the
// cluster before, which may have gone on after the backup, is not gone on with.
func TestARestoredClusterHasAPastOfItsOwn(t *testing.T) {
	m := newMember(t, newManualClock())
	for n := range 5 {
		m.register(reg("prod", "orders", fmt.Sprint("i", n), "10.0.0.1", 80))
	}
	last, begins := m.index, Revision(1)<<40
	if err := m.engine.Apply(m.engine.NewBatch(), storage.Position{Index: uint64(begins), Term: 2}); err != nil {
		t.Fatal(err)
	}
	restored := mustOpen(t, m.engine)
	applyEntry(t, m.engine, restored, Entry{Index: begins + 1, Term: 2, Time: m.latest, Data: registration("new", 80)})
	restored.Publish(begins + 1)
	for _, member := range []*Machine{restored, mustOpen(t, m.engine)} {
		for _, after := range []Revision{last - 2, last, last + 7} {
			mustBeCompacted(t, member.Watch(after))
		}
		heads, _ := told(t, member.Watch(begins))
		mustEqualSlices(t, "the revisions told after the restore", heads, []Revision{begins + 1})
	}
}

// TestChangesThatCannotBeRead shows that changes of a later version are told to nobody in part.
func TestChangesThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		event *recordv1.EventRecord
		says  string
	}{
		"a kind of the future":             {&recordv1.EventRecord{Kind: 7}, "the changes of revision 9: one is of kind 7, which this version does not know"},
		"no kind":                          {&recordv1.EventRecord{}, "one is of kind 0"},
		"an instance of a future format":   {&recordv1.EventRecord{Kind: 1, Id: "a", Instance: &recordv1.InstanceRecord{Format: 2}}, `instance "a" of service "" in namespace "" has format 2`},
		"a previous one without a format":  {&recordv1.EventRecord{Kind: 1, Id: "a", Previous: &recordv1.InstanceRecord{}}, `instance "a" of service "" in namespace "" has no format`},
		"a previous one of unknown status": {&recordv1.EventRecord{Kind: 1, Id: "a", Previous: &recordv1.InstanceRecord{Format: 1, Status: 9}}, "has status 9"},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := newReader("here").decodeEvents(9, encode(&recordv1.EventsRecord{Format: 1, Events: []*recordv1.EventRecord{c.event}}), nil)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("it is read as %+v, %v; want %q", events, err, c.says)
			}
		})
	}
}

// TestEventsAreEncodedAsProtobufDoes shows that what is put together by hand is what
// the messages would be.
func TestEventsAreEncodedAsProtobufDoes(t *testing.T) {
	i := &Instance{Origin: &Origin{Namespace: "prod", Service: "orders"}, ID: "a", Status: StatusCritical, Revision: 300, Endpoints: []Endpoint{{Name: "http", Protocol: "http", Host: "10.0.0.1", Port: 80}}}
	for _, events := range [][]Event{
		{{Kind: EventServicePut, Service: ServiceKey{"prod", strings.Repeat("s", 200)}}},
		{{Kind: EventInstancePut, Service: i.ServiceKey(), Instance: i}, {Kind: EventInstanceDelete, Service: i.ServiceKey(), Previous: i, WasHandedOut: true}},
		{{Kind: EventInstancePut, Service: i.ServiceKey(), Instance: i, Previous: i, HandedOut: true}},
	} {
		var record recordv1.EventsRecord
		if err := proto.Unmarshal(recordOf(events), &record); err != nil {
			t.Fatal(err)
		}
		if got, want := recordOf(events), encode(&record); !bytes.Equal(got, want) || int(record.GetCount()) != len(events) {
			t.Errorf("%d events are\n%x, want\n%x", len(events), got, want)
		}
	}
}
