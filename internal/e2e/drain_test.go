package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/process"
)

var drainRounds = flag.Int("rounds", 2, "how often a backend is drained and killed under load")

// The traffic that goes through Envoy while backends are drained.
const (
	trafficWorkers = 8
	trafficPause   = 20 * time.Millisecond // of each worker, between two requests
	answerTime     = "30ms"                // of a backend, so that some requests are always in flight
)

// traffic sends requests through an Envoy until it is stopped.
type traffic struct {
	e       *envoy
	quit    chan struct{}
	working sync.WaitGroup

	mu     sync.Mutex // guards what follows
	by     map[string]int
	total  int
	faults []string
}

func (e *envoy) startTraffic(host string) *traffic {
	f := &traffic{e: e, quit: make(chan struct{}), by: make(map[string]int)}
	for range trafficWorkers {
		f.working.Go(func() { f.work(host) })
	}
	return f
}

func (f *traffic) stop() {
	close(f.quit)
	f.working.Wait()
}

func (f *traffic) work(host string) {
	ticker := time.NewTicker(trafficPause)
	defer ticker.Stop()
	for {
		select {
		case <-f.quit:
			return
		case <-ticker.C:
		}
		status, _, body, err := f.e.ask(f.e.t.Context(), host)
		f.mu.Lock()
		f.total++
		if err == nil && status == http.StatusOK {
			f.by[body]++
		} else {
			f.faults = append(f.faults, fmt.Sprintf("%d %s %v", status, body, err))
		}
		f.mu.Unlock()
	}
}

// answered is how many requests a backend has answered.
func (f *traffic) answered(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by[name]
}

// failed are the requests that have failed, and how many there were.
func (f *traffic) failed() (faults []string, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults, f.total
}

// retries is how often Envoy has tried a request again: what it hides from the callers.
func (e *envoy) retries() int {
	e.t.Helper()
	n, err := e.admin.Retries(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}

// backend starts and registers one, and waits until it has answered requests.
func (f *traffic) backend(name string) *process.Process {
	e := f.e
	e.t.Helper()
	ports, err := freeport.Find(1)
	if err != nil {
		e.t.Fatal(err)
	}
	p := serve(e.t, ports[0], name, "--delay", answerTime)
	e.until(name+" to listen", func() error {
		_, err := e.c.call(e.t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d", ports[0]), "")
		return err
	})
	e.c.register("orders", name, fmt.Sprintf(`[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}]`, ports[0]))
	e.until(name+" to answer through Envoy", func() error {
		if f.answered(name) == 0 {
			return errors.New("it has answered nothing")
		}
		return nil
	})
	return p
}

// A backend that is drained with --wait, at whichever member, can be killed when the command has ended: of
// the requests that go on through Envoy none fails, and none is saved by a second try. That it shows is seen
// by killing one without.
func TestADrainedBackendIsMissedByNobody(t *testing.T) {
	c := newCluster(t, 3)
	e := c.startEnvoyWith(2)
	f := e.startTraffic("orders.default")
	stopped := sync.OnceFunc(f.stop)
	defer stopped()
	f.backend("keeper")
	next := f.backend("round-0")
	f.mu.Lock()
	f.faults, f.total = nil, 0 // before there was anybody
	f.mu.Unlock()
	before := e.retries()
	for round := range *drainRounds {
		name, drained := fmt.Sprintf("round-%d", round), next
		next = f.backend(fmt.Sprintf("round-%d", round+1))
		begin := time.Now()
		code, out, errs := ctl(t, c.members[round%3].url(), "drain", "orders/"+name, "--wait", "--timeout", "20s", "--remove", "--lease-token", leaseToken)
		took, after := time.Since(begin), f.answered(name)
		if code != 0 || !strings.Contains(out, "no new calls from 1 proxy   removed") {
			t.Fatalf("drain of %s: exit code %d\n%s%s", name, code, out, errs)
		}
		if err := drained.Kill(); err != nil {
			t.Fatal(err)
		}
		if faults, total := f.failed(); len(faults) > 0 {
			t.Fatalf("round %d: %d of %d requests have failed: %s", round, len(faults), total, faults[0])
		}
		if now := f.answered(name); now != after {
			t.Errorf("%s has answered %d requests after it was drained", name, now-after)
		}
		t.Logf("round %d: drained in %v", round, took.Round(time.Millisecond))
	}
	if n := e.retries() - before; n != 0 {
		t.Errorf("Envoy had to try %d requests again", n)
	}
	_, total := f.failed()
	t.Logf("%d rounds, %d requests, none failed", *drainRounds, total)

	if err := next.Kill(); err != nil {
		t.Fatal(err)
	}
	e.until("a backend that was killed without a drain to be missed", func() error {
		if faults, _ := f.failed(); len(faults) == 0 && e.retries() == before {
			return errors.New("nobody has missed it")
		}
		return nil
	})
	e.noNACK()
	stopped()
	testThatAStuckProxyIsNamed(c, e)
}

// A proxy that does not acknowledge a drain is named, at every member, and the exit code says that the time is over.
func testThatAStuckProxyIsNamed(c *cluster, e *envoy) {
	t := c.t
	t.Helper()
	for _, m := range c.members {
		a := c.must(http.MethodGet, m.url()+"/api/v2/proxies", "", http.StatusOK)
		var list struct {
			Proxies []struct{ Node, State string }
			Members []struct{ Error string }
		}
		if err := json.Unmarshal(a.body, &list); err != nil || len(list.Proxies) != 1 || list.Proxies[0].Node != "web-1" || len(list.Members) != 3 {
			t.Errorf("%s lists %s, %v", m.name(), a.body, err)
		}
	}
	if err := e.proc.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	code, out, errs := ctl(t, c.members[0].url(), "drain", "orders/keeper", "--wait", "--timeout", "1s", "--lease-token", leaseToken)
	if err := e.proc.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code != 7 || !strings.Contains(errs, "after 1s 0 of 1 proxy have acknowledged revision") || !strings.Contains(errs, "web-1  member") {
		t.Errorf("drain with a proxy that stands still: exit code %d\n%s%s", code, out, errs)
	}
	if code, out, errs := ctl(t, c.members[1].url(), "drain", "orders/keeper", "--wait", "--settle", "0s", "--lease-token", leaseToken); code != 0 {
		t.Errorf("drain with a proxy that goes on: exit code %d\n%s%s", code, out, errs)
	}
	if code, out, errs := ctl(t, c.members[2].url(), "undrain", "orders/keeper", "--lease-token", leaseToken); code != 0 {
		t.Errorf("undrain: exit code %d\n%s%s", code, out, errs)
	}
	if code, out, errs := ctl(t, c.members[2].url(), "describe", "service", "orders"); code != 0 || !strings.Contains(out, "keeper") {
		t.Errorf("describe: exit code %d\n%s%s", code, out, errs)
	}
}
