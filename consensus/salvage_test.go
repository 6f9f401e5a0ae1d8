package consensus

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/storage"
)

// salvage opens a stopped member's disk and salvages a copy of its state.
func (n *node) salvage(t *testing.T) (out Salvaged, content string, err error) {
	t.Helper()
	id, _, err := storage.LoadIdentity(n.fs, "data")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: n.fs, Dir: "data/state"})
	if err != nil {
		t.Fatal(err)
	}
	log, err := storage.OpenLog(storage.LogOptions{FS: n.fs, Dir: "data/wal", Base: Base(), Applied: engine.AppliedIndex().Index, Salt: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	m := &journal{engine: engine}
	out, err = Salvage(id, engine, log, m)
	content = m.content()
	if err := errors.Join(log.Close(), engine.Close()); err != nil {
		t.Fatal(err)
	}
	return out, content, err
}

// What a cut off leader has in its log is not known to be committed, and counts:
// in another cluster the same might have been acknowledged.
func TestSalvageAppliesAllOfALog(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		if _, err := leader.propose(c, "", "a"); err != nil {
			t.Fatal(err)
		}
		for _, id := range c.ids() {
			c.cut[[2]uint64{leader.id, id}] = id != leader.id
		}
		done := make(chan error, 1)
		go func() {
			_, err := leader.Propose(context.Background(), "", []byte("b"))
			done <- err
		}()
		c.settle()
		if err := leader.stop(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("what was not committed was answered: %v", err)
		}
		out, content, err := leader.salvage(t)
		if err != nil || content != "a b" || out.Last.Index != out.Committed+1 || out.Last.Index <= out.From.Index {
			t.Errorf("salvaged %+v: %q, %v", out, content, err)
		}
		if again, content, err := leader.salvage(t); err != nil || content != "a b" || again.Last != out.Last {
			t.Errorf("salvaged again %+v: %q, %v", again, content, err)
		}
	})
}

// A member whose state a majority found to be wrong is no survivor to go on from.
func TestAWrongStateIsNotSalvaged(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	log, err := storage.OpenLog(storage.LogOptions{FS: vfs.NewMem(), Dir: "wal", Salt: func() uint64 { return 1 }})
	b.must(err)
	checked := func(id string) []byte { return envelope{kind: kindChecked, payload: []byte(id)}.encode() }
	conf := b.engine.NewBatch()
	(&facts{}).setConf(conf, &pb.ConfState{Voters: []uint64{1, 2, 3}})
	b.must(b.engine.Apply(conf, storage.Position{Index: 1, Term: 1}))
	b.must(log.Append([]storage.Entry{
		{Index: 1, Term: 1},
		{Index: 2, Term: 1, Data: envelope{kind: kindCheck}.encode()},
		{Index: 3, Term: 1, Data: checked("\x08\x02\x10\x01\x1a\x01x")},
		{Index: 4, Term: 1, Data: checked("\x08\x02\x10\x02\x1a\x01y")},
		{Index: 5, Term: 1, Data: checked("\x08\x02\x10\x03\x1a\x01y")},
	}, nil))
	if _, err := Salvage(storage.Identity{NodeID: 1}, b.engine, log, b); !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "node 1 has the hash x, and a majority has y") {
		t.Errorf("it was salvaged: %v", err)
	}
	b.must(log.Close())
}
