package registry

import (
	"container/list"
	"context"
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

// A messenger tells the leader of reports, of many at once when many come.
type messenger struct {
	*gatherer[*pendingReport]
	leader func(ctx context.Context, request []byte) ([]byte, error)
}

// A pendingReport is one report that waits.
type pendingReport struct {
	item *recordv1.Report
	done chan struct{} // closed when the next two are set
	told *recordv1.ToldReport
	err  error
}

func newMessenger(leader func(context.Context, []byte) ([]byte, error), refused *prometheus.CounterVec, threads threads.Threads) *messenger {
	m := &messenger{leader: leader}
	m.gatherer = &gatherer[*pendingReport]{
		most: reportsWaitingMax, refuse: func(n int) { refused.WithLabelValues("queue").Add(float64(n)) },
		fits: func(waiting []*pendingReport) int { return min(len(waiting), reportsPerAskMax) },
		ask:  m.askLeader, settle: settleReports, timeout: askTimeout, threads: threads, wake: make(chan struct{}, 1),
	}
	return m
}

// tell waits for the leader's word on a report.
func (m *messenger) tell(ctx context.Context, item *recordv1.Report) (*recordv1.ToldReport, error) {
	p := &pendingReport{item: item, done: make(chan struct{})}
	if err := m.join(p); err != nil {
		return nil, err
	}
	if err := m.await(ctx, p.done, "the leader's word on a report"); err != nil {
		return nil, err
	}
	return p.told, p.err
}

func (m *messenger) askLeader(ctx context.Context, batch []*pendingReport) error {
	tell := &recordv1.TellReports{}
	for _, p := range batch {
		tell.Items = append(tell.Items, p.item)
	}
	answer, err := askReports(ctx, m.leader, tell)
	if err != nil {
		return err
	}
	for i, p := range batch {
		p.told = answer.GetOutcomes()[i]
	}
	return nil
}

func settleReports(batch []*pendingReport, err error) {
	for _, p := range batch {
		p.err = err
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
	one, now := r.rate(NetworkOf(from)), r.now()
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
