package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/net/http2"

	"github.com/stellmap/stellmap/internal/corpus"
)

// framesOf is what frames are on the wire.
func framesOf(t testing.TB, times int, write func(*http2.Framer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	framer.AllowIllegalWrites = true
	for range times {
		if err := write(framer); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// pacedPair is a connection of a server that is held to its pace, and its client's end of
// it. What the server writes is taken and thrown away.
func pacedPair(t *testing.T) (server *pacedConn, client net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	delayed := prometheus.NewCounter(prometheus.CounterOpts{Name: "delayed"})
	server = newPaced(near, delayed)
	server.in.left = 0 // the preface is behind it
	t.Cleanup(func() { server.Close(); far.Close() })
	go func() { // ends with the pipe
		io.Copy(io.Discard, far) //nolint:errcheck // it ends by an error
	}()
	return server, far
}

// readAll is how long a server takes to read what its client sends, and one byte more.
func readAll(t *testing.T, server *pacedConn, client net.Conn, frames []byte) time.Duration {
	t.Helper()
	began := time.Now()
	frames = append(frames, 0) // of the next one
	go client.Write(frames)    //nolint:errcheck // who reads sees what has not come
	if _, err := io.ReadFull(server, make([]byte, len(frames)-1)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	server.in.have = 0
	return time.Since(began)
}

// opens begins a call whose client has more to send.
func opens(stream uint32) func(*http2.Framer) error {
	return func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x82}, EndHeaders: true})
	}
}

// A client may send so many frames at once that are no call, of whatever kind, and then so
// many a second: what comes faster is read later. Calls, and what they carry, never wait.
func TestAConnectionIsHeldToItsPace(t *testing.T) {
	for name, write := range map[string]func(*http2.Framer) error{
		"data":               func(f *http2.Framer) error { return f.WriteData(1, false, []byte("x")) },
		"calls":              opens(1),
		"idle settings":      func(f *http2.Framer) error { return f.WriteSettings() },
		"idle pings":         func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) },
		"idle answers":       func(f *http2.Framer) error { return f.WritePing(true, [8]byte{1}) },
		"idle resets":        func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) },
		"idle updates":       func(f *http2.Framer) error { return f.WriteWindowUpdate(1, 1) },
		"idle priorities":    func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{Weight: 1}) },
		"idle continuation":  func(f *http2.Framer) error { return f.WriteContinuation(1, false, []byte{0x82}) },
		"idle unknown":       func(f *http2.Framer) error { return f.WriteRawFrame(0xbe, 0, 1, nil) },
		"idle empty data":    func(f *http2.Framer) error { return f.WriteData(1, false, nil) },
		"idle padding":       func(f *http2.Framer) error { return f.WriteDataPadded(1, false, nil, make([]byte, 9)) },
		"idle data to none":  func(f *http2.Framer) error { return f.WriteData(3, false, []byte("x")) },
		"idle data too late": func(f *http2.Framer) error { return f.WriteData(5, true, []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := pacedPair(t)
				readAll(t, server, client, slices.Concat(framesOf(t, 1, opens(1)), framesOf(t, 1, opens(5)),
					framesOf(t, 1, func(f *http2.Framer) error { return f.WriteData(5, true, []byte("x")) })))
				const more = 1_000
				took := readAll(t, server, client, framesOf(t, idleFramesAtOnce+more, write))
				want := time.Duration(0)
				if strings.HasPrefix(name, "idle") {
					want = time.Second * more / idleFramesPerSecond
				}
				if took != want {
					t.Errorf("it takes %v, want %v", took, want)
				}
				if delayed := valueOfCounter(t, server.delayed); (delayed > 0) != (want > 0) {
					t.Errorf("%v delays are counted", delayed)
				}
			})
		})
	}
}

// A client tells a server how much more it takes, and measures that, for as much as the server sends: that is no flood.
// No more is earned at once than may come at once anyway.
func TestWhatTheServerAsksForIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pacedPair(t)
		answer := framesOf(t, 1, func(f *http2.Framer) error { return f.WriteData(1, false, []byte("x")) })
		asked := framesOf(t, 1, func(f *http2.Framer) error {
			return errors.Join(f.WriteWindowUpdate(0, 1), f.WriteWindowUpdate(1, 1), f.WritePing(false, [8]byte{1}))
		})
		for range 4 * idleFramesAtOnce {
			if _, err := server.Write(answer); err != nil {
				t.Fatal(err)
			}
			if took := readAll(t, server, client, asked); took != 0 {
				t.Fatalf("it takes %v", took)
			}
		}
		if _, err := server.Write(bytes.Repeat(answer, 4*idleFramesAtOnce)); err != nil {
			t.Fatal(err)
		}
		const more = idleFramesPerSecond // beside what was earned, and what may come at once
		pings := framesOf(t, 2*idleFramesAtOnce+more, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) })
		if took := readAll(t, server, client, pings); took > time.Second || took <= time.Second-earns*time.Second/idleFramesPerSecond {
			t.Errorf("it takes %v, want a second", took)
		}
	})
}

func valueOfCounter(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var told dto.Metric
	if err := c.Write(&told); err != nil {
		t.Fatal(err)
	}
	return told.GetCounter().GetValue()
}

// What is used up comes back with time.
func TestAPaceIsTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pacedPair(t)
		ping := func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) }
		if took := readAll(t, server, client, framesOf(t, idleFramesAtOnce, ping)); took != 0 {
			t.Errorf("at once: %v", took)
		}
		<-time.After(time.Second)
		if took := readAll(t, server, client, framesOf(t, idleFramesPerSecond, ping)); took != 0 {
			t.Errorf("a second later: %v", took)
		}
		if took := readAll(t, server, client, framesOf(t, idleFramesPerSecond/10, ping)); took != time.Second/10 {
			t.Errorf("and then: %v", took)
		}
	})
}

// A client whose calls end without an answer, or that resets them, is held to the same pace.
// One who is answered is not, be it with a failure after an answer has begun, or by a reset
// that only says once more that the call has ended.
func TestCallsThatFailAreHeldToThePace(t *testing.T) {
	headers := func(f *http2.Framer, stream uint32, end bool) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: end})
	}
	for name, c := range map[string]struct {
		answer func(*http2.Framer, uint32) error
		waits  bool
	}{
		"answered": {func(f *http2.Framer, stream uint32) error {
			return errors.Join(headers(f, stream, false), f.WriteData(stream, false, []byte("x")), headers(f, stream, true), f.WriteRSTStream(stream, http2.ErrCodeNo))
		}, false},
		"a status alone": {func(f *http2.Framer, stream uint32) error {
			return errors.Join(headers(f, stream, true), f.WriteRSTStream(stream, http2.ErrCodeNo))
		}, true},
		"reset": {func(f *http2.Framer, stream uint32) error { return f.WriteRSTStream(stream, http2.ErrCodeProtocol) }, true},
		"reset amid answers": {func(f *http2.Framer, stream uint32) error {
			return errors.Join(headers(f, stream, false), f.WriteRSTStream(stream, http2.ErrCodeInternal))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := pacedPair(t)
				const calls = idleFramesAtOnce + idleFramesPerSecond
				stream := uint32(1)
				each := func(do func(*http2.Framer, uint32) error) []byte {
					stream = 1
					return framesOf(t, calls, func(f *http2.Framer) error { stream += 2; return do(f, stream) })
				}
				if took := readAll(t, server, client, each(func(f *http2.Framer, stream uint32) error { return opens(stream)(f) })); took != 0 {
					t.Errorf("to begin them takes %v", took)
				}
				if _, err := server.Write(each(c.answer)); err != nil {
					t.Fatal(err)
				}
				took, want := readAll(t, server, client, nil), time.Duration(0)
				if c.waits {
					want = time.Second
				}
				if took != want {
					t.Errorf("it takes %v, want %v", took, want)
				}
				if len(server.calls) != 0 {
					t.Errorf("%d calls are kept that have ended", len(server.calls))
				}
			})
		})
	}
}

// No more calls are kept than so many; those that their clients reset are not.
func TestCallsThatAreKeptAreBounded(t *testing.T) {
	server, _ := pacedPair(t)
	for stream := range uint32(2 * callsKept) {
		server.came(frame{stream: 2*stream + 1, kind: frameHeaders})
		if len(server.calls) > callsKept {
			t.Fatalf("%d are kept, the most is %d", len(server.calls), callsKept)
		}
	}
	for stream := range uint32(2 * callsKept) {
		server.came(frame{stream: 2*stream + 1, kind: frameReset})
	}
	if len(server.calls) != 0 {
		t.Errorf("%d are kept that were reset", len(server.calls))
	}
}

// Who waits for its pace waits no longer than its connection is open.
func TestAConnectionThatWaitsIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _ := pacedPair(t)
		server.due.Store(1_000 * idleFramesPerSecond)
		began, gone := time.Now(), make(chan error)
		go func() {
			_, err := server.Read(make([]byte, 1))
			gone <- err
		}()
		synctest.Wait()
		server.Close()
		if err := <-gone; !errors.Is(err, io.ErrClosedPipe) || time.Since(began) != 0 {
			t.Errorf("it is told %v after %v", err, time.Since(began))
		}
	})
}

// However frames come, in one piece or in many, the same ones are found in them.
func FuzzFrames(f *testing.F) {
	ping := framesOf(f, 3, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) })
	corpus.Add(f, "pings in pieces", ping, byte(4))
	corpus.Add(f, "half a header", ping[:len(ping)-12], byte(1))
	corpus.Add(f, "a length that nobody sends", []byte("\xff\xff\xff\x06\x00\x00\x00\x00\x00........."), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, piece byte) {
		var whole, inPieces []frame
		var one, many frames
		one.each(b, func(f frame) { whole = append(whole, f) })
		for part := range slices.Chunk(b, int(piece)+1) {
			many.each(part, func(f frame) { inPieces = append(inPieces, f) })
		}
		if !slices.Equal(whole, inPieces) || one != many {
			t.Errorf("in one piece %v and %+v, in pieces of %d bytes %v and %+v", whole, one, int(piece)+1, inPieces, many)
		}
		if len(whole)*frameHeaderBytes > len(b) {
			t.Errorf("%d frames in %d bytes", len(whole), len(b))
		}
	})
}

// BenchmarkPace: what it costs to look at 32 KiB of frames of a call that the client sends.
func BenchmarkPace(b *testing.B) {
	for _, size := range []int{1, 100, 16 << 10} {
		b.Run(fmt.Sprintf("frames of %d bytes", size), func(b *testing.B) {
			piece := framesOf(b, 1+(32<<10)/(size+frameHeaderBytes), func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, size)) })
			c := newPaced(nil, nil)
			c.in.left = 0
			c.came(frame{stream: 1, kind: frameHeaders})
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				c.in.each(piece, c.came)
			}
		})
	}
}
