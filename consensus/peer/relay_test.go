package peer

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// relay is an address at which another one is reached, until its connections are cut.
type relay struct {
	t        *testing.T
	listener net.Listener
	to       string
	working  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
	cuts  int
	over  bool
}

func newRelay(t *testing.T, to string) *relay {
	r := &relay{t: t, listener: listen(t), to: to, conns: make(map[net.Conn]bool)}
	r.working.Go(r.accept)
	t.Cleanup(func() {
		must(t, r.listener.Close())
		r.mu.Lock()
		r.over = true
		r.mu.Unlock()
		r.cut()
		r.working.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.to)
		if err != nil { // nobody is there just now
			must(r.t, near.Close())
			continue
		}
		if !r.keep(near, far) {
			must(r.t, errors.Join(near.Close(), far.Close()))
			return
		}
		r.working.Go(func() { r.pass(near, far) })
		r.working.Go(func() { r.pass(far, near) })
	}
}

// keep is false when the relay has ended.
func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = !r.over
	}
	return !r.over
}

// pass ends both when one has ended, whoever did that.
func (r *relay) pass(from, to net.Conn) {
	io.Copy(to, from) // its end is the news, not the reason
	r.close(from)
	r.close(to)
}

func (r *relay) close(c net.Conn) {
	r.mu.Lock()
	open := r.conns[c]
	delete(r.conns, c)
	r.mu.Unlock()
	if open {
		must(r.t, c.Close())
	}
}

// cut ends all connections, and what is on its way in them.
func (r *relay) cut() {
	r.mu.Lock()
	var open []net.Conn
	for c := range r.conns {
		open = append(open, c)
	}
	r.cuts++
	r.mu.Unlock()
	for _, c := range open {
		r.close(c)
	}
}

func (r *relay) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cuts
}
