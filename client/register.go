package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// Registration is an instance that is to be registered and kept. docs/grpc.md and
// docs/leases.md say what may stand where.
type Registration struct {
	Namespace string // "" = Config.Namespace
	Service   string
	ID        string // unique in the service, and best the same after a restart
	Group     string
	Zone      string // "" = Config.Zone
	Version   string
	Labels    map[string]string
	Metadata  map[string]string
	Endpoints []Endpoint
	Checks    []Check
	TTL       time.Duration // of the lease, in whole seconds; 0 = 30 s
	// LeaseToken shows whose the instance is. "" = the one in Config.Dir, or a new one.
	LeaseToken string
}

// Check is how the cluster tries whether an endpoint works. docs/health.md has the fields.
type Check struct {
	Name, Kind, Endpoint, Path, Service, Send, Expect, ServerName string
	TLSSkipVerify                                                 bool
	Interval, Timeout                                             time.Duration
	Rise, Fall                                                    int
	Initial                                                       string
}

// Registered is an instance that the client keeps registered, until it is
// deregistered, lost, or the client is closed.
type Registered struct {
	client *Client
	key    key
	token  string
	lost   chan struct{} // closed when the instance is another's
	calls  chan struct{} // holds one value while a call about the instance is under way

	mu      sync.Mutex // guards what follows
	want    Registration
	ttl     time.Duration // in force
	due     time.Time     // of the next renewal, or try
	missing bool          // it has to be registered again
	said    string        // the reason of what was last said about it in the log
	trouble *Error        // why it could not be renewed of late; nil = it was
	err     error         // why it is not kept any more
}

// key is which instance.
type key struct{ namespace, service, id string }

func (k key) String() string {
	return fmt.Sprintf("%s/%s in namespace %s", k.service, k.id, k.namespace)
}

const (
	ttlUsual       = 30 * time.Second
	renewalsPerTTL = 3 // two may fail before the lease runs out
)

// Register registers an instance, and keeps it registered from then on. It tries until
// the registry has it, refuses it for good, or ctx is over.
//
// An instance is its holder's, who shows a lease token. With Config.Dir that is kept in a
// file, so that a process which crashed can register the same id before its lease has
// run out; without, choose ids that are new with each start.
func (c *Client) Register(ctx context.Context, r Registration) (*Registered, error) {
	ctx, span := c.metrics.span(ctx, "stellmap.register", r.Service)
	registered, err := c.register(ctx, r)
	span(err)
	return registered, err
}

func (c *Client) register(ctx context.Context, r Registration) (*Registered, error) {
	if r.Namespace == "" {
		r.Namespace = c.config.Namespace
	}
	if r.Zone == "" {
		r.Zone = c.config.Zone
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	k := key{r.Namespace, r.Service, r.ID}
	var err error
	if r.LeaseToken == "" {
		if r.LeaseToken, err = c.store.token(k, rand.Text); err != nil {
			return nil, fmt.Errorf("client: keep the lease token of %v: %w", k, err)
		}
	}
	one := &Registered{client: c, key: k, token: r.LeaseToken, lost: make(chan struct{}), calls: make(chan struct{}, 1), want: r.clone()}
	one.calls <- struct{}{} // held until the answer is there: nobody else calls before
	if err := c.keeper.add(one); err != nil {
		return nil, err
	}
	err = c.servers.call(ctx, "register "+k.String(), one.registerAt)
	<-one.calls
	if err != nil {
		c.keeper.remove(one)
		return nil, err
	}
	c.log.Info("registered", "instance", k.String())
	c.keeper.nudge()
	return one, nil
}

// check finds what would not survive the way to the registry. All else is its to judge.
func (r *Registration) check() error {
	var bad []error
	if r.TTL%time.Second != 0 || r.TTL < 0 {
		bad = append(bad, fmt.Errorf("client: TTL: %v is not allowed: whole seconds, or 0 for %v", r.TTL, ttlUsual))
	}
	for n, c := range r.Checks {
		if c.Interval%time.Second != 0 || c.Timeout%time.Second != 0 {
			bad = append(bad, fmt.Errorf("client: Checks[%d]: Interval %v and Timeout %v: whole seconds only", n, c.Interval, c.Timeout))
		}
	}
	return errors.Join(bad...)
}

// clone is a copy that its caller may not change any more.
func (r Registration) clone() Registration {
	r.Labels, r.Metadata = maps.Clone(r.Labels), maps.Clone(r.Metadata)
	r.Endpoints, r.Checks = slices.Clone(r.Endpoints), slices.Clone(r.Checks)
	return r
}

func (r *Registration) request(token string) *stellmapv1.RegisterRequest {
	m := &stellmapv1.RegisterRequest{
		Namespace: r.Namespace, Service: r.Service, InstanceId: r.ID, Group: r.Group, Zone: r.Zone, Version: r.Version,
		Labels: pairsOf(r.Labels), Metadata: pairsOf(r.Metadata), LeaseTtlSeconds: int64(r.TTL / time.Second), LeaseToken: token,
	}
	for _, e := range r.Endpoints {
		m.Endpoints = append(m.Endpoints, &stellmapv1.Endpoint{Name: e.Name, Protocol: e.Protocol, Host: e.Host, Port: int32(e.Port), Path: e.Path, Weight: int32(e.Weight)})
	}
	for _, c := range r.Checks {
		m.Checks = append(m.Checks, &stellmapv1.Check{
			Name: c.Name, Kind: c.Kind, Endpoint: c.Endpoint, Path: c.Path, Service: c.Service, Send: c.Send, Expect: c.Expect,
			ServerName: c.ServerName, TlsSkipVerify: c.TLSSkipVerify, Rise: int32(c.Rise), Fall: int32(c.Fall), Initial: c.Initial,
			IntervalSeconds: int64(c.Interval / time.Second), TimeoutSeconds: int64(c.Timeout / time.Second),
		})
	}
	return m
}

func pairsOf(m map[string]string) []*stellmapv1.Pair {
	var out []*stellmapv1.Pair
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, &stellmapv1.Pair{Key: k, Value: m[k]})
	}
	return out
}

// registerAt registers the instance as it is wanted. The caller holds calls.
func (r *Registered) registerAt(ctx context.Context, l *link) error {
	r.mu.Lock()
	want := r.want
	r.mu.Unlock()
	begun := time.Now()
	answer, err := l.api.Register(ctx, want.request(r.token))
	r.client.metrics.registered(ctx, err)
	if err != nil {
		return err
	}
	r.renewed(begun, answer.GetLeaseTtlSeconds())
	return nil
}

// renewed takes an answer that says that the lease began anew, at begun at the earliest.
// The next renewal is due a third of the TTL after that and not after the answer: a slow
// server must not stretch them.
func (r *Registered) renewed(begun time.Time, ttlSeconds int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ttl = time.Duration(ttlSeconds) * time.Second // longer than what was asked for, where the leader has too much to do
	if r.ttl == 0 {
		r.ttl = r.want.TTL
	}
	if r.ttl == 0 {
		r.ttl = ttlUsual
	}
	every := r.ttl / renewalsPerTTL
	r.due = begun.Add(every - every/8 + jittered(every/8))
	if r.said != "" {
		r.client.log.Info("renewed again", "instance", r.key.String())
	}
	r.missing, r.trouble, r.said = false, nil, ""
}

// failed takes an answer that says why the lease was not renewed. What is wrong is said
// when it changes and not at every try, so that an outage of an hour is two lines.
func (r *Registered) failed(e *Error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	if e.lost() {
		r.err = e
		close(r.lost)
		r.client.log.Error("the instance is held by another, and is not kept any more", "instance", r.key.String(), "error", e)
		return
	}
	if r.said != e.Reason {
		r.client.log.Warn("the instance could not be renewed; it is tried on", "instance", r.key.String(), "error", e)
	}
	r.trouble, r.said = e, e.Reason
	r.missing = r.missing || e.Reason == "NOT_FOUND"
	if e.Reason == "NOT_FOUND" {
		r.due = now
	} else {
		r.due = now.Add(jittered(min(r.ttl/renewalsPerTTL, renewAgainMax)))
	}
}

// Lost is closed when the instance is another's: its lease had run out, for want of a
// registry that could be reached, and somebody else has registered the same id since.
func (r *Registered) Lost() <-chan struct{} { return r.lost }

// Err says why the instance was not renewed when that was last tried, or why it is not
// kept any more; nil where all is well.
func (r *Registered) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return r.err
	case r.trouble != nil:
		return r.trouble
	}
	return nil
}

// LeaseToken shows that the instance is this process's; see docs/leases.md.
func (r *Registered) LeaseToken() string { return r.token }

// Update registers the same instance with other endpoints, labels or whatever else,
// and keeps that from then on.
func (r *Registered) Update(ctx context.Context, to Registration) error {
	to = to.clone()
	to.Namespace, to.Service, to.ID = r.key.namespace, r.key.service, r.key.id
	if to.Zone == "" {
		to.Zone = r.client.config.Zone
	}
	if err := to.check(); err != nil {
		return err
	}
	if err := r.hold(ctx); err != nil {
		return err
	}
	defer func() { <-r.calls }()
	r.mu.Lock()
	before, err := r.want, r.err
	r.want = to
	r.mu.Unlock()
	if err != nil {
		return err
	}
	err = r.client.servers.call(ctx, "update "+r.key.String(), r.registerAt)
	if err != nil {
		r.mu.Lock()
		r.want = before
		r.mu.Unlock()
	}
	return err
}

// Deregister removes the instance from the registry and ends its keeping.
func (r *Registered) Deregister(ctx context.Context) error {
	ctx, span := r.client.metrics.span(ctx, "stellmap.deregister", r.key.service)
	err := r.deregister(ctx)
	span(err)
	return err
}

func (r *Registered) deregister(ctx context.Context) error {
	r.client.keeper.remove(r) // whatever comes of it: who stops must not be renewed
	if err := r.hold(ctx); err != nil {
		return err
	}
	defer func() { <-r.calls }()
	r.mu.Lock()
	lost := r.err != nil
	if !lost {
		r.err = ErrClosed
	}
	r.mu.Unlock()
	if lost {
		return nil
	}
	ask := &stellmapv1.DeregisterRequest{Namespace: r.key.namespace, Service: r.key.service, InstanceId: r.key.id, LeaseToken: r.token}
	err := r.client.servers.call(ctx, "deregister "+r.key.String(), func(ctx context.Context, l *link) error {
		_, err := l.api.Deregister(ctx, ask)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: it stays until its lease runs out", err)
	}
	r.client.log.Info("deregistered", "instance", r.key.String())
	return r.client.store.forgetToken(r.key)
}

// hold waits until no other call about the instance is under way.
func (r *Registered) hold(ctx context.Context) error {
	select {
	case r.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("client: another call about %v: %w", r.key, ctx.Err())
	}
}
