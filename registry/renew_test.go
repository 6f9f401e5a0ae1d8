package registry

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// leaderStub answers questions; each waits for a token from answers first.
type leaderStub struct {
	t       *testing.T
	answers chan struct{} // nil: at once
	sizes   []int         // of the questions so far
	bytes   int           // of the largest
	spoil   func(*recordv1.Answer)
}

func (l *leaderStub) ask(ctx context.Context, request []byte) ([]byte, error) {
	var ask recordv1.Ask
	if err := proto.Unmarshal(request, &ask); err != nil {
		l.t.Errorf("decode a question: %v", err)
	}
	items := ask.GetRenewLeases().GetItems()
	l.sizes, l.bytes = append(l.sizes, len(items)), max(l.bytes, len(request))
	if l.answers != nil {
		select {
		case <-l.answers:
		case <-ctx.Done():
			return nil, ErrNoLeader // as one does who knows no leader
		}
	}
	answer := &recordv1.Answer{}
	for _, item := range items { // even ports are known, so that an answer at the wrong place is seen
		n, err := strconv.Atoi(item.GetKey().GetId())
		if err != nil {
			l.t.Errorf("an instance is called %q", item.GetKey().GetId())
		}
		answer.Renewals = append(answer.Renewals, recordv1.Answer_Renewal(1+n%2))
	}
	if l.spoil != nil {
		l.spoil(answer)
	}
	return encode(answer), nil
}

// renewing is a renewer that runs, and the callers that wait for it.
type renewing struct {
	t       *testing.T
	renewer *renewer
	refused prometheus.Counter
	leader  *leaderStub
	cancel  func()
	results chan renewed
}

type renewed struct {
	id      int
	outcome recordv1.Answer_Renewal
	err     error
}

// withRenewer runs a test in a bubble, with a leader that answers when it is let.
func withRenewer(t *testing.T, f func(r *renewing)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r := &renewing{
			t: t, cancel: cancel, refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}),
			leader: &leaderStub{t: t, answers: make(chan struct{})}, results: make(chan renewed, 2*renewalsWaitingMax),
		}
		r.renewer = newRenewer(r.leader.ask, r.refused, nil)
		go r.renewer.run(ctx)
		f(r)
	})
}

// call has callers ask for renewals, and waits until all of them wait.
func (r *renewing) call(from, n int) {
	for id := from; id < from+n; id++ {
		go func() {
			one := []pendingRenewal{{key: orders(strconv.Itoa(id))}}
			if err := r.renewer.renewAll(context.Background(), one); err != nil {
				r.results <- renewed{id: id, err: err}
				return
			}
			r.results <- renewed{id, one[0].outcome, one[0].err}
		}()
	}
	synctest.Wait()
}

// answer lets the leader answer so many questions.
func (r *renewing) answer(n int) {
	for range n {
		r.leader.answers <- struct{}{}
	}
	synctest.Wait()
}

// mustBe checks that so many callers have been answered, each with its own outcome or all with the error.
func (r *renewing) mustBe(n int, want error) {
	r.t.Helper()
	mustEqual(r.t, "the number of answers", len(r.results), n)
	for range n {
		got := <-r.results
		if !errors.Is(got.err, want) {
			r.t.Fatalf("renewal %d ends with %v, want %v", got.id, got.err, want)
		}
		if want == nil {
			mustEqual(r.t, "the outcome of "+strconv.Itoa(got.id), got.outcome, recordv1.Answer_Renewal(1+got.id%2))
		}
	}
}

// TestRenewalsGatherWhileAQuestionIsOut shows that one question is out at a time,
// and that the next takes all that have come meanwhile, each with its own answer.
func TestRenewalsGatherWhileAQuestionIsOut(t *testing.T) {
	withRenewer(t, func(r *renewing) {
		r.call(0, 1)
		r.call(1, 500)
		mustEqualSlices(t, "the questions", r.leader.sizes, []int{1})
		r.answer(1)
		r.mustBe(1, nil)
		mustEqualSlices(t, "the questions", r.leader.sizes, []int{1, 500})
		r.answer(1)
		r.mustBe(500, nil)
		r.call(501, 1)
		r.answer(1)
		r.mustBe(1, nil)
		mustEqualSlices(t, "the questions", r.leader.sizes, []int{1, 500, 1})
	})
}

// TestAQuestionIsBounded shows that a crowd is cut into questions by number and by bytes.
func TestAQuestionIsBounded(t *testing.T) {
	r := newRenewer(nil, nil, nil)
	join := func(n, idBytes int) {
		for range n {
			if err := r.join(newRenewalCall([]pendingRenewal{{key: orders(strings.Repeat("i", idBytes))}}).pointers()...); err != nil {
				t.Fatal(err)
			}
		}
	}
	sizes := func() (out []int) {
		for batch, _ := r.take(); len(batch) > 0; batch, _ = r.take() {
			out = append(out, len(batch))
		}
		return out
	}
	join(2*renewalsPerAskMax+1, 1)
	mustEqualSlices(t, "the questions of a crowd", sizes(), []int{renewalsPerAskMax, renewalsPerAskMax, 1})
	join(3, renewalsPerAskBytes/2)
	mustEqualSlices(t, "the questions of long names", sizes(), []int{2, 1})
	join(1, 2*renewalsPerAskBytes)
	mustEqualSlices(t, "the question of a name that is too long", sizes(), []int{1})
}

// TestTooManyRenewalsAreRefused shows that the queue has an end: ErrBusy at once,
// a counter, and nobody who waits already is harmed.
func TestTooManyRenewalsAreRefused(t *testing.T) {
	withRenewer(t, func(r *renewing) {
		r.call(0, 1) // is asked for
		for id := range renewalsWaitingMax {
			if err := r.renewer.join(newRenewalCall([]pendingRenewal{{key: orders(strconv.Itoa(id))}}).pointers()...); err != nil {
				t.Fatalf("renewal %d: %v", id, err)
			}
		}
		r.call(1, 3)
		r.mustBe(3, ErrBusy)
		mustEqual(t, "the refused ones counted", valueOf(t, r.refused), 3)
		r.answer(1 + renewalsWaitingMax/renewalsPerAskMax)
		r.mustBe(1, nil)
		r.call(4, 1)
		r.answer(1)
		r.mustBe(1, nil)
	})
}

// TestAStuckQuestionCostsItsOwnOnly shows that those of a question which nobody
// answers are told so in time, and that the later ones are asked for then.
func TestAStuckQuestionCostsItsOwnOnly(t *testing.T) {
	withRenewer(t, func(r *renewing) {
		r.call(0, 3)
		asked := r.leader.sizes[0]
		r.call(3, 5)
		failed := 0
		for range asked { // the bubble's clock goes on when all wait
			if got := <-r.results; !errors.Is(got.err, ErrNoLeader) || errors.Is(got.err, ErrStopping) {
				t.Fatalf("renewal %d ends with %v, want ErrNoLeader", got.id, got.err)
			}
			failed++
		}
		synctest.Wait()
		r.answer(len(r.leader.sizes) - 1)
		r.mustBe(8-failed, nil)
	})
}

// TestTheEndAnswersAllRenewals shows that nobody waits for a renewer that has
// ended: not those that were asked for, nor those in the queue, nor those to come.
func TestTheEndAnswersAllRenewals(t *testing.T) {
	withRenewer(t, func(r *renewing) {
		r.call(0, 1)
		r.call(1, 20)
		r.cancel()
		synctest.Wait()
		r.mustBe(21, ErrStopping)
		mustEqualSlices(t, "the questions", r.leader.sizes, []int{1}) // none about the others
		r.call(21, 1)
		r.mustBe(1, ErrStopping)
	})
}

// TestACallerNeedNotWait shows that a caller may leave, and that the others do not notice.
func TestACallerNeedNotWait(t *testing.T) {
	withRenewer(t, func(r *renewing) {
		r.call(0, 1)
		ctx, cancel := context.WithCancel(context.Background())
		left := make(chan error)
		go func() {
			left <- r.renewer.renewAll(ctx, []pendingRenewal{{key: orders("1")}})
		}()
		r.call(2, 1)
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatalf("the caller who left: %v", err)
		}
		r.answer(2)
		r.mustBe(2, nil)
	})
}

// TestAnswersThatDoNotFit shows that an answer which is not about the question is an error for all.
func TestAnswersThatDoNotFit(t *testing.T) {
	cases := map[string]func(*recordv1.Answer){
		"too few":  func(a *recordv1.Answer) { a.Renewals = a.Renewals[1:] },
		"too many": func(a *recordv1.Answer) { a.Renewals = append(a.Renewals, recordv1.Answer_RENEWAL_DONE) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			l := &leaderStub{t: t, spoil: spoil}
			call := newRenewalCall([]pendingRenewal{{key: orders("1")}, {key: orders("2")}})
			newRenewer(l.ask, nil, nil).askFor(context.Background(), []*pendingRenewal{&call.renewals[0], &call.renewals[1]})
			<-call.done
			for _, p := range call.renewals {
				if p.err == nil || !strings.Contains(p.err.Error(), "of 2") {
					t.Fatalf("got %v", p.err)
				}
			}
		})
	}
	m := newMember(t, newManualClock())
	m.registry.renewer.leader = (&leaderStub{t: t, spoil: func(a *recordv1.Answer) { a.Renewals[0] = 99 }}).ask
	m.run()
	_, err := m.registry.Heartbeat(context.Background(), ref("prod", "orders", "1"), 0)
	if err == nil || !strings.Contains(err.Error(), "the leader's word 99 is not known to this version") {
		t.Fatalf("got %v", err)
	}
}
