package registry

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// TestAFirstRegistrationsTimeStays shows that registering again keeps it, after an
// expiry too, and that an instance which was gone is a new one.
func TestAFirstRegistrationsTimeStays(t *testing.T) {
	a := newAged(t)
	first := a.clock.Now().UnixMilli()
	at := func() int64 {
		a.clock.advance(time.Second)
		a.register(reg("prod", "orders", "a", "10.0.0.1", 7))
		i, _ := a.machine.instance(orders("a"))
		mustEqual(t, "the last heartbeat", i.LastHeartbeat, a.clock.Now().UnixMilli())
		return i.RegisteredAt
	}
	mustEqual(t, "the time after a change", at(), first)
	a.expire("a")
	mustEqual(t, "the time after an expiry", at(), first)
	a.commit(deregisterCommand(orders("a"), Holder{}))
	mustEqual(t, "the time after a deregistration", at(), a.clock.Now().UnixMilli())
}

// TestTheCounterCountsWhatReadersSee shows the version of an instance: from 1, up
// with each visible change and with nothing else.
func TestTheCounterCountsWhatReadersSee(t *testing.T) {
	a := newAged(t)
	count := func(what string, counter uint64, revision Revision) {
		t.Helper()
		i, _ := a.machine.instance(orders("a"))
		mustEqual(t, "the counter "+what, i.Counter, counter)
		mustEqual(t, "the revision "+what, i.Revision, revision)
	}
	count("of a new one", 1, 2)
	a.register(reg("prod", "orders", "a", "10.0.0.1", 1))
	count("after the same again", 1, 2)
	a.commit(renewCommand(&pendingRenewal{key: orders("a"), ttlMs: 0}))
	count("after a renewal in the log", 1, 2)
	a.commit(renewCommand(&pendingRenewal{key: orders("a"), ttlMs: 9000}))
	count("after another TTL", 2, a.index)
	a.expire("a")
	count("after an expiry", 3, a.index)
	a.commit(renewCommand(&pendingRenewal{key: orders("a"), ttlMs: 0}))
	count("after a revival", 4, a.index)
}

// TestARefusedItemChangesNothing shows that an item of a command that is refused
// costs the others nothing, and that each item has its own result.
func TestARefusedItemChangesNothing(t *testing.T) {
	engine, m := openEmpty(t)
	var c recordv1.Command
	for n := range serviceEndpointNamesMax + 1 {
		r := good()
		r.ID, r.Endpoints[0].Name = fmt.Sprint(n), fmt.Sprint("e", n)
		normal, err := r.normalize()
		if err != nil {
			t.Fatal(err)
		}
		mustMerge(t, &c, registerCommand(normal))
	}
	var reply recordv1.Reply
	if err := proto.Unmarshal(applyEntry(t, engine, m, Entry{Index: 1, Term: 1, Time: 1000, Data: encode(&c)}), &reply); err != nil {
		t.Fatal(err)
	}
	m.Publish(1)
	mustEqual(t, "the number of instances", len(m.Service(ServiceKey{"prod", "orders"}).Instances), serviceEndpointNamesMax)
	for n, r := range reply.GetResults() {
		want := recordv1.Result_CODE_OK
		if n == serviceEndpointNamesMax {
			want = recordv1.Result_CODE_ENDPOINT_NAMES_FULL
		}
		mustEqual(t, fmt.Sprintf("the result of item %d", n), r.GetCode(), want)
		mustEqual(t, fmt.Sprintf("whether item %d changed", n), r.GetChanged(), want == recordv1.Result_CODE_OK)
	}
}

// mustMerge adds the items of a command to those of another of its kind.
func mustMerge(tb testing.TB, into *recordv1.Command, command []byte) {
	tb.Helper()
	if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(command, into); err != nil {
		tb.Fatal(err)
	}
}
