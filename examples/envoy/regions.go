package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

const (
	homeTime = 20 * time.Second // for all traffic to be home: an Envoy leaves alone for a while whom it found dead
	told     = "during the cut" // of orders-b2, in b
)

// everybody is what both Envoys have when all are well.
var everybody = map[string]string{
	"orders-1": "HEALTHY", "orders-2": "HEALTHY", "orders-3": "HEALTHY", "orders-b1": "HEALTHY", "orders-b2": "HEALTHY",
}

// openAway registers upstreams in b and starts its Envoy: that of a has them, too, and each
// region serves its own callers. The dead orders-2 comes back: with one of three
// missing a would let b have a part.
func (t *story) openAway(ctx context.Context, s *step) error {
	if err := t.revive(ctx, "orders-2"); err != nil {
		return err
	}
	begin := time.Now()
	for _, id := range away.upstreams {
		if _, err := t.join(ctx, id); err != nil {
			return err
		}
	}
	if _, err := process.Within(ctx, reachTime, "b's upstreams in a's Envoy", func() error { return t.envoyHas(ctx, home, everybody) }); err != nil {
		return err
	}
	reached := time.Since(begin)
	s.took("to_the_other_envoy", reached)
	if err := errors.Join(t.startEnvoy(ctx, away), t.routes(ctx, away)); err != nil {
		return err
	}
	t.away = t.startLoad(ctx, away)
	if _, err := process.Within(ctx, reachTime, "b's Envoy to serve as a's does", func() error {
		return errors.Join(t.envoyHas(ctx, away, everybody), t.allAre(t.load, home), t.allAre(t.away, away))
	}); err != nil {
		return err
	}
	s.Detail = fmt.Sprintf("in a's Envoy after %s, as fallback; each region serves its own", ms(reached))
	return t.noNACK(ctx, away, s)
}

// allAre is nil when for a while all requests of a load were answered in one region.
func (t *story) allAre(l *load, at site) error {
	during := l.since(time.Now().Add(-quiet))
	if during.total < shareSample/4 {
		return fmt.Errorf("%d requests so far", during.total)
	}
	for id := range during.by {
		if !slices.Contains(at.upstreams, id) {
			return fmt.Errorf("%s has answered", id)
		}
	}
	return during.noFailure()
}

// killHome kills whoever serves in a: b does, and those who call in b notice nothing.
func (t *story) killHome(ctx context.Context, s *step) error {
	begin := time.Now()
	for _, id := range home.upstreams {
		if err := t.kill(id); err != nil {
			return err
		}
	}
	after, err := t.recovers(ctx, s, begin)
	if err != nil {
		return err
	}
	serves := left(after, begin)
	for _, id := range away.upstreams {
		if first, ok := after.first[id]; ok {
			serves = max(serves, first.Sub(begin))
		}
	}
	s.took("to_first_request_in_b", serves)
	s.Detail = fmt.Sprintf("b serves after %s, %d of %d requests failed (in flight)", ms(serves), after.failed, after.total)
	if _, err := process.Within(ctx, reachTime, "all requests to be answered in b", func() error { return t.allAre(t.load, away) }); err != nil {
		return err
	}
	return t.away.since(begin).noFailure()
}

// cutRegions cuts the link. The copy of b stays, and what b is told now does not reach a.
func (t *story) cutRegions(ctx context.Context, s *step) error {
	begin := time.Now()
	t.cut(true)
	if _, err := t.register(ctx, "orders-b2", told); err != nil {
		return err
	}
	during, err := t.servesOn(ctx, s, begin)
	s.Detail = fmt.Sprintf("b serves on: %d requests, %d failed", during.total, during.failed)
	if err == nil && t.hasHeard(ctx) == nil {
		err = errors.New("a knows what b was told since the cut")
	}
	return err
}

// hasHeard is nil when a knows what b was told during the cut.
func (t *story) hasHeard(ctx context.Context) error {
	status, answer, err := t.get(ctx, fmt.Sprintf("%s/api/v2/namespaces/%s/services/%s/instances?region=%s", t.server(home), namespace, service, away.region))
	if err == nil && (status != http.StatusOK || !strings.Contains(string(answer), told)) {
		err = fmt.Errorf("a says %d: %.300s", status, answer)
	}
	return err
}

func (t *story) healRegions(ctx context.Context, s *step) error {
	begin := time.Now()
	t.cut(false)
	took, err := process.Within(ctx, reachTime, "a to know what b was told meanwhile", func() error { return t.hasHeard(ctx) })
	if err != nil {
		return err
	}
	during := t.load.since(begin)
	t.count(s, during)
	s.took("to_agree", took)
	s.Detail = fmt.Sprintf("a has what it had missed after %s; %d requests, %d failed", ms(took), during.total, during.failed)
	return during.noFailure()
}

// returnHome starts what was killed in a: all who call there come home, and none fails.
func (t *story) returnHome(ctx context.Context, s *step) error {
	begin := time.Now()
	for _, id := range home.upstreams {
		if err := t.revive(ctx, id); err != nil {
			return err
		}
	}
	if _, err := process.Within(ctx, homeTime, "all requests to be answered in a", func() error { return t.allAre(t.load, home) }); err != nil {
		return err
	}
	after := t.load.since(begin)
	took := time.Duration(0)
	for _, id := range away.upstreams {
		took = max(took, after.last[id].Sub(begin))
	}
	t.count(s, after)
	s.took("to_last_request_in_b", took)
	s.Detail = fmt.Sprintf("all traffic home after %s; %d requests, %d failed", ms(took), after.total, after.failed)
	return errors.Join(after.noFailure(), t.away.since(begin).noFailure())
}

// revive starts an upstream again, which registers.
func (t *story) revive(ctx context.Context, id string) error {
	if err := t.startUpstream(ctx, id); err != nil {
		return err
	}
	_, err := t.join(ctx, id)
	return err
}

// blackOut kills the whole control plane of a.
func (t *story) blackOut(ctx context.Context, s *step) error {
	begin := time.Now()
	if err := t.processes[home.daemon()].Kill(); err != nil {
		return err
	}
	during, err := t.servesOn(ctx, s, begin)
	s.Detail = fmt.Sprintf("its Envoy goes on: %d requests, %d failed", during.total, during.failed)
	return errors.Join(err, t.away.since(begin).noFailure())
}

// comeBack starts all of a, and both Envoys have what they had.
func (t *story) comeBack(ctx context.Context, s *step) error {
	if err := t.startDaemon(ctx, home); err != nil {
		return err
	}
	if err := t.returnHome(ctx, s); err != nil {
		return err
	}
	for _, at := range sites {
		if _, err := process.Within(ctx, reachTime, "all upstreams in "+at.envoy(), func() error { return t.envoyHas(ctx, at, everybody) }); err != nil {
			return err
		}
		if err := t.noNACK(ctx, at, s); err != nil {
			return err
		}
	}
	return nil
}
