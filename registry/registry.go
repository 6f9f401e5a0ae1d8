package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/threads"
)

// A Registry is what callers use: it checks what they ask for, has it replicated,
// and says what became of it. On the leader it also lets leases run out.
type Registry struct {
	machine    *Machine
	replicator Replicator
	clock      Clock
	threads    threads.Threads
	log        *slog.Logger
	renewer    *renewer
	logged     *gatherer[*loggedRenewal]
	messenger  *messenger
	rates      *reportRates
	guard      *guard
	places     *watchPlaces
	order      []string // of regions
}

// Config is what a registry needs.
type Config struct {
	Machine    *Machine        // required
	Replicator Replicator      // required
	Clock      Clock           // nil = the system's; what leases and reaping go by
	Threads    threads.Threads // nil = goroutines
	Logger     *slog.Logger    // nil = none
	Preserve   Preservation    // from mass expiry

	Regions           []string // in which order they are called, behind a client's own and those that a policy names; our own is the first
	WatchesPerAddress int      // that may be open on this member; 0 = 1,000, and any number from this machine
}

// A Replicator is what the registry needs of the log. Its errors are this
// package's, wrapped or not.
type Replicator interface {
	// Propose returns when the command is committed, applied and published on this member.
	// A request id of "" asks for no deduplication.
	Propose(ctx context.Context, requestID string, command []byte) (Applied, error)
	// Barrier returns once everything that was committed before the call is applied and
	// published here. It is confirmed by a quorum in a round that began after the call.
	Barrier(ctx context.Context) (Revision, error)
	// Fresh is a time before which nothing was committed that is not applied and
	// published here; zero when that is not known.
	Fresh() time.Time
	// AskLeader has Machine.Answer on the leader answer a request; it is sent at most once.
	AskLeader(ctx context.Context, request []byte) ([]byte, error)
}

// Applied is what became of a command.
type Applied struct {
	Revision Revision
	Reply    []byte // what Machine.Apply returned
}

// A Clock is where time comes from.
type Clock interface {
	Now() time.Time
	// Ticker sends the time every d until stop is called; a tick that nobody took is dropped.
	Ticker(d time.Duration) (ticks <-chan time.Time, stop func())
}

// SystemClock is the clock of the machine that this runs on.
type SystemClock struct{}

// Now is time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// Ticker is time.NewTicker.
func (SystemClock) Ticker(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// Result is what a write did.
type Result struct {
	Revision Revision
	Created  bool          // there was no such instance before
	Changed  bool          // a reader can tell
	LeaseTTL time.Duration // of a registration or renewal: what the lease was given, if it is longer than its own TTL
}

// New makes the registry of a machine. Renewals and the leader's own work wait for Run.
func New(c Config) *Registry {
	r := &Registry{machine: c.Machine, replicator: c.Replicator, clock: c.Clock, threads: c.Threads, log: loggerOr(c.Logger), places: newWatchPlaces(c.WatchesPerAddress), order: c.Regions}
	if r.clock == nil {
		r.clock = SystemClock{}
	}
	r.guard = &guard{machine: c.Machine, rules: c.Preserve.filled()}
	r.renewer = newRenewer(c.Replicator.AskLeader, c.Machine.metrics.refusedQueue, c.Threads)
	r.logged = newLogged(c.Replicator, c.Machine.metrics.refusedQueue, c.Threads)
	r.rates = newReportRates(c.Machine.leases.now)
	r.messenger = newMessenger(c.Replicator.AskLeader, c.Machine.metrics.reportsRefused, c.Threads)
	barrier := c.Replicator.Barrier
	c.Machine.barrier.Store(&barrier)
	return r
}

// Run sends renewals and reports to the leader and, while this member leads, lets
// leases run out, judges what is reported, and removes what is past its time. It returns nil when the context ends.
func (r *Registry) Run(ctx context.Context) error {
	loops := threads.Crew{Threads: r.threads}
	loops.Run("renew", func() { r.renewer.run(ctx) })
	loops.Run("renew in the log", func() { r.logged.run(ctx) })
	loops.Run("tell reports", func() { r.messenger.run(ctx) })
	loops.Run("judge reports", func() { r.judgeLoop(ctx) })
	loops.Run("expire", func() { r.expireLoop(ctx) })
	loops.Run("reap", func() { r.reapLoop(ctx) })
	loops.Run("checkpoint", func() { r.checkpointLoop(ctx) })
	loops.Wait()
	return nil
}

// Register stores an instance and begins its lease anew. An instance that is
// registered again keeps the time of its first registration. Who may do so is told by Holder.
func (r *Registry) Register(ctx context.Context, requestID string, registration Registration) (Result, error) {
	normal, err := registration.normalize()
	if err != nil {
		return Result{}, err
	}
	if err := normal.instanceKey().permit(ctx, VerbRegister); err != nil {
		return Result{}, err
	}
	result, reply, err := r.propose(ctx, requestID, registerCommand(normal))
	if err != nil {
		return Result{}, fmt.Errorf("register: %w", err)
	}
	if err := normal.refused(reply); err != nil {
		return Result{}, err
	}
	return result, nil
}

// refused is why Apply did not take a registration; nil when it did.
func (r Registration) refused(reply *recordv1.Result) error {
	switch reply.GetCode() {
	case recordv1.Result_CODE_ENDPOINT_NAMES_FULL:
		return tooManyEndpointNames(r)
	case recordv1.Result_CODE_QUOTA_FULL:
		return fullError(r.Namespace, reply.GetFull())
	}
	if r.LeaseID != "" {
		return sharedRefused(reply, r.Holder)
	}
	return r.Holder.judge(reply)
}

func tooManyEndpointNames(registration Registration) error {
	return &ValidationError{Problems: []Problem{{
		Field:  "endpoints",
		Reason: fmt.Sprintf("would give service %s more than %d endpoint names over its life: use the names that its other instances use", quoted(registration.Service), serviceEndpointNamesMax),
	}}}
}

// Deregister removes an instance. One that is not there is no error: nothing has changed then.
func (r *Registry) Deregister(ctx context.Context, requestID string, ref InstanceRef) (Result, error) {
	k, err := ref.key()
	if err != nil {
		return Result{}, err
	}
	if err := k.permit(ctx, VerbDeregister); err != nil {
		return Result{}, err
	}
	result, reply, err := r.propose(ctx, requestID, deregisterCommand(k, ref.Holder))
	if err != nil {
		return Result{}, fmt.Errorf("deregister: %w", err)
	}
	return result, ref.Holder.judge(reply)
}

// Heartbeat renews a lease; 0 seconds keep its TTL. It revives an instance that
// expired a short while ago. The error is ErrNotFound when there is nothing to
// renew: the instance has to be registered again.
func (r *Registry) Heartbeat(ctx context.Context, ref InstanceRef, leaseTTLSeconds int64) (Result, error) {
	one, err := Renewal{Instance: ref, LeaseTTLSeconds: leaseTTLSeconds}.normalize()
	if err != nil {
		return Result{}, err
	}
	if err := one.key.permit(ctx, VerbRenew); err != nil {
		return Result{}, err
	}
	return r.heartbeat(ctx, one)
}

func (r *Registry) heartbeat(ctx context.Context, one pendingRenewal) (Result, error) {
	renewals := []pendingRenewal{one}
	if err := r.renewer.renewAll(ctx, renewals); err != nil {
		return Result{}, fmt.Errorf("heartbeat: %w", err)
	}
	logged, err := renewals[0].settled()
	switch {
	case logged:
		return r.renewInLog(ctx, &one)
	case err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLeaseNotFound):
		return Result{}, fmt.Errorf("heartbeat: %w", err)
	}
	return Result{Revision: r.machine.Revision(), LeaseTTL: renewals[0].granted}, err
}

func (r Renewal) normalize() (pendingRenewal, error) {
	var bad problems
	n := r.Instance.normalize(&bad)
	ttlMs := normalizeTTL(r.LeaseTTLSeconds, &bad) * 1000
	return pendingRenewal{key: n.instanceKey(), ttlMs: ttlMs, by: n.Holder}, bad.err()
}

func (r *Registry) propose(ctx context.Context, requestID string, command []byte) (Result, *recordv1.Result, error) {
	applied, err := r.replicator.Propose(ctx, requestID, command)
	if err != nil {
		return Result{}, nil, err
	}
	reply, err := decodeReply(applied.Reply)
	if err != nil {
		return Result{}, nil, err
	}
	return resultOf(applied.Revision, reply), reply, nil
}

func resultOf(at Revision, reply *recordv1.Result) Result {
	return Result{Revision: at, Created: reply.GetCreated(), Changed: reply.GetChanged(), LeaseTTL: time.Duration(reply.GetGrantedMs()) * time.Millisecond}
}

// LastHeartbeats are the times at which the instances were last heard of, in Unix
// ms, as far as this member has been told (see Machine.LastHeartbeats).
func (r *Registry) LastHeartbeats(instances []*Instance) []int64 {
	return r.machine.LastHeartbeats(instances)
}

// Get reads one instance, of whatever status, another region's too. The revision is the one that the
// answer was read at, with ErrNotFound too.
func (r *Registry) Get(ctx context.Context, ref InstanceRef, consistency Consistency) (*Instance, Revision, error) {
	k, err := ref.seenKey()
	if err != nil {
		return nil, 0, err
	}
	if err := k.permit(ctx, VerbRead); err != nil {
		return nil, 0, err
	}
	if err := r.freshen(ctx, consistency); err != nil {
		return nil, 0, err
	}
	i, at := r.machine.handedOut(k)
	if i == nil {
		return nil, at, missingInstance(k, longGone)
	}
	return i, at, nil
}

// freshen waits until this member may answer a read of that consistency.
func (r *Registry) freshen(ctx context.Context, consistency Consistency) error {
	if consistency.stale && consistency.maxAge == 0 || mutant("read_without_barrier") {
		return nil
	}
	age, known := r.Age()
	if consistency.stale && known && age <= consistency.maxAge {
		return nil
	}
	if _, err := r.replicator.Barrier(ctx); err != nil && consistency.stale {
		return fmt.Errorf("%w: its age is %s, and it could not be made younger: %v", ErrTooOld, ageText(age, known), err)
	} else if err != nil {
		return fmt.Errorf("wait until this member may answer a linearizable read: %w", err)
	}
	return nil
}

// Age is how old this member's state is at most: everything that was committed
// so long ago is in it. It is not known until a leader has confirmed it once.
func (r *Registry) Age() (age time.Duration, known bool) {
	return r.ageOf(r.replicator.Fresh())
}

// ageOf is the age of a state that has everything from before a time; zero says that no time is known.
func (r *Registry) ageOf(complete time.Time) (age time.Duration, known bool) {
	return max(0, r.clock.Now().Sub(complete)), !complete.IsZero()
}

// StaleAge is the age that a stale read with a limit, 0 for none, answers with. It is
// looked at before the state, so that it is none too low. What is older than the limit
// a leader confirms, or there is no answer.
func (r *Registry) StaleAge(limit time.Duration) (age time.Duration, known bool) {
	age, known = r.Age()
	if limit != 0 && (!known || age > limit) {
		return 0, true
	}
	return age, known
}

func ageText(age time.Duration, known bool) string {
	if !known {
		return "not known"
	}
	return age.Round(time.Millisecond).String()
}
