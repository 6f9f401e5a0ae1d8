package consensus

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// Members that applied the same entries have the same state, unless there is a
// bug in applying, or a disk that returns other bytes than it was given. So the
// leader has an entry written now and then that asks for a check: each member
// hashes its state as it is after that entry, in the background, and has the
// hash written into the log. Since all see the same hashes in the same order,
// all come to the same verdict when they apply them:
//
//   - A member whose hash is another than that of a majority of the voters stops,
//     for good: the entry with the verdict is not applied, so every start ends there.
//   - While hashes differ and none has a majority nobody knows who is right:
//     commands are refused.
//
// etcd 3.5 shipped a bug that such a check finds for ten months, with the check
// switched off by default. This one is on.

// check is the newest check. It is not changed once published.
type check struct {
	index  uint64            // the entry that asked; 0 = there was none
	hashes map[uint64]string // by member
}

const checkKey = storage.MetaPrefix + "check"

func checkOf(p *peerv1.Check) check {
	c := check{index: p.GetIndex(), hashes: make(map[uint64]string)}
	for _, r := range p.GetReports() {
		c.hashes[r.GetId()] = r.GetHash()
	}
	return c
}

func (c check) proto() *peerv1.Check {
	p := &peerv1.Check{Index: c.index}
	for id, hash := range c.hashes {
		p.Reports = append(p.Reports, &peerv1.Checked{Index: c.index, Id: id, Hash: hash})
	}
	slices.SortFunc(p.Reports, func(a, b *peerv1.Checked) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return p
}

func (f *facts) setCheck(b *storage.Batch, c check) {
	f.check = c
	b.Set([]byte(checkKey), marshal(c.proto()))
}

// verdict is the hash of a majority of the voters; "" when none has one, and then
// split says that there are several.
func (f *facts) verdict() (right string, split bool) {
	for _, hash := range f.check.hashes {
		if f.majority(func(id uint64) bool { return f.check.hashes[id] == hash }) {
			return hash, false
		}
	}
	return "", len(slices.Compact(slices.Sorted(maps.Values(f.check.hashes)))) > 1
}

// majority tells whether the condition holds for a majority of the voters, in
// both configurations where there are two.
func (f *facts) majority(is func(id uint64) bool) bool {
	outgoing := f.conf.GetVotersOutgoing()
	return count(f.conf.GetVoters(), is) > len(f.conf.GetVoters())/2 && (len(outgoing) == 0 || count(outgoing, is) > len(outgoing)/2)
}

// beginCheck applies the entry that asks for one.
func (x *applier) beginCheck(b *storage.Batch, index uint64) {
	x.ownFacts().setCheck(b, check{index: index, hashes: make(map[uint64]string)})
}

// checked applies what a member says of its state.
func (x *applier) checked(b *storage.Batch, payload []byte) error {
	var said peerv1.Checked
	if err := proto.Unmarshal(payload, &said); err != nil {
		return fmt.Errorf("decode the hash of a member's state: %w", err)
	}
	f := x.ownFacts()
	if said.GetIndex() != f.check.index {
		return nil // of an earlier check
	}
	next := check{index: f.check.index, hashes: make(map[uint64]string, len(f.check.hashes)+1)}
	for id, hash := range f.check.hashes {
		next.hashes[id] = hash
	}
	next.hashes[said.GetId()] = said.GetHash()
	f.setCheck(b, next)
	right, _ := f.verdict()
	if own := next.hashes[x.id]; right != "" && own != "" && own != right {
		return fmt.Errorf("%w: after entry %d the state of node %d has the hash %s, and a majority has %s. What this member holds is wrong: do not start it again; %s",
			ErrDiverged, next.index, x.id, own, right, replaceHint(x.id))
	}
	return nil
}

// checker hashes states. The applier hands them over, and does not wait.
type checker struct {
	wake chan struct{}

	mu      sync.Mutex // guards what follows
	pending *storage.EngineSnapshot
	closed  bool
}

// take hands over the state to hash. One that nobody has begun with is given up:
// there is a newer check.
func (c *checker) take(s *storage.EngineSnapshot) error {
	c.mu.Lock()
	old := c.pending
	c.pending = s
	if c.closed {
		old, c.pending = s, nil
	}
	c.mu.Unlock()
	notify(c.wake)
	if old != nil {
		return old.Close()
	}
	return nil
}

func (c *checker) next() *storage.EngineSnapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.pending
	c.pending = nil
	return s
}

// close takes no more, and gives up what it has.
func (c *checker) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.pending == nil {
		return nil
	}
	err := c.pending.Close()
	c.pending = nil
	return err
}

// checkStates hashes what the applier hands over, and has the hashes written
// into the log.
func (g *Group) checkStates() {
	defer func() {
		if err := g.checker.close(); err != nil {
			g.log.Warn("closing the state that was to be hashed", "error", err)
		}
	}()
	for next(g, g.checker.wake) {
		state := g.checker.next()
		if state == nil {
			continue
		}
		if err := g.checkState(state); err != nil && g.ctx.Err() == nil {
			g.fail(err)
			return
		}
	}
}

func (g *Group) checkState(state *storage.EngineSnapshot) error {
	index, began := state.Applied().Index, g.config.Clock.Now()
	hash, err := state.Hash(g.ctx)
	if err = errors.Join(err, state.Close()); err != nil {
		return fmt.Errorf("hash the state after entry %d: %w", index, err)
	}
	g.metrics.checkSeconds.Observe(g.config.Clock.Now().Sub(began).Seconds())
	g.report(&peerv1.Checked{Index: index, Id: g.config.ID, Hash: hash})
	return nil
}

// report proposes until it is applied or another check has begun.
func (g *Group) report(said *peerv1.Checked) {
	ticks, stop := g.config.Clock.Ticker(checkReportEvery)
	defer stop()
	payload := marshal(said)
	for {
		f := g.facts.Load()
		if _, done := f.check.hashes[g.config.ID]; done || f.check.index > said.GetIndex() {
			return
		}
		if _, err := g.proposeAs(g.ctx, kindChecked, "", payload); err == nil || !next(g, ticks) {
			return
		}
	}
}

// checkReportEvery is after how long a hash is proposed again that may be lost.
const checkReportEvery = time.Second

// proposeCheck has the leader ask for a check when something was applied since the
// last one but what members said about that, or when somebody cannot say anything
// about that any more.
func (g *Group) proposeCheck() {
	every := g.ticksIn(g.config.CheckEvery)
	if g.config.CheckEvery <= 0 || g.leads == 0 || g.committedTerm != g.leads || g.ticks-g.asksCheck < every {
		return
	}
	g.asksCheck = g.ticks
	f := g.facts.Load()
	if len(f.members) > 1 && (g.applied > f.check.index+uint64(len(f.check.hashes)) || g.isBeyondCheck(f)) {
		g.proposeRecord("check", kindCheck, func() []byte { return nil })
	}
}

// isBeyondCheck tells whether a member that is there and has all entries has not
// said what its state was after the last check. One that came by a newer snapshot
// never will, and in a cluster in which nothing is written no other check would come.
func (g *Group) isBeyondCheck(f *facts) bool {
	return slices.ContainsFunc(g.lookAtProgress(), func(p MemberProgress) bool {
		_, spoken := f.check.hashes[p.ID]
		return !spoken && p.Active && p.Behind == 0
	})
}

// refuseDiverged is why commands are refused when the states differ, or nil.
func (g *Group) refuseDiverged(c *call) error {
	f := g.facts.Load()
	if c.entryKind != kindCommand || f.check.index == 0 {
		return nil
	}
	if _, split := f.verdict(); split {
		return fmt.Errorf("%w after entry %d, and none has a majority: %s; find out which is right, and make a new cluster from its backup",
			ErrDiverged, f.check.index, f.check)
	}
	return nil
}

// String is who has which hash, shortened.
func (c check) String() string {
	text := ""
	for _, r := range c.proto().GetReports() {
		text += fmt.Sprintf(", node %d has %.12s", r.GetId(), r.GetHash())
	}
	return text[min(2, len(text)):]
}

// Check is how far the members' states are known to be equal.
type Check struct {
	Index     uint64   // the entry after which they were compared; 0 = they were not yet
	Equal     []uint64 // have the hash that a majority has, or that all have who have spoken
	Different []uint64 // have another one
	Missing   []uint64 // have not said yet
	Split     bool     // no hash has a majority: commands are refused
}

func (f *facts) checkStatus() Check {
	right, split := f.verdict()
	out := Check{Index: f.check.index, Split: split}
	if out.Index == 0 {
		return out
	}
	ids := slices.Concat(f.conf.GetVoters(), f.conf.GetVotersOutgoing(), f.conf.GetLearners())
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		switch hash, spoken := f.check.hashes[id]; {
		case !spoken:
			out.Missing = append(out.Missing, id)
		case hash == right, right == "" && !split:
			out.Equal = append(out.Equal, id)
		default:
			out.Different = append(out.Different, id)
		}
	}
	return out
}

// asksForCheck tells whether an entry is one after which the state is hashed.
func asksForCheck(e *pb.Entry) bool {
	if e.GetType() != pb.EntryNormal || len(e.GetData()) < envelopeHeadBytes {
		return false
	}
	return e.GetData()[1] == byte(kindCheck)
}
