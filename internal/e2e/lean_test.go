package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// A leanClient posts with as little work of its own as there can be: where clients
// and members share the cores, the members have to do without what the clients take.
type leanClient struct {
	timeout time.Duration

	mu   sync.Mutex             // guards what follows
	idle map[string][]*leanConn // by address
}

// A leanConn is one connection, which is used for one call after the other.
type leanConn struct {
	net.Conn
	from *bufio.Reader
	used bool // for a call before this one: by now the other side may have closed it
}

// leanRequest is a call as it goes over the wire.
func leanRequest(address, path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nX-StellMap-Lease-Token: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, address, leaseToken, len(body), body)
}

// post sends a request that may be done twice. Once it is sent, its time-out alone ends the wait.
func (c *leanClient) post(ctx context.Context, address string, request []byte) (answer, error) {
	for {
		conn, err := c.take(ctx, address)
		if err != nil {
			return answer{}, err
		}
		a, err := conn.call(request, c.timeout)
		if err == nil {
			conn.used = true
			c.keep(address, conn)
			return a, nil
		}
		conn.Close()
		if !conn.used || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return answer{}, err
		}
	}
}

// take is a connection that nobody uses, or a new one.
func (c *leanClient) take(ctx context.Context, address string) (*leanConn, error) {
	c.mu.Lock()
	if last := len(c.idle[address]) - 1; last >= 0 {
		conn := c.idle[address][last]
		c.idle[address] = c.idle[address][:last]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	dialer := net.Dialer{Timeout: c.timeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &leanConn{Conn: conn, from: bufio.NewReader(conn)}, nil
}

func (c *leanClient) keep(address string, conn *leanConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle[address] = append(c.idle[address], conn)
}

// close closes the connections that nobody uses.
func (c *leanClient) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, some := range c.idle {
		for _, conn := range some {
			conn.Close()
		}
	}
	clear(c.idle)
}

func (c *leanConn) call(request []byte, timeout time.Duration) (answer, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return answer{}, err
	}
	if _, err := c.Write(request); err != nil {
		return answer{}, err
	}
	return readAnswer(c.from)
}

// readAnswer reads a status, a body of stated length, and none of the other headers.
func readAnswer(from *bufio.Reader) (answer, error) {
	line, err := from.ReadSlice('\n')
	if err != nil {
		return answer{}, err
	}
	_, rest, _ := bytes.Cut(line, []byte(" "))
	if len(rest) < 3 {
		return answer{}, fmt.Errorf("answered %q", line)
	}
	a, length := answer{}, -1
	if a.status, err = strconv.Atoi(string(rest[:3])); err != nil {
		return answer{}, err
	}
	for {
		if line, err = from.ReadSlice('\n'); err != nil {
			return answer{}, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(n)); err != nil {
				return answer{}, err
			}
		}
	}
	if length < 0 {
		return answer{}, errors.New("the answer does not say how long it is")
	}
	a.body = make([]byte, length)
	_, err = io.ReadFull(from, a.body)
	return a, err
}
