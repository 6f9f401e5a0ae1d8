package registry

import (
	"cmp"
	"fmt"
	"slices"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// How an instance is follows from its lease and from what is said of it.
//
// Several parties have a word: the operator, a drain, checks, the reports of
// those who call it, and self-preservation. Each says its own condition and takes
// back its own, so that a check which passes again does not undo what an operator
// has decided. The status is derived from all of them in one place, below.

// Health is how an instance is checked, and what has come to it since it was
// registered, beside its lease. It never changes: a change makes a new one. Most
// instances have none, and so pay for none of it: of a million, each eight bytes
// take eight megabytes.
type Health struct {
	Checks     []Check     // in the order registered; shared with whoever has the same
	Since      int64       // Unix ms: since when it has its status; 0 = that follows, see impliedSince
	Conditions []Condition // sorted by source and name
}

// String is for logs and tests.
func (h *Health) String() string {
	if h == nil {
		return "-"
	}
	if len(h.Checks) > 0 {
		return fmt.Sprintf("since %d %+v checked by %+v", h.Since, h.Conditions, h.Checks)
	}
	return fmt.Sprintf("since %d %+v", h.Since, h.Conditions)
}

// A Condition is one thing that is said of an instance.
type Condition struct {
	Source Source
	Name   string // of the check; empty for other sources
	Status Status
	Since  int64  // Unix ms
	Until  int64  // Unix ms; a drain ends with its instance then, another condition by itself; 0 = never
	Reason string // for people
	By     string // who said it
	Held   int64  // Unix ms; of a check that flaps: until when it is not believed to pass, at the soonest; 0 = it is not held
}

// A Source is a party that has a word on instances. The numbers are stored.
type Source uint8

const (
	// SourceOperator is an operator's override. It survives registrations, and even its instance.
	SourceOperator Source = 1
	// SourceDrain is an instance that is being taken out of use. It survives registrations.
	SourceDrain Source = 2
	// SourceCheck is a check that the cluster makes; it has a name.
	SourceCheck Source = 3
	// SourceReports are the reports of those who call the instance.
	SourceReports Source = 4
	// SourceProtection is self-preservation, which keeps what should have expired.
	SourceProtection Source = 5
	// SourceRegion is the age of what another region has told. It is said of that region's instances only.
	SourceRegion Source = 6
)

// String gives the name that JSON uses.
func (s Source) String() string {
	switch s {
	case SourceOperator:
		return "operator"
	case SourceDrain:
		return "drain"
	case SourceCheck:
		return "check"
	case SourceReports:
		return "reports"
	case SourceProtection:
		return "protection"
	case SourceRegion:
		return "region"
	}
	return "unknown"
}

// says are the statuses that a source can give an instance. Draining is said by a
// drain alone; expired by nobody: it follows from the lease.
func (s Source) says(status Status) bool {
	switch s {
	case SourceOperator:
		return status == StatusPassing || status == StatusWarning || status == StatusCritical || status == StatusDisabled
	case SourceDrain:
		return status == StatusDraining
	case SourceCheck, SourceReports:
		return status == StatusWarning || status == StatusCritical
	case SourceProtection:
		return status == StatusSuspect
	case SourceRegion:
		return status == StatusSuspect || status == StatusDisabled
	}
	return false
}

// survivesRegistration says that a condition is not about the process that
// registered before. Of checks Instance.begin decides, of reports Instance.succeeds.
func (s Source) survivesRegistration() bool { return s == SourceOperator || s == SourceDrain }

// compare orders conditions; two that are equal in it stand in for each other.
func (c *Condition) compare(source Source, name string) int {
	return cmp.Or(cmp.Compare(c.Source, source), cmp.Compare(c.Name, name))
}

// Conditions are what is said of the instance, sorted by source and name.
func (i *Instance) Conditions() []Condition {
	if i.Health == nil {
		return nil
	}
	return i.Health.Conditions
}

// Condition finds what a source says of the instance.
func (i *Instance) Condition(source Source, name string) (Condition, bool) {
	if at, found := i.condition(source, name); found {
		return i.Health.Conditions[at], true
	}
	return Condition{}, false
}

func (i *Instance) condition(source Source, name string) (at int, found bool) {
	return slices.BinarySearchFunc(i.Conditions(), source, func(c Condition, source Source) int { return c.compare(source, name) })
}

// with is what is said of the instance once a condition has taken the place of
// the one of its source and name; without clears some. Neither changes what is there.
func (i *Instance) with(c Condition) []Condition {
	conditions := slices.Clone(i.Conditions())
	at, found := i.condition(c.Source, c.Name)
	if found {
		conditions[at] = c
		return conditions
	}
	return slices.Insert(conditions, at, c)
}

func (i *Instance) without(drop func(Condition) bool) []Condition {
	return slices.DeleteFunc(slices.Clone(i.Conditions()), drop)
}

// healthOf is nil when there is nothing to keep.
func healthOf(checks []Check, since int64, conditions []Condition) *Health {
	if len(checks) == 0 && since == 0 && len(conditions) == 0 {
		return nil
	}
	return &Health{Checks: checks, Since: since, Conditions: conditions}
}

// alive says that the lease has not run out. It may still not be fit for use.
func (i *Instance) alive() bool { return i.ExpiredAt == 0 }

// derive is the one place where an instance's status is decided. What an
// operator has disabled stays so; what is gone is gone, whoever says otherwise;
// who is leaving gets no new calls. On the rest the operator has the last word, and
// without one the worst that anybody says counts.
func (i *Instance) derive() Status {
	override, overridden := i.Condition(SourceOperator, "")
	_, draining := i.Condition(SourceDrain, "")
	switch {
	case overridden && override.Status == StatusDisabled:
		return StatusDisabled
	case !i.alive():
		return StatusExpired
	case draining:
		return StatusDraining
	case overridden:
		return override.Status
	}
	worst := StatusPassing
	for _, c := range i.Conditions() {
		worst = max(worst, c.Status) // the numbers are in this order, see Status
	}
	return worst
}

// settle decides the status of an instance that takes the place of an old one, nil
// if there is none, and of which the conditions are said. The time is the entry's.
func (i *Instance) settle(old *Instance, conditions []Condition, now int64) {
	checks := i.Checks()
	i.Health = healthOf(checks, 0, conditions)
	i.Status = i.derive()
	since := now
	if old != nil && old.Status == i.Status {
		since = old.StatusSince()
	}
	if since != i.impliedSince() {
		i.Health = healthOf(checks, since, conditions)
	}
}

// StatusSince is since when the instance has its status, in Unix ms.
func (i *Instance) StatusSince() int64 {
	if since := i.since(); since != 0 {
		return since
	}
	return i.impliedSince()
}

// since is what is kept of it, 0 where it is implied.
func (i *Instance) since() int64 {
	if i.Health == nil {
		return 0
	}
	return i.Health.Since
}

// impliedSince is since when an instance has its status to which nothing else has come.
func (i *Instance) impliedSince() int64 {
	if i.Status == StatusExpired {
		return i.ExpiredAt
	}
	return i.RegisteredAt
}

// timed says that a condition ends by itself.
func (i *Instance) timed() bool {
	return slices.ContainsFunc(i.Conditions(), func(c Condition) bool { return c.Until != 0 })
}

// over says whether the time of a condition has come.
func (c *Condition) over(now int64) bool { return c.Until != 0 && c.Until <= now }

// drained says that the instance has been given its time to leave.
func (i *Instance) drained(now int64) bool {
	c, draining := i.Condition(SourceDrain, "")
	return draining && c.over(now)
}

func conditionsToRecord(conditions []Condition) []*recordv1.Condition {
	var out []*recordv1.Condition
	for i := range conditions {
		out = append(out, conditions[i].record())
	}
	return out
}

func (c *Condition) record() *recordv1.Condition {
	return &recordv1.Condition{
		Source: recordv1.Condition_Source(c.Source), Name: c.Name, Status: recordv1.InstanceRecord_Status(c.Status),
		SinceMs: c.Since, UntilMs: c.Until, Reason: c.Reason, By: c.By, HeldUntilMs: c.Held,
	}
}

func (d *reader) condition(record *recordv1.Condition) Condition {
	return Condition{
		Source: Source(record.GetSource()), Name: d.share(record.GetName()), Status: Status(record.GetStatus()),
		Since: record.GetSinceMs(), Until: record.GetUntilMs(), Reason: d.share(record.GetReason()), By: d.share(record.GetBy()), Held: record.GetHeldUntilMs(),
	}
}

func (d *reader) conditions(record []*recordv1.Condition) []Condition {
	var out []Condition
	for _, c := range record {
		out = append(out, d.condition(c))
	}
	return out
}

// unreadable says why a stored condition cannot be understood, or nothing.
func (c *Condition) unreadable() string {
	switch {
	case c.Source == 0 || c.Source.String() == Source(0).String():
		return "has a condition of a source that this version does not know: run a newer version"
	case !known(c.Status):
		return "has a condition with a status that this version does not know: run a newer version"
	}
	return ""
}
