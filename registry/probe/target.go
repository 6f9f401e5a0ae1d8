package probe

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/stellmap/stellmap/registry"
)

// An Outcome is what one try has shown.
type Outcome struct {
	Status registry.Status // passing, warning or critical
	Reason string          // for people; why it does not pass
}

// A target is one check of one instance, of this member's share.
type target struct {
	key      registry.InstanceKey
	check    registry.Check
	endpoint registry.Endpoint

	due    time.Time
	index  int  // in the queue; -1 = not there
	trying bool // a try is on its way
	gone   bool // it is nobody's business any more: what is on its way counts for nothing

	status registry.Status // as tried, rise and fall considered
	failed Outcome         // what moved it away from passing last
	better run             // outcomes in a row that are better than the status
	worse  run
	flaps  flaps

	heldKnown bool // that it is held has been told to people

	told     bool      // what follows from it is committed, as far as it is known
	saying   bool      // a change is on its way
	sayAfter time.Time // not before; the last change did not pass
}

// A run is outcomes in a row on one side of a status.
type run struct {
	length  int32
	nearest Outcome // to the status
}

// newTarget goes on where the check is: at what is said of it so far.
func newTarget(i *registry.Instance, check registry.Check, now time.Time, halfLife time.Duration) *target {
	t := &target{key: i.Key(), check: check, index: -1, status: registry.StatusPassing, told: true, failed: Outcome{Status: registry.StatusCritical}}
	t.endpoint, _ = i.Endpoint(check.Endpoint)
	if said, found := i.Condition(registry.SourceCheck, check.Name); found {
		t.status, t.failed = said.Status, Outcome{said.Status, said.Reason}
		if said.Held != 0 {
			t.flaps.resume(now, time.UnixMilli(said.Held), halfLife)
		}
	}
	return t
}

// same says whether the target is a check of the instance as it is now.
func (t *target) same(i *registry.Instance, check registry.Check) bool {
	e, _ := i.Endpoint(check.Endpoint)
	return t.check == check && t.endpoint.Host == e.Host && t.endpoint.Port == e.Port
}

// observe takes the outcome of a try. The status moves when enough of them in a
// row are on one side of it, to the nearest of these.
func (t *target) observe(o Outcome, now time.Time, halfLife time.Duration) {
	t.flaps.settle(now, halfLife)
	switch {
	case o.Status < t.status:
		t.worse = run{}
		t.better.add(o, o.Status > t.better.nearest.Status)
	case o.Status > t.status:
		t.better = run{}
		t.worse.add(o, o.Status <= t.worse.nearest.Status)
	default:
		t.better, t.worse = run{}, run{}
	}
	switch {
	case t.better.length >= t.check.Rise:
		t.move(t.better.nearest)
	case t.worse.length >= t.check.Fall:
		if t.status == registry.StatusPassing {
			t.flaps.fail(now, halfLife)
		}
		t.move(t.worse.nearest)
	}
}

func (r *run) add(o Outcome, nearer bool) {
	if r.length == 0 || nearer {
		r.nearest = o
	}
	r.length++
}

func (t *target) move(to Outcome) {
	t.status = to.Status
	if to.Status != registry.StatusPassing {
		t.failed = to
	}
	t.better, t.worse = run{}, run{}
}

// condition is what is to be said of the instance; false says that nothing is.
func (t *target) condition(now time.Time, halfLife time.Duration) (registry.Condition, bool) {
	c := registry.Condition{Source: registry.SourceCheck, Name: t.check.Name, Status: t.status, Reason: t.failed.Reason}
	t.flaps.settle(now, halfLife)
	if !t.flaps.held {
		return c, t.status != registry.StatusPassing
	}
	c.Status, c.Held = t.failed.Status, t.flaps.until(halfLife).UnixMilli()
	c.Reason = clean(fmt.Sprintf("it comes and goes: charged with %.0f for its failures of late, it is held from %.0f on until that is down to %.0f; the last time: %s",
		t.flaps.charge, suppressAbove, reuseBelow, t.failed.Reason))
	return c, true
}

// differs says whether what is said of the instance is not what should be. Another
// reason for the same is no news: only what changes an instance is worth an entry.
func differs(want registry.Condition, wanted bool, i *registry.Instance, now time.Time) bool {
	have, said := i.Condition(registry.SourceCheck, want.Name)
	switch {
	case wanted != said:
		return true
	case !wanted:
		return false
	case want.Status != have.Status || (want.Held != 0) != (have.Held != 0):
		return true
	}
	return want.Held != 0 && have.Held <= now.UnixMilli() // the end that was told has passed, and it is not over
}

// reasonBytesMax bounds what a condition says.
const reasonBytesMax = 400

// clean makes a text from outside one that may be shown: printable, and not too long.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, text)
	if len(text) <= reasonBytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:reasonBytesMax], "") + "..."
}
