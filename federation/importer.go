package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// An Importer keeps this region's copies of others: while its member leads, it follows
// each of them and has what it is told committed. Where a copy is stands in the
// registry, committed with what was told; so whoever leads next goes on from there.
type Importer struct {
	registry *registry.Registry
	identity func() Identity
	leads    func() bool
	log      *slog.Logger
	metrics  *importMetrics
	limits   importLimits
	sources  []*source

	understands uint32 // the newest feature level that it does

	reach  func(*source) (replicationv1.ReplicationServiceClient, io.Closer, error) // the member whose turn it is
	jitter func(most time.Duration) time.Duration
}

// ImporterConfig is what an Importer needs.
type ImporterConfig struct {
	Registry   *registry.Registry // required
	Identity   func() Identity    // of this member; required
	Leads      func() bool        // whether this member leads its cluster; required
	Level      uint32             // the newest feature level that this version knows
	Sources    []Source
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Source is another region's cluster.
type Source struct {
	Region    string
	ClusterID uint64
	Addresses []string            // host:port of its members, for members; tried in turn
	Token     string              // "" = it asks for none
	Dial      []grpc.DialOption   // how its members are reached; none = without TLS
	Wanted    []registry.Selected // what is taken of it; none = everything that it tells
}

// The bounds of following a source.
const (
	leadEvery      = 500 * time.Millisecond // it is looked at whether this member leads, and whether an operator has paused a copy
	silenceMax     = 35 * time.Second       // a source says something every 10 s
	importQueueMax = 256                    // responses that were received and not committed; the source's window bounds their bytes
	importBytes    = 256 << 10              // of one command, and one response more
	importRate     = 8 << 20                // bytes a second, of each source
	commitTimeout  = 5 * time.Second
	refusedEvery   = time.Minute // the log is told at most that often what could not be taken in
)

// ConnectedAge is the age up to which a copy is connected: three times its source may
// have said nothing.
const ConnectedAge = 30 * time.Second

// importLimits are the bounds that tests make smaller.
type importLimits struct {
	lead, retryMin, passing, retryMax, mended, silence, commit time.Duration
	queue, bytes, rate                                         int
}

func importDefaults() importLimits {
	return importLimits{
		lead: leadEvery, retryMin: retryMin, passing: passingMax, retryMax: retryMax, mended: mendedEvery, silence: silenceMax, commit: commitTimeout,
		queue: importQueueMax, bytes: importBytes, rate: importRate,
	}
}

// A source is one that is followed.
type source struct {
	Source
	importer *Importer
	key      registry.RegionKey
	wants    registry.Selection // of Wanted
	next     int                // of its addresses
	rate     pace

	refused     int // instances that were not taken in and not warned of yet; like the next five, of the goroutine that runs it
	lastRefused error
	warned      time.Time
	ended       string // why the last stream has ended, as the log was told then
	endedAt     time.Time
	stood       registry.ImportCursor // where the copy was when it did, as it was known then

	link      linkState
	following atomic.Bool
	heard     atomic.Uint64 // the newest revision that it has told of
}

// NewImporter makes an importer.
func NewImporter(c ImporterConfig) (*Importer, error) {
	if c.Registry == nil || c.Identity == nil || c.Leads == nil {
		return nil, errors.New("federation: ImporterConfig.Registry, Identity and Leads are required")
	}
	i := &Importer{
		registry: c.Registry, identity: c.Identity, leads: c.Leads, log: c.Logger, metrics: newImportMetrics(), limits: importDefaults(), understands: c.Level,
		reach: dial, jitter: rand.N[time.Duration],
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range c.Sources {
		if s.Region == "" || s.ClusterID == 0 || len(s.Addresses) == 0 {
			return nil, fmt.Errorf("federation: source %q needs a region, a cluster and addresses", s.Region)
		}
		if len(s.Dial) == 0 {
			s.Dial = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
		}
		wants, err := registry.Select(s.Wanted)
		if err != nil {
			return nil, fmt.Errorf("federation: what is wanted of source %q: %w", s.Region, err)
		}
		i.sources = append(i.sources, &source{Source: s, importer: i, wants: wants, key: registry.RegionKey{Region: s.Region, Cluster: s.ClusterID}})
	}
	if c.Registerer != nil {
		if err := errors.Join(i.metrics.register(c.Registerer), c.Registerer.Register(i)); err != nil {
			return nil, fmt.Errorf("register the metrics of federation: %w", err)
		}
	}
	return i, nil
}

// Run follows the sources whenever this member leads, until the context ends.
func (i *Importer) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, s := range i.sources {
		all.Go(func() { s.run(ctx) })
	}
	all.Go(func() { i.ageAll(ctx) })
	all.Wait()
	return nil
}

// ageAll has it committed, while this member leads, when the copy of a region has become
// too old for a policy, or some of it is to go: of those, too, that cannot be reached, that are paused, and that are
// in no settings any more.
func (i *Importer) ageAll(ctx context.Context) {
	for rest(ctx, i.limits.lead) {
		if !i.leads() {
			continue
		}
		for _, of := range i.registry.Regions() {
			i.age(ctx, of.Key)
		}
	}
}

func (i *Importer) age(ctx context.Context, k registry.RegionKey) {
	ctx, cancel := context.WithTimeout(ctx, i.limits.commit)
	defer cancel()
	if err := i.registry.AgeRegion(ctx, k); err != nil && ctx.Err() == nil {
		i.log.Warn("it cannot be said yet that the copy of a region is old, or young again", "region", k.Region, "because", err)
	}
	if err := i.registry.LetGo(ctx, k); err != nil && ctx.Err() == nil && !errors.Is(err, registry.ErrCursorDiffers) { // else a full sync is under way, and decides
		i.log.Warn("what is to go of the copy of a region cannot be let go of yet", "region", k.Region, "because", err)
	}
}

// run follows one source: its members in turn, and after each that does not answer a
// while longer.
func (s *source) run(ctx context.Context) {
	l, wait := &s.importer.limits, time.Duration(0)
	for rest(ctx, wait) {
		if !s.wanted() {
			s.link.rests()
			wait = l.lead
			continue
		}
		began := time.Now()
		err := s.follow(ctx)
		met := s.following.Swap(false)
		s.importer.metrics.ended.WithLabelValues(s.Region, whyEnded(err)).Inc()
		if meant(err) || ctx.Err() != nil {
			wait = l.lead
			continue
		}
		s.link.fails(s.problemOf(err), time.Now())
		s.warnEnded(err, time.Now())
		s.next++
		if worked := time.Since(began); worked > l.retryMax || met && worked > l.passing && passes(err) { // for a while
			wait = 0
		}
		wait = s.retryAfter(err, wait)
		if lasts(err) {
			s.awaitMended(ctx, wait)
			wait = 0
		}
	}
}

func (s *source) address() string { return s.Addresses[s.next%len(s.Addresses)] }

// wanted says whether this member is to follow the source now.
func (s *source) wanted() bool {
	return s.importer.leads() && !s.importer.registry.Region(s.key).Stopped()
}

// rest waits; false says that the context is over.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// errNotWanted is that this member does not lead any more, or that a copy is paused.
var errNotWanted = errors.New("federation: this member is not to follow it now")

// guard ends a stream when it is not wanted any more, or when an operator wants all
// there is told anew: then the copy, which has begun, has no cursor.
func (s *source) guard(ctx context.Context, end context.CancelCauseFunc, begun bool) {
	for rest(ctx, s.importer.limits.lead) {
		if !s.wanted() {
			end(errNotWanted)
			return
		}
		at := s.importer.registry.Region(s.key).Cursor
		if begun && at.Anew() {
			end(registry.ErrCursorDiffers)
			return
		}
		begun = !at.Anew()
	}
}

// dial makes a connection to the member whose turn it is. It is made when it is called.
func dial(s *source) (replicationv1.ReplicationServiceClient, io.Closer, error) {
	conn, err := grpc.NewClient(s.address(), append([]grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
	}, s.Dial...)...)
	if err != nil {
		return nil, nil, err
	}
	return replicationv1.NewReplicationServiceClient(conn), conn, nil
}

// follow has one member of the source tell what it has, until something ends that.
func (s *source) follow(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer end(nil)
	s.link.tries(s.address())
	client, conn, err := s.importer.reach(s)
	if err != nil {
		return fmt.Errorf("reach %s: %w", s.address(), err)
	}
	defer conn.Close() // all that it could say is that it is closed already
	c := &copier{source: s, at: s.importer.registry.Region(s.key).Cursor, queue: make(chan received, s.importer.limits.queue)}
	begun := !c.at.Anew()
	parts.Go(func() { s.guard(ctx, end, begun) })
	if err := c.open(ctx, client); err != nil {
		return err
	}
	parts.Go(func() { end(c.receive(ctx, end)) }) // before the hello, which may be what it is ended for
	if err = c.greet(); err == nil {
		err = c.run(ctx)
	}
	s.stood = c.at
	return cmp.Or(causeOf(ctx), err)
}

// causeOf is why a context is over; nil while it is not.
func causeOf(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
