//go:build mutants

package federation

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var mutantFlag = flag.String("mutant", "", "plant this bug alone; empty = one after the other")

// mutants are the bugs that can be planted. One more is a line here, and a call of mutant
// where the bug is to be.
var mutants = []struct{ name, what string }{
	{"import_while_paused", "a paused copy takes in what it is told"},
	{"sweep_takes_what_was_told", "a sweep takes what was told, too"},
	{"sweep_is_never_held", "a sweep takes however much was not told"},
	{"held_is_let_go_at_once", "what is held goes at once"},
	{"deselected_by_another_cluster", "what a rebuilt region lacks is taken for deselected"},
	{"selections_are_not_compared", "a copy goes on where it was though something else is selected"},
	{"export_is_not_asked", "everything is exported"},
	{"relabelled_stays", "what a change takes out of the selection is not told as gone"},
	{"revisions_of_another_cluster", "a copy goes on in a rebuilt region where it was in the one before"},
	{"whole_revisions_with_a_part", "what ends within a revision has whole ones with it"},
}

// control is no bug: nothing must be found.
const control = "none"

const (
	mutantSchedules  = 2_000           // at most
	mutantTime       = 5 * time.Minute // for each bug, at most
	controlSchedules = 200             // where nothing is planted
	mutantLineBytes  = 110
)

// TestOneMutant hunts one planted bug. It is for TestMutants, which runs it as a process.
func TestOneMutant(t *testing.T) {
	if *mutantFlag == "" {
		t.Skip("needs -mutant")
	}
	Plant(*mutantFlag)
	registry.Plant(*mutantFlag)
	most, found, n := mutantSchedules, "", 0
	if *mutantFlag == control {
		most = controlSchedules
	}
	for began := time.Now(); found == "" && n < most && time.Since(began) < mutantTime; n++ {
		if w := play(t, *firstFlag+uint64(n), false); w.failed != nil {
			found = fmt.Sprintf("seed %d: %v", w.Seed, w.failed)
		}
	}
	found = strings.Join(strings.Fields(found), " ")
	fmt.Printf("mutant\t%s\t%v\t%d\t%s\n", *mutantFlag, found != "", n, found[:min(len(found), mutantLineBytes)])
}

// TestMutants shows that every planted bug is found by what is checked of every schedule,
// and none where none is planted.
func TestMutants(t *testing.T) {
	if *mutantFlag != "" {
		t.Skip("-mutant is for one")
	}
	all := append(mutants, struct{ name, what string }{control, "nothing"})
	lines := make([]string, len(all))
	var workers sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, m := range all {
		workers.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found, schedules, as := runMutant(t, m.name)
			if found != (m.name != control) {
				t.Errorf("%s (%s): found %v in %s schedules: %s", m.name, m.what, found, schedules, as)
			}
			lines[i] = fmt.Sprintf("%s\t%s\t%s", m.name, schedules, as)
			t.Log(lines[i])
		})
	}
	workers.Wait()
	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "bug\tschedules\tas\n%s\n", strings.Join(lines, "\n"))
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Print(table.String())
}

// runMutant runs TestOneMutant in a process of its own and reads its line.
func runMutant(t *testing.T, name string) (found bool, schedules, as string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestOneMutant$", "-test.timeout=20m", "-mutant="+name, fmt.Sprint("-first=", *firstFlag))
	cmd.Env = append(cmd.Environ(), "GOMAXPROCS=1")
	text, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(strings.TrimRight(line, "\n"), "\t"); len(f) == 5 && f[0] == "mutant" {
			return f[2] == "true", f[3], f[4]
		}
	}
	t.Errorf("%s ended without a word: %v\n%s", name, err, text)
	return false, "", ""
}
