package xds

import (
	"fmt"
	"testing"
)

// What a client has refused is remembered up to a bound; then the oldest is
// forgotten, and nothing else.
func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusals()
	for n := range refusalsMax {
		if r.add(content{fmt.Sprint(n), 1}, rejection{}) {
			t.Fatalf("of %d the oldest is forgotten", n)
		}
	}
	if r.add(content{"7", 1}, rejection{reason: "again"}) {
		t.Error("one that is refused again takes another place")
	}
	if !r.add(content{"more", 1}, rejection{}) || len(r.of) != refusalsMax || len(r.order) != refusalsMax {
		t.Errorf("%d are remembered, in an order of %d", len(r.of), len(r.order))
	}
	for name, want := range map[string]bool{"0": false, "1": true, "7": true, "more": true} {
		if _, got := r.has(&entry{name: name, hash: 1}); got != want {
			t.Errorf("that %s is refused is %t", name, got)
		}
	}
	if _, other := r.has(&entry{name: "more", hash: 2}); other {
		t.Error("other content of the same name is refused")
	}
}

// A response that cannot be split is sent, however large, and counted.
func TestOversizedResponsesAreCounted(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.responseBytes = 1500 })
	for n := range 5 {
		m.add(fmt.Sprintf("s%d", n), n)
	}
	m.settled()
	c := m.whole(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "s0.prod", "s1.prod", "s2.prod", "s3.prod", "s4.prod"))
	c.subscribe(typeEndpoints, "s0.prod")
	c.ack(c.wants(typeEndpoints, "s0.prod"))
	if n, other := m.server.metrics.oversized[typeCluster].Load(), m.server.metrics.oversized[typeEndpoints].Load(); n != 1 || other != 0 {
		t.Errorf("%d responses of clusters and %d of endpoints are counted", n, other)
	}
}

// A client that is silent for ever costs a bounded number of responses.
func TestSilentResponsesAreBounded(t *testing.T) {
	b := newSubscription(&stream{}, typeEndpoints)
	for n := range 3 * lateMax {
		b.pending = &response{nonce: fmt.Sprint(n), silent: true}
		b.sending(&response{nonce: fmt.Sprint(n + 1)})
	}
	if len(b.late) != lateMax || b.takeLate(fmt.Sprint(3*lateMax-1)) == nil || b.takeLate("0") != nil {
		t.Errorf("%d are remembered", len(b.late))
	}
}
