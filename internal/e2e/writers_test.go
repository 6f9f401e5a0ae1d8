package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// writers are clients that register and deregister as fast as they are
// answered, and remember what was acknowledged.
//
// An instance belongs to one writer, which has one write in flight. While all
// of its writes are acknowledged its state is that of the last. A write without
// an acknowledgement may have happened, or happen at any later time: the writer
// leaves that instance alone from then on, and both states are right.
type writers struct {
	c       *cluster
	cancel  context.CancelFunc
	working sync.WaitGroup

	mu   sync.Mutex
	acks int
	last map[string]history // by instance
}

// history is what may be read of an instance: the acknowledged value, or what
// an unanswered write would have made of it. "" is: not there.
type history struct {
	acked   string
	unknown *string
}

func (h history) allows(value string) bool {
	return value == h.acked || h.unknown != nil && value == *h.unknown
}

const (
	writerCount      = 8
	writerInstances  = 40                     // that a writer has at a time
	writerRest       = 10 * time.Millisecond  // after a write without an acknowledgement
	writeTime        = 100 * time.Millisecond // for one to be waited for: not a target, a limit
	deregisterOneIn  = 5
	writtenService   = "written"
	writtenPortFirst = 1000
)

// startWriters starts the load against all members of a cluster.
func startWriters(c *cluster, random *rand.Rand, round int, last map[string]history) *writers {
	ctx, cancel := context.WithCancel(c.t.Context())
	w := &writers{c: c, cancel: cancel, last: last}
	for i := range writerCount {
		mine := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		w.working.Go(func() { w.write(ctx, fmt.Sprintf("r%d-w%d", round, i), mine) })
	}
	return w
}

// stop ends the load. Writes in flight are waited for.
func (w *writers) stop() {
	w.cancel()
	w.working.Wait()
}

// write is one writer.
func (w *writers) write(ctx context.Context, name string, random *rand.Rand) {
	ids := make([]string, writerInstances)
	made := 0
	fresh := func() string { made++; return fmt.Sprintf("%s-%d", name, made) }
	for i := range ids {
		ids[i] = fresh()
	}
	for n := 1; ctx.Err() == nil; n++ {
		i := random.IntN(len(ids))
		value := fmt.Sprintf("%s/%d", name, n)
		if random.IntN(deregisterOneIn) == 0 {
			value = ""
		}
		m := w.c.members[random.IntN(len(w.c.members))]
		if !w.do(m, ids[i], value) {
			ids[i] = fresh()
			rest(ctx, writerRest)
		}
	}
}

// rest keeps a client from spinning while nobody answers.
func rest(ctx context.Context, so time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(so):
	}
}

// do writes once and tells whether it was acknowledged.
func (w *writers) do(m *member, id, value string) bool {
	method, body := http.MethodPut, registration(writtenPortFirst, value)
	if value == "" {
		method, body = http.MethodDelete, ""
	}
	// The load's end cuts no write short: an answer on its way counts.
	a, err := w.c.call(context.WithoutCancel(w.c.t.Context()), method, instanceURL(m, writtenService, id), body)
	acked := err == nil && a.status/100 == 2
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.last[id]
	if acked {
		w.acks++
		h.acked = value
	} else {
		h.unknown = &value
	}
	w.last[id] = h
	return acked
}

// acknowledged is how many writes were so far.
func (w *writers) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks
}

// wait waits until so many writes were acknowledged.
func (w *writers) wait(t *testing.T, n int) {
	t.Helper()
	limit := readyTime + time.Duration(n)*writeTime
	if _, err := process.Within(t.Context(), limit, fmt.Sprintf("%d acknowledged writes", n), func() error {
		if have := w.acknowledged(); have < n {
			return fmt.Errorf("%d so far", have)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// check reads every instance that was ever written, at any member, and compares.
func (c *cluster) check(random *rand.Rand, last map[string]history) {
	c.t.Helper()
	wrong := 0
	for _, id := range slices.Sorted(maps.Keys(last)) {
		m := c.members[random.IntN(len(c.members))]
		a := c.must(http.MethodGet, instanceURL(m, writtenService, id), "", http.StatusOK, http.StatusNotFound)
		value := ""
		if a.status == http.StatusOK {
			var err error
			if value, err = valueOf(a); err != nil {
				c.t.Fatalf("read %s: %v in %s", id, err, a.body)
			}
		}
		if !last[id].allows(value) {
			wrong++
			c.t.Errorf("%s at %s is %q, acknowledged was %q (unanswered: %v)", id, m.name(), value, last[id].acked, last[id].unknown != nil)
		}
		if wrong > 10 {
			c.t.Fatal("and so on")
		}
	}
	c.t.Logf("%d instances are as acknowledged", len(last))
}
