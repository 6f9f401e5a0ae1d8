package federation

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellmap/stellmap/registry"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "play the schedule of regions of this seed alone, with its story; 0 = play many")
	schedulesFlag = flag.Int("schedules", 50/slower, "how many schedules of regions to play")
	firstFlag     = flag.Uint64("first", 1, "the seed of the first schedule; the others follow")
	workersFlag   = flag.Int("workers", 1, "how many processes share the schedules")
)

// convergeWithin is how soon after the last fault a copy is equal to its region.
const convergeWithin = 5 * time.Second

// play plays the schedule of a seed to its end.
func play(t *testing.T, seed uint64, told bool) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed, told)
		w.tell("options: %+v", w.options)
		w.run()
		w.finish()
		w.mu.Lock()
		w.close()
		w.mu.Unlock()
	})
	return w
}

// run is faults, their end, and what has to come then.
func (w *world) run() {
	w.makeFaults(w.Faulty)
	if w.Quiet > 0 {
		w.pass(w.Quiet)
		w.makeFaults(w.now() + faultyAgain)
	}
	w.tasks.Wait()
	w.heal()
	if !w.hasFailed() {
		w.converge()
	}
}

// converge waits until each copy is equal, with an operator who resumes what is paused
// and confirms what is held.
func (w *world) converge() {
	healed, differs := w.now(), error(nil)
	for w.now() <= healed+convergeWithin && !w.hasFailed() {
		if differs = w.differs(); differs == nil {
			w.note("equal", uint64(w.now()-healed))
			return
		}
		for _, c := range w.copies {
			w.help(c)
		}
		w.pass(50 * time.Millisecond)
	}
	w.fail("%v after the last fault: %w", convergeWithin, differs)
}

func (w *world) differs() error {
	for _, c := range w.copies {
		if err := c.level(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) help(c *simCopy) {
	m := c.in.members()[c.in.cluster().leader]
	switch of := m.registry.Region(c.key()); {
	case of.Paused:
		w.control(m, c, registry.RegionResume)
	case of.Held.Since != 0 && of.Cursor.Sync == 0:
		w.control(m, c, registry.RegionConfirm)
	}
}

func (w *world) finish() {
	for _, r := range w.regions {
		r.cluster().end()
	}
}

// TestRegionSchedules shows that whatever goes wrong between regions and in them, copies
// lose nothing that was not gone, get back nothing that was, are of nobody else, and soon
// after the last fault are equal.
func TestRegionSchedules(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	if *seedFlag != 0 {
		w := play(t, *seedFlag, true)
		if _, err := os.Stdout.WriteString(strings.Join(w.story, "\n") + "\n"); err != nil {
			t.Fatal(err)
		}
		if w.failed != nil {
			t.Fatal(w.failed)
		}
		return
	}
	sum := newTotals()
	if *workersFlag > 1 {
		sum.addWorkers(t)
	} else {
		sum.playAll(t, *firstFlag, *schedulesFlag)
		sum.print()
	}
	sum.report(t)
}

// totals are what all schedules have shown.
type totals struct {
	Schedules int
	Simulated time.Duration
	Fired     map[string]int
	In        map[string]int // schedules in which it happened
	began     time.Time
}

func newTotals() *totals {
	return &totals{began: time.Now(), Fired: make(map[string]int), In: make(map[string]int)}
}

// TestSchedulesThatFoundSomething plays those that have brought up a defect, each of which
// is in docs/reliability.md.
func TestSchedulesThatFoundSomething(t *testing.T) {
	for _, seed := range []uint64{868, 20635, 20864, 23023} {
		if w := play(t, seed, true); w.failed != nil {
			t.Errorf("seed %d: %v\n%s", seed, w.failed, strings.Join(w.story[max(0, len(w.story)-storyLines):], "\n"))
		}
	}
}

func (a *totals) playAll(t *testing.T, first uint64, count int) {
	for n := range uint64(count) {
		w := play(t, first+n, false)
		a.Schedules++
		a.Simulated += w.instant
		for kind, n := range w.fired {
			a.Fired[kind] += n
			a.In[kind]++
		}
		if w.failed != nil {
			again := play(t, w.Seed, true)
			t.Fatalf("seed %d: %v\noptions: %+v\n\n%s\nplay it again: go test ./federation -run TestRegionSchedules -seed=%d", w.Seed, w.failed, w.options, strings.Join(again.story[max(0, len(again.story)-storyLines):], "\n"), w.Seed)
		}
	}
}

// storyLines is how much of the end of a story is printed.
const storyLines = 40

// totalsMark begins the line in which a process tells another its totals.
const totalsMark = "totals "

func (a *totals) print() {
	line, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("federation: %v", err)) // maps of numbers
	}
	fmt.Printf("%s%s\n", totalsMark, line)
}

// addWorkers shares the schedules among processes.
func (a *totals) addWorkers(t *testing.T) {
	var workers sync.WaitGroup
	var mu sync.Mutex // guards a
	each := *schedulesFlag / *workersFlag
	for n := range *workersFlag {
		workers.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestRegionSchedules$", "-test.v", "-test.timeout=24h",
				fmt.Sprint("-first=", *firstFlag+uint64(n*each)), fmt.Sprint("-schedules=", each))
			cmd.Env = append(cmd.Environ(), "GOMAXPROCS=1")
			out, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
				return
			}
			a.addLine(t, string(out))
		})
	}
	workers.Wait()
}

func (a *totals) addLine(t *testing.T, out string) {
	_, after, found := strings.Cut(out, totalsMark)
	line, _, _ := strings.Cut(after, "\n")
	b := newTotals()
	if err := json.Unmarshal([]byte(line), b); err != nil || !found {
		t.Errorf("a process has told nothing (%v):\n%s", err, out)
		return
	}
	a.Schedules += b.Schedules
	a.Simulated += b.Simulated
	for kind := range b.Fired {
		a.Fired[kind] += b.Fired[kind]
		a.In[kind] += b.In[kind]
	}
}

// enough is how many schedules must show every kind of fault.
const enough = 500

// report fails when something has hardly ever happened: then nothing was shown.
func (a *totals) report(t *testing.T) {
	took := time.Since(a.began)
	t.Logf("%d schedules, %v simulated in %v (%.1f a second)", a.Schedules, a.Simulated.Round(time.Second), took.Round(time.Millisecond), float64(a.Schedules)/took.Seconds())
	names := slices.Clone(alsoHappens)
	for _, f := range simFaults {
		names = append(names, f.name)
	}
	for kind := range maps.Keys(a.Fired) {
		if !slices.Contains(names, kind) {
			names = append(names, kind)
		}
	}
	for _, name := range names {
		t.Logf("  %-40s %d, in %d schedules", name, a.Fired[name], a.In[name])
		if a.Schedules >= enough && a.In[name]*100 < a.Schedules {
			t.Errorf("%q happened in %d of %d schedules: less than one in a hundred shows nothing", name, a.In[name], a.Schedules)
		}
	}
}
