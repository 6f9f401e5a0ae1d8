package process

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// A Link is a way to an address that can be cut: who connects to it is taken there.
type Link struct {
	listener net.Listener
	to       string
	moving   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	cut   bool
	conns []net.Conn
}

// NewLink opens a way to an address. Close ends it.
func NewLink(to string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open a link to %s: %w", to, err)
	}
	l := &Link{listener: listener, to: to}
	l.moving.Go(l.accept)
	return l, nil
}

// Address is where it begins.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Close ends the link and all that goes over it.
func (l *Link) Close() error {
	err := l.listener.Close()
	l.Set(true)
	l.moving.Wait()
	return err
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // it was closed
		}
		far, err := net.Dial("tcp", l.to)
		if err != nil {
			near.Close()
			continue
		}
		l.join(near, far)
	}
}

// join carries what two ends say to each other, unless the link is cut.
func (l *Link) join(near, far net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		near.Close()
		far.Close()
		return
	}
	l.conns = append(l.conns, near, far)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		l.moving.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if errors.Join(err, way[0].Close(), way[1].Close()) != nil {
				return // whoever has closed it has said why
			}
		})
	}
}

// Set cuts the link, or heals it.
func (l *Link) Set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for _, conn := range l.conns {
		conn.Close()
	}
	l.conns = nil
}
