package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// What docs/security.md says that each may hold.
const (
	idleHeld    = 64 << 10 // a connection without a call
	bodyHeld    = 64 << 10 // a call that is being read
	largeHeld   = 2 << 20  // one with a large body
	largeMost   = 64       // so many of these are read at once
	streamsHeld = 24 << 20 // a connection for gRPC with all the calls that it may have
)

// attacksOnConnections are made on any port: what comes is nothing, or never enough.
func attacksOnConnections(idlers int) []attack {
	all := []int{0, 1, 2, 3}
	return []attack{
		{name: "connections that say nothing", ports: all, crowd: idlers, acts: int64(idlers) * 3 / 4, held: idleHeld, raw: true, do: stayIdle},
		{name: "half a handshake", ports: all, held: idleHeld, raw: true, secure: true, do: begin(helloBytes())},
		{name: "handshakes byte by byte", ports: all, held: idleHeld, raw: true, secure: true, do: dribble(helloBytes())},
		{name: "connections that are let in and say nothing", ports: all, crowd: idlers / 4, acts: int64(idlers) * 3 / 16, held: idleHeld, secure: true, do: stayIdle},
		{name: "what is no TLS, HTTP or gRPC", ports: all, raw: true, do: begin(bytes.Repeat([]byte{0xff, 0x16, 0x03, 0}, 16<<10))},
	}
}

// attacksOnHTTP are made on the ports that speak HTTP/1.1.
func attacksOnHTTP(attackers int) []attack {
	const put = "PUT /api/v2/namespaces/default/services/attacked/instances/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
	both := []int{0, 3}
	return []attack{
		{name: "headers byte by byte", ports: both, held: idleHeld, do: dribble([]byte("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-" + strings.Repeat("a", 1<<20)))},
		{name: "bodies byte by byte", ports: []int{0}, held: bodyHeld, do: dribble([]byte(put + "Content-Length: 60000\r\n\r\n{" + strings.Repeat(" ", 60000)))},
		{name: "large bodies that stop before their end", ports: []int{0}, crowd: 4 * attackers, held: largeHeld, heldMax: largeMost * largeHeld, do: begin([]byte(put + "Content-Length: 1048576\r\n\r\n" + strings.Repeat(" ", 1<<20-1)))},
		{name: "huge headers", ports: both, held: idleHeld, do: insist("431 ", "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", strings.Repeat("x", 1<<20), 16)},
		{name: "very many headers", ports: both, held: idleHeld, do: insist("431 ", "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n", strings.Repeat("X: y\r\n", 1<<16), 16)},
		{name: "deep JSON", ports: []int{0}, crowd: 4, held: largeHeld, do: insist("400 ", put+"Content-Length: 1000001\r\n\r\n{", strings.Repeat(`"a":[{`, 1_000_000/6+1)[:1_000_000], 1)},
		{name: "a bomb of gzip", ports: []int{0}, held: bodyHeld, do: insist("400 ", put+fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(bomb())), string(bomb()), 1)},
		{name: "a body of 1 GiB", ports: []int{0}, crowd: 4, held: largeHeld, do: insist("413 ", put+"Content-Length: 1073741824\r\n\r\n", strings.Repeat(" ", 1<<20), 1<<10)},
		{name: "a body of 1 GiB in chunks", ports: []int{0}, crowd: 4, held: largeHeld, do: insist("413 ", put+"Transfer-Encoding: chunked\r\n\r\n", "100000\r\n"+strings.Repeat(" ", 1<<20)+"\r\n", 1<<10)},
		{name: "the preface of HTTP/2", ports: both, held: idleHeld, do: begin([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))},
	}
}

// bomb is 64 MiB of nothing in some 64 KiB.
var bomb = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	for range 64 {
		w.Write(make([]byte, 1<<20)) //nolint:errcheck // a buffer takes all
	}
	w.Close()
	return out.Bytes()
})

// helloBytes begin a handshake that announces more.
func helloBytes() []byte {
	hello := []byte{0x16, 0x03, 0x01, 0, 0, 1}
	binary.BigEndian.PutUint16(hello[3:], 16_000)
	return append(hello, make([]byte, 8_000)...)
}

// stayIdle waits for the member to end the connection, and a while before the next.
func stayIdle(ctx context.Context, at *target, conn net.Conn) error {
	at.acts.Add(1)
	discard(conn)
	at.acts.Add(-1)
	conn.Close()
	again := time.NewTimer(attackPause)
	defer again.Stop()
	select {
	case <-ctx.Done():
	case <-again.C:
	}
	return nil
}

// begin sends what is not all, and waits.
func begin(b []byte) func(context.Context, *target, net.Conn) error {
	return func(_ context.Context, at *target, conn net.Conn) error {
		if _, err := conn.Write(b); err == nil {
			at.acts.Add(1)
		}
		discard(conn)
		return nil
	}
}

// dribble sends a byte at a time until it is cut.
func dribble(b []byte) func(context.Context, *target, net.Conn) error {
	return func(ctx context.Context, at *target, conn net.Conn) error {
		at.acts.Add(1)
		each := time.NewTicker(20 * time.Millisecond)
		defer each.Stop()
		for one := range slices.Chunk(b, 1) {
			select {
			case <-ctx.Done():
				return nil
			case <-each.C:
			}
			if _, err := conn.Write(one); err != nil {
				return nil
			}
		}
		return nil
	}
}

// insist sends a head and then the rest over and over, and wants to be refused with a status, in so far as it is told anything before
// the connection is cut.
func insist(status, first, more string, times int) func(context.Context, *target, net.Conn) error {
	head, rest := []byte(first), []byte(more)
	return func(ctx context.Context, at *target, conn net.Conn) error {
		go func() { // ends with the connection, at the latest
			_, err := conn.Write(head)
			for range times {
				if err == nil {
					_, err = conn.Write(rest)
				}
			}
		}()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if ctx.Err() != nil {
			return nil
		}
		at.acts.Add(1)
		if err == nil && !strings.HasPrefix(answer.Status, status) && !strings.HasPrefix(answer.Status, "429 ") {
			return fmt.Errorf("it is answered with %s, want %s", answer.Status, status)
		}
		return nil
	}
}

// discard reads until the connection ends.
func discard(conn net.Conn) { io.Copy(io.Discard, conn) } //nolint:errcheck // it ends by an error
