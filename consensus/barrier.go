package consensus

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

// barrierState is the owner's. A round asks the leader, and the leader a quorum,
// for the commit index; one is under way at a time. Whoever arrives while it is
// waits for the next: the answer must be younger than the question. Each round
// has a context that was never used before, also not by an earlier process.
type barrierState struct {
	boot      uint64 // random, of this process
	round     uint64
	context   []byte    // of the round under way; nil for none
	sent      uint64    // tick
	asked     []*call   // wait for the round under way
	callers   []*call   // wait for the next one
	confirmed bool      // a round was answered and applied since start
	confirms  uint64    // index of the first answer, until it is applied
	began     time.Time // when the round under way was begun
	fresh     freshness // the newest answered round that is applied
	answered  freshness // the newest answered round
}

// freshness says that the state at an index has everything that was committed
// before a time.
type freshness struct {
	index uint64
	at    time.Time
}

// freshTicks is after how long without a round a member begins one of its own,
// so that it can say how old its state is.
const freshTicks = 10

// Barrier returns once everything that was committed before the call is
// applied here. The error is ErrNoLeader when no quorum confirmed a leader
// within two election time-outs.
func (g *Group) Barrier(ctx context.Context) (uint64, error) {
	o := g.call(ctx, &call{kind: callBarrier})
	return o.reply.Index, o.err
}

func (g *Group) joinRound(c *call) {
	if len(g.callers)+len(g.asked) >= waitersMax {
		g.metrics.refused.Inc()
		c.finish(outcome{err: ErrBusy})
		return
	}
	c.deadline = g.ticks + 2*uint64(g.config.ElectionTicks)
	if mutant("read_joins_the_round_under_way") && g.context != nil {
		g.asked = append(g.asked, c)
		return
	}
	g.callers = append(g.callers, c)
}

// startRound begins a round if somebody waits for one and none is under way. A
// member that has not yet heard from a quorum asks for itself, and so does one
// that has not asked for a while.
func (g *Group) startRound() {
	wanted := len(g.callers) > 0 || !g.confirmed && g.confirms == 0 || g.ticks-g.sent >= freshTicks
	if g.context != nil || !wanted || !g.mayAsk() {
		return
	}
	if g.boot == 0 {
		g.boot = g.config.Random()
	}
	g.round++
	g.began = g.config.Clock.Now()
	g.context = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, g.boot), g.round)
	g.asked, g.callers = g.callers, g.asked[:0]
	g.metrics.rounds.Inc()
	g.sendRound()
}

// mayAsk: without a leader Raft drops the question, and a leader that has
// committed nothing in its term does not know what is committed.
func (g *Group) mayAsk() bool {
	return g.leader != 0 && (g.leads == 0 || g.committedTerm == g.leads)
}

func (g *Group) sendRound() {
	g.sent = g.ticks
	g.node.ReadIndex(slices.Clone(g.context))
}

// resendRound asks again at once, since the leader is another.
func (g *Group) resendRound() {
	if g.context != nil && g.mayAsk() {
		g.sendRound()
	}
}

// tickRound asks again when there was no answer, and ends calls that waited too long.
func (g *Group) tickRound() {
	if g.context != nil && g.ticks-g.sent >= roundResendTicks {
		g.resendRound()
	}
	late := func(c *call) bool {
		if c.deadline > g.ticks {
			return false
		}
		c.finish(outcome{err: fmt.Errorf("%w: no quorum confirmed one within two election time-outs", ErrNoLeader)})
		return true
	}
	g.asked = slices.DeleteFunc(g.asked, late)
	g.callers = slices.DeleteFunc(g.callers, late)
}

// roundAnswered ends the round. An answer to an earlier one is late.
func (g *Group) roundAnswered(s raft.ReadState) {
	if g.context == nil || !bytes.Equal(s.RequestCtx, g.context) {
		return
	}
	g.context = nil
	g.answered = freshness{s.Index, g.began}
	if !g.confirmed && g.confirms == 0 {
		g.confirms = s.Index
	}
	for _, c := range g.asked {
		if mutant("read_before_applied") {
			c.finish(outcome{reply: Reply{Index: s.Index}})
			continue
		}
		g.waitApplied(c, s.Index)
	}
	clear(g.asked)
	g.asked = g.asked[:0]
	if len(g.callers) > 0 {
		notify(g.wakeOwner)
	}
}
