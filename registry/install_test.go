package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stellmap/stellmap/storage"
)

// becomes gives a member another's state, as the consensus does.
func (m *member) becomes(other *member) {
	m.tb.Helper()
	state, err := other.engine.Snapshot()
	if err != nil {
		m.tb.Fatal(err)
	}
	var stream bytes.Buffer
	_, err = state.WriteTo(&stream)
	if err := errors.Join(err, state.Close(), m.engine.Restore(&stream)); err != nil {
		m.tb.Fatal(err)
	}
	if err := m.machine.Install(Revision(m.engine.AppliedIndex().Index)); err != nil {
		m.tb.Fatal(err)
	}
}

// aheadOf is a member with a longer log.
func aheadOf(tb testing.TB, m *member, by int) *member {
	tb.Helper()
	other := newMember(tb, m.clock)
	for n := range by {
		other.register(reg("prod", "orders", fmt.Sprint("new-", n), "10.0.0.2", 80))
	}
	return other
}

// TestInstallIsAnothersState shows that a member that takes over a state is like the one that made it, and goes on
// like that.
func TestInstallIsAnothersState(t *testing.T) {
	m := newMember(t, newManualClock())
	m.machine.Follow()
	m.register(reg("prod", "orders", "old", "10.0.0.1", 80))
	m.register(reg("prod", "gone", "old", "10.0.0.1", 80))
	other := aheadOf(t, m, 20)
	held, replaced := m.machine.published.bytes(), m.machine.replaced
	m.becomes(other)
	mustEqual(t, "what lists may still hold of the state before", m.machine.replaced, replaced+held)
	mustEqual(t, "the revision", m.machine.Revision(), other.machine.Revision())
	mustEqual(t, "what it knows", m.dump(), other.dump())
	mustEqual(t, "the working state", dumpState(m.machine.working), dumpState(other.machine.working))
	for _, one := range []*member{m, other} {
		one.index = other.machine.Revision()
		e := Entry{Index: one.index + 1, Term: 1, Time: 2_000_000_000_000, Data: registration("next", 81)}
		applyEntry(t, one.engine, one.machine, e)
		one.machine.Publish(e.Index)
	}
	mustEqual(t, "what it knows after one more entry", m.dump(), other.dump())
}

// TestWatchersGoOnOverAnInstall shows that whoever was told of less than the new state is told of what led to it,
// waiting or not, that whoever is below what is kept of that hears so, and that whoever is at the state or ahead waits.
func TestWatchersGoOnOverAnInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := aheadOf(t, &member{clock: newManualClock()}, 20)
		other.machine.working.history.bounds.Events = 12
		other.register(reg("prod", "orders", "last", "10.0.0.2", 80))
		at := other.machine.Revision()
		m := newMember(t, other.clock)
		m.machine.Follow()
		for _, e := range other.log[1:15] { // its own first entry is like the other's
			applyEntry(t, m.engine, m.machine, e)
			m.machine.Publish(e.Index)
		}
		waiting, behind, level, ahead := m.machine.Watch(15), m.machine.Watch(9), m.machine.Watch(at), m.machine.Watch(at+1)
		ended := make(chan error)
		var got Batch
		go func() {
			var err error
			got, err = waiting.Next(context.Background())
			ended <- err
		}()
		synctest.Wait()
		m.becomes(other)
		if err := <-ended; err != nil {
			t.Errorf("who waited hears %v", err)
		}
		mustEqual(t, "the revision told to who waited", got.Revision, at)
		mustEqual(t, "the number of events", len(got.Events), int(at-15))
		mustBeCompacted(t, behind)
		for _, w := range []*Watch{level, ahead} {
			if _, more, err := w.Poll(); more || err != nil {
				t.Errorf("after %d: %v, %v, want to wait", w.after, more, err)
			}
		}
		m.machine.Publish(at + 1)
		mustEqual(t, "the revision told next", mustNext(t, level).Revision, at+1)
	})
}

// TestInstallSwitchesInOneStep shows that readers beside it see the old state or the new one, whole.
func TestInstallSwitchesInOneStep(t *testing.T) {
	m := newMember(t, newManualClock())
	m.machine.Follow()
	for n := range 10 {
		m.register(reg("prod", "orders", fmt.Sprint("old-", n), "10.0.0.1", 80))
	}
	old := m.machine.Revision()
	other := aheadOf(t, m, 30)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			before := m.machine.Revision()
			svc := m.machine.Service(ServiceKey{"prod", "orders"})
			if svc == nil || before > old && len(svc.Instances) != 30 || len(svc.Instances) != 10 && len(svc.Instances) != 30 {
				ended <- fmt.Errorf("at %d there is %+v", before, svc)
				return
			}
		}
	}()
	m.becomes(other)
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestInstallNeverGoesBack shows that an older state, or one that the engine does not have, is a broken promise.
func TestInstallNeverGoesBack(t *testing.T) {
	m := newMember(t, newManualClock())
	for _, revision := range []Revision{m.machine.Revision(), m.machine.Revision() + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("an install of %d over %d went through", revision, m.machine.Revision())
				}
			}()
			t.Error(m.machine.Install(revision))
		}()
	}
}

// TestAStateThatCannotBeReadIsNotInstalled shows that readers keep the old one.
func TestAStateThatCannotBeReadIsNotInstalled(t *testing.T) {
	m := newMember(t, newManualClock())
	m.register(reg("prod", "orders", "old", "10.0.0.1", 80))
	before := dumpState(m.machine.published)
	b := m.engine.NewBatch()
	b.Set([]byte(storage.ServicePrefix+"prod/broken"), []byte{0xff})
	if err := m.engine.Apply(b, storage.Position{Index: 100, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := m.machine.Install(100); err == nil {
		t.Error("it went through")
	}
	mustEqual(t, "what readers see", dumpState(m.machine.published), before)
}
