package access

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

// What one connection over HTTP/2 may send that is no call and no part of one, and how many
// of its calls may end without an answer, at a time: each costs the server about as much as
// a call, and the sender next to nothing (CVE-2019-9512 to 9515 and 9518, CVE-2023-44487,
// CVE-2025-8671). Who goes on is read later, and so waits in his own buffers; nothing is
// refused, since a connection that was cut would only be begun again.
//
// A member whose calls to another all run out of time at once resets some 4,000, and does so
// again after their time at the earliest: its messages are not behind them.
const (
	idleFramesPerSecond = 2_000
	idleFramesAtOnce    = 5_000
)

// A Pace holds the connections of gRPC servers to that.
type Pace struct {
	delayed *prometheus.CounterVec // by port
}

// NewPace makes one.
func NewPace(r prometheus.Registerer) (*Pace, error) {
	p := &Pace{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stellmap_connections_delayed_total", Help: "Times that a connection over HTTP/2 was read later, since it had sent much that is no call, or calls that had no answer, by port.",
	}, []string{"port"})}
	for _, d := range []Door{XDS, Peers} {
		p.delayed.WithLabelValues(d.Port)
	}
	return p, r.Register(p.delayed)
}

// Credentials are those of a gRPC server on a port, whose connections are held to it.
func (p *Pace) Credentials(c credentials.TransportCredentials, d Door) credentials.TransportCredentials {
	return pacing{c, p.delayed.WithLabelValues(d.Port)}
}

// pacing stands behind the handshake, where frames can be read.
type pacing struct {
	credentials.TransportCredentials
	delayed prometheus.Counter
}

func (p pacing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return newPaced(conn, p.delayed), info, nil
}

func (p pacing) Clone() credentials.TransportCredentials {
	return pacing{p.TransportCredentials.Clone(), p.delayed}
}

// A pacedConn is read by one goroutine and written by one, as gRPC does.
type pacedConn struct {
	net.Conn
	delayed prometheus.Counter
	due     atomic.Int64 // idle frames since it was last looked
	earned  atomic.Int64 // what of them the server's own frames have asked for
	paid    time.Time    // up to here its frames are used up; the reader's
	in, out frames       // the reader's, and the writer's
	ended   context.Context
	end     context.CancelFunc

	mu    sync.Mutex      // guards what follows
	calls map[uint32]call // by stream
}

// A call is one of a connection's, until it ends.
type call struct {
	sends    bool // more can come from the client
	answered bool // something has gone to it
}

// callsKept is above what a connection may have at once. Of calls beyond that nothing is known.
const callsKept = 8_192

func newPaced(c net.Conn, delayed prometheus.Counter) *pacedConn {
	p := &pacedConn{Conn: c, delayed: delayed, calls: make(map[uint32]call)}
	p.in.left = prefaceBytes
	p.ended, p.end = context.WithCancel(context.Background())
	return p
}

func (c *pacedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// Read waits while the connection is ahead of its pace.
func (c *pacedConn) Read(b []byte) (int, error) {
	if due := c.due.Swap(0); due > 0 {
		c.wait(due)
	}
	n, err := c.Conn.Read(b)
	c.in.each(b[:n], c.came)
	return n, err
}

func (c *pacedConn) Write(b []byte) (int, error) {
	c.out.each(b, c.goes)
	return c.Conn.Write(b)
}

func (c *pacedConn) wait(due int64) {
	now := time.Now()
	if c.paid.Before(now) {
		c.paid = now
	}
	c.paid = c.paid.Add(time.Duration(due) * time.Second / idleFramesPerSecond)
	ahead := c.paid.Sub(now) - time.Second*idleFramesAtOnce/idleFramesPerSecond
	if ahead <= 0 {
		return
	}
	c.delayed.Inc()
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ended.Done():
	}
}

// Of HTTP/2 (RFC 9113, 3.4, 4.1 and 6).
const (
	prefaceBytes     = 24
	frameHeaderBytes = 9

	frameData     = 0x0
	frameHeaders  = 0x1
	frameReset    = 0x3
	frameSettings = 0x4
	framePing     = 0x6
	frameUpdate   = 0x8
	flagEnd       = 0x1 // of a stream
	flagAnswer    = 0x1 // to a ping, or to settings
	flagPadded    = 0x8
)

// A frame is its header.
type frame struct {
	length, stream uint32
	kind, flags    byte
}

// frames finds the headers of frames in what is read or written, piece by piece.
type frames struct {
	left uint32 // bytes of a payload that are still to come
	head [frameHeaderBytes]byte
	have int // bytes of a header that have come
}

// each calls do for each header that ends in what has come.
func (f *frames) each(b []byte, do func(frame)) {
	for len(b) > 0 {
		if f.left > 0 {
			skip := min(int(f.left), len(b))
			f.left -= uint32(skip)
			b = b[skip:]
			continue
		}
		came := copy(f.head[f.have:], b)
		f.have += came
		b = b[came:]
		if f.have < frameHeaderBytes {
			return
		}
		f.have = 0
		first := binary.BigEndian.Uint32(f.head[:])
		f.left = first >> 8
		do(frame{first >> 8, binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31), byte(first), f.head[4]})
	}
}

// came takes in a frame of the client.
func (c *pacedConn) came(f frame) {
	switch f.kind {
	case frameHeaders:
		c.begins(f)
	case frameData:
		if !c.sends(f) || f.flags&flagPadded != 0 || f.length == 0 && f.flags&flagEnd == 0 {
			c.due.Add(1)
		}
	case frameReset:
		c.due.Add(1)
		c.ends(f)
	case framePing, frameSettings, frameUpdate: // be it that the server has asked for it
		if c.earned.Load() > 0 {
			c.earned.Add(-1)
			return
		}
		c.due.Add(1)
	default:
		c.due.Add(1)
	}
}

// earns is how many frames a client sends on account of one of the server's: an update of
// the window of the stream and of the connection, and a ping by which it measures how much
// of a window it needs.
const earns = 3

// goes takes in a frame of the server.
func (c *pacedConn) goes(f frame) {
	switch {
	case f.kind == frameReset:
		if _, lives := c.ends(f); lives { // else it says once more that the call has ended
			c.due.Add(1)
		}
		return
	case f.kind == frameHeaders && f.flags&flagEnd != 0:
		if one, lives := c.ends(f); !one.answered {
			if lives {
				c.due.Add(1)
			}
			return
		}
	case f.kind == frameHeaders:
		c.answers(f)
	case f.kind == frameData && f.length > 0:
	case (f.kind == framePing || f.kind == frameSettings) && f.flags&flagAnswer == 0:
	default:
		return
	}
	if c.earned.Load() < idleFramesAtOnce {
		c.earned.Add(earns)
	}
}

// begins notes a call. What comes after the header of a call that is known is its trailer.
func (c *pacedConn) begins(f frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one, known := c.calls[f.stream]; known || len(c.calls) < callsKept {
		one.sends = f.flags&flagEnd == 0
		c.calls[f.stream] = one
	}
}

// sends says whether data belongs to a call whose client has more to send.
func (c *pacedConn) sends(f frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.calls[f.stream]
	if one.sends && f.flags&flagEnd != 0 {
		c.calls[f.stream] = call{answered: one.answered}
	}
	return one.sends
}

func (c *pacedConn) answers(f frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one, known := c.calls[f.stream]; known {
		one.answered = true
		c.calls[f.stream] = one
	}
}

// ends forgets a call.
func (c *pacedConn) ends(f frame) (one call, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one, known = c.calls[f.stream]
	delete(c.calls, f.stream)
	return one, known
}
