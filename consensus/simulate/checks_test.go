package simulate

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
)

// checks are what must hold, whatever happens. They look at what members send,
// apply and answer; they know nothing of how a member works.
type checks struct {
	world *world
	model model

	log     map[uint64]logged // index → what a member has applied there
	last    uint64            // the newest of these
	time    int64             // of that entry
	leaders map[uint64]uint64 // term → who has led it
	votes   map[[2]uint64]uint64
	terms   map[uint64]uint64 // member → the newest term that it has answered in
	acked   uint64            // the newest revision that a caller was told

	safeUntil map[registry.InstanceKey]time.Duration // no expiry before

	reached map[uint64]uint64 // member → published in this life
	counts  map[string]int
}

// logged is an entry with the answer that the first member gave.
type logged struct {
	term, hash uint64
	time       int64
	reply      string
}

func newChecks(w *world) checks {
	return checks{
		world: w, model: newModel(), log: make(map[uint64]logged), leaders: make(map[uint64]uint64),
		votes: make(map[[2]uint64]uint64), terms: make(map[uint64]uint64),
		safeUntil: make(map[registry.InstanceKey]time.Duration), reached: make(map[uint64]uint64), counts: make(map[string]int),
	}
}

// applied: all members apply the same entries in the same order and answer the
// same (state machine safety), and what they answer is what the commands mean.
func (c *checks) applied(l *life, e consensus.Entry, reply []byte) {
	if l.dead {
		return
	}
	w := c.world
	w.note("apply", l.member.id, e.Index, e.Term, hash(e.Data))
	entry := logged{e.Term, hash(e.Data), e.Time, string(reply)}
	if first, known := c.log[e.Index]; known {
		if first != entry {
			w.fail("%v applies at %d an entry of term %d, and another has applied one of term %d there: they differ in term, data, time or answer", l.member, e.Index, e.Term, first.term)
		}
		return
	}
	if e.Index <= c.last {
		w.fail("%v applies entry %d, which the others have skipped on their way to %d", l.member, e.Index, c.last)
		return
	}
	if e.Time < c.time {
		w.fail("entry %d is of %d, before the one that precedes it, of %d", e.Index, e.Time, c.time)
	}
	c.log[e.Index], c.last, c.time = entry, e.Index, e.Time
	c.counts["entries"]++
	want := c.model.apply(c, e)
	var got recordv1.Reply
	if err := proto.Unmarshal(reply, &got); err != nil {
		w.fail("entry %d is answered with what is no reply: %v", e.Index, err)
		return
	}
	equal := func(a, b *recordv1.Result) bool { return proto.Equal(a, b) }
	if want != nil && !slices.EqualFunc(got.GetResults(), want, equal) {
		w.fail("entry %d is answered with %v, and it means %v", e.Index, &got, want)
	}
}

// published: a revision is shown once, and none is taken back.
func (c *checks) published(l *life, index uint64) {
	if l.dead {
		return
	}
	if before := c.reached[l.member.id]; index <= before {
		c.world.fail("%v publishes revision %d after %d", l.member, index, before)
	}
	c.reached[l.member.id] = index
}

// leads: a term has one leader.
func (c *checks) leads(l *life, term uint64) {
	if l.dead {
		return
	}
	c.leader(l, term)
	c.counts["terms led"]++
	c.world.tell("%v leads term %d", l.member, term)
}

func (c *checks) leader(l *life, term uint64) {
	if first, known := c.leaders[term]; known && first != l.member.id {
		c.world.fail("members %d and %d both lead term %d", first, l.member.id, term)
	}
	c.leaders[term] = l.member.id
}

// sent: nobody votes twice in a term, also not over a crash. What answers say is
// durable before they leave; a request for votes promises nothing.
func (c *checks) sent(l *life, o consensus.Outgoing) {
	m, id := messageOf(o.Data), l.member.id
	switch m.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat:
		c.leader(l, m.GetTerm())
	case pb.MsgVoteResp, pb.MsgAppResp:
		if m.GetReject() {
			return
		}
		c.terms[id] = max(c.terms[id], m.GetTerm())
		if m.GetType() == pb.MsgVoteResp {
			c.vote(id, m.GetTerm(), m.GetTo())
		}
	}
}

// installed: a member goes on from another's state, never back.
func (c *checks) installed(l *life, index uint64) {
	if l.dead {
		return
	}
	l.installs++
	c.world.faults.count("snapshot installed")
	c.world.note("installed", l.member.id, index)
	if before := c.reached[l.member.id]; index <= before {
		c.world.fail("%v installs a snapshot of revision %d over %d", l.member, index, before)
	}
	c.reached[l.member.id] = index
}

// started: a member remembers the term that it has answered in.
func (c *checks) started(l *life) {
	if term := l.log.Load().HardState.Term; term < c.terms[l.member.id] {
		c.world.fail("%v starts in term %d, and it has answered others in term %d", l.member, term, c.terms[l.member.id])
	}
}

func (c *checks) vote(voter, term, candidate uint64) {
	k := [2]uint64{voter, term}
	if first, voted := c.votes[k]; voted && first != candidate {
		c.world.fail("member %d votes in term %d for %d after it has voted for %d", voter, term, candidate, first)
	}
	c.votes[k] = candidate
}

// answered: what a caller was told to be done is in the log, where it was told.
func (c *checks) answered(what string, revision registry.Revision, value string) {
	if value != "" && c.model.values[value] != uint64(revision) {
		c.world.fail("%s was acknowledged at revision %d, and it was applied at %d (0 is nowhere)", what, revision, c.model.values[value])
	}
	if uint64(revision) > c.acked {
		c.acked = uint64(revision)
	}
}

// read: a linearizable answer is not older than anything acknowledged before
// the question, and every answer is what was true at its revision.
func (c *checks) read(who string, k registry.InstanceKey, i *registry.Instance, at, floor uint64) {
	if at < floor {
		c.world.fail("%s reads %v at revision %d, and %d had been acknowledged before it asked", who, k, at, floor)
	}
	if err := instanceIs(i, c.model.at(k, at)); err != nil {
		c.world.fail("%s reads %v at revision %d: %v", who, k, at, err)
	}
}

// leaseTolerance is what clocks may differ by over a TTL.
func leaseTolerance(ttl time.Duration) time.Duration {
	return time.Duration(float64(ttl)*2*driftMax) + time.Millisecond
}

// renewed: a lease that was renewed holds for its TTL, from when the renewal
// began; and there is one: what had run out before is not renewed in silence.
func (c *checks) renewed(k registry.InstanceKey, began time.Duration, ttl time.Duration) {
	if f := c.model.now(k); (f.expired || f.suspect) && f.since < began {
		c.world.fail("a renewal of %v, begun at %v, is acknowledged, and the lease had run out at %v", k, began, f.since)
	}
	until := began + ttl - leaseTolerance(ttl)
	c.safeUntil[k] = max(c.safeUntil[k], until)
}

// told: checkpoints are for what leaders know, so that they come only from who leads.
func (c *checks) told(e consensus.Entry, said *recordv1.Checkpoint) {
	if said.GetTerm() != e.Term {
		return
	}
	c.counts["checkpoints"]++
	for _, numbers := range said.GetOverdue() {
		for _, b := range numbers.GetBits() {
			c.counts["leases told to be overdue"] += bits.OnesCount8(b)
		}
	}
}

func (c *checks) expired(k registry.InstanceKey, e consensus.Entry) {
	c.counts["expiries"]++
	if until := c.safeUntil[k]; c.world.now < until {
		c.world.fail("the lease of %v is ended by entry %d of term %d, %v before its time: its holder was told that it is renewed", k, e.Index, e.Term, until-c.world.now)
	}
	c.world.tell("the lease of %v has run out, at revision %d", k, e.Index)
}

// suspected: no lease is kept that has not run out.
func (c *checks) suspected(k registry.InstanceKey, e consensus.Entry) {
	c.counts["suspects"]++
	if until := c.safeUntil[k]; c.world.now < until {
		c.world.fail("%v is a suspect by entry %d of term %d, %v before its time: its holder was told that it is renewed", k, e.Index, e.Term, until-c.world.now)
	}
	c.world.tell("%s is a suspect, at revision %d", describeKey(k), e.Index)
}

// protected: nothing is held back for the sake of a few.
func (c *checks) protected(p *recordv1.Protection, e consensus.Entry) {
	c.counts["protections"]++
	if p.GetLapsed() < p.GetLeast() || p.GetLapsed()*100 <= p.GetPercent()*p.GetLeases() {
		c.world.fail("a protection begins, by entry %d of term %d, when %d of %d leases have run out", e.Index, e.Term, p.GetLapsed(), p.GetLeases())
	}
	c.world.tell("protected from mass expiry: %v, at revision %d", p, e.Index)
}

func describeKey(k registry.InstanceKey) string { return fmt.Sprintf("%s/%s", k.Service, k.ID) }
