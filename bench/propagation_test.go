package bench

import (
	"bytes"
	"context"
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

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The scene of target P3 in the design's §5.
const (
	services       = 5000
	instances      = 20 // of each service
	streams        = 1000
	subscriptions  = 20  // of each stream, EDS by name
	connections    = 50  // that the streams share
	registrars     = 64  // closed loops that fill the registry
	weights        = 199 // that a registration chooses from; a prime, so that each is a change
	propagateLimit = 10 * time.Second
)

const endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// BenchmarkPropagation measures the time from the first byte of a
// registration to its receipt by every stream that subscribes to the service,
// on one synced node, and counts the responses that other streams got.
func BenchmarkPropagation(b *testing.B) {
	d := startDaemon(b)
	fill(b, d)
	fleet := openStreams(b, d)
	times := make([]time.Duration, 0, b.N)
	received := fleet.received.Load()
	expected := int64(0)
	b.ResetTimer()
	for i := range b.N {
		service := (i * 7919) % services // a prime: walks all services before it repeats one
		interested := fleet.interested(service)
		want := fleet.expect(service, len(interested))
		begin := time.Now()
		d.register(b, service, i%instances, 1+i%weights)
		select {
		case <-want:
		case <-time.After(propagateLimit):
			b.Fatalf("registration %d of %s: not all of its %d streams have it after %v", i, serviceName(service), len(interested), propagateLimit)
		}
		times = append(times, time.Since(begin))
		expected += int64(len(interested))
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(milliseconds(times[len(times)/2]), "p50-ms")
	b.ReportMetric(milliseconds(times[len(times)*99/100]), "p99-ms")
	b.ReportMetric(float64(expected)/float64(b.N), "interested-streams/op")
	b.ReportMetric(float64(fleet.received.Load()-received-expected)/float64(b.N), "other-responses/op")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func serviceName(i int) string { return fmt.Sprintf("svc-%04d", i) }

func freePorts(b *testing.B, n int) []string {
	b.Helper()
	var addrs []string
	for range n { // all are open at once, so that no port is given twice
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addrs = append(addrs, l.Addr().String())
		defer func() {
			if err := l.Close(); err != nil {
				b.Error(err)
			}
		}()
	}
	return addrs
}

func drain(b *testing.B, body io.ReadCloser) {
	b.Helper()
	if _, err := io.Copy(io.Discard, body); err != nil {
		b.Fatal(err)
	}
	if err := body.Close(); err != nil {
		b.Fatal(err)
	}
}

// register puts one instance; its weight makes each registration a change.
func (d *daemon) register(b *testing.B, service, instance, weight int) {
	b.Helper()
	if err := d.put(service, instance, weight); err != nil {
		b.Fatal(err)
	}
}

func (d *daemon) put(service, instance, weight int) error {
	url := fmt.Sprintf("http://%s/api/v2/namespaces/default/services/%s/instances/i-%02d", d.http, serviceName(service), instance)
	body := fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"10.%d.%d.%d","port":8080,"weight":%d}],"zone":"z%d","leaseTtlSeconds":604800,"labels":{"track":"stable"}}`,
		service/250, service%250, instance+1, weight, instance%3)
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-StellMap-Lease-Token", "the-lease-token-of-the-bench")
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("PUT %s: %s: %s", url, resp.Status, text)
	}
	return resp.Body.Close()
}

// fill registers every instance of every service.
func fill(b *testing.B, d *daemon) {
	b.Helper()
	begin := time.Now()
	var g errgroup.Group
	var next atomic.Int64
	for range registrars {
		g.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= services*instances {
					return nil
				}
				if err := d.put(n%services, n/services, weights+1); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	b.Logf("%d instances registered in %v, %.0f/s with %d clients", services*instances, took.Round(time.Millisecond),
		float64(services*instances)/took.Seconds(), registrars)
}

// fleet is all ADS streams of the benchmark.
type fleet struct {
	received atomic.Int64 // responses after the first sync

	mu      sync.Mutex // guards what follows
	waiting map[string]*waiter
}

// waiter counts the streams that a registration has yet to reach.
type waiter struct {
	left int
	done chan struct{}
}

// interested are the streams that subscribe to a service: stream s asks for
// the 20 services from s*20 on, round and round.
func (f *fleet) interested(service int) []int {
	var out []int
	for s := range streams {
		if offset := (service - s*subscriptions%services + services) % services; offset < subscriptions {
			out = append(out, s)
		}
	}
	return out
}

// expect returns a channel that closes when n responses for the service have
// come.
func (f *fleet) expect(service, n int) <-chan struct{} {
	w := &waiter{left: n, done: make(chan struct{})}
	if n == 0 {
		close(w.done)
		return w.done
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[serviceName(service)+".default"] = w
	return w.done
}

// arrived notes one response and its resources.
func (f *fleet) arrived(r *discovery.DeltaDiscoveryResponse) {
	f.received.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, resource := range r.Resources {
		if w := f.waiting[resource.Name]; w != nil {
			if w.left--; w.left == 0 {
				close(w.done)
				delete(f.waiting, resource.Name)
			}
		}
	}
}

func openStreams(b *testing.B, d *daemon) *fleet {
	b.Helper()
	f := &fleet{waiting: make(map[string]*waiter)}
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	b.Cleanup(func() { cancel(); readers.Wait() })
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conn, err := grpc.NewClient(d.xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := conn.Close(); err != nil {
				b.Error(err)
			}
		})
		conns[i] = conn
	}
	begin := time.Now()
	var g errgroup.Group
	g.SetLimit(connections)
	for s := range streams {
		g.Go(func() error {
			return f.open(ctx, conns[s%connections], s, &readers)
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d streams with %d subscriptions each in sync after %v", streams, subscriptions, time.Since(begin).Round(time.Millisecond))
	return f
}

// open subscribes one stream, reads until it has every resource once, and
// leaves a reader behind that ends with ctx.
func (f *fleet) open(ctx context.Context, conn *grpc.ClientConn, s int, readers *sync.WaitGroup) error {
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return fmt.Errorf("open stream %d: %w", s, err)
	}
	var names []string
	for i := range subscriptions {
		names = append(names, serviceName((s*subscriptions+i)%services)+".default")
	}
	err = stream.Send(&discovery.DeltaDiscoveryRequest{
		Node:                   &core.Node{Id: fmt.Sprintf("bench-%d", s), UserAgentName: "envoy", Locality: &core.Locality{Region: "local"}},
		TypeUrl:                endpointType,
		ResourceNamesSubscribe: names,
	})
	if err != nil {
		return fmt.Errorf("subscribe stream %d: %w", s, err)
	}
	missing := make(map[string]bool)
	for _, n := range names {
		missing[n] = true
	}
	for len(missing) > 0 {
		r, err := receive(stream)
		if err != nil {
			return fmt.Errorf("sync stream %d, %d of %d missing: %w", s, len(missing), subscriptions, err)
		}
		for _, resource := range r.Resources {
			delete(missing, resource.Name)
		}
	}
	readers.Add(1)
	go func() {
		defer readers.Done()
		for {
			r, err := receive(stream)
			if err != nil {
				return // the benchmark is over
			}
			f.arrived(r)
		}
	}()
	return nil
}

// receive reads one response and ACKs it.
func receive(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) (*discovery.DeltaDiscoveryResponse, error) {
	r, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if !strings.Contains(r.TypeUrl, "ClusterLoadAssignment") {
		return nil, fmt.Errorf("asked for endpoints, got %s", r.TypeUrl)
	}
	return r, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}
