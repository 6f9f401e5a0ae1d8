package consensus

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// rounds is how many rounds the member has begun.
func (n *node) rounds() uint64 { return n.round }

// Callers that arrive together share a round. Those that arrive while one is
// under way wait for the next, together: its answer may be older than they are.
func TestBarriersShareRounds(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 20 {
			c.tick(c.ids())
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		var mu sync.Mutex
		var answered []string
		var calls sync.WaitGroup
		begin := func(who string, count int) {
			for range count {
				calls.Go(func() {
					if _, err := leader.Barrier(context.Background()); err != nil {
						t.Errorf("barrier: %v", err)
					}
					mu.Lock()
					defer mu.Unlock()
					answered = append(answered, who)
				})
			}
			synctest.Wait() // the round's messages lie in the network
		}
		before := leader.rounds()
		begin("first", 1)
		begin("second", 10)
		if rounds := leader.rounds() - before; rounds != 1 {
			t.Errorf("%d rounds are under way, want 1", rounds)
		}
		c.settle()
		calls.Wait()
		if rounds := leader.rounds() - before; rounds != 2 {
			t.Errorf("11 callers took %d rounds, want 2", rounds)
		}
		if answered[0] != "first" || slices.Index(answered[1:], "first") >= 0 {
			t.Errorf("answered in the order %v", answered)
		}
	})
}

// A member that has just been elected does not know what is committed before
// its own first entry is, also when it is the only voter, which Raft would
// answer at once with what the last hard state happened to say.
func TestNoBarrierBeforeTheTermsFirstEntry(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		if _, err := n.Propose(context.Background(), "", []byte("acknowledged")); err != nil {
			t.Fatal(err)
		}
		n.crash()
		if err := n.open(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := closeAll(n.opened); err != nil {
				t.Error(err)
			}
		}()
		if n.commit >= 3 {
			t.Fatalf("the acknowledged entry 3 is known to be committed (%d): the test shows nothing", n.commit)
		}
		// From here the steps are called by hand.
		n.begin()
		n.turn()
		for n.leads == 0 { // it votes for itself, in writing
			step(t, n.appender.step)
			n.turn()
		}
		barrier := &call{kind: callBarrier, answer: make(chan outcome, 1)}
		n.calls.put(barrier, 0)
		n.turn()
		if len(barrier.answer) > 0 {
			t.Fatalf("answered with %+v before the term's first entry was committed", <-barrier.answer)
		}
		for len(barrier.answer) == 0 {
			step(t, n.appender.step)
			n.turn()
			step(t, n.applier.step)
			n.turn()
		}
		if o := <-barrier.answer; o.err != nil || o.reply.Index < 4 || n.machine.content() != "acknowledged" {
			t.Errorf("answered with %+v, state %q", o, n.machine.content())
		}
		n.applier.follow()
	})
}

func step(t *testing.T, f func() error) {
	t.Helper()
	if err := f(); err != nil {
		t.Fatal(err)
	}
}

// A member knows how old its state is at most, without anybody reading; once it
// is cut off it gets older, and when the cut is mended young again.
func TestAMemberKnowsTheAgeOfItsState(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		run := func() {
			for range 40 {
				c.tick(c.ids())
			}
		}
		age := func(n *node) time.Duration { return n.Now().Sub(n.Status().Fresh) }
		for _, n := range c.nodes {
			if !n.Status().Fresh.IsZero() {
				t.Errorf("node %d knows its age before it has heard from a leader", n.id)
			}
		}
		run()
		const young = 2 * time.Second // a round each second, and its way
		for _, n := range c.nodes {
			if age(n) > young {
				t.Errorf("the state of node %d is %v old", n.id, age(n))
			}
		}
		follower := c.nodes[c.nodes[1].Status().LeaderID%3+1]
		for _, id := range c.ids() {
			c.cut[[2]uint64{id, follower.id}], c.cut[[2]uint64{follower.id, id}] = true, true
		}
		run()
		for _, n := range c.nodes {
			if old := age(n) > young; old != (n == follower) {
				t.Errorf("the state of node %d is %v old, and node %d is cut off", n.id, age(n), follower.id)
			}
		}
		clear(c.cut)
		run()
		if age(follower) > young {
			t.Errorf("after the cut the state of node %d is %v old", follower.id, age(follower))
		}
	})
}

// A question for a leader that has gone is not passed on: it would go to the new
// one in its asker's name, and end the stream of the member that passes it on.
func TestAQuestionForAnotherLeaderIsNotPassedOn(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 20 {
			c.tick(c.ids())
		}
		leader := c.nodes[1].Status().LeaderID
		follower := c.nodes[leader%3+1]
		asker := c.nodes[follower.id%3+1]
		question := marshal(&pb.Message{
			Type: pb.MsgReadIndex.Enum(), From: &asker.id, To: &follower.id, Entries: []*pb.Entry{{Data: []byte("a question")}},
		})
		if err := follower.Receive(asker.id, [][]byte{question}); err != nil {
			t.Fatalf("receive: %v", err)
		}
		c.settle() // which fails for a message that a member refuses
	})
}

// A leader that was leader before, too, may get the answer to a message of its
// earlier term, which tells of no entry. It must not begin at the log's beginning
// then, which nobody has: the other would never get anything again.
func TestAnAnswerToAnEarlierTermTellsNothing(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		away := c.nodes[3]
		for id := range uint64(2) {
			c.cut[[2]uint64{id + 1, away.id}], c.cut[[2]uint64{away.id, id + 1}] = true, true
		}
		for range 40 {
			c.tick([]uint64{1, 2})
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		term := leader.Status().Term
		answer := marshal(&pb.Message{Type: pb.MsgAppResp.Enum(), From: &away.id, To: &leader.id, Term: &term})
		if err := leader.Receive(away.id, [][]byte{answer}); err != nil {
			t.Fatalf("receive: %v", err)
		}
		c.settle()
		clear(c.cut)
		for range 20 {
			c.tick(c.ids())
		}
		if got, want := away.Status().Applied, leader.Status().Applied; got != want {
			t.Errorf("node 3 has applied %d, and the leader %d", got, want)
		}
	})
}
