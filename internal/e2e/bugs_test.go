package e2e

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var bugsFlag = flag.Bool("bugs", false, "plant all bugs that the chaos has to find, not one only")

// plantedBug is one that a build with planted bugs has, and what brings it to light.
type plantedBug struct {
	name, what string
	faults     []string // one after the other
	network    bool
}

var plantedBugs = []plantedBug{
	{"read_without_barrier", "a member answers reads from what it has, without asking", []string{"part a follower from the rest", "stop a follower"}, true},
	{"read_without_quorum", "the leader answers reads without asking a quorum", []string{"stop the leader", "part the leader from the rest"}, true},
}

const (
	huntRounds = 24 // of so many faults at most
	huntTime   = 90 * time.Second
)

// The chaos finds bugs: in a build in which one is planted it sees, in the history, what must not be, or a member
// that ends by itself.
// In the same build without one it sees nothing.
func TestChaosFindsPlantedBugs(t *testing.T) {
	inside, err := inOwnNetwork(t, fmt.Sprintf("-bugs=%v", *bugsFlag))
	if err == nil && !inside {
		return
	}
	var l *lan
	if err == nil {
		l, err = newLAN(t, 3)
	}
	if err != nil {
		notTested(t, "bugs that need a network of namespaces", err)
		l = nil
	}
	bugs := plantedBugs[:1]
	if *bugsFlag || l == nil {
		bugs = append(slices.Clone(plantedBugs), plantedBug{what: "none", faults: []string{"stop the leader", "kill the leader"}})
	}
	binary := buildWithBugs(t)
	for _, bug := range bugs {
		if bug.network && l == nil {
			continue
		}
		t.Run("bug="+bug.name, func(t *testing.T) { hunt(t, l, binary, bug) })
	}
}

// hunt does faults until the bug is found. Without one, a few have to pass.
func hunt(t *testing.T, l *lan, binary string, bug plantedBug) {
	c := newChaosWith(t, l, 3, seed(t), func(m *member) {
		at := slices.Index(m.command, filepath.Join(bin, "stellmapd"))
		m.command = append(append(slices.Clone(m.command[:at]), "env", "STELLMAP_MUTANT="+bug.name, binary), m.command[at+1:]...)
	})
	begin := time.Now()
	for round := range huntRounds {
		name := bug.faults[round%len(bug.faults)]
		at := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		found, err := c.round(round, faults[at])
		switch {
		case bug.name == "" && (err != nil || len(found) > 0):
			t.Fatalf("without a bug, after %d faults: %v, %d histories are not linearizable", round+1, err, len(found))
		case len(found) > 0:
			t.Logf("%s: found after %d faults in %v: %d histories are not linearizable", bug.what, round+1, time.Since(begin).Round(time.Second), len(found))
			return
		case errors.Is(err, errEnded):
			t.Logf("%s: found after %d faults in %v: members have ended by themselves", bug.what, round+1, time.Since(begin).Round(time.Second))
			return
		case err != nil:
			t.Fatalf("%s: %v; the clients saw nothing of it", bug.what, err)
		case bug.name == "" && round+1 >= 2*len(bug.faults):
			return
		case time.Since(begin) > huntTime:
			t.Fatalf("%s: not found in %v, with %d faults", bug.what, huntTime, round+1)
		}
	}
	t.Fatalf("%s: not found with %d faults", bug.what, huntRounds)
}

// round does one fault under a load of its own and checks what its clients saw.
func (c *chaos) round(n int, f fault) ([]violation, error) {
	c.load = startLoad(c.cluster, fmt.Sprintf("r%d", n), c.random)
	err := c.pace(roundOps)
	if err == nil {
		err = c.fault(f)
	}
	c.load.stop()
	if err == nil {
		c.load.readEverything()
	}
	found, _ := c.load.history.violations()
	return found, err
}

// roundOps are done before the fault.
const roundOps = 200
