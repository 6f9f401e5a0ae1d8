package registry

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A keeper is a caller who may read some namespaces; a test changes which.
type keeper struct {
	mu    sync.Mutex
	reads []string
}

func newKeeper(reads ...string) *keeper { return &keeper{reads: reads} }

// may changes what he may read.
func (k *keeper) may(read ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads = read
}

func (k *keeper) Who() string { return "keeper" }

func (k *keeper) Allows(a Ask) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return a.Verb == VerbRead && slices.Contains(k.reads, a.Namespace)
}

func (k *keeper) AllowsSome(a Ask) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return a.Verb == VerbRead && (a.Namespace == "" && len(k.reads) > 0 || slices.Contains(k.reads, a.Namespace))
}

func (k *keeper) Stamp() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return joined(k.reads)
}

func (k *keeper) Held() Rights {
	k.mu.Lock()
	defer k.mu.Unlock()
	return newKeeper(k.reads...)
}

// edit is any edit of what is written down of access, by which a caller's rights may have changed.
func (m *member) editAccess(name string) {
	m.tb.Helper()
	if _, err := m.registry.PutRole(context.Background(), "", name, Role{}, Writing{}); err != nil {
		m.tb.Fatal(err)
	}
}

// Who watches is told of what he may see: each event is judged when it is told, and
// when his rights change he is told all there is anew, at once, or the watch ends. An
// edit that is not about him he does not feel.
func TestAWatchFollowsTheRightsOfItsCaller(t *testing.T) {
	m := newMember(t, newManualClock())
	m.carry()
	caller := newKeeper("prod")
	ctx, cancel := context.WithTimeout(WithCaller(context.Background(), caller), 30*time.Second)
	defer cancel()
	m.register(reg("prod", "orders", "p", "10.0.0.1", 80))
	m.register(reg("test", "orders", "t", "10.0.0.1", 80))
	w, err := m.registry.WatchFrom(ctx, Query{AllNamespaces: true}, WatchStart{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(why Resync, want ...string) {
		t.Helper()
		told, err := w.Next(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := ids(told.Instances)
		for _, c := range told.Changes {
			got = append(got, c.Instance.ID)
		}
		mustEqual(t, "why all is told", told.Resync, why)
		mustEqualSlices(t, "what is told", got, want)
	}
	next(ResyncStart, "p")
	m.register(reg("test", "orders", "t2", "10.0.0.1", 80))
	m.editAccess("others")
	m.register(reg("prod", "orders", "p2", "10.0.0.1", 80))
	next(0, "p2")

	told := make(chan Changes)
	go func() {
		c, _ := w.Next(ctx, nil)
		told <- c
	}()
	for waiting, _ := m.machine.waker.stats(); waiting == 0; waiting, _ = m.machine.waker.stats() {
		runtime.Gosched()
	}
	caller.may("prod", "test")
	m.editAccess("his")
	if c := <-told; c.Resync != ResyncAccess || len(c.Instances) != 4 {
		t.Fatalf("after more was allowed: %v, %v", c.Resync, ids(c.Instances))
	}
	caller.may("test")
	m.register(reg("prod", "orders", "p3", "10.0.0.1", 80)) // before the edit is published: no event tells of it any more
	m.register(reg("test", "orders", "t3", "10.0.0.1", 80))
	next(0, "t3")
	m.editAccess("less")
	next(ResyncAccess, "t", "t2", "t3")
	caller.may()
	m.editAccess("nothing")
	if _, err := w.Next(ctx, nil); !errors.Is(err, ErrDenied) {
		t.Errorf("after everything was denied: %v", err)
	}
}

// The pages of a list are one caller's, and what they show was allowed all the time.
func TestPagesAreTheirCallers(t *testing.T) {
	m := newMember(t, newManualClock())
	caller := newKeeper("prod", "test")
	ctx := WithCaller(context.Background(), caller)
	m.register(reg("prod", "orders", "p", "10.0.0.1", 80))
	m.register(reg("test", "orders", "t", "10.0.0.1", 80))
	q := Query{AllNamespaces: true, Limit: 1}
	first, err := m.registry.Instances(ctx, q, Paging{})
	if err != nil || first.Next == nil {
		t.Fatalf("the first page: %v, %v", first, err)
	}
	if _, err := m.registry.Instances(context.Background(), q, Paging{Cursor: first.Next}); err == nil {
		t.Error("another is shown the page")
	}
	second, err := m.registry.Instances(ctx, q, Paging{Cursor: first.Next})
	if err != nil {
		t.Fatal(err)
	}
	mustEqualSlices(t, "the second page", ids(second.Instances), []string{"t"})
	caller.may("prod")
	m.editAccess("less")
	if _, err := m.registry.Instances(ctx, q, Paging{Cursor: first.Next}); !errors.Is(err, ErrCursorExpired) {
		t.Errorf("a page after less was allowed: %v", err)
	}
}

// A planner writes policies, and reads what a keeper may.
type planner struct{ *keeper }

func (p planner) Allows(a Ask) bool {
	return a.Verb == VerbWrite && a.Resource == ResourcePolicies || p.keeper.Allows(a)
}

// Who writes a policy names no gateways that he may not read: they would be told of to all who are given the service. What is
// named there already stays when he writes something else.
func TestAPolicyNamesNoGatewaysThatItsAuthorMayNotRead(t *testing.T) {
	m := newMember(t, newManualClock())
	ctx := WithCaller(context.Background(), planner{newKeeper("prod")})
	orders := ServiceKey{"prod", "orders"}
	put := func(ctx context.Context, text string, dryRun bool) error {
		_, err := m.registry.PutPolicy(ctx, "", orders, policyOf(t, text), Writing{DryRun: dryRun})
		return err
	}
	secret, open := `{"failover":{"mode":"gateway","gateway":"gate.secret"}}`, `{"failover":{"mode":"gateway","gateway":"gate.prod"}}`
	for _, dryRun := range []bool{true, false} {
		if err := put(ctx, secret, dryRun); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "secret") {
			t.Errorf("gateways of another namespace (dry run %v): %v", dryRun, err)
		}
		for _, text := range []string{open, `{"failover":{"mode":"gateway"}}`} {
			if err := put(ctx, text, dryRun); err != nil {
				t.Errorf("%s (dry run %v): %v", text, dryRun, err)
			}
		}
	}
	if err := put(context.Background(), secret, false); err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, `{"graceSeconds":5,`+secret[1:], false); err != nil {
		t.Errorf("what stands there, and something else: %v", err)
	}
	if err := put(ctx, strings.Replace(secret, "gate.", "other.", 1), false); !errors.Is(err, ErrDenied) {
		t.Errorf("others of that namespace: %v", err)
	}
}
