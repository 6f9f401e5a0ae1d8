package registry

import (
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/threads"
)

// The bounds of reports on their way to the leader.
const (
	reportsWaitingMax = 8_192 // more are refused with ErrBusy
	reportsPerAskMax  = 1_024 // in one question, of some hundred bytes each
)

// A messenger gathers the reports that arrive while a question is on its way to
// the leader, and sends them with the next, as a renewer does with renewals.
type messenger struct {
	ask     func(ctx context.Context, request []byte) ([]byte, error)
	refused *prometheus.CounterVec
	threads threads.Threads
	wake    chan struct{} // holds one token while something waits

	mu      sync.Mutex // guards what follows
	waiting []*pendingReport
	stopped bool
}

// A pendingReport is one report that waits.
type pendingReport struct {
	item *recordv1.Report
	done chan struct{} // closed when the next two are set
	told *recordv1.ToldReport
	err  error
}

func newMessenger(ask func(context.Context, []byte) ([]byte, error), refused *prometheus.CounterVec, threads threads.Threads) *messenger {
	return &messenger{ask: ask, refused: refused, threads: threads, wake: make(chan struct{}, 1)}
}

// tell waits for the leader's word on a report.
func (m *messenger) tell(ctx context.Context, item *recordv1.Report) (*recordv1.ToldReport, error) {
	p := &pendingReport{item: item, done: make(chan struct{})}
	if err := m.join(p); err != nil {
		return nil, err
	}
	if m.threads != nil {
		m.threads.Park(func() bool { return threads.IsClosed(p.done) || ctx.Err() != nil })
		if threads.IsClosed(p.done) { // rather than that it is too late
			return p.told, p.err
		}
	}
	select {
	case <-p.done:
		return p.told, p.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the leader's word on a report: %w", ctx.Err())
	}
}

func (m *messenger) join(p *pendingReport) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopped:
		return ErrStopping
	case len(m.waiting) >= reportsWaitingMax:
		m.refused.WithLabelValues("queue").Inc()
		return ErrBusy
	}
	m.waiting = append(m.waiting, p)
	select {
	case m.wake <- struct{}{}:
	default: // a token is there already
	}
	return nil
}

// run asks, one question at a time, until the context ends.
func (m *messenger) run(ctx context.Context) {
	defer m.stop()
	for threads.Next(ctx, m.threads, m.wake) {
		for ctx.Err() == nil {
			batch := m.take()
			if len(batch) == 0 {
				break
			}
			m.send(ctx, batch)
		}
	}
}

// stop answers those who still wait, and all who come later.
func (m *messenger) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	for _, p := range m.waiting {
		p.err = ErrStopping
		close(p.done)
	}
	m.waiting = nil
}

func (m *messenger) take() []*pendingReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := min(len(m.waiting), reportsPerAskMax)
	batch := m.waiting[:n:n]
	m.waiting = m.waiting[n:]
	return batch
}

// send settles a batch, whatever comes of its question.
func (m *messenger) send(ctx context.Context, batch []*pendingReport) {
	asking, cancel := threads.WithTimeout(ctx, m.threads, askTimeout)
	defer cancel()
	tell := &recordv1.TellReports{}
	for _, p := range batch {
		tell.Items = append(tell.Items, p.item)
	}
	answer, err := askReports(asking, m.ask, tell)
	if err != nil && ctx.Err() != nil { // it was cut short here: what it says of the leader is not true
		err = fmt.Errorf("%w: %v", ErrStopping, err)
	}
	for i, p := range batch {
		if p.err = err; err == nil {
			p.told = answer.GetOutcomes()[i]
		}
		close(p.done)
	}
}

// The bounds of what one address may report at one member. This machine's own
// addresses are exempt, as from all limits.
const (
	reportsPerSecond = 100
	reportsAtOnce    = 1_000
	reportSourcesMax = 4_096 // addresses that are remembered; the one that was silent for longest goes
)

// reportRates are how much each address has reported lately.
type reportRates struct {
	now func() time.Time // set when it is made, never changed

	mu    sync.Mutex               // guards what follows
	of    map[string]*list.Element // by network
	order *list.List               // of *reportRate, the one that was silent for longest first
}

type reportRate struct {
	from string
	left float64 // reports that it may make at once
	at   time.Time
}

func newReportRates(now func() time.Time) *reportRates {
	return &reportRates{now: now, of: make(map[string]*list.Element), order: list.New()}
}

// allow says whether an address may report once more.
func (r *reportRates) allow(from netip.Addr) bool {
	if from.IsLoopback() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	one, now := r.rate(networkOf(from)), r.now()
	one.left = min(reportsAtOnce, one.left+now.Sub(one.at).Seconds()*reportsPerSecond)
	one.at = now
	if one.left < 1 {
		return false
	}
	one.left--
	return true
}

func (r *reportRates) rate(from string) *reportRate {
	if known := r.of[from]; known != nil {
		r.order.MoveToBack(known)
		return known.Value.(*reportRate)
	}
	if r.order.Len() >= reportSourcesMax {
		oldest := r.order.Remove(r.order.Front()).(*reportRate)
		delete(r.of, oldest.from)
	}
	one := &reportRate{from: from, left: reportsAtOnce, at: r.now()}
	r.of[from] = r.order.PushBack(one)
	return one
}
