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
// it. Nothing that the server writes is lost.
func pacedPair(t *testing.T) (server *pacedConn, client net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	delayed := prometheus.NewCounter(prometheus.CounterOpts{Name: "delayed"})
	server = newPaced(near, delayed)
	t.Cleanup(func() { server.Close(); far.Close() })
	go func() { // ends with the pipe
		io.Copy(io.Discard, far) //nolint:errcheck // it ends by an error
	}()
	return server, far
}

// readAll is how long a server takes to read what its client sends after the preface.
func readAll(t *testing.T, server *pacedConn, client net.Conn, frames []byte) time.Duration {
	t.Helper()
	began := time.Now()
	go client.Write(slices.Concat([]byte(http2.ClientPreface), frames)) //nolint:errcheck // who reads sees what has not come
	if _, err := io.ReadFull(server, make([]byte, len(http2.ClientPreface)+len(frames))); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	go client.Write(one) //nolint:errcheck // so does he here
	if _, err := server.Read(one); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// A client may send so many frames at once that are no call, of whatever kind, and then so
// many a second: what comes faster is read later. Calls, and what they carry, never wait.
func TestAConnectionIsHeldToItsPace(t *testing.T) {
	block := []byte{0x82}
	for name, write := range map[string]func(*http2.Framer) error{
		"data":       func(f *http2.Framer) error { return f.WriteData(1, false, []byte("x")) },
		"data's end": func(f *http2.Framer) error { return f.WriteData(1, true, nil) },
		"calls": func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
		},
		"idle settings":     func(f *http2.Framer) error { return f.WriteSettings() },
		"idle pings":        func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) },
		"idle answers":      func(f *http2.Framer) error { return f.WritePing(true, [8]byte{1}) },
		"idle resets":       func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) },
		"idle updates":      func(f *http2.Framer) error { return f.WriteWindowUpdate(1, 1) },
		"idle priorities":   func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{Weight: 1}) },
		"idle continuation": func(f *http2.Framer) error { return f.WriteContinuation(1, false, block) },
		"idle unknown":      func(f *http2.Framer) error { return f.WriteRawFrame(0xbe, 0, 1, nil) },
		"idle data":         func(f *http2.Framer) error { return f.WriteData(1, false, nil) },
		"idle padding":      func(f *http2.Framer) error { return f.WriteDataPadded(1, false, nil, make([]byte, 9)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := pacedPair(t)
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
		server.in = frames{left: prefaceBytes}
		if took := readAll(t, server, client, framesOf(t, idleFramesPerSecond, ping)); took != 0 {
			t.Errorf("a second later: %v", took)
		}
		server.in = frames{left: prefaceBytes}
		if took := readAll(t, server, client, framesOf(t, idleFramesPerSecond/10, ping)); took != time.Second/10 {
			t.Errorf("and then: %v", took)
		}
	})
}

// A client whose calls fail, or are reset for what is wrong with them, is held to the same
// pace. One who is answered is not, be it with a failure after an answer has begun.
func TestCallsThatFailAreHeldToThePace(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*http2.Framer, uint32) error
		waits  bool
	}{
		"answered": {func(f *http2.Framer, stream uint32) error {
			return errors.Join(
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true}),
				f.WriteData(stream, false, []byte("x")),
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}))
		}, false},
		"a status alone": {func(f *http2.Framer, stream uint32) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
		}, true},
		"reset": {func(f *http2.Framer, stream uint32) error { return f.WriteRSTStream(stream, http2.ErrCodeProtocol) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := pacedPair(t)
				stream := uint32(1)
				answers := framesOf(t, idleFramesAtOnce+idleFramesPerSecond, func(f *http2.Framer) error { stream += 2; return c.answer(f, stream) })
				if _, err := server.Write(answers); err != nil {
					t.Fatal(err)
				}
				took, want := readAll(t, server, client, nil), time.Duration(0)
				if c.waits {
					want = time.Second
				}
				if took != want {
					t.Errorf("it takes %v, want %v", took, want)
				}
				if len(server.begun) != 0 {
					t.Errorf("%d calls are kept that have ended", len(server.begun))
				}
			})
		})
	}
}

// Of calls that their clients reset nobody says that they have ended; no more than so many are kept.
func TestCallsThatAreKeptAreBounded(t *testing.T) {
	server, _ := pacedPair(t)
	for stream := range uint32(3 * streamsBegunKept) {
		server.isFailure(frame{stream: stream, kind: frameHeaders})
		if len(server.begun) > streamsBegunKept {
			t.Fatalf("%d are kept, the most is %d", len(server.begun), streamsBegunKept)
		}
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
		each := func(into *[]frame) func(frame) bool {
			return func(f frame) bool { *into = append(*into, f); return isIdle(f) }
		}
		var whole, inPieces []frame
		var one, many frames
		idle, sum := one.count(b, each(&whole)), int64(0)
		for part := range slices.Chunk(b, int(piece)+1) {
			sum += many.count(part, each(&inPieces))
		}
		if idle != sum || !slices.Equal(whole, inPieces) || one != many {
			t.Errorf("in one piece %d of %v and %+v, in pieces of %d bytes %d of %v and %+v", idle, whole, one, int(piece)+1, sum, inPieces, many)
		}
		if len(whole)*frameHeaderBytes > len(b) {
			t.Errorf("%d frames in %d bytes", len(whole), len(b))
		}
	})
}

// BenchmarkPace: what a piece of so many frames of 16 KiB, or of nothing but headers, costs.
func BenchmarkPace(b *testing.B) {
	for _, size := range []int{0, 100, 16 << 10} {
		b.Run(fmt.Sprintf("frames of %d bytes", size), func(b *testing.B) {
			piece := framesOf(b, 1+(32<<10)/(size+frameHeaderBytes), func(f *http2.Framer) error { return f.WriteData(1, true, make([]byte, size)) })
			var f frames
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				f.count(piece, isIdle)
			}
		})
	}
}
