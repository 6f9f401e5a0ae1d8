package xds

import (
	"testing"
	"time"
)

// oneTable is a member that sends one route table at a time, of whatever size.
func oneTable(turn time.Duration) func(*Config, *limits) {
	return func(_ *Config, l *limits) { l.tablesBytes, l.tableBytes, l.tableTurn = 1, 1, turn }
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
