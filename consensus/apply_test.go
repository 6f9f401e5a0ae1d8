package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// bench is an applier on its own, with a machine that writes down what it gets.
type bench struct {
	*applier
	t       *testing.T
	applied []Entry
	results []result
	last    uint64
	led     []string
	reply   func(Entry) []byte
}

func newBench(t *testing.T, fs vfs.FS) *bench {
	t.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: fs, Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	requests, err := loadRequests(engine)
	if err != nil {
		t.Fatal(err)
	}
	known, err := loadFacts(engine)
	if err != nil {
		t.Fatal(err)
	}
	time, err := loadTime(engine)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, last: max(1, engine.AppliedIndex().Index), reply: func(e Entry) []byte { return e.Data }}
	b.applier = &applier{
		id: 1, uuid: "uuid-1", engine: engine, machine: b, requests: requests, facts: known, time: time, published: new(atomic.Pointer[facts]),
		queue:   newMailbox[applyTask](make(chan struct{}, 1), 0, 0),
		applied: func(batch appliedBatch) { b.results = append(b.results, batch.results...) },
	}
	return b
}

func (b *bench) Apply(_ *storage.Batch, e Entry) []byte {
	b.applied = append(b.applied, e)
	return b.reply(e)
}
func (b *bench) Publish(uint64) {}
func (b *bench) Install(index uint64) error {
	b.led = append(b.led, fmt.Sprint("install ", index))
	return nil
}
func (b *bench) Lead(t uint64) { b.led = append(b.led, fmt.Sprint("lead ", t)) }
func (b *bench) Follow()       { b.led = append(b.led, "follow") }
func (b *bench) Answer(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("nobody asks")
}

// commands applies one batch.
func (b *bench) commands(envelopes ...envelope) error {
	m := &pb.Message{Responses: []*pb.Message{{}}}
	for _, e := range envelopes {
		b.last++
		m.Entries = append(m.Entries, &pb.Entry{Index: new(b.last), Term: new(uint64(2)), Data: e.encode()})
	}
	return b.apply(m)
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func command(id, data string, ms int64) envelope {
	return envelope{kind: kindCommand, requestID: id, payload: []byte(data), time: ms}
}

// told is what the callers were answered.
func (b *bench) told() string {
	var s []string
	for _, r := range b.results {
		s = append(s, fmt.Sprintf("%d→%d:%s", r.index, r.reply.Index, r.reply.Data))
	}
	b.results = nil
	return strings.Join(s, " ")
}

// A request is applied once: in one batch, in a later one, and after a restart.
func TestARequestIsAppliedOnce(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	b.must(b.commands(command("x", "first", 1), command("x", "second", 2), command("y", "other", 3)))
	b.must(b.commands(command("x", "third", 4)))
	if told, want := b.told(), "2→2:first 3→2:first 4→4:other 5→2:first"; told != want {
		t.Errorf("told %s\nwant %s", told, want)
	}
	if len(b.applied) != 2 {
		t.Errorf("the machine applied %v", b.applied)
	}
	b.must(b.engine.Close())
	b = newBench(t, fs)
	b.must(b.commands(command("x", "fourth", 5), command("", "none", 6), command("", "none", 7)))
	if told, want := b.told(), "6→2:first 7→7:none 8→8:none"; told != want {
		t.Errorf("after a restart told %s\nwant %s", told, want)
	}
}

// A reply that is too long to keep leaves the second caller without one, and
// is not applied again.
func TestALongReplyIsNotKept(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	b.reply = func(Entry) []byte { return make([]byte, requestReplyBytesMax+1) }
	b.must(b.commands(command("x", "first", 1), command("x", "second", 2)))
	if r := b.results[1]; !errors.Is(r.err, ErrUnknownOutcome) || len(b.applied) != 1 {
		t.Errorf("the second was told %v, applied %d times", r.err, len(b.applied))
	}
}

// Ids are forgotten by entry time, in the engine too, and by count.
func TestRequestIDsAreForgotten(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	b.must(b.commands(command("x", "first", 1000)))
	b.must(b.commands(command("x", "young", 1000+requestAgeMax)))
	b.must(b.commands(command("x", "old", 1001+requestAgeMax)))
	if told, want := b.told(), "2→2:first 3→2:first 4→4:old"; told != want {
		t.Errorf("told %s\nwant %s", told, want)
	}
	for i := 0; i < requestsMax; i += 1024 {
		var batch []envelope
		for j := range 1024 {
			batch = append(batch, command(fmt.Sprint("n", i+j), "", 2000+requestAgeMax))
		}
		b.must(b.commands(batch...))
	}
	if _, known := b.requests.byID["x"]; known || len(b.requests.byID) != requestsMax {
		t.Errorf("%d ids are remembered, the oldest is one of them: %v", len(b.requests.byID), known)
	}
	kept := 0
	prefix := []byte(requestPrefix)
	b.must(b.engine.Scan(prefix, storage.PrefixEnd(prefix), func(_, _ []byte) error { kept++; return nil }))
	if kept != requestsMax {
		t.Errorf("the engine has %d ids, want %d", kept, requestsMax)
	}
}

// Time does not fall when a leader's clock does, nor over a restart.
func TestEntryTimeNeverFalls(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	b.must(b.commands(command("", "", 10), command("", "", 30), command("", "", 20)))
	b.must(b.engine.Close())
	again := newBench(t, fs)
	again.must(again.commands(command("", "", 25), command("", "", 31)))
	var have []int64
	for _, e := range append(b.applied, again.applied...) {
		have = append(have, e.Time)
	}
	if fmt.Sprint(have) != "[10 30 30 30 31]" {
		t.Errorf("the entries' times are %v", have)
	}
}

// Of the cluster's entries the first counts; an id keeps its first UUID, and an
// empty address replaces nothing.
func TestFactsAreNotOverwritten(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	cluster := func(incarnation string, level uint32) envelope {
		return envelope{kind: kindCluster, payload: marshal(&peerv1.Cluster{Incarnation: incarnation, FeatureLevel: level})}
	}
	member := func(m Member) envelope { return envelope{kind: kindMember, payload: marshal(m.proto())} }
	b.must(b.commands(cluster("one", 1), cluster("two", 1),
		member(Member{ID: 2, UUID: "a", HTTP: "h1", XDS: "x1"}), member(Member{ID: 2, UUID: "a", HTTP: "h2"}), member(Member{ID: 2, UUID: "b", HTTP: "h3"})))
	check := func(f *facts) {
		t.Helper()
		if f.incarnation != "one" || f.members[2] != (Member{ID: 2, UUID: "a", HTTP: "h2", XDS: "x1"}) {
			t.Errorf("incarnation %s, member %+v", f.incarnation, f.members[2])
		}
	}
	check(b.published.Load())
	b.must(b.engine.Close())
	b = newBench(t, fs)
	check(b.facts)

	if err := b.commands(cluster("one", FeatureLevel+1)); !errors.Is(err, errNotUnderstood) {
		t.Errorf("a newer feature level: %v", err)
	}
	if err := b.commands(member(Member{ID: 1, UUID: "other"})); !errors.Is(err, ErrRefused) {
		t.Errorf("another UUID under this member's id: %v", err)
	}
}

// The machine leads from the first entry of its own term on, and no sooner:
// what was committed before may still be on its way. Each Lead has its Follow.
func TestLeadComesWithTheTermsFirstEntry(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	do := func(want string, tasks ...applyTask) {
		t.Helper()
		for _, task := range tasks {
			b.queue.put(task, 0)
		}
		b.must(b.step())
		if have := strings.Join(b.led, ", "); have != want {
			t.Errorf("told %q, want %q", have, want)
		}
	}
	entry := func(index, term uint64) applyTask {
		return applyTask{entries: &pb.Message{Entries: []*pb.Entry{{Index: &index, Term: &term}}, Responses: []*pb.Message{{}}}}
	}
	do("", applyTask{leads: 3})
	do("", entry(2, 2))
	do("lead 3", entry(3, 3))
	do("lead 3", entry(4, 3))
	do("lead 3, follow", applyTask{follows: true})
	do("lead 3, follow", entry(5, 3))
	do("lead 3, follow", applyTask{leads: 4}, applyTask{follows: true}, entry(6, 4))
	do("lead 3, follow, lead 6", applyTask{leads: 6}, entry(7, 6))
}

// A batch that cannot be applied whole changes nothing.
func TestABatchIsAppliedWholeOrNotAtAll(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	if err := b.commands(command("x", "first", 1), envelope{kind: 99}); !errors.Is(err, errNotUnderstood) {
		t.Fatalf("applied: %v", err)
	}
	if at := b.engine.AppliedIndex(); at.Index != 0 || len(b.results) != 0 {
		t.Errorf("applied up to %d, answered %v", at.Index, b.results)
	}
	if _, ok, err := b.engine.Get(requestKey(2)); ok || err != nil {
		t.Errorf("the request of the failed batch is there: %v, %v", ok, err)
	}
}

// A remembered request comes back as it was; one that is cut short is an error.
func TestRequestRoundTrip(t *testing.T) {
	want, reply := request{index: 5, time: -7, id: "id"}, requestReply{kept: true, data: []byte("reply")}
	b := encodeRequest(want, reply)
	q, r, err := decodeRequest(b)
	if err != nil || q != want || !r.kept || !bytes.Equal(r.data, reply.data) {
		t.Errorf("%+v %+v %v", q, r, err)
	}
	for n := range len(b) - len(reply.data) {
		if _, _, err := decodeRequest(b[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for a whole request", n, len(b))
		}
	}
}
