package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/registry"
)

// What has been opened ends when the right to it ends, be it that somebody has taken it
// away or that its time was over. Those who serve it need not know: its context is over
// then, and says why.

// The bounds of calls that stay open.
const (
	staysMax    = 131_072     // the next is refused; more than all ports together take
	staysLookAt = time.Second // how often it is looked whether they may stay
)

// stays are the calls that are open.
type stays struct {
	policies *policies
	every    time.Duration // staysLookAt, or less in tests
	ended    prometheus.Counter

	edition *registry.Edition // by which all may stay; run's alone

	mu    sync.Mutex // guards what follows
	open  map[*stay]struct{}
	timed map[*stay]struct{} // those of them whose right may end though nobody has changed anything
}

// A stay is one of them.
type stay struct {
	still  func() error // nil while its caller may have it
	cancel context.CancelCauseFunc
	over   bool // it was ended; run's alone
}

func openStays(p *policies, r prometheus.Registerer) (*stays, error) {
	s := &stays{policies: p, every: staysLookAt, open: make(map[*stay]struct{}), timed: make(map[*stay]struct{}), ended: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "stellmap_access_open_calls_ended_total", Help: "Streams, watches and downloads that were ended since the right to them had ended.",
	})}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stellmap_access_open_calls", Help: "Streams, watches and downloads that end with the right to them.",
	}, func() float64 { return float64(s.count()) })
	for _, c := range []prometheus.Collector{s.ended, gauge} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register a metric: %w", err)
		}
	}
	return s, nil
}

func (s *stays) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// enter gives a call a context that is over, with why, when its caller may have it no more.
// leave is called at its end. It is entered before it is looked at: so either this sees
// what an edit has changed, or the next round does.
func (s *stays) enter(ctx context.Context, still func() error) (in context.Context, leave func(), err error) {
	one := &stay{still: still}
	in, one.cancel = context.WithCancelCause(ctx)
	by, _ := registry.CallerOf(ctx).(*caller)
	if !s.add(one, by != nil && by.timed()) {
		one.cancel(nil)
		return nil, nil, registry.ErrBusy
	}
	leave = func() { s.remove(one) }
	if err := still(); err != nil {
		leave()
		return nil, nil, err
	}
	return in, leave, nil
}

func (s *stays) add(one *stay, timed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= staysMax {
		return false
	}
	s.open[one] = struct{}{}
	if timed {
		s.timed[one] = struct{}{}
	}
	return true
}

func (s *stays) remove(one *stay) {
	s.mu.Lock()
	delete(s.open, one)
	delete(s.timed, one)
	s.mu.Unlock()
	one.cancel(nil)
}

// run looks again and again whether those that are open may stay, until ctx ends.
func (s *stays) run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ticks := time.NewTicker(s.every)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			s.look()
		}
	}
}

// look ends those that may not. What nobody has changed has not changed, but for those
// whose time may be over.
func (s *stays) look() {
	edition := s.policies.now().edition
	for _, one := range s.some(edition != s.edition) {
		if one.over {
			continue // its server has yet to see it
		}
		if err := one.still(); err != nil { // without the lock: it is asked of a policy, and there may be many
			one.over = true
			one.cancel(err)
			s.ended.Inc()
		}
	}
	s.edition = edition
}

// some are all that are open, or those whose time may be over.
func (s *stays) some(all bool) []*stay {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all {
		return slices.Collect(maps.Keys(s.open))
	}
	return slices.Collect(maps.Keys(s.timed))
}
