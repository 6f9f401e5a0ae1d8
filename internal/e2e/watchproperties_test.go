package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

var reconnects = flag.Int("reconnects", 200, "how often those who watch go on elsewhere, at least")

const (
	seenEvents   = 400 // that members keep: some seconds
	seenWriters  = 6
	seenThings   = 8 // of a writer
	seenPace     = 40 * time.Millisecond
	seenServices = 3
	seenPerWay   = 6 // who watch, of each way
	seenSession  = 150 * time.Millisecond
	seenQuiet    = 32 * time.Second // until a stream without events says how far it has come
	seenMany     = 2_000            // reconnects from which on it is the long form
	seenTime     = 12 * time.Minute // for all of it
	seenTellMax  = 20
	awayEntries  = 300 // that a member misses: more than the others keep in a segment of their logs, and in their tails
)

// Who watches is told what the nine promises say, by server-sent events, long polls and
// gRPC alike, while he goes from member to member, members are killed, stopped and sent
// snapshots, and the history that they keep goes round every few seconds.
func TestTheNinePromisesOfAWatch(t *testing.T) {
	t.Parallel() // it waits for members that come back
	c := newSeen(t, "")
	c.run(*reconnects)
	broken, told := c.judge()
	for _, b := range broken[:min(len(broken), seenTellMax)] {
		t.Errorf("not %s: %s", b.promise, b.what)
	}
	if len(broken) > 0 {
		t.Errorf("%d promises are broken", len(broken))
	}
	c.mustHaveSeen(told)
}

// watchBugs are planted in a build for that, one at a time: what the clients are told shows each.
var watchBugs = []struct{ name, what string }{
	{"watch_resumes_off_by_one", "a watch that goes on skips a revision"},
	{"watch_gap_in_silence", "one that goes on where the history is cut is not told so"},
	{"watch_repeats_a_revision", "the revision that a watch goes on from is told again"},
	{"watch_splits_a_revision", "of a revision that changed several instances only the first is told"},
	{"watch_ignores_the_filter", "changes of what was not asked for are told"},
	{"watch_takes_all_for_new", "every change is told as of a new instance"},
	{"progress_before_its_events", "it is said up to where there was nothing before what there was is told"},
	{"", "none"},
}

const huntReconnects = 100

// The judge finds bugs in members, and none where there is none.
func TestTheNinePromisesFindPlantedBugs(t *testing.T) {
	if !*bugsFlag {
		t.Skip("make mutants plants them")
	}
	for _, bug := range watchBugs {
		t.Run("bug="+bug.name, func(t *testing.T) {
			c := newSeen(t, bug.name)
			c.troubles = []string{"turn over"}
			c.run(huntReconnects)
			broken, _ := c.judge()
			by := make(map[string]int)
			for _, b := range broken {
				by[b.promise]++
			}
			t.Logf("%s: broken are %v", bug.what, by)
			if (len(broken) > 0) != (bug.name != "") {
				t.Errorf("%d promises are broken: %.3v", len(broken), broken)
			}
		})
	}
}

// seen is a cluster that is watched, with its writers.
type seen struct {
	*cluster
	random    *rand.Rand
	truth     *truth
	observers []*observer
	writing   sync.WaitGroup
	watching  sync.WaitGroup
	troubles  []string
	many      bool
	faults    map[string]int
	installs  float64
	writes    atomic.Int64
}

func newSeen(t *testing.T, bug string) *seen {
	t.Helper()
	random := seed(t)
	few := keepFew(t, seenEvents)
	s := &seen{random: random, truth: newTruth(), troubles: seenTroubles, faults: make(map[string]int), cluster: newClusterWith(t, 3, func(m *member) {
		few(m)
		if at := slices.Index(m.command, "env"); bug != "" {
			m.command = slices.Insert(m.command, at+1, "STELLMAP_MUTANT="+bug)
		}
		m.command = append(m.command, "--snapshot-entries", "50", "--snapshot-tail", "10", "--storage-segment", "64KiB")
	})}
	streams := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	t.Cleanup(streams.CloseIdleConnections)
	sieves := []sieve{{}, {service: "s0"}, {service: "s1", zone: "za"}, {zone: "zb"}, {color: "red"}, {service: "s2", zone: "zb", color: "blue"}}
	for name, way := range map[string]way{"events": events{streams}, "polls": polls{streams}, "grpc": newCalls(t, s.members)} {
		for i := range seenPerWay {
			s.observers = append(s.observers, &observer{name: fmt.Sprintf("%s-%d", name, i), way: way, sieve: sieves[i%len(sieves)], length: seenSession, random: s.dice()})
		}
	}
	slices.SortFunc(s.observers, func(a, b *observer) int { return cmp.Compare(a.name, b.name) })
	return s
}

func (s *seen) dice() *rand.Rand { return rand.New(rand.NewPCG(s.random.Uint64(), s.random.Uint64())) }

// run has them write and watch until there were so many reconnects, and then lets
// everybody who watches come to the end.
func (s *seen) run(want int) {
	s.t.Helper()
	s.many = want >= seenMany
	ctx, cancel := context.WithTimeout(s.t.Context(), seenTime)
	defer cancel()
	writing, stopWriting := context.WithCancel(ctx)
	watching, stopWatching := context.WithCancel(ctx)
	defer func() { stopWriting(); stopWatching(); s.writing.Wait(); s.watching.Wait() }()
	for i := range seenWriters {
		w := &seenWriter{seen: s, name: fmt.Sprintf("w%d", i), random: s.dice(), has: make(map[string]thing)}
		s.writing.Go(func() { w.write(writing) })
	}
	var sessions atomic.Int64
	if s.many {
		s.quiet()
	}
	for _, o := range s.observers {
		s.watching.Go(func() { o.observe(watching, s.members, &sessions) })
	}
	for n := 0; n < seenTroublesShort || int(sessions.Load()) < want; n++ {
		if err := s.trouble(ctx, s.troubles[n%len(s.troubles)]); err != nil {
			s.t.Fatalf("after %d reconnects: %v", sessions.Load(), err)
		}
		if s.many && n%10 == 9 {
			s.t.Logf("%d reconnects, %d faults, %d writes", sessions.Load(), n+1, s.writes.Load())
		}
	}
	stopWriting()
	s.writing.Wait()
	last := s.last()
	stopWatching()
	s.watching.Wait()
	for _, o := range s.observers {
		s.watching.Go(func() { o.catchUp(ctx, s.members, last) })
	}
	s.watching.Wait()
	if ctx.Err() != nil {
		s.t.Fatalf("not everybody was told of revision %d in the end", last)
	}
}

// quiet adds who watch what never changes, so long that they are told how far there was nothing.
func (s *seen) quiet() {
	for _, o := range slices.Clone(s.observers) {
		if strings.HasSuffix(o.name, "-0") {
			s.observers = append(s.observers, &observer{name: o.name + "-quiet", way: o.way, sieve: sieve{zone: "nowhere"}, length: seenQuiet, random: s.dice()})
		}
	}
}

// last changes something for everybody who watches, in one entry, and gives its revision.
func (s *seen) last() uint64 {
	s.t.Helper()
	w := &seenWriter{seen: s, name: "last", random: s.dice(), has: make(map[string]thing)}
	var all []fact
	for i, color := range []string{"red", "blue"} {
		for j := range seenServices {
			for k, zone := range []string{"za", "zb", "nowhere"} {
				all = append(all, fact{id: fmt.Sprintf("last-%d-%d-%d", i, j, k), after: thing{fmt.Sprint("s", j), zone, color, "last"}})
			}
		}
	}
	if !w.batch(s.t.Context(), all) {
		s.t.Fatal("the last write was not acknowledged")
	}
	return s.truth.last
}

// What is done to the cluster, one after the other. The short form does the first three.
var seenTroubles = []string{"kill the leader", "turn over", "away", "stop the leader", "turn over", "kill a follower", "stop a follower"}

const seenTroublesShort = 3

// trouble does one thing to the cluster.
func (s *seen) trouble(ctx context.Context, kind string) error {
	leader, err := s.findLeader(s.members...)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(s.members), func(m *member) bool { return m == leader })
	s.random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	s.faults[kind]++
	switch kind {
	case "away":
		err = s.away(ctx, others[0], []*member{others[1], leader})
	case "turn over": // of those who are not there nobody has kept what they lack
		for n := 0; n < seenEvents/turnItems+1 && err == nil; n++ {
			err = s.turn(ctx, leader, n+s.faults[kind]*seenEvents)
		}
	default:
		at := slices.IndexFunc(faults, func(f fault) bool { return f.name == kind })
		end := faults[at].begin(&scene{c: s.cluster, leader: leader, others: others})
		rest(ctx, time.Duration(s.random.Int64N(int64(time.Second))))
		end()
	}
	return errors.Join(err, s.ready(), ctx.Err())
}

// away has a member miss what the others cut, so that it is sent a snapshot.
func (s *seen) away(ctx context.Context, m *member, others []*member) error {
	s.kill(m)
	had, err := s.beyondAll(ctx, others[0])
	if err != nil {
		return err
	}
	for _, o := range others { // what is not flushed is not cut; a clean stop flushes
		if _, err := process.Within(ctx, readyTime, "some writes", func() error { return s.beyond(ctx, o, "stellmap_registry_revision", had+awayEntries) }); err != nil {
			return err
		}
		if err := o.proc.Stop(stopTime); err != nil {
			return err
		}
		s.start(o)
		if _, err := process.Within(ctx, readyTime, o.name()+" to cut its log", func() error { return s.beyond(ctx, o, "stellmap_raft_log_first_index", had+1) }); err != nil {
			return err
		}
	}
	s.start(m)
	_, err = process.Within(ctx, readyTime, m.name()+" to be ready", func() error { return s.isReady(m) })
	if err != nil {
		return err
	}
	installed, err := s.metric(ctx, m, "stellmap_raft_snapshots_installed_total")
	s.installs += installed
	return err
}

// beyondAll is a revision above all that anybody has had so far, also in his log alone.
func (s *seen) beyondAll(ctx context.Context, m *member) (revision float64, err error) {
	_, err = process.Within(ctx, readyTime, "a write that is acknowledged", func() error {
		if err := s.turn(ctx, m, -s.faults["away"]); err != nil {
			return err
		}
		revision, err = s.metric(ctx, m, "stellmap_registry_revision")
		return err
	})
	return revision, err
}

// beyond is an error while a metric is not.
func (s *seen) beyond(ctx context.Context, m *member, name string, want float64) error {
	have, err := s.metric(ctx, m, name)
	if err == nil && have < want {
		err = fmt.Errorf("%s of %s is %v, want %v", name, m.name(), have, want)
	}
	return err
}

// judge holds all that was told against what has happened.
func (s *seen) judge() (broken []brokenPromise, told map[string]int) {
	j, told := newJudge(s.truth), make(map[string]int)
	for _, o := range s.observers {
		name, _, _ := strings.Cut(o.name, "-")
		for _, one := range o.sessions {
			broken = append(broken, j.violations(one)...)
			told[name+": sessions"]++
			if one.from != 0 {
				told[name+": gone on with"]++
			}
			for _, t := range one.told {
				switch {
				case t.whole:
					told[name+": all there is, "+t.reason]++
				case len(t.changes) == 0:
					told[name+": marks of progress"]++
				}
				told[name+": changes"] += len(t.changes)
			}
		}
	}
	return broken, told
}

// mustHaveSeen: what the promises are about has happened.
func (s *seen) mustHaveSeen(told map[string]int) {
	s.t.Helper()
	for _, what := range slices.Sorted(maps.Keys(told)) {
		s.t.Logf("%7d %s", told[what], what)
	}
	s.t.Logf("%d writes up to revision %d; faults: %v; %v snapshots installed", s.writes.Load(), s.truth.last, s.faults, s.installs)
	for _, way := range []string{"events", "polls", "grpc"} {
		for _, what := range []string{"gone on with", "changes", "all there is, compacted", "all there is, start"} {
			if told[way+": "+what] == 0 {
				s.t.Errorf("none of %s: %s", way, what)
			}
		}
	}
	if s.installs == 0 {
		s.t.Error("no member was sent a snapshot")
	}
}

// seenWriter changes its own things, one write after the other.
type seenWriter struct {
	*seen
	name   string
	random *rand.Rand
	has    map[string]thing
	made   int
}

func (w *seenWriter) write(ctx context.Context) {
	for ctx.Err() == nil {
		all := []fact{w.any()}
		if w.random.IntN(4) == 0 { // several in one entry
			for range 1 + w.random.IntN(4) {
				if f := w.any(); !slices.ContainsFunc(all, func(o fact) bool { return o.id == f.id }) {
					all = append(all, f)
				}
			}
		}
		if !w.batch(ctx, all) {
			w.t.Errorf("%s gives up", w.name)
			return
		}
		rest(ctx, time.Duration(w.random.Int64N(int64(2*seenPace))))
	}
}

// any is a change of one of its things: it moves to another zone, changes its color, is
// gone, or comes back. Its service stays.
func (w *seenWriter) any() fact {
	n := w.random.IntN(seenThings)
	f := fact{id: fmt.Sprintf("%s-%d", w.name, n)}
	f.before = w.has[f.id]
	if f.before.value != "" && w.random.IntN(4) == 0 {
		return f // it goes
	}
	w.made++
	f.after = thing{
		service: fmt.Sprint("s", n%seenServices), zone: []string{"za", "zb"}[w.random.IntN(2)], color: []string{"red", "blue"}[w.random.IntN(2)],
		value: fmt.Sprint(w.name, "/", w.made),
	}
	return f
}

// batch does all in one call, which is repeated until it is acknowledged.
func (w *seenWriter) batch(ctx context.Context, all []fact) bool {
	items := make([]string, len(all))
	for i, f := range all {
		at := fmt.Sprintf(`"namespace":%q,"service":%q,"instanceId":%q,"leaseToken":%q`, seenNamespace, cmp.Or(f.after.service, f.before.service), f.id, leaseToken)
		if items[i] = fmt.Sprintf(`{"deregister":{%s}}`, at); f.after.value != "" {
			items[i] = fmt.Sprintf(`{"register":{%s,"zone":%q,"labels":{"color":%q},"metadata":{"value":%q},"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],"leaseTtlSeconds":3600}}`,
				at, f.after.zone, f.after.color, f.after.value)
		}
	}
	body := `{"items":[` + strings.Join(items, ",") + `]}`
	key := fmt.Sprint("seen/", w.name, "/", w.writes.Add(1))
	for begin := time.Now(); time.Since(begin) < giveUpTime+readyTime; rest(w.t.Context(), tryRest) {
		m := w.members[w.random.IntN(len(w.members))]
		a, err := w.call(context.WithoutCancel(ctx), http.MethodPost, m.url()+"/api/v2/batch", body, "Idempotency-Key", key)
		if err == nil && a.status == http.StatusOK && w.took(all, a.body) {
			return true
		}
	}
	return false
}

// took notes what was acknowledged, once all of it is.
func (w *seenWriter) took(all []fact, body []byte) bool {
	var said struct {
		Failed  int
		Results []struct {
			Status   string
			Revision uint64
		}
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Failed > 0 || len(said.Results) != len(all) {
		return false
	}
	for i, f := range all {
		r := said.Results[i]
		want := map[[2]bool]string{{false, true}: "created", {true, true}: "changed", {true, false}: "deleted"}[[2]bool{f.before.value != "", f.after.value != ""}]
		if r.Status != want {
			w.t.Errorf("%s is %s, want %s: %s", f.id, r.Status, want, body)
		}
		w.truth.add(r.Revision, f)
		if w.has[f.id] = f.after; f.after.value == "" {
			delete(w.has, f.id)
		}
	}
	return true
}
