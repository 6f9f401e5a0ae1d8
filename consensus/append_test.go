package consensus

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/storage"
)

// appendBench is an appender on its own, over a disk whose syncs are counted.
type appendBench struct {
	*appender
	t       *testing.T
	syncs   int
	writes  int
	answers []int // for each answer: how many syncs there had been
}

func newAppendBench(t *testing.T) *appendBench {
	t.Helper()
	b := &appendBench{t: t}
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.HasPrefix(op.Path, "wal/") {
			return nil // a directory
		}
		if op.Kind == errorfs.OpFileWrite {
			b.writes++
		}
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo {
			b.syncs++
		}
		return nil
	}))
	log, err := storage.OpenLog(storage.LogOptions{FS: disk, Dir: "wal", Base: Base(), Salt: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	b.appender = &appender{
		id: 1, log: log, clock: systemClock{}, metrics: newMetrics(new(Group)), queue: newMailbox[*pb.Message](make(chan struct{}, 1), 0, 0),
		written: storage.HardState{Term: 1}, respond: func(*pb.Message) { b.answers = append(b.answers, b.syncs) },
	}
	b.syncs = 0
	return b
}

func storageAppend(term, vote, commit uint64, entries ...*pb.Entry) *pb.Message {
	m := &pb.Message{Entries: entries, Responses: []*pb.Message{{}}}
	if term != 0 {
		m.Term, m.Vote, m.Commit = &term, &vote, &commit
	}
	return m
}

func entryAt(index, term uint64) *pb.Entry {
	return &pb.Entry{Index: &index, Term: &term, Data: []byte("data")}
}

// run does the messages in one step and returns how often it synced.
func (b *appendBench) run(messages ...*pb.Message) int {
	b.t.Helper()
	before := b.syncs
	b.answers = nil
	for _, m := range messages {
		b.queue.put(m, 0)
	}
	if err := b.step(); err != nil {
		b.t.Fatal(err)
	}
	if len(b.answers) != len(messages) {
		b.t.Errorf("%d answers to %d messages", len(b.answers), len(messages))
	}
	for _, at := range b.answers {
		if at != b.syncs {
			b.t.Errorf("answered after %d of %d syncs", at-before, b.syncs-before)
		}
	}
	return b.syncs - before
}

// Entries, a term or a vote are synced before they are answered, once for all
// that waits; a commit index that moves alone, or nothing new, is not synced.
func TestWhatIsSynced(t *testing.T) {
	b := newAppendBench(t)
	for _, step := range []struct {
		what     string
		messages []*pb.Message
		syncs    int
	}{
		{"a new term", []*pb.Message{storageAppend(2, 0, 1)}, 1},
		{"a vote", []*pb.Message{storageAppend(2, 3, 1)}, 1},
		{"the same again", []*pb.Message{storageAppend(2, 3, 1)}, 0},
		{"a commit index", []*pb.Message{storageAppend(2, 3, 2)}, 0},
		{"an answer that waits for nothing", []*pb.Message{storageAppend(0, 0, 0)}, 0},
		{"an entry", []*pb.Message{storageAppend(0, 0, 0, entryAt(2, 2))}, 1},
		{"five at once", []*pb.Message{
			storageAppend(0, 0, 0, entryAt(3, 2)), storageAppend(0, 0, 0, entryAt(4, 2)), storageAppend(2, 3, 3),
			storageAppend(3, 0, 3, entryAt(4, 3)), storageAppend(0, 0, 0),
		}, 1},
	} {
		if syncs := b.run(step.messages...); syncs != step.syncs {
			t.Errorf("%s: %d syncs, want %d", step.what, syncs, step.syncs)
		}
	}
	if term, err := b.log.Term(4); err != nil || term != 3 {
		t.Errorf("entry 4 is of term %d, want the one that replaced it, 3: %v", term, err)
	}
}

// One idle tick after a sync the log is marked, once.
func TestTheLogIsMarkedWhenIdle(t *testing.T) {
	b := newAppendBench(t)
	tick := func() int {
		before := b.writes
		b.queue.put(nil, 0)
		if err := b.step(); err != nil {
			t.Fatal(err)
		}
		return b.writes - before
	}
	if n := tick(); n != 0 {
		t.Errorf("%d writes before anything was synced", n)
	}
	b.run(storageAppend(2, 0, 1, entryAt(2, 2)))
	if n := tick(); n != 1 {
		t.Errorf("%d writes one tick after a sync, want a mark", n)
	}
	if n := tick(); n != 0 {
		t.Errorf("%d writes after the mark", n)
	}
}

// A batch above the size of one write is written in several, and synced once.
func TestALargeBatchIsSplit(t *testing.T) {
	b := newAppendBench(t)
	var entries []*pb.Entry
	for i := range uint64(10) {
		e := entryAt(2+i, 1)
		e.Data = make([]byte, appendFrameBytes/4)
		entries = append(entries, e)
	}
	if syncs := b.run(storageAppend(2, 1, 1, entries...)); syncs != 1 {
		t.Errorf("%d syncs, want 1", syncs)
	}
	if last := b.log.LastIndex(); last != 11 {
		t.Errorf("the log ends at %d, want 11", last)
	}
}

// A failed write or sync answers nobody.
func TestAFailedSyncAnswersNobody(t *testing.T) {
	broken := errors.New("broken")
	fails := false
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fails && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return broken
		}
		return nil
	}))
	log, err := storage.OpenLog(storage.LogOptions{FS: disk, Dir: "wal", Base: Base(), Salt: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	b := newAppendBench(t)
	b.log = log
	fails = true
	b.queue.put(storageAppend(2, 1, 1, entryAt(2, 2)), 0)
	if err := b.step(); !errors.Is(err, broken) || len(b.answers) != 0 {
		t.Errorf("step: %v, %d answers", err, len(b.answers))
	}
}
