package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"github.com/stellmap/stellmap/storage"
)

// inShortBubble runs a test with one member whose log and snapshots are small.
func inShortBubble(t *testing.T, tune func(*Config), test func(t *testing.T, n *node)) {
	cryptotest.SetGlobalRandom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		c := newTunedCluster(t, 1, true, tune)
		c.settle()
		test(t, c.nodes[1])
	})
}

// fill proposes so many commands.
func (n *node) fill(t *testing.T, commands, size int) {
	t.Helper()
	for i := range commands {
		done := make(chan error, 1)
		go func() {
			_, err := n.Propose(context.Background(), "", fmt.Appendf(bytes.Repeat([]byte("x"), size), "%d", i))
			done <- err
		}()
		n.cluster.settle()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// compacts does what the member does once a second, and the tick on which the log is cut.
func (n *node) compacts(t *testing.T) {
	t.Helper()
	if err := n.compact(); err != nil {
		t.Fatal(err)
	}
	n.cluster.tick(n.cluster.ids())
}

func (n *node) flushes(t *testing.T) {
	t.Helper()
	if err := n.config.Engine.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A snapshot does not let the log go above what the state has on disk: after a power cut the log has the rest.
func TestNothingIsCutAboveWhatIsDurable(t *testing.T) {
	inShortBubble(t, nil, func(t *testing.T, n *node) {
		n.fill(t, 40, 1)
		n.compacts(t)
		if s := n.Status(); s.Snapshot < 40 || s.LogFirst != Base().Index+1 {
			t.Fatalf("snapshot %d, and the log begins at %d, though the state on disk is that of %d", s.Snapshot, s.LogFirst, Base().Index)
		}
		n.flushes(t)
		durable := n.Status().Applied
		n.fill(t, 40, 1)
		n.compacts(t)
		n.compacts(t)
		if s := n.Status(); s.LogFirst <= Base().Index+1 || s.LogFirst > durable+1 {
			t.Fatalf("the log begins at %d, and the state on disk is that of %d", s.LogFirst, durable)
		}
		applied, content := n.Status().Applied, n.machine.content()
		n.crash()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		n.cluster.settle()
		if s := n.Status(); s.Applied < applied || n.machine.content() != content {
			t.Errorf("after a power cut %d is applied, want %d at least, and the state is %q, want %q", s.Applied, applied, n.machine.content(), content)
		}
	})
}

// Raft goes on from what it was told is applied. The state may be ahead of that for a moment, on disk even, and the
// log must not be cut between the two.
func TestNothingIsCutAboveWhatRaftKnowsToBeApplied(t *testing.T) {
	inShortBubble(t, nil, func(t *testing.T, n *node) {
		n.fill(t, 40, 1)
		n.flushes(t)
		n.compacts(t)
		known := *n.status.Load()
		behind := known
		behind.Applied = 20
		n.status.Store(&behind)
		if cut, err := n.cuttable(); err != nil || cut+n.config.LogTail > 20 {
			t.Errorf("the log may be cut up to %d (%v), and Raft has not gone on from 20", cut, err)
		}
		n.status.Store(&known)
		if cut, err := n.cuttable(); err != nil || cut <= 20 {
			t.Errorf("the log may be cut up to %d (%v), want more", cut, err)
		}
	})
}

// Without a snapshot nothing is cut, also when there were some that proved damaged, and the next one is taken at once.
func TestNothingIsCutWithoutASnapshot(t *testing.T) {
	inShortBubble(t, nil, func(t *testing.T, n *node) {
		n.fill(t, 40, 1)
		n.flushes(t)
		if cut, err := n.cuttable(); err != nil || cut != 0 {
			t.Errorf("before the first snapshot the log may be cut up to %d (%v)", cut, err)
		}
		n.compacts(t)
		n.fill(t, 40, 1)
		n.flushes(t)
		n.compacts(t)
		list := n.config.Snapshots.List()
		if cut, err := n.cuttable(); err != nil || len(list) != 2 || cut == 0 || cut > list[1].Index {
			t.Fatalf("with the snapshots %v the log may be cut up to %d (%v)", list, cut, err)
		}
		for _, m := range list {
			path := fmt.Sprintf("data/snapshot/%020d-%020d.snap", m.Term, m.Index)
			if err := n.fs.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := n.config.Snapshots.Verify(m); err == nil {
				t.Fatalf("%s was removed, and is intact", path)
			}
		}
		if cut, err := n.cuttable(); err != nil || cut != 0 {
			t.Errorf("when all snapshots are damaged the log may be cut up to %d (%v)", cut, err)
		}
		n.compacts(t)
		if s := n.Status(); s.Snapshot < list[0].Index {
			t.Errorf("the newest snapshot is %d, want a new one above %d", s.Snapshot, list[0].Index)
		}
	})
}

// Few large entries are as good a reason for a snapshot as many small ones. A cluster that nobody writes to takes none.
func TestLargeEntriesAreCutByTheirBytes(t *testing.T) {
	tune := func(c *Config) { c.SnapshotEntries, c.SnapshotBytes, c.LogTail = 1<<20, 16<<10, 4 }
	inShortBubble(t, tune, func(t *testing.T, n *node) {
		n.fill(t, 20, 1<<10)
		n.flushes(t)
		n.compacts(t)
		n.compacts(t)
		if s := n.Status(); s.Snapshot == 0 || s.LogFirst < 10 {
			t.Errorf("after 20 entries of 1 KiB the snapshot is %d, and the log begins at %d", s.Snapshot, s.LogFirst)
		}
		last := n.Status().Commit
		for range 200 {
			n.cluster.tick(n.cluster.ids())
		}
		if s := n.Status(); s.Commit > last+1 {
			t.Errorf("a cluster that nobody writes to has gone on from %d to %d", last, s.Commit)
		}
	})
}

// A disk that has no room for a snapshot does not end the member. It tries again after a while, and nothing is left
// of what did not fit.
func TestASnapshotWithoutRoomIsPutOff(t *testing.T) {
	inShortBubble(t, nil, func(t *testing.T, n *node) {
		n.fill(t, 40, 1)
		n.flushes(t)
		n.trouble.full.Store(true)
		n.compacts(t)
		if s := n.Status(); s.Snapshot != 0 || s.LogFirst != Base().Index+1 {
			t.Errorf("snapshot %d, and the log begins at %d", s.Snapshot, s.LogFirst)
		}
		if names, err := n.fs.List("data/snapshot"); err != nil || len(names) != 0 {
			t.Errorf("there are %v (%v)", names, err)
		}
		n.trouble.full.Store(false)
		n.compacts(t)
		if s := n.Status(); s.Snapshot != 0 {
			t.Errorf("a snapshot at %d was taken at once", s.Snapshot)
		}
		for n.Now().Before(n.snapshotAfter) {
			n.cluster.tick(n.cluster.ids())
		}
		n.compacts(t)
		if s := n.Status(); s.Snapshot == 0 || s.LogFirst == Base().Index+1 {
			t.Errorf("when there is room again the snapshot is %d, and the log begins at %d", s.Snapshot, s.LogFirst)
		}
	})
}

// Whoever does not wait for its moment in the state any more leaves nothing open: the engine closes, which it does
// not with a snapshot.
func TestACallerThatLeavesASnapshotLeaksNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(t *testing.T, n *node)
	}{
		{"before the answer", func(t *testing.T, n *node) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := n.Snapshot(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("left with %v", err)
			}
			if err := n.applier.step(); err != nil {
				t.Errorf("answer: %v", err)
			}
		}},
		{"after the answer", func(t *testing.T, n *node) {
			call := &snapshotCall{done: make(chan struct{})}
			if err := errors.Join(call.answer(n.config.Engine.Snapshot()), call.leave()); err != nil {
				t.Error(err)
			}
		}},
		{"when there is no answer", func(t *testing.T, n *node) {
			call := &snapshotCall{done: make(chan struct{})}
			if err := errors.Join(call.leave(), call.answer(nil, storage.ErrClosed)); err != nil {
				t.Error(err)
			}
		}},
		{"because the member ends", func(t *testing.T, n *node) {
			n.Group.stop(ErrStopped)
			if _, err := n.Snapshot(t.Context()); !errors.Is(err, ErrStopped) {
				t.Errorf("left with %v", err)
			}
			if err := n.applier.step(); err != nil {
				t.Errorf("answer: %v", err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inShortBubble(t, nil, func(t *testing.T, n *node) {
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
				if err := n.open(); err != nil { // and nobody runs it
					t.Fatal(err)
				}
				c.leave(t, n)
				if err := closeAll(n.opened); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		})
	}
}
