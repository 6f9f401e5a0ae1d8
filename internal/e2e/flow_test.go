package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// The callers behind an Envoy. They do not wait for one another: those that hang
// keep nobody from calling.
const (
	flowEvery    = 5 * time.Millisecond   // 200 requests a second
	flowPatience = 3 * time.Second        // of a caller
	flowHanging  = 500 * time.Millisecond // without an answer: nothing is well as long as there is such a request
	flowLate     = time.Second            // an answer, which then is as bad as none
	flowOpenMax  = 2000                   // requests that wait for an answer; 600 can
	flowQuiet    = time.Second            // in which all must be well, to be believed
	flowEnough   = 50                     // answers in that time, a quarter of those of a machine that has nothing else to do
	flowTime     = 45 * time.Second       // for that: not a target, a limit for waiting. An Envoy leaves a host alone for 30 s at most
)

// A shot is one request and what came of it.
type shot struct {
	begin time.Time
	id    string // of a POST; "" = it is a GET
	done  bool
	took  time.Duration
	by    string // who answered; "" = it failed
	fault string
}

// A flow is GETs and POSTs in turn to one host, through an Envoy.
type flow struct {
	t      *testing.T
	name   string
	host   string
	url    string
	client *http.Client
	quit   chan struct{}
	work   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	shots  []*shot    // by their begin
	open   int
	missed int // that were not sent, since too many waited
}

// startFlow begins to send requests, until stop or the end of the test.
func (e *envoy) startFlow(name, host string) *flow {
	f := &flow{t: e.t, name: name, host: host, url: e.egress, quit: make(chan struct{}),
		client: &http.Client{Timeout: flowPatience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	f.work.Go(f.run)
	e.t.Cleanup(func() {
		f.stop()
		f.client.CloseIdleConnections()
	})
	return f
}

// stop ends the flow, and waits for what is under way.
func (f *flow) stop() {
	select {
	case <-f.quit:
	default:
		close(f.quit)
	}
	f.work.Wait()
}

func (f *flow) run() {
	ticker := time.NewTicker(flowEvery)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-f.quit:
			return
		case <-ticker.C:
		}
		id := ""
		if n%2 == 1 {
			id = fmt.Sprintf("%s-%d", f.name, n)
		}
		if s := f.next(id); s != nil {
			f.work.Go(func() { f.send(s) })
		}
	}
}

// next is the next request; nil where too many wait.
func (f *flow) next(id string) *shot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open >= flowOpenMax {
		f.missed++
		return nil
	}
	f.open++
	s := &shot{begin: time.Now(), id: id}
	f.shots = append(f.shots, s)
	return s
}

func (f *flow) send(s *shot) {
	by, fault := f.ask(s.id)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.done, s.took, s.by, s.fault = true, time.Since(s.begin), by, fault
	f.open--
}

func (f *flow) ask(post string) (by, fault string) {
	method := http.MethodGet
	if post != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(context.WithoutCancel(f.t.Context()), method, f.url, nil)
	if err != nil {
		return "", err.Error()
	}
	request.Host = f.host
	if post != "" {
		request.Header.Set("X-Post-Id", post)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return "", err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return "", err.Error()
	case response.StatusCode != http.StatusOK:
		return "", fmt.Sprintf("%d %.100s", response.StatusCode, body)
	}
	return string(body), ""
}

// A toll is what came of the requests that began within some time.
type toll struct {
	total, failed int
	late, hanging int                  // were answered late; may be answered yet
	by            map[string]int       // region that answered
	last          map[string]time.Time // begin of the last of these
	lastBad       time.Time            // the same of those that failed or were late
	fault         string               // of the first that failed
}

// since is what came of what began after a moment.
func (f *flow) since(moment time.Time) toll {
	now := time.Now()
	c := toll{by: make(map[string]int), last: make(map[string]time.Time)}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range slices.Backward(f.shots) {
		if s.begin.Before(moment) {
			break
		}
		c.add(s, now)
	}
	return c
}

// add takes them the last one first.
func (c *toll) add(s *shot, now time.Time) {
	if !s.done {
		if now.Sub(s.begin) > flowHanging {
			c.hanging++
		}
		return
	}
	failed, late := s.by == "", s.took > flowLate
	if (failed || late) && c.lastBad.IsZero() {
		c.lastBad = s.begin
	}
	if late && !failed {
		c.late++
	}
	c.total++
	if failed {
		c.failed, c.fault = c.failed+1, s.fault
		return
	}
	region := s.by[:1]
	c.by[region]++
	if c.last[region].IsZero() {
		c.last[region] = s.begin
	}
}

// isWell is nil when none has failed or hangs, there are enough, and all were answered
// by the given regions and no others.
func (c *toll) isWell(regions ...string) error {
	if c.failed+c.hanging > 0 || c.total < flowEnough {
		return fmt.Errorf("of %d requests %d have failed, and %d hang: %s", c.total, c.failed, c.hanging, c.fault)
	}
	if by := slices.Sorted(maps.Keys(c.by)); !slices.Equal(by, regions) {
		return fmt.Errorf("%v have answered, want %v", c.by, regions)
	}
	return nil
}

// settles waits until all that began from a moment on has been well for a while, and
// the given regions answer. It returns the moment from which on that is so.
func (f *flow) settles(what string, from time.Time, regions ...string) (since time.Time) {
	f.t.Helper()
	_, err := process.Within(f.t.Context(), flowTime, what, func() error {
		if since = time.Now().Add(-flowQuiet - flowHanging); since.Before(from) {
			return errors.New("it has just begun")
		}
		c := f.since(since)
		return c.isWell(regions...)
	})
	if err != nil {
		f.t.Fatalf("%s: %v", f.name, err)
	}
	return since
}

// end stops the flow and checks that nothing has failed since a moment.
func (f *flow) end(what string, well time.Time) {
	f.t.Helper()
	f.stop()
	if f.missed > 0 {
		f.t.Errorf("%s: %d requests were not sent, since %d waited for an answer", f.name, f.missed, flowOpenMax)
	}
	if c := f.since(well); c.failed > 0 {
		f.t.Errorf("%s: %s: of %d requests %d have failed, the first: %s", f.name, what, c.total, c.failed, c.fault)
	}
}
