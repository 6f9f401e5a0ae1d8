package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tracedWrites is how many registrations are watched.
const tracedWrites = 20

// A kill keeps the page cache, so only the order of system calls shows that what is acknowledged is on
// disk: before each answer of `stellmapd dev`, an fdatasync of the log that began after the request.
func TestDevSyncsBeforeItAcknowledges(t *testing.T) {
	path := stracePath(t)
	c := newClusterWith(t, 1, func(m *member) { m.command = append(m.traced(path), "dev") })
	acks := c.registerTraced(c.members[0])
	c.kill(c.members...)
	checkSyncs(t, c.members, acks, 1)
}

// The same on three members: at least two of them have synced the log between the request and its answer.
func TestAQuorumSyncsBeforeItAcknowledges(t *testing.T) {
	path := stracePath(t)
	c := newClusterWith(t, 3, func(m *member) { m.command = m.traced(path) })
	leader := c.leader(c.members...)
	var acks []ack
	for _, m := range c.members { // the leader answers, and followers that forward
		acks = append(acks, c.registerTraced(m)...)
	}
	t.Logf("the leader is %s", leader.name())
	c.kill(c.members...)
	checkSyncs(t, c.members, acks, 2)
	for _, m := range c.members {
		if !tokenSynced(t, m) {
			t.Errorf("%s gave its token's file its name before it was on disk: a power cut leaves one that the next start refuses", m.name())
		}
	}
}

// tokenSynced tells whether the administrator's token was synced under the
// temporary name that it has until it is whole.
func tokenSynced(t *testing.T, m *member) bool {
	t.Helper()
	content, err := os.ReadFile(m.trace())
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`fsync\(\d+<[^>]*/admin\.token\.tmp>(?:\)\s+= 0 | <unfinished)`).Match(content)
}

// The check finds a sync that is not made: in a build with planted bugs, one that
// answers before its log is on disk.
func TestASkippedSyncIsSeen(t *testing.T) {
	path := stracePath(t)
	binary := buildWithBugs(t)
	for bug, seen := range map[string]bool{"skip_log_sync": true, "": false} {
		c := newClusterWith(t, 1, func(m *member) {
			m.command[0] = binary
			m.command = append(append([]string{"env", "STELLMAP_MUTANT=" + bug}, m.traced(path)...), "dev")
		})
		acks := c.registerTraced(c.members[0])
		c.kill(c.members...)
		if missing := missingSyncs(t, c.members, acks, 1); (len(missing) == tracedWrites) != seen || (len(missing) > 0) != seen {
			t.Errorf("with bug %q planted, %d of %d registrations were found to be acknowledged without a sync: %v", bug, len(missing), tracedWrites, missing)
		}
	}
}

func stracePath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	need(t, "strace", err)
	if err := exec.Command(path, "-f", "-o", os.DevNull, "true").Run(); err != nil {
		need(t, "permission to trace", err)
	}
	return path
}

func (m *member) trace() string { return filepath.Join(m.dir, "strace") }

// traced is the command that runs the member under strace.
func (m *member) traced(strace string) []string {
	return append([]string{strace, "-f", "--seccomp-bpf", "-ttt", "-T", "-y", "-s", "16",
		"-e", "trace=fdatasync,fsync,write,writev,sendto,sendmsg", "-o", m.trace()}, m.command...)
}

// ack is one acknowledged registration, by the clock that strace uses, too.
type ack struct {
	at             *member
	sent, received float64 // seconds since 1970
}

func now() float64 { return float64(time.Now().UnixMicro()) / 1e6 }

// registerTraced registers one instance after the other at a member.
func (c *cluster) registerTraced(m *member) []ack {
	c.t.Helper()
	var acks []ack
	for i := range tracedWrites {
		a := ack{at: m, sent: now()}
		c.must(http.MethodPut, instanceURL(m, "traced", fmt.Sprintf("%s-%d", m.name(), i)), registration(9000, fmt.Sprint(i)), http.StatusOK, http.StatusCreated)
		a.received = now()
		acks = append(acks, a)
	}
	return acks
}

// checkSyncs looks for the proof of each acknowledgement in the members' traces.
func checkSyncs(t *testing.T, members []*member, acks []ack, quorum int) {
	t.Helper()
	for _, missing := range missingSyncs(t, members, acks, quorum) {
		t.Error(missing)
	}
}

// missingSyncs are the acknowledgements without a proof.
func missingSyncs(t *testing.T, members []*member, acks []ack, quorum int) (missing []string) {
	t.Helper()
	traces := make(map[*member]trace)
	for _, m := range members {
		traces[m] = readTrace(t, m.trace())
		t.Logf("%s: %d syncs of the log, %d HTTP answers", m.name(), len(traces[m].syncs), len(traces[m].answers))
	}
	for i, a := range acks {
		answered, ok := traces[a.at].answerWithin(a.sent, a.received)
		if !ok {
			t.Fatalf("registration %d: %s did not write an answer between %.6f and %.6f", i, a.at.name(), a.sent, a.received)
		}
		synced := 0
		for _, m := range members {
			if traces[m].syncedWithin(a.sent, answered) {
				synced++
			}
		}
		if synced < quorum {
			missing = append(missing, fmt.Sprintf("registration %d at %s was acknowledged with the log synced on %d members, want %d", i, a.at.name(), synced, quorum))
		}
	}
	return missing
}

// trace is what matters of strace's output.
type trace struct {
	syncs   []call    // of files of the log that succeeded
	answers []float64 // when the writing of an HTTP answer of success began
}

// call is a system call's begin and end.
type call struct{ begin, end float64 }

func (tr trace) answerWithin(from, to float64) (float64, bool) {
	for _, at := range tr.answers {
		if from <= at && at <= to {
			return at, true
		}
	}
	return 0, false
}

// syncedWithin tells whether a sync began and ended between two moments.
func (tr trace) syncedWithin(from, to float64) bool {
	for _, s := range tr.syncs {
		if from <= s.begin && s.end <= to {
			return true
		}
	}
	return false
}

// strace prints a call that is interrupted by another thread's in two lines:
//
//	17 1790000000.100000 fdatasync(9</d/wal/1.wal> <unfinished ...>
//	17 1790000000.100900 <... fdatasync resumed>) = 0 <0.000850>
var (
	traceLine  = regexp.MustCompile(`^(\d+)\s+(\d+\.\d+) (.*)$`)
	syncWhole  = regexp.MustCompile(`^f(?:data)?sync\(\d+<[^>]*\.wal>\)\s+= 0 <([\d.]+)>$`)
	syncBegun  = regexp.MustCompile(`^f(?:data)?sync\(\d+<[^>]*\.wal> <unfinished`)
	syncEnded  = regexp.MustCompile(`^<\.\.\. f(?:data)?sync resumed>\)\s+= 0 <`)
	answerSent = regexp.MustCompile(`^(?:write|writev|sendto|sendmsg)\(.*HTTP/1\.1 20`)
)

func readTrace(t *testing.T, path string) trace {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := parseTrace(string(content))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func parseTrace(content string) (trace, error) {
	var tr trace
	begun := make(map[string]float64) // by thread
	for line := range strings.Lines(content) {
		m := traceLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		thread, what := m[1], m[3]
		at, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return trace{}, err
		}
		switch whole := syncWhole.FindStringSubmatch(what); {
		case whole != nil:
			took, err := strconv.ParseFloat(whole[1], 64)
			if err != nil {
				return trace{}, err
			}
			tr.syncs = append(tr.syncs, call{at, at + took})
		case syncBegun.MatchString(what):
			begun[thread] = at
		case syncEnded.MatchString(what):
			if from, ok := begun[thread]; ok {
				tr.syncs = append(tr.syncs, call{from, at})
				delete(begun, thread)
			}
		case answerSent.MatchString(what):
			tr.answers = append(tr.answers, at)
		}
	}
	if len(tr.answers) == 0 {
		return tr, errors.New("the trace shows no answer")
	}
	return tr, nil
}

// The reading of traces tells a sync that proves something from one that does not.
func TestReadingTraces(t *testing.T) {
	tr, err := parseTrace(`17 1000.100000 fdatasync(9</d/wal/1.wal> <unfinished ...>
18 1000.100100 write(12<socket:[1]>, "HTTP/1.1 503 Ser"..., 90) = 90 <0.000010>
17 1000.100900 <... fdatasync resumed>) = 0 <0.000850>
18 1000.101000 write(12<socket:[1]>, "HTTP/1.1 201 Cre"..., 90) = 90 <0.000010>
19 1000.200000 fdatasync(9</d/wal/1.wal>) = 0 <0.000500>
19 1000.300000 fdatasync(7</d/state/MANIFEST-1>) = 0 <0.000500>
19 1000.400000 fdatasync(9</d/wal/1.wal>) = -1 EIO (Input/output error) <0.000500>
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.syncs) != 2 || len(tr.answers) != 1 {
		t.Fatalf("found %v", tr)
	}
	for _, c := range []struct {
		from, to float64
		want     bool
	}{
		{1000.0, 1000.101, true},
		{1000.1001, 1000.101, false}, // it began before the request
		{1000.0, 1000.1008, false},   // it ended after the answer
		{1000.15, 1000.2004, false},
		{1000.15, 1000.2006, true},
		{1000.29, 1000.5, false}, // another file; a failure
	} {
		if got := tr.syncedWithin(c.from, c.to); got != c.want {
			t.Errorf("synced within %v..%v: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}
