package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// The lease is short so that its end can be watched.
const (
	leaseTTL   = 3 * time.Second
	renewEvery = 600 * time.Millisecond
	weight     = 100
)

func (s *scene) instanceURL(id string) string {
	return fmt.Sprintf("%s/api/v2/namespaces/%s/services/%s/instances/%s", s.server(siteOf(id)), namespace, service, id)
}

// register registers an upstream in its region as a workload would, with something to
// tell of it, and says how long that took.
func (s *scene) register(ctx context.Context, id, tells string) (time.Duration, error) {
	body := fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d,"weight":%d}],`+
		`"leaseTtlSeconds":%d,"labels":{"track":"demo"},"metadata":{"tells":%q}}`, s.ports[id], weight, int(leaseTTL.Seconds()), tells)
	begin := time.Now()
	status, answer, err := s.call(ctx, http.MethodPut, s.instanceURL(id), body)
	if err != nil {
		return 0, fmt.Errorf("register %s: %w", id, err)
	}
	if status != http.StatusOK && status != http.StatusCreated {
		return 0, fmt.Errorf("register %s: %d %s", id, status, answer)
	}
	return time.Since(begin), nil
}

// keep renews the lease of an upstream until stop is called, as the workload
// itself would as long as it lives. A renewal that fails is tried again next
// time: what comes of it shows in the instance's status.
func (s *scene) keep(ctx context.Context, id string) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the story's end is not the lease's
	var loop sync.WaitGroup
	loop.Go(func() {
		ticker := time.NewTicker(renewEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				s.renew(ctx, id)
			}
		}
	})
	return func() { cancel(); loop.Wait() }
}

func (s *scene) renew(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	status, answer, err := s.call(ctx, http.MethodPost, s.instanceURL(id)+"/renew", "")
	if err == nil && status == http.StatusOK || ctx.Err() != nil {
		return
	}
	s.renewals.note(id, status, answer, err)
}

// missed counts renewals that did not work, and keeps the last reason.
type missed struct {
	mu    sync.Mutex
	count int
	last  string
}

func (m *missed) note(id string, status int, answer []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count++
	m.last = fmt.Sprintf("%s: %d %.200s %v", id, status, answer, err)
}

func (m *missed) read() (int, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count, m.last
}

// deregister takes an upstream out and says how long that took.
func (s *scene) deregister(ctx context.Context, id string) (time.Duration, error) {
	begin := time.Now()
	status, answer, err := s.call(ctx, http.MethodDelete, s.instanceURL(id), "")
	if err != nil {
		return 0, fmt.Errorf("deregister %s: %w", id, err)
	}
	if status != http.StatusOK && status != http.StatusNoContent {
		return 0, fmt.Errorf("deregister %s: %d %s", id, status, answer)
	}
	return time.Since(begin), nil
}

// registered is what the registry has of an instance, nil when it has none.
func (s *scene) registered(ctx context.Context, id string) (map[string]any, error) {
	status, answer, err := s.get(ctx, s.instanceURL(id))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", id, err)
	case status == http.StatusNotFound:
		return nil, nil
	case status != http.StatusOK:
		return nil, fmt.Errorf("read %s: %d %s", id, status, answer)
	}
	var found map[string]any
	if err := json.Unmarshal(answer, &found); err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	return found, nil
}
