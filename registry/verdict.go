package registry

import (
	"context"
	"math"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/threads"
)

// What becomes of an instance that enough of its callers report.
//
// The leader finds that they are enough, or that they have taken it back, and
// proposes that; what it means is decided when the entry is applied, by the policy
// of that moment, so that a deposed leader or a stale look at the policy can do
// nothing that the policy does not want. However many report, no more than a share of
// the service is critical by it: a gateway that has gone mad must not empty a service.

// A verdictKind is what is to be done about what is said of an instance.
type verdictKind uint8

const (
	verdictNone verdictKind = iota
	verdictBegin
	verdictExtend
	verdictOver
)

var verdictNames = [...]string{verdictBegin: "begun", verdictExtend: "extended", verdictOver: "over"}

// A verdict on reports, which the leader proposes.
type reportVerdict struct {
	kind   verdictKind
	item   *recordv1.ReportVerdict
	of     *accusation
	before time.Time // when it was judged before
}

// verdict finds what is to be done. What stands is extended by whoever reports
// anew, once in half of its time at most, and is over when those who brought it about
// have taken it back.
func (a *accusation) verdict(about *reportable, now time.Time) verdictKind {
	rules := about.rules
	if rules.Effect == 0 || about.instance == nil {
		return verdictNone
	}
	enough := a.counted(now, rules.Window) >= rules.Quorum
	_, stands := about.instance.Condition(SourceReports, "")
	switch {
	case !stands && enough && about.instance.Status.Routable():
		return verdictBegin
	case stands && enough && now.Sub(a.judged) >= rules.Lasts/2:
		return verdictExtend
	case stands && a.brought && distinct(a.by) < rules.Quorum:
		return verdictOver
	}
	return verdictNone
}

// room is how many more instances of the service may be critical by reports.
func (svc *serviceState) room(rules ReportRules) int {
	if rules.Effect != StatusCritical {
		return math.MaxInt // a warning takes nobody away
	}
	return rules.Percent*svc.reportBase()/100 - int(svc.tally.accused)
}

// reportBase is what the share is of: those that callers are sent to, and those that
// they would be sent to but for their reports.
func (svc *serviceState) reportBase() int {
	n := int(svc.tally.accused)
	for s, count := range svc.tally.status {
		if Status(s).Routable() {
			n += int(count)
		}
	}
	return n
}

// accused says that an instance is critical and that reports say so, whatever else does.
func (i *Instance) accused() bool {
	said, found := i.Condition(SourceReports, "")
	return found && said.Status == StatusCritical && i.Status == StatusCritical
}

// judgeReports applies one verdict.
func (t *step) judgeReports(item *recordv1.ReportVerdict, current bool) *recordv1.Result {
	k := keyOfRecord(item.GetKey())
	old := t.state.instance(k)
	if !current || old == nil || !old.alive() || uint64(old.Lease) != item.GetLease() {
		return &recordv1.Result{Code: recordv1.Result_CODE_SEEN_OTHERWISE}
	}
	conditions, wanted := t.state.services[k.ServiceKey()].judged(old, item, t.entry.Time)
	if !wanted {
		return &recordv1.Result{Code: recordv1.Result_CODE_SEEN_OTHERWISE}
	}
	next := *old
	next.settle(old, conditions, t.entry.Time)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: t.put(&next, old)}
}

// judged is what is said of an instance after a verdict; false when the policy does not want it.
func (svc *serviceState) judged(old *Instance, item *recordv1.ReportVerdict, now int64) ([]Condition, bool) {
	rules := svc.policy.ReportRules()
	before, stands := old.Condition(SourceReports, "")
	if item.GetOver() {
		return old.unreported(), stands
	}
	room := svc.room(rules)
	if old.accused() {
		room++
	}
	if rules.Effect == 0 || int(item.GetReporters()) < rules.Quorum || room < 1 || !stands && !old.Status.Routable() {
		return nil, false
	}
	said := Condition{Source: SourceReports, Status: rules.Effect, Since: now, Until: now + rules.Lasts.Milliseconds(), Reason: item.GetReason(), By: item.GetBy()}
	if stands && before.Status == said.Status {
		said.Since = before.Since
	}
	return old.with(said), true
}

// unreported is what is said of an instance but for reports.
func (i *Instance) unreported() []Condition {
	return i.without(func(c Condition) bool { return c.Source == SourceReports })
}

// endReported takes back what reports have brought about in a service whose policy
// does not want it any more.
func (t *step) endReported(k ServiceKey) {
	svc := t.state.services[k]
	if svc == nil || svc.tally.reported == 0 {
		return
	}
	effect := svc.policy.ReportRules().Effect
	var ended []*Instance
	for _, i := range svc.own() {
		if said, found := i.Condition(SourceReports, ""); found && said.Status != effect {
			ended = append(ended, i)
		}
	}
	for _, old := range ended {
		next := *old
		next.settle(old, old.unreported(), t.entry.Time)
		t.put(&next, old)
	}
}

// judgeLoop has verdicts committed while this member leads, those together that have come up meanwhile.
func (r *Registry) judgeLoop(ctx context.Context) {
	for threads.Next(ctx, r.threads, r.machine.reports.wake) {
		for ctx.Err() == nil && r.judge(ctx) {
		}
	}
}

// judge has one batch of verdicts committed; false when there is nothing left, or
// when they did not pass: who reports again has them judged anew.
func (r *Registry) judge(ctx context.Context) bool {
	reports := r.machine.reports
	term, keys := reports.takeDue(commandItemsMax)
	if len(keys) == 0 {
		return false
	}
	verdicts, held := reports.judge(term, r.machine.reportables(keys))
	r.machine.metrics.reportVerdicts.WithLabelValues("held_back").Add(float64(held))
	if len(verdicts) == 0 {
		return true
	}
	results, err := r.proposeVerdicts(ctx, term, verdicts)
	reports.settle(term, verdicts, results)
	r.machine.metrics.judged(verdicts, results)
	r.report("judge what is reported of instances", err)
	return err == nil
}

func (r *Registry) proposeVerdicts(ctx context.Context, term uint64, verdicts []reportVerdict) ([]*recordv1.Result, error) {
	ctx, cancel := threads.WithTimeout(ctx, r.threads, proposeTimeout)
	defer cancel()
	judge := &recordv1.JudgeReports{Term: term}
	for _, v := range verdicts {
		judge.Items = append(judge.Items, v.item)
	}
	applied, err := r.replicator.Propose(ctx, "", encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_JudgeReports{JudgeReports: judge}}))
	if err != nil {
		return nil, err
	}
	return decodeReplies(applied.Reply, len(verdicts))
}

// takeDue is what waits to be judged, the oldest first.
func (r *reports) takeDue(most int) (uint64, []InstanceKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.due), most)
	keys := r.due[:n:n]
	r.due = r.due[n:]
	for _, k := range keys {
		if a := r.of[k]; a != nil {
			a.due = false
		}
	}
	return r.term, keys
}

// judge is what is to be proposed about instances, and how many it was held back
// for since there is no room for more of their service.
func (r *reports) judge(term uint64, about []reportable) (verdicts []reportVerdict, held int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term != term {
		return nil, 0
	}
	now, begun := r.now(), make(map[ServiceKey]int)
	for n := range about {
		one := &about[n]
		a := r.of[one.key]
		if a == nil {
			continue
		}
		kind := a.verdict(one, now)
		if kind == verdictBegin {
			k := one.key.ServiceKey()
			if begun[k]++; begun[k] > one.room {
				held++
				kind = verdictNone
			}
		}
		if kind != verdictNone {
			verdicts = append(verdicts, a.propose(kind, one, now))
		}
		r.tidy(a)
	}
	return verdicts, held
}

func (a *accusation) propose(kind verdictKind, about *reportable, now time.Time) reportVerdict {
	item := &recordv1.ReportVerdict{Key: keyToRecord(a.key), Lease: uint64(about.instance.Lease), Over: kind == verdictOver}
	if kind != verdictOver {
		by := a.within(now, about.rules.Window)
		item.Reporters = uint32(distinct(by))
		item.Reason, item.By = a.because(by, about.rules.Window)
	}
	v := reportVerdict{kind: kind, item: item, of: a, before: a.judged}
	a.judged, a.brought = now, kind != verdictOver
	return v
}

// settle takes note of what has come of verdicts; of those that were not made
// nothing is known, and what was said counts as before.
func (r *reports) settle(term uint64, verdicts []reportVerdict, results []*recordv1.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term != term {
		return
	}
	for n, v := range verdicts {
		if results == nil || results[n].GetCode() != recordv1.Result_CODE_OK {
			v.of.judged, v.of.brought = v.before, false
		}
	}
}

// reported counts reports, as leader.
func (m *machineMetrics) reported(items []*recordv1.Report, outcomes []*recordv1.ToldReport) {
	for n, item := range items {
		outcome := ReportFailure
		switch {
		case !outcomes[n].GetFound():
			outcome = "unknown"
		case item.GetSuccess():
			outcome = ReportSuccess
		}
		m.reports.WithLabelValues(outcome).Inc()
	}
}

// judged counts verdicts that were made.
func (m *machineMetrics) judged(verdicts []reportVerdict, results []*recordv1.Result) {
	for n, result := range results {
		if result.GetCode() == recordv1.Result_CODE_OK {
			m.reportVerdicts.WithLabelValues(verdictNames[verdicts[n].kind]).Inc()
		}
	}
}
