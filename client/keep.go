package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// keeper renews all leases of the process, over one stream. A lease that is due takes
// along those that are due soon, so that a thousand are a few requests and not a thousand.
// What the registry does not have any more is registered again, by a few workers beside
// the stream, so that those that are well do not wait for it.
type keeper struct {
	client *Client
	awake  chan struct{} // holds one value when there may be something to do
	slots  chan struct{} // of the workers

	mu     sync.Mutex // guards what follows; before a Registered's own
	all    map[key]*Registered
	closed bool
}

const (
	renewalsMost  = 4_096       // in one request: the servers' bound
	renewAgainMax = time.Second // between a renewal that failed and the next: leases may be short
)

func newKeeper(c *Client) *keeper {
	return &keeper{client: c, awake: make(chan struct{}, 1), slots: make(chan struct{}, registersMost), all: make(map[key]*Registered)}
}

func (k *keeper) add(r *Registered) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return ErrClosed
	case k.all[r.key] != nil:
		return fmt.Errorf("client: %v is kept already: Update changes it", r.key)
	case len(k.all) >= leasesMax:
		return fmt.Errorf("client: %d instances are kept, which is all that one client keeps: deregister some, or make another client", leasesMax)
	}
	k.all[r.key] = r
	return nil
}

func (k *keeper) remove(r *Registered) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all[r.key] == r {
		delete(k.all, r.key)
	}
}

func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all)
}

// nudge has the keeper look anew at what is due.
func (k *keeper) nudge() {
	select {
	case k.awake <- struct{}{}:
	default:
	}
}

// run renews until the client is closed.
func (k *keeper) run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	for failures := 0; ctx.Err() == nil; failures++ {
		if !k.someDue(ctx) {
			return
		}
		l, err := k.client.servers.at(ctx)
		if err != nil {
			return
		}
		begun := time.Now()
		k.renewAt(ctx, l, &workers)
		if time.Since(begun) > k.client.timing.steady {
			failures = 0
		}
		if !pause(ctx, min(k.client.timing.after(failures), renewAgainMax)) {
			return
		}
	}
}

// someDue waits until something is due; false when ctx is over. Without leases no
// stream is held open.
func (k *keeper) someDue(ctx context.Context) bool {
	for {
		renew, again, wait := k.due(time.Now())
		if len(renew)+len(again) > 0 {
			return true
		}
		if !k.sleep(ctx, nil, wait) {
			return ctx.Err() == nil
		}
	}
}

// sleep waits for a nudge or the time; false when either context is over.
func (k *keeper) sleep(ctx context.Context, l *link, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var left <-chan struct{}
	if l != nil {
		left = l.left.Done()
	}
	select {
	case <-timer.C:
	case <-k.awake:
	case <-left:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// idleWait is how long the keeper sleeps where nothing is ever due.
const idleWait = time.Hour

// due are the instances to renew now and those to register again, or else how long it is
// until there are some. What is due within an eighth of its time is taken along.
func (k *keeper) due(now time.Time) (renew, again []*Registered, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait = idleWait
	for _, r := range k.all {
		r.mu.Lock()
		until, every, kept := r.due.Sub(now), r.ttl/renewalsPerTTL, r.ttl > 0 && r.err == nil
		switch {
		case !kept: // its first registration is under way, or it is lost
		case r.missing && until <= 0:
			again = append(again, r)
		case !r.missing && until <= every/8 && len(renew) < renewalsMost:
			renew = append(renew, r)
			wait = min(wait, max(until, 0))
		default:
			wait = min(wait, max(until, 0))
		}
		r.mu.Unlock()
	}
	if wait > 0 { // none is due yet that the others could go along with
		renew = nil
	}
	return renew, again, wait
}

// renewAt renews at one server, until the stream to it ends.
func (k *keeper) renewAt(ctx context.Context, l *link, workers *sync.WaitGroup) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := l.api.Renew(within)
	if err != nil {
		return
	}
	for {
		renew, again, wait := k.due(time.Now())
		k.registerAgain(ctx, again, workers)
		if len(renew) == 0 {
			if len(again) > 0 {
				wait = min(wait, k.client.timing.retryMin) // for a worker
			}
			if !k.sleep(ctx, l, wait) {
				return
			}
			continue
		}
		begun := time.Now()
		late := time.AfterFunc(k.client.timing.renewal, cancel)
		answer, err := exchange(stream, requestOf(renew))
		if !late.Stop() && ctx.Err() == nil {
			err = fmt.Errorf("no answer to renewals within %v", k.client.timing.renewal)
			l.leave(err)
		}
		if err != nil {
			k.client.metrics.renewed(ctx, 0, len(renew))
			k.failed(renew, l.hear(errorOf("renew", l.server, err)))
			return
		}
		k.settle(ctx, renew, answer, begun, l)
	}
}

func requestOf(renew []*Registered) *stellmapv1.RenewRequest {
	m := &stellmapv1.RenewRequest{Renewals: make([]*stellmapv1.Renewal, len(renew))}
	for i, r := range renew {
		m.Renewals[i] = &stellmapv1.Renewal{Namespace: r.key.namespace, Service: r.key.service, InstanceId: r.key.id, LeaseToken: r.token}
	}
	return m
}

func exchange(stream stellmapv1.RegistryService_RenewClient, ask *stellmapv1.RenewRequest) (*stellmapv1.RenewResponse, error) {
	if err := stream.Send(ask); err != nil {
		if _, why := stream.Recv(); why != nil {
			return nil, why // Send says only that it has ended
		}
		return nil, err
	}
	answer, err := stream.Recv()
	if err == nil && len(answer.GetResults()) != len(ask.GetRenewals()) {
		err = fmt.Errorf("%d renewals were answered with %d results", len(ask.GetRenewals()), len(answer.GetResults()))
	}
	return answer, err
}

// failed is told of renewals of which nobody knows what has become: they stay due, and
// go first over the next stream.
func (k *keeper) failed(renew []*Registered, e *Error) {
	k.client.log.Warn("renewals were not answered; they are tried on", "instances", len(renew), "error", e)
	for _, r := range renew {
		r.mu.Lock()
		r.trouble = e
		r.mu.Unlock()
	}
}

// settle takes the answer to renewals.
func (k *keeper) settle(ctx context.Context, renew []*Registered, answer *stellmapv1.RenewResponse, begun time.Time, l *link) {
	for i, r := range renew {
		result := answer.GetResults()[i]
		if p := result.GetProblem(); p != nil {
			r.failed(problemOf("renew "+r.key.String(), l.server, p), time.Now())
			continue
		}
		r.renewed(begun, result.GetLeaseTtlSeconds())
	}
	k.client.metrics.renewed(ctx, len(renew)-int(answer.GetFailed()), int(answer.GetFailed()))
}

// registerAgain begins as many as there are workers for; the others stay due.
func (k *keeper) registerAgain(ctx context.Context, again []*Registered, workers *sync.WaitGroup) {
	for _, r := range again {
		select {
		case r.calls <- struct{}{}:
		default:
			continue // a call about it is under way, which will tell
		}
		select {
		case k.slots <- struct{}{}:
		default:
			<-r.calls
			return
		}
		workers.Go(func() { // ends within callTimeout
			k.registerOne(ctx, r)
			<-r.calls
			<-k.slots
			k.nudge()
		})
	}
}

func (k *keeper) registerOne(ctx context.Context, r *Registered) {
	r.mu.Lock()
	over := r.err != nil || !r.missing
	r.mu.Unlock()
	if over {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout) // also where there is no server to call
	defer cancel()
	err := k.client.servers.callOnce(ctx, "register again "+r.key.String(), r.registerAt)
	var refused *Error
	if errors.As(err, &refused) {
		r.failed(refused, time.Now())
	}
	if err == nil {
		k.client.log.Warn("the registry did not have the instance any more: registered again", "instance", r.key.String())
	}
}

// close has nothing more be registered.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
}

// deregisterAll deregisters what is kept, a few at a time.
func (k *keeper) deregisterAll(ctx context.Context) error {
	k.mu.Lock()
	var all []*Registered
	for _, r := range k.all {
		all = append(all, r)
	}
	k.mu.Unlock()
	errs := make([]error, len(all))
	var group sync.WaitGroup
	slots := make(chan struct{}, registersMost)
	for i, r := range all {
		slots <- struct{}{}
		group.Go(func() {
			errs[i] = r.Deregister(ctx)
			<-slots
		})
	}
	group.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("client: %d of %d instances could not be deregistered; the first: %w", len(errs), len(all), errs[0])
}
