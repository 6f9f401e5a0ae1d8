package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is clients at all members that register, update, deregister, read and
// renew instances which they share, at a steady pace, and holders of leases.
// Each call is tried again, under one Idempotency-Key, at one member after the
// other until it is answered.
type load struct {
	c       *cluster
	name    string // of its instances
	history *recorder
	cancel  context.CancelFunc
	working sync.WaitGroup

	mu       sync.Mutex // guards what follows
	live     []string   // the instances that are worked on
	made     int
	problems []string // what no answer may be
	renewals int
	overdue  int           // leases that ran out since nobody could renew them
	longest  time.Duration // that a lease went between two acknowledged renewals
}

const (
	loadClients  = 32
	loadKeys     = 48                     // that are worked on at a time: several clients meet at each
	loadPace     = 40 * time.Millisecond  // between the beginnings of a client's calls
	tryTime      = 400 * time.Millisecond // for one try
	tryRest      = 20 * time.Millisecond  // between two
	giveUpTime   = 15 * time.Second       // for all of them
	loadService  = "chaos"
	problemsMost = 20
)

// What clients do, out of 100: the rest are reads.
const (
	registerShare   = 40
	deregisterShare = 12
	renewShare      = 12
)

// startLoad starts the clients and the holders of leases.
func startLoad(c *cluster, name string, random *rand.Rand) *load {
	ctx, cancel := context.WithCancel(c.t.Context())
	l := &load{c: c, name: name, history: newRecorder(), cancel: cancel}
	for range loadKeys {
		l.live = append(l.live, l.fresh())
	}
	for i := range loadClients {
		mine := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		l.working.Go(func() { l.work(ctx, i, mine) })
	}
	for i := range leases {
		mine := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		l.working.Go(func() { l.hold(ctx, loadClients+i, mine) })
	}
	return l
}

// stop ends the load. Calls in flight are waited for.
func (l *load) stop() {
	l.cancel()
	l.working.Wait()
}

// fresh is the name of an instance that nobody has touched.
func (l *load) fresh() string {
	l.made++
	return fmt.Sprintf("%s-%d", l.name, l.made)
}

// pick is an instance to work on; one that has seen enough is replaced.
func (l *load) pick(random *rand.Rand) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := random.IntN(len(l.live))
	if l.history.worn(l.live[at]) {
		l.live[at] = l.fresh()
	}
	return l.live[at]
}

func (l *load) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < problemsMost {
		l.problems = append(l.problems, fmt.Sprintf("%.3fs: ", l.history.now().Seconds())+fmt.Sprintf(format, args...))
	}
}

// work is one client.
func (l *load) work(ctx context.Context, client int, random *rand.Rand) {
	ticker := time.NewTicker(loadPace)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		o := operation{client: client}
		switch dice := random.IntN(100); {
		case dice < registerShare:
			o.kind, o.value = opRegister, fmt.Sprintf("%d/%d", client, n)
		case dice < registerShare+deregisterShare:
			o.kind = opDeregister
		case dice < registerShare+deregisterShare+renewShare:
			o.kind = opRenew
		default:
			o.kind = opRead
		}
		id := l.pick(random)
		l.history.add(id, l.do(id, o, random.IntN(len(l.c.members))))
	}
}

// do calls until there is an answer, beginning at a member and going round. A
// call that changes nothing began with the try that was answered.
func (l *load) do(id string, o operation, at int) operation {
	begin := l.history.now()
	o.begin = begin
	key := fmt.Sprintf("%d/%v", o.client, begin)
	for o.tries = 1; ; o.tries++ {
		if !o.kind.writes() {
			o.begin = l.history.now()
		}
		m := l.c.members[(at+o.tries)%len(l.c.members)]
		a, err := l.try(m, id, o, key)
		if err == nil {
			o.done = l.take(m, id, &o, a)
		}
		o.end = l.history.now()
		if o.done || o.end-begin > giveUpTime {
			return o
		}
		rest(l.c.t.Context(), tryRest)
	}
}

// try is one call.
func (l *load) try(m *member, id string, o operation, key string) (answer, error) {
	method, url, body := http.MethodGet, instanceURL(m, loadService, id), ""
	var headers []string
	switch o.kind {
	case opRegister:
		method, body = http.MethodPut, registration(9000, o.value)
	case opDeregister:
		method = http.MethodDelete
	case opRenew:
		method, url = http.MethodPost, url+"/renew"
	}
	if o.kind.writes() {
		headers = []string{"Idempotency-Key", key}
	}
	// The load's end cuts nothing short: an answer on its way counts.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.c.t.Context()), tryTime)
	defer cancel()
	return l.c.call(ctx, method, url, body, headers...)
}

// take reads an answer and tells whether it is one.
func (l *load) take(m *member, id string, o *operation, a answer) bool {
	switch {
	case a.status == http.StatusServiceUnavailable, a.status == http.StatusTooManyRequests:
		return false // try again, it says
	case a.status == http.StatusNotFound && !o.kind.writes():
		o.value = ""
		return true
	case a.status/100 != 2:
		l.problem("%v of %s at %s was answered %d: %.200s", o.kind, id, m.name(), a.status, a.body)
		return false
	}
	var said struct {
		Created  bool
		Deleted  bool
		Metadata map[string]string
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		l.problem("%v of %s at %s was answered with no JSON: %v: %.200s", o.kind, id, m.name(), err, a.body)
		return false
	}
	was := said.Deleted
	switch o.kind {
	case opRead:
		o.value = said.Metadata["value"]
	case opRenew:
		o.value = "?" // something is there
	case opRegister:
		was = !said.Created
	}
	if o.kind.writes() && o.tries == 1 {
		o.was = &was
	}
	return true
}

// readEverything reads every instance of the history at every member, as part of it.
func (l *load) readEverything() {
	l.history.mu.Lock()
	var ids []string
	for id := range l.history.of {
		ids = append(ids, id)
	}
	l.history.mu.Unlock()
	var reading sync.WaitGroup
	for i, m := range l.c.members {
		reading.Go(func() {
			for _, id := range ids {
				o := l.do(id, operation{kind: opRead, client: i}, m.id-2+len(l.c.members))
				if !o.done {
					l.problem("%s could not be read at the end, at %s and after it at all others", id, m.name())
				}
				l.history.add(id, o)
			}
		})
	}
	reading.Wait()
}

// Leases are held by clients that renew them long before they end.
const (
	leases      = 20
	leaseTTL    = 10 * time.Second
	leaseRenews = 1500 * time.Millisecond // between two renewals
)

// leased is what is read of an instance with a lease. Its counter changes when it
// expires and when it is revived, and not when it is renewed.
type leased struct {
	Status  string
	Counter uint64
	missing bool
}

// hold registers an instance with a lease, renews it and looks at it.
func (l *load) hold(ctx context.Context, client int, random *rand.Rand) {
	id := fmt.Sprintf("%s-leased-%d", l.name, client)
	ticker := time.NewTicker(leaseRenews)
	defer ticker.Stop()
	had, err := l.lease(ctx, id, random)
	renewed := l.history.now() // the last renewal that was acknowledged began before
	for ; err == nil; renewed, err = l.renew(ctx, id, random, had, renewed) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	if ctx.Err() == nil {
		l.problem("lease %s: %v", id, err)
	}
}

// lease registers until it is acknowledged and tells what is there then.
func (l *load) lease(ctx context.Context, id string, random *rand.Rand) (leased, error) {
	body := fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":9000}],"leaseTtlSeconds":%d}`, int(leaseTTL.Seconds()))
	if _, _, err := l.insist(ctx, http.MethodPut, id, "", body, random); err != nil {
		return leased{}, err
	}
	return l.look(ctx, id, random)
}

// renew renews once, sees to it that nothing happened to the instance since, and
// tells when the renewal that was acknowledged began. A lease may only have run
// out when there was no such renewal for longer than its time.
func (l *load) renew(ctx context.Context, id string, random *rand.Rand, had leased, renewed time.Duration) (time.Duration, error) {
	a, began, err := l.insist(ctx, http.MethodPost, id, "/renew", "", random)
	if err != nil {
		return 0, err
	}
	have := leased{missing: true}
	if a.status != http.StatusNotFound {
		if have, err = l.look(ctx, id, random); err != nil {
			return 0, err
		}
	}
	gap := l.history.now() - renewed
	l.mu.Lock()
	l.renewals++
	l.longest = max(l.longest, gap)
	l.mu.Unlock()
	switch {
	case have == had:
		return began, nil
	case gap < leaseTTL:
		return 0, fmt.Errorf("was %+v and is %+v, %v after the last acknowledged renewal and with a TTL of %v", had, have, gap, leaseTTL)
	}
	l.mu.Lock()
	l.overdue++
	l.mu.Unlock()
	return 0, fmt.Errorf("could not be renewed for %v, with a TTL of %v", gap, leaseTTL)
}

func (l *load) look(ctx context.Context, id string, random *rand.Rand) (leased, error) {
	a, _, err := l.insist(ctx, http.MethodGet, id, "", "", random)
	if err != nil {
		return leased{}, err
	}
	if a.status == http.StatusNotFound {
		return leased{missing: true}, nil
	}
	var have leased
	return have, json.Unmarshal(a.body, &have)
}

// insist calls, at one member after the other, until there is an answer, and
// tells when the try that was answered began.
func (l *load) insist(ctx context.Context, method, id, action, body string, random *rand.Rand) (a answer, began time.Duration, err error) {
	at := random.IntN(len(l.c.members))
	for tries := 0; ctx.Err() == nil; tries++ {
		m := l.c.members[(at+tries)%len(l.c.members)]
		try, cancel := context.WithTimeout(ctx, tryTime)
		began = l.history.now()
		a, err = l.c.call(try, method, instanceURL(m, "leased", id)+action, body)
		cancel()
		if err == nil && (a.status/100 == 2 || a.status == http.StatusNotFound) {
			return a, began, nil
		}
		rest(ctx, tryRest)
	}
	return answer{}, 0, errors.Join(ctx.Err(), err)
}

// check fails the test for whatever went wrong with the load itself.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) > 0 {
		t.Errorf("the clients saw what must not be:\n%s", strings.Join(l.problems, "\n"))
	}
	if l.renewals == 0 {
		t.Error("no lease was renewed")
	}
	t.Logf("%d leases of %v renewed %d times, at intervals of %v at most", leases, leaseTTL, l.renewals, l.longest.Round(time.Millisecond))
}
