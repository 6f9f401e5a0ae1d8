package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The load: some 200 requests a second, a few of them in flight at any time.
const (
	loadWorkers  = 8
	loadPause    = 40 * time.Millisecond // of each worker, between the starts of two requests
	loadPatience = 5 * time.Second       // of one request
)

// request is one request through Envoy and what came of it.
type request struct {
	start, end time.Time
	by         string // the upstream that answered; "" when it failed
	fault      string
}

// load sends requests until it is stopped, and remembers all of them. Their
// number is bounded by the rate and the time that the story may take.
type load struct {
	client *http.Client
	url    string

	mu   sync.Mutex
	done []request // in the order of their ends
}

func newLoad(url string) *load {
	return &load{url: url, client: &http.Client{Timeout: loadPatience, Transport: &http.Transport{MaxIdleConnsPerHost: loadWorkers}}}
}

// startLoad begins to send requests to a region's Envoy; the scene's end stops it.
func (s *scene) startLoad(ctx context.Context, at site) *load {
	l := newLoad(s.egress(at))
	quit := make(chan struct{})
	var workers sync.WaitGroup
	for range loadWorkers {
		workers.Go(func() { l.work(ctx, quit) })
	}
	s.stops = append(s.stops, func() {
		close(quit)
		workers.Wait()
		l.client.CloseIdleConnections()
	})
	return l
}

// work is one worker. A request that has begun is waited for.
func (l *load) work(ctx context.Context, quit <-chan struct{}) {
	ticker := time.NewTicker(loadPause)
	defer ticker.Stop()
	for {
		select {
		case <-quit:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.note(l.send())
		}
	}
}

func (l *load) send() request {
	r := request{start: time.Now()}
	r.by, r.fault = l.ask()
	return r
}

// note remembers a request, and that it has ended now.
func (l *load) note(r request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.end = time.Now()
	l.done = append(l.done, r)
}

// ask sends one request and returns who answered, or what went wrong.
func (l *load) ask() (by, fault string) {
	q, err := http.NewRequest(http.MethodGet, l.url, nil)
	if err != nil {
		return "", err.Error()
	}
	q.Host = host
	answer, err := l.client.Do(q)
	if err != nil {
		return "", err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerBytesMax))
	switch {
	case err != nil:
		return "", err.Error()
	case answer.StatusCode != http.StatusOK:
		return "", fmt.Sprintf("%d %.100s", answer.StatusCode, body)
	}
	return string(body), ""
}

// tally sums up the requests that ended after a moment.
type tally struct {
	total, failed int
	by            map[string]int
	lastFailed    time.Time            // start of the last that failed
	faults        []string             // the first few
	first, last   map[string]time.Time // starts of the first and the last answered, by upstream
}

const faultsShown = 3

// since counts what ended after a moment.
func (l *load) since(moment time.Time) tally {
	t := tally{by: make(map[string]int), first: make(map[string]time.Time), last: make(map[string]time.Time)}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range slices.Backward(l.done) {
		if !r.end.After(moment) {
			break
		}
		t.add(r)
	}
	return t
}

func (t *tally) add(r request) {
	t.total++
	if r.by == "" {
		t.failed++
		if r.start.After(t.lastFailed) {
			t.lastFailed = r.start
		}
		if len(t.faults) < faultsShown {
			t.faults = append(t.faults, r.fault)
		}
		return
	}
	t.by[r.by]++
	if first, ok := t.first[r.by]; !ok || r.start.Before(first) {
		t.first[r.by] = r.start
	}
	if r.start.After(t.last[r.by]) {
		t.last[r.by] = r.start
	}
}

// shares says who answered how often.
func (t tally) shares() string {
	var parts []string
	for name, n := range t.by {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// noFailure is an error when a request failed.
func (t tally) noFailure() error {
	if t.failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %s", t.failed, t.total, strings.Join(t.faults, "; "))
	}
	return nil
}
