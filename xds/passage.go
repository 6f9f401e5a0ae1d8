package xds

import (
	"sync"
	"time"
)

// Large route tables are sent so many at once as come to a bounded size. A new service
// is a cluster of a kilobyte and a table of a megabyte for each proxy of its scope. A thousand of these at once
// are a gigabyte in buffers, and whatever is small, be it the same service's
// cluster for the other proxies or an endpoint that has died, waits until it is out.
// So a table waits for its turn, and what is small never waits here. A stream whose
// table waits goes on with its other types, and sends in its turn what the table is then.
// The only thing that waits for routes is a cluster that is gone, and that no longer
// than limits.hold.
//
// A turn ends with the client's answer, and in any case after tableTurn: who does
// not read keeps nobody waiting for longer, and clients that need their time, as a
// real Envoy needs 0.1 s for 5,000 hosts, are sent half a gigabyte a second all the same.
const (
	tableBytesMin = 64 << 10 // smaller ones are sent at once
	tablesBytes   = 32 << 20 // at once; a larger one by itself
	tableTurn     = 50 * time.Millisecond
)

// A passage is where tables take turns.
type passage struct {
	server *Server

	mu     sync.Mutex // guards what follows, and inLine and tableBytes of streams
	inside map[*stream]turn
	bytes  int       // of what is inside
	line   []*stream // in the order of their coming; there can be some that have ended. It has a stream once, so that streamsMax bounds it
}

// A turn is a table that may be sent, or has been and is not answered.
type turn struct {
	bytes int
	over  *time.Timer
}

// enter says whether a stream may send a table now. If not, it is woken when it may.
func (p *passage) enter(s *stream, bytes int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isInside(s) {
		return true
	}
	s.tableBytes = bytes
	if !s.inLine {
		s.inLine = true
		p.line = append(p.line, s)
	}
	p.letIn()
	if p.isInside(s) {
		return true
	}
	p.server.metrics.tablesDelayed.Add(1)
	return false
}

// leave ends a stream's turn, or its wait for one.
func (p *passage) leave(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isInside(s) {
		p.inside[s].over.Stop()
		p.bytes -= p.inside[s].bytes
		delete(p.inside, s)
	}
	s.inLine = false
	p.letIn()
}

// letIn lets in as many as there is room for. Caller holds mu.
func (p *passage) letIn() {
	for len(p.line) > 0 {
		s := p.line[0]
		if s.inLine && len(p.inside) > 0 && p.bytes+s.tableBytes > p.server.limits.tablesBytes {
			break
		}
		p.line[0] = nil
		p.line = p.line[1:]
		if s.inLine {
			s.inLine = false
			p.bytes += s.tableBytes
			p.inside[s] = turn{s.tableBytes, time.AfterFunc(p.server.limits.tableTurn, func() { p.overdue(s) })} // it ends by itself
			s.wakeUp()
		}
	}
	p.server.metrics.tablesWaiting.Store(int64(len(p.line)))
}

func (p *passage) isInside(s *stream) bool { return p.inside[s].over != nil }

func (p *passage) overdue(s *stream) {
	p.server.metrics.tablesOverdue.Add(1)
	p.leave(s)
}

// isTable says whether a response has to wait for its turn.
func (s *Server) isTable(r *response) bool {
	return r.typ == typeRoutes && r.size >= s.limits.tableBytes
}
