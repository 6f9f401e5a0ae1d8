package consensus

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage"
)

// An id is bound to the first UUID that comes with it, before any address book
// says so, and over a restart.
func TestAnIDIsBoundAtTheFirstHandshake(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		one := c.nodes[1]
		introduction := c.nodes[2].Introduce()
		if err := one.Greet(introduction); err != nil {
			t.Fatal(err)
		}
		other := introduction
		other.Member.UUID = "another"
		refused := func(when string) {
			t.Helper()
			var r *Refusal
			if err := one.Greet(other); !errors.As(err, &r) || r.Reason != RefusedUUID {
				t.Errorf("another UUID %s: %v", when, err)
			}
			if err := one.Greet(introduction); err != nil {
				t.Errorf("the first UUID %s: %v", when, err)
			}
			if !one.Known(2, introduction.Member.UUID) || one.Known(2, "another") || one.Known(2, "") {
				t.Errorf("known %s", when)
			}
		}
		refused("at once")
		one.crash()
		if err := one.start(); err != nil {
			t.Fatal(err)
		}
		refused("after a power cut")
	})
}

// A member of another incarnation is refused; one that knows none yet is not.
func TestIncarnationsDoNotMix(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for range 25 {
			c.tick(c.ids())
		}
		introduction := c.nodes[2].Introduce()
		introduction.Incarnation = ""
		if err := c.nodes[1].Greet(introduction); err != nil {
			t.Errorf("no incarnation yet: %v", err)
		}
		introduction.Incarnation = "another"
		var r *Refusal
		if err := c.nodes[1].Greet(introduction); !errors.As(err, &r) || r.Reason != RefusedCluster {
			t.Errorf("another incarnation: %v", err)
		}
	})
}

// A handshake that cannot be written down does not count, and ends the member.
func TestAHandshakeThatIsNotWrittenDoesNotCount(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		one := c.nodes[1]
		broken := errors.New("broken")
		one.acquaintances.file.Save = func(storage.Identity) error { return broken }
		introduction := c.nodes[2].Introduce()
		if err := one.Greet(introduction); !errors.Is(err, broken) {
			t.Errorf("greet: %v", err)
		}
		if one.Known(2, introduction.Member.UUID) {
			t.Error("it is known all the same")
		}
		if err := <-one.ended; !errors.Is(err, broken) {
			t.Errorf("the member ended with %v", err)
		}
		one.ended <- nil
	})
}

// A crash at any moment of the first start is repaired by the next one, under
// the same UUID.
func TestACrashDuringTheFirstStartIsRepaired(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		for saves := range 3 { // of the identity, before the crash
			n := &node{cluster: c, id: 1, fs: vfs.NewCrashableMem(), gone: true}
			n.crashAtSave = saves + 1
			err := n.start()
			if saves < 2 && err == nil {
				t.Fatalf("crash at save %d: it started", saves+1)
			}
			if err == nil {
				n.crash()
			}
			n.fs, n.crashAtSave = n.fs.CrashClone(vfs.CrashCloneCfg{}), 0
			if err := n.start(); err != nil {
				t.Fatalf("after a crash at save %d: %v", saves+1, err)
			}
			wantUUID := "uuid-1-1"
			if saves == 0 {
				wantUUID = "uuid-1-2" // the first was never written
			}
			if have := n.Introduce().Member.UUID; have != wantUUID {
				t.Errorf("after a crash at save %d the UUID is %s, want %s", saves+1, have, wantUUID)
			}
			if n.Recovery().Founded != (saves < 2) || n.Status().Role != RoleLeader {
				t.Errorf("after a crash at save %d: %+v, %s", saves+1, n.Recovery(), n.Status().Role)
			}
			if err := n.stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A directory that is not what the configuration means is refused, with why.
func TestForeignDirectoriesAreRefused(t *testing.T) {
	members := []Member{{ID: 1}, {ID: 2}}
	ready := storage.Identity{NodeID: 1, ClusterID: 100, UUID: "u", Stage: storage.StageReady, Founders: Founding{ClusterID: 100, Members: members}.digest()}
	good := Founding{NodeID: 1, ClusterID: 100, Members: members}
	for name, s := range map[string]struct {
		founding Founding
		found    bool
		occupied bool
		want     string
	}{
		"as it was":         {good, true, true, ""},
		"another order":     {Founding{NodeID: 1, ClusterID: 100, Members: []Member{{ID: 2}, {ID: 1, HTTP: "moved"}}}, true, true, ""},
		"another node":      {Founding{NodeID: 2, ClusterID: 100, Members: members}, true, true, "belongs to node 1 of cluster 100"},
		"another cluster":   {Founding{NodeID: 1, ClusterID: 7, Members: members}, true, true, "says node 1 of cluster 7"},
		"another founder":   {Founding{NodeID: 1, ClusterID: 100, Members: append(members, Member{ID: 3})}, true, true, "other first members than [1 2 3]"},
		"log lost":          {good, true, false, "member replace --node-id 1"},
		"identity lost":     {good, false, true, "no identity.json"},
		"not a member":      {Founding{NodeID: 3, ClusterID: 100, Members: members}, false, false, "not among the cluster's members [1 2]"},
		"the same id twice": {Founding{NodeID: 1, ClusterID: 100, Members: []Member{{ID: 1}, {ID: 1}}}, false, false, "there twice"},
		"no id":             {Founding{ClusterID: 100, Members: members}, false, false, "above 0"},
	} {
		t.Run(name, func(t *testing.T) {
			saved := false
			id, err := Found(IdentityFile{
				Load:     func() (storage.Identity, bool, error) { return ready, s.found, nil },
				Save:     func(storage.Identity) error { saved = true; return nil },
				Occupied: func() (bool, error) { return s.occupied, nil },
			}, s.founding)
			switch {
			case saved:
				t.Error("the identity was written")
			case s.want == "" && (err != nil || id.UUID != "u"):
				t.Errorf("%+v, %v", id, err)
			case s.want != "" && (err == nil || !strings.Contains(err.Error(), s.want)):
				t.Errorf("%v, want %q", err, s.want)
			}
		})
	}
}

// An old copy of the identity file, or a state that was lost, is noticed.
func TestOldCopiesAreRefused(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		n := c.nodes[1]
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		id, _, err := n.identityFile().Load()
		if err != nil {
			t.Fatal(err)
		}
		id.Stage = storage.StageFounding
		if err := n.identityFile().Save(id); err != nil {
			t.Fatal(err)
		}
		if err := n.start(); err == nil || !strings.Contains(err.Error(), "old copy") {
			t.Errorf("a founding identity with a grown log: %v", err)
		}
		id.Stage = storage.StageReady
		if err := n.identityFile().Save(id); err != nil {
			t.Fatal(err)
		}
		if err := n.fs.RemoveAll("data/state"); err != nil {
			t.Fatal(err)
		}
		if err := n.start(); err == nil || !strings.Contains(err.Error(), "the state is empty") {
			t.Errorf("a lost state: %v", err)
		}
	})
}

// Whoever came first to one member may have been the wrong one; the address
// book, once it is there, decides.
func TestTheAddressBookDecides(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		one, introduction := c.nodes[1], c.nodes[2].Introduce()
		wrong := introduction
		wrong.Member.UUID = "wrong"
		if err := one.Greet(wrong); err != nil {
			t.Fatal(err)
		}
		if err := one.Greet(introduction); err == nil {
			t.Fatal("two UUIDs under one id")
		}
		for range 60 {
			c.tick([]uint64{2, 3}) // they elect one of themselves and bring member 1 the book
		}
		if have := one.Status().Members; len(have) == 0 {
			t.Fatal("member 1 has no address book")
		}
		if err := one.Greet(introduction); err != nil || !one.Known(2, introduction.Member.UUID) {
			t.Errorf("the one in the book: %v", err)
		}
		if err := one.Greet(wrong); err == nil {
			t.Error("the wrong one was accepted after the book was there")
		}
	})
}
