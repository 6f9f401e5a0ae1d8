package consensus

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// turn takes in everything that waits and gives out what follows from it. It
// does not wait. Proposals come last before Raft's Ready, which tells their
// indexes.
func (g *Group) turn() {
	g.takeDone()
	g.takeReceived()
	g.noticeLeadership()
	g.takeCalls()
	g.startRound()
	for mine := g.propose(); g.node.HasReady() || len(mine) > 0; mine = nil {
		g.handle(g.node.Ready(), mine)
	}
	g.passedOver()
	g.publishStatus()
}

// tick moves Raft's clock, and with it everything that can run out of time.
func (g *Group) tick() {
	g.ticks++
	g.node.Tick()
	g.appender.queue.put(nil, 0)
	g.noticeLeadership()
	g.dispatchWaiting()
	g.expireCalls()
	g.tickRound()
	g.noticeSpace()
	g.proposeRecords()
	g.proposeCheck()
	g.carryOn()
	g.callOut()
	g.publishProgress()
}

// takeDone takes in what the executors finished.
func (g *Group) takeDone() {
	items := g.done.take(g.spareDone)
	g.spareDone = items
	for _, d := range items {
		switch {
		case d.message != nil:
			g.step(d.message)
			if mutant("ack_on_leader_append") {
				g.ackForAll(d.message)
			}
		case d.applied != nil:
			g.takeApplied(d.applied)
		case d.configure != nil:
			d.configure.reply <- g.applyConfChange(d.configure)
		case d.sent != nil:
			g.takeSent(d.sent)
		default:
			g.node.ReportUnreachable(d.unreachable)
		}
	}
}

// takeReceived steps what peers sent. A leader's appends are dropped while the
// disk does not keep up: Raft sends them again, and its heartbeats get through.
func (g *Group) takeReceived() {
	messages := g.received.take(g.spareReceived)
	g.spareReceived = messages
	for _, m := range messages {
		g.heard[m.GetFrom()] = g.ticks
		if m.GetType() == pb.MsgApp && g.diskBehind() {
			g.metrics.dropped.WithLabelValues("append").Inc()
			continue
		}
		// Until a leader has committed in its term it does not know what is
		// committed. Raft minds this itself, but not with a single voter.
		if m.GetType() == pb.MsgReadIndex && g.onlyVoter() && g.committedTerm != g.leads {
			continue
		}
		if g.tellsNothing(m) {
			continue
		}
		g.offered = g.offered || m.GetType() == pb.MsgSnap
		g.step(m)
	}
}

// ackForAll has the others acknowledge what this member has appended itself. It
// is a planted bug.
func (g *Group) ackForAll(m *pb.Message) {
	if m.GetType() != pb.MsgAppResp || m.GetReject() {
		return
	}
	for _, id := range g.facts.Load().conf.GetVoters() {
		if id != g.config.ID {
			g.step(&pb.Message{Type: pb.MsgAppResp.Enum(), From: &id, To: m.To, Term: m.Term, Index: m.Index})
		}
	}
}

// tellsNothing: to a message of an earlier term a member answers with an append
// of no entry, by which a leader of that term learns of the later one. If this
// member leads the later one, Raft would take it for all that the other has, and
// would have to send what is before the log's first entry.
func (g *Group) tellsNothing(m *pb.Message) bool {
	return !mutant("answer_to_an_earlier_term") && m.GetType() == pb.MsgAppResp && m.GetIndex() == 0 && !m.GetReject() && m.GetTerm() == g.node.BasicStatus().HardState.GetTerm()
}

func (g *Group) takeApplied(b *appliedBatch) {
	if b.installed.Index != 0 {
		g.takeInstalled(b.installed)
		return
	}
	g.step(b.response)
	if len(b.results) > 0 {
		g.takeResults(b.results)
	}
}

// applyConfChange changes Raft's configuration, unless Raft has a later one from
// a snapshot.
func (g *Group) applyConfChange(w *configureWork) *pb.ConfState {
	if w.index <= g.taken {
		return nil
	}
	return g.node.ApplyConfChange(w.change)
}

// diskBehind tells whether the append queue is at its limit.
func (g *Group) diskBehind() bool {
	count, bytes := g.appender.queue.load()
	return count >= appendQueueMax || bytes >= appendQueueBytesMax
}

// step hands a message to Raft. That Raft ignores one is part of its working.
func (g *Group) step(m *pb.Message) {
	err := g.node.Step(m)
	if err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
		g.log.Warn("Raft refuses a message", "type", m.GetType().String(), "from", m.GetFrom(), "error", err)
	}
}

// noticeLeadership compares with what was seen last: in one turn leadership may
// have been lost and won again, for another term.
func (g *Group) noticeLeadership() {
	s := g.node.BasicStatus()
	g.term = s.HardState.GetTerm()
	leads := uint64(0)
	if s.RaftState == raft.StateLeader {
		leads = g.term
	}
	if leads != g.leads {
		if g.leads != 0 {
			g.applier.queue.put(applyTask{follows: true}, 0)
		}
		if leads != 0 {
			g.applier.queue.put(applyTask{leads: leads}, 0)
		}
		g.leads = leads
	}
	if s.Lead != g.leader {
		g.leader = s.Lead
		g.metrics.leaderChanges.Inc()
		g.log.Info("leader changed", "leader", s.Lead, "term", g.term)
		g.resendRound()
		g.dispatchWaiting()
	}
}

// propose hands Raft as much of the backlog as one turn may, as one message,
// and returns what it took.
func (g *Group) propose() []*call {
	g.noticeLeadership()
	if len(g.backlog) == 0 || g.successor() != 0 {
		return nil // Raft takes nothing while the leadership is handed over; it does not last
	}
	mine, entries := g.takeBacklog()
	err := g.node.Step(&pb.Message{Type: pb.MsgProp.Enum(), From: new(g.config.ID), Entries: entries})
	if err == nil {
		g.metrics.proposals.Add(float64(len(mine)))
		return mine
	}
	for _, c := range mine {
		g.notAppended(c, err)
	}
	return nil
}

// takeBacklog takes proposals up to the size of one message.
func (g *Group) takeBacklog() ([]*call, []*pb.Entry) {
	now, size, n := g.config.Clock.Now().UnixMilli(), 0, 0
	var entries []*pb.Entry
	for n < len(g.backlog) && size < proposalsPerTurnBytes {
		c := g.backlog[n]
		n++
		e := c.encode(now)
		c.entry = e.GetData()
		entries = append(entries, e)
		size += len(c.entry)
	}
	mine := g.backlog[:n]
	if g.backlog = g.backlog[n:]; len(g.backlog) > 0 {
		notify(g.wakeOwner)
	}
	return mine, entries
}

// encode makes the entry that is proposed.
func (c *call) encode(now int64) *pb.Entry {
	env := envelope{kind: c.entryKind, time: now, requestID: c.requestID, payload: c.data}.encode()
	if c.conf == nil {
		return &pb.Entry{Data: env}
	}
	c.conf.Context = env
	return &pb.Entry{Type: pb.EntryConfChangeV2.Enum(), Data: marshal(c.conf)}
}

// handle gives out a Ready. The last entries are those of the proposals made
// just before.
func (g *Group) handle(rd raft.Ready, mine []*call) {
	if len(mine) > 0 {
		g.number(rd.Entries, mine)
	}
	for _, s := range rd.ReadStates {
		g.roundAnswered(s)
	}
	for _, m := range rd.Messages {
		// Raft passes a question that came for the leader of before on to the new
		// one, in the name of the asker, whom this member is not: its stream would be
		// ended for that. Who asked asks again.
		if m.GetFrom() != 0 && m.GetFrom() != g.config.ID && m.GetType() == pb.MsgReadIndex {
			continue
		}
		switch m.GetTo() {
		case raft.LocalAppendThread:
			g.noticeTaken(m.GetSnapshot())
			g.appender.queue.put(m, messageSize(m))
		case raft.LocalApplyThread:
			g.noticeCommitted(m.GetEntries())
			g.applier.queue.put(applyTask{entries: m}, messageSize(m))
		default:
			g.send(m)
		}
	}
}

// send sends a message, or the snapshot that goes with it.
func (g *Group) send(m *pb.Message) {
	if m.GetType() == pb.MsgSnap {
		g.sendSnapshot(m)
		return
	}
	g.sender.put(m)
}

// number learns at which indexes proposals were appended.
func (g *Group) number(entries []*pb.Entry, mine []*call) {
	first := len(entries) - len(mine)
	for i, c := range mine {
		if first >= 0 && c.conf != nil && len(entries[first+i].GetData()) == 0 {
			c.finish(outcome{err: fmt.Errorf("%w: another change of the members is under way", ErrBusy)})
			continue // an empty entry stands in its place
		}
		if first < 0 || !bytes.Equal(entries[first+i].GetData(), c.entry) {
			panic(fmt.Sprintf("consensus: %d proposals of node %d are not the last of %d new entries", len(mine), g.config.ID, len(entries)))
		}
		e := entries[first+i]
		if old := g.proposed[e.GetIndex()]; old != nil { // of an earlier term of this member
			old.finish(outcome{err: fmt.Errorf("%w: entry %d of term %d was replaced in this member's log", ErrUnknownOutcome, old.index, old.term)})
		}
		c.entry, c.data, c.index, c.term = nil, nil, e.GetIndex(), e.GetTerm()
		g.proposed[c.index] = c
	}
}

func (g *Group) noticeCommitted(entries []*pb.Entry) {
	last := entries[len(entries)-1]
	g.commit, g.committedTerm = last.GetIndex(), last.GetTerm()
}
