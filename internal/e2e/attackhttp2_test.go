package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attacksOnHTTP2 are made on the ports that speak gRPC.
func attacksOnHTTP2(attackers int) []attack {
	both := []int{1, 2}
	flood := func(name string, more func(*h2) error) attack {
		return attack{name: name, ports: both, crowd: max(2, attackers/16), acts: 100 * int64(attackers), held: streamsHeld, do: endlessly(more)}
	}
	return []attack{
		flood("rapid reset", func(h *h2) error {
			h.stream += 2
			return firstError(h.headers(true), h.framer.WriteRSTStream(h.stream, http2.ErrCodeCancel))
		}),
		flood("streams that are reset by what is wrong with them", func(h *h2) error {
			h.stream += 2
			return firstError(h.headers(true), h.framer.WriteWindowUpdate(h.stream, 0))
		}),
		flood("settings", func(h *h2) error {
			return h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		}),
		flood("pings", func(h *h2) error { return h.framer.WritePing(false, [8]byte{1}) }),
		flood("frames of an unknown type", func(h *h2) error { return h.framer.WriteRawFrame(0xbe, 0, 1, nil) }),
		flood("priorities", func(h *h2) error {
			h.stream += 2
			return h.framer.WritePriority(h.stream, http2.PriorityParam{Weight: 1})
		}),
		flood("window updates", func(h *h2) error { return h.framer.WriteWindowUpdate(0, 1) }),
		flood("empty frames of data", func(h *h2) error {
			if h.stream == 1 {
				h.stream = 3
				return firstError(h.headers(false), h.framer.WriteData(h.stream, false, nil))
			}
			return h.framer.WriteData(h.stream, false, nil)
		}),
		flood("data for no call", func(h *h2) error { return h.framer.WriteData(3, false, []byte("x")) }),
		flood("headers that go on for ever", func(h *h2) error {
			if h.stream == 1 {
				h.stream = 3
				return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: h.stream, BlockFragment: h.block()})
			}
			return h.framer.WriteContinuation(h.stream, false, h.block("x-more", strings.Repeat("x", 8<<10)))
		}),
		{name: "huge headers", ports: both, crowd: max(2, attackers/16), acts: 2 * int64(attackers), held: streamsHeld, do: endlessly(func(h *h2) error {
			h.stream += 2
			first, rest := h.block("x-huge", strings.Repeat("x", 128<<10)), []byte(nil)
			first, rest = first[:16<<10], first[16<<10:]
			err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: h.stream, BlockFragment: first, EndStream: true})
			for err == nil && len(rest) > 0 {
				n := min(len(rest), 16<<10)
				err = h.framer.WriteContinuation(h.stream, n == len(rest), rest[:n])
				rest = rest[n:]
			}
			return err
		})},
		{name: "a message of 1 GiB", ports: both, crowd: max(2, attackers/16), acts: 2 * int64(attackers), held: streamsHeld, do: endlessly(func(h *h2) error {
			return h.message(0, 1<<30, make([]byte, 8<<10))
		})},
		{name: "a bomb of gzip", ports: both, crowd: max(2, attackers/16), acts: 2 * int64(attackers), held: streamsHeld, do: endlessly(func(h *h2) error {
			return h.message(1, len(bomb()), bomb()[:min(len(bomb()), 60<<10)], "grpc-encoding", "gzip")
		})},
	}
}

// h2 is a connection on which frames are written as one likes.
type h2 struct {
	framer *http2.Framer
	out    *bufio.Writer
	stream uint32
	blocks bytes.Buffer
	packer *hpack.Encoder
}

// endlessly says hello and then writes the same again and again until it is cut; nothing that comes is looked at.
func endlessly(more func(*h2) error) func(context.Context, *target, net.Conn) error {
	return func(ctx context.Context, at *target, conn net.Conn) error {
		go discard(conn) // ends with the connection
		h := &h2{out: bufio.NewWriterSize(conn, 32<<10), stream: 1}
		h.framer = http2.NewFramer(h.out, nil)
		h.framer.AllowIllegalWrites = true
		h.packer = hpack.NewEncoder(&h.blocks)
		_, err := h.out.WriteString(http2.ClientPreface)
		err = firstError(err, h.framer.WriteSettings(), h.out.Flush())
		for err == nil && ctx.Err() == nil {
			if err = more(h); err == nil {
				at.acts.Add(1)
			}
		}
		return nil
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// block packs the headers of a call.
func (h *h2) block(more ...string) []byte {
	h.blocks.Reset()
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", "/grpc.health.v1.Health/Check", ":authority", "a", "content-type", "application/grpc", "te", "trailers"}, more...)
	for i := 0; i < len(fields); i += 2 {
		h.packer.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true}) //nolint:errcheck // a buffer takes all
	}
	return h.blocks.Bytes()
}

func (h *h2) headers(whole bool, more ...string) error {
	return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: h.stream, BlockFragment: h.block(more...), EndHeaders: true, EndStream: whole})
}

// message begins a call whose message says of itself how it is packed and how long it is.
func (h *h2) message(packed byte, long int, text []byte, more ...string) error {
	h.stream += 2
	head := binary.BigEndian.AppendUint32([]byte{packed}, uint32(long))
	err := h.headers(false, more...)
	for all := append(head, text...); err == nil && len(all) > 0; {
		n := min(len(all), 16<<10)
		err = h.framer.WriteData(h.stream, n == len(all), all[:n])
		all = all[n:]
	}
	return err
}
