package consensus

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Each file in testdata is a story about a cluster, told command by command.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.story")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".story"), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 1) // where Raft takes its election jitter from
			synctest.Test(t, func(t *testing.T) {
				s := &story{t: t, pending: make(map[string]chan string)}
				datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
					s.d = d
					return s.handle()
				})
			})
		})
	}
}

type story struct {
	left    func() *vfs.MemFS // set by arm
	t       *testing.T
	d       *datadriven.TestData
	cluster *cluster
	pending map[string]chan string
}

func (s *story) handle() string {
	commands := map[string]func() string{
		"cluster": s.makeCluster, "tick": s.tick, "status": s.status, "propose": s.propose, "barrier": s.barrier, "ask": s.ask,
		"wait": s.wait, "cut": s.cut, "heal": s.heal, "stop": s.stop, "crash": s.crash, "start": s.start, "wipe": s.wipe,
		"inject": s.inject, "book": s.book, "leadership": s.leadership, "ended": s.ended,
		"join": s.join, "change": s.change, "members": s.members, "hand-over": s.handOver,
		"lose-identity": s.loseIdentity, "disk": s.disk, "space": s.space, "compact": s.compact, "log": s.logs, "fill": s.fill, "breaks": s.breaks, "carried": s.carried, "hold": s.hold, "release": s.release,
		"arm": s.arm, "crash-in-install": s.crashInInstall,
		"spoil": s.spoil, "checks": s.checks,
	}
	command, ok := commands[s.d.Cmd]
	if !ok {
		s.d.Fatalf(s.t, "unknown command %q", s.d.Cmd)
	}
	return command()
}

func (s *story) arg(key string, fallback uint64) uint64 {
	value := fallback
	if s.d.HasArg(key) {
		s.d.ScanArgs(s.t, key, &value)
	}
	return value
}

func (s *story) node() *node { return s.cluster.nodes[s.arg("at", 0)] }

func (s *story) makeCluster() string {
	checkTicks := s.arg("check-ticks", 600)
	s.cluster = newTunedCluster(s.t, int(s.arg("size", 3)), s.d.HasArg("short"), func(c *Config) {
		c.CheckEvery = time.Duration(checkTicks) * 100 * time.Millisecond
	})
	s.cluster.settle()
	return ""
}

// fill at=1 from=1 to=9: proposes numbers, one after the other.
func (s *story) fill() string {
	n := s.node()
	var last Reply
	for i := s.arg("from", 1); i <= s.arg("to", 1); i++ {
		done := make(chan error, 1)
		go func() {
			reply, err := n.Propose(context.Background(), "", fmt.Append(nil, i))
			last = reply
			done <- err
		}()
		s.cluster.settle()
		if err := <-done; err != nil {
			return fmt.Sprintf("%d: %v\n", i, err)
		}
	}
	return fmt.Sprintf("index %d: %s\n", last.Index, last.Data)
}

// compact at=1: the member makes its state durable, and does what it does once a second.
func (s *story) compact() string {
	if err := s.node().config.Engine.Flush(); err != nil {
		return fmt.Sprintln(err)
	}
	if err := s.node().compact(); err != nil {
		return fmt.Sprintln(err)
	}
	s.cluster.tick([]uint64{s.arg("at", 0)}) // on which the log is cut
	return ""
}

// spoil at=1: from now on the member makes something else of commands than the others do.
func (s *story) spoil() string {
	s.node().machine.spoiled = true
	return ""
}

// checks has a line for each member: what it knows of the members' states.
func (s *story) checks() string {
	var b strings.Builder
	for _, id := range s.cluster.ids() {
		if n := s.cluster.nodes[id]; !n.gone {
			c := n.Status().Check
			fmt.Fprintf(&b, "%d: after %d equal %v, different %v, missing %v, split %t\n", id, c.Index, c.Equal, c.Different, c.Missing, c.Split)
		}
	}
	return b.String()
}

// breaks after=48: each transfer of a snapshot breaks off after so many bytes; 0 = none does.
func (s *story) breaks() string {
	s.cluster.breaks = int64(s.arg("after", 0))
	return ""
}

// carried: how many bytes of snapshots went over the network since it was asked last.
func (s *story) carried() string {
	defer func() { s.cluster.carried = 0 }()
	if s.cluster.carried == 0 {
		return "nothing\n"
	}
	for _, n := range s.cluster.nodes {
		if n.gone {
			continue
		}
		for _, m := range n.config.Snapshots.List() {
			if m.FileBytes == s.cluster.carried {
				return "one snapshot, once\n"
			}
		}
	}
	return "something else than one snapshot\n"
}

// hold keeps the transfers of snapshots back, and release lets them arrive.
func (s *story) hold() string {
	s.cluster.holds = true
	return ""
}

func (s *story) release() string {
	s.cluster.holds = false
	for _, m := range s.cluster.late {
		s.cluster.deliver(m)
	}
	s.cluster.late = nil
	return s.status()
}

// arm at=3 is for the next install of a member; crash-in-install at=3 ends it with the disk as it was between the two
// steps of that.
func (s *story) arm() string {
	s.left = s.node().crashInInstall()
	return ""
}

func (s *story) crashInInstall() string {
	left := s.left()
	if left == nil {
		return "nothing was installed\n"
	}
	if err := s.node().stop(); err != nil {
		return err.Error() + "\n"
	}
	s.node().fs = left
	return s.heal()
}

// logs has a line for each member.
func (s *story) logs() string {
	var b strings.Builder
	for _, id := range s.cluster.ids() {
		if n := s.cluster.nodes[id]; !n.gone {
			st := n.Status()
			fmt.Fprintf(&b, "%d: log from %d, snapshot %d\n", id, st.LogFirst, st.Snapshot)
		}
	}
	return b.String()
}

// tick at=1 times=3: all members, or one; until-leader=1, until it knows one,
// until-leads=1, until it leads.
func (s *story) tick() string {
	ids := s.cluster.ids()
	if s.d.HasArg("at") {
		ids = []uint64{s.arg("at", 0)}
	}
	until, leads := s.arg("until-leader", 0), s.arg("until-leads", 0)
	for range s.arg("times", 1) {
		s.cluster.tick(ids)
		if until != 0 && s.cluster.nodes[until].Status().LeaderID != 0 || leads != 0 && s.cluster.nodes[leads].Status().Role == RoleLeader {
			break
		}
	}
	return s.status()
}

// status has a line for each member.
func (s *story) status() string {
	s.cluster.settle()
	var b strings.Builder
	for _, id := range s.cluster.ids() {
		n := s.cluster.nodes[id]
		if n.gone {
			fmt.Fprintf(&b, "%d: down\n", id)
			continue
		}
		if len(n.ended) > 0 {
			fmt.Fprintf(&b, "%d: ended\n", id)
			continue
		}
		st := n.Status()
		fmt.Fprintf(&b, "%d: %s of term %d, leader %d, commit %d, applied %d", id, st.Role, st.Term, st.LeaderID, st.Commit, st.Applied)
		if n.rebuilt != nil && n.rebuilt.Install {
			b.WriteString(", finished an install at its start")
		}
		if !st.Confirmed {
			b.WriteString(", not confirmed")
		}
		fmt.Fprintf(&b, " [%s]\n", n.machine.content())
	}
	return b.String()
}

// begin runs a call in the background; what it answers at once is shown.
func (s *story) begin(call func() string) string {
	name := fmt.Sprintf("call-%d", len(s.pending)+1)
	done := make(chan string, 1)
	s.pending[name] = done
	go func() { done <- call() }()
	s.cluster.settle()
	select {
	case answer := <-done:
		return answer
	default:
		return name + " waits\n"
	}
}

// propose at=1 id=x, with the command as input.
func (s *story) propose() string {
	n, id, data := s.node(), "", []byte(s.d.Input)
	if s.d.HasArg("id") {
		s.d.ScanArgs(s.t, "id", &id)
	}
	return s.begin(func() string {
		reply, err := n.Propose(context.Background(), id, data)
		if err != nil {
			return err.Error() + "\n"
		}
		return fmt.Sprintf("index %d: %s\n", reply.Index, reply.Data)
	})
}

func (s *story) barrier() string {
	n := s.node()
	return s.begin(func() string {
		index, err := n.Barrier(context.Background())
		if err != nil {
			return err.Error() + "\n"
		}
		return fmt.Sprintf("index %d\n", index)
	})
}

func (s *story) ask() string {
	n, data := s.node(), []byte(s.d.Input)
	return s.begin(func() string {
		answer, err := n.Ask(context.Background(), data)
		if err != nil {
			return err.Error() + "\n"
		}
		return string(answer) + "\n"
	})
}

// wait for=call-1 times=20: ticks all members until the call answers.
func (s *story) wait() string {
	var name string
	s.d.ScanArgs(s.t, "for", &name)
	for range s.arg("times", 40) {
		select {
		case answer := <-s.pending[name]:
			return answer
		default:
			s.cluster.tick(s.cluster.ids())
		}
	}
	return "still waits\n"
}

// cut from=1 to=2 for one way, cut at=1 for all ways to and from it.
func (s *story) cut() string {
	if !s.d.HasArg("from") {
		s.cluster.isolate(s.arg("at", 0))
		return ""
	}
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.cluster.cut[[2]uint64{s.arg("from", 0), s.arg("to", 0)}] = true
	return ""
}

func (s *story) heal() string {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	clear(s.cluster.cut)
	return ""
}

func (s *story) stop() string {
	if err := s.node().stop(); err != nil {
		return err.Error() + "\n"
	}
	return ""
}

func (s *story) crash() string {
	s.node().crash()
	return ""
}

func (s *story) start() string {
	n := s.node()
	if err := n.start(); err != nil {
		return err.Error() + "\n"
	}
	r := n.Recovery()
	s.cluster.settle()
	return fmt.Sprintf("state at %d, log %d to %d, committed %d, replayed %d, torn bytes %d, founded %v\n",
		r.Engine.Index, r.LogFirst, r.LogLast, r.Commit, r.Replayed, r.TornBytes, r.Founded)
}

// wipe empties the data directory of a member that is down.
func (s *story) wipe() string {
	s.node().fs = vfs.NewCrashableMem()
	return ""
}

func (s *story) loseIdentity() string {
	if err := s.node().fs.Remove("data/identity.json"); err != nil {
		return err.Error() + "\n"
	}
	return ""
}

// join at=4 via=1: a node with an empty directory is taken in and runs.
func (s *story) join() string {
	id := s.arg("at", 0)
	n := s.cluster.nodes[id]
	if n == nil {
		n = &node{cluster: s.cluster, id: id, fs: vfs.NewCrashableMem(), gone: true}
		s.cluster.nodes[id] = n
	}
	n.joins, n.via = true, s.arg("via", 0)
	if err := n.start(); err != nil {
		return err.Error() + "\n"
	}
	s.cluster.settle()
	return ""
}

// change at=1 promote=4; remove=2 force; replace=2 by=4; abandon; transfer=3.
func (s *story) change() string {
	n, c := s.node(), MemberChange{By: s.arg("by", 0), Force: s.d.HasArg("force")}
	for word, kind := range map[string]MemberChangeKind{
		"add-learner": AddLearner, "promote": Promote, "remove": Remove, "replace": Replace, "abandon": AbandonReplace, "transfer": TransferLeader,
	} {
		if s.d.HasArg(word) {
			c.Kind = kind
		}
		if s.d.HasArg(word) && kind != AbandonReplace {
			c.ID = s.arg(word, 0)
		}
	}
	if c.Kind == AddLearner {
		c.Member = (&node{id: c.ID}).self()
	}
	return s.begin(func() string {
		index, err := n.ChangeMembers(context.Background(), c)
		if err != nil {
			return err.Error() + "\n"
		}
		return fmt.Sprintf("done, applied up to %d\n", index)
	})
}

// hand-over at=1: what a member does that is about to stop.
func (s *story) handOver() string {
	n := s.node()
	return s.begin(func() string {
		if err := n.HandOver(context.Background()); err != nil {
			return err.Error() + "\n"
		}
		return "done\n"
	})
}

// members at=1: who votes and who learns, and how far they are.
func (s *story) members() string {
	s.cluster.settle()
	st := s.node().Status()
	var b strings.Builder
	fmt.Fprintf(&b, "voters %v", st.Voters)
	if len(st.VotersOutgoing) > 0 {
		fmt.Fprintf(&b, " outgoing %v", st.VotersOutgoing)
	}
	fmt.Fprintf(&b, " learners %v removed %v", st.Learners, st.Removed)
	if r := st.Replacement; r != nil {
		fmt.Fprintf(&b, ", %d takes the place of %d", r.New, r.Old)
	}
	b.WriteString("\n")
	for _, p := range st.Progress {
		fmt.Fprintf(&b, "%d: match %d, %d behind, learner %v, active %v, %s\n", p.ID, p.Match, p.Behind, p.Learner, p.Active, p.State)
	}
	return b.String()
}

// disk at=1 blocks, fails or works: it is about the log's syncs.
func (s *story) disk() string {
	n := s.node()
	switch {
	case s.d.HasArg("blocks"):
		n.trouble.block()
	case s.d.HasArg("fails"):
		n.trouble.fail()
	case s.d.HasArg("works"):
		n.trouble.end()
	}
	s.cluster.settle()
	return ""
}

// space at=1 low or ok: what the member finds on its disk; without a word, who
// is low in the leader's eyes.
func (s *story) space() string {
	n := s.node()
	switch {
	case s.d.HasArg("low"):
		n.low.Store(true)
	case s.d.HasArg("ok"):
		n.low.Store(false)
	default:
		st := n.Status()
		return fmt.Sprintf("%s, low itself %v, low members %v\n", st.Role, st.Low, st.LowMembers)
	}
	return ""
}

// inject has the leader append an entry as some other version might.
func (s *story) inject() string {
	n := s.node()
	n.calls.put(&call{kind: callPropose, entryKind: entryKind(s.arg("kind", 0)), data: []byte(s.d.Input)}, 0)
	return s.status()
}

func (s *story) book() string {
	s.cluster.settle()
	st := s.node().Status()
	var b strings.Builder
	fmt.Fprintf(&b, "incarnation of %d digits, feature level %d, voters %v\n", len(st.Incarnation), st.FeatureLevel, st.Voters)
	for _, m := range st.Members {
		fmt.Fprintf(&b, "%d: %s %s\n", m.ID, m.UUID, m.HTTP)
	}
	return b.String()
}

func (s *story) leadership() string {
	return strings.Join(s.node().machine.events, ", ") + "\n"
}

// ended shows why a member's Run returned.
func (s *story) ended() string {
	n := s.node()
	s.cluster.settle()
	select {
	case err := <-n.ended:
		n.ended <- nil // seen
		if err == nil {
			return "stopped\n"
		}
		return err.Error() + "\n"
	default:
		return "it runs\n"
	}
}
