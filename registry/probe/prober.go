package probe

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/internal/threads"
	"github.com/stellmap/stellmap/registry"
)

// A Prober makes this member's share of the checks.
type Prober struct {
	Config
	metrics *metrics

	// These belong to the goroutine that ticks.
	members  []uint64 // that share the checks; none = not known yet
	watch    *registry.Watch
	watched  map[registry.InstanceKey]*watched
	queue    queue
	inFlight int
	untold   []*target // what is said of them may have to change
	tries    threads.Crew

	wake chan struct{} // holds one token while changes wait

	mu       sync.Mutex // guards what follows
	checkers []uint64   // as the leader told last
	outcomes []outcome
	changes  []change // each target has one at most
	said     []*target
	unsaid   []*target // whose change did not pass
}

// Config is what a prober needs.
type Config struct {
	Registry   Registry          // required
	Machine    *registry.Machine // required
	Member     uint64            // this one's id
	Rules      Rules
	Roots      *x509.CertPool        // whose certificates are good; nil = the system's
	InFlight   int                   // tries at a time; 0 = InFlightDefault
	HalfLife   time.Duration         // of what a check is charged with for flapping; 0 = HalfLife
	Clock      registry.Clock        // nil = the system's
	Threads    threads.Threads       // nil = goroutines
	Random     *rand.Rand            // required; spreads the tries
	Try        Try                   // nil = over the network
	Logger     *slog.Logger          // nil = none
	Registerer prometheus.Registerer // nil = none
}

// A Registry is what a prober needs of one.
type Registry interface {
	// Checkers says that a member makes checks, and tells who does; nobody when that is not known yet.
	Checkers(ctx context.Context, member uint64) ([]uint64, error)
	SetConditions(ctx context.Context, changes []registry.ConditionChange) ([]registry.ConditionOutcome, registry.Revision, error)
}

// A Try makes a check once. The context has its time-out.
type Try func(ctx context.Context, check registry.Check, endpoint registry.Endpoint) Outcome

// How the prober goes about it.
const (
	InFlightDefault = 512
	tick            = 100 * time.Millisecond
	askEvery        = 500 * time.Millisecond
	callTimeout     = time.Second // for a question or a command
	sayRetry        = time.Second // after a command that did not pass
	lateAfter       = time.Second // a try that begins so long after its time is counted as late
	jitter          = 0.1         // of the interval, more or less
	promptly        = time.Second // what is new is tried within this
)

// watched is an instance of this member's share.
type watched struct{ targets []*target }

type outcome struct {
	target *target
	Outcome
}

type change struct {
	target *target
	registry.ConditionChange
}

// New makes a prober, which waits for Run.
func New(c Config) (*Prober, error) {
	if c.InFlight == 0 {
		c.InFlight = InFlightDefault
	}
	if c.HalfLife == 0 {
		c.HalfLife = HalfLife
	}
	if c.Clock == nil {
		c.Clock = registry.SystemClock{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Prober{Config: c, metrics: newMetrics(), watched: make(map[registry.InstanceKey]*watched), wake: make(chan struct{}, 1)}
	p.tries.Threads = c.Threads
	if p.Try == nil {
		p.Try = newNetwork(c.Rules, c.Roots, p.metrics.denied).try
	}
	if err := p.metrics.register(c.Registerer); err != nil {
		return nil, fmt.Errorf("register the metrics of checks: %w", err)
	}
	return p, nil
}

// Run makes checks until the context ends, and returns nil when all tries have ended.
func (p *Prober) Run(ctx context.Context) error {
	loops := threads.Crew{Threads: p.Threads}
	loops.Run("checkers", func() { p.askLoop(ctx) })
	loops.Run("say", func() { p.sayLoop(ctx) })
	loops.Run("check", func() { p.checkLoop(ctx) })
	loops.Wait()
	return nil
}

// askLoop keeps this member on the leader's rota. Without an answer the share
// stays as it is: where nobody leads nothing can be said of anybody either.
func (p *Prober) askLoop(ctx context.Context) {
	ticks, stop := p.Clock.Ticker(askEvery)
	defer stop()
	for threads.Next(ctx, p.Threads, ticks) {
		p.ask(ctx)
	}
}

func (p *Prober) ask(ctx context.Context) {
	ctx, cancel := threads.WithTimeout(ctx, p.Threads, callTimeout)
	defer cancel()
	members, err := p.Registry.Checkers(ctx, p.Member)
	if err != nil || len(members) == 0 {
		return // there is no leader, or it does not know yet
	}
	p.mu.Lock()
	p.checkers = members
	p.mu.Unlock()
}

func (p *Prober) checkLoop(ctx context.Context) {
	ticks, stop := p.Clock.Ticker(tick)
	defer stop()
	for threads.Next(ctx, p.Threads, ticks) {
		p.tick(ctx)
	}
	p.tries.Wait()
}

// tick does what has come up: news, what tries have shown, what is to be said, and what is due.
func (p *Prober) tick(ctx context.Context) {
	now := p.Clock.Now()
	p.follow(now)
	p.collect(now)
	p.tell(now)
	p.begin(ctx, now)
}

// follow catches up with who shares the checks, and with the instances.
func (p *Prober) follow(now time.Time) {
	p.mu.Lock()
	members := p.checkers
	p.mu.Unlock()
	if len(members) == 0 {
		return
	}
	if !slices.Equal(members, p.members) {
		p.Logger.Info("the checks are shared anew", "members", members, "were", p.members)
		p.members = members
		p.metrics.members.Set(float64(len(members)))
		p.readAll(now)
		return
	}
	for {
		batch, more, err := p.watch.Poll()
		if err != nil { // fallen behind the events that are kept
			p.readAll(now)
			return
		}
		if !more {
			return
		}
		for i := range batch.Events {
			p.hear(&batch.Events[i], now)
		}
	}
}

func (p *Prober) hear(e *registry.Event, now time.Time) {
	switch {
	case e.Instance != nil && (len(e.Instance.Checks()) > 0 || e.Previous != nil && len(e.Previous.Checks()) > 0):
		p.look(e.Instance.Key(), e.Instance, now, promptly)
	case e.Instance == nil && e.Previous != nil && len(e.Previous.Checks()) > 0:
		p.look(e.Previous.Key(), nil, now, promptly)
	}
}

// readAll looks at every instance with checks. What is this member's since another
// has gone is spread over the interval.
func (p *Prober) readAll(now time.Time) {
	p.watch = p.Machine.Watch(p.Machine.Revision())
	old := p.watched
	p.watched = make(map[registry.InstanceKey]*watched, len(old))
	for _, i := range p.Machine.Checked() {
		k := i.Key()
		if w := old[k]; w != nil {
			p.watched[k] = w
			delete(old, k)
		}
		p.look(k, i, now, 0)
	}
	for _, w := range old {
		p.drop(w.targets)
	}
}

// look brings the targets of an instance up to date; nil says that it is gone. New
// ones are tried within a time, or 0 for their interval.
func (p *Prober) look(k registry.InstanceKey, i *registry.Instance, now time.Time, within time.Duration) {
	w := p.watched[k]
	if i == nil || i.ExpiredAt != 0 || len(i.Checks()) == 0 || ownerOf(k, p.members) != p.Member {
		if w != nil {
			p.drop(w.targets)
			delete(p.watched, k)
		}
		return
	}
	if w == nil {
		w = &watched{}
		p.watched[k] = w
	}
	var targets []*target
	for _, check := range i.Checks() {
		at := slices.IndexFunc(w.targets, func(t *target) bool { return t.same(i, check) })
		if at >= 0 {
			targets = append(targets, w.targets[at])
			w.targets = slices.Delete(w.targets, at, at+1)
			continue
		}
		t := newTarget(i, check, now, p.HalfLife)
		spread := check.Interval()
		if within != 0 {
			spread = min(spread, within)
		}
		p.push(t, now.Add(time.Duration(p.Random.Float64()*float64(spread))))
		targets = append(targets, t)
		p.metrics.targets.Inc()
	}
	p.drop(w.targets)
	w.targets = targets
}

// drop lets go of targets. A try of one that is on its way counts for nothing.
func (p *Prober) drop(targets []*target) {
	for _, t := range targets {
		t.gone = true
		p.remove(t)
		p.metrics.targets.Dec()
		if t.heldKnown {
			p.metrics.held.Dec()
		}
	}
}

// collect takes what tries and commands have come to since the last tick.
func (p *Prober) collect(now time.Time) {
	p.mu.Lock()
	outcomes, said, unsaid := p.outcomes, p.said, p.unsaid
	p.outcomes, p.said, p.unsaid = nil, nil, nil
	p.mu.Unlock()
	for _, o := range outcomes {
		p.inFlight--
		o.target.trying = false
		p.metrics.tries.WithLabelValues(o.target.check.Kind, o.Status.String()).Inc()
		if !o.target.gone {
			p.take(o, now)
		}
	}
	for _, t := range said {
		t.saying = false
		p.doubt(t) // it may have been seen otherwise, or have changed meanwhile
	}
	for _, t := range unsaid {
		t.saying, t.sayAfter = false, now.Add(sayRetry)
		p.doubt(t)
	}
	p.metrics.inFlight.Set(float64(p.inFlight))
}

func (p *Prober) take(o outcome, now time.Time) {
	t := o.target
	t.observe(o.Outcome, now, p.HalfLife)
	p.noteHeld(t)
	next := t.due.Add(time.Duration((1 - jitter + 2*jitter*p.Random.Float64()) * float64(t.check.Interval())))
	if next.Before(now) {
		next = now
	}
	p.push(t, next)
	p.doubt(t)
}

// noteHeld tells of a hold that has begun or ended.
func (p *Prober) noteHeld(t *target) {
	if t.flaps.held == t.heldKnown {
		return
	}
	t.heldKnown = t.flaps.held
	if !t.heldKnown {
		p.metrics.held.Dec()
		p.Logger.Info("a check that flapped is believed again", "namespace", t.key.Namespace, "service", t.key.Service, "instance", t.key.ID, "check", t.check.Name)
		return
	}
	p.metrics.held.Inc()
	p.metrics.heldTotal.Inc()
	p.Logger.Warn("a check flaps and is held", "namespace", t.key.Namespace, "service", t.key.Service, "instance", t.key.ID, "check", t.check.Name, "until", t.flaps.until(p.HalfLife))
}

// doubt has the next look at a target find out whether what is said of it is right.
func (p *Prober) doubt(t *target) {
	if t.told && !t.saying {
		t.told = false
		p.untold = append(p.untold, t)
	}
}

// tell hands on what has to be said of instances. What is there already, by
// whomever it was said, is not said again.
func (p *Prober) tell(now time.Time) {
	var later []*target
	for _, t := range p.untold {
		if now.Before(t.sayAfter) && !t.gone {
			later = append(later, t)
			continue
		}
		t.told = true
		i := p.Machine.Instance(t.key)
		if t.gone || i == nil || !slices.ContainsFunc(i.Checks(), func(c registry.Check) bool { return t.same(i, c) }) {
			continue // an event says so, or will
		}
		want, wanted := t.condition(now, p.HalfLife)
		p.noteHeld(t)
		want.By = fmt.Sprint("member ", p.Member)
		if !differs(want, wanted, i, now) {
			continue
		}
		t.saying = true
		p.say(change{t, registry.ConditionChange{Key: t.key, Condition: want, Clear: !wanted, Lease: i.Lease, Seen: seen(i, t.check.Name)}})
	}
	p.untold = later
}

// seen is what a check says of an instance so far.
func seen(i *registry.Instance, check string) registry.Status {
	if c, said := i.Condition(registry.SourceCheck, check); said {
		return c.Status
	}
	return registry.StatusPassing
}

func (p *Prober) say(c change) {
	p.mu.Lock()
	p.changes = append(p.changes, c)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // a token is there already
	}
}

// sayLoop has changes committed, those together that have come up meanwhile.
func (p *Prober) sayLoop(ctx context.Context) {
	for threads.Next(ctx, p.Threads, p.wake) {
		for ctx.Err() == nil {
			batch := p.nextChanges()
			if len(batch) == 0 {
				break
			}
			p.commit(ctx, batch)
		}
	}
}

func (p *Prober) nextChanges() []change {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.changes), registry.ConditionsPerCommand)
	batch := p.changes[:n:n]
	p.changes = p.changes[n:]
	return batch
}

func (p *Prober) commit(ctx context.Context, batch []change) {
	changes, targets := make([]registry.ConditionChange, len(batch)), make([]*target, len(batch))
	for i, c := range batch {
		changes[i], targets[i] = c.ConditionChange, c.target
	}
	calling, cancel := threads.WithTimeout(ctx, p.Threads, callTimeout)
	defer cancel()
	outcomes, _, err := p.Registry.SetConditions(calling, changes)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.report(err)
		p.unsaid = append(p.unsaid, targets...)
		return
	}
	for i, o := range outcomes {
		if o == registry.ConditionDone {
			p.metrics.transition(&changes[i])
		}
	}
	p.said = append(p.said, targets...)
}

// report logs why what was found could not be said. Not having a leader and stopping are no news.
func (p *Prober) report(err error) {
	if errors.Is(err, registry.ErrNoLeader) || errors.Is(err, registry.ErrStopping) || errors.Is(err, context.Canceled) {
		return
	}
	p.Logger.Warn("what checks have found could not be committed; it is tried again", "error", err)
}

// begin makes the tries that are due, as many at a time as there may be. The rest
// wait in the order of their times.
func (p *Prober) begin(ctx context.Context, now time.Time) {
	for len(p.queue) > 0 && !p.queue[0].due.After(now) && p.inFlight < p.InFlight {
		t := p.pop()
		if late := now.Sub(t.due); late > lateAfter {
			p.metrics.late.Inc()
			t.due = now // else what could not be done in time would be made up for
		}
		t.trying = true
		p.inFlight++
		p.tries.Run("try", func() { p.try(ctx, t, t.check, t.endpoint) })
	}
	lag := time.Duration(0)
	if len(p.queue) > 0 {
		lag = max(0, now.Sub(p.queue[0].due))
	}
	p.metrics.lag.Set(lag.Seconds())
	p.metrics.inFlight.Set(float64(p.inFlight))
}

func (p *Prober) try(ctx context.Context, t *target, check registry.Check, endpoint registry.Endpoint) {
	trying, cancel := threads.WithTimeout(ctx, p.Threads, check.Timeout())
	defer cancel()
	o := p.Try(trying, check, endpoint)
	o.Reason = clean(o.Reason)
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() == nil { // what ends with this member says nothing of anybody
		p.outcomes = append(p.outcomes, outcome{t, o})
	}
}
