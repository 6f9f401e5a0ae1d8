package probe

import (
	"testing"
	"time"
)

// TestAChargeIsForgottenByHalves shows the figures that docs/health.md gives:
// three failures in short order are held, and how long.
func TestAChargeIsForgottenByHalves(t *testing.T) {
	var f flaps
	now := time.UnixMilli(1_800_000_000_000)
	after := func(d time.Duration) time.Time { now = now.Add(d); return now }
	f.fail(now, time.Minute)
	mustEqual(t, "whether one failure is held", f.held, false)
	f.fail(after(time.Minute), time.Minute)
	mustEqual(t, "the charge of a second a minute later", f.charge, 1500)
	f.fail(now, time.Minute)
	mustEqual(t, "the charge of a third", f.charge, 2500)
	mustEqual(t, "whether it is held", f.held, true)
	mustEqual(t, "for how long", f.until(time.Minute).Sub(now).Round(time.Second), 79*time.Second)
	f.settle(after(79*time.Second), time.Minute)
	mustEqual(t, "whether it is held a moment before the end", f.held, true)
	f.settle(after(time.Second), time.Minute)
	mustEqual(t, "whether it is held after it", f.held, false)
	for range 100 {
		f.fail(now, time.Minute)
	}
	mustEqual(t, "the longest hold", f.until(time.Minute).Sub(now), 3*time.Minute)
	f.settle(after(-time.Hour), time.Minute)
	mustEqual(t, "the charge after the clock went back", f.charge, chargeMax)
}

// TestAHoldIsTakenOver shows that whoever makes the check next ends it at the same time.
func TestAHoldIsTakenOver(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for _, left := range []time.Duration{time.Second, 79 * time.Second, 3 * time.Minute} {
		var f flaps
		f.resume(now, now.Add(left), time.Minute)
		mustEqual(t, "whether it is held", f.held, true)
		mustEqual(t, "the end", f.until(time.Minute).Sub(now).Round(time.Millisecond), left)
	}
	var f flaps
	f.resume(now, now.Add(-time.Second), time.Minute)
	mustEqual(t, "whether one that is over is held", f.held, false)
	f.resume(now, now.Add(1000*time.Hour), time.Minute)
	mustEqual(t, "the longest that is believed", f.until(time.Minute).Sub(now), 3*time.Minute)
}
