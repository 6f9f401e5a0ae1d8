//go:build mutants

package simulate

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

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

var mutantFlag = flag.String("mutant", "", "plant this bug alone; empty = one after the other")

// mutant is a bug that can be planted. One more is a line here, and a call of
// mutant where the bug is to be. Three that can be planted are not in the list:
// answer_to_an_earlier_term and removed_ends_at_once take more schedules than there
// is time for, and expiry_given_up_too_soon was never found (docs/mutants.md).
type mutant struct{ name, what string }

var mutants = []mutant{
	{"send_before_durable", "what messages promise is not on disk when they leave"},
	{"unsynced_vote", "a vote is answered before it is synced"},
	{"unsynced_entries", "entries are acknowledged before they are synced"},
	{"ack_on_leader_append", "the leader counts its own append as everybody's"},
	{"answer_of_another_entry", "a proposal is answered with the entry that took its place"},
	{"send_twice", "a command without a request id is sent again though its outcome is unknown"},
	{"unknown_is_refused", "a forwarded command whose answer was lost is said not to be done"},
	{"late_is_refused", "a command that is in the log and late is said not to be done"},
	{"read_without_quorum", "ReadIndex trusts the leader's lease in place of a round"},
	{"read_joins_the_round_under_way", "a read is answered by a round that began before it"},
	{"read_before_applied", "a read is answered before its index is applied"},
	{"read_without_barrier", "every read is a stale one"},
	{"request_applied_twice", "remembered request ids are not looked at"},
	{"requests_forgotten_at_start", "remembered request ids are not read back at a start"},
	{"time_falls", "the time of entries is the leader's clock, whatever it was before"},
	{"expiry_of_a_deposed_leader", "an expiry counts though its leader has been deposed"},
	{"expiry_of_any_generation", "an expiry counts for a lease that has been renewed in the log"},
	{"ttl_not_refreshed_by_new_leader", "a new leader counts TTLs from the last logged renewal"},
	{"leases_forgotten_by_new_leader", "a new leader does not know the leases of the one before"},
	{"lease_by_wall_clock", "leases go by a clock that jumps"},
	{"lease_ends_a_tick_early", "a lease ends one tick before its TTL"},
	{"registration_does_not_extend", "registering again does not extend the lease"},
	{"renewal_beside_an_expiry", "a renewal is acknowledged while the lease's expiry is under way"},
	{"renewal_of_an_overdue_lease", "a renewal is acknowledged though a checkpoint says that the lease is overdue"},
	{"renewal_without_quorum", "a renewal is acknowledged without a quorum"},
	{"watch_resumes_off_by_one", "a watcher resumes one revision too late"},
	{"watch_repeats_a_revision", "a watcher is told its last revision once more"},
	{"watch_gap_in_silence", "a watcher that has fallen behind is not told"},
	{"revision_split_in_two", "a watcher is told half of a revision"},
	{"progress_before_its_events", "a watcher is told a revision before its events"},
	{"skip_log_sync", "Log.Sync does not sync"},
	{"joint_change_is_not_left", "who leads does not leave a joint configuration"},
	{"replacement_is_not_carried_on", "a replacement is left to whoever has begun it"},
	{"ack_before_commit", "a member takes for committed what it is sent"},
	{"id_reused_after_wipe", "an emptied member comes back under its id"},
	{"requests_missing_from_snapshot", "a member that installs a snapshot remembers no request ids"},
	{"snapshot_at_wrong_index", "a snapshot says that it is one entry older than it is"},
	{"cut_before_snapshot", "the log is cut behind what is applied, before that is durable in a snapshot or the state"},
	{"compaction_drops_a_delete", "a watcher is not told that an event that it lacks is gone, if it is a delete"},
}

// control is no bug: nothing must be found.
const control = "none"

const (
	mutantSchedules  = 10_000           // at most
	mutantTime       = 10 * time.Minute // for each bug, at most
	controlSchedules = 200              // where nothing is planted
	mutantLineBytes  = 110
)

func plant(name string) {
	storage.Plant(name)
	consensus.Plant(name)
	registry.Plant(name)
}

// TestOneMutant hunts one planted bug. It is for TestMutants, which runs it as a
// process: some bugs end it.
func TestOneMutant(t *testing.T) {
	if *mutantFlag == "" {
		t.Skip("needs -mutant")
	}
	plant(*mutantFlag)
	defer plant("")
	most, found := mutantSchedules, ""
	if *mutantFlag == control {
		most = controlSchedules
	}
	n := 0
	for began := time.Now(); found == "" && n < most && time.Since(began) < mutantTime; n++ {
		if s := play(*firstFlag+uint64(n), false); s.failed != nil {
			found = fmt.Sprintf("seed %d: %v", s.Seed, s.failed)
		}
	}
	fmt.Printf("mutant\t%s\t%v\t%d\t%s\n", *mutantFlag, found != "", n, oneLine(found))
}

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return text[:min(len(text), mutantLineBytes)]
}

// Every planted bug is found by what the simulator checks of every schedule, and
// none is found where none is planted.
func TestMutants(t *testing.T) {
	if *mutantFlag != "" {
		t.Skip("-mutant is for one")
	}
	all := append(mutants, mutant{control, "nothing"})
	lines := make([]string, len(all))
	var workers sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, m := range all {
		workers.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			found, schedules, as := runMutant(t, m.name)
			if found != (m.name != control) {
				t.Errorf("%s (%s): found %v in %s schedules: %s", m.name, m.what, found, schedules, as)
			}
			lines[i] = fmt.Sprintf("%s\t%s\t%.1f\t%s", m.name, schedules, time.Since(began).Seconds(), as)
			t.Log(lines[i])
		})
	}
	workers.Wait()
	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "bug\tschedules\tseconds\tas\n%s\n", strings.Join(lines, "\n"))
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Print(table.String())
}

// runMutant runs TestOneMutant in a process of its own and reads its line.
func runMutant(t *testing.T, name string) (found bool, schedules, as string) {
	args := []string{"-test.run=^TestOneMutant$", "-test.timeout=20m", "-mutant=" + name, fmt.Sprint("-first=", *firstFlag)}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(cmd.Environ(), "GOMAXPROCS=2")
	text, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(strings.TrimRight(line, "\n"), "\t"); len(f) == 5 && f[0] == "mutant" {
			return f[2] == "true", f[3], f[4]
		}
	}
	t.Errorf("%s ended without a word: %v\n%s", name, err, text)
	return false, "", ""
}
