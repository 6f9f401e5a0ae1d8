package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// passTelling lets time go by as pass does, and has the leader tell.
func (m *member) passTelling(clock *manualClock, d time.Duration) {
	for passed := time.Duration(0); passed < d; passed += expiryTick {
		m.pass(clock, min(expiryTick, d-passed))
		m.registry.checkpointDue(context.Background())
	}
}

// TestAnAbandonedLeaseEndsThoughLeadersChange shows that a lease which nobody
// renews does not live on for as long as leaders change within its TTL, provided
// that each lasts for some of it, and that one which is renewed is held through all of it.
func TestAnAbandonedLeaseEndsThoughLeadersChange(t *testing.T) {
	const (
		ttl      = 20 * time.Second
		election = time.Second
	)
	for _, reign := range []time.Duration{8 * time.Second, ttl / 2, 12 * time.Second, 15 * time.Second, ttl - time.Second} {
		t.Run(reign.String(), func(t *testing.T) {
			clock := newManualClock()
			m := newMember(t, clock)
			m.run()
			for _, id := range []string{"dead", "alive"} {
				r := reg("prod", "orders", id, "10.0.0.1", 80)
				r.LeaseTTLSeconds = int64(ttl.Seconds())
				m.register(r)
			}
			began, without := clock.Now(), time.Duration(0)
			status := func(id string) Status { i, _ := m.machine.instance(orders(id)); return i.Status }
			for status("dead") == StatusPassing {
				for led := time.Duration(0); led < reign && status("dead") == StatusPassing; led += time.Second {
					m.heartbeat("alive", renewalDone)
					m.passTelling(clock, time.Second)
				}
				took := clock.Now().Sub(began)
				if most := 2*ttl + without + expiryTick; took > most {
					t.Fatalf("a lease of %v lives on after %v, with leaders that last %v", ttl, took, reign)
				}
				m.machine.Follow()
				clock.advance(election)
				without += election
				m.lead()
			}
			if took := clock.Now().Sub(began); took < ttl {
				t.Fatalf("a lease of %v was over after %v", ttl, took)
			}
			mustEqual(t, "the status of the one that is renewed", status("alive"), StatusPassing)
			mustEqual(t, "the renewals in the log", m.logged()["renew"], 0)
		})
	}
}

// heartbeat renews an instance of the orders, and is answered as expected.
func (m *member) heartbeat(id string, want renewal) {
	m.tb.Helper()
	got, err := m.machine.renewLeases(context.Background(), []leaseRenewal{{key: orders(id)}})
	if err != nil || got[0] != want {
		m.tb.Fatalf("the renewal of %s is %v, %v, want %v", id, got, err, want)
	}
}

// TestCheckpointsEndNoLeaseEarly shows with random holders, leader changes, outages,
// and checkpoints and expiries that are lost or come late, that whatever is told
// no lease ends within its TTL of a renewal that was acknowledged, and that whoever
// renews three times in it is never overdue.
func TestCheckpointsEndNoLeaseEarly(t *testing.T) {
	random := newRandom(t)
	for range 40 {
		clock := newManualClock()
		m := newMember(t, clock)
		m.run()
		x := &toldModel{t: t, random: random, clock: clock, member: m, watch: m.machine.Watch(0), holders: make(map[string]*toldHolder)}
		if random.IntN(2) == 0 { // so that each tells of a few numbers, and the other half of the holders waits for the next
			m.machine.leases.tellBytes = 16
		}
		for n := range 12 {
			x.enrol(strconv.Itoa(n))
			for others := range 12 {
				m.register(reg("prod", "others", fmt.Sprint(n, "-", others), "10.0.0.1", 80))
			}
		}
		for range 400 {
			x.step()
		}
	}
}

// toldModel is holders of leases and what they may rely on.
type toldModel struct {
	t       *testing.T
	random  *rand.Rand
	clock   *manualClock
	member  *member
	watch   *Watch
	holders map[string]*toldHolder
}

type toldHolder struct {
	ttl     time.Duration
	renewed time.Time // the last acknowledged one
	next    time.Time // when it renews again
	diligent,
	expired bool
}

func (x *toldModel) enrol(id string) {
	h := &toldHolder{ttl: time.Duration(1+x.random.IntN(20)) * time.Second, diligent: x.random.IntN(3) == 0}
	r := reg("prod", "orders", id, "10.0.0.1", 80)
	r.LeaseTTLSeconds = int64(h.ttl.Seconds())
	x.member.register(r)
	h.renewed = x.clock.Now()
	h.plan(x.random)
	x.holders[id] = h
}

// plan is when it renews again: three times in its TTL, or as it likes.
func (h *toldHolder) plan(random *rand.Rand) {
	pause := h.ttl / 3
	if !h.diligent {
		pause = time.Duration(random.Int64N(int64(h.ttl) * 5 / 4))
	}
	h.next = h.renewed.Add(pause)
}

func (x *toldModel) step() {
	switch dice := x.random.IntN(40); {
	case dice < 33:
		x.pass(expiryTick)
	case dice == 33:
		x.member.holding = true
	case dice == 34:
		x.deliver()
	case dice == 35:
		x.enrol(strconv.Itoa(x.random.IntN(12)))
	case dice == 36:
		id := strconv.Itoa(x.random.IntN(12))
		if _, err := x.member.registry.Deregister(context.Background(), "", ref("prod", "orders", id)); err != nil {
			x.t.Fatal(err)
		}
		delete(x.holders, id)
	case dice == 37:
		x.pass(time.Duration(x.random.IntN(20)) * expiryTick)
	case dice == 38 && x.random.IntN(2) == 0:
		x.change(time.Duration(x.random.IntN(3)) * time.Second)
	case dice == 39 && x.random.IntN(10) == 0:
		x.change(time.Minute) // an outage of all
	}
	x.see()
}

// deliver commits what was kept back, in any order, or loses it.
func (x *toldModel) deliver() {
	m := x.member
	m.mu.Lock()
	defer m.mu.Unlock()
	x.random.Shuffle(len(m.held), func(a, b int) { m.held[a], m.held[b] = m.held[b], m.held[a] })
	for _, command := range m.held {
		if x.random.IntN(3) > 0 {
			m.commit(command)
		}
	}
	m.held, m.holding = nil, false
}

// change has another leader begin after a while without one. What the last one had
// under way is committed before that, or never.
func (x *toldModel) change(without time.Duration) {
	x.deliver()
	x.member.machine.Follow()
	x.clock.advance(without)
	x.member.lead()
	for _, h := range x.holders { // they have tried all the time
		h.next = minTime(h.next, x.clock.Now().Add(h.ttl/4))
	}
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (x *toldModel) pass(d time.Duration) {
	for passed := time.Duration(0); passed < d; passed += expiryTick {
		x.member.pass(x.clock, expiryTick)
		if x.random.IntN(3) > 0 {
			x.member.registry.checkpointDue(context.Background())
		}
		x.see()
		for id, h := range x.holders {
			if !x.clock.Now().Before(h.next) {
				x.renew(id, h)
			}
		}
	}
}

func (x *toldModel) renew(id string, h *toldHolder) {
	before := x.member.proposed
	_, err := x.member.registry.Heartbeat(context.Background(), ref("prod", "orders", id), 0)
	switch {
	case errors.Is(err, ErrNotFound):
		h.next = h.next.Add(time.Hour) // too late; somebody may register it again
		return
	case err != nil:
		x.t.Fatal(err)
	}
	if logged := x.member.proposed > before; logged && h.diligent && h.ttl > 24*expiryTick && !h.expired && x.clock.Now().Sub(h.renewed) <= h.ttl/3+expiryTick {
		x.t.Fatalf("a holder that renews after %v of %v has to go through the log", x.clock.Now().Sub(h.renewed), h.ttl)
	}
	h.renewed, h.expired = x.clock.Now(), false
	h.plan(x.random)
}

// see checks whatever has run out.
func (x *toldModel) see() {
	for {
		batch, more, err := x.watch.Poll()
		if err != nil {
			x.t.Fatal(err)
		}
		if !more {
			break
		}
		for _, e := range batch.Events {
			if e.Kind != EventInstancePut || e.Instance.Status != StatusExpired {
				continue
			}
			h := x.holders[e.Instance.ID]
			if h == nil {
				continue
			}
			h.expired = true
			if held := x.clock.Now().Sub(h.renewed); held < h.ttl {
				x.t.Fatalf("the lease of %s, of %v, has ended %v after a renewal that was acknowledged", e.Instance.ID, h.ttl, held)
			}
		}
	}
	for _, i := range x.member.machine.Service(ServiceKey{"prod", "orders"}).Instances {
		if h := x.holders[i.ID]; h != nil && x.member.machine.LastHeartbeats([]*Instance{i})[0] > x.clock.Now().UnixMilli() {
			x.t.Fatalf("%s was heard of in the future", i.ID)
		}
	}
}

// TestALostCheckpointIsToldAgain shows that who was told to have been heard of in a
// checkpoint that nobody has seen is not taken to have been silent since before.
func TestALostCheckpointIsToldAgain(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	r := reg("prod", "orders", "a", "10.0.0.1", 80)
	r.LeaseTTLSeconds = 20
	m.register(r)
	m.passTelling(clock, 7*time.Second)
	m.heartbeat("a", renewalDone)
	m.holding = true
	m.passTelling(clock, 2*time.Second)
	mustEqual(t, "the checkpoints that nobody knows of", len(m.held), 1)
	m.held, m.holding = nil, false
	m.passTelling(clock, 15*time.Second)
	i, _ := m.machine.instance(orders("a"))
	mustEqual(t, "whether it is overdue", m.machine.published.told.of(i).overdue(), true)
	m.lead()
	m.passTelling(clock, 3*time.Second-expiryTick)
	i, _ = m.machine.instance(orders("a"))
	mustEqual(t, "the status before its time", i.Status, StatusPassing)
}

// TestWhatACheckpointTakes shows that a hundred thousand leases, each renewed three
// times in its TTL of 10 s, cost an entry every other second, of a size that is a
// fraction of the bound, and that everybody is told.
func TestWhatACheckpointTakes(t *testing.T) {
	const (
		holders  = 100_000
		ttl      = 10 * time.Second
		lasts    = 12 * time.Second
		boundary = 64 << 10 // bytes a second, with all else
	)
	var all []*Instance
	for n := range holders {
		i := passing(strconv.Itoa(n), 1, ttl)
		i.Number = uint32(n + 1)
		all = append(all, i)
	}
	l, clock := leading(all...)
	random := newRandom(t)
	random.Shuffle(holders, func(a, b int) { all[a], all[b] = all[b], all[a] })
	entries, bytes, told := 0, 0, 0
	at := 0
	for range int(lasts / expiryTick) {
		tick(l, clock, expiryTick)
		asked := make([]leaseRenewal, 0, holders)
		for range 3 * holders * int(expiryTick/time.Millisecond) / int(ttl/time.Millisecond) {
			asked = append(asked, leaseRenewal{key: all[at%holders].Key()})
			at++
		}
		l.renew(asked)
		_, due, _ := l.due(commandItemsMax)
		mustEqual(t, "the leases that are due", len(due), 0)
		if one := l.tell(); one != nil {
			entries++
			bytes += proto.Size(one.command)
			mustEqual(t, "the leases that are overdue", len(one.overdue), 0)
			for range numbersOf(one.command.GetHeard()) {
				told++
			}
		}
	}
	seconds := int(lasts.Seconds())
	if entries > seconds/2 || bytes/seconds > boundary/4 || told < 2*holders*seconds/int(ttl.Seconds()) {
		t.Fatalf("%d entries of %d bytes a second told of %d renewals in %v", entries, bytes/seconds, told, lasts)
	}
	t.Logf("%d entries, %d bytes/s, %d told of %d renewals", entries, bytes/seconds, told, at)
}

// TestNumbersComeThrough shows that what is too much for one checkpoint is told by
// the next ones: each bounded, nothing twice, nothing left out.
func TestNumbersComeThrough(t *testing.T) {
	random := newRandom(t)
	for _, share := range []float64{0.00002, 0.01, 0.6} {
		set := make([]uint64, 40_000)
		var want []uint32
		for n := range uint32(64 * len(set)) {
			if random.Float64() < share {
				set[n/64] |= 1 << (n % 64)
				want = append(want, n)
			}
		}
		place := random.IntN(len(set))
		var got []uint32
		for rounds := 1; slices.ContainsFunc(set, func(w uint64) bool { return w != 0 }); rounds++ {
			some := numbersFrom(set, &place, checkpointBytesMax)
			if size := proto.Size(&recordv1.Checkpoint{Heard: some}); size > checkpointBytesMax+1024 || size < min(64, 2*len(want)) {
				t.Fatalf("one of %v has %d bytes", share, size)
			}
			got = slices.AppendSeq(got, numbersOf(some))
			if rounds > 10 {
				t.Fatalf("%d rounds are not enough", rounds)
			}
		}
		slices.Sort(got)
		mustEqualSlices(t, fmt.Sprintf("what came through of a share of %v", share), got, want)
	}
}
