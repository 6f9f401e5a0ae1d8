package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// renewals asks a machine to renew instances of the orders service.
func renewals(m *Machine, ids ...string) ([]recordv1.Answer_Renewal, error) {
	lease := &recordv1.RenewLeases{}
	for _, id := range ids {
		lease.Items = append(lease.Items, &recordv1.RenewItem{Key: &recordv1.InstanceKey{Namespace: "prod", Service: "orders", Id: id}})
	}
	reply, err := m.Answer(context.Background(), encode(&recordv1.Ask{Format: 1, Kind: &recordv1.Ask_RenewLeases{RenewLeases: lease}}))
	if err != nil {
		return nil, err
	}
	var answer recordv1.Answer
	if err := proto.Unmarshal(reply, &answer); err != nil {
		return nil, err
	}
	if len(answer.GetRenewals()) != len(ids) {
		return nil, fmt.Errorf("%d renewals of %d are answered", len(answer.GetRenewals()), len(ids))
	}
	return answer.GetRenewals(), nil
}

// during has something happen while the leader waits for the barrier.
func during(m *Machine, what func() error) {
	barrier := func(context.Context) (Revision, error) { return 0, what() }
	m.barrier.Store(&barrier)
}

// TestAnswerNeedsALeader shows who does not acknowledge renewals: a member that
// does not lead, one that nobody confirms, and one that stops leading meanwhile.
func TestAnswerNeedsALeader(t *testing.T) {
	cases := map[string]func(m *member){
		"a follower":                       func(m *member) { m.machine.Follow() },
		"one that has no registry yet":     func(m *member) { m.machine.barrier.Store(nil) },
		"one that is cut off":              func(m *member) { m.cut = true },
		"one whose successor is confirmed": func(m *member) { m.deposed = true },
		"one that hears of its end": func(m *member) {
			during(m.machine, func() error { m.machine.Follow(); return nil })
		},
		"one that leads again": func(m *member) {
			during(m.machine, func() error { m.machine.Follow(); m.lead(); return nil })
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMember(t, newManualClock())
			m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
			spoil(m)
			if got, err := renewals(m.machine, "a"); !errors.Is(err, ErrNoLeader) {
				t.Fatalf("got %v, %v, want ErrNoLeader", got, err)
			}
		})
	}
}

// TestTheBarrierBringsWhatOthersKnow shows that a renewal is answered by the state
// after the barrier: what was acknowledged on another member before the renewal
// may be applied here only then.
func TestTheBarrierBringsWhatOthersKnow(t *testing.T) {
	cases := map[string]struct {
		id      string
		command func(m *member) []byte
		want    recordv1.Answer_Renewal
	}{
		"nothing new":                {"a", func(*member) []byte { return nil }, recordv1.Answer_RENEWAL_DONE},
		"it was deregistered":        {"a", func(*member) []byte { return deregisterCommand(orders("a"), Holder{}) }, recordv1.Answer_RENEWAL_NOT_FOUND},
		"it was registered":          {"new", func(*member) []byte { return registration("new", 81) }, recordv1.Answer_RENEWAL_DONE},
		"it was registered again":    {"a", func(*member) []byte { return registration("a", 81) }, recordv1.Answer_RENEWAL_DONE},
		"it has run out":             {"a", func(m *member) []byte { return expireCommand(m.term, []dueLease{{orders("a"), 2}}) }, recordv1.Answer_RENEWAL_LOG},
		"another was deregistered":   {"a", func(*member) []byte { return deregisterCommand(orders("b"), Holder{}) }, recordv1.Answer_RENEWAL_DONE},
		"it is still not registered": {"none", func(*member) []byte { return nil }, recordv1.Answer_RENEWAL_NOT_FOUND},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMember(t, newManualClock())
			m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
			m.register(reg("prod", "orders", "b", "10.0.0.1", 80))
			during(m.machine, func() error { m.commit(c.command(m)); return nil })
			got, err := renewals(m.machine, c.id)
			if err != nil {
				t.Fatal(err)
			}
			mustEqual(t, "the answer", got[0], c.want)
		})
	}
}

func orders(id string) InstanceKey { return InstanceKey{"prod", "orders", id} }

// TestALeaseDoesNotRunOutDuringTheBarrier shows that a renewal counts from when
// it arrived: no expiry is proposed while the leader is being confirmed.
func TestALeaseDoesNotRunOutDuringTheBarrier(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	r := reg("prod", "orders", "a", "10.0.0.1", 80)
	r.LeaseTTLSeconds = 1
	m.register(r)
	m.pass(clock, 900*time.Millisecond)
	during(m.machine, func() error { m.pass(clock, 900*time.Millisecond); return nil })
	got, err := renewals(m.machine, "a")
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the answer", got[0], recordv1.Answer_RENEWAL_DONE)
	i, _ := m.machine.instance(orders("a"))
	mustEqual(t, "the status", i.Status, StatusPassing)
	mustEqual(t, "the generation", i.Lease, 2)
}

// TestQuestionsThatAreNotUnderstood shows that they are refused and not taken for an empty one.
func TestQuestionsThatAreNotUnderstood(t *testing.T) {
	m := newMember(t, newManualClock())
	cases := map[string][]byte{
		"garbage":                []byte("\xff"),
		"no kind":                encode(&recordv1.Ask{Format: 1}),
		"a kind of the future":   protowire.AppendBytes(protowire.AppendTag(encode(&recordv1.Ask{Format: 1}), 9, protowire.BytesType), nil),
		"a format of the future": encode(&recordv1.Ask{Format: 2, Kind: &recordv1.Ask_RenewLeases{RenewLeases: &recordv1.RenewLeases{}}}),
	}
	for name, request := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := m.machine.Answer(context.Background(), request)
			if err == nil || !strings.Contains(err.Error(), "a member's question") || errors.Is(err, ErrNoLeader) {
				t.Fatalf("got %v", err)
			}
		})
	}
}
