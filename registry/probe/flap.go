package probe

import (
	"math"
	"time"
)

// Damping, as routers do it (RFC 2439): each time that a check fails which had
// passed it is charged, and the charge halves with time. Above suppressAbove it is
// held: it counts as failing, whatever it shows, until the charge is down to
// reuseBelow. One failure costs nothing; a check that comes and goes stays away for
// minutes instead of taking all callers along each time.
const (
	failureCharge = 1000.0
	suppressAbove = 2500.0
	reuseBelow    = 1000.0
	chargeMax     = 8000.0 // so it is held for three half-lives after its last failure at most
)

// HalfLife is the time in which half of a charge is forgotten, when nothing else is asked for.
const HalfLife = time.Minute

// flaps is what a check is charged with. The zero value is a clean record.
type flaps struct {
	charge float64
	at     time.Time // of the charge
	held   bool
}

// settle brings the charge up to date, and ends a hold whose time is over.
func (f *flaps) settle(now time.Time, halfLife time.Duration) {
	if past := now.Sub(f.at); past > 0 {
		f.charge *= math.Exp2(-past.Seconds() / halfLife.Seconds())
	}
	f.at = now
	if f.charge <= reuseBelow {
		f.held = false
	}
}

// fail charges for a failure.
func (f *flaps) fail(now time.Time, halfLife time.Duration) {
	f.settle(now, halfLife)
	f.charge = min(f.charge+failureCharge, chargeMax)
	if f.charge >= suppressAbove {
		f.held = true
	}
}

// until is when a hold ends if nothing more happens.
func (f *flaps) until(halfLife time.Duration) time.Time {
	if f.charge <= reuseBelow {
		return f.at
	}
	return f.at.Add(time.Duration(math.Log2(f.charge/reuseBelow) * float64(halfLife)))
}

// resume takes over a hold from the member that made the check before: the charge
// is what leads to the end that it has told.
func (f *flaps) resume(now, until time.Time, halfLife time.Duration) {
	left := until.Sub(now)
	if left <= 0 {
		return
	}
	f.charge = min(reuseBelow*math.Exp2(left.Seconds()/halfLife.Seconds()), chargeMax)
	f.at, f.held = now, true
}
