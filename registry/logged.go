package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/threads"
)

// Renewals that need their place in the log: of leases that are overdue or have
// run out, and those that change a TTL.
//
// When a leader has too much to do renewals come late, late ones are entries, and
// entries are more to do: left to itself the load would grow until most leases have
// run out. So they share entries. The first goes at once, and what comes in the next
// moment goes together: a member proposes so many entries a second at most, however
// many leases are late, unless they fill them.
const (
	loggedRest    = 250 * time.Millisecond
	loggedTimeout = 3 * time.Second // for one entry: as long as a caller waits, nearly
)

// A loggedRenewal is one that waits for its entry.
type loggedRenewal struct {
	renewal *pendingRenewal
	done    chan struct{} // closed when the next three are set
	result  Result
	reply   *recordv1.Result
	err     error
}

func newLogged(log Replicator, refused prometheus.Counter, threads threads.Threads) *gatherer[*loggedRenewal] {
	return &gatherer[*loggedRenewal]{
		most: renewalsWaitingMax, refuse: func(n int) { refused.Add(float64(n)) },
		fits:   func(waiting []*loggedRenewal) int { return min(len(waiting), commandItemsMax) },
		ask:    func(ctx context.Context, batch []*loggedRenewal) error { return proposeRenewals(ctx, log, batch) },
		settle: settleLogged, timeout: loggedTimeout, rest: loggedRest, threads: threads, wake: make(chan struct{}, 1),
	}
}

func proposeRenewals(ctx context.Context, log Replicator, batch []*loggedRenewal) error {
	renew := &recordv1.Renew{}
	for _, p := range batch {
		renew.Items = append(renew.Items, p.renewal.record())
	}
	applied, err := log.Propose(ctx, "", encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Renew{Renew: renew}}))
	if err != nil {
		return err
	}
	replies, err := decodeReplies(applied.Reply, len(batch))
	if err != nil {
		return err
	}
	for i, p := range batch {
		p.result, p.reply = resultOf(applied.Revision, replies[i]), replies[i]
	}
	return nil
}

func settleLogged(batch []*loggedRenewal, err error) {
	for _, p := range batch {
		p.err = err
		close(p.done)
	}
}

// renewInLog is for a renewal that must have its place among the commands.
func (r *Registry) renewInLog(ctx context.Context, one *pendingRenewal) (Result, error) {
	p := &loggedRenewal{renewal: one, done: make(chan struct{})}
	err := r.logged.join(p)
	if err == nil {
		err = r.logged.await(ctx, p.done, "a renewal's place in the log")
	}
	if err == nil {
		err = p.err
	}
	if err != nil {
		return Result{}, fmt.Errorf("heartbeat: %w", err)
	}
	return p.result, one.refused(p.reply)
}
