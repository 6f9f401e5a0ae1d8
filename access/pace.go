package access

import (
	"context"
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

// What one connection over HTTP/2 may ask for that is no call and no part of one, and how
// many of its calls may fail, at a time: each costs the server about as much as a call, and
// the sender next to nothing (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2025-8671). Who
// goes on is read later, and so waits in his own buffers; nothing is refused, since a
// connection that was cut would only be begun again.
const (
	idleFramesPerSecond = 2_000
	idleFramesAtOnce    = 4_000
)

// A Pace holds the connections of gRPC servers to that.
type Pace struct {
	delayed *prometheus.CounterVec // by port
}

// NewPace makes one.
func NewPace(r prometheus.Registerer) (*Pace, error) {
	p := &Pace{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stellmap_connections_delayed_total", Help: "Times that a connection over HTTP/2 was read later, since it had sent much that is no call or calls that fail, by port.",
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
	due     atomic.Int64 // frames since it was last looked
	paid    time.Time    // up to here its frames are used up; the reader's
	in, out frames       // the reader's, and the writer's
	begun   map[uint32]struct{}
	ended   context.Context
	end     context.CancelFunc
}

func newPaced(c net.Conn, delayed prometheus.Counter) *pacedConn {
	p := &pacedConn{Conn: c, delayed: delayed, begun: make(map[uint32]struct{})}
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
	if idle := c.in.count(b[:n], isIdle); idle > 0 {
		c.due.Add(idle)
	}
	return n, err
}

func (c *pacedConn) Write(b []byte) (int, error) {
	if failed := c.out.count(b, c.isFailure); failed > 0 {
		c.due.Add(failed)
	}
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

	frameData        = 0x0
	frameHeaders     = 0x1
	frameReset       = 0x3
	flagEndOfStream  = 0x1
	flagPadded       = 0x8
	streamsBegunKept = 4_096 // above what a connection has at once
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

// count counts the frames of which that is true.
func (f *frames) count(b []byte, is func(frame) bool) (n int64) {
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
			return n
		}
		f.have = 0
		first := binary.BigEndian.Uint32(f.head[:])
		f.left = first >> 8
		if is(frame{first >> 8, binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31), byte(first), f.head[4]}) {
			n++
		}
	}
	return n
}

// isIdle says that a frame of a client is neither a call nor a part of one that moves it on.
func isIdle(f frame) bool {
	switch f.kind {
	case frameHeaders:
		return false
	case frameData: // an empty one is of use as the last; padding is nobody's who has something to say
		return f.flags&flagPadded != 0 || f.length == 0 && f.flags&flagEndOfStream == 0
	}
	return true
}

// isFailure says that a frame of the server ends a call without an answer: it resets the
// stream, or the first that it says is the last, which is a status alone.
func (c *pacedConn) isFailure(f frame) bool {
	switch {
	case f.kind == frameReset:
		delete(c.begun, f.stream)
		return true
	case f.kind != frameHeaders:
		return false
	case f.flags&flagEndOfStream == 0:
		if len(c.begun) >= streamsBegunKept { // of those that their client has reset nobody hears
			clear(c.begun)
		}
		c.begun[f.stream] = struct{}{}
		return false
	}
	_, answered := c.begun[f.stream]
	delete(c.begun, f.stream)
	return !answered
}
