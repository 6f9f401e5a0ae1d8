package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// registers, renews and deregisters are items of a batch, for instances of prod/orders.
func registers(ids ...string) []BatchItem {
	var items []BatchItem
	for n, id := range ids {
		r := reg("prod", "orders", id, "10.0.0.1", int32(n+1))
		items = append(items, BatchItem{Register: &r})
	}
	return items
}

func renews(ids ...string) []BatchItem {
	var items []BatchItem
	for _, id := range ids {
		items = append(items, BatchItem{Renew: &Renewal{Instance: ref("prod", "orders", id)}})
	}
	return items
}

func deregisters(ids ...string) []BatchItem {
	var items []BatchItem
	for _, id := range ids {
		k := ref("prod", "orders", id)
		items = append(items, BatchItem{Deregister: &k})
	}
	return items
}

func numbered(from, n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("i-%05d", from+i))
	}
	return ids
}

// batch does a batch that must not be refused as a whole.
func (m *member) batch(requestID string, items []BatchItem) []BatchResult {
	m.tb.Helper()
	results, err := m.registry.Batch(context.Background(), requestID, items)
	if err != nil {
		m.tb.Fatal(err)
	}
	mustEqual(m.tb, "the number of results", len(results), len(items))
	return results
}

// failures are the places of the items that were not done, with what a test looks for in their errors.
func failures(results []BatchResult) []string {
	out := []string{}
	for i, r := range results {
		if r.Err != nil {
			out = append(out, fmt.Sprint(i, " ", r.Err))
		}
	}
	return out
}

// TestABatchIsManyWritesOfTheirOwn shows mixed items, good and bad: each has its
// own outcome in its place, and what is bad does not stop what is good.
func TestABatchIsManyWritesOfTheirOwn(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	m.batch("", registers("a", "b", "c"))
	items := slices.Concat(registers("a", "d", "bad/id"), renews("b", "none"), deregisters("c", "never"), []BatchItem{{}}, renews("a"))
	items[0].Register.Version = "2"
	results := m.batch("", items)
	mustEqualSlices(t, "what was refused", failures(results), []string{
		`2 items[2].register.instanceId: "bad/id" is not allowed: ` + idRule,
		`4 instance "none" of service "orders" in namespace "prod" is not registered: register it again`,
		`7 items[7]: is not one of register, renew, deregister: exactly one of them`,
		`8 items[8].renew.instanceId: names the instance that items[0] names: an instance can be in a batch once, since items have no order`,
	})
	mustEqual(t, "what became of one that was there", results[0].Result, Result{Revision: results[0].Revision, Changed: true})
	mustEqual(t, "what became of a new one", results[1].Result, Result{Revision: results[0].Revision, Created: true, Changed: true})
	mustEqual(t, "what became of a deregistration", results[5].Changed, true)
	mustEqual(t, "what became of one of nothing", results[6].Changed, false)
	svc := m.machine.Service(ServiceKey{"prod", "orders"})
	mustEqualSlices(t, "what is there", ids(svc.Instances), []string{"a", "b", "d"})
}

// TestABatchIsCutIntoCommands shows that neither the items of an entry nor its
// bytes grow with a batch, and that its request ids follow from the request's.
func TestABatchIsCutIntoCommands(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	results := m.batch("key", slices.Concat(registers(numbered(0, 2*commandItemsMax+1)...), deregisters("x")))
	mustEqualSlices(t, "what was refused", failures(results), []string{})
	mustEqualSlices(t, "the request ids", m.ids, []string{"key deregister 0", "key register 0", "key register 1", "key register 2"})
	mustEqual(t, "the revision of the last", results[2*commandItemsMax].Revision, m.machine.Revision())
	mustEqual(t, "the revision of the first", results[0].Revision, m.machine.Revision()-2)

	m.ids = nil
	large := registers(numbered(0, 40)...)
	for i := range large {
		large[i].Register.Metadata = map[string]string{"k": strings.Repeat("v", 15<<10)}
	}
	before := len(m.log)
	m.batch("", large)
	for _, e := range m.log[before:] {
		if len(e.Data) > batchCommandBytes {
			t.Errorf("a command has %d bytes", len(e.Data))
		}
	}
	mustEqual(t, "the commands of large items", len(m.log)-before, 3)
	mustEqualSlices(t, "their request ids", m.ids, []string{"", "", ""})
}

// TestRenewalsOfABatchStayOutOfTheLog shows that many are one question and no
// entry, and that those which the log has to decide are one entry.
func TestRenewalsOfABatchStayOutOfTheLog(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	m.run()
	all := numbered(0, 1000)
	m.batch("", registers(all...))
	m.proposed = 0
	mustEqualSlices(t, "what was refused", failures(m.batch("", renews(all...))), []string{})
	mustEqual(t, "the entries of plain renewals", m.proposed, 0)

	m.pass(clock, LeaseTTLDefault+time.Second) // all expire
	m.proposed = 0
	items := renews(all[:100]...)
	items[7].Renew.LeaseTTLSeconds = 60
	results := m.batch("key", items)
	mustEqualSlices(t, "what was refused", failures(results), []string{})
	mustEqual(t, "the entries of revivals", m.proposed, 1)
	mustEqual(t, "whether a revival is a change", results[0].Changed, true)
	i, _ := m.machine.instance(orders(all[7]))
	mustEqual(t, "the new TTL", i.LeaseTTL, time.Minute)
}

// TestABrokenBatchIsNotGoneOnWith shows that after a command that did not pass the
// later ones are not tried, and that those before it have been done.
func TestABrokenBatchIsNotGoneOnWith(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	m.spoil = func(id string) error {
		if id == "key register 1" {
			return ErrUnknownOutcome
		}
		return nil
	}
	results := m.batch("key", registers(numbered(0, 3*commandItemsMax)...))
	for i, r := range results {
		want := []error{nil, ErrUnknownOutcome, ErrNotTried}[i/commandItemsMax]
		if !errors.Is(r.Err, want) {
			t.Fatalf("item %d ends with %v, want %v", i, r.Err, want)
		}
	}
	mustEqual(t, "what is there", len(m.machine.Service(ServiceKey{"prod", "orders"}).Instances), commandItemsMax)
	mustEqualSlices(t, "the request ids", m.ids, []string{"key register 0", "key register 1"})
}

// TestRoomIsMadeOnAFullDisk shows that registrations which a full disk refuses do
// not keep the deregistrations of the same batch from being done.
func TestRoomIsMadeOnAFullDisk(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	m.batch("", registers("a", "b"))
	m.spoil = func(id string) error {
		if strings.Contains(id, "register 0") && !strings.Contains(id, "deregister") {
			return ErrFull
		}
		return nil
	}
	results := m.batch("key", slices.Concat(registers("c"), deregisters("a"), renews("b")))
	if !errors.Is(results[0].Err, ErrFull) || results[1].Err != nil || results[2].Err != nil {
		t.Fatalf("got %v", failures(results))
	}
}

// TestABatchIsBounded shows that one with nothing, or too much, is refused whole.
func TestABatchIsBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	for _, n := range []int{0, BatchItemsMax + 1} {
		_, err := m.registry.Batch(context.Background(), "", make([]BatchItem, n))
		var bad *ValidationError
		if !errors.As(err, &bad) || bad.Problems[0].Field != "items" || !strings.Contains(bad.Problems[0].Reason, "1 to 4096") {
			t.Errorf("%d items: %v", n, err)
		}
	}
	mustEqual(t, "what was proposed", m.proposed, 0)
	mustEqualSlices(t, "what was refused of the largest", failures(m.batch("", registers(numbered(0, BatchItemsMax)...))), []string{})
}

// TestABatchWithoutALeader shows that each item says so, and that nothing is done.
func TestABatchWithoutALeader(t *testing.T) {
	m := newMember(t, newManualClock())
	m.run()
	m.batch("", registers("a"))
	m.cut = true
	m.spoil = func(string) error { return ErrNoLeader }
	results := m.batch("", slices.Concat(renews("a"), deregisters("b"), registers("c")))
	for i, want := range []error{ErrNoLeader, ErrNoLeader, ErrNotTried} {
		if !errors.Is(results[i].Err, want) {
			t.Errorf("item %d ends with %v, want %v", i, results[i].Err, want)
		}
	}
}
