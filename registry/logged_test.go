package registry

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// entriesStub is a log that counts the renewals of each entry. Those of even numbers are known.
type entriesStub struct {
	answering
	t *testing.T

	mu    sync.Mutex // that all others wait is not yet an order for what they do next
	sizes []int
}

func (e *entriesStub) seen() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sizes)
}

func (e *entriesStub) Propose(_ context.Context, _ string, data []byte) (Applied, error) {
	if e.err != nil {
		return Applied{}, e.err
	}
	var command recordv1.Command
	if err := proto.Unmarshal(data, &command); err != nil {
		e.t.Errorf("decode an entry: %v", err)
	}
	reply := &recordv1.Reply{}
	for _, item := range command.GetRenew().GetItems() {
		n, err := strconv.Atoi(item.GetKey().GetId())
		if err != nil {
			e.t.Errorf("an instance is called %q", item.GetKey().GetId())
		}
		code := recordv1.Result_CODE_UNSPECIFIED
		if n%2 == 1 {
			code = recordv1.Result_CODE_NOT_FOUND
		}
		reply.Results = append(reply.Results, &recordv1.Result{Code: code, Changed: n%4 == 0})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sizes = append(e.sizes, len(reply.GetResults()))
	return Applied{Revision: Revision(len(e.sizes)), Reply: encode(reply)}, nil
}

// TestLateRenewalsShareEntries shows what keeps the load of late renewals from
// growing by itself: the first has its entry at once, and those of the next moment
// have one together, each with its own word on it; and none waits for a log that fails.
func TestLateRenewalsShareEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		log := &entriesStub{t: t}
		r := &Registry{logged: newLogged(log, prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}), nil)}
		go r.logged.run(ctx)
		answered := make(chan error, 1_000)
		renew := func(n int) {
			result, err := r.renewInLog(context.Background(), &pendingRenewal{key: orders(strconv.Itoa(n))})
			switch {
			case n%2 == 1 && !errors.Is(err, ErrNotFound), n%2 == 0 && (err != nil || result.Changed != (n%4 == 0)):
				t.Errorf("renewal %d: %+v, %v", n, result, err)
			}
			answered <- err
		}
		began := time.Now()
		renew(0)
		mustEqual(t, "the wait of the first", time.Since(began), 0)
		for n := range 2*commandItemsMax + 10 {
			go renew(n)
		}
		synctest.Wait()
		mustEqualSlices(t, "the entries while it rests", log.seen(), []int{1})
		<-time.After(loggedRest)
		synctest.Wait()
		mustEqualSlices(t, "the entries of a moment", log.seen(), []int{1, commandItemsMax, commandItemsMax, 10})
		mustEqual(t, "the answers", len(answered), 1+2*commandItemsMax+10)

		log.err = ErrUnknownOutcome
		if _, err := r.renewInLog(context.Background(), &pendingRenewal{key: orders("0")}); !errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("a log that fails: %v", err)
		}
		cancel()
		synctest.Wait()
		if _, err := r.renewInLog(context.Background(), &pendingRenewal{key: orders("0")}); !errors.Is(err, ErrStopping) {
			t.Fatalf("after its end: %v", err)
		}
	})
}

// TestALateRenewalMayWaitForItsEntry shows that a lease that is overdue does not run
// out between the question to its leader and the entry that renews it, and that its
// successor, who may not know of the question, goes on counting where it was told.
func TestALateRenewalMayWaitForItsEntry(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	r := reg("prod", "orders", "a", "10.0.0.1", 80)
	r.LeaseTTLSeconds = 20
	m.register(r)
	m.passTelling(clock, 18*time.Second)
	m.heartbeat("a", renewalLog)
	m.passTelling(clock, 15*time.Second)
	i, _ := m.machine.instance(orders("a"))
	mustEqual(t, "the status while the entry is on its way", i.Status, StatusPassing)
	m.lead()
	m.passTelling(clock, 6*time.Second)
	i, _ = m.machine.instance(orders("a"))
	mustEqual(t, "the status under a successor without the entry", i.Status, StatusExpired)
}
