package bench

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stellmap/stellmap/internal/freeport"
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
	propagateLimit = time.Minute
)

// BenchmarkPropagation measures the time from the first byte of a
// registration to its receipt by every stream that subscribes to the service,
// on one synced node, and counts the responses that other streams got.
func BenchmarkPropagation(b *testing.B) {
	d := startDaemon(b)
	fill(b, d, services, instances)
	f := &fleet{addresses: []string{d.xds}, size: streams, connections: connections, asks: byName(services)}
	f.open(b)
	b.Logf("%d streams with %d subscriptions each in sync after %v", streams, subscriptions, f.took.Round(time.Millisecond))
	times := make([]time.Duration, 0, b.N)
	expected := int64(0)
	b.ResetTimer()
	for i := range b.N {
		service := (i * 7919) % services // a prime: walks all services before it repeats one
		interested := interestedIn(service, services, streams)
		w := f.expect(endpointType, clusterOf(serviceName(service)), interested)
		begin := time.Now()
		d.register(b, service, i%instances, 1+i%weights)
		times = append(times, f.wait(b, serviceName(service), w, begin))
		expected += int64(interested)
	}
	b.StopTimer()
	all := spreadOf(times)
	b.ReportMetric(milliseconds(all.p50), "p50-ms")
	b.ReportMetric(milliseconds(all.p99), "p99-ms")
	b.ReportMetric(float64(expected)/float64(b.N), "interested-streams/op")
	b.ReportMetric(float64(f.received.Load()-expected)/float64(b.N), "other-responses/op")
}

// byName are the asks of streams that subscribe to the endpoints of some of so many
// services, and of others besides: stream n asks for those from n times so many on,
// round and round.
func byName(services int, others ...int) func(n int) []ask {
	return func(n int) []ask {
		var names []string
		for i := range min(subscriptions, services) {
			names = append(names, clusterOf(serviceName((n*subscriptions+i)%services)))
		}
		for _, o := range others {
			names = append(names, clusterOf(serviceName(o)))
		}
		return []ask{{endpointType, names, len(names)}}
	}
}

// interestedIn is how many of the streams subscribe to a service.
func interestedIn(service, services, streams int) int {
	n := 0
	for s := range streams {
		if offset := (service - s*subscriptions%services + services) % services; offset < subscriptions {
			n++
		}
	}
	return n
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func serviceName(i int) string        { return fmt.Sprintf("svc-%04d", i) }
func instanceName(i int) string       { return fmt.Sprintf("i-%02d", i) }
func clusterOf(service string) string { return service + ".default" }

// registrationOf is the body of a registration that outlives the benchmark.
func registrationOf(service, instance, weight int) string {
	return fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"10.%d.%d.%d","port":8080,"weight":%d}],"zone":"z%d","leaseTtlSeconds":604800,"labels":{"track":"stable"}}`,
		service/250, service%250, instance+1, weight, instance%3)
}

func freePorts(b *testing.B, n int) []string {
	b.Helper()
	addrs, err := freeport.Addresses(n)
	if err != nil {
		b.Fatal(err)
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
	url := fmt.Sprintf("http://%s/api/v2/namespaces/default/services/%s/instances/%s", d.http, serviceName(service), instanceName(instance))
	req, err := http.NewRequest(http.MethodPut, url, strings.NewReader(registrationOf(service, instance, weight)))
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
func fill(b *testing.B, d *daemon, services, instances int) {
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
