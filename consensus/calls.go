package consensus

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/internal/threads"
)

// Reply is what a proposal was answered.
type Reply struct {
	Index uint64 // of the entry that was applied
	Data  []byte // what Machine.Apply returned
}

type callKind uint8

const (
	callPropose callKind = iota // append data, and answer when it is applied
	callLeader                  // who leads?
	callApplied                 // answer when index is applied
	callBarrier                 // a ReadIndex round
	callChange                  // a change of the members
)

// call is one caller's question to the owner. The owner answers it once.
type call struct {
	kind      callKind
	entryKind entryKind
	requestID string
	data      []byte
	here      bool // answer ErrNotLeader rather than name or wait for another leader
	again     bool // the leader that was named would not; look again after a tick or a change
	index     uint64
	change    MemberChange

	answer chan outcome // has room for one; nil: nobody listens
	state  atomic.Uint32

	// The owner's.
	deadline  uint64 // in ticks; 0 until the owner has seen it
	term      uint64
	entry     []byte
	conf      *pb.ConfChangeV2 // to propose; nil for an ordinary entry
	successor uint64           // the leadership was being handed to this member for it
	done      bool
}

// States of a call. The caller may leave a waiting one; what has begun has no return.
const (
	callWaits uint32 = iota
	callBegun
	callLeft
)

// outcome is an answer to a call.
type outcome struct {
	leader   uint64 // ask this member instead
	reply    Reply
	err      error
	deadline uint64 // what the owner set; 0 when it has not seen the call
}

func (c *call) finish(o outcome) {
	o.deadline, c.done = c.deadline, true
	if c.answer != nil {
		c.answer <- o
	}
}

// begin tells whether the caller is still there, who may not leave from now on.
func (c *call) begin() bool { return c.state.CompareAndSwap(callWaits, callBegun) }

// call asks the owner and waits for the answer.
func (g *Group) call(ctx context.Context, c *call) outcome {
	c.answer = make(chan outcome, 1)
	if !g.calls.put(c, 0) {
		if g.calls.isClosed() {
			return outcome{err: ErrStopped}
		}
		g.metrics.refused.Inc()
		return outcome{err: ErrBusy}
	}
	if t := g.config.Threads; t != nil {
		t.Park(func() bool { return len(c.answer) > 0 || ctx.Err() != nil })
		if len(c.answer) > 0 { // rather than that it is too late
			return <-c.answer
		}
	}
	select {
	case o := <-c.answer:
		return o
	case <-ctx.Done():
	}
	if c.state.CompareAndSwap(callWaits, callLeft) {
		return outcome{err: fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())}
	}
	return outcome{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())}
}

// takeCalls takes in what callers ask.
func (g *Group) takeCalls() {
	calls := g.calls.take(g.spareCalls)
	g.spareCalls = calls
	for _, c := range calls {
		if c.deadline == 0 {
			c.deadline = g.ticks + g.ticksIn(g.patience(c))
		}
		g.takeCall(c)
	}
}

// patience is how long a call waits for its turn. A change of the members may
// have to wait for another one.
func (g *Group) patience(c *call) time.Duration {
	if c.kind == callChange {
		return g.config.CommitTimeout
	}
	return g.config.CallTimeout
}

func (g *Group) takeCall(c *call) {
	switch {
	case c.kind == callApplied:
		g.waitApplied(c, c.index)
	case c.kind == callBarrier:
		g.joinRound(c)
	case c.again:
		c.again = false
		g.waitForLeader(c)
	default:
		g.dispatch(c)
	}
}

// dispatch sends a call on its way if a leader is known.
func (g *Group) dispatch(c *call) {
	switch {
	case c.kind == callChange:
		g.dispatchChange(c)
	case c.deadline <= g.ticks:
		g.expire(c)
	case g.leads == 0 && c.here:
		c.finish(outcome{err: ErrNotLeader})
	case g.leader == 0:
		g.waitForLeader(c)
	case g.leads == 0 || c.kind == callLeader:
		c.finish(outcome{leader: g.leader})
	default:
		g.enqueue(c)
	}
}

func (g *Group) waitForLeader(c *call) {
	if len(g.waiting) >= waitersMax {
		g.metrics.refused.Inc()
		c.finish(outcome{err: ErrBusy})
		return
	}
	g.waiting = append(g.waiting, c)
}

// dispatchWaiting looks at the waiting calls again: the leader may be another.
func (g *Group) dispatchWaiting() {
	waiting := g.waiting
	g.waiting = nil
	for _, c := range waiting {
		g.dispatch(c)
	}
}

// unappliedMax is how far the state may be behind the log before a leader takes
// in no more proposals.
const unappliedMax = 65536

// enqueue puts a proposal into the backlog of this leader.
func (g *Group) enqueue(c *call) {
	if len(g.proposed)+len(g.backlog) >= waitersMax || g.diskBehind() || g.commit > g.applied+unappliedMax {
		g.metrics.refused.Inc()
		c.finish(outcome{err: ErrBusy})
		return
	}
	if err := g.refuseGrowth(); err != nil && g.grows(c) {
		g.metrics.full.Inc()
		c.finish(outcome{err: err})
		return
	}
	if err := g.refuseDiverged(c); err != nil {
		g.metrics.diverged.Inc()
		c.finish(outcome{err: err})
		return
	}
	if !c.begin() {
		return
	}
	c.deadline = max(c.deadline, g.ticks+g.ticksIn(g.config.CommitTimeout))
	g.backlog = append(g.backlog, c)
}

// notAppended answers a proposal that Raft did not take: nothing was done.
func (g *Group) notAppended(c *call, err error) {
	if g.leads != 0 {
		g.metrics.refused.Inc()
		c.finish(outcome{err: fmt.Errorf("%w: %w", ErrBusy, err)})
		return
	}
	c.finish(outcome{err: ErrNotLeader})
}

// takeResults answers the calls whose entries were applied, and those whose
// index another leader's entry took: these are certainly lost.
func (g *Group) takeResults(results []result) {
	last := results[len(results)-1]
	g.applied, g.appliedTerm = last.index, last.term
	g.metrics.applied.Add(float64(len(results)))
	g.publishStatus() // whoever is answered finds the status at least as new
	for _, r := range results {
		c := g.proposed[r.index]
		if c == nil {
			continue
		}
		delete(g.proposed, r.index)
		if c.term != r.term && !mutant("answer_of_another_entry") {
			c.finish(outcome{err: ErrNotLeader})
			continue
		}
		if c.kind == callChange && c.change.Kind == Remove && !c.change.Force && r.err == nil {
			c.done = true // and is answered when the removal is settled
			g.waitForLeader(c)
			continue
		}
		c.finish(outcome{reply: r.reply, err: r.err})
		if c.entryKind == kindSettled {
			g.dispatchWaiting()
		}
	}
	if !g.facts.Load().removals.areSettled() {
		g.carryOn()
	}
	g.answerWaiting()
}

// answerWaiting answers the calls that wait for an index that is applied.
func (g *Group) answerWaiting() {
	for len(g.results) > 0 && g.results[0].index <= g.applied {
		c := heap.Pop(&g.results).(*call)
		c.finish(outcome{reply: Reply{Index: c.index}})
	}
	g.noticeRemoval()
}

// waitApplied answers when the index is applied here.
func (g *Group) waitApplied(c *call, index uint64) {
	switch {
	case index <= g.applied:
		c.finish(outcome{reply: Reply{Index: index}})
	case len(g.results) >= waitersMax:
		g.metrics.refused.Inc()
		c.finish(outcome{err: ErrBusy})
	default:
		c.index = index
		heap.Push(&g.results, c)
	}
}

// expireCalls answers the calls that have waited long enough.
func (g *Group) expireCalls() {
	g.waiting = slices.DeleteFunc(g.waiting, func(c *call) bool {
		late := c.deadline <= g.ticks
		if late && c.kind == callChange {
			g.expireChange(c)
		} else if late {
			g.expire(c)
		}
		return late
	})
	for index, c := range g.proposed {
		if c.deadline <= g.ticks {
			delete(g.proposed, index)
			if mutant("late_is_refused") {
				c.finish(outcome{err: ErrBusy})
				continue
			}
			c.finish(outcome{err: fmt.Errorf("%w: entry %d of term %d is not committed after %v", ErrUnknownOutcome, c.index, c.term, g.config.CommitTimeout)})
		}
	}
}

// expire ends a call that found no leader, or none that it could reach.
func (g *Group) expire(c *call) {
	c.finish(outcome{err: fmt.Errorf("%w could be reached within %v", ErrNoLeader, g.config.CallTimeout)})
}

// answerAll ends the calls of a member that stops.
func (g *Group) answerAll() {
	g.received.close()
	g.done.close()
	for _, c := range g.calls.close() {
		c.finish(outcome{err: ErrStopped})
	}
	for _, c := range slices.Concat(g.waiting, g.backlog, g.callers, g.asked) {
		c.finish(outcome{err: ErrStopped})
	}
	for _, c := range g.results {
		c.finish(outcome{err: ErrStopped})
	}
	for _, c := range g.proposed {
		c.finish(outcome{err: fmt.Errorf("%w: this member is stopping", ErrUnknownOutcome)})
	}
}

// ticksIn is at least the duration.
func (g *Group) ticksIn(d time.Duration) uint64 {
	return uint64((d + g.config.Tick - 1) / g.config.Tick)
}

// appliedHeap has the lowest index first.
type appliedHeap []*call

func (h appliedHeap) Len() int           { return len(h) }
func (h appliedHeap) Less(i, j int) bool { return h[i].index < h[j].index }
func (h appliedHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *appliedHeap) Push(c any)        { *h = append(*h, c.(*call)) }
func (h *appliedHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return c
}

// Propose has the command committed and applied. When it returns without an
// error that is so on this member. With a request id it may be sent more than
// once, and is applied once; without one it never is sent twice unless the
// first is known to be lost.
func (g *Group) Propose(ctx context.Context, requestID string, data []byte) (Reply, error) {
	if err := checkSize(requestID, data); err != nil {
		return Reply{}, err
	}
	return g.proposeAs(ctx, kindCommand, requestID, data)
}

// proposeAs is Propose for any kind of entry that a follower may forward.
func (g *Group) proposeAs(ctx context.Context, kind entryKind, requestID string, data []byte) (Reply, error) {
	p := proposal{group: g, entryKind: kind, requestID: requestID, data: data}
	for {
		reply, err := p.try(ctx)
		if !errors.Is(err, ErrNotLeader) {
			return reply, err
		}
	}
}

// forwardKinds are the calls with which a follower has the leader propose.
var forwardKinds = map[entryKind]ForwardKind{kindCommand: ForwardPropose, kindChecked: ForwardChecked}

func checkSize(requestID string, data []byte) error {
	if len(data) > entryBytesMax || len(requestID) > requestIDBytesMax {
		return fmt.Errorf("%w: a command of %d bytes (%d at most) with a request id of %d (%d at most)",
			ErrTooLarge, len(data), entryBytesMax, len(requestID), requestIDBytesMax)
	}
	return nil
}

// proposal is one Propose and what its tries have shown.
type proposal struct {
	group     *Group
	entryKind entryKind
	requestID string
	data      []byte
	deadline  uint64 // the same for all tries
	again     bool
	uncertain bool // a try may have been, or become, successful
}

// try returns ErrNotLeader when there is another try to make.
func (p *proposal) try(ctx context.Context) (Reply, error) {
	g := p.group
	c := &call{kind: callPropose, entryKind: p.entryKind, requestID: p.requestID, data: p.data, deadline: p.deadline, again: p.again}
	o := g.call(ctx, c)
	p.deadline, p.again = o.deadline, true
	if o.err == nil && o.leader != 0 {
		o.reply, o.err = p.forward(ctx, o.leader)
	}
	if p.uncertain && saysNotDone(o.err) {
		o.err = fmt.Errorf("%w: an earlier try may have been successful, the last one ended with: %v", ErrUnknownOutcome, o.err)
	}
	return o.reply, o.err
}

// saysNotDone tells of an error that it speaks of one try only, the last.
func saysNotDone(err error) bool {
	return errors.Is(err, ErrNoLeader) || errors.Is(err, ErrBusy) || errors.Is(err, ErrFull) || errors.Is(err, ErrDiverged) || errors.Is(err, ErrStopped)
}

// forward has the leader do it, and waits until it has come here too.
func (p *proposal) forward(ctx context.Context, leader uint64) (Reply, error) {
	g := p.group
	reply, err := g.forward(ctx, leader, ForwardRequest{Kind: forwardKinds[p.entryKind], RequestID: p.requestID, Data: p.data}, g.config.CallTimeout)
	switch {
	case err == nil:
		return g.appliedHere(ctx, Reply(reply))
	case errors.Is(err, ErrNotSent), errors.Is(err, ErrNotLeader):
		return Reply{}, ErrNotLeader
	case errors.Is(err, ErrBusy), errors.Is(err, ErrFull), errors.Is(err, ErrDiverged), errors.Is(err, ErrTooLarge):
		return Reply{}, err
	case (p.requestID != "" || mutant("send_twice")) && ctx.Err() == nil:
		p.uncertain = true
		return Reply{}, ErrNotLeader
	}
	if mutant("unknown_is_refused") {
		return Reply{}, ErrBusy
	}
	return Reply{}, unknownOutcome(leader, err)
}

// unknownOutcome is what came back from a leader that was asked. An error of
// this package within it would say something else as well, so only its text stays.
func unknownOutcome(leader uint64, err error) error {
	return fmt.Errorf("%w: forwarded to node %d: %v", ErrUnknownOutcome, leader, err)
}

func (g *Group) forward(ctx context.Context, leader uint64, r ForwardRequest, patience time.Duration) (ForwardReply, error) {
	ctx, cancel := threads.WithTimeout(ctx, g.config.Threads, patience)
	defer cancel()
	g.metrics.forwarded.Inc()
	return g.config.Transport.Forward(ctx, leader, r)
}

// appliedHere waits until what the leader has applied is applied here.
func (g *Group) appliedHere(ctx context.Context, reply Reply) (Reply, error) {
	ctx, cancel := threads.WithTimeout(ctx, g.config.Threads, g.config.CommitTimeout)
	defer cancel()
	if o := g.call(ctx, &call{kind: callApplied, index: reply.Index}); o.err != nil {
		return Reply{}, fmt.Errorf("%w: it is committed at %d and not yet applied here: %v", ErrUnknownOutcome, reply.Index, o.err)
	}
	return reply, nil
}

// HandleForward does what a follower asks of this member as its leader.
func (g *Group) HandleForward(ctx context.Context, r ForwardRequest) (ForwardReply, error) {
	switch r.Kind {
	case ForwardPropose, ForwardChecked:
		kind := kindCommand
		if r.Kind == ForwardChecked {
			kind = kindChecked
		}
		if err := checkSize(r.RequestID, r.Data); err != nil {
			return ForwardReply{}, err
		}
		o := g.call(ctx, &call{kind: callPropose, entryKind: kind, requestID: r.RequestID, data: r.Data, here: true})
		return ForwardReply(o.reply), o.err
	case ForwardAsk:
		if s := g.Status(); s.LeaderID != s.ID {
			return ForwardReply{}, ErrNotLeader
		}
		data, err := g.config.Machine.Answer(ctx, r.Data)
		if err != nil {
			// What the machine says must not be taken for this member's refusal to ask it.
			return ForwardReply{}, errors.New(err.Error())
		}
		return ForwardReply{Data: data}, nil
	case ForwardMembers:
		return g.handleMembers(ctx, r.Data)
	}
	return ForwardReply{}, fmt.Errorf("a forwarded call of kind %d is not known to this version", r.Kind)
}

// Ask has the leader's machine answer. The question is sent again only when it
// is certain that the machine has not seen it. An error says nothing about
// what the machine did.
func (g *Group) Ask(ctx context.Context, request []byte) ([]byte, error) {
	if err := checkSize("", request); err != nil {
		return nil, err
	}
	c := &call{kind: callLeader}
	for {
		o := g.call(ctx, c)
		if o.err != nil {
			return nil, o.err
		}
		if o.leader == g.config.ID {
			return g.config.Machine.Answer(ctx, request)
		}
		reply, err := g.forward(ctx, o.leader, ForwardRequest{Kind: ForwardAsk, Data: request}, g.config.CallTimeout)
		if !errors.Is(err, ErrNotSent) && !errors.Is(err, ErrNotLeader) {
			return reply.Data, askError(o.leader, err)
		}
		c = &call{kind: callLeader, deadline: o.deadline, again: true}
	}
}

func askError(leader uint64, err error) error {
	if err == nil || errors.Is(err, ErrBusy) || errors.Is(err, ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w that could answer: node %d: %v", ErrNoLeader, leader, err)
}
