package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry/httpapi"
)

// door is an HTTP port that is open for as long as it is taken. At first its
// answer is that the member starts: to read back a large state takes a while, and
// to be taken in by a cluster may, and meanwhile nobody must hang.
type door struct {
	server *http.Server
	shown  atomic.Pointer[http.Handler]
	ended  chan error // one, when the server has ended; then closed
}

func openDoor(l net.Listener, first http.Handler, logger *slog.Logger) *door {
	d := &door{ended: make(chan error, 1)}
	d.show(first)
	d.server = httpapi.NewServer(d, logger)
	d.server.ConnContext = access.ConnContext
	go func() {
		d.ended <- serveHTTP(d.server, l)
		close(d.ended)
	}()
	return d
}

// show has another handler answer from now on.
func (d *door) show(h http.Handler) { d.shown.Store(&h) }

func (d *door) ServeHTTP(w http.ResponseWriter, q *http.Request) { (*d.shown.Load()).ServeHTTP(w, q) }

// wait returns why the server has ended; nil when it was asked to.
func (d *door) wait() error { return <-d.ended }

// Close ends the server where no drain has.
func (d *door) Close() error {
	err := d.server.Close()
	<-d.ended
	return err
}

// closing is an io.Closer; the second call returns what the first did.
type closing func() error

func (c closing) Close() error { return c() }

// turnAway ends each connection to a port that has no server yet, so that
// whoever connects goes to another member in place of waiting here. Close ends
// that, and leaves the port to its server.
func turnAway(l net.Listener) closing {
	port, ended := l.(*net.TCPListener), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := port.Accept()
			if err != nil {
				return
			}
			c.Close() // nothing was said, so nothing is lost
		}
	}()
	return sync.OnceValue(func() error {
		err := port.SetDeadline(time.Unix(0, 1)) // long past: Accept returns
		<-ended
		return errors.Join(err, port.SetDeadline(time.Time{}))
	})
}
