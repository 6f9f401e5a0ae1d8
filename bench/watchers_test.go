package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/internal/process"
)

// The scene: every other watcher has a connection of its own and server-sent events, the
// others are gRPC streams. Each watches one of the services and the one that all watch;
// one in ten never reads, and watches besides what nobody else does, so that it fills up.
const (
	watchers        = 10_000
	watchedServices = 500 // so that 20 are interested in each
	everybodys      = 9_998
	nobodys         = 9_999
	grpcConnections = 50
	pace            = 100 // writes a second, as they come and not as they are answered
	paceWriters     = 64  // that can be under way at once
	writeRounds     = 2_000
	fatBytes        = 15 << 10
	fillMax         = 200              // fat changes until those who do not read are stuck
	stuckFor        = 75 * time.Second // until they have to be cut off: what a client has for a frame, and some
	allRounds       = 20               // writes that concern everybody
)

// BenchmarkWatchers measures on one synced node what ten thousand watchers cost those who
// write, with some of them stuck, what each takes of memory, that those who are stuck are
// cut off, and how long a change takes that all of them want. Once is enough.
func BenchmarkWatchers(b *testing.B) {
	if b.N > 1 {
		b.Skip("once is enough: -benchtime 1x")
	}
	d := startDaemon(b)
	for service := range watchedServices {
		d.register(b, service, 0, 1)
	}
	d.register(b, everybodys, 0, 1)
	d.register(b, nobodys, 0, 1)
	d.paced(b, writeRounds/10) // warm
	before, cost := d.costed(b)
	memory := d.memory(b, "RssAnon")

	a := openAudience(b, d)
	each := (d.memory(b, "RssAnon") - memory) / watchers
	b.Logf("%d watchers take %d B of memory each", watchers, each)
	quiet, quietCost := d.costed(b)
	a.fill(b, d)
	stuck := (d.memory(b, "RssAnon") - memory) / watchers
	b.Logf("with %d that do not read and are full: %d B each", watchers/10, stuck)
	during, duringCost := d.costed(b)
	a.mustBeCut(b, d)
	all := a.concernAll(b, d)
	b.Logf("without watchers: %v; with: %v; with stuck ones: %v", before, quiet, during)
	b.Logf("of the processors a write takes %.2f ms without watchers, %.2f ms with 20 that want it, %.2f ms with stuck ones", cost, quietCost, duringCost)
	b.Logf("a write that %d want: answered %v; the last has it %v", a.reading.Load(), all[0], all[1])
	a.close()
	after, _ := d.costed(b)
	b.Logf("without watchers again: %v", after)
	without := max(before.p99, after.p99)

	b.ReportMetric(float64(each), "B/watcher")
	b.ReportMetric(milliseconds(without), "write-p99-ms-without")
	b.ReportMetric(milliseconds(during.p99), "write-p99-ms-with")
	b.ReportMetric(milliseconds(during.p99)/milliseconds(without), "write-p99-ratio")
	b.ReportMetric(cost, "write-cpu-ms-without")
	b.ReportMetric(duringCost, "write-cpu-ms-with")
	b.ReportMetric(milliseconds(all[1].p50), "all-have-it-p50-ms")
}

// costed measures writes, and what each takes of the processors in ms, which is much the
// same on a machine that has other things to do.
func (d *daemon) costed(b *testing.B) (spread, float64) {
	b.Helper()
	const used = "process_cpu_seconds_total"
	begin := d.metric(b, used)
	s := d.paced(b, writeRounds)
	return s, (d.metric(b, used) - begin) * 1000 / writeRounds
}

// paced registers so many times at a steady pace, each time another of the watched services.
func (d *daemon) paced(b *testing.B, total int) spread {
	b.Helper()
	times := make([]time.Duration, total)
	var g errgroup.Group
	g.SetLimit(paceWriters)
	begin := time.Now()
	for n := range total {
		due := begin.Add(time.Duration(n) * time.Second / pace)
		time.Sleep(time.Until(due)) // the pace
		g.Go(func() error {
			err := d.put(n*7919%watchedServices, 1, 1+n%9973)
			times[n] = time.Since(due)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return spreadOf(times)
}

func spreadOf(times []time.Duration) spread {
	slices.Sort(times)
	return spread{writes: len(times), p50: times[len(times)/2], p99: times[len(times)*99/100], max: times[len(times)-1]}
}

// An audience is all watchers of the benchmark.
type audience struct {
	ctx     context.Context
	close   func()
	readers sync.WaitGroup
	conns   []*grpc.ClientConn

	reading  atomic.Int64 // watchers that read
	received atomic.Int64 // changes of the service that all watch
	streams  []io.Reader  // of those that do not read
	calls    []grpc.ServerStreamingClient[stellmapv1.WatchResponse]
}

func openAudience(b *testing.B, d *daemon) *audience {
	b.Helper()
	a := &audience{}
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithCancel(context.Background())
	a.close = sync.OnceFunc(func() {
		cancel()
		for _, c := range a.conns {
			if err := c.Close(); err != nil {
				b.Error(err)
			}
		}
		a.readers.Wait()
	})
	b.Cleanup(func() { a.close() })
	for range grpcConnections {
		c, err := grpc.NewClient(d.xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		a.conns = append(a.conns, c)
	}
	begin := time.Now()
	var mu sync.Mutex // of what is kept of those that do not read
	var g errgroup.Group
	g.SetLimit(registrars)
	for n := range watchers {
		g.Go(func() error {
			if n%2 == 0 {
				return a.openEvents(d, n, &mu)
			}
			return a.openCall(n, &mu)
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d watchers are there after %v", watchers, time.Since(begin).Round(time.Millisecond))
	return a
}

// reads says whether a watcher does; of both kinds one in ten does not.
func reads(n int) bool { return n%20 > 1 }

func watchedBy(n int) []string {
	services := []string{serviceName(n / 2 % watchedServices), serviceName(everybodys)}
	if !reads(n) {
		services = append(services, serviceName(nobodys))
	}
	return services
}

// openEvents opens a stream of server-sent events on a connection of its own.
func (a *audience) openEvents(d *daemon, n int, mu *sync.Mutex) error {
	conn, err := net.Dial("tcp", d.http)
	if err != nil {
		return fmt.Errorf("connect watcher %d: %w", n, err)
	}
	context.AfterFunc(a.ctx, func() { conn.Close() })
	if !reads(n) {
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(conn, "GET /api/v2/watch?namespace=default&snapshot=false&service=%s HTTP/1.1\r\nHost: bench\r\n\r\n", strings.Join(watchedBy(n), "&service="))
	if err != nil {
		return fmt.Errorf("ask for watch %d: %w", n, err)
	}
	in := bufio.NewReaderSize(conn, 1<<10)
	r, err := http.ReadResponse(in, nil)
	if err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("watch %d: %v %v", n, r, err)
	}
	if !reads(n) {
		mu.Lock()
		defer mu.Unlock()
		a.streams = append(a.streams, r.Body)
		return nil
	}
	a.reading.Add(1)
	a.readers.Go(func() {
		lines := bufio.NewReaderSize(r.Body, 1<<10)
		for {
			line, err := lines.ReadSlice('\n')
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return // the benchmark is over
			}
			if bytes.HasPrefix(line, []byte("data: ")) && bytes.Contains(line, everybodysName) {
				a.received.Add(1)
			}
		}
	})
	return nil
}

var everybodysName = fmt.Appendf(nil, "%q", serviceName(everybodys))

// openCall opens a gRPC stream on a connection that it shares.
func (a *audience) openCall(n int, mu *sync.Mutex) error {
	stream, err := stellmapv1.NewRegistryServiceClient(a.conns[n%grpcConnections]).Watch(a.ctx, &stellmapv1.WatchRequest{
		Filter: &stellmapv1.Filter{Namespace: "default", Services: watchedBy(n)}, Live: true,
	})
	if err == nil {
		_, err = stream.Header() // comes once the watch is there
	}
	if err != nil {
		return fmt.Errorf("open watch %d: %w", n, err)
	}
	if !reads(n) {
		mu.Lock()
		defer mu.Unlock()
		a.calls = append(a.calls, stream)
		return nil
	}
	a.reading.Add(1)
	a.readers.Go(func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return // the benchmark is over
			}
			for _, c := range r.GetChanges() {
				if c.GetInstance().GetService() == serviceName(everybodys) {
					a.received.Add(1)
				}
			}
		}
	})
	return nil
}

// fill changes what those watch who do not read, until nothing more goes out to them.
func (a *audience) fill(b *testing.B, d *daemon) {
	b.Helper()
	body := fmt.Sprintf(`{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],"leaseTtlSeconds":604800,"metadata":{"n":"%%04d","much":%q}}`, strings.Repeat("x", fatBytes))
	sent := func() float64 { return d.metric(b, `stellmap_http_watch_frames_sent_total{shared="true"}`) }
	for n := range fillMax {
		before := sent()
		d.putBody(b, nobodys, fmt.Sprintf(body, n))
		time.Sleep(50 * time.Millisecond) // the pace: those who read are told meanwhile
		if n > fillMax/10 && sent() == before {
			b.Logf("those who do not read are full after %d changes of %d KiB", n, fatBytes>>10)
			return
		}
	}
	b.Logf("after %d changes of %d KiB some of those who do not read are not full yet", fillMax, fatBytes>>10)
}

func (d *daemon) putBody(b *testing.B, service int, body string) {
	b.Helper()
	q, err := http.NewRequest(http.MethodPut, fmt.Sprintf("http://%s/api/v2/namespaces/default/services/%s/instances/i-01", d.http, serviceName(service)), strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("X-StellMap-Lease-Token", "the-lease-token-of-the-bench")
	r, err := d.client.Do(q)
	if err != nil {
		b.Fatal(err)
	}
	if r.StatusCode/100 != 2 {
		b.Fatalf("PUT %s: %s", serviceName(service), r.Status)
	}
	drain(b, r.Body)
}

// mustBeCut waits until those who do not read are cut off, and nobody else is, and asks
// them what they were told.
func (a *audience) mustBeCut(b *testing.B, d *daemon) {
	b.Helper()
	open := func() int {
		return int(d.metric(b, "stellmap_http_watches") + d.metric(b, "stellmap_grpc_watches"))
	}
	_, err := process.Within(a.ctx, stuckFor, "those who do not read to be cut off, and nobody else", func() error {
		if have, want := open(), int(a.reading.Load()); have != want {
			return fmt.Errorf("%d watches are open, want those of the %d who read", have, want)
		}
		return nil
	})
	if err != nil {
		b.Error(err)
	}
	stuck := int(d.metric(b, `stellmap_http_watches_ended_total{reason="stuck"}`))
	if stuck != len(a.streams) {
		b.Errorf("%d streams of events were cut off as stuck, want %d", stuck, len(a.streams))
	}
	broken, told := 0, 0
	for _, s := range a.streams {
		if _, err := io.Copy(io.Discard, s); err != nil { // the connection, in the midst of a frame
			broken++
		}
	}
	for _, c := range a.calls {
		if err := lastOf(c); status.Code(err) == codes.DeadlineExceeded && strings.Contains(err.Error(), "has not read") {
			told++
		}
	}
	b.Logf("%d of %d streams of events were broken off, %d of %d gRPC streams were told that they were too slow", broken, len(a.streams), told, len(a.calls))
	if broken != len(a.streams) || told != len(a.calls) {
		b.Error("not all that did not read were cut off and told")
	}
}

func lastOf(c grpc.ServerStreamingClient[stellmapv1.WatchResponse]) error {
	for {
		if _, err := c.Recv(); err != nil {
			return err
		}
	}
}

// concernAll changes what all watch, and measures until it is answered and until the last has it.
func (a *audience) concernAll(b *testing.B, d *daemon) [2]spread {
	b.Helper()
	var answered, had []time.Duration
	for n := range allRounds {
		want := a.received.Load() + a.reading.Load()
		begin := time.Now()
		d.register(b, everybodys, 0, 2+n)
		answered = append(answered, time.Since(begin))
		for deadline := begin.Add(propagateLimit); a.received.Load() < want; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(deadline) {
				b.Fatalf("after %v only %d of %d have a change", propagateLimit, a.reading.Load()-want+a.received.Load(), a.reading.Load())
			}
		}
		had = append(had, time.Since(begin))
	}
	return [2]spread{spreadOf(answered), spreadOf(had)}
}
