package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// What has changed, kept for whoever was not there to be told.
//
// A ring in a member's memory would do for watchers that stay. One that comes back
// comes to another member, or to one that was started anew or has taken over a
// snapshot, and would have to read everything again; after an outage all of them
// would, at once. So the changes are part of the state: Apply writes those of each
// entry beside what they did, in the same batch, and lets the oldest go. Every
// member has the same ones, and a snapshot brings them along. Whoever has seen a
// revision at or above the floor is told all that came after it, by any member.
//
// What goes is decided by the entries alone: by the number of events, by the bytes
// of their records, and by the entries' time, which never falls. A leader whose
// clock is ahead makes events old that are not; watchers that are connected have
// seen them, and others read the state anew.
//
// The ring in front of it has the newest events decoded, for the many that are
// nearly level. Who is further behind has them read from the engine.

// HistoryBounds say how much of what has changed is kept. They are to be the same
// on all members of a cluster, or their states part.
type HistoryBounds struct {
	Events int           // 0 = 131,072
	Bytes  int           // of the records; 0 = 48 MiB
	Age    time.Duration // 0 = 1 h
}

// The bounds of the history, unless it is given others.
const (
	historyEventsMax = 131_072
	historyBytesMax  = 48 << 20
	historyAgeMax    = time.Hour
)

// historyAgedMax is how many revisions one entry lets go for their age: after a
// quiet hour all of them have come of it, and no entry may have to pay for all.
const historyAgedMax = 64

// ringWarmEvents is how many of the newest events a member that starts or installs
// a state has decoded for its watchers, who will all be back within a moment.
const ringWarmEvents = 16_384

func (b HistoryBounds) filled() HistoryBounds {
	if b.Events == 0 {
		b.Events = historyEventsMax
	}
	if b.Bytes == 0 {
		b.Bytes = historyBytesMax
	}
	if b.Age == 0 {
		b.Age = historyAgeMax
	}
	return b
}

// A history knows which revisions have their changes kept, and what each takes. It
// belongs to the working state.
type history struct {
	bounds HistoryBounds
	begun  bool     // there is a floor in the engine
	floor  Revision // the changes of all later revisions are kept

	kept          []keptRevision // the oldest is at first
	first         int
	events, bytes int
}

// A keptRevision is a revision whose changes are kept.
type keptRevision struct {
	revision Revision
	timeMs   int64
	events   int32
	bytes    int32
}

func newHistory(bounds HistoryBounds) *history { return &history{bounds: bounds.filled()} }

func (h *history) push(k keptRevision) {
	if h.first > len(h.kept)/2 { // so that the slice does not grow for ever
		h.kept = slices.Delete(h.kept, 0, h.first)
		h.first = 0
	}
	h.kept = append(h.kept, k)
	h.events += int(k.events)
	h.bytes += int(k.bytes)
}

// full says that the oldest revision has to go at once.
func (h *history) full() bool {
	return h.first < len(h.kept) && (h.events > h.bounds.Events || h.bytes > h.bounds.Bytes)
}

// aged says that the oldest revision is too old.
func (h *history) aged(now int64) bool {
	return h.first < len(h.kept) && now-h.kept[h.first].timeMs > h.bounds.Age.Milliseconds()
}

func (h *history) pop() Revision {
	k := h.kept[h.first]
	h.first++
	h.events -= int(k.events)
	h.bytes -= int(k.bytes)
	h.floor = k.revision
	return k.revision
}

// A keptHistory is what metrics say of the history.
type keptHistory struct{ events, bytes, floor atomic.Uint64 }

func (k *keptHistory) note(h *history) {
	k.events.Store(uint64(h.events))
	k.bytes.Store(uint64(h.bytes))
	k.floor.Store(uint64(h.floor))
}

// remember keeps what the entry has changed, and lets go what is too much or too old.
func (t *step) remember() {
	h := t.state.history
	before := h.floor
	record, count := t.eventsRecord()
	if count > 0 {
		if !h.begun && len(t.state.order) > t.servicesMade() { // a state from before there was a history
			h.floor = t.entry.Index - 1
		}
		key := storage.EventKey(uint64(t.entry.Index))
		t.batch.Set(key, record)
		h.push(keptRevision{revision: t.entry.Index, timeMs: t.entry.Time, events: int32(count), bytes: int32(len(key) + len(record))})
	}
	for h.full() {
		t.batch.Delete(storage.EventKey(uint64(h.pop())))
	}
	for n := 0; n < historyAgedMax && h.aged(t.entry.Time); n++ {
		t.batch.Delete(storage.EventKey(uint64(h.pop())))
	}
	if h.floor != before || !h.begun && count > 0 {
		h.begun = true
		t.batch.Set([]byte(storage.HistoryKey), encode(&recordv1.HistoryRecord{Format: formatMax, Floor: uint64(h.floor)}))
	}
}

// servicesMade is how many services the entry has made.
func (t *step) servicesMade() int {
	n := 0
	for _, d := range t.services {
		if d.record.created == t.entry.Index && !d.gone {
			n++
		}
	}
	return n
}

// eventsRecord is what readers can tell of the entry. It is put together by hand, in
// the order of its fields: the instances are encoded already, or ought to be but
// once, and every entry pays for it.
func (t *step) eventsRecord() (record []byte, count int) {
	size := 0
	for i := range t.changes {
		if c := &t.changes[i]; !c.silent {
			size += eventBytes + 2*len(c.encoded)
			count++
		}
	}
	if count == 0 {
		return nil, 0
	}
	record = make([]byte, 0, size)
	record = appendNumber(record, eventsFormatField, formatMax)
	record = appendNumber(record, eventsTimeField, uint64(t.entry.Time))
	record = appendNumber(record, eventsCountField, uint64(count))
	var event []byte
	for i := range t.changes {
		if c := &t.changes[i]; !c.silent {
			event = appendEvent(event[:0], c)
			record = protowire.AppendBytes(protowire.AppendTag(record, eventsEventsField, protowire.BytesType), event)
		}
	}
	return record, count
}

// eventBytes is about what an event takes beside its instances.
const eventBytes = 128

// The numbers of EventsRecord, EventRecord and ServiceKey in record.proto.
const (
	eventsFormatField = 1
	eventsTimeField   = 2
	eventsCountField  = 3
	eventsEventsField = 4

	eventKindField         = 1
	eventServiceField      = 2
	eventIDField           = 3
	eventInstanceField     = 4
	eventPreviousField     = 5
	eventHandedOutField    = 6
	eventWasHandedOutField = 7

	serviceNamespaceField = 1
	serviceServiceField   = 2
)

func appendEvent(b []byte, c *change) []byte {
	b = appendNumber(b, eventKindField, uint64(c.kind()))
	b = protowire.AppendTag(b, eventServiceField, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(textSize(c.service.Namespace)+textSize(c.service.Service)))
	b = appendPart(appendPart(b, serviceNamespaceField, c.service.Namespace), serviceServiceField, c.service.Service)
	switch {
	case c.instance != nil:
		b = appendPart(b, eventIDField, c.instance.ID)
	case c.previous != nil:
		b = appendPart(b, eventIDField, c.previous.ID)
	}
	if c.encoded != nil {
		b = appendPart(b, eventInstanceField, c.encoded)
	} else if c.instance != nil {
		b = appendPart(b, eventInstanceField, c.instance.encode())
	}
	if c.previous != nil {
		b = appendPart(b, eventPreviousField, c.previous.encode())
	}
	if c.handedOut {
		b = appendNumber(b, eventHandedOutField, 1)
	}
	if c.wasHandedOut {
		b = appendNumber(b, eventWasHandedOutField, 1)
	}
	return b
}

// appendNumber leaves zero out, as protobuf does, and appendPart what is empty.
func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendPart[T string | []byte](b []byte, field protowire.Number, part T) []byte {
	if len(part) == 0 {
		return b
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(len(part)))
	return append(b, part...)
}

// textSize is what appendPart adds for a field with a small number.
func textSize(text string) int {
	if text == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(text))
}

// decodeEvents reads what a revision has changed, or those of the services that are
// wanted: most of what one watcher passes over is for others, and reading an instance
// costs many times what reading its service's name does. A nil wanted wants all.
func (d *reader) decodeEvents(revision Revision, value []byte, wanted func(ServiceKey) bool) ([]Event, error) {
	head, records := splitEvents(value)
	var record recordv1.EventsRecord
	if err := unmarshalRecord(fmt.Sprintf("the changes of revision %d", revision), head, &record); err != nil {
		return nil, err
	}
	var events []Event
	for n, one := range records {
		if wanted != nil && !wanted(serviceOfEvent(one)) {
			continue
		}
		e, err := d.decodeEvent(one)
		if err != nil {
			return nil, fmt.Errorf("read the changes of revision %d: %w", revision, err)
		}
		e.Revision, e.Order = revision, n
		events = append(events, e)
	}
	return events, nil
}

func (d *reader) decodeEvent(value []byte) (Event, error) {
	var r recordv1.EventRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return Event{}, err
	}
	e := Event{
		Kind: EventKind(r.GetKind()), HandedOut: r.GetHandedOut(), WasHandedOut: r.GetWasHandedOut(),
		Service: ServiceKey{Namespace: d.share(r.GetService().GetNamespace()), Service: d.share(r.GetService().GetService())},
	}
	if e.Kind == 0 || e.Kind > EventUpstreams {
		return Event{}, fmt.Errorf("one is of kind %d, which this version does not know: run a newer version", e.Kind)
	}
	k := InstanceKey{Namespace: e.Service.Namespace, Service: e.Service.Service, ID: r.GetId()}
	var wrong [2]error
	e.Instance, wrong[0] = d.instanceOfRecord(k, r.GetInstance())
	e.Previous, wrong[1] = d.instanceOfRecord(k, r.GetPrevious())
	return e, errors.Join(wrong[:]...)
}

// splitEvents takes the events out of a revision's changes. What cannot be read stays
// in the head, whose reader finds it out.
func splitEvents(value []byte) (head []byte, events [][]byte) {
	for rest := value; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return append(head, rest...), events
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if size < 0 {
			return append(head, rest...), events
		}
		if number == eventsEventsField && kind == protowire.BytesType {
			event, _ := protowire.ConsumeBytes(rest[n:])
			events = append(events, event)
		} else {
			head = append(head, rest[:n+size]...)
		}
		rest = rest[n+size:]
	}
	return head, events
}

// serviceOfEvent is the service of an event that is not read otherwise.
func serviceOfEvent(event []byte) ServiceKey {
	service := partOf(event, eventServiceField)
	return ServiceKey{Namespace: string(partOf(service, serviceNamespaceField)), Service: string(partOf(service, serviceServiceField))}
}

// partOf is the last field of a message that has a number and bytes; nil when there is none.
func partOf(message []byte, wanted protowire.Number) (part []byte) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return part
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return part
		}
		if number == wanted && kind == protowire.BytesType {
			part, _ = protowire.ConsumeBytes(message[n:])
		}
		message = message[n+size:]
	}
	return part
}

func (d *reader) instanceOfRecord(k InstanceKey, r *recordv1.InstanceRecord) (*Instance, error) {
	if r == nil {
		return nil, nil
	}
	return d.recorded(k, r)
}

// decodeKept reads of a revision's changes what the history has to know.
func decodeKept(revision Revision, value []byte, bytes int) (keptRevision, error) {
	kept := keptRevision{revision: revision, bytes: int32(bytes)}
	head := value
	for rest := value; len(rest) > 0; { // to where the events begin
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			break // which is found out below
		}
		if number == eventsEventsField {
			head = value[:len(value)-len(rest)]
			break
		}
		rest = rest[n:]
	}
	var record recordv1.EventsRecord
	if err := unmarshalRecord(fmt.Sprintf("the changes of revision %d", revision), head, &record); err != nil {
		return keptRevision{}, err
	}
	kept.timeMs, kept.events = record.GetTimeMs(), int32(record.GetCount())
	return kept, nil
}

// loadHistory reads back which revisions have their changes kept.
func (m *Machine) loadHistory(h *history) error {
	value, found, err := m.engine.Get([]byte(storage.HistoryKey))
	if err != nil {
		return err
	}
	if found {
		var record recordv1.HistoryRecord
		if err := unmarshalRecord("the floor of the history", value, &record); err != nil {
			return err
		}
		h.begun, h.floor = true, Revision(record.GetFloor())
	}
	return m.scanEvents(0, revisionMax, func(revision Revision, value []byte) error {
		k, err := decodeKept(revision, value, len(storage.EventKey(uint64(revision)))+len(value))
		if err != nil {
			return err
		}
		h.push(k)
		return nil
	})
}

// noteAncient notes up to where a state that has just been read is from before there was a history.
func (m *Machine) noteAncient(s *state, at Revision) {
	m.ancient.Store(0)
	if !s.history.begun && len(s.order) > 0 {
		m.ancient.Store(uint64(at))
	}
}

// revisionMax is above every revision.
const revisionMax = Revision(1) << 53

// scanEvents reads the records of the revisions after one, up to another.
func (m *Machine) scanEvents(after, upTo Revision, fn func(Revision, []byte) error) error {
	return m.engine.Scan(storage.EventKey(uint64(after+1)), storage.EventKey(uint64(upTo+1)), func(key, value []byte) error {
		text := string(key[len(storage.EventPrefix):])
		revision, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return fmt.Errorf("changes %q have no revision: %w", text, err)
		}
		return fn(Revision(revision), value)
	})
}

// revisionEra tells a restored cluster's revisions from those of the one before: the
// log of a restored one begins at the next multiple of 2^40. What the old one did
// after its backup the history does not have.
func revisionEra(r Revision) Revision { return r >> 40 }

// errEnough ends a scan.
var errEnough = errors.New("registry: enough")

// The bounds of reading the history for watchers that are far behind. After an outage
// all of them are, at once: those that find no place wait for one, and each gives its
// place up when it has looked at so much.
const (
	catchUpsMax       = 4
	catchUpRecordsMax = 16_384
)

// catchUps are the places of those that read the history.
type catchUps struct {
	places  chan struct{}
	reading atomic.Int64 // or waiting for a place
}

func newCatchUps() *catchUps { return &catchUps{places: make(chan struct{}, catchUpsMax)} }

// do runs fn within a place. Who finds one is not asked whether he still wants it: what
// is there already is told to a watcher whose context is over, too.
func (c *catchUps) do(ctx context.Context, fn func() (Batch, error)) (Batch, error) {
	c.reading.Add(1)
	defer c.reading.Add(-1)
	select {
	case c.places <- struct{}{}:
	default:
		select {
		case c.places <- struct{}{}:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
	defer func() { <-c.places }()
	return fn()
}

// older reads what came after a revision that the ring no longer goes back to, up to
// where the ring begins. The error is ErrCompacted when not all of it is kept.
func (m *Machine) older(after, upTo Revision) (Batch, error) { return m.olderOf(after, upTo, nil) }

// olderOf is older for the services that are wanted.
//
// The floor is looked at last: what was cut while the changes were read is below it.
func (m *Machine) olderOf(after, upTo Revision, wanted func(ServiceKey) bool) (Batch, error) {
	if revisionEra(after) != revisionEra(upTo) || after < Revision(m.ancient.Load()) {
		return Batch{}, ErrCompacted
	}
	d := newReader(m.reader.region)
	batch, looked, last := Batch{Revision: upTo}, 0, after
	err := m.scanEvents(after, upTo, func(revision Revision, value []byte) error {
		if len(batch.Events) >= batchEventsMax || looked >= catchUpRecordsMax {
			return errEnough
		}
		looked, last = looked+1, revision
		events, err := d.decodeEvents(revision, value, wanted)
		batch.Events = append(batch.Events, events...)
		return err
	})
	if errors.Is(err, errEnough) {
		batch.Revision, err = last, nil
	}
	if err != nil {
		return Batch{}, fmt.Errorf("read the history after revision %d: %w", after, err)
	}
	floor, err := m.historyFloor()
	if err != nil {
		return Batch{}, err
	}
	if after < floor {
		return Batch{}, ErrCompacted
	}
	return batch, nil
}

// historyFloor is the floor as the engine has it.
func (m *Machine) historyFloor() (Revision, error) {
	value, found, err := m.engine.Get([]byte(storage.HistoryKey))
	if err != nil || !found {
		return 0, err
	}
	var record recordv1.HistoryRecord
	err = proto.Unmarshal(value, &record)
	return Revision(record.GetFloor()), err
}

// newest are the newest events that the history has, as many as a ring is warmed
// with, and the revision after which they are all.
func (m *Machine) newest(h *history, at Revision) (floor Revision, events []Event, err error) {
	floor = max(h.floor, revisionEra(at)<<40)
	if !h.begun {
		floor = at
	}
	n := 0
	for i := len(h.kept) - 1; i >= h.first && h.kept[i].revision > floor; i-- {
		if n += int(h.kept[i].events); n > ringWarmEvents {
			floor = h.kept[i].revision
			break
		}
	}
	err = m.scanEvents(floor, at, func(revision Revision, value []byte) error {
		some, err := m.reader.decodeEvents(revision, value, nil)
		events = append(events, some...)
		return err
	})
	return floor, events, err
}
