package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stellmap/stellmap/storage"
)

// backup is the member's state in a file.
func (n *node) backup(t *testing.T) []byte {
	t.Helper()
	state, err := n.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := storage.WriteBackup(t.Context(), &b, state, storage.SnapshotMeta{ClusterID: 100, Incarnation: n.Status().Incarnation}); err != nil {
		t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restore makes a disk's data directory one of a new cluster.
func restore(disk vfs.FS, data []byte, id uint64, members []Member, incarnation string) (Restored, error) {
	other := vfs.NewMem()
	f, err := other.Create("backup", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(bytes.Clone(data))
	}
	if err != nil {
		return Restored{}, err
	}
	meta, state, err := storage.OpenBackup(other, "backup")
	if err != nil {
		return Restored{}, err
	}
	defer state.Close()
	lock, err := storage.LockDir(disk, "data")
	if err != nil {
		return Restored{}, err
	}
	random := rand.New(rand.NewPCG(7, id))
	out, err := Restore(Restoration{
		Founding: Founding{NodeID: id, ClusterID: 100, Members: members},
		IdentityFile: IdentityFile{
			Load:     func() (storage.Identity, bool, error) { return storage.LoadIdentity(disk, "data") },
			Save:     func(id storage.Identity) error { return storage.SaveIdentity(disk, "data", id) },
			Occupied: func() (bool, error) { return storage.HasLogOrState(disk, "data") },
		},
		Incarnation: incarnation, Random: random.Uint64, Backup: meta, State: state,
		OpenEngine: func() (*storage.Engine, error) {
			return storage.OpenEngine(storage.EngineOptions{FS: disk, Dir: "data/state"})
		},
		OpenLog: func(base storage.Position) (*storage.Log, error) {
			return storage.OpenLog(storage.LogOptions{FS: disk, Dir: "data/wal", Base: base, Applied: base.Index, Salt: random.Uint64})
		},
	})
	return out, errors.Join(err, lock.Close())
}

// propose has a member's cluster do something.
func (n *node) propose(c *cluster, id, command string) (Reply, error) {
	type answer struct {
		reply Reply
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		reply, err := n.Propose(context.Background(), id, []byte(command))
		answers <- answer{reply, err}
	}()
	for range 20 {
		c.settle()
		select {
		case a := <-answers:
			return a.reply, a.err
		default:
			c.tick(c.ids())
		}
	}
	return Reply{}, errors.New("no answer in 20 ticks")
}

// pairs are all of a member's state, in words.
func (n *node) pairs(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := n.machine.engine.Scan(nil, nil, func(key, value []byte) error {
		d, ok, err := DescribeKey(key, value)
		if err == nil && !ok && !strings.HasPrefix(string(key), "/journal/") {
			err = fmt.Errorf("key %q has no description", key)
		}
		all[string(key)] = d.Kind + " " + string(d.Value)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A backup of three members becomes a new cluster: with the state of its moment,
// another incarnation, the log from 2^40 on, and without the old address book
// and the old request ids. An old member and an empty one are refused by it
// before any vote; the empty one, restored with the same incarnation, belongs.
func TestARestoredClusterIsANewOne(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		leader := c.nodes[c.nodes[1].Status().LeaderID]
		for _, command := range []string{"a", "b"} {
			if _, err := leader.propose(c, "request-"+command, command); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range []MemberChange{{Kind: AddLearner, Member: Member{ID: 4}}, {Kind: Remove, ID: 4}, {Kind: Replace, ID: 3, By: 5}} {
			if err := leader.change(c, m); err != nil { // all this is the old cluster's alone
				t.Fatal(err)
			}
		}
		old := leader.Status()
		data := leader.backup(t)
		if _, err := leader.propose(c, "", "after the backup"); err != nil {
			t.Fatal(err)
		}
		for _, id := range c.ids() {
			if err := c.nodes[id].stop(); err != nil {
				t.Fatal(err)
			}
		}
		c.queue = nil

		first, second, third := c.nodes[1], c.nodes[2], c.nodes[3] // the third has the old data
		first.fs, second.fs = vfs.NewCrashableMem(), vfs.NewCrashableMem()
		made, err := restore(first.fs, data, 1, c.members(), "")
		if err != nil {
			t.Fatal(err)
		}
		if made.Base.Index != 1<<40 || made.Base.Term != old.Term || made.Incarnation == old.Incarnation || made.Members != 4 || made.Requests != 2 {
			t.Errorf("restored %+v from a cluster in term %d", made, old.Term)
		}
		if again, err := restore(second.fs, data, 2, c.members(), made.Incarnation); err != nil || again.Incarnation != made.Incarnation || again.Base != made.Base {
			t.Fatalf("restored %+v, %v", again, err)
		}
		for _, id := range c.ids() {
			if err := c.nodes[id].start(); err != nil {
				t.Fatalf("start node %d: %v", id, err)
			}
		}
		for range 40 {
			c.tick(c.ids())
		}
		s := first.Status()
		if s.LeaderID != 1 && s.LeaderID != 2 || s.Incarnation != made.Incarnation || s.Term <= old.Term || s.Applied <= 1<<40 {
			t.Fatalf("the status is %+v", s)
		}
		if len(s.Learners) > 0 || len(s.Removed) > 0 || s.Replacement != nil {
			t.Errorf("the old cluster's members: %+v", s)
		}
		if l := third.Status().LeaderID; l != 0 {
			t.Errorf("the old member follows %d", l)
		}
		for _, pair := range [][2]*node{{first, third}, {third, second}} {
			var r *Refusal
			if err := pair[0].Greet(pair[1].Introduce()); !errors.As(err, &r) || r.Reason != RefusedCluster || !strings.Contains(r.Text, made.Incarnation) {
				t.Errorf("node %d says to node %d: %v", pair[0].id, pair[1].id, err)
			}
		}
		if got := first.machine.content(); got != "a b" {
			t.Errorf("the state is %q", got)
		}
		var members []uint64
		for _, m := range s.Members {
			members = append(members, m.ID)
		}
		if fmt.Sprint(members) != "[1 2]" {
			t.Errorf("the address book has %v", members)
		}
		reply, err := c.nodes[s.LeaderID].propose(c, "request-a", "c")
		if err != nil || reply.Index <= 1<<40 || string(reply.Data) != "did c" {
			t.Errorf("a remembered request is answered with %+v, %v", reply, err)
		}
		for key, text := range first.pairs(t) {
			if strings.HasPrefix(text, "request ") && !strings.Contains(text, fmt.Sprintf(`"index":%d`, reply.Index)) {
				t.Errorf("%s is %s", key, text)
			}
		}

		// An empty one of the same list does not belong either, though it knows no incarnation.
		if err := third.stop(); err != nil {
			t.Fatal(err)
		}
		third.fs = vfs.NewCrashableMem()
		if err := third.start(); err != nil {
			t.Fatal(err)
		}
		var r *Refusal
		if err := first.Greet(third.Introduce()); !errors.As(err, &r) || r.Reason != RefusedCluster || !strings.Contains(r.Text, "--incarnation") {
			t.Errorf("an empty member: %v", err)
		}
		if err := third.stop(); err != nil {
			t.Fatal(err)
		}
		third.fs = vfs.NewCrashableMem()
		if _, err := restore(third.fs, data, 3, c.members(), made.Incarnation); err != nil {
			t.Fatal(err)
		}
		if err := third.start(); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			c.tick(c.ids())
		}
		if third.machine.content() != "a b c" || fmt.Sprint(third.pairs(t)) != fmt.Sprint(first.pairs(t)) {
			t.Errorf("the third member's state is %q", third.machine.content())
		}
		third.crash()
		if err := third.start(); err != nil {
			t.Errorf("after a power cut: %v", err)
		}
	})
}

// A member is restored with others only from the same file and with the same
// list, and only into a directory that is nobody's.
func TestRestoreRefuses(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		data := c.nodes[1].backup(t)
		made, err := restore(vfs.NewMem(), data, 1, c.members(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.nodes[1].propose(c, "", "more"); err != nil {
			t.Fatal(err)
		}
		later := c.nodes[1].backup(t)
		if made.Base.Term == 0 || len(made.Incarnation) != 32 {
			t.Errorf("restored %+v", made)
		}
		two := append(c.members(), Member{ID: 2})
		for name, try := range map[string]func(vfs.FS) error{
			"another file": func(fs vfs.FS) error { _, err := restore(fs, later, 1, c.members(), made.Incarnation); return err },
			"another list": func(fs vfs.FS) error { _, err := restore(fs, data, 1, two, made.Incarnation); return err },
			"half an incarnation": func(fs vfs.FS) error {
				_, err := restore(fs, data, 1, c.members(), made.Incarnation[:16])
				return err
			},
			"not in the list": func(fs vfs.FS) error { _, err := restore(fs, data, 9, c.members(), ""); return err },
		} {
			fs := vfs.NewMem()
			if err := try(fs); err == nil {
				t.Errorf("%s: restored", name)
			}
			if _, found, err := storage.LoadIdentity(fs, "data"); found || err != nil {
				t.Errorf("%s: it left an identity, %v", name, err)
			}
		}
		used := vfs.NewMem()
		if _, err := restore(used, data, 1, c.members(), ""); err != nil {
			t.Fatal(err)
		}
		if _, err := restore(used, data, 1, c.members(), ""); err == nil || !strings.Contains(err.Error(), "a member's already") {
			t.Errorf("restored twice: %v", err)
		}
	})
}

// A state of a backup becomes one at the next multiple of 2^40, also of one that
// was restored before, and not beyond what every program reads.
func TestTheBaseOfARestoredLog(t *testing.T) {
	for _, one := range []struct{ index, want uint64 }{
		{1, 1 << 40}, {1<<40 - 1, 1 << 40}, {1 << 40, 2 << 40}, {1<<40 + 77, 2 << 40}, {1<<53 - 1, 0},
	} {
		broken := errors.New("enough")
		r := Restoration{
			Founding: Founding{NodeID: 1, ClusterID: 1, Members: []Member{{ID: 1}}}, Backup: storage.SnapshotMeta{Index: one.index, Term: 3},
			IdentityFile: IdentityFile{
				Load:     func() (storage.Identity, bool, error) { return storage.Identity{}, false, nil },
				Save:     func(storage.Identity) error { return nil },
				Occupied: func() (bool, error) { return false, nil },
			},
			OpenEngine: func() (*storage.Engine, error) { return nil, broken },
		}
		out, err := Restore(r)
		if one.want == 0 {
			if err == nil || !strings.Contains(err.Error(), "2^53") {
				t.Errorf("%d: %v", one.index, err)
			}
			continue
		}
		if !errors.Is(err, broken) || out != (Restored{}) {
			t.Fatalf("%d: %+v, %v", one.index, out, err)
		}
		if got := baseAfter(storage.Position{Index: one.index, Term: 3}); got != (storage.Position{Index: one.want, Term: 3}) {
			t.Errorf("after %d the log begins at %v, want %d", one.index, got, one.want)
		}
	}
}

// eachOperation looks at what a power cut at each operation of a disk would leave.
type eachOperation struct {
	fs   *vfs.MemFS
	look func(left *vfs.MemFS)
	mu   sync.Mutex // held while it looks
}

func (e *eachOperation) String() string { return "each operation" }

func (e *eachOperation) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead || !e.mu.TryLock() {
		return nil
	}
	defer e.mu.Unlock()
	random := rand.New(rand.NewPCG(3, 3))
	for _, percent := range []int{0, 50, 100} {
		e.look(e.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: random}))
	}
	return nil
}

// A power cut at each operation of a restore leaves an empty directory, or one
// that is refused as half restored, or a whole member. Once it has returned it is
// a whole one.
func TestACrashInRestoreIsNoMember(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		if _, err := c.nodes[1].propose(c, "", "a"); err != nil {
			t.Fatal(err)
		}
		data := c.nodes[1].backup(t)
		found := map[string]int{}
		look := func(left *vfs.MemFS) string {
			what := whatIsLeft(t, left, c.members())
			found[what]++
			return what
		}
		fs := vfs.NewCrashableMem()
		each := &eachOperation{fs: fs, look: func(left *vfs.MemFS) { look(left) }}
		if _, err := restore(errorfs.Wrap(fs, each), data, 1, c.members(), ""); err != nil {
			t.Fatal(err)
		}
		if got := look(fs.CrashClone(vfs.CrashCloneCfg{})); got != "a member" {
			t.Errorf("after the restore a power cut leaves %s", got)
		}
		if found["nothing"] == 0 || found["half restored"] == 0 || found["a member"] == 0 || len(found) != 3 {
			t.Errorf("found %v", found)
		}
	})
}

// whatIsLeft is how a start takes a directory.
func whatIsLeft(t *testing.T, disk *vfs.MemFS, members []Member) string {
	t.Helper()
	file := IdentityFile{
		Load:     func() (storage.Identity, bool, error) { return storage.LoadIdentity(disk, "data") },
		Save:     func(storage.Identity) error { return nil },
		Occupied: func() (bool, error) { return storage.HasLogOrState(disk, "data") },
	}
	id, err := Found(file, Founding{NodeID: 1, ClusterID: 100, Members: members})
	switch {
	case err != nil && strings.Contains(err.Error(), "half restored"):
		return "half restored"
	case err != nil:
		t.Fatalf("a power cut left: %v", err)
	case id.Stage == storage.StageFounding:
		return "nothing"
	}
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: disk, Dir: "data/state"})
	if err != nil {
		t.Fatal(err)
	}
	at := engine.AppliedIndex()
	log, err := storage.OpenLog(storage.LogOptions{FS: disk, Dir: "data/wal", Base: Base(), Applied: at.Index, Salt: rand.Uint64})
	if err != nil {
		t.Fatal(err)
	}
	if l := log.Load(); at.Index != 1<<40 || l.First != 1<<40+1 || l.HardState.Commit != 1<<40 || l.HardState.Term != at.Term {
		t.Errorf("the state is at %v, the log %+v", at, l)
	}
	if err := closeAll([]io.Closer{engine, log}); err != nil {
		t.Fatal(err)
	}
	return "a member"
}
