package bench

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The scene of target P8 in the design's §5.
const (
	millionServices  = 10_000
	millionInstances = 100 // of each
	window           = 10 * time.Second
	writers          = 16 // closed loops while it is measured
	cutMax           = 90 * time.Second
)

// BenchmarkMillion loads a million instances over HTTP into one synced node
// and measures what that costs: memory, disk, a snapshot while writes go on,
// and a restart after kill -9. One iteration is all that makes sense.
func BenchmarkMillion(b *testing.B) {
	if b.N > 1 {
		b.Skip("once is enough: -benchtime 1x")
	}
	const total = millionServices * millionInstances
	d := startDaemon(b, "--snapshot-entries", fmt.Sprint(10*total), "--snapshot-bytes", "31GiB")
	begin := time.Now()
	d.load(b, total)
	b.Logf("%d instances registered in %v, %.0f/s with %d clients", total, time.Since(begin).Round(time.Second), total/time.Since(begin).Seconds(), registrars)
	b.Logf("after loading: RSS %d MiB, heap in use %.0f MiB", d.memory(b, "VmRSS")>>20, d.metric(b, "go_memstats_heap_inuse_bytes")/(1<<20))
	b.Logf("on disk: log %d MiB, state %d MiB", d.size(b, "wal")>>20, d.size(b, "state")>>20)

	d.kill(b)
	begin = time.Now()
	d.start(b)
	restart := time.Since(begin)
	b.Logf("killed with -9, ready again after %v: %s", restart.Round(time.Millisecond), d.said(b, "replayed"))
	rss := d.memory(b, "VmRSS")
	// The collector begins anew when the heap is twice what it found alive.
	b.Logf("after the restart: RSS %d MiB, some %.0f MiB alive", rss>>20, d.metric(b, "go_memstats_next_gc_bytes")/2/(1<<20))
	without := d.latencies(b, d.collectedSince(b))
	grown, full := d.memory(b, "VmHWM"), d.size(b, "wal")

	d.kill(b)
	d.args = append(d.args, "--snapshot-entries", "1") // from now on a snapshot is always due
	d.start(b)
	collected := d.collectedSince(b)
	during := d.latencies(b, func() bool { return d.metric(b, "stellmap_raft_snapshot_seconds_count") == 0 || collected() })
	more := (d.memory(b, "VmHWM") - grown) >> 20
	took := d.metric(b, "stellmap_raft_snapshot_seconds_sum") / d.metric(b, "stellmap_raft_snapshot_seconds_count")
	b.Logf("snapshots of %d MiB took %.1f s each; the peak of RSS is %d MiB above that of the same writes without", d.size(b, "snapshot")>>20, took, more)
	b.Logf("writes of %d clients, without a snapshot: %v; during one: %v", writers, without, during)

	for deadline := time.Now().Add(cutMax); d.size(b, "wal") > full/2 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	b.Logf("the log of %d MiB is cut to %d MiB behind the snapshots", full>>20, d.size(b, "wal")>>20)

	b.ReportMetric(float64(rss)/total, "RSS-B/instance")
	b.ReportMetric(restart.Seconds(), "restart-s")
	b.ReportMetric(took, "snapshot-s")
	b.ReportMetric(float64(more), "snapshot-MiB")
	b.ReportMetric(milliseconds(during.p99)/milliseconds(without.p99), "write-p99-ratio")
}

// collectedSince tells whether the collector has not yet worked twice from now
// on. After that the peak of the memory is one that comes again and again.
func (d *daemon) collectedSince(b *testing.B) (notYet func() bool) {
	const cycles = "go_gc_duration_seconds_count"
	enough := d.metric(b, cycles) + 2
	until := time.Now().Add(window)
	return func() bool { return d.metric(b, cycles) < enough || time.Now().Before(until) }
}

// load registers instances, many at a time.
func (d *daemon) load(b *testing.B, total int) {
	b.Helper()
	var next atomic.Int64
	var loops sync.WaitGroup
	for range registrars {
		loops.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= total {
					return
				}
				if err := d.putOne(n, 100); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	loops.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// putOne registers instance n of all; what it says of itself takes some 300 bytes.
func (d *daemon) putOne(n, weight int) error {
	service, instance := n%millionServices, n/millionServices
	url := fmt.Sprintf("http://%s/api/v2/namespaces/prod/services/team-%d.app-%d/instances/10.%d.%d.%d:8080", d.http, service%100, service/100, service/250, service%250, instance)
	body := fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"10.%d.%d.%d","port":8080,"weight":%d}],"zone":"z%d","version":"1.4.%d",`+
		`"leaseTtlSeconds":604800,"labels":{"track":"stable","team":"team-%d"},"metadata":{"build":"91f2c0de","started":"2026-11-24T10:00:00Z"}}`,
		service/250, service%250, instance, weight, instance%3, instance%7, service%100)
	request, err := http.NewRequest(http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-StellMap-Lease-Token", "the-lease-token-of-the-bench")
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("PUT %s: %s", url, response.Status)
	}
	return nil
}

// spread is how long writes took.
type spread struct {
	writes        int
	p50, p99, max time.Duration
}

func (s spread) String() string {
	return fmt.Sprintf("%d, p50 %.1f ms, p99 %.1f ms, most %.0f ms", s.writes, milliseconds(s.p50), milliseconds(s.p99), milliseconds(s.max))
}

// latencies registers again and again as long as a condition holds.
func (d *daemon) latencies(b *testing.B, goOn func() bool) spread {
	b.Helper()
	var done atomic.Bool
	var mu sync.Mutex
	var all []time.Duration
	var loops sync.WaitGroup
	for w := range writers {
		loops.Go(func() {
			for n := w; !done.Load(); n += writers {
				begin := time.Now()
				if err := d.putOne(n*7919%(millionServices*millionInstances), 1+n%9999); err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				all = append(all, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	for goOn() && !b.Failed() {
		time.Sleep(50 * time.Millisecond)
	}
	done.Store(true)
	loops.Wait()
	if b.Failed() || len(all) == 0 {
		b.FailNow()
	}
	slices.Sort(all)
	return spread{writes: len(all), p50: all[len(all)/2], p99: all[len(all)*99/100], max: all[len(all)-1]}
}

// size is what a folder of the data takes.
func (d *daemon) size(b *testing.B, folder string) int64 {
	b.Helper()
	total := int64(0)
	err := filepath.WalkDir(filepath.Join(d.data, folder), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return total
}

// said is the last line of the log that holds a word.
func (d *daemon) said(b *testing.B, word string) string {
	b.Helper()
	text, err := os.ReadFile(d.log)
	if err != nil {
		b.Fatal(err)
	}
	found := ""
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, word) {
			found = strings.TrimSpace(line)
		}
	}
	return found
}
