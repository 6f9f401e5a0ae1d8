package main

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/access"
)

// Connections are bounded by what the system lets this process open: who took every
// descriptor would take those of the log and the state, and a member that cannot open its
// files ends. So an eighth of them is for files, for connections to other members and for
// the ports of members and of administration, which nobody else can fill; the rest is for
// clients, of which neither of their two ports may take all.
const (
	filesReserved   = 8     // one part of so many
	filesReserveMin = 1_024 // descriptors, or half of them where there are few: Pebble keeps up to 1,000 files open
	filesOwn        = 64    // of so many parts the members' port and the admin port have one each
	filesUnlimited  = 1 << 30

	connectionsClients = 65_536 // on both ports for them
	connectionsPort    = 70     // in a hundred of these, on one of the two
	connectionsPeers   = 1_024  // members, and who follows this region
	connectionsAdmin   = 256    // operators and their tools
)

// A crowd is all who are connected to this member.
type crowd struct {
	clients room // on both ports for them
	rooms   map[string]*room
	refused *prometheus.CounterVec
}

// A room has so many places.
type room struct {
	places int64
	taken  atomic.Int64
}

// enter takes a place, if there is one.
func (r *room) enter() bool {
	if r.taken.Add(1) <= r.places {
		return true
	}
	r.leave()
	return false
}

func (r *room) leave() { r.taken.Add(-1) }

// newCrowd shares out so many descriptors.
func newCrowd(files int64, metrics prometheus.Registerer) (*crowd, error) {
	c := &crowd{
		rooms: make(map[string]*room),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellmap_connections_refused_total", Help: "Connections that were ended at once, since as many were open as may be, by port.",
		}, []string{"port"}),
	}
	if err := metrics.Register(c.refused); err != nil {
		return nil, err
	}
	reserve := max(files/filesReserved, min(files/2, filesReserveMin))
	clients := min(files-reserve, connectionsClients)
	c.clients.places = clients
	for port, places := range map[string]int64{
		access.HTTP.Port: max(clients*connectionsPort/100, 1), access.XDS.Port: max(clients*connectionsPort/100, 1),
		access.Peers.Port: min(max(files/filesOwn, 1), connectionsPeers), access.Admin.Port: min(max(files/filesOwn, 1), connectionsAdmin),
	} {
		one := &room{places: places}
		c.rooms[port] = one
		c.refused.WithLabelValues(port)
		if err := metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stellmap_connections", Help: "Connections that are open, by port.", ConstLabels: prometheus.Labels{"port": port},
		}, func() float64 { return float64(one.taken.Load()) })); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// enter takes a place on a port, and returns how to leave it; nil where there is none.
func (c *crowd) enter(port string) (leave func()) {
	one := c.rooms[port]
	if !one.enter() {
		return nil
	}
	if port != access.HTTP.Port && port != access.XDS.Port {
		return sync.OnceFunc(one.leave)
	}
	if !c.clients.enter() {
		one.leave()
		return nil
	}
	return sync.OnceFunc(func() { one.leave(); c.clients.leave() })
}

// bound has a port take no more than it has places for. Who comes then is sent away at
// once, since one who waited in the system's queue would find out by his time-out only.
func (c *crowd) bound(l net.Listener, d access.Door) net.Listener { return bounded{l, c, d.Port} }

type bounded struct {
	net.Listener
	crowd *crowd
	port  string
}

func (l bounded) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if leave := l.crowd.enter(l.port); leave != nil {
			return guest{conn.(*net.TCPConn), leave}, nil
		}
		l.crowd.refused.WithLabelValues(l.port).Inc()
		conn.Close() // nothing was said, so nothing is lost
	}
}

// A guest is a connection that has a place. It is the system's own but for that: a server
// that closes one half of it, or sends a file, finds how.
type guest struct {
	*net.TCPConn
	leave func()
}

// Read lets others run first. Who sends as fast as he can would be read, and what he sends
// looked at, for as long as the scheduler lets a goroutine go on: 64 connections with headers
// of 64 KiB had others wait for 200 to 500 ms, and have them wait for 50 so (`make attacks`).
func (g guest) Read(b []byte) (int, error) {
	runtime.Gosched()
	return g.TCPConn.Read(b)
}

func (g guest) Close() error {
	defer g.leave()
	return g.TCPConn.Close()
}
