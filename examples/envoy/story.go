package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// What the story asks for.
const (
	reachTime   = 15 * time.Second // for a change to show in the traffic: not a target, a limit for waiting. An Envoy may pause for 5 s before it comes back
	leaveMax    = 2 * time.Second  // for the traffic to leave a killed upstream
	quiet       = time.Second      // of load without the thing that must not happen
	expiryMax   = 2 * leaseTTL     // for a lease to run out after its last renewal
	shareSample = 200              // requests that a share is counted in
	shareMin    = 15               // percent that each of two or three must get
)

// story is the demo in the middle of being told.
type story struct {
	*scene
	load   *load                     // of those who call in a
	away   *load                     // of those who call in b
	keeps  map[string]func()         // stop the renewals, by instance
	killed time.Time                 // when orders-2 was
	kept   map[string]map[string]any // what the registry had before it was killed
}

// tell tells the story.
func tell(ctx context.Context, s *scene, r *report) error {
	t := &story{scene: s, keeps: make(map[string]func())}
	steps := []struct {
		name, says string
		do         func(context.Context, *step) error
	}{
		{"register", "orders-1, orders-2 registered over HTTP", t.registerTwo},
		{"configure", "Envoy configured over ADS", t.configureEnvoy},
		{"request", "requests through Envoy", t.requests},
		{"add", "orders-3 added", t.addThird},
		{"kill", "orders-2 killed with -9", t.killSecond},
		{"expire", "its lease runs out", t.leaseRunsOut},
		{"deregister", "orders-3 deregistered", t.deregisterThird},
		{"outage", "stellmapd killed with -9", t.killDaemon},
		{"restart", "stellmapd started again", t.restartDaemon},
		{"change", "orders-3 registered again", t.registerAgain},
		{"region", "orders-b1, orders-b2 and an Envoy in region b", t.openAway},
		{"failover", "all upstreams of a killed with -9", t.killHome},
		{"cut", "the regions cut off from each other", t.cutRegions},
		{"heal", "healed", t.healRegions},
		{"home", "the upstreams of a started again", t.returnHome},
		{"blackout", "stellmapd of a killed with -9", t.blackOut},
		{"alone", "and then all upstreams of a", t.killHome},
		{"back", "all of a started again", t.comeBack},
	}
	for _, one := range steps {
		if err := r.show(len(steps), one.name, one.says, func(s *step) error { return one.do(ctx, s) }); err != nil {
			return t.withRenewals(err)
		}
	}
	return nil
}

// withRenewals adds what may explain a failure.
func (t *story) withRenewals(err error) error {
	if n, last := t.renewals.read(); n > 0 {
		return errors.Join(err, fmt.Errorf("besides, %d renewals did not work, the last: %s", n, last))
	}
	return err
}

// join registers an upstream and renews its lease from then on.
func (t *story) join(ctx context.Context, id string) (time.Duration, error) {
	took, err := t.register(ctx, id, id)
	if err != nil {
		return 0, err
	}
	stop := t.keep(ctx, id)
	t.keeps[id] = stop
	t.stops = append(t.stops, stop)
	return took, nil
}

func (t *story) registerTwo(ctx context.Context, s *step) error {
	var said []string
	for _, id := range []string{"orders-1", "orders-2"} {
		took, err := t.join(ctx, id)
		if err != nil {
			return err
		}
		s.took(id, took)
		said = append(said, ms(took))
	}
	s.counted("instances", 2)
	s.Detail = fmt.Sprintf("%s; synced, leases of %v", strings.Join(said, " and "), leaseTTL)
	return nil
}

func (t *story) configureEnvoy(ctx context.Context, s *step) error {
	begin := time.Now()
	if err := t.startEnvoy(ctx, home); err != nil {
		return err
	}
	ready := time.Since(begin)
	if _, err := process.Within(ctx, reachTime, "Envoy to have both endpoints", func() error {
		return t.envoyHas(ctx, home, map[string]string{"orders-1": "HEALTHY", "orders-2": "HEALTHY"})
	}); err != nil {
		return err
	}
	if err := t.routes(ctx, home); err != nil {
		return err
	}
	s.took("start_to_ready", ready)
	s.took("start_to_routing", time.Since(begin))
	return t.noNACK(ctx, home, s)
}

// routes waits until a region's Envoy takes requests.
func (t *story) routes(ctx context.Context, at site) error {
	_, err := process.Within(ctx, reachTime, "the listener of "+at.envoy(), func() error {
		_, fault := newLoad(t.egress(at)).ask()
		if fault != "" {
			return errors.New(fault)
		}
		return nil
	})
	return err
}

// noNACK fails when a region's Envoy has rejected anything.
func (t *story) noNACK(ctx context.Context, at site, s *step) error {
	taken, rejected, err := t.admin(at).Updates(ctx)
	if err != nil {
		return err
	}
	s.counted("updates", taken)
	s.counted("rejected", rejected)
	if s.Detail == "" {
		s.Detail = fmt.Sprintf("validated, ready and routing in %.0f ms; %d updates, %d rejected", s.Millis["start_to_routing"], taken, rejected)
	}
	if rejected > 0 || taken == 0 {
		return fmt.Errorf("the Envoy took %d updates and rejected %d", taken, rejected)
	}
	return nil
}

// envoyHas compares the health of the service's endpoints in a region's Envoy, by instance.
func (t *story) envoyHas(ctx context.Context, at site, want map[string]string) error {
	config, err := t.admin(at).Config(ctx)
	if err != nil {
		return err
	}
	have := config.Endpoints[host]
	wanted := make(map[string]string)
	for id, health := range want {
		wanted[fmt.Sprintf("127.0.0.1:%d", t.ports[id])] = health
	}
	if !maps.Equal(have, wanted) {
		return fmt.Errorf("%s has %v, not %v", at.envoy(), have, wanted)
	}
	return nil
}

func (t *story) requests(ctx context.Context, s *step) error {
	begin := time.Now()
	t.load = t.startLoad(ctx, home)
	return t.shared(ctx, s, begin, "orders-1", "orders-2")
}

// shared waits for a sample of requests and checks that each got its share.
func (t *story) shared(ctx context.Context, s *step, from time.Time, ids ...string) error {
	var sample tally
	if _, err := process.Within(ctx, reachTime, fmt.Sprintf("%d requests", shareSample), func() error {
		sample = t.load.since(from)
		if sample.total < shareSample {
			return fmt.Errorf("%d so far", sample.total)
		}
		return nil
	}); err != nil {
		return err
	}
	t.count(s, sample)
	if s.Detail != "" {
		s.Detail += "; "
	}
	s.Detail += fmt.Sprintf("of %d requests: %s", sample.total, sample.shares())
	for _, id := range ids {
		if sample.by[id]*100 < shareMin*sample.total {
			return fmt.Errorf("%s answered %d of %d requests, less than %d %%", id, sample.by[id], sample.total, shareMin)
		}
	}
	return sample.noFailure()
}

func (t *story) count(s *step, sample tally) {
	s.counted("requests", sample.total)
	s.counted("failed", sample.failed)
	for id, n := range sample.by {
		s.counted(id, n)
	}
}

func (t *story) addThird(ctx context.Context, s *step) error {
	return t.joinAndServe(ctx, s, "orders-3", "orders-1", "orders-2", "orders-3")
}

// joinAndServe registers an upstream, waits for its first answer and counts shares.
func (t *story) joinAndServe(ctx context.Context, s *step, id string, serving ...string) error {
	begin := time.Now()
	took, err := t.join(ctx, id)
	if err != nil {
		return err
	}
	s.took("register", took)
	var first time.Time
	if _, err := process.Within(ctx, reachTime, "an answer of "+id, func() error {
		var ok bool
		if first, ok = t.load.since(begin).first[id]; !ok {
			return errors.New("none yet")
		}
		return nil
	}); err != nil {
		return err
	}
	s.took("to_first_request", first.Sub(begin))
	s.Detail = fmt.Sprintf("its first request after %s", ms(first.Sub(begin)))
	return t.shared(ctx, s, time.Now(), serving...)
}

func (t *story) killSecond(ctx context.Context, s *step) error {
	t.killed = time.Now()
	if err := t.kill("orders-2"); err != nil {
		return err
	}
	after, err := t.recovers(ctx, s, t.killed)
	if err != nil {
		return err
	}
	s.Detail = fmt.Sprintf("traffic left after %s, %d of %d requests failed (in flight)", ms(left(after, t.killed)), after.failed, after.total)
	return nil
}

// kill ends an upstream. The dead renew nothing.
func (t *story) kill(id string) error {
	err := t.processes[id].Kill()
	t.keeps[id]()
	return err
}

// left is how long it took from a moment until traffic left what failed then.
func left(after tally, moment time.Time) time.Duration { return max(0, after.lastFailed.Sub(moment)) }

// recovers waits until requests of those who call in a do not fail any more, which
// they did from a moment on.
func (t *story) recovers(ctx context.Context, s *step, moment time.Time) (after tally, err error) {
	if _, err := process.Within(ctx, reachTime, "the failures to end", func() error {
		after = t.load.since(moment)
		return quietSince(moment, after.lastFailed)
	}); err != nil {
		return after, fmt.Errorf("%w: %w", err, after.noFailure())
	}
	s.took("to_last_failed_request", left(after, moment))
	t.count(s, after)
	if failed := left(after, moment); failed > leaveMax {
		return after, fmt.Errorf("requests failed for %v, allowed are %v", failed, leaveMax)
	}
	return after, nil
}

// quietSince is nil once nothing has happened for a while.
func quietSince(begin, last time.Time) error {
	if last.Before(begin) {
		last = begin
	}
	if since := time.Since(last); since < quiet {
		return fmt.Errorf("the last was %v ago", since)
	}
	return nil
}

func (t *story) leaseRunsOut(ctx context.Context, s *step) error {
	from := time.Now()
	if _, err := process.Within(ctx, expiryMax+reachTime, "EDS to show orders-2 as UNHEALTHY", func() error {
		return t.envoyHas(ctx, home, map[string]string{"orders-1": "HEALTHY", "orders-2": "UNHEALTHY", "orders-3": "HEALTHY"})
	}); err != nil {
		return err
	}
	took := time.Since(t.killed)
	s.took("kill_to_unhealthy", took)
	during := t.load.since(from)
	t.count(s, during)
	s.Detail = fmt.Sprintf("UNHEALTHY in EDS %s after the kill; %d requests, %d failed", ms(took), during.total, during.failed)
	if took > expiryMax {
		return fmt.Errorf("the lease of %v ran out %v after the kill, later than %v", leaseTTL, took, expiryMax)
	}
	return during.noFailure()
}

func (t *story) deregisterThird(ctx context.Context, s *step) error {
	t.keeps["orders-3"]()
	begin := time.Now()
	took, err := t.deregister(ctx, "orders-3")
	if err != nil {
		return err
	}
	var during tally
	if _, err := process.Within(ctx, reachTime, "the traffic to leave orders-3", func() error {
		during = t.load.since(begin)
		return quietSince(begin, during.last["orders-3"])
	}); err != nil {
		return err
	}
	left := max(0, during.last["orders-3"].Sub(begin))
	s.took("deregister", took)
	s.took("to_last_request", left)
	t.count(s, during)
	s.Detail = fmt.Sprintf("its last request after %s; %d requests, %d failed", ms(left), during.total, during.failed)
	return during.noFailure()
}

func (t *story) killDaemon(ctx context.Context, s *step) (err error) {
	if t.kept, err = t.snapshot(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if err := t.processes[home.daemon()].Kill(); err != nil {
		return err
	}
	during, err := t.servesOn(ctx, s, begin)
	s.Detail = fmt.Sprintf("Envoy serves on: %d requests, %d failed", during.total, during.failed)
	return err
}

// servesOn waits for a while from a moment on in which no request of those who call in a
// may fail.
func (t *story) servesOn(ctx context.Context, s *step, moment time.Time) (during tally, err error) {
	if _, err := process.Within(ctx, reachTime, "requests", func() error {
		during = t.load.since(moment)
		return quietSince(moment, moment)
	}); err != nil {
		return during, err
	}
	t.count(s, during)
	if during.total == 0 {
		return during, errors.New("no request was sent meanwhile")
	}
	return during, during.noFailure()
}

// snapshot is what the registry has of each upstream, without what renewals change.
func (t *story) snapshot(ctx context.Context) (map[string]map[string]any, error) {
	all := make(map[string]map[string]any)
	for _, id := range []string{"orders-1", "orders-2", "orders-3"} {
		found, err := t.registered(ctx, id)
		if err != nil {
			return nil, err
		}
		for key := range found {
			if strings.HasPrefix(key, "lastHeartbeat") {
				delete(found, key)
			}
		}
		all[id] = found
	}
	return all, nil
}

func (t *story) restartDaemon(ctx context.Context, s *step) error {
	begin := time.Now()
	if err := t.startDaemon(ctx, home); err != nil {
		return err
	}
	took := time.Since(begin)
	now, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	s.took("start_to_ready", took)
	s.counted("kept", len(slices.DeleteFunc(slices.Collect(maps.Values(now)), func(m map[string]any) bool { return m == nil })))
	s.Detail = fmt.Sprintf("ready in %s, registrations as before", ms(took))
	if now["orders-1"] == nil || now["orders-2"] == nil || now["orders-3"] != nil {
		return fmt.Errorf("orders-1 and orders-2 should be there, orders-3 gone: %v", now)
	}
	if !reflect.DeepEqual(now, t.kept) {
		return fmt.Errorf("the registry had %v and has %v", t.kept, now)
	}
	if replayed := t.replayed(); replayed != "" {
		s.Detail += "; " + replayed
		return nil
	}
	return errors.New("the start does not say what it replayed")
}

// replayed is what the daemon's banner says about the log.
func (t *story) replayed() string {
	for line := range strings.Lines(t.processes[home.daemon()].Output()) {
		if at := strings.Index(line, "replayed "); at >= 0 {
			return strings.TrimSpace(line[at:])
		}
	}
	return ""
}

func (t *story) registerAgain(ctx context.Context, s *step) error {
	if err := t.joinAndServe(ctx, s, "orders-3", "orders-1", "orders-3"); err != nil {
		return err
	}
	if err := t.envoyHas(ctx, home, map[string]string{"orders-1": "HEALTHY", "orders-2": "UNHEALTHY", "orders-3": "HEALTHY"}); err != nil {
		return err
	}
	return t.noNACK(ctx, home, s)
}
