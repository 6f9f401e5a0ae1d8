//go:build mutants

package crashtest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stellmap/stellmap/storage"
)

var mutantFlag = flag.String("mutant", "", "plant this bug alone; empty = one after the other")

// seam is the bug that is planted in the player itself, where storage's caller
// could have it.
var seam string

func planted(name string) bool { return seam == name }

// mutant is a bug that can be planted. One more is a line here, and a call of
// mutant or unless where the bug is to be.
type mutant struct{ name, what string }

var mutants = []mutant{
	{"skip_log_sync", "Log.Sync does not sync"},
	{"skip_seal_sync", "the seal of a full segment is not synced before the next begins"},
	{"skip_segment_sync", "a new segment gets its name before its bytes are durable"},
	{"skip_segment_dir_sync", "the name of a new segment is not synced"},
	{"skip_removal_dir_sync", "the removal of one segment is not synced before the next"},
	{"forget_hard_state_at_rotation", "a new segment does not repeat the hard state"},
	{"commit_beyond_last", "a commit index is written that is above the last entry"},
	{"retry_after_eio", "the log goes on after an error of the disk"},
	{"tail_not_rewritten", "the last segment is used as it was found"},
	{"rewrite_without_mark", "the last segment, written anew, has no mark of its sync"},
	{"cut_synced_records", "a hole is taken for a tear though it was synced"},
	{"applied_outside_batch", "the applied index is written beside the batch"},
	{"cut_beyond_durable", "the applied index counts as durable before it is"},
	{"skip_current_sync", "CURRENT gets its name before its bytes are durable"},
	{"skip_snap_sync", "a snapshot gets its name before its bytes are durable"},
	{"skip_snap_dir_sync", "a snapshot's name is not synced before its meta's"},
	{"skip_meta_dir_sync", "the name of a snapshot's meta is not synced"},
	{"skip_meta_removal_sync", "an old snapshot goes before its meta is gone for good"},
	{"meta_before_snap", "a meta is there before its snapshot"},
	{"list_before_durable", "a snapshot counts, and the old one goes, before it is durable"},
	{"ack_before_sync", "the caller acknowledges what is appended and not synced"},
	{"apply_before_sync", "the caller applies what is committed and not synced"},
	{"receive_without_sync", "a received snapshot gets its name before its bytes are durable"},
	{"receive_unverified", "a received snapshot is not held against its checksums"},
	{"reset_removes_first", "the old log goes before the one that replaces it is there"},
	{"switch_before_flush", "an installed state is switched to before it is durable"},
	{"reset_before_snapshot", "the caller begins the log anew before the snapshot is durable"},
	{"restore_before_reset", "the caller replaces the state before the log"},
}

// control is no bug: nothing must be found.
const control = "none"

// plant turns a bug on, here or in storage.
func plant(name string) {
	seam = name
	storage.Plant(name)
}

// found says what found a bug, and how much that took.
type found struct {
	by                    string
	schedules, recoveries int
	took                  time.Duration
	err                   error
}

const (
	mutantRounds    = 200             // of all suites, at most
	controlRounds   = 3               // the same where nothing is planted
	mutantTime      = 3 * time.Minute // for each bug, at most
	mutantOneIn     = 50              // of the crashes of a schedule
	mutantOps       = 1000            // of a schedule
	mutantFailing   = 10              // schedules with a failed sync in a round
	mutantDamaged   = 2               // schedules with damaged logs in a round
	mutantLineBytes = 110
)

// TestOneMutant hunts one planted bug with the general harness. It is for
// TestMutants, which runs it as a process: some bugs end it.
func TestOneMutant(t *testing.T) {
	if *mutantFlag == "" {
		t.Skip("needs -mutant")
	}
	plant(*mutantFlag)
	defer plant("")
	f := hunt(t, seed())
	fmt.Printf("mutant\t%s\t%s\t%d\t%d\t%s\n", *mutantFlag, f.by, f.schedules, f.recoveries, oneLine(f.err))
}

// hunt plays all suites in turn until one finds something.
func hunt(t *testing.T, seed uint64) (f found) {
	defer func(began time.Time) { f.took = time.Since(began) }(time.Now())
	rounds := mutantRounds
	if *mutantFlag == control {
		rounds = controlRounds
	}
	for round, end := 0, time.Now().Add(mutantTime); round < rounds && time.Now().Before(end); round++ {
		f.by = "crashes"
		f.schedules++
		s := &schedule{seed: seed, number: round, ops: mutantOps, oneIn: mutantOneIn}
		bad := s.play(t)
		f.recoveries += int(s.recoveries.Load())
		for n := 0; bad == nil && n < mutantFailing; n++ {
			f.by = "failed syncs"
			f.schedules++
			s := &failingSync{seed: seed, number: mutantFailing*round + n}
			bad = s.play()
			f.recoveries += s.recoveries
		}
		for n := 0; bad == nil && n < mutantDamaged; n++ {
			f.by = "damage"
			f.schedules++
			f.recoveries += damages
			bad = damageSchedule(seed, mutantDamaged*round+n, map[string]int{})
		}
		if bad != nil {
			f.err = bad.err
			return f
		}
	}
	f.by = ""
	return f
}

func oneLine(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	return text[:min(len(text), mutantLineBytes)]
}

// Every planted bug is found by the general harness, and none is found where
// none is planted.
func TestMutants(t *testing.T) {
	if *mutantFlag != "" {
		t.Skip("-mutant is for one")
	}
	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "bug\tfound by\tschedules\trecoveries\tseconds\tas")
	for _, m := range mutants {
		began := time.Now()
		by, schedules, recoveries, as := runMutant(t, m.name)
		if by == "" {
			t.Errorf("%s (%s) was not found in %s schedules and %s recoveries", m.name, m.what, schedules, recoveries)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%.1f\t%s\n", m.name, by, schedules, recoveries, time.Since(began).Seconds(), as)
	}
	if by, schedules, recoveries, as := runMutant(t, control); by != "" {
		t.Errorf("nothing was planted, and %s found something in %s schedules and %s recoveries: %s", by, schedules, recoveries, as)
	} else {
		fmt.Fprintf(out, "%s\t-\t%s\t%s\t\t\n", control, schedules, recoveries)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Print(table.String())
}

// runMutant runs TestOneMutant in a process of its own and reads its line.
func runMutant(t *testing.T, name string) (by, schedules, recoveries, as string) {
	t.Helper()
	args := []string{"-test.run=^TestOneMutant$", "-test.timeout=10m", "-mutant=" + name, fmt.Sprint("-seed=", *seedFlag)}
	text, err := exec.Command(os.Args[0], args...).CombinedOutput()
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) >= 5 && f[0] == "mutant" {
			return f[2], f[3], f[4], strings.Join(f[5:], " ")
		}
	}
	t.Fatalf("%s ended without a word: %v\n%s", name, err, text)
	return "", "", "", ""
}
