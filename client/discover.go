package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// Query says which instances of a service are wanted.
type Query struct {
	Namespace string // "" = Config.Namespace
	Service   string
	Group     string // "" = any
	Version   string // "" = any
	Selector  string // of labels, such as "track=canary,tier!=free"; "" = any. See docs/query.md
}

func (q Query) String() string {
	s := fmt.Sprintf("service %s in namespace %s", q.Service, q.Namespace)
	for _, part := range []struct{ name, value string }{{"group", q.Group}, {"version", q.Version}, {"selector", q.Selector}} {
		if part.value != "" {
			s += fmt.Sprintf(", %s %s", part.name, part.value)
		}
	}
	return s
}

// filter asks for instances of all states: the picker weighs those that are well by how
// many there should be.
func (q Query) filter() *stellmapv1.Filter {
	f := &stellmapv1.Filter{Namespace: q.Namespace, Services: []string{q.Service}}
	if q.Group != "" {
		f.Groups = []string{q.Group}
	}
	if q.Version != "" {
		f.Versions = []string{q.Version}
	}
	if q.Selector != "" {
		f.Selectors = []string{q.Selector}
	}
	return f
}

// Snapshot is what was known of a service at one revision.
type Snapshot struct {
	Instances []*Instance // of all states, by id; shared, so that nobody may change them
	Revision  uint64
	// Stale says that changes may be missing: no server is there, or the one that is has
	// no leader. Service.Age says since when.
	Stale bool
	// Held is how many of the instances are only held: a cluster that is another than
	// before, such as one restored from a backup, has not told of them. They are kept for
	// 30 s, in which those that live register again.
	Held int

	number uint64 // grows with each of the service; 0 = none
}

// Service is what a client knows of a service. It is followed until it, or the client, is
// closed.
type Service struct {
	client *Client
	query  Query
	end    context.CancelFunc
	users  int // guarded by the client's mu

	mu      sync.Mutex // guards what follows
	view    view
	now     Snapshot
	changed chan struct{} // closed when now is no longer the newest
	source  *link         // over which the view was told to be current; nil = it was not
	current time.Time     // when a server that had a leader has last told of it; zero = never
	trouble error         // why it is not
	holding time.Time     // since when some are held; zero = none are
	saved   uint64        // the revision that is on disk
	over    bool
}

// Discover follows a service. It returns once the service is known, at one server or,
// where Config.Dir has it from before and no server answers within a second, as it was
// then, and Stale. A service that nobody has registered is known, too: it has no instances.
//
// Discovering the same twice costs one watch. Close what is not needed any more.
func (c *Client) Discover(ctx context.Context, q Query) (*Service, error) {
	if q.Namespace == "" {
		q.Namespace = c.config.Namespace
	}
	s, err := c.follow(q)
	if err != nil {
		return nil, err
	}
	if err := s.first(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("client: discover %v: %w", q, err), s.Close())
	}
	return s, nil
}

// follow finds or begins the watch of a query.
func (c *Client) follow(q Query) (*Service, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if s := c.services[q]; s != nil {
		s.users++
		return s, nil
	}
	if len(c.services) >= servicesMax {
		return nil, fmt.Errorf("client: %d services are discovered, which is all that one client follows: close some, or make another client", servicesMax)
	}
	s := &Service{client: c, query: q, users: 1, changed: make(chan struct{})}
	if v, at, err := c.store.load(q); err != nil {
		c.log.Warn("what was saved of a service is of no use", "service", q.String(), "error", err)
	} else if v != nil {
		s.view, s.current, s.saved = *v, at, v.revision
		s.publish(true)
	}
	var ctx context.Context
	ctx, s.end = context.WithCancel(c.life)
	c.services[q] = s
	c.group.Go(func() { s.run(ctx) })
	return s, nil
}

// first waits until something is known, and then for a while for it to be current.
func (s *Service) first(ctx context.Context) error {
	live, cancel := context.WithTimeout(ctx, s.client.timing.liveWait)
	defer cancel()
	for {
		s.mu.Lock()
		now, changed, trouble, over := s.now, s.changed, s.trouble, s.over
		s.mu.Unlock()
		enough := ctx
		switch {
		case now.number > 0 && (!now.Stale || live.Err() != nil):
			return nil
		case over:
			return ErrClosed
		case now.number > 0:
			enough = live
		case refusedForGood(trouble):
			return trouble
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), trouble)
		}
		select {
		case <-changed:
		case <-enough.Done():
		}
	}
}

// refusedForGood tells that trying again is no use, as it is not where a selector is wrong.
func refusedForGood(err error) bool {
	var refused *Error
	return err != nil && !(errors.As(err, &refused) && refused.retry)
}

// Close ends the following, once all who have discovered the service have closed it.
func (s *Service) Close() error {
	c := s.client
	c.mu.Lock()
	s.users--
	last := s.users == 0 // once only, however often it is closed
	if last {
		delete(c.services, s.query)
	}
	c.mu.Unlock()
	if last {
		s.end()
		return c.save(s)
	}
	return nil
}

// Snapshot is what is known now.
func (s *Service) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Age is for how long, at most, changes may be missing: 0 for a service that is current,
// and beyond all bounds for one that never was.
func (s *Service) Age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.now.Stale {
		return 0
	}
	return time.Since(s.current)
}

// Err says why the service is stale; nil where it is not.
func (s *Service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.now.Stale:
		return nil
	case s.trouble != nil:
		return s.trouble
	}
	return fmt.Errorf("client: %v: %w", s.query, errNotServing)
}

// Next waits for a snapshot that is newer than one that the caller has; the zero Snapshot
// is older than all. Whoever comes late is given the newest, and not what was between.
func (s *Service) Next(ctx context.Context, after Snapshot) (Snapshot, error) {
	for {
		s.mu.Lock()
		now, changed, over := s.now, s.changed, s.over
		s.mu.Unlock()
		switch {
		case now.number > after.number:
			return now, nil
		case over:
			return after, ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return after, ctx.Err()
		}
	}
}

// Updates are snapshots, the newest each time, until ctx is over or the service closed:
//
//	for latest := range orders.Updates(ctx) {
//		use(latest.Instances)
//	}
func (s *Service) Updates(ctx context.Context) iter.Seq[Snapshot] {
	return func(yield func(Snapshot) bool) {
		var now Snapshot
		for {
			var err error
			if now, err = s.Next(ctx, now); err != nil || !yield(now) {
				return
			}
		}
	}
}

// run follows the service at one server after the other.
func (s *Service) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		l, err := s.client.servers.at(ctx)
		if err != nil {
			break
		}
		begun := time.Now()
		err = s.followAt(ctx, l)
		if ctx.Err() != nil {
			break
		}
		s.lost(err)
		if time.Since(begun) > s.client.timing.steady {
			failures = 0
		}
		if !pause(ctx, s.client.timing.after(failures)) {
			break
		}
	}
	s.mu.Lock()
	s.over = true
	s.wake()
	s.mu.Unlock()
}

// followAt follows at one server, until that tells no more.
func (s *Service) followAt(ctx context.Context, l *link) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := &stellmapv1.WatchRequest{Filter: s.query.filter(), Resume: s.resume()}
	if !l.serving.Load() { // what it knows is better than nothing, of whatever age
		ask.Freshness = &stellmapv1.Freshness{Stale: true}
	}
	doing := "discover " + s.query.String()
	stream, err := l.api.Watch(ctx, ask)
	if err != nil {
		return l.hear(errorOf(doing, l.server, err))
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return l.hear(errorOf(doing, l.server, err))
		}
		if err := s.take(ctx, l, m); err != nil {
			return err
		}
	}
}

func (s *Service) resume() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.resume
}

// take takes what the watch has told.
func (s *Service) take(ctx context.Context, l *link, m *stellmapv1.WatchResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole, changed, err := s.view.take(m)
	if err != nil || !whole {
		return err
	}
	if m.GetResync() != stellmapv1.Resync_RESYNC_UNSPECIFIED {
		s.client.metrics.resyncs.Add(ctx, 1)
	}
	s.client.metrics.changes.Add(ctx, int64(len(m.GetChanges())))
	s.source, s.trouble = l, nil
	if l.serving.Load() {
		s.current = time.Now()
	}
	s.now.Revision = s.view.revision
	s.publish(s.release() || changed)
	return nil
}

// release ends the holding of instances after its time, with whatever the watch tells next,
// be it that there is nothing new. The caller holds mu.
func (s *Service) release() bool {
	switch {
	case len(s.view.held) == 0:
		s.holding = time.Time{}
	case s.holding.IsZero():
		s.holding = time.Now()
		s.client.log.Warn("the registry is another than before, or was restored: what it has not told of is held for a while", "service", s.query.String(), "instances", len(s.view.held))
	case time.Since(s.holding) > s.client.timing.hold:
		s.holding = time.Time{}
		return s.view.release()
	}
	return false
}

// lost is the end of a stream.
func (s *Service) lost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.interrupt()
	s.source, s.trouble = nil, err
	if s.now.number > 0 {
		s.publish(false)
	}
	s.wake()
}

// mark says anew whether the service is current, after the link has changed.
func (s *Service) mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.number > 0 {
		s.publish(false)
	}
}

// publish makes a snapshot of what is known, where there is something new about it. The
// caller holds mu.
func (s *Service) publish(changed bool) {
	stale := s.source == nil || !s.source.serving.Load() || s.source.left.Err() != nil
	if !changed && s.now.number > 0 && stale == s.now.Stale {
		return
	}
	next := Snapshot{Instances: s.now.Instances, Revision: s.view.revision, Stale: stale, Held: len(s.view.held), number: s.now.number + 1}
	if changed {
		next.Instances = s.view.list()
	}
	s.now = next
	s.wake()
}

// wake wakes whoever waits for something newer. The caller holds mu.
func (s *Service) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// all are the services that are followed.
func (c *Client) all() []*Service {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Service, 0, len(c.services))
	for _, s := range c.services {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Service) int { return strings.Compare(a.query.String(), b.query.String()) })
	return all
}

func (c *Client) markAll() {
	for _, s := range c.all() {
		s.mark()
	}
}

func (c *Client) countStale() (n int64) {
	for _, s := range c.all() {
		if s.Snapshot().Stale {
			n++
		}
	}
	return n
}
