package access

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// limited is a limiter whose time stands still until a test moves it.
func limited(t *testing.T, l Limits) (*Limiter, *time.Time) {
	t.Helper()
	now := time.Unix(1_790_000_000, 0)
	out, err := NewLimiter(l, func() time.Time { return now }, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return out, &now
}

// mustBeOver wants a refusal for a limit, which is counted.
func mustBeOver(t *testing.T, l *Limiter, over *Over, limit string, most int, after time.Duration) {
	t.Helper()
	if over == nil || *over != (Over{limit, most, after}) {
		t.Errorf("it is %+v, want %s of %d and %v", over, limit, most, after)
	}
	var counted dto.Metric
	if err := l.refused.WithLabelValues(limit).Write(&counted); err != nil || valueOf(&counted) < 1 {
		t.Errorf("%v refusals by %s are counted: %v", valueOf(&counted), limit, err)
	}
}

// An identity makes so many requests in a second; the next one is told when to come again,
// and then it is served. Others have shares of their own.
func TestRequestsOfAnIdentityAreBounded(t *testing.T) {
	l, now := limited(t, Limits{RequestsEach: 10})
	for n := range 10 {
		if over := l.Request("ann", RankList); over != nil {
			t.Fatalf("request %d: %v", n+1, over)
		}
	}
	mustBeOver(t, l, l.Request("ann", RankRenewal), limitRequestsEach, 10, time.Second/10)
	if over := l.Request("bob", RankRead); over != nil {
		t.Errorf("another: %v", over)
	}
	*now = now.Add(time.Second / 10)
	if over := l.Request("ann", RankRead); over != nil {
		t.Errorf("in time: %v", over)
	}
	mustBeOver(t, l, l.Request("ann", RankRead), limitRequestsEach, 10, time.Second/10)
}

// Where all together are too many, lists are refused first, then reads, writes, and
// renewals last. What was refused has used nothing up.
func TestLowerRanksGiveWay(t *testing.T) {
	l, now := limited(t, Limits{Requests: 100})
	took := func(rank Rank) (n int) {
		for l.Request(fmt.Sprint(n), rank) == nil {
			n++
		}
		return n
	}
	for _, want := range []struct {
		rank Rank
		n    int
	}{{RankList, 50}, {RankRead, 25}, {RankWrite, 15}, {RankRenewal, 10}, {RankRenewal, 0}} {
		if n := took(want.rank); n != want.n {
			t.Errorf("rank %d was served %d times, want %d", want.rank, n, want.n)
		}
	}
	mustBeOver(t, l, l.Request("ann", RankList), limitRequests, 100, time.Second/2+time.Second/100)
	*now = now.Add(time.Second / 2)
	if over := l.Request("ann", RankRead); over != nil {
		t.Errorf("a read in time: %v", over)
	}
	if l.Request("ann", RankList) == nil {
		t.Error("a list is served from what is left to those above it")
	}
}

// Who is refused for his own share has used nothing of what is there for all, nor the other
// way round.
func TestWhatIsRefusedUsesNothingUp(t *testing.T) {
	l, now := limited(t, Limits{Requests: 10, RequestsEach: 1})
	if over := l.Request("ann", RankRenewal); over != nil {
		t.Fatal(over)
	}
	for range 100 {
		mustBeOver(t, l, l.Request("ann", RankRenewal), limitRequestsEach, 1, time.Second)
	}
	for n := range 9 {
		if over := l.Request(fmt.Sprint("other ", n), RankRenewal); over != nil {
			t.Errorf("of nine others the one after %d: %v", n, over)
		}
	}
	mustBeOver(t, l, l.Request("bob", RankRenewal), limitRequests, 10, time.Second/10)
	*now = now.Add(time.Second / 10)
	if over := l.Request("bob", RankRenewal); over != nil {
		t.Errorf("in time: %v", over)
	}
}

// Of a place that was left nothing is kept, so that what is kept is bounded by what is open.
func TestPlacesThatAreLeftAreForgotten(t *testing.T) {
	l, _ := limited(t, Limits{StreamsEach: 2, ConnectionsFrom: 2})
	stream, _ := l.Stream("ann", "10.0.0.1")
	connection, _ := l.Connection("10.0.0.1")
	stream()
	connection()
	if len(l.streams)+len(l.connections) != 0 {
		t.Errorf("%v and %v are kept", l.streams, l.connections)
	}
}

// So many are known at once; those who are new then share one allowance, and find their own
// again when others have been forgotten.
func TestAskersAreBounded(t *testing.T) {
	l, now := limited(t, Limits{RequestsEach: 2})
	for n := range askersMax {
		l.Request(fmt.Sprint("asker-", n), RankRead)
	}
	for _, who := range []string{"ann", "bob"} {
		if over := l.Request(who, RankRead); over != nil {
			t.Fatalf("%s: %v", who, over)
		}
	}
	mustBeOver(t, l, l.Request("cid", RankRead), limitRequestsEach, 2, time.Second/2)
	if n := len(l.each); n > askersMax+1 {
		t.Errorf("%d are kept", n)
	}
	*now = now.Add(askersSweep - time.Millisecond)
	l.Request("dan", RankRead)
	if n := len(l.each); n <= askersMax {
		t.Errorf("all are looked through again within %v: %d are left", askersSweep, n)
	}
	*now = now.Add(time.Second)
	for range 2 {
		if over := l.Request("cid", RankRead); over != nil {
			t.Errorf("when there is room again: %v", over)
		}
	}
	if n := len(l.each); n > 2 {
		t.Errorf("%d are kept of whom nothing is left to be known", n)
	}
}

// An identity has so many streams open, and an address so many, of whatever identities; who
// is not known by one of them is counted by the other. A place that is left is another's.
func TestStreamsOfAnIdentityAreBounded(t *testing.T) {
	l, _ := limited(t, Limits{StreamsEach: 2, StreamsFrom: 3})
	open := func(who, from string) func() {
		t.Helper()
		leave, over := l.Stream(who, from)
		if over != nil {
			t.Fatalf("%s from %s: %v", who, from, over)
		}
		return leave
	}
	first := open("ann", "10.0.0.1")
	open("ann", "10.0.0.2")
	_, over := l.Stream("ann", "10.0.0.3")
	mustBeOver(t, l, over, limitStreamsEach, 2, 0)
	open("bob", "10.0.0.1")
	last := open("", "10.0.0.1")
	_, over = l.Stream("cid", "10.0.0.1")
	mustBeOver(t, l, over, limitStreamsFrom, 3, 0)
	if n := l.streams["cid"]; n != 0 {
		t.Errorf("who was refused has %d", n)
	}
	first()
	open("ann", "10.0.0.1")
	last()
	open("cid", "10.0.0.1")
	for range 10 {
		open("", "")
	}
}

// An address has so many connections open.
func TestConnectionsOfAnAddressAreBounded(t *testing.T) {
	l, _ := limited(t, Limits{ConnectionsFrom: 2})
	leave, _ := l.Connection("10.0.0.1")
	l.Connection("10.0.0.1")
	_, over := l.Connection("10.0.0.1")
	mustBeOver(t, l, over, limitConnectionsFrom, 2, 0)
	if _, over := l.Connection("10.0.0.2"); over != nil {
		t.Errorf("another: %v", over)
	}
	leave()
	if _, over := l.Connection("10.0.0.1"); over != nil {
		t.Errorf("in a place that was left: %v", over)
	}
}

// Where there are no limits nobody is held to any, and nothing is kept.
func TestWithoutLimits(t *testing.T) {
	var none *Limiter
	if none.Request("ann", RankList) != nil {
		t.Error("a request is refused")
	}
	leave, over := none.Stream("ann", "10.0.0.1")
	leave()
	l, _ := limited(t, Limits{})
	for range 1000 {
		if l.Request("ann", RankList) != nil || over != nil {
			t.Fatal("something is refused")
		}
	}
	if len(l.each) != 0 {
		t.Errorf("%d are kept", len(l.each))
	}
}
