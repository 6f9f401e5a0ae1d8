package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

var leasesFlag = flag.Int("leases", 400, "how many leases the load of TestLeasesUnderLoad has; from 10,000 on their TTL is 10 s, and rates are measured")

const (
	manyLeases     = 10_000
	leaseGroups    = 20       // holders of many instances, which renew them in batches
	singleShare    = 5        // one in so many instances is renewed by itself
	singleHolders  = 100      // that share those, two each at least
	batchItems     = 1_000    // in one batch
	logEntriesMost = 1.0      // a second, while nothing but renewals comes
	logBytesMost   = 64 << 10 // a second
	stoppedMost    = 1_000
	rateTime       = 5 * time.Second
)

// leaseLoad is holders of many leases, and what they see.
type leaseLoad struct {
	c        *cluster
	lean     *leanClient // what is renewed one by one, and all that is to be as fast as can be, goes by this
	ttl      time.Duration
	zone     func(n int) string // of an instance; nil = none has one
	holding  sync.WaitGroup
	enrolled sync.WaitGroup
	renewals atomic.Int64 // acknowledged
	longest  atomic.Int64 // that a lease went between the beginnings of two of them, in ns

	mu       sync.Mutex // guards what follows
	problems []string
}

func newLeaseLoad(t *testing.T, c *cluster, ttl time.Duration) *leaseLoad {
	l := &leaseLoad{c: c, lean: &leanClient{timeout: ttl, idle: make(map[string][]*leanConn)}, ttl: ttl}
	l.c.client.Timeout = ttl
	t.Cleanup(l.lean.close)
	return l
}

// TestLeasesUnderLoad shows with real members that many leases, most of them renewed
// in batches and the others one by one, cost the log next to nothing; that none of
// them ends while they are renewed, also when the leader is killed; and that those
// of holders that stop are all gone within the stated bound, and no others.
func TestLeasesUnderLoad(t *testing.T) {
	n := *leasesFlag
	if n < manyLeases {
		t.Parallel() // it waits most of its time
	}
	ttl := 3 * time.Second
	if n >= manyLeases {
		ttl = 10 * time.Second
	}
	l := newLeaseLoad(t, newCluster(t, 3), ttl)
	ctx, stop := context.WithCancel(t.Context())
	defer func() {
		stop()
		l.holding.Wait()
	}()
	began := time.Now()
	stopped := min(stoppedMost, n/10)
	doomed, stopDoomed := context.WithCancel(ctx)
	defer stopDoomed()
	singly, holders := singles(n)
	// Some of each service: if most of one stopped, self-preservation would keep them.
	groups := min(leaseGroups, stopped)
	for i := range groups {
		service, stay := fmt.Sprintf("group-%d", i), (n-stopped-singly)/groups
		l.hold(ctx, service, 0, stay, 3, l.renewInBatches)
		l.hold(doomed, service, stay, stay+stopped/groups, 3, l.renewInBatches)
	}
	for i := range holders {
		l.hold(ctx, fmt.Sprintf("single-%d", i), 0, singly/holders, 2, l.renewSingly)
	}
	l.enrolled.Wait()
	t.Logf("load average %s; %d leases of %v were registered in %v", loadAverage(), n, l.ttl, time.Since(began).Round(time.Millisecond))

	leader := l.c.leader(l.c.members...)
	watched := 2 * l.ttl
	if n >= manyLeases {
		watched = 6 * l.ttl
	}
	l.measure(leader, watched)
	l.mustBeAlive(0, l.c.members...)

	l.c.kill(leader)
	others := l.c.others(leader)
	l.c.leader(others...)
	<-time.After(2 * l.ttl)
	l.mustBeAlive(0, others...)
	l.c.start(leader)
	l.c.mustBeReady()

	stopDoomed()
	gone := time.Now()
	if _, err := process.Within(ctx, l.ttl+lookTime, fmt.Sprintf("%d leases to be over", stopped), func() error {
		if over := l.c.metricOf(others[0], "stellmap_registry_expirations_total"); int(over) < stopped {
			return fmt.Errorf("%v are", over)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	bound := l.ttl + 250*time.Millisecond + time.Duration(stopped)*time.Millisecond
	t.Logf("%d holders stopped, and were gone after %v; the bound is %v and the commits", stopped, time.Since(gone).Round(10*time.Millisecond), bound)
	<-time.After(l.ttl)
	l.mustBeAlive(stopped, others...)
	if n >= manyLeases {
		stop()
		l.holding.Wait()
		l.measureRates(t.Context())
	}
}

// singles is how many of all instances are renewed one by one, and by how many holders.
func singles(n int) (instances, holders int) {
	return n / singleShare, min(singleHolders, n/singleShare/2)
}

// others are the members but for one.
func (c *cluster) others(one *member) []*member {
	var out []*member
	for _, m := range c.members {
		if m != one {
			out = append(out, m)
		}
	}
	return out
}

// A leaseStep does something to some instances of a service in one call, at a member that follows from the try.
type leaseStep func(ctx context.Context, service string, from, to, try int) error

// hold registers the instances of a service from one number to another, and renews them so many times in their TTL.
func (l *leaseLoad) hold(ctx context.Context, service string, first, end, times int, renew func(ctx context.Context, service string, from, to int)) {
	l.enrolled.Add(1)
	l.holding.Go(func() {
		l.inBatches(ctx, service, first, end, l.register)
		l.enrolled.Done()
		every, last := l.ttl/time.Duration(times), time.Now()
		for ctx.Err() == nil {
			began := time.Now()
			renew(ctx, service, first, end)
			if gap := int64(time.Since(last)); gap > l.longest.Load() {
				l.longest.Store(gap)
			}
			last = began
			rest(ctx, every-time.Since(began))
		}
	})
}

// insist does a step until it succeeds: what one member does not do, the next one does.
func (l *leaseLoad) insist(ctx context.Context, service string, from, to int, step leaseStep) {
	for try := 0; ctx.Err() == nil; try++ {
		err := step(ctx, service, from, to, try)
		if err == nil {
			return
		}
		if strings.Contains(err.Error(), "not_found") {
			l.problem("%s: %v", service, err)
			return
		}
		rest(ctx, 20*time.Millisecond)
	}
}

func (l *leaseLoad) inBatches(ctx context.Context, service string, from, to int, step leaseStep) {
	for ; from < to; from += batchItems {
		l.insist(ctx, service, from, min(from+batchItems, to), step)
	}
}

func (l *leaseLoad) renewInBatches(ctx context.Context, service string, from, to int) {
	l.inBatches(ctx, service, from, to, l.renewBatch)
}

// renewSingly renews one by one, spread over most of half a TTL.
func (l *leaseLoad) renewSingly(ctx context.Context, service string, from, to int) {
	began := time.Now()
	for n := from; n < to; n++ {
		rest(ctx, time.Duration(n)*l.ttl*9/20/time.Duration(to)-time.Since(began))
		l.insist(ctx, service, n, n+1, func(ctx context.Context, service string, n, _, try int) error {
			return l.renewOne(ctx, service, n, try)
		})
	}
}

func (l *leaseLoad) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < problemsMost {
		l.problems = append(l.problems, fmt.Sprintf(format, args...))
	}
}

func (l *leaseLoad) register(ctx context.Context, service string, from, to, try int) error {
	return l.batch(ctx, try, from, batchOf(from, to, func(n int) string {
		zone := ""
		if l.zone != nil {
			zone = l.zone(n)
		}
		return fmt.Sprintf(`{"register":{"namespace":"default","service":%q,"instanceId":"%d","zone":%q,"endpoints":[{"protocol":"http","host":%q,"port":8080}],"leaseTtlSeconds":%d,"leaseToken":%q}}`,
			service, n, zone, hostOf(n), int(l.ttl.Seconds()), leaseToken)
	}))
}

// hostOf is where the instance of that number is.
func hostOf(n int) string { return fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255) }

func (l *leaseLoad) renewBatch(ctx context.Context, service string, from, to, try int) error {
	err := l.batch(ctx, try, from, renewalsOf(service, from, to))
	if err == nil {
		l.renewals.Add(int64(to - from))
	}
	return err
}

// renewalsOf is the body of a batch that renews some instances of a service.
func renewalsOf(service string, from, to int) string {
	return batchOf(from, to, func(n int) string {
		return fmt.Sprintf(`{"renew":{"namespace":"default","service":%q,"instanceId":"%d","leaseToken":%q}}`, service, n, leaseToken)
	})
}

func batchOf(from, to int, item func(n int) string) string {
	items := make([]string, 0, to-from)
	for n := from; n < to; n++ {
		items = append(items, item(n))
	}
	return `{"items":[` + strings.Join(items, ",") + `]}`
}

// batch does items in one call, at a member that follows from the try.
func (l *leaseLoad) batch(ctx context.Context, try, from int, body string) error {
	m := l.c.members[(from+try)%len(l.c.members)]
	a, err := l.c.call(ctx, http.MethodPost, m.url()+"/api/v2/batch", body)
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil {
		return err
	}
	var said struct{ Failed int }
	if err := json.Unmarshal(a.body, &said); err != nil || said.Failed == 0 {
		return err
	}
	var each struct {
		Results []struct {
			Status string
			Error  json.RawMessage
		}
	}
	if err := json.Unmarshal(a.body, &each); err != nil {
		return err
	}
	for _, r := range each.Results {
		if r.Status == "error" {
			return fmt.Errorf("%d of %d items: %s", said.Failed, len(each.Results), r.Error)
		}
	}
	return nil
}

func (l *leaseLoad) renewOne(ctx context.Context, service string, n, try int) error {
	m := l.c.members[(n+try)%len(l.c.members)]
	a, err := l.lean.post(ctx, m.address(0), leanRequest(m.address(0), fmt.Sprintf("/api/v2/namespaces/default/services/%s/instances/%d/renew", service, n), ""))
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err == nil {
		l.renewals.Add(1)
	}
	return err
}

// measure looks at what the log grows by while nothing but renewals comes.
func (l *leaseLoad) measure(leader *member, d time.Duration) {
	t := l.c.t
	rest(t.Context(), 2*time.Second) // the last registrations are told of
	index, renewed, began := l.c.metricOf(leader, "stellmap_raft_commit_index"), l.renewals.Load(), time.Now()
	logged := logSize(t, leader)
	l.longest.Store(0)
	<-time.After(d)
	took := time.Since(began).Seconds()
	entries := (l.c.metricOf(leader, "stellmap_raft_commit_index") - index) / took
	bytes := float64(logSize(t, leader)-logged) / took
	t.Logf("load average %s; in %.0f s: %.0f renewals/s acknowledged, at most %v apart; the log grew by %.2f entries/s and %.0f bytes/s",
		loadAverage(), took, float64(l.renewals.Load()-renewed)/took, time.Duration(l.longest.Load()).Round(time.Millisecond), entries, bytes)
	if entries > logEntriesMost || bytes > logBytesMost {
		t.Errorf("the log grew by %.2f entries/s and %.0f bytes/s, of at most %v and %d", entries, bytes, logEntriesMost, logBytesMost)
	}
}

// logSize is what a member's log takes. What is cut off at its beginning counts as there.
var logSize = func() func(*testing.T, *member) int64 {
	var mu sync.Mutex // guards what follows: tests run beside each other
	seen := make(map[string]int64)
	return func(t *testing.T, m *member) int64 {
		mu.Lock()
		defer mu.Unlock()
		segments, err := filepath.Glob(filepath.Join(m.dataDir(), "wal", "*.wal"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range segments {
			if info, err := os.Stat(path); err == nil { // else it has just been cut off
				seen[path] = info.Size()
			}
		}
		all := int64(0)
		for path, size := range seen {
			if strings.HasPrefix(path, m.dataDir()) {
				all += size
			}
		}
		return all
	}
}()

// mustBeAlive checks that so many leases have run out, as members have it, and no more.
func (l *leaseLoad) mustBeAlive(over int, at ...*member) {
	l.c.t.Helper()
	for _, m := range at {
		if got := l.c.metricOf(m, "stellmap_registry_expirations_total"); int(got) != over {
			l.c.t.Errorf("%s has seen %v leases run out, of which %d should; the longest was not renewed for %v of %v", m.name(), got, over, time.Duration(l.longest.Load()), l.ttl)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) > 0 {
		l.c.t.Fatalf("holders saw what must not be:\n%s", strings.Join(l.problems, "\n"))
	}
}

// measureRates renews as fast as it can, one by one and in batches.
func (l *leaseLoad) measureRates(ctx context.Context) {
	rate := func(what string, clients int, renew func(ctx context.Context, client, n int) error) {
		ctx, stop := context.WithTimeout(ctx, rateTime)
		defer stop()
		before, members, own := l.renewals.Load(), l.cpuOfMembers(), cpuOf("self")
		var working sync.WaitGroup
		for i := range clients {
			working.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if err := renew(ctx, i, n); err != nil && ctx.Err() == nil {
						l.problem("%s: %v", what, err)
						return
					}
				}
			})
		}
		working.Wait()
		done := max(1, l.renewals.Load()-before)
		l.c.t.Logf("load average %s; %d clients renew %s: %.0f renewals/s; one takes %.1f µs of CPU in the members, and %.1f in the clients",
			loadAverage(), clients, what, float64(done)/rateTime.Seconds(), per(l.cpuOfMembers()-members, done), per(cpuOf("self")-own, done))
	}
	singly, holders := singles(*leasesFlag)
	some := min(batchItems, *leasesFlag/2/leaseGroups) // of a group, all of which are still there
	rate("one by one", 256, func(ctx context.Context, client, n int) error {
		return l.renewOne(ctx, fmt.Sprintf("single-%d", client%holders), n%(singly/holders), client)
	})
	batches := make([][][]byte, leaseGroups) // by group and member: to write them down would cost as much as to do them
	for group := range batches {
		for _, m := range l.c.members {
			batches[group] = append(batches[group], leanRequest(m.address(0), "/api/v2/batch", renewalsOf(fmt.Sprintf("group-%d", group), 0, some)))
		}
	}
	rate("in batches", 8, func(ctx context.Context, client, n int) error {
		at := client % len(l.c.members)
		a, err := l.lean.post(ctx, l.c.members[at].address(0), batches[(client+n)%leaseGroups][at])
		if err == nil {
			err = a.want(http.StatusOK)
		}
		if err == nil && !bytes.Contains(a.body, []byte(`"failed":0,`)) {
			err = fmt.Errorf("answered %.300s", a.body)
		}
		if err == nil {
			l.renewals.Add(int64(some))
		}
		return err
	})
	if len(l.problems) > 0 {
		l.c.t.Errorf("renewals as fast as can be:\n%s", strings.Join(l.problems, "\n"))
	}
}

func per(all time.Duration, n int64) float64 {
	return float64(all) / float64(n) / float64(time.Microsecond)
}

// cpuOfMembers is what they have used: unlike a rate it says something on a busy machine, too.
func (l *leaseLoad) cpuOfMembers() time.Duration {
	var all time.Duration
	for _, m := range l.c.members {
		all += cpuOf(fmt.Sprint(m.proc.PID()))
	}
	return all
}

// cpuOf is the CPU time of a process, 0 where it cannot be told.
func cpuOf(process string) time.Duration {
	const ticks = 100 // a second, on every Linux
	stat, err := os.ReadFile(filepath.Join("/proc", process, "stat"))
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if err != nil || len(fields) < 13 {
		return 0
	}
	var used time.Duration
	for _, field := range fields[11:13] { // in user mode, in the kernel
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0
		}
		used += time.Duration(n) * time.Second / ticks
	}
	return used
}

// loadAverage is that of the last minute: figures are worth nothing without it.
func loadAverage() string {
	all, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(all), " ")
	return first
}
