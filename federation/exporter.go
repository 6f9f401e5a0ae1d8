package federation

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// An Exporter tells replicators what this region has.
type Exporter struct {
	registry *registry.Registry
	identity func() Identity
	token    [sha256.Size]byte
	guarded  bool // the token is asked for
	proves   func(ctx context.Context, region string) error
	open     bool // nobody is asked for anything
	exports  registry.Selection
	log      *slog.Logger
	metrics  *metrics
	limits   limits
	life     context.Context // over when streams have to end
	end      context.CancelFunc

	greetings chan struct{} // a place for each stream that has not said who it is
	syncs     chan struct{} // a place for each that is told all there is
	rate      pace          // of those

	mu        sync.Mutex // guards what follows
	following map[followerKey]*follower
}

// A followerKey is by what a replicator is known: no region can end another's stream by
// taking its name.
type followerKey struct{ region, name string }

// Config is what an Exporter needs.
type Config struct {
	Registry *registry.Registry // required
	Identity func() Identity    // required
	Token    string             // what replicators present; "" = there is none, and nobody is answered
	Open     bool               // without a token everybody is answered: only those may reach the port who may read anyway
	Exports  registry.Selection // whatever is asked for, what is not in it does not exist
	// Proves says whether a caller has proved to be of the region that it names. Nil = its word is taken.
	Proves     func(ctx context.Context, region string) error
	Logger     *slog.Logger // nil = none
	Registerer prometheus.Registerer
}

// Identity is what a member says of itself and its cluster.
type Identity struct {
	Region       string
	ClusterID    uint64
	Incarnation  string
	FeatureLevel uint32
	Member       uint64
}

// The bounds of what is told to replicators. They have nothing to do with those of
// the clients' watches.
const (
	followersMax       = 16 // the next is refused
	greetingsMax       = 64 // streams that have not said who they are; the next is refused
	syncsAtOnce        = 2  // are told all there is; others wait for a place
	helloTimeout       = 10 * time.Second
	ackTimeout         = 30 * time.Second // for a response to be acknowledged; then the stream ends
	confirmTimeout     = time.Second      // for a leader to confirm a mark of progress; then it is told as it was last confirmed
	leaderlessMax      = 5 * time.Second  // since what was last confirmed, when there is nobody to confirm a mark; then the stream ends
	callTimeout        = 4 * time.Second  // for a leader to confirm what a stream begins with
	progressEvery      = 10 * time.Second
	windowRevisionsMax = 1_024   // told and not acknowledged; a response without one counts as one
	windowBytesMax     = 4 << 20 // the same; a larger response is told alone
	pageBytesMax       = 256 << 10
	pageInstancesMax   = 256
	syncRate           = 32 << 20 // bytes a second, for all that are told all there is together
	syncTimeMax        = 30 * time.Minute
	syncHeldMax        = 128 << 20 // bytes of instances that are held for one, though they have been replaced
)

// limits are the bounds that tests make smaller.
type limits struct {
	followers                                    int
	hello, ack, confirm, call, progress, sync    time.Duration
	windowRevisions, windowBytes                 int
	pageBytes, pageInstances, syncRate, syncHeld int
}

func defaults() limits {
	return limits{
		followers: followersMax,
		hello:     helloTimeout, ack: ackTimeout, confirm: confirmTimeout, call: callTimeout, progress: progressEvery, sync: syncTimeMax,
		windowRevisions: windowRevisionsMax, windowBytes: windowBytesMax,
		pageBytes: pageBytesMax, pageInstances: pageInstancesMax, syncRate: syncRate, syncHeld: syncHeldMax,
	}
}

// NewExporter makes an exporter.
func NewExporter(c Config) (*Exporter, error) {
	if c.Registry == nil || c.Identity == nil {
		return nil, errors.New("federation: Config.Registry and Config.Identity are required")
	}
	e := &Exporter{
		registry: c.Registry, identity: c.Identity, log: c.Logger,
		token: sha256.Sum256([]byte(c.Token)), guarded: c.Token != "", open: c.Token == "" && c.Open, exports: c.Exports,
		metrics: newMetrics(), limits: defaults(), following: make(map[followerKey]*follower),
		greetings: make(chan struct{}, greetingsMax), syncs: make(chan struct{}, syncsAtOnce),
	}
	if e.proves = c.Proves; e.proves == nil {
		e.proves = func(context.Context, string) error { return nil }
	}
	e.life, e.end = context.WithCancel(context.Background())
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer != nil {
		if err := errors.Join(e.metrics.register(c.Registerer), c.Registerer.Register(e)); err != nil {
			return nil, fmt.Errorf("register the metrics of replication: %w", err)
		}
	}
	return e, nil
}

// A service is the exporter in the form of the generated code.
type service struct {
	replicationv1.UnimplementedReplicationServiceServer
	exporter *Exporter
}

// Register has a server answer replicators.
func (e *Exporter) Register(s grpc.ServiceRegistrar) {
	replicationv1.RegisterReplicationServiceServer(s, &service{exporter: e})
}

// Run ends the streams when the context does.
func (e *Exporter) Run(ctx context.Context) error {
	<-ctx.Done()
	e.end()
	return nil
}

// admit looks at what comes with a call, before anything of it is read. Digests are
// compared, so that the time it takes tells nothing of the token.
func (e *Exporter) admit(ctx context.Context) error {
	if e.open {
		return nil
	}
	if !e.guarded {
		return errNoToken
	}
	header, _ := metadata.FromIncomingContext(ctx)
	given := header.Get("authorization")
	if len(given) != 1 {
		return errUnauthorized
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if subtle.ConstantTimeCompare(digest[:], e.token[:]) != 1 || !strings.EqualFold(scheme, "Bearer") {
		return errUnauthorized
	}
	return nil
}

// join gives a replicator its place. One that is here already, as far as this member
// knows, has lost its connection: its stream ends.
func (e *Exporter) join(f *follower) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.following[f.key()]
	if old == nil && len(e.following) >= e.limits.followers {
		return errTooMany
	}
	if old != nil {
		old.cut(errReplaced)
	}
	e.following[f.key()] = f
	return nil
}

func (e *Exporter) leave(f *follower) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.following[f.key()] == f {
		delete(e.following, f.key())
	}
}
