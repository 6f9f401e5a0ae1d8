package registry

import (
	"context"
	"slices"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/threads"
)

// How often and how much the leader tells (see checkpoint.go).
const (
	checkpointEvery      = 2 * time.Second
	checkpointQuiet      = 10 * time.Second // when there is nothing to tell but that time goes by
	checkpointBytesMax   = 64 << 10         // of numbers in one; the rest is told by the next
	checkpointOverdueMax = int(checkpointEvery / expiryCost)
	// overdueShare of its TTL before a lease ends it is overdue: a holder that
	// renews three times in it and has lost one answer is not.
	overdueShare = 4
)

// An unspoken is what a leader has to tell with the next checkpoint.
type unspoken struct {
	asOf   Revision      // what the leases are followed up to
	told   time.Duration // in lease time: when it was told last
	heard  []uint64      // a bit for each number that was renewed since
	next   int           // where in it the next checkpoint begins
	silent []*lease      // that may be overdue
	brisk  time.Duration // in lease time: until when time that goes by is news, since some are overdue
}

// A telling is a checkpoint on its way.
type telling struct {
	term    uint64
	command *recordv1.Checkpoint
	overdue []*lease
}

// hear notes that a lease has been renewed.
func (l *leases) hear(one *lease) {
	number := one.instance.Number
	if number == 0 {
		return
	}
	for int(number/64) >= len(l.unspoken.heard) {
		l.unspoken.heard = append(l.unspoken.heard, 0)
	}
	l.unspoken.heard[number/64] |= 1 << (number % 64)
}

func (l *leases) isHeard(number uint32) bool {
	return int(number/64) < len(l.unspoken.heard) && l.unspoken.heard[number/64]&(1<<(number%64)) != 0
}

// overdueAt is when a lease that is not renewed is overdue.
func (one *lease) overdueAt() time.Duration {
	if one.inherited {
		return one.queued
	}
	return one.deadline - one.instance.LeaseTTL/overdueShare
}

// silent says that a lease which has come up has not been renewed since.
func (one *lease) silent(now time.Duration) bool {
	return one.overdue || one.inherited || one.overdueAt() <= now
}

// hurry has the leader tell every few seconds how a lease that is overdue gets
// on, for a while: what it has not told, the next leader adds.
func (l *leases) hurry(one *lease, now time.Duration) {
	l.unspoken.brisk = max(l.unspoken.brisk, min(one.deadline, now+checkpointQuiet))
}

// inherit gives a lease that was there before this leader what checkpoints leave
// of it: its full TTL, or, when it is overdue, what is left of that. And for one
// that has been silent for long it has less patience.
func (l *leases) inherit(one *lease, said *toldLeases) {
	t := said.of(one.instance)
	silent, ttl := said.silent(t), stretched(one.instance.LeaseTTL, said.honoured)
	one.deadline += ttl - one.instance.LeaseTTL
	switch {
	case t.overdue():
		one.overdue = true
		one.deadline -= min(silent, ttl)
		one.queued = one.deadline
		l.hurry(one, l.seen)
	case t.heard == 0:
		l.hear(one) // it may have been, and shall have a beginning
		one.queued = one.overdueAt()
	default:
		one.queued = l.seen + max(ttl*3/8, ttl-ttl/overdueShare-silent) // in time are those who renew within a third
		one.inherited = true
	}
}

// look sees to a lease that has come up before its end.
func (l *leases) look(one *lease, now time.Duration) {
	switch at := one.overdueAt(); {
	case at > now:
		l.enqueue(one, at)
		return
	case !one.overdue && !one.listed && one.instance.Number != 0:
		one.listed = true
		l.unspoken.silent = append(l.unspoken.silent, one)
	}
	l.enqueue(one, one.deadline)
}

// tell takes what there is to tell, if it is time to; nil when it is not. From
// now on the leases that are told to be overdue are renewed through the log.
func (l *leases) tell() *telling {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 || l.held == 0 {
		return nil
	}
	now, u := l.clock(), &l.unspoken
	news := len(u.silent) > 0 || u.brisk > now || slices.ContainsFunc(u.heard, func(w uint64) bool { return w != 0 })
	since := now - u.told
	if since < checkpointEvery || !news && since < checkpointQuiet {
		return nil
	}
	u.told = now
	t := &telling{term: l.term, command: &recordv1.Checkpoint{Term: l.term, AsOf: uint64(u.asOf), ReignMs: now.Milliseconds()}}
	t.command.Stretch, t.command.Honoured = l.stretch.decide(now, since)
	t.overdue = l.takeOverdue(now)
	t.command.Overdue = numbersFrom(setOf(t.overdue), new(int), checkpointBytesMax)
	t.command.Heard = numbersFrom(u.heard, &u.next, l.tellBytes)
	return t
}

// takeOverdue takes the leases that are overdue by now. Those whose last renewal
// has not been told yet wait for that: else they would seem to be silent for longer.
func (l *leases) takeOverdue(now time.Duration) []*lease {
	var out, rest []*lease
	for _, one := range l.unspoken.silent {
		switch {
		case one.index < 0 || one.expiring || !one.silent(now): // gone, or heard of
			one.listed = false
		case len(out) == checkpointOverdueMax || l.isHeard(one.instance.Number):
			rest = append(rest, one)
		default:
			one.listed = false
			one.overdue = true
			l.hurry(one, now)
			out = append(out, one)
		}
	}
	l.unspoken.silent = rest
	return out
}

// untold takes a checkpoint back of which nobody knows whether it counts. What it
// told to be overdue stays so.
func (l *leases) untold(t *telling) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != t.term {
		return
	}
	for n := range numbersOf(t.command.GetHeard()) {
		l.unspoken.heard[n/64] |= 1 << (n % 64)
	}
	for _, one := range t.overdue {
		if one.overdue && !one.listed {
			one.listed = true
			l.unspoken.silent = append(l.unspoken.silent, one)
		}
	}
}

func setOf(some []*lease) []uint64 {
	var set []uint64
	for _, one := range some {
		number := one.instance.Number
		for int(number/64) >= len(set) {
			set = append(set, 0)
		}
		set[number/64] |= 1 << (number % 64)
	}
	return set
}

// numbersFrom takes numbers out of a set, from a place in it on and round, as many
// as fit, and moves the place to where the rest begins.
func numbersFrom(set []uint64, place *int, bytesMax int) []*recordv1.LeaseNumbers {
	var out []*recordv1.LeaseNumbers
	var run *recordv1.LeaseNumbers // that ends where the next word begins
	size, from := 0, *place
	for n := range set {
		at := (from + n) % len(set)
		if set[at] == 0 || at == 0 {
			run = nil
		}
		if set[at] == 0 {
			continue
		}
		if size += 8; run == nil {
			size += 8 // its frame
		}
		if size > bytesMax {
			*place = at
			break
		}
		if run == nil {
			run = &recordv1.LeaseNumbers{First: uint32(at) * 64}
			out = append(out, run)
		}
		for b := range 8 {
			run.Bits = append(run.Bits, byte(set[at]>>(8*b)))
		}
		set[at] = 0
	}
	for _, one := range out { // zeros at the end say nothing
		n := len(one.Bits)
		for n > 0 && one.Bits[n-1] == 0 {
			n--
		}
		one.Bits = one.Bits[:n]
	}
	return out
}

// checkpointLoop tells while this member leads.
func (r *Registry) checkpointLoop(ctx context.Context) {
	ticks, stop := r.clock.Ticker(checkpointEvery / 4)
	defer stop()
	for threads.Next(ctx, r.threads, ticks) {
		r.checkpointDue(ctx)
	}
}

// checkpointDue proposes a checkpoint when it is time.
func (r *Registry) checkpointDue(ctx context.Context) {
	t := r.machine.leases.tell()
	if t == nil {
		return
	}
	ctx, cancel := threads.WithTimeout(ctx, r.threads, proposeTimeout)
	defer cancel()
	command := encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Checkpoint{Checkpoint: t.command}})
	_, err := r.replicator.Propose(ctx, "", command)
	if err != nil {
		r.machine.leases.untold(t)
	} else {
		r.machine.metrics.told(len(command), len(t.overdue))
	}
	r.report("tell who was heard of", err)
}
