package probe

import (
	"bytes"
	"context"
	"io"
)

// talk connects, sends what is to be sent, and holds the beginning of the answer
// against what is expected.
func (a *attempt) talk(ctx context.Context) Outcome {
	if a.check.Send != "" && !a.rules.maySend(a.at.Addr()) {
		a.denied.Inc()
		return fails("not tried: a registration may not have anything sent to %s, unless health.allow names it", a.at.Addr())
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return fails("%v", err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, a.check.Send); err != nil {
		return fails("send: %v", err)
	}
	return expect(conn, a.check.Expect)
}

// expect reads no more than what is expected.
func expect(from io.Reader, begin string) Outcome {
	got := make([]byte, len(begin))
	n, err := io.ReadFull(from, got)
	switch {
	case string(got[:n]) != begin[:n]:
		return fails("the answer does not begin with what is expected") // what it is instead is not for everybody to read
	case err != nil && len(begin) > 0:
		return fails("of the %d bytes that are expected %d came: %v", len(begin), n, err)
	}
	return passes
}

// redisLineBytesMax bounds an answer of Redis.
const redisLineBytesMax = 256

// redis sends PING. A server that asks for a password works.
func (a *attempt) redis(ctx context.Context) Outcome {
	conn, err := a.connect(ctx)
	if err != nil {
		return fails("%v", err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "*1\r\n$4\r\nPING\r\n"); err != nil {
		return fails("send PING: %v", err)
	}
	line, err := readLine(conn, redisLineBytesMax)
	switch {
	case bytes.HasPrefix(line, []byte("+PONG")), bytes.HasPrefix(line, []byte("-NOAUTH")):
		return passes
	case bytes.HasPrefix(line, []byte("-")):
		return fails("Redis answers %s", line[1:])
	case err != nil:
		return fails("no answer to PING: %v", err)
	}
	return fails("the answer to PING is not Redis's")
}

// readLine reads up to the end of a line, or so many bytes.
func readLine(from io.Reader, most int) ([]byte, error) {
	line := make([]byte, 0, most)
	for len(line) < most {
		n, err := from.Read(line[len(line):most])
		line = line[:len(line)+n]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			return bytes.TrimRight(line[:end], "\r"), nil
		}
		if err != nil {
			return line, err
		}
	}
	return line, nil
}
