package xds

import (
	"testing"
	"testing/synctest"
	"time"
)

// oneTable is a member that sends one route table at a time, of whatever size.
func oneTable(turn time.Duration) func(*Config, *limits) {
	return func(_ *Config, l *limits) {
		l.tablesBytes, l.tableBytes, l.tableTurn, l.tableClaim = 1, 1, turn, time.Hour
	}
}

// crowd are Envoys with all that there is.
func (m *member) crowd(n int) []*deltaClient {
	m.tb.Helper()
	var all []*deltaClient
	for range n {
		all = append(all, m.started("orders.prod"))
	}
	return all
}

// told has clients take a new cluster, so that the tables with its host are due.
func (m *member) told(clients []*deltaClient, cluster string) {
	m.tb.Helper()
	for _, c := range clients {
		c.ack(c.wants(typeCluster, cluster))
	}
}

// lined has clients line up in their order behind one that has its table.
func (m *member) lined(clients []*deltaClient, cluster string) {
	m.tb.Helper()
	for n := range clients {
		m.told(clients[n:n+1], cluster)
		m.waiting(int64(n + 1))
	}
}

func (m *member) waiting(n int64) {
	m.tb.Helper()
	eventually(m.tb, "so many tables wait", func() bool { return m.server.metrics.tablesWaiting.Load() == n })
}

// Large tables go out one after the other, as they are answered, and what is small does
// not wait for them: a client whose table waits is told of endpoints and of further clusters.
func TestTablesTakeTurns(t *testing.T) {
	m := newMember(t, oneTable(time.Hour))
	m.add("orders", 1)
	clients := m.crowd(3)
	m.add("ledger", 1)
	m.told(clients[:1], "ledger.prod")
	first := clients[0].wants(typeRoutes, "egress")
	m.lined(clients[1:], "ledger.prod")
	m.add("orders", 2)
	for _, c := range clients {
		c.ack(c.wants(typeEndpoints, "orders.prod"))
	}
	m.add("stock", 1)
	m.told(clients, "stock.prod")
	for _, c := range clients[1:] {
		c.quiet()
	}
	clients[0].ack(first) // whose next one is the last in line
	if m.server.metrics.tablesDelayed.Load() == 0 {
		t.Error("it is not counted that some had to wait")
	}
	for _, c := range clients[1:] { // the latest of it, once
		table := c.wants(typeRoutes, "egress")
		c.ack(table)
		c.quiet()
	}
	clients[0].ack(clients[0].wants(typeRoutes, "egress"))
	clients[0].quiet()
	m.waiting(0)
}

// A table that waits and meanwhile is what the client has is not sent again, and its
// place is the next one's.
func TestATableThatChangedBackIsNotSent(t *testing.T) {
	m := newMember(t, oneTable(time.Hour))
	m.add("orders", 1)
	clients := m.crowd(2)
	m.add("ledger", 1)
	m.told(clients[:1], "ledger.prod")
	first := clients[0].wants(typeRoutes, "egress")
	m.lined(clients[1:], "ledger.prod")
	m.remove("ledger", 1)
	clients[1].ack(clients[1].wants(typeCluster, "-ledger.prod"))
	clients[1].quiet()
	m.waiting(0)
	clients[0].ack(first)
	second := clients[0].wants(typeRoutes, "egress")
	clients[1].quiet()
	clients[1].subscribe(typeRoutes, "egress") // who asks for it is answered, be it what it has
	m.waiting(1)
	clients[0].ack(second)
	clients[1].ack(clients[1].wants(typeRoutes, "egress"))
}

// Who does not answer a table keeps the others out for a turn, and who goes for no time at all.
func TestNobodyStopsTheTables(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		m := newMember(t, oneTable(time.Millisecond))
		m.add("orders", 1)
		clients := m.crowd(3)
		m.add("ledger", 1)
		m.told(clients, "ledger.prod")
		for _, c := range clients {
			c.wants(typeRoutes, "egress")
		}
		eventually(t, "all their turns are over", func() bool { return m.server.metrics.tablesOverdue.Load() >= 3 })
	})
	t.Run("gone", func(t *testing.T) {
		m := newMember(t, oneTable(time.Hour))
		m.add("orders", 1)
		clients := m.crowd(4)
		m.add("ledger", 1)
		m.told(clients[:1], "ledger.prod")
		clients[0].wants(typeRoutes, "egress")
		m.lined(clients[1:], "ledger.prod")
		for _, c := range clients[:2] { // the one inside, and one that waits
			if err := c.stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range clients[2:] {
			c.ack(c.wants(typeRoutes, "egress"))
		}
		m.waiting(0)
	})
}

// passing is a passage for one table at a time, and streams that want to send one.
func passing(turn, claim time.Duration) (*passage, []*stream) {
	s := New(Config{})
	s.limits.tablesBytes, s.limits.tableTurn, s.limits.tableClaim = 1, turn, claim
	var streams []*stream
	for range 3 {
		streams = append(streams, &stream{server: s, wakeup: make(chan struct{}, 1)})
	}
	return &s.passage, streams
}

// comesToSend waits until a stream is woken.
func (s *stream) comesToSend(t *testing.T) {
	t.Helper()
	select {
	case <-s.wakeup:
	case <-time.After(patience):
		t.Fatal("a stream that waits for its turn is not woken")
	}
}

// A turn runs from when its table is sent: a stream that comes late to send keeps it.
// One that does not come at all is passed over, and is not counted as sent. Time is the
// bubble's: a turn is not over before the test waits for that.
func TestATurnRunsFromSending(t *testing.T) {
	t.Run("late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, streams := passing(time.Millisecond, time.Hour)
			if !p.enter(streams[0], 1, 1) || p.enter(streams[1], 1, 1) {
				t.Fatal("not one table is sent at a time")
			}
			streams[1].comesToSend(t)
			other, clock := passing(2*time.Millisecond, time.Hour) // whose turn is over later than a turn of streams[1] would be
			other.enter(clock[0], 1, 1)
			eventually(t, "a turn is over", func() bool { return other.server.metrics.tablesOverdue.Load() == 1 })
			if got := p.server.metrics.tablesOverdue.Load(); got != 1 {
				t.Errorf("%d turns are overdue, of one table that was sent", got)
			}
			if p.enter(streams[2], 1, 1) || !p.enter(streams[1], 1, 1) {
				t.Error("the stream has lost its turn before it has sent anything")
			}
			p.leave(streams[2])
			p.leave(streams[1])
		})
	})
	t.Run("never", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, streams := passing(time.Hour, time.Millisecond)
			for _, s := range streams {
				p.enter(s, 1, 1)
			}
			p.answered(streams[0], 1)
			streams[1].comesToSend(t)
			streams[2].comesToSend(t)
			if m := p.server.metrics; m.tablesUnclaimed.Load() == 0 || m.tablesOverdue.Load() != 0 {
				t.Errorf("%d turns were not claimed, and %d tables are overdue", m.tablesUnclaimed.Load(), m.tablesOverdue.Load())
			}
		})
	})
}

// The answer to an older table, of which the client was silent, ends no turn but its
// own, and costs a stream that waits neither its place nor a second one.
func TestAnAnswerEndsItsOwnTurn(t *testing.T) {
	p, streams := passing(time.Hour, time.Hour)
	sends, waits := streams[0], streams[1]
	p.enter(sends, 1, 1)
	p.enter(sends, 1, 2) // it was silent
	p.enter(waits, 1, 8)
	p.answered(sends, 1)
	p.answered(waits, 7)
	p.enter(waits, 1, 8)
	if len(p.line) != 1 || p.inside[sends] == nil || p.bytes != 1 {
		t.Fatalf("%d wait, %d are inside with %d bytes", len(p.line), len(p.inside), p.bytes)
	}
	p.answered(sends, 2)
	if !p.enter(waits, 1, 8) {
		t.Error("the table is answered, and the next may not be sent")
	}
	p.enter(streams[2], 1, 1)
	p.leave(streams[2])
	p.leave(waits)
	if len(p.line)+len(p.inside)+p.bytes > 0 {
		t.Errorf("when all have left, %d wait, and %d are inside with %d bytes", len(p.line), len(p.inside), p.bytes)
	}
}
