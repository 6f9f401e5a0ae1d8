package xds

import (
	"slices"
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
// A turn begins when the table is sent, and ends with the client's answer to it, and in
// any case after tableTurn: who does not read keeps nobody waiting for longer, and
// clients that need their time, as a real Envoy needs 0.1 s for 5,000 hosts, are sent half
// a gigabyte a second all the same. A stream that may send and does not, since its goroutine
// is busy or its table has to wait for clusters after all, makes room after tableClaim.
const (
	tableBytesMin = 64 << 10 // smaller ones are sent at once
	tablesBytes   = 32 << 20 // at once; a larger one by itself
	tableTurn     = 50 * time.Millisecond
	tableClaim    = 250 * time.Millisecond // on a busy machine a goroutine may wait for longer than a turn
)

// A passage is where tables take turns.
type passage struct {
	server *Server

	mu     sync.Mutex // guards what follows, and inLine and tableBytes of streams
	inside map[*stream]*turn
	bytes  int       // of what is inside
	line   []*stream // in the order of their coming. It has a stream once, and none that has ended, so that streamsMax bounds it
}

// A turn is a table that may be sent, or has been and is not answered. It does not
// change but for its end, so that a timer knows the turn that it was set for.
type turn struct {
	bytes    int
	sequence uint64 // of the response that it is; 0 = it is not sent yet
	over     *time.Timer
}

// enter says whether a stream may send a table now, as its response of a sequence:
// then its turn begins. If not, it is woken when it may.
func (p *passage) enter(s *stream, bytes int, sequence uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside[s] == nil {
		p.lineUp(s, bytes)
		p.letIn()
	}
	if p.inside[s] == nil {
		p.server.metrics.tablesDelayed.Add(1)
		return false
	}
	p.begin(s, &turn{bytes: bytes, sequence: sequence}, p.server.limits.tableTurn)
	return true
}

// answered ends the turn of a table. The answer to an older one leaves the turn of
// the newer as it is, and the stream's place in the line.
func (p *passage) answered(s *stream, sequence uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.inside[s]; t != nil && t.sequence == sequence {
		p.end(s)
		p.letIn()
	}
}

// leave is for a stream that ends, or has no table to send any more.
func (p *passage) leave(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(s)
	if s.inLine {
		s.inLine = false
		at := slices.Index(p.line, s)
		p.line = slices.Delete(p.line, at, at+1)
	}
	p.letIn()
}

func (p *passage) overdue(s *stream, t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside[s] != t {
		return // it had ended when its time was over
	}
	if t.sequence == 0 {
		p.server.metrics.tablesUnclaimed.Add(1)
	} else {
		p.server.metrics.tablesOverdue.Add(1)
	}
	p.end(s)
	p.letIn()
}

// lineUp has a stream wait where it waits already, or else as the last. Caller holds mu.
func (p *passage) lineUp(s *stream, bytes int) {
	s.tableBytes = bytes
	if !s.inLine {
		s.inLine = true
		p.line = append(p.line, s)
	}
}

// letIn lets in as many as there is room for. Caller holds mu.
func (p *passage) letIn() {
	for len(p.line) > 0 {
		s := p.line[0]
		if len(p.inside) > 0 && p.bytes+s.tableBytes > p.server.limits.tablesBytes {
			break
		}
		p.line[0] = nil
		p.line = p.line[1:]
		s.inLine = false
		p.begin(s, &turn{bytes: s.tableBytes}, p.server.limits.tableClaim)
		s.wakeUp()
	}
	p.server.metrics.tablesWaiting.Store(int64(len(p.line)))
}

// begin gives a stream a turn in place of the one that it has; it ends by itself. Caller holds mu.
func (p *passage) begin(s *stream, t *turn, most time.Duration) {
	p.end(s)
	t.over = time.AfterFunc(most, func() { p.overdue(s, t) })
	p.inside[s] = t
	p.bytes += t.bytes
}

// end ends a stream's turn, if it has one. Caller holds mu.
func (p *passage) end(s *stream) {
	if t := p.inside[s]; t != nil {
		t.over.Stop()
		p.bytes -= t.bytes
		delete(p.inside, s)
	}
}

// isTable says whether a response has to wait for its turn.
func (s *Server) isTable(r *response) bool {
	return r.typ == typeRoutes && r.size >= s.limits.tableBytes
}
