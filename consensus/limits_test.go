package consensus

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// inBubble runs a test with a cluster of its own time.
func inBubble(t *testing.T, size int, test func(t *testing.T, c *cluster)) {
	inTunedBubble(t, size, nil, test)
}

func inTunedBubble(t *testing.T, size int, tune func(*Config), test func(t *testing.T, c *cluster)) {
	cryptotest.SetGlobalRandom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		c := newTunedCluster(t, size, false, tune)
		c.settle()
		test(t, c)
	})
}

// While the disk hangs the append queue grows to its limit and no further:
// proposals are refused, the member goes on leading, and what it took in is
// done when the disk works again.
func TestProposalsAreRefusedWhileTheDiskHangs(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		n.trouble.block()
		var calls sync.WaitGroup
		var mu sync.Mutex
		done, refused := 0, 0
		begin := func() {
			calls.Go(func() {
				_, err := n.Propose(context.Background(), "", []byte("x"))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					done++
				case errors.Is(err, ErrBusy):
					refused++
				default:
					t.Errorf("propose: %v", err)
				}
			})
			synctest.Wait() // one turn for each, so one message for each
		}
		for range 2 * appendQueueMax {
			begin()
		}
		if waits, _ := n.appender.queue.load(); waits > appendQueueMax+1 {
			t.Errorf("%d messages wait for the disk, want %d at most", waits, appendQueueMax+1)
		}
		c.tick(c.ids())
		if s := n.Status(); s.Role != RoleLeader {
			t.Errorf("the member is %s", s.Role)
		}
		n.trouble.end()
		calls.Wait()
		if refused == 0 || done < appendQueueMax || done+refused != 2*appendQueueMax {
			t.Errorf("%d done, %d refused", done, refused)
		}
	})
}

// A follower whose disk hangs drops a leader's appends at the limit, counts
// them, and catches up afterwards.
func TestAppendsAreDroppedWhileTheDiskHangs(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		queue := n.appender.queue
		queue.mu.Lock() // without waking the appender, as if it hung
		for range appendQueueMax {
			queue.items = append(queue.items, &pb.Message{})
		}
		queue.mu.Unlock()
		before := n.Status()
		n.received.put(&pb.Message{Type: pb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(before.Term + 5)}, 1)
		n.received.put(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(before.Term)}, 1)
		synctest.Wait()
		if s := n.Status(); s.Term != before.Term {
			t.Errorf("the append was taken in: term %d after %d", s.Term, before.Term)
		}
		if dropped := n.dropped(t, "append"); dropped != 1 {
			t.Errorf("%v appends were counted as dropped, want 1", dropped)
		}
	})
}

// What is too large is refused before anything is done.
func TestTooLargeIsRefused(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		ctx := context.Background()
		if _, err := n.Propose(ctx, "", make([]byte, entryBytesMax+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a command above the limit: %v", err)
		}
		if _, err := n.Propose(ctx, string(make([]byte, requestIDBytesMax+1)), nil); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a request id above the limit: %v", err)
		}
		if _, err := n.HandleForward(ctx, ForwardRequest{Kind: ForwardPropose, Data: make([]byte, entryBytesMax+1)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a forwarded command above the limit: %v", err)
		}
		if _, err := n.Propose(ctx, string(make([]byte, requestIDBytesMax)), make([]byte, entryBytesMax)); err != nil {
			t.Errorf("a command at the limit: %v", err)
		}
	})
}

// A caller that goes away leaves nothing behind, and knows what it knows.
func TestACallerMayLeave(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		ctx, cancel := context.WithCancel(context.Background())
		answer := make(chan error, 1)
		go func() { _, err := c.nodes[1].Propose(ctx, "", []byte("x")); answer <- err }()
		synctest.Wait()
		cancel()
		if err := <-answer; !errors.Is(err, ErrNoLeader) || !errors.Is(err, context.Canceled) {
			t.Errorf("before there was a leader: %v", err)
		}
		for range 20 {
			c.tick(c.ids())
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		leader.trouble.block()
		ctx, cancel = context.WithCancel(context.Background())
		go func() { _, err := leader.Propose(ctx, "", []byte("y")); answer <- err }()
		synctest.Wait()
		cancel()
		if err := <-answer; !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("after it was appended: %v", err)
		}
		leader.trouble.end()
		c.settle()
		if have := leader.machine.content(); have != "y" {
			t.Errorf("the members have %q, want the second command only", have)
		}
	})
}

// A change of the configuration goes through the owner, and is in the engine
// with the entry that made it.
func TestAConfigurationChangeIsKept(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		change, err := proto.Marshal(&pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{
			{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(7))},
		}})
		if err != nil {
			t.Fatal(err)
		}
		n.received.put(&pb.Message{Type: pb.MsgProp.Enum(), From: new(uint64(1)), Entries: []*pb.Entry{
			{Type: pb.EntryConfChangeV2.Enum(), Data: change},
		}}, 1)
		c.settle()
		if f := n.facts.Load(); !f.isMember(7) || !n.onlyVoter() {
			t.Errorf("configuration %v", f.conf)
		}
		n.crash() // so that Open applies the change again, without an owner
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		if f := n.facts.Load(); !f.isMember(7) || !n.onlyVoter() {
			t.Errorf("configuration %v after a restart", f.conf)
		}
	})
}

// A proposal whose place this member itself gave to another, leading a later
// term, may still be committed by others, who have it.
func TestAReplacedProposalIsUnknown(t *testing.T) {
	old := &call{index: 8, term: 2, answer: make(chan outcome, 1)}
	mine := &call{entry: []byte("new")}
	g := &Group{owned: owned{proposed: map[uint64]*call{8: old}}}
	g.number([]*pb.Entry{{Index: new(uint64(8)), Term: new(uint64(4)), Data: []byte("new")}}, []*call{mine})
	if o := <-old.answer; !errors.Is(o.err, ErrUnknownOutcome) {
		t.Errorf("answered with %+v", o)
	}
	if g.proposed[8] != mine || mine.term != 4 {
		t.Errorf("the new one is at %d of term %d", mine.index, mine.term)
	}
}

// Whoever is answered finds the status at least as new as the answer.
func TestStatusIsAsNewAsTheAnswer(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if err := n.open(); err != nil {
			t.Fatal(err)
		}
		slow := make(chan outcome) // the owner is held up in the middle of answering
		n.proposed[99] = &call{index: 99, term: 2, answer: slow}
		go n.takeResults([]result{{index: 99, term: 2}})
		synctest.Wait()
		if s := n.Status(); s.Applied != 99 {
			t.Errorf("applied %d while the answer at 99 is given", s.Applied)
		}
		<-slow
		if err := closeAll(n.opened); err != nil {
			t.Error(err)
		}
	})
}
